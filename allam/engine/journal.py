"""What a training writes down as it goes: metrics.jsonl (each step), evals.jsonl (each evaluation) and telemetry.jsonl (speed, each step), the
same to the trackers that the profile names, and which evaluation was the best so far.

Metrics and evaluations are functions of the step, so that a resumed run writes them as an undisturbed one does; speeds are not, and stand apart.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from allam.cluster import ClusterProfile
from allam.engine.device import Ranks, peak_memory_bytes
from allam.engine.logs import JsonLines
from allam.engine.model import flops_per_token
from allam.engine.trackers import flat, open_trackers

METRICS, EVALS, TELEMETRY = "metrics.jsonl", "evals.jsonl", "telemetry.jsonl"


@dataclass(frozen=True)
class _Speed:
    """Where the clock, the tokens and the waiting stood at the last line of telemetry."""

    time: float
    tokens: int
    waited: float


class Journal:
    """The logs of one training below its folder `work`; the first rank writes, all may call. `model` is whole yet, not cut among ranks."""

    def __init__(self, work: Path, model: PreTrainedModel, ranks: Ranks, profile: ClusterProfile) -> None:
        self.work, self.parameters = work, sum(p.numel() for p in model.parameters())
        self._config, self._ranks, self._profile = model.config, ranks, profile
        self._logs = {name: JsonLines(work / name, ranks.first) for name in (METRICS, EVALS, TELEMETRY)}
        self._best_step, self._fewest_bits = 0, math.inf
        self._speed = _Speed(time.monotonic(), 0, 0.0)
        self._waited = 0.0
        self._track: Any = None

    # --- beside a checkpoint ---------------------------------------------------------------------------------------------------

    def sync(self) -> dict[str, int]:
        """Puts the logs on disk; their sizes in bytes by name."""
        return {name: log.sync() for name, log in self._logs.items()}

    def resume(self, sizes: dict[str, int], start_step: int) -> None:
        """Cuts the logs back to `sizes` (to nothing where there is none), and goes on from `start_step`."""
        for name, log in self._logs.items():
            log.cut(sizes.get(name, 0))
        for row in self.evals():
            self._compare(row)
        self._track = open_trackers(self._profile, self.work.parent, start_step) if self._ranks.first else None

    def copy_to(self, out: Path) -> None:
        """Copies the logs to the artifact's folder."""
        self.sync()
        if self._ranks.first:
            for name, log in self._logs.items():
                shutil.copyfile(log.path, out / name)

    # --- what is written -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Steps begin: the first one's time counts from now."""
        rows = self.metrics()
        self._speed = _Speed(time.monotonic(), int(rows[-1]["tokens"]) if rows else 0, self._waited)

    def add_metrics(self, row: dict[str, Any], sequence_length: float) -> None:
        """A step's line of metrics, and one of telemetry. That costs no synchronisation: the step's own has read the loss from the device."""
        self._add(METRICS, row)
        now, tokens = time.monotonic(), int(row["tokens"])
        self._add(TELEMETRY, {"step": row["step"], "tokens": tokens, **self._telemetry(self._speed, now, tokens, sequence_length)})
        self._speed = _Speed(now, tokens, self._waited)

    def add_eval(self, step: int, tokens: int, **values: Any) -> None:
        """A measurement after `step` steps (0: before the first)."""
        row = {"step": step, "tokens": tokens, **values}
        self._compare(row)
        self._add(EVALS, row)

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """What runs within counts as the time that this rank waits for data."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - start

    def _telemetry(self, since: _Speed, now: float, tokens: int, sequence_length: float) -> dict[str, float]:
        """Since the last line: seconds (with what was measured or saved between the steps), tokens a second over all ranks, TFLOP/s a device, utilisation
        of the profile's peak, peak memory of this rank, and the seconds, and their share, that this rank waited for data."""
        seconds, waited = max(now - since.time, 1e-9), self._waited - since.waited
        rate = (tokens - since.tokens) / seconds
        tflops = rate * flops_per_token(self._config, self.parameters, sequence_length) / self._ranks.world_size / 1e12
        return {"seconds": short(seconds), "tokens_per_second": round(rate, 1), "tflops_per_device": short(tflops),
                "utilisation": short(tflops / self._profile.peak_tflops), "peak_memory_bytes": peak_memory_bytes(self._ranks.device),
                "data_wait_seconds": short(waited), "data_wait_share": round(waited / seconds, 4)}

    def _add(self, name: str, row: dict[str, Any]) -> None:
        self._logs[name].add(row)
        if self._track is not None:
            self._track(int(row["step"]), {key: value for key, value in flat(row) if key != "step"})

    # --- what was written ------------------------------------------------------------------------------------------------------

    def metrics(self) -> list[dict[str, Any]]:
        """The steps' lines so far; none on all ranks but the first."""
        return self._logs[METRICS].rows()

    def evals(self) -> list[dict[str, Any]]:
        """The measurements so far, the same on every rank."""
        rows: Any = self._ranks.broadcast(self._logs[EVALS].rows())
        return rows  # type: ignore[no-any-return]

    @property
    def best_step(self) -> int:
        """The step of the evaluation with the fewest held-out bits per byte, in the mean over the components; 0 before one after training began."""
        return self._best_step

    def _compare(self, row: dict[str, Any]) -> None:
        values = list(row.get("bits_per_byte", {}).values())
        if row["step"] and values and sum(values) / len(values) < self._fewest_bits:
            self._best_step, self._fewest_bits = int(row["step"]), sum(values) / len(values)


def short(value: float) -> float:
    """Six significant digits: enough for a chart, and a third of the size."""
    return float(f"{value:.6g}")
