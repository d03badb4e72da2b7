"""SentencePiece's byte-pair encoding, compiled: the same ids several times as fast, and nothing remembered from one text to the next.

No piece of a Llama-like model runs across the end of a word (`x▁`), of a line, or from a letter to a sign, so no merge does, and a text may be cut there.
The parts are short, which is what makes this fast: where SentencePiece keeps a queue of all pairs of a text and spells each pair to look it up, here the
pairs of a word lie side by side, are looked up as two numbers, and are looked through for the best one as often as they merge. Only what has no cut for
long (a rule of dashes, a hash, Chinese) gets a queue, too.

Compiling it takes five seconds of a processor, once (allam/text/compiled.py).
"""

from __future__ import annotations

import heapq
import math
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sentencepiece import sentencepiece_model_pb2

from allam.text.compiled import compiled, first_use

model_pb2: Any = sentencepiece_model_pb2  # made by protobuf at run time, without types

SPACE = "▁"  # U+2581, SentencePiece's sign for a space
SHORT = 64  # symbols that are looked through for each merge, in a time that grows with the square of their number; more get a queue
LETTER, BLANK, LINE_END, SIGN = range(4)  # what cuts a text into parts
_CHARACTERS = 0x110000
_FREE = -1  # a place of the table that is taken by no pair
_MIX = 0x9E3779B97F4A7C15  # the golden ratio's 64 bits: spreads the pairs' numbers over the table (Knuth's multiplicative hashing)

IdArray = npt.NDArray[np.unsignedinteger[Any]]


class Bpe:
    """Encodes as SentencePiece would with the pieces of a model for which `is_exact_for` holds. Any number of threads may use it at once.

    A symbol is the id of a piece, or of a character without one its code point behind the last id.
    """

    def __init__(self, proto: Any) -> None:
        self.size = len(proto.pieces)
        self._dtype = np.dtype(np.uint16 if self.size < 2**16 else np.uint32)
        kinds = model_pb2.ModelProto.SentencePiece
        ids = {p.piece: i for i, p in enumerate(proto.pieces) if p.type == kinds.NORMAL}
        self._prefix = " " if proto.normalizer_spec.add_dummy_prefix else ""
        self._symbols = np.arange(_CHARACTERS, dtype=np.int32) + self.size
        for piece, i in ids.items():
            if len(piece) == 1:
                self._symbols[ord(piece)] = i
        self._symbols[ord(" ")] = self._symbols[ord(SPACE)]
        self._cuts = np.full(_CHARACTERS, LETTER, np.uint8)
        self._cuts[[ord(" "), ord(SPACE)]], self._cuts[ord("\n")] = BLANK, LINE_END
        self._cuts[[ord(c) for c in signs(ids)]] = SIGN
        self._bytes = np.zeros(256, np.int64)
        for i, p in enumerate(proto.pieces):
            if p.type == kinds.BYTE:
                self._bytes[int(p.piece[3:5], 16)] = i
        merges = self._merges(ids, {piece: (proto.pieces[i].score, math.copysign(1, proto.pieces[i].score)) for piece, i in ids.items()})
        self._table = first_use(lambda: _table(merges))
        first_use(lambda: self.encode("a"))

    def _merges(self, ids: dict[str, int], scores: dict[str, tuple[float, float]]) -> npt.NDArray[np.int64]:
        """int64 [merges, 2]: the two symbols of each pair that makes a piece, and the piece with its rank (the best score's is 0) before it, packed.

        Scores stand with their signs: SentencePiece gives the first merge that it learns -0, and puts that below 0.
        """
        rank = {score: i for i, score in enumerate(sorted(set(scores.values()), reverse=True))}
        symbol = {chr(code): self.size + code for piece in ids for code in map(ord, piece)} | ids
        found: list[int] = []
        for piece, i in ids.items():
            for cut in range(1, len(piece)):
                if (left := symbol.get(piece[:cut])) is not None and (right := symbol.get(piece[cut:])) is not None:
                    found += (left << 32 | right, rank[scores[piece]] << 32 | i)
        return np.array(found, np.int64).reshape(-1, 2)

    def encode(self, text: str) -> IdArray:
        """Ids of a text. Raises `UnicodeEncodeError` on a lone surrogate."""
        characters = np.frombuffer((text if text == "" else self._prefix + text).encode("utf-32-le"), np.uint32)
        ids = np.empty(4 * len(characters), self._dtype)  # a character may become four bytes
        count = _encode(characters, self._symbols, self._cuts, self._table, self._bytes, self.size, ids)
        return ids[:count].copy()


def is_exact_for(proto: Any) -> bool:
    """Whether a model is BPE over the text as it stands, with pieces that stay within words and lines, and has nothing that SentencePiece treats apart."""
    trained, normalised, kinds = proto.trainer_spec, proto.normalizer_spec, model_pb2.ModelProto.SentencePiece
    if trained.model_type != model_pb2.TrainerSpec.BPE or trained.treat_whitespace_as_suffix or not trained.byte_fallback:
        return False
    if normalised.precompiled_charsmap or normalised.remove_extra_whitespaces or not normalised.escape_whitespaces:
        return False
    pieces = [p.piece for p in proto.pieces if p.type == kinds.NORMAL]
    if any(p.type in (kinds.USER_DEFINED, kinds.UNUSED) or not math.isfinite(p.score) or (len(p.piece) == 1 and p.type != kinds.NORMAL) for p in proto.pieces):
        return False
    return SPACE in pieces and not any(SPACE in piece.lstrip(SPACE) or ("\n" in piece and len(piece) > 1) for piece in pieces)


def signs(pieces: Iterable[str]) -> set[str]:
    """Characters that are no letters or marks and that no piece holds beside one that isn't such a sign: between the two a text may be cut."""
    spelled = [piece.lstrip(SPACE) for piece in pieces]
    beside = {pair for piece in spelled for pair in pairwise(piece)}
    beside |= {(b, a) for a, b in beside}
    found = {c for c in set("".join(spelled)) if unicodedata.category(c)[0] not in "LM" and c != "\n"}
    while joined := {a for a, b in beside if a in found and b not in found}:
        found -= joined
    return found


@compiled
def _table(merges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 [places, 2]: a hash table of the merges, at most half full; a place that is taken sends to the next."""
    places = 2
    while places < 2 * len(merges):
        places *= 2
    table = np.full((places, 2), _FREE, np.int64)
    for i in range(len(merges)):
        at = np.uint64(merges[i, 0]) * np.uint64(_MIX) >> np.uint64(32) & np.uint64(places - 1)
        while table[at, 0] != _FREE:
            at = at + np.uint64(1) & np.uint64(places - 1)
        table[at] = merges[i]
    return table


@compiled
def _merged(table: npt.NDArray[np.int64], left: int, right: int) -> int:
    """What two symbols become, with its rank; `_FREE` where nothing."""
    pair = np.int64(left) << np.int64(32) | np.int64(right)
    last = np.uint64(len(table) - 1)
    at = np.uint64(pair) * np.uint64(_MIX) >> np.uint64(32) & last
    while table[at, 0] != _FREE:
        if table[at, 0] == pair:
            return table[at, 1]  # type: ignore[no-any-return]
        at = at + np.uint64(1) & last
    return np.int64(_FREE)  # type: ignore[return-value]


@compiled
def _encode(characters: npt.NDArray[np.uint32], symbols_of: npt.NDArray[np.int32], cuts: npt.NDArray[np.uint8], table: npt.NDArray[np.int64],
            bytes_of: npt.NDArray[np.int64], size: int, ids: IdArray) -> int:
    """Writes the ids of a text's characters to `ids`; returns their number."""
    symbols, merges = np.empty(len(characters), np.int64), np.empty(len(characters), np.int64)  # of one part, so that little of it is ever touched
    at, written = 0, 0
    while at < len(characters):
        start = at
        while at < len(characters) and cuts[characters[at]] == BLANK:  # spaces belong to what is behind them
            at += 1
        if at < len(characters) and cuts[characters[at]] != LINE_END:
            kind = cuts[characters[at]]
            while at < len(characters) and cuts[characters[at]] == kind:
                at += 1
        elif at == start:
            at += 1
        count = at - start
        for i in range(count):
            symbols[i] = symbols_of[characters[start + i]]
        for i in range(_merge(symbols, merges, count, table) if count <= SHORT else _merge_many(symbols, merges, count, table)):
            if symbols[i] < size:
                ids[written] = symbols[i]
                written += 1
            else:
                written += _spell(symbols[i] - size, bytes_of, ids[written:])
    return written


@compiled
def _merge(symbols: npt.NDArray[np.int64], merges: npt.NDArray[np.int64], count: int, table: npt.NDArray[np.int64]) -> int:
    """Merges the best pair of the first `count` symbols, of equals the first, until none is left; returns how many symbols remain."""
    for i in range(count - 1):
        merges[i] = _merged(table, symbols[i], symbols[i + 1])
    while True:
        best = -1
        for i in range(count - 1):
            if merges[i] != _FREE and (best < 0 or merges[i] >> 32 < merges[best] >> 32):
                best = i
        if best < 0:
            return count
        symbols[best] = merges[best] & 0xFFFFFFFF
        count -= 1
        for i in range(best + 1, count):
            symbols[i], merges[i] = symbols[i + 1], merges[i + 1]
        if best > 0:
            merges[best - 1] = _merged(table, symbols[best - 1], symbols[best])
        if best < count - 1:
            merges[best] = _merged(table, symbols[best], symbols[best + 1])


@compiled
def _merge_many(symbols: npt.NDArray[np.int64], merges: npt.NDArray[np.int64], count: int, table: npt.NDArray[np.int64]) -> int:
    """What `_merge` does, by a queue of pairs: those that are gone or have changed since are passed over when their turn comes."""
    after, before = np.arange(1, count + 1), np.arange(-1, count - 1)  # the neighbours that are left
    merges[count - 1] = _FREE
    queue = [np.int64(0) for _ in range(0)]
    for i in range(count - 1):
        merges[i] = _merged(table, symbols[i], symbols[i + 1])
        if merges[i] != _FREE:
            queue.append(merges[i] >> 32 << 32 | i)
    heapq.heapify(queue)
    while len(queue) > 0:
        best = heapq.heappop(queue)
        here = best & 0xFFFFFFFF
        if merges[here] == _FREE or merges[here] >> 32 != best >> 32:
            continue
        gone = after[here]
        symbols[here], merges[gone], after[here] = merges[here] & 0xFFFFFFFF, _FREE, after[gone]
        symbols[gone] = _FREE
        if after[here] < count:
            before[after[here]] = here
        for left in (before[here], here):
            if left >= 0:
                merges[left] = _merged(table, symbols[left], symbols[after[left]]) if after[left] < count else _FREE
                if merges[left] != _FREE:
                    heapq.heappush(queue, merges[left] >> 32 << 32 | left)
    remaining = 0
    for i in range(count):
        if symbols[i] != _FREE:
            symbols[remaining] = symbols[i]
            remaining += 1
    return remaining


@compiled
def _spell(code: int, bytes_of: npt.NDArray[np.int64], ids: IdArray) -> int:
    """Writes the pieces of a character's UTF-8 bytes; returns their number."""
    if code < 0x80:
        ids[0] = bytes_of[code]
        return 1
    count = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    for i in range(count - 1, 0, -1):
        ids[i] = bytes_of[0x80 | code & 0x3F]
        code >>= 6
    ids[0] = bytes_of[(0xF00 >> count & 0xFF) | code]
    return count
