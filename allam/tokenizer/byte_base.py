"""A byte-level base as data: read, check what the method needs, write what is made of it (paper §2.2).

Llama 3's and Qwen's tokenizers are a `tokenizer.json` with a `tokenizer_config.json` beside it. The method needs byte-level BPE that keeps text as it is,
or brings it into NFC (Qwen): only then does text come back, and only then can merges be put behind the base's own without touching them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allam.artifacts import write_atomic
from allam.chat.template import chat_template
from allam.chat.tokens import BOS, CHAT_SPECIALS, EOS, PAD, is_padding, padding_token
from allam.errors import UserError
from allam.text.byte_level import CONFIG_FILE, FAST_FILE, SIGNS, ByteLevelTokenizer, guarded, pair_of, read_config, token_of
from allam.text.tokenizer import MODEL_FILE
from allam.tokenizer.fast import add_bos, pretty
from allam.tokenizer.onward import Merge

REMEDY = "give a base with byte-level BPE (such as Llama 3's or Qwen's tokenizer.json), or the tokenizer.model of one with SentencePiece BPE"
_NAMES = {"Unigram": "unigram", "WordPiece": "WordPiece", "WordLevel": "word-level"}


@dataclass(frozen=True)
class ByteBase:
    """A base's tokenizer.json, and the tokens that begin and end a document."""

    data: dict[str, Any]
    bos: str | None
    eos: str

    @property
    def ids(self) -> dict[str, int]:
        """Every token of the base with its id, added ones included."""
        return {**self.data["model"]["vocab"], **{token["content"]: token["id"] for token in self.data["added_tokens"]}}

    @property
    def specials(self) -> list[str]:
        """The special tokens that text must not give."""
        return [token["content"] for token in self.data["added_tokens"] if token["special"]]


def is_byte_level(folder: Path) -> bool:
    """Whether a tokenizer's folder holds a tokenizer.json and no SentencePiece model."""
    return not (folder / MODEL_FILE).is_file() and (folder / FAST_FILE).is_file()


def read(folder: Path) -> ByteBase:
    """The base in a folder. Raises `UserError` where it can't be trained onward."""
    path, config = folder / FAST_FILE, read_config(folder)
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}", "give the file as the base's makers published it: a Git LFS pointer in its place won't do") from None
    check_kind(data, str(path))
    bos, eos = token_of(config, "bos_token"), token_of(config, "eos_token")
    if eos is None:
        raise UserError(f"{folder / CONFIG_FILE} names no eos_token", "name the token that ends a document there, such as <|end_of_text|> of Llama 3")
    base = ByteBase(data, bos, eos)
    _check_tokens(base, folder)
    return base


def check_kind(data: dict[str, Any], where: str) -> None:
    """Raises `UserError` unless a tokenizer.json is byte-level BPE that keeps text as it is, NFC aside."""
    model = data.get("model") or {}
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise UserError(f"{where} is a {_NAMES.get(str(kind), 'strange')} tokenizer; merges can be put behind those of BPE only", REMEDY)
    if model.get("byte_fallback"):
        raise UserError(f"{where} was made of a SentencePiece model (byte_fallback), and isn't byte-level", "give that model's own file, tokenizer.model")
    steps = [*_steps(data.get("pre_tokenizer"), "pretokenizers"), *_steps(data.get("decoder"), "decoders")]
    missing = [sign for sign in SIGNS if sign not in model["vocab"]]
    if sum(step.get("type") == "ByteLevel" for step in steps) < 2 or missing:
        raise UserError(f"{where} is not byte-level: " + (f"{len(missing)} bytes have no piece" if missing else "no step of type ByteLevel"), REMEDY)
    odd = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if odd:
        raise UserError(f"{where} has {odd[0]} {model[odd[0]]!r}, so that ids don't follow from the merges alone", REMEDY)
    if any(step.get("add_prefix_space") for step in _steps(data.get("pre_tokenizer"), "pretokenizers")):
        raise UserError(f"{where} puts a space before each text (add_prefix_space), which doesn't come back", REMEDY)
    other = [step["type"] for step in _steps(data.get("normalizer"), "normalizers") if step["type"] != "NFC"]
    if other:
        raise UserError(f"{where} changes text before it is cut ({other[0]})", "give a base whose tokenizer leaves text as it is, or brings it into NFC")


def _steps(step: dict[str, Any] | None, several: str) -> list[dict[str, Any]]:
    """The steps of a part of tokenizer.json, those within sequences too."""
    if not step:
        return []
    return [inner for one in step[several] for inner in _steps(one, several)] if step.get("type") == "Sequence" else [step]


def _check_tokens(base: ByteBase, folder: Path) -> None:
    path, ids = folder / FAST_FILE, base.ids
    twice = next((i for i, count in Counter(ids.values()).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{path}: id {twice} has two tokens, {[name for name, i in ids.items() if i == twice]}", "give the file as its makers published it")
    for name, token in (("bos_token", base.bos), ("eos_token", base.eos)):
        if token is not None and token not in base.specials:
            raise UserError(f"{folder / CONFIG_FILE}: {name} {token!r} is no special token of {FAST_FILE}", "give the two files of one tokenizer")
    extended = [token for token in ids if token in CHAT_SPECIALS or is_padding(token)]
    if extended:
        raise UserError(f"{path} has been extended already, or has chat tokens of this name: it holds {', '.join(extended[:3])}", "give the base's own file")
    for name, token in ((BOS, base.bos), (EOS, base.eos)):
        if name in ids and token != name:
            raise UserError(f"{path} holds {name}, and {token!r} is what {'begins' if name == BOS else 'ends'} a document",
                            f"name {name} in {CONFIG_FILE}, if it does")


def extended(base: ByteBase, merges: Collection[Merge], pad_to_multiple: int) -> ByteBase:
    """The base with the merges behind its own; then `<s>` where it has no BOS, the chat's special tokens, and padding rows. `base` is left as it is.

    All tokens stand in the model's vocabulary, since the library counts added ones from there; those that no merge makes can't be met.
    """
    ids, model = base.ids, base.data["model"]
    first = max(ids.values()) + 1
    chat = [*([] if base.bos else [BOS]), *CHAT_SPECIALS]
    padding = -(first + len(merges) + len(chat)) % pad_to_multiple
    new = [*(left + right for left, right in merges), *chat, *map(padding_token, range(padding))]
    vocab = ids | {name: first + i for i, name in enumerate(new)}
    if len(vocab) != len(ids) + len(new):
        raise UserError(f"{len(ids) + len(new) - len(vocab)} new pieces are in the base already, or stand twice", "report this as a bug")
    data = base.data | {
        "model": model | {"vocab": vocab, "merges": [*map(pair_of, model["merges"]), *merges]}, "truncation": None, "padding": None,
        "added_tokens": [*({**token, "normalized": token.get("normalized", False) and not token["special"]} for token in base.data["added_tokens"]),
                         *(special_token(name, vocab[name]) for name in chat)]}
    bos = base.bos or BOS
    data["post_processor"] = add_bos(bos, vocab[bos])
    return ByteBase(data, bos, base.eos)


def special_token(name: str, token_id: int) -> dict[str, Any]:
    """An added token that the library looks for before anything else, unless special tokens are split."""
    return {"id": token_id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def write(out: Path, tokenizer: ByteBase, chat: bool = False) -> None:
    """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json; with the chat template and its guard where `chat`."""
    data, named = tokenizer.data, {"eos_token": tokenizer.eos} | ({"bos_token": tokenizer.bos} if tokenizer.bos else {})
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": tokenizer.bos is not None, "add_eos_token": False,
                              "clean_up_tokenization_spaces": False, "padding_side": "right", "split_special_tokens": False}
    extra: dict[str, Any] = {}
    if chat:
        extra = {"pad_token": PAD, "additional_special_tokens": [token for token in CHAT_SPECIALS if token != PAD]}
        heads = [token for token in tokenizer.specials if not token.startswith("<|")]
        config["chat_template"] = chat_template(heads)
        data = data | {"normalizer": guarded(data.get("normalizer"), "".join(sorted({"<", *(head[0] for head in heads)})))}
    write_atomic(out / FAST_FILE, json.dumps(data, ensure_ascii=False, indent=0) + "\n")
    write_atomic(out / CONFIG_FILE, pretty(config | named | extra))
    write_atomic(out / "special_tokens_map.json", pretty(named | extra))


def write_summary(out: Path, metrics: dict[str, Any]) -> None:
    """summary.json: the size, the special tokens and what the stage measured."""
    tokenizer = ByteLevelTokenizer.load(out)
    summary = {"vocab_size": tokenizer.vocab_size, "special": tokenizer.special, "sha256": hashlib.sha256((out / FAST_FILE).read_bytes()).hexdigest()}
    write_atomic(out / "summary.json", pretty(summary | metrics))
