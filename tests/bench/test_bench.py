"""Every benchmark runs from end to end: both sides do the work, the check of their results passes, the table is printed, no result is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (CODE / "bench").glob("*.py") if not path.name.startswith("_"))


def test_every_benchmark_has_its_line_in_the_docs() -> None:
    told = (CODE / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert NAMES
    assert [name for name in NAMES if f"| `{name}` |" not in told] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_checks_both_sides_prints_its_table_and_writes_no_result(name: str) -> None:
    results = CODE / "bench" / "results"
    before = {path: path.read_bytes() for path in results.glob("*.json")}
    done = subprocess.run([sys.executable, "-m", f"bench.{name}", "--quick"], cwd=CODE, capture_output=True, text=True, check=False, timeout=300,
                          env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"metric .* ours .* peer .* ratio", done.stdout), done.stdout
    rows = [line for line in done.stdout.splitlines() if re.search(r"│ ((MB|tokens)/s|MB|GB|s|words|lines|chrF|of one rank's) ", line)]
    assert rows, done.stdout
    for row in rows:
        assert float(row.split("│")[3].replace(",", "")) >= 0, row
    assert {path: path.read_bytes() for path in results.glob("*.json")} == before


@pytest.mark.slow
def test_a_quick_run_of_figure_5_trains_with_both_methods_and_prints_both() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.ablations.figure5", "--quick"], cwd=CODE, capture_output=True, text=True, check=False, timeout=600,
                          env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    before_training = {method: float(bits) for method, bits in re.findall(r"│ 0 +│ (mean|random) +│ ([0-9.]+) ", done.stdout)}
    assert 0 < before_training["mean"] < before_training["random"], done.stdout
