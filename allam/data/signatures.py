"""128-bit signatures of ids, URLs and texts, and the rows whose signature was met before, in bounded memory.

A file of signatures is an array of shape (rows, 2), uint64; the row (0, 0) means that there is nothing to compare. Two different texts
share a signature with a probability of about 1e-20 in a corpus of a billion documents.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from allam.data.tables import unique_temporary

Signatures = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
ROWS_AT_ONCE = 4_000_000  # sorted in memory together: about 200 MB


def signatures(values: Iterable[str | None]) -> Signatures:
    """Shape (rows, 2); None and the empty string give (0, 0)."""
    data = b"".join(hashlib.blake2b(value.encode(), digest_size=16).digest() if value else bytes(16) for value in values)
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)


def save_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Writes an array whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unique_temporary(path)
    with open(temporary, "wb") as file:
        np.save(file, array)
    temporary.replace(path)


def find_repeats(paths: Sequence[Path], left_out: Sequence[npt.NDArray[np.bool_]] | None = None) -> list[Rows]:
    """For each file and row: -1, or the number (over all files, in order) of the first row with the same signature.

    Rows marked in `left_out` neither are repeats nor have any. Works through the corpus in parts, chosen by signature.
    """
    arrays = [np.load(path, mmap_mode="r") for path in paths]
    starts = np.cumsum([0, *(len(array) for array in arrays)])
    found = [np.full(len(array), -1, dtype=np.int64) for array in arrays]
    parts = max(1, math.ceil(starts[-1] / ROWS_AT_ONCE))
    for part in range(parts):
        chosen = []
        for i, array in enumerate(arrays):
            takes_part = (array[:, 0] % np.uint64(parts) == part) & array.any(axis=1)
            if left_out is not None:
                takes_part &= ~left_out[i]
            chosen.append(np.flatnonzero(takes_part))
        rows = np.concatenate([start + index for start, index in zip(starts, chosen, strict=False)]) if chosen else np.empty(0, np.int64)
        if not len(rows):
            continue
        values = np.concatenate([array[index] for array, index in zip(arrays, chosen, strict=True)])
        _mark(found, starts, rows, values)
    return found


def _mark(found: list[Rows], starts: npt.NDArray[np.int64], rows: Rows, values: Signatures) -> None:
    order = np.lexsort((values[:, 1], values[:, 0]))  # stable: rows of one signature stay in the corpus's order
    values, rows = values[order], rows[order]
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = (values[1:] != values[:-1]).any(axis=1)
    first = rows[np.maximum.accumulate(np.where(is_first, np.arange(len(rows)), 0))]
    repeated, originals = rows[~is_first], first[~is_first]
    files = np.searchsorted(starts, repeated, side="right") - 1
    for i in np.unique(files):
        here = files == i
        found[i][repeated[here] - starts[i]] = originals[here]
