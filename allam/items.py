"""Items of benchmarks in one form, whatever the file's fields are called: evaluation and training ask them, and decontamination looks for them in the corpus.

    {"id", "question", "choices": [...], "answer": index or text, "topic", "group", "split"}        `group` says how a fact reached the training data
"""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from allam.errors import UserError
from allam.section import FileRef, Section, assumed, paper, planned

ItemFormat = Literal["items", "lettered", "yes_no", "arabicmmlu", "bilingual_qa"]
LETTERS = "ABCDEFGHIJ"
YES_NO = ("نعم", "لا")


class BenchmarkConfig(Section):
    """One local benchmark: a JSON Lines file of items."""

    path: str = paper("4.1", "JSON Lines file below `data.root`")
    type: Literal["multiple_choice", "generation"] = paper("4.1", "scored by the likelihood of each choice, or by exact match of a generated answer")
    language: Literal["en", "ar"] = paper("4.1", "language of the items")
    format: ItemFormat = assumed(
        "public benchmarks name their fields differently", "how a line is read: `items` (question, choices, answer), `lettered` (EXAMS: A to D are fields), "
        "`yes_no` (ACVA: the answer is نعم or لا), `arabicmmlu` (its columns), `bilingual_qa` (XQuAD: q_en, a_en, q_ar, a_ar)", "items")
    shots: int = paper("4.1, Table 4", "examples before each item, of its own topic where there are some: items marked `split: dev`, else the file's first",
                       0, ge=0)
    limit: int | None = assumed("for trials", "use so many items, evenly spread over the file", None, ge=1)
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the file with its checksum", ())


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


def read_items(path: Path, format: ItemFormat | Literal["questions"], language: str, check: Callable[[Item], None] = lambda _: None) -> Iterator[Item]:
    """The items of a JSON Lines file (plain, .gz or .xz); raises `UserError` naming the first line that can't be read or that `check` refuses.

    `language` says which side of a bilingual item is meant.
    """
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                item = READERS[format](json.loads(line), language)
                check(item)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise UserError(f"{path.name}, line {number}: no item of the format {format!r}: {type(error).__name__}: {error}",
                                "mend the line, or set the benchmark's `format`") from None
            yield item


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


def _open_question(row: dict[str, Any], language: str) -> Item:
    """A question for a judge: the user's turns, and the first reference."""
    turns = row["turns"] if "turns" in row else [message["content"] for message in row["messages"] if message["role"] == "user"]
    reference = row.get("reference") or ""
    return Item(str(row.get("id", row.get("question_id"))), "\n".join(turns), (), reference if isinstance(reference, str) else str(reference[0]))


READERS: dict[str, Callable[[dict[str, Any], str], Item]] = {
    "items": _own, "lettered": _lettered, "yes_no": _yes_no, "arabicmmlu": _arabicmmlu, "bilingual_qa": _bilingual_qa, "questions": _open_question}
