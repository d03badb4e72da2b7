"""A data stage's tasks as an array of Slurm jobs, where the cluster profile says `data_executor: slurm`; docs/slurm.md is the guide.

datatrove's Slurm executor is what runs within the jobs: it finds a job's tasks by its number, skips finished ones and records what is done. It gets there
as a pickle that the stage's process writes into the artifact's `work/` and that goes with `work/`. The job's script names the pickle's SHA-256, and Slurm
keeps its own copy of a script from the submission on; so whoever can write to the store, but not submit for the user, can't put another in its place.

How datatrove submits isn't used: it goes away after `sbatch`, sends a second job that sums up statistics, and leaves a failed array to people. Here the
array is found again by its name after the stage was killed, waited for, cancelled with the stage, and what was lost on the way is sent again.

    python -m allam.data.slurm_tasks PICKLE SHA256          what a job of the array runs
"""

from __future__ import annotations

import hashlib
import math
import pickle
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
from datatrove.executor.slurm import SlurmPipelineExecutor

from allam.artifacts import write_atomic
from allam.cluster import ClusterProfile, process_variables
from allam.data.tasks import EachTask, note_error, raise_noted_error
from allam.errors import StageCancelled, StageFailed
from allam.slurm_queue import Job, NoAnswer, cancel, jobs, refuse_without_slurm, submit

ARRAY_SIZE = 1000  # of Slurm itself, where the site sets nothing else, an array's numbers end at 1000
SECONDS_TO_APPEAR = 60.0  # after a submission: so long it may take to show in the queue
SECONDS_TO_COME_BACK = 180.0  # after a node failed or preemption: so long until Slurm has requeued the jobs
SECONDS_TO_SEE_FILES = 20.0  # a shared file system shows what jobs wrote later than Slurm shows their end
SECONDS_BETWEEN_FILES = 1.0  # between looks at what is finished; those at the queue are `poll_seconds` apart
PICKLE, SCRIPT, OUTPUT = "executor.pickle", "array.sh", "output"
REMEDIES = {"OUT_OF_MEMORY": "raise slurm.task_memory in the cluster profile", "TIMEOUT": "raise slurm.time_limit in the cluster profile"}


class SlurmExecutor(SlurmPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """Sends `tasks` as one array of at most `count` jobs and waits for it; within a job of the array, `run` does that job's tasks."""

    def __init__(self, steps: list[EachTask], tasks: int, count: int, folder: Path, profile: ClusterProfile) -> None:
        super().__init__(steps, tasks=tasks, time="", partition="", logging_dir=str(folder), requeue_signals=None, max_array_size=ARRAY_SIZE,
                         tasks_per_job=math.ceil(tasks / min(count, ARRAY_SIZE)),
                         job_name=f"{folder.parent.name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}")
        self.folder, self.profile = folder, profile

    # --- in a job of the array ------------------------------------------------------------------------------------------------------

    def get_distributed_env(self, node_rank: int = -1) -> dict[str, str]:
        """What datatrove's own steps may ask for. Ours don't, and the look-up of the nodes would need scontrol in a container."""
        return {f"datatrove_{name}": "" for name in ("node_ips", "cpus_per_task", "mem_per_cpu", "gpus_on_node")} | {"datatrove_executor": "SLURM"}

    def _run_for_rank(self, rank: int, *more: Any, **named: Any) -> Any:
        try:
            return super()._run_for_rank(rank, *more, **named)
        except Exception as error:
            note_error(self.folder, rank, error)
            raise

    # --- in the stage's process -----------------------------------------------------------------------------------------------------

    def launch_job(self) -> None:
        """Returns when all tasks are done; raises what a task raised. Jobs that were lost are sent again, as long as that gets anything done."""
        refuse_without_slurm()
        fruitless = 0
        with self._cancelled_with_the_stage():
            at_work, past = self._arrays()
            while missing := self.get_incomplete_ranks():
                if not at_work:
                    self._submit(missing)
                found = self._wait(past)
                left = len(self.get_incomplete_ranks())
                fruitless = fruitless + 1 if left == len(missing) and not at_work else 0
                if left:
                    self._refuse(left, found, fruitless)
                at_work, past = self._arrays()

    def _arrays(self) -> tuple[bool, set[str]]:
        """Whether an array of this name is at work, and the numbers of those that are over; asks until Slurm answers."""
        while True:
            try:
                found = jobs(self.job_name)
            except NoAnswer:
                time.sleep(self.profile.slurm.poll_seconds)
                continue
            at_work = {_array(job) for job in found if not (job.ended or job.lost)}
            return bool(at_work), {_array(job) for job in found} - at_work

    def _submit(self, ranks: list[int]) -> None:
        shutil.rmtree(self.folder / "errors", ignore_errors=True)
        (self.folder / OUTPUT).mkdir(parents=True, exist_ok=True)
        pickled = pickle.dumps(self)
        write_atomic(self.folder / "ranks_to_run.json", orjson.dumps(ranks))
        write_atomic(self.folder / PICKLE, pickled)
        write_atomic(self.folder / SCRIPT, self.script(math.ceil(len(ranks) / self.tasks_per_job), hashlib.sha256(pickled).hexdigest()))
        try:
            print(f"{self.job_name}: {len(ranks)} tasks as the job array {submit(self.folder, SCRIPT)}", flush=True)
        except NoAnswer as error:  # it may have been submitted: `_wait` sees whether it was
            print(f"{self.job_name}: submitted without a clear answer ({error})", flush=True)

    def script(self, count: int, checksum: str) -> str:
        """The script of an array of `count` jobs that read the pickle with this SHA-256."""
        slurm = self.profile.slurm
        named = {"array": f"0-{count - 1}%{slurm.task_jobs}", "job-name": self.job_name, "output": f"{OUTPUT}/%a.txt", "open-mode": "append", "nodes": 1,
                 "ntasks": 1, "cpus-per-task": 1, "account": slurm.account, "partition": slurm.cpu_partition or slurm.partition, "qos": slurm.qos,
                 "time": slurm.time_limit, "mem": slurm.task_memory}
        options = [f"--{name}={value}" for name, value in named.items() if value is not None]
        options += ["--requeue" if slurm.requeue else "--no-requeue", *slurm.options]
        variables = [f"export {name}={shlex.quote(value)}" for name, value in process_variables(self.profile, 1).items()]
        command = [*slurm.container, slurm.python or sys.executable, "-m", "allam.data.slurm_tasks", str(self.folder.resolve() / PICKLE), checksum]
        lines = [*(f"#SBATCH {option}" for option in options), *(f"module load {module}" for module in slurm.modules), *slurm.lines, *variables,
                 f"exec {shlex.join(command)}"]
        return "\n".join(["#!/bin/bash", *lines, ""])

    def _wait(self, past: set[str]) -> list[Job]:
        """Returns when nothing is missing or the array is over: its jobs, as Slurm told last."""
        over_since: float | None = None
        while True:
            try:
                found = [job for job in jobs(self.job_name) if _array(job) not in past]
                is_over = all(job.ended or job.lost for job in found)
                over_since = (over_since or time.monotonic()) if is_over else None
                if over_since is not None and time.monotonic() - over_since > _patience(found):
                    return found
            except NoAnswer:
                over_since = None
            until = time.monotonic() + self.profile.slurm.poll_seconds
            while (rest := until - time.monotonic()) > 0:
                raise_noted_error(self.folder)
                if not self.get_incomplete_ranks():
                    return []
                time.sleep(min(rest, SECONDS_BETWEEN_FILES))

    def _refuse(self, left: int, found: list[Job], fruitless: int) -> None:
        """Raises where sending the missing tasks again would be against somebody's wish, or in vain."""
        states = {job.state for job in found if job.state != "COMPLETED"}
        if "CANCELLED" in states:
            raise StageCancelled(f"{left} of {self.tasks} tasks of the job array {self.job_name} were cancelled in Slurm", "run the same command again; "
                                 "what is finished is kept")
        if "OUT_OF_MEMORY" in states or fruitless > self.profile.slurm.restarts:
            remedy = next((remedy for state, remedy in REMEDIES.items() if state in states), f"see {self.folder / OUTPUT}")
            raise StageFailed(f"{left} of {self.tasks} tasks of the job array {self.job_name} were lost ({', '.join(sorted(states)) or 'without a word'})",
                              f"{remedy} and run the same command again; what is finished is kept")
        print(f"{self.job_name}: {left} tasks were lost ({', '.join(sorted(states)) or 'without a word'}); they are sent again", flush=True)

    @contextmanager
    def _cancelled_with_the_stage(self) -> Iterator[None]:
        """Cancels the array where the stage ends before it; SIGTERM, too, is an exception within."""
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _stop) if is_main else None
        try:
            yield
        except BaseException:
            with suppress(NoAnswer):  # then the jobs go on, and the next try follows them
                for number in {_array(job) for job in jobs(self.job_name) if not job.ended}:
                    cancel(number)
            raise
        finally:
            if is_main:
                signal.signal(signal.SIGTERM, before)


def _array(job: Job) -> str:
    """The number of a job's array."""
    return job.id.partition("_")[0]


def _patience(found: list[Job]) -> float:
    """For how long an array must be over, in seconds, before what is missing counts as lost."""
    return SECONDS_TO_APPEAR if not found else SECONDS_TO_COME_BACK if any(job.lost for job in found) else SECONDS_TO_SEE_FILES


def _stop(_signal: int, _frame: object) -> None:
    raise SystemExit(1)


def main(path: Path, checksum: str) -> None:
    """A job of the array."""
    pickled = path.read_bytes()
    if hashlib.sha256(pickled).hexdigest() != checksum:
        sys.exit(f"error: {path} is not what was submitted, and is not read\n  -> run the same command again")
    pickle.loads(pickled).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
