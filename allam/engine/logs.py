"""JSON Lines that a killed run can be cut back to: what stands after a checkpoint's step is dropped when training goes on from it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_FLUSHES = 2.0  # a step of a small model takes 20 ms; a write for each would be felt


class JsonLines:
    """One growing file. Lines are kept back for a moment, and are durable after `sync`."""

    def __init__(self, path: Path, writes: bool) -> None:
        self.path, self._writes = path, writes
        self._waiting: list[str] = []
        self._flushed = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Adds a line; NaN and infinities are refused, since they are not JSON."""
        if not self._writes:
            return
        self._waiting.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Hands all lines to the file."""
        if self._waiting:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(self._waiting)
            self._waiting.clear()
        self._flushed = time.monotonic()

    def sync(self) -> int:
        """Makes all lines durable; returns the file's size in bytes."""
        if not self._writes:
            return 0
        self.flush()
        with open(self.path, "ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def cut(self, size: int) -> None:
        """Keeps the first `size` bytes."""
        if self._writes:
            with open(self.path, "ab") as file:
                file.truncate(size)

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far (an empty list on ranks that don't write)."""
        if not self._writes:
            return []
        self.flush()
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()] if self.path.exists() else []
