"""Markdown: one file is one document; its front matter (YAML between two lines of `---`) gives title, date, id and URL.

The text stays Markdown: headings, lists and code mean something to a model.
"""

from __future__ import annotations

from typing import Any

import yaml

from allam.data.archives import Content
from allam.data.config import SourceConfig
from allam.data.readers.records import Fields, Record, SetAside, excerpt
from allam.data.readers.text import read_whole

MAX_FRONT_MATTER = 1 << 16  # characters


def read(config: SourceConfig, content: Content, max_bytes: int) -> Record:
    """The file's one record."""
    whole = read_whole(content, max_bytes)
    if isinstance(whole, SetAside):
        return whole
    front, body = _split(whole.text)
    fields = Fields(config)
    try:
        values: Any = yaml.load(front, Loader=yaml.BaseLoader)  # all values as they are written, and no merge keys, which can grow without bound
    except (yaml.YAMLError, ValueError, RecursionError):
        return SetAside(1, "bad_front_matter", excerpt(front))
    record = values if isinstance(values, dict) else {}
    return fields.raw(1, record | {".".join(fields.text): body.strip("\n")}) or SetAside(1, "no_text", excerpt(whole.text))


def _split(text: str) -> tuple[str, str]:
    """Front matter (empty where there is none) and the rest; a `---` that is never closed is a line of the text."""
    head, text = text[:MAX_FRONT_MATTER].replace("\r\n", "\n"), text.replace("\r\n", "\n")
    if not head.startswith("---\n"):
        return "", text
    end = head.find("\n---\n", 3)
    if end < 0 and head.endswith("\n---") and len(head) == len(text):
        end = len(head) - 4
    return ("", text) if end < 0 else (head[4: end + 1], text[end + 5:])
