"""The final model as a folder that transformers, vLLM and others load: weights, tokenizer, chat template, generation config, model card.

Greedy answers of the exported folder are compared with those of the model that went in, token by token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from allam.artifacts import read_manifest, write_atomic
from allam.engine.device import compute_device
from allam.engine.model import load_config, load_model, save_model, tensors_of
from allam.errors import StageFailed
from allam.section import Section
from allam.text.tokenizer import Tokenizer
from allam.train.shape import write_generation_config

PROMPTS = ("The capital of", "عاصمة", "Water is", "الماء")
NEW_TOKENS = 16


def run(config: Section, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Writes the input `model` with the input `tokenizer` as `model/`."""
    device = compute_device()
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    source, target = inputs["model"] / "model", out / "model"
    save_model(target, load_config(source), tensors_of(source), inputs["tokenizer"])
    write_generation_config(target, tokenizer)
    write_atomic(target / "README.md", model_card(inputs["model"], target, tokenizer))
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in PROMPTS]
    before, after = (_answers(load_model(folder), device, prompts) for folder in (source, target))
    if before != after:
        raise StageFailed("greedy answers of the exported model differ from those of the model that went in", "report this as a bug")
    return {"files": sorted(path.name for path in target.iterdir()), "greedy_tokens_compared": sum(len(ids) for ids in before)}


@torch.no_grad()
def _answers(model: Any, device: torch.device, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy continuations through transformers' own `generate`, as a user of the folder will call it."""
    model.to(device)
    answers = []
    for ids in prompts:
        given = torch.tensor([ids], device=device)
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=NEW_TOKENS, do_sample=False)
        answers.append([int(i) for i in made[0, len(ids):]])
    return answers


def model_card(artifact: Path, model: Path, tokenizer: Tokenizer) -> str:
    """README.md of the exported folder, from the manifest of the stage that made the model (where it has one)."""
    config = load_config(model)
    manifest = read_manifest(artifact)
    lines = ["---", "language: [ar, en]", "library_name: transformers", "pipeline_tag: text-generation", "---", "",
             "# An Arabic-English language model", "",
             "Made by the open ALLaM pipeline after *ALLaM: Large Language Models for Arabic and English* (arXiv 2407.15390): an English base, its",
             "vocabulary extended for Arabic, continued pretraining on both languages, supervised finetuning and preference training.", "",
             "| | |", "|---|---|",
             f"| architecture | {(config.architectures or ['?'])[0]}, {config.num_hidden_layers} layers of width {config.hidden_size} |",
             f"| vocabulary | {tokenizer.vocab_size:,} pieces, `{tokenizer.fingerprint[:16]}` |",
             f"| longest sequence | {config.max_position_embeddings:,} tokens |"]
    if manifest is not None:
        lines += [f"| last stage | {manifest.kind} `{manifest.key[:16]}` |"]
        lines += [f"| {name} | `{json.dumps(value)}` |" for name, value in sorted(manifest.config.items()) if not isinstance(value, (dict, list))]
    return "\n".join([*lines, "", "The chat template is part of the tokenizer: `tokenizer.apply_chat_template(messages, add_generation_prompt=True)`.",
                      "It may state falsehoods; measure it on your own task before use. The run's report has the benchmarks.", ""])
