"""Names of flow runs in Prefect's UI."""

from __future__ import annotations

from pathlib import Path

from prefect.runtime import flow_run


def flow_run_name() -> str:
    """`<flow> <recipe>`, such as `train proxy`."""
    return f"{flow_run.flow_name} {Path(str(flow_run.parameters['recipe'])).stem}"
