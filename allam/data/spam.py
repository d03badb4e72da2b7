"""Which words of a text are repetition or a page's furniture (part of the paper's spam ratio, §2.1): repeated lines, repeated runs of words,
boilerplate (cookie banners, "read more", share buttons), menus.

The paper names the ratio and gives no definition; this one is ours, calibrated on real text in docs/data.md. Most texts hold none of this,
so each kind has a first check that proves it and costs a few nanoseconds a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain

import numpy as np

RUN = 8  # words: 99% of books repeat fewer than 3% of their words in runs of eight, of news 9%; a short line said again and again repeats across its ends
RUNS_AT_ONCE = 10_000
MENU_LINES, MENU_WORDS, MENU_SEPARATORS = 6, 2, 3
LONGEST_FURNITURE = 120  # characters of a line

# Phrases, divided by semicolons; every alef stands for all of them. First those that are a whole line, then those that a line begins with.
_WHOLE_LINES = r"""
(?:read|see|show|view|load) (?:more|all)(?: .{1,30})?; more; continue reading(?: .{1,60})?; share(?: (?:this|on|via|with) .{1,40})?; tweet; pin it; like;
email(?: this)?; print(?: this)?; reply; report; previous(?: .{1,20})?; next(?: (?:page|post|article))?; home; menu; search; close; back(?: to .{1,30})?;
skip to (?:main )?content; (?:log|sign) (?:in|out|up)(?: .{1,40})?; register; subscribe(?: .{1,60})?; follow us.{0,60}; sponsored; loading; advertisement;
related (?:posts|articles|stories|news|topics).{0,20}; you (?:may|might) also like.{0,20}; leave a (?:reply|comment).{0,20}; post a comment; add to cart;
(?:no|\d+) comments?; comments; privacy(?: policy)?; terms(?: (?:of|and) .{1,30})?; contact(?: us)?; about(?: us)?; site ?map; accept(?: all)?(?: cookies)?;
click here.{0,60}; posted (?:in|by|on) .{1,60}; tags?:.{0,120}; filed under.{0,80};
(?:اقرا|شاهد|اظهر|عرض|للمزيد|المزيد)(?: (?:المزيد|الكل|ايضا|التفاصيل|من .{1,30}))?; اكمل القراءة; التفاصيل;
شارك(?:ها|ه)?(?: (?:على|عبر|هذا|هذه|مع) .{1,40})?; تابعنا(?: على .{1,40})?; اشترك(?: (?:في|معنا|الان) ?.{0,60})?; تسجيل(?: (?:الدخول|الخروج|جديد))?;
الرئيسية; الصفحة الرئيسية; اتصل بنا; من نحن; طباعة; ارسال; سياسة الخصوصية; شروط (?:الاستخدام|الخدمة); خريطة الموقع;
(?:مواضيع|مقالات|اخبار) (?:ذات صلة|مشابهة); اضف (?:تعليقا?|ردا?).{0,30}; اترك (?:تعليقا?|ردا?).{0,30}; التعليقات; لا توجد تعليقات; \d+ تعليق(?:ات)?;
اعلانات?; السابق; التالي; اضغط هنا.{0,60}; (?:الكلمات الدلالية|الوسوم|كلمات دليلية).{0,120}; بحث; القائمة"""
_LINE_STARTS = r"""
(?:we|this (?:web)?site|our (?:web)?site) uses? cookies; by (?:using|continuing|clicking|browsing)[^.]{1,60} (?:cookies|you (?:agree|accept|consent));
cookie (?:policy|settings|notice|consent); (?:copyright|©|\(c\))[ \d©]; all rights reserved; share on (?:facebook|twitter|whatsapp); powered by;
(?:sign up|subscribe) (?:for|to) (?:our|the) (?:free )?newsletter; (?:please )?enable (?:javascript|cookies); your email address will not be published;
required fields are marked; (?:نستخدم|يستخدم (?:هذا )?الموقع|نحن نستخدم) (?:ملفات (?:تعريف الارتباط|الارتباط)|الكوكيز|ملفات الكوكيز);
باستخدامك? (?:لهذا الموقع|هذا الموقع|الموقع).{0,40}(?:توافق|ملفات); (?:جميع|كافة|كل) الحقوق محفوظة; حقوق (?:النشر|الطبع|الملكية).{0,20}محفوظة;
اشترك في (?:نشرتنا|النشرة|القائمة البريدية|قائمتنا); شارك(?:ها|ه)? (?:على|عبر) (?:فيس ?بوك|تويتر|واتس ?اب); لن يتم نشر عنوان بريدك;
عنوان بريدك (?:الالكتروني) لن; الحقول الالزامية; تابعنا على (?:فيس ?بوك|تويتر|يوتيوب|انستغرام)"""


def _any_of(phrases: str) -> str:
    return "(?:" + "|".join(re.sub("ا", "[اأإآ]", phrase.strip()) for phrase in phrases.split(";")) + ")"


_BULLETS = r"[\s\-–—*•·»«›‹>+|()\[\]&]*"
_WHOLE_LINE = re.compile(_BULLETS + _any_of(_WHOLE_LINES) + r"[\s:.…!»›>→()\[\]|]*")
_LINE_START = re.compile(_BULLETS + _any_of(_LINE_STARTS))
_SEPARATORS = re.compile(r"(?:^|\s)[|»«›‹•·](?=\s|$)")
_SENTENCE_END = (".", "!", "?", "؟", "،", "؛", ":", ",", ";", "…")
_REPEATED_RUN = re.compile(b"\x01{%d,}" % RUN)


def furniture(text: str, words: Sequence[str], counts: Mapping[str, int]) -> bytearray | None:
    """For each word 1 where it is repetition or furniture, else 0; None where no word is.

    `text` is in lower case and without marks, `words` are its words, split at white space, `counts` says how often each stands.
    Of what is repeated the first copy is none.
    """
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    chosen, runs = _lines(lines), _runs(words, {word for word, count in counts.items() if count > 1})
    if not chosen and not runs:
        return None
    marks, start = bytearray(len(words)), 0
    if chosen:
        for i, line in enumerate(lines):
            end = start + len(line.split())
            if i in chosen:
                marks[start:end] = b"\1" * (end - start)
            start = end
    for start in runs:
        marks[start:start + RUN] = b"\1" * RUN
    return marks


def _lines(lines: Sequence[str]) -> set[int]:
    """The numbers of the lines that stood before, are boilerplate or belong to a menu."""
    chosen: set[int] = set()
    if len(set(lines)) < len(lines):
        seen: set[str] = set()
        for i, line in enumerate(lines):
            if line in seen:
                chosen.add(i)
            seen.add(line)
    menu = []
    for i, line in enumerate(lines):
        if len(line) > LONGEST_FURNITURE:
            if _LINE_START.match(line):
                chosen.add(i)
            continue
        if _WHOLE_LINE.fullmatch(line) or _LINE_START.match(line) or len(_SEPARATORS.findall(line)) >= MENU_SEPARATORS:
            chosen.add(i)
        if not line.endswith(_SENTENCE_END) and line.count(" ") < MENU_WORDS:
            menu.append(i)
    if len(menu) >= MENU_LINES:
        chosen.update(_long_stretches(menu))
    return chosen


def _long_stretches(numbers: Sequence[int]) -> Iterable[int]:
    """Those of the ascending numbers that stand among MENU_LINES or more in a row."""
    stretch = [numbers[0]]
    for number in [*numbers[1:], -1]:
        if number != stretch[-1] + 1:
            if len(stretch) >= MENU_LINES:
                yield from stretch
            stretch = []
        stretch.append(number)


def _runs(words: Sequence[str], repeated: Set[str]) -> list[int]:
    """Where runs of RUN words begin that stood before. Such a run holds repeated words only, and few stretches of good prose do.

    Runs are told apart by their hashes, 8 bytes each, and only those that share one are made and compared: of the ten million words of the longest
    document, the runs themselves would take gigabytes.
    """
    stretches = [match.span() for match in _REPEATED_RUN.finditer(bytes(map(repeated.__contains__, words)))]
    if not stretches:
        return []
    hashes = np.fromiter(chain.from_iterable(map(hash, runs) for start, end in stretches for runs in _runs_within(words, start, end)), np.int64)
    ordered = np.sort(hashes)
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(shared):
        return []
    starts = np.concatenate([np.arange(start, end - RUN + 1) for start, end in stretches])
    seen: set[tuple[str, ...]] = set()
    found = []
    for start in starts[np.isin(hashes, shared)].tolist():
        run = tuple(words[start:start + RUN])
        if run in seen:
            found.append(start)
        seen.add(run)
    return found


def _runs_within(words: Sequence[str], start: int, end: int) -> Iterator[Iterable[tuple[str, ...]]]:
    """All runs between two words, those of some thousand words at once."""
    for first in range(start, end - RUN + 1, RUNS_AT_ONCE):
        last = min(end, first + RUNS_AT_ONCE + RUN - 1)
        yield zip(*(words[first + k:last] for k in range(RUN)), strict=False)
