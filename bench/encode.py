"""Text to ids, one document at a time: `Tokenizer.encode` against sentencepiece and transformers' fast tokenizer (paper §2.2).

    python -m bench.encode [--quick] [--rounds 5]

All three hold the same merged vocabulary: Llama 2's with 32,000 Arabic pieces trained on real text where `../shared/data` or ALLAM_TEST_DATA has
them, else a small one of the sample. Making a tokenizer is not timed, the lists of ids are. The ids of every document must be identical on all sides.
Processor time of one thread on each side.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece

from allam.text.tokenizer import MODEL_FILE, Tokenizer
from bench._harness import Row, arguments, finish, in_turn
from bench._text import extended_llama, merged_tokenizer, one_worker, real_or_sample

# (what, real file, the sample's file in its place, documents at most)
TEXTS = (("Arabic news", "arabic/saudinewsnet.jsonl.xz", "web_ar.jsonl.gz", 4000),
         ("Arabic, vocalised", "arabic/tashkeela_diacritised.jsonl.xz", "wiki_ar.jsonl", 2500),
         ("English", "english/english_books.jsonl.xz", "web_en.jsonl.gz", 400))

Encode = Callable[[str], list[int]]


def fast_tokenizer(folder: Path) -> Encode:
    """transformers' encoding of one text, special tokens spelled out taken as text, as on the other sides."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import AutoTokenizer

    fast: Any = AutoTokenizer.from_pretrained(folder)
    return lambda text: fast(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]  # type: ignore[no-any-return]


def compare(what: str, texts: list[str], folder: Path, rounds: int) -> list[Row]:
    """Megabytes of UTF-8 a second of processor time; raises where the ids of a document differ."""
    data = (folder / MODEL_FILE).read_bytes()
    ours = Tokenizer(data).encode
    peers = {"sentencepiece": sentencepiece.SentencePieceProcessor(model_proto=data).encode, "transformers": fast_tokenizer(folder)}
    for text in texts:
        for name, encode in peers.items():
            if ours(text) != encode(text):
                raise SystemExit(f"{what}: the ids differ from {name}'s for the document that begins with {text[:60]!r}")
    megabytes = sum(len(text.encode()) for text in texts) / 1e6

    def speed(encode: Encode) -> float:
        start = time.process_time()
        for text in texts:
            encode(text)
        return megabytes / (time.process_time() - start)

    return [Row(what, "MB/s", *in_turn(rounds, lambda: speed(ours), lambda encode=encode: speed(encode)), peer_name=name, better="higher", target=2.0)  # type: ignore[misc]
            for name, encode in peers.items()]


def main() -> None:
    given = arguments(__doc__ or "")
    one_worker()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = (None if given.quick else extended_llama(Path(name))) or {"merged": merged_tokenizer(Path(name) / "sample", 512 if given.quick else 4000)}
        for what, real, sample, limit in TEXTS:
            file, documents = real_or_sample(real, sample, 100 if given.quick else limit, given.quick)
            rows += compare(f"{what}: {len(documents)} documents of {file}", [d["text"] for d in documents], folder["merged"], given.rounds)
    finish("encode", rows, ["sentencepiece", "tokenizers", "transformers"], given.quick)


if __name__ == "__main__":
    main()
