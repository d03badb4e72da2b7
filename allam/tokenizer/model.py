"""SentencePiece models as data: read, check what the method needs, write (paper §2.2).

The method needs a BPE model with byte fallback that leaves text as it is: only then is every text kept, and only then does the order of the
merges follow from the scores alone, so that pieces can be added without touching the others.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from allam.chat.tokens import BASE_SPECIALS, CHAT_SPECIALS, is_padding
from allam.errors import UserError
from allam.text.bpe import SPACE, model_pb2

ModelProto: TypeAlias = Any  # model_pb2.ModelProto
_TYPES = model_pb2.ModelProto.SentencePiece
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = (
    _TYPES.NORMAL, _TYPES.UNKNOWN, _TYPES.CONTROL, _TYPES.USER_DEFINED, _TYPES.UNUSED, _TYPES.BYTE)
RUN_OF_SPACES = -1e8  # Llama 2 gives its runs of spaces -1e9; float32 has no room for an order below that
_LFS_POINTER = b"version https://git-lfs"
_KINDS = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}


def parse(data: bytes, where: str) -> ModelProto:
    """The model in `data`; `where` names it in errors. Raises `UserError` where it is no SentencePiece model."""
    proto = model_pb2.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        proto.Clear()
    if not proto.pieces:
        raise UserError(f"{where} is no SentencePiece model ({len(data)} bytes, {_first_line(data)!r})",
                        "it is a Git LFS pointer: give the file that it stands for (git lfs pull)" if data.startswith(_LFS_POINTER) else
                        "fetch tokenizer.model again, if it is damaged or cut short; if it is of another kind, as Llama 3's, give the base's tokenizer.json")
    return proto


def read(path: Path) -> ModelProto:
    """The model in a file."""
    return parse(path.read_bytes(), str(path))


def copy(proto: ModelProto) -> ModelProto:
    """A copy to change."""
    twin = model_pb2.ModelProto()
    twin.CopyFrom(proto)
    return twin


def serialise(proto: ModelProto) -> bytes:
    """The same bytes for the same model."""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def check_model(proto: ModelProto, where: str) -> None:
    """Raises `UserError` unless the model is a BPE model with byte fallback that keeps text as it is and is not extended yet."""
    spec = proto.trainer_spec
    if spec.model_type != spec.BPE:
        raise UserError(f"{where} is a {_KINDS.get(spec.model_type, 'strange')} model; pieces can be added to a BPE model only",
                        "give a SentencePiece model trained with model_type=bpe, such as Llama 2's or Mistral 7B v0.1's")
    if sum(p.type == BYTE for p in proto.pieces) != 256 or not spec.byte_fallback:
        raise UserError(f"{where} has no byte fallback: text outside its characters would be lost", "give a model trained with byte_fallback=true")
    if proto.normalizer_spec.precompiled_charsmap or proto.normalizer_spec.remove_extra_whitespaces or spec.treat_whitespace_as_suffix:
        raise UserError(f"{where} changes text before it is cut (normalisation {proto.normalizer_spec.name!r}, remove_extra_whitespaces="
                        f"{proto.normalizer_spec.remove_extra_whitespaces}, treat_whitespace_as_suffix={spec.treat_whitespace_as_suffix})",
                        "give a model trained with normalization_rule_name=identity, remove_extra_whitespaces=false")
    _check_pieces(proto, where)


def _check_pieces(proto: ModelProto, where: str) -> None:
    pieces = [p.piece for p in proto.pieces]
    twice = [piece for piece, count in Counter(pieces).items() if count > 1]
    if twice:
        raise UserError(f"{where} holds {len(twice)} pieces twice, such as {twice[:3]}", "give the model as its makers published it")
    odd = next((f"id {i} is {p.piece!r} with the score {p.score}" for i, p in enumerate(proto.pieces) if not p.piece or not math.isfinite(p.score)), None)
    if odd:
        raise UserError(f"{where} holds a piece that no text can be cut into: {odd}", "give the model as its makers published it")
    if tuple(pieces[:3]) != BASE_SPECIALS or [p.type for p in proto.pieces[:3]] != [UNKNOWN, CONTROL, CONTROL]:
        raise UserError(f"{where} begins with the pieces {pieces[:3]}", f"give a model whose first pieces are {', '.join(BASE_SPECIALS)}, as Llama 2's")
    extended = [p.piece for p in proto.pieces[3:] if p.type == CONTROL or p.piece in CHAT_SPECIALS or is_padding(p.piece)]
    if extended:
        raise UserError(f"{where} has been extended already: it holds {', '.join(extended[:3])}", "give the base's own tokenizer.model")
    risen = _risen(proto)
    if risen:
        raise UserError(f"{where} has been extended already: {risen}, though training gives falling scores", "give the base's own tokenizer.model")
    idle = _unreachable(proto)
    if idle:
        raise UserError(f"{where} has been padded already: no text can be cut into {len(idle)} of its pieces, such as {', '.join(map(repr, idle[:3]))}",
                        "give the base's own tokenizer.model; train.extend.base_padding_rows says how many rows the model has beyond it")
    own = [p.piece for p in proto.pieces if p.type == USER_DEFINED]
    if own:
        raise UserError(f"{where} has {len(own)} user-defined pieces, such as {own[:3]}, which text could spell", "give a model without them")


def _risen(proto: ModelProto) -> str | None:
    """The first piece of several characters that ranks above one before it, as the public recipes' pieces with a score of 0 do."""
    lowest, last = math.inf, ""
    for i, p in enumerate(proto.pieces):
        if p.type == NORMAL and (p.score > RUN_OF_SPACES or p.piece.strip(SPACE)):
            if len(p.piece) > 1 and p.score > lowest:
                return f"its piece {p.piece!r}, id {i}, has the score {p.score:g} and ranks above {last!r} before it with {lowest:g}"
            if p.score < lowest:
                lowest, last = p.score, p.piece
    return None


def _unreachable(proto: ModelProto) -> list[str]:
    """Pieces that no merge makes, whatever the text, as those of padding (`<pad_12>`, `[unused3]`) and those that are marked as unused. Training gives none,
    since it makes each piece of two; Llama 2's and Mistral 7B v0.1's models have none either."""
    made, idle = set[str](), [p.piece for p in proto.pieces if p.type == UNUSED]
    for piece in sorted(normal_pieces(proto), key=len):
        if len(piece) == 1 or any(all(len(part) == 1 or part in made for part in (piece[:i], piece[i:])) for i in range(1, len(piece))):
            made.add(piece)
        else:
            idle.append(piece)
    return idle


def normal_pieces(proto: ModelProto) -> dict[str, float]:
    """The pieces that text is cut into, with their scores, in the order of their ids."""
    return {p.piece: p.score for p in proto.pieces if p.type == NORMAL}


def _first_line(data: bytes) -> str:
    return data[:40].decode("utf-8", "replace").split("\n")[0]
