"""Near duplicates by MinHash, found on disk: an option of dedup that is off, since the paper found fuzzy matching too harsh (§2.1).

    allam stage dedup --recipe demo --set data.dedup.near_duplicates=report

Of the documents that URLs and exact texts left, one is a near duplicate where the estimated similarity to a better one that is *kept* reaches
`data.dedup.near_duplicate_similarity`; `data.dedup.keep` and the recipe's order say which is better. So no chain of small differences drops a text that
is far from all that is kept. `report` drops nothing; `near_duplicates.jsonl.zst` names each near duplicate and what would be kept in its place.

Datatrove's MinHash steps join such chains, hold all pairs in memory and know no better document; datasketch's and rensa's indexes live in memory.
Here a document takes 680 bytes of `work/` at a threshold of 0.8. Tasks find the pairs band by band: the band's hashes, distributed by value, are sorted
in blocks of 2 million, and the documents of equal hash compared with the best of them, then what is left with the best of the rest, and so on.
Only a hash that more than 2 million documents share is cut into blocks that don't meet in this band.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from allam.artifacts import write_json
from allam.data.config import DedupConfig
from allam.data.drops import Drops, Ids
from allam.data.minhash import HASHES, band_hashes, bands, minhash
from allam.data.signatures import ROWS_AT_ONCE, Parts, Rows, save_array
from allam.data.tables import EXCERPT, LineWriter, read_tables, unique_temporary
from allam.data.tasks import Meter, run_tasks
from allam.text.forms import comparison_words

PAIRS_FILE, SUMMARY_FILE = "near_duplicates.jsonl.zst", "near_duplicates.json"
BEST_COMPARED = 100  # of the documents with one hash, so many that are unlike each other are compared with all others
PAIRS_AT_ONCE = 20_000  # compared together: 20 MB of signatures
BYTES_A_ROW = 4 * HASHES
EXAMPLES = 3  # of each source: the least alike
KEPT, OPEN, DROPPED = 0, 1, 2
_MEMBER = np.dtype([("band", "<u8"), ("rank", "<u8"), ("row", "<i8")])
_PAIR: Any = np.dtype(("<i8", (3,)))  # row, a better one, how many of the 128 numbers they share
Pairs = npt.NDArray[np.int64]
Members = npt.NDArray[Any]  # of the type _MEMBER


@dataclass(frozen=True)
class _Search:
    """What the tasks know. Rows are numbered over all shards, as in `drops.starts`; `ranks` are files whose last column ranks a shard's rows."""

    config: DedupConfig
    drops: Drops
    ranks: list[Path]
    folder: Path

    def signatures(self, shard: int) -> Path:
        """128 numbers a row, without a head."""
        return self.folder / "signatures" / f"{shard:05d}"

    def bands(self, shard: int) -> Path:
        """An array of shape (bands, rows): the hashes of each band; 0: not compared."""
        return self.folder / "bands" / f"{shard:05d}.npy"

    def pairs(self, band: int) -> Path:
        """The pairs that a band found."""
        return self.folder / f"pairs-{band:03d}"

    @property
    def total(self) -> int:
        """Rows of all shards."""
        return int(self.drops.starts[-1])

    def part_count(self) -> int:
        """Parts of about `ROWS_AT_ONCE` rows."""
        return max(1, math.ceil(self.total / ROWS_AT_ONCE))


def near_duplicates(config: DedupConfig, ranks: list[Path], drops: Drops, out: Path) -> dict[str, Any]:
    """Adds near duplicates to what is dropped, or only reports them; returns the metrics."""
    if config.near_duplicates == "off":
        return {}
    drops.flush()
    search, shards = _Search(config, drops, ranks, drops.work / "near"), len(drops.shards)
    size, count = 2 * sum(path.stat().st_size for _, path in drops.shards), bands(config.near_duplicate_similarity)[0]
    run_tasks(drops.work, "near_signatures", partial(_sign_shard, search), shards, unit="documents", total=search.total, size=size)
    run_tasks(drops.work, "near_pairs", partial(_search_band, search), count, unit="documents", total=count * search.total, size=size)
    pairs = _Pairs(search, count)
    states = _States(search.folder / "states", search.total)
    pairs.decide(states)
    return {"near_duplicates": _report(search, pairs, states, out)}


# --- signatures -------------------------------------------------------------------------------------------------------------------

def _sign_shard(search: _Search, task: int, meter: Meter) -> None:
    """The task of a shard: leaves its rows' signatures and the hashes of their bands."""
    path, config, row = search.signatures(task), search.config, 0
    dropped, found = search.drops.mask(task), [np.empty((0, bands(config.near_duplicate_similarity)[0]), np.uint64)]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unique_temporary(path)
    with open(temporary, "wb") as file:
        for table in read_tables(search.drops.shards[task][1], ["text"]):
            numbers, compared = np.zeros((table.num_rows, HASHES), np.uint32), np.zeros((table.num_rows, 1), bool)
            for i, text in enumerate(table["text"].to_pylist()):
                if not dropped[row + i] and (words := comparison_words(text)):
                    numbers[i], compared[i] = minhash(words, config.near_duplicate_words), True
            numbers.tofile(file)
            found.append(np.where(compared, band_hashes(numbers, config.near_duplicate_similarity), np.uint64(0)))
            row += table.num_rows
            meter.add(table.num_rows)
    temporary.replace(path)
    save_array(search.bands(task), np.ascontiguousarray(np.concatenate(found).T))


class _Signatures:
    """Reads rows of the signatures from disk, not mapped, so that memory stays what it is."""

    def __init__(self, search: _Search) -> None:
        self.search = search

    def of(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """Shape (rows, 128)."""
        starts, found = self.search.drops.starts, np.empty((len(rows), HASHES), np.uint32)
        order = np.argsort(rows)
        shards, begins = np.unique(np.searchsorted(starts, rows[order], side="right") - 1, return_index=True)
        for shard, mine in zip(shards.tolist(), np.split(order, begins[1:]), strict=False):  # of no rows at all, np.split makes one piece
            with open(self.search.signatures(shard), "rb") as file:
                places = (BYTES_A_ROW * (rows[mine] - starts[shard])).tolist()
                found[mine] = np.frombuffer(b"".join(os.pread(file.fileno(), BYTES_A_ROW, at) for at in places), np.uint32).reshape(-1, HASHES)
        return found

    def shared(self, rows: Rows, others: Rows) -> npt.NDArray[np.int64]:
        """How many of the 128 numbers each row shares with the other."""
        found = np.empty(len(rows), np.int64)
        for i in range(0, len(rows), PAIRS_AT_ONCE):
            some = slice(i, i + PAIRS_AT_ONCE)
            found[some] = np.count_nonzero(self.of(rows[some]) == self.of(others[some]), axis=1)
        return found


# --- pairs ------------------------------------------------------------------------------------------------------------------------

def _search_band(search: _Search, task: int, meter: Meter) -> None:
    """The task of a band: leaves all its pairs of sufficient similarity."""
    work, signatures, final = search.folder / f"parts-{task:03d}", _Signatures(search), search.pairs(task)
    shutil.rmtree(work, ignore_errors=True)
    parts = Parts(work, search.part_count(), _MEMBER)
    for shard, ranks in enumerate(search.ranks):
        hashes = np.array(np.load(search.bands(shard), mmap_mode="r")[task])
        rows = np.flatnonzero(hashes)
        members = np.empty(len(rows), _MEMBER)
        members["band"], members["row"], members["rank"] = hashes[rows], search.drops.starts[shard] + rows, np.load(ranks)[rows, -1]
        parts.add(members["band"] % np.uint64(parts.count), members)
        meter.add(len(hashes))
    temporary = unique_temporary(final)
    with open(temporary, "wb") as file:
        for part in range(parts.count):
            for block in parts.blocks(part):
                for pairs in _near(block, signatures, search.config.near_duplicate_similarity):
                    pairs.tofile(file)
            parts.remove(part)
    temporary.replace(final)
    work.rmdir()


def _near(members: Members, signatures: _Signatures, similarity: float) -> Iterator[Pairs]:
    """Among rows of the same hash: each with the first of the best ones that it is near to."""
    members = members[np.lexsort((members["row"], ~members["rank"], members["band"]))]
    for _ in range(BEST_COMPARED):
        begins = np.ones(len(members), bool)
        begins[1:] = members["band"][1:] != members["band"][:-1]
        best = members["row"][np.maximum.accumulate(np.where(begins, np.arange(len(members)), 0))] if len(members) else members["row"]
        members, best = members[~begins], best[~begins]
        if not len(members):
            return
        shared = signatures.shared(members["row"], best)
        near = shared >= similarity * HASHES
        yield np.stack([members["row"], best, shared], axis=1)[near]
        members = members[~near]


# --- decisions --------------------------------------------------------------------------------------------------------------------

class _States:
    """A byte a row, on disk: kept, not decided yet, dropped."""

    def __init__(self, path: Path, total: int) -> None:
        path.unlink(missing_ok=True)
        self._file = open(path, "x+b", buffering=0)  # noqa: SIM115  # closed with the object
        self._file.truncate(total)  # all kept

    def __getitem__(self, rows: Rows) -> npt.NDArray[np.uint8]:
        return np.frombuffer(b"".join(os.pread(self._file.fileno(), 1, row) for row in rows.tolist()), np.uint8)

    def __setitem__(self, rows: Rows, states: npt.NDArray[np.uint8]) -> None:
        for row, state in zip(rows.tolist(), states.tolist(), strict=True):
            os.pwrite(self._file.fileno(), bytes([state]), row)


class _Pairs:
    """The pairs of all bands, each once, on disk in the order of their rows; each row's pairs lie in one part."""

    def __init__(self, search: _Search, bands_: int) -> None:
        work = search.folder / "pairs"
        shutil.rmtree(work, ignore_errors=True)
        self.rows_a_part = max(1, ROWS_AT_ONCE // bands_)  # a row has at most one pair in a band
        self._parts = Parts(work, max(1, math.ceil(search.total / self.rows_a_part)), _PAIR)
        for band in range(bands_):
            with open(search.pairs(band), "rb") as file:
                while len(pairs := np.fromfile(file, _PAIR, ROWS_AT_ONCE)):
                    self._parts.add(np.asarray(pairs)[:, 0] // self.rows_a_part, pairs)

    def __iter__(self) -> Iterator[Pairs]:
        """The pairs part by part, ordered by row and the better one's row."""
        for part in range(self._parts.count):
            for pairs in self._parts.blocks(part):
                yield np.unique(pairs, axis=0)

    def decide(self, states: _States) -> None:
        """A row is dropped once one that it is near to is known to be kept, and kept once all of them are dropped: the best first."""
        for pairs in self:
            rows = np.unique(pairs[:, 0])
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

def _report(search: _Search, pairs: _Pairs, states: _States, out: Path) -> dict[str, Any]:
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
            shard, kept_shard = (np.searchsorted(drops.starts, [row, kept], side="right") - 1).tolist()
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


def _example(search: _Search, ids: Ids, shared: int, row: int, kept: int) -> dict[str, Any]:
    return {"document": ids[row], "kept": ids[kept], "similarity": round(shared / HASHES, 3), "text": _text(search, row), "kept_text": _text(search, kept),
            "source": search.drops.shards[_shard_of(search, row)][0]}


def _shard_of(search: _Search, row: int) -> int:
    return int(np.searchsorted(search.drops.starts, row, side="right")) - 1


def _text(search: _Search, row: int) -> str:
    """The beginning of a row's text."""
    shard = _shard_of(search, row)
    row -= int(search.drops.starts[shard])
    for table in read_tables(search.drops.shards[shard][1], ["text"]):
        if row < table.num_rows:
            return str(table["text"][row])[:EXCERPT]
        row -= table.num_rows
    raise AssertionError(row)
