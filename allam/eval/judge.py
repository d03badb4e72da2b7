"""Open questions, answered by each model and scored (paper §4.2): by a judge on an OpenAI-compatible server, or else by chrF.

The aligned models answer in the chat form, the continued one (no chat model yet) in plain text. With `eval.judge.endpoint` each answer gets a
score from 1 to 10, turn by turn. Without it the stage says so and reports chrF (0 to 100) against the reference answers under that name: it
measures likeness of wording and is no substitute for a judge.

Writes answers.jsonl and scores.json. Run it with `allam stage judge --recipe demo`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sacrebleu.metrics.chrf import CHRF

from allam.artifacts import write_atomic, write_json
from allam.endpoint.client import ChatClient
from allam.engine.device import compute_device
from allam.engine.model import load_model
from allam.errors import UserError
from allam.eval.config import JudgeConfig
from allam.eval.judging import Verdicts, judge_all
from allam.eval.model import answer
from allam.files import check_file
from allam.prompts import PLAIN
from allam.text.tokenizer import Tokenizer

MODELS = ("continue", "sft", "dpo")
WITHOUT_CHAT = ("continue",)
CHRF_METHOD = "chrF against reference answers"
VERDICTS_FILE = "verdicts.jsonl"  # beside the artifacts of this kind: it outlives each of them


def run(config: JudgeConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Lets each model answer all questions, then scores the answers."""
    if config.endpoint is not None and not config.judge_model:
        raise UserError("eval.judge.endpoint is set but eval.judge.judge_model isn't", "name the judge's model as its server calls it")
    questions = [q for ref in config.files for q in read_questions(check_file(inputs["root"], ref))]
    rows = []
    for name in (m for m in MODELS if m in inputs):
        rows += _answers_once(out / "work" / f"answers-{name}.json", name, questions, config, inputs)
    if config.endpoint is None:
        scores = _chrf(rows)
    else:
        assert config.judge_model is not None
        with ChatClient(config.endpoint) as client:
            found = judge_all(rows, client, config.judge_model, config.judge_tokens, config.seed, Verdicts(out.parent / VERDICTS_FILE))
        for row, (verdict, score) in zip(rows, found, strict=True):
            row |= {"verdict": verdict, "score": score}
        scores = _mean_scores(rows, config.judge_model)
    write_atomic(out / "answers.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_json(out / "scores.json", scores)
    return scores


def read_questions(path: Path) -> list[dict[str, Any]]:
    """Questions as {"id", "language", "turns": user texts, "before": messages, "references", "topic"}.

    A line has `messages` that end with the user's turn and a `reference`, or several `turns` of the user (and `reference` as a list) as in MT-Bench.
    """
    questions = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            turns, before = row.get("turns"), []
            if turns is None:
                *before, last = row["messages"]
                if last["role"] != "user":
                    raise ValueError("the last message is not the user's")
                turns = [last["content"]]
            reference = row.get("reference") or []
            questions.append({"id": str(row.get("id", row.get("question_id"))), "language": row.get("language", "en"), "turns": list(turns), "before": before,
                              "references": [reference] if isinstance(reference, str) else list(reference), "topic": row.get("topic", row.get("category", ""))})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path.name}, line {number}: no open question: {type(error).__name__}: {error}",
                            "give messages that end with the user's turn, and a reference") from None
    return questions


def _answers_once(cache: Path, name: str, questions: list[dict[str, Any]], config: JudgeConfig, inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """The model's answers, from an earlier try of this stage where it got that far."""
    if not cache.is_file():
        tokenizer = Tokenizer.load(inputs["tokenizer"])
        model = load_model(inputs[name] / "model")
        model.to(compute_device())  # type: ignore[arg-type]
        write_json(cache, _answers(model, tokenizer, name, questions, config.max_new_tokens))
    rows: list[dict[str, Any]] = json.loads(cache.read_text(encoding="utf-8"))
    return rows


def _answers(model: Any, tokenizer: Tokenizer, name: str, questions: list[dict[str, Any]], max_new_tokens: int) -> list[dict[str, Any]]:
    """Rows of answers.jsonl, question by question; the second turn of a question sees the model's own first answer."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    messages = [list(q["before"]) for q in questions]
    for turn in range(max((len(q["turns"]) for q in questions), default=0)):
        asked = [i for i, q in enumerate(questions) if len(q["turns"]) > turn]
        for i in asked:
            messages[i].append({"role": "user", "content": questions[i]["turns"][turn]})
        plain = name in WITHOUT_CHAT
        prompts = [_plain(messages[i], questions[i]["language"]) if plain else messages[i] for i in asked]
        for i, text in zip(asked, answer(model, tokenizer, prompts, max_new_tokens), strict=True):
            text = text.split("\n")[0].strip() if plain else text  # a plain model goes on with questions of its own
            references = questions[i]["references"]
            rows[i, turn] = {"question_id": questions[i]["id"], "model": name, "language": questions[i]["language"], "topic": questions[i]["topic"],
                             "turn": turn + 1, "messages": list(messages[i]), "answer": text, "reference": references[turn] if turn < len(references) else None}
            messages[i].append({"role": "assistant", "content": text})
    return [rows[key] for key in sorted(rows)]


def _plain(messages: list[dict[str, str]], language: str) -> str:
    """A conversation as the text that a model without chat form knows."""
    parts = []
    for message in messages:
        if message["role"] == "user":
            parts.append(PLAIN[language].format(question=message["content"].strip()))
        elif message["role"] == "assistant":
            parts[-1] += " " + message["content"].strip()
    return "\n\n".join(parts)


def _by_language(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        groups.setdefault(row["model"], {}).setdefault(row["language"], []).append(row)
    return groups


def _chrf(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Corpus-level chrF by model and language over the answers that have a reference."""
    with_reference = [row for row in rows if row["reference"]]
    if rows and not with_reference:
        raise UserError("no judge is configured and no question has a reference answer", "set eval.judge.endpoint and judge_model, or give `reference` texts")
    models = {model: {language: round(CHRF().corpus_score([r["answer"] for r in group], [[r["reference"] for r in group]]).score, 2)
                      for language, group in languages.items()} for model, languages in _by_language(with_reference).items()}
    return {"method": CHRF_METHOD, "note": "no judge endpoint is configured (eval.judge.endpoint)", "scale": "0 to 100", "models": models,
            "answers": len(rows), "without_reference": len(rows) - len(with_reference)}


def _mean_scores(rows: list[dict[str, Any]], judge: str) -> dict[str, Any]:
    """Mean scores by model and language, and by turn where questions have several."""
    scored = [row for row in rows if row["score"] is not None]
    models = {model: {language: _mean(group) for language, group in languages.items()} for model, languages in _by_language(scored).items()}
    turns = sorted({row["turn"] for row in rows})
    by_turn = {model: {language: {str(t): _mean(g) for t in turns if (g := [r for r in group if r["turn"] == t])} for language, group in languages.items()}
               for model, languages in _by_language(scored).items()}
    return {"method": f"judge {judge}", "scale": "1 to 10", "models": models, "by_turn": by_turn if len(turns) > 1 else {}, "answers": len(rows),
            "unparsable": len(rows) - len(scored)}


def _mean(rows: list[dict[str, Any]]) -> float:
    return round(sum(r["score"] for r in rows) / len(rows), 3)
