"""A small bilingual tokenizer with chat tokens, trained on the sample's conversations, and a small Llama: what several folders of tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from allam import sample
from allam.chat.template import CHAT_TEMPLATE
from allam.engine.model import save_model
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import fast, merge, model, training


def _lines() -> Iterator[str]:
    with open(sample.root() / "chat" / "sft.jsonl", encoding="utf-8") as file:
        for line in file:
            for message in json.loads(line)["messages"]:
                yield message["content"]


def write_tokenizer(folder: Path, vocab_size: int = 700) -> Tokenizer:
    """Trains the tokenizer into `folder`, with the files that transformers loads."""
    data, _ = training.train((line for line in _lines() if line.strip()), vocab_size, 1.0, "tests")
    proto = merge.add_specials(model.parse(data, "tests"), 64)
    fast.write_tokenizer(folder, model.serialise(proto), CHAT_TEMPLATE)
    return Tokenizer.load(folder)


def small_model(tokenizer: Tokenizer, seed: int = 0, positions: int = 256) -> LlamaForCausalLM:
    """A Llama of random weights large enough that its choices differ from prompt to prompt."""
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         intermediate_size=64, max_position_embeddings=positions, initializer_range=0.3)
    return LlamaForCausalLM(config).eval()


def save_small_model(tokenizer: Tokenizer, folder: Path, tokenizer_folder: Path, seed: int = 0) -> None:
    """The small model as a stage leaves one, in `folder`/model."""
    model = small_model(tokenizer, seed)
    save_model(folder / "model", model.config, ((name, p.detach()) for name, p in model.named_parameters()), tokenizer_folder)
