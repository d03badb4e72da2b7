"""What every launcher does in an artifact's folder: writes down the job, says what the worker's environment is, passes progress on, and reads what the
worker said at its end. local.py and slurm.py stand on it; neither knows of the other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allam.artifacts import ERROR, JOB, LOG, PROGRESS, WORK, ArtifactRef, Manifest, Store, folder_lock, write_json
from allam.cluster import ClusterProfile, process_variables
from allam.errors import AllamError, StageCancelled, StageFailed, UserError
from allam.pipeline import StageSpec

OnProgress = Callable[[dict[str, Any]], None]
LOG_LINES_SHOWN = 15
RUN_AGAIN = "run the same command again; the stage goes on where it was"
LAUNCH = "ALLAM_LAUNCH"


@dataclass(frozen=True)
class Made:
    """What `make` found or made: `made` is False where the artifact was already there."""

    ref: ArtifactRef
    manifest: Manifest
    made: bool


def prepare(spec: StageSpec, inputs: Mapping[str, ArtifactRef], store: Store) -> Path:
    """Writes the folder's job.json, from which the worker runs; returns the folder."""
    if spec.problems:
        raise UserError(f"{spec.name} lacks files:\n" + "\n".join(f"  {p}" for p in spec.problems), "put them there, or change the recipe or data.root")
    for name, ref in inputs.items():
        if store.manifest(ref.kind, ref.key) is None:
            raise UserError(f"{spec.name} needs {spec.inputs[name]}, which isn't made yet", f"`allam run RECIPE --to {spec.inputs[name]}` makes it")
    folder = store.folder(spec.kind, spec.key)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JOB, job(spec, inputs))
    for old in (ERROR, PROGRESS):
        (folder / old).unlink(missing_ok=True)
    return folder


def job(spec: StageSpec, inputs: Mapping[str, ArtifactRef]) -> dict[str, Any]:
    """What stands in job.json: the stage's identity, and the absolute paths of its inputs and of the data root."""
    return {"name": spec.name, "kind": spec.kind, "version": spec.stage.version, "key": spec.key, "config": spec.config_data,
            "inputs": {name: {"kind": ref.kind, "key": ref.key} for name, ref in inputs.items()},
            "paths": {name: str(ref.path) for name, ref in inputs.items()} | {"root": str(spec.root)}}


def worker_variables(folder: Path, profile: ClusterProfile) -> dict[str, str]:
    """What a worker's environment has beyond the caller's."""
    return {"ALLAM_PROGRESS": str(folder / PROGRESS)} | process_variables(profile, profile.threads)


class Relay:
    """Passes progress.json on whenever it has changed."""

    def __init__(self, folder: Path, report: OnProgress) -> None:
        self.path, self.report, self.seen = folder / PROGRESS, report, 0

    def __call__(self) -> None:
        try:
            changed = self.path.stat().st_mtime_ns
            if changed == self.seen:
                return
            state = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self.seen = changed
        self.report(state)


def told_failure(spec: StageSpec, folder: Path) -> AllamError | None:
    """The error that the worker left, in its own words; None where it left none."""
    try:
        told = json.loads((folder / ERROR).read_text(encoding="utf-8"))
        kind = UserError if told["exit_code"] == UserError.exit_code else StageCancelled if told.get("cancelled") else StageFailed
        return kind(f"{spec.name}: {told['message']}", told["remedy"])
    except (OSError, ValueError, KeyError):
        return None


def log_lines(folder: Path, start: int = 0) -> list[str]:
    """The lines of the worker's log from the byte `start`; none where there is no log."""
    try:
        with open(folder / LOG, "rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def tail(lines: list[str]) -> str:
    """The last lines of a log, for an error's message."""
    return "\n".join(f"  | {line}" for line in lines[-LOG_LINES_SHOWN:])


def full_disk(spec: StageSpec, folder: Path) -> StageFailed | None:
    """An error that says so, where the disk that holds the folder is full."""
    if shutil.disk_usage(folder).free >= 1 << 20:
        return None
    return StageFailed(f"{spec.name}: the disk that holds {folder} is full", f"free some space and {RUN_AGAIN}")


def remove_scratch(folder: Path) -> None:
    """Removes what a worker left that was killed between the manifest and the removal of its scratch."""
    if (folder / WORK).exists():
        with folder_lock(folder):
            shutil.rmtree(folder / WORK, ignore_errors=True)
