"""The proofs: SentencePiece and transformers give the same ids, text comes back, the merge changed nothing but Arabic (paper §2.2).

Each function takes tokenizers' folders and returns counts; where a promise is broken it raises `UserError` with a table that says where.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from allam.chat.tokens import BASE_SPECIALS, CHAT_SPECIALS, padding_token
from allam.errors import UserError
from allam.text.tokenizer import MODEL_FILE, SPACE, Tokenizer
from allam.tokenizer import model
from allam.tokenizer.script import arabic_words, has_arabic, is_arabic_piece

SHOWN = 10  # rows of a table of failures
RANKED_FIRST = "the base's own order of pieces"
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


def agreement(folder: Path, lines: dict[str, list[str]], through_transformers: bool = False) -> dict[str, dict[str, int]]:
    """Lines checked by group, each: three ways to the same ids, and the text back. Also that the fast tokenizer adds BOS exactly once."""
    tokenizer = Tokenizer.load(folder)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / MODEL_FILE))
    fast = Fast(folder, through_transformers)
    special = set(tokenizer.special.values())
    failures: list[tuple[str, str, str, str]] = []
    for group, texts in lines.items():
        for text, fast_ids, bos_ids in zip(texts, fast.encode(texts, False), fast.encode(texts, True), strict=True):
            ids = reference.encode(text)
            if tokenizer.encode(text) != ids:
                failures.append((group, "Tokenizer.encode differs from SentencePiece", text, _difference(tokenizer, tokenizer.encode(text), ids)))
            elif fast_ids != ids:
                failures.append((group, "the fast tokenizer differs from SentencePiece", text, _difference(tokenizer, fast_ids, ids)))
            elif bos_ids != [tokenizer.bos_id, *ids]:
                failures.append((group, "the fast tokenizer doesn't add BOS once", text, str(bos_ids[:4])))
            elif SPACE not in text and not tokenizer.decode(ids) == text == fast.decode(fast_ids):
                failures.append((group, "the text doesn't come back", text, repr(tokenizer.decode(ids))))
            elif not special.isdisjoint(ids):
                failures.append((group, "text gave a special token", text, str(tokenizer.pieces(ids))))
    if failures:
        raise UserError(f"{len(failures)} of {sum(map(len, lines.values()))} lines fail the tokenizer's check:\n" + _table(failures),
                        "the base's SentencePiece model is of a kind that can't be extended faithfully; use one like Llama 2's")
    return {group: {"lines": len(texts), "differing": 0} for group, texts in lines.items()}


def _difference(tokenizer: Tokenizer, got: list[int], wanted: list[int]) -> str:
    """The pieces around the first difference."""
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
    return f"{tokenizer.pieces(got[at:at + 4])} instead of {tokenizer.pieces(wanted[at:at + 4])}"


def _table(failures: list[tuple[str, str, str, str]]) -> str:
    rows = [f"  {group:8} {what}: {text[:60]!r}: {detail[:120]}" for group, what, text, detail in failures[:SHOWN]]
    return "\n".join(rows + ([f"  and {len(failures) - SHOWN} more"] if len(failures) > SHOWN else []))


def unchanged(base: Path, merged: Path, lines: dict[str, list[str]]) -> dict[str, int]:
    """Counts the lines without Arabic script, whose ids must be the base's; raises `UserError` if one has others."""
    before, after = Tokenizer.load(base), Tokenizer.load(merged)
    texts = [(group, text) for group, group_lines in lines.items() for text in group_lines if not has_arabic(text)]
    changed = [(group, "its ids changed", text, _difference(after, after.encode(text), before.encode(text)))
               for group, text in texts if before.encode(text) != after.encode(text)]
    if changed:
        raise UserError(f"the merge changes {len(changed)} of {len(texts)} lines without Arabic script:\n" + _table(changed),
                        "set tokenizer.merged.arabic_script_only to true")
    return {"lines": len(texts), "changed": 0}


def same_segmentation(base: Path, arabic: Path, merged: Path, lines: list[str], minimum: float) -> dict[str, Any]:
    """The share of running Arabic words that the merged tokenizer cuts as the Arabic-only one does, with the commonest exceptions.

    A word is a run of Arabic letters and marks between white space. A word with a piece that the base alone has is explained: base ids never
    move, and such a piece mostly stands for a letter that the Arabic-only tokenizer spells in bytes. Raises `UserError` where the share of
    words that are the same or explained is below `minimum`.
    """
    words = Counter(word for line in lines for word in arabic_words(line))
    ours, theirs = Tokenizer.load(merged), Tokenizer.load(arabic)
    arabic_pieces = set(model.normal_pieces(model.read(arabic / MODEL_FILE)))
    base_only = {p for p in model.normal_pieces(model.read(base / MODEL_FILE)) if is_arabic_piece(p) and p not in arabic_pieces}
    exceptions, causes = [], Counter[str]()
    for word, count in words.most_common():
        got, wanted = ours.pieces(ours.encode(word)), theirs.pieces(theirs.encode(word))
        if got != wanted:
            own = [piece for piece in got if piece in base_only]
            cause = f"the base alone has {own[0]!r}" if own else RANKED_FIRST
            causes[cause] += count
            exceptions.append({"word": word, "count": count, "merged": " ".join(got), "arabic_only": " ".join(wanted), "cause": cause})
    total, differing = sum(words.values()), sum(causes.values())
    unexplained = causes[RANKED_FIRST]
    if unexplained > (1 - minimum) * total:
        rows = [f"  {e['word']} ({e['count']} times): {e['merged']} instead of {e['arabic_only']}; {e['cause']}" for e in exceptions[:SHOWN]]
        raise UserError(f"{unexplained} of {total} running Arabic words are not cut as the Arabic-only tokenizer cuts them:\n" + "\n".join(rows),
                        f"take another base or a larger tokenizer.arabic.vocab_size, or lower tokenizer.merged.min_same_segmentation (now {minimum})")
    return {"words": total, "same_share": 1 - differing / max(total, 1), "differing": differing, "unexplained": unexplained,
            "causes": dict(causes.most_common(SHOWN)), "exceptions": exceptions[:SHOWN]}
