"""A model's safetensors read by their headers alone, and written anew with longer matrices, shard by shard (paper §2.2).

A shard's file is 8 bytes of length, a JSON header (name, type, shape, place of each tensor) and the tensors' bytes. Making a matrix longer so
moves bytes and computes nothing: a shard that holds none of the changed matrices is linked, the others are copied by the kernel, with the new rows
put in. Memory holds headers and the new rows at hand, whatever the model's size.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from allam.artifacts import write_json
from allam.engine.model import INDEX, WEIGHTS
from allam.errors import UserError
from allam.tensor_files import Place, read_header

BLOCK = 2**20  # bytes compared at once: two of them stay in a core's cache


class Shards:
    """The tensors of a model's folder by name, from headers. Raises `UserError` where files are missing, damaged or hold a tensor twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        told = _index(folder)
        self.paths = _files(folder, told)
        self.places: dict[str, Place] = {}
        for path in self.paths:
            for name, place in read_header(path)[0].items():
                if name in self.places:
                    raise UserError(f"{folder}: {name} stands in {self.places[name].path.name} and in {path.name}",
                                    "keep the shards of one model only; a folder often holds consolidated weights besides")
                self.places[name] = place
        wrong = sorted(name for name, file in told.items() if name not in self.places or self.places[name].path.name != file)
        if wrong:
            raise UserError(f"{folder}: {wrong[0]} is not in {told[wrong[0]]}, where {INDEX} says it is", "download the model's files again")

    def load(self, name: str) -> Tensor:
        """One tensor, in its own type."""
        with safe_open(self.places[name].path, framework="pt") as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors by name, one in memory at a time."""
        for name in self.places:
            yield name, self.load(name)

    @property
    def parameters(self) -> int:
        """The number of values in all tensors."""
        return sum(torch.Size(place.shape).numel() for place in self.places.values())


def _index(folder: Path) -> dict[str, str]:
    """The file of each tensor, where the folder has an index."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in told.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no index of shards: {error!r}", "download it again") from None


def _files(folder: Path, told: Mapping[str, str]) -> list[Path]:
    """The model's files: those that the index names, or the one of the usual name, or all. Folders often hold the same weights in another form too."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise UserError(f"{folder} holds no safetensors", "convert the weights to safetensors first; pickles are never opened")
    missing = sorted(set(told.values()) - {path.name for path in found})
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}, named in {INDEX}", "download the missing shards")
    wanted = set(told.values()) or {WEIGHTS} & {path.name for path in found}
    return [path for path in found if not wanted or path.name in wanted]


@dataclass(frozen=True)
class Change:
    """What becomes of a matrix: its first `kept` rows, and `more` new ones, which come in blocks `[rows, width]` of its type."""

    kept: int
    more: int
    blocks: Iterable[Tensor]


def lengthen(source: Shards, target: Path, changes: Mapping[str, Change]) -> None:
    """Writes the model of `source` into the folder `target` under the same files' names, the matrices named in `changes` with their new rows.
    Shards without such a matrix are linked where the file system can, else copied."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.paths:
        (target / path.name).unlink(missing_ok=True)  # it may be a link to the base's own file, which must not be written to
        here = {name: change for name, change in changes.items() if source.places[name].path == path}
        if here:
            _rewrite(path, target / path.name, here)
        else:
            _link(path, target / path.name)
    if len(source.paths) > 1:
        places = Shards(target).places
        write_json(target / INDEX, {"metadata": {"total_size": sum(place.nbytes for place in places.values())},
                                    "weight_map": {name: place.path.name for name, place in sorted(places.items())}})


def _link(path: Path, final: Path) -> None:
    try:
        os.link(path.resolve(), final)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, final)


def _rewrite(path: Path, final: Path, changes: Mapping[str, Change]) -> None:
    places, metadata = read_header(path)
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    kept, at = {}, 0
    for name, place in places.items():
        kept[name] = nbytes = place.nbytes
        shape = place.shape
        if change := changes.get(name):
            row = place.nbytes // place.shape[0]
            kept[name], nbytes = row * change.kept, row * (change.kept + change.more)
            shape = (change.kept + change.more, *place.shape[1:])
        header[name] = {"dtype": place.dtype, "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "rb") as old, open(final, "wb") as new:
        new.write(len(text).to_bytes(8, "little") + text)
        for name, place in places.items():
            _send(old, new, place.start, kept[name])
            for block in changes[name].blocks if name in changes else ():
                new.write(block.contiguous().view(torch.uint8).numpy().data)
        if new.tell() != 8 + len(text) + at:
            raise ValueError(f"{final}: with the blocks of new rows it has {new.tell()} bytes, not {8 + len(text) + at}")


def _send(old: BinaryIO, new: BinaryIO, start: int, count: int) -> None:
    """Copies bytes from file to file within the kernel."""
    new.flush()
    while count:
        sent = os.sendfile(new.fileno(), old.fileno(), start, count)
        if not sent:
            raise OSError(f"{old.name} ended early")
        start, count = start + sent, count - sent
    new.seek(0, os.SEEK_END)


def changed_tensors(before: Shards, after: Shards, kept: Mapping[str, int] | None = None) -> Iterator[str]:
    """The names of tensors that only one of the two has, or that differ in type, shape or a byte. Of a matrix named in `kept` that many first rows
    count. What lies in one file on disk, linked, is not read."""
    yield from sorted(set(before.places) ^ set(after.places))
    for name, old in before.places.items():
        new = after.places.get(name)
        if new is None:
            continue
        if kept and name in kept:
            old, new = (replace(p, shape=(kept[name], *p.shape[1:]), nbytes=p.nbytes // p.shape[0] * kept[name]) for p in (old, new))
        if (old.dtype, old.shape) != (new.dtype, new.shape) or not (os.path.samefile(old.path, new.path) or _same_bytes(old, new)):
            yield name


def _same_bytes(old: Place, new: Place) -> bool:
    ours, theirs = bytearray(BLOCK), bytearray(BLOCK)  # filled again and again: fresh memory for each block would cost as much as the reading
    with open(old.path, "rb", buffering=0) as a, open(new.path, "rb", buffering=0) as b:
        a.seek(old.start)
        b.seek(new.start)
        left = old.nbytes
        while left:
            size = min(BLOCK, left)
            _fill(a, memoryview(ours)[:size])
            _fill(b, memoryview(theirs)[:size])
            if ours[:size] != theirs[:size]:
                return False
            left -= size
    return True


def _fill(file: BinaryIO, part: memoryview) -> None:
    """Reads as many bytes as `part` holds; raises `OSError` where the file ends before."""
    while part:
        count = file.readinto(part)  # type: ignore[attr-defined]
        if not count:
            raise OSError(f"{file.name} ended early")
        part = part[count:]
