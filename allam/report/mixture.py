"""The report's mixture and tokenizer sections: planned and consumed tokens beside the paper's Table 1, and fertility as in its Figure 1."""

from __future__ import annotations

from typing import Any

from allam.report.bars import Bar, grouped_bars
from allam.report.read import Artifacts
from allam.report.svg import Key
from allam.report.words import COMPONENTS, decimal

DOMAINS = ("web", "books", "wiki", "news", "science", "code", "math", "other")
PAPER_COMPONENTS = {"en": 0.55, "ar": 0.225, "ar_translated": 0.225}
PAPER_TABLE_1 = {  # shares of domains as printed; the rows of `other` and `wiki` are rounded there, so that the columns sum to 1 only about
    "en": {"web": 0.31, "books": 0.09, "science": 0.16, "code": 0.39, "math": 0.05},
    "ar": {"web": 0.71, "books": 0.13, "wiki": 0.007, "news": 0.14, "other": 0.013},
    "ar_translated": {"web": 0.65, "books": 0.12, "wiki": 0.0061, "science": 0.22, "other": 0.0039},
}


def mixture_section(artifacts: Artifacts) -> list[dict[str, Any]] | None:
    """For each pretraining stage its ledger, by component and domain."""
    phases = []
    for stage in ("pretrain", "continue"):
        ledger = artifacts.json(stage, "ledger.json")
        if ledger:
            phases.append(_phase(stage, ledger))
    return phases or None


def _phase(stage: str, ledger: dict[str, Any]) -> dict[str, Any]:
    rows = _rows(ledger)
    total = sum(row["consumed"] for row in rows) or 1
    components = []
    for component in COMPONENTS:
        inside = [row for row in rows if row["component"] == component]
        consumed, planned = sum(r["consumed"] for r in inside), sum(r["planned"] for r in inside)
        for row in inside:
            row["share"] = row["consumed"] / consumed if consumed else 0.0
            row["paper"] = PAPER_TABLE_1[component].get(row["domain"])
        if inside:
            components.append({"name": component, "label": COMPONENTS[component], "planned": planned, "consumed": consumed, "rows": inside,
                               "share": consumed / total, "paper": PAPER_COMPONENTS[component] if stage == "continue" else None,
                               "epochs": _epochs(inside)})
    return {"stage": stage, "label": "Continued pretraining" if stage == "continue" else "Pretraining of the base", "components": components,
            "planned": sum(r["planned"] for r in rows), "consumed": sum(r["consumed"] for r in rows), "chart": _chart(components)}


def _rows(ledger: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for component, domains in ledger.get("components", ledger).items():
        for domain, entry in domains.items() if isinstance(domains, dict) else ():
            if isinstance(entry, dict) and component in COMPONENTS and domain in DOMAINS:
                rows.append({"component": component, "domain": domain, "planned": entry["planned_tokens"], "consumed": entry["consumed_tokens"],
                             "epochs": entry["epochs"]})
    return sorted(rows, key=lambda row: DOMAINS.index(row["domain"]))


def _epochs(rows: list[dict[str, Any]]) -> float | None:
    """Epochs of a whole component: its consumed tokens over those that its domains hold."""
    held = sum(row["consumed"] / row["epochs"] for row in rows if row["epochs"])
    return sum(row["consumed"] for row in rows) / held if held else None


def _chart(components: list[dict[str, Any]]) -> Any:
    """Consumed shares of domains as bars beside the paper's."""
    shown = [d for d in DOMAINS if any(r["domain"] == d for c in components for r in c["rows"])]
    charts = []
    for component in components:
        rows = {row["domain"]: row for row in component["rows"]}
        groups = [d for d in shown if d in rows]
        series = [Key(f"c-{component['name']}", "consumed"), Key("muted", "paper, Table 1")]
        bars = {(d, "consumed"): Bar(100 * rows[d]["share"]) for d in groups}
        bars |= {(d, "paper, Table 1"): Bar(100 * rows[d]["paper"]) for d in groups if rows[d]["paper"] is not None}
        charts.append({"label": component["label"], "chart": grouped_bars(
            groups, series, bars, f"Domains of {component['label']}", "share of tokens (%)", show=lambda v: f"{v:.3g}", width=300, height=210)})
    return charts


# --- tokenizers ------------------------------------------------------------------------------------------------------------------

TOKENIZERS = {"base": ("muted", "base"), "arabic_only": ("c-ar", "Arabic only"), "merged": ("c-merged", "merged")}
OTHERS = ("c-norm", "c-en", "c-all")  # colours of the tokenizers that the recipe compares with
TEXTS = {"english": "English", "arabic": "Arabic", "code": "Code"}


def fertility_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """Tokens a word over the recipe's tokenizers, as the paper's Figure 1, with the three's sizes; and all that was measured, by domain."""
    found = artifacts.json("fertility", "fertility.json")
    if not found or not found["rows"]:
        return None
    cells = {(row["language"], row["tokenizer"]): row for row in found["rows"]}
    texts = {t: label for t, label in TEXTS.items() if any(t == text for text, _ in cells)}
    others = dict.fromkeys(name for _, name in cells if name not in TOKENIZERS)
    known = TOKENIZERS | {name: (OTHERS[i % len(OTHERS)], name) for i, name in enumerate(others)}
    names = {n: label for n, (_, label) in known.items() if any(n == name for _, name in cells)}
    domains = sorted(found.get("by_domain", ()), key=lambda row: (list(TEXTS).index(row["language"]), row["domain"], list(names).index(row["tokenizer"])))
    bars = {(texts[t], names[name]): Bar(row["tokens_per_word"]) for (t, name), row in cells.items() if t in texts and name in names}
    return {
        "texts": texts, "names": names, "cells": cells, "domains": domains, "sizes": _sizes(artifacts),
        "merged": artifacts.json("merged_tokenizer", "summary.json"),
        "chart": grouped_bars(list(texts.values()), [Key(*known[name]) for name in names], bars, "Fertility of the tokenizers",
                              "tokens a word", show=lambda v: decimal(v, 2), width=620),
    }


def _sizes(artifacts: Artifacts) -> dict[str, int]:
    """Pieces of each tokenizer, by its name in the fertility table."""
    summaries = {"base": "base_tokenizer", "arabic_only": "arabic_tokenizer", "merged": "merged_tokenizer"}
    return {name: s["vocab_size"] for name, stage in summaries.items() if (s := artifacts.json(stage, "summary.json"))}
