"""Multiple-choice questions asked while a model trains (the paper's Figure 8), on the training's own ranks and in its layout.

An answer is scored as lm-eval scores it at the end (allam/eval/benchmarks.py): the log-likelihood of " " and the choice's text after the prompt, whose
tokens are those of the whole beyond as many as the prompt alone has. The likeliest choice counts (`accuracy`), or the likeliest per character
(`accuracy_norm`); of equals the first. In bf16 training the weights are bf16 here and fp32 there, which can decide between near equals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from allam.engine.device import Ranks
from allam.engine.likelihood import Encoder, by_length, losses, shared_out


@dataclass(frozen=True)
class Question:
    """The ids of prompt and choice for each choice, how many at the end are the choice's, and the choice's characters; `answer` is the right one's number."""

    rows: tuple[list[int], ...]
    scored: tuple[int, ...]
    characters: tuple[int, ...]
    answer: int


def question(tokenizer: Encoder, prompt: str, choices: Sequence[str], answer: int, longest: int) -> Question:
    """A prompt, which must not end with a space, as a model of `longest` positions reads it: of a longer one the head is cut off."""
    before, *whole = tokenizer.encode_batch([prompt, *(f"{prompt} {choice}" for choice in choices)])
    rows = [[tokenizer.bos_id, *ids][-longest - 1:] for ids in whole]
    scored = [max(0, min(len(ids) - len(before), len(row) - 1)) for ids, row in zip(whole, rows, strict=True)]
    return Question(tuple(rows), tuple(scored), tuple(len(choice) for choice in choices), answer)


def log_likelihoods(model: PreTrainedModel, questions: Sequence[Question], ranks: Ranks | None = None,
                    call: Callable[..., Any] | None = None) -> list[list[float]]:
    """Of each question's choices, in nats. During training, the replicas of `ranks` share the work and `call` is `Trainer.call`."""
    rows = [(row, n) for asked in questions for row, n in zip(asked.rows, asked.scored, strict=True)]
    places = by_length([row for row, _ in rows])
    found = iter(shared_out(_scores, [[rows[i] for i in batch] for batch in places], places, len(rows), model, ranks, call))
    return [[next(found) for _ in asked.rows] for asked in questions]


def _scores(model: PreTrainedModel, rows: list[tuple[list[int], int]]) -> tuple[float, ...]:
    return tuple((-losses(model, [row for row, _ in rows], [n for _, n in rows]).sum(dim=1)).tolist())


def accuracies(model: PreTrainedModel, benchmarks: Mapping[str, Sequence[Question]], ranks: Ranks | None = None,
               call: Callable[..., Any] | None = None) -> dict[str, dict[str, float]]:
    """{benchmark: {"accuracy", "accuracy_norm"}}; NaN where a score is no number."""
    scores = iter(log_likelihoods(model, [asked for questions in benchmarks.values() for asked in questions], ranks, call))
    return {name: _accuracy([(asked, next(scores)) for asked in questions]) for name, questions in benchmarks.items()}


def _accuracy(answered: list[tuple[Question, list[float]]]) -> dict[str, float]:
    if not all(np.isfinite(scores).all() for _, scores in answered):
        return {"accuracy": float("nan"), "accuracy_norm": float("nan")}
    right = sum(int(np.argmax(scores)) == asked.answer for asked, scores in answered)
    with np.errstate(divide="ignore"):  # an empty choice is never the likeliest per character
        right_norm = sum(int(np.argmax(np.array(scores) / np.array(asked.characters, float))) == asked.answer for asked, scores in answered)
    return {"accuracy": right / len(answered), "accuracy_norm": right_norm / len(answered)}
