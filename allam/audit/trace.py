"""Where a document went: every artifact of a store that holds it, and what was made from those: `allam data trace ID`.

A take-down needs all of it: the id goes into `data.take_down` of the recipe, the next run makes again what held the document, and the folders
that are listed here still hold it until they are removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from allam.artifacts import Manifest, Store, read_manifest
from allam.audit.lost import SET_ASIDE, read_lines
from allam.audit.packed import packed_documents, token_counts
from allam.documents import shards
from allam.errors import ArtifactError

Place = dict[str, Any]  # {"artifact", "stage", "holds", "where"}
HOLDS = ("document", "translation", "held out", "tokens", "unknown")  # what counts as holding it; the rest are notes about it
NEAR_DUPLICATES = "near_duplicates.jsonl.zst"
SEARCHED = ("ingest", "filter", "dedup", "decontaminate", "translate", "pack")  # kinds that hold documents, and say so themselves


def trace(store: Store, name: str) -> list[Place]:
    """The places of the document with this id, in the order in which artifacts were made."""
    found: list[Place] = []
    manifests, translations = _manifests(store), set[str]()
    for folder, manifest in manifests.items():
        for holds, where in _places(folder, manifest, store, name, translations):
            found.append({"artifact": f"{manifest.kind}/{folder.name}", "stage": manifest.name, "holds": holds, "where": where})
    found += [{"artifact": f"{folder.parent.name}/{folder.name}", "stage": folder.parent.name, "holds": "unfinished", "where": where}
              for folder in store.folders() if folder not in manifests for where in _unfinished(folder, name)]
    return found + _made_from(manifests, {place["artifact"] for place in found if place["holds"] in HOLDS})


def _unfinished(folder: Path, name: str) -> Iterator[str]:
    """Where the document or a translation of it stands in what a stage left that failed or was killed."""
    for path in sorted(folder.rglob("*.parquet")):
        try:
            held = next(_rows(path, name), None)
        except (pa.ArrowException, OSError):  # half written, or no documents
            continue
        if held is not None:
            yield f"{path.relative_to(folder)}, row {held[1]}, of a stage that was stopped: run it to its end, or remove the folder"


def _manifests(store: Store) -> dict[Path, Manifest]:
    """All finished artifacts, the oldest first; damaged ones are left to `allam verify`."""
    found = {}
    for folder in store.folders():
        try:
            manifest = read_manifest(folder)
        except ArtifactError:
            continue
        if manifest is not None:
            found[folder] = manifest
    return dict(sorted(found.items(), key=lambda entry: (entry[1].started_at, entry[0])))


def _places(folder: Path, manifest: Manifest, store: Store, name: str, translations: set[str]) -> Iterator[tuple[str, str]]:
    """(what is held, where) of one artifact. Adds to `translations` the ids of those it meets; what drops them comes later than what holds them."""
    for path in [path for part in ("documents", "as_read") for path in shards(folder / part)]:
        for holds, row, document in _rows(path, name):
            yield holds, f"{path.relative_to(folder)}, row {row}"
            if holds == "translation":
                translations.add(document)
    needle = name.encode()
    for path in sorted(folder.glob("dropped/*/*.jsonl.zst")):
        for translation in sorted(translations - {name}):
            for record in read_lines(path, translation.encode()):
                if record["id"] == translation:
                    yield "dropped", f"its translation {translation}: {record['reason']} ({record['detail']})"
        for record in read_lines(path, needle):
            if record["id"] == name:
                yield "dropped", f"{record['reason']} ({record['detail']})"
            elif record["detail"] == f"as {name}":
                yield "duplicate of it", f"{record['id']}, dropped as {record['reason']}"
    if (folder / NEAR_DUPLICATES).is_file():
        for record in read_lines(folder / NEAR_DUPLICATES, needle):
            if name in (record["document"], record["kept"]):
                yield "near duplicate", f"{record['document']} of {record['kept']}, similarity {record['similarity']}"
    if (folder / SET_ASIDE).is_file():
        for record in read_lines(folder / SET_ASIDE, needle):
            if str(record.get("excerpt", "")).startswith(f"{name}: "):
                yield "set aside", f"{record['reason']}: {record['file']}, line {record['line']}"
    if (folder / "packs" / "pack.json").is_file():
        yield from _packed(folder, manifest, store, name)


def _rows(path: Path, name: str) -> Iterator[tuple[str, int, str]]:
    """(what, row, id) of a shard's rows that are the document, or a translation of it."""
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=65536, columns=["id", "translation_of"]):
            for column, holds in (("id", "document"), ("translation_of", "translation")):
                for row in pc.indices_nonzero(pc.equal(batch[column], pa.scalar(name))).to_pylist():
                    yield holds, start + row, batch["id"][row].as_py()
            start += batch.num_rows


def _packed(folder: Path, manifest: Manifest, store: Store, name: str) -> Iterator[tuple[str, str]]:
    """Where the document or a translation of it stands in a pack, if what the pack was made from is still there."""
    corpora = [store.folder(ref["kind"], ref["key"]) for part, ref in manifest.inputs.items() if part in ("natural", "translated")]
    if not all(read_manifest(corpus) for corpus in corpora):
        yield "unknown", "what the pack was made from is gone"
        return
    if not any(found for corpus in corpora for path in shards(corpus / "documents") for found in _rows(path, name)):
        return
    numbers: dict[tuple[str, str], int] = {}
    for row in packed_documents(manifest, corpora):
        place = row["component"], row["domain"]
        if not row["held_out"]:
            numbers[place] = numbers.get(place, -1) + 1
        if name not in (row["id"], row["translation_of"]):
            continue
        if row["held_out"]:
            if any(record["id"] == row["id"] for record in read_lines(folder / "held_out" / f"{row['component']}.jsonl", row["id"].encode())):
                yield "held out", f"held_out/{row['component']}.jsonl: {row['id']}"
            continue
        tokens = token_counts(folder, *place)
        begin = int(tokens[: numbers[place]].sum())
        yield "tokens", f"packs/{'/'.join(place)}: {begin} to {begin + int(tokens[numbers[place]])} ({row['id']})"


def _made_from(manifests: Mapping[Path, Manifest], holding: set[str]) -> list[Place]:
    """The artifacts made from those that hold the document, however far downstream: indexes, models, answers of models."""
    tainted, found = set(holding), list[Place]()
    for folder, manifest in manifests.items():  # in the order of making, so that inputs come first
        inputs = {f"{ref['kind']}/{ref['key'][:16]}" for part, ref in manifest.inputs.items() if part != "held_out"}  # read to measure, not to learn
        if inputs & tainted and manifest.kind not in SEARCHED:
            tainted.add(f"{manifest.kind}/{folder.name}")
            quotes = "; it may quote what was dropped" if manifest.kind == "report" else ""
            found.append({"artifact": f"{manifest.kind}/{folder.name}", "stage": manifest.name, "holds": "made from it",
                          "where": ", ".join(sorted(inputs & tainted)) + quotes})
    return found
