"""Checkpoints that know nothing of the layout: fp32 tensors by parameter name in safetensors, and a state.json with their checksums.

    checkpoints/step-00000120/00000.safetensors ...    weight/<name>, exp_avg/<name>, exp_avg_sq/<name>
                              state.json               step, whatever the trainer adds, {file: sha256}, and its own sha256; written last,
                                                       before the folder gets its name

Every rank writes its share of the tensors, and reads its share of the files to check them.
A folder without its final name never counts, and one whose files differ from their checksums is passed over, aloud, and loses that name, so that it
counts for nothing when old ones are removed: it stays as `step-00000120.damaged` for a look. No file is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from allam.artifacts import canonical_json, file_sha256, make_durable, write_json
from allam.engine.device import Ranks

STATE, WEIGHT, DAMAGED = "state.json", "weight/", ".damaged"
NAME = re.compile(r"step-(\d{8,})")
SHARD_BYTES = 4 * 2**30  # bounds the memory of a rank that writes


def save(folder: Path, step: int, tensors: Iterable[tuple[str, Tensor]], state: dict[str, Any], ranks: Ranks) -> Path:
    """Writes the checkpoint of `step` below `folder`. Collective, as `tensors` is: each rank writes some of them, and the first one `state`.

    Raises `OSError` on every rank where one of them couldn't write.
    """
    final = place(folder, step)
    temporary = folder / f"{final.name}.tmp"
    if ranks.first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    ranks.barrier()
    share = _Share(temporary, ranks)
    for name, tensor in tensors:
        share.take(name, tensor)
    share.write()
    found = ranks.gather((share.files, share.error))
    for _, error in found:
        if error is not None:
            raise error
    if ranks.first:
        content = {"step": step, **state, "files": {name: checksum for files, _ in found for name, checksum in sorted(files.items())}}
        write_json(temporary / STATE, content | {"sha256": _seal(content)})
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        make_durable(folder)
    return final


class _Share:
    """The tensors that this rank writes: each goes to the rank that has the fewest bytes so far, which all ranks find alike."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._folder, self._ranks, self._bytes = folder, ranks, [0] * ranks.world_size
        self._waiting: dict[str, Tensor] = {}
        self.files: dict[str, str] = {}
        self.error: OSError | None = None

    def take(self, name: str, tensor: Tensor) -> None:
        """Keeps the tensor where it is this rank's, and writes a file where enough are kept."""
        owner = self._bytes.index(min(self._bytes))
        self._bytes[owner] += tensor.nbytes
        if owner == self._ranks.rank and self.error is None:
            self._waiting[name] = tensor.contiguous()
            if sum(t.nbytes for t in self._waiting.values()) >= SHARD_BYTES:
                self.write()

    def write(self) -> None:
        """Writes what is kept. An error is kept for `save` to raise: this rank has to walk on beside the others."""
        if not self._waiting:
            return
        path = self._folder / f"{len(self.files) * self._ranks.world_size + self._ranks.rank:05d}.safetensors"
        try:
            save_file(self._waiting, path)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            self.files[path.name] = file_sha256(path)
        except (OSError, SafetensorError) as error:  # safetensors tells a full disk by an error of its own
            self.error = error if isinstance(error, OSError) else OSError(errno.EIO, str(error), str(path))
        self._waiting.clear()


def _seal(content: dict[str, Any]) -> str:
    """The checksum of state.json's content without itself."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


# --- which there are -------------------------------------------------------------------------------------------------------------

def place(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return folder / f"step-{step:08d}"


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that have their final name, the oldest first. Copies beside them (`step-00000120.bak`) don't count."""
    return sorted(int(named[1]) for p in folder.glob("step-*") if (named := NAME.fullmatch(p.name)) and p.is_dir())


def prune(folder: Path, last: int, keep: Callable[[int], bool]) -> None:
    """Removes all but the `last` newest checkpoints and those whose step `keep` names, and all but as many of the damaged ones."""
    for step in steps(folder)[:-last]:
        if not keep(step):
            shutil.rmtree(place(folder, step), ignore_errors=True)
    for damaged in sorted(folder.glob(f"step-*{DAMAGED}"))[:-last]:
        shutil.rmtree(damaged, ignore_errors=True)


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

def newest(folder: Path, ranks: Ranks, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """The state of the newest sound checkpoint, with its folder under "folder"; None where there is none. What is damaged is named by `say` on the first
    rank, which sets it aside. Collective."""
    found: Any = ranks.broadcast(steps(folder) if ranks.first else None)
    for i in reversed(range(len(found))):
        candidate = place(folder, found[i])
        problem = damage_found_by(ranks, candidate)
        if problem is None:
            return state_of(candidate)
        if ranks.first:  # all have read by now: they gathered what they found
            _set_aside(candidate)
            say(f"checkpoint {candidate.name} is damaged ({problem}); "
                + ("falling back to the one before" if i else "there is none before it: training begins again"))
    return None


def _set_aside(checkpoint: Path) -> None:
    """Takes a damaged checkpoint's name away. It isn't removed: a file that one node can't read may be sound on another."""
    aside = checkpoint.with_name(f"{checkpoint.name}{DAMAGED}")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    make_durable(checkpoint.parent)


def damage_found_by(ranks: Ranks, checkpoint: Path) -> str | None:
    """`damage`, with the files shared among the ranks; the same answer on each."""
    return next((problem for problem in ranks.gather(damage(checkpoint, ranks.rank, ranks.world_size)) if problem), None)


def state_of(checkpoint: Path) -> dict[str, Any]:
    """state.json of a sound checkpoint, and the checkpoint's folder under "folder"."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return state | {"folder": str(checkpoint)}


def damage(checkpoint: Path, part: int = 0, parts: int = 1) -> str | None:
    """What is wrong with a checkpoint, or None. Reads every file of it; with `parts` one in so many of them, from number `part` on."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        sealed = state.pop("sha256")
        if sealed != _seal(state):
            return f"{STATE} differs from its checksum"
        files = state["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{STATE}: {type(error).__name__}"
    for name, expected in list(files.items())[part::parts]:
        path = checkpoint / name
        try:
            if not path.is_file():
                return f"{name} is missing"
            if file_sha256(path) != expected:
                return f"{name} differs from its checksum"
        except OSError as error:
            return f"{name}: {error.strerror or type(error).__name__}"
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
