"""The four stages together: the sample's exact counts, and the same bytes for any number of workers and after any kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from data_stages import checksums, configs, profile, run_stages, stage

import allam.sample
from allam.data import tasks
from allam.data.config import DataConfig
from allam.data.tables import read_dropped
from allam.documents import read_documents, read_shard
from allam.recipe import locate

STAGES = ("ingest", "filter", "dedup", "translate")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, Any]], Path]:
    """The stages' metrics over the sample, and the folder of their artifacts."""
    base = tmp_path_factory.mktemp("sample")
    return run_stages(demo(), allam.sample.root(), base), base


def demo() -> DataConfig:
    return DataConfig.model_validate(yaml.safe_load(locate("demo").read_text(encoding="utf-8"))["data"])


def test_the_sample_gives_exactly_the_counts_that_were_planted(sample: tuple[dict[str, dict[str, Any]], Path]) -> None:
    metrics, _ = sample
    expected = json.loads((allam.sample.root() / "EXPECTED.json").read_text(encoding="utf-8"))["sources"]
    empty = {"out": 0, "dropped": {}}
    found = {}
    for source, row in metrics["ingest"]["funnel"].items():
        later = {name: metrics[name]["funnel"].get(source, empty) for name in STAGES[1:]}
        found[source] = {"lines": row["in"], "set_aside": row["set_aside"], "kept": (later["dedup"]["out"] + later["translate"]["out"])}
        found[source] |= {name: later[name]["dropped"] for name in STAGES[1:]}
    assert found == expected


def test_every_stage_hands_on_what_the_one_before_it_left(sample: tuple[dict[str, dict[str, Any]], Path]) -> None:
    metrics, base = sample
    for name in STAGES:
        for source, row in metrics[name]["funnel"].items():
            assert row["in"] == row["out"] + sum(row["dropped"].values()) + sum(row["set_aside"].values())
            assert row["out"] == sum(len(list(read_shard(path))) for path in (base / name / "documents" / source).iterdir())
            if name != "ingest":
                assert sum(row["dropped"].values()) == sum(len(list(read_dropped(path))) for path in (base / name / "dropped" / source).glob("*"))
                before = "filter" if name == "dedup" else "ingest"
                assert row["in"] == metrics[before]["funnel"][source]["out"]


def test_what_is_dropped_can_be_read_with_its_reason(sample: tuple[dict[str, dict[str, Any]], Path]) -> None:
    _, base = sample
    for name in STAGES[1:]:
        for path in (base / name / "dropped").glob("*/*"):
            for row in read_dropped(path):
                assert set(row) == {"id", "reason", "detail", "text", "url", "source"}
                assert row["detail"]


def test_personal_data_of_kept_web_documents_is_replaced_and_counted_and_a_source_can_leave_it(tmp_path: Path) -> None:
    text = ("The harbour office has moved to the second floor, and whoever wants to hire a boat for the summer should write to anna@b.example or call "
            "0501234567 before the end of the month.")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(json.dumps({"id": str(i), "text": t}) for i, t in enumerate((text, text.split(" and ")[0], text[:-6]))))
    source = {"path": "a.jsonl", "language": "en", "domain": "web"}
    data = DataConfig.model_validate({"sources": {"on": source, "off": source | {"anonymise": False, "id_prefix": "off/"}}})
    metrics = run_stages(data, tmp_path / "raw", tmp_path / "out")["filter"]
    assert metrics["anonymised"] == {"on": {"documents": 2, "email": 2, "phone": 2}, "off": {}}
    kept = {d.id: d.text for d in read_documents(tmp_path / "out/filter/documents")}
    assert kept["0"] == text.replace("anna@b.example", "[email]").replace("0501234567", "[phone]")
    assert kept["off/0"] == text
    assert metrics["by_length"]["on"]["5 to 29 words"] == {"in": 1, "identified": 1, "too_short": 1}


def test_each_kept_translation_names_a_kept_english_document(sample: tuple[dict[str, dict[str, Any]], Path]) -> None:
    _, base = sample
    english = {d.id for d in read_documents(base / "dedup/documents") if d.language == "en"}
    assert {d.translation_of for d in read_documents(base / "translate/documents")} <= english


def test_statistics_hold_a_histogram_of_each_measure(sample: tuple[dict[str, dict[str, Any]], Path]) -> None:
    metrics, base = sample
    statistics = json.loads((base / "filter/statistics.json").read_text())
    for source, measures in statistics.items():
        for found in measures.values():
            assert len(found["counts"]) == len(found["edges"]) - 1
        assert sum(measures["words"]["counts"]) == metrics["filter"]["funnel"][source]["in"]


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_bytes(sample: tuple[dict[str, dict[str, Any]], Path], workers: int, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAM_CLUSTER", profile(workers))
    monkeypatch.setattr(tasks, "BYTES_WORTH_A_WORKER", 1)  # so that the sample is enough for several
    assert run_stages(demo(), allam.sample.root(), tmp_path) == sample[0]
    assert {name: checksums(tmp_path / name) for name in STAGES} == {name: checksums(sample[1] / name) for name in STAGES}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_killed_at_any_moment_and_entered_again_gives_the_same_bytes(sample: tuple[dict[str, dict[str, Any]], Path], name: str,
                                                                            tmp_path: Path) -> None:
    config, inputs = configs(demo(), allam.sample.root())[name]
    paths = {"root": allam.sample.root()} | {k: sample[1] / v for k, v in inputs.items()}
    (tmp_path / "config.json").write_text(config.model_dump_json())
    script = ("import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
              "from data_stages import stage; from allam.pipeline import STAGES\n"
              "paths = {name: Path(path) for name, path in json.loads(sys.argv[5]).items()}\n"
              "stage(sys.argv[4], STAGES[sys.argv[4]].config.model_validate_json(Path(sys.argv[2]).read_text()), paths, Path(sys.argv[3]))")
    choice, out = random.Random(name), tmp_path / "out"
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "config.json"), str(out), name,
                                    json.dumps({k: str(v) for k, v in paths.items()})], start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(choice.uniform(0.8, 3.0))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    metrics = stage(name, config, paths, out)
    assert metrics == sample[0][name]
    assert checksums(out) == checksums(sample[1] / name)


def test_a_dead_worker_fails_the_stage_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from allam.errors import StageFailed

    monkeypatch.setattr(tasks, "BYTES_WORTH_A_WORKER", 1)
    with pytest.raises(StageFailed, match="a worker process of the stage died"):
        tasks.run_tasks(tmp_path, "dies", _die, 2, unit="tasks", total=2, size=10)


def _die(task: int, meter: tasks.Meter) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_finished_tasks_are_not_done_again(tmp_path: Path) -> None:
    done: list[int] = []

    def do(task: int, meter: tasks.Meter) -> None:
        if task == 2 and len(done) < 3:
            done.append(-1)
            raise ValueError("the disk is full")
        done.append(task)

    with pytest.raises(ValueError, match="the disk is full"):
        tasks.run_tasks(tmp_path, "resumed", do, 4, unit="tasks", total=4, size=0)
    tasks.run_tasks(tmp_path, "resumed", do, 4, unit="tasks", total=4, size=0)
    assert done == [0, 1, -1, 2, 3]
