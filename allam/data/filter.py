"""The paper's quality filters (§2.1): language-identification score, length, spam ratio, stop-word ratio.

    allam stage filter --recipe demo

Each source names its filters; they run in that order and the first that fails is the reason why a document is dropped. What was dropped
stands in `dropped/<source>.jsonl.zst`, the distributions of what was measured in `statistics.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from allam.artifacts import write_json
from allam.data.config import FilterConfig, FilterName, SourceConfig
from allam.data.quality import Measures, count_words, measure
from allam.data.tables import (
    TableWriter,
    add_counts,
    count_rows,
    dropped_line,
    funnel,
    publish,
    read_notes,
    read_tables,
    source_shards,
    text_bytes,
    write_dropped,
    write_notes,
    write_whole,
)
from allam.data.tasks import Meter, run_tasks
from allam.text.language import LanguageIdentifier, reaches

RATIO_EDGES = [round(i * 0.05, 2) for i in range(21)]
EDGES: dict[str, list[float]] = {
    "language_score": [*(i / 20 for i in range(19)), 0.95, 0.96, 0.97, 0.98, 0.99, 1.0],
    "words": [0, 1, 3, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 5000, 10_000, 100_000],
    "spam_ratio": RATIO_EDGES,
    "stop_word_ratio": RATIO_EDGES,
}


def run(config: FilterConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Filters the natural documents of `inputs["documents"]`."""
    work, folder = out / "work", inputs["documents"] / "documents"
    shards = source_shards(folder, config.sources)
    if any("language" in source.filter_names for source in config.sources.values()):
        _identifier(config.language_model_sha256)  # a wrong model must fail before the first document, not in a worker
    run_tasks(work, "filter", partial(_filter_shard, config, shards, work), len(shards), unit="documents",
              total=sum(count_rows(path) for _, path in shards), size=2 * sum(path.stat().st_size for _, path in shards))

    rows, sizes, statistics = {}, {}, {}
    for source in config.sources:
        own = [work / "shards" / source / path.name for name, path in shards if name == source]
        for made in own:
            publish(made, out / "documents" / source / made.name)
        write_dropped(out / "dropped" / f"{source}.jsonl.zst", [made.with_suffix(".dropped.jsonl") for made in own])
        notes = [read_notes(made.with_suffix(".json")) for made in own]
        rows[source], sizes[source] = _sum_up(notes)
        statistics[source] = _histograms(notes)
    write_json(out / "statistics.json", statistics)
    return {"funnel": rows, "sources": sizes}


class Judge:
    """Decides about the documents of one source."""

    def __init__(self, config: FilterConfig, source: SourceConfig) -> None:
        self.config, self.source = config, source
        self.names: tuple[FilterName, ...] = source.filter_names
        self.identifier = _identifier(config.language_model_sha256) if "language" in self.names else None

    def decide(self, text: str) -> tuple[str | None, str, dict[str, float]]:
        """(reason or None to keep, detail for people, what was measured on the way)."""
        measured: dict[str, float] = {"words": count_words(text)}
        measures: Measures | None = None
        for name in self.names:
            if name in ("spam", "stop_words") and measures is None:
                measures = measure(text, self.source.language)
                measured |= {"spam_ratio": measures.spam_ratio, "stop_word_ratio": measures.stop_word_ratio}
            detail = self._failure(name, text, measured, measures)
            if detail is not None:
                return name, detail, measured
        return None, "", measured

    def _failure(self, name: FilterName, text: str, measured: dict[str, float], measures: Measures | None) -> str | None:
        """None where the text passes the filter, else the detail."""
        config = self.config
        if name == "language":
            assert self.identifier is not None
            label, score = self.identifier.identify(text)
            measured["language_score"] = score if label == self.source.language else 0.0
            passes = label == self.source.language and reaches(score, config.min_language_score)
            return None if passes else f"{label or 'none'} {score:.4f}"
        if name == "too_short":
            return None if measured["words"] >= config.min_words else f"{int(measured['words'])} words"
        assert measures is not None
        if name == "spam":
            return None if measures.spam_ratio <= config.max_spam_ratio else f"spam ratio {measures.spam_ratio:.4f}; most used: {measures.most_used or '-'}"
        passes = config.min_stop_word_ratio <= measures.stop_word_ratio <= config.max_stop_word_ratio
        return None if passes else f"stop-word ratio {measures.stop_word_ratio:.4f}"


@cache
def _identifier(sha256: str) -> LanguageIdentifier:
    """One model a process."""
    return LanguageIdentifier.load(sha256)


def _filter_shard(config: FilterConfig, shards: list[tuple[str, Path]], work: Path, task: int, meter: Meter) -> None:
    """Leaves the shard's kept documents, the dropped ones and the counts."""
    source, path = shards[task]
    made = work / "shards" / source / path.name
    judge, reasons, size = Judge(config, config.sources[source]), {}, 0  # type: ignore[var-annotated]
    values: dict[str, list[float]] = {name: [] for name in EDGES}
    dropped: list[bytes] = []
    with TableWriter(made) as writer:
        for table in read_tables(path):
            keep = []
            for i, text in enumerate(table["text"].to_pylist()):
                reason, detail, measured = judge.decide(text)
                keep.append(reason is None)
                for name, value in measured.items():
                    values[name].append(value)
                if reason is not None:
                    add_counts(reasons, {reason: 1})
                    dropped.append(dropped_line(table.slice(i, 1).to_pylist()[0], reason, detail))
            kept = table.filter(pa.array(keep, pa.bool_()))
            writer.write(kept)
            size += text_bytes(kept)
            meter.add(table.num_rows)
    write_whole(made.with_suffix(".dropped.jsonl"), b"".join(dropped))
    write_notes(made.with_suffix(".json"), {"in": len(values["words"]), "out": writer.rows, "bytes": size, "dropped": reasons,
                                            "histograms": {name: _counts(name, found) for name, found in values.items()}})


def _counts(name: str, values: list[float]) -> list[int]:
    """Documents a bin; values beyond the last edge count in the last bin."""
    edges = np.array(EDGES[name], dtype=np.float32)  # a score of 0.95 in fastText's precision belongs to the bin that begins at 0.95
    return np.histogram(np.minimum(np.array(values, dtype=np.float32), edges[-1]), edges)[0].tolist()


def _sum_up(notes: list[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, int]]:
    dropped: dict[str, int] = {}
    for note in notes:
        add_counts(dropped, note["dropped"])
    leaving = sum(note["out"] for note in notes)
    return (funnel(sum(note["in"] for note in notes), leaving, dropped, {}),
            {"documents": leaving, "bytes": sum(note["bytes"] for note in notes)})


def _histograms(notes: list[Mapping[str, Any]]) -> dict[str, Any]:
    """{measure: {"edges", "counts"}}; only documents that reached the filter were measured."""
    return {name: {"edges": edges, "counts": np.sum([note["histograms"][name] for note in notes], axis=0).tolist()}
            for name, edges in EDGES.items()}
