"""Review: people's verdicts on preference pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from allam.align import review
from allam.align.config import ReviewConfig
from allam.artifacts import file_sha256
from allam.errors import UserError
from allam.section import FileRef

REJECTED = ["Rome", "Paris", "Rome ", "Cairo  is the capital."]


def _candidate(name: str, chosen: str = "Cairo is the capital.") -> dict[str, Any]:
    rejected = [{"text": text, "temperature": 1.0, "top_p": 1.0} for text in REJECTED]
    return {"id": name, "language": "en", "messages": [{"role": "user", "content": "Capital of Egypt?"}], "chosen": chosen, "rejected": rejected}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _run(tmp_path: Path, decisions: list[dict[str, Any]], undecided: str = "drop", names: str = "abc") -> tuple[dict[str, Any], list[Any], list[Any]]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    _write(tmp_path / "candidates.jsonl", [_candidate(name) for name in names])
    path = tmp_path / "decisions.jsonl"
    _write(path, decisions)
    files = (FileRef(path=path.name, sha256=file_sha256(path), size=path.stat().st_size),)
    config = ReviewConfig.model_validate({"decisions": path.name, "undecided": undecided, "files": files})
    metrics = review.run(config, {"root": tmp_path, "candidates": tmp_path}, out)
    return metrics, *([json.loads(line) for line in (out / name).read_text().splitlines()] for name in ("pairs.jsonl", "waiting.jsonl"))


def test_accepted_edited_and_rejected_pairs(tmp_path: Path) -> None:
    decisions = [{"id": "a", "decision": "accept", "reviewer": "r1"}, {"id": "b", "decision": "edit", "edited": "Cairo, on the Nile."},
                 {"id": "c", "decision": "reject"}]
    metrics, pairs, waiting = _run(tmp_path, decisions)
    assert [(p["id"], p["chosen"], p["rejected"]) for p in pairs] == [
        ("a/0", "Cairo is the capital.", "Rome"), ("a/1", "Cairo is the capital.", "Paris"), ("b/0", "Cairo, on the Nile.", "Rome"),
        ("b/1", "Cairo, on the Nile.", "Paris"), ("b/3", "Cairo, on the Nile.", "Cairo  is the capital.")]
    assert waiting == []
    assert metrics["decisions"] == {"accept": 1, "edit": 1, "reject": 1, "undecided": 0, "stale": 0, "equal_to_chosen": 1, "repeated": 2}
    assert pairs[0]["reviewer"] == "r1"


def test_the_last_decision_on_a_pair_counts(tmp_path: Path) -> None:
    metrics, pairs, _ = _run(tmp_path, [{"id": "a", "decision": "accept"}, {"id": "a", "decision": "reject"}, {"id": "b", "decision": "accept"}])
    assert {p["id"][0] for p in pairs} == {"b"}
    assert metrics["decisions"]["reject"] == 1


def test_undecided_pairs_wait_and_the_error_says_where_they_lie_and_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        _run(tmp_path, [{"id": "a", "decision": "accept"}], undecided="wait")
    assert "2 of 3" in error.value.message
    assert str(tmp_path / "out" / "waiting.jsonl") in error.value.message
    assert "decisions.jsonl" in error.value.remedy
    assert [json.loads(line)["id"] for line in (tmp_path / "out" / "waiting.jsonl").read_text().splitlines()] == ["b", "c"]


@pytest.mark.parametrize(("undecided", "count"), [("drop", 1), ("accept", 3)])
def test_undecided_pairs_may_be_dropped_or_accepted(tmp_path: Path, undecided: str, count: int) -> None:
    _, pairs, waiting = _run(tmp_path, [{"id": "a", "decision": "accept"}], undecided)
    assert len({p["id"][0] for p in pairs}) == count
    assert len(waiting) == 2


def test_a_verdict_on_a_text_that_has_changed_is_stale(tmp_path: Path) -> None:
    fresh = review.judged(_candidate("a"))
    stale = review.judged(_candidate("b", chosen="an older answer"))
    decisions = [{"id": "a", "decision": "accept", "judged": fresh}, {"id": "b", "decision": "accept", "judged": stale}]
    metrics, pairs, waiting = _run(tmp_path, decisions, names="ab")
    assert {p["id"][0] for p in pairs} == {"a"}
    assert metrics["decisions"]["stale"] == 1
    assert waiting[0]["judged"] == review.judged(_candidate("b"))


@pytest.mark.parametrize(("row", "words"), [
    ({"id": "a", "decision": "maybe"}, "maybe"), ({"id": "a", "decision": "edit"}, "edit without"), ({"decision": "accept"}, "no id")])
def test_a_broken_decision_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        _run(tmp_path, [row])
