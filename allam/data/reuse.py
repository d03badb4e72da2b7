"""What an earlier artifact made from the same files is linked instead of made again: how a daily run reads and filters only what is new.

A stage that works part by part (ingest: files; filter: shards) gives each part a key: the SHA-256 of the stage, its version, the part's input
by content, and the configuration that bears on it. `parts.json` says which files of the artifact are whose. A stage looks for its parts'
keys in the finished artifacts beside its own, the newest first. Whatever it links is checked against the checksum in that artifact's manifest
first, since a file damaged on disk would get a fresh, wrong one here. A result is the same to the byte with and without earlier artifacts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allam.artifacts import JOB, MANIFEST, Manifest, canonical_json, file_sha256, read_manifest
from allam.data.tables import publish, write_notes
from allam.errors import ArtifactError

PARTS = "parts.json"


@dataclass(frozen=True)
class MadePart:
    """A part as an artifact has it: its files, as paths below the artifact, and what its stage noted about it."""

    files: tuple[str, ...]
    notes: dict[str, Any]


@dataclass(frozen=True)
class EarlierPart:
    """A part of an earlier artifact: its folder, the part's files there with their checksums, and its notes."""

    folder: Path
    files: tuple[tuple[str, str], ...]
    notes: dict[str, Any]


def part_key(out: Path, what: Mapping[str, Any]) -> str:
    """The key of a part of the artifact in `out`; `what` is all that bears on the part, in terms that have one spelling in JSON."""
    return hashlib.sha256(canonical_json({**_stage(out), "part": what}).encode()).hexdigest()


def _stage(out: Path) -> dict[str, Any]:
    """Kind and version of the stage, as the worker was told; nothing where the stage is called by hand, and then there is nothing to reuse."""
    try:
        job = json.loads((out / JOB).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {"stage": job["kind"], "version": job["version"]}


def write_parts(out: Path, parts: Mapping[str, MadePart]) -> None:
    """Writes `parts.json`: by key, the files and the notes of each part."""
    write_notes(out / PARTS, {key: {"files": list(part.files), "notes": part.notes} for key, part in sorted(parts.items())})


def find_earlier(out: Path, keys: Iterable[str], also: Sequence[str] = ()) -> dict[str, EarlierPart]:
    """The parts with these keys in finished artifacts of the same kind; artifacts whose `also` files are damaged are passed over."""
    wanted, found = set(keys), dict[str, EarlierPart]()
    for folder, manifest in _siblings(out):
        if not wanted:
            break
        if PARTS not in manifest.outputs or not all(_is_whole(folder, manifest, name) for name in (PARTS, *also)):
            continue
        parts = json.loads((folder / PARTS).read_text(encoding="utf-8"))
        for key in wanted & parts.keys():
            files = tuple((name, manifest.outputs[name].sha256) for name in parts[key]["files"])
            found[key] = EarlierPart(folder, files, parts[key]["notes"])
        wanted -= found.keys()
    return found


def _siblings(out: Path) -> Iterator[tuple[Path, Manifest]]:
    """The other finished artifacts of the kind, the newest first; those with a damaged manifest are left to `allam verify`."""
    for path in sorted(out.parent.glob(f"*/{MANIFEST}"), key=lambda path: (-path.stat().st_mtime_ns, path)):
        try:
            manifest = read_manifest(path.parent) if path.parent != out else None
        except ArtifactError:
            continue
        if manifest is not None:
            yield path.parent, manifest


def _is_whole(folder: Path, manifest: Manifest, name: str) -> bool:
    try:
        return name in manifest.outputs and file_sha256(folder / name) == manifest.outputs[name].sha256
    except OSError:
        return False


def link(earlier: EarlierPart, targets: Sequence[Path]) -> bool:
    """Links an earlier part's files to `targets`; False, and nothing of use there, where a file is gone or not what its manifest says."""
    for (name, checksum), target in zip(earlier.files, targets, strict=True):
        try:
            publish(earlier.folder / name, target)
            if file_sha256(target) == checksum:
                continue
        except OSError:
            return False
        target.unlink()
        return False
    return True
