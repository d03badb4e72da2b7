"""Translated text, kept with the link to its English source (paper §2.1: the sources "are part of our English data").

    allam stage translate --recipe demo

Takes in text that was translated elsewhere and, where the recipe has one, the `machine_translate` stage's, and drops, in this order:
translations whose English source was not kept by the curation (`orphan_translation`), pairs that fail a check (allam/data/pair_rules.py),
and those whose text, in its comparison form, is another's (`duplicate_text`; the first in the recipe's order is kept).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from allam.data.config import TranslateConfig
from allam.data.drops import Drops, Shards
from allam.data.keep import write_kept
from allam.data.originals import Originals, gather, index, want
from allam.data.pair_rules import PairRules
from allam.data.rules import identifier
from allam.data.signatures import save_array, signatures
from allam.data.tables import count_rows, read_notes, read_tables, source_shards, write_notes
from allam.data.tasks import Meter, run_tasks
from allam.text.forms import comparison_form


def run(config: TranslateConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Checks the translated documents of `inputs["documents"]` and `inputs["machine"]` against the English ones of `inputs["originals"]`."""
    work, sources = out / "work", config.order or tuple(config.sources)
    shards = [shard for name in ("documents", "machine") if name in inputs for shard in source_shards(inputs[name] / "documents", sources)]
    originals: Shards = [(path.parent.name, path) for path in sorted((inputs["originals"] / "documents").glob("*/*.parquet"))] if shards else []
    if config.min_language_score > 0:
        identifier(config.language_model_sha256)  # a wrong model must fail before the first document, not in a worker
    _run(work, "signatures", partial(_sign_shard, shards, work), shards)
    want(work, [_path(work, "links", i) for i in range(len(shards))])
    _run(work, "gather", partial(gather, work, originals), originals)
    index(work, len(originals))
    _run(work, "pairs", partial(_check_shard, config, shards, work), shards)
    drops = Drops(shards, work)
    for shard in range(len(shards)):
        for row, reason, detail in read_notes(_path(work, "failed", shard)):
            drops.add(shard, row, reason, detail)
    drops.add_repeats("duplicate_text", [_path(work, "texts", i) for i in range(len(shards))])
    return write_kept(out, shards, sources, drops)


def _run(work: Path, name: str, do: Any, shards: Sequence[tuple[str, Path]]) -> None:
    run_tasks(work, name, do, len(shards), unit="documents", total=sum(count_rows(path) for _, path in shards),
              size=2 * sum(path.stat().st_size for _, path in shards))


def _path(work: Path, what: str, shard: int) -> Path:
    return work / what / f"{shard:05d}.{'json' if what == 'failed' else 'npy'}"


def _sign_shard(shards: Shards, work: Path, task: int, meter: Meter) -> None:
    """Leaves the signatures of the originals' ids and of the texts, each of shape (rows, 2)."""
    links, texts = [np.empty((0, 2), np.uint64)], [np.empty((0, 2), np.uint64)]
    for table in read_tables(shards[task][1], ["text", "translation_of"]):
        links.append(signatures(table["translation_of"].to_pylist()))
        texts.append(signatures(map(comparison_form, table["text"].to_pylist())))
        meter.add(table.num_rows)
    save_array(_path(work, "links", task), np.concatenate(links))
    save_array(_path(work, "texts", task), np.concatenate(texts))


def _check_shard(config: TranslateConfig, shards: Shards, work: Path, task: int, meter: Meter) -> None:
    """Leaves [row, reason, detail] of each translation that falls."""
    rules, originals, links = PairRules(config), Originals(work), np.load(_path(work, "links", task), mmap_mode="r")
    failed, row = list[tuple[int, str, str]](), 0
    for table in read_tables(shards[task][1], ["text", "translation_of"]):
        sources = originals.find(links[row: row + table.num_rows])
        for text, name, source in zip(table["text"].to_pylist(), table["translation_of"].to_pylist(), sources, strict=True):
            if source is None and config.drop_orphans:
                failed.append((row, "orphan_translation", f"of {name}" if name else "names no source"))
            else:
                decision = rules.decide(source, text)
                if decision.reason is not None:
                    failed.append((row, decision.reason, decision.detail))
            row += 1
        meter.add(table.num_rows)
    write_notes(_path(work, "failed", task), failed)
