"""Small byte-level bases as Llama 3, Qwen and GPT-2 are built, trained on the sample's English and code: what several folders of tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from allam.sample import root

LLAMA_3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
VOCABULARY = 600


def english_texts() -> Iterator[str]:
    """English prose and programs, and a little Arabic, of which every multilingual base has seen some."""
    yield from pq.read_table(root() / "documents" / "code_en.parquet").column("text").to_pylist()
    for name, most in (("wiki_en", 1000), ("wiki_ar", 20)):
        lines = (root() / "documents" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        yield from (json.loads(line)["text"] for line in lines[:most] if line.startswith("{") and line.endswith("}"))


def write_base(folder: Path, kind: str, vocab_size: int = VOCABULARY) -> Path:
    """Trains a base: `llama3` (whole words before merges, BOS), `qwen` (NFC, no BOS, merges as strings, a token that isn't special), `gpt2`."""
    made = tokenizers.Tokenizer(models.BPE())
    split: dict[str, Any] = {"llama3": LLAMA_3, "qwen": QWEN}
    if kind == "gpt2":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(split[kind]), "isolated"),
                                                      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if kind == "qwen":
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(english_texts(), trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    specials = {"llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|eot_id|>"],
                "qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "gpt2": ["<|endoftext|>", "[MASK]"]}[kind]
    made.add_special_tokens([tokenizers.AddedToken(token, normalized=False, special=True) for token in specials])
    if kind == "qwen":
        made.add_tokens([tokenizers.AddedToken("<tool_call>", normalized=False, special=False)])
    config = {"eos_token": specials[0], "bos_token": None, "model_max_length": 4096}
    if kind == "llama3":
        bos = specials[0]
        made.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
                                                            special_tokens=[(bos, made.token_to_id(bos))])
        config = {"bos_token": {"content": bos, "special": True}, "eos_token": specials[1]}
    data = json.loads(made.to_str())
    data["model"]["ignore_merges"] = kind == "llama3"
    if kind == "qwen":
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
