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
        try:
            process.wait(timeout=8 + chance.random() * 2 * seconds / KILLS)
            break  # done before the moment came
        except subprocess.TimeoutExpired:
            landed.append(_running_stages(store))
            _kill_tree(process.pid)
            process.wait()
    assert len([stages for stages in landed if stages]) >= 5, landed  # the faults landed where stages were being made
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


def _running_stages(store) -> list[str]:
    return [folder.parent.parent.name for folder in store.glob("*/*/job.json") if not (folder.parent / "manifest.json").exists()]
