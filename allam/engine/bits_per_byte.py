"""Bits per byte of held-out text: comparable between tokenizers, which losses per token are not (the paper's Figure 8 follows it in training).

A document is [BOS] ids, cut into windows of the sequence length; each token but BOS is predicted once, from the window's tokens before it.
The sum of their negative log-likelihoods, in bits, is divided by the text's UTF-8 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from allam.engine.device import Ranks
from allam.engine.loss import IGNORED, token_losses

TOKENS_AT_ONCE = 4096


class Encoder(Protocol):
    """What is needed of a tokenizer."""

    bos_id: int

    def encode_batch(self, texts: list[str], /) -> list[list[int]]:
        """Ids of each text without BOS."""
        ...


def bits_per_byte(model: PreTrainedModel, tokenizer: Encoder, texts: Sequence[str], sequence_length: int,
                  ranks: Ranks | None = None, call: Callable[..., Any] | None = None) -> float:
    """Bits per UTF-8 byte of `texts` under `model`. During training, the replicas of `ranks` share the work and `call` is `Trainer.call`."""
    windows = cut(tokenizer, texts, sequence_length)
    batches = _batches(windows)
    world, rank = (ranks.replicas, ranks.replica) if ranks else (1, 0)
    nats = 0.0
    for i in range(0, len(batches), world):  # every rank passes forward equally often, as ZeRO-3 needs
        mine = batches[min(i + rank, len(batches) - 1)]
        value = call(_nats, mine) if call else _nats(model, mine)
        nats += value if i + rank < len(batches) else 0.0
    if ranks:
        nats = ranks.sum([nats])[0]
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def cut(tokenizer: Encoder, texts: Sequence[str], sequence_length: int) -> list[list[int]]:
    """Windows of up to `sequence_length` + 1 tokens, of which the first is context only; the next window begins with the last one's end."""
    windows = []
    for ids in tokenizer.encode_batch(list(texts)):
        document = [tokenizer.bos_id, *ids]
        windows += [document[i : i + sequence_length + 1] for i in range(0, len(document) - 1, sequence_length)]
    return windows


def _batches(windows: list[list[int]]) -> list[list[list[int]]]:
    """Windows of like length together, so that little is padded; always in the same order."""
    batches: list[list[list[int]]] = [[]]
    for window in sorted(windows, key=lambda w: (-len(w), w)):
        if batches[-1] and (len(batches[-1]) + 1) * len(batches[-1][0]) > TOKENS_AT_ONCE:
            batches.append([])
        batches[-1].append(window)
    return batches


@torch.no_grad()
def _nats(model: PreTrainedModel, windows: list[list[int]]) -> float:
    """The sum of losses in nats; windows are padded on the right, where causal attention hides it from the tokens."""
    longest = max(len(w) for w in windows) - 1
    device = model.device
    ids_BT = torch.tensor([w[:-1] + [0] * (longest + 1 - len(w)) for w in windows], device=device)
    targets_BT = torch.tensor([w[1:] + [IGNORED] * (longest + 1 - len(w)) for w in windows], device=device)
    return float(token_losses(model, ids_BT, targets_BT).double().sum())
