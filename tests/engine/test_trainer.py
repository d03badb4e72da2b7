"""Training goes on exactly where it was, whatever stopped it, and one step means the same for any micro-batch."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import CONFIG, GLOBAL_BATCH, LENGTH, batch_of, launch, loss, make_trainer, outcome, train

from allam.cluster import ClusterProfile
from allam.engine import checkpoint
from allam.engine.model import flops_per_token
from allam.engine.stability import count_spikes
from allam.errors import StageFailed, UserError

RARELY = ClusterProfile(threads=1, checkpoint_seconds=1e6)
STEPS = 6


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return train(make_trainer(tmp_path_factory.mktemp("undisturbed"), STEPS, RARELY))


def _stop_after(work: Path, steps: int, profile: ClusterProfile = RARELY) -> None:
    """Trains to the end of step `steps` of STEPS, writes a checkpoint there, and walks away."""
    trainer = make_trainer(work, STEPS, profile)
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        if step + 1 == steps:
            trainer.save(steps)
            return


def test_the_loss_falls(undisturbed: dict[str, list[float]]) -> None:
    assert undisturbed["losses"][-1] < undisturbed["losses"][0]


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_stopped_after_any_step_and_resumed_the_weights_are_the_same_bit_for_bit(tmp_path: Path, undisturbed: dict[str, object], stop: int) -> None:
    _stop_after(tmp_path, stop)
    resumed = train(make_trainer(tmp_path, STEPS, RARELY))
    assert resumed["resumed"] == stop
    assert resumed["weights"] == undisturbed["weights"]
    assert resumed["losses"] == undisturbed["losses"][stop:]


def test_with_dropout_too_a_resumed_run_ends_with_the_same_bits_and_evaluation_drops_nothing(tmp_path: Path, undisturbed: dict[str, object]) -> None:
    whole = train(make_trainer(tmp_path / "whole", 4, RARELY, dropout=0.2))
    assert whole["losses"] != undisturbed["losses"][:4]  # type: ignore[index]
    trainer = make_trainer(tmp_path / "cut", 4, RARELY, dropout=0.2)
    items = batch_of(9)
    assert trainer.call(loss, items)[0] == trainer.call(loss, items)[0]
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        if step == 1:
            trainer.save(2)
            break
    resumed = train(make_trainer(tmp_path / "cut", 4, RARELY, dropout=0.2))
    assert (resumed["resumed"], resumed["weights"]) == (2, whole["weights"])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_zero_stage_and_precision_resumes_bit_for_bit(tmp_path: Path, stage: int, precision: str) -> None:
    profile = RARELY.model_copy(update={"zero_stage": stage})
    whole = train(make_trainer(tmp_path / "whole", 4, profile, precision))
    trainer = make_trainer(tmp_path / "cut", 4, profile, precision)
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        if step == 1:
            trainer.save(2)
            break
    resumed = train(make_trainer(tmp_path / "cut", 4, profile, precision))
    assert (resumed["resumed"], resumed["weights"]) == (2, whole["weights"])


@pytest.mark.parametrize(("stage", "precision"), [(1, "fp32"), (2, "fp32"), (2, "bf16"), (3, "fp32")])
def test_with_the_optimizer_on_the_host_it_learns_the_same_and_resumes_bit_for_bit(tmp_path: Path, undisturbed: dict[str, list[float]], stage: int,
                                                                                 precision: str) -> None:
    profile = RARELY.model_copy(update={"zero_stage": stage, "offload_optimizer": True})
    whole = train(make_trainer(tmp_path / "whole", STEPS, profile, precision))
    assert whole["losses"] == pytest.approx(undisturbed["losses"], rel=1e-5 if precision == "fp32" else 1e-2)
    trainer = make_trainer(tmp_path / "cut", STEPS, profile, precision)
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        if step == 1:
            trainer.save(2)
            break
    resumed = train(make_trainer(tmp_path / "cut", STEPS, profile, precision))
    assert (resumed["resumed"], resumed["weights"]) == (2, whole["weights"])


def test_a_checkpoint_of_one_zero_stage_is_resumed_by_another(tmp_path: Path, undisturbed: dict[str, object]) -> None:
    _stop_after(tmp_path, 3)
    resumed = train(make_trainer(tmp_path, STEPS, RARELY.model_copy(update={"zero_stage": 2})))
    assert resumed["resumed"] == 3
    assert resumed["losses"] == pytest.approx(undisturbed["losses"][3:], rel=1e-5)  # type: ignore[index]


@pytest.mark.parametrize(("stage", "precision", "dropout"), [(0, "fp32", 0.0), (2, "bf16", 0.0), (3, "fp32", 0.0), (0, "fp32", 0.2)])
def test_activation_checkpointing_computes_again_and_changes_no_bit(tmp_path: Path, stage: int, precision: str, dropout: float) -> None:
    plain = RARELY.model_copy(update={"zero_stage": stage})
    again = plain.model_copy(update={"activation_checkpointing": True})
    results, passes = [], []
    for name, profile in (("plain", plain), ("again", again)):
        trainer, calls = make_trainer(tmp_path / name, 3, profile, precision, dropout=dropout), []
        trainer._zero.module.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        results.append(train(trainer)["weights"])
        passes.append(len(calls))
    assert results[0] == results[1]
    assert passes[1] == 2 * passes[0]


def test_fused_kernels_without_a_gpu_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fused_kernels need a GPU, and training runs on cpu"):
        make_trainer(tmp_path, STEPS, RARELY.model_copy(update={"fused_kernels": True, "device": "cpu"}))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (2, "bf16")])
def test_compiled_blocks_learn_the_same_and_resume_bit_for_bit(tmp_path: Path, stage: int, precision: str) -> None:
    plain = RARELY.model_copy(update={"zero_stage": stage, "micro_batch": 3})
    compiled = plain.model_copy(update={"compile_blocks": True})
    expected = train(make_trainer(tmp_path / "plain", STEPS, plain, precision))
    whole = train(make_trainer(tmp_path / "whole", STEPS, compiled, precision))
    assert whole["losses"] == pytest.approx(expected["losses"], rel=1e-5 if precision == "fp32" else 2e-2)
    trainer = make_trainer(tmp_path / "cut", STEPS, compiled, precision)
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        if step == 1:
            assert all(block._compiled_call_impl is not None for block in trainer._zero.module.model.layers)
            trainer.save(2)
            break
    resumed = train(make_trainer(tmp_path / "cut", STEPS, compiled, precision))
    assert (resumed["resumed"], resumed["weights"]) == (2, whole["weights"])


def test_compiled_blocks_are_refused_where_they_would_learn_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for against in ({"zero_stage": 3}, {"ranks": 2, "tensor_parallel": 2}, {"ranks": 2, "pipeline_parallel": 2}, {"activation_checkpointing": True}):
        with pytest.raises(ValueError, match="compile_blocks doesn't go with"):
            ClusterProfile.model_validate({"compile_blocks": True} | against)
    compiled = RARELY.model_copy(update={"compile_blocks": True})
    with pytest.raises(UserError, match="don't go with dropout"):
        make_trainer(tmp_path, STEPS, compiled, dropout=0.1)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="there is no no-such-compiler"):
        make_trainer(tmp_path, STEPS, compiled)


@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_the_micro_batch_changes_nothing_but_rounding(tmp_path: Path, undisturbed: dict[str, list[float]], micro_batch: int) -> None:
    done = train(make_trainer(tmp_path, STEPS, RARELY.model_copy(update={"micro_batch": micro_batch})))
    assert done["losses"] == pytest.approx(undisturbed["losses"], rel=1e-5)
    assert done["norms"] == pytest.approx(undisturbed["norms"], rel=1e-4)


def test_a_short_batch_is_the_mean_over_what_it_holds(tmp_path: Path) -> None:
    items = batch_of(0)[:3]
    results = []
    for micro_batch in (8, 1):
        trainer = make_trainer(tmp_path / str(micro_batch), STEPS, RARELY.model_copy(update={"micro_batch": micro_batch}))
        next(trainer.steps())
        results.append(trainer.step(items, loss, denominator=3 * LENGTH))
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)
    assert results[0].grad_norm == pytest.approx(results[1].grad_norm, rel=1e-4)
    assert results[0].sums == results[1].sums == {"tokens": 3 * LENGTH}


@pytest.mark.parametrize("leftover", ["empty", "tensors without state", "all but the name"])
def test_a_checkpoint_cut_off_while_saving_never_counts(tmp_path: Path, undisturbed: dict[str, object], leftover: str) -> None:
    _stop_after(tmp_path, 2)
    good, cut = tmp_path / "checkpoints" / "step-00000002", tmp_path / "checkpoints" / "step-00000005.tmp"
    shutil.copytree(good, cut)
    if leftover != "all but the name":
        (cut / "state.json").unlink()
    if leftover == "empty":
        (cut / "00000.safetensors").unlink()
    resumed = train(make_trainer(tmp_path, STEPS, RARELY))
    assert (resumed["resumed"], resumed["weights"]) == (2, undisturbed["weights"])


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    train(make_trainer(tmp_path, STEPS, RARELY.model_copy(update={"checkpoint_seconds": 1e-6})))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000004", "step-00000005"]
    assert all(checkpoint.damage(p) is None for p in (tmp_path / "checkpoints").iterdir())


def test_metrics_after_the_checkpoint_are_cut_and_written_again(tmp_path: Path) -> None:
    _stop_after(tmp_path, 2)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "tokens": 384, "lo')  # what a killed process leaves
    trainer = make_trainer(tmp_path, STEPS, RARELY)
    train(trainer)
    (tmp_path / "out").mkdir()
    rows, _ = trainer.finish(tmp_path / "out")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows == [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]


def test_a_loss_that_is_no_number_stops_training_and_names_the_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, STEPS, RARELY)
    next(trainer.steps())
    with pytest.raises(StageFailed, match="step 1: the loss is nan"):
        trainer.step(batch_of(0), lambda model, items: (loss(model, items)[0] * torch.nan, {}), denominator=1)


def test_norms_and_biases_are_not_decayed(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, STEPS, RARELY)
    matrices, vectors = trainer._zero.engine.optimizer.param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim == 2 for p in matrices["params"])
    assert all(p.ndim == 1 for p in vectors["params"])


@pytest.mark.slow
def test_killed_again_and_again_a_process_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    profile = ClusterProfile(threads=1, checkpoint_seconds=0.01)
    whole = outcome(launch(tmp_path / "whole", 150, profile))
    work, killed_at = tmp_path / "killed", []
    for kill in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        [process] = launch(work, 150, profile)
        before = _newest_step(work)
        while process.poll() is None and _newest_step(work) < before + 20:  # mid-step or mid-save, as it happens
            pass
        process.send_signal(kill)
        process.communicate()
        killed_at.append(_newest_step(work))
    assert killed_at == sorted(set(killed_at)), f"the kills did not land: {killed_at}"
    assert killed_at[-1] < 150, f"the kills did not land: {killed_at}"
    last = outcome(launch(work, 150, profile))
    assert last["resumed"] >= killed_at[-1] > 0
    assert last["weights"] == whole["weights"]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _newest_step(work: Path) -> int:
    return max((int(p.name.split("-")[1]) for p in (work / "checkpoints").glob("step-*") if not p.name.endswith(".tmp")), default=0)


def test_a_spike_is_marked_in_the_metrics_and_a_resumed_run_judges_alike(tmp_path: Path) -> None:
    steps, spike = 40, 36

    def spiked(step: int) -> Callable[..., Any]:
        factor = 50.0 if step == spike else 1.0
        return lambda model, items: (loss(model, items)[0] * factor, {})

    def walk(work: Path, until: int) -> list[dict[str, Any]]:
        trainer = make_trainer(work, steps, RARELY)
        for step in trainer.steps():
            trainer.step(batch_of(step), spiked(step), denominator=GLOBAL_BATCH * LENGTH)
            trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
            if step + 1 == until:
                trainer.save(until)
                return []
        return trainer.finish(_folder(work / "out"))[0]

    whole = walk(tmp_path / "whole", 0)
    assert "loss" in whole[spike]["spikes"]
    assert count_spikes(whole) == {"loss": 1, "grad_norm": sum("grad_norm" in row.get("spikes", ()) for row in whole)}
    walk(tmp_path / "cut", 35)
    assert walk(tmp_path / "cut", 0) == whole


def test_telemetry_tells_speed_utilisation_memory_and_waiting_of_every_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, 3, RARELY)
    for step in trainer.steps():
        with trainer.journal.waiting_for_data():
            time.sleep(0.05)
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
    trainer.finish(_folder(tmp_path / "out"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "telemetry.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    row = rows[-1]
    flops = flops_per_token(CONFIG, trainer.journal.parameters, LENGTH)
    assert row["tflops_per_device"] == pytest.approx(row["tokens_per_second"] * flops / 1e12, rel=1e-3)
    assert row["utilisation"] == pytest.approx(row["tflops_per_device"] / RARELY.peak_tflops, rel=1e-3)
    assert row["peak_memory_bytes"] > 50e6
    assert 0.05 <= row["data_wait_seconds"] < row["seconds"]
    assert row["data_wait_share"] == pytest.approx(row["data_wait_seconds"] / row["seconds"], abs=1e-3)


def test_a_resumed_runs_first_step_counts_its_own_tokens_only(tmp_path: Path) -> None:
    _stop_after(tmp_path, 3)
    resumed = make_trainer(tmp_path, STEPS, RARELY)
    train(resumed)
    resumed.journal.sync()
    rows = [json.loads(line) for line in (tmp_path / "telemetry.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3]["tokens_per_second"] * rows[3]["seconds"] == pytest.approx(rows[1]["tokens_per_second"] * rows[1]["seconds"], rel=1e-3)


def test_a_resumed_run_goes_on_in_the_same_tensorboard_curve(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    profile = RARELY.model_copy(update={"tensorboard": str(tmp_path / "curves")})
    _stop_after(tmp_path / "pretrain" / "0123" / "work", 3, profile)
    time.sleep(1.0)  # files of one second are read in the order of a counter's digits, where 10 comes before 9
    resumed = train(make_trainer(tmp_path / "pretrain" / "0123" / "work", STEPS, profile))
    curves = accumulator.EventAccumulator(str(tmp_path / "curves" / "pretrain-0123"))
    curves.Reload()
    losses = curves.Scalars("loss")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in losses][3:] == pytest.approx(resumed["losses"], rel=1e-5)


def test_a_tracker_that_is_not_installed_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb_project needs wandb") as found:
        make_trainer(tmp_path, STEPS, RARELY.model_copy(update={"wandb_project": "allam"}))
    assert "pip install wandb" in found.value.remedy
