"""Reads the artifacts of a run. What isn't there reads as None or as nothing: a report of half a run shows that half."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from allam.artifacts import Manifest, read_manifest
from allam.errors import ArtifactError

TRAINED = ("pretrain", "continue", "sft", "dpo")  # stages that take optimizer steps, in their order
MODELS = ("import_model", "pretrain", "extend", "continue", "sft", "dpo")  # stages that make a model


class Artifacts:
    """The finished artifacts among a plan's stages, by the stage's name, in the plan's order."""

    def __init__(self, inputs: dict[str, Path]) -> None:
        self.root = inputs.get("root")
        self.folders: dict[str, Path] = {}
        self.manifests: dict[str, Manifest] = {}
        self._read: dict[tuple[Path, int | None], list[dict[str, Any]]] = {}
        for name, folder in inputs.items():
            manifest = None if name == "root" else read_manifest(folder)
            if manifest is not None:
                self.folders[name], self.manifests[name] = folder, manifest

    def __contains__(self, name: str) -> bool:
        return name in self.manifests

    def config(self, name: str) -> dict[str, Any]:
        """A stage's configuration as it entered its key."""
        return self.manifests[name].config if name in self else {}

    def metrics(self, name: str) -> dict[str, Any]:
        """What a stage's `run` returned."""
        return self.manifests[name].metrics if name in self else {}

    def file(self, name: str, relative: str) -> Path | None:
        """The path of an output, or None."""
        if name not in self or not (self.folders[name] / relative).is_file():
            return None
        return self.folders[name] / relative

    def json(self, name: str, relative: str) -> Any:
        """The content of a JSON output, or None."""
        path = self.file(name, relative)
        return None if path is None else _parsed(path.read_text(encoding="utf-8"), path)

    def lines(self, name: str, relative: str, most: int | None = None) -> list[dict[str, Any]]:
        """The first `most` records of a JSON Lines output (plain or .zst), or all of them; empty where the file is missing."""
        path = self.file(name, relative)
        if path is None:
            return []
        if (path, most) not in self._read:  # a long training's log is asked for by several sections
            self._read[path, most] = list(islice(_records(path), most))
        return self._read[path, most]

    def names(self, name: str, pattern: str) -> list[str]:
        """Outputs of a stage whose path fits `pattern`, relative and sorted."""
        if name not in self:
            return []
        return sorted(p.relative_to(self.folders[name]).as_posix() for p in self.folders[name].glob(pattern) if p.is_file())


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as raw:
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") if path.suffix == ".zst" and path.stat().st_size else raw
        for line in io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8") if stream is not raw else io.TextIOWrapper(raw, encoding="utf-8"):
            if line.strip():
                yield _parsed(line, path)


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: {error}", "`allam verify` names all damaged files; remove the artifact and run again") from None
