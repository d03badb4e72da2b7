"""What every reader gives: documents as the file has them, or the reason why a record is none. Nothing is ever skipped in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from allam.data.config import SourceConfig

EXCERPT = 200  # characters of a broken record that are shown

NO_COLUMN = "no_column"  # of a table without the text's column; the excerpt names the columns that there are

# Records that are no documents by their nature, not by a fault: counted by reason, but a source isn't broken by having them.
LEFT_OUT = frozenset({"redirect", "not_an_article", "not_wikitext", "fetch_failed", "not_html", "no_main_text"})


@dataclass(slots=True)
class Raw:
    """A document as the file has it; `id` is None where the file gives none."""

    line: int
    text: str
    id: str | None = None
    url: str | None = None
    title: str | None = None
    date: str | None = None
    translation_of: str | None = None


@dataclass(slots=True)
class SetAside:
    """Records that are no documents: `records` of them, the first at `line` (more than one for a damaged row group, and for what is left out)."""

    line: int
    reason: str
    excerpt: str
    records: int = 1


Record = Raw | SetAside


class LeftOut:
    """Counts the records of a file that are left out by their nature, so that a million redirects are one line for each reason."""

    def __init__(self) -> None:
        self._found: dict[str, SetAside] = {}

    def add(self, line: int, reason: str, shown: str) -> None:
        """Counts one; the first of each reason is shown."""
        if reason in self._found:
            self._found[reason].records += 1
        else:
            self._found[reason] = SetAside(line, reason, excerpt(shown))

    def records(self) -> Iterator[SetAside]:
        """One for each reason."""
        yield from self._found.values()


def excerpt(data: bytes | str) -> str:
    """The beginning of a broken record, printable."""
    text = data[: EXCERPT * 4].decode(errors="replace") if isinstance(data, bytes) else data[: EXCERPT * 4]
    return text.strip()[:EXCERPT]


def is_utf8(data: bytes) -> bool:
    """Whether the bytes decode."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class Fields:
    """Picks a document's fields out of a mapping, by the names that the source gives."""

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self.text, self.id, self.url = _path(config.text_field), _path(config.id_field), _path(config.url_field)
        self.translation_of = _path(config.translation_of_field) if config.kind == "translated" else ()

    def raw(self, line: int, record: dict[str, Any]) -> Raw | None:
        """The document, or None where there is no text."""
        text = _get(record, self.text)
        if not isinstance(text, str) or not text.strip():
            return None
        identity = as_name(_get(record, self.id))
        original = as_name(_get(record, self.translation_of))
        return Raw(line, text, id=None if identity is None else self.config.id_prefix + identity,
                   url=as_name(_get(record, self.url)), title=as_name(record.get("title")), date=as_name(record.get("date")),
                   translation_of=None if original is None else self.config.translation_of_prefix + original)

    def columns(self) -> set[str]:
        """The top-level names that may be needed."""
        paths = (self.text, self.id, self.url, self.translation_of, ("title",), ("date",))
        return {name for path in paths if path for name in (path[0], ".".join(path))}


def _path(field: str | None) -> tuple[str, ...]:
    return tuple(field.split(".")) if field is not None else ()


def _get(record: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value of a field, None for the empty path; a dotted name is first looked up as it stands, then as a way into nested objects and lists."""
    if len(path) == 1:
        return record.get(path[0])
    if not path:
        return None
    if (whole := ".".join(path)) in record:
        return record[whole]
    value: Any = record
    for name in path:
        if isinstance(value, list) and name.isdecimal():
            value = value[int(name)] if int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def as_name(value: Any) -> str | None:
    """Ids, URLs, titles and dates as text; None for nothing, blanks and structures."""
    if isinstance(value, str):
        return value if value.strip() else None
    return None if value is None or isinstance(value, (bool, dict, list)) else str(value)
