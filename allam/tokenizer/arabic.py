"""Stage arabic_tokenizer: a SentencePiece BPE tokenizer with byte fallback for Arabic alone, natural and translated (paper §2.2).

Characters that are neither of Arabic script nor pieces of the base, such as emoji, could not be merged into it without changing English text that
holds them. So the lines are cut there (`alphabet: mergeable`), and all pieces go to what can be merged; the base's own Arabic letters get a piece each.
Where the base is byte-level BPE, merges are learnt onward from its own (`allam/tokenizer/byte_arabic.py`).

    allam stage arabic_tokenizer --recipe demo
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from allam.text.tokenizer import MODEL_FILE, SPACE
from allam.tokenizer import byte_arabic, byte_base, check, fast, model, training
from allam.tokenizer.config import ArabicTokenizerConfig
from allam.tokenizer.script import ARABIC, has_arabic, is_arabic_piece


def run(config: ArabicTokenizerConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Trains on the Arabic of the inputs `natural` and `translated`, with an eye to the pieces of the input `base`."""
    folders = [inputs["natural"] / "documents", inputs["translated"] / "documents"]
    lines: Iterable[str] = training.training_lines(folders, "ar", config.max_sentences, config.seed, config.held_out)
    if byte_base.is_byte_level(inputs["base"]):
        return byte_arabic.run(config, inputs["base"], lines, out)
    base, required = inputs["base"] / MODEL_FILE, ""
    if config.alphabet == "mergeable" and base.is_file():
        characters = {piece for piece in model.normal_pieces(model.read(base)) if len(piece) == 1}
        required = "".join(sorted(filter(has_arabic, characters)))
        lines = cut_at_other_characters(lines, characters | {" ", "\t"} - {SPACE})
    data, counts = training.train(lines, config.vocab_size, config.character_coverage, "tokenizer.arabic", required)
    fast.write_tokenizer(out, data)
    pieces = model.normal_pieces(model.parse(data, "arabic"))
    metrics = counts | {"vocab_size": config.vocab_size, "arabic_pieces": sum(map(is_arabic_piece, pieces)),
                        "agreement": check.agreement(out, {"noise": check.noise()})}
    fast.write_summary(out, metrics)
    return metrics


def cut_at_other_characters(lines: Iterable[str], characters: set[str]) -> Iterator[str]:
    """The lines cut at every character that is neither of Arabic script nor among `characters`; what is left blank is left out."""
    other = re.compile(f"[^{ARABIC}{re.escape(''.join(sorted(characters)))}]+")
    for line in lines:
        yield from (part for part in other.split(line) if part.strip())
