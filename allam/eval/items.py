"""Benchmark items in one form, whatever the file's fields are called, and the plain prompts that ask them (paper §4.1).

    {"id", "question", "choices": [...], "answer": index or text, "topic", "group", "split"}        `group` says how a fact reached the training data

A base model knows questions and answers as they stand in text, so the plain prompt is text, in the item's language.
"""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allam.errors import UserError
from allam.eval.config import BenchmarkConfig

LETTERS = "ABCDEFGHIJ"
PLAIN = {"en": "Question: {question}\nAnswer:", "ar": "السؤال: {question}\nالجواب:"}
YES_NO = ("نعم", "لا")


@dataclass(frozen=True)
class Item:
    """One question. `answer` is the number of the right choice, or the expected text where there are no choices."""

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int | str
    topic: str = ""
    group: str = ""
    is_example: bool = False

    @property
    def answer_text(self) -> str:
        """The right answer as text."""
        return self.choices[self.answer] if isinstance(self.answer, int) else self.answer


def read_items(path: Path, config: BenchmarkConfig) -> tuple[list[Item], list[Item]]:
    """The items to ask and those to take examples from; raises `UserError` naming the first line that can't be read."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    found = []
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                item = READERS[config.format](json.loads(line), config.language)
                _check(item, config)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(f"{path.name}, line {number}: no item of the format {config.format!r}: {type(error).__name__}: {error}",
                                "mend the line, or set the benchmark's `format`") from None
            found.append(item)
    examples = [item for item in found if item.is_example]
    asked = [item for item in found if not item.is_example]
    if config.shots and not examples:
        examples, asked = asked[:config.shots], asked[config.shots:]
    if not asked:
        raise UserError(f"{path.name} has no item to ask", "give a file with items that are not marked `split: dev`")
    return _spread(asked, config.limit), examples


def _check(item: Item, config: BenchmarkConfig) -> None:
    if not item.question.strip():
        raise ValueError("the question is empty")
    if config.type == "multiple_choice":
        if len(item.choices) < 2:
            raise ValueError(f"{len(item.choices)} choices")
        if not isinstance(item.answer, int) or not 0 <= item.answer < len(item.choices):
            raise ValueError(f"the answer {item.answer!r} is none of {len(item.choices)} choices")
    elif not item.answer_text.strip():
        raise ValueError("the answer is empty")


def _spread(items: list[Item], limit: int | None) -> list[Item]:
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _own(row: dict[str, Any], language: str) -> Item:
    choices, answer = tuple(str(c) for c in row.get("choices", ())), row["answer"]
    if choices and isinstance(answer, str):
        answer = LETTERS.index(answer)
    topic = row.get("topic", row.get("subject", ""))
    return Item(str(row["id"]), row["question"], choices, answer if isinstance(answer, int) and choices else str(answer), str(topic), str(row.get("group", "")),
                row.get("split") == "dev")


def _lettered(row: dict[str, Any], language: str) -> Item:
    choices = tuple(str(row[letter]) for letter in LETTERS if row.get(letter) not in (None, ""))
    return Item(str(row["id"]), row["question"], choices, LETTERS.index(row["answer"]), str(row["id"]).rpartition("-")[0], is_example=row.get("split") == "dev")


def _yes_no(row: dict[str, Any], language: str) -> Item:
    topic = str(row["id"]).rpartition("-")[0]
    return Item(str(row["id"]), row["question"], YES_NO, YES_NO.index(row["answer"].strip()), topic, is_example=row.get("split") == "dev")


def _arabicmmlu(row: dict[str, Any], language: str) -> Item:
    choices = tuple(row[f"Option {i}"] for i in range(1, 6) if row.get(f"Option {i}"))
    question = "\n".join(part for part in (row.get("Context"), row["Question"]) if part)
    answer = LETTERS.index(row["Answer Key"])
    return Item(str(row["ID"]), question, choices, answer, row.get("Subject", ""), row.get("Group", ""), str(row.get("is_few_shot")) == "1")


def _bilingual_qa(row: dict[str, Any], language: str) -> Item:
    return Item(str(row["id"]), row[f"q_{language}"], (), row[f"a_{language}"])


READERS: dict[str, Callable[[dict[str, Any], str], Item]] = {
    "items": _own, "lettered": _lettered, "yes_no": _yes_no, "arabicmmlu": _arabicmmlu, "bilingual_qa": _bilingual_qa}


def plain_prompt(item: Item, examples: list[Item], config: BenchmarkConfig) -> str:
    """The question as text that an answer continues, after `config.shots` answered examples, those of the item's topic first."""
    chosen = sorted(examples, key=lambda e: e.topic != item.topic)[:config.shots]
    form = PLAIN[config.language]
    shown = [f"{form.format(question=e.question.strip())} {e.answer_text.strip()}\n\n" for e in chosen]
    return "".join(shown) + form.format(question=item.question.strip())
