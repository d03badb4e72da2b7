"""Spikes of the loss and of the gradient's norm: found and counted as they happen (the paper's Figure 3 compares runs by them).

A value is a spike where it lies more than SIGMAS standard deviations above the mean of the WINDOW values before it; OLMo-core's skip-step optimizer
takes the same rule (128 steps, 6 sigma). Values that were spikes don't enter the window, so that a burst doesn't hide its own tail; after
PATIENCE of them in a row the level counts as new, and the window begins again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

WINDOW = 128
FEWEST = 32  # values before the first judgement
SIGMAS = 6.0
SMALLEST_SHARE = 0.02  # of the mean, as the least standard deviation: a flat stretch must not make ripples into spikes
PATIENCE = 32


class Spikes:
    """Watches one series."""

    def __init__(self) -> None:
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._in_a_row = 0

    def add(self, value: float) -> bool:
        """Whether `value` is a spike above what came before it."""
        if len(self._window) >= FEWEST:
            mean = math.fsum(self._window) / len(self._window)
            deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in self._window) / len(self._window))
            if value > mean + SIGMAS * max(deviation, SMALLEST_SHARE * abs(mean)):
                self._in_a_row += 1
                if self._in_a_row >= PATIENCE:
                    self._window.clear()
                    self._in_a_row = 0
                return True
        self._in_a_row = 0
        self._window.append(value)
        return False


class StabilityMonitor:
    """Watches loss and gradient norm; after a resume it is fed the rows that stand in metrics.jsonl, so that it judges as if never stopped."""

    SERIES = ("loss", "grad_norm")

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._series = {name: Spikes() for name in self.SERIES}
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> list[str]:
        """Adds one step's row; returns which of its series spiked."""
        return [name for name, spikes in self._series.items() if spikes.add(float(row[name]))]


def count_spikes(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many steps of metrics.jsonl are marked as spikes, by series."""
    counts = dict.fromkeys(StabilityMonitor.SERIES, 0)
    for row in rows:
        for name in row.get("spikes", ()):
            counts[name] += 1
    return counts
