"""Reading conversations and looking at their text: what curation, sampling and review share (paper §3.1).

Language is told by script, not by fastText: a reply such as "القاهرة" or "42 km" is too short for a model that was made for prose, while Arabic
and Latin letters can't be mistaken for one another. Code in backticks doesn't count, nor do digits and signs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from allam.errors import UserError
from allam.text.forms import comparison_form

LANGUAGES = ("en", "ar")
T = TypeVar("T")
_CODE = re.compile(r"```.*?(```|\Z)|`[^`\n]*`", re.DOTALL)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Line:
    """One line of a file: its number (from 1), and the object on it or None with what is wrong."""

    number: int
    value: dict[str, Any] | None
    problem: str = ""


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a JSON Lines file, plain or .gz or .xz; blank ones are left out, broken ones carry their problem."""
    with open(path, "rb") as file:
        yield from lines_of(file, path.suffix)


def lines_of(file: BinaryIO, suffix: str) -> Iterator[Line]:
    """`read_lines` of an open file."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(suffix)
    for number, raw in enumerate(opener(file) if opener else file, 1):
        if not raw.strip():
            continue
        try:
            value = json.loads(raw)
        except ValueError as error:  # UnicodeDecodeError is one
            yield Line(number, None, f"no JSON: {error}")
            continue
        yield Line(number, value) if isinstance(value, dict) else Line(number, None, "no object")


def read_strict(path: Path) -> list[dict[str, Any]]:
    """All objects of a JSON Lines file; raises `UserError` naming the first broken line."""
    rows = []
    for line in read_lines(path):
        if line.value is None:
            raise UserError(f"{path.name}, line {line.number}: {line.problem}", "mend or remove the line")
        rows.append(line.value)
    return rows


def as_conversation(row: dict[str, Any]) -> dict[str, Any]:
    """A record in one of the field's common forms, with the names that the stages use: `messages` and `language`.

    Known besides our own: `lang` for the language; ShareGPT's `conversations` of {"from", "value"}; a `prompt` that is a list of messages or a
    text; Alpaca's `instruction`, `input` and `output` (or `prompt` and `response`); a `chosen` or `rejected` that is a list of one assistant's message
    (TRL's conversational preferences). Whatever else a record holds stays.
    """
    row = dict(row)
    for name in ("chosen", "rejected"):
        answer = row.get(name)
        if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], dict) and answer[0].get("role") == "assistant":
            row[name] = answer[0].get("content")
    if "language" not in row and isinstance(row.get("lang"), str):
        row["language"] = row["lang"]
    if "messages" in row:
        return row
    if isinstance(row.get("conversations"), list):
        row["messages"] = [{"role": _SHAREGPT_ROLES.get(str(turn.get("from")), turn.get("from")), "content": turn.get("value")}
                           for turn in row["conversations"] if isinstance(turn, dict)]
    elif isinstance(row.get("prompt"), list):
        row["messages"] = row["prompt"]
    elif isinstance(row.get("instruction"), str) or isinstance(row.get("prompt"), str):
        asked = "\n\n".join(part for part in (row.get("instruction") or row.get("prompt"), row.get("input")) if isinstance(part, str) and part.strip())
        answer = row.get("output") if "output" in row else row.get("response")
        row["messages"] = [{"role": "user", "content": asked}] + ([] if answer is None else [{"role": "assistant", "content": answer}])
    return row


_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}


def conversation_problem(messages: Any, ends_with: str) -> str:
    """What makes `messages` no conversation, or an empty text: an optional system turn, then user and assistant in turn, ending with `ends_with`."""
    if not isinstance(messages, list) or not messages:
        return "no list of messages"
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str) or not isinstance(message.get("role"), str):
            return f"turn {number} has no role and content"
        if not _is_text(message["content"]):
            return f"turn {number} holds a lone surrogate, which is no character"
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message["role"] != expected:
            return f"turn {number} is {message['role']!r}, not {expected!r}"
        if expected == "user" and not message["content"].strip():
            return f"turn {number}: the user says nothing"
    if not turns or turns[-1]["role"] != ends_with:
        return f"the last turn is not the {ends_with}'s"
    return ""


def _is_text(text: str) -> bool:
    """Whether a string can be written as UTF-8; JSON can smuggle in half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def arabic_share(text: str) -> float | None:
    """Arabic letters among all letters outside code, from 0 to 1; None where there are no letters."""
    arabic = letters = 0
    for character in _CODE.sub(" ", text):
        if character.isalpha():
            letters += 1
            arabic += "\u0600" <= character <= "\u06ff" or "\u0750" <= character <= "\u077f" or "\ufb50" <= character <= "\ufeff"
    return arabic / letters if letters else None


def is_in_language(text: str, language: str) -> bool:
    """Whether most letters are of the language's script; a text without letters is in any language."""
    share = arabic_share(text)
    return share is None or (share >= 0.5 if language == "ar" else share < 0.5)


def words(text: str) -> list[str]:
    """Words in a form for comparing: composed alike, without case, vowel signs and punctuation."""
    return _WORD.findall(comparison_form(text).casefold())


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of plain data: names what a person judged, so that a changed text asks for a new verdict."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def json_lines(rows: list[dict[str, Any]]) -> str:
    """Rows as JSON Lines; half a character (only what is dropped may hold one) becomes a question mark."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "replace").decode()


def evenly(items: list[T], limit: int | None) -> list[T]:
    """At most `limit` items, evenly spread over all of them; all where there is no limit."""
    if limit is None or len(items) <= limit:
        return items
    return [items[i * len(items) // limit] for i in range(limit)]
