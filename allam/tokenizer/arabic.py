"""Stage arabic_tokenizer: a SentencePiece BPE tokenizer with byte fallback for Arabic alone, natural and translated (paper §2.2).

    allam stage arabic_tokenizer --recipe demo
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allam.tokenizer import check, fast, model, training
from allam.tokenizer.config import ArabicTokenizerConfig
from allam.tokenizer.script import is_arabic_piece


def run(config: ArabicTokenizerConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Trains on the Arabic of the inputs `natural` and `translated`."""
    folders = [inputs["natural"] / "documents", inputs["translated"] / "documents"]
    lines = training.training_lines(folders, "ar", config.max_sentences, config.seed, config.held_out)
    data, counts = training.train(lines, config.vocab_size, config.character_coverage, "tokenizer.arabic")
    fast.write_tokenizer(out, data)
    pieces = model.normal_pieces(model.parse(data, "arabic"))
    metrics = counts | {"vocab_size": config.vocab_size, "arabic_pieces": sum(map(is_arabic_piece, pieces)),
                        "agreement": check.agreement(out, {"noise": check.noise()})}
    fast.write_summary(out, metrics)
    return metrics
