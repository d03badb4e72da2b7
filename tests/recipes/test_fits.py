"""What a profile can't train is said before anything runs: in the plan, and as the run's refusal."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Qwen3Config

from allam.align.foreseen import LINES
from allam.cluster import ClusterProfile, load_profile
from allam.costs import beside_the_paper, training_costs
from allam.engine.model import flops_per_token as engine_flops
from allam.errors import UserError
from allam.fits import misfits, state_bytes
from allam.pipeline import make_plan
from allam.recipe import load
from allam.train.estimate import Dimensions, flops_per_token, parameters, parameters_of_a_rank
from flows.run import open_run, refuse_what_cannot_run


def test_a_batch_that_the_ranks_cannot_share_is_named_with_its_stage() -> None:
    plan = make_plan(load("demo", ["train.continue.global_batch=20"]))
    found = misfits(plan, ClusterProfile(ranks=8), plan.specs.values())
    assert [line for line in found if line.startswith("continue: global_batch 20 doesn't divide by the 8 ranks")]
    assert not misfits(plan, ClusterProfile(ranks=4), [plan.specs["continue"]])


def test_what_is_true_of_several_stages_is_said_once_with_their_names() -> None:
    plan = make_plan(load("demo", [f"{stage}.global_batch=16" for stage in ("train.pretrain", "train.continue", "align.sft", "align.dpo")]))
    [told] = misfits(plan, ClusterProfile(ranks=3), plan.specs.values())
    assert told.startswith("pretrain, continue, sft, dpo: global_batch 16 doesn't divide by the 3 ranks")


def test_a_profile_without_a_name_is_called_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "our cluster.yaml").write_text("ranks: 3\n", encoding="utf-8")
    assert load_profile(str(tmp_path / "our cluster.yaml")).name == "our-cluster"
    (tmp_path / "node.yaml").write_text("name: other\n", encoding="utf-8")
    assert load_profile(str(tmp_path / "node.yaml")).name == "other"


def test_the_papers_recipes_stand_beside_the_papers_gpu_hours() -> None:
    assert "the paper names about 5 million GPU hours" in str(beside_the_paper("allam_7b", load_profile("node8")))
    assert beside_the_paper("demo", ClusterProfile()) is None


def test_copies_of_a_divided_model_share_the_batch() -> None:
    plan = make_plan(load("demo", ["train.continue.global_batch=20"]))
    assert not misfits(plan, ClusterProfile(ranks=8, tensor_parallel=2), [plan.specs["continue"]])
    [told] = misfits(plan, ClusterProfile(ranks=16, tensor_parallel=2), [plan.specs["continue"]])
    assert "doesn't divide by the 8 copies of the model (16 ranks, 2 to a copy)" in told
    assert "set ranks in the cluster profile to 2 times a divisor of 20" in told


def test_a_layout_that_the_models_shape_does_not_allow_is_named_with_the_nearest_one_before_anything_runs(tmp_path) -> None:
    plan = make_plan(load("demo", ["train.model.heads=4", "train.model.kv_heads=2"]))
    [told] = misfits(plan, ClusterProfile(ranks=4, tensor_parallel=4), [plan.specs["continue"]])
    assert told.startswith("continue: tensor_parallel 4 doesn't divide the model's 4 heads, 2 key and value heads")
    assert told.endswith("set tensor_parallel to 2 in the cluster profile")


def test_tensor_and_pipeline_parallelism_divide_the_memory_of_the_blocks() -> None:
    shape = Dimensions.of(load("allam_7b").train.model)
    whole = parameters(shape, 64_000)
    assert parameters_of_a_rank(shape, 64_000, 1, 1) == whole
    embeddings = 64_000 * shape.hidden_size
    assert parameters_of_a_rank(shape, 64_000, 4, 1) == pytest.approx(2 * embeddings + (whole - 2 * embeddings) / 4, rel=1e-4)
    assert parameters_of_a_rank(shape, 64_000, 2, 4) == pytest.approx(embeddings + (whole - 2 * embeddings) / 8, rel=1e-4)


@pytest.mark.parametrize(("stage", "ranks", "precision", "gigabytes"), [
    (0, 1, "fp32", 16), (0, 4, "fp32", 16), (1, 4, "fp32", 4 + 4 + 3), (0, 1, "bf16", 18), (1, 4, "bf16", 2 + 4 + 3), (2, 4, "bf16", 2 + 1 + 3),
    (3, 4, "bf16", 4.5)])
def test_the_memory_of_a_rank_follows_the_stage_of_zero(stage: int, ranks: int, precision: str, gigabytes: float) -> None:
    assert state_bytes(1_000_000_000, precision, ClusterProfile(ranks=ranks, zero_stage=stage)) == gigabytes * 1e9


def test_an_optimizer_on_the_host_takes_no_memory_of_the_device_and_needs_zero() -> None:
    assert state_bytes(1_000_000_000, "bf16", ClusterProfile(ranks=4, zero_stage=2, offload_optimizer=True)) == (2 + 1) * 1e9
    with pytest.raises(ValueError, match="set zero_stage to 1, 2 or 3"):
        ClusterProfile(offload_optimizer=True)


def test_a_model_that_does_not_fit_the_devices_is_refused_until_enough_of_them_share_it() -> None:
    plan = make_plan(load("allam_70b"))
    eight = ClusterProfile(ranks=8, zero_stage=2, device_memory_gb=80)
    assert "continue: weights, gradients and optimizer take" in misfits(plan, eight, [plan.specs["continue"]])[0]
    assert misfits(plan, eight.model_copy(update={"ranks": 32, "zero_stage": 3}), [plan.specs["continue"]]) == []
    assert misfits(plan, eight.model_copy(update={"device_memory_gb": None}), [plan.specs["continue"]]) == []


def test_a_run_is_refused_before_its_first_stage(tmp_path) -> None:
    profile = tmp_path / "small.yaml"
    profile.write_text("name: small\nranks: 3\ndevice_memory_gb: 0.001\n", encoding="utf-8")
    run = open_run("demo", [], str(profile), str(tmp_path / "store"))
    with pytest.raises(UserError, match=r"pretrain.*: global_batch .* doesn't divide by the 3 ranks of the profile 'small'"):
        refuse_what_cannot_run(run, list(run.plan.specs.values()))
    refuse_what_cannot_run(run, [run.plan.specs["ingest"]])
    assert not (tmp_path / "store" / "ingest").exists()


def _costs(root: Path, *more: str, conversations: list[Any] | None = None, preferences: list[Any] | None = None) -> dict[str, Any]:
    """The estimates of a plan whose chats are these."""
    (root / "chat").mkdir(exist_ok=True)
    for name, rows in (("sft.jsonl.gz", conversations), ("preferences.jsonl", preferences)):
        if rows is not None:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
            (root / "chat" / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    given = [f"data.root={root}", "align.curate.path=chat/sft.jsonl.gz", "align.review.undecided=accept", *more]
    return training_costs(make_plan(load("demo", given)), ClusterProfile())


def _turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def test_finetuning_is_estimated_from_the_turns_in_its_files(tmp_path: Path) -> None:
    first, second = 1 + 12 / 4 + 2 + 8 / 4 + 2, 1 + 12 / 4 + 2 + 8 / 4 + 2 + 16 / 4 + 2 + 4 / 4 + 2  # where the two answers end
    talk = {"id": "1", "language": "en", "messages": _turns("a question? ", "answered", "and once more: ?", "done")}
    found = _costs(tmp_path, "align.sft.epochs=3", conversations=[talk, {"messages": "broken"}])["sft"]
    assert found.tokens == 3 * (first + second)
    assert "2 samples of 1 conversations" in found.assumes
    assert _costs(tmp_path, "align.sft.epochs=3", "align.sft.turn_augmentation=false")["sft"].tokens == 3 * second
    assert _costs(tmp_path, "align.sft.epochs=3", "align.sft.max_length=12")["sft"].tokens == 3 * first


def test_preferences_are_estimated_with_the_references_forward_pass(tmp_path: Path) -> None:
    asked = {"id": "1", "language": "en", "messages": _turns("a question? "), "chosen": "answered"}
    once = _costs(tmp_path, "align.sample.samples=5", preferences=[asked])["dpo"]
    assert once.tokens == 5 * 2 * (2 + 12 / 4 + 2 + 8 / 4 + 1)
    twice = _costs(tmp_path, "align.sample.samples=5", "align.dpo.epochs=2")["dpo"]
    assert twice.flops / once.flops == pytest.approx((2 + 1 / 3) / (1 + 1 / 3))


def test_where_the_decisions_are_known_only_accepted_prompts_count(tmp_path: Path) -> None:
    asked = [{"id": str(i), "language": "en", "messages": _turns("a question? "), "chosen": "answered"} for i in range(4)]
    whole = _costs(tmp_path, preferences=asked)["dpo"]
    assert _costs(tmp_path, "align.review.undecided=drop")["dpo"] == whole  # nobody has decided anything yet
    (tmp_path / "chat" / "decisions.jsonl").write_text('{"id": "0", "decision": "accept"}\n{"id": "1", "decision": "reject"}\n', encoding="utf-8")
    assert _costs(tmp_path, "align.review.undecided=drop", preferences=asked)["dpo"].tokens == whole.tokens / 4


def test_the_beginning_of_a_long_file_stands_for_the_rest(tmp_path: Path) -> None:
    numbers = random.Random(0)
    talks = [{"id": str(i), "messages": _turns(f"What is {numbers.getrandbits(900)}?", f"It is {numbers.getrandbits(900)}.")} for i in range(3 * LINES)]
    mean = 1 + 2 * 2 + sum(len(turn["content"]) for talk in talks for turn in talk["messages"]) / 4 / len(talks)
    found = _costs(tmp_path, "align.sft.epochs=1", conversations=talks)["sft"]
    assert found.tokens == pytest.approx(3 * LINES * mean, rel=0.05)
    assert "by the beginnings" in found.assumes
    assert _costs(tmp_path, "align.sft.epochs=1", "align.curate.max_conversations=100")["sft"].tokens == pytest.approx(100 * mean, rel=0.05)


def test_stages_whose_conversations_are_not_here_have_no_estimate(tmp_path: Path) -> None:
    assert sorted(_costs(tmp_path)) == ["continue", "pretrain"]


def test_a_damaged_file_of_conversations_leaves_its_stage_without_an_estimate(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    whole = gzip.compress(b'{"id": "1"}')
    for damaged in (whole[:10] + b"\xff" * 40, whole[:-9], b"plain"):
        (tmp_path / "chat" / "sft.jsonl.gz").write_bytes(damaged)
        assert "sft" not in _costs(tmp_path), damaged


def test_alignment_that_does_not_fit_the_devices_is_refused_as_pretraining_is() -> None:
    plan = make_plan(load("allam_70b"))
    found = misfits(plan, ClusterProfile(ranks=8, zero_stage=2, device_memory_gb=80), [plan.specs["sft"], plan.specs["dpo"]])
    assert found[0].startswith("sft, dpo: weights, gradients and optimizer take")


def test_compiled_blocks_are_refused_for_a_phase_with_dropout_and_for_no_other() -> None:
    plan = make_plan(load("demo", ["train.continue.dropout=0.1"]))
    found = misfits(plan, ClusterProfile(compile_blocks=True), plan.specs.values())
    assert found == ["continue: the cluster profile's compile_blocks don't go with dropout, whose masks they would draw otherwise: set compile_blocks to false"]


LLAMA = {"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
         "max_position_embeddings": 512, "tie_word_embeddings": False}


def _import(root: Path, *more: str, tensors: tuple[str, ...] = ("model.embed_tokens.weight", "lm_head.weight"), **changed: Any) -> list[str]:
    """What is said of a plan that imports a base of this config.json with these tensors, whose tokenizer has 512 pieces."""
    (root / "base").mkdir(exist_ok=True)
    (root / "base" / "config.json").write_text(json.dumps(LLAMA | changed), encoding="utf-8")
    save_file({name: torch.zeros(2, 2) for name in tensors}, root / "base" / "model.safetensors")
    given = ["train.pretrain=null", "train.import_model.model=base", "tokenizer.base.vocab_size=512", f"data.root={root}", *more]
    plan = make_plan(load("demo", given))
    return misfits(plan, ClusterProfile(), plan.specs.values())


def test_an_imported_base_that_fits_its_tokenizer_and_the_recipe_is_taken(tmp_path: Path) -> None:
    assert _import(tmp_path) == []
    assert _import(tmp_path, tie_word_embeddings=True, tensors=("model.embed_tokens.weight",)) == []
    assert _import(tmp_path, "train.extend.base_padding_rows=32", vocab_size=544) == []


@pytest.mark.parametrize(("told", "changed"), [
    ("extend: the imported model has 400 rows for its tokenizer's 512 pieces: give tokenizer.base.model the tokenizer", {"vocab_size": 400}),
    ("extend: the imported model has 544 rows for its tokenizer's 512 pieces and 0 padding rows: if its last 32 rows only pad it, "
     "set train.extend.base_padding_rows=32", {"vocab_size": 544}),
    ("is longer than the 8 positions of base: set train.continue.sequence_length to 8 at most", {"max_position_embeddings": 8, "model_type": "qwen2"}),
    ("(gpt2) has no tensor transformer.wte.weight: give a whole", {"model_type": "gpt2", "tensors": ("embed_tokens.weight",)}),
    ("import_model: base: models of type 'rwkv' are not among those that the engine is known to train rightly: give a decoder-only model of one of the types",
     {"model_type": "rwkv"}),
    ("base has lm_head.bias, with a value for each id", {"model_type": "phi", "tensors": ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias")}),
    ("(llama) has no tensor lm_head.weight", {"tensors": ("model.embed_tokens.weight",)})])
def test_an_imported_base_that_cannot_be_trained_is_refused_in_the_plan(tmp_path: Path, told: str, changed: dict[str, Any]) -> None:
    [found] = _import(tmp_path, **changed)
    assert told in found


def test_what_an_imported_base_of_another_architecture_can_not_have_is_refused_in_the_plan(tmp_path: Path) -> None:
    names = ("transformer.word_embeddings.weight", "lm_head.weight")
    assert _import(tmp_path, model_type="falcon", tensors=names) == []
    [packing] = _import(tmp_path, "train.continue.attend_across_documents=false", model_type="falcon", tensors=names)
    assert packing.endswith("packed sequence: set attend_across_documents to true")
    [dropout] = _import(tmp_path, "train.continue.dropout=0.1", model_type="gemma2")
    assert dropout.startswith("continue: dropout is added where llama, mistral, qwen2, qwen3 add to the residual stream, and this model is 'gemma2'")


def test_an_imported_base_costs_what_its_own_shape_says(tmp_path: Path) -> None:
    def flops(**changed: Any) -> float:
        _import(tmp_path, **changed)
        given = ["train.pretrain=null", "train.import_model.model=base", "tokenizer.base.vocab_size=512", f"data.root={tmp_path}"]
        return training_costs(make_plan(load("demo", given)), ClusterProfile())["continue"].flops

    assert flops(num_hidden_layers=20) > 3 * flops()
    assert flops(head_dim=32) > 1.1 * flops(head_dim=16) == pytest.approx(1.1 * flops())


def test_heads_wider_than_the_model_divided_by_their_number_count_as_wide_as_they_are() -> None:
    config = Qwen3Config(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                         tie_word_embeddings=True)
    shape = Dimensions(64, 3, heads=4, kv_heads=2, head_size=32, intermediate_size=96, tied_embeddings=True)
    count = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    norms = 3 * 2 * 32  # of queries and keys, which no other model has
    assert parameters(shape, 128) == count - norms
    assert flops_per_token(shape, 128, 100) == pytest.approx(engine_flops(config, count, 100), rel=0.01)
