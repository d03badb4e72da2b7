"""Samples of a corpus that depend on its content alone: the lines or documents with the smallest hash of seed and id.

Adding a document moves no other one in or out by more than its own place; the number of workers or the order of the files changes nothing.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from allam.documents import Document, read_documents
from allam.progress import Progress

MAX_LINE_CHARACTERS = 1000  # SentencePiece leaves out lines of more than 4,192 bytes: longer ones are cut at a space
_LINE_PART = re.compile(rf".{{1,{MAX_LINE_CHARACTERS}}}(?= |$)|.{{1,{MAX_LINE_CHARACTERS}}}")

GroupOf = Callable[[Document], str | None]


def group_of(document: Document) -> str:
    """Under which name a document is measured: `english`, `arabic` or `code`, as in the paper's Figure 1."""
    return "code" if document.domain == "code" else "english" if document.language == "en" else "arabic"


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text that hold more than white space, with their indentation; long ones cut at spaces."""
    for line in text.split("\n"):
        if not line or line.isspace():
            continue
        if len(line) <= MAX_LINE_CHARACTERS:
            yield line
        else:
            yield from _LINE_PART.findall(line)


def sample_lines(folders: Iterable[Path], group: GroupOf, limit: int, seed: int) -> Iterator[tuple[str, str]]:
    """(group, line) of at most `limit` lines of each group, in the order of the corpus.

    Two passes over the corpus, at most 16 bytes for each line taken. A document whose group is None is passed over.
    """
    return ((name, line) for name, _, line in _sample(folders, group, _line_parts(seed), defaultdict(lambda: limit)))


def sample_lines_of(folders: Iterable[Path], group: GroupOf, limits: Mapping[str, int], seed: int) -> Iterator[tuple[Document, str]]:
    """(document, line) of at most `limits[group]` lines of each group, else as `sample_lines`."""
    return ((document, line) for _, document, line in _sample(folders, group, _line_parts(seed), limits))


def sample_documents(folders: Iterable[Path], group: GroupOf, limit: int, seed: int) -> Iterator[tuple[str, Document]]:
    """(group, document) of at most `limit` documents of each group, in the order of the corpus, in two passes."""
    return ((name, document) for name, document, _ in _sample(folders, group, lambda document: [(_hash(seed, document.id), "")],
                                                                     defaultdict(lambda: limit)))


def _line_parts(seed: int) -> Callable[[Document], Iterator[tuple[int, str]]]:
    return lambda document: ((_hash(seed, document.id, number), line) for number, line in enumerate(lines_of(document.text)))


def _sample(folders: Iterable[Path], group: GroupOf, parts: Callable[[Document], Iterable[tuple[int, str]]],
            limits: Mapping[str, int]) -> Iterator[tuple[str, Document, str]]:
    folders = list(folders)
    chosen: dict[str, _SmallestHashes] = {}
    with Progress("documents", what="choosing a sample") as progress:
        for document in read_documents(*folders):
            name = group(document)
            if name is not None:
                hashes = chosen.setdefault(name, _SmallestHashes(limits[name]))
                for value, _ in parts(document):
                    hashes.add(value)
            progress.update()
    largest = {name: hashes.largest() for name, hashes in chosen.items()}
    for document in read_documents(*folders):
        name = group(document)
        if name is not None:
            for value, part in parts(document):
                if value <= largest[name]:
                    yield name, document, part


def _hash(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


class _SmallestHashes:
    """The `limit` smallest of many 64-bit numbers, in 16 bytes each."""

    def __init__(self, limit: int) -> None:
        self.limit, self.kept, self.waiting, self.bound = limit, np.empty(0, np.uint64), array("Q"), 2**64

    def add(self, value: int) -> None:
        if value < self.bound:
            self.waiting.append(value)
            if len(self.waiting) >= max(self.limit, 1000):
                self._merge()

    def _merge(self) -> None:
        both = np.concatenate([self.kept, np.frombuffer(self.waiting, np.uint64)])
        self.waiting = array("Q")
        self.kept = both
        if len(both) > self.limit:
            self.kept = np.partition(both, self.limit - 1)[: self.limit]
            self.bound = int(self.kept.max())

    def largest(self) -> int:
        """The largest of the smallest `limit`; -1 where there was none."""
        self._merge()
        return int(self.kept.max()) if len(self.kept) else -1
