"""New pieces as the base's tokenizer spells them: whose rows a new row is made of (paper §2.2)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from allam.chat.tokens import CHAT_SPECIALS, is_padding
from allam.errors import UserError
from allam.text.byte_level import ByteLevelTokenizer
from allam.text.tokenizer import MODEL_FILE, SPACE, Tokenizer

model_pb2: Any = sentencepiece_model_pb2  # made by protobuf at run time, without types


def spell_new_pieces(base_folder: Path, merged_folder: Path) -> list[list[int]]:
    """For each id that only the merged tokenizer has, the base's ids of its text; empty for specials and padding rows.

    Raises `UserError` where the merged tokenizer is no extension of the base, or the base is extended already.
    """
    models = [(folder / MODEL_FILE).is_file() for folder in (base_folder, merged_folder)]
    if all(models):
        return _spell_in_model(base_folder, merged_folder)
    if any(models):
        raise UserError(f"one of {base_folder} and {merged_folder} holds a SentencePiece model and the other byte-level BPE", "merge again from this base")
    base, merged = ByteLevelTokenizer.load(base_folder), ByteLevelTokenizer.load(merged_folder)
    _check_tokenizers(base.names, merged.names)
    return [_spell(base, merged, i) for i in range(base.vocab_size, merged.vocab_size)]


def spelled_again(base: Tokenizer, merged: Tokenizer, token: int) -> list[int]:
    """What `spell_new_pieces` has for a new id, by other means: behind a line end, as the piece would stand within a text; in byte-level BPE back through
    the merges that made it."""
    if token in merged.padding:
        return []
    if isinstance(base, ByteLevelTokenizer) and isinstance(merged, ByteLevelTokenizer):
        return [base.bos_id] if token == merged.bos_id else merged.parts(token, base.vocab_size)
    if token in merged.special.values():
        return []
    return base.encode("\n" + merged.pieces([token])[0].replace(SPACE, " "))[len(base.encode("\n")):]


def _spell(base: ByteLevelTokenizer, merged: ByteLevelTokenizer, token: int) -> list[int]:
    """The base's ids of a piece's bytes. A BOS that the base lacks begins as the token that the base's documents begin with."""
    if token == merged.bos_id:
        return [base.bos_id]
    return [] if token in merged.special.values() or token in merged.padding else base.spell(merged.names[token])


def _spell_in_model(base_folder: Path, merged_folder: Path) -> list[list[int]]:
    base_proto, merged_proto = model_pb2.ModelProto(), model_pb2.ModelProto()
    base_proto.ParseFromString((base_folder / MODEL_FILE).read_bytes())
    merged_proto.ParseFromString((merged_folder / MODEL_FILE).read_bytes())
    _check_tokenizers([p.piece for p in base_proto.pieces], [p.piece for p in merged_proto.pieces])
    spec = base_proto.normalizer_spec  # a piece is spelled as it stands: no space is put before it or taken away
    spec.add_dummy_prefix, spec.remove_extra_whitespaces = False, False
    base = sentencepiece.SentencePieceProcessor(model_proto=base_proto.SerializeToString())
    normal = model_pb2.ModelProto.SentencePiece.NORMAL
    return [base.encode(p.piece.replace(SPACE, " ")) if p.type == normal else [] for p in merged_proto.pieces[len(base_proto.pieces):]]


def _check_tokenizers(base: list[str], merged: list[str]) -> None:
    extended = [piece for piece in base if piece in CHAT_SPECIALS or is_padding(piece)]
    if extended:
        raise UserError(f"the base tokenizer is extended already: it holds {extended[0]!r}", "give the base's own tokenizer and model, from before that")
    for i, (old, new) in enumerate(zip(base, merged, strict=False)):
        if old != new:
            raise UserError(f"id {i} is {old!r} in the base tokenizer and {new!r} in the merged one", "merge again from this base tokenizer")
    twice = [piece for piece, count in Counter(merged).items() if count > 1 and piece]
    if twice:
        raise UserError(f"the merged tokenizer holds {twice[0]!r} twice, so one of its rows could never be met", "merge again, each piece once")
    if len(merged) <= len(base):
        raise UserError(f"the merged tokenizer has {len(merged)} pieces and the base's {len(base)}: nothing is added",
                        "give the merged tokenizer's folder as `tokenizer` and the base's as `base_tokenizer`")
