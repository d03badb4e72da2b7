"""Elo ratings under the paper's two rewards, averaged over orders of the comparisons, with bootstrap intervals (paper §4.3, Table 7).

default   the winner 1, the loser 0; a tie and both-bad 0.5 each
custom    as default, but both-bad gives 0 to both: bad answers cost points even where the other's were no better
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REWARDS: dict[str, dict[str, tuple[float, float]]] = {
    "default": {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.5, 0.5)},
    "custom": {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.0, 0.0)},
}
SCALE = 400.0  # points at which the stronger is expected to win ten times in eleven
ORDERS_OF_A_RESAMPLE = 8  # averaged, so that the interval shows the votes' uncertainty and not the order's
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Comparison:
    """The verdict on two models' answers to one question: `winner` is "a", "b", "tie" or "both_bad"."""

    model_a: str
    model_b: str
    winner: str


@dataclass(frozen=True)
class Rating:
    """A model's rating and its 95% interval."""

    rating: float
    low: float
    high: float


def elo(comparisons: Sequence[Comparison], rewards: str, k: float, initial: float, permutations: int, resamples: int, seed: int) -> dict[str, Rating]:
    """Ratings of all models, by name. The same seed gives the same ratings; the order of `comparisons` has no part in them but through it."""
    models = sorted({m for c in comparisons for m in (c.model_a, c.model_b)})
    if not models:
        return {}
    ordered = sorted(comparisons, key=lambda c: (c.model_a, c.model_b, c.winner))
    random, count = np.random.Generator(np.random.PCG64(seed)), len(ordered)
    orders = random.permuted(np.tile(np.arange(count), (permutations, 1)), axis=1)
    mean = rate(ordered, models, rewards, k, initial, orders).mean(axis=0)
    drawn = np.repeat(random.integers(count, size=(resamples, count)), ORDERS_OF_A_RESAMPLE, axis=0)
    resampled = rate(ordered, models, rewards, k, initial, random.permuted(drawn, axis=1))
    low, high = np.percentile(resampled.reshape(resamples, ORDERS_OF_A_RESAMPLE, -1).mean(axis=1), INTERVAL, axis=0)
    return {m: Rating(round(float(mean[i]), 2), round(float(low[i]), 2), round(float(high[i]), 2)) for i, m in enumerate(models)}


def rate(comparisons: Sequence[Comparison], models: Sequence[str], rewards: str, k: float, initial: float, orders: NDArray[np.int64]) -> NDArray[np.float64]:
    """Final ratings, [orders, models]: each row of `orders`, [orders, steps], names the comparisons in the order in which they are played."""
    number = {m: i for i, m in enumerate(models)}
    a = np.array([number[c.model_a] for c in comparisons])
    b = np.array([number[c.model_b] for c in comparisons])
    gains = np.array([REWARDS[rewards][c.winner] for c in comparisons])
    ratings = np.full((len(orders), len(models)), float(initial))
    rows = np.arange(len(orders))
    for step in range(orders.shape[1]):
        played = orders[:, step]
        first, second = a[played], b[played]
        expected = 1 / (1 + 10 ** ((ratings[rows, second] - ratings[rows, first]) / SCALE))
        ratings[rows, first] += k * (gains[played, 0] - expected)
        ratings[rows, second] += k * (gains[played, 1] - (1 - expected))
    return ratings
