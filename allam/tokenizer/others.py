"""Tokenizers that a recipe names to be compared with (`tokenizer.fertility.others`): text is only cut with them, so a file of any kind will do (paper §2.2).

    cut = others.read(Path("tokenizer.model"))
    cut.encode("مرحبا")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import tokenizers

from allam.errors import UserError
from allam.text.byte_level import SIGNS, is_spelled, to_bytes, whole_text
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import model

NEWLINE_BYTE = "<0x0A>"


@dataclass(frozen=True)
class Cut:
    """How a tokenizer cuts text, special tokens aside, and the ids that spell out characters in bytes."""

    encode: Callable[[str], list[int]]
    byte_ids: frozenset[int]


def of(tokenizer: Tokenizer) -> Cut:
    """One of the pipeline's own. The newline's id is no fallback, since a newline has no other spelling in Llama's tokenizer."""
    newline = tokenizer.encode("\n")[-1]
    return Cut(tokenizer.encode, frozenset(i for i in range(tokenizer.vocab_size) if tokenizer.is_byte(i) and i != newline))


def read(path: Path) -> Cut:
    """A SentencePiece model of any kind, or a `tokenizer.json`. Raises `UserError` where the file is neither."""
    if path.suffix != ".json":
        pieces = model.read(path).pieces
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        return Cut(processor.encode, frozenset(i for i, p in enumerate(pieces) if p.type == model.BYTE and p.piece != NEWLINE_BYTE))
    try:
        library = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no class of its own
        raise UserError(f"{path} is no tokenizer.json: {error}", "give the file as its makers published it, or a SentencePiece model") from None
    library.encode_special_tokens = True
    library.no_truncation()
    library.no_padding()
    names = library.get_vocab(with_added_tokens=False)
    byte_level = names.keys() >= set(SIGNS)
    return Cut(lambda text: library.encode(text, add_special_tokens=False).ids, frozenset(
        i for name, i in names.items() if (is_spelled(name) and whole_text(to_bytes(name)) is None if byte_level else _is_byte(name))))


def _is_byte(name: str) -> bool:
    return len(name) == 6 and name.startswith("<0x") and name.endswith(">") and name != NEWLINE_BYTE
