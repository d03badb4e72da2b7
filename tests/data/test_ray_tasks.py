"""A data stage's tasks on a Ray cluster of this machine: the bytes are those of one process, also where a task's process is killed."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import array_tasks
import pytest
import yaml
from data_stages import checksums, configs, profile, stage

import allam.sample
from allam.cluster import ClusterProfile
from allam.data import tasks
from allam.data.config import DataConfig
from allam.errors import UserError
from allam.recipe import locate

pytestmark = [pytest.mark.slow, pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="NO RAY HERE, so that nothing was tried on it: "
                                                                                                   "pip install 'allam[ray]'")]


@pytest.fixture(autouse=True)
def on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ClusterProfile(data_executor="ray", environment={"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"})
    monkeypatch.setenv("ALLAM_CLUSTER", given.model_dump_json())
    monkeypatch.setattr(tasks, "BYTES_WORTH_A_JOB", 200_000)  # each step starts a cluster


def test_ray_makes_the_bytes_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = allam.sample.root()
    config, _ = configs(DataConfig.model_validate(yaml.safe_load(locate("demo").read_text(encoding="utf-8"))["data"]), root)["ingest"]
    metrics = stage("ingest", config, {"root": root}, tmp_path / "ray")
    assert len(list((tmp_path / "ray").rglob("datatrove/stats/*"))) == 16
    monkeypatch.setenv("ALLAM_CLUSTER", profile(1))
    assert stage("ingest", config, {"root": root}, tmp_path / "one") == metrics
    assert checksums(tmp_path / "ray") == checksums(tmp_path / "one")


def test_a_killed_task_is_done_again_and_a_tasks_own_error_is_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do = partial(array_tasks.note, tmp_path)
    monkeypatch.setattr(tasks, "BYTES_WORTH_A_JOB", 1)
    (tmp_path / "kill-2").touch()
    tasks.run_tasks(tmp_path / "work", "things", do, 3, unit="things", total=3, size=3)
    assert [len(path.read_text().splitlines()) for path in sorted(tmp_path.glob("begun-*"))] == [1, 1, 2]
    (tmp_path / "fail-1").touch()
    with pytest.raises(UserError, match="the file of task 1 is not readable"):
        tasks.run_tasks(tmp_path / "again", "things", do, 3, unit="things", total=3, size=3)
