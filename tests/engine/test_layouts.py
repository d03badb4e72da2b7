"""Real ranks in every parallel layout learn what one rank learns, for each architecture and objective, and go on from each other's checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from allam.cluster import ClusterProfile
from allam.layouts import Shape, refusal
from bench.layouts import LARGEST, LAYOUTS, LOSSES, WEIGHTS, differences, profile_of

CODE = Path(__file__).parents[2]
LLAMA = Shape("llama", layers=6, heads=8, kv_heads=4, intermediate_size=64, tied_embeddings=False)


def _do(work: Path, *runs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Does the runs one after the other, each on forked ranks; what each found, by name."""
    done = subprocess.run([sys.executable, "-m", "bench.layouts", str(work), json.dumps(runs)], cwd=CODE, capture_output=True, text=True, check=False,
                          timeout=500, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return {run["name"]: json.loads((work / run.get("folder", run["name"]) / "found.json").read_text()) for run in runs}


def _run(name: str, layout: tuple[int, int, int, int] = (1, 1, 1, 0), **more: Any) -> dict[str, Any]:
    profile = profile_of(*layout, micro_batch=more.pop("micro_batch", 2))
    return {"name": name, "profile": profile.model_copy(update=more.pop("changes", {})).model_dump(mode="json"), **more}


def _agree(work: Path, one: str, other: str) -> None:
    found = differences(work / one, work / other)
    assert found["losses"] < LOSSES, (other, found)
    assert found["weights"] < WEIGHTS, (other, found)
    assert found["largest"] < LARGEST, (other, found)


def test_a_run_killed_on_one_rank_is_finished_by_four_in_other_layouts_on_the_same_batches_with_what_one_would_have_learned(tmp_path: Path) -> None:
    found = _do(tmp_path, _run("one"), _run("begun", folder="both", stop=13), _run("zero 3 beside divided layers", (4, 2, 1, 3), folder="both", stop=18),
                _run("resumed", (4, 2, 2, 0), folder="both"))
    one, resumed = found["one"], found["resumed"]
    assert (one["resumed"], resumed["resumed"]) == (0, 18)
    assert resumed["order"] == one["order"][18:]
    assert resumed["norms"] == pytest.approx(one["norms"][18:], rel=1e-4)
    assert resumed["sums"] == one["sums"][18:]
    assert resumed["bits_per_byte"] == pytest.approx(one["bits_per_byte"], rel=1e-5)
    assert resumed["log_likelihoods"] == pytest.approx(one["log_likelihoods"], rel=1e-4)
    _agree(tmp_path, "one", "both")


@pytest.mark.slow
def test_every_layout_of_the_documentation_learns_what_one_rank_learns(tmp_path: Path) -> None:
    found = _do(tmp_path, _run("one"), *(_run(name, layout) for name, layout in LAYOUTS.items()))
    for name in LAYOUTS:
        _agree(tmp_path, "one", name)
        assert found[name]["norms"] == pytest.approx(found["one"]["norms"], rel=1e-4)
        assert found[name]["order"] == found["one"]["order"]
        assert found[name]["bits_per_byte"] == pytest.approx(found["one"]["bits_per_byte"], rel=1e-5)
        assert found[name]["log_likelihoods"] == pytest.approx(found["one"]["log_likelihoods"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "layout"), [("qwen2", (4, 2, 2, 0)), ("qwen3", (4, 2, 2, 0)), ("qwen3", (4, 2, 1, 3)), ("llama, tied", (2, 2, 1, 0)),
                                               ("llama, biases", (4, 2, 2, 1))])
def test_each_architecture_learns_what_one_rank_learns(tmp_path: Path, model: str, layout: tuple[int, int, int, int]) -> None:
    _do(tmp_path, _run("one", model=model), _run("many", layout, model=model))
    _agree(tmp_path, "one", "many")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "layout"), [("fp32", (4, 2, 2, 1)), ("bf16", (4, 2, 2, 1)), ("fp32", (4, 2, 1, 3)), ("bf16", (4, 2, 1, 3)),
                                                   ("fp32", (2, 1, 1, 3))])
def test_a_rank_that_reads_its_share_from_the_files_learns_the_same_bits(tmp_path: Path, precision: str, layout: tuple[int, int, int, int]) -> None:
    more: dict[str, Any] = {"precision": precision, "steps": 3, "model": "qwen3"}
    _do(tmp_path, _run("whole", layout, **more), _run("shares", layout, from_files=True, **more))
    assert (tmp_path / "whole" / "weights.safetensors").read_bytes() == (tmp_path / "shares" / "weights.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_finetuning_and_preferences_learn_alike_in_a_pipeline_of_divided_layers(tmp_path: Path, objective: str) -> None:
    found = _do(tmp_path, _run("one", objective=objective), _run("many", (4, 2, 2, 0), objective=objective, changes={"activation_checkpointing": True}))
    _agree(tmp_path, "one", "many")
    if objective == "dpo":
        for mine, theirs in zip(found["many"]["reference"], found["one"]["reference"], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4)
    for mine, theirs in zip(found["many"]["sums"], found["one"]["sums"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_first_phase_for_new_rows_is_the_same_in_a_pipeline_of_divided_layers(tmp_path: Path) -> None:
    _do(tmp_path, _run("one", new_rows_steps=10), _run("many", (4, 2, 2, 0), new_rows_steps=10))
    _agree(tmp_path, "one", "many")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "layout"), [("fp32", (4, 2, 2, 0)), ("fp32", (4, 2, 1, 3)), ("bf16", (4, 2, 2, 1))])
def test_a_spike_is_skipped_by_all_ranks_alike(tmp_path: Path, precision: str, layout: tuple[int, int, int, int]) -> None:
    more: dict[str, Any] = {"precision": precision, "steps": 40, "spike": 36}
    found = _do(tmp_path, _run("one", **more), _run("many", layout, **more))
    assert (found["one"]["skipped"], found["many"]["skipped"]) == ([36], [36])
    assert found["many"]["losses"][37:] == pytest.approx(found["one"]["losses"][37:], rel=1e-5 if precision == "fp32" else 2e-2)


@pytest.mark.slow
def test_each_layout_goes_on_from_each_others_checkpoint(tmp_path: Path) -> None:
    chain = [(2, 2, 1, 0), (2, 1, 2, 0), (4, 1, 2, 2), (4, 2, 1, 3), (1, 1, 1, 0)]
    runs = [_run(f"leg {i}", layout, folder="chain", **({"stop": 6 * (i + 1)} if i < 4 else {})) for i, layout in enumerate(chain)]
    found = _do(tmp_path, _run("one"), *runs)
    assert found["leg 4"]["resumed"] == 24
    assert found["leg 4"]["order"] == found["one"]["order"][24:]
    _agree(tmp_path, "one", "chain")


@pytest.mark.slow
def test_at_the_same_layout_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    for precision, layout in (("fp32", (4, 2, 2, 1)), ("bf16", (4, 2, 2, 1))):
        whole, cut = f"{precision} whole", f"{precision} cut"
        _do(tmp_path, _run(whole, layout, precision=precision), _run("begun", layout, precision=precision, folder=cut, stop=11),
            _run(cut, layout, precision=precision))
        assert (tmp_path / whole / "weights.safetensors").read_bytes() == (tmp_path / cut / "weights.safetensors").read_bytes()


def test_a_layout_that_can_not_be_had_is_refused_with_the_reason_and_the_nearest_that_can() -> None:
    def told(shape: Shape = LLAMA, **layout: Any) -> str:
        return "; ".join(refusal(shape, ClusterProfile(**layout)) or ())

    assert told(ranks=16, tensor_parallel=4, pipeline_parallel=4) == ""
    assert told(Shape("gpt2", 2, 3, 3, 5, True), ranks=7, zero_stage=3) == ""
    assert "doesn't divide the model's 8 heads, 4 key and value heads and intermediate size 64 alike; set tensor_parallel to 4" in told(
        ranks=8, tensor_parallel=8)
    assert "more stages than the model has blocks (6); set pipeline_parallel to 4" in told(ranks=16, pipeline_parallel=8)
    assert "this model's are one matrix; set pipeline_parallel to 1 and zero_stage to 3" in told(
        Shape("llama", 6, 8, 4, 64, True), ranks=2, pipeline_parallel=2)
    assert "zero_stage 3 asks all ranks to run the same blocks" in told(ranks=4, pipeline_parallel=2, zero_stage=3)
    assert "know llama, mistral, qwen2, qwen3, and this model is 'gpt2'; set both to 1 and zero_stage to 3" in told(
        Shape("gpt2", 2, 4, 4, 8, True), ranks=2, tensor_parallel=2)


def test_ranks_that_are_no_multiple_of_a_copy_of_the_model_are_refused_with_the_nearest_number() -> None:
    with pytest.raises(ValueError, match=r"ranks \(6\) are no multiple of tensor_parallel \(2\) times pipeline_parallel \(2\); make ranks 8"):
        ClusterProfile(ranks=6, tensor_parallel=2, pipeline_parallel=2)
