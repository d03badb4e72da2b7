"""The DeepSpeed engine, its checkpoints and schedules, shared by pretraining, SFT and DPO."""
