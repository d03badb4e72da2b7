"""Progress of a stage, written by the process that does the work and read by whoever watches it.

The worker sets `ALLAM_PROGRESS` to a file in the artifact's folder; the launcher reads that file, draws a line in the terminal and updates
the artifact in Prefect's UI. Without the variable (a test, a notebook) nothing is written. Only rank 0 reports.

    with Progress("documents", total=1200) as progress:
        progress.update(10, kept=9)

What whoever watches should know beside (a damaged checkpoint was passed over) travels with it: `note("...")`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
MIN_SECONDS_BETWEEN_WRITES = 0.5
_notes: list[str] = []  # of this process, which makes one stage
_latest: list[Progress] = []  # at most one


def note(text: str) -> None:
    """A warning for whoever watches: a line of the log and of the terminal."""
    print(f"warning: {text}", flush=True)
    _notes.append(text)
    for progress in _latest:  # the first report to come has it where there was none yet
        progress.report()


def untold(state: Mapping[str, Any], told: set[str]) -> list[str]:
    """The notes of a report of progress that aren't in `told`, which gets them."""
    new = [text for text in state.get("notes", ()) if text not in told]
    told.update(new)
    return new


class Progress:
    """Counts units of work of one named part of a stage; `total` may be None where it is not known beforehand."""

    def __init__(self, unit: str, total: int | None = None, done: int = 0, what: str = "") -> None:
        target = os.environ.get("ALLAM_PROGRESS")
        self.path = Path(target) if target and os.environ.get("RANK", "0") == "0" else None
        self.unit, self.total, self.done, self.what = unit, total, done, what
        self.started_at, self.done_at_start = time.time(), done
        self.info: dict[str, Any] = {}
        self._written = 0.0
        _latest[:] = [self]
        self.report()

    def update(self, n: int = 1, **info: Any) -> None:
        """Adds `n` units; `info` (numbers or short strings, such as loss=2.31) is shown beside the count."""
        self.done += n
        self.info.update(info)
        if time.time() - self._written >= MIN_SECONDS_BETWEEN_WRITES:
            self.report()

    def report(self) -> None:
        """Writes how far it is."""
        self._written = time.time()
        if self.path is None:
            return
        elapsed = max(self._written - self.started_at, 1e-9)
        rate = (self.done - self.done_at_start) / elapsed
        left = (self.total - self.done) / rate if self.total is not None and rate > 0 else None
        state = {"what": self.what, "unit": self.unit, "done": self.done, "total": self.total, "rate": rate,
                 "seconds_left": left, "info": self.info, "notes": _notes, "time": self._written}
        temporary = self.path.with_name(self.path.name + ".tmp")
        try:  # a view, not a result: a full disk here must not hide the stage's own error
            temporary.write_text(json.dumps(state))
            temporary.replace(self.path)
        except OSError:
            pass

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.report()


def track(items: Iterable[T], unit: str, total: int | None = None, what: str = "") -> Iterator[T]:
    """Yields `items`, counting each one as a unit of progress."""
    with Progress(unit, total, what=what) as progress:
        for item in items:
            yield item
            progress.update()
