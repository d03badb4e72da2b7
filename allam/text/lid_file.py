"""The content of a fastText classifier's file as arrays, as far as `allam.text.lid_batch` computes with it: lid.176.ftz and its like.

The format is fastText's own, version 12, little-endian: settings, dictionary, pruned buckets of n-grams, product-quantised input rows, output rows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC, VERSION = 793712314, 12
HIERARCHICAL_SOFTMAX, SUPERVISED = 1, 3
CENTROIDS = 256  # of each part of a quantised row
LABEL = b"__label__"

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


class UnknownModelError(Exception):
    """The file holds another kind of model than the one that is computed here."""


@dataclass(frozen=True)
class LidModel:
    """R rows of the input matrix, L labels, D dimensions, 2 L - 1 nodes of the labels' tree: the first L are the labels, the last is the root."""

    words: dict[bytes, int]  # the row of each word of the vocabulary
    labels: list[str]
    least: int  # characters of an n-gram
    most: int
    bucket_rows: Ints  # [buckets]: the row of each n-gram's hash, -1 for those that were pruned
    input_RD: Floats
    output_LD: Floats  # of the inner nodes, counted from the first of them
    children: Ints  # [nodes, 2]: left and right


def read_model(path: Path) -> LidModel:
    """Raises `UnknownModelError` for other models than quantised classifiers with hierarchical softmax."""
    file = _Reader(path.read_bytes())
    try:
        return _read(file)
    except (struct.error, ValueError, IndexError) as error:
        raise UnknownModelError(f"{path}: {error}") from None


def _read(file: _Reader) -> LidModel:
    file.expect("magic number and version", file.take("ii"), (MAGIC, VERSION))
    width, _, _, _, _, word_ngrams, loss, kind, buckets, least, most, _ = file.take("12i")
    file.take("d")
    file.expect("loss, kind and n-grams of words", (loss, kind, word_ngrams), (HIERARCHICAL_SOFTMAX, SUPERVISED, 1))
    if least < 2:
        raise ValueError("n-grams of a single character")
    size, words, labels, _, pruned = file.take("iiiqq")
    entries = [file.entry() for _ in range(size)]
    pairs = file.array(np.int32, 2 * max(0, pruned)).reshape(-1, 2)
    file.expect("pruned buckets", pruned > 0, True)
    file.expect("quantised input", file.take("?"), (True,))
    input_RD = file.quantised()
    file.expect("quantised output", file.take("?"), (False,))
    file.expect("shape of the output", file.take("qq"), (labels, width))
    bucket_rows = np.full(buckets, -1, np.int32)
    bucket_rows[pairs[:, 0]] = words + pairs[:, 1]
    return LidModel({word: i for i, (word, _) in enumerate(entries[:words])}, [word.removeprefix(LABEL).decode() for word, _ in entries[words:]],
                    least, most, bucket_rows, input_RD, file.array(np.float32, labels * width).reshape(labels, width),
                    _children([count for _, count in entries[words:]]))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, fields: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{fields}", self.data, self.at)
        self.at += struct.calcsize(f"<{fields}")
        return found

    def expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            raise ValueError(f"{what}: {found}, not {wanted}")

    def array(self, kind: type[np.generic], count: int) -> npt.NDArray[Any]:
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += found.nbytes
        return found

    def entry(self) -> tuple[bytes, int]:
        """A word or label, and how often it stood in the training's text."""
        end = self.data.index(b"\0", self.at)
        word, self.at = self.data[self.at:end], end + 1
        count, _ = self.take("qb")
        return word, count

    def quantised(self) -> Floats:
        """[rows, width]: each part of a row is one of its centroids, all of it times the row's own length."""
        has_lengths, rows, width, codes_size = self.take("?qqi")
        codes = self.array(np.uint8, codes_size)
        parts, found_width = self._centroids()
        found = np.concatenate([part[codes.reshape(rows, len(parts))[:, i]] for i, part in enumerate(parts)], axis=1)
        self.expect("width of a row", (found_width, found.shape[1]), (width, width))
        if has_lengths:
            lengths = self.array(np.uint8, rows)
            (part,), _ = self._centroids()
            found *= part[lengths]
        return found

    def _centroids(self) -> tuple[list[Floats], int]:
        width, parts, part_width, last_width = self.take("4i")
        widths = [part_width] * (parts - 1) + [last_width]
        return [self.array(np.float32, CENTROIDS * each).reshape(CENTROIDS, each) for each in widths], width


def _children(counts: list[int]) -> Ints:
    """The Huffman tree of labels in the order of falling counts, built as fastText builds it: of equals the inner node comes first."""
    labels = len(counts)
    weights = [*counts, *[10**15] * (labels - 1)]
    children = np.full((2 * labels - 1, 2), -1, np.int32)
    leaf, inner = labels - 1, labels
    for node in range(labels, 2 * labels - 1):
        for side in range(2):
            if leaf >= 0 and weights[leaf] < weights[inner]:
                children[node, side], leaf = leaf, leaf - 1
            else:
                children[node, side], inner = inner, inner + 1
        weights[node] = sum(weights[child] for child in children[node])
    return children
