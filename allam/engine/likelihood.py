"""Losses of token sequences without a gradient, the work shared out among the copies of a model: what bits per byte and benchmarks during training stand on.

Every rank calls alike. In a pipeline only the last stage has the losses; `Ranks.sum` takes them from there, and from one part of a divided layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from allam.engine.device import Ranks
from allam.engine.loss import IGNORED, token_losses

TOKENS_AT_ONCE = 4096
T = TypeVar("T")


class Encoder(Protocol):
    """What is needed of a tokenizer."""

    bos_id: int

    def encode_batch(self, texts: list[str], /) -> list[list[int]]:
        """Ids of each text without BOS."""
        ...


def by_length(rows: Sequence[list[int]]) -> list[list[int]]:
    """Numbers of the rows in batches of like length, so that little is padded; always in the same order."""
    batches: list[list[int]] = [[]]
    for number in sorted(range(len(rows)), key=lambda i: (-len(rows[i]), rows[i])):
        if batches[-1] and (len(batches[-1]) + 1) * len(rows[batches[-1][0]]) > TOKENS_AT_ONCE:
            batches.append([])
        batches[-1].append(number)
    return batches


@torch.no_grad()
def losses(model: PreTrainedModel, rows: Sequence[list[int]], scored: Sequence[int]) -> Tensor:
    """The losses in nats of the last `scored[b]` tokens of each row, [B, T] in fp64, zero elsewhere; padded on the right, where causal attention hides it."""
    longest, device = max(len(row) for row in rows) - 1, model.device
    ids_BT = torch.tensor([row[:-1] + [0] * (longest + 1 - len(row)) for row in rows], device=device)
    targets_BT = torch.tensor([[IGNORED] * (len(row) - 1 - n) + row[len(row) - n:] + [IGNORED] * (longest + 1 - len(row))
                               for row, n in zip(rows, scored, strict=True)], device=device)
    return token_losses(model, ids_BT, targets_BT).double()


def shared_out(function: Callable[[PreTrainedModel, T], Sequence[float]], batches: Sequence[T], places: Sequence[Sequence[int]], size: int,
               model: PreTrainedModel, ranks: Ranks | None, call: Callable[..., Any] | None, tell: Callable[[int], None] = lambda done: None) -> list[float]:
    """`size` sums of what `function(model, batch)` gives for each batch, value i of which belongs to sum `places[batch][i]`; the same on every rank.

    During training, the replicas of `ranks` share the work and `call` is `Trainer.call`; `tell` hears how many batches are done.
    """
    totals, (world, rank) = [0.0] * size, (ranks.replicas, ranks.replica) if ranks else (1, 0)
    for i in range(0, len(batches), world):  # every rank passes forward equally often, as ZeRO-3 needs
        mine = min(i + rank, len(batches) - 1)
        values = call(function, batches[mine]) if call else function(model, batches[mine])
        if i + rank < len(batches):
            for place, value in zip(places[mine], values, strict=True):
                totals[place] += value
        tell(min(i + world, len(batches)))
    return ranks.sum(totals) if ranks else totals
