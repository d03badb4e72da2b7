"""Spikes of the loss and of the gradient's norm: found and counted as they happen (the paper's Figure 3 compares runs by them), and by choice answered.

A value is a spike where it lies more than SIGMAS standard deviations above the mean of the WINDOW values before it; OLMo-core's skip-step optimizer
takes the same rule (128 steps, 6 sigma). Values that were spikes don't enter the window, so that a burst doesn't hide its own tail; after
PATIENCE of them in a row the level counts as new, and the window begins again.

With `skip` such a step's update is left out: weights and moments stay as they are. With `roll_back` the last checkpoint of a fixed grid of steps is
loaded as well, as PaLM's authors did by hand, and training goes on behind the spike: the batches since that checkpoint are spent. Either way the step
counts, so data order and learning rate stay functions of the step, and what happens follows from the steps before: a resumed run repeats it.
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
SKIPPED, ROLLED_BACK = "skipped", "rolled_back_to"  # in a row of metrics.jsonl


class Spikes:
    """Watches one series."""

    def __init__(self) -> None:
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._in_a_row = 0

    def judge(self, value: float) -> bool:
        """Whether `value` would be a spike above what came before it."""
        if len(self._window) < FEWEST:
            return False
        mean = math.fsum(self._window) / len(self._window)
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in self._window) / len(self._window))
        return value > mean + SIGMAS * max(deviation, SMALLEST_SHARE * abs(mean))

    def add(self, value: float) -> bool:
        """Takes `value` in; returns whether it was a spike."""
        if self.judge(value):
            self._in_a_row += 1
            if self._in_a_row >= PATIENCE:
                self._window.clear()
                self._in_a_row = 0
            return True
        self._in_a_row = 0
        self._window.append(value)
        return False

    def state(self) -> dict[str, Any]:
        """What `restore` takes, for a checkpoint."""
        return {"window": list(self._window), "in_a_row": self._in_a_row}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self._window.extend(state["window"])
        self._in_a_row = state["in_a_row"]


class StabilityMonitor:
    """Watches loss and gradient norm; a checkpoint holds its `state`, so that a resumed run judges as if never stopped."""

    SERIES = ("loss", "grad_norm")

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._series = {name: Spikes() for name in self.SERIES}
        for name, kept in (state or {}).items():
            self._series[name].restore(kept)

    def judge(self, row: Mapping[str, Any]) -> list[str]:
        """Which of its series would spike with one step's row."""
        return [name for name, spikes in self._series.items() if spikes.judge(float(row[name]))]

    def add(self, row: Mapping[str, Any]) -> list[str]:
        """Adds one step's row; returns which of its series spiked."""
        return [name for name, spikes in self._series.items() if spikes.add(float(row[name]))]

    def state(self) -> dict[str, Any]:
        """The state of each series."""
        return {name: spikes.state() for name, spikes in self._series.items()}


def count_spikes(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many steps of metrics.jsonl are marked as spikes, by series."""
    counts = dict.fromkeys(StabilityMonitor.SERIES, 0)
    for row in rows:
        for name in row.get("spikes", ()):
            counts[name] += 1
    return counts


def lost_steps(rows: Iterable[Mapping[str, Any]]) -> set[int]:
    """The steps (from 0) that left nothing in the weights: those skipped, and those between a checkpoint and the spike that led back to it."""
    lost = set()
    for row in rows:
        if SKIPPED in row:
            lost.add(row["step"] - 1)
        elif ROLLED_BACK in row:
            lost |= set(range(row[ROLLED_BACK], row["step"]))
    return lost
