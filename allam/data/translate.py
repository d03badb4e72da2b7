"""Text already translated, kept with the link to its English source (paper §2.1: the sources "are part of our English data").

    allam stage translate --recipe demo

Dropped are, in this order: translations whose English source was not kept by the curation (`orphan_translation`), those much shorter or
longer than their source (`length_ratio`), and those whose text, in its comparison form, is another's (`duplicate_text`; the first in the
recipe's order is kept).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from allam.data.config import TranslateConfig
from allam.data.drops import Drops, Shards
from allam.data.keep import write_kept
from allam.data.signatures import Signatures, save_array, signatures
from allam.data.tables import count_rows, read_tables, source_shards
from allam.data.tasks import Meter, run_tasks
from allam.text.forms import comparison_form


def run(config: TranslateConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Checks the translated documents of `inputs["documents"]` against the English ones of `inputs["originals"]`."""
    work, sources = out / "work", config.order or tuple(config.sources)
    shards = source_shards(inputs["documents"] / "documents", sources)
    originals: Shards = [(path.parent.name, path) for path in sorted((inputs["originals"] / "documents").glob("*/*.parquet"))] if shards else []
    _run(work, "originals", partial(_sign_originals, originals, work), originals)
    _run(work, "translations", partial(_sign_translations, shards, work), shards)
    drops = Drops(shards, work)
    _check_against_originals(config, drops, _Lengths([_path(work, "originals", i) for i in range(len(originals))]), work)
    drops.add_repeats("duplicate_text", [_path(work, "texts", i) for i in range(len(shards))])
    return write_kept(out, shards, sources, drops)


def _run(work: Path, name: str, do: Any, shards: Shards) -> None:
    run_tasks(work, name, do, len(shards), unit="documents", total=sum(count_rows(path) for _, path in shards),
              size=2 * sum(path.stat().st_size for _, path in shards))


def _path(work: Path, what: str, shard: int) -> Path:
    return work / what / f"{shard:05d}.npy"


def _lengths(texts: Any) -> npt.NDArray[np.uint64]:
    """Characters of each text."""
    return np.asarray(pc.utf8_length(texts).combine_chunks().to_numpy(zero_copy_only=False), dtype=np.uint64).reshape(-1, 1)


def _sign_originals(shards: Shards, work: Path, task: int, meter: Meter) -> None:
    """Shape (rows, 3): signature of the id, characters of the text."""
    found = [np.empty((0, 3), np.uint64)]
    for table in read_tables(shards[task][1], ["id", "text"]):
        found.append(np.hstack([signatures(table["id"].to_pylist()), _lengths(table["text"])]))
        meter.add(table.num_rows)
    save_array(_path(work, "originals", task), np.concatenate(found))


def _sign_translations(shards: Shards, work: Path, task: int, meter: Meter) -> None:
    """The same about the translations, with the original's id, and the signatures of their texts."""
    links, texts = [np.empty((0, 3), np.uint64)], [np.empty((0, 2), np.uint64)]
    for table in read_tables(shards[task][1], ["text", "translation_of"]):
        links.append(np.hstack([signatures(table["translation_of"].to_pylist()), _lengths(table["text"])]))
        texts.append(signatures(map(comparison_form, table["text"].to_pylist())))
        meter.add(table.num_rows)
    save_array(_path(work, "links", task), np.concatenate(links))
    save_array(_path(work, "texts", task), np.concatenate(texts))


class _Lengths:
    """Characters of each original, found by the signature of its id: 16 bytes a document."""

    def __init__(self, paths: list[Path]) -> None:
        table = np.concatenate([np.empty((0, 2), np.uint64), *(np.load(path, mmap_mode="r")[:, [0, 2]] for path in paths)])
        table = table[np.argsort(table[:, 0], kind="stable")]
        self.ids, self.lengths = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1]).astype(np.int64)

    def find(self, ids: Signatures) -> npt.NDArray[np.int64]:
        """The lengths of the originals with these signatures (shape (n, 2)), or -1 where there is none."""
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids[:, 0]), len(self.ids) - 1)
        return np.where((self.ids[at] == ids[:, 0]) & ids.any(axis=1), self.lengths[at], -1)


def _check_against_originals(config: TranslateConfig, drops: Drops, originals: _Lengths, work: Path) -> None:
    for shard, (_, path) in enumerate(drops.shards):
        links = np.load(_path(work, "links", shard))
        theirs = originals.find(links[:, :2])
        ratios = np.where(theirs >= 0, links[:, 2].astype(np.float64) / np.maximum(theirs, 1), 1.0)
        orphans = np.flatnonzero(theirs < 0) if config.drop_orphans else np.empty(0, np.int64)
        for row, name in zip(orphans.tolist(), _originals_of(path, orphans), strict=True):
            drops.add(shard, row, "orphan_translation", f"of {name}" if name else "names no source")
        for row in np.flatnonzero((ratios < config.min_length_ratio) | (ratios > config.max_length_ratio)).tolist():
            drops.add(shard, row, "length_ratio", f"length ratio {ratios[row]:.4f}")


def _originals_of(path: Path, rows: npt.NDArray[np.int64]) -> list[str | None]:
    names = [name for table in read_tables(path, ["translation_of"]) for name in table["translation_of"].to_pylist()] if len(rows) else []
    return [names[row] for row in rows.tolist()]
