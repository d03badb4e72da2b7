"""New rows of the embeddings for the new tokens: the mean of the old rows of a piece's old tokens, input and output (paper §2.2, Figure 5).

A piece such as `▁كتاب` is spelled out by the base tokenizer into pieces that the base model knows; its new rows are their mean, so that continued
training begins close to what the base made of the same text. Specials and padding rows have no spelling: they get the mean of all old rows.
`random` (the paper's ablation) draws from the normal distribution of the old rows' mean and covariance. Old rows keep every bit, and that is
checked on what was written. Alone: `allam stage extend --recipe demo`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors import safe_open
from sentencepiece import sentencepiece_model_pb2 as model_pb2
from torch import Tensor

from allam.engine.device import compute_device
from allam.engine.model import load_config, load_model, save_model, tensors_of
from allam.errors import StageFailed, UserError
from allam.text.tokenizer import MODEL_FILE, Tokenizer
from allam.train.config import ExtendConfig
from allam.train.shape import write_generation_config

MATRICES = ("model.embed_tokens.weight", "lm_head.weight")  # Llama's, Qwen's and Mistral's names
LOGITS_CHECKED_BELOW = 2_000_000_000  # parameters; above, two models in memory are too much for a check
PROMPT_TOKENS = 64


def run(config: ExtendConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Extends the input `model` from the input `base_tokenizer` to the input `tokenizer`."""
    compute_device()
    base, merged = Tokenizer.load(inputs["base_tokenizer"]), Tokenizer.load(inputs["tokenizer"])
    spellings = spell_new_pieces(inputs["base_tokenizer"], inputs["tokenizer"])
    source, target = inputs["model"] / "model", out / "model"
    model_config = load_config(source)
    if model_config.vocab_size < base.vocab_size:
        raise UserError(f"the model has {model_config.vocab_size} rows, fewer than its tokenizer's {base.vocab_size} pieces",
                        "give the tokenizer that the model was trained with")
    model_config.vocab_size, model_config.pad_token_id = merged.vocab_size, merged.pad_id
    weights = _extended(source, base.vocab_size, spellings, config)
    save_model(target, model_config, weights, inputs["tokenizer"])
    write_generation_config(target, merged)
    difference = check(source, target, base.vocab_size)
    spelled = [len(ids) for ids in spellings if ids]
    return {"method": config.method, "old_rows": base.vocab_size, "new_rows": len(spellings), "rows_without_spelling": len(spellings) - len(spelled),
            "mean_old_tokens_of_a_new_piece": round(sum(spelled) / max(1, len(spelled)), 4), "largest_logit_difference": difference}


def spell_new_pieces(base_folder: Path, merged_folder: Path) -> list[list[int]]:
    """For each id that only the merged tokenizer has, the base's ids of its text; empty for specials and padding rows.

    Raises `UserError` where the base's ids mean something else in the merged tokenizer.
    """
    base_proto, merged_proto = model_pb2.ModelProto(), model_pb2.ModelProto()  # type: ignore[attr-defined]
    base_proto.ParseFromString((base_folder / MODEL_FILE).read_bytes())
    merged_proto.ParseFromString((merged_folder / MODEL_FILE).read_bytes())
    for i, (old, new) in enumerate(zip(base_proto.pieces, merged_proto.pieces, strict=False)):
        if old.piece != new.piece:
            raise UserError(f"id {i} is {old.piece!r} in the base tokenizer and {new.piece!r} in the merged one", "merge again from this base tokenizer")
    spec = base_proto.normalizer_spec  # a piece is spelled as it stands: no space is put before it or taken away
    spec.add_dummy_prefix, spec.remove_extra_whitespaces = False, False
    base = sentencepiece.SentencePieceProcessor(model_proto=base_proto.SerializeToString())
    normal = model_pb2.ModelProto.SentencePiece.NORMAL  # type: ignore[attr-defined]
    return [base.encode(p.piece.replace("▁", " ")) if p.type == normal else [] for p in merged_proto.pieces[len(base_proto.pieces):]]


def new_rows(old_VD: Tensor, spellings: list[list[int]], method: str, seed: int) -> Tensor:
    """The rows for the new ids, in the old ones' type; computed in double precision."""
    rows_VD = old_VD.double()
    if method == "random":
        return _random_rows(rows_VD, len(spellings), seed).to(old_VD.dtype)
    average = rows_VD.mean(dim=0)
    return torch.stack([rows_VD[ids].mean(dim=0) if ids else average for ids in spellings]).to(old_VD.dtype)


def _random_rows(rows_VD: Tensor, count: int, seed: int) -> Tensor:
    """`count` draws from the normal distribution with the rows' mean and covariance."""
    centred_VD = rows_VD - rows_VD.mean(dim=0)
    generator = torch.Generator().manual_seed(seed)
    noise_NV = torch.randn(count, len(rows_VD), generator=generator, dtype=torch.float64)
    return rows_VD.mean(dim=0) + noise_NV @ centred_VD / len(rows_VD) ** 0.5


def _extended(source: Path, old_rows: int, spellings: list[list[int]], config: ExtendConfig) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors one by one, the two embedding matrices with their new rows."""
    for name, tensor in tensors_of(source):
        if name in MATRICES:
            seed = config.seed + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
            tensor = torch.cat([tensor[:old_rows], new_rows(tensor[:old_rows], spellings, config.method, seed)])
        yield name, tensor


def check(source: Path, target: Path, old_rows: int) -> float | None:
    """Compares what was written with the base: all old values bit by bit, and for models that fit, the logits of old ids on old ids.

    Returns the largest difference of a logit (None where not measured); raises `StageFailed` where the extension changed anything old.
    """
    before, after = _all_tensors(source), _all_tensors(target)
    if set(before) != set(after):
        raise StageFailed(f"the extended model has other tensors than the base: {sorted(set(before) ^ set(after))}", "report this as a bug")
    parameters = 0
    for name, read in before.items():
        old, new = read(), after[name]()
        parameters += old.numel()
        if name in MATRICES:
            old, new = old[:old_rows], new[:old_rows]
        if not torch.equal(old, new):
            raise StageFailed(f"the extension changed old values of {name}", "report this as a bug")
    if parameters > LOGITS_CHECKED_BELOW:
        return None
    ids = torch.arange(old_rows)[torch.linspace(0, old_rows - 1, PROMPT_TOKENS).long()].unsqueeze(0)
    with torch.no_grad():
        old_logits = load_model(source)(ids).logits[..., :old_rows]
        new_logits = load_model(target)(ids).logits[..., :old_rows]
    difference = float((old_logits - new_logits).abs().max())
    if difference > 1e-4 * float(old_logits.abs().max()) + 1e-6:  # a wider matrix may be summed in another order, no more
        raise StageFailed(f"logits of old tokens differ by {difference} after the extension", "report this as a bug")
    return difference


def _all_tensors(folder: Path) -> dict[str, Any]:
    """Readers of all tensors of a model's folder by name."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        handle = safe_open(path, framework="pt")
        for name in handle.keys():  # noqa: SIM118 - not a dict
            found[name] = lambda handle=handle, name=name: handle.get_tensor(name)
    return found
