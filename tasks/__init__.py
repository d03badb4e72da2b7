"""Prefect tasks: one named task a stage, by area. What they share stands in stage.py."""
