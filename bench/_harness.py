"""What every benchmark shares: ours and the peer run in turn, several times, in one process run; ratios with their spread; one JSON file.

A ratio is ours over the peer's. `--quick` runs once on little input, for a smoke test, and writes no result.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results"
REAL_DATA = Path(os.environ.get("ALLAM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Row:
    """One measured quantity, ours and the peer's, in the order in which they were run."""

    metric: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    peer_name: str
    better: str  # "higher" or "lower"
    target: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Medians, and the ratio's spread over the rounds."""
        ratios = [a / b for a, b in zip(self.ours, self.peer, strict=True)]
        return {"metric": self.metric, "unit": self.unit, "ours": statistics.median(self.ours), "peer": statistics.median(self.peer),
                "peer_name": self.peer_name, "ratio": {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)},
                "better": self.better, "target": self.target}


def arguments(description: str, rounds: int = 5) -> argparse.Namespace:
    """The command line that all benchmarks have; `rounds` is the default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one round on little input; no result is written")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often ours and the peer run, in turn")
    given = parser.parse_args()
    if given.quick:
        given.rounds = 1
    return given


def in_turn(rounds: int, ours: Callable[[], T], peer: Callable[[], T]) -> tuple[list[T], list[T]]:
    """Runs both `rounds` times, alternating who goes first so that a drift of the machine falls on both alike."""
    results: dict[str, list[T]] = {"ours": [], "peer": []}
    for i in range(rounds):
        for name, function in (("ours", ours), ("peer", peer))[:: 1 if i % 2 == 0 else -1]:
            results[name].append(function())
    return results["ours"], results["peer"]


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def processor_seconds(function: Callable[[], object]) -> float:
    """Seconds of this process's processor time of one call: other work on the machine disturbs them less."""
    start = time.process_time()
    function()
    return time.process_time() - start


def finish(name: str, rows: Sequence[Row], packages: Sequence[str], quick: bool) -> None:
    """Prints the table and, unless `quick`, writes bench/results/<name>.json."""
    table = Table("metric", "unit", "ours", "peer", "ratio (min, median, max)", "better", "target", title=name)
    for row in rows:
        cells = row.as_json()
        ratio = cells["ratio"]
        table.add_row(row.metric, row.unit, f"{cells['ours']:,.4g}", f"{cells['peer']:,.4g} ({row.peer_name})",
                      f"{ratio['min']:.3f}, {ratio['median']:.3f}, {ratio['max']:.3f}", row.better, "-" if row.target is None else f"{row.target:g}")
    Console().print(table)
    if quick:
        return
    write_result(name, packages, rows=[row.as_json() for row in rows])


def write_result(name: str, packages: Sequence[str], **found: Any) -> None:
    """Writes what was found to bench/results/<name>.json, with the command, the day, the machine and the versions of Python and `packages`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({
        "name": name, "command": f"python -m bench.{name} {' '.join(sys.argv[1:])}".strip(), "date": datetime.date.today().isoformat(),
        "machine": _machine(), "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
        **found}, indent=1) + "\n", encoding="utf-8")


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"processor": model, "cores": os.cpu_count(), "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)}
