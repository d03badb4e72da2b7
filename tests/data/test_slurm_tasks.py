"""A data stage's tasks as an array of jobs, submitted to commands with Slurm's names that really run them (tests/launch/fake_slurm)."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import array_tasks
import pytest

from allam.cluster import ClusterProfile
from allam.data import slurm_tasks, tasks
from allam.data.slurm_tasks import PICKLE, SlurmExecutor
from allam.errors import StageCancelled, StageFailed, UserError

FAKE = Path(__file__).parents[1] / "launch" / "fake_slurm"


def profile(**slurm: Any) -> ClusterProfile:
    return ClusterProfile(data_executor="slurm", environment={"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"},
                          slurm={"poll_seconds": 0.05, "restarts": 1, "account": "nlp"} | slurm)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fake's folder."""
    (tmp_path / "fake" / "jobs").mkdir(parents=True)
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "fake"))
    monkeypatch.setenv("PATH", f"{FAKE}:{os.environ['PATH']}")
    monkeypatch.setenv("ALLAM_CLUSTER", profile().model_dump_json())
    monkeypatch.setattr(tasks, "BYTES_WORTH_A_JOB", 10)
    for name in ("SECONDS_TO_SEE_FILES", "SECONDS_TO_APPEAR", "SECONDS_TO_COME_BACK"):
        monkeypatch.setattr(slurm_tasks, name, 0.2)
    monkeypatch.setattr(slurm_tasks, "SECONDS_BETWEEN_FILES", 0.05)
    return tmp_path / "fake"


def run(folder: Path, count: int = 4, size: int = 20) -> None:
    tasks.run_tasks(folder, "things", partial(array_tasks.note, folder), count, unit="things", total=count, size=size)


def begun(folder: Path) -> list[int]:
    """How often each task was begun."""
    return [len(path.read_text().splitlines()) for path in sorted(folder.glob("begun-*"))]


def test_tasks_are_shared_by_the_jobs_of_an_array_and_the_lost_ones_alone_are_sent_again(fake: Path, tmp_path: Path,
                                                                                            capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kill-3").touch()
    run(tmp_path)
    assert begun(tmp_path) == [1, 1, 1, 2]
    assert sorted(path.name for path in (fake / "jobs").iterdir()) == ["1_0", "1_1", "3_0"]
    assert "1 tasks were lost (FAILED); they are sent again" in capsys.readouterr().out
    run(tmp_path)
    assert begun(tmp_path) == [1, 1, 1, 2]


def test_a_tasks_own_error_is_the_stages_in_its_words_and_its_kind(fake: Path, tmp_path: Path) -> None:
    (tmp_path / "fail-1").touch()
    with pytest.raises(UserError, match="the file of task 1 is not readable") as error:
        run(tmp_path, 2)
    assert error.value.remedy == "mend it"
    (tmp_path / "fail-1").unlink()
    run(tmp_path, 2)
    assert (tmp_path / "done-1").exists()


def test_cancelled_jobs_end_the_stage_as_cancelled_and_lost_ones_as_failed_after_some_tries(fake: Path, tmp_path: Path) -> None:
    executor = SlurmExecutor([], 4, 2, tmp_path / "x" / "datatrove", profile())
    job = slurm_tasks.Job
    with pytest.raises(StageCancelled, match="3 of 4 tasks"):
        executor._refuse(3, [job("7_0", "COMPLETED"), job("7_1", "CANCELLED")], 0)
    with pytest.raises(StageFailed, match="OUT_OF_MEMORY") as error:
        executor._refuse(1, [job("7_0", "OUT_OF_MEMORY")], 0)
    assert "slurm.task_memory" in error.value.remedy
    executor._refuse(1, [job("7_0", "FAILED")], 1)
    with pytest.raises(StageFailed, match=r"1 of 4 tasks .* lost .FAILED."):
        executor._refuse(1, [job("7_0", "FAILED")], 2)


def test_a_submission_without_an_answer_is_followed_and_not_repeated(fake: Path, tmp_path: Path) -> None:
    (fake / "answer").write_text("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    run(tmp_path)
    assert begun(tmp_path) == [1, 1, 1, 1]


def test_what_is_too_small_for_two_jobs_stays_with_the_stage(fake: Path, tmp_path: Path) -> None:
    run(tmp_path, size=10)
    assert begun(tmp_path) == [1, 1, 1, 1]
    assert not list((fake / "jobs").iterdir())


def test_the_script_asks_for_one_cpu_and_two_gigabytes_a_job_and_names_what_is_read(tmp_path: Path) -> None:
    given = profile(cpu_partition="cpu", time_limit="2:00:00", task_jobs=50, modules=("python/3.11",), container=("apptainer", "exec", "/a b.sif"),
                    python="/opt/python", options=("--reservation=paper",))
    executor = SlurmExecutor([], 5000, 5000, tmp_path / "filter" / "datatrove", given)
    lines = executor.script(1000, "c" * 64).splitlines()
    assert [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")] == [
        "--array=0-999%50", f"--job-name={executor.job_name}", "--output=output/%a.txt", "--open-mode=append", "--nodes=1", "--ntasks=1", "--cpus-per-task=1",
        "--account=nlp", "--partition=cpu", "--time=2:00:00", "--mem=2G", "--requeue", "--reservation=paper"]
    assert executor.tasks_per_job == 5
    assert lines[-1] == (f"exec apptainer exec '/a b.sif' /opt/python -m allam.data.slurm_tasks {tmp_path}/filter/datatrove/{PICKLE} {'c' * 64}")
    assert "module load python/3.11" in lines
    assert "export OMP_NUM_THREADS=1" in lines
    assert executor.job_name != SlurmExecutor([], 1, 1, tmp_path / "other" / "filter" / "datatrove", given).job_name


def test_a_job_reads_no_other_pickle_than_the_one_that_was_submitted(tmp_path: Path) -> None:
    path = tmp_path / PICKLE
    path.write_bytes(pickle.dumps(partial(print, "code that ran")))
    done = subprocess.run([sys.executable, "-m", "allam.data.slurm_tasks", str(path), "0" * 64], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is not what was submitted" in done.stderr
    assert "code that ran" not in done.stdout
