"""Sampling text from a model: batches with a key-value cache, temperature and nucleus, reproducible for each prompt alone (paper §C.3).

Every prompt has a random generator of its own, so that what it yields depends on its seed and not on which other prompts share its batch
(up to the rounding of batched matrix products). Prompts of different lengths are padded on the left with masked positions. Rows that have
ended leave the batch. Special tokens other than the stop ids, and the rows that only pad the vocabulary, are never produced.

    generate(model, tokenizer, [encode_prompt(tokenizer, messages)], max_new_tokens=64, temperature=0, top_p=1, seed=0, stop_ids=stop_ids(tokenizer))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from transformers import DynamicCache

from allam.chat.tokens import is_padding
from allam.errors import UserError


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    special: dict[str, int]
    vocab_size: int

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The spelling of ids."""
        ...


def forbidden_ids(tokenizer: Vocabulary, stop_ids: Sequence[int]) -> list[int]:
    """Ids that must not be produced: special tokens that don't end a text, and the rows that only pad the vocabulary, which end it."""
    padding = []
    for token in range(tokenizer.vocab_size - 1, -1, -1):
        if not is_padding(tokenizer.pieces([token])[0]):
            break
        padding.append(token)
    return sorted(set(tokenizer.special.values()) - set(stop_ids) | set(padding))


def generate(model: Any, tokenizer: Vocabulary, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float | Sequence[float],
             top_p: float | Sequence[float], seed: int | Sequence[int], stop_ids: Sequence[int]) -> list[list[int]]:
    """The ids that follow each prompt, without the stop id that ended them.

    `temperature` (0: greedy), `top_p` and `seed` are one value for all prompts or one for each; one seed for all stands for `seed + number of
    the prompt`. All prompts run as one batch: the caller splits long lists. Raises `UserError` where a prompt doesn't fit the model's positions.
    """
    if not prompts:
        return []
    count = len(prompts)
    _check_lengths(model, prompts, max_new_tokens)
    temperatures, nuclei = _spread(temperature, count), _spread(top_p, count)
    seeds = [seed + i for i in range(count)] if isinstance(seed, int) else list(seed)
    generators = [np.random.Generator(np.random.PCG64(s)) for s in seeds]
    forbidden = torch.tensor(forbidden_ids(tokenizer, stop_ids), dtype=torch.long, device=model.device)
    stops = set(stop_ids)
    results: list[list[int]] = [[] for _ in prompts]
    rows = list(range(count))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batch = _Batch(model, prompts)
            for step in range(max_new_tokens):
                logits_BV = batch.logits().float()
                logits_BV[:, forbidden] = -torch.inf
                chosen = _choose(logits_BV, [temperatures[r] for r in rows], [nuclei[r] for r in rows], [generators[r] for r in rows])
                going_on = [i for i, token in enumerate(chosen) if token not in stops]
                for i in going_on:
                    results[rows[i]].append(chosen[i])
                rows = [rows[i] for i in going_on]
                if not rows or step + 1 == max_new_tokens:
                    break
                batch.advance([chosen[i] for i in going_on], going_on if len(going_on) < len(chosen) else None)
    finally:
        model.train(was_training)
    return results


class _Batch:
    """Left-padded prompts and their key-value cache."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self.model = model
        length = max(len(p) for p in prompts)
        ids = torch.zeros((len(prompts), length), dtype=torch.long)
        self.mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt):] = torch.tensor(prompt, dtype=torch.long)
            self.mask[row, length - len(prompt):] = 1
        self.ids, self.mask = ids.to(model.device), self.mask.to(model.device)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.cache = DynamicCache(config=model.config)

    def logits(self) -> torch.Tensor:
        """Scores of the next token, [batch, vocabulary]."""
        output = self.model(input_ids=self.ids, attention_mask=self.mask, position_ids=self.positions, past_key_values=self.cache,
                            use_cache=True, logits_to_keep=1)
        return output.logits[:, -1]

    def advance(self, tokens: list[int], keep: list[int] | None) -> None:
        """Appends one token to each row; `keep` names the rows that go on (None: all)."""
        if keep is not None:
            kept = torch.tensor(keep, device=self.mask.device)
            self.cache.batch_select_indices(kept)
            self.mask, self.positions = self.mask[kept], self.positions[kept]
        self.ids = torch.tensor(tokens, dtype=torch.long, device=self.mask.device)[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(self.ids)], dim=1)
        self.positions = self.positions[:, -1:] + 1


def _choose(logits_BV: torch.Tensor, temperatures: list[float], nuclei: list[float], generators: list[np.random.Generator]) -> list[int]:
    """One token for each row: the likeliest at temperature 0, else drawn from the nucleus by the row's generator."""
    chosen = logits_BV.argmax(dim=-1).tolist()
    sampled = [i for i, temperature in enumerate(temperatures) if temperature > 0]
    if not sampled:
        return chosen
    scaled = logits_BV[sampled].double() / torch.tensor([temperatures[i] for i in sampled], dtype=torch.float64, device=logits_BV.device)[:, None]
    probabilities, order = torch.softmax(scaled, dim=-1).sort(dim=-1, descending=True, stable=True)
    cumulative = probabilities.cumsum(dim=-1)
    nucleus = torch.tensor([nuclei[i] for i in sampled], dtype=torch.float64, device=logits_BV.device)[:, None]
    mass = torch.where(cumulative - probabilities < nucleus, probabilities, 0.0).sum(dim=-1, keepdim=True)
    draws = torch.tensor([[generators[i].random()] for i in sampled], dtype=torch.float64, device=logits_BV.device)
    ranks = torch.searchsorted(cumulative, draws * mass, right=True).clamp(max=logits_BV.shape[-1] - 1)
    for i, token in zip(sampled, order.gather(1, ranks)[:, 0].tolist(), strict=True):
        chosen[i] = token
    return chosen


def _spread(value: float | Sequence[float], count: int) -> list[float]:
    return [float(value)] * count if isinstance(value, (int, float)) else [float(v) for v in value]


def _check_lengths(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    longest, limit = max(len(p) for p in prompts), model.config.max_position_embeddings
    if longest + max_new_tokens > limit:
        raise UserError(f"a prompt of {longest} tokens and max_new_tokens {max_new_tokens} exceed the model's {limit} positions",
                        "lower max_new_tokens, shorten the prompt, or raise train.model.max_positions")
    if any(not p for p in prompts):
        raise ValueError("a prompt is empty: give at least the token that begins a document")
