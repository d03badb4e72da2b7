"""The main text of a web page, with its title and date, by trafilatura in its usual setting.

Measured on 170 pages with known passages: 477 of 505 passages that belong to the text are kept, 35 of 501 that don't are too. Its fast setting kept
474 and took 0.86 of the time, the one for precision 448 with 22 wrong ones and left a third of the pages empty.
"""

from __future__ import annotations

import codecs
import logging
import re
from dataclasses import dataclass

import trafilatura

MAX_PAGE = 20_000_000  # bytes; trafilatura's own limit: the parsed tree of a page takes many times its size
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)
_NO_CHARSETS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7", "undefined")  # Python's, and no page's; some take quadratic time
_XML_CHARSET = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{2,40})")

logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # its complaints about single pages; what it makes of them is counted
logging.getLogger("htmldate").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Page:
    """What was found in a page."""

    text: str
    title: str | None
    date: str | None


def decode(data: bytes, charset: str | None) -> str | None:
    """The page as text, by the charset that the server, the page or, failing these, UTF-8 names; None where none of them fits."""
    named = [match[1].decode() for pattern in (_XML_CHARSET, _CHARSET) if (match := pattern.search(data[:4096])) is not None]
    for name in filter(None, [charset, *named, "utf-8"]):
        try:
            name = codecs.lookup(name).name
            if name not in _NO_CHARSETS:
                return data.decode("cp1252" if name == "iso8859-1" else name)  # as browsers read it
        except (LookupError, UnicodeError, ValueError):
            continue
    return None


def extract(page: str, url: str | None, fetched: str) -> Page | None:
    """Main text, title and date of a page, or None where there is none; no date is later than the day (YYYY-MM-DD) on which it was fetched."""
    dates = {"original_date": True, "extensive_search": False, "max_date": fetched}
    try:
        found = trafilatura.bare_extraction(page, url=url, include_comments=False, with_metadata=True, date_extraction_params=dates)
    except Exception:  # pages that break a parser are pages without text; its modules raise errors of many kinds
        return None
    if found is None or isinstance(found, dict) or not (text := found.text or "").strip():
        return None
    return Page(text, found.title or None, found.date or None)
