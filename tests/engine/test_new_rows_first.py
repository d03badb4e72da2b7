"""A first phase trains the new rows of the embeddings and nothing else; behind it everything moves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import CONFIG, GLOBAL_BATCH, LENGTH, SETTINGS, batch_of, loss, make_trainer, train

from allam.cluster import ClusterProfile
from allam.engine.model import new_model
from allam.engine.new_rows_only import NewRowsFirst
from allam.engine.trainer import Trainer

OLD, STEPS, FIRST = 48, 6, 3  # of 64 rows the last 16 are new


def _weights_after(work: Path, steps: int, profile: ClusterProfile, precision: str = "fp32", first: int = FIRST) -> dict[str, torch.Tensor]:
    trainer = make_trainer(work, STEPS, profile, precision=precision, new_rows_first=NewRowsFirst(OLD, first))
    for step in trainer.steps():
        if step == steps:
            break
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
    return {name: value.clone() for name, value in trainer.weights()}


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16")])
def test_in_the_first_steps_only_new_rows_move_and_then_everything_does(tmp_path: Path, stage: int, precision: str) -> None:
    profile = ClusterProfile(threads=1, checkpoint_seconds=1e6, zero_stage=stage)
    before = dict(new_model(CONFIG, seed=0).named_parameters())
    during = _weights_after(tmp_path / "during", FIRST, profile, precision)
    after = _weights_after(tmp_path / "after", FIRST + 1, profile, precision)
    for name, value in during.items():
        rows = OLD if name in ("model.embed_tokens.weight", "lm_head.weight") else len(value)
        assert torch.equal(value[:rows], before[name][:rows]), name
        assert rows == len(value) or not torch.isclose(value[rows:], before[name][rows:]).all(dim=1).any(), name
        assert not torch.equal(after[name][:rows], value[:rows]), name


def test_a_tied_matrix_has_its_old_rows_kept_too(tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config.tie_word_embeddings = True
    trainer = Trainer(new_model(config, seed=0), SETTINGS, precision="fp32", global_batch=GLOBAL_BATCH, total_steps=FIRST, work=tmp_path,
                      profile=ClusterProfile(threads=1), new_rows_first=NewRowsFirst(OLD, FIRST))
    before = new_model(config, seed=0).get_input_embeddings().weight
    train(trainer)
    after = dict(trainer.weights())["model.embed_tokens.weight"]
    assert torch.equal(after[:OLD], before[:OLD])
    assert not torch.equal(after[OLD:], before[OLD:])


@pytest.mark.parametrize("stop", [1, FIRST, FIRST + 1])
def test_stopped_within_or_behind_the_first_phase_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, stop: int) -> None:
    profile = ClusterProfile(threads=1, checkpoint_seconds=1e6)
    first: dict[str, Any] = {"new_rows_first": NewRowsFirst(OLD, FIRST)}
    whole = train(make_trainer(tmp_path / "whole", STEPS, profile, **first))
    trainer = make_trainer(tmp_path / "cut", STEPS, profile, **first)
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        if step + 1 == stop:
            trainer.save(stop)
            break
    resumed = train(make_trainer(tmp_path / "cut", STEPS, profile, **first))
    assert (resumed["resumed"], resumed["weights"]) == (stop, whole["weights"])


def test_the_norm_of_all_gradients_is_no_spike_beside_that_of_the_new_rows(tmp_path: Path) -> None:
    steps, first = 60, 40
    trainer = make_trainer(tmp_path, steps, ClusterProfile(threads=1, checkpoint_seconds=1e6), on_spike="skip", new_rows_first=NewRowsFirst(62, first))
    found = train(trainer)
    assert found["norms"][first] > 3 * found["norms"][first - 1]
    assert found["updates"] == steps
