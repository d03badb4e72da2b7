"""Bases of other architectures than Llama's go the whole way: import, extension, continued pretraining, SFT, DPO, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_stages import Stages
from transformers import AutoConfig, AutoModelForCausalLM

from allam.align import dpo, sft
from allam.align.config import DpoConfig, SftConfig
from allam.architectures import architecture_of
from allam.cluster import ClusterProfile
from allam.engine.model import load_model
from allam.errors import UserError
from allam.files import FileTable
from allam.section import HeldOut
from allam.train import export, extend, import_model, mix, pack, pretrain
from allam.train.config import ExtendConfig, ImportConfig, MixStageConfig, ModelConfig, PackConfig, PhaseConfig, PretrainStageConfig

PIECES, LENGTH, BATCH, TOKENS = 340, 16, 8, 1280
SHAPE = {"vocab_size": PIECES, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 256, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
KINDS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8}, "gemma2": {"head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0},
    "gpt_neox": {}, "olmo2": {}, "phi3": {}, "cohere": {"logit_scale": 0.3}, "gpt2": {}, "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48},
}
MIXTURE = {"components": {"en": 0.5, "ar": 0.5}, "domains": {"en": {"web": 1.0}, "ar": {"web": 1.0}}, "max_epochs": 50}


def base(kind: str, folder: Path) -> Path:
    """As the hub has it: written by transformers, in bf16."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE | KINDS[kind]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


class Way(Stages):
    """The training path of an imported base."""

    def imported(self, kind: str, tokenizer: Path) -> Path:
        files = FileTable(self.root).resolve("train.import_model.model", base(kind, self.root / "base").name)
        return self.stage("import_model", import_model, ImportConfig(model="base", files=files), tokenizer=tokenizer)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAM_CLUSTER", ClusterProfile(threads=1).model_dump_json())


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Path], merged_tokenizer: Path) -> tuple[Path, Path]:
    way = Way(tmp_path_factory.mktemp("packs"))
    packs = way.stage("pack", pack, PackConfig(held_out=HeldOut(share=0.05), held_out_bytes=200), **corpus, tokenizer=merged_tokenizer)
    given = MIXTURE | {"tokens": TOKENS, "sequence_length": LENGTH, "global_batch": BATCH}
    return packs, way.stage("mix", mix, MixStageConfig.model_validate(given), pack=packs)


def phase(**changes: Any) -> PretrainStageConfig:
    given = {"tokens": TOKENS, "global_batch": BATCH, "sequence_length": LENGTH, "precision": "fp32", "mix": MIXTURE,
             "optimizer": {"learning_rate": 5e-3}}
    return PretrainStageConfig(model=ModelConfig(), phase=PhaseConfig.model_validate(given | changes))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_base_of_another_architecture_goes_the_whole_way(kind: str, tmp_path: Path, base_tokenizer: Path, merged_tokenizer: Path,
                                                           packed: tuple[Path, Path]) -> None:
    way, (packs, order) = Way(tmp_path), packed
    imported = way.imported(kind, base_tokenizer)
    extended = way.stage("extend", extend, ExtendConfig(), model=imported, base_tokenizer=base_tokenizer, tokenizer=merged_tokenizer)
    proof = way.metrics["extend"]["proof"]
    tied = AutoConfig.from_pretrained(tmp_path / "base").tie_word_embeddings
    assert len(proof["new_rows"]) == 2 - tied
    assert next(iter(proof["new_rows"])) in architecture_of(kind).inputs
    continued = way.stage("continue", pretrain, phase(attend_across_documents=kind == "opt"), model=extended, tokenizer=merged_tokenizer, pack=packs,
                          mix=order, held_out=packs)
    bits = way.metrics["continue"]["bits_per_byte"]
    assert all(bits["after"][c] < bits["before"][c] for c in bits["after"])
    exported = way.stage("export", export, None, model=continued, tokenizer=merged_tokenizer)
    assert way.metrics["export"]["greedy_tokens_compared"] > 20
    assert type(load_model(exported / "model")) is type(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "base")))


def test_finetuning_and_preferences_train_a_model_with_a_soft_cap(tmp_path: Path, base_tokenizer: Path, merged_tokenizer: Path) -> None:
    way = Way(tmp_path)
    extended = way.stage("extend", extend, ExtendConfig(), model=way.imported("gemma2", base_tokenizer), base_tokenizer=base_tokenizer,
                         tokenizer=merged_tokenizer)
    (tmp_path / "curated").mkdir()
    asked = [[{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"A number, {i}."}] for i in range(8)]
    (tmp_path / "curated" / "sft.jsonl").write_text("".join(json.dumps({"messages": m}) + "\n" for m in asked))
    tuned = way.stage("sft", sft, SftConfig(global_batch=4, epochs=4, learning_rate=5e-3, precision="fp32", warmup_steps=1, max_length=128), model=extended,
                      tokenizer=merged_tokenizer, conversations=tmp_path / "curated")
    assert way.metrics["sft"]["last_loss"] < way.metrics["sft"]["first_loss"]
    pairs = [{"messages": m[:1], "chosen": m[1]["content"], "rejected": "No."} for m in asked]
    (tmp_path / "curated" / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    way.stage("dpo", dpo, DpoConfig(global_batch=4, epochs=2, learning_rate=1e-4, final_learning_rate=1e-5, precision="fp32", max_length=128), model=tuned,
              tokenizer=merged_tokenizer, pairs=tmp_path / "curated")
    assert way.metrics["dpo"]["first"]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert way.metrics["dpo"]["last"]["loss"] < way.metrics["dpo"]["first"]["loss"]
    way.stage("export", export, None, model=tmp_path / "dpo", tokenizer=merged_tokenizer)


def test_what_can_not_be_had_is_refused_by_the_stages_too(tmp_path: Path, base_tokenizer: Path, merged_tokenizer: Path, packed: tuple[Path, Path]) -> None:
    way, (packs, order) = Way(tmp_path), packed
    imported = way.imported("opt", base_tokenizer)
    extended = way.stage("extend", extend, ExtendConfig(), model=imported, base_tokenizer=base_tokenizer, tokenizer=merged_tokenizer)
    with pytest.raises(UserError, match=r"'opt' doesn't keep attention within the documents(.|\n)*set attend_across_documents to true"):
        way.stage("continue", pretrain, phase(attend_across_documents=False), model=extended, tokenizer=merged_tokenizer, pack=packs, mix=order,
                  held_out=packs)
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "gptj"}))
    files = FileTable(tmp_path).resolve("train.import_model.model", "base")
    with pytest.raises(UserError, match="models of type 'gptj' are not among those"):
        import_model.run(ImportConfig(model="base", files=files), {"tokenizer": base_tokenizer, "root": tmp_path}, tmp_path / "again")
