"""A model of any stage or checkpoint becomes a folder that transformers loads and that answers as the engine does; its card says what it was made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from allam.artifacts import KEY_DIGITS_IN_PATH, Manifest, commit, write_json
from allam.cluster import ClusterProfile
from allam.engine import checkpoint
from allam.engine.model import load_config, load_model, tensors_of
from allam.errors import ArtifactError, StageFailed, UserError
from allam.generate.sampler import generate
from allam.section import HeldOut
from allam.text.tokenizer import Tokenizer
from allam.train import export, mix, pack, pretrain
from allam.train.card import Origin
from allam.train.config import MixStageConfig, ModelConfig, PackConfig, PhaseConfig, PretrainStageConfig
from allam.train.export import find_checkpoint

LENGTH, BATCH, STEPS = 16, 8, 30
MIX = {"components": {"en": 0.5, "ar": 0.5}, "domains": {"en": {"web": 1.0}, "ar": {"web": 1.0}}, "max_epochs": 20}


class Trained:
    """A small store with a pretrained model of random beginnings, and its checkpoints of the steps 10 and 20."""

    def __init__(self, root: Path, corpus: dict[str, Path], tokenizer: Path, tied: bool) -> None:
        self.root, self.tokenizer, self.refs = root, tokenizer, dict[str, dict[str, str]]()
        for name, folder in corpus.items():
            shutil.copytree(folder, self._folder(name))
        tokens = STEPS * BATCH * LENGTH
        self.pack = self._made("pack", pack, PackConfig(held_out=HeldOut(share=0.1), held_out_bytes=1000), ("natural", "translated"))
        self.mix = self._made("mix", mix, MixStageConfig.model_validate(MIX | {"tokens": tokens, "sequence_length": LENGTH, "global_batch": BATCH}), ("pack",))
        phase = PhaseConfig.model_validate({"tokens": tokens, "global_batch": BATCH, "sequence_length": LENGTH, "precision": "fp32", "mix": MIX,
                                            "optimizer": {"learning_rate": 1e-2}})
        shape = ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48, max_positions=64, tied_embeddings=tied)
        self.artifact = self._made("pretrain", pretrain, PretrainStageConfig(model=shape, phase=phase), ("pack", "mix"))

    def _folder(self, name: str) -> Path:
        self.refs[name] = {"kind": name, "key": f"{len(self.refs):064d}"[::-1]}
        return self.root / name / self.refs[name]["key"][:KEY_DIGITS_IN_PATH]

    def _made(self, name: str, module: Any, config: Any, inputs: tuple[str, ...]) -> Path:
        given = {n: self.refs[n] for n in inputs}
        folder = self._folder(name)
        (folder / "work").mkdir(parents=True)
        about = {"name": name, "kind": name, "version": 1, "key": self.refs[name]["key"], "config": config.model_dump(mode="json"), "inputs": given}
        paths = {n: self.root / ref["kind"] / ref["key"][:KEY_DIGITS_IN_PATH] for n, ref in given.items()}
        write_json(folder / "job.json", about | {"paths": {n: str(path) for n, path in paths.items()}})
        metrics = module.run(config, paths | {"tokenizer": self.tokenizer, "held_out": paths.get("pack", folder)}, folder)
        commit(folder, Manifest(**about, outputs={}, metrics=metrics, started_at="", seconds=0, peak_memory_bytes=0, world_size=1, versions={}))
        return folder


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Path], merged_tokenizer: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLAM_CLUSTER", ClusterProfile(threads=1, checkpoint_steps=10).model_dump_json())
        yield Trained(tmp_path_factory.mktemp("store"), corpus, merged_tokenizer, request.param)


@pytest.mark.parametrize("step", [10, 20, None])
def test_the_exported_folder_answers_in_transformers_as_the_engine_does_token_by_token(trained: Trained, tmp_path: Path, step: int | None) -> None:
    made = export.export(Origin(trained.artifact, step), trained.tokenizer, tmp_path / "model")
    assert made["greedy_tokens_compared"] > 0
    tensors = dict(tensors_of(tmp_path / "model"))
    if step is None:
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in tensors_of(trained.artifact / "model"))
    else:
        kept = checkpoint.Reader(trained.artifact / "checkpoints" / f"step-{step:08d}")
        assert sorted(tensors) == kept.weights()
        assert all(torch.equal(tensor, kept(f"weight/{name}")) for name, tensor in tensors.items())
    assert load_config(tmp_path / "model").to_diff_dict() == load_config(trained.artifact / "model").to_diff_dict()
    tokenizer = Tokenizer.load(trained.tokenizer)
    theirs, ours = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto"), load_model(tmp_path / "model")
    ends = theirs.generation_config.eos_token_id
    for text in ("The camel carries", "في الأسبوع", "for i in range"):
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        found = theirs.generate(torch.tensor([ids]), max_new_tokens=24)[0, len(ids):].tolist()
        [expected] = generate(ours, tokenizer, [ids], max_new_tokens=24, temperature=0, top_p=1, seed=0, stop_ids=ends)
        assert (found[:-1] if found[-1] in ends else found) == expected


def test_an_export_that_answers_otherwise_is_refused(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = export.save_model
    monkeypatch.setattr(export, "save_model", lambda folder, config, weights, *rest: save(folder, config, ((n, w * -1) for n, w in weights), *rest))
    with pytest.raises(StageFailed, match="greedy answers of the exported model differ from the engine's"):
        export.export(Origin(trained.artifact, 20), trained.tokenizer, tmp_path / "model")


def test_the_card_and_the_recipe_say_what_a_checkpoint_was_made_of(trained: Trained, tmp_path: Path) -> None:
    export.export(Origin(trained.artifact, 10), trained.tokenizer, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    row = json.loads((trained.artifact / "metrics.jsonl").read_text().splitlines()[9])
    first = json.loads((trained.artifact / "evals.jsonl").read_text().splitlines()[0])["bits_per_byte"]["en"]
    assert f"| pretrain | 10 of {STEPS} | {10 * BATCH * LENGTH:,} | {row['loss']} | English {first:.4f} → " in card
    assert f"| pretrain | English | web | {10 * BATCH * LENGTH // 2:,} |" in card
    assert "| pack | MIT | English | " in card
    assert "| pack | (none given) | Arabic | " in card
    assert "continues text" in card
    recipe = json.loads((tmp_path / "model" / "recipe.json").read_text())
    assert list(recipe) == ["pack", "mix", "pretrain"]
    assert recipe["pretrain"]["config"]["phase"]["optimizer"]["learning_rate"] == 1e-2
    export.export(Origin(trained.artifact, benchmarks={"facts_en": {"accuracy": 0.5}}), trained.tokenizer, tmp_path / "whole")
    card = (tmp_path / "whole" / "README.md").read_text()
    assert f"| pretrain | {STEPS} | {STEPS * BATCH * LENGTH:,} | " in card
    assert '"accuracy": 0.5' in card


def test_the_card_lists_the_licences_of_what_was_trained_on_alone(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.root, tmp_path / "store")
    artifact = tmp_path / "store" / trained.artifact.relative_to(trained.root)
    ledger = json.loads((artifact / "ledger.json").read_text())
    (artifact / "ledger.json").write_text(json.dumps({"en": ledger["en"]}))
    export.export(Origin(artifact), trained.tokenizer, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| pack | MIT | English | " in card
    assert "Arabic |" not in card


def test_a_checkpoint_that_is_damaged_or_not_there_or_of_another_tokenizer_is_refused(trained: Trained, tmp_path: Path, base_tokenizer: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint of step 7: there are those of the steps 10, 20"):
        find_checkpoint(trained.artifact, 7)
    with pytest.raises(UserError, match="is of the tokenizer"):
        export.export(Origin(trained.artifact, 10), base_tokenizer, tmp_path / "model")
    copy = tmp_path / "copy"
    shutil.copytree(trained.artifact, copy)
    target = copy / "checkpoints" / "step-00000010" / "00000.safetensors"
    target.write_bytes(target.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"is damaged: 00000\.safetensors differs from its checksum"):
        export.export(Origin(copy, 10), trained.tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_large_models_are_exported_in_shards(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allam.engine.model.SHARD_BYTES", 30_000)
    export.export(Origin(trained.artifact, 20), trained.tokenizer, tmp_path / "model")
    shards = sorted((tmp_path / "model").glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    assert {shard.stat().st_mode & 0o777 for shard in shards} == {(tmp_path / "model" / "config.json").stat().st_mode & 0o777}
    named = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name for shard in shards for name in load_file(shard)} == set(named)
