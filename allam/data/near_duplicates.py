"""Near duplicates by MinHash: an option of dedup that is off, since the paper found fuzzy matching too harsh (§2.1).

    allam stage dedup --recipe demo --set data.dedup.near_duplicates=report

Of the documents that URLs and exact texts left, one is a near duplicate where the estimated similarity to a better one that is *kept* reaches
`data.dedup.near_duplicate_similarity`; `data.dedup.keep` and the recipe's order say which is better. So no chain of small differences drops a text that
is far from all that is kept. `report` drops nothing; `near_duplicates.jsonl.zst` names each near duplicate and what would be kept in its place.

Datatrove's MinHash steps join such chains, hold all pairs in memory and know no better document; datasketch's and rensa's indexes live in memory.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from allam.artifacts import write_json
from allam.data.config import DedupConfig
from allam.data.drops import Drops, Ids
from allam.data.minhash import HASHES, bands
from allam.data.near_pairs import Pairs, Search, search_band, sign_shard
from allam.data.signatures import ROWS_AT_ONCE, Parts, Rows, save_array, sorted_set
from allam.data.tables import EXCERPT, LineWriter, read_tables
from allam.data.tasks import run_tasks

PAIRS_FILE, SUMMARY_FILE = "near_duplicates.jsonl.zst", "near_duplicates.json"
EXAMPLES = 3  # of each source: the least alike
KEPT, OPEN, DROPPED = 0, 1, 2
_PAIR: Any = np.dtype(("<i8", (3,)))  # a row of Pairs


def near_duplicates(config: DedupConfig, ranks: list[Path], drops: Drops, out: Path) -> dict[str, Any]:
    """Adds near duplicates to what is dropped, or only reports them; returns the metrics."""
    if config.near_duplicates == "off":
        return {}
    drops.flush()
    search, shards = Search(config, drops, ranks, drops.work / "near"), len(drops.shards)
    size, count = 2 * sum(path.stat().st_size for _, path in drops.shards), bands(config.near_duplicate_similarity)[0]
    run_tasks(drops.work, "near_signatures", partial(sign_shard, search), shards, unit="documents", total=search.total, size=size)
    run_tasks(drops.work, "near_pairs", partial(search_band, search), count, unit="documents", total=count * search.total, size=size)
    pairs = _Pairs(search, count)
    with _States(search.folder / "states", search.total) as states:
        pairs.decide(states)
        return {"near_duplicates": _report(search, pairs, states, out)}


# --- decisions --------------------------------------------------------------------------------------------------------------------

class _States:
    """A byte a row, on disk: kept, not decided yet, dropped."""

    def __init__(self, path: Path, total: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.truncate(self._file, total)  # all kept

    def __getitem__(self, rows: Rows) -> npt.NDArray[np.uint8]:
        return np.frombuffer(b"".join(os.pread(self._file, 1, row) for row in rows.tolist()), np.uint8)

    def __setitem__(self, rows: Rows, states: npt.NDArray[np.uint8]) -> None:
        for row, state in zip(rows.tolist(), states.tolist(), strict=True):
            os.pwrite(self._file, bytes([state]), row)

    def __enter__(self) -> _States:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


class _Pairs:
    """The pairs of all bands, each once, on disk in the order of their rows; each row's pairs lie in one part."""

    def __init__(self, search: Search, bands_: int) -> None:
        work = search.folder / "pairs"
        shutil.rmtree(work, ignore_errors=True)
        rows_a_part = max(1, ROWS_AT_ONCE // bands_)  # a row has at most one pair in a band
        parts = Parts(work, max(1, math.ceil(search.total / rows_a_part)), _PAIR)
        for band in range(bands_):
            with open(search.pairs(band), "rb") as file:
                while len(pairs := np.fromfile(file, _PAIR, ROWS_AT_ONCE)):
                    parts.add(np.asarray(pairs)[:, 0] // rows_a_part, pairs)
        self._paths = [work / f"{part:06d}.npy" for part in range(parts.count)]
        for part, path in enumerate(self._paths):
            save_array(path, np.unique(np.concatenate([np.empty((0, 3), np.int64), *parts.blocks(part)]), axis=0))
            parts.remove(part)

    def __iter__(self) -> Iterator[Pairs]:
        """The pairs part by part, ordered by row and the better one's row."""
        return filter(len, map(np.load, self._paths))

    def decide(self, states: _States) -> None:
        """A row is dropped once one that it is near to is known to be kept, and kept once all of them are dropped: the best first."""
        for pairs in self:
            rows = sorted_set(pairs[:, 0])
            states[rows] = np.full(len(rows), OPEN, np.uint8)
        is_open = True
        while is_open:
            is_open = False
            for pairs in self:
                rows, begins = np.unique(pairs[:, 0], return_index=True)
                better = states[pairs[:, 1]]
                drop, keep = np.logical_or.reduceat(better == KEPT, begins), np.logical_and.reduceat(better == DROPPED, begins)
                states[rows] = np.where(drop, DROPPED, np.where(keep, KEPT, OPEN)).astype(np.uint8)
                is_open |= not (drop | keep).all()


# --- the report -------------------------------------------------------------------------------------------------------------------

def _report(search: Search, pairs: _Pairs, states: _States, out: Path) -> dict[str, Any]:
    """Writes both files, and adds to the drops where the recipe says so; returns {source: {"compared", "near_duplicates"}}."""
    drops, drop = search.drops, search.config.near_duplicates == "drop"
    sources = [source for source, _ in drops.shards]
    counts = {source: {"compared": 0, "near_duplicates": 0} for source in dict.fromkeys(sources)}
    for shard, source in enumerate(sources):
        counts[source]["compared"] += int(np.count_nonzero(np.load(search.bands(shard), mmap_mode="r")[0]))
    examples: dict[str, list[tuple[int, int, int]]] = {source: [] for source in counts}
    histogram = np.zeros(HASHES + 1, np.int64)
    with Ids(drops.shards, drops.work / "ids") as ids, LineWriter(out / PAIRS_FILE) as lines:
        for row, kept, shared in _chosen(pairs, states):
            shard, kept_shard = search.shard_of(row), search.shard_of(kept)
            source = sources[shard]
            lines.write({"document": ids[row], "source": source, "kept": ids[kept], "kept_source": sources[kept_shard],
                         "similarity": round(shared / HASHES, 3), "dropped": drop})
            counts[source]["near_duplicates"] += 1
            histogram[shared] += 1
            examples[source] = sorted([*examples[source], (shared, row, kept)])[:EXAMPLES]
            if drop:
                drops.add(shard, row - int(drops.starts[shard]), "near_duplicate", f"as {ids[kept]}")
        write_json(out / SUMMARY_FILE, {"similarity": search.config.near_duplicate_similarity, "dropped": drop, "sources": counts,
                                        "histogram": {f"{shared / HASHES:.3f}": number for shared, number in enumerate(histogram.tolist()) if number},
                                        "examples": [_example(search, ids, *found) for source in counts for found in examples[source]]})
    return counts


def _chosen(pairs: _Pairs, states: _States) -> Iterator[tuple[int, int, int]]:
    """(row, the kept one that it is most like, how many numbers they share) for each near duplicate, in order."""
    for found in pairs:
        found = found[(states[found[:, 0]] == DROPPED) & (states[found[:, 1]] == KEPT)]
        found = found[np.lexsort((found[:, 1], -found[:, 2], found[:, 0]))]
        first = np.ones(len(found), bool)
        first[1:] = found[1:, 0] != found[:-1, 0]
        yield from map(tuple, found[first].tolist())


def _example(search: Search, ids: Ids, shared: int, row: int, kept: int) -> dict[str, Any]:
    return {"document": ids[row], "kept": ids[kept], "similarity": round(shared / HASHES, 3), "text": _text(search, row), "kept_text": _text(search, kept),
            "source": search.drops.shards[search.shard_of(row)][0]}


def _text(search: Search, row: int) -> str:
    """The beginning of a row's text."""
    shard = search.shard_of(row)
    row -= int(search.drops.starts[shard])
    for table in read_tables(search.drops.shards[shard][1], ["text"]):
        if row < table.num_rows:
            return str(table["text"][row])[:EXCERPT]
        row -= table.num_rows
    raise AssertionError(row)
