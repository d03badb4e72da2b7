"""Stage merged_tokenizer: the base tokenizer with the Arabic pieces that it lacks, and the proof that nothing else changed (paper §2.2).

The public recipes of this kind append the new pieces with a score of 0, above all of the base's, and so cut many Arabic words otherwise than
the Arabic tokenizer would (docs/tokenizer.md has the measurement). Here the new pieces rank below the base's, in their own order, and only
pieces of Arabic script are added: text without Arabic script can't meet one, so its ids stay.

    allam stage merged_tokenizer --recipe demo
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from allam.artifacts import write_json
from allam.chat.tokens import CHAT_SPECIALS, PAD, padding_token
from allam.documents import Document, is_held_out
from allam.errors import UserError
from allam.text.tokenizer import MODEL_FILE, SPACE
from allam.tokenizer import byte_base, byte_merge, check, fast, gate, model
from allam.tokenizer.config import MergedTokenizerConfig
from allam.tokenizer.sampling import group_of, sample_lines
from allam.tokenizer.script import is_arabic_piece


def run(config: MergedTokenizerConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Merges the inputs `base` and `arabic`; the gate judges the result on lines of `natural` and `translated`, and gate.json says what it found."""
    from allam.chat.template import CHAT_TEMPLATE

    documents = [inputs[name] / "documents" for name in ("natural", "translated")]
    folders = gate.Folders(inputs["base"], inputs["arabic"], out)
    if byte_base.is_byte_level(folders.base):
        return byte_merge.run(config, folders, _lines(documents, config), _arabic_lines(documents, config))
    base, arabic = (model.read(inputs[name] / MODEL_FILE) for name in ("base", "arabic"))
    for proto, name in ((base, "the base tokenizer"), (arabic, "the Arabic tokenizer")):
        model.check_model(proto, name)
    pieces = new_pieces(base, arabic, is_arabic_piece if config.arabic_script_only else lambda piece: True)
    if not pieces:
        raise UserError(f"the merge adds no piece: all that the Arabic tokenizer's {len(model.normal_pieces(arabic))} pieces have of Arabic script stands in "
                        f"the base's {len(base.pieces)} already", "raise tokenizer.arabic.vocab_size, give more Arabic text, or a base that isn't extended yet")
    merged = add_specials(add_pieces(base, pieces), config.pad_to_multiple)
    fast.write_tokenizer(out, model.serialise(merged), CHAT_TEMPLATE)

    findings = gate.measure(folders, _lines(documents, config), config, _arabic_lines(documents, config), exceptions=out / gate.EXCEPTIONS)
    write_json(out / "gate.json", gate.as_json(findings))
    gate.require(findings)
    metrics: dict[str, Any] = {
        "vocab_size": len(merged.pieces), "base_pieces": len(base.pieces), "new_pieces": len(pieces), "special_tokens": len(CHAT_SPECIALS),
        "padding_rows": len(merged.pieces) - len(base.pieces) - len(pieces) - len(CHAT_SPECIALS),
        "left_out_pieces": len(set(model.normal_pieces(arabic)) - set(model.normal_pieces(base)) - set(pieces)),
        "gate": {finding.promise: {"measured": finding.measured, "of": finding.of} for finding in findings}}
    fast.write_summary(out, metrics)
    return metrics


def _lines(documents: list[Path], config: MergedTokenizerConfig) -> gate.Lines:
    """Noise, and lines of English, Arabic and code: those of held-out documents, and as many that the Arabic tokenizer may have been trained on."""
    def group(document: Document) -> str:
        held_out = is_held_out(document.root_id, config.held_out.share, config.held_out.seed)
        return group_of(document) + ("" if held_out else ", trained on")

    lines: gate.Lines = {"noise": check.noise()}
    for name, line in sample_lines(documents, group, config.checked_lines, config.seed):
        lines.setdefault(name, []).append(line)
    return lines


def _arabic_lines(documents: list[Path], config: MergedTokenizerConfig) -> Iterator[str]:
    return (line for _, line in sample_lines(documents, lambda document: "arabic" if document.language == "ar" else None, config.reach_lines, config.seed))


def new_pieces(base: model.ModelProto, other: model.ModelProto, keep: Callable[[str], bool]) -> list[str]:
    """The normal pieces of `other` that `base` lacks and `keep` allows, in the order in which `other` merges them."""
    known, scores = {p.piece for p in base.pieces}, model.normal_pieces(other)
    return sorted((piece for piece in scores if piece not in known and keep(piece)), key=lambda piece: -scores[piece])


def add_pieces(base: model.ModelProto, pieces: list[str]) -> model.ModelProto:
    """The base with `pieces` after its own, scored below its lowest score in the order given. The base is left as it is."""
    merged = model.copy(base)
    score = np.float32(min(score for piece, score in model.normal_pieces(base).items() if piece.strip(SPACE) or score > model.RUN_OF_SPACES))
    for piece in pieces:
        score = min(np.float32(score - 1), np.nextafter(score, np.float32(-np.inf)))  # beyond -2**24 a step of 1 is lost
        merged.pieces.add(piece=piece, score=float(score), type=model.NORMAL)
    merged.trainer_spec.vocab_size = len(merged.pieces)
    return merged


def add_specials(proto: model.ModelProto, pad_to_multiple: int) -> model.ModelProto:
    """The model with the chat's special tokens and the padding rows, all of them CONTROL pieces, which no text can spell."""
    merged = model.copy(proto)
    taken = {p.piece for p in merged.pieces}
    clash = [token for token in CHAT_SPECIALS if token in taken]
    if clash:
        raise UserError(f"the vocabulary already holds {', '.join(clash)}", "give tokenizers that have not been extended")
    padding = -(len(merged.pieces) + len(CHAT_SPECIALS)) % pad_to_multiple
    for token in (*CHAT_SPECIALS, *map(padding_token, range(padding))):
        merged.pieces.add(piece=token, score=0.0, type=model.CONTROL)
    spec = merged.trainer_spec
    spec.vocab_size, spec.pad_piece = len(merged.pieces), PAD
    spec.pad_id = len(proto.pieces) + CHAT_SPECIALS.index(PAD)
    return merged
