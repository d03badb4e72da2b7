"""English text as sentences to translate and whatever lies between them, which stays as it is (paper §2.1).

Lines, blank lines, indents, list marks and headings are kept, and so are code, formulas, addresses and mark-up (allam/data/spans.py). Within a sentence
these are shown to the model as `%1`, `%2`, ..., which software localisation has taught translating models to leave alone; where an answer lost one, the
parts between them are translated one by one. Lines that were broken to fit a width are joined again. Sentences are found by sentencex (offline, rules).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sentencex

from allam.data.spans import BLOCK, INLINE

_HIDDEN = "\ue000"  # stands for a kept span while sentences are looked for; a private-use character
_KEPT = re.compile(rf"(?:{INLINE.pattern}|%|{_HIDDEN})\d*")  # with the digits that follow, lest `%1` and a 5 become `%15`
_MARK = re.compile(r"%(\d+)")
_LETTER = re.compile(r"[A-Za-z]")
_BEGINNING = re.compile(r"\s*(?:(?:#{1,6}|>|[-*+•–]|\d{1,3}[.)])\s+)*")
_LISTED = re.compile(r"\s*(?:#{1,6}\s|>|[-*+•–]\s|\d{1,3}[.)]\s|\|)")
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’)\]]*\s*$")
_BREAK = re.compile(r"[,;:—)]\s|\s–\s")
WRAPPED_LINES, MOST_UNEVEN = (45, 100), 25  # characters: shortest and longest line of broken text, and the difference within one paragraph


@dataclass(frozen=True)
class Sentence:
    """A sentence for the model, with `%n` in place of the n-th of `kept`."""

    text: str
    kept: tuple[str, ...] = ()

    def parts(self) -> list[str]:
        """What stands between the marks, and the marks."""
        return re.split(r"(%\d+)", self.text)

    def restored(self, translation: str) -> str | None:
        """The translation with what was kept in its place; None where a mark is missing or stands twice."""
        if sorted(_MARK.findall(translation)) != sorted(str(n + 1) for n in range(len(self.kept))):
            return None
        return _MARK.sub(lambda mark: self.kept[int(mark[1]) - 1], translation)

    def original(self) -> str:
        """The sentence as it stood in the text."""
        return _MARK.sub(lambda mark: self.kept[int(mark[1]) - 1], self.text)


Piece = str | Sentence


def segment(text: str, longest: int) -> tuple[list[Piece], int]:
    """The text in pieces, and how many of its sentences had more than `longest` characters: they are cut, at a comma or a space where there is one."""
    pieces: list[Piece] = []
    at = cut = 0
    for block in [*BLOCK.finditer(text), None]:
        running = text[at:] if block is None else text[at: block.start()]
        for number, line in enumerate(_paragraphs(running.split("\n"))):
            found, overlong = _line(line, longest)
            pieces += ["\n", *found] if number else found
            cut += overlong
        if block is not None:
            pieces.append(block.group())
            at = block.end()
    return [piece for piece in pieces if piece], cut


def has_words(text: str) -> bool:
    """Whether there is anything to translate."""
    return _LETTER.search(_MARK.sub("", text)) is not None


def assemble(pieces: list[Piece], translations: Mapping[str, str]) -> tuple[str, int]:
    """The translated text, and in how many sentences the marks were lost; `translations` holds every sentence, and the parts of those."""
    made, mended = [], 0
    for piece in pieces:
        if isinstance(piece, Sentence):
            whole = piece.restored(translations[piece.text])
            mended += whole is None
            made.append(_mended(piece, translations) if whole is None else whole)
        else:
            made.append(piece)
    return "".join(made), mended


def _mended(sentence: Sentence, translations: Mapping[str, str]) -> str:
    """The sentence with the parts between its marks translated one by one."""
    made = []
    for part in sentence.parts():
        if _MARK.fullmatch(part):
            made.append(sentence.kept[int(part[1:]) - 1])
        else:
            head, bare, tail = _bare(part)
            made += [head, translations[bare] if has_words(bare) else bare, tail]
    return "".join(made)


def parts_to_translate(sentence: Sentence) -> list[str]:
    """What `assemble` looks up for a sentence whose marks were lost."""
    return [bare for _, bare, _ in map(_bare, sentence.parts()) if has_words(bare)]


def _bare(text: str) -> tuple[str, str, str]:
    """White space before, the text, white space after."""
    bare = text.strip()
    begin = text.index(bare)
    return text[:begin], bare, text[begin + len(bare):]


# --- paragraphs and lines -------------------------------------------------------------------------------------------------------

def _paragraphs(lines: list[str]) -> Iterator[str]:
    """The lines, those of broken paragraphs joined."""
    waiting: list[str] = []
    for line in lines:
        if line.strip() and not _LISTED.match(line):
            waiting.append(line)
            continue
        yield from _joined(waiting)
        waiting = []
        yield line
    yield from _joined(waiting)


def _joined(lines: list[str]) -> list[str]:
    """One line where these were broken to fit a width: all but the last about equally long, and not each of them a sentence."""
    inner, (shortest, longest) = [len(line.rstrip()) for line in lines[:-1]], WRAPPED_LINES
    is_broken = (bool(inner) and min(inner) >= shortest and max(*inner, len(lines[-1].rstrip())) <= longest and max(inner) - min(inner) <= MOST_UNEVEN
                 and any(not _SENTENCE_END.search(line) for line in lines[:-1]))
    return [" ".join([lines[0].rstrip(), *(line.strip() for line in lines[1:])])] if is_broken else lines


def _line(line: str, longest: int) -> tuple[list[Piece], int]:
    """The pieces of a line, and how many of its sentences were cut."""
    beginning = _BEGINNING.match(line)
    assert beginning is not None
    body = line[beginning.end():]
    pieces: list[Piece] = [beginning.group()]
    spans, overlong = (match.group() for match in _KEPT.finditer(body)), 0
    for sentence in sentencex.segment("en", _KEPT.sub(_HIDDEN, body)) if body else ():
        parts = list(_cut(sentence, longest))
        overlong += len(parts) > 1
        for head, bare, tail in map(_bare, parts):
            pieces += [head, _hold(bare, spans), tail]
    return pieces, overlong


def _hold(text: str, spans: Iterator[str]) -> Piece:
    """The sentence with numbered marks for its spans, or the plain text where there is nothing to translate."""
    kept = [next(spans) for _ in range(text.count(_HIDDEN))]
    numbers = iter(range(1, len(kept) + 1))
    sentence = Sentence(re.sub(_HIDDEN, lambda _: f"%{next(numbers)}", text), tuple(kept))
    return sentence if has_words(sentence.text) else sentence.original()


def _cut(sentence: str, longest: int) -> Iterator[str]:
    """The sentence in parts of at most `longest` characters."""
    while len(sentence.strip()) > longest:
        head = sentence[:longest]
        at = max([match.end() for match in _BREAK.finditer(head, longest // 3)] or [head.rfind(" ", 1) + 1]) or longest
        yield sentence[:at]
        sentence = sentence[at:]
    yield sentence
