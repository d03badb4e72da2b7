"""Prefect flows: one for each area, one that chains them; cli.py is the `allam` command."""
