"""Which items of a benchmark are asked, during training and at its end, and the plain prompts that ask them (paper §4.1).

A base model knows questions and answers as they stand in text, so the plain prompt is text, in the item's language.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from allam import items
from allam.errors import UserError
from allam.items import BenchmarkConfig, Item

PLAIN = {"en": "Question: {question}\nAnswer:", "ar": "السؤال: {question}\nالجواب:"}


def read_items(path: Path, config: BenchmarkConfig) -> tuple[list[Item], list[Item]]:
    """The items to ask and those to take examples from; raises `UserError` naming the first line that can't be read."""
    found = list(items.read_items(path, config.format, config.language, partial(_check, config)))
    examples = [item for item in found if item.is_example]
    asked = [item for item in found if not item.is_example]
    if config.shots and not examples:
        examples, asked = asked[:config.shots], asked[config.shots:]
    if not asked:
        raise UserError(f"{path.name} has no item to ask", "give a file with items that are not marked `split: dev`")
    return _spread(asked, config.limit), examples


def _check(config: BenchmarkConfig, item: Item) -> None:
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


def plain_prompt(item: Item, examples: list[Item], config: BenchmarkConfig) -> str:
    """The question as text that an answer continues, after `config.shots` answered examples, those of the item's topic first."""
    chosen = sorted(examples, key=lambda e: e.topic != item.topic)[:config.shots]
    form = PLAIN[config.language]
    shown = [f"{form.format(question=e.question.strip())} {e.answer_text.strip()}\n\n" for e in chosen]
    return "".join(shown) + form.format(question=item.question.strip())
