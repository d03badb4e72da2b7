"""Bits per byte of held-out text: comparable between tokenizers, which losses per token are not (the paper's Figure 8 follows it in training).

A document is [BOS] ids, cut into windows of the sequence length; each token but BOS is predicted once, from the window's tokens before it.
The sum of their negative log-likelihoods, in bits, is divided by the text's UTF-8 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedModel

from allam.engine.device import Ranks
from allam.engine.likelihood import Encoder, by_length, losses, shared_out


def bits_per_byte(model: PreTrainedModel, tokenizer: Encoder, texts: Sequence[str], sequence_length: int,
                  ranks: Ranks | None = None, call: Callable[..., Any] | None = None) -> float:
    """Bits per UTF-8 byte of `texts` under `model`. During training, the replicas of `ranks` share the work and `call` is `Trainer.call`."""
    windows = cut(tokenizer, texts, sequence_length)
    batches = [[windows[i] for i in batch] for batch in by_length(windows)]
    [nats] = shared_out(_nats, batches, [[0]] * len(batches), 1, model, ranks, call)
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def cut(tokenizer: Encoder, texts: Sequence[str], sequence_length: int) -> list[list[int]]:
    """Windows of up to `sequence_length` + 1 tokens, of which the first is context only; the next window begins with the last one's end."""
    windows = []
    for ids in tokenizer.encode_batch(list(texts)):
        document = [tokenizer.bos_id, *ids]
        windows += [document[i : i + sequence_length + 1] for i in range(0, len(document) - 1, sequence_length)]
    return windows


def _nats(model: PreTrainedModel, windows: list[list[int]]) -> tuple[float]:
    """The sum of the losses of all tokens but the windows' first."""
    return (float(losses(model, windows, [len(window) - 1 for window in windows]).sum()),)
