"""Runs the four data stages in folders as the worker lays them out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from allam import worker
from allam.artifacts import JOB, KEY_DIGITS_IN_PATH, artifact_key, checksum_outputs, clear_outputs, write_json
from allam.cluster import ClusterProfile
from allam.data.config import DataConfig, SourceConfig
from allam.files import FileTable
from allam.section import Section


def stage(name: str, config: Section, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Enters the folder as the worker does, after a crash too, and runs the stage."""
    (out / "work").mkdir(parents=True, exist_ok=True)
    clear_outputs(out)
    metrics: dict[str, Any] = importlib.import_module(f"allam.data.{name}").run(config, inputs, out)
    return metrics


def configs(data: DataConfig, root: Path) -> dict[str, tuple[Section, dict[str, str]]]:
    """The stages' configurations and inputs, as the plan makes them."""
    table = FileTable(root)
    sources = {name: s.model_copy(update={"files": table.resolve(name, s.path, urls=True)}) for name, s in data.sources.items()}
    natural = {name: s for name, s in sources.items() if s.kind == "natural"}
    translated = {name: s for name, s in sources.items() if s.kind == "translated"}
    return {
        "ingest": (data.ingest.model_copy(update={"sources": sources, "order": tuple(sources), "take_down": tuple(sorted(data.take_down))}), {}),
        "filter": (data.filter.model_copy(update={"sources": natural}), {"documents": "ingest"}),
        "dedup": (data.dedup.model_copy(update={"order": tuple(natural)}), {"documents": "filter"}),
        "translate": (data.translate.model_copy(update={"sources": translated, "order": tuple(translated)}), {"documents": "ingest", "originals": "dedup"}),
    }


def run_stages(data: DataConfig, root: Path, base: Path) -> dict[str, dict[str, Any]]:
    """All four stages; returns their metrics by name."""
    return {name: stage(name, config, {"root": root} | {k: base / v for k, v in inputs.items()}, base / name)
            for name, (config, inputs) in configs(data, root).items()}


def ingest(root: Path, base: Path, **fields: Any) -> dict[str, Any]:
    """Ingests one source `s`; `fields` are the source's, `shard_bytes` and the like the stage's."""
    own = {name: fields.pop(name) for name in ("shard_bytes", "max_set_aside_share", "max_document_bytes") if name in fields}
    source = SourceConfig(**({"language": "en", "domain": "web"} | fields))
    data = DataConfig.model_validate({"sources": {"s": source}, "ingest": {"max_set_aside_share": 1.0} | own})
    return stage("ingest", configs(data, root)["ingest"][0], {"root": root}, base)


def checksums(folder: Path) -> dict[str, str]:
    """The checksum of each output."""
    return {path: output.sha256 for path, output in checksum_outputs(folder).items()}


def profile(workers: int) -> str:
    """A cluster profile for `ALLAM_CLUSTER`."""
    return ClusterProfile(workers=workers).model_dump_json()


def make(store: Path, name: str, config: Section, inputs: dict[str, Path], version: int = 1) -> Path:
    """Makes a stage's artifact below `store` as the worker does; returns its folder."""
    fields, keys = config.model_dump(mode="json"), {k: {"kind": path.parent.name, "key": path.name} for k, path in inputs.items() if k != "root"}
    key = artifact_key(name, version, fields, {k: ref["key"] for k, ref in keys.items()})
    folder = store / name / key[:KEY_DIGITS_IN_PATH]
    write_json(folder / JOB, {"name": name, "kind": name, "version": version, "key": key, "config": fields, "inputs": keys,
                              "paths": {k: str(path) for k, path in inputs.items()}})
    assert worker.main(folder) == 0
    return folder


def make_stages(data: DataConfig, root: Path, store: Path, *names: str) -> dict[str, Path]:
    """The artifacts of the stages (all that are named, in order) in a store."""
    made: dict[str, Path] = {}
    for name in names:
        config, inputs = configs(data, root)[name]
        made[name] = make(store, name, config, {"root": root} | {k: made[v] for k, v in inputs.items()})
    return made
