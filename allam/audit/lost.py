"""The documents that the data stages dropped or set aside, counted and read back: `allam data dropped RECIPE --reason spam --show 20`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from allam.artifacts import Manifest
from allam.errors import ArtifactError

SET_ASIDE = "set_aside.jsonl"


def losses(stage: str, manifest: Manifest, source: str | None = None, reason: str | None = None) -> list[dict[str, Any]]:
    """{"stage", "source", "reason", "documents"} from a stage's funnel, in its order."""
    rows = []
    for name, row in (manifest.metrics.get("funnel") or {}).items():
        for why, count in {**row["set_aside"], **row["dropped"]}.items():
            if count and source in (None, name) and reason in (None, why):
                rows.append({"stage": stage, "source": name, "reason": why, "documents": count})
    return rows


def lost_records(folder: Path, sources: Iterable[str], reason: str | None = None) -> Iterator[dict[str, Any]]:
    """What an artifact tells of each document of the sources that was set aside or dropped; one of each source in turn, so that the first few show all."""
    return _in_turn([_records(folder, source, reason) for source in sources])


def _records(folder: Path, source: str, reason: str | None) -> Iterator[dict[str, Any]]:
    paths = [folder / SET_ASIDE] if (folder / SET_ASIDE).is_file() else []
    for path in [*paths, *sorted((folder / "dropped" / source).glob("*.jsonl.zst"))]:
        for record in read_lines(path, source.encode()):
            if record["source"] == source and reason in (None, record["reason"]):
                yield record


def _in_turn(iterators: list[Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    while iterators:
        left = []
        for iterator in iterators:
            if (record := next(iterator, None)) is not None:
                yield record
                left.append(iterator)
        iterators = left


def read_lines(path: Path, containing: bytes = b"") -> Iterator[dict[str, Any]]:
    """The records of a JSON Lines file, plain or .zst; only of lines with the bytes `containing`. Raises `ArtifactError` on a damaged file."""
    try:
        with open(path, "rb") as file:
            stream = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file), 1 << 20) if path.suffix == ".zst" else file  # type: ignore[type-var]
            for line in stream:
                if containing in line:
                    yield json.loads(line)
    except (ValueError, zstandard.ZstdError) as error:
        raise ArtifactError(f"{path} is damaged: {error}", "`allam verify` names all damaged files; remove the artifact and run again") from None
