"""Runs one stage in worker processes of this machine, or finds that it is done, or waits for the worker that is making it.

`make(...)` is the whole of it: a Prefect task, the `allam` command and a test all call it. The worker (allam/worker.py) gets a process group
of its own, so that stopping a stage stops everything that it started; its output is appended to log.txt in the artifact's folder. A crash of
the launcher leaves the worker alone: the next launcher finds it by the lock that it holds, and waits for it instead of starting another.
"""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

from allam.artifacts import LOG, MANIFEST, ArtifactRef, Store, is_being_made, lock_holder
from allam.cluster import RANK_VARIABLES, ClusterProfile
from allam.errors import AllamError, StageFailed
from allam.launch.folder import (
    LAUNCH,
    RUN_AGAIN,
    Made,
    OnProgress,
    Relay,
    full_disk,
    log_lines,
    prepare,
    remove_scratch,
    tail,
    told_failure,
    worker_variables,
)
from allam.pipeline import StageSpec

POLL_SECONDS = 0.1
SECONDS_TO_STOP = 10.0  # between SIGTERM and SIGKILL


def make(spec: StageSpec, inputs: Mapping[str, ArtifactRef], store: Store, profile: ClusterProfile, on_progress: OnProgress | None = None) -> Made:
    """Sees to it that the stage's artifact is done. `inputs` are the artifacts that it is made from, by the stage's names for them.

    Raises `UserError` or `StageFailed` with the worker's own words; on any exception (a timeout, Ctrl-C) the worker's processes are gone.
    """
    ref, report = store.ref(spec.kind, spec.key), on_progress or (lambda state: None)
    waited = _wait_for_live_worker(spec, ref.path, profile, report)
    manifest = store.manifest(spec.kind, spec.key)
    if manifest is None:
        prepare(spec, inputs, store)
        _run(spec, ref.path, profile, report)
        manifest = store.manifest(spec.kind, spec.key)
        if manifest is None:
            raise StageFailed(f"{spec.name} ended without an error and without a manifest", f"its log is {ref.path / LOG}")
        return Made(ref, manifest, True)
    remove_scratch(ref.path)
    return Made(ref, manifest, waited)


def command(spec: StageSpec, folder: Path, profile: ClusterProfile) -> list[str]:
    """The worker's command line: torchrun where the stage has ranks and the profile gives it more than one."""
    if spec.stage.ranks and profile.ranks > 1:
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={profile.ranks}", "--module",
                "allam.worker", str(folder)]
    return [sys.executable, "-m", "allam.worker", str(folder)]


def environment(folder: Path, profile: ClusterProfile) -> dict[str, str]:
    """The worker's environment: the caller's, but for the ranks of a launch that the caller may be part of, and what every worker gets."""
    inherited = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    return inherited | {LAUNCH: uuid.uuid4().hex} | worker_variables(folder, profile)


def _run(spec: StageSpec, folder: Path, profile: ClusterProfile, report: OnProgress) -> None:
    arguments = command(spec, folder, profile)
    with open(folder / LOG, "a", encoding="utf-8") as log:
        log.write(f"--- {datetime.datetime.now().astimezone().isoformat(timespec='seconds')} {' '.join(arguments)}\n")
        log.flush()
        start_of_log = log.tell()
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True,
                                   env=environment(folder, profile))
    try:
        status = _watch(spec, process, folder, profile, report)
    finally:
        _stop(process)
    if status != 0 and not (folder / MANIFEST).exists():
        raise _failure(spec, folder, status, start_of_log)


def _watch(spec: StageSpec, process: subprocess.Popen[bytes], folder: Path, profile: ClusterProfile, report: OnProgress) -> int:
    """Follows the worker to its end; returns its exit status, negative for a signal. It stays a zombie, so that its group's number isn't reused."""
    deadline, relay = time.monotonic() + profile.timeout_hours * 3600, Relay(folder, report)
    while True:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        relay()  # after the look at the process, so that the last state of one that has ended is passed on, however short its life
        if ended is not None:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        if time.monotonic() > deadline:
            raise StageFailed(f"{spec.name} ran longer than {profile.timeout_hours:g} hours and was stopped",
                              f"raise timeout_hours in the cluster profile and {RUN_AGAIN}")
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the worker's whole process group, itself and whatever it started; first with SIGTERM, unless it has ended by itself."""
    if process.returncode is not None:
        return
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while time.monotonic() < deadline and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            time.sleep(POLL_SECONDS)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(spec: StageSpec, folder: Path, status: int, start_of_log: int) -> AllamError:
    """The error to raise for a worker that failed: its own words where it left any."""
    told = told_failure(spec, folder) or full_disk(spec, folder)
    if told is not None:
        return told
    lines = log_lines(folder, start_of_log)
    if status == -signal.SIGKILL or any("exitcode: -9" in line or "Signal 9 (SIGKILL)" in line for line in lines):
        return StageFailed(f"{spec.name}: a worker was killed (SIGKILL), most likely because memory ran out",
                           f"lower micro_batch, workers or ranks in the cluster profile and {RUN_AGAIN}")
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return StageFailed(f"{spec.name}: its worker {how} and left no message; its log ends with\n{tail(lines)}", f"the whole log is {folder / LOG}")


# --- workers that other launchers started ---------------------------------------------------------------------------------------

def _wait_for_live_worker(spec: StageSpec, folder: Path, profile: ClusterProfile, report: OnProgress) -> bool:
    """Waits while a worker makes the artifact; returns whether there was one. What a dead one left running is ended."""
    if not folder.is_dir():
        return False
    deadline, relay, waited = time.monotonic() + profile.timeout_hours * 3600, Relay(folder, report), False
    while is_being_made(folder):
        pid, launch = lock_holder(folder)
        if launch and not _belongs_to(pid, launch):
            end_leftovers(launch)
        waited = True
        relay()
        if time.monotonic() > deadline:
            raise StageFailed(f"{spec.name} is being made by process {pid}, which didn't end within {profile.timeout_hours:g} hours",
                              f"look into {folder / LOG}; end that process if it is stuck")
        time.sleep(POLL_SECONDS)
    pid, launch = lock_holder(folder)
    if launch and not _belongs_to(pid, launch) and not (folder / MANIFEST).exists():
        end_leftovers(launch)
    return waited


def _belongs_to(pid: int, launch: str) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(LAUNCH) == launch
    except psutil.Error:
        return False


def end_leftovers(launch: str) -> None:
    """Kills processes of a launch whose worker is dead (its helpers outlive a `kill -9`), lest they write into the folder or keep its lock."""
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _belongs_to(process.pid, launch):
            try:
                process.kill()
            except psutil.Error:
                continue
