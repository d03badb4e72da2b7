"""Stage base_tokenizer: the English-centred tokenizer that will be extended (paper §2.2).

Either an existing one (`tokenizer.base.model`: a SentencePiece model such as Llama 2's, or byte-level BPE such as Llama 3's) or one trained here on the
corpus's English, code included, with the settings of Llama 2's.

    allam stage base_tokenizer --recipe demo
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allam.artifacts import write_atomic
from allam.errors import UserError
from allam.files import check_file
from allam.text.byte_level import CONFIG_FILE, FAST_FILE
from allam.text.tokenizer import MODEL_FILE
from allam.tokenizer import byte_base, check, fast, model, training
from allam.tokenizer.config import BaseTokenizerConfig

CHARACTER_COVERAGE = 0.99995  # Llama 2's


def run(config: BaseTokenizerConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Makes the base tokenizer's folder. Inputs: `natural` where it is trained here, `root` where it is read."""
    counts: dict[str, int] = {}
    if config.model is not None:
        if sorted(Path(ref.path).name for ref in config.files) == [FAST_FILE, CONFIG_FILE]:
            return _byte_level(config, inputs["root"], out)
        if len(config.files) != 1:
            raise UserError(f"tokenizer.base.model: {config.model!r} names {len(config.files)} files",
                            f"give the path of one {MODEL_FILE} or {FAST_FILE}, or of a folder that holds one")
        data = check_file(inputs["root"], config.files[0]).read_bytes()
        model.check_model(model.parse(data, config.files[0].path), config.files[0].path)
    else:
        lines = training.training_lines([inputs["natural"] / "documents"], "en", config.max_sentences, config.seed, config.held_out)
        data, counts = training.train(lines, config.vocab_size, CHARACTER_COVERAGE, "tokenizer.base")
    fast.write_tokenizer(out, data)
    metrics = counts | {"vocab_size": len(model.parse(data, "base").pieces), "agreement": check.agreement(out, {"noise": check.noise()})}
    fast.write_summary(out, metrics)
    return metrics


def _byte_level(config: BaseTokenizerConfig, root: Path, out: Path) -> dict[str, Any]:
    """The base's two files as they came, once they are found to be of a kind that can be trained onward."""
    for ref in config.files:
        write_atomic(out / Path(ref.path).name, check_file(root, ref).read_bytes())
    base = byte_base.read(out)
    metrics = {"vocab_size": max(base.ids.values()) + 1, "merges": len(base.data["model"]["merges"]), "begins_documents": base.bos or base.eos}
    byte_base.write_summary(out, metrics)
    return metrics
