"""Stage base_tokenizer: the English-centred tokenizer that will be extended (paper §2.2).

Either an existing SentencePiece model (`tokenizer.base.model`, such as Llama 2's) or one trained here on the corpus's English, code included,
with the settings of Llama 2's.

    allam stage base_tokenizer --recipe demo
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allam.errors import UserError
from allam.files import check_file
from allam.tokenizer import check, fast, model, training
from allam.tokenizer.config import BaseTokenizerConfig

CHARACTER_COVERAGE = 0.99995  # Llama 2's


def run(config: BaseTokenizerConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Makes the base tokenizer's folder. Inputs: `natural` where it is trained here, `root` where it is read."""
    counts: dict[str, int] = {}
    if config.model is not None:
        if len(config.files) != 1:
            raise UserError(f"tokenizer.base.model: {config.model!r} names {len(config.files)} files", "give the path of one tokenizer.model")
        data = check_file(inputs["root"], config.files[0]).read_bytes()
        model.check_model(model.parse(data, config.files[0].path), config.files[0].path)
    else:
        lines = training.training_lines([inputs["natural"] / "documents"], "en", config.max_sentences, config.seed, config.held_out)
        data, counts = training.train(lines, config.vocab_size, CHARACTER_COVERAGE, "tokenizer.base")
    fast.write_tokenizer(out, data)
    metrics = counts | {"vocab_size": len(model.parse(data, "base").pieces), "agreement": check.agreement(out, {"noise": check.noise()})}
    fast.write_summary(out, metrics)
    return metrics
