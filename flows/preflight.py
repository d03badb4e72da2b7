"""`allam preflight`: is this cluster fit for a long run? The measurements stand in allam/preflight/probe.py, the judgement in verdict.py."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.text import Text

from allam.artifacts import artifact_key
from allam.cluster import load_profile
from allam.launch import make
from allam.pipeline import PREFLIGHT, StageSpec
from allam.preflight.config import PreflightConfig
from allam.preflight.verdict import link_rates
from flows.options import Cluster, Json, StorePath
from flows.run import open_store
from flows.terminal import LiveLines, out, table
from tasks.words import number, size


def preflight(cluster: Cluster = None, store: StorePath = None, as_json: Json = False) -> None:
    """Measure what a long run needs, on the ranks that training would have: versions, clocks, the store, compute, all-reduce. Ends with 1 on problems.

    Nodes that differ from the others or are slower are named. Nothing is made that a recipe uses.
    """
    profile, place = load_profile(cluster), open_store(store)
    config = PreflightConfig(at=datetime.datetime.now(datetime.UTC).isoformat())
    spec = StageSpec(PREFLIGHT, PREFLIGHT, config, {}, artifact_key(PREFLIGHT, 1, config.model_dump(mode="json"), {}), place.root)
    lines = LiveLines([PREFLIGHT])
    if not as_json:
        lines.started(PREFLIGHT)
    try:
        made = make(spec, {}, place, profile, None if as_json else lambda state: lines.progressed(PREFLIGHT, state))
    except BaseException as error:
        if not as_json:
            lines.failed(PREFLIGHT, error)
        raise
    found = json.loads((made.ref.path / "preflight.json").read_text(encoding="utf-8"))
    if as_json:
        typer.echo(json.dumps({"cluster": profile.name, **found}, ensure_ascii=False, indent=2))
    else:
        lines.finished(PREFLIGHT, made)
        _show(found)
    if found["problems"]:
        raise typer.Exit(1)


def _show(found: Mapping[str, Any]) -> None:
    ranks: Sequence[Mapping[str, Any]] = found["ranks"]
    usual = ranks[0]
    versions = ", ".join(f"{name} {usual[name]}" for name in ("python", "torch", "deepspeed", "transformers"))
    gpus = f"; {usual['gpus']} x {usual['gpu']} a node, driver {usual['driver']}" if "gpu" in usual else ""
    nodes = len({r["node"] for r in ranks})
    out.print(f"\n{len(ranks)} rank{'s' * (len(ranks) > 1)} on {nodes} node{'s' * (nodes > 1)}; {versions}{gpus}")
    links = link_rates(found["links"])
    shown = table("node", "ranks", "TFLOP/s a rank", "clock", "store, write", "store, read", "neighbours", "memory free", "store free",
                  right=("ranks", "TFLOP/s a rank", "clock", "store, write", "store, read", "neighbours", "memory free", "store free"))
    for node in dict.fromkeys(r["node"] for r in ranks):
        own = [r for r in ranks if r["node"] == node]
        skew = max((r["clock_skew_s"] for r in own), key=abs)
        shown.add_row(node, str(len(own)), number(min(r["compute_tflops"] for r in own)), f"{1000 * skew:+.1f} ms", _rate(own[0].get("write_mb_s")),
                      _rate(own[0].get("read_mb_s")), f"{links[node]:.3g} GB/s" if node in links else "", f"{own[0]['free_memory_gb']:.0f} GB",
                      f"{own[0]['free_store_gb']:.0f} GB" if "free_store_gb" in own[0] else "")
    out.print(shown)
    for link in found["links"]:
        out.print(f"{' - '.join(link['nodes'])}: {link['gb_s']:.3g} GB/s")
    if len(ranks) > 1:
        for row in found["all_reduce"]:
            out.print(f"all-reduce of {size(row['bytes'])} over all ranks: {1000 * row['seconds']:.3g} ms, bus bandwidth {row['bus_gb_s']:.3g} GB/s "
                      f"({8 * row['bus_gb_s']:.3g} Gbit/s)")
    for problem in found["problems"]:
        out.print(Text.assemble(("problem: ", "bold red"), problem))
    if not found["problems"]:
        out.print("no problem found")


def _rate(megabytes: float | None) -> str:
    return "" if megabytes is None else f"{size(1e6 * megabytes)}/s"
