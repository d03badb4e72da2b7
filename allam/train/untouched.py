"""Which new rows of the embeddings a training never touched: those whose token never came as an input in what it consumed (paper §2.2).

Counted in the text and not seen in the weights: weight decay moves every row of a matrix, and the softmax every row of the output. Such a row still is
what it was made of when the vocabulary was extended. Special tokens are learned in finetuning, and padding rows never; both are only counted.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allam.artifacts import read_manifest, write_json
from allam.chat.tokens import is_padding
from allam.text.tokenizer import Tokenizer
from allam.train.windows import Windows

UNTOUCHED = "untouched_rows.json"
WINDOWS_AT_ONCE = 4096


def write_untouched(out: Path, windows: Windows, tokenizer: Tokenizer, first_new: int, lost_steps: Collection[int], global_batch: int) -> dict[str, int]:
    """untouched_rows.json: {"new_rows", "pieces": [{"id", "piece"}], "special": [...], "padding"} of the rows from `first_new` on; returns how many."""
    seen = seen_tokens(windows, tokenizer.vocab_size, lost_steps, global_batch)
    left = [int(i) for i in np.flatnonzero(~seen) if i >= first_new]
    names = dict(zip(left, tokenizer.pieces(left), strict=True))
    special = set(tokenizer.special.values())
    padding = [i for i in left if i not in special and is_padding(names[i])]
    pieces = [{"id": i, "piece": names[i]} for i in left if i not in special and not is_padding(names[i])]
    new_rows = tokenizer.vocab_size - first_new
    write_json(out / UNTOUCHED, {"new_rows": new_rows, "pieces": pieces, "special": [names[i] for i in left if i in special], "padding": len(padding)})
    return {"new_rows": new_rows, "pieces": len(pieces), "special": len(left) - len(pieces) - len(padding), "padding": len(padding)}


def seen_tokens(windows: Windows, vocab_size: int, lost_steps: Collection[int], global_batch: int) -> NDArray[np.bool_]:
    """Which ids came as an input in the steps that left something in the weights, [vocab_size]. Each window is read once, in its pack's order."""
    steps_N = np.arange(len(windows)) // global_batch
    kept_N = ~np.isin(steps_N, sorted(lost_steps)) if lost_steps else np.ones(len(windows), dtype=bool)
    seen = np.zeros(vocab_size, dtype=bool)
    for domain in range(len(windows.domains)):
        sequences = np.flatnonzero(kept_N & (np.asarray(windows.domain_N) == domain))
        for some in windows.distinct(sequences, WINDOWS_AT_ONCE):
            seen[some] = True
    return seen


def first_new_row(model: Path | None) -> int:
    """The first id that the input `model` didn't have before it was extended; 0 where it wasn't, or where training began from nothing."""
    manifest = read_manifest(model) if model is not None else None
    return int(manifest.metrics.get("old_rows", 0)) if manifest is not None else 0
