"""The ids of a text's words, remembered: most words of a text are repetitions of a few (Zipf's law), and looking one up costs a tenth of encoding it.

No piece of a Llama-like model runs across the end of a word (`x▁`) or from a letter to a sign, so no merge does, and a text may be cut there and the
parts looked up: the ids are those of the whole text (`part_pattern` says where). Lines are cut at their spaces first, which takes a third of the time of
finding the parts; a word of several parts, such as `word,`, is put together once. Parts met for the first time go through SentencePiece together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

model_pb2: Any = sentencepiece_model_pb2  # made by protobuf at run time, without types

SPACE = "▁"  # U+2581, SentencePiece's sign for a space
_MAX_KNOWN = 500_000  # words whose ids are kept: about 100 MB
_MAX_KNOWN_LENGTH = 64  # characters
_LEARNT_TOGETHER = 256  # parts; SentencePiece takes longer for a part of a long text
_RUN = re.compile("( {2,}[^ ]*)")

IdArray = npt.NDArray[np.unsignedinteger[Any]]


class WordIds:
    """Looks up the ids of a text's words. Not for several threads at once.

    `bare` is a model that puts no space before a text, `pattern` cuts a text into parts. Ids are kept as bytes of `dtype`: they lie together, where
    a list's numbers lie all over the memory, and joining them is one copy.
    """

    def __init__(self, bare: SentencePieceProcessor, pattern: re.Pattern[str], dtype: np.dtype[Any]) -> None:
        self._bare, self.find, self._dtype = bare, pattern.findall, dtype
        self._after_space, self._other = _Words(self, " "), _Words(self, "")
        self._line_end_id: int = bare.encode("\n")[0]
        self._line_end = self._packed([self._line_end_id])
        self.new: list[_New] = []  # to be encoded
        self.joined: list[tuple[_New, list[_Ids]]] = []  # to be put together of these parts

    def of(self, text: str) -> IdArray:
        """The ids of a text."""
        found: list[_Ids] = []
        for line in text.split("\n"):
            if "  " in line:  # a run of spaces belongs to the word behind it
                for i, piece in enumerate(_RUN.split(line)):
                    found += map(self.part, self.find(piece)) if i % 2 else self._words(piece)
            else:
                found += self._words(line)
            found.append(self._line_end)
        found.pop()
        if self.new or self.joined:
            self._learn()
        return np.frombuffer(b"".join(found), self._dtype)

    def _words(self, line: str) -> Iterator[_Ids]:
        """Of a line without runs of spaces."""
        first, *words = line.split(" ")
        found = map(self._after_space.__getitem__, words)
        return chain((self._other[first],), found) if first else found

    def part(self, part: str) -> _Ids:
        """Of a part, which needs no more cutting."""
        memory, key = (self._after_space, part[1:]) if part[0] == " " != part[1:2] else (self._other, part)
        found = memory.get(key)
        if found is None:
            found = memory[key] = bytearray()
            self.new.append((memory, key, part, found))
        return found

    def _learn(self) -> None:
        """Fills the places of what is new; forgets everything when there is too much."""
        new, self.new = self.new, []
        joined, self.joined = self.joined, []
        try:
            for start in range(0, len(new), _LEARNT_TOGETHER):
                self._encode(new[start:start + _LEARNT_TOGETHER])
        except RuntimeError:  # not text; nothing half learnt may stay
            self._forget()
            raise
        for (memory, key, _, place), parts in joined:
            for part in parts:
                place += part
            memory.keep(key, bytes(place))
        if len(self._after_space) + len(self._other) > _MAX_KNOWN:
            self._forget()

    def _encode(self, new: list[_New]) -> None:
        """One part to a line: SentencePiece's own way to encode several texts starts a thread each time."""
        ids = self._bare.encode("\n".join([part for _, _, part, _ in new]) + "\n")
        packed, width, at = self._packed(ids), self._dtype.itemsize, 0
        for memory, key, _, place in new:
            end = ids.index(self._line_end_id, at)
            found = packed[at * width:end * width]
            place += found
            memory.keep(key, found)
            at = end + 1

    def _packed(self, ids: list[int]) -> bytes:
        return np.array(ids, self._dtype).tobytes()

    def _forget(self) -> None:
        self._after_space, self._other = _Words(self, " "), _Words(self, "")

    def __len__(self) -> int:
        """Words that are remembered."""
        return len(self._after_space) + len(self._other)


class _Words(dict[str, "_Ids"]):
    """Ids of words by what stands behind `before`. A new one gets an empty place, which is filled later: so a text's words are looked up once."""

    def __init__(self, words: WordIds, before: str) -> None:
        super().__init__()
        self._words, self._before = words, before

    def __missing__(self, key: str) -> bytearray:
        place = self[key] = bytearray()
        word = self._before + key
        parts = self._words.find(word)
        if len(parts) == 1:
            self._words.new.append((self, key, word, place))
        else:
            self._words.joined.append(((self, key, word, place), list(map(self._words.part, parts))))
        return place

    def keep(self, key: str, ids: bytes) -> None:
        """Remembers what was learnt; long words are hardly met twice."""
        if len(key) <= _MAX_KNOWN_LENGTH:
            self[key] = ids
        else:
            del self[key]


_Ids = bytes | bytearray
_New = tuple[_Words, str, str, bytearray]  # where it is remembered and as what, what is to be encoded, and the place for its ids


def part_pattern(proto: Any) -> re.Pattern[str] | None:
    """What to cut a text into without changing its ids: runs of letters and of signs with the spaces before them, ends of lines.

    A cut is sound where no piece holds the two characters around it side by side, since a merge across it would make such a piece.
    None where pieces run across the ends of words or lines.
    """
    spec = model_pb2.TrainerSpec
    if proto.trainer_spec.model_type != spec.BPE or proto.trainer_spec.treat_whitespace_as_suffix:
        return None
    if proto.normalizer_spec.precompiled_charsmap or proto.normalizer_spec.remove_extra_whitespaces or not proto.trainer_spec.byte_fallback:
        return None
    pieces = [p.piece for p in proto.pieces if p.type == p.NORMAL or p.type == p.USER_DEFINED or p.type == p.UNUSED]
    if any(SPACE in piece.lstrip(SPACE) or ("\n" in piece and len(piece) > 1) for piece in pieces):
        return None
    beside = {pair for piece in pieces for pair in pairwise(piece.lstrip(SPACE))}
    beside |= {(b, a) for a, b in beside}
    signs = {c for c in set("".join(pieces)) if unicodedata.category(c)[0] not in "LM" and c not in (SPACE, "\n")}
    while joined := {a for a, b in beside if a in signs and b not in signs}:
        signs -= joined
    if not signs:
        return re.compile(r" *[^ \n]+|\n| +")
    some = re.escape("".join(sorted(signs)))
    return re.compile(rf" *[^ \n{some}]+| *[{some}]+|\n| +")
