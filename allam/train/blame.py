"""The ids of the documents that sequences are made of, for the error that stops a training on a loss that is no number.

Packs hold no ids. Which documents a window touches follows from the pack's index, and their ids from the corpus that the pack was made from, of
which only a few columns are read, until all are found.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from allam.artifacts import JOB, read_manifest
from allam.audit.packed import packed_documents
from allam.errors import ArtifactError
from allam.train.pack import INDEX, PACKS
from allam.train.windows import Windows

Place = tuple[str, str, int]  # component, domain, number in that domain's pack


def documents_of(windows: Windows, pack: Path, sequences: Sequence[int]) -> list[str]:
    """The ids of the documents in these sequences, in their order; `component/domain document N of the pack` where the corpus is gone."""
    places = list(dict.fromkeys(place for i in sequences for place in _places(windows, pack, i)))
    ids = _ids(pack, set(places))
    return [ids.get(place, f"{place[0]}/{place[1]} document {place[2]} of the pack") for place in places]


def _places(windows: Windows, pack: Path, sequence: int) -> list[Place]:
    component, domain, start, end = windows.span(sequence)
    begins = np.load(pack / PACKS / component / domain / INDEX, mmap_mode="r")
    first, last = (int(np.searchsorted(begins, position, side="right")) - 1 for position in (start, end - 1))
    return [(component, domain, number) for number in range(first, last + 1)]


def _ids(pack: Path, wanted: set[Place]) -> dict[Place, str]:
    """The ids of the wanted places; of none or some where the pack's papers or its corpus are gone, since the error to be told is another one."""
    found: dict[Place, str] = {}
    passed: dict[tuple[str, str], int] = {}
    try:
        manifest = read_manifest(pack)
        paths = json.loads((pack / JOB).read_text(encoding="utf-8"))["paths"]
        for row in packed_documents(manifest, [Path(paths[name]) for name in ("natural", "translated")]) if manifest else ():
            if row["held_out"]:
                continue
            name = (row["component"], row["domain"])
            place = (*name, passed.get(name, 0))
            passed[name] = place[2] + 1
            if place in wanted:
                found[place] = row["id"]
                if len(found) == len(wanted):
                    break
    except (OSError, ArtifactError) as error:
        print(f"the ids of the documents can't be found: {error}", flush=True)
    return found
