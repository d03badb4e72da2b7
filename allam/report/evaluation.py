"""The report's evaluation sections: benchmarks by model, language and group of facts; answers before and after alignment; ratings from votes."""

from __future__ import annotations

from typing import Any

from allam import sample
from allam.artifacts import file_sha256
from allam.report.bars import Bar, grouped_bars, intervals
from allam.report.read import MODELS, Artifacts
from allam.report.svg import Key
from allam.report.words import LANGUAGES, is_arabic, model_name, percent, sentence

GROUPS = {"both": "natural text in both", "english": "English text only", "arabic": "Arabic text only", "translated": "English and translations of it"}
SEEN = {  # how the facts of a group reached a model that is asked in this language
    "en": {"both": "own", "english": "own", "translated": "own", "arabic": "other"},
    "ar": {"both": "own", "arabic": "own", "translated": "translated", "english": "other"},
}
WAYS = {"own": "written in the language of the question", "translated": "in that language through translated text only",
        "other": "written in the other language only"}
JUDGED = ("continue", "sft", "dpo")
CONVERSATIONS = 4  # of each language


def model_colour(model: str) -> str:
    """The class of a model's colour, the same in every chart."""
    return f"m-{model.replace('import_model', 'pretrain')}"


def results_by_model(artifacts: Artifacts) -> dict[str, dict[str, dict[str, Any]]]:
    """{model: {benchmark: result}} for the models that were measured, in the order of training."""
    found = {model: artifacts.json(f"benchmarks_{model}", "results.json") for model in MODELS}
    return {model: results for model, results in found.items() if results}


def benchmark_languages(artifacts: Artifacts) -> dict[str, dict[str, str]]:
    """{benchmark: {"language", "type"}} as configured."""
    for model in MODELS:
        described = artifacts.config(f"benchmarks_{model}").get("benchmarks")
        if described:
            return {name: {"language": about["language"], "type": about["type"]} for name, about in described.items()}
    return {}


def ways(artifacts: Artifacts, results: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy of one model on multiple-choice facts by the way in which they reached it: {way: {"accuracy", "chance", "n"}}."""
    described = benchmark_languages(artifacts)
    sums: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        about = described.get(name, {})
        if about.get("type") != "multiple_choice":
            continue
        for group, cell in (result.get("by_group") or {}).items():
            way = SEEN.get(about["language"], {}).get(group)
            if way and cell.get("n"):
                total = sums.setdefault(way, {"right": 0.0, "chance": 0.0, "n": 0})
                total["right"] += cell["accuracy"] * cell["n"]
                total["chance"] += (cell.get("chance", result.get("chance")) or 0.0) * cell["n"]
                total["n"] += cell["n"]
    return {way: {"accuracy": s["right"] / s["n"], "chance": s["chance"] / s["n"], "n": s["n"]} for way in WAYS if (s := sums.get(way))}


def benchmark_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """Tables of all models, a chart by group of facts for each benchmark that has groups, and the ways of transfer."""
    by_model, described = results_by_model(artifacts), benchmark_languages(artifacts)
    if not by_model:
        return None
    names = [n for n in described if any(n in results for results in by_model.values())]
    names += sorted({n for results in by_model.values() for n in results} - set(names))
    keys = [Key(model_colour(m), model_name(m)) for m in by_model]
    benchmarks = []
    for name in names:
        any_result = next(r[name] for r in by_model.values() if name in r)
        groups = [g for g in GROUPS if g in (any_result.get("by_group") or {})]
        cuts = {"by_group": {g: GROUPS[g] for g in groups}, "by_topic": {t: sentence(t) for t in any_result.get("by_topic") or {}}}
        about = described.get(name, {})
        benchmarks.append({
            "name": name, "language": LANGUAGES.get(about.get("language", ""), ""), "type": about.get("type", "").replace("_", " "), "n": any_result.get("n"),
            "chance": any_result.get("chance"), "cuts": cuts, "chart": _group_chart(name, groups, keys, by_model) if groups else None,
            "rows": [(model_name(m), results[name]) for m, results in by_model.items() if name in results]})
    transfer = [(model_name(m), ways(artifacts, results)) for m, results in by_model.items()]
    return {"benchmarks": benchmarks, "models": [model_name(m) for m in by_model],
            "transfer": transfer if any(w for _, w in transfer) else None, "ways": WAYS}


def _group_chart(name: str, groups: list[str], keys: list[Key], by_model: dict[str, dict[str, Any]]) -> Any:
    bars = {}
    for key, results in zip(keys, by_model.values(), strict=True):
        for group in groups:
            cell = (results.get(name, {}).get("by_group") or {}).get(group)
            if cell:
                chance = cell.get("chance", results[name].get("chance"))
                bars[GROUPS[group], key.label] = Bar(cell["accuracy"], cell.get("stderr"), chance)
    return grouped_bars([GROUPS[g] for g in groups], keys, bars, f"Accuracy on {name} by group of facts", "accuracy", show=_whole,
                        axis_show=_whole, top=1.0, width=860, height=250)


def _whole(share: float) -> str:
    return percent(share, 0)


# --- answers ---------------------------------------------------------------------------------------------------------------------

def answer_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """How the judge measured, its scores by model and language, and sample conversations before and after alignment."""
    scores, answers = artifacts.json("judge", "scores.json"), artifacts.lines("judge", "answers.jsonl")
    if not scores and not answers:
        return None
    models = (scores or {}).get("models") or {}
    ordered = [*(m for m in JUDGED if m in models), *(m for m in models if m not in JUDGED)]
    return {"method": (scores or {}).get("method", ""), "scores": [(model_name(m), models[m]) for m in ordered], "languages": LANGUAGES,
            "conversations": conversations(answers)}


def conversations(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first questions of each language with every model's answer, in the order of training."""
    questions: dict[str, dict[str, Any]] = {}
    for record in answers:
        name = f"{record.get('question_id', '')}" + (f", turn {record['turn']}" if record.get("turn", 1) != 1 else "")
        question = questions.setdefault(name, {"id": name, "messages": record.get("messages") or [], "reference": record.get("reference"), "answers": {}})
        question["answers"][str(record.get("model", ""))] = str(record.get("answer", ""))
    shown: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for question in questions.values():
        asked = " ".join(str(m.get("content", "")) for m in question["messages"]) or next(iter(question["answers"].values()), "")
        arabic = is_arabic(asked)
        language = shown[arabic]
        if len(language) < CONVERSATIONS:
            order = [*(m for m in JUDGED if m in question["answers"]), *(m for m in question["answers"] if m not in JUDGED)]
            language.append(question | {"arabic": arabic, "answers": [(model_name(m), question["answers"][m]) for m in order]})
    return shown[False] + shown[True]


# --- votes -----------------------------------------------------------------------------------------------------------------------

def vote_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """Elo ratings under the default and the custom rewards."""
    elo = artifacts.json("votes", "elo.json")
    if not elo or not elo.get("default"):
        return None
    tables = []
    for name, label, colour in (("default", "Default rewards", "c-en"), ("custom", "Custom rewards (§4.3)", "c-ar")):
        ratings = elo.get(name) or {}
        rows = [(model_name(m), r["rating"], r.get("low", r["rating"]), r.get("high", r["rating"])) for m, r in ratings.items()]
        rows.sort(key=lambda row: -row[1])
        if rows:
            tables.append({"label": label, "rows": rows, "chart": intervals(rows, colour, f"Elo ratings: {label}", "Elo rating")})
    files = artifacts.config("votes").get("files") or []
    return {"tables": tables, "comparisons": elo.get("comparisons"), "agreement": elo.get("agreement"), "files": [file["path"] for file in files],
            "made_up": any(file["sha256"] == file_sha256(sample.root() / "votes" / "votes.jsonl") for file in files)}
