"""The report's data sections: the funnel from raw records to kept documents, what was dropped and why, distributions of the filters' scores."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

from allam.data.config import translation_source
from allam.report.bars import histogram, stacked_shares
from allam.report.read import Artifacts
from allam.report.svg import Key
from allam.report.words import LANGUAGES, percent, sentence, shortened

STAGES = ("ingest", "filter", "dedup", "decontaminate", "machine_translate", "translate", "decontaminate_translated")
REASONS = {  # what the chart puts together, in the order in which a document meets it
    "set aside": ("bad_json", "bad_utf8", "no_text", "truncated", "unreadable", "duplicate_id", "taken_down"),
    "language": ("language",),
    "too short": ("too_short",),
    "spam": ("spam",),
    "stop words": ("stop_words",),
    "duplicates": ("duplicate_url", "duplicate_text", "near_duplicate"),
    "benchmarks": ("contaminated",),
    "translation": ("orphan_translation", "length_ratio", "output_language", "repetition", "untranslated", "numbers_lost"),
}
COLOURS = ("k1", "k2", "k3", "k4", "k5", "k6", "k9", "k7")
EXPLAINED = {
    "bad_json": "the line is not JSON", "bad_utf8": "the bytes are not UTF-8", "no_text": "the record holds no text",
    "truncated": "the archive ends too early", "unreadable": "the file cannot be read", "duplicate_id": "an earlier record of the source has the same id",
    "taken_down": "the recipe names it among those that must go",
    "language": "language identification is below the limit, or finds another language", "too_short": "fewer words than the limit",
    "spam": "repeated lines, links, hashtags or one over-used word", "stop_words": "too few or too many function words for prose",
    "duplicate_url": "a page met before, by its normalised address", "duplicate_text": "a text met before, in its comparison form",
    "near_duplicate": "most of its runs of words are a kept text's",
    "contaminated": "it holds an item of a benchmark",
    "orphan_translation": "the English original was not kept", "length_ratio": "far longer or shorter than its original",
    "output_language": "the translation is not Arabic by language identification", "repetition": "a phrase said over and over, as the original does not",
    "untranslated": "too many of the original's words are left as they were", "numbers_lost": "numbers of the original are missing",
}
EXAMPLES_A_REASON, RECORDS_READ = 2, 3000  # of one source: the first of each reason are shown, and no more is read than this


@dataclass
class Source:
    """One source's way through the data stages; `lost` maps (stage, reason) to documents."""

    name: str
    language: str = ""
    domain: str = ""
    kind: str = ""
    read: int = 0
    kept: int = 0
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    adds_up: bool = True

    @property
    def text(self) -> str:
        """What the source holds: `Arabic web`, `Arabic web, translated`."""
        return f"{LANGUAGES.get(self.language, self.language)} {self.domain}" + (", translated" if self.kind == "translated" else "")

    def by_group(self) -> Counter[str]:
        """Lost documents by the groups of `REASONS`."""
        groups: Counter[str] = Counter()
        for (_, reason), number in self.lost.items():
            groups[next((g for g, reasons in REASONS.items() if reason in reasons), "other")] += number
        return groups


def funnel(artifacts: Artifacts) -> list[Source]:
    """Every source with its counts over the data stages, in the recipe's order."""
    sources: dict[str, Source] = {}
    described = artifacts.config("ingest").get("sources", {})
    for name in artifacts.config("machine_translate").get("order", ()):
        described = described | {translation_source(name): {"language": "ar", "domain": described.get(name, {}).get("domain", ""), "kind": "translated"}}
    for stage in STAGES:
        for name, counts in (artifacts.metrics(stage).get("funnel") or {}).items():
            about, is_new = described.get(name, {}), name not in sources
            source = sources.setdefault(name, Source(name, about.get("language", ""), about.get("domain", ""), about.get("kind", ""), read=counts["in"]))
            lost = Counter(counts.get("dropped", {})) + Counter(counts.get("set_aside", {}))
            source.adds_up &= counts["in"] == counts["out"] + lost.total() and (is_new or counts["in"] == source.kept)
            source.kept = counts["out"]
            source.lost.update({(stage, reason): number for reason, number in lost.items()})
    return list(sources.values())


def totals(sources: list[Source]) -> dict[str, Any]:
    """Sums over all sources: read, kept, dropped and set aside by reason."""
    dropped: Counter[str] = Counter()
    set_aside: Counter[str] = Counter()
    for source in sources:
        for (stage, reason), number in source.lost.items():
            (set_aside if stage == "ingest" else dropped)[reason] += number
    return {"in": sum(s.read for s in sources), "out": sum(s.kept for s in sources), "dropped": dict(sorted(dropped.items())),
            "set_aside": dict(sorted(set_aside.items())), "adds_up": all(s.adds_up for s in sources)}


def funnel_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """The funnel's chart and tables."""
    sources = funnel(artifacts)
    if not sources:
        return None
    groups = [g for g in [*REASONS, "other"] if any(s.by_group().get(g) for s in sources)]
    colours = dict(zip([*REASONS, "other"], [*COLOURS, "k8"], strict=True))
    series = [Key(colours[g], g) for g in groups]
    lost = {(s.name, g): float(n) for s in sources for g, n in s.by_group().items()}
    wholes, notes = {s.name: float(s.read) for s in sources}, {s.name: f"{percent(s.kept / s.read if s.read else None)} kept" for s in sources}
    reasons = sorted({key for s in sources for key in s.lost}, key=lambda key: (STAGES.index(key[0]), _place(key[1])))
    return {
        "sources": sources, "groups": groups, "reasons": reasons, "explained": EXPLAINED, "totals": totals(sources),
        "chart": stacked_shares([s.name for s in sources], series, lost, wholes, notes, "Share of each source's records that was lost, by reason",
                                "share of the records read that was lost") if groups else None,
        "examples": examples(artifacts), "near": near_duplicates(artifacts), "language_costs": language_costs(artifacts),
        "anonymised": anonymised(artifacts),
    }


@dataclass(frozen=True)
class LanguageCost:
    """What language identification took of a source, or of all sources of a kind of text: for each class of length (judged, dropped)."""

    name: str
    is_kind: bool
    lengths: dict[str, tuple[int, int]]


def language_costs(artifacts: Artifacts) -> list[LanguageCost]:
    """The kinds of text that language identification judges, each before its sources."""
    sources = artifacts.config("filter").get("sources", {})
    by_kind: dict[str, list[LanguageCost]] = {}
    for name, lengths in (artifacts.metrics("filter").get("by_length") or {}).items():
        about = Source(name, **{part: sources.get(name, {}).get(part, "") for part in ("language", "domain", "kind")})
        found = {length: (counts.get("identified", 0), counts.get("language", 0)) for length, counts in lengths.items()}
        if any(judged for judged, _ in found.values()):
            by_kind.setdefault(about.text, []).append(LanguageCost(name, False, found))
    rows = []
    for kind, own in by_kind.items():
        sums = {length: (sum(cost.lengths[length][0] for cost in own), sum(cost.lengths[length][1] for cost in own)) for length in own[0].lengths}
        rows += [LanguageCost(kind, True, sums), *own]
    return rows


def anonymised(artifacts: Artifacts) -> list[tuple[str, dict[str, int]]]:
    """(source, replacements by kind) of the sources in which personal data was replaced."""
    return [(name, counts) for name, counts in (artifacts.metrics("filter").get("anonymised") or {}).items() if counts]


def near_duplicates(artifacts: Artifacts) -> dict[str, Any] | None:
    """What dedup dropped or would drop as near duplicates, by source, with the pairs that are least alike; None where the recipe doesn't look for them."""
    found = artifacts.json("dedup", "near_duplicates.json")
    if found is None:
        return None
    examples = [example | {name: shortened(example[name], 260) for name in ("text", "kept_text")} for example in found["examples"]]
    return found | {"examples": examples}


def examples(artifacts: Artifacts) -> list[dict[str, Any]]:
    """The first few lost texts of each reason, over all sources."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for stage in STAGES:
        shards = artifacts.names(stage, "dropped/*/*.jsonl.zst")
        for _, files in groupby(["set_aside.jsonl", *shards], key=lambda relative: relative.rpartition("/")[0]):
            seen: Counter[str] = Counter()
            for record in islice((record for relative in files for record in artifacts.lines(stage, relative, RECORDS_READ)), RECORDS_READ):
                reason = str(record.get("reason", ""))
                shown = found.setdefault((stage, reason), [])
                if len(shown) < EXAMPLES_A_REASON and not seen[reason]:  # one of a source first: two sources tell more than one
                    shown.append(_example(record))
                    seen[reason] += 1
    return [{"stage": stage, "reason": reason, "explained": EXPLAINED.get(reason, sentence(reason)), "records": records}
            for (stage, reason), records in sorted(found.items(), key=lambda item: (STAGES.index(item[0][0]), _place(item[0][1])))]


def _place(reason: str) -> tuple[int, str]:
    """Where a reason stands in the order in which a document meets it."""
    order = [r for reasons in REASONS.values() for r in reasons]
    return (order.index(reason) if reason in order else len(order)), reason


def _example(record: dict[str, Any]) -> dict[str, Any]:
    place = f"{record['file']}, line {record.get('line', '?')}" if "file" in record else f"{record.get('source', '')}: {record.get('id', '')}"
    return {"place": place, "detail": str(record.get("detail") or ""), "text": shortened(str(record.get("text", record.get("excerpt", ""))), 260)}



# --- distributions ---------------------------------------------------------------------------------------------------------------

HISTOGRAMS = {  # name in statistics.json: (title, label of the axis, limits in the filter's configuration)
    "language_score": ("Language identification", "score of the expected language", ("min_language_score",)),
    "words": ("Length", "words of a document", ("min_words",)),
    "spam_ratio": ("Spam", "share of spam words", ("max_spam_ratio",)),
    "stop_word_ratio": ("Stop words", "share of stop words", ("min_stop_word_ratio", "max_stop_word_ratio")),
}


def distribution_section(artifacts: Artifacts) -> list[dict[str, Any]] | None:
    """One histogram a filter, by language, with the filter's limits."""
    statistics, config = artifacts.json("filter", "statistics.json"), artifacts.config("filter")
    charts = []
    for name, (title, label, limits) in HISTOGRAMS.items():
        edges, series = _by_language(statistics or {}, config.get("sources", {}), name)
        if series:
            thresholds = [float(config[limit]) for limit in limits if limit in config]
            colours = {LANGUAGES[language]: f"c-{language}" for language in LANGUAGES}
            charts.append({"title": title, "chart": histogram(series, colours, edges, f"Histogram: {title}", label, thresholds)})
    return charts or None


def _by_language(statistics: dict[str, Any], sources: dict[str, Any], name: str) -> tuple[list[float], dict[str, list[float]]]:
    """The edges and the sums of the sources' histograms over each language, without the empty bins at the upper end."""
    edges: list[float] = []
    series: dict[str, list[float]] = {}
    for source, histograms in statistics.items():
        language = LANGUAGES.get(sources.get(source, {}).get("language", ""))
        found = histograms.get(name)
        if not found or not language or not sum(found["counts"]):
            continue
        edges = edges or [float(edge) for edge in found["edges"]]
        sums = series.setdefault(language, [0.0] * (len(edges) - 1))
        series[language] = [a + b for a, b in zip(sums, found["counts"], strict=True)]
    used = max((i + 1 for counts in series.values() for i, number in enumerate(counts) if number), default=0)
    return edges[: used + 1], {language: series[language][:used] for language in LANGUAGES.values() if language in series}
