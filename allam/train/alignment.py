"""Which English pieces a new Arabic piece translates, learnt from the corpus's own translations (for `extend.method: translation`).

After Remy et al. 2024 ("Trans-Tokenization and Cross-lingual Vocabulary Transfers"): a new token's embedding is the mean of the embeddings of tokens
that it is aligned with in parallel text, weighted by how often. They align with fast_align; here it is IBM's Model 1 (Brown et al. 1993), whose
probabilities of an English piece given an Arabic one are the weights themselves. Documents that a recipe's sources mark as translations are
the parallel text: line by line where both have as many, else whole where they are short. Nothing held out is read.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allam.documents import Document, is_held_out, read_documents
from allam.errors import UserError
from allam.text.tokenizer import Tokenizer
from allam.train.config import ExtendConfig
from allam.train.new_rows import Rows

LONGEST = 128  # tokens of a pair's side; beyond, nearly everything is beside nearly everything
ROUNDS = 8  # of expectation and maximisation
MIN_MET = 2.0  # expected English pieces that a new piece must have stood for
MIN_SHARE, MOST = 0.05, 8  # of the English pieces of one new piece

Pair = tuple[list[int], list[int]]


def translations(config: ExtendConfig, inputs: dict[str, Path], base: Tokenizer, merged: Tokenizer, old_rows: int) -> Rows:
    """For each id from `old_rows` on, the English ids that it translates with their shares; none where it was met too seldom.

    Raises `UserError` where the corpus holds no translations."""
    pairs = [pair for english, arabic in lines(config, inputs) if (pair := (base.encode(english), merged.encode(arabic)))
             and 0 < len(pair[0]) <= LONGEST and 0 < len(pair[1]) <= LONGEST]
    if not pairs:
        raise UserError("train.extend.method: translation, but the corpus holds no translation whose English is there too",
                        "add a source of kind: translated with its English original, or choose another method")
    return model_1(pairs, old_rows, merged.vocab_size)


def lines(config: ExtendConfig, inputs: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """English and Arabic lines that say the same, `max_pairs` at most: those of the documents with the smallest hashes."""
    arabic = _chosen(config, inputs["translated"] / "documents")
    left = config.max_pairs
    for document in read_documents(inputs["natural"] / "documents"):
        for translation in arabic.get(document.id, ()) if document.language == "en" else ():
            for pair in _side_by_side(document.text, translation)[:left]:
                left -= 1
                yield pair


def _chosen(config: ExtendConfig, folder: Path) -> dict[str, list[str]]:
    """The Arabic texts by the id of their English; enough of them to hold `max_pairs` lines."""
    heap: list[tuple[int, str, Document]] = []
    held = 0
    for document in read_documents(folder):
        if document.translation_of is None or document.language != "ar" or is_held_out(document.root_id, config.held_out.share, config.held_out.seed):
            continue
        digest = hashlib.blake2b(f"{config.seed}:{document.id}".encode(), digest_size=8).digest()
        heapq.heappush(heap, (-int.from_bytes(digest, "big"), document.id, document))
        held += len(_lines(document.text))
        while held - len(_lines(heap[0][2].text)) >= config.max_pairs:
            held -= len(_lines(heapq.heappop(heap)[2].text))
    found = defaultdict(list)
    for _, _, document in sorted(heap, key=lambda entry: entry[1]):
        found[document.root_id].append(document.text)
    return found


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _side_by_side(english: str, arabic: str) -> list[tuple[str, str]]:
    ours, theirs = _lines(english), _lines(arabic)
    return list(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else [(english, arabic)]


def model_1(pairs: Sequence[Pair], old_rows: int, vocab_size: int) -> Rows:
    """IBM's Model 1 of English ids given ids of the merged tokenizer, for the latter from `old_rows` to `vocab_size`.

    Each English id of a pair comes from one id of the other side, or from none of them (id `vocab_size`, which stands in every pair)."""
    keys, groups, counts_a, counts_e = _cells(pairs, vocab_size)
    width = int(keys[:, 1].max()) + 1
    known, cell = np.unique(keys[:, 0] * width + keys[:, 1], return_inverse=True)
    given = known // width
    probability, total = np.ones(len(known)), np.zeros(vocab_size + 1)
    for _ in range(ROUNDS):
        share = probability[cell] * counts_a
        share *= (counts_e / np.bincount(groups, share))[groups]
        expected: NDArray[np.float64] = np.bincount(cell, share, minlength=len(known)).astype(np.float64)
        total = np.bincount(given, expected, minlength=vocab_size + 1).astype(np.float64)
        probability = expected / total[given]
    weights: Rows = []
    for new in range(old_rows, vocab_size):
        start, end = np.searchsorted(given, [new, new + 1])
        best = sorted(zip(-probability[start:end], (known[start:end] % width).tolist(), strict=True))[:MOST]
        likely = [(i, -p) for p, i in best if -p >= MIN_SHARE] if total[new] >= MIN_MET else []
        whole = sum(p for _, p in likely)
        weights.append([(i, float(p / whole)) for i, p in likely])
    return weights


def _cells(pairs: Sequence[Pair], vocab_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """All that may have come from each other: (id, English id); which pair's English id it is; how often the id stands there; by the
    number of the pair's English id, how often that one does."""
    keys, groups, counts_a, counts_e = [], [], [], []
    at = 0
    for english, other in pairs:
        e, times_e = np.unique(np.asarray(english, dtype=np.int64), return_counts=True)
        a, times_a = np.unique(np.asarray([*other, vocab_size], dtype=np.int64), return_counts=True)
        keys.append(np.stack([np.repeat(a, len(e)), np.tile(e, len(a))], axis=1))
        groups.append(np.tile(np.arange(at, at + len(e)), len(a)))
        counts_a.append(np.repeat(times_a, len(e)))
        counts_e.append(times_e)
        at += len(e)
    return (np.concatenate(keys), np.concatenate(groups).astype(np.int64), np.concatenate(counts_a).astype(np.float64),
            np.concatenate(counts_e).astype(np.float64))
