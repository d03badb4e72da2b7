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

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

Weights = list[list[tuple[int, float]]]  # for each new id the old ids with their shares, which sum to 1; none: an id without text

STEEPNESS = 2.0  # of `exponential`, AdaptiVocab's
BLOCK_VALUES = 2**19  # doubles in memory at once: 4 MiB
DRAWN_VALUES = 2**22  # the same for the normal weights of `random`, each block of which walks through all old rows


def mean_weights(spellings: Sequence[Sequence[int]]) -> Weights:
    """Each part of a spelling counts alike."""
    return [[(i, 1 / len(ids)) for i in ids] for ids in spellings]


def exponential_weights(spellings: Sequence[Sequence[int]], steepness: float) -> Weights:
    """Parts count by e^(steepness · position)."""
    weights = []
    for ids in spellings:
        powers = [math.exp(steepness * (i - (len(ids) - 1 if steepness > 0 else 0))) for i in range(len(ids))]
        weights.append([(i, power / sum(powers)) for i, power in zip(ids, powers, strict=True)])
    return weights


def mixed(first: Weights, second: Weights) -> Weights:
    """The mean of two tables."""
    return [[(i, share / 2) for i, share in (*a, *b)] for a, b in zip(first, second, strict=True)]


def mean_row(old_VD: Tensor) -> Tensor:
    """The mean of all rows, in double precision."""
    total = torch.zeros(old_VD.shape[1], dtype=torch.float64)
    for part in old_VD.split(max(1, BLOCK_VALUES // old_VD.shape[1])):
        total += part.sum(dim=0, dtype=torch.float64)  # sums kept in a list between the blocks would split the heap: 250 MB more
    return total / len(old_VD)


def weighted_rows(old_VD: Tensor, average: Tensor, weights: Weights) -> Iterator[Tensor]:
    """The new rows in blocks `[rows, width]` of the old ones' type, computed in double precision; `average` is the old rows' mean."""
    most = max(1, BLOCK_VALUES // old_VD.shape[1])
    block: Weights = []
    met: set[int] = set()
    for shares in weights:
        more = met.union(i for i, _ in shares)
        if block and len(more) + len(block) > most:
            yield _weighted(old_VD, average, block)
            block, more = [], {i for i, _ in shares}
        block.append(shares)
        met = more
    if block:
        yield _weighted(old_VD, average, block)


def _weighted(old_VD: Tensor, average: Tensor, weights: Weights) -> Tensor:
    ids = sorted({i for shares in weights for i, _ in shares})
    table_UD = torch.cat([old_VD[ids].double(), average.unsqueeze(0)])
    place = {i: k for k, i in enumerate(ids)}
    bags = [[(place[i], share) for i, share in shares] or [(len(ids), 1.0)] for shares in weights]
    entries = torch.tensor([k for bag in bags for k, _ in bag])
    shares_P = torch.tensor([share for bag in bags for _, share in bag], dtype=torch.float64)
    starts = torch.tensor([0, *itertools.accumulate(map(len, bags))][:-1])
    return nn.functional.embedding_bag(entries, table_UD, starts, mode="sum", per_sample_weights=shares_P).to(old_VD.dtype)


def random_rows(old_VD: Tensor, average: Tensor, has_text: Sequence[bool], seed: int) -> Iterator[Tensor]:
    """Draws with the old rows' mean and covariance for ids that have text, in blocks: sums of all centred rows with normal weights, which needs no
    factor of the covariance."""
    count, width = old_VD.shape
    generator = torch.Generator().manual_seed(seed)
    step = max(1, DRAWN_VALUES // max(count, width))
    for start in range(0, len(has_text), step):
        kinds = torch.tensor(has_text[start:start + step]).unsqueeze(1)
        noise_NV = torch.randn(len(kinds), count, generator=generator, dtype=torch.float64) / math.sqrt(count)
        made = torch.zeros(len(kinds), width, dtype=torch.float64)
        at = 0
        for part in old_VD.split(max(1, BLOCK_VALUES // width)):
            made += noise_NV[:, at:at + len(part)] @ (part.double() - average)
            at += len(part)
        yield torch.where(kinds, made + average, average).to(old_VD.dtype)
