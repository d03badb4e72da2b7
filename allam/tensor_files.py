"""The headers of safetensors files: which tensors there are, of what shape, and where. Plain Python, since a plan asks (paper §2.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from allam.errors import UserError

LONGEST_HEADER = 100_000_000  # bytes; the bound of the safetensors library


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: file, type as safetensors names it (`F32`, `BF16`), shape, first byte in the file, and length in bytes."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


def read_header(path: Path) -> tuple[dict[str, Place], dict[str, str]]:
    """The tensors of one file in the order of their bytes, and the file's metadata. Raises `UserError` on a damaged file."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise ValueError(f"its header would be {length} bytes long")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        found = sorted((entry["data_offsets"][0], entry["data_offsets"][1], name, entry) for name, entry in header.items())
        places, end = {}, 0
        for start, stop, name, entry in found:
            if start != end or stop < start:
                raise ValueError(f"{name} begins at {start}, not at {end}")
            places[name] = Place(path, entry["dtype"], tuple(entry["shape"]), 8 + length + start, stop - start)
            end = stop
        if 8 + length + end != size:
            raise ValueError(f"it has {size:,} bytes, not {8 + length + end:,}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no whole safetensors file: {error}", "copy or download this shard again") from None
    return places, metadata
