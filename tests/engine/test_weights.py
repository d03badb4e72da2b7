"""A model whose values are read from its files when a rank takes its share is the model that transformers loads, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import SETTINGS, batch_of, loss
from transformers import AutoConfig, AutoModelForCausalLM

from allam.cluster import ClusterProfile
from allam.engine.model import load_model
from allam.engine.trainer import Trainer
from allam.engine.weights import Weights, is_without_values, open_model
from allam.layouts import ARCHITECTURES

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 64, "head_dim": 8}


def saved(folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, shard: str = "20KB", **changes: Any) -> Path:
    """In several shards, as the hub has large ones."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE | changes)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_shapes_buffers_configuration_and_values_are_those_that_transformers_loads(tmp_path: Path, kind: str, tied: bool) -> None:
    folder = saved(tmp_path, kind, torch.bfloat16, tie_word_embeddings=tied)
    (model, weights), whole = open_model(folder), load_model(folder)
    assert weights is not None
    assert {n: (p.shape, p.dtype, p.requires_grad) for n, p in model.named_parameters()} == {
        n: (p.shape, p.dtype, p.requires_grad) for n, p in whole.named_parameters()}
    assert all(is_without_values(p) and p.untyped_storage().nbytes() == 4 for p in model.parameters())
    assert all(torch.equal(weights.part(name), parameter) for name, parameter in whole.named_parameters())
    buffers = dict(whole.named_buffers())
    assert dict(model.named_buffers()).keys() == buffers.keys()
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert model.config.to_json_string() == whole.config.to_json_string()
    assert model.training is whole.training is False


def test_a_part_is_the_rows_or_columns_that_a_rank_holds_of_a_divided_layer(tmp_path: Path) -> None:
    weights = Weights(saved(tmp_path))
    name = "model.layers.1.mlp.up_proj.weight"
    for dimension in (0, 1):
        for number, part in enumerate(weights.part(name).chunk(4, dimension)):
            assert torch.equal(weights.part(name, dimension, 4, number), part)
            assert weights.part(name, dimension, 4, number).is_contiguous()


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")])
def test_training_from_files_ends_with_the_bits_of_training_from_memory(tmp_path: Path, stage: int, precision: Any) -> None:
    folder, found = saved(tmp_path / "model", tie_word_embeddings=stage == 2), []
    for model, weights in ((load_model(folder), None), open_model(folder)):
        work = tmp_path / str(len(found))
        work.mkdir()
        trainer = Trainer(model, SETTINGS, precision=precision, global_batch=8, total_steps=3, work=work, weights=weights,
                          profile=ClusterProfile(threads=1, micro_batch=4, checkpoint_seconds=1e6, zero_stage=stage))
        for step in trainer.steps():
            trainer.step(batch_of(step), loss, denominator=128)
            trainer.log((step + 1) * 128, 16)
        found.append(dict(trainer.weights()))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_what_only_transformers_knows_to_read_is_read_by_it(tmp_path: Path) -> None:
    model, weights = open_model(saved(tmp_path / "neox", "gpt_neox"))
    assert weights is None
    assert not any(is_without_values(p) for p in model.parameters())
