"""Token sequences of which some positions are trained on: turn augmentation, batches by epoch, and padding (paper §C.2, Figure 11).

Each assistant turn of a conversation becomes a sample, with all turns before it as masked context. The chat form never rewrites an earlier
turn, so a sample is a beginning of the whole conversation's encoding, and its loss is the one that the turn has inside the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from allam.chat.template import Encoder, encode_conversation, encode_prompt, encode_response
from allam.engine.loss import IGNORED


@dataclass(frozen=True)
class Example:
    """Ids of a sequence and its mask, of equal length: 1 on what the model is trained to produce."""

    ids: list[int]
    mask: list[int]

    @property
    def trained_tokens(self) -> int:
        """Tokens that bear a loss."""
        return sum(self.mask[1:])


def conversation_examples(tokenizer: Encoder, messages: Sequence[dict[str, str]], max_length: int, turn_augmentation: bool) -> tuple[list[Example], int]:
    """The samples of one conversation, and the number of assistant turns left out because they end beyond `max_length` tokens.

    Without turn augmentation there is one sample, cut after the last assistant turn that fits, with all its assistant turns unmasked.
    """
    ids, mask = encode_conversation(tokenizer, messages)
    turns = _runs(mask)
    fitting = [(start, end) for start, end in turns if end <= max_length]
    left_out = len(turns) - len(fitting)
    if not fitting:
        return [], left_out
    if not turn_augmentation:
        end = fitting[-1][1]
        return [Example(ids[:end], mask[:end])], left_out
    return [Example(ids[:end], [0] * start + [1] * (end - start)) for start, end in fitting], left_out


def _runs(mask: list[int]) -> list[tuple[int, int]]:
    """Where the runs of ones begin and end (exclusive)."""
    edges = np.flatnonzero(np.diff([0, *mask, 0]))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def response_example(tokenizer: Encoder, messages: Sequence[dict[str, str]], response: str) -> Example:
    """A prompt that ends with the user's turn, followed by a response; only the response is unmasked."""
    prompt, answer = encode_prompt(tokenizer, messages), encode_response(tokenizer, response)
    return Example(prompt + answer, [0] * len(prompt) + [1] * len(answer))


def batch_numbers(count: int, global_batch: int, seed: int, step: int) -> list[int]:
    """Which of `count` samples the step (from 0) trains on: each epoch is a permutation of its own, its last batch may be shorter."""
    epoch, position = divmod(step, steps_per_epoch(count, global_batch))
    return _order(count, seed, epoch)[position * global_batch:(position + 1) * global_batch]


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count).tolist()  # type: ignore[no-any-return]


def tokens_before(lengths: Sequence[int], global_batch: int, seed: int, step: int) -> int:
    """Tokens seen in the steps before `step`, where sample i has `lengths[i]`: what a resumed run's log goes on from."""
    epochs, position = divmod(step, steps_per_epoch(len(lengths), global_batch))
    begun = _order(len(lengths), seed, epochs)[:position * global_batch]
    return epochs * sum(lengths) + sum(lengths[i] for i in begun)


def steps_per_epoch(count: int, global_batch: int) -> int:
    """Optimizer steps of one pass, the last perhaps on fewer samples."""
    return -(-count // global_batch)


def pad(examples: Sequence[Example], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Ids and shifted targets, both [batch, longest - 1]; `IGNORED` where nothing is trained.

    Padding stands on the right, where causal attention keeps it from reaching any trained position, so no attention mask is needed.
    """
    length = max(len(e.ids) for e in examples)
    ids = torch.zeros((len(examples), length), dtype=torch.long)
    targets = torch.full((len(examples), length), IGNORED, dtype=torch.long)
    for row, example in enumerate(examples):
        sequence = torch.tensor(example.ids, dtype=torch.long)
        ids[row, :len(sequence)] = sequence
        targets[row, :len(sequence)] = torch.where(torch.tensor(example.mask, dtype=torch.bool), sequence, IGNORED)
    return ids[:, :-1].to(device), targets[:, 1:].to(device)
