"""New rows of the embeddings for the new tokens: the mean of the old rows of a piece's old tokens, input and output (paper §2.2, Figure 5).

A piece such as `▁كتاب` is spelled out by the base tokenizer into pieces that the base model knows; its new rows are their mean, so that continued
training begins close to what the base made of the same text. Other methods stand in `allam/train/new_rows.py`. Weights are handled shard by shard
(`allam/train/shards.py`), and `proof.json` says what was checked of what was written (`allam/train/extend_proof.py`).
Alone: `allam stage extend --recipe demo`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from allam.architectures import Architecture, architecture_of
from allam.artifacts import write_json
from allam.engine.device import compute_device
from allam.engine.model import describe_model, load_config
from allam.errors import UserError
from allam.text.tokenizer import Tokenizer
from allam.train import alignment, extend_proof, new_rows
from allam.train.config import ExtendConfig
from allam.train.shape import write_generation_config
from allam.train.shards import Change, Shards, lengthen
from allam.train.spelling import spell_new_pieces

INPUT, OUTPUT = Architecture().inputs[0], Architecture().outputs[0]  # Llama's, and of most
TYPES = ("F32", "BF16", "F16")
PROOF = "proof.json"


def run(config: ExtendConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Extends the input `model` from the input `base_tokenizer` to the input `tokenizer`; `translation` reads `natural` and `translated` too."""
    compute_device()
    spellings = spell_new_pieces(inputs["base_tokenizer"], inputs["tokenizer"])
    base, merged = Tokenizer.load(inputs["base_tokenizer"]), Tokenizer.load(inputs["tokenizer"])
    source, target = Shards(inputs["model"] / "model"), out / "model"
    model_config = load_config(source.folder)
    matrices = check_base(source, model_config, base.vocab_size, config.base_padding_rows)
    tied = bool(model_config.tie_word_embeddings)
    aligned = alignment.translations(config, inputs, base, merged, base.vocab_size) if config.method == "translation" else []
    weights = _weights(config.method, matrices, tied, spellings, aligned)

    lengthen(source, target, {name: Change(base.vocab_size, len(spellings), _new_rows(source, name, base.vocab_size, weights[name], config,
                                                                                                     matrices[0] if tied else name))
                              for name in matrices})
    model_config.vocab_size, model_config.pad_token_id, model_config.bos_token_id = merged.vocab_size, merged.pad_id, merged.bos_id
    describe_model(target, model_config, inputs["tokenizer"])
    write_generation_config(target, merged)
    extension = extend_proof.Extension(source, Shards(target), base, merged, weights, config.method, tied)
    proof = extend_proof.prove(extension, config.logits_below)
    write_json(out / PROOF, proof)
    spelled = [len(ids) for ids in spellings if ids]
    return {"method": config.method, "old_rows": base.vocab_size, "new_rows": len(spellings), "rows_without_spelling": len(spellings) - len(spelled),
            "mean_old_tokens_of_a_new_piece": round(sum(spelled) / max(1, len(spelled)), 4), "proof": proof}


def check_base(source: Shards, config: PretrainedConfig, pieces: int, padding_rows: int) -> list[str]:
    """The names of the matrices with a row for each id, the input's first. Raises `UserError` where they don't fit each other, the configuration or the
    tokenizer."""
    tied = config.tie_word_embeddings
    known = architecture_of(config.model_type)
    there = [[name for name in names if name in source.places] for names in (known.inputs, known.outputs)]
    missing = [names[0] for names, found in zip((known.inputs, known.outputs)[:1 if tied else 2], there, strict=False) if not found]
    if missing:
        raise UserError(f"{source.folder} has no tensor {missing[0]} (tie_word_embeddings is {str(tied).lower()} in its config.json)",
                        "give a whole, unquantised checkpoint as safetensors, with the names that transformers gives its tensors")
    matrices = [found[0] for found in there if found]
    rows = {name: source.places[name].shape[0] for name in matrices}
    for name in matrices:
        place = source.places[name]
        if place.dtype not in TYPES or len(place.shape) != 2:
            raise UserError(f"{place.path}: {name} is {place.dtype} of shape {list(place.shape)}, not a matrix in {', '.join(TYPES)}",
                            "give the model as it was trained, before any quantisation")
    if len({*rows.values(), config.vocab_size}) > 1 or len({source.places[name].shape for name in matrices}) > 1:
        raise UserError(f"{source.folder}: rows don't agree: {', '.join(f'{name} {list(source.places[name].shape)}' for name in matrices)}, "
                        f"vocab_size {config.vocab_size} in config.json", "download the model again, or export it anew with the tool that resized it")
    heads = tuple(name.removesuffix("weight") for name in known.outputs)
    if more := sorted(name for name in source.places if name.startswith(heads) and name not in matrices):
        raise UserError(f"{source.folder} has {more[0]}, with a value for each id that would have to grow too", "give a model whose output layer has no bias")
    if tied and len(matrices) == 2 and not source.load(matrices[0]).equal(source.load(matrices[1])):
        raise UserError(f"{source.folder}: config.json ties input and output embeddings, and {matrices[1]} differs from {matrices[0]}",
                        "set tie_word_embeddings to what the model was trained with")
    if config.vocab_size < pieces:
        raise UserError(f"the model has {config.vocab_size} rows, fewer than its tokenizer's {pieces} pieces",
                        "give the tokenizer that the model was trained with")
    if config.vocab_size != pieces + padding_rows:
        raise UserError(f"the model has {config.vocab_size} rows for its tokenizer's {pieces} pieces and {padding_rows} padding rows: it is padded, "
                        "or extended already",
                        f"if its last {config.vocab_size - pieces} rows only pad it, set train.extend.base_padding_rows={config.vocab_size - pieces}; if they "
                        "are tokens of another extension, give the model as it was before that")
    return matrices


def _weights(method: str, matrices: list[str], tied: bool, spellings: list[list[int]], aligned: new_rows.Rows) -> dict[str, new_rows.Weights]:
    """The shares of old rows in the new rows, by matrix; those of `random` only say which ids have text."""
    if method == "exponential":
        inward, outward = (new_rows.exponential_weights(spellings, sign * new_rows.STEEPNESS) for sign in (1, -1))
        of = new_rows.Weights.of
        return dict.fromkeys(matrices, of(new_rows.mixed(inward, outward))) if tied else dict(zip(matrices, (of(inward), of(outward)), strict=True))
    mean = new_rows.mean_weights(spellings)
    return dict.fromkeys(matrices, new_rows.Weights.of([learnt or mean[i] for i, learnt in enumerate(aligned)]) if method == "translation" else mean)


def _new_rows(source: Shards, name: str, kept: int, weights: new_rows.Weights, config: ExtendConfig, drawn_as: str) -> Iterator[Tensor]:
    """The matrix's new rows in blocks, those of `random` drawn by the name `drawn_as`. Nothing is read before the first is asked for, so that one matrix at
    a time is in memory."""
    old_VD = source.load(name)[:kept]
    average = new_rows.mean_row(old_VD)
    if not average.isfinite().all():
        raise UserError(f"{source.places[name].path}: {name} holds values that are no numbers, and so would the new rows",
                        "give a sound checkpoint: this one is damaged, or its training diverged")
    if config.method == "random":
        seed = config.seed + int.from_bytes(hashlib.blake2b(drawn_as.encode(), digest_size=4).digest(), "big")
        yield from new_rows.random_rows(old_VD, average, weights.has_text, seed)
    else:
        yield from new_rows.weighted_rows(old_VD, average, weights)
