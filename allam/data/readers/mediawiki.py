"""MediaWiki's dumps (XML, mostly .bz2, multistream too): articles of namespace 0 as clean text, redirects and other pages counted apart.

The file is cut at its `<page>` tags, which can't stand in an escaped text, and each page is parsed alone. So a broken page costs itself alone, a
page of any size costs bounded memory (the usual parsers of dumps build a page's text whole, whatever its size), and, since no parser ever sees the
file's head, no entity can be declared: neither external ones nor those that grow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote
from xml.etree import ElementTree

from allam.data.archives import Content
from allam.data.config import SourceConfig
from allam.data.readers.records import LeftOut, Raw, Record, SetAside, excerpt, is_utf8
from allam.data.readers.wikitext import FILES_AND_CATEGORIES, clean

MAX_HEAD = 1 << 20  # bytes of <siteinfo>
MARKUP = 1 << 16  # bytes of a page's tags beside its text
_OPENING = re.compile(rb"<(page|siteinfo)>")
_EDITS = ("timestamp", "model", "text")


def read(config: SourceConfig, content: Content, max_bytes: int) -> Iterator[Record]:
    """The articles of a dump; a document's line is that of its `<page>`."""
    left_out, site = LeftOut(), _Site()
    for piece in _pieces(content, max_bytes + MARKUP):
        if isinstance(piece, SetAside):
            yield piece
        elif piece.tag == b"siteinfo":
            site = _site(piece.data) or site
        elif (found := _page(config, site, piece, max_bytes, left_out)) is not None:
            yield found
    yield from left_out.records()


# --- one page -------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Site:
    """What the dump's head says of the wiki."""

    base: str | None = None  # of its articles' URLs, with the slash at the end
    left_out: frozenset[str] = FILES_AND_CATEGORIES  # names of namespaces whose links are no text, in lower case


def _site(data: bytes) -> _Site | None:
    try:
        head = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    base = head.findtext("base") or ""
    names = {(name.text or "").lower() for name in head.iter("namespace") if name.get("key") in ("-2", "6", "14")}
    return _Site(base.rpartition("/")[0] + "/" if "/" in base else None, FILES_AND_CATEGORIES | names)


def _page(config: SourceConfig, site: _Site, piece: _Piece, max_bytes: int, left_out: LeftOut) -> Record | None:
    try:
        page = ElementTree.fromstring(piece.data)
    except (ElementTree.ParseError, ValueError, LookupError):
        return SetAside(piece.line, "bad_xml" if is_utf8(piece.data) else "bad_utf8", excerpt(piece.data))
    title, number = page.findtext("title") or "", page.findtext("id") or ""
    revisions = page.findall("revision")
    date, model, text = (revisions[-1].findtext(name) or "" for name in _EDITS) if revisions else ("", "", "")
    if (reason := _nature(page, model)) is not None:
        left_out.add(piece.line, reason, title)
        return None
    if len(text) > max_bytes // 4 and len(text.encode()) > max_bytes:
        return SetAside(piece.line, "oversized", excerpt(title))
    try:
        cleaned = clean(text, site.left_out)
    except Exception as error:  # the parser of wikitext raises errors of many kinds on what people write
        return SetAside(piece.line, "bad_wikitext", excerpt(f"{title}: {error}"))
    if not cleaned:
        return SetAside(piece.line, "no_text", excerpt(f"{title}: {text}"))
    url = site.base + quote(title.replace(" ", "_"), safe="/:(),!'*@;~") if site.base and title else None
    return Raw(piece.line, cleaned, id=config.id_prefix + number if number else None, url=url, title=title or None, date=date[:10] or None)


def _nature(page: ElementTree.Element, model: str) -> str | None:
    """Why a page is no article, or None."""
    if (page.findtext("ns") or "0").strip() != "0":
        return "not_an_article"
    if page.find("redirect") is not None:
        return "redirect"
    return "not_wikitext" if model not in ("", "wikitext") else None


# --- pages out of the file ------------------------------------------------------------------------------------------------------

@dataclass(slots=True)
class _Piece:
    """`<page>` or `<siteinfo>` as it stands in the file, and the line of its beginning."""

    tag: bytes
    line: int
    data: bytes


def _pieces(content: Content, max_bytes: int) -> Iterator[_Piece | SetAside]:
    """All pages; those over the limit are skipped as they are read."""
    window = _Window(content)
    while (tag := window.to_tag()) is not None:
        line, limit = window.line, MAX_HEAD if tag == b"siteinfo" else max_bytes
        data = window.take_through(b"</" + tag + b">", limit)
        if data is None:
            yield SetAside(line, content.problem or "truncated", excerpt(bytes(window.data[:800])))
            return
        if len(data) > limit:
            yield SetAside(line, "oversized", excerpt(data[:800]))
        elif data.find(b"<page>", 1) > 0:  # the end of the page before was lost
            yield SetAside(line, "bad_xml", excerpt(data[:800]))
            window.give_back(data[data.rfind(b"<page>"):])
        else:
            yield _Piece(tag, line, data)
    if content.problem:
        yield SetAside(window.line, content.problem, "")


class _Window:
    """The part of the file that is looked at; `line` is the number of the line on which it begins."""

    def __init__(self, content: Content) -> None:
        self.data, self.line = bytearray(), 1
        self._chunks = iter(content)

    def to_tag(self) -> bytes | None:
        """Goes on to the next opening tag of interest and returns its name; None at the end of the file."""
        while (found := _OPENING.search(self.data)) is None:
            self._drop(max(0, len(self.data) - 16))
            if not self._more():
                return None
        tag = bytes(found[1])  # before the window moves under it
        self._drop(found.start())
        return tag

    def take_through(self, end: bytes, limit: int) -> bytes | None:
        """What stands before and with `end`, at most `limit` bytes and one; None where the file ends before."""
        kept, seen = b"", 0
        while (at := self.data.find(end, seen)) < 0:
            seen = max(0, len(self.data) - len(end))
            if len(self.data) > limit:
                kept = kept or bytes(self.data[: limit + 1])
                self._drop(seen)
                seen = 0
            if not self._more():
                return None
        data = kept or bytes(self.data[: at + len(end)])
        self._drop(at + len(end))
        return data

    def give_back(self, data: bytes) -> None:
        """Puts back the end of what was taken last."""
        self.data[:0] = data
        self.line -= data.count(b"\n")

    def _drop(self, size: int) -> None:
        self.line += self.data.count(b"\n", 0, size)
        del self.data[:size]

    def _more(self) -> bool:
        chunk = next(self._chunks, b"")
        self.data += chunk
        return bool(chunk)
