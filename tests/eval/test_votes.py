"""Votes and Elo: majorities, ties that a fourth evaluator breaks, the two rewards, and ratings checked against evalica."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allam import sample
from allam.artifacts import file_sha256
from allam.errors import UserError
from allam.eval import votes
from allam.eval.config import VotesConfig
from allam.eval.elo import Comparison, elo, rate
from allam.section import FileRef

WINNERS = ["a", "b", "tie", "both_bad"]
COMPARISONS = st.lists(st.builds(lambda pair, w: Comparison(*pair, w), st.sampled_from([("m1", "m2"), ("m1", "m3"), ("m2", "m3")]), st.sampled_from(WINNERS)),
                       min_size=1, max_size=30)
ARENA = Path(os.environ.get("ALLAM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "benchmarks" / "arena_votes.jsonl.gz"


def _config(path: Path, root: Path, **more: Any) -> VotesConfig:
    ref = FileRef(path=path.relative_to(root).as_posix(), sha256=file_sha256(path), size=path.stat().st_size)
    return VotesConfig(path=ref.path, files=(ref,), **more)


def _ballot(*given_votes: str) -> votes.Ballot:
    return votes.Ballot("m1", "m2", {f"e{i}": v for i, v in enumerate(given_votes)})


@pytest.mark.parametrize(("given_votes", "verdict"), [
    (("a", "a", "b"), "a"), (("tie", "b", "tie"), "tie"), (("a", "b", "tie"), None), (("a", "b", "tie", "b"), "b"), (("a", "b", "tie", "both_bad"), None),
    (("a", "a", "b", "b"), "a"), (("both_bad",) * 3, "both_bad")])
def test_the_majority_of_three_counts_and_a_fourth_breaks_a_tie(given_votes: tuple[str, ...], verdict: str | None) -> None:
    assert _ballot(*given_votes).verdict(3) == verdict


def test_it_makes_no_difference_which_model_stands_first() -> None:
    rows = [{"question_id": "q", "model_a": a, "model_b": b, "winner": w, "evaluator": e}
            for a, b, w, e in (("sft", "dpo", "b", "e1"), ("dpo", "sft", "a", "e2"), ("dpo", "sft", "tie", "e3"))]
    (ballot,) = votes.collect(rows)
    assert (ballot.model_a, ballot.model_b, ballot.verdict(3)) == ("dpo", "sft", "a")


def test_an_evaluators_last_vote_counts_once() -> None:
    rows = [{"question_id": "q", "model_a": "m1", "model_b": "m2", "winner": w, "evaluator": e}
            for w, e in (("a", "e1"), ("b", "e2"), ("b", "e1"), ("a", "e3"))]
    (ballot,) = votes.collect(rows)
    assert ballot.votes == {"e1": "b", "e2": "b", "e3": "a"}


@settings(max_examples=50, deadline=None)
@given(COMPARISONS, st.sampled_from([4.0, 16.0, 32.0]))
def test_one_order_gives_the_ratings_of_evalica(comparisons: list[Comparison], k: float) -> None:
    evalica = pytest.importorskip("evalica")
    comparisons = [c for c in comparisons if c.winner != "both_bad"] or [Comparison("m1", "m2", "a")]
    models = sorted({m for c in comparisons for m in (c.model_a, c.model_b)})
    mine = rate(comparisons, models, "default", k, 1000.0, np.arange(len(comparisons))[None])[0]
    names = {"a": evalica.Winner.X, "b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    theirs = evalica.elo([c.model_a for c in comparisons], [c.model_b for c in comparisons], [names[c.winner] for c in comparisons], initial=1000.0, k=k)
    np.testing.assert_allclose(mine, [theirs.scores[m] for m in models], atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(COMPARISONS)
def test_default_rewards_keep_the_mean_and_custom_ones_lose_half_a_step_of_both_for_each_both_bad(comparisons: list[Comparison]) -> None:
    models = sorted({m for c in comparisons for m in (c.model_a, c.model_b)})
    order = np.arange(len(comparisons))[None]
    both_bad = sum(c.winner == "both_bad" for c in comparisons)
    assert rate(comparisons, models, "default", 4.0, 1000.0, order).sum() == pytest.approx(1000 * len(models))
    assert rate(comparisons, models, "custom", 4.0, 1000.0, order).sum() == pytest.approx(1000 * len(models) - 4.0 * both_bad)


def test_ratings_depend_on_the_seed_alone_and_intervals_hold_them() -> None:
    comparisons = [Comparison("m1", "m2", w) for w in "aaaaabbtie".replace("tie", "a")] * 5
    first = elo(comparisons, "default", 4.0, 1000.0, 50, 50, seed=1)
    assert first == elo(comparisons[::-1], "default", 4.0, 1000.0, 50, 50, seed=1)
    assert first["m1"].rating > first["m2"].rating
    for rating in first.values():
        assert rating.low < rating.rating < rating.high


def test_no_comparison_gives_no_rating() -> None:
    assert elo([], "default", 4.0, 1000.0, 5, 5, 0) == {}


def test_the_samples_votes_are_rated(tmp_path: Path) -> None:
    path = sample.root() / "votes" / "votes.jsonl"
    metrics = votes.run(_config(path, sample.root()), {"root": sample.root()}, tmp_path)
    result = json.loads((tmp_path / "elo.json").read_text())
    assert metrics["votes"] == len(path.read_bytes().splitlines())
    assert metrics["comparisons"] > 0
    assert set(result["default"]) == set(result["custom"]) == {"continue", "sft", "dpo"}
    assert result["default"]["sft"]["rating"] > result["default"]["continue"]["rating"]
    assert 0 < result["agreement"] <= 1
    assert sum(sum(row[w] for w in WINNERS) for row in result["pairs"]) == result["comparisons"]


def test_without_votes_there_are_no_ratings(tmp_path: Path) -> None:
    votes.run(VotesConfig(), {"root": tmp_path}, tmp_path)
    assert json.loads((tmp_path / "elo.json").read_text())["default"] == {}


@pytest.mark.parametrize("line", ['{"question_id": "q"}', '{"question_id": 1, "model_a": "x", "model_b": "y", "winner": "c", "evaluator": "e"}', "{",
                                  '{"question_id": 1, "model_a": "x", "model_b": "x", "winner": "a", "evaluator": "e"}'])
def test_a_line_that_is_no_vote_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "votes.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"votes.jsonl, line 1"):
        votes.read_votes(tmp_path / "votes.jsonl")


@pytest.mark.skipif(not ARENA.is_file(), reason=f"no real votes at {ARENA}")
def test_real_arena_votes_rate_the_models_as_their_win_rates_do(tmp_path: Path) -> None:
    metrics = votes.run(_config(ARENA, ARENA.parent, evaluators=1, k=16.0), {"root": ARENA.parent}, tmp_path)
    with gzip.open(ARENA, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert metrics["votes"] == len(rows) == 558
    won, played = Counter(), Counter()
    for row in rows:
        for side in ("model_a", "model_b"):
            played[row[side]] += 1
            won[row[side]] += 1.0 if row["winner"] == side else 0.5 if row["winner"].startswith("tie") else 0.0
    often = sorted((m for m in played if played[m] >= 40), key=lambda m: won[m] / played[m])
    ratings = json.loads((tmp_path / "elo.json").read_text())["default"]
    assert ratings[often[-1]]["rating"] > ratings[often[0]]["rating"] + 50
    rates, mine = [won[m] / played[m] for m in often], [ratings[m]["rating"] for m in often]
    assert np.corrcoef(rates, mine)[0, 1] > 0.9
