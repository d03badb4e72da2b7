"""Data stages on a real Slurm cluster (infra/slurm/cluster.py): whatever does the tasks and whatever kills them, the bytes are those of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import array_tasks
import pytest
import yaml
from data_stages import checksums, run_stages
from data_stages import profile as local_profile

import allam.sample
from allam.cluster import ClusterProfile
from allam.data import slurm_tasks, tasks
from allam.data.config import DataConfig
from allam.errors import StageCancelled
from allam.recipe import locate

pytestmark = pytest.mark.slow
STAGES = ("ingest", "filter", "dedup", "translate")


@pytest.fixture
def cluster(slurm_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = ClusterProfile(data_executor="slurm", slurm={"poll_seconds": 0.3, "task_jobs": 4, "task_memory": "1000"},
                             environment={"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"})
    monkeypatch.setenv("ALLAM_CLUSTER", profile.model_dump_json())
    monkeypatch.setattr(slurm_tasks, "SECONDS_TO_SEE_FILES", 1.0)


def sample_stages(base: Path) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """The metrics and the checksums of the stages over the sample."""
    data = DataConfig.model_validate(yaml.safe_load(locate("demo").read_text(encoding="utf-8"))["data"])
    metrics = run_stages(data, allam.sample.root(), base)
    return metrics, {name: checksums(base / name) for name in STAGES}


def jobs_begun(folder: Path) -> int:
    """Jobs of all arrays below a folder that said anything or began."""
    return len(list(folder.rglob("datatrove/output/*.txt")))


def test_jobs_of_an_array_make_the_bytes_of_one_two_and_four_processes(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "BYTES_WORTH_A_WORKER", 1)
    monkeypatch.setattr(tasks, "BYTES_WORTH_A_JOB", 200_000)  # two to four jobs a step over the sample
    by_array = sample_stages(tmp_path / "array")
    assert jobs_begun(tmp_path / "array") > 8
    for workers in (1, 2, 4):
        monkeypatch.setenv("ALLAM_CLUSTER", local_profile(workers))
        assert sample_stages(tmp_path / str(workers)) == by_array


class Stage:
    """`array_tasks.note` by 4 tasks in 4 jobs; `hold-<task>` makes a task wait."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks, "BYTES_WORTH_A_JOB", 1)
        self.folder, self.outcome = folder, list[BaseException | None]()

    def start(self) -> Stage:
        """Runs the tasks in a thread."""
        def follow() -> None:
            try:
                tasks.run_tasks(self.folder, "things", partial(array_tasks.note, self.folder), 4, unit="things", total=4, size=4)
                self.outcome.append(None)
            except BaseException as error:
                self.outcome.append(error)

        self.thread = threading.Thread(target=follow)
        self.thread.start()
        return self

    def finish(self) -> BaseException | None:
        """Waits for the end; returns the error."""
        self.thread.join(240)
        assert not self.thread.is_alive()
        return self.outcome[-1]

    def begun(self) -> list[int]:
        """How often each task was begun."""
        return [len(path.read_text().splitlines()) for path in sorted(self.folder.glob("begun-*"))]

    def done(self) -> int:
        """How many tasks are done."""
        return len(list(self.folder.glob("done-*")))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def job_of(task: int) -> str:
    """The job that does a task; others may be about to end."""
    running = subprocess.run(["squeue", "--noheader", "--states=RUNNING", "--format=%i"], check=True, capture_output=True, text=True).stdout.split()
    return next(job for job in running if job.endswith(f"_{task}"))


def test_a_killed_job_is_sent_again_and_only_its_task_is_done_again(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hold-2").touch()
    stage = Stage(tmp_path, monkeypatch).start()
    wait_for(lambda: (tmp_path / "pid-2").exists() and stage.done() == 3)
    os.kill(int((tmp_path / "pid-2").read_text()), signal.SIGKILL)
    (tmp_path / "hold-2").unlink()
    assert stage.finish() is None
    assert stage.begun() == [1, 1, 2, 1]


def test_a_requeued_job_does_its_task_again(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hold-1").touch()
    stage = Stage(tmp_path, monkeypatch).start()
    wait_for(lambda: (tmp_path / "pid-1").exists() and stage.done() == 3)
    subprocess.run(["scontrol", "requeue", job_of(1)], check=True)
    wait_for(lambda: stage.begun() == [1, 2, 1, 1])
    (tmp_path / "hold-1").unlink()
    assert stage.finish() is None
    assert stage.begun() == [1, 2, 1, 1]


def test_a_cancelled_job_ends_the_stage_as_cancelled_and_the_next_try_does_its_task_alone(cluster: None, tmp_path: Path,
                                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hold-0").touch()
    stage = Stage(tmp_path, monkeypatch).start()
    wait_for(lambda: (tmp_path / "pid-0").exists() and stage.done() == 3)
    subprocess.run(["scancel", job_of(0)], check=True)
    assert isinstance(stage.finish(), StageCancelled)
    (tmp_path / "hold-0").unlink()
    assert stage.start().finish() is None
    assert stage.begun() == [2, 1, 1, 1]


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
import array_tasks
from allam.data import tasks
tasks.BYTES_WORTH_A_JOB = 1
folder = Path(sys.argv[1])
tasks.run_tasks(folder, "things", partial(array_tasks.note, folder), 4, unit="things", total=4, size=4)
"""


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_stage_finds_its_array_again_and_one_that_is_stopped_cancels_it(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                                  with_signal: signal.Signals) -> None:
    for task in range(4):
        (tmp_path / f"hold-{task}").touch()
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], env=os.environ | {"PYTHONPATH": paths})
    wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 4)
    process.send_signal(with_signal)
    process.wait(60)
    if with_signal == signal.SIGTERM:
        wait_for(lambda: not subprocess.run(["squeue", "--noheader"], check=True, capture_output=True, text=True).stdout)
    for task in range(4):
        (tmp_path / f"hold-{task}").unlink()
    assert Stage(tmp_path, monkeypatch).start().finish() is None
    assert Stage(tmp_path, monkeypatch).begun() == ([1] * 4 if with_signal == signal.SIGKILL else [2] * 4)
