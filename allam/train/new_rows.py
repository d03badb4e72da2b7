"""The values of new rows: each a weighted mean of old rows, or drawn at random (paper §2.2, Figure 5).

| method | a new piece's row |
|---|---|
| `mean` | the mean of the old rows of its spelling by the base tokenizer: the paper's |
| `random` | a draw from the normal distribution of the old rows' mean and covariance (Hewitt 2021, "Initializing new word embeddings for pretrained
language models"): the paper's ablation |
| `exponential` | the spelling's rows weighted by e^(2i) at position i in the input matrix, where the last part says most of what comes next, and by e^(-2i) in
the output matrix, where the first part is what the base would have written (Nakash et al. 2025, "AdaptiVocab", §3.3) |
| `translation` | the rows of the English pieces that it translates, by their alignment in the corpus's translations (`allam/train/alignment.py`); where it
met none, `mean` (after Remy et al. 2024, "Trans-Tokenization") |

A tied matrix is input and output: `exponential` takes the mean of both there. Whatever the method, an id without text (special tokens, padding) gets the
mean of all old rows: its logit is then the mean of the old logits, which is never the largest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

Rows = list[list[tuple[int, float]]]  # for each new id the old ids with their shares, which sum to 1; none: an id without text

STEEPNESS = 2.0  # of `exponential`, AdaptiVocab's
BLOCK_VALUES = 2**19  # values of old or new rows in memory at once: 2 MiB in single precision
DRAWN_VALUES = 2**22  # the same for the normal weights of `random`, each block of which walks through all old rows


@dataclass(frozen=True)
class Weights:
    """`Rows` as tensors: a million tuples would cost more time than the rows that are made of them."""

    ids_P: Tensor
    shares_P: Tensor  # in double precision
    starts: Tensor  # [new ids + 1]: where each new id's parts begin, and the end

    @classmethod
    def of(cls, rows: Rows) -> Weights:
        """The same from lists."""
        return cls(torch.tensor([i for row in rows for i, _ in row], dtype=torch.int64),
                   torch.tensor([share for row in rows for _, share in row], dtype=torch.float64), _starts(rows))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> list[tuple[int, float]]:
        parts = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return list(zip(self.ids_P[parts].tolist(), self.shares_P[parts].tolist(), strict=True))

    @property
    def has_text(self) -> Tensor:
        """Of each new id."""
        return self.starts.diff() > 0


def _starts(rows: Sequence[Sequence[object]]) -> Tensor:
    return torch.tensor([0, *map(len, rows)]).cumsum(0)


def mean_weights(spellings: Sequence[Sequence[int]]) -> Weights:
    """Each part of a spelling counts alike."""
    starts = _starts(spellings)
    lengths = starts.diff()
    return Weights(torch.tensor(list(chain.from_iterable(spellings)), dtype=torch.int64), (1 / lengths.double()).repeat_interleave(lengths), starts)


def exponential_weights(spellings: Sequence[Sequence[int]], steepness: float) -> Rows:
    """Parts count by e^(steepness · position)."""
    weights = []
    for ids in spellings:
        powers = [math.exp(steepness * (i - (len(ids) - 1 if steepness > 0 else 0))) for i in range(len(ids))]
        weights.append([(i, power / sum(powers)) for i, power in zip(ids, powers, strict=True)])
    return weights


def mixed(first: Rows, second: Rows) -> Rows:
    """The mean of two tables."""
    return [[(i, share / 2) for i, share in (*a, *b)] for a, b in zip(first, second, strict=True)]


def mean_row(old_VD: Tensor) -> Tensor:
    """The mean of all rows, in double precision."""
    total = torch.zeros(old_VD.shape[1], dtype=torch.float64)
    for part in old_VD.split(max(1, BLOCK_VALUES // old_VD.shape[1])):
        total += part.sum(dim=0, dtype=torch.float64)  # sums kept in a list between the blocks would split the heap: 250 MB more
    return total / len(old_VD)


def weighted_rows(old_VD: Tensor, average: Tensor, weights: Weights) -> Iterator[Tensor]:
    """The new rows in blocks `[rows, width]` of the old ones' type, computed in one of at least twice its digits; `average` is the old rows' mean."""
    most = max(1, BLOCK_VALUES // old_VD.shape[1])
    for first in range(0, len(weights), most):
        yield from _block(old_VD, average, weights, first, min(first + most, len(weights)), most)


def _block(old_VD: Tensor, average: Tensor, weights: Weights, first: int, last: int, most: int) -> Iterator[Tensor]:
    """The new rows from `first` to `last`, in as many blocks as need no more than `most` old rows each (or one new row)."""
    parts = slice(int(weights.starts[first]), int(weights.starts[last]))
    ids, places_P = weights.ids_P[parts].unique(return_inverse=True)
    if len(ids) > most and last - first > 1:
        middle = (first + last) // 2
        yield from _block(old_VD, average, weights, first, middle, most)
        yield from _block(old_VD, average, weights, middle, last, most)
        return
    wide = torch.float64 if old_VD.dtype == torch.float32 else torch.float32
    made = nn.functional.embedding_bag(places_P, old_VD[ids].to(wide), weights.starts[first:last] - parts.start, mode="sum",
                                       per_sample_weights=weights.shares_P[parts].to(wide))
    yield torch.where(weights.has_text[first:last].unsqueeze(1), made, average.to(wide)).to(old_VD.dtype)


def random_rows(old_VD: Tensor, average: Tensor, has_text: Tensor, seed: int) -> Iterator[Tensor]:
    """Draws with the old rows' mean and covariance for ids that have text, in blocks: sums of all centred rows with normal weights, which needs no
    factor of the covariance."""
    count, width = old_VD.shape
    generator = torch.Generator().manual_seed(seed)
    step = max(1, DRAWN_VALUES // max(count, width))
    for start in range(0, len(has_text), step):
        kinds = has_text[start:start + step].unsqueeze(1)
        noise_NV = torch.randn(len(kinds), count, generator=generator, dtype=torch.float64) / math.sqrt(count)
        made = torch.zeros(len(kinds), width, dtype=torch.float64)
        at = 0
        for part in old_VD.split(max(1, BLOCK_VALUES // width)):
            made += noise_NV[:, at:at + len(part)] @ (part.double() - average)
            at += len(part)
        yield torch.where(kinds, made + average, average).to(old_VD.dtype)
