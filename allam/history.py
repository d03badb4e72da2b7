"""What a run would do, stage by stage, and why: compared with the last run of the recipe of the same name.

`run` records each stage that is done in `<store>/plans/<recipe>.json`; `explain` compares a plan with that record and with the disk.
The disk decides what is done; the record only serves to say why something isn't.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from allam.artifacts import ERROR, JOB, Store, is_being_made, write_json
from allam.errors import ArtifactError
from allam.pipeline import Plan, StageSpec

State = Literal["done", "would run", "files missing", "being made", "damaged"]
CHANGES_SHOWN, VALUE_LENGTH = 3, 40


@dataclass(frozen=True)
class Status:
    """Where a stage stands: `why` is empty for a done one."""

    spec: StageSpec
    state: State
    why: str


def explain(plan: Plan, store: Store, to: str | None = None, force: Iterable[str] = ()) -> list[Status]:
    """The state of every stage of the plan (or of those that `to` needs), in the plan's order."""
    specs = list(plan.specs.values()) if to is None else plan.upstream(to)
    forced, last = remade(plan, force), last_run(plan, store)
    return [_status(spec, plan, store, last, forced) for spec in specs]


def remade(plan: Plan, force: Iterable[str]) -> dict[str, str]:
    """The stages that forcing makes again, with the reason: those named, and what is downstream, whose inputs then are new."""
    reasons: dict[str, str] = {}
    for name in force:
        plan.upstream(name)  # refuses a name that isn't there
        reasons[name] = "forced"
    for spec in plan.specs.values():
        sources = [source for source in spec.inputs.values() if source in reasons]
        if sources and spec.name not in reasons:
            reasons[spec.name] = f"upstream {sources[0]} forced"
    return reasons


def last_run(plan: Plan, store: Store) -> dict[str, dict[str, Any]]:
    """The stages last done under the recipe's name: {stage: {"kind", "version", "key", "config", "inputs"}}."""
    try:
        content = json.loads(_record(plan, store).read_text(encoding="utf-8"))
        return {name: entry for name, entry in content["stages"].items() if isinstance(entry, dict)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}  # only serves to explain


def record(plan: Plan, store: Store, names: Iterable[str]) -> None:
    """Writes down that these stages are done as the plan has them."""
    stages = last_run(plan, store)
    for name in names:
        spec = plan.specs[name]
        stages[name] = {"kind": spec.kind, "version": spec.stage.version, "key": spec.key, "config": spec.config_data,
                        "inputs": {k: plan.specs[v].key for k, v in spec.inputs.items()}}
    write_json(_record(plan, store), {"recipe": plan.recipe.name, "stages": stages})


def _record(plan: Plan, store: Store) -> Path:
    return store.root / "plans" / f"{plan.recipe.name}.json"


def _status(spec: StageSpec, plan: Plan, store: Store, last: Mapping[str, Any], forced: Mapping[str, str]) -> Status:
    try:
        manifest = store.manifest(spec.kind, spec.key)
    except ArtifactError as error:
        return Status(spec, "damaged", f"{error.message}; {error.remedy}")
    if manifest is not None and spec.name not in forced:
        return Status(spec, "done", "")
    if spec.problems:
        more = f"; and {len(spec.problems) - 1} more" if len(spec.problems) > 1 else ""
        return Status(spec, "files missing", spec.problems[0] + more)
    if manifest is not None:
        return Status(spec, "would run", forced[spec.name])
    folder = store.folder(spec.kind, spec.key)
    if is_being_made(folder):
        return Status(spec, "being made", "a worker is at it")
    return Status(spec, "would run", _unfinished(folder) or _changes(spec, plan, last.get(spec.name), folder))


def _unfinished(folder: Path) -> str:
    """Why an artifact that was begun isn't done."""
    if not (folder / JOB).is_file():
        return ""
    try:
        return f"failed: {json.loads((folder / ERROR).read_text(encoding='utf-8'))['message'].splitlines()[0]}"
    except (OSError, ValueError, KeyError, IndexError):
        return "was stopped before it was done; it goes on where it was"


def _changes(spec: StageSpec, plan: Plan, before: Mapping[str, Any] | None, folder: Path) -> str:
    """What makes the key differ from the last run's."""
    if before is None:
        return "never made"
    if before["key"] == spec.key:
        return f"{folder} was removed"
    reasons = []
    if (before["kind"], before["version"]) != (spec.kind, spec.stage.version):
        reasons.append(f"stage changed: {before['kind']} version {before['version']} -> {spec.kind} version {spec.stage.version}")
    changes = [f"{spec.name}.{change}" for change in differences(before["config"], spec.config_data)]
    if changes:
        more = f" and {len(changes) - CHANGES_SHOWN} more" if len(changes) > CHANGES_SHOWN else ""
        reasons.append(f"config changed: {', '.join(changes[:CHANGES_SHOWN])}{more}")
    upstream = [source for name, source in spec.inputs.items() if before["inputs"].get(name) != plan.specs[source].key]
    upstream += [name for name in before["inputs"] if name not in spec.inputs]
    if upstream:
        more = f" and {len(upstream) - CHANGES_SHOWN} more" if len(upstream) > CHANGES_SHOWN else ""
        reasons.append(f"upstream {', '.join(dict.fromkeys(upstream[:CHANGES_SHOWN]))}{more} changed")
    return "; ".join(reasons)


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """What changed between two configurations, one `path old -> new` each; external files by their names."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [change for name in dict.fromkeys([*before, *now])
                for change in differences(before.get(name, _ABSENT), now.get(name, _ABSENT), f"{where}.{name}" if where else str(name))]
    if before == now:
        return []
    if _are_files(before) and _are_files(now):
        old, new = ({ref["path"]: ref["sha256"] for ref in refs} for refs in (before, now))
        return ([f"{where} {path} added" for path in new if path not in old] + [f"{where} {path} removed" for path in old if path not in new]
                + [f"{where} {path} has new content" for path in new if path in old and old[path] != new[path]])
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [change for i, (a, b) in enumerate(zip(before, now, strict=True)) for change in differences(a, b, f"{where}.{i}")]
    return [f"{where} {_short(before)} -> {_short(now)}"]


_ABSENT = object()


def _are_files(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) and {"path", "sha256"} <= set(item) for item in value)


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 3] + "..."
