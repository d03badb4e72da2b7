"""The files of a tokenizer: SentencePiece's model, and the same as a fast tokenizer for transformers, with equal ids (paper §2.2).

transformers' own conversion of Llama 2's model loses leading spaces, so tokenizer.json is built here: every way of cutting a piece in two is a
merge, ranked as SentencePiece ranks the piece. The checks of allam/tokenizer/check.py compare the two.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from allam.artifacts import write_atomic
from allam.chat.template import GUARD
from allam.chat.tokens import BOS, CHAT_SPECIALS, EOS, PAD, UNK, is_padding
from allam.text.tokenizer import MODEL_FILE, SPACE
from allam.tokenizer import model


def write_tokenizer(out: Path, data: bytes, chat_template: str | None = None) -> None:
    """Writes tokenizer.model, tokenizer.json, tokenizer_config.json and special_tokens_map.json below `out`."""
    proto = model.parse(data, MODEL_FILE)
    specials = {BOS: "bos_token", EOS: "eos_token", UNK: "unk_token"}
    pieces = {p.piece for p in proto.pieces}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
        "padding_side": "right", "split_special_tokens": False} | {name: token for token, name in specials.items()}
    if PAD in pieces:
        config["pad_token"] = PAD
        config["additional_special_tokens"] = [token for token in CHAT_SPECIALS if token != PAD]
    if chat_template is not None:
        config["chat_template"] = chat_template
    named = {key: value for key, value in config.items() if (key.endswith("_token") and isinstance(value, str)) or key == "additional_special_tokens"}
    write_atomic(out / MODEL_FILE, data)
    write_atomic(out / "tokenizer.json", json.dumps(fast_tokenizer(proto, chat_template is not None), ensure_ascii=False, indent=0) + "\n")
    write_atomic(out / "tokenizer_config.json", pretty(config))
    write_atomic(out / "special_tokens_map.json", pretty(named))


def write_summary(out: Path, metrics: dict[str, Any]) -> None:
    """summary.json: the size, the special tokens and what the stage measured."""
    proto = model.read(out / MODEL_FILE)
    specials = {p.piece: i for i, p in enumerate(proto.pieces) if p.type in (model.CONTROL, model.UNKNOWN) and not is_padding(p.piece)}
    summary = {"vocab_size": len(proto.pieces), "special": specials, "sha256": hashlib.sha256((out / MODEL_FILE).read_bytes()).hexdigest()}
    write_atomic(out / "summary.json", pretty(summary | metrics))


def fast_tokenizer(proto: model.ModelProto, guarded: bool = False) -> dict[str, Any]:
    """The content of tokenizer.json for a model that `model.check_model` lets through.

    `guarded`: the guard that the chat template puts into special tokens spelled out in messages is taken away, after special tokens were looked for.
    """
    ids = {p.piece: i for i, p in enumerate(proto.pieces)}
    specials = [p.piece for p in proto.pieces if p.type in (model.CONTROL, model.UNKNOWN) and not is_padding(p.piece)]
    added = [{"id": ids[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for token in specials]
    replace_space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    decoders: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    normalizers: list[dict[str, Any]] = [replace_space]
    if proto.normalizer_spec.add_dummy_prefix:
        normalizers.insert(0, {"type": "Prepend", "prepend": SPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    if guarded:
        normalizers.insert(0, {"type": "Replace", "pattern": {"Regex": f"(?<=<){GUARD}"}, "content": ""})
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": _pre_tokenizer(proto),
        "post_processor": add_bos(BOS, ids[BOS]), "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": None, "unk_token": UNK, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": ids, "merges": merges(model.normal_pieces(proto))}}


def merges(scores: dict[str, float]) -> list[list[str]]:
    """The merges of a BPE model with these pieces, first the one that SentencePiece does first.

    SentencePiece does equal scores from left to right. Only Llama 2's runs of spaces have them: with the longest first, a run grows from its
    left end there too. Of the ways to cut one piece, the one with the longest left part comes first, since runs of one character grow likewise.
    """
    found = []
    for piece, score in scores.items():
        for left in range(1, len(piece)):
            if piece[:left] in scores and piece[left:] in scores:
                found.append((-score, -len(piece), -left, piece))
    found.sort()
    return [[piece[:-minus_left], piece[-minus_left:]] for _, _, minus_left, piece in found]


def _pre_tokenizer(proto: model.ModelProto) -> dict[str, Any] | None:
    """Cuts before the spaces of a word, where no piece runs across: the ids stay the same and words are found in the cache."""
    if any(SPACE in piece.lstrip(SPACE) for piece in model.normal_pieces(proto)):
        return None
    return {"type": "Split", "pattern": {"Regex": f"{SPACE}*[^{SPACE}]+|{SPACE}+"}, "behavior": "Isolated", "invert": False}


def add_bos(name: str, bos_id: int) -> dict[str, Any]:
    """The step of tokenizer.json that puts BOS before a text, and before the second of a pair."""
    bos, first, second = ({"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}})
    return {"type": "TemplateProcessing", "single": [bos, first], "pair": [bos, first, {"SpecialToken": {"id": name, "type_id": 1}}, second],
            "special_tokens": {name: {"id": name, "ids": [bos_id], "tokens": [name]}}}


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
