"""A data stage's tasks on a Ray cluster, where the cluster profile says `data_executor: ray` (pip install allam[ray]); docs/slurm.md says how.

datatrove's Ray executor runs the tasks and records what is done. Its own way of sending them isn't used: it starts a pool of processes in an actor for each
task, waits for ever when one of those is killed, and ends without an error where tasks failed. Here each task is one of Ray's, which starts it again
where its process or its node died, and the first error of a task's own is the stage's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor

from allam.cluster import ClusterProfile, process_variables
from allam.data.tasks import EachTask
from allam.errors import StageFailed, UserError

MEMORY_OF_A_TASK = 2 << 30
MAX_RETRIES = 3  # of a task whose process or node died


class RayExecutor(RayPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """Runs `tasks`, as many at the same time as the cluster has CPUs and memory for."""

    def __init__(self, steps: list[EachTask], tasks: int, folder: Path, profile: ClusterProfile) -> None:
        super().__init__(steps, tasks=tasks, logging_dir=str(folder))
        self.profile = profile

    def run(self) -> None:
        """Runs the tasks that are not done yet; raises the first task's error."""
        try:
            import ray
        except ImportError:
            raise UserError("the cluster profile says data_executor: ray, and Ray isn't installed", "pip install 'allam[ray]', here and on the nodes") from None
        with _connected(self.profile):
            do, executor = ray.remote(num_cpus=1, memory=MEMORY_OF_A_TASK, max_retries=MAX_RETRIES)(_run_rank), ray.put(self)
            running = [do.remote(executor, rank) for rank in self.get_incomplete_ranks()]
            try:
                while running:
                    done, running = ray.wait(running)
                    ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise StageFailed(f"a task of the stage was lost {MAX_RETRIES + 1} times: {type(error).__name__}",
                                  "see the logs of Ray and run the same command again; finished shards are kept") from None
            finally:
                for task in running:
                    ray.cancel(task, force=True)


def _run_rank(executor: RayExecutor, rank: int) -> None:
    executor._run_for_rank(rank)


@contextmanager
def _connected(profile: ClusterProfile) -> Iterator[None]:
    """The profile's cluster, or one of `workers` CPUs on this machine that ends with the stage."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    address = profile.ray_address or os.environ.get("RAY_ADDRESS")
    here: dict[str, Any] = {} if address else {"num_cpus": profile.workers, "include_dashboard": False, "_memory": profile.workers * MEMORY_OF_A_TASK}
    ray.init(address=address or "local", log_to_driver=False, logging_level=logging.WARNING, runtime_env={"env_vars": process_variables(profile, 1)}, **here)
    try:
        yield
    finally:
        ray.shutdown()
