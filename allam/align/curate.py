"""Quality checks of SFT data (paper §3.1): every conversation is kept or dropped for a named reason, and what is dropped can be looked at.

The paper saw that one percent of noisy text (empty responses) visibly affects the model, and that half the data, strictly checked, did as well.

    bad_conversation   a broken line, turns out of order, a question without an answer
    empty_response     an assistant turn without a word
    too_short, too_long, repetition      an assistant turn's length in words; words in repeated 4-grams
    wrong_language     an assistant turn mostly in the other script than the conversation's language
    over_limit         beyond `max_conversations`
    duplicate, near_duplicate            of an earlier conversation that was kept (system turns aside); case and signs count for the first alone

Writes sft.jsonl and dropped.jsonl. Run it with `allam stage curate --recipe demo`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allam.align.config import CurateConfig
from allam.align.conversations import LANGUAGES, Line, as_conversation, conversation_problem, evenly, is_in_language, json_lines, read_lines, words
from allam.align.near_duplicates import near_duplicates
from allam.artifacts import write_atomic
from allam.errors import UserError
from allam.files import check_file
from allam.progress import track
from allam.text.forms import comparison_form

EXCERPT = 500  # characters of a dropped conversation


@dataclass
class Candidate:
    """A line of the input on its way: `reason` is empty as long as it is kept."""

    id: str
    source: str
    where: str
    value: dict[str, Any]
    reason: str = ""
    detail: str = ""

    @property
    def text(self) -> str:
        """What user and assistant say."""
        messages = self.value.get("messages")
        turns = messages if isinstance(messages, list) else []
        return "\n".join(str(m.get("content")) for m in turns if isinstance(m, dict) and m.get("role") != "system")


def run(config: CurateConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Reads the files of `config`, checks every conversation, writes what is kept and what is not."""
    candidates = []
    for ref in config.files:
        for line in track(read_lines(check_file(inputs["root"], ref)), "conversations", what=ref.path):
            candidates.append(_candidate(line, ref.path, config))
    _drop_repeats(candidates, config)
    kept = [c for c in candidates if not c.reason]
    if not kept:
        raise UserError(f"no conversation of {config.path} is left: {dict(Counter(c.reason for c in candidates)) or 'the files are empty'}",
                        "look at dropped.jsonl in this stage's folder and at the thresholds in align.curate")
    chosen = {id(c) for c in evenly(kept, config.max_conversations)}
    for candidate in kept:
        if id(candidate) not in chosen:
            candidate.reason, candidate.detail = "over_limit", f"align.curate.max_conversations is {config.max_conversations}"
    kept = [c for c in kept if not c.reason]
    write_atomic(out / "sft.jsonl", json_lines([_kept_row(c) for c in kept]))
    write_atomic(out / "dropped.jsonl", json_lines([_dropped_row(c) for c in candidates if c.reason]))
    return {"funnel": _funnel(candidates), "kept": len(kept), "statistics": _statistics(kept)}


def _candidate(line: Line, path: str, config: CurateConfig) -> Candidate:
    value = as_conversation(line.value or {})
    source = value.get("source") if isinstance(value.get("source"), str) else Path(path).name.split(".")[0]
    name = value.get("id") if isinstance(value.get("id"), str) else f"{path}:{line.number}"
    candidate = Candidate(str(name), str(source), f"{path}:{line.number}", value)
    if line.value is None:
        candidate.reason, candidate.detail = "bad_conversation", line.problem
    else:
        candidate.reason, candidate.detail = check(value, config)
    return candidate


def check(value: dict[str, Any], config: CurateConfig) -> tuple[str, str]:
    """The reason to drop a conversation by itself, with a detail; two empty texts where it may stay."""
    problem = conversation_problem(value.get("messages"), ends_with="assistant")
    if problem:
        return "bad_conversation", problem
    if value.get("language") not in LANGUAGES:
        return "bad_conversation", f"language is {value.get('language')!r}, not one of {', '.join(LANGUAGES)}"
    for number, message in enumerate(value["messages"]):
        if message["role"] == "assistant":
            reason, detail = _check_response(message["content"], value["language"], config)
            if reason:
                return reason, f"turn {number}: {detail}"
    return "", ""


def _check_response(text: str, language: str, config: CurateConfig) -> tuple[str, str]:
    count = len(text.split())
    if count == 0:
        return "empty_response", "no word"
    if count < config.min_response_words:
        return "too_short", f"{count} words"
    if count > config.max_response_words:
        return "too_long", f"{count} words"
    share = repetition(text)
    if share > config.max_repetition:
        return "repetition", f"{share:.2f} of the words lie in repeated 4-grams"
    if config.check_language and not is_in_language(text, language):
        return "wrong_language", f"most letters are not {'Arabic' if language == 'ar' else 'Latin'}"
    return "", ""


def repetition(text: str) -> float:
    """Share of the words that lie in a 4-gram which stands more than once in the text, from 0 to 1."""
    found = words(text)
    grams = Counter(tuple(found[i:i + 4]) for i in range(len(found) - 3))
    inside = {i + k for i in range(len(found) - 3) if grams[tuple(found[i:i + 4])] > 1 for k in range(4)}
    return len(inside) / len(found) if found else 0.0


def _drop_repeats(candidates: list[Candidate], config: CurateConfig) -> None:
    """Marks conversations that repeat an earlier one, exactly or nearly."""
    seen: dict[str, str] = {}
    for candidate in candidates:
        if not candidate.reason:
            form = comparison_form(candidate.text)
            if form in seen:
                candidate.reason, candidate.detail = "duplicate", f"of {seen[form]}"
            else:
                seen[form] = candidate.id
    if config.near_duplicates:
        left = [c for c in candidates if not c.reason]
        for number, original in near_duplicates([words(c.text) for c in left]).items():
            left[number].reason, left[number].detail = "near_duplicate", f"of {left[original].id}"


def _kept_row(c: Candidate) -> dict[str, Any]:
    messages = [{"role": m["role"], "content": m["content"]} for m in c.value["messages"]]
    return {"id": c.id, "language": c.value["language"], "messages": messages, "source": c.source}


def _dropped_row(c: Candidate) -> dict[str, Any]:
    return {"id": c.id, "reason": c.reason, "detail": c.detail, "source": c.source, "where": c.where, "language": c.value.get("language"),
            "text": c.text[:EXCERPT]}


def _funnel(candidates: list[Candidate]) -> dict[str, Any]:
    funnel: dict[str, Any] = {}
    for c in candidates:
        row = funnel.setdefault(c.source, {"in": 0, "out": 0, "dropped": {}, "set_aside": {}})
        row["in"] += 1
        if c.reason:
            row["dropped"][c.reason] = row["dropped"].get(c.reason, 0) + 1
        else:
            row["out"] += 1
    return funnel


def _statistics(kept: list[Candidate]) -> dict[str, Any]:
    """Table 2's figures for each language: mean length in words and lexical diversity (distinct words in a hundred) of a text."""
    result: dict[str, Any] = {}
    for language in LANGUAGES:
        conversations = [c.value["messages"] for c in kept if c.value["language"] == language]
        if not conversations:
            continue
        row: dict[str, Any] = {"conversations": len(conversations)}
        for role, name in (("user", "prompt"), ("assistant", "response")):
            found = [words(m["content"]) for messages in conversations for m in messages if m["role"] == role]
            row[f"{name}_words"] = round(sum(map(len, found)) / len(found), 2)
            row[f"{name}_diversity"] = round(100 * sum(len(set(w)) / len(w) for w in found if w) / len(found), 2)
        row["turns"] = sum(m["role"] == "assistant" for messages in conversations for m in messages)
        result[language] = row
    return result
