"""Which versions made a result: of Python, of the packages that shape it, and of this code. Asked for once a process: what it has imported stays."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

REPORTED_PACKAGES = ("allam", "torch", "deepspeed", "transformers", "tokenizers", "sentencepiece", "datatrove", "pyarrow", "lm-eval", "numpy", "numba")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape results, where installed."""
    found = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_revision() -> str | None:
    """The revision of the checkout that this package runs from, with `-dirty` where it has changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=here, capture_output=True,
                              text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
