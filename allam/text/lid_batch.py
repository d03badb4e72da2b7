"""What fastText's `predict` answers, for many texts at once and in a fraction of its time: the same labels, and bit for bit the same scores (paper §2.1).

A text's vector is the mean of the rows of its words and their n-grams of characters. fastText cuts and hashes each word each time that it meets it; most
words of a text are repetitions of a few, so here a word's rows are remembered, and new ones are hashed together in numpy. Sums are made in fastText's order
and precision (float32, row after row), the tree of labels is walked with the same functions of the C library. What is no matter of adding goes to
`predict` itself: a text without a label of more than one half, a text with fastText's sign for a line's end.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from allam.text.lid_file import LABEL, Floats, Ints, LidModel

Answer = tuple[str, float]
END_OF_LINE = "</s>"
CHARACTERS_AT_ONCE = 1_000_000  # 100 MB of arrays at most
CHARACTERS_WORTH_A_BATCH = 4000  # the fixed costs of a batch are those of predicting so much
SURE = 0.51  # of all labels' probabilities only one can be above one half; sums are off by less than the rest
_MAX_KNOWN = 60_000  # words of a generation: two take about 20 MB
_MAX_KNOWN_LENGTH = 64  # bytes
_FNV_START, _FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)

_expf = ctypes.CDLL(None).expf  # numpy's own differs in the last bit
_expf.restype, _expf.argtypes = ctypes.c_float, [ctypes.c_float]


class BatchIdentifier:
    """Best label and score of texts; `predict` answers for a single text and is fastText's own."""

    def __init__(self, model: LidModel, predict: Callable[[str], Answer]) -> None:
        self.model, self._predict = model, predict
        self._rows = _Rows(model)

    def identify(self, texts: Sequence[str]) -> list[Answer]:
        """Label and score of each text, as `predict` gives them; ("", 0.0) for a text of which the model knows nothing."""
        found, some, size = list[Answer](), list[str](), 0
        for text in texts:
            if some and size + len(text) > CHARACTERS_AT_ONCE:
                found += self._some(some, size)
                some, size = [], 0
            some.append(text)
            size += len(text)
        return found + self._some(some, size)

    def _some(self, texts: list[str], size: int) -> list[Answer]:
        """`size`: characters. What is short is not worth it, and what is longer than a batch, a single text, could hold a word of that length."""
        return self.compute(texts) if CHARACTERS_WORTH_A_BATCH < size <= CHARACTERS_AT_ONCE else list(map(self._predict, texts))

    def compute(self, texts: Sequence[str]) -> list[Answer]:
        """The same, computed here however short the texts are; all of them are in memory together."""
        rows, counts = self._rows.of(texts)
        labels, scores = self._walk(self._vectors(rows, counts), counts > 0)
        return [self._predict(text) if END_OF_LINE in text or (count and score < SURE) else (self.model.labels[label], score) if count else ("", 0.0)
                for text, count, label, score in zip(texts, counts.tolist(), labels.tolist(), map(_expf, scores.tolist()), strict=True)]

    def _vectors(self, rows: Ints, counts: npt.NDArray[np.int64]) -> Floats:
        """Shape [texts, width]. scipy's product of a sparse matrix of ones adds row after row, in float32."""
        input_RD = self.model.input_RD
        ends = np.concatenate([[0], np.cumsum(counts)])
        ones = csr_array((np.ones(len(rows), np.float32), rows, ends), shape=(len(counts), len(input_RD)))
        return np.asarray(ones @ input_RD) * (1 / np.maximum(counts, 1)).astype(np.float32)[:, None]

    def _walk(self, vectors_ND: Floats, alive: npt.NDArray[np.bool_]) -> tuple[Ints, Floats]:
        """Down the tree of labels to the likelier side, all texts a level at a time: (label, logarithm of its probability)."""
        model, labels = self.model, len(self.model.labels)
        nodes, scores = np.full(len(vectors_ND), len(model.children) - 1, np.int32), np.zeros(len(vectors_ND), np.float32)
        going = np.flatnonzero(alive)
        while len(going):
            at = nodes[going]
            odds = -_dots(model.output_LD[at - labels], vectors_ND[going])
            right = (1 / (np.float32(1) + _apply(_expf, odds)).astype(np.float64)).astype(np.float32)
            goes_right = right > np.float32(0.5)
            taken = np.where(goes_right, right, (1 - right.astype(np.float64)).astype(np.float32))
            scores[going] += _apply(math.log, taken.astype(np.float64) + 1e-5)
            nodes[going] = model.children[at, goes_right.astype(np.intp)]
            going = going[nodes[going] >= labels]
        return nodes, scores


def _dots(a_ND: Floats, b_ND: Floats) -> Floats:
    """The dot product of each pair of rows, added up from the left in float32."""
    total = np.zeros(len(a_ND), np.float32)
    for i in range(a_ND.shape[1]):
        total += a_ND[:, i] * b_ND[:, i]
    return total


def _apply(function: Callable[[float], float], values: npt.NDArray[np.floating]) -> Floats:
    return np.array(list(map(function, values.tolist())), np.float32)


class _Rows(dict[bytes, bytes | bytearray]):
    """The rows of each word, int32 after int32. A new word gets an empty place at first, which `_learn` fills: so a text's words are looked up once.

    A full generation of words becomes the one before, whose words come back as they are met again. So memory is full early and stays as it is, and
    what is frequent isn't forgotten: of 2.3 million running words of news and books 4% more were learnt than without a limit, of 3.6 million 39%
    (half a million words, begun anew when they were full, took 72 MB).
    """

    def __init__(self, model: LidModel) -> None:
        super().__init__()
        self._model = model
        self._new: list[bytes] = []
        self._before = dict[bytes, bytes | bytearray]()

    def __missing__(self, word: bytes) -> bytes | bytearray:
        place = self._before.get(word)
        if place is None:
            self._new.append(word)
            place = bytearray()
        self[word] = place
        return place

    def of(self, texts: Sequence[str]) -> tuple[Ints, npt.NDArray[np.int64]]:
        """The rows of all texts after each other, and how many each has. Words end where fastText ends them: ASCII's white space and NUL."""
        places = [list(map(self.__getitem__, text.encode().replace(b"\0", b" ").split())) for text in texts]
        if self._new:
            self._learn()
        rows = [b"".join(some) for some in places]
        if len(self) > _MAX_KNOWN:
            self._before = dict(self)
            self.clear()
        return np.frombuffer(b"".join(rows), np.int32), np.fromiter(map(len, rows), np.int64, len(rows)) // 4

    def _learn(self) -> None:
        """Fills the places of the new words; long words are forgotten at once."""
        new, self._new = self._new, []
        rows, ends = self._ngram_rows(new)
        first, vocabulary = 0, self._model.words
        for word, end in zip(new, ends.tolist(), strict=True):
            found = b"" if word.startswith(LABEL) else rows[first:end]  # fastText takes such a word for an answer
            if word in vocabulary:
                found = vocabulary[word].to_bytes(4, "little") + found
            place = self[word]
            assert isinstance(place, bytearray)
            place += found
            self[word] = found
            if len(word) > _MAX_KNOWN_LENGTH:
                del self[word]
            first = end

    def _ngram_rows(self, words: list[bytes]) -> tuple[bytes, npt.NDArray[np.int64]]:
        """The rows of each word's n-grams, by their first character and then by length, as bytes; and where those of each word end."""
        model = self._model
        data = np.frombuffer(b"".join([b"<%b>" % word for word in words]), np.uint8)
        owners = np.repeat(np.arange(len(words), dtype=np.int32), np.fromiter(map(len, words), np.int64, len(words)) + 2)
        starts = np.flatnonzero((data & 0xC0) != 0x80).astype(np.int32)  # a character's first byte
        owner, sizes = owners[starts], np.diff(starts, append=len(data))
        signed = data.view(np.int8).astype(np.int32).view(np.uint32)
        rows = np.full((len(starts), model.most - model.least + 1), -1, np.int32)
        hashes, begins = np.full(len(starts), _FNV_START), np.arange(len(starts))  # of the n-grams that are still within their word
        for length in range(1, model.most + 1):
            lasts = begins + length - 1
            within = lasts < len(starts)
            within[within] = owner[lasts[within]] == owner[begins[within]]
            hashes, begins, lasts = hashes[within], begins[within], lasts[within]
            _hash_characters(hashes, signed, starts[lasts], sizes[lasts])
            if length >= model.least:
                rows[begins, length - model.least] = model.bucket_rows[hashes % np.uint32(len(model.bucket_rows))]
        known = rows >= 0
        ends = np.cumsum(np.bincount(owner, weights=known.sum(axis=1), minlength=len(words)).astype(np.int64)) * 4
        return rows[known].tobytes(), ends


def _hash_characters(hashes: npt.NDArray[np.uint32], data: npt.NDArray[np.uint32], starts: Ints, sizes: npt.NDArray[np.integer]) -> None:
    """FNV-1a of one more character of UTF-8 each, in place; fastText takes a byte for a signed one."""
    for byte in range(int(sizes.max(initial=0))):
        longer = np.flatnonzero(sizes > byte)
        hashes[longer] = (hashes[longer] ^ data[starts[longer] + byte]) * _FNV_PRIME
