"""A step that spikes is skipped or rolled back past where the recipe asks for it, the same however often the run is resumed; NaN stops by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import GLOBAL_BATCH, LENGTH, batch_of, loss, make_trainer

from allam.cluster import ClusterProfile
from allam.engine import checkpoint
from allam.engine.stability import lost_steps
from allam.engine.trainer import Trainer
from allam.errors import StageFailed

RARELY = ClusterProfile(threads=1, checkpoint_seconds=1e6, micro_batch=4)
STEPS, SPIKE = 40, 36


def _loss_at(step: int) -> Callable[..., Any]:
    factor = 50.0 if step == SPIKE else 1.0
    return lambda model, items: (loss(model, items)[0] * factor, {})


def _walk(trainer: Trainer, until: int = 0) -> dict[str, Any]:
    """Trains to the end, or saves after `until` steps and walks away."""
    norms = []
    for step in trainer.steps():
        norms.append(trainer.step(batch_of(step), _loss_at(step), denominator=GLOBAL_BATCH * LENGTH).grad_norm)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        if step + 1 == until:
            trainer.save(until)
            return {}
    return {"hash": hashlib.sha256(b"".join(w.numpy().tobytes() for _, w in trainer.weights())).hexdigest(),
            "rows": trainer.journal.metrics(), "updates": trainer._updates, "norms": norms}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _walk(make_trainer(tmp_path_factory.mktemp("marked"), STEPS, RARELY))


@pytest.mark.parametrize(("stage", "precision"), [
    (0, "fp32"), (2, "fp32"), (1, "bf16"), pytest.param(1, "fp32", marks=pytest.mark.slow), pytest.param(3, "fp32", marks=pytest.mark.slow),
    pytest.param(2, "bf16", marks=pytest.mark.slow), pytest.param(3, "bf16", marks=pytest.mark.slow)])
def test_a_skipped_step_leaves_weights_and_moments_as_they_were(tmp_path: Path, stage: int, precision: str) -> None:
    profile = RARELY.model_copy(update={"zero_stage": stage})
    trainer = make_trainer(tmp_path, STEPS, profile, precision, on_spike="skip")
    before: dict[str, torch.Tensor] = {}
    for step in trainer.steps():
        if step == SPIKE:
            before = {name: value.clone() for name, value in trainer._zero.state()}
        result = trainer.step(batch_of(step), _loss_at(step), denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        after = dict(trainer._zero.state()) if step in (SPIKE, SPIKE + 1) else {}
        if step == SPIKE:
            assert result.answer == {"skipped": True}
            assert result.grad_norm > 5
            assert all(torch.equal(before[name], after[name]) for name in before)
        if step == SPIKE + 1:
            assert result.answer == {}
            assert not any(torch.equal(before[name], after[name]) for name in before)
    assert trainer._updates == STEPS - 1


@pytest.mark.parametrize("on_spike", ["skip", "roll_back"])
def test_a_run_with_an_answered_spike_resumes_bit_for_bit_from_before_and_behind_it(tmp_path: Path, marked: dict[str, Any], on_spike: str) -> None:
    whole = _walk(make_trainer(tmp_path / "whole", STEPS, RARELY, on_spike=on_spike, roll_back_steps=10))
    assert whole["hash"] != marked["hash"]
    for stop in (SPIKE - 1, SPIKE + 1, SPIKE + 2):
        work = tmp_path / str(stop)
        _walk(make_trainer(work, STEPS, RARELY, on_spike=on_spike, roll_back_steps=10), stop)
        resumed = make_trainer(work, STEPS, RARELY, on_spike=on_spike, roll_back_steps=10)
        assert resumed.start_step == stop
        found = _walk(resumed)
        assert (found["hash"], found["rows"], found["updates"]) == (whole["hash"], whole["rows"], whole["updates"])


def test_without_a_spike_the_answers_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_spikes_answered.SPIKE", -1)
    found = [_walk(make_trainer(tmp_path / name, STEPS, RARELY, on_spike=name, roll_back_steps=10)) for name in ("mark", "skip", "roll_back")]
    assert found[0] == found[1] == found[2]


def test_rolled_back_a_run_has_the_weights_of_the_last_checkpoint_of_the_grid_and_goes_on_behind_the_spike(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, STEPS, RARELY.model_copy(update={"checkpoints_kept": 1}), on_spike="roll_back", roll_back_steps=10)
    for step in trainer.steps():
        trainer.step(batch_of(step), _loss_at(step), denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        if step == 33:
            trainer.save(34)  # as the clock would: newer, but no place to go back to
        if step == SPIKE:
            kept = checkpoint.Reader(tmp_path / "checkpoints" / "step-00000030")
            assert all(torch.equal(value, kept(name)) for name, value in trainer._zero.state())
    rows = trainer.journal.metrics()
    assert rows[SPIKE]["rolled_back_to"] == 30
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert lost_steps(rows) == set(range(30, SPIKE + 1))
    assert trainer._updates == STEPS - 7


def test_a_spike_before_the_first_grid_point_goes_back_to_the_start(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, STEPS, RARELY, on_spike="roll_back", roll_back_steps=100)
    rows = _walk(trainer)["rows"]
    assert rows[SPIKE]["rolled_back_to"] == 0
    assert rows[SPIKE + 1]["loss"] > rows[SPIKE - 4]["loss"]  # the same batch, with the weights of the start
    assert trainer._updates == STEPS - SPIKE - 1


def test_a_damaged_checkpoint_is_not_rolled_back_to(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, STEPS, RARELY, on_spike="roll_back", roll_back_steps=10)
    _walk(trainer, SPIKE)
    (tmp_path / "checkpoints" / "step-00000030" / "state.json").write_text("{}")
    resumed = make_trainer(tmp_path, STEPS, RARELY, on_spike="roll_back", roll_back_steps=10)
    with pytest.raises(StageFailed, match=r"step 37 is a spike, and the checkpoint .*step-00000030 to roll back to is damaged \(state.json"):
        _walk(resumed)


# --- no number -------------------------------------------------------------------------------------------------------------------

def _poisoned(model: Any, items: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """No number for sequences that begin with token 63."""
    total = sum((loss(model, [item])[0] * (torch.nan if item[0] == 63 else 1.0) for item in items), torch.zeros(()))
    return total, {}


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (3, "fp32"), (1, "bf16")])
def test_a_loss_that_is_no_number_names_the_items_that_made_it(tmp_path: Path, stage: int, precision: str) -> None:
    trainer = make_trainer(tmp_path, STEPS, RARELY.model_copy(update={"zero_stage": stage}), precision)
    next(trainer.steps())
    batch = [torch.cat([torch.tensor([i]), item[1:]]) for i, item in enumerate(batch_of(0))]
    batch[5][0] = 63
    with pytest.raises(StageFailed, match=r"step 1: the loss is nan .* in the documents item-63\n") as stopped:
        trainer.step(batch, _poisoned, denominator=1, describe=lambda items: [f"item-{int(item[0])}" for item in items])
    assert "data.take_down" in stopped.value.remedy
    assert json.loads((tmp_path / "not_finite.json").read_text()) == {"step": 1, "documents": ["item-63"]}


def test_where_every_item_is_to_blame_the_learning_rate_is_named_first(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, STEPS, RARELY)
    next(trainer.steps())
    batch = [torch.cat([torch.tensor([63]), item[1:]]) for item in batch_of(0)]
    with pytest.raises(StageFailed, match="with each item of the batch: the model has most likely diverged") as stopped:
        trainer.step(batch, _poisoned, denominator=1, describe=lambda items: [f"item-{i}" for i in range(len(items))])
    assert stopped.value.remedy.startswith("lower optimizer.learning_rate")


def test_where_only_the_gradient_is_no_number_all_of_the_batch_is_named_shortly(tmp_path: Path) -> None:
    def square_root(model: Any, items: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return loss(model, items)[0] + torch.sqrt(next(model.parameters()).sum() * 0.0), {}

    trainer = make_trainer(tmp_path, STEPS, RARELY)
    next(trainer.steps())
    with pytest.raises(StageFailed, match=r"can be singled out; the batch has the documents (a-\d+, ){19}a-19 and 4 more \(all stand in work/not_f"):
        trainer.step(batch_of(0), square_root, denominator=1, describe=lambda items: [f"a-{i}" for i in range(3 * len(items))])
