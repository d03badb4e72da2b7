"""Pretraining, extension, continuation and export over a small corpus: real models, compared tensor by tensor."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_stages import Stages
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from allam.artifacts import JOB, Manifest, commit, write_json
from allam.begin import begin_from
from allam.cluster import ClusterProfile
from allam.documents import read_shard, shards
from allam.engine.bits_per_byte import bits_per_byte
from allam.engine.loss import FUSED_LOGITS, document_positions, make_loss_head, summed_loss, token_losses
from allam.engine.model import load_model, new_model, save_model
from allam.engine.schedule import OptimizerSettings, learning_rate
from allam.errors import StageFailed, UserError
from allam.files import FileTable
from allam.pipeline import make_plan
from allam.recipe import load
from allam.section import HeldOut
from allam.text.tokenizer import Tokenizer
from allam.train import export, extend, import_model, measurements, mix, pack, pretrain
from allam.train.blame import documents_of
from allam.train.config import ExtendConfig, ImportConfig, MixStageConfig, ModelConfig, PackConfig, PhaseConfig, PretrainStageConfig
from allam.train.estimate import Dimensions, estimate, parameters
from allam.train.untouched import write_untouched
from allam.train.windows import Windows

LENGTH, BATCH = 16, 8
SHAPE = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 48, "max_positions": 64}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLAM_CLUSTER", ClusterProfile(threads=1).model_dump_json())
        yield


def phase(tokens: int, mixture: dict[str, Any], **changes: Any) -> PhaseConfig:
    return PhaseConfig.model_validate({"tokens": tokens, "global_batch": BATCH, "sequence_length": LENGTH, "precision": "fp32", "mix": mixture,
                                       "optimizer": {"learning_rate": 1e-2}} | changes)


ENGLISH = {"components": {"en": 1.0}, "domains": {"en": {"web": 0.8, "math": 0.2}}, "max_epochs": 20}
BOTH = {"components": {"en": 0.5, "ar": 0.5}, "domains": {"en": {"web": 1.0}, "ar": {"web": 1.0}}, "max_epochs": 20}


class TrainingPath(Stages):
    """The training path on disk, stage by stage."""

    def __init__(self, root: Path, corpus: dict[str, Path], base: Path, merged: Path, tied: bool) -> None:
        super().__init__(root)
        self.corpus, self.base, self.merged, self.tied = corpus, base, merged, tied

    def packed(self, name: str, tokenizer: Path, mixture: dict[str, Any], tokens: int) -> tuple[Path, Path]:
        packs = self.stage(f"pack_{name}", pack, PackConfig(held_out=HeldOut(share=0.1), held_out_bytes=1000), **self.corpus, tokenizer=tokenizer)
        config = MixStageConfig.model_validate(mixture | {"tokens": tokens, "sequence_length": LENGTH, "global_batch": BATCH})
        return packs, self.stage(f"mix_{name}", mix, config, pack=packs)

    def walk(self) -> None:
        shape = ModelConfig(**SHAPE, tied_embeddings=self.tied)
        packs, order = self.packed("base", self.base, ENGLISH, 6000)
        self.pretrained = self.stage("pretrain", pretrain, PretrainStageConfig(model=shape, phase=phase(6000, ENGLISH, eval_every=20)),
                                     tokenizer=self.base, pack=packs, mix=order, held_out=packs)
        self.extended = self.stage("extend", extend, ExtendConfig(), model=self.pretrained, base_tokenizer=self.base, tokenizer=self.merged)
        self.packs, self.order = self.packed("both", self.merged, BOTH, 6000)
        self.continued = self.stage("continue", pretrain, PretrainStageConfig(model=shape, phase=phase(6000, BOTH)), model=self.extended,
                                    tokenizer=self.merged, pack=self.packs, mix=self.order, held_out=self.packs)
        self.exported = self.stage("export", export, None, model=self.continued, tokenizer=self.merged)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Path], base_tokenizer: Path,
         merged_tokenizer: Path) -> TrainingPath:
    found = TrainingPath(tmp_path_factory.mktemp("path"), corpus, base_tokenizer, merged_tokenizer, request.param)
    found.walk()
    return found


def test_both_phases_lower_the_bits_per_byte_of_what_they_train_on(path: TrainingPath) -> None:
    before, after = (path.metrics["pretrain"]["bits_per_byte"][k]["en"] for k in ("before", "after"))
    assert after < 0.7 * before
    before, after = (path.metrics["continue"]["bits_per_byte"][k]["ar"] for k in ("before", "after"))
    assert after < 0.7 * before


def test_continuation_starts_where_the_extended_base_stands(path: TrainingPath) -> None:
    texts = measurements.read_held_out(path.packs)["ar"]
    measured = bits_per_byte(load_model(path.extended / "model"), Tokenizer.load(path.merged), texts, LENGTH)
    first = json.loads((path.continued / "evals.jsonl").read_text().splitlines()[0])
    assert (first["step"], first["bits_per_byte"]["ar"]) == (0, pytest.approx(measured, rel=1e-5))


def test_attention_can_be_kept_within_a_document() -> None:
    model = new_model(LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2), 0)
    first, second = torch.tensor([[1, 7, 8, 9, 10, 2]]), torch.tensor([[1, 20, 21, 22, 2, 1, 30, 31, 32]])
    packed = torch.cat([first, second], dim=1)
    positions = document_positions(packed, bos_id=1)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, 1, 2, 3]]
    targets = packed.roll(-1, dims=1)
    with torch.no_grad():
        apart = token_losses(model, packed, targets, positions_BT=positions)
        across = token_losses(model, packed, targets)
        alone = token_losses(model, second[:, 5:], targets[:, 11:])
    assert torch.allclose(apart[:, 11:], alone, atol=1e-5)
    assert not torch.allclose(across[:, 11:], alone, atol=1e-3)


def test_training_stops_where_english_gets_worse_than_the_profile_allows(path: TrainingPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    arabic = {"components": {"ar": 1.0}, "domains": {"ar": {"web": 1.0}}, "max_epochs": 20}
    plan = MixStageConfig.model_validate(arabic | {"tokens": 6000, "sequence_length": LENGTH, "global_batch": BATCH})
    order = tmp_path / "mix"
    (order / "work").mkdir(parents=True)
    mix.run(plan, {"pack": path.packs}, order)
    config = PretrainStageConfig(model=ModelConfig(**SHAPE, tied_embeddings=path.tied), phase=phase(6000, arabic, eval_every=10))
    inputs = {"model": path.extended, "tokenizer": path.merged, "pack": path.packs, "mix": order, "held_out": path.packs}
    profile = ClusterProfile(threads=1, max_english_rise=0.01, on_english_rise="stop")
    monkeypatch.setenv("ALLAM_CLUSTER", profile.model_dump_json())
    with pytest.raises(StageFailed, match=r"held-out English rose from .* more than the profile's max_english_rise of 1.0%"):
        pretrain.run(config, inputs, tmp_path)


def test_a_training_goes_on_from_its_checkpoint_where_the_mix_changes_and_is_refused_where_it_changed_before(
        path: TrainingPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAM_CLUSTER", ClusterProfile(threads=1, checkpoint_steps=6).model_dump_json())
    tokens, arabic = 12 * BATCH * LENGTH, {"components": {"ar": 1.0}, "domains": {"ar": {"web": 1.0}}}
    rolling = {"on_spike": "roll_back", "roll_back_steps": 4}

    def train(name: str, mixture: dict[str, Any], begin: Path | None = None, again: bool = False, **changes: Any) -> Path:
        order, out = tmp_path / f"mix_{name}", tmp_path / name
        (order / "work").mkdir(parents=True, exist_ok=True)
        mix.run(MixStageConfig.model_validate(mixture | {"tokens": tokens, "sequence_length": LENGTH, "global_batch": BATCH}), {"pack": path.packs}, order)
        config = PretrainStageConfig(model=ModelConfig(**SHAPE, tied_embeddings=path.tied), phase=phase(tokens, mixture, **changes))
        job = {"config": config.model_dump(mode="json"), "inputs": {"model": {"key": "extended"}, "mix": {"key": name}}, "paths": {"mix": str(order)}}
        (out / "work").mkdir(parents=True, exist_ok=True)
        if begin is not None:
            begin_from(begin, out, job, again=again)
        write_json(out / JOB, job)
        pretrain.run(config, {"model": path.extended, "tokenizer": path.merged, "pack": path.packs, "mix": order, "held_out": path.packs}, out)
        return out

    checkpoint = train("as_planned", BOTH) / "checkpoints" / "step-00000006"
    changed = BOTH | {"changes": [arabic | {"from_token": 6 * BATCH * LENGTH}]}
    whole, going_on = train("whole", changed), train("going_on", changed, checkpoint)
    steps = [json.loads(line)["step"] for line in (going_on / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))
    assert all((whole / name).read_bytes() == (going_on / name).read_bytes() for name in ("model/model.safetensors", "ledger.json", "metrics.jsonl"))
    earlier = BOTH | {"changes": [arabic | {"from_token": 3 * BATCH * LENGTH}]}
    with pytest.raises(UserError, match="has read other data than the mix names for its 6 steps"):
        train("too_early", earlier, checkpoint)
    assert not (tmp_path / "too_early" / "work" / "checkpoints").exists()
    shutil.copytree(checkpoint, tmp_path / "too_early" / "work" / "checkpoints" / checkpoint.name)  # by hand
    with pytest.raises(StageFailed, match="has read other data than the mix names for its 6 steps"):
        train("too_early", earlier)
    with pytest.raises(UserError, match="has checkpoints of this training already"):
        train("too_early", changed, checkpoint)
    for mixture, more, told in ((changed, {"seed": 9}, "phase.seed"), (changed | {"seed": 9}, {}, "phase.mix.seed"),
                                (changed, {"eval_every": 5}, "phase.eval_every")):
        with pytest.raises(UserError, match=rf"differs in more than later changes of its mix: config\.{told}"):
            train("whole", mixture, checkpoint, again=True, **more)
    aside = shutil.copytree(checkpoint, checkpoint.with_name(f"{checkpoint.name}.damaged"))
    for none in (tmp_path, aside):
        with pytest.raises(UserError, match="is no checkpoint"):
            train("whole", changed, none, again=True)
    with pytest.raises(UserError, match=r"step-00000006 is between two multiples of roll_back_steps \(4\)"):
        train("whole", changed, train("rolls back", BOTH, **rolling) / "checkpoints" / "step-00000006", again=True, **rolling)
    with pytest.raises(UserError, match="is of this training itself"):
        train("whole", changed, tmp_path / "whole" / "checkpoints" / "step-00000006", again=True)
    assert (tmp_path / "whole" / "model" / "model.safetensors").is_file()  # what was refused removed nothing
    again = train("whole", changed, checkpoint, again=True)
    assert (again / "model" / "model.safetensors").read_bytes() == (going_on / "model" / "model.safetensors").read_bytes()


def test_evaluations_come_before_at_intervals_and_after(path: TrainingPath) -> None:
    rows = [json.loads(line) for line in (path.pretrained / "evals.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 20, 40, 47]


def test_what_was_consumed_is_what_was_planned(path: TrainingPath) -> None:
    ledger = json.loads((path.continued / "ledger.json").read_text())
    rows = [row for domains in ledger.values() for row in domains.values()]
    assert all(row["planned_tokens"] == row["consumed_tokens"] > 0 for row in rows)
    last = json.loads((path.continued / "metrics.jsonl").read_text().splitlines()[-1])
    assert sum(row["consumed_tokens"] for row in rows) == last["tokens"]
    assert set(last["loss_by_component"]) == {"en", "ar"}


def test_each_step_tells_the_loss_of_its_domains_whose_mean_is_the_loss(path: TrainingPath) -> None:
    windows = Windows(path.packs, path.order)
    rows = [json.loads(line) for line in (path.continued / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        batch = [windows.span(i)[:2] for i in range((row["step"] - 1) * BATCH, row["step"] * BATCH)]
        assert set(row["loss_by_domain"]) == {f"{component}/{domain}" for component, domain in batch}
        assert sum(row["loss_by_domain"][f"{component}/{domain}"] for component, domain in batch) / BATCH == pytest.approx(row["loss"], rel=1e-4)
        english = [row["loss_by_domain"][f"en/{domain}"] for component, domain in batch if component == "en"]
        assert sum(english) / len(english) == pytest.approx(row["loss_by_component"]["en"], rel=1e-4)


def test_a_phase_run_again_gives_the_same_files(path: TrainingPath, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    config = PretrainStageConfig(model=ModelConfig(**SHAPE, tied_embeddings=path.tied), phase=phase(6000, BOTH))
    pretrain.run(config, {"model": path.extended, "tokenizer": path.merged, "pack": path.packs, "mix": path.order, "held_out": path.packs}, tmp_path)
    for name in ("model/model.safetensors", "metrics.jsonl", "evals.jsonl", "ledger.json"):
        assert _hash(tmp_path / name) == _hash(path.continued / name), name


def test_old_rows_keep_every_bit_and_new_rows_are_the_mean_of_their_spelling(path: TrainingPath) -> None:
    old, new = (load_file(folder / "model" / "model.safetensors") for folder in (path.pretrained, path.extended))
    base, merged = Tokenizer.load(path.base), Tokenizer.load(path.merged)
    assert set(old) == set(new)
    assert ("lm_head.weight" in old) is not path.tied
    for name, before in old.items():
        after = new[name]
        if name not in (extend.INPUT, extend.OUTPUT):
            assert torch.equal(before, after)
            continue
        assert after.shape[0] == merged.vocab_size
        assert torch.equal(before, after[: base.vocab_size])
        spelling = base.encode("الماء")  # `▁الماء` with the space that encode puts before
        assert torch.allclose(after[base.vocab_size + 2], before[spelling].mean(dim=0), atol=1e-7)
        assert torch.allclose(after[merged.special["<|end|>"]], before.mean(dim=0), atol=1e-7)


def test_an_inner_piece_is_spelled_without_a_space_before_it(base_tokenizer: Path, merged_tokenizer: Path) -> None:
    base = Tokenizer.load(base_tokenizer)
    spelled = extend.spell_new_pieces(base_tokenizer, merged_tokenizer)
    assert "".join(base.pieces(spelled[1])) == "".join(f"<0x{b:02X}>" for b in "عاصمة".encode())
    assert base.pieces(spelled[0])[0].startswith("▁")
    assert spelled[4:] == [[]] * 7


def test_a_model_of_another_tokenizer_is_refused(path: TrainingPath, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    config = PretrainStageConfig(model=ModelConfig(**SHAPE), phase=phase(6000, BOTH))
    with pytest.raises(UserError, match="vocabulary has 340 rows and the tokenizer's 351"):
        pretrain.run(config, {"model": path.pretrained, "tokenizer": path.merged, "pack": path.packs, "mix": path.order, "held_out": path.packs}, tmp_path)


def test_a_first_phase_for_new_rows_is_refused_where_the_model_has_none(path: TrainingPath, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    config = PretrainStageConfig(model=ModelConfig(**SHAPE, tied_embeddings=path.tied), phase=phase(6000, BOTH, new_rows_steps=3))
    with pytest.raises(UserError, match="new_rows_steps is 3, but the model that training starts from was not extended"):
        pretrain.run(config, {"model": path.extended, "tokenizer": path.merged, "pack": path.packs, "mix": path.order, "held_out": path.packs}, tmp_path)


def test_a_loss_that_is_no_number_stops_training_with_the_ids_of_the_documents_in_the_sequence(
        path: TrainingPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = tmp_path / "packs"
    shutil.copytree(path.packs, packs)
    config = PackConfig(held_out=HeldOut(share=0.1), held_out_bytes=1000).model_dump(mode="json")
    write_json(packs / "job.json", {"paths": {name: str(folder) for name, folder in path.corpus.items()}})
    commit(packs, Manifest(name="pack", kind="pack", version=1, key="0" * 64, config=config, inputs={}, outputs={}, metrics={}, started_at="", seconds=0,
                           peak_memory_bytes=0, world_size=1, versions={}))
    windows = Windows(packs, path.order)
    planted = torch.from_numpy(windows[3 * BATCH + 5])

    def losses_but_for_one(model: Any, ids_BT: Any, targets_BT: Any, **more: Any) -> Any:
        total, found = summed_loss(model, ids_BT, targets_BT, **more)
        is_it_B = (ids_BT == planted[:-1]).all(dim=1, keepdim=True)
        return torch.where(is_it_B.any(), torch.nan, total), torch.where(is_it_B, torch.nan, found)

    monkeypatch.setattr(pretrain, "summed_loss", losses_but_for_one)
    (tmp_path / "out" / "work").mkdir(parents=True)
    inputs = {"model": path.extended, "tokenizer": path.merged, "pack": packs, "mix": path.order, "held_out": packs}
    with pytest.raises(StageFailed, match=r"step 4: the loss is nan .* in the documents web_\w\w-\d+"):
        pretrain.run(PretrainStageConfig(model=ModelConfig(**SHAPE, tied_embeddings=path.tied), phase=phase(6000, BOTH)), inputs, tmp_path / "out")
    named = json.loads((tmp_path / "out" / "work" / "not_finite.json").read_text())["documents"]
    tokenizer = Tokenizer.load(path.merged)
    texts = {d.id: d.text for shard in shards(path.corpus["natural"] / "documents") for d in read_shard(shard)}
    stream = [token for name in named for token in (tokenizer.bos_id, *tokenizer.encode(texts[name]), tokenizer.eos_id)]
    within = [i for i in range(len(stream)) if stream[i:i + LENGTH + 1] == planted.tolist()]
    lengths = [len(tokenizer.encode(texts[name])) + 2 for name in named]
    assert any(i < lengths[0] and i + LENGTH + 1 > len(stream) - lengths[-1] for i in within)  # none is named that the sequence doesn't touch


def test_an_evaluation_that_is_no_number_stops_training_and_names_the_component_and_the_step(path: TrainingPath, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    inputs = {"model": path.extended, "tokenizer": path.merged, "pack": path.packs, "mix": path.order, "held_out": path.packs}
    wild = phase(6000, BOTH, eval_every=1, optimizer={"learning_rate": 1e38})
    with pytest.raises(StageFailed, match=r"step 1: held-out bits per byte is no number \(en: (nan|inf).*the model has diverged") as stopped:
        pretrain.run(PretrainStageConfig(model=ModelConfig(**SHAPE, tied_embeddings=path.tied), phase=wild), inputs, tmp_path)
    assert stopped.value.remedy.startswith("lower optimizer.learning_rate")


def test_a_phase_that_would_train_at_learning_rate_0_is_refused() -> None:
    with pytest.raises(ValueError, match="state_warmup_steps 9999 leaves none of the phase's 47 steps"):
        phase(6000, BOTH, optimizer={"learning_rate": 1e-2, "state_warmup_steps": 9999})


def test_a_warm_up_longer_than_the_phase_is_told_by_the_plan() -> None:
    short = make_plan(load("demo", ["train.pretrain.tokens=16384", "train.pretrain.optimizer.warmup_steps=9999"]))
    assert any(told.startswith("train.pretrain.optimizer: its warm-up (0 + 9999 steps) is longer than the phase's") for told in short.warnings)
    assert not any("warm-up" in told for told in make_plan(load("demo")).warnings)


def test_where_the_corpus_is_gone_documents_are_named_by_their_place_in_the_pack(path: TrainingPath) -> None:
    windows = Windows(path.packs, path.order)
    component, domain, start, _ = windows.span(3)
    first = documents_of(windows, path.packs, [3])[0]
    begins = np.load(path.packs / "packs" / component / domain / "index.npy")
    assert first == f"{component}/{domain} document {int((begins <= start).sum()) - 1} of the pack"


def test_new_rows_that_training_never_touched_are_named(path: TrainingPath, tmp_path: Path) -> None:
    tokenizer, windows = Tokenizer.load(path.merged), Windows(path.packs, path.order)
    inputs = {int(token) for i in range(len(windows)) for token in windows[i][:-1]}
    first = Tokenizer.load(path.base).vocab_size
    counts = write_untouched(tmp_path, windows, tokenizer, first, set(), BATCH)
    found = json.loads((tmp_path / "untouched_rows.json").read_text())
    new = set(range(first, tokenizer.vocab_size))
    assert {row["id"] for row in found["pieces"]} == new - inputs - set(tokenizer.special.values()) - set(range(tokenizer.vocab_size - 2, tokenizer.vocab_size))
    assert (counts["new_rows"], counts["padding"], found["special"]) == (len(new), 2, ["<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"])
    assert {row["piece"] for row in found["pieces"]} < {"▁ال", "عاصمة", "▁الماء", "ية"}
    assert 0 < counts["pieces"] == len(found["pieces"])
    early = {int(token) for i in range(BATCH) for token in windows[i][:-1]}
    write_untouched(tmp_path, windows, tokenizer, 0, set(range(1, len(windows) // BATCH)), BATCH)  # all steps but the first were lost
    found = json.loads((tmp_path / "untouched_rows.json").read_text())
    assert {row["id"] for row in found["pieces"]}.isdisjoint(early)
    assert len(found["pieces"]) + len(found["special"]) + found["padding"] == tokenizer.vocab_size - len(early)
    assert path.metrics["continue"]["untouched_rows"]["new_rows"] == tokenizer.vocab_size  # without papers of an extension, all are new


def test_a_run_killed_after_its_checkpoint_of_step_0_measures_the_start_once(path: TrainingPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    config = PretrainStageConfig(model=ModelConfig(**SHAPE, tied_embeddings=path.tied), phase=phase(6000, BOTH, on_spike="roll_back", roll_back_steps=1000))
    inputs = {"model": path.extended, "tokenizer": path.merged, "pack": path.packs, "mix": path.order, "held_out": path.packs}
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "_loss_by_domain", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain.run(config, inputs, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain.Trainer, "step", lambda *args, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain.run(config, inputs, tmp_path)
    pretrain.run(config, inputs, tmp_path)
    assert (tmp_path / "work" / "checkpoints" / "step-00000000").is_dir()
    assert _hash(tmp_path / "model" / "model.safetensors") == _hash(path.continued / "model" / "model.safetensors")
    assert (tmp_path / "evals.jsonl").read_text() == (path.continued / "evals.jsonl").read_text()


def test_the_exported_folder_loads_in_transformers_and_answers_alike(path: TrainingPath) -> None:
    ours, theirs = load_model(path.continued / "model"), AutoModelForCausalLM.from_pretrained(path.exported / "model", dtype="auto")
    prompt = torch.tensor([[1, *Tokenizer.load(path.merged).encode("The capital of")]])
    made = [m.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False).tolist() for m in (ours, theirs)]
    assert made[0] == made[1]
    ends = json.loads((path.exported / "model" / "generation_config.json").read_text())["eos_token_id"]
    special = Tokenizer.load(path.merged).special
    assert ends == [special["</s>"], special["<|end|>"]]
    assert "# An Arabic-English language model" in (path.exported / "model" / "README.md").read_text()


def test_a_local_model_is_imported_tensor_by_tensor(path: TrainingPath, tmp_path: Path) -> None:
    table = FileTable(path.root)
    name = (path.pretrained / "model").relative_to(path.root).as_posix()
    (tmp_path / "work").mkdir()
    config = ImportConfig(model=name, files=table.resolve("train.import_model.model", name))
    metrics = import_model.run(config, {"root": path.root, "tokenizer": path.base}, tmp_path)
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (path.pretrained, tmp_path))
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert set(before) == set(after)
    assert metrics["parameters"] == path.metrics["pretrain"]["parameters"]


def test_a_model_that_comes_as_a_pickle_is_refused(path: TrainingPath, tmp_path: Path, base_tokenizer: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((path.pretrained / "model" / "config.json").read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    config = ImportConfig(model="pickled", files=FileTable(tmp_path).resolve("train.import_model.model", "pickled"))
    with pytest.raises(UserError, match="no safetensors"):
        import_model.run(config, {"root": tmp_path, "tokenizer": base_tokenizer}, tmp_path / "out")


def test_a_hub_model_without_a_revision_is_refused(tmp_path: Path, base_tokenizer: Path) -> None:
    with pytest.raises(UserError, match=r"neither a folder below data\.root nor a hub's model with a revision"):
        import_model.run(ImportConfig(model="some/model"), {"root": tmp_path, "tokenizer": base_tokenizer}, tmp_path)


# --- small parts -------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def small_model() -> Any:
    return new_model(LlamaConfig(vocab_size=340, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                                 num_key_value_heads=4), seed=0)


def test_chunked_losses_and_gradients_are_those_of_whole_logits(small_model: Any) -> None:
    ids = torch.arange(60).view(3, 20)
    targets = (ids * 7 + 1) % 340
    targets[1, 5:] = -100
    found = []
    for whole in (2**25, 340 * 7):
        small_model.zero_grad()
        losses = token_losses(small_model, ids, targets, whole_logits=whole)
        losses.sum().backward()
        found.append((losses.detach(), small_model.lm_head.weight.grad.clone(), small_model.model.embed_tokens.weight.grad.clone()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))
    assert torch.all(found[0][0][1, 5:] == 0)
    assert torch.all(found[0][0][0] > 0)


@pytest.mark.parametrize(("precision", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_the_loss_summed_block_by_block_and_its_gradients_are_those_of_whole_logits(monkeypatch: pytest.MonkeyPatch, precision: torch.dtype,
                                                                                     close: float) -> None:
    monkeypatch.setitem(FUSED_LOGITS, "cpu", 340 * 7)
    model: Any = new_model(LlamaConfig(vocab_size=340, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                                       num_key_value_heads=4), seed=0).to(precision)
    ids = torch.arange(60).view(3, 20)
    targets = (ids * 7 + 1) % 340
    targets[1, 5:] = -100
    found = []
    for prepare in (lambda model: None, make_loss_head):
        prepare(model)
        model.zero_grad()
        total, losses = summed_loss(model, ids, targets)
        (total / 3).backward()
        found.append((total.detach(), losses, *(p.grad.clone() for p in model.parameters())))
    assert isinstance(model.lm_head, nn.Linear)
    assert type(model.lm_head) is not nn.Linear
    for whole, blocks in zip(*found, strict=True):
        assert torch.allclose(whole, blocks, atol=close * float(whole.abs().max())), (whole - blocks).abs().max()
    assert not found[1][1].requires_grad
    assert torch.all(found[1][1][1, 5:] == 0)
    with torch.no_grad():
        assert torch.allclose(summed_loss(model, ids, targets)[1], found[1][1])


def test_losses_of_hundreds_of_nats_are_those_of_torch_to_the_last_but_one_digit() -> None:
    head: Any = nn.Linear(8, 50, bias=False)
    make_loss_head(SimpleNamespace(get_output_embeddings=lambda: head, config=LlamaConfig()))  # type: ignore[arg-type]
    states, targets = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) * 2_000, torch.arange(40)
    losses = head(states, targets)[1].detach()
    expected = nn.functional.cross_entropy(states @ head.weight.T, targets, reduction="none").detach()
    assert expected.max() > 500
    assert torch.allclose(losses, expected, rtol=1e-6, atol=1e-6 * float(expected.max()))


def test_a_batch_without_a_target_has_no_loss_and_leaves_zeros_for_gradients() -> None:
    head: Any = nn.Linear(8, 50, bias=False)
    make_loss_head(SimpleNamespace(get_output_embeddings=lambda: head, config=LlamaConfig()))  # type: ignore[arg-type]
    total, losses = head(torch.zeros(0, 8), torch.zeros(0, dtype=torch.int64))
    total.backward()
    assert total.item() == 0
    assert losses.shape == (0,)
    assert torch.equal(head.weight.grad, torch.zeros(50, 8))


def test_bits_per_byte_is_that_of_each_token_predicted_once(small_model: Any, base_tokenizer: Path) -> None:
    tokenizer = Tokenizer.load(base_tokenizer)
    text = "Paris is the capital of France."
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text)]])
    with torch.no_grad():
        log_p = small_model(ids[:, :-1]).logits.log_softmax(-1)
    nats = -log_p.gather(-1, ids[:, 1:, None]).sum().item()
    assert bits_per_byte(small_model, tokenizer, [text], 64) == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-5)


def test_a_sharded_model_loads_as_it_was_saved(small_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allam.engine.model.SHARD_BYTES", 30_000)
    save_model(tmp_path, small_model.config, [(n, p.detach()) for n, p in small_model.named_parameters()], tmp_path)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    loaded = dict(load_model(tmp_path).named_parameters())
    assert all(torch.equal(p, loaded[n]) for n, p in small_model.named_parameters())


@pytest.mark.parametrize(("schedule", "expected"), [
    ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]), ("linear", [0.5, 1.0, 1.0, 0.55, 0.1]), ("cosine", [0.5, 1.0, 1.0, 0.55, 0.1]),
    ("wsd", [0.5, 1.0, 1.0, 1.0, 0.1])])
def test_schedules_warm_up_and_end_at_the_final_rate(schedule: Any, expected: list[float]) -> None:
    settings = OptimizerSettings(learning_rate=1.0, schedule=schedule, final_learning_rate=0.1, warmup_steps=2)
    assert [learning_rate(settings, step, 13) for step in (0, 1, 2, 7, 12)] == pytest.approx(expected)


def test_state_warm_up_keeps_the_rate_at_zero_and_shifts_the_schedule() -> None:
    settings = OptimizerSettings(learning_rate=1.0, schedule="linear", final_learning_rate=0.1, warmup_steps=2)
    later = OptimizerSettings(learning_rate=1.0, schedule="linear", final_learning_rate=0.1, warmup_steps=2, state_warmup_steps=3)
    assert [learning_rate(later, step, 16) for step in range(16)] == [0.0] * 3 + [learning_rate(settings, step, 13) for step in range(13)]


def test_the_estimate_counts_the_parameters_of_the_real_model(small_model: Any) -> None:
    shape = Dimensions.of(ModelConfig(hidden_size=32, layers=1, heads=4, kv_heads=4, intermediate_size=48))
    assert parameters(shape, 340) == sum(p.numel() for p in small_model.parameters())


def test_the_estimate_of_llama_2_7b_on_1_2t_tokens_is_plausible() -> None:
    shape = Dimensions.of(ModelConfig(hidden_size=4096, layers=32, heads=32, kv_heads=32, intermediate_size=11008))
    assert parameters(shape, 32000) == 6_738_415_616
    profile = ClusterProfile(ranks=1024, peak_tflops=312, utilisation=0.5, device_watts=400, pue=1.2, kg_co2_per_kwh=0.4)
    found = estimate(shape, 64000, 4096, 1_200_000_000_000, profile)
    llama_2 = 184_320 * 1.2 / 2  # A100 hours that Llama 2's paper gives for 2T tokens, taken for 1.2T
    assert found.device_hours == pytest.approx(llama_2, rel=0.2)
    assert found.days == pytest.approx(found.device_hours / 1024 / 24)
    assert found.kg_co2 == pytest.approx(found.device_hours * 0.4 * 1.2 * 0.4)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
