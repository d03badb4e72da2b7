"""Stage arabic_tokenizer: a SentencePiece BPE tokenizer with byte fallback for Arabic alone, natural and translated (paper §2.2).

Characters that are neither of Arabic script nor pieces of the base, such as emoji, could not be merged into it without changing English text that
holds them. So the lines are cut there (`alphabet: mergeable`), and all pieces go to what can be merged; the base's own Arabic letters get a piece each.
Signs that the base has stay, but pieces learnt of several of them (`»،`, `▁•`, a direction mark with its neighbours) that the base lacks give way to others.
Where the base is byte-level BPE, merges are learnt onward from its own (`allam/tokenizer/byte_arabic.py`).

    allam stage arabic_tokenizer --recipe demo
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Any

from allam.errors import UserError
from allam.text.tokenizer import MODEL_FILE, SPACE, Tokenizer
from allam.tokenizer import byte_arabic, byte_base, check, fast, model, training
from allam.tokenizer.config import ArabicTokenizerConfig
from allam.tokenizer.script import ARABIC, has_arabic, is_arabic_piece

SURPLUS = 50  # one piece in so many is trained beyond the vocabulary, to replace those that can't be merged: 76 of 32,000 with Llama 2's


def run(config: ArabicTokenizerConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Trains on the Arabic of the inputs `natural` and `translated`, with an eye to the pieces of the input `base`."""
    folders = [inputs["natural"] / "documents", inputs["translated"] / "documents"]

    drawn = Counter[str]()

    def lines() -> Iterator[str]:
        drawn.clear()
        return training.training_lines(folders, "ar", config.max_sentences, config.seed, config.held_out, config.domains, drawn)

    if byte_base.is_byte_level(inputs["base"]):
        return byte_arabic.run(config, inputs["base"], lines(), out) | _by_domain(config, drawn)
    base = inputs["base"] / MODEL_FILE
    if config.alphabet == "mergeable" and base.is_file():
        data, counts = train_mergeable(lines, config, set(model.normal_pieces(model.read(base))))
    else:
        data, counts = training.train(lines(), config.vocab_size, config.character_coverage, "tokenizer.arabic")
    fast.write_tokenizer(out, data)
    pieces = model.normal_pieces(model.parse(data, "arabic"))
    metrics = counts | _by_domain(config, drawn) | {"vocab_size": config.vocab_size, "arabic_pieces": sum(map(is_arabic_piece, pieces)),
                        "agreement": check.agreement(out, {"noise": check.noise()})}
    fast.write_summary(out, metrics)
    return metrics


def _by_domain(config: ArabicTokenizerConfig, drawn: Counter[str]) -> dict[str, Any]:
    """How many lines of each domain were drawn; and where the recipe gives shares, the domains that had fewer lines than these ask for, with how many."""
    asked = training.by_domain(config.domains, config.max_sentences)
    short = {name: count for name, count in sorted(asked.items()) if drawn[name] < count}
    return {"lines_by_domain": dict(sorted(drawn.items()))} | ({"lines_asked_of_short_domains": short} if short else {})


def train_mergeable(lines: Callable[[], Iterable[str]], config: ArabicTokenizerConfig, base: set[str]) -> tuple[bytes, dict[str, int]]:
    """A model of `vocab_size` pieces, all of which are of Arabic script, in `base` or single characters; and the counts, with the pieces dropped for that.

    More pieces than wanted are trained. What can't be merged is dropped, then the last merges, as if fewer had been trained; again with more where too few
    are left. Raises `UserError` where the text doesn't give as many.
    """
    characters = {piece for piece in base if len(piece) == 1}
    required = "".join(sorted(filter(has_arabic, characters)))
    surplus = max(16, config.vocab_size // SURPLUS)
    while True:
        cut, asked = cut_at_other_characters(lines(), characters | {" ", "\t"} - {SPACE}), config.vocab_size + surplus
        data, counts = training.train(cut, asked, config.character_coverage, "tokenizer.arabic", required, at_most=True)
        trained = model.parse(data, "tokenizer.arabic")
        kept = only_mergeable(trained, base)
        if len(kept.pieces) >= config.vocab_size:
            return model.serialise(first_merges(kept, config.vocab_size)), counts | {"unmergeable_pieces": len(trained.pieces) - len(kept.pieces)}
        if len(trained.pieces) < asked:
            raise UserError(f"tokenizer.arabic.vocab_size: {config.vocab_size} pieces could not be trained on {counts['lines']} lines with "
                            f"{counts['characters']} characters: they give {len(kept.pieces)} that can be merged", "change vocab_size, or give more text")
        surplus *= 4


def only_mergeable(proto: model.ModelProto, base: set[str]) -> model.ModelProto:
    """The model without the pieces of several characters that are neither of Arabic script nor in `base`, nor those that only they lead to."""
    allowed = {piece for piece in model.normal_pieces(proto) if len(piece) == 1 or is_arabic_piece(piece) or piece in base}
    while True:
        kept = _with_pieces(proto, allowed)
        tokenizer, ids = Tokenizer(model.serialise(kept)), {p.piece: i for i, p in enumerate(kept.pieces)}
        begin = tokenizer.encode("\n")
        lost = {piece for piece in allowed if len(piece) > 1 and tokenizer.encode("\n" + piece.replace(SPACE, " ")) != [*begin, ids[piece]]}
        if not lost:
            return kept
        allowed -= lost


def first_merges(proto: model.ModelProto, size: int) -> model.ModelProto:
    """The model of `size` pieces that is left when the last merges are taken away; single characters stay."""
    scores = model.normal_pieces(proto)
    merges = sorted((piece for piece in scores if len(piece) > 1), key=lambda piece: -scores[piece])
    return _with_pieces(proto, scores.keys() - set(merges[len(merges) - (len(proto.pieces) - size):]))


def _with_pieces(proto: model.ModelProto, allowed: Set[str]) -> model.ModelProto:
    """The model with those of its normal pieces that are allowed, their scores numbered anew: 0, -1, -2 and so on, as SentencePiece does."""
    kept = model.copy(proto)
    del kept.pieces[:]
    kept.pieces.extend(p for p in proto.pieces if p.type != model.NORMAL or p.piece in allowed)
    for number, p in enumerate(p for p in kept.pieces if p.type == model.NORMAL):
        p.score = -float(number)
    kept.trainer_spec.vocab_size = len(kept.pieces)
    kept.trainer_spec.hard_vocab_limit = True
    return kept


def cut_at_other_characters(lines: Iterable[str], characters: set[str]) -> Iterator[str]:
    """The lines cut at every character that is neither of Arabic script nor among `characters`; what is left blank is left out."""
    other = re.compile(f"[^{ARABIC}{re.escape(''.join(sorted(characters)))}]+")
    for line in lines:
        yield from (part for part in other.split(line) if part.strip())
