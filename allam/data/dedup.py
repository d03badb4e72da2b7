"""Duplicate URLs, then exact duplicates (paper §2.1), across all natural sources: the best by the recipe's rule is kept.

    allam stage dedup --recipe demo

Two documents with the same normalised URL, or the same text in its comparison form, are duplicates. Of several, `data.dedup.keep` says which is
the best; by default the one with the longest text, since a page that was fetched several times is often cut or empty in some of them, and among
equals the first in the recipe's order. Texts are compared among the documents that the URLs left, so that a text whose copy was dropped is not
lost. Signatures are made, and shards written, in parallel tasks; only finding the repeats looks at the whole corpus at once, on disk, over 24
bytes a document, in this process. Near duplicates are looked for only where the recipe asks (allam/data/near_duplicates.py).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from allam.data.config import DedupConfig, KeepRule
from allam.data.drops import Drops, Shards
from allam.data.keep import write_kept
from allam.data.near_duplicates import near_duplicates
from allam.data.signatures import save_array, signatures
from allam.data.tables import count_rows, read_tables, source_shards
from allam.data.tasks import Meter, run_tasks
from allam.text.forms import comparison_form
from allam.text.urls import normalise_url

METADATA = ("url", "title", "date", "licence")
COLUMNS = ["text", *METADATA]
_DATE = re.compile(r"(\d{4})-?(\d{2})?-?(\d{2})?")


def run(config: DedupConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Deduplicates the documents of `inputs["documents"]`."""
    folder, work = inputs["documents"] / "documents", out / "work"
    sources = config.order or tuple(sorted(path.name for path in folder.iterdir()))
    shards = source_shards(folder, sources)
    size, total = 2 * sum(path.stat().st_size for _, path in shards), sum(count_rows(path) for _, path in shards)
    run_tasks(work, "signatures", partial(_sign_shard, config, shards, work), len(shards), unit="documents", total=total, size=size)
    drops = Drops(shards, work)
    for what in ("url", "text"):
        drops.add_repeats(f"duplicate_{what}", [signature_path(work, what, i) for i in range(len(shards))])
    found = near_duplicates(config, [signature_path(work, "text", i) for i in range(len(shards))], drops, out)
    return {**write_kept(out, shards, sources, drops), **found}


def signature_path(work: Path, what: str, shard: int) -> Path:
    """Where the signatures of a shard's URLs or texts lie."""
    return work / what / f"{shard:05d}.npy"


def _sign_shard(config: DedupConfig, shards: Shards, work: Path, task: int, meter: Meter) -> None:
    """Shape (rows, 3) for URLs and for texts: signature and rank."""
    urls, texts = [np.empty((0, 3), np.uint64)], [np.empty((0, 3), np.uint64)]
    for table in read_tables(shards[task][1], COLUMNS):
        count = table.num_rows
        forms = [comparison_form(text, config.folds) for text in table["text"].to_pylist()]
        ranks = _ranks(config.keep, table, np.fromiter(map(len, forms), np.uint64, count))
        urls.append(np.hstack([signatures(url and normalise_url(url) for url in table["url"].to_pylist()) if config.url else _none(count), ranks]))
        texts.append(np.hstack([signatures(forms) if config.exact else _none(count), ranks]))
        meter.add(count)
    save_array(signature_path(work, "url", task), np.concatenate(urls))
    save_array(signature_path(work, "text", task), np.concatenate(texts))


def _none(count: int) -> npt.NDArray[np.uint64]:
    return np.zeros((count, 2), dtype=np.uint64)


def _ranks(rules: tuple[KeepRule, ...], table: pa.Table, lengths: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Shape (rows, 1): the rules' values after each other, 28, 28 and 3 bits, so that a later rule decides among the equals of an earlier one."""
    rank = np.zeros(table.num_rows, np.uint64)
    for rule in rules:
        if rule == "longest":
            bits, values = 28, np.minimum(lengths, np.uint64((1 << 28) - 1))
        elif rule == "newest":
            bits, values = 28, np.array([_day(date) for date in table["date"].to_pylist()], np.uint64)
        else:
            given = [np.asarray(pc.is_valid(table[name])).astype(np.uint64) for name in METADATA]
            bits, values = 3, np.stack(given).sum(axis=0, dtype=np.uint64)
        rank = (rank << np.uint64(bits)) | values
    return rank.reshape(-1, 1)


def _day(date: str | None) -> int:
    """The day of an ISO date as a number that grows with time; a missing month or day is 0, and so is a date in another form."""
    found = _DATE.match(date or "")
    return int("".join(part or "00" for part in found.groups())) if found else 0
