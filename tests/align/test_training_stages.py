"""SFT, sampling and DPO as stages: they learn, they resume exactly, and DPO's loss is the paper's formula."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bilingual import save_small_model, small_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from allam import sample as sample_data
from allam.align import dpo, sft
from allam.align import sample as sample_stage
from allam.align.config import DpoConfig, SampleConfig, SftConfig
from allam.align.examples import response_example
from allam.artifacts import clear_outputs, file_sha256, output_files
from allam.chat.template import stop_ids
from allam.cluster import ClusterProfile
from allam.engine.model import load_model
from allam.engine.schedule import OptimizerSettings
from allam.engine.trainer import Trainer
from allam.errors import StageFailed, UserError
from allam.section import FileRef
from allam.text.tokenizer import Tokenizer

SFT = SftConfig(epochs=2, learning_rate=5e-3, global_batch=8, max_length=128, precision="fp32")
DPO = DpoConfig(epochs=2, learning_rate=1e-3, final_learning_rate=5e-4, global_batch=4, max_length=128, precision="fp32")


@pytest.fixture(autouse=True)
def one_thread_and_a_checkpoint_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = ClusterProfile(threads=1, micro_batch=3, checkpoint_seconds=1e-6, device="cpu")
    monkeypatch.setenv("ALLAM_CLUSTER", profile.model_dump_json())


@pytest.fixture
def inputs(tmp_path: Path, tokenizer_folder: Path, tokenizer: Tokenizer) -> dict[str, Path]:
    """A model of random weights, twenty conversations, and preference pairs about them."""
    save_small_model(tokenizer, tmp_path / "start", tokenizer_folder)
    rows = [json.loads(line) for line in (sample_data.root() / "chat" / "sft.jsonl").read_text(encoding="utf-8").splitlines()[:20]]
    rows = [r for r in rows if r["source"] == "templates"]
    pairs = [{"id": r["id"], "language": r["language"], "messages": r["messages"][:1], "chosen": r["messages"][1]["content"], "rejected": "No."}
             for r in rows[:9]]
    for name, content in (("sft", rows), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in content), encoding="utf-8")
    return {"root": sample_data.root(), "model": tmp_path / "start", "tokenizer": tokenizer_folder, "conversations": tmp_path, "pairs": tmp_path}


def _stage(run: Callable[..., dict[str, Any]], config: Any, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """What the worker does around a stage."""
    out.mkdir(exist_ok=True)
    clear_outputs(out)
    (out / "work").mkdir(exist_ok=True)
    return run(config, inputs, out)


def _contents(out: Path) -> dict[str, str]:
    return {p.as_posix(): file_sha256(out / p) for p in output_files(out) if p.name != "telemetry.jsonl"}


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the stage may run on it."""


def _killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = Trainer.step

    def step_or_die(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if self._step == step and self.start_step < step:
            raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "step", step_or_die)


@pytest.mark.parametrize(("stage", "config"), [(sft, SFT), (dpo, DPO)], ids=["sft", "dpo"])
def test_a_killed_run_ends_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inputs: dict[str, Path], stage: Any, config: Any) -> None:
    whole = _stage(stage.run, config, inputs, tmp_path / "whole")
    for step in (4, 2):  # the second run goes on behind the first one's checkpoint and is killed there, too
        _killed_at(monkeypatch, step)
    with pytest.raises(Killed):
        _stage(stage.run, config, inputs, tmp_path / "killed")
    with pytest.raises(Killed):
        _stage(stage.run, config, inputs, tmp_path / "killed")
    assert _stage(stage.run, config, inputs, tmp_path / "killed") == whole
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "whole")


def test_sft_learns_its_conversations_and_saves_a_model_that_transformers_loads(tmp_path: Path, inputs: dict[str, Path], tokenizer: Tokenizer) -> None:
    metrics = _stage(sft.run, SFT.model_copy(update={"epochs": 12}), inputs, tmp_path / "sft")
    assert metrics["last_loss"] < 0.5 * metrics["first_loss"]
    rows = [json.loads(line) for line in (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, metrics["steps"] + 1))
    assert rows[-1]["tokens"] == metrics["tokens"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "sft" / "model")
    assert loaded.generation_config.eos_token_id == stop_ids(tokenizer)
    messages = [{"role": "user", "content": "What is the capital of Egypt?"}]
    hf = AutoTokenizer.from_pretrained(tmp_path / "sft" / "model")
    prompt = hf.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert loaded.generate(**prompt, max_new_tokens=3).shape[1] > prompt["input_ids"].shape[1]


def test_the_first_loss_of_sft_is_the_mean_over_the_assistant_tokens_of_the_global_batch(tmp_path: Path, inputs: dict[str, Path], tokenizer: Tokenizer) -> None:
    metrics = _stage(sft.run, SFT.model_copy(update={"global_batch": 1000, "epochs": 1}), inputs, tmp_path / "sft")
    model, total, count = load_model(inputs["model"] / "model"), 0.0, 0
    for line in (tmp_path / "sft.jsonl").read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        for end, message in enumerate(messages, 1):
            if message["role"] == "assistant":
                example = response_example(tokenizer, messages[:end - 1], message["content"])
                total -= dpo.log_probabilities(model, [example]).item()
                count += example.trained_tokens
    assert metrics["first_loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_loss_of_dpo_starts_at_log_two_and_prefers_the_chosen_in_the_end(tmp_path: Path, inputs: dict[str, Path]) -> None:
    metrics = _stage(dpo.run, DPO.model_copy(update={"epochs": 8}), inputs, tmp_path / "dpo")
    assert metrics["first"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert metrics["last"]["accuracy"] == 1.0
    assert metrics["last"]["rewards/margin"] > 0.5
    rows = [json.loads(line) for line in (tmp_path / "dpo" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["learning_rate"] == pytest.approx(1e-3)
    assert rows[-1]["learning_rate"] == pytest.approx(5e-4)


def test_the_dpo_loss_is_the_formula_of_the_paper(tokenizer: Tokenizer, model: LlamaForCausalLM) -> None:
    messages, beta = [{"role": "user", "content": "Capital of Egypt?"}], 0.3
    chosen, rejected = (response_example(tokenizer, messages, text) for text in ("Cairo.", "I do not know it."))
    pair = dpo.Pair(chosen, rejected, reference_chosen=-20.0, reference_rejected=-25.0)
    loss, sums = dpo.preference_loss(beta)(model, [pair])

    def log_p(example: Any) -> torch.Tensor:
        ids = torch.tensor([example.ids])
        by_token = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
        return (by_token * torch.tensor(example.mask[1:])).sum()

    margin = beta * ((log_p(chosen) + 20) - (log_p(rejected) + 25))
    torch.testing.assert_close(loss, -F.logsigmoid(margin), rtol=1e-4, atol=1e-4)
    assert float(sums["rewards/margin"]) == pytest.approx(margin.item(), rel=1e-4)


def test_the_reference_is_computed_once_and_a_torn_cache_again(tmp_path: Path, tokenizer: Tokenizer, model: LlamaForCausalLM) -> None:
    pair = dpo.Pair(*(response_example(tokenizer, [{"role": "user", "content": "Hello"}], text) for text in ("Yes, it is.", "No.")))
    cache = tmp_path / "reference.npy"
    expected = dpo.log_probabilities(model, [pair.chosen]).item()

    def referred(model: LlamaForCausalLM, begun: bool = False) -> list[dpo.Pair]:
        trainer = Trainer(model, OptimizerSettings(learning_rate=1e-3), precision="fp32", global_batch=1, total_steps=1, work=tmp_path)
        trainer.start_step = int(begun)
        return dpo.with_reference(trainer, model, [pair], cache)

    first = referred(model)
    assert first[0].reference_chosen == pytest.approx(expected, rel=1e-5)
    assert referred(small_model(tokenizer, seed=1), begun=True) == first
    cache.write_bytes(cache.read_bytes()[:40])
    assert referred(small_model(tokenizer, seed=1)) != first
    cache.write_bytes(cache.read_bytes()[:40])
    with pytest.raises(StageFailed, match=r"reference\.npy is missing or damaged, and the training that it belongs to has begun"):
        referred(small_model(tokenizer, seed=1), begun=True)


def _sample_config(tmp_path: Path, count: int = 7) -> tuple[SampleConfig, Path]:
    lines = (sample_data.root() / "chat" / "preferences.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    path = tmp_path / "preferences.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    ref = FileRef(path=path.name, sha256=file_sha256(path), size=path.stat().st_size)
    return SampleConfig(path=path.name, samples=4, max_new_tokens=6, files=(ref,)), tmp_path


def test_sampling_goes_on_after_the_last_whole_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inputs: dict[str, Path]) -> None:
    config, root = _sample_config(tmp_path)
    inputs = inputs | {"root": root}
    monkeypatch.setattr(sample_stage, "ROWS", 8)
    metrics = _stage(sample_stage.run, config, inputs, tmp_path / "whole")
    assert metrics["samples"] == 28
    calls = []
    original = sample_stage.generate

    def generate_or_die(*args: Any) -> Any:
        calls.append(len(args[2]))
        if len(calls) == 3:
            raise Killed
        return original(*args)

    monkeypatch.setattr(sample_stage, "generate", generate_or_die)
    with pytest.raises(Killed):
        _stage(sample_stage.run, config, inputs, tmp_path / "killed")
    with open(tmp_path / "killed" / "work" / "samples.jsonl", "ab") as file:
        file.write(b'["torn')
    assert _stage(sample_stage.run, config, inputs, tmp_path / "killed") == metrics
    assert len(calls) == 5  # two batches, the one that died, and the two that were left
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "whole")


def test_the_settings_are_used_in_turn(tmp_path: Path, inputs: dict[str, Path]) -> None:
    config, root = _sample_config(tmp_path, 2)
    _stage(sample_stage.run, config.model_copy(update={"samples": 7}), inputs | {"root": root}, tmp_path / "out")
    for line in (tmp_path / "out" / "candidates.jsonl").read_text(encoding="utf-8").splitlines():
        found = [(r["temperature"], r["top_p"]) for r in json.loads(line)["rejected"]]
        assert found == [(s.temperature, s.top_p) for s in (*config.settings, *config.settings[:2])]


def test_a_preference_without_a_chosen_response_is_named(tmp_path: Path, inputs: dict[str, Path]) -> None:
    path = tmp_path / "preferences.jsonl"
    path.write_text(json.dumps({"id": "x", "language": "en", "messages": [{"role": "user", "content": "Hello"}]}))
    ref = FileRef(path=path.name, sha256=file_sha256(path), size=path.stat().st_size)
    with pytest.raises(UserError, match=r"preferences.jsonl, row 1: needs a language \(en or ar\) and a chosen response"):
        _stage(sample_stage.run, SampleConfig(path=path.name, files=(ref,)), inputs | {"root": tmp_path}, tmp_path / "out")


def test_prompts_that_leave_no_room_for_an_answer_are_left_out_and_counted(tmp_path: Path, inputs: dict[str, Path]) -> None:
    config, root = _sample_config(tmp_path, 3)
    path = root / config.files[0].path
    long = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    long |= {"id": "long", "messages": [{"role": "user", "content": "ما عاصمة مصر؟ " * 2000}]}
    path.write_text(json.dumps(long) + "\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    ref = config.files[0].model_copy(update={"sha256": file_sha256(path), "size": path.stat().st_size})
    metrics = _stage(sample_stage.run, config.model_copy(update={"files": (ref,)}), inputs | {"root": root}, tmp_path / "out")
    assert (metrics["prompts"], metrics["prompts_too_long"]) == (3, 1)
    with pytest.raises(UserError, match="none of 4 prompts leaves room"):
        _stage(sample_stage.run, config.model_copy(update={"files": (ref,), "max_new_tokens": 10**6}), inputs | {"root": root}, tmp_path / "none")
