"""What a run comes to: the figures of the headline, of summary.json and of the short table that the command prints."""

from __future__ import annotations

from typing import Any

from allam.report.data import funnel, totals
from allam.report.evaluation import benchmark_languages, results_by_model, ways
from allam.report.read import MODELS, TRAINED, Artifacts
from allam.report.stages import parameters, vocabulary
from allam.report.training import bits_by_model, tokens_of
from allam.report.words import LANGUAGES, MINUS, change, compact, count, decimal, duration, model_name, percent, size

ALLOWED_RISE = 0.05  # of English bits per byte over continued pretraining


def summarize(artifacts: Artifacts) -> dict[str, Any]:
    """Everything that summary.json holds; a figure whose stages are missing is null or absent."""
    bits, results = bits_by_model(artifacts), results_by_model(artifacts)
    model = next((m for m in reversed(MODELS) if m in artifacts), None)
    folder = artifacts.folders[model] / "model" if model else None
    manifests = artifacts.manifests.values()
    sources = funnel(artifacts)
    summary: dict[str, Any] = {
        "model": model, "parameters": parameters(folder) if folder else None, "vocabulary": vocabulary(folder) if folder else None,
        "tokens": {s: tokens_of(artifacts.lines(s, "metrics.jsonl")) for s in TRAINED if artifacts.file(s, "metrics.jsonl")},
        "funnel": totals(sources) if sources else None,
        "bits_per_byte": bits, "bits_per_byte_change": bits_change(bits),
        "benchmarks": results, "benchmark_languages": benchmark_languages(artifacts),
        "facts": {m: ways(artifacts, r) for m, r in results.items()},
        "judge": artifacts.json("judge", "scores.json"), "elo": artifacts.json("votes", "elo.json"),
        "seconds": round(sum(m.seconds for m in manifests), 3), "peak_memory_bytes": max((m.peak_memory_bytes for m in manifests), default=0),
        "stages": len(manifests),
    }
    return summary | {"table": table(summary)}


def bits_change(bits: dict[str, dict[str, float]]) -> dict[str, Any] | None:
    """The relative change of each component's bits per byte over continued pretraining, from the extended (or else the base) model."""
    before = next((m for m in ("extend", "pretrain", "import_model") if m in bits), None)
    if before is None or "continue" not in bits:
        return None
    after = bits["continue"]
    return {"from": before, "to": "continue", **{c: after[c] / b - 1 for c, b in bits[before].items() if c in after and b}}


def cards(summary: dict[str, Any]) -> list[dict[str, str]]:
    """The headline's cards: a figure, what it is, and one line that puts it in place."""
    found = []
    if summary["parameters"]:
        tokens = sum(summary["tokens"].values())
        found.append({"value": compact(summary["parameters"]), "what": "parameters",
                      "note": f"vocabulary {count(summary['vocabulary'])}; trained on {compact(tokens)} tokens in all"})
    changes = summary["bits_per_byte_change"]
    for language in ("ar", "en"):  # what was learned, then what should not be lost
        if changes and language in changes:
            before, after = summary["bits_per_byte"][changes["from"]][language], summary["bits_per_byte"][changes["to"]][language]
            found.append({
                "value": change(changes[language]), "what": f"{LANGUAGES[language]} bits per byte", "tone": _tone(changes[language]),
                "note": f"{decimal(before)} ({model_name(changes['from'])} model) to {decimal(after)} ({model_name(changes['to'])}); lower is better"})
    last, facts = _last_facts(summary)
    if "own" in facts:
        own = facts["own"]
        over = 100 * (own["accuracy"] - own["chance"])
        found.append({
            "value": percent(own["accuracy"]), "what": "of facts known in the language they were written in", "tone": "good" if over > 0 else "bad",
            "note": f"{MINUS if over < 0 else '+'}{abs(over):.0f} points over chance ({percent(own['chance'], 0)}); "
                    f"{model_name(last)} model, {count(own['n'])} questions"})
    if "other" in facts:
        other = facts["other"]
        through = f"; through translated text {percent(facts['translated']['accuracy'])}" if "translated" in facts else ""
        found.append({"value": percent(other["accuracy"]), "what": "of facts written in the other language only",
                      "note": f"chance is {percent(other['chance'], 0)}{through}"})
    if summary["funnel"]:
        total = summary["funnel"]
        found.append({"value": percent(total["out"] / total["in"] if total["in"] else None), "what": "of raw records kept",
                      "note": f"{count(total['out'])} of {count(total['in'])}; every other one is counted below with its reason"})
    if summary["stages"]:
        found.append({"value": duration(summary["seconds"]), "what": "of work in all stages",
                      "note": f"{summary['stages']} stages, at most {size(summary['peak_memory_bytes'])} of memory"})
    return found


def _tone(change_of_bits: float) -> str:
    """A fall is good; a rise that the demo's own promise for English allows is neither good nor bad."""
    return "good" if change_of_bits < 0 else "" if change_of_bits <= ALLOWED_RISE else "bad"


def _last_facts(summary: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The last model of the training with results on facts, and those."""
    return next(((m, f) for m, f in reversed(summary["facts"].items()) if f), ("", {}))


def table(summary: dict[str, Any]) -> list[dict[str, str]]:
    """The rows that the command prints after a run: what, its value, and a note."""
    return [{"what": card["what"], "value": card["value"], "note": card["note"]} for card in cards(summary)]
