"""The judge: answers of all models, scores from a real local server or chrF, and verdicts that outlive a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bilingual import save_small_model

sys.path.append(str(Path(__file__).parents[1] / "endpoint"))
from test_client import Server, completion

from allam import sample
from allam.artifacts import file_sha256
from allam.errors import StageFailed, UserError
from allam.eval import judge, judging
from allam.eval.config import JudgeConfig
from allam.section import FileRef
from allam.text.tokenizer import Tokenizer


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()


@pytest.fixture
def inputs(tmp_path: Path, tokenizer_folder: Path, tokenizer: Tokenizer) -> dict[str, Path]:
    found = {"tokenizer": tokenizer_folder, "root": tmp_path}
    for seed, name in enumerate(("continue", "sft")):
        save_small_model(tokenizer, tmp_path / name, tokenizer_folder, seed)
        found[name] = tmp_path / name
    return found


def _config(tmp_path: Path, **more: Any) -> JudgeConfig:
    files = [sample.root() / "benchmarks" / f"open_{language}.jsonl" for language in ("en", "ar")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()[:2]]
    path = tmp_path / "open.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    ref = FileRef(path=path.name, sha256=file_sha256(path), size=path.stat().st_size)
    return JudgeConfig(questions=(path.name,), files=(ref,), max_new_tokens=6, **more)


def _run(config: JudgeConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    (out / "work").mkdir(parents=True, exist_ok=True)
    return judge.run(config, inputs, out)


def test_without_a_judge_chrf_is_reported_under_its_own_name(tmp_path: Path, inputs: dict[str, Path]) -> None:
    scores = _run(_config(tmp_path), inputs, tmp_path / "judge" / "one")
    assert scores["method"] == "chrF against reference answers"
    assert "no judge endpoint is configured" in scores["note"]
    assert set(scores["models"]) == {"continue", "sft"}
    assert all(0 <= value <= 100 for model in scores["models"].values() for value in model.values())
    rows = [json.loads(line) for line in (tmp_path / "judge" / "one" / "answers.jsonl").read_bytes().splitlines()]
    assert len(rows) == 8
    assert {"question_id", "model", "messages", "answer", "reference", "language"} <= set(rows[0])


def test_a_judge_on_a_server_scores_every_answer(tmp_path: Path, inputs: dict[str, Path], server: Server) -> None:
    server.script = [(200, completion(f"Fine.\nSCORE: {n}"), {}) for n in (4, 6, 8, 10, 1, 1, 1, 1)]
    scores = _run(_config(tmp_path, endpoint=server.url, judge_model="judge-1"), inputs, tmp_path / "judge" / "one")
    assert scores["method"] == "judge judge-1"
    assert scores["unparsable"] == 0
    assert len(server.requests) == 8
    rows = [json.loads(line) for line in (tmp_path / "judge" / "one" / "answers.jsonl").read_bytes().splitlines()]
    assert sorted(row["score"] for row in rows) == [1, 1, 1, 1, 4, 6, 8, 10]
    by_hand = [row["score"] for row in rows if row["model"] == "sft" and row["language"] == "ar"]
    assert scores["models"]["sft"]["ar"] == sum(by_hand) / len(by_hand)
    shown = server.requests[0]["messages"][1]["content"]
    assert any(row["messages"][-1]["content"] in shown and row["reference"] in shown for row in rows)


def test_verdicts_outlive_a_failed_run_and_serve_other_recipes(tmp_path: Path, inputs: dict[str, Path], server: Server,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "REQUESTS_AT_ONCE", 1)
    good = [(200, completion("Good.\nSCORE: 7"), {})]
    server.script = good * 3 + [(401, {"error": "expired"}, {})]
    config = _config(tmp_path, endpoint=server.url, judge_model="judge-1")
    with pytest.raises(UserError, match="401"):
        _run(config, inputs, tmp_path / "judge" / "one")
    server.script = good * 5
    _run(config, inputs, tmp_path / "judge" / "one")
    assert len(server.requests) == 4 + 5
    again = _run(config.model_copy(update={"files": config.files[:1]}), inputs, tmp_path / "judge" / "another")
    assert len(server.requests) == 9
    assert again["models"]["sft"]["en"] == 7


def test_unparsable_verdicts_are_counted_and_never_guessed(tmp_path: Path, inputs: dict[str, Path], server: Server) -> None:
    texts = ("I would say 7/10.", "SCORE: 11", "SCORE: 5\nBut well.", "", "ok\nSCORE: 9", "SCORE: 7.5", "SCORE: 3", "x")
    server.script = [(200, completion(text), {}) for text in texts]
    scores = _run(_config(tmp_path, endpoint=server.url, judge_model="judge-1"), inputs, tmp_path / "judge" / "one")
    assert scores["unparsable"] == 6


def test_a_judge_without_a_name_is_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="judge_model"):
        _run(_config(tmp_path, endpoint="http://localhost:1/v1"), inputs, tmp_path / "out")


def test_a_server_that_never_answers_fails_the_stage_with_a_remedy(tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "ChatClient", lambda url: judging.ChatClient(url, attempts=2, pause=0.01))
    with pytest.raises(StageFailed, match="2 attempts"):
        _run(_config(tmp_path, endpoint="http://127.0.0.1:9/v1", judge_model="j"), inputs, tmp_path / "out")


def test_a_torn_line_among_the_verdicts_loses_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    judging.Verdicts(path).add("k1", "j", "SCORE: 3")
    with open(path, "ab") as file:
        file.write(b'{"key": "k2", "ver')
    judging.Verdicts(path).add("k3", "j", "سطر\u2028آخر\nSCORE: 4")
    assert judging.Verdicts(path).known == {"k1": "SCORE: 3", "k3": "سطر\u2028آخر\nSCORE: 4"}


def test_the_second_turn_of_a_question_sees_the_models_first_answer(tmp_path: Path, inputs: dict[str, Path]) -> None:
    path = tmp_path / "turns.jsonl"
    path.write_text(json.dumps({"question_id": 81, "category": "writing", "turns": ["Hello?", "And now shorter."], "reference": ["Hello.", "Hi."]}))
    ref = FileRef(path=path.name, sha256=file_sha256(path), size=path.stat().st_size)
    _run(JudgeConfig(questions=(path.name,), files=(ref,), max_new_tokens=5), inputs, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_bytes().splitlines()]
    first, second = (next(r for r in rows if r["model"] == "sft" and r["turn"] == turn) for turn in (1, 2))
    expected = [("user", "Hello?"), ("assistant", first["answer"]), ("user", "And now shorter.")]
    assert [(m["role"], m["content"]) for m in second["messages"]] == expected
    assert second["reference"] == "Hi."


def test_a_line_that_is_no_question_is_named(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"messages": [{"role": "assistant", "content": "x"}]}))
    with pytest.raises(UserError, match=r"q.jsonl, line 1"):
        judge.read_questions(tmp_path / "q.jsonl")
