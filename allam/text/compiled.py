"""Loops over characters and bytes, compiled by numba when they are first used (some seconds of a processor) and kept for the processes that follow: beside
their file, or where `NUMBA_CACHE_DIR` says. Where nothing can be kept, each process compiles anew.

    @compiled
    def loop(data: npt.NDArray[np.uint8]) -> int: ...

    first_use(lambda: loop(some))  # once for each file of such functions, before they are called elsewhere
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core.caching import NullCache

T = TypeVar("T")
_all: list[Any] = []


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled, and kept for the next process where there is a folder that can be written to. The interpreter's lock is given up while it runs."""
    try:
        made = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba finds no such folder
        made = numba.njit(nogil=True)(function)
    _all.append(made)
    return made  # type: ignore[no-any-return]


def first_use(call: Callable[[], T]) -> T:
    """What `call` returns, also where numba can't keep what it compiles (a full disk) or read what it kept (a file that was cut short)."""
    try:
        return call()
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        for function in _all:
            function._cache = NullCache()
        logging.getLogger(__name__).warning(
            "numba can't keep or read what it compiled (%s): each process compiles anew, which takes some seconds. Empty the folder __pycache__ beside %s, or "
            "set NUMBA_CACHE_DIR to a folder with room", error or type(error).__name__, __file__)
        return call()
