"""Planned and consumed tokens and epochs by language, kind and domain, from the mixes and the trainings that read them: `allam data ledger RECIPE`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from allam.artifacts import Manifest


def ledger_rows(phase: str, mix: Manifest, training: Path | None) -> list[dict[str, Any]]:
    """One row a domain of a phase; `consumed` is None until the training is done, `epochs` are those planned."""
    consumed = json.loads((training / "ledger.json").read_text(encoding="utf-8")) if training else {}
    rows = []
    for component, domains in mix.metrics["ledger"].items():
        for domain, entry in domains.items():
            rows.append({"phase": phase, "language": component[:2], "kind": "translated" if component.endswith("_translated") else "natural",
                         "domain": domain, "share": entry["share"], "planned": entry["planned_tokens"], "available": entry["available_tokens"],
                         "consumed": consumed[component][domain]["consumed_tokens"] if training else None, "epochs": entry["epochs"]})
    return rows


def ledger_sums(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of each phase, then its sums by language and kind, and of all."""
    found: list[dict[str, Any]] = []
    rows = list(rows)
    for phase in dict.fromkeys(row["phase"] for row in rows):
        mine = [row for row in rows if row["phase"] == phase]
        found += mine
        groups = dict.fromkeys((row["language"], row["kind"]) for row in mine)
        found += [_sum([row for row in mine if (row["language"], row["kind"]) == group], phase, *group) for group in groups]
        found.append(_sum(mine, phase, "all", "all"))
    return found


def _sum(rows: list[dict[str, Any]], phase: str, language: str, kind: str) -> dict[str, Any]:
    total = {name: sum(row[name] for row in rows) for name in ("share", "planned", "available")}
    consumed = None if any(row["consumed"] is None for row in rows) else sum(row["consumed"] for row in rows)
    return {"phase": phase, "language": language, "kind": kind, "domain": "all", **total, "consumed": consumed,
            "epochs": total["planned"] / total["available"] if total["available"] else 0.0}
