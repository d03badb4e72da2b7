"""The tokenizer that everything else uses: text to ids and back, exactly as the SentencePiece model does it, only faster.

    tokenizer = Tokenizer.load(folder)          # a folder with tokenizer.model
    ids = [tokenizer.bos_id, *tokenizer.encode("مرحبا"), tokenizer.eos_id]

`encode` never gives a special id, whatever the text spells: special tokens are CONTROL pieces, which SentencePiece does not look for in text.
A model whose pieces stay within words is encoded by `allam/text/bpe.py` (docs/benchmarks.md has the measured speed), any other by SentencePiece.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from google.protobuf.message import DecodeError

from allam.chat.tokens import BOS, EOS, PAD, is_padding
from allam.errors import UserError
from allam.text.bpe import SPACE, Bpe, IdArray, is_exact_for, model_pb2

__all__ = ["MODEL_FILE", "SPACE", "Tokenizer"]

MODEL_FILE = "tokenizer.model"


class Tokenizer:
    """A SentencePiece model with its special tokens. `vocab_size` counts all rows of a model's embedding, those of `padding` included."""

    _bpe: Bpe | None = None  # of models that can be cut at words

    def __init__(self, model: bytes) -> None:
        proto = model_pb2.ModelProto()
        try:
            proto.ParseFromString(model)
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (DecodeError, RuntimeError) as error:
            raise UserError(f"{len(model)} bytes are no SentencePiece model: {str(error).strip()}", f"give the bytes of a {MODEL_FILE}") from None
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self.vocab_size = len(proto.pieces)
        kinds = model_pb2.ModelProto.SentencePiece
        self.special: dict[str, int] = {p.piece: i for i, p in enumerate(proto.pieces)
                                        if p.type in (kinds.CONTROL, kinds.UNKNOWN) and not is_padding(p.piece)}
        self.padding = [i for i, p in enumerate(proto.pieces) if p.type == kinds.CONTROL and is_padding(p.piece)]
        self.bos_id, self.eos_id = self._required(BOS), self._required(EOS)
        self.pad_id: int | None = self.special.get(PAD)
        self._bpe = Bpe(proto) if is_exact_for(proto) else None

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
        return self.encode_array(text).tolist()  # type: ignore[no-any-return]

    def encode_array(self, text: str) -> IdArray:
        """The ids of `encode` as an array of `dtype`, as packing wants them."""
        try:
            return np.array(self._by_library(text), self.dtype) if self._bpe is None else self._bpe.encode(text)
        except (RuntimeError, TypeError, UnicodeEncodeError):  # a lone surrogate; which error, depends on the library
            refuse_surrogates(text)
            raise

    def _by_library(self, text: str) -> list[int]:
        return self._processor.encode(text)  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type of numbers that holds every id, of 16 bits or of 32."""
        return np.dtype(np.uint16 if self.vocab_size < 2**16 else np.uint32)

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


def refuse_surrogates(text: str) -> None:
    """Raises `UserError` where a text holds a lone surrogate, with its place; what is no text is passed over."""
    if not isinstance(text, str):
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"the text holds a lone surrogate, {text[error.start]!a} at position {error.start}, which is no character",
                        "clean it first: text.encode('utf-8', 'replace').decode('utf-8')") from None
