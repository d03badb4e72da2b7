"""Ways of running a stage in processes of its own: today on this machine (local.py)."""
