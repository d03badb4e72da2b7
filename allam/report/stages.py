"""The report's last sections: time and memory of each stage, alignment data's counts, versions, keys and the whole recipe."""

from __future__ import annotations

import json
import struct
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from allam.artifacts import KEY_DIGITS_IN_PATH
from allam.pipeline import STAGES
from allam.recipe_reference import origin, section_of
from allam.report.read import Artifacts
from allam.report.words import scalar, shortened


def time_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """Every stage's duration, memory and output size; bars are shares of the longest and the largest."""
    manifests = artifacts.manifests
    if not manifests:
        return None
    longest = max(m.seconds for m in manifests.values()) or 1.0
    largest = max(m.peak_memory_bytes for m in manifests.values()) or 1
    rows = [{"name": name, "area": STAGES[m.kind].area if m.kind in STAGES else "", "seconds": m.seconds, "time_share": m.seconds / longest,
             "memory": m.peak_memory_bytes, "memory_share": m.peak_memory_bytes / largest, "bytes": sum(o.size for o in m.outputs.values()),
             "ranks": m.world_size} for name, m in manifests.items()]
    return {"rows": rows, "seconds": sum(m.seconds for m in manifests.values()), "memory": largest, "bytes": sum(r["bytes"] for r in rows)}


def version_section(artifacts: Artifacts) -> dict[str, Any] | None:
    """Versions of packages (all that were met, where stages differ), revisions, and the key of each stage."""
    if not artifacts.manifests:
        return None
    versions: dict[str, set[str]] = {}
    for manifest in artifacts.manifests.values():
        for package, version in manifest.versions.items():
            versions.setdefault(package, set()).add(version)
    revisions = Counter(m.git_revision for m in artifacts.manifests.values() if m.git_revision)
    keys = [{"name": name, "kind": m.kind, "key": m.key[:KEY_DIGITS_IN_PATH], "version": m.version, "started_at": m.started_at, "adopted": m.adopted_from}
            for name, m in artifacts.manifests.items()]
    return {"versions": [(package, ", ".join(sorted(found))) for package, found in sorted(versions.items())], "revisions": sorted(revisions), "stages": keys}


def parameters(folder: Path) -> int | None:
    """The number of weights in a model's folder, from the headers of its safetensors files."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for name, tensor in header.items():
            if name != "__metadata__":
                product = 1
                for dimension in tensor["shape"]:
                    product *= dimension
                total += product
    return total or None


def vocabulary(folder: Path) -> int | None:
    """Rows of a model's embedding, from its config.json."""
    path = folder / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("vocab_size") if path.is_file() else None


# --- the recipe ------------------------------------------------------------------------------------------------------------------

def recipe_section(artifacts: Artifacts) -> list[dict[str, Any]] | None:
    """Every stage's configuration, field by field, each with where it comes from: the paper's section, the reason for assuming it, or the recipe itself."""
    stages = []
    for name, manifest in artifacts.manifests.items():
        model = STAGES[manifest.kind].config if manifest.kind in STAGES else None
        rows = list(_rows(manifest.config, model, ""))
        if rows:
            stages.append({"name": name, "rows": rows, "inputs": [(k, v["kind"]) for k, v in manifest.inputs.items()]})
    return stages or None


def _origin_of_value(field: FieldInfo, value: Any) -> str:
    """The field's origin; of a value that is not the field's own, as those of a small recipe are, the paper has the field and not the value."""
    said = origin(field)
    own = field.is_required() or to_jsonable_python(field.get_default(call_default_factory=True)) != value
    return f"the recipe's; on the field: {said}" if own and said.startswith("paper") else said


def _rows(config: dict[str, Any], section: type[BaseModel] | None, prefix: str) -> Iterator[dict[str, str]]:
    """One row for each value, sections and mappings of sections opened up; a value that no section describes has no origin."""
    described = section.model_fields if section else {}
    for name, value in config.items():
        field = described.get(name)
        inner = section_of(field.annotation) if field else None
        said = _origin_of_value(field, value) if field else ""
        if isinstance(value, dict) and inner is not None and field is not None:
            if typing.get_origin(field.annotation) is dict:
                for key, item in value.items():
                    yield from _rows(item, inner, f"{prefix}{name}.{key}.")
            else:
                yield from _rows(value, inner, f"{prefix}{name}.")
        elif isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            yield from ({"field": f"{prefix}{name}.{key}", "value": scalar(item), "origin": said} for key, item in value.items())
        elif name == "files":
            if value:
                yield {"field": prefix + name, "value": f"{len(value)} of {sum(file['size'] for file in value):,} bytes in all", "origin": said}
        else:
            yield {"field": prefix + name, "value": shortened(scalar(value), 400), "origin": said}
