"""Runs one stage in an artifact's folder and commits its manifest: `python -m allam.worker FOLDER` (or under torchrun).

The folder's job.json says what to run. Rank 0 alone clears, locks and commits. Exit status: 0 done, 2 the user's mistake, 1 a failure;
what to tell the user then stands in error.json.
"""

from __future__ import annotations

import ctypes
import datetime
import errno
import gc
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

from allam.artifacts import (
    ERROR,
    JOB,
    LOG,
    PROGRESS,
    WORK,
    Manifest,
    checksum_outputs,
    clear_outputs,
    commit,
    folder_lock,
    lock_holder,
    read_manifest,
    write_json,
)
from allam.errors import AllamError, StageCancelled
from allam.versions import git_revision, versions


def main(folder: Path) -> int:
    """Runs the job in `folder`; returns the exit status."""
    rank = int(os.environ.get("RANK", "0"))
    os.environ.setdefault("ALLAM_PROGRESS", str(folder / PROGRESS))
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _die_with_parent()
    if rank != 0:
        if _wait_for_rank_0(folder):
            _run(folder)
        return 0
    try:
        with folder_lock(folder):
            if read_manifest(folder) is None:
                clear_outputs(folder)
                (folder / WORK).mkdir(exist_ok=True)
                _run_and_commit(folder)
            else:
                shutil.rmtree(folder / WORK, ignore_errors=True)
    except BaseException as error:
        return _report(folder, error)
    return 0


def _die_with_parent() -> None:
    """Asks the kernel to kill this rank when torchrun dies, which otherwise would leave it waiting for the others for half an hour."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _wait_for_rank_0(folder: Path) -> bool:
    """Waits until rank 0 of this launch holds the lock; False where it found the artifact done."""
    while lock_holder(folder)[1] != os.environ["ALLAM_LAUNCH"]:
        time.sleep(0.05)
    return read_manifest(folder) is None


def _run(folder: Path) -> dict[str, Any]:
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    from allam.pipeline import stage_of  # light: the stage's own module is imported next

    stage = stage_of(job["kind"])
    config = stage.config.model_validate(job["config"])
    inputs = {name: Path(path) for name, path in job["paths"].items()}
    module = importlib.import_module(stage.module)
    gc.freeze()  # what imports made stays to the end: without this the collector walks through it again and again, 0.1 to 0.3 s each time with torch loaded
    metrics: dict[str, Any] = module.run(config, inputs, folder)
    return metrics


def _run_and_commit(folder: Path) -> None:
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    started_at, start = datetime.datetime.now(datetime.UTC), time.monotonic()
    with _PeakMemory() as memory:
        metrics = _run(folder)
    commit(folder, Manifest(
        name=job["name"], kind=job["kind"], version=job["version"], key=job["key"], config=job["config"], inputs=job["inputs"],
        outputs=checksum_outputs(folder), metrics=metrics, started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - start, 3), peak_memory_bytes=memory.peak, world_size=int(os.environ.get("WORLD_SIZE", "1")),
        versions=versions(), git_revision=git_revision()))


class _PeakMemory:
    """The largest sum of resident memory over all ranks of this machine and their children, in bytes, sampled every half second."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()

    def _sample(self) -> None:
        me = psutil.Process()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            me = me.parent() or me  # torchrun, whose children are the ranks of this machine
        while not self._stop.wait(0.5):
            try:
                self.peak = max(self.peak, sum(p.memory_info().rss for p in [me, *me.children(recursive=True)]))
            except psutil.Error:
                continue

    def __enter__(self) -> _PeakMemory:
        threading.Thread(target=self._sample, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.peak = max(self.peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _report(folder: Path, error: BaseException) -> int:
    """Writes error.json for whoever started the worker, and the traceback to the log; returns the exit status.

    "again" there says that the reason lies outside this process: it was ended, or a rank lost its peers; a Slurm job then starts its ranks again.
    """
    again = False
    if isinstance(error, AllamError):
        message, remedy, status = error.message, error.remedy, error.exit_code
    elif _disk_is_full(error):
        message, status = f"the disk that holds {folder} is full", 1
        remedy = "free some space and run the same command again; the stage goes on where it was"
        clear_outputs(folder)  # half-written and of no use, and error.json needs room
    elif isinstance(error, MemoryError):
        message, remedy, status = "out of memory", "lower micro_batch or workers in the cluster profile and run again", 1
    elif isinstance(error, (KeyboardInterrupt, SystemExit)):
        message, remedy, status = "stopped from outside", "run the same command again; the stage goes on where it was", 1
        again = True
    else:
        again = isinstance(error, RuntimeError) and int(os.environ.get("WORLD_SIZE", "1")) > 1  # what torch raises when a peer is gone
        message = f"{type(error).__name__}: {error}"
        remedy, status = f"the traceback stands in {folder / LOG}", 1
    if isinstance(error, SystemExit):  # a stop that was asked for, with its own words
        print(error, flush=True)
    else:
        traceback.print_exception(error)
    try:
        write_json(folder / ERROR, {"message": message, "remedy": remedy, "exit_code": status, "again": again,
                                    "cancelled": isinstance(error, StageCancelled)})
    except OSError:
        print(f"error: {message}\n  -> {remedy}", file=sys.stderr, flush=True)
    return status


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether `error` or what caused it says so; libraries in C++ and Rust say it in words only."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _leave_group() -> None:
    """Leaves torch's process group, if the stage joined one: gloo's threads may else be at work when the process ends, which aborts it now and then, and
    launchers kill all ranks when one fails. At the very end of a process only: DeepSpeed keeps the group that it met first."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    status = main(Path(sys.argv[1]).resolve())
    if status == 0:
        _leave_group()
    sys.exit(status)
