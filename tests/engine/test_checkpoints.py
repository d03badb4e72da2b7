"""What a checkpoint holds, which are kept, and that nothing damaged is ever opened."""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_training import GLOBAL_BATCH, LENGTH, batch_of, loss, make_trainer, train

from allam.cluster import ClusterProfile
from allam.engine import checkpoint
from allam.errors import StageFailed

RARELY = ClusterProfile(threads=1, checkpoint_seconds=1e6)
STEPS = 6


def _stop_after(work: Path, *saved: int, **changes: Any) -> None:
    """Trains through the steps of `saved`, writes a checkpoint after each of them, and walks away after the last."""
    trainer = make_trainer(work, STEPS, RARELY, **changes)
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        if step + 1 in saved:
            trainer.save(step + 1)
        if step + 1 == max(saved):
            return


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(make_trainer(tmp_path_factory.mktemp("undisturbed"), STEPS, RARELY))


def _flip(path: Path, where: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.write_bytes(content)


def _link_to_what_fails_to_read(path: Path) -> None:
    path.unlink()
    path.symlink_to("/proc/self/mem")


def _change_a_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"updates": 4', '"updates": 3'))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped byte of a tensor": lambda folder: _flip(folder / "00000.safetensors"),
    "a flipped byte of the header": lambda folder: _flip(folder / "00000.safetensors", 0.001),
    "a file cut short": lambda folder: (folder / "00000.safetensors").write_bytes((folder / "00000.safetensors").read_bytes()[:-7]),
    "a file that is gone": lambda folder: (folder / "00000.safetensors").unlink(),
    "a file that can't be read": lambda folder: _link_to_what_fails_to_read(folder / "00000.safetensors"),
    "a state that is gone": lambda folder: (folder / "state.json").unlink(),
    "a state cut short": lambda folder: (folder / "state.json").write_text((folder / "state.json").read_text()[:300]),
    "another number in the state": lambda folder: _change_a_number(folder / "state.json"),
    "a pickle in a tensor's place": lambda folder: (folder / "00000.safetensors").write_bytes(pickle.dumps(Explosive())),
}


class Explosive:
    """Ends the test if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a file was unpickled",)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_says_so_and_ends_with_the_same_bits(
        tmp_path: Path, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str], how: str) -> None:
    _stop_after(tmp_path, 2, 4)
    DAMAGES[how](tmp_path / "checkpoints" / "step-00000004")
    resumed = train(make_trainer(tmp_path, STEPS, RARELY))
    told = capsys.readouterr().out
    assert "step-00000004 is damaged" in told
    assert "falling back to the one before" in told
    assert (resumed["resumed"], resumed["weights"]) == (2, undisturbed["weights"])


def test_where_all_checkpoints_are_damaged_training_begins_anew_and_says_so(
        tmp_path: Path, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    _stop_after(tmp_path, 2)
    _flip(tmp_path / "checkpoints" / "step-00000002" / "00000.safetensors")
    resumed = train(make_trainer(tmp_path, STEPS, RARELY))
    assert "there is none before it" in capsys.readouterr().out
    assert (resumed["resumed"], resumed["weights"]) == (0, undisturbed["weights"])


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_damaged_checkpoints_do_not_push_out_sound_ones_and_stay_for_a_look(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    _stop_after(tmp_path, 4, 5)
    for step in (4, 5):
        DAMAGES["a file cut short"](checkpoint.place(folder, step))
    _stop_after(tmp_path, 1, 2)
    assert _names(folder) == {"step-00000001", "step-00000002", "step-00000004.damaged", "step-00000005.damaged"}
    assert make_trainer(tmp_path, STEPS, RARELY).start_step == 2
    DAMAGES["a file cut short"](checkpoint.place(folder, 2))
    _stop_after(tmp_path, 3)
    assert _names(folder) == {"step-00000001", "step-00000003", "step-00000004.damaged", "step-00000005.damaged"}  # as many damaged ones as others


def test_a_copy_beside_a_checkpoint_is_none(tmp_path: Path) -> None:
    _stop_after(tmp_path, 2)
    shutil.copytree(tmp_path / "checkpoints" / "step-00000002", tmp_path / "checkpoints" / "step-00000002.bak")
    assert checkpoint.steps(tmp_path / "checkpoints") == [2]
    assert make_trainer(tmp_path, STEPS, RARELY).start_step == 2


def test_whoever_watches_reads_of_a_checkpoint_that_was_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stop_after(tmp_path, 2)
    _flip(tmp_path / "checkpoints" / "step-00000002" / "00000.safetensors")
    monkeypatch.setenv("ALLAM_PROGRESS", str(tmp_path / "progress.json"))
    _stop_after(tmp_path, 1)
    told = json.loads((tmp_path / "progress.json").read_text())["notes"][-1]
    assert told == ("checkpoint step-00000002 is damaged (00000.safetensors differs from its checksum); "
                    "there is none before it: training begins again")


def test_a_checkpoint_holds_what_made_it(tmp_path: Path) -> None:
    job = {"name": "continue", "kind": "continue", "version": 2, "key": "ab" * 32, "config": {"phase": {"seed": 7}}, "inputs": {}, "paths": {"root": "/secret"}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    _stop_after(tmp_path / "work", 3, seed=7, dropout=0.1, about=lambda step: {"tokenizer": "cafe", "ledger": {"en": {"web": step * 100}}})
    state = checkpoint.state_of(tmp_path / "work" / "checkpoints" / "step-00000003")
    assert state["recipe"] == {name: job[name] for name in ("name", "kind", "version", "key", "config", "inputs")}
    assert (state["step"], state["updates"], state["data"]) == (3, 3, {"steps": 3, "batch": GLOBAL_BATCH})
    assert (state["tokenizer"], state["ledger"]) == ("cafe", {"en": {"web": 300}})
    assert (state["schedule"]["schedule"], state["schedule"]["total_steps"]) == ("cosine", STEPS)
    assert 0 < state["schedule"]["next_learning_rate"] < state["schedule"]["learning_rate"]
    assert (state["random"]["seed"], state["random"]["dropout"]) == (7, 0.1)
    assert state["layout"] == {"ranks": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "zero_stage": 0,
                               "micro_batch": 16, "threads": 1, "device": "cpu", "precision": "fp32"}
    assert state["versions"]["torch"] == importlib.metadata.version("torch")  # without the build that torch.__version__ may name
    assert state["model"]["hidden_size"] == 32
    assert "git_revision" in state
    keys = checkpoint.Reader(tmp_path / "work" / "checkpoints" / "step-00000003")._where
    assert {key.partition("/")[0] for key in keys} == {"weight", "exp_avg", "exp_avg_sq"}


def test_a_checkpoint_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    _stop_after(tmp_path, 2, about=lambda step: {"tokenizer": "cafe"})
    with pytest.raises(StageFailed, match="its tokenizer is cafe, not beef"):
        make_trainer(tmp_path, STEPS, RARELY, about=lambda step: {"tokenizer": "beef"})


def _kept(folder: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in folder.glob("step-*"))


def test_the_policy_keeps_the_last_every_nth_and_the_best(tmp_path: Path) -> None:
    profile = RARELY.model_copy(update={"checkpoint_seconds": 1e-6, "checkpoints_kept": 1, "checkpoint_steps": 4, "keep_best_checkpoint": True})
    bits = {0: 0.5, 3: 2.0, 5: 1.0, 7: 1.5, 10: 1.2}  # the one before training is not a candidate
    trainer = make_trainer(tmp_path / "work", 10, profile)
    trainer.journal.add_eval(0, 0, bits_per_byte={"en": bits[0]})
    for step in trainer.steps():
        trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
        trainer.log(step + 1, LENGTH)
        if step + 1 in bits:
            trainer.journal.add_eval(step + 1, step + 1, bits_per_byte={"en": bits[step + 1], "ar": bits[step + 1] + 1})
    assert _kept(tmp_path / "work" / "checkpoints") == [4, 5, 8, 9]
    trainer.finish(tmp_path)
    assert _kept(tmp_path / "checkpoints") == [4, 5, 8]
    assert all(checkpoint.damage(path) is None for path in (tmp_path / "checkpoints").iterdir())


def test_a_resumed_run_knows_the_best_checkpoint_so_far(tmp_path: Path) -> None:
    profile = RARELY.model_copy(update={"checkpoint_seconds": 1e-6, "checkpoints_kept": 1, "keep_best_checkpoint": True})
    for until in (3, STEPS):
        trainer = make_trainer(tmp_path / "work", STEPS, profile)
        for step in trainer.steps():
            trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH)
            trainer.log(step + 1, LENGTH)
            trainer.journal.add_eval(step + 1, step + 1, bits_per_byte={"en": abs(step + 1 - 2.0)})
            if step == until:
                break
    assert trainer.start_step == 3
    assert _kept(tmp_path / "work" / "checkpoints") == [2, 5]
