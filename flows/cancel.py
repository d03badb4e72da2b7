"""Prefect's cancel reaches the cluster: the hook of every flow that cancels its stages' Slurm jobs.

Prefect's runner calls it for a run that somebody cancelled, whatever became of the run's process. A crash is no cancel: it leaves the jobs, and the next
run follows them.
"""

from __future__ import annotations

from typing import Any

from prefect import Flow, State
from prefect.client.schemas.objects import FlowRun

from allam.launch import slurm
from flows.run import open_run


def cancel_jobs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Cancels the jobs of the run's stages that aren't done."""
    given = flow_run.parameters
    run = open_run(given.get("recipe", "demo"), given.get("overrides") or (), given.get("cluster"), given.get("store"))
    for spec in run.plan.specs.values():
        if run.profile.is_job(spec.stage.ranks) and run.store.manifest(spec.kind, spec.key) is None:
            for job in slurm.cancel_job(run.store.folder(spec.kind, spec.key)):
                print(f"{spec.name}: cancelled job {job}", flush=True)
