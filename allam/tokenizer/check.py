"""What every tokenizer's folder must keep: SentencePiece, ours and transformers give the same ids, and text comes back (paper §2.2).

What the merge promises beyond that is measured by allam/tokenizer/gate.py.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from allam.chat.tokens import BASE_SPECIALS, CHAT_SPECIALS, padding_token
from allam.errors import UserError
from allam.text.tokenizer import MODEL_FILE, SPACE, Tokenizer

SHOWN = 10  # rows of a table of failures
_RANDOM_LINES = 500

_NOISE = [
    "", " ", "  ", " " * 40, "\t", "\n", "\n\n\n", "\r\n", "\0", "a\0b", "\x7f\x1b[31m", "\ufeffBOM", "a\u00a0b\u2003c\u3000d", "x" * 300, "=" * 77,
    "ههههههههههههههه", "ــــــــــ", "!!!!!!!", "aaaaaaa bbbbbbb", "    def f(x):\n        return x + 1\n", "\tif (a) {\n\t\treturn;\n\t}", "trailing  ",
    "  leading", "a  b   c    d     e", "بِسْمِ ٱللَّهِ", "مرحبا  بالعالم ", "السعر ١٢٣٫٤٥ ريال، (٥٠٪)؟", "لا\u200cنه\u200dاية\u200f \u202bنص\u202c", "ﷺ ﻻ ﷽",
    "العربية and English مختلط 100%", "».،.. «", "👩\u200d👩\u200d👧 🇸🇦 é é", "漢字かな 한국어 עברית فارسی گچپژ اُردُو", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𞤀𞸀 \U0010ffff \ue000 \ufffe",
    "e=mc^2 \\frac{1}{2} $x_i$", "http://example.com/a?b=c&d=%20", "1234567890 3.14 1e-5", "<0x41><0x0A>",
    "".join((*BASE_SPECIALS, *CHAT_SPECIALS, padding_token(0)))]
_ALPHABETS = ["ab \n", " \t", "اله ", "ه", "a.", "=-", "\u064b\u064e\u0651\u0640بم ", "0123456789٠١٢٣ ,.", "(){}[];: \n", "<|>user/s "]


def noise() -> list[str]:
    """Lines that break tokenizers: spaces, controls, joiners, repeated characters, spelled-out special tokens; the same on every call."""
    chance = random.Random(0)
    made = []
    for number in range(_RANDOM_LINES):
        alphabet = _ALPHABETS[number % len(_ALPHABETS)] if number % 3 else ""
        made.append("".join(chance.choice(alphabet) if alphabet else _any_character(chance) for _ in range(chance.randint(1, 40))))
    return _NOISE + made


def _any_character(chance: random.Random) -> str:
    while True:
        code = chance.randrange(chance.choice([0x80, 0x800, 0x3000, 0x110000]))
        if not 0xD800 <= code < 0xE000 and chr(code) != SPACE:
            return chr(code)


class Fast:
    """The fast tokenizer of a folder, as transformers loads it or (without its 3 s and torch's) as the tokenizers library does."""

    def __init__(self, folder: Path, through_transformers: bool) -> None:
        self._library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._library.encode_special_tokens = True  # text from outside: what spells a special token is plain text
        self._auto: Any = None
        if through_transformers:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
            from transformers import AutoTokenizer

            self._auto = AutoTokenizer.from_pretrained(folder)

    def encode(self, texts: list[str], add_special_tokens: bool) -> list[list[int]]:
        """Ids of each text."""
        if self._auto is None or not texts:
            return [encoding.ids for encoding in self._library.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]
        ids: list[list[int]] = self._auto(texts, add_special_tokens=add_special_tokens, split_special_tokens=True)["input_ids"]
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""
        text: str = (self._auto or self._library).decode(ids)
        return text


Failure = tuple[str, str, str, str]  # group, what is wrong, the text, details


def disagreements(folder: Path, lines: dict[str, list[str]], through_transformers: bool = False) -> list[Failure]:
    """The lines on which the three ways don't lead to the same ids, or the fast tokenizer's text doesn't come back, or BOS isn't added exactly once."""
    tokenizer = Tokenizer.load(folder)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / MODEL_FILE))
    fast = Fast(folder, through_transformers)
    special = set(tokenizer.special.values())
    failures: list[Failure] = []
    for group, texts in lines.items():
        for text, fast_ids, bos_ids in zip(texts, fast.encode(texts, False), fast.encode(texts, True), strict=True):
            ids = reference.encode(text)
            if tokenizer.encode(text) != ids:
                failures.append((group, "Tokenizer.encode differs from SentencePiece", text, difference(tokenizer, tokenizer.encode(text), ids)))
            elif fast_ids != ids:
                failures.append((group, "the fast tokenizer differs from SentencePiece", text, difference(tokenizer, fast_ids, ids)))
            elif bos_ids != [tokenizer.bos_id, *ids]:
                failures.append((group, "the fast tokenizer doesn't add BOS once", text, str(bos_ids[:4])))
            elif SPACE not in text and not tokenizer.decode(ids) == text == fast.decode(fast_ids):
                failures.append((group, "the text doesn't come back", text, repr(tokenizer.decode(ids))))
            elif not special.isdisjoint(ids):
                failures.append((group, "text gave a special token", text, str(tokenizer.pieces(ids))))
    return failures


def agreement(folder: Path, lines: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """Counts the lines by group; raises `UserError` with a table where one of them fails."""
    failures = disagreements(folder, lines)
    if failures:
        raise UserError(f"{len(failures)} of {sum(map(len, lines.values()))} lines fail the tokenizer's check:\n" + _table(failures),
                        "the base's SentencePiece model is of a kind that can't be extended faithfully; use one like Llama 2's")
    return {group: {"lines": len(texts), "differing": 0} for group, texts in lines.items()}


def difference(tokenizer: Tokenizer, got: list[int], wanted: list[int]) -> str:
    """The pieces and ids around the first difference."""
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
    got, wanted = got[at:at + 4], wanted[at:at + 4]
    return f"{tokenizer.pieces(got)} {got} instead of {tokenizer.pieces(wanted)} {wanted}"


def _table(failures: list[Failure]) -> str:
    rows = [f"  {group:8} {what}: {text[:60]!r}: {detail[:120]}" for group, what, text, detail in failures[:SHOWN]]
    return "\n".join(rows + ([f"  and {len(failures) - SHOWN} more"] if len(failures) > SHOWN else []))
