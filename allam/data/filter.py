"""The paper's quality filters (§2.1): language-identification score, length, spam ratio, stop-word ratio.

    allam stage filter --recipe demo

Each source names its filters; they run in that order and the first that fails is the reason why a document is dropped. What was dropped
stands in `dropped/<source>/<shard>.jsonl.zst`, the distributions of what was measured in `statistics.json`. A shard that an
earlier artifact filtered alike is linked from there (allam/data/reuse.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from allam.artifacts import file_sha256, write_json
from allam.data.config import FilterConfig
from allam.data.reuse import EarlierPart, MadePart, find_earlier, link, part_key, write_parts
from allam.data.rules import Rules, identifier, sift
from allam.data.tables import (
    TableWriter,
    count_rows,
    dropped_path,
    publish,
    read_notes,
    read_tables,
    source_shards,
    write_dropped,
    write_notes,
)
from allam.data.tally import Tally, sum_up
from allam.data.tasks import Meter, run_tasks

Shards = list[tuple[str, Path]]  # (source, file)


def run(config: FilterConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Filters the natural documents of `inputs["documents"]`."""
    work, folder = out / "work", inputs["documents"] / "documents"
    shards = source_shards(folder, config.sources)
    if any("language" in source.filter_names for source in config.sources.values()):
        identifier(config.language_model_sha256)  # a wrong model must fail before the first document, not in a worker
    keys = [_key(config, source, path, out) for source, path in shards]
    earlier = find_earlier(out, keys)
    run_tasks(work, "filter", partial(_make_shard, config, shards, [earlier.get(key) for key in keys], work), len(shards), unit="documents",
              total=sum(count_rows(path) for _, path in shards), size=2 * sum(path.stat().st_size for _, path in shards))

    notes, reused = _publish(shards, keys, out)
    sums = {source: sum_up([note for (name, _), note in zip(shards, notes, strict=True) if name == source]) for source in config.sources}
    write_json(out / "statistics.json", {source: found["statistics"] for source, found in sums.items()})
    return {"funnel": {source: found["funnel"] for source, found in sums.items()}, "sources": {source: found["size"] for source, found in sums.items()},
            "by_length": {source: found["by_length"] for source, found in sums.items()},
            "anonymised": {source: found["anonymised"] for source, found in sums.items()}, "shards": {"filtered": len(shards) - reused, "reused": reused}}


def _key(config: FilterConfig, source: str, shard: Path, out: Path) -> str:
    """The key of a shard for reuse: its content, and all that decides about its documents."""
    return part_key(out, {"shard": file_sha256(shard), "config": config.model_dump(mode="json", exclude={"sources"}),
                          "source": config.sources[source].model_dump(mode="json", exclude={"path", "files", "sha256"})})


def _made(work: Path, source: str, shard: Path) -> Path:
    """Where a task leaves its shard; beside it are the dropped documents and the notes."""
    return work / "shards" / source / shard.name


def _make_shard(config: FilterConfig, shards: Shards, earlier: list[EarlierPart | None], work: Path, task: int, meter: Meter) -> None:
    """The task: links what an earlier artifact made of the shard, or filters it."""
    (source, path), found = shards[task], earlier[task]
    made = _made(work, source, path)
    if found is not None and link(found, [made, dropped_path(made)][:len(found.files)]):
        notes = {**found.notes, "reused": True}
        meter.add(count_rows(path))
    else:
        notes = {**_filter_shard(Rules(config, config.sources[source]), path, made, meter), "reused": False}
    write_notes(made.with_suffix(".json"), notes)


def _filter_shard(rules: Rules, path: Path, made: Path, meter: Meter) -> dict[str, Any]:
    """Leaves the shard's kept documents and the dropped ones; returns the counts."""
    tally, dropped = Tally(), list[bytes]()
    with TableWriter(made) as writer:
        for table in read_tables(path):
            kept, lines = sift(table, rules, tally)
            writer.write(kept)
            dropped += lines
            meter.add(table.num_rows)
    write_dropped(dropped_path(made), dropped)
    return tally.notes()


def _publish(shards: Shards, keys: list[str], out: Path) -> tuple[list[Mapping[str, Any]], int]:
    """Links all shards into the artifact and says in parts.json whose they are; returns the shards' notes, and how many were reused."""
    notes, parts, reused = list[Mapping[str, Any]](), dict[str, MadePart](), 0
    for (source, path), key in zip(shards, keys, strict=True):
        made, files = _made(out / "work", source, path), [Path("documents") / source / path.name]
        note = read_notes(made.with_suffix(".json"))
        publish(made, out / files[0])
        if note["dropped"]:
            files.append(dropped_path(Path("dropped") / source / path.name))
            publish(dropped_path(made), out / files[1])
        reused += note.pop("reused")
        notes.append(note)
        parts[key] = MadePart(tuple(file.as_posix() for file in files), note)
    write_parts(out, parts)
    return notes, reused
