"""Replaces e-mail addresses, IP addresses, phone and card numbers, IBANs and Gulf national ids by placeholders (part of curation, §2.1).

    anonymise = Anonymiser(AnonymiseConfig())
    anonymise("اتصل على ٠٥٠١٢٣٤٥٦٧")      # ("اتصل على [phone]", {"phone": 1})

A placeholder is a plain word in brackets: no tokenizer takes it for a control token, and it can't be mistaken for anybody's address. Digits may
be ASCII, Arabic-Indic, extended or of full width, and marks of direction may stand anywhere among them. What a number must look like stands in
`allam.data.personal_numbers`. A text that holds neither `@` nor a longer number is left after a glance.
"""

from __future__ import annotations

import ipaddress
import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from allam.data.config import AnonymiseConfig, PersonalKind
from allam.data.personal_numbers import FEWEST, MOST_GROUPS, iban_length, number_kind
from allam.text.forms import INVISIBLE

PLACEHOLDERS: dict[PersonalKind, str] = {
    "email": "[email]", "ip": "[ip]", "phone": "[phone]", "card": "[card]", "iban": "[iban]", "national_id": "[id]",
}
Span = tuple[int, int, PersonalKind]

_D = "0-9٠-٩۰-۹０-９"
_LETTER = r"[^\W\d_]"  # of any script
_BETWEEN = " \u00a0.()/\u2010-\u2013-"
_MAYBE_NUMBER = re.compile(f"[{_D}][{_D}{INVISIBLE}{_BETWEEN}٫]{{5,}}[{_D}]")
_MAYBE_IPV6 = re.compile(f":[{_D}{INVISIBLE}A-Fa-f]{{0,9}}:")
_HIDDEN = re.compile(f"[{INVISIBLE}]")
_FOLD = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹０１２３４５６７８９\u00a0\u2010\u2011\u2012\u2013٫", "012345678901234567890123456789 ----.")

# What may not stand before is looked at after a match: a pattern that begins with its own characters is searched for ten times faster.
_MAILBOX = re.compile(rf"[A-Za-z{_D}_%+][A-Za-z{_D}._%+-]{{0,63}}$")
_MAIL_DOMAIN = re.compile(rf"@(?:[A-Za-z{_D}](?:[A-Za-z{_D}-]{{0,61}}[A-Za-z{_D}])?\.){{1,8}}(?:[Xx][Nn]--[A-Za-z0-9-]{{2,59}}|[A-Za-z]{{2,24}}(?![A-Za-z]))")
# Names of other scripts, asked for where the pattern above finds nothing. A last part of another script follows one of another script: in
# `user@host.com.وشكرا` and `user@hostوشكرا.` the address and the sentence have only lost the space between them.
_OTHER_MAILBOX = re.compile(rf"{_LETTER}[\w.%+-]{{0,63}}$")
_OTHER_MAIL_DOMAIN = re.compile(
    rf"@(?:[^\W_](?:[\w-]{{0,61}}[^\W_])?\.){{1,8}}(?:[A-Za-z]{{2,24}}(?![A-Za-z])|(?<=[^\x00-\x7f]\.)(?:(?![A-Za-z]){_LETTER}){{2,24}}(?!\w))")
_IPV4 = re.compile(rf"[{_D}]{{1,3}}(?:(?:\.[{_D}]{{1,3}}){{3}}|(?:٫[{_D}]{{1,3}}){{3}})(?!\w|[.٫-][{_D}])")
_IPV6 = re.compile(rf"(?:[{_D}A-Fa-f]{{1,4}}:|:(?=:)){{1,7}}(?::?[{_D}A-Fa-f]{{1,4}}){{1,7}}(?![\w:])")
_NUMBER = re.compile(rf"[{_D}][{_D}{_BETWEEN}]{{5,}}[{_D}]")
_IBAN = re.compile(rf"[A-Za-z]{{2}}[{_D}]{{2}}(?:[ \u00a0-]?[A-Za-z{_D}]){{11,30}}")
_RUN = re.compile("[0-9]+")
_LATIN = re.compile(f"[A-Za-z_{_D}]")
_OPENING = re.compile(r"[+(]*$")
_FRACTION = re.compile(rf"(?:(?<![{_D}])[{_D}]{{1,6}}[.,٫٬]|-\.)$")

_VERSION_WORD = re.compile(r"(?:\bv|ver|version|release|firmware|إصدار|اصدار|نسخة|النسخة)[\s.:]*$", re.IGNORECASE)
_BOOK_WORD = re.compile(r"(?:isbn|issn|doi|ean|ردمك|ر\.د\.م\.ك|تدمك|إيداع|ايداع|10\.)[^\n]{0,20}$", re.IGNORECASE)
_PHONE_WORD = re.compile(
    r"(?:(?<!\[)\b(?:tel|telephone|phone|mobile|cell|call|fax|whats ?app)\b|هاتف|هواتف|تلفون|تليفون|جوال|موبايل|نقال|خلوي|واتس|فاكس|للتواصل|للاتصال"
    r"|اتصل|الاتصال (?:على|ب)|على الرقم|على الأرقام)[^\n\[" + _D + "]{0,20}$", re.IGNORECASE)
_ID_WORD = re.compile(
    r"(?:(?<!\[)\b(?:qid|cpr|id|civil|identity|resident)\b(?: (?:card|no|number))?|الهوية|هويته|هويتها|هوية رقم|السجل المدني|الرقم (?:الشخصي|المدني|السكاني)"
    r"|البطاقة (?:الشخصية|المدنية|السكانية)|بطاقة (?:الأحوال|شخصية|مدنية)|الإقامة رقم|رقم الإقامة)[^\n\[" + _D + "]{0,15}$", re.IGNORECASE)
_DIAL_LINK = re.compile(r"(?:wa\.me/|tel:|whatsapp|phone=)", re.IGNORECASE)
_NOT_PERSONAL = [ipaddress.ip_network(network) for network in (
    "0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/3", "2001:db8::/32")]
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")


class Anonymiser:
    """Finds and replaces what the configuration names."""

    def __init__(self, config: AnonymiseConfig) -> None:
        self.kinds = frozenset(kind for kind in PLACEHOLDERS if getattr(config, kind))

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        """The text with placeholders, and how often each kind was replaced; the same text and nothing where there was nothing to replace."""
        numbers, colons = _MAYBE_NUMBER.search(text), _MAYBE_IPV6.search(text)
        if not numbers and not colons and "@" not in text:
            return text, {}
        seen = _HIDDEN.sub("", text)
        spans = sorted(span for span in self._spans(seen, bool(numbers), bool(colons)) if span[2] in self.kinds)
        if not spans:
            return text, {}
        hidden = array("Q", (match.start() - i for i, match in enumerate(_HIDDEN.finditer(text))))  # as many characters of `seen` stand before each
        parts, counts, at = [], Counter[str](), 0
        for start, end, kind in spans:
            first, last = start + bisect_right(hidden, start), end - 1 + bisect_right(hidden, end - 1)
            if first < at:
                continue  # inside of what was replaced before
            parts += [text[at:first], PLACEHOLDERS[kind]]
            at = last + 1
            counts[kind] += 1
        return "".join([*parts, text[at:]]), dict(counts)

    def _spans(self, text: str, numbers: bool, colons: bool) -> list[Span]:
        spans = list(_emails(text)) if "@" in text else []
        if colons:
            spans += _addresses(text, _IPV6)
        if numbers:
            spans += [*_ibans(text), *_addresses(text, _IPV4)]
            spans += _numbers(_blanked(text, spans))
        return spans


def _blanked(text: str, spans: Iterable[Span]) -> str:
    """The text with line breaks where the spans stand: their digits are no part of other numbers."""
    parts, at = [], 0
    for start, end, _ in sorted(spans):
        parts += [text[at:start], "\n" * (end - max(start, at))]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def _emails(text: str) -> Iterator[Span]:
    """Looked for around each @, since a search from the left would try every word."""
    at, end = text.find("@"), 0
    while at >= 0:
        before = text[max(end, at - 64):at]
        mailbox = _MAILBOX.search(before) or _OTHER_MAILBOX.search(before)
        domain = mailbox and (_MAIL_DOMAIN.match(text, at) or _OTHER_MAIL_DOMAIN.match(text, at))
        if mailbox and domain:
            end = domain.end()
            yield at - len(mailbox[0]), end, "email"
        at = text.find("@", at + 1)


def _addresses(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    for match in pattern.finditer(text):
        if match.start() and (text[match.start() - 1].isalnum() or text[match.start() - 1] in "_.:-٫"):
            continue
        try:
            address = ipaddress.ip_address(match[0].translate(_FOLD))
        except ValueError:
            continue
        if any(address in network for network in _NOT_PERSONAL) or (address.version == 6 and address not in _GLOBAL_IPV6):
            continue
        if address.version == 4 and (len(match[0]) == 7 or _VERSION_WORD.search(text, max(0, match.start() - 20), match.start())):
            continue  # four single digits are a section or a version
        yield match.start(), match.end(), "ip"


def _ibans(text: str) -> Iterator[Span]:
    match = _IBAN.search(text)
    while match:
        places = [i for i in range(match.start(), match.end()) if text[i].isalnum()]
        length = iban_length("".join(text[i] for i in places).translate(_FOLD).upper())
        end = places[length - 1] + 1 if length else match.start() + 2
        if length and not (match.start() and _LATIN.match(text, match.start() - 1)) and not (end < len(text) and _LATIN.match(text, end)):
            yield match.start(), end, "iban"
        match = _IBAN.search(text, end)


def _numbers(text: str) -> Iterator[Span]:
    """Phone and card numbers and national ids: of the groups of digits that stand together the longest joins first, from the left."""
    for match in _NUMBER.finditer(text):
        offset, folded = match.start(), match[0].translate(_FOLD)
        runs = [run.span() for run in _RUN.finditer(folded)]
        if sum(end - start for start, end in runs) < FEWEST or _is_left(text, offset):
            continue
        if _LATIN.match(text, match.end()):
            runs.pop()
        i = int(bool(offset and _LATIN.match(text, offset - 1)))  # digits that hang on a Latin word are a part of its name
        while i < len(runs):
            start = offset + runs[i][0]
            taken, kind = (1, None) if _FRACTION.search(text, max(0, start - 8), start) else _longest(text, folded, runs[i:i + MOST_GROUPS], offset)
            if kind is not None:
                yield start - len(_OPENING.search(text, max(0, start - 3), start)[0]), offset + runs[i + taken - 1][1], kind  # type: ignore[index]
            i += taken


def _longest(text: str, folded: str, runs: list[tuple[int, int]], offset: int) -> tuple[int, PersonalKind | None]:
    """(how many of the groups, kind) of the longest personal number that begins with the first group; (1, None) for none."""
    start = offset + runs[0][0]
    plus, before = "+" in text[max(0, start - 2):start], (text, max(0, start - 40), start)
    after_phone_word, after_id_word = bool(_PHONE_WORD.search(*before)), bool(_ID_WORD.search(*before))
    for taken in range(len(runs), 0, -1):
        groups = [folded[start:end] for start, end in runs[:taken]]
        separators = [folded[end:start] for (_, end), (start, _) in pairwise(runs[:taken])]
        if any(len(separator) > 3 for separator in separators):
            continue
        kind = number_kind(groups, separators, plus, after_phone_word, after_id_word)
        if kind is not None:
            return taken, kind
    return 1, None


def _is_left(text: str, start: int) -> bool:
    """Whether a number at this place is a book's, or part of a link that dials nobody."""
    if _BOOK_WORD.search(text, max(0, start - 30), start):
        return True
    word = text[max(0, start - 300):start].rsplit(maxsplit=1)[-1:] if start and not text[start - 1].isspace() else []
    return bool(word) and ("://" in word[0] or word[0].startswith("www.")) and not _DIAL_LINK.search(word[0])
