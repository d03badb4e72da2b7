"""Which rows of which shard a stage drops, why, and with what detail: on disk, so that their number costs no memory.

`work/drops/<shard>/<n>.<reason>.jsonl` holds [row, detail], ascending by row, for the stage's n-th reason; where a row has several, the first
reason stands.
"""

from __future__ import annotations

import heapq
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson

from allam.data.signatures import Mask, Repeats
from allam.data.tables import count_rows, read_tables

Shards = list[tuple[str, Path]]  # (source, file)
LINES_AT_ONCE = 100_000


class Drops:
    """Gathers a stage's decisions. Each reason's rows of a shard are given in ascending order."""

    def __init__(self, shards: Shards, work: Path) -> None:
        self.shards, self.work = shards, work
        self.starts = np.cumsum([0, *(count_rows(path) for _, path in shards)])
        self._reasons: list[str] = []
        self._waiting: dict[Path, list[bytes]] = {}
        self._lines = 0
        shutil.rmtree(work / "drops", ignore_errors=True)  # of a stage that was killed: deciding costs little

    def add(self, shard: int, row: int, reason: str, detail: str) -> None:
        """Drops one row."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        path = drops_folder(self.work, shard) / f"{self._reasons.index(reason):02d}.{reason}.jsonl"
        self._waiting.setdefault(path, []).append(orjson.dumps([row, detail], option=orjson.OPT_APPEND_NEWLINE))
        self._lines += 1
        if self._lines == LINES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Writes what waits in memory; afterwards `read_drops` gives everything so far."""
        for path, lines in self._waiting.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab") as file:
                file.writelines(lines)
        self._waiting, self._lines = {}, 0

    def add_repeats(self, reason: str, signature_files: Sequence[Path]) -> None:
        """Drops what repeats another row, among the rows that aren't dropped so far; the detail names the document that is kept instead.

        `signature_files` holds one file a shard.
        """
        self.flush()
        repeats = Repeats(signature_files, self.work / "repeats", self.mask)
        if not len(repeats):
            return
        with Ids(self.shards, self.work / "ids") as ids:
            for shard in range(len(self.shards)):
                for row, original in zip(*(found.tolist() for found in repeats.of(shard)), strict=True):
                    self.add(shard, row, reason, f"as {ids[original]}")

    def mask(self, shard: int) -> Mask:
        """Which rows of a shard are dropped so far."""
        mask = np.zeros(int(self.starts[shard + 1] - self.starts[shard]), dtype=bool)
        mask[np.fromiter((row for row, _, _ in read_drops(self.work, shard)), np.int64)] = True
        return mask


def drops_folder(work: Path, shard: int) -> Path:
    """Where the decisions about one shard lie."""
    return work / "drops" / f"{shard:05d}"


def read_drops(work: Path, shard: int) -> Iterator[tuple[int, str, str]]:
    """(row, reason, detail) of a shard's dropped rows, ascending."""
    paths = sorted(drops_folder(work, shard).glob("*.jsonl"))
    last = -1
    for row, reason, detail in heapq.merge(*map(_read_reason, paths), key=lambda found: found[0]):
        if row != last:
            yield row, reason, detail
        last = row


def _read_reason(path: Path) -> Iterator[tuple[int, str, str]]:
    reason, last = path.name.split(".")[1], -1
    with open(path, "rb") as file:
        for line in file:
            row, detail = orjson.loads(line)
            assert row > last, f"{path}: row {row} after {last}"
            yield row, reason, detail
            last = row


class Ids:
    """The ids of all documents by their number over all shards: one file of text, one of where each begins."""

    def __init__(self, shards: Shards, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        end = 0
        with open(folder / "text", "wb") as text, open(folder / "begins", "wb") as begins:
            np.zeros(1, np.int64).tofile(begins)
            for table in (table for _, path in shards for table in read_tables(path, ["id"])):
                encoded = [name.encode() for name in table["id"].to_pylist()]
                text.write(b"".join(encoded))
                ends = end + np.cumsum([len(name) for name in encoded], dtype=np.int64)
                ends.tofile(begins)
                end = int(ends[-1]) if len(ends) else end
        self._text, self._begins = os.open(folder / "text", os.O_RDONLY), os.open(folder / "begins", os.O_RDONLY)

    def __getitem__(self, number: int) -> str:
        begin, end = np.frombuffer(os.pread(self._begins, 16, 8 * number), np.int64).tolist()
        return os.pread(self._text, end - begin, begin).decode()

    def __enter__(self) -> Ids:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._text)
        os.close(self._begins)
