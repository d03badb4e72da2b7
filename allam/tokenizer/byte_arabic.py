"""What the stage arabic_tokenizer does for a byte-level base: new merges behind the base's own, and an Arabic-only tokenizer to compare with (paper §2.2).

Words are cut out of the text by the base's own rules, and those that hold Arabic script are counted. From them two lists of merges of equal length are
learnt: `merges.json`, onward from the base's, which the merge puts behind them; and those of an Arabic-only tokenizer, which begins with bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from allam.artifacts import write_json
from allam.chat.tokens import BOS, EOS
from allam.errors import UserError
from allam.progress import track
from allam.text.byte_level import SIGNS, ByteLevelTokenizer, to_bytes
from allam.tokenizer import byte_base, onward
from allam.tokenizer.byte_base import ByteBase
from allam.tokenizer.config import ArabicTokenizerConfig
from allam.tokenizer.script import has_arabic, holds_arabic, is_arabic_bytes

MERGES = "merges.json"
_NO_MERGES = len(SIGNS) + 2  # pieces of the Arabic-only tokenizer that nothing is merged for: the bytes, BOS and EOS


def run(config: ArabicTokenizerConfig, base_folder: Path, lines: Iterable[str], out: Path) -> dict[str, Any]:
    """Trains on the words of `lines` that hold Arabic script; writes merges.json and the Arabic-only tokenizer's files."""
    base, tokenizer = byte_base.read(base_folder), ByteLevelTokenizer.load(base_folder)
    words, counts = arabic_words(tokenizer, lines)
    wanted = config.vocab_size - _NO_MERGES
    rule = is_arabic_bytes if config.alphabet == "mergeable" else holds_arabic
    learnt = [onward.train(words, cut, known, wanted, lambda name: rule(to_bytes(name))) for cut, known in (
        (lambda word: [tokenizer.names[i] for i in tokenizer.spell(word)], base.ids.keys()), (list, SIGNS))]
    if (most := min(map(len, learnt))) < wanted:
        raise UserError(f"tokenizer.arabic.vocab_size: {config.vocab_size} pieces ({_NO_MERGES} of them bytes, BOS and EOS) could not be trained on "
                        f"{len(words)} different words: after {most} merges no pair of pieces stands {onward.LEAST} times",
                        "give a smaller vocab_size, or more Arabic text outside the held-out share")
    onwards, alone = learnt
    write_json(out / MERGES, onwards)
    byte_base.write(out, arabic_only(base, alone))
    metrics = counts | {"vocab_size": config.vocab_size, "arabic_pieces": len(alone), "merges_onward": len(onwards), "words": len(words)}
    byte_base.write_summary(out, metrics)
    return metrics


def read_merges(folder: Path) -> list[onward.Merge]:
    """The merges that the stage learnt onward, in their order."""
    return [(left, right) for left, right in json.loads((folder / MERGES).read_text(encoding="utf-8"))]


def arabic_words(tokenizer: ByteLevelTokenizer, lines: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How often each word with Arabic script stands in the lines, in the order of their spelling; and how many lines and characters were read."""
    words, counts = Counter[str](), {"lines": 0, "characters": 0}

    def counted() -> Iterator[str]:
        for line in track(lines, "lines", what="reading lines"):
            counts["lines"] += 1
            counts["characters"] += len(line)
            yield line

    for line in counted():
        words.update(tokenizer.words(line))
    return {word: words[word] for word in sorted(words) if has_arabic(to_bytes(word).decode())}, counts


def arabic_only(base: ByteBase, merges: list[onward.Merge]) -> ByteBase:
    """A tokenizer that cuts words as the base does and has only bytes and these merges."""
    names = [BOS, EOS, *SIGNS, *(left + right for left, right in merges)]
    vocab = {name: i for i, name in enumerate(names)}
    data = base.data | {
        "model": base.data["model"] | {"vocab": vocab, "merges": merges, "ignore_merges": False, "unk_token": None},
        "added_tokens": [byte_base.special_token(name, vocab[name]) for name in (BOS, EOS)], "post_processor": byte_base.add_bos(BOS, vocab[BOS])}
    return ByteBase(data, BOS, EOS)
