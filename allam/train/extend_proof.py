"""What is checked of an extended model, on the files as written, before the stage is done; the findings become `proof.json`.

- old values: every tensor is compared byte by byte with the base's (a linked file is the base's own);
- new rows: a sample is computed again from the piece's text by other means than the stage's and compared with the row of that id;
- padding rows: no text gives their ids, their rows are the mean of all old rows, and `generation_config.json` suppresses them;
- transformers: its own model of this configuration has exactly these tensors, in these shapes (checked without loading weights);
- logits: models below `logits_below` parameters give the base's logits for old ids on old text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from allam.engine.model import load_config, load_model
from allam.errors import StageFailed
from allam.text.tokenizer import Tokenizer
from allam.train import new_rows
from allam.train.shards import Shards, changed_tensors
from allam.train.spelling import spelled_again

SAMPLED = 256  # new rows computed again
TEXT = "The capital of France is Paris, and water boils at 100 degrees.\nfor i in range(10):\n    print(i)"
PROMPT_TOKENS = 64  # of the prompt that walks through the vocabulary
BUG = "report this as a bug"


@dataclass(frozen=True)
class Extension:
    """What went in and what was written."""

    source: Shards
    target: Shards
    base: Tokenizer
    merged: Tokenizer
    weights: dict[str, new_rows.Weights]  # by matrix, the input's first
    method: str
    tied: bool


def prove(extension: Extension, logits_below: int) -> dict[str, Any]:
    """The findings; raises `StageFailed` at the first promise that doesn't hold, with the tensor or the id."""
    kept = dict.fromkeys(extension.weights, extension.base.vocab_size)
    changed = next(changed_tensors(extension.source, extension.target, kept), None)
    if changed is not None:
        raise StageFailed(f"the extension changed old values of {changed}", BUG)
    linked = [path.name for path in extension.target.paths if path.samefile(extension.source.folder / path.name)]
    return {"old_values": {"tensors": len(extension.source.places), "changed": 0, "files": len(extension.target.paths), "linked_files": len(linked)},
            "new_rows": {name: _check_new_rows(extension, name) for name in extension.weights},
            "padding_rows": _check_padding(extension),
            "transformers": _check_shapes(extension.target),
            "logits": _check_logits(extension, logits_below)}


def _check_new_rows(extension: Extension, name: str) -> dict[str, Any]:
    """Compares a sample of new rows, and all padding rows, with their values computed from each piece's text alone."""
    base, merged = extension.base, extension.merged
    first, count = base.vocab_size, merged.vocab_size - base.vocab_size
    sample = sorted({first + i * (count - 1) // (SAMPLED - 1) for i in range(SAMPLED)} | set(merged.padding))
    average = new_rows.mean_row(extension.source.load(name)[:first])
    old_VD = extension.source.load(name)  # mapped anew: of this one only the rows of the sample come into memory
    written = safe_open(extension.target.places[name].path, framework="pt").get_slice(name)
    largest = 0.0
    drawn = 0
    for token in sample:
        shares = _shares(extension, name, token)
        if shares and extension.method == "random":
            drawn += 1
            continue
        ids, parts = zip(*shares, strict=True) if shares else ((), ())
        expected = torch.tensor(parts, dtype=torch.float64) @ old_VD[list(ids)].double() if shares else average
        row = written[token:token + 1][0]
        off = float((row.double() - expected).abs().max())
        largest = max(largest, off)
        if off > torch.finfo(row.dtype).eps * float(expected.abs().max()) + torch.finfo(row.dtype).tiny:
            raise StageFailed(f"{name}: the row of id {token} ({merged.pieces([token])[0]!r}) is not that of its text, by {off}", BUG)
    return {"computed_again": len(sample) - drawn, "drawn": drawn, "largest_difference": largest}


def _shares(extension: Extension, name: str, token: int) -> list[tuple[int, float]]:
    """The shares of old rows in a new id's row, by a spelling of its own."""
    ids = spelled_again(extension.base, extension.merged, token)
    if not ids:
        return []
    if extension.method in ("random", "translation"):  # what was learnt or drawn is no function of the piece
        return extension.weights[name][token - extension.base.vocab_size]
    if extension.method == "mean":
        return [(i, 1 / len(ids)) for i in ids]
    positions = torch.arange(len(ids), dtype=torch.float64)
    inward, outward = torch.softmax(2 * positions, 0), torch.softmax(-2 * positions, 0)
    shares = (inward + outward) / 2 if extension.tied else inward if name == next(iter(extension.weights)) else outward
    return list(zip(ids, shares.tolist(), strict=True))


def _check_padding(extension: Extension) -> dict[str, Any]:
    """What makes the rows inert that only fill the vocabulary; that their values are the mean was checked by `_check_new_rows`."""
    merged = extension.merged
    suppressed = json.loads((extension.target.folder / "generation_config.json").read_text(encoding="utf-8")).get("suppress_tokens") or []
    if missing := sorted(set(merged.padding) - set(suppressed)):
        raise StageFailed(f"generation_config.json doesn't suppress the padding row {missing[0]}", BUG)
    if met := sorted({i for text in (TEXT, *map(str, merged.pieces(merged.padding))) for i in merged.encode(text)} & set(merged.padding)):
        raise StageFailed(f"text is encoded as the padding row {met[0]}", "merge the tokenizers again: padding rows must be control pieces")
    return {"rows": len(merged.padding), "values": "mean of the old rows", "suppressed_in_generation_config": len(merged.padding)}


def _check_shapes(target: Shards) -> dict[str, Any]:
    """Compares names and shapes with those of transformers' own model of this configuration, made without storage."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(target.folder), trust_remote_code=False)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    wrong = sorted(name for name, place in target.places.items() if wanted.get(name, place.shape) != place.shape)
    if wrong:
        raise StageFailed(f"transformers wants {wrong[0]} in the shape {list(wanted[wrong[0]])}, and it has {list(target.places[wrong[0]].shape)}", BUG)
    return {"class": type(model).__name__, "shapes_compared": len(wanted.keys() & target.places.keys())}


def _check_logits(extension: Extension, below: int) -> dict[str, Any]:
    """Logits of old ids after old ids, of the base and of the extended model one after the other: on a text, and on ids from the whole vocabulary."""
    base, merged, parameters = extension.base, extension.merged, extension.source.parameters
    if parameters >= below:
        return {"skipped": f"{parameters:,} parameters, train.extend.logits_below is {below:,}"}
    ids = base.encode(TEXT)
    if merged.encode(TEXT) != ids:
        raise StageFailed(f"the merged tokenizer cuts English otherwise than the base's: {TEXT!r}", "merge again, and look at gate.json")
    across = torch.linspace(0, base.vocab_size - 1, PROMPT_TOKENS).long().tolist()
    prompts = [[base.bos_id, *ids], across]
    before, after = (list(_logits(load_model(shards.folder), prompts)) for shards in (extension.source, extension.target))
    largest, padding_first = 0.0, 0
    for old_TV, new_TV in zip(before, after, strict=True):
        difference = float((old_TV[:, :base.vocab_size] - new_TV[:, :base.vocab_size]).abs().max())
        if difference > 1e-4 * float(old_TV.abs().max()) + 1e-6:  # a wider matrix may be summed in another order, no more
            raise StageFailed(f"logits of old tokens differ by {difference} after the extension", BUG)
        largest = max(largest, difference)
        padding_first += len(set(merged.padding) & set(new_TV.argmax(dim=-1).tolist()))
    if padding_first:
        raise StageFailed(f"a padding row is the likeliest next token {padding_first} times", BUG)
    return {"tokens": sum(map(len, prompts)), "largest_difference": largest, "largest_logit": max(float(logits.abs().max()) for logits in before),
            "padding_row_likeliest": padding_first}


@torch.no_grad()
def _logits(model: PreTrainedModel, prompts: list[list[int]]) -> Iterator[Tensor]:
    """Logits in fp32, [token, vocabulary], for each prompt."""
    for ids in prompts:
        yield model(torch.tensor([ids])).logits[0]
