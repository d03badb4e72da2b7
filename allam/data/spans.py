"""What is no prose in a text: code, formulas, addresses, mark-up. It passes through translation as it is, and the checks on pairs look beside it.

Blocks may hold line breaks (fenced code, displayed formulas, `<pre>`), the others stand within a line. A dollar opens a formula as in pandoc: no
space after it, none before the closing one, no digit after that; so `$5 and $6` are prices. Everything is bounded, so that an opening
without its end costs no more than what it may hold; a fence without its end runs to the end of the text.
"""

from __future__ import annotations

import re

LONGEST_BLOCK = 20_000  # characters of a formula or a `<pre>`

_BLOCKS = (
    r"(?m:^[ \t]*)(?P<fence>```+|~~~+)(?s:.*?)(?:\n[ \t]*(?P=fence)[^\S\n]*(?=\n|\Z)|\Z)",
    rf"\$\$(?s:.{{1,{LONGEST_BLOCK}}}?)\$\$",
    rf"\\\[(?s:.{{1,{LONGEST_BLOCK}}}?)\\\]",
    rf"\\begin\{{(?P<formula>equation|align|gather|multline|eqnarray|displaymath|math)\*?\}}(?s:.{{1,{LONGEST_BLOCK}}}?)\\end\{{(?P=formula)\*?\}}",
    rf"<(?P<tag>pre|code|script|style|math|svg)\b(?s:.{{0,{LONGEST_BLOCK}}}?)</(?P=tag)>",
)
_INLINE = (
    r"(?P<ticks>`+)[^`\n]{1,500}(?P=ticks)",
    r"\\\([^\n]{1,500}?\\\)",
    r"\$(?=[^\s$])[^$\n]{1,500}?(?<=[^\s\\])\$(?!\d)",
    r"\b(?:https?|ftp)://[^\s<>\"'`)\]}]*[^\s<>\"'`)\]}.,;:!?]",
    r"\bwww\.[^\s<>\"'`)\]}]*[^\s<>\"'`)\]}.,;:!?]",
    r"\b[\w.+-]{1,64}@(?:[\w-]+\.)+[A-Za-z]{2,}\b",
    r"</?[A-Za-z][^<>\n]{0,300}>",
    r"\{\{[^{}\n]{1,200}\}\}",
    r"\{/\*[^\n]{0,200}?\*/\}",
)
BLOCK = re.compile("|".join(_BLOCKS))
INLINE = re.compile("|".join(_INLINE))
_ANY = re.compile("|".join((*_BLOCKS, *_INLINE)))


def prose(text: str) -> str:
    """The text with a space in place of all that is none."""
    return _ANY.sub(" ", text)
