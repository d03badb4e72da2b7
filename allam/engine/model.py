"""Models as folders in Hugging Face's format: new ones, loaded ones, saved ones. safetensors only; code that comes with a model never runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from allam.artifacts import write_json
from allam.errors import UserError

SHARD_BYTES = 4 * 2**30
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def new_model(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A Llama of random weights (normal, `initializer_range`), the same for the same seed on every rank; leaves the global generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)  # type: ignore[arg-type]


def load_config(folder: Path) -> PretrainedConfig:
    """The configuration of a model's folder. Raises `UserError` where it is none that transformers knows by itself."""
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no model that transformers knows without code of its own: {str(error).splitlines()[0]}",
                        "give a folder with config.json and safetensors of a model class that is part of transformers") from None


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model in `folder`, on the CPU, in evaluation mode. Only safetensors are read; no code of the folder runs."""
    load_config(folder)
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no safetensors", "convert the weights to safetensors first; pickles are never opened")
    transformers_logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(  # type: ignore[no-any-return]
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False).eval()


def save_model(folder: Path, config: PretrainedConfig, weights: Iterable[tuple[str, Tensor]], tokenizer: Path, *, writes: bool = True) -> None:
    """Writes a folder that transformers loads: weights as they come, in shards of 4 GiB, configuration, and the tokenizer's files.

    Ranks with `writes` false only walk through `weights`, since gathering them is collective. The same weights give the same bytes.
    """
    if not writes:
        for _ in weights:
            pass
        return
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    written: list[list[str]] = []
    size = total = 0
    for name, tensor in weights:
        if size and size + tensor.nbytes > SHARD_BYTES:
            written.append(_write(folder, len(written), shards.pop()))
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().contiguous()
        size, total = size + tensor.nbytes, total + tensor.nbytes
    dtype = next(iter(shards[-1].values())).dtype
    written.append(_write(folder, len(written), shards.pop()))
    _name_shards(folder, written, total)
    config.dtype = dtype
    describe_model(folder, config, tokenizer)


def describe_model(folder: Path, config: PretrainedConfig, tokenizer: Path) -> None:
    """Writes what a model's folder needs beside its weights: the configuration, and the tokenizer's files."""
    config.architectures = config.architectures or ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)


def _write(folder: Path, number: int, tensors: dict[str, Tensor]) -> list[str]:
    save_file(tensors, folder / f"{number}.safetensors.tmp", metadata={"format": "pt"})
    return list(tensors)


def _name_shards(folder: Path, written: list[list[str]], total_bytes: int) -> None:
    """Gives the shards the names that transformers looks for, and writes the index where there are several."""
    count = len(written)
    names = [WEIGHTS] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for i, name in enumerate(names):
        (folder / f"{i}.safetensors.tmp").replace(folder / name)
    if count > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": total_bytes},
                                    "weight_map": {tensor: name for name, tensors in zip(names, written, strict=True) for tensor in tensors}})


def flops_per_token(config: PretrainedConfig, parameters: int, sequence_length: float) -> float:
    """Floating-point operations of one token, forward and backward, by the rule of `allam.train.estimate`: 6 for each parameter that multiplies (an
    untied input embedding only looks up), and 6·L·H·S for causal attention whose heads are H wide. Activations that are computed again are not counted."""
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 6.0 * (parameters - looked_up) + 6.0 * config.num_hidden_layers * config.num_attention_heads * head_size * sequence_length


def save_generation_config(folder: Path, eos_ids: list[int], bos_id: int, pad_id: int | None, never: list[int] | None = None) -> None:
    """Which tokens end a generation, and which `generate` must `never` give; greedy by default, so that a run can be repeated."""
    ends = eos_ids if len(eos_ids) > 1 else eos_ids[0]
    GenerationConfig(bos_token_id=bos_id, eos_token_id=ends, pad_token_id=pad_id, suppress_tokens=never or None, do_sample=False).save_pretrained(folder)


def tensors_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model's folder by name, one in memory at a time."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)
