"""A synthetic base of many shards and two tokenizers for it: what extension is measured on, in the benchmark and in the test of its memory."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from transformers import LlamaConfig, LlamaForCausalLM

from allam.chat.tokens import CHAT_SPECIALS, padding_token

model_pb2: Any = sentencepiece_model_pb2  # made by protobuf at run time, without types
ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"


def tokenizers(root: Path, old: int, new: int) -> tuple[Path, Path]:
    """Folders of a base of `old` pieces (specials, bytes and invented words) and of its extension by `new` pieces of Arabic letters."""
    draw = random.Random(0)
    proto = model_pb2.ModelProto()
    kinds = model_pb2.ModelProto.SentencePiece
    for i, piece in enumerate(("<unk>", "<s>", "</s>")):
        proto.pieces.add(piece=piece, score=0.0, type=kinds.CONTROL if i else kinds.UNKNOWN)
    for byte in range(256):
        proto.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=kinds.BYTE)
    for i, piece in enumerate(["▁", *_words("abcdefghijklmnopqrstuvwxyz", old - len(proto.pieces) - 1, draw)]):
        proto.pieces.add(piece=piece, score=float(-i), type=kinds.NORMAL)
    proto.trainer_spec.model_type, proto.trainer_spec.byte_fallback = proto.trainer_spec.BPE, True
    proto.normalizer_spec.name, proto.normalizer_spec.remove_extra_whitespaces = "identity", False
    base, merged = root / "base_tokenizer", root / "merged_tokenizer"
    _write(proto, base)
    for i, piece in enumerate(_words(ARABIC, new - len(CHAT_SPECIALS) - 2, draw)):
        proto.pieces.add(piece=piece, score=float(-old - i), type=kinds.NORMAL)
    for piece in (*CHAT_SPECIALS, padding_token(0), padding_token(1)):
        proto.pieces.add(piece=piece, score=0.0, type=kinds.CONTROL)
    _write(proto, merged)
    return base, merged


def _words(letters: str, count: int, draw: random.Random) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["▁" * draw.randint(0, 1) + "".join(draw.choices(letters, k=draw.randint(2, 8)))] = None
    return list(found)


def _write(proto: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())


def checkpoint(folder: Path, vocab_size: int, hidden_size: int, layers: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Writes `folder/model`, a Llama with one shard for the input matrix, one for each layer and one for the rest; returns the largest shard's bytes."""
    config = LlamaConfig(vocab_size=vocab_size, hidden_size=hidden_size, intermediate_size=hidden_size * 11 // 4 // 8 * 8, num_hidden_layers=layers,
                         num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=256, dtype=dtype)
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in LlamaForCausalLM(config).named_parameters()}
    shards: dict[str, list[str]] = {}
    for name in shapes:
        shards.setdefault(".".join(name.split(".")[:3]) if ".layers." in name else name.split(".")[-2] if "embed" in name else "rest", []).append(name)
    model = folder / "model"
    model.mkdir(parents=True)
    noise_1 = (torch.randn(999_983, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)  # a prime: no two rows alike
    places: dict[str, str] = {}
    files, sizes = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))], list[int]()
    for file, names in zip(files, shards.values(), strict=True):
        save_file({name: noise_1[torch.arange(shapes[name].numel()) % len(noise_1)].view(shapes[name]) for name in names}, model / file,
                  metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
        sizes.append((model / file).stat().st_size)
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": sum(sizes)}, "weight_map": places}))
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(model)
    return max(sizes)
