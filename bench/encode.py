"""Text to ids, one document at a time: `Tokenizer.encode` against sentencepiece alone, with the same merged tokenizer (paper §2.2).

    python -m bench.encode [--quick] [--rounds 5]

The tokenizer is made from the sample by the project's stages. Each round encodes every document with a new `Tokenizer`, so that its cache of
words is empty at the start; making it, like loading the model into sentencepiece, is not timed. The ids of every document must be identical.
The texts are real ones where `../shared/data` or ALLAM_TEST_DATA has them. The sample's sentences come from templates, so its words repeat
more often than real ones do: there the cache has an easier life. One thread on each side.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import sentencepiece

from allam.text.tokenizer import MODEL_FILE, Tokenizer
from bench._harness import Row, arguments, finish, in_turn, seconds
from bench._text import merged_tokenizer, one_worker, real_or_sample

# (what, real file, the sample's file in its place, documents at most)
TEXTS = (("Arabic", "arabic/saudinewsnet.jsonl.xz", "web_ar.jsonl.gz", 4000),
         ("English", "english/english_books.jsonl.xz", "web_en.jsonl.gz", 400))
VOCAB_SIZE = 4000  # pieces of the base and of the Arabic tokenizer: about what the sample's words can fill


def compare(what: str, texts: list[str], model: bytes, rounds: int) -> Row:
    """Megabytes of UTF-8 a second; raises where the ids of a document differ."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    checked = Tokenizer(model)
    for text in texts:
        if checked.encode(text) != processor.encode(text):
            raise SystemExit(f"{what}: the ids differ for the document that begins with {text[:60]!r}")
    megabytes = sum(len(text.encode()) for text in texts) / 1e6

    def ours() -> float:
        encode = Tokenizer(model).encode
        return megabytes / seconds(lambda: [encode(text) for text in texts])

    def peer() -> float:
        return megabytes / seconds(lambda: [processor.encode(text) for text in texts])

    return Row(what, "MB/s", *in_turn(rounds, ours, peer), peer_name="sentencepiece", better="higher")


def main() -> None:
    given = arguments(__doc__ or "")
    one_worker()
    with tempfile.TemporaryDirectory() as folder:
        model = (merged_tokenizer(Path(folder), 512 if given.quick else VOCAB_SIZE) / MODEL_FILE).read_bytes()
    rows = []
    for language, real, sample, limit in TEXTS:
        name, documents = real_or_sample(real, sample, 100 if given.quick else limit, given.quick)
        rows.append(compare(f"{language}: {len(documents)} documents of {name}", [d["text"] for d in documents], model, given.rounds))
    finish("encode", rows, ["sentencepiece"], given.quick)


if __name__ == "__main__":
    main()
