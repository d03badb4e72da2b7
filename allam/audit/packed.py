"""Which document became which tokens of a pack: packs hold no ids, but their documents stand in the order of the corpus without the held-out ones.

So the licence of every token, and the place of every document, follow from the pack's index and the columns of the documents it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from allam.artifacts import Manifest
from allam.documents import is_held_out, shards
from allam.errors import ArtifactError

COLUMNS = ["id", "translation_of", "licence", "language", "domain", "kind"]


def packed_documents(manifest: Manifest, corpora: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The documents of a pack's inputs (`natural`, `translated`) in its order: their columns, `component`, and `held_out` where they aren't packed."""
    held_out, wanted = manifest.config["held_out"], set(manifest.config["languages"])
    for path in (path for corpus in corpora for path in shards(corpus / "documents")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=COLUMNS):
                for row in batch.to_pylist():
                    row["component"] = row["language"] if row["kind"] == "natural" else f"{row['language']}_translated"
                    row["held_out"] = is_held_out(row["translation_of"] or row["id"], held_out["share"], held_out["seed"])
                    if row["held_out"] or row["component"] in wanted:
                        yield row


def token_counts(pack: Path, component: str, domain: str) -> npt.NDArray[np.int64]:
    """Tokens of each document of a domain, in the pack's order."""
    begins = np.load(pack / "packs" / component / domain / "index.npy", mmap_mode="r")
    total = json.loads((pack / "packs" / "pack.json").read_text(encoding="utf-8"))["components"][component][domain]["tokens"]
    return np.diff(np.append(begins, total))


def tokens_by_licence(pack: Path, manifest: Manifest, corpora: Sequence[Path]) -> list[dict[str, Any]]:
    """{"licence", "component", "documents", "tokens"}, the largest first. Raises `ArtifactError` where the pack isn't of these documents."""
    licences: dict[str | None, int] = {}
    found: dict[tuple[str, str], list[int]] = {}
    for row in packed_documents(manifest, corpora):
        if not row["held_out"]:
            found.setdefault((row["component"], row["domain"]), []).append(licences.setdefault(row["licence"], len(licences)))
    sums: dict[tuple[str | None, str], npt.NDArray[np.int64]] = {}
    for (component, domain), numbers in found.items():
        tokens = token_counts(pack, component, domain)
        if len(tokens) != len(numbers):
            raise ArtifactError(f"{pack} holds {len(tokens)} documents of {component}/{domain}, its inputs {len(numbers)}",
                                "`allam verify` names what is damaged; remove that artifact and run again")
        documents, sizes = np.bincount(numbers, minlength=len(licences)), np.zeros(len(licences), np.int64)
        np.add.at(sizes, numbers, tokens)
        for licence, number in licences.items():
            if documents[number]:
                key = licence, component
                sums[key] = sums.get(key, np.zeros(2, np.int64)) + np.array([documents[number], sizes[number]])
    return [{"licence": licence, "component": component, "documents": int(documents), "tokens": int(tokens)}
            for (licence, component), (documents, tokens) in sorted(sums.items(), key=lambda entry: -entry[1][1])]
