"""The demo itself: it must show learning, not only running. Bounds are the project's promises (README)."""

import json

import pytest
from whole_path import run


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished demo: its store, and its summary."""
    store = tmp_path_factory.mktemp("demo") / "store"
    done = run("demo", store)
    assert done.returncode == 0, done.stdout + done.stderr
    return store


def _bits_per_byte(store, stage: str) -> dict[str, float]:
    for path in store.glob("benchmarks/*/manifest.json"):
        if json.loads(path.read_text(encoding="utf-8"))["name"] == f"benchmarks_{stage}":
            return json.loads((path.parent / "bits_per_byte.json").read_text(encoding="utf-8"))
    raise AssertionError(stage)


def _accuracy(store, stage: str, benchmark: str) -> dict[str, float]:
    for path in store.glob("benchmarks/*/manifest.json"):
        if json.loads(path.read_text(encoding="utf-8"))["name"] == f"benchmarks_{stage}":
            result = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))[benchmark]
            return {group: row["accuracy"] for group, row in result["by_group"].items()} | {"chance": result["chance"]}
    raise AssertionError(stage)


@pytest.mark.slow
def test_arabic_gets_at_least_30_percent_better_and_english_at_most_5_percent_worse(demo):
    before, after = _bits_per_byte(demo, "extend"), _bits_per_byte(demo, "continue")
    assert after["ar"] <= 0.7 * before["ar"], (before, after)
    assert after["en"] <= 1.05 * before["en"], (before, after)


@pytest.mark.slow
@pytest.mark.parametrize(("benchmark", "written_in_it"), [("facts_en", ["both", "english", "translated"]), ("facts_ar", ["both", "arabic", "translated"])])
def test_facts_are_known_on_unseen_phrasings_in_the_language_in_which_they_were_written(demo, benchmark, written_in_it):
    for stage in ("continue", "dpo"):
        accuracy = _accuracy(demo, stage, benchmark)
        known = [accuracy[group] for group in written_in_it]
        assert sum(known) / len(known) >= accuracy["chance"] + 0.4, (stage, accuracy)


@pytest.mark.slow
def test_a_second_demo_makes_nothing_and_prints_the_results_again(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.glob("*/*/manifest.json")}
    again = run("demo", demo)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in demo.glob("*/*/manifest.json")} == before
    assert "report.html" in again.stdout
