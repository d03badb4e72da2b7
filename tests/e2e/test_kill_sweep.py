"""kill -9 of the whole process tree at random moments: the same command goes on, and the end is the same to the last bit."""

import random
import signal
import subprocess
import time

import psutil
import pytest
from whole_path import TINY, command, environment, manifests, result_checksums, run

KILLS = 10


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_keys_and_checksums(tiny, tmp_path):
    undisturbed, done = tiny
    assert done.returncode == 0, done.stdout + done.stderr
    seconds = sum(m["seconds"] for m in manifests(undisturbed).values())
    store, chance = tmp_path / "store", random.Random(20261)
    landed = []
    for _ in range(KILLS):
        process = subprocess.Popen(command(TINY, store), env=environment(), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for_a_worker(process)
        try:
            process.wait(timeout=chance.random() * 2 * seconds / KILLS)
            break  # done before the moment came
        except subprocess.TimeoutExpired:
            landed.append(_is_at_work(process))
            _kill_tree(process.pid)
            process.wait()
    assert sum(landed) >= 5, landed  # the faults landed where stages were being made
    last = run(TINY, store)
    assert last.returncode == 0, last.stdout + last.stderr
    assert set(manifests(store)) == set(manifests(undisturbed))
    differing = {name for name, checksum in result_checksums(undisturbed).items() if result_checksums(store).get(name) != checksum}
    assert not differing


def _kill_tree(pid: int) -> None:
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    time.sleep(0.5)


def _is_at_work(process: subprocess.Popen[bytes]) -> bool:
    """Whether a stage is being made below the run."""
    try:
        return any("allam.worker" in child.cmdline() for child in psutil.Process(process.pid).children(recursive=True))
    except psutil.Error:  # a worker that ended just now
        return False


def _wait_for_a_worker(process: subprocess.Popen[bytes]) -> None:
    """However slowly the machine starts a run, of which Prefect's server is the larger part."""
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not _is_at_work(process):
        time.sleep(0.1)
