"""What fastText's `predict` answers, for many texts at once and in a fraction of its time: the same labels, and bit for bit the same scores (paper §2.1).

A text's vector is the mean of the rows of its words and their n-grams of characters. Here the words of many texts are cut, hashed and looked up in one
compiled loop; of the n-grams of lid.176.ftz all but one in fifty were pruned, which a table of bits that fits in the processor's cache tells. Sums are made
in fastText's order and precision (float32, row after row), the tree of labels is walked with the same functions of the C library. What is no matter of
adding goes to `predict` itself: a text without a label of more than one half, a text with fastText's sign for a line's end.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from allam.text.compiled import compiled, first_use
from allam.text.lid_file import LABEL, Floats, Ints, LidModel

Answer = tuple[str, float]
Bytes = npt.NDArray[np.uint8]
END_OF_LINE = "</s>"
CHARACTERS_AT_ONCE = 1_000_000  # 10 MB of arrays at most, but for a text that is longer by itself
CHARACTERS_WORTH_A_BATCH = 4000  # the fixed costs of a batch are those of predicting so much
SURE = 0.51  # of all labels' probabilities only one can be above one half; sums are off by less than the rest
_FNV_START, _FNV_PRIME, _32_BITS = 2166136261, 16777619, 0xFFFFFFFF
_FREE = -1  # a place of the vocabulary's table without a word
_LABEL = np.frombuffer(LABEL, np.uint8)

_expf = ctypes.CDLL(None).expf  # numpy's own differs in the last bit
_expf.restype, _expf.argtypes = ctypes.c_float, [ctypes.c_float]


class BatchIdentifier:
    """Best label and score of texts; `predict` answers for a single text and is fastText's own. Any number of threads may use it at once."""

    def __init__(self, model: LidModel, predict: Callable[[str], Answer]) -> None:
        self.model, self._predict = model, predict
        self._words = np.frombuffer(b"".join(model.words), np.uint8)
        self._word_ends = np.cumsum(np.fromiter(map(len, model.words), np.int64, len(model.words)))
        self._places = first_use(lambda: _places(self._words, self._word_ends))
        self._known = np.packbits(model.bucket_rows >= 0, bitorder="little")
        first_use(lambda: self.compute(["a"]))

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
        """`size`: characters."""
        return self.compute(texts) if size > CHARACTERS_WORTH_A_BATCH else list(map(self._predict, texts))

    def compute(self, texts: Sequence[str]) -> list[Answer]:
        """The same, computed here however short the texts are; all of them are in memory together."""
        vectors_ND, counts = self._vectors(texts)
        labels, scores = self._walk(vectors_ND, counts > 0)
        return [self._predict(text) if END_OF_LINE in text or (count and score < SURE) else (self.model.labels[label], score) if count else ("", 0.0)
                for text, count, label, score in zip(texts, counts.tolist(), labels.tolist(), map(_expf, scores.tolist()), strict=True)]

    def _vectors(self, texts: Sequence[str]) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The mean of each text's rows, shape [texts, width], and how many they were."""
        model, encoded = self.model, [text.encode() for text in texts]
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        sums_ND, counts = np.zeros((len(texts), model.input_RD.shape[1]), np.float32), np.zeros(len(texts), np.int64)
        _add_texts(np.frombuffer(b"".join(encoded), np.uint8), ends, (self._words, self._word_ends, self._places), (self._known, model.bucket_rows),
                   (model.least, model.most), model.input_RD, sums_ND, counts)
        return sums_ND * (1 / np.maximum(counts, 1)).astype(np.float32)[:, None], counts

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


@compiled
def _hashed(value: int, byte: int) -> int:
    """FNV-1a of one more byte, which fastText takes for a signed one."""
    return (value ^ np.uint64(np.uint32(np.int8(byte)))) * np.uint64(_FNV_PRIME) & np.uint64(_32_BITS)  # type: ignore[return-value]


@compiled
def _places(words: Bytes, ends: npt.NDArray[np.int64]) -> Ints:
    """A hash table of the vocabulary's words by their numbers, at most a quarter full; a place that is taken sends to the next."""
    size = 4
    while size < 4 * len(ends):
        size *= 2
    places = np.full(size, _FREE, np.int32)
    start = 0
    for i in range(len(ends)):
        at = np.uint64(_FNV_START)
        for k in range(start, ends[i]):
            at = _hashed(at, words[k])
        at = at & np.uint64(size - 1)
        while places[at] != _FREE:
            at = at + np.uint64(1) & np.uint64(size - 1)
        places[at] = i
        start = ends[i]
    return places


@compiled
def _number(word: Bytes, words: Bytes, ends: npt.NDArray[np.int64], places: Ints) -> int:
    """A word's number in the vocabulary, which is its row; `_FREE` where it has none."""
    at, last = np.uint64(_FNV_START), np.uint64(len(places) - 1)
    for byte in word:
        at = _hashed(at, byte)
    at = at & last
    while places[at] != _FREE:
        number = places[at]
        start = ends[number - 1] if number > 0 else 0
        if ends[number] - start == len(word) and (words[start:ends[number]] == word).all():
            return number  # type: ignore[no-any-return]
        at = at + np.uint64(1) & last
    return _FREE


@compiled
def _add_texts(data: Bytes, ends: npt.NDArray[np.int64], vocabulary: tuple[Bytes, npt.NDArray[np.int64], Ints], buckets: tuple[Bytes, Ints],
               lengths: tuple[int, int], input_RD: Floats, sums_ND: Floats, counts: npt.NDArray[np.int64]) -> None:
    """Adds to each text's sum the rows of its words, and to its count their number. Words end where fastText ends them: at ASCII's white space and NUL."""
    word = np.empty(len(data) + 2, np.uint8)  # the one at hand, in angle brackets, so that little of it is ever touched
    word[0] = 60
    at = 0
    for text in range(len(ends)):
        while at < ends[text]:
            size = 1
            while at < ends[text] and not (data[at] == 32 or 9 <= data[at] <= 13 or data[at] == 0):
                word[size] = data[at]
                size, at = size + 1, at + 1
            at += 1
            if size > 1 and not (size > len(_LABEL) and (word[1:1 + len(_LABEL)] == _LABEL).all()):  # fastText takes such a word for an answer
                number = _number(word[1:size], *vocabulary)
                if number != _FREE:
                    sums_ND[text] += input_RD[number]
                    counts[text] += 1
                word[size] = 62
                counts[text] += _add_ngrams(word[:size + 1], *buckets, *lengths, input_RD, sums_ND[text])
        at = ends[text]


@compiled
def _add_ngrams(word: Bytes, known: Bytes, bucket_rows: Ints, least: int, most: int, input_RD: Floats, sum_D: Floats) -> int:
    """Adds the rows of a word's n-grams, by their first character and then by length; returns their number."""
    count = 0
    for start in range(len(word)):
        if word[start] & 0xC0 == 0x80:  # no character's first byte
            continue
        value, at = np.uint64(_FNV_START), start
        for length in range(1, most + 1):
            if at == len(word):
                break
            value = _hashed(value, word[at])
            at += 1
            while at < len(word) and word[at] & 0xC0 == 0x80:
                value = _hashed(value, word[at])
                at += 1
            if length >= least:
                bucket = value % np.uint64(len(bucket_rows))
                if known[bucket >> np.uint64(3)] >> (bucket & np.uint64(7)) & 1:
                    row = bucket_rows[bucket]
                    for i in range(len(sum_D)):
                        sum_D[i] += input_RD[row, i]
                    count += 1
    return count
