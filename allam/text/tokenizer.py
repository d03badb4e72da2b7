"""The tokenizer that everything else uses: text to ids and back, exactly as the SentencePiece model does it, only faster.

    tokenizer = Tokenizer.load(folder)          # a folder with tokenizer.model
    ids = [tokenizer.bos_id, *tokenizer.encode("مرحبا"), tokenizer.eos_id]

`encode` never gives a special id, whatever the text spells: special tokens are CONTROL pieces, which SentencePiece does not look for in text.
No piece of a Llama-like model runs across the end of a word (`x▁`) or from a letter to a sign, so no merge does, and a text may be cut there and the
parts looked up: the ids are those of the whole text. Parts met for the first time go through SentencePiece together, one to a line. docs/tokenizer.md has
the measured speed. A model whose pieces do run across is encoded in one go.
"""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from allam.chat.tokens import BOS, EOS, PAD, is_padding
from allam.errors import UserError

model_pb2: Any = sentencepiece_model_pb2  # made by protobuf at run time, without types

MODEL_FILE = "tokenizer.model"
SPACE = "▁"  # U+2581, SentencePiece's sign for a space
_MAX_KNOWN = 500_000  # parts of texts whose ids are kept: about 100 MB
_MAX_KNOWN_LENGTH = 64  # characters
_LEARNT_TOGETHER = 256  # parts; SentencePiece takes longer for a part of a long text


class Tokenizer:
    """A SentencePiece model with its special tokens. `vocab_size` counts all rows of a model's embedding, those of `padding` included."""

    def __init__(self, model: bytes) -> None:
        proto = model_pb2.ModelProto()
        proto.ParseFromString(model)
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self.vocab_size = len(proto.pieces)
        kinds = model_pb2.ModelProto.SentencePiece
        self.special: dict[str, int] = {p.piece: i for i, p in enumerate(proto.pieces)
                                        if p.type in (kinds.CONTROL, kinds.UNKNOWN) and not is_padding(p.piece)}
        self.padding = [i for i, p in enumerate(proto.pieces) if p.type == kinds.CONTROL and is_padding(p.piece)]
        self.bos_id, self.eos_id = self._required(BOS), self._required(EOS)
        self.pad_id: int | None = self.special.get(PAD)
        self._prefix = " " if proto.normalizer_spec.add_dummy_prefix else ""
        self._parts = _part_pattern(proto)
        proto.normalizer_spec.add_dummy_prefix = False
        self._lock = threading.Lock()
        self._known = _Known(sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString()))

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a folder that holds `tokenizer.model`, or where there is only a `tokenizer.json`, that one (`allam/text/byte_level.py`)."""
        path = Path(folder) / MODEL_FILE
        if not path.is_file():
            from allam.text import byte_level

            if (path.with_name(byte_level.FAST_FILE)).is_file():
                return byte_level.ByteLevelTokenizer.load(folder)
            raise UserError(f"there is no {MODEL_FILE} in {folder}", "give the folder of a tokenizer stage's artifact, or of an exported model")
        return cls(path.read_bytes())

    def _required(self, name: str) -> int:
        if name not in self.special:
            raise UserError(f"the tokenizer has no control piece {name!r}", "use a SentencePiece model with <s> and </s>, such as Llama 2's")
        return self.special[name]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS and EOS; never a special id. Raises `UserError` on a lone surrogate, which is not text."""
        if not text:
            return []
        try:
            if self._parts is None or SPACE in text:
                return self._processor.encode(text)  # type: ignore[no-any-return]
            parts = self._parts.findall(self._prefix + text)
            with self._lock:  # another thread must not meet a part before its ids stand there
                found = list(map(self._known.__getitem__, parts))
                if self._known.new:
                    self._known.learn()
            return list(chain.from_iterable(found))
        except RuntimeError:  # SentencePiece's binding can't take the string
            refuse_surrogates(text)
            raise

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens and padding rows give nothing, bytes that are no UTF-8 give U+FFFD.

        The space that `encode` puts before a text is taken off again: decode a whole answer, not its tokens one by one.
        """
        return self._processor.decode(list(ids))  # type: ignore[no-any-return]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces behind ids as the model spells them (`▁` for a space, `<0x0A>` for a byte)."""
        return [self._processor.id_to_piece(i) for i in ids]

    def is_byte(self, token_id: int) -> bool:
        """Whether the id stands for one byte of a character that has no piece."""
        return self._processor.is_byte(token_id)  # type: ignore[no-any-return]


class _Known(dict[str, list[int]]):
    """Ids of the parts of texts. A new part gets an empty list at first, which `learn` fills: so a text's parts are looked up once."""

    def __init__(self, bare: sentencepiece.SentencePieceProcessor) -> None:
        super().__init__()
        self._encode = bare.encode  # of a model that puts no space before a text
        self._line_end: list[int] = bare.encode("\n")
        self.new: list[str] = []
        self["\n"] = self._line_end

    def __missing__(self, part: str) -> list[int]:
        self.new.append(part)
        ids = self[part] = list[int]()
        return ids

    def learn(self) -> None:
        """Fills the lists of the new parts. Long parts are forgotten at once, and all when there are too many."""
        new, self.new = self.new, []
        try:
            for start in range(0, len(new), _LEARNT_TOGETHER):
                some, at = new[start:start + _LEARNT_TOGETHER], 0
                ids = self._encode("\n".join(some) + "\n")
                for part in some:
                    end = ids.index(self._line_end[0], at)
                    self[part] += ids[at:end]
                    at = end + 1
        except RuntimeError:  # not text; nothing half learnt may stay
            for part in new:
                del self[part]
            raise
        for part in new:
            if len(part) > _MAX_KNOWN_LENGTH:
                del self[part]
        if len(self) > _MAX_KNOWN:
            self.clear()
            self["\n"] = self._line_end


def refuse_surrogates(text: str) -> None:
    """Raises `UserError` where a text holds a lone surrogate, with its place."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"the text holds a lone surrogate, {text[error.start]!a} at position {error.start}, which is no character",
                        "clean it first: text.encode('utf-8', 'replace').decode('utf-8')") from None


def _part_pattern(proto: Any) -> re.Pattern[str] | None:
    """What to cut a text into without changing its ids: runs of letters and of signs with the spaces before them, ends of lines.

    A cut is sound where no piece holds the two characters around it side by side, since a merge across it would make such a piece.
    None where pieces run across the ends of words or lines.
    """
    spec = model_pb2.TrainerSpec
    if proto.trainer_spec.model_type != spec.BPE or proto.trainer_spec.treat_whitespace_as_suffix:
        return None
    if proto.normalizer_spec.precompiled_charsmap or proto.normalizer_spec.remove_extra_whitespaces or not proto.trainer_spec.byte_fallback:
        return None
    pieces = [p.piece for p in proto.pieces if p.type == p.NORMAL or p.type == p.USER_DEFINED or p.type == p.UNUSED]
    if any(SPACE in piece.lstrip(SPACE) or ("\n" in piece and len(piece) > 1) for piece in pieces):
        return None
    beside = {pair for piece in pieces for pair in pairwise(piece.lstrip(SPACE))}
    beside |= {(b, a) for a, b in beside}
    signs = {c for c in "".join(pieces) if unicodedata.category(c)[0] not in "LM" and c not in (SPACE, "\n")}
    while joined := {a for a, b in beside if a in signs and b not in signs}:
        signs -= joined
    if not signs:
        return re.compile(r" *[^ \n]+|\n| +")
    some = re.escape("".join(sorted(signs)))
    return re.compile(rf" *[^ \n{some}]+| *[{some}]+|\n| +")
