"""From what the ranks measured to what is wrong, in words that name the node. Pure functions of plain data: nothing here needs a cluster."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from allam.preflight.config import PreflightConfig

SAME_EVERYWHERE = ("python", "torch", "cuda", "driver", "deepspeed", "transformers", "allam", "gpu", "gpus", "cpus")
RATES = {"compute_tflops": ("computes at", "TFLOP/s"), "write_mb_s": ("writes to the store at", "MB/s"), "read_mb_s": ("reads from the store at", "MB/s")}

Facts = Mapping[str, Any]  # what one rank knows and measured, see allam/preflight/probe.py
Link = Mapping[str, Any]   # {"nodes": [a, b], "gb_s": rate}


def problems(ranks: Sequence[Facts], links: Sequence[Link], config: PreflightConfig) -> list[str]:
    """What should be looked at before a long run, worst first; empty where all is well."""
    return [*_storage(ranks), *_differences(ranks), *_clocks(ranks, config), *_slow(ranks, links, config)]


def _storage(ranks: Sequence[Facts]) -> Iterable[str]:
    for facts in ranks:
        if facts.get("storage_error"):
            yield f"{facts['node']}: {facts['storage_error']}"


def _differences(ranks: Sequence[Facts]) -> Iterable[str]:
    """A fact in which nodes differ: the most frequent value counts as right, the nodes with others are named."""
    for name in SAME_EVERYWHERE:
        values = [str(facts.get(name)) for facts in ranks]
        usual = statistics.mode(values)
        others = sorted({f"{facts['node']} has {value}" for facts, value in zip(ranks, values, strict=True) if value != usual})
        if others:
            yield f"{name}: {', '.join(others)}; the others have {usual}"


def _clocks(ranks: Sequence[Facts], config: PreflightConfig) -> Iterable[str]:
    worst: dict[str, float] = {}
    for facts in ranks:
        skew = facts.get("clock_skew_s") or 0.0
        if abs(skew) > config.max_clock_skew_seconds and abs(skew) > abs(worst.get(facts["node"], 0.0)):
            worst[facts["node"]] = skew
    for node, skew in worst.items():
        yield f"{node}: its clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} rank 0's; check its time service (chronyc tracking)"


def _slow(ranks: Sequence[Facts], links: Sequence[Link], config: PreflightConfig) -> Iterable[str]:
    for name, (verb, unit) in RATES.items():
        slowest: dict[str, float] = {}
        for facts in ranks:
            if facts.get(name) is not None:
                slowest[facts["node"]] = min(facts[name], slowest.get(facts["node"], facts[name]))
        yield from _below(slowest, verb, unit, config.min_share)
    yield from _below(link_rates(links), "exchanges with its neighbours at", "GB/s", config.min_share)


def link_rates(links: Sequence[Link]) -> dict[str, float]:
    """GB/s of each node's best link. A slow link is two nodes' and may be either's fault; a slow node has no fast one. With two nodes none can be blamed."""
    best: dict[str, float] = {}
    if len(links) >= 3:
        for link in links:
            for node in link["nodes"]:
                best[node] = max(link["gb_s"], best.get(node, 0.0))
    return best


def _below(rates: Mapping[str, float], verb: str, unit: str, share: float) -> Iterable[str]:
    if len(rates) < 2:
        return
    usual = statistics.median_high(rates.values())
    for node, rate in rates.items():
        if rate < share * usual:
            yield f"{node}: {verb} {rate:.3g} {unit}, {100 * rate / usual:.0f}% of the median node's {usual:.3g}"
