"""Each model of transformers that is known is trained on its own loss, keeps documents apart or refuses to, and goes on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import SETTINGS, batch_of, loss
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from allam.architectures import KNOWN, dropout_refusal, packing_refusal, refusal
from allam.cluster import ClusterProfile
from allam.engine.logits import check_own_loss, logits_of
from allam.engine.loss import document_positions, make_loss_head, summed_loss, token_losses
from allam.engine.trainer import Trainer
from allam.errors import UserError

VOCAB, LENGTH, BATCH = 64, 16, 8
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PECULIAR: dict[str, dict[str, Any]] = {  # what of each type could be passed over
    "cohere": {"logit_scale": 0.3}, "cohere2": {"logit_scale": 0.3, "sliding_window": 8}, "falcon": {"hidden_dropout": 0.5, "attention_dropout": 0.5},
    "gemma": {"head_dim": 8}, "gemma2": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 0.5},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 0.5}, "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8}, "gpt2": {"embd_pdrop": 0.5}, "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0}, "mistral": {"sliding_window": 8},
    "opt": {"dropout": 0.5, "word_embed_proj_dim": 32, "ffn_dim": 48}, "phi3": {"sliding_window": 8}, "starcoder2": {"residual_dropout": 0.5},
}
SAMPLE = ("gemma2", "gpt_neox", "mistral", "olmo2", "phi3", "falcon", "granite")


def tiny(kind: str) -> PreTrainedModel:
    """Weights large enough that the loss says which model it is."""
    config = AutoConfig.for_model(kind, **SHAPE | PECULIAR.get(kind, {}))
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn_like(parameter)
    return model.eval()


def trainer(kind: str, work: Path, steps: int = 6, **profile: Any) -> Trainer:
    work.mkdir(exist_ok=True)
    return Trainer(tiny(kind), SETTINGS, precision=profile.pop("precision", "fp32"), global_batch=BATCH, total_steps=steps, work=work,
                   profile=ClusterProfile(threads=1, micro_batch=4, checkpoint_seconds=1e6, **profile))


def learn(of: Trainer, until: int) -> dict[str, torch.Tensor]:
    of.losses = []  # type: ignore[attr-defined]
    for step in of.steps():
        of.losses.append(of.step(batch_of(step), loss, denominator=BATCH * LENGTH).loss)  # type: ignore[attr-defined]
        of.log((step + 1) * BATCH * LENGTH, LENGTH)
        if step + 1 == until:
            of.save(until)
            break
    return dict(of.weights())


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_the_loss_and_its_gradient_are_those_of_transformers_own_class(kind: str) -> None:
    ids = torch.stack(batch_of(0))
    model = tiny(kind)
    theirs = model(ids, labels=ids).loss
    theirs.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    make_loss_head(model)
    total, losses = summed_loss(model, ids[:, :-1], ids[:, 1:])
    (total / losses.numel()).backward()
    assert float(total.detach() / losses.numel()) == pytest.approx(float(theirs.detach()), rel=2e-6)
    for name, parameter in model.named_parameters():
        if name in wanted:
            assert torch.allclose(parameter.grad, wanted[name], atol=1e-6 + 1e-4 * float(wanted[name].abs().max())), name  # type: ignore[arg-type]
    blocks = token_losses(model, ids[:, :-1], ids[:, 1:], whole_logits=VOCAB * 10)
    assert float(blocks.detach().sum()) == pytest.approx(float(total.detach()), rel=1e-6)


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_packed_documents_are_what_they_are_by_themselves_or_packing_is_refused(kind: str) -> None:
    model = tiny(kind)
    first, second = torch.tensor([[1, *range(5, 16)]]), torch.tensor([[1, *range(30, 44)]])
    packed = torch.cat([first, second], dim=1)
    targets = packed.roll(-1, dims=1)
    with torch.no_grad():
        alone = torch.cat([token_losses(model, first, targets[:, :12]), token_losses(model, second, targets[:, 12:])], dim=1)
        together = token_losses(model, packed, targets, positions_BT=document_positions(packed, 1))
    assert torch.allclose(together, alone, atol=1e-5) is (packing_refusal(kind) is None)


@pytest.mark.parametrize("kind", SAMPLE)
def test_some_steps_lower_the_loss_and_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    whole = trainer(kind, tmp_path / "whole")
    expected = learn(whole, 0)
    assert whole.losses[-1] < whole.losses[0]  # type: ignore[attr-defined]
    learn(trainer(kind, tmp_path / "cut"), 3)
    resumed = trainer(kind, tmp_path / "cut")
    assert resumed.start_step == 3
    found = learn(resumed, 0)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["gemma2", "gpt_neox"])
def test_zero_3_with_bf16_starts_and_learns(tmp_path: Path, kind: str) -> None:
    of = trainer(kind, tmp_path, zero_stage=3, precision="bf16", activation_checkpointing=True)
    learn(of, 0)
    assert of.losses[-1] < of.losses[0]  # type: ignore[attr-defined]


def test_what_a_model_does_to_its_logits_unknown_to_the_engine_is_found_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "gemma2", KNOWN["phi3"])
    with pytest.raises(UserError, match=r"the engine's loss of this gemma2 model, .*, is not that of its own logits"):
        trainer("gemma2", tmp_path)


def test_the_dropout_that_a_model_comes_with_is_off(tmp_path: Path) -> None:
    of = trainer("gpt2", tmp_path)  # would draw anew in each of the two
    ours, own = of._zero.call(check_own_loss, token_losses)
    assert float(ours) == pytest.approx(float(own), rel=1e-6)
    assert of._zero.module.config.embd_pdrop == 0.5  # type: ignore[union-attr]


def test_logits_are_the_models_own() -> None:
    model, ids = tiny("gemma2"), torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        assert torch.allclose(logits_of(model, model.base_model(ids).last_hidden_state), model(ids).logits)


def test_other_types_dropout_and_layouts_are_refused_by_name(tmp_path: Path) -> None:
    assert "models of type 'mamba'" in "".join(refusal({"model_type": "mamba"}) or ())
    assert "one of the types arcee, cohere" in "".join(refusal({"model_type": "t5"}) or ())
    assert "ALiBi" in "".join(refusal({"model_type": "falcon", "alibi": True}) or ())
    assert dropout_refusal("llama") is None
    with pytest.raises(UserError, match=r"know llama, mistral, qwen2, qwen3, and this model is 'phi3'(.|\n)*set both to 1 and zero_stage to 3"):
        trainer("phi3", tmp_path, ranks=2, tensor_parallel=2)
    with pytest.raises(UserError, match=r"this model is 'phi3'(.|\n)*set dropout to 0"):
        Trainer(tiny("phi3"), SETTINGS, precision="fp32", global_batch=BATCH, total_steps=1, work=tmp_path, dropout=0.1, profile=ClusterProfile(threads=1))
