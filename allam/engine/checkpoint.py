"""Checkpoints that know nothing of the layout: fp32 tensors by parameter name in safetensors, and a state.json with their checksums.

    checkpoints/step-00000120/00000.safetensors ...    weight/<name>, exp_avg/<name>, exp_avg_sq/<name>
                              state.json               step, whatever the trainer adds, {file: sha256}, and its own sha256; written last,
                                                       before the folder gets its name

A folder without its final name never counts, and one whose files differ from their checksums is passed over, aloud. No file is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from allam.artifacts import canonical_json, file_sha256, fsync_folder, write_json

STATE, WEIGHT = "state.json", "weight/"
SHARD_BYTES = 4 * 2**30  # bounds the memory of the writing rank


def save(folder: Path, step: int, tensors: Iterable[tuple[str, Tensor]], state: dict[str, Any], writes: bool) -> Path:
    """Writes the checkpoint of `step` below `folder`; collective, since `tensors` is: ranks with `writes` false only walk through it."""
    final = place(folder, step)
    if not writes:
        for _ in tensors:
            pass
        return final
    temporary = folder / f"{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    files: dict[str, str] = {}
    waiting: dict[str, Tensor] = {}
    for name, tensor in tensors:
        waiting[name] = tensor.contiguous()
        if sum(t.nbytes for t in waiting.values()) >= SHARD_BYTES:
            _write_shard(temporary, waiting, files)
    if waiting:
        _write_shard(temporary, waiting, files)
    content = {"step": step, **state, "files": files}
    write_json(temporary / STATE, content | {"sha256": _seal(content)})
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    fsync_folder(folder)
    return final


def _write_shard(folder: Path, waiting: dict[str, Tensor], files: dict[str, str]) -> None:
    path = folder / f"{len(files):05d}.safetensors"
    save_file(waiting, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    files[path.name] = file_sha256(path)
    waiting.clear()


def _seal(content: dict[str, Any]) -> str:
    """The checksum of state.json's content without itself."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


# --- which there are -------------------------------------------------------------------------------------------------------------

def place(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return folder / f"step-{step:08d}"


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that have their final name, the oldest first."""
    return sorted(int(p.name.removeprefix("step-")) for p in folder.glob("step-*") if p.is_dir() and not p.name.endswith(".tmp"))


def prune(folder: Path, last: int, keep: Callable[[int], bool]) -> None:
    """Removes all but the `last` newest checkpoints and those whose step `keep` names."""
    for step in steps(folder)[:-last]:
        if not keep(step):
            shutil.rmtree(place(folder, step), ignore_errors=True)


def keep_for_good(folder: Path, target: Path, keep: Callable[[int], bool]) -> None:
    """Links (or, where the disk can't, copies) the checkpoints that `keep` names into `target`, each whole or not at all."""
    for step in filter(keep, steps(folder)):
        temporary = target / f"{place(target, step).name}.tmp"
        for old in (temporary, place(target, step)):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(place(folder, step), temporary, copy_function=_link)
        temporary.rename(place(target, step))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


# --- reading ---------------------------------------------------------------------------------------------------------------------

def newest(folder: Path, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """The state of the newest sound checkpoint, with its folder under "folder"; None where there is none. What is damaged is named by `say`."""
    found = steps(folder)
    for i in reversed(range(len(found))):
        candidate = place(folder, found[i])
        problem = damage(candidate)
        if problem is None:
            return state_of(candidate)
        say(f"checkpoint {candidate.name} is damaged ({problem}); " + ("falling back to the one before" if i else "there is none before it"))
    return None


def state_of(checkpoint: Path) -> dict[str, Any]:
    """state.json of a sound checkpoint, and the checkpoint's folder under "folder"."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return state | {"folder": str(checkpoint)}


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Reads every file of it."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        sealed = state.pop("sha256")
        if sealed != _seal(state):
            return f"{STATE} differs from its checksum"
        files = state["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{STATE}: {type(error).__name__}"
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if file_sha256(path) != expected:
            return f"{name} differs from its checksum"
    return None


class Reader:
    """The tensors of a checkpoint by key, read one at a time."""

    def __init__(self, checkpoint: Path) -> None:
        files = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["files"]
        self._handles = [safe_open(checkpoint / name, framework="pt") for name in files]
        self._where = {key: handle for handle in self._handles for key in handle.keys()}  # noqa: SIM118 - not a dict

    def __call__(self, key: str) -> Tensor:
        """The tensor `key`, in fp32 on the CPU. Raises `KeyError` where the checkpoint is of another model."""
        return self._where[key].get_tensor(key).to(torch.float32)  # type: ignore[no-any-return]

    def weights(self) -> list[str]:
        """The names of the model's parameters."""
        return sorted(key.removeprefix(WEIGHT) for key in self._where if key.startswith(WEIGHT))
