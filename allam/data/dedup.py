"""Duplicate URLs, then exact duplicates (paper §2.1), across all natural sources: the first in the recipe's order is kept.

    allam stage dedup --recipe demo

Two documents with the same normalised URL, or the same text in its comparison form, are duplicates; texts are compared among the documents
that the URLs left, so that a text whose first copy was dropped is not lost. Signatures are made, and shards written, in parallel tasks of
datatrove's executor; only finding the repeats looks at the whole corpus at once, over 16 bytes a document, in this process.
Fuzzy matching is left out, since the paper found it too harsh.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from allam.data.config import DedupConfig
from allam.data.keep import Drops, Shards, write_kept
from allam.data.signatures import find_repeats, save_array, signatures
from allam.data.tables import count_rows, read_tables, source_shards
from allam.data.tasks import Meter, run_tasks
from allam.text.forms import comparison_form
from allam.text.urls import normalise_url


def run(config: DedupConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Deduplicates the documents of `inputs["documents"]`."""
    folder, work = inputs["documents"] / "documents", out / "work"
    sources = config.order or tuple(sorted(path.name for path in folder.iterdir()))
    shards = source_shards(folder, sources)
    size, total = 2 * sum(path.stat().st_size for _, path in shards), sum(count_rows(path) for _, path in shards)
    run_tasks(work, "signatures", partial(_sign_shard, config, shards, work), len(shards), unit="documents", total=total, size=size)
    by_url = find_repeats([signature_path(work, "url", i) for i in range(len(shards))])
    by_text = find_repeats([signature_path(work, "text", i) for i in range(len(shards))], left_out=[rows >= 0 for rows in by_url])
    drops = Drops(shards)
    drops.add_repeats("duplicate_url", by_url)
    drops.add_repeats("duplicate_text", by_text)
    return write_kept(out, shards, sources, drops)


def signature_path(work: Path, what: str, shard: int) -> Path:
    """Where the signatures of a shard's URLs or texts lie."""
    return work / what / f"{shard:05d}.npy"


def _sign_shard(config: DedupConfig, shards: Shards, work: Path, task: int, meter: Meter) -> None:
    urls, texts = [], []
    for table in read_tables(shards[task][1], ["text", "url"]):
        count = table.num_rows
        urls.append(signatures(url and normalise_url(url) for url in table["url"].to_pylist()) if config.url else _none(count))
        texts.append(signatures(map(comparison_form, table["text"].to_pylist())) if config.exact else _none(count))
        meter.add(count)
    save_array(signature_path(work, "url", task), np.concatenate([_none(0), *urls]))
    save_array(signature_path(work, "text", task), np.concatenate([_none(0), *texts]))


def _none(count: int) -> npt.NDArray[np.uint64]:
    return np.zeros((count, 2), dtype=np.uint64)
