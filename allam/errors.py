"""The errors that a user is meant to read: each says what is wrong, with which value, and what to do about it.

Exit codes of the `allam` command and of the worker follow the class: 2 for the user's mistake, 1 for a failure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AllamError(Exception):
    """An error with a message for people. `remedy` says what to do next; `exit_code` is the process's exit status."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.remedy)


class UserError(AllamError):
    """The recipe, the command or the input is wrong: running it again unchanged will fail again."""

    exit_code = 2


class StageFailed(AllamError):
    """A stage could not finish: disk, memory, a lost node, an input that is too damaged. Running again resumes it."""


class StageCancelled(StageFailed):
    """Somebody ended a stage on purpose, in Slurm: it isn't tried again by itself."""


class ArtifactError(AllamError):
    """An artifact on disk is missing, damaged or not what its manifest says."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """A remedy for a misspelt `word`: the closest of `allowed`, or all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(names)}"
