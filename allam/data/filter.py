"""The paper's quality filters (§2.1): language-identification score, length, spam ratio, stop-word ratio.

    allam stage filter --recipe demo

Each source names its filters; they run in that order and the first that fails is the reason why a document is dropped. What was dropped
stands in `dropped/<source>.jsonl.zst`, the distributions of what was measured in `statistics.json`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from allam.artifacts import write_json
from allam.data.config import FilterConfig
from allam.data.rules import Rules, identifier, sift
from allam.data.tables import TableWriter, count_rows, publish, read_notes, read_tables, source_shards, write_dropped, write_notes, write_whole
from allam.data.tally import Tally, sum_up
from allam.data.tasks import Meter, run_tasks


def run(config: FilterConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Filters the natural documents of `inputs["documents"]`."""
    work, folder = out / "work", inputs["documents"] / "documents"
    shards = source_shards(folder, config.sources)
    if any("language" in source.filter_names for source in config.sources.values()):
        identifier(config.language_model_sha256)  # a wrong model must fail before the first document, not in a worker
    run_tasks(work, "filter", partial(_filter_shard, config, shards, work), len(shards), unit="documents",
              total=sum(count_rows(path) for _, path in shards), size=2 * sum(path.stat().st_size for _, path in shards))

    sums = {}
    for source in config.sources:
        own = [work / "shards" / source / path.name for name, path in shards if name == source]
        for made in own:
            publish(made, out / "documents" / source / made.name)
        write_dropped(out / "dropped" / f"{source}.jsonl.zst", [made.with_suffix(".dropped.jsonl") for made in own])
        sums[source] = sum_up([read_notes(made.with_suffix(".json")) for made in own])
    write_json(out / "statistics.json", {source: found["statistics"] for source, found in sums.items()})
    return {"funnel": {source: found["funnel"] for source, found in sums.items()}, "sources": {source: found["size"] for source, found in sums.items()}}


def _filter_shard(config: FilterConfig, shards: list[tuple[str, Path]], work: Path, task: int, meter: Meter) -> None:
    """Leaves the shard's kept documents, the dropped ones and the counts."""
    source, path = shards[task]
    made, rules, tally = work / "shards" / source / path.name, Rules(config, config.sources[source]), Tally()
    dropped: list[bytes] = []
    with TableWriter(made) as writer:
        for table in read_tables(path):
            kept, lines = sift(table, rules, tally)
            writer.write(kept)
            dropped += lines
            meter.add(table.num_rows)
    write_whole(made.with_suffix(".dropped.jsonl"), b"".join(dropped))
    write_notes(made.with_suffix(".json"), tally.notes())
