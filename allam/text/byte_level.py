"""Byte-level BPE (Llama 3, Qwen): a tokenizer that has a `tokenizer.json` only, with the same face as a SentencePiece model's.

Such a tokenizer cuts text into words, spells each word's bytes in 256 signs of its own (`Ġ` for a space) and merges those; a piece may end within a
character. BOS and EOS are those that `tokenizer_config.json` names; chats know them as `<s>` and `</s>`. Where there is no BOS (Qwen's bases), documents
begin with the token that ends them, as they did when the base was trained.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from allam.chat.template import GUARD
from allam.chat.tokens import BOS, EOS, PAD, is_padding
from allam.errors import UserError
from allam.text.tokenizer import SPACE, Tokenizer

FAST_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


def _signs() -> list[str]:
    """The sign of each byte: printable Latin-1 stands for itself, the others follow from U+0100 on, as in GPT-2."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]


SIGNS = _signs()
_BYTES = {sign: byte for byte, sign in enumerate(SIGNS)}


def is_spelled(name: str) -> bool:
    """Whether a piece's name is made of bytes' signs alone."""
    return all(sign in _BYTES for sign in name)


def to_bytes(name: str) -> bytes:
    """The bytes of a piece from the signs that spell it."""
    return bytes(map(_BYTES.__getitem__, name))


def whole_text(piece: bytes) -> str | None:
    """The text of a piece; None where it begins or ends within a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


class ByteLevelTokenizer(Tokenizer):
    """The tokenizer in a `tokenizer.json`; what it does is what the `tokenizers` library does, special tokens in text aside."""

    def __init__(self, data: bytes, bos: str | None, eos: str) -> None:
        described = json.loads(data)
        described["normalizer"] = without_guard(described.get("normalizer"))
        self._library = tokenizers.Tokenizer.from_str(json.dumps(described))
        self._library.encode_special_tokens = True  # text from outside: what spells a special token is plain text
        self._library.no_truncation()
        self._library.no_padding()
        self.fingerprint = hashlib.sha256(data + f"\0{bos}\0{eos}".encode()).hexdigest()
        ids: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        self.names = [""] * self.vocab_size  # as the file spells them; nothing where an id has no piece
        for name, i in ids.items():
            self.names[i] = name
        self._added = {token["content"] for token in described["added_tokens"]}
        self.special = {token["content"]: ids[token["content"]] for token in described["added_tokens"] if token["special"]}
        self.padding = [i for i, name in enumerate(self.names) if is_padding(name) and name not in self._added]
        self._padding = frozenset(self.padding)
        self.bos_id, self.eos_id = ids[eos if bos is None else bos], ids[eos]
        self.special |= {BOS: self.bos_id, EOS: self.eos_id}
        self.pad_id = self.special.get(PAD)

    @classmethod
    def load(cls, folder: Path) -> ByteLevelTokenizer:
        """The tokenizer of a folder that holds `tokenizer.json` and `tokenizer_config.json`."""
        data, config = (Path(folder) / FAST_FILE).read_bytes(), read_config(Path(folder))
        bos, eos = token_of(config, "bos_token"), token_of(config, "eos_token")
        if eos is None:
            raise UserError(f"{Path(folder) / CONFIG_FILE} names no eos_token", "name the token that ends a document, such as <|end_of_text|> of Llama 3")
        return cls(data, bos, eos)

    def _by_library(self, text: str) -> list[int]:
        return self._library.encode(text, add_special_tokens=False).ids  # type: ignore[no-any-return]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens and padding rows give nothing, bytes that are no UTF-8 give U+FFFD."""
        return self._library.decode([i for i in ids if i not in self._padding], skip_special_tokens=True)  # type: ignore[no-any-return]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces behind ids as text: `▁` for a space, `<0xD8>` for a byte that is no whole character."""
        return [self._shown(self.names[i]) for i in ids]

    def is_byte(self, token_id: int) -> bool:
        """Whether the id stands for a part of a character, alone or beside whole ones."""
        return whole_text(self.piece_bytes(token_id)) is None

    def piece_bytes(self, token_id: int) -> bytes:
        """What an id stands for; nothing for special tokens and padding rows."""
        name = self.names[token_id]
        return b"" if name in self._added or token_id in self._padding else to_bytes(name)

    def normalise(self, text: str) -> str:
        """The text as it is after the base's own normalisation (NFC or none), which `decode` gives back."""
        normalizer: Any = self._library.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def words(self, text: str) -> list[str]:
        """The words that a text is cut into before anything is merged, spelled in bytes' signs."""
        return [word for word, _ in self._library.pre_tokenizer.pre_tokenize_str(self.normalise(text))]

    def spell(self, name: str) -> list[int]:
        """Ids of a word, or of any other run of bytes, given in bytes' signs."""
        return [token.id for token in self._library.model.tokenize(name)]

    def parts(self, token_id: int, below: int) -> list[int]:
        """The ids smaller than `below` that an id is merged from, followed back through its merges."""
        if token_id < below or token_id not in self._made_of:
            return [token_id] if token_id < below else []
        left, right = self._made_of[token_id]
        return self.parts(left, below) + self.parts(right, below)

    @cached_property
    def _made_of(self) -> dict[int, tuple[int, int]]:
        ids = {name: i for i, name in enumerate(self.names)}
        merges = json.loads(self._library.to_str())["model"]["merges"]
        return {ids[left + right]: (ids[left], ids[right]) for left, right in map(pair_of, reversed(merges))}

    def _shown(self, name: str) -> str:
        if name in self._added or not is_spelled(name):
            return name
        text = to_bytes(name).decode(errors="surrogateescape").replace(" ", SPACE)
        return re.sub("[\udc80-\udcff]", lambda byte: f"<0x{ord(byte[0]) - 0xDC00:02X}>", text)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's tokenizer_config.json. Raises `UserError` where there is none."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"there is no {CONFIG_FILE} beside {folder / FAST_FILE}", "put it there: it names the tokens that begin and end a document")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}", "give the file as the base's makers published it") from None
    return config


def token_of(config: dict[str, Any], name: str) -> str | None:
    """The text of a token that tokenizer_config.json names: a string, or an object with its `content`."""
    token = config.get(name)
    found: str | None = token.get("content") if isinstance(token, dict) else token
    return found


def pair_of(merge: Any) -> tuple[str, str]:
    """The two parts of a merge, which files give as `"a b"` or as `["a", "b"]`."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def guarded(normalizer: Any, first_signs: str) -> dict[str, Any]:
    """A normaliser that takes away the guard that the chat template puts into special tokens spelled out in messages, then does what `normalizer` does."""
    guard = {"type": "Replace", "pattern": {"Regex": f"(?<=[{re.escape(first_signs)}]){GUARD}"}, "content": ""}
    return {"type": "Sequence", "normalizers": [guard, *([] if normalizer is None else [normalizer])]}


def without_guard(normalizer: Any) -> Any:
    """What `guarded` was given; anything else as it is."""
    steps = normalizer.get("normalizers") if normalizer else None
    if not steps or GUARD not in (steps[0].get("pattern") or {}).get("Regex", ""):
        return normalizer
    return steps[1] if len(steps) > 1 else None
