"""Real ranks: data parallelism and ZeRO learn what one rank learns (gloo on the CPU, fp32, within rounding)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_training import GLOBAL_BATCH, LENGTH, batch_of, launch, loss, make_trainer, outcome, train

from allam.cluster import ClusterProfile
from allam.engine.device import Ranks
from allam.errors import UserError

STEPS = 30
ONE = ClusterProfile(threads=1, checkpoint_seconds=1e6, micro_batch=4)
TOLERANCE = 2e-4  # relative, of losses after 30 steps; the sums of gradients are made in another order


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(make_trainer(tmp_path_factory.mktemp("one"), STEPS, ONE))


def _agree(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["losses"] == pytest.approx(expected["losses"], rel=TOLERANCE)
    assert found["norm_of_weights"] == pytest.approx(expected["norm_of_weights"], rel=TOLERANCE)


def test_two_ranks_learn_what_one_learns(tmp_path: Path, one_rank: dict[str, Any]) -> None:
    _agree(outcome(launch(tmp_path, STEPS, ONE, ranks=2)), one_rank)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_ranks_with_zero_learn_what_one_learns(tmp_path: Path, one_rank: dict[str, Any], stage: int) -> None:
    _agree(outcome(launch(tmp_path, STEPS, ONE.model_copy(update={"zero_stage": stage}), ranks=2)), one_rank)


def test_what_one_rank_began_two_ranks_finish_on_the_same_batches_with_the_same_weights(tmp_path: Path, one_rank: dict[str, Any]) -> None:
    trainer = make_trainer(tmp_path, STEPS, ONE)
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        if step == 12:
            trainer.save(13)
            break
    resumed = outcome(launch(tmp_path, STEPS, ONE.model_copy(update={"zero_stage": 2}), ranks=2))
    assert resumed["resumed"] == 13
    assert resumed["items"] == one_rank["items"][13:]
    assert resumed["losses"] == pytest.approx(one_rank["losses"][13:], rel=TOLERANCE)
    assert resumed["norm_of_weights"] == pytest.approx(one_rank["norm_of_weights"], rel=TOLERANCE)
    assert resumed["sums"] == pytest.approx(one_rank["sums"], rel=1e-2, abs=1e-3)


@pytest.mark.slow
def test_a_spike_is_skipped_alike_on_all_ranks(tmp_path: Path) -> None:
    found = [outcome(launch(tmp_path / str(ranks), 40, ONE, ranks=ranks, on_spike="skip", spike=36)) for ranks in (1, 2)]
    assert [run["updates"] for run in found] == [39, 39]
    assert found[1]["norm_of_weights"] == pytest.approx(found[0]["norm_of_weights"], rel=TOLERANCE)


@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_under_zero_3_is_resumed_by_one_rank(tmp_path: Path, one_rank: dict[str, Any]) -> None:
    saving = ONE.model_copy(update={"zero_stage": 3, "checkpoint_seconds": 0.3})
    outcome(launch(tmp_path, STEPS, saving, ranks=2))
    resumed = outcome(launch(tmp_path, STEPS, ONE))
    assert 0 < resumed["resumed"] < STEPS
    assert resumed["losses"] == pytest.approx(one_rank["losses"][resumed["resumed"]:], rel=TOLERANCE)


def test_a_batch_that_does_not_divide_by_the_ranks_is_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import allam.engine.trainer as module

    real = module.join(ONE)
    monkeypatch.setattr(module, "join", lambda profile: Ranks(0, 3, real.device))
    with pytest.raises(UserError, match="global_batch 8 doesn't divide by the 3 ranks"):
        make_trainer(tmp_path, STEPS, ONE)
