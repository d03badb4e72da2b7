"""English documents of chosen domains translated into Arabic, sentence by sentence (paper §2.1: 22.5% of its mix is such text).

    allam stage machine_translate --recipe mine.yaml

Takes what the curation kept, so that every translation has its source in the English data; the stage `translate` then checks each pair as it does those
that were translated elsewhere. Sentences that this model translated before are found in a file beside the artifacts (allam/data/sentence_cache.py): a
stage that was killed goes on within its shard. One process computes, on the profile's device, with its `micro_batch` sentences at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from allam.artifacts import canonical_json
from allam.data.config import MachineTranslateConfig, translation_source
from allam.data.drops import Shards
from allam.data.segments import Piece, Sentence, assemble, parts_to_translate, segment
from allam.data.sentence_cache import SentenceCache
from allam.data.seq2seq import Seq2SeqTranslator
from allam.data.tables import TableWriter, add_counts, count_rows, funnel, publish, read_notes, read_tables, source_shards, text_bytes, write_notes
from allam.data.tasks import Meter, run_tasks
from allam.data.translating_endpoint import EndpointTranslator
from allam.documents import SCHEMA
from allam.progress import Progress

COUNTS = ("sentences", "cut", "mended", "empty")


class Translator(Protocol):
    """A model that translates."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides how a sentence is translated; sentences are kept under its hash."""

    def batches(self, sentences: list[str]) -> Iterable[list[tuple[str, str]]]:
        """(sentence, translation) for each of the sentences, some at a time, in any order."""


def run(config: MachineTranslateConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Translates the documents of `inputs["documents"]` whose sources `config.order` names."""
    work = out / "work"
    shards = source_shards(inputs["documents"] / "documents", config.order)
    rows = _rows_wanted(shards, config.max_documents)
    run_tasks(work, "count", partial(_count_shard, config, shards, rows, work), len(shards), unit="documents", total=sum(rows),
              size=2 * sum(path.stat().st_size for _, path in shards))
    translator: Translator = EndpointTranslator(config) if config.endpoint is not None else Seq2SeqTranslator(config, inputs["root"])
    name = hashlib.sha256(canonical_json(translator.identity).encode()).hexdigest()[:16]
    total = sum(read_notes(_path(work, i, "sentences"))["sentences"] for i in range(len(shards)))
    with SentenceCache(out.parent / f"sentences-{name}.sqlite") as cache, Progress("sentences", total, what="translating") as progress:
        desk = _Desk(translator, cache, progress)
        for i in range(len(shards)):
            if not _path(work, i, "json").is_file():
                _translate_shard(config, shards[i][1], rows[i], _path(work, i, "parquet"), desk)
            else:
                progress.update(read_notes(_path(work, i, "sentences"))["sentences"])
    return _finish(config, shards, work, out)


def _rows_wanted(shards: Shards, limit: int | None) -> list[int]:
    """How many rows of each shard are translated, from the first."""
    taken: Counter[str] = Counter()
    rows = []
    for source, path in shards:
        rows.append(count_rows(path) if limit is None else min(count_rows(path), limit - taken[source]))
        taken[source] += rows[-1]
    return rows


def _path(work: Path, shard: int, ending: str) -> Path:
    return work / "made" / f"{shard:05d}.{ending}"


def _finish(config: MachineTranslateConfig, shards: Shards, work: Path, out: Path) -> dict[str, Any]:
    """Links the shards into the artifact; returns the metrics."""
    rows: dict[str, Any] = {}
    sizes: dict[str, dict[str, int]] = {translation_source(source): {"documents": 0, "bytes": 0} for source in config.order}
    counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
    for i, (source, path) in enumerate(shards):
        publish(_path(work, i, "parquet"), out / "documents" / translation_source(source) / path.name)
        notes = read_notes(_path(work, i, "json"))
        add_counts(counts, {name: notes[name] for name in COUNTS})
        add_counts(sizes[translation_source(source)], {name: notes[name] for name in ("documents", "bytes")})
    for name, size in sizes.items():
        rows[name] = funnel(size["documents"], size["documents"], {}, {})
    return {"funnel": rows, "sources": sizes, "translated": counts}


class _Desk:
    """Where translations come from: those that were made before, and the model."""

    def __init__(self, translator: Translator, cache: SentenceCache, progress: Progress) -> None:
        self.translator, self.cache, self.progress = translator, cache, progress

    def translate(self, sentences: Iterable[str]) -> dict[str, str]:
        """All these sentences' translations; each occurrence counts as progress."""
        wanted = Counter(sentences)
        found = self.cache.find(list(wanted))
        self.progress.update(sum(wanted[sentence] for sentence in found))
        for batch in self._made([sentence for sentence in wanted if sentence not in found]):
            found |= batch
            self.progress.update(sum(wanted[sentence] for sentence, _ in batch))
        return found

    def mend(self, pieces: Iterable[Piece], found: dict[str, str]) -> None:
        """Adds to `found` the parts of those sentences whose marks the model lost."""
        lost = [piece for piece in pieces if isinstance(piece, Sentence) and piece.restored(found[piece.text]) is None]
        parts = sorted({part for sentence in lost for part in parts_to_translate(sentence)} - found.keys())
        found |= self.cache.find(parts)
        for batch in self._made([part for part in parts if part not in found]):
            found |= batch

    def _made(self, sentences: list[str]) -> Iterator[list[tuple[str, str]]]:
        """New translations, each batch kept before it is handed on."""
        for batch in self.translator.batches(sentences) if sentences else ():
            self.cache.add(batch)
            yield batch


def _texts(table: pa.Table) -> list[str]:
    """What is translated of these documents: the texts, then the titles."""
    return [*table["text"].to_pylist(), *(title or "" for title in table["title"].to_pylist())]


def _tables(path: Path, rows: int) -> Iterable[pa.Table]:
    for table in read_tables(path):
        if rows > 0:
            yield table.slice(0, rows)
        rows -= table.num_rows


def _count_shard(config: MachineTranslateConfig, shards: Shards, rows: list[int], work: Path, task: int, meter: Meter) -> None:
    """How many sentences a shard has, for the time that is left."""
    count = 0
    for table in _tables(shards[task][1], rows[task]):
        count += sum(isinstance(piece, Sentence) for text in _texts(table) for piece in segment(text, config.max_sentence_chars)[0])
        meter.add(table.num_rows)
    write_notes(_path(work, task, "sentences"), {"sentences": count})


def _translate_shard(config: MachineTranslateConfig, path: Path, rows: int, made: Path, desk: _Desk) -> None:
    """Leaves the shard's translations and the counts."""
    counts, size = dict.fromkeys(COUNTS, 0), 0
    with TableWriter(made) as writer:
        for table in _tables(path, rows):
            segmented = [segment(text, config.max_sentence_chars) for text in _texts(table)]
            pieces = [found for found, _ in segmented]
            sentences = [piece.text for piece in chain.from_iterable(pieces) if isinstance(piece, Sentence)]
            found = desk.translate(sentences)
            desk.mend(chain.from_iterable(pieces), found)
            texts, mended = zip(*(assemble(some, found) for some in pieces), strict=True)
            add_counts(counts, {"sentences": len(sentences), "cut": sum(cut for _, cut in segmented), "mended": sum(mended),
                                "empty": sum(not found[sentence] for sentence in sentences)})
            translated = _as_translations(table, texts[: table.num_rows], texts[table.num_rows:])
            writer.write(translated)
            size += text_bytes(translated)
    write_notes(made.with_suffix(".json"), counts | {"documents": writer.rows, "bytes": size})


def _as_translations(table: pa.Table, texts: tuple[str, ...], titles: tuple[str, ...]) -> pa.Table:
    """The documents' Arabic counterparts: date and licence are the source's, a page of their own they have none."""
    changed = {"id": [f"{name}-ar" for name in table["id"].to_pylist()], "text": list(texts), "title": [title or None for title in titles],
               "source": [translation_source(name) for name in table["source"].to_pylist()], "translation_of": table["id"].to_pylist(),
               "language": ["ar"] * table.num_rows, "kind": ["translated"] * table.num_rows, "url": [None] * table.num_rows}
    columns = [pa.array(changed[name], pa.string()) if name in changed else table[name] for name in SCHEMA.names]
    return pa.table(columns, schema=SCHEMA)
