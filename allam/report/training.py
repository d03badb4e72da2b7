"""The report's training sections: loss and gradient norm of each stage, bits per byte of both languages over the whole training, and the benchmarks that
were asked on the way (the paper's Figure 8)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from allam.engine.stability import count_spikes, lost_steps
from allam.report.lines import Line, Span, line_chart, running_mean, staged_chart
from allam.report.read import MODELS, TRAINED, Artifacts
from allam.report.words import COMPONENTS, LANGUAGES, compact, model_name

STAGE_NAMES = {"pretrain": "pretraining", "continue": "continued", "sft": "SFT", "dpo": "DPO"}
PANELS = {"pretrain": "Pretraining of the base", "continue": "Continued pretraining", "sft": "Supervised finetuning", "dpo": "Preference training (DPO)"}
LOSSES = {"dpo": "DPO loss (nats a pair)"}
BY_COMPONENT_FROM = 2  # one component's loss is the loss
FEW_STEPS, PIECES_SHOWN = 30, 40
COLOURS = 9  # k1 to k9 of the style sheet
BYTE = re.compile("<0x[0-9A-F]{2}>")  # pieces that spell a character in bytes: their names tell nobody anything


def loss_section(artifacts: Artifacts) -> list[dict[str, Any]] | None:
    """Loss and gradient norm of each trained stage, a panel each, over its optimizer steps."""
    panels = []
    for stage in TRAINED:
        records = artifacts.lines(stage, "metrics.jsonl")
        if records:
            panels.append({
                "stage": stage, "title": PANELS[stage], "steps": len(records), "tokens": tokens_of(records),
                "spikes": count_spikes(records), "first": records[0]["loss"], "last": _mean([r["loss"] for r in records[-max(1, len(records) // 20):]]),
                "rate": _rates(records), "speed": _median(artifacts, stage, "tokens_per_second"),
                "utilisation": _median(artifacts, stage, "utilisation"), "loss": _loss_chart(stage, records), "norm": _norm_chart(stage, records),
                "lost": len(lost_steps(records)), "untouched": _untouched(artifacts, stage), "domains": _by_domain(records)})
    return panels or None


def _untouched(artifacts: Artifacts, stage: str) -> dict[str, Any] | None:
    """New rows of the embeddings whose tokens never came in the stage's text: how many, and the first of the pieces."""
    found = artifacts.json(stage, "untouched_rows.json")
    if not found:
        return None
    pieces = [row["piece"].replace("▁", "␣") for row in found["pieces"] if not BYTE.fullmatch(row["piece"])]
    return {"new_rows": found["new_rows"], "pieces": len(found["pieces"]), "bytes": len(found["pieces"]) - len(pieces), "first": pieces[:PIECES_SHOWN],
            "more": len(pieces) > PIECES_SHOWN, "others": len(found["special"]) + found["padding"]}


def _by_domain(records: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """The loss of each domain over the last twentieth of the steps, as far as it came in them: (`Arabic, natural: web`, loss)."""
    found: dict[str, list[float]] = {}
    for record in records[-max(1, len(records) // 20):]:
        for name, value in (record.get("loss_by_domain") or {}).items():
            found.setdefault(name, []).append(value)
    named = {name: name.partition("/") for name in found}
    return [(f"{COMPONENTS.get(named[name][0], named[name][0])}: {named[name][2]}", _mean(found[name])) for name in sorted(found)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _rates(records: list[dict[str, Any]]) -> tuple[float, float] | None:
    rates = [r["learning_rate"] for r in records if r.get("learning_rate") is not None]
    return (max(rates), rates[-1]) if rates else None


def _median(artifacts: Artifacts, stage: str, name: str) -> float | None:
    """The median of a measurement in telemetry.jsonl."""
    values = sorted(r[name] for r in artifacts.lines(stage, "telemetry.jsonl") if isinstance(r.get(name), (int, float)))
    return values[len(values) // 2] if values else None


def tokens_of(records: list[dict[str, Any]]) -> int:
    """Tokens that a stage saw, as its last record counts them."""
    return int(records[-1].get("tokens") or 0) if records else 0


def _series(records: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(r["step"]), float(r[name])) for r in records if isinstance(r.get(name), (int, float))]


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return running_mean(points, max(1, len(points) // 30))


def _with_mean(points: list[tuple[float, float]], colour: str) -> list[Line]:
    """The values, and behind many of them their mean; few are marked one by one."""
    if len(points) <= FEW_STEPS:
        return [Line("each step", colour, points, dots=True)]
    return [Line("each step", colour, points, faint=True), Line("running mean", colour, _smooth(points))]


def _loss_chart(stage: str, records: list[dict[str, Any]]) -> Any:
    loss = _series(records, "loss")
    components = {c: p for c in COMPONENTS if (p := _component(records, c))}
    by_component = [Line(COMPONENTS[c], f"c-{c}", _smooth(p)) for c, p in components.items()]
    lines = by_component if len(by_component) >= BY_COMPONENT_FROM else _with_mean(loss, "c-all")
    return line_chart(lines, f"Loss: {PANELS[stage]}", "optimizer step", LOSSES.get(stage, "loss (nats a token)"), width=430, height=240)


def _component(records: list[dict[str, Any]], component: str) -> list[tuple[float, float]]:
    points = []
    for record in records:
        value = (record.get("loss_by_component") or {}).get(component)
        if isinstance(value, (int, float)):
            points.append((float(record["step"]), float(value)))
    return points


def _norm_chart(stage: str, records: list[dict[str, Any]]) -> Any:
    norm = _series(records, "grad_norm")
    if not norm:
        return None
    return line_chart(_with_mean(norm, "c-norm"), f"Gradient norm: {PANELS[stage]}", "optimizer step", "gradient norm (L2)",
                      width=430, height=240, from_zero=True)


# --- bits per byte ---------------------------------------------------------------------------------------------------------------

def bits_by_model(artifacts: Artifacts) -> dict[str, dict[str, float]]:
    """Bits per byte of held-out text for each model that was measured: {model: {component: bits}}."""
    found = {model: artifacts.json(f"benchmarks_{model}", "bits_per_byte.json") for model in MODELS}
    return {model: {c: float(bits[c]) for c in COMPONENTS if isinstance(bits.get(c), (int, float))} for model, bits in found.items() if bits}


def bits_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """The chart over the whole training, and the table by model."""
    by_model = bits_by_model(artifacts)
    spans: list[Span] = []
    lines: list[list[Line]] = []
    done, before = 0.0, _base_bits(by_model)
    for stage in TRAINED:
        tokens = tokens_of(artifacts.lines(stage, "metrics.jsonl"))
        evals = artifacts.lines(stage, "evals.jsonl")
        if not tokens or not (evals or stage in by_model):
            continue
        extended = stage == "continue" and "extend" in artifacts and bool(spans)
        spans.append(Span(STAGE_NAMES[stage], done, done + tokens, "vocabulary extended" if extended else ""))
        points = {c: _points(c, evals, done, tokens, before, by_model.get(stage)) for c in COMPONENTS}
        lines.append([Line(COMPONENTS[c], f"c-{c}", p, dots=True, dashed=c == "ar_translated") for c, p in points.items() if p])
        before = {c: p[-1][1] for c, p in points.items() if p}
        if stage == "pretrain":
            before = by_model.get("extend", before)
        done += tokens
    if not spans and not by_model:
        return None
    chart = staged_chart(spans, _named(lines), "Bits per byte of held-out text over the whole training", "bits per byte") if spans else None
    components = [c for c in COMPONENTS if any(c in bits for bits in by_model.values())]
    return {"chart": chart, "by_model": [(model_name(m), bits) for m, bits in by_model.items()], "components": [(c, COMPONENTS[c]) for c in components],
            "spans": [(span.label, compact(span.end - span.start)) for span in spans], "languages": LANGUAGES}


def _base_bits(by_model: dict[str, dict[str, float]]) -> dict[str, float]:
    """What training starts from where the base is imported: the extended model, or the imported one."""
    return {} if "pretrain" in by_model else by_model.get("extend", by_model.get("import_model", {}))


def _points(component: str, evals: list[dict[str, Any]], done: float, tokens: int, before: dict[str, float],
            after: dict[str, float] | None) -> list[tuple[float, float]]:
    """Measurements of one component within a stage: where it began, what was measured on the way, and the finished model."""
    points = {done: before[component]} if component in before else {}
    for record in evals:
        value = (record.get("bits_per_byte") or {}).get(component)
        if isinstance(value, (int, float)) and math.isfinite(value):
            points[done + float(record["tokens"])] = float(value)
    if after and component in after:
        points[done + tokens] = after[component]
    return sorted(points.items())


def _named(lines: list[list[Line]]) -> list[list[Line]]:
    """The same lines, those of the last stage named at their ends."""
    return [*lines[:-1], [Line(i.label, i.colour, i.points, i.faint, i.dots, i.dashed, name_at_end=True) for i in lines[-1]]]


# --- benchmarks on the way ---------------------------------------------------------------------------------------------------------

def asked_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """Accuracy on the benchmarks that the phases of pretraining asked, a line each over their tokens, and a row for each with the phase's ends."""
    asked = {stage: [row for row in artifacts.lines(stage, "evals.jsonl") if row.get("benchmarks")] for stage in TRAINED}
    names = list(dict.fromkeys(name for rows in asked.values() for row in rows for name in row["benchmarks"]))
    described = {name: about for stage in TRAINED for name, about in (artifacts.config(stage).get("benchmarks") or {}).items()}
    colours = {name: f"k{i % COLOURS + 1}" for i, name in enumerate(names)}
    for language in LANGUAGES:  # the first of each language has the language's own colour
        colours |= {name: f"c-{language}" for name in [n for n in names if described.get(n, {}).get("language") == language][:1]}
    spans: list[Span] = []
    lines: list[list[Line]] = []
    table, done = [], 0.0
    for stage, rows in asked.items():
        tokens = tokens_of(artifacts.lines(stage, "metrics.jsonl"))
        if rows and tokens:
            extended = stage == "continue" and "extend" in artifacts and bool(spans)
            spans.append(Span(STAGE_NAMES[stage], done, done + tokens, "vocabulary extended" if extended else ""))
            here = [name for name in names if name in rows[0]["benchmarks"]]
            points = {name: [(done + float(row["tokens"]), 100 * row["benchmarks"][name]["accuracy"]) for row in rows] for name in here}
            lines.append([Line(name, colours[name], points[name], dots=True) for name in here])
            table += [(STAGE_NAMES[stage], name, rows[0]["benchmarks"][name], rows[-1]["benchmarks"][name]) for name in here]
        done += tokens
    if not spans:
        return None
    items = max(artifacts.config(stage).get("phase", {}).get("benchmark_items", 0) for stage, rows in asked.items() if rows)
    chart = staged_chart(spans, _named(lines), "Accuracy on benchmarks asked during training", "accuracy (%)", linear=True)
    return {"chart": chart, "table": table, "items": items}
