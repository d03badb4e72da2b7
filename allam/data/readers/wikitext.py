"""Wikitext to clean text: the prose, its headings and its lists, without templates, tables, references, files and categories.

By mwparserfromhell's tree; what it takes for text but isn't (magic words, brackets that a template left empty) goes afterwards, and so do headings
under which nothing is left, such as those of references and links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

# Namespaces whose links show a file or sort the page, as every wiki and the Arabic and English ones name them; a dump's head adds its own.
FILES_AND_CATEGORIES = frozenset({"file", "image", "media", "category", "ملف", "صورة", "وسائط", "تصنيف"})
_DROPPED_TAGS = frozenset({"ref", "references", "table", "gallery", "timeline", "imagemap", "score", "hiero", "templatestyles", "graph", "mapframe", "maplink",
                           "style", "script"})
_LIST_MARKS = {"*": "- ", "#": "- ", ";": "", ":": ": "}
_LANGUAGE_LINK = re.compile(r"[a-z]{2,3}(-[a-z]{2,10})?|simple", re.IGNORECASE)
_MAGIC = re.compile(r"__[A-Z]{3,30}__|__[\u0621-\u064a_]{3,40}__")
_EMPTY_BRACKETS = re.compile(r"[ \t]*\([\s,;،؛:]*\)|[ \t]*\[[\s,;]*\]")
_OPENING_COMMA = re.compile(r"\([ \t]*[,;،؛][ \t]*")
_NESTED = re.compile(r"^(?:- ){2,}")
_HEADING = re.compile(r"(=+) (.+) \1")


def clean(wikitext: str, left_out: frozenset[str] = FILES_AND_CATEGORIES) -> str:
    """The text; `left_out` are names of namespaces, in lower case. Raises the parser's errors."""
    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    text = "".join(_pieces(code, left_out))
    text = _OPENING_COMMA.sub("(", _EMPTY_BRACKETS.sub("", _MAGIC.sub("", text.replace("\xa0", " ").replace("'''", "").replace("''", ""))))
    lines = (_NESTED.sub(_indented, re.sub(r"[ \t]+", " ", line).strip(" :")) for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_without_empty_sections(list(lines)))).strip()


def _indented(marks: re.Match[str]) -> str:
    """`** item` came as `- - item`."""
    return "  " * (len(marks[0]) // 2 - 1) + "- "


def _pieces(code: Wikicode | None, left_out: frozenset[str]) -> Iterator[str]:
    for node in code.nodes if code is not None else ():
        match node:
            case nodes.Text():
                yield str(node.value)
            case nodes.Heading():
                title = "".join(_pieces(node.title, left_out)).strip()
                yield f"\n{'=' * node.level} {title} {'=' * node.level}\n"
            case nodes.Wikilink():
                yield from _link(node, left_out)
            case nodes.ExternalLink():
                yield from _pieces(node.title, left_out)
            case nodes.HTMLEntity():
                yield _character(node)
            case nodes.Tag():
                yield from _tag(node, left_out)


def _link(node: nodes.Wikilink, left_out: frozenset[str]) -> Iterator[str]:
    title = str(node.title).strip()
    if not title.startswith(":") and ":" in title:
        space = title.split(":")[0].strip().replace("_", " ").lower()
        if space in left_out or _LANGUAGE_LINK.fullmatch(space):
            return
    shown = "".join(_pieces(node.text, left_out)) if node.text is not None else title.removeprefix(":").split("#")[0]
    yield shown


def _character(node: nodes.HTMLEntity) -> str:
    try:
        return str(node.normalize())
    except (ValueError, OverflowError):
        return ""


def _tag(node: nodes.Tag, left_out: frozenset[str]) -> Iterator[str]:
    name = str(node.tag).strip().lower()
    if name in _DROPPED_TAGS:
        return
    if node.wiki_markup and str(node.wiki_markup) in _LIST_MARKS:
        yield _LIST_MARKS[str(node.wiki_markup)]
    elif name in ("br", "hr"):
        yield "\n"
    else:
        yield from _pieces(node.contents, left_out)


def _without_empty_sections(lines: list[str]) -> Iterator[str]:
    """Leaves out headings with nothing but blank lines and deeper empty sections under them, from the end backwards."""
    kept: list[str] = []
    filled = 0  # level down to which headings above have something under them; 0 is nothing, 7 text
    for line in reversed(lines):
        heading = _HEADING.fullmatch(line.strip())
        if heading is None:
            filled = 7 if line.strip() else filled
            kept.append(line)
        elif filled > (level := len(heading[1])):
            kept += ["", f"{'#' * level} {heading[2]}", ""]
            filled = level
    yield from reversed(kept)
