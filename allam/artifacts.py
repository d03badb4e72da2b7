"""Artifacts: folders addressed by the key of what makes them, done when and only when their manifest stands.

    <root>/<kind>/<first 16 digits of key>/
        job.json        what the worker runs: kind, version, config, inputs
        ...             the stage's outputs
        work/           scratch that survives a crash, so that the stage resumes; removed after the manifest is written
        log.txt, progress.json, error.json      for people; not part of the result
        job.sh, slurm.json                      where Slurm runs it: the job's script and its id
        manifest.json   written last, by an atomic rename

`key = sha256(canonical JSON of {kind, version, config, inputs})`, so that a plan knows every key before anything runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from allam.errors import ArtifactError, UserError

MANIFEST, JOB, LOG, PROGRESS, ERROR, LOCK, WORK = (
    "manifest.json", "job.json", "log.txt", "progress.json", "error.json", ".lock", "work")
SCRIPT, SUBMITTED, SUBMITTING = "job.sh", "slurm.json", ".submitting"  # a Slurm job's script, its id, and the lock of whoever submits it
CHECKPOINTS = "checkpoints"  # those of a training that a policy keeps; they carry their own checksums, and may be deleted at any time
NOT_OUTPUT = {MANIFEST, JOB, LOG, PROGRESS, ERROR, LOCK, WORK, SCRIPT, SUBMITTED, SUBMITTING, CHECKPOINTS}
KEY_DIGITS_IN_PATH = 16
MOST_AT_ONCE = 8  # files checksummed at once


# --- identity --------------------------------------------------------------------------------------------------------------------

def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces. Raises `TypeError` on whatever has no single spelling (sets, NaN, objects, non-text keys)."""
    _refuse_ambiguous(value, "value")
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _refuse_ambiguous(value: Any, where: str) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where} is {value}, which has no place in a key")
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; only text keys have one order and one spelling")
            _refuse_ambiguous(item, f"{where}.{key}")
        return
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _refuse_ambiguous(item, f"{where}[{i}]")
        return
    raise TypeError(f"{where} is a {type(value).__name__}, which has no canonical form; use numbers, text, lists and mappings")


def artifact_key(kind: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The SHA-256 (64 hexadecimal digits) of what makes an artifact; `inputs` maps the name of each input to its key."""
    text = canonical_json({"kind": kind, "version": version, "config": dict(config), "inputs": dict(inputs)})
    return hashlib.sha256(text.encode()).hexdigest()


# --- writing --------------------------------------------------------------------------------------------------------------------

def make_durable(path: Path) -> None:
    """Waits until the disk has a file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    make_durable(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` atomically as indented JSON; NaN and infinities are refused, since they are not JSON."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- manifests ------------------------------------------------------------------------------------------------------------------

class OutputFile(BaseModel):
    """A file of an artifact: size in bytes and SHA-256."""

    model_config = ConfigDict(extra="forbid")
    size: int
    sha256: str


class Manifest(BaseModel):
    """What stands in manifest.json. `inputs` maps names to {"kind", "key"}; `metrics` is what the stage's `run` returned."""

    model_config = ConfigDict(extra="forbid")
    name: str
    kind: str
    version: int
    key: str
    config: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    outputs: dict[str, OutputFile]
    metrics: dict[str, Any]
    started_at: str
    seconds: float
    peak_memory_bytes: int
    world_size: int
    versions: dict[str, str]
    git_revision: str | None = None
    adopted_from: str | None = None


@dataclass(frozen=True)
class ArtifactRef:
    """A small pointer to an artifact: what a Prefect task returns."""

    kind: str
    key: str
    path: Path

    @property
    def label(self) -> str:
        """`kind/key`, the key shortened as in the folder's name."""
        return f"{self.kind}/{self.key[:KEY_DIGITS_IN_PATH]}"


_DAMAGED = "remove this folder and run the same command again; what stands upstream of it is reused"


def manifest_text(content: Mapping[str, Any]) -> str:
    """A manifest as it stands on disk. `sha256` is over the other fields as spelt there, so that any changed byte shows."""
    body = {name: value for name, value in content.items() if name != "sha256"}
    checksum = hashlib.sha256(_spelt(body).encode()).hexdigest()
    return _spelt(body | {"sha256": checksum})


def _spelt(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an artifact's folder, or None where the artifact isn't done. Raises `ArtifactError` on a damaged one."""
    try:
        text = (folder / MANIFEST).read_bytes().decode()
        content = json.loads(text)
        if not isinstance(content, dict) or manifest_text(content) != text:
            raise ValueError("its content differs from its own checksum")
        del content["sha256"]
        return Manifest.model_validate(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ArtifactError(f"the manifest {folder / MANIFEST} is damaged: {str(error).splitlines()[0]}", _DAMAGED) from None


def output_files(folder: Path) -> list[Path]:
    """The files that count as an artifact's result, as sorted paths relative to its folder."""
    found = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return sorted(p for p in found if p.parts[0] not in NOT_OUTPUT and not p.name.endswith(".tmp"))


def checksum_outputs(folder: Path) -> dict[str, OutputFile]:
    """Sizes and checksums of all outputs, each file made durable on the way; several files at once, since a core hashes slower than a disk reads."""
    names = output_files(folder)
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(os.sched_getaffinity(0)))) as pool:
        return {name.as_posix(): output for name, output in zip(names, pool.map(lambda name: _checksum_output(folder / name), names), strict=True)}


def _checksum_output(path: Path) -> OutputFile:
    make_durable(path)
    return OutputFile(size=path.stat().st_size, sha256=file_sha256(path))


def commit(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest, which makes the artifact done, then removes the scratch folder."""
    for relative in sorted({parent for p in manifest.outputs for parent in Path(p).parents}):
        make_durable(folder / relative)
    write_atomic(folder / MANIFEST, manifest_text(manifest.model_dump(mode="json")))
    shutil.rmtree(folder / WORK, ignore_errors=True)
    (folder / ERROR).unlink(missing_ok=True)


def clear_outputs(folder: Path) -> None:
    """Removes half-written outputs before a stage runs again; `work/` and the logs stay."""
    for child in folder.iterdir():
        if child.name in NOT_OUTPUT - {ERROR}:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def withdraw(folder: Path) -> None:
    """Makes an artifact undone, so that the next run makes it again from nothing."""
    with folder_lock(folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        make_durable(folder)
        for name in (WORK, CHECKPOINTS):
            shutil.rmtree(folder / name, ignore_errors=True)
        clear_outputs(folder)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds the artifact's lock; waits while another worker makes it. The kernel releases it when its holder dies.

    The lock file says who holds it: the process and `ALLAM_LAUNCH`, the id that a launcher gives to all processes that it starts at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "launch": os.environ.get("ALLAM_LAUNCH", "")}))
        file.flush()
        yield


def lock_holder(folder: Path) -> tuple[int, str]:
    """The process and the launch that hold the artifact's lock or held it last; (0, "") where nobody ever did."""
    try:
        content = json.loads((folder / LOCK).read_text())
        return int(content["pid"]), str(content["launch"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def is_being_made(folder: Path) -> bool:
    """Whether a live worker holds the artifact's lock."""
    if not (folder / LOCK).exists():
        return False
    with open(folder / LOCK, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def adopt(source: Path, folder: Path, manifest: Manifest, job: Mapping[str, Any]) -> Manifest:
    """Copies what was made elsewhere (the files below `source`) into an artifact's folder and commits it; returns the manifest as written."""
    with folder_lock(folder):
        if read_manifest(folder) is not None:
            raise UserError(f"{folder} is done already", "there is nothing to adopt; `allam verify` checks what is there")
        clear_outputs(folder)
        write_json(folder / JOB, dict(job))
        for relative in output_files(source):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / relative, folder / relative)
        adopted = manifest.model_copy(update={"outputs": checksum_outputs(folder), "adopted_from": str(source)})
        commit(folder, adopted)
        return adopted


def consumed(state: Mapping[str, Any]) -> dict[str, int]:
    """The tokens of a checkpoint's ledger by component and domain, without those of which nothing was read."""
    return {f"{component}.{domain}": tokens for component, domains in state.get("ledger", {}).items() for domain, tokens in domains.items() if tokens}


# --- the store ------------------------------------------------------------------------------------------------------------------

class Store:
    """All artifacts below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()

    def folder(self, kind: str, key: str) -> Path:
        """Where the artifact with this key lies or will lie."""
        return self.root / kind / key[:KEY_DIGITS_IN_PATH]

    def ref(self, kind: str, key: str) -> ArtifactRef:
        """The pointer to an artifact, done or not."""
        return ArtifactRef(kind, key, self.folder(kind, key))

    def manifest(self, kind: str, key: str) -> Manifest | None:
        """The manifest of a done artifact, or None. Raises `ArtifactError` where the folder belongs to another key."""
        found = read_manifest(self.folder(kind, key))
        if found is not None and found.key != key:
            raise ArtifactError(f"{self.folder(kind, key)} holds the artifact {found.key}, not {key}", _DAMAGED)
        return found

    def folders(self) -> list[Path]:
        """Every artifact's folder, done or not, sorted."""
        return sorted({p.parent for name in (JOB, MANIFEST) for p in self.root.glob(f"*/*/{name}")})

    def find(self, prefix: str) -> Path:
        """The folder of the one artifact whose key (or `kind/key`) begins with `prefix`, or that is the only one of a kind or stage of this name."""
        kind, _, key = prefix.rpartition("/")
        matches = [p for p in self.folders() if p.name.startswith(key[:KEY_DIGITS_IN_PATH]) and kind in ("", p.parent.name)]
        matches = matches or [p for p in self.folders() if prefix in (p.parent.name, stage_name(p))]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise UserError(f"no artifact {prefix!r} below {self.root}", "`allam ls` lists those that are there")
        raise UserError(f"{prefix!r} fits {len(matches)} artifacts: {', '.join(f'{p.parent.name}/{p.name}' for p in matches)}",
                        "give more digits of the key")

    def verify(self, folder: Path) -> list[str]:
        """What differs between an artifact's files and its manifest, one line each; an empty list where all is well."""
        try:
            manifest = read_manifest(folder)
        except ArtifactError as error:
            return [f"{MANIFEST}: {error.message}"]
        if manifest is None:
            return [f"{MANIFEST}: missing, the artifact is not done"]
        problems = _job_differs(folder, manifest)
        if self.folder(manifest.kind, manifest.key) != folder:
            problems.append(f"{MANIFEST}: belongs to {self.folder(manifest.kind, manifest.key)}")
        if artifact_key(manifest.kind, manifest.version, manifest.config,
                        {name: ref["key"] for name, ref in manifest.inputs.items()}) != manifest.key:
            problems.append("manifest.json: the key doesn't follow from kind, version, config and inputs")
        problems += changed_outputs(folder, manifest)
        unknown = {p.as_posix() for p in output_files(folder)} - set(manifest.outputs)
        problems += [f"{relative}: not in the manifest" for relative in sorted(unknown)]
        return problems


def changed_outputs(folder: Path, manifest: Manifest) -> list[str]:
    """The files of `folder` that are not as the manifest says, one line each."""
    problems = []
    for relative, expected in manifest.outputs.items():
        path = folder / relative
        if not path.is_file():
            problems.append(f"{relative}: missing")
        elif path.stat().st_size != expected.size:
            problems.append(f"{relative}: {path.stat().st_size} bytes, {expected.size} in the manifest")
        elif file_sha256(path) != expected.sha256:
            problems.append(f"{relative}: content differs from its checksum")
    return problems


def _job_differs(folder: Path, manifest: Manifest) -> list[str]:
    """Where job.json, from which the worker ran, tells another story than the manifest. Paths may differ: a store can be moved."""
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        told = {name: job[name] for name in ("name", "kind", "version", "key", "config", "inputs")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{JOB}: damaged ({type(error).__name__}: {error})"]
    return [f"{JOB}: {name} differs from the manifest's" for name, value in told.items() if value != getattr(manifest, name)]


def stage_name(folder: Path) -> str | None:
    """The name of the stage that an artifact's folder was prepared for."""
    try:
        name = json.loads((folder / JOB).read_text(encoding="utf-8")).get("name")
    except (OSError, ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None
