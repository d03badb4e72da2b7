"""One finished run of the tiny recipe for all tests of the whole path."""

import subprocess
from pathlib import Path

import pytest
from whole_path import TINY, run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A finished run of the tiny recipe: its store, and what the command printed."""
    store = tmp_path_factory.mktemp("tiny") / "store"
    return store, run(TINY, store)
