"""A model as a folder that transformers, vLLM and others load: weights, tokenizer, chat template, generation config, model card, recipe.

The stage exports the recipe's final model; `allam export RECIPE --stage continue --step 1000 --to FOLDER` that of any training stage, finished or not,
or of any checkpoint of it. The tensors of the exported folder are compared with those of the model that went in, bit by bit, and its greedy answers, through
transformers' `generate`, with those of the engine's own sampler, token by token.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from allam.artifacts import CHECKPOINTS
from allam.engine import checkpoint
from allam.engine.device import compute_device
from allam.engine.model import load_config, load_model, save_model, tensors_of
from allam.errors import ArtifactError, StageFailed, UserError
from allam.generate.sampler import forbidden_ids, generate
from allam.section import Section
from allam.text.tokenizer import Tokenizer
from allam.train import card
from allam.train.card import Origin
from allam.train.shape import write_generation_config
from allam.train.shards import Shards

PROMPTS = ("The capital of", "عاصمة", "Water is", "الماء")
NEW_TOKENS = 16
ROUNDING = 1e-4  # of the largest logit: two tokens as close as that are equally likely


def run(config: Section, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Writes the input `model` with the input `tokenizer` as `model/`."""
    return export(Origin(inputs["model"]), inputs["tokenizer"], out / "model")


def export(origin: Origin, tokenizer_folder: Path, target: Path) -> dict[str, Any]:
    """Writes the model of `origin` to `target`; returns the files' names and how many tokens of greedy answers were compared.

    Raises `ArtifactError` where a checkpoint is damaged, `UserError` where it is of another tokenizer, `StageFailed` where the answers differ.
    """
    device = compute_device()
    tokenizer = Tokenizer.load(tokenizer_folder)
    source = _Finished(origin.artifact) if origin.step is None else _Checkpoint(origin, tokenizer)
    save_model(target, source.config, source.weights(), tokenizer_folder)
    for shard in target.glob("*.safetensors"):
        shard.chmod((target / "config.json").stat().st_mode)  # safetensors writes files that only their owner reads
    write_generation_config(target, tokenizer)
    _never_say(target, tokenizer)
    card.write(target, origin, source.config, tokenizer)
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in PROMPTS]
    compared = _compare(source, target, tokenizer, prompts, device)
    _check_tensors(source, target)
    return {"files": sorted(path.name for path in target.iterdir()), "greedy_tokens_compared": compared}


def _check_tensors(source: _Finished | _Checkpoint, target: Path) -> None:
    written = Shards(target)
    names = set()
    for name, tensor in source.weights():
        names.add(name)
        if name not in written.places or not torch.equal(tensor.flatten().view(torch.uint8), written.load(name).flatten().view(torch.uint8)):
            raise StageFailed(f"{name} of the exported model differs from the model that went in", "report this as a bug")
    if more := sorted(written.places.keys() - names):
        raise StageFailed(f"the exported model holds {more[0]}, which the model that went in lacks", "report this as a bug")


class _Finished:
    """The model of a stage that is done."""

    def __init__(self, artifact: Path) -> None:
        self._folder = artifact / "model"
        self.config: PretrainedConfig = load_config(self._folder)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        return tensors_of(self._folder)

    def load(self) -> PreTrainedModel:
        return load_model(self._folder)


class _Checkpoint:
    """The model of a checkpoint, every file of which is checked before any is opened. Sets the origin's state."""

    def __init__(self, origin: Origin, tokenizer: Tokenizer) -> None:
        assert origin.step is not None
        folder = find_checkpoint(origin.artifact, origin.step)
        if problem := checkpoint.damage(folder):
            raise ArtifactError(f"the checkpoint {folder} is damaged: {problem}", "export another one")
        origin.state = checkpoint.state_of(folder)
        told = origin.state.get("tokenizer")
        if told is not None and told != tokenizer.fingerprint:
            raise UserError(f"the checkpoint {folder} is of the tokenizer {told[:16]}, not {tokenizer.fingerprint[:16]}", "give the recipe that it was made by")
        self._read = checkpoint.Reader(folder)
        described = dict(origin.state["model"])
        self.config = AutoConfig.for_model(described.pop("model_type"), **described)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        for name in self._read.weights():
            yield name, self._read(f"{checkpoint.WEIGHT}{name}")

    def load(self) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_config(self.config).float()
        missing, _ = model.load_state_dict(dict(self.weights()), strict=False)
        if left := set(missing) & {name for name, _ in model.named_parameters()}:  # which names a matrix in two places once
            raise StageFailed(f"the checkpoint lacks {', '.join(sorted(left))}", "export another one")
        return model.eval()  # type: ignore[no-any-return]


def checkpoints_of(artifact: Path) -> dict[int, Path]:
    """A training's checkpoints by step: those kept for good, and while it isn't done, the newest."""
    folders = (artifact / CHECKPOINTS, artifact / "work" / CHECKPOINTS)
    return {step: checkpoint.place(folder, step) for folder in folders for step in checkpoint.steps(folder)}


def find_checkpoint(artifact: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies. Raises `UserError` that names those that there are."""
    found = checkpoints_of(artifact)
    if step not in found:
        there = f"there are those of the steps {', '.join(map(str, sorted(found)))}" if found else "there is none"
        raise UserError(f"{artifact} has no checkpoint of step {step}: {there}",
                        "the cluster profile's checkpoint_steps and keep_best_checkpoint say which are kept")
    return found[step]


def _never_say(folder: Path, tokenizer: Tokenizer) -> None:
    """What the engine's sampler never produces, `generate` must not, either: special tokens that end nothing, and padding rows."""
    settings = GenerationConfig.from_pretrained(folder, local_files_only=True)
    settings.suppress_tokens = forbidden_ids(tokenizer, _ends(settings)) or None
    settings.save_pretrained(folder)


def _ends(settings: GenerationConfig) -> list[int]:
    return settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]  # type: ignore[list-item]


def _compare(source: _Finished | _Checkpoint, target: Path, tokenizer: Tokenizer, prompts: list[list[int]], device: torch.device) -> int:
    """How many tokens of the greedy answers were compared. Raises `StageFailed` where one differs by more than rounding."""
    ends = _ends(GenerationConfig.from_pretrained(target, local_files_only=True))
    theirs = _answers(load_model(target), device, prompts, ends)  # first, so that never two models are in memory
    model = source.load().to(device)  # type: ignore[arg-type]
    ours = [generate(model, tokenizer, [ids], max_new_tokens=NEW_TOKENS, temperature=0, top_p=1, seed=0, stop_ids=ends)[0] for ids in prompts]
    for prompt, our, their in zip(prompts, ours, theirs, strict=True):
        if our != their and not _is_tie(model, prompt, our, their, ends):
            raise StageFailed(f"greedy answers of the exported model differ from the engine's: {tokenizer.pieces(their)}, not {tokenizer.pieces(our)}",
                              "report this as a bug")
    return sum(len(ids) for ids in ours)


@torch.no_grad()
def _answers(model: Any, device: torch.device, prompts: list[list[int]], ends: list[int]) -> list[list[int]]:
    """Greedy continuations without the token that ends them, through transformers' own `generate`, as a user of the folder will call it."""
    model.to(device)
    answers = []
    for ids in prompts:
        given = torch.tensor([ids], device=device)
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=NEW_TOKENS, do_sample=False)
        found = [int(i) for i in made[0, len(ids):]]
        answers.append(found[:-1] if found and found[-1] in ends else found)
    return answers


@torch.no_grad()
def _is_tie(model: Any, prompt: list[int], our: list[int], their: list[int], ends: list[int]) -> bool:
    """Whether two answers part at two tokens that the model finds equally likely, so that rounding decided."""
    same = next((i for i, (a, b) in enumerate(zip(our, their, strict=False)) if a != b), min(len(our), len(their)))
    logits_V = model(torch.tensor([prompt + our[:same]], device=model.device)).logits[0, -1].float()
    likelihood = [float(logits_V[ids[same]]) if same < len(ids) else max(float(logits_V[e]) for e in ends) for ids in (our, their)]
    return abs(likelihood[0] - likelihood[1]) <= ROUNDING * float(logits_V.abs().max())
