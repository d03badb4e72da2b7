"""Translations by sentence and model, on disk: an SQLite file beside the artifacts of the stage, one for each model, that outlives them.

A killed stage goes on within its shard, and another recipe, another mix of domains or new documents pay only for sentences that are new. Whatever was
added stands after a kill or a power cut; several stages may use a file at once. Nothing is ever changed: a sentence keeps its first translation.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from allam.errors import StageFailed

KEYS_AT_ONCE = 500  # SQLite's oldest limit on parameters is 999


class SentenceCache:
    """Looks up and adds translations."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = sqlite3.connect(path, timeout=60)
            self._file.execute("CREATE TABLE IF NOT EXISTS sentences (key BLOB PRIMARY KEY, translation TEXT NOT NULL) WITHOUT ROWID")
            self._file.commit()
        except sqlite3.DatabaseError as error:
            raise StageFailed(f"the sentences translated so far can't be read from {path}: {error}",
                              "if the file is damaged, move it away: its sentences will be translated again") from None

    def find(self, sentences: Sequence[str]) -> dict[str, str]:
        """The translations of those sentences that have one."""
        found: dict[str, str] = {}
        for at in range(0, len(sentences), KEYS_AT_ONCE):
            by_key = {_key(sentence): sentence for sentence in sentences[at: at + KEYS_AT_ONCE]}
            marks = ",".join("?" * len(by_key))
            rows = self._file.execute(f"SELECT key, translation FROM sentences WHERE key IN ({marks})", list(by_key))  # noqa: S608 - question marks only
            found |= {by_key[key]: translation for key, translation in rows}
        return found

    def add(self, translations: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Keeps translations, durably."""
        rows = [(_key(sentence), translation) for sentence, translation in dict(translations).items()]
        with self._file:
            self._file.executemany("INSERT OR IGNORE INTO sentences VALUES (?, ?)", rows)

    def __enter__(self) -> SentenceCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def _key(sentence: str) -> bytes:
    return hashlib.blake2b(sentence.encode("utf-8", "surrogatepass"), digest_size=16).digest()
