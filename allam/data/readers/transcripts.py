"""Transcripts (SRT, WebVTT): the speech of one file as one document, in paragraphs that follow the pauses.

Numbers, times, tags, comments and styles go; so do lines that are in brackets from end to end ("(door closes)"), notes of music, and the sounds that captions
name in square brackets amid speech ("[Music]"), which other brackets there are not; and lines that automatic captions repeat while they roll up the screen.
A cue without readable times is set aside on its own.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from allam.data.archives import Content
from allam.data.readers.records import Raw, Record, SetAside, excerpt
from allam.data.readers.text import read_whole

PAUSE_SECONDS = 2.0  # silence that begins a new paragraph
ROLLING = 3  # lines back within which a repeated line is the same speech, still on the screen

_TIME = re.compile(r"\s*(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})\s*-->\s*(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})(?:\s.*)?")
_TAG = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")  # <i>, <c.yellow>, <00:00:01.000>, <v Name>, {\an8}
_BRACKETED = re.compile(r"[\[(][^\[\]()]*[\])]")
_SOUND = r"(?:music(?: playing)?|applause|laughter|laughs|laughing|cheers|cheering|singing|(?:ال)?(?:موسيقى|موسيقي|تصفيق|ضحك|ضحكات|هتاف|هتافات|غناء))"
_SOUNDS = re.compile(rf" ?(?:\[ ?{_SOUND}(?:(?: and |[,،] ?| و ?){_SOUND})* ?\]|[♩♪♫♬])", re.IGNORECASE)  # among words with one space between them
_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)|WEBVTT")


@dataclass(slots=True)
class _Cue:
    start: float  # seconds
    end: float
    lines: list[str]


def read(content: Content, max_bytes: int) -> Iterator[Record]:
    """The file's one document, after the cues that can't be read."""
    whole = read_whole(content, max_bytes)
    if isinstance(whole, SetAside):
        yield whole
        return
    cues: list[_Cue] = []
    for number, lines in _cues_apart(_blocks(whole.text)):
        if _BLOCK.match(lines[0]):
            continue
        cue = _cue(lines)
        if cue is None:
            yield SetAside(number, "bad_cue", excerpt(" ".join(lines)))
        else:
            cues.append(cue)
    text = "\n\n".join(_paragraphs(cues))
    yield Raw(1, text) if text else SetAside(1, "no_text", excerpt(whole.text))


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines between blank ones, with the number of their first line."""
    lines: list[str] = []
    number = 1
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if line.strip():
            lines.append(line)
        elif lines:
            yield number - len(lines), lines
            lines = []
    if lines:
        yield number - len(lines) + 1, lines


def _cues_apart(blocks: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """The blocks, each cut before further times in it, and before a number above those: cues between which the blank line is missing."""
    for number, lines in blocks:
        starts = [i - 1 if i > 1 and lines[i - 1].strip().isdecimal() else i for i, line in enumerate(lines) if i > 1 and _TIME.fullmatch(line)]
        bounds = [0, *starts, len(lines)] if any(map(_TIME.fullmatch, lines[:2])) else [0, len(lines)]
        for start, end in pairwise(bounds):
            yield number + start, lines[start:end]


def _cue(lines: list[str]) -> _Cue | None:
    """A cue, with or without a number or name above its times; None where there are no times."""
    for i, line in enumerate(lines[:2]):
        if (match := _TIME.fullmatch(line)) is not None:
            times = [int(part or 0) for part in match.groups()]
            seconds = [times[at] * 3600 + times[at + 1] * 60 + times[at + 2] + int((match.group(at + 4)).ljust(3, "0")) / 1000 for at in (0, 4)]
            return _Cue(seconds[0], seconds[1], [clean for line in lines[i + 1:] if (clean := _clean(line))])
    return None


def _clean(line: str) -> str:
    text = _SOUNDS.sub("", " ".join(html.unescape(_TAG.sub("", line)).split())).strip()
    return "" if _BRACKETED.fullmatch(text) else text


def _paragraphs(cues: list[_Cue]) -> Iterator[str]:
    kept: list[str] = []
    recent: list[str] = []
    end = 0.0
    for cue in cues:
        if kept and cue.start - end >= PAUSE_SECONDS:
            yield " ".join(kept)
            kept = []
        for line in cue.lines:
            if line not in recent:
                kept.append(line)
            recent = [*recent, line][-ROLLING:]
        end = max(end, cue.end)
    if kept:
        yield " ".join(kept)
