"""A document that is taken down, and its translation, are in no artifact of the new plan, and what didn't hold them isn't made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from data_stages import checksums, make_stages

from allam.artifacts import Store, read_manifest
from allam.audit.trace import trace
from allam.data.config import DataConfig
from allam.documents import read_documents
from allam.errors import UserError
from allam.pipeline import make_plan
from allam.recipe import load

STAGES = ("ingest", "filter", "dedup", "translate")
LETTER = "The letter that she wrote to him in the spring of that year was never meant to be read by anyone else"
ARABIC = "الرسالة التي كتبتها إليه في ربيع تلك السنة لم يكن يقصد بها أن يقرأها أحد غيره من الناس"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two English files and their translations; e2 and its translation t2 must go; e9 repeats the text of e2, and a later record its id."""
    raw = tmp_path / "raw"
    raw.mkdir()

    def lines(name: str, *rows: dict[str, str]) -> None:
        (raw / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

    lines("en-1.jsonl", {"id": "e1", "text": "The boats wait there for the wind to turn."}, {"id": "e2", "text": LETTER},
          {"id": "e2", "text": f"{LETTER}, again"})
    lines("en-2.jsonl", {"id": "e3", "text": "Nobody wanted to leave the house that day."}, {"id": "e9", "text": f" {LETTER} "})
    lines("ar.jsonl", {"id": "t1", "text": "تنتظر القوارب هناك حتى تتحول الريح.", "translation_of": "e1"}, {"id": "t2", "text": ARABIC, "translation_of": "e2"})
    return raw


def data(*take_down: str) -> DataConfig:
    english = {"path": "en-*.jsonl", "language": "en", "domain": "web", "filters": []}
    arabic = {"path": "ar.jsonl", "language": "ar", "domain": "web", "kind": "translated"}
    return DataConfig.model_validate({"sources": {"en": english, "ar": arabic}, "take_down": take_down, "ingest": {"max_set_aside_share": 0.4}})


def holding(store: Path, name: str) -> set[str]:
    """The kinds of artifacts that hold the document, its translation or anything made from them."""
    return {place["artifact"].split("/")[0] for place in trace(Store(store), name)}


def test_it_is_in_no_artifact_of_the_new_plan_and_only_its_files_are_made_again(root: Path, tmp_path: Path) -> None:
    first = make_stages(data(), root, tmp_path / "store", *STAGES)
    assert holding(tmp_path / "store", "e2") == {"ingest", "filter", "dedup", "translate"}
    second = make_stages(data("e2", "no-such-id"), root, tmp_path / "store", *STAGES)
    kept = [d.id for name in ("dedup", "translate") for d in read_documents(second[name] / "documents")]
    assert kept == ["e1", "e3", "e9", "t1"]
    fresh = make_stages(data("e2", "no-such-id"), root, tmp_path / "fresh", *STAGES)
    assert {name: checksums(folder) for name, folder in second.items()} == {name: checksums(folder) for name, folder in fresh.items()}
    assert trace(Store(tmp_path / "fresh"), "e2") == []
    assert read_manifest(fresh["ingest"]).metrics["take_down"] == {"ids": 2, "unknown": 1}
    for folder in fresh.values():
        assert ARABIC not in "".join(d.text for d in read_documents(folder / "documents", folder / "as_read"))
        assert not any("e2" in path.read_text() for path in folder.glob("set_aside.jsonl"))
    manifests = {name: read_manifest(folder) for name, folder in second.items()}
    assert manifests["ingest"].metrics["files"] == {"read": 0, "reused": 3}  # type: ignore[union-attr]
    assert manifests["filter"].metrics["shards"] == {"filtered": 1, "reused": 1}  # type: ignore[union-attr]
    assert manifests["ingest"].metrics["funnel"]["en"]["set_aside"] == {"taken_down": 2}  # type: ignore[union-attr]  # and no share of broken records
    assert {place["artifact"] for place in trace(Store(tmp_path / "store"), "e2") if place["holds"] == "document"} >= {f"ingest/{first['ingest'].name}"}


def test_a_document_that_may_come_back_does(root: Path, tmp_path: Path) -> None:
    before = make_stages(data("e1"), root, tmp_path / "store", *STAGES)
    make_stages(data("e1", "e3"), root, tmp_path / "store", *STAGES)
    after = make_stages(data("e3"), root, tmp_path / "store", *STAGES)
    assert [d.id for d in read_documents(before["dedup"] / "documents")] == ["e2", "e3"]
    assert [d.id for d in read_documents(after["dedup"] / "documents")] == ["e1", "e2"]
    assert [d.id for d in read_documents(after["translate"] / "documents")] == ["t1", "t2"]
    assert checksums(after["ingest"]) == checksums(make_stages(data("e3"), root, tmp_path / "fresh", "ingest")["ingest"])


def test_the_list_may_be_a_file_and_its_order_changes_no_key(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").write_text("b-2\n\n a-1 \nb-2\n")
    plan = make_plan(load("demo", [f"data.root={tmp_path}", "data.take_down=gone.txt"]))
    assert plan.specs["ingest"].config.take_down == ("a-1", "b-2")  # type: ignore[attr-defined]
    listed = make_plan(load("demo", [f"data.root={tmp_path}", "data.take_down=[b-2, a-1]"]))
    assert listed.specs["ingest"].key == plan.specs["ingest"].key
    missing = make_plan(load("demo", [f"data.root={tmp_path}", "data.take_down=none.txt"])).specs["ingest"].problems
    assert any(problem.startswith("data.take_down: no file at") for problem in missing)
    with pytest.raises(UserError, match=r"data\.take_down"):
        make_plan(load("demo", [f"data.root={tmp_path}", "data.take_down=../gone.txt"]))


def test_a_trace_names_translations_that_were_dropped_and_what_a_stopped_stage_left(root: Path, tmp_path: Path) -> None:
    with open(root / "ar.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "t3", "text": "Nobody wanted to leave the house that day.", "translation_of": "e3"}) + "\n")
    made = make_stages(data(), root, tmp_path / "store", *STAGES)
    places = trace(Store(tmp_path / "store"), "e3")
    assert [(place["stage"], place["where"].split(":")[0]) for place in places if place["holds"] == "dropped"] == [("translate", "its translation t3")]
    stopped = tmp_path / "store" / "ingest" / ("0" * 16)
    (stopped / "work" / "parts").mkdir(parents=True)
    (stopped / "job.json").write_text("{}")
    shutil.copy(next((made["ingest"] / "documents" / "en").glob("*.parquet")), stopped / "work" / "parts" / "00000.parquet")
    (stopped / "work" / "parts" / "00001.parquet").write_bytes(b"PAR1 half written")
    places = trace(Store(tmp_path / "store"), "e1")
    assert [place["artifact"] for place in places if place["holds"] == "unfinished"] == [f"ingest/{'0' * 16}"]
