"""Runs a data stage's independent tasks (one a file or a shard) through one of datatrove's executors, as the cluster profile says.

datatrove gives the numbered tasks, the record of finished tasks (a stage that was killed goes on with the unfinished ones) and the way to
Slurm (slurm_tasks.py) and Ray (ray_tasks.py). Its logging folder lies in the artifact's `work/`, since it skips finished tasks without regard to the
configuration.
A task writes whole files below `work/` and nothing else; the stage links them into the artifact at its end, because whatever lies
outside `work/` is cleared when a killed stage is entered again. The number of workers changes nothing but the time.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from allam.artifacts import write_atomic
from allam.cluster import execution
from allam.errors import AllamError, StageFailed, UserError
from allam.progress import Progress

BYTES_WORTH_A_WORKER = 16_000_000  # a second process costs about a second to start; the filters do about 8 MB a second
BYTES_WORTH_A_JOB = 64_000_000  # a job waits for the scheduler, too
SECONDS_BETWEEN_REPORTS = 0.5
TASKS_SUMMED_A_SECOND = 2000  # keeps the watch over ten thousand tasks below a few percent of a core

logger.disable("datatrove")  # at import, so that the pool's processes are quiet too; errors come as exceptions


class Meter:
    """Counts what one task has done, in a small file that the stage's own process sums up."""

    def __init__(self, path: Path) -> None:
        self.path, self.done, self._written = path, 0, time.monotonic()

    def add(self, n: int) -> None:
        """Counts `n` more units."""
        self.done += n
        if time.monotonic() - self._written > SECONDS_BETWEEN_REPORTS:
            self.write()

    def write(self) -> None:
        """Makes the count visible."""
        self._written = time.monotonic()
        self.path.write_text(str(self.done))


class EachTask(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """The one step of the pipeline: task number `rank` does its share."""

    name = "task"
    type = "allam"

    def __init__(self, do: Callable[[int, Meter], None], meters: Path) -> None:
        super().__init__()
        self.do, self.meters = do, meters

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Called by datatrove; nothing is handed from step to step."""
        meter = Meter(self.meters / f"{rank:05d}")
        self.do(rank, meter)
        meter.write()
        return ()


class _Executor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor with a pool of its own making.

    Its stock pool waits for ever when one of its processes dies (the kernel's memory killer), and its manager process costs more than a small
    stage takes; this one fails at once, and runs a single worker's tasks in this process.
    """

    def run(self) -> None:
        """Runs the ranks that are not completed yet; raises the first task's error."""
        ranks = self.get_incomplete_ranks()
        if self.workers == 1:
            for rank in ranks:
                self._run_for_rank(rank)
            return
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["allam.data.tables"])  # its imports are paid once, not by each process of each pool
        with ProcessPoolExecutor(self.workers, mp_context=context, initializer=_take, initargs=(self,)) as pool:
            running = [pool.submit(_run_rank, rank) for rank in ranks]
            try:
                for task in as_completed(running):
                    task.result()
            except BrokenProcessPool:
                raise StageFailed("a worker process of the stage died", "it was most likely out of memory: lower `workers` in the cluster profile and "
                                  "run again; finished shards are kept") from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


_taken: list[_Executor] = []  # in a process of the pool: the executor, sent once and not with each of its tasks, of which each knows all files


def _take(executor: _Executor) -> None:
    _taken[:] = [executor]


def _run_rank(rank: int) -> None:
    _taken[0]._run_for_rank(rank)


def note_error(folder: Path, task: int, error: Exception) -> None:
    """Leaves a task's error for the stage's process, which is on another machine."""
    told = error if isinstance(error, AllamError) else StageFailed(f"{type(error).__name__}: {error}", f"the traceback stands in {folder / 'logs'}")
    write_atomic(folder / "errors" / f"{task:05d}.json", orjson.dumps({"message": told.message, "remedy": told.remedy, "exit_code": told.exit_code}))


def raise_noted_error(folder: Path) -> None:
    """Raises the error that a task left, the first one's where there are several."""
    for path in sorted((folder / "errors").glob("*.json")):
        told = orjson.loads(path.read_bytes())
        raise (UserError if told["exit_code"] == UserError.exit_code else StageFailed)(told["message"], told["remedy"])


def run_tasks(work: Path, name: str, do: Callable[[int, Meter], None], tasks: int, *, unit: str, total: int, size: int) -> None:
    """Calls `do(task, meter)` for each task number below `tasks`, in processes where that pays; finished tasks are not done again.

    `do` must be picklable; `total` is the sum of what the tasks' meters will count, in `unit`s; `size` is the input's bytes.
    """
    if not tasks:
        return
    meters = work / name / "meters"
    meters.mkdir(parents=True, exist_ok=True)
    with _Watch(meters, Progress(unit, total, what=name)):
        _run([EachTask(do, meters)], tasks, work / name / "datatrove", size)


def _run(steps: list[PipelineStep], tasks: int, folder: Path, size: int) -> None:
    profile, jobs = execution(), min(tasks, math.ceil(size / BYTES_WORTH_A_JOB))
    if profile.data_executor == "slurm" and jobs > 1:
        from allam.data.slurm_tasks import SlurmExecutor

        SlurmExecutor(steps, tasks, jobs, folder, profile).launch_job()
    elif profile.data_executor == "ray" and jobs > 1:
        from allam.data.ray_tasks import RayExecutor

        RayExecutor(steps, tasks, folder, profile).run()
    else:
        workers = min(profile.workers, tasks, max(1, math.ceil(size / BYTES_WORTH_A_WORKER)))
        _Executor(steps, tasks=tasks, workers=workers, logging_dir=str(folder)).run()


class _Watch:
    """Sums up the meters of all tasks for the stage's progress, from a thread."""

    def __init__(self, meters: Path, progress: Progress) -> None:
        self.meters, self.progress = meters, progress
        self._stop, self._pause = threading.Event(), SECONDS_BETWEEN_REPORTS
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _sum(self) -> None:
        done = [int(path.read_text() or 0) for path in self.meters.iterdir()]
        self.progress.update(sum(done) - self.progress.done)
        self._pause = max(SECONDS_BETWEEN_REPORTS, len(done) / TASKS_SUMMED_A_SECOND)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self._sum()

    def __enter__(self) -> None:
        self.progress.__enter__()
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._sum()
        self.progress.__exit__(kind, error, trace)


def unique_temporary(path: Path) -> Path:
    """A temporary name beside `path` that no process of any machine uses but this: a task's orphan may still write when the stage is entered again."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
