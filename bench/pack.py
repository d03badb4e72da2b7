"""Documents to packed tokens on one core: the stage `pack` against datatrove's tokenizer step, and against `sentencepiece` alone (paper §2.1, §2.2).

    python -m bench.pack [--quick] [--rounds 5]

All hold the same merged vocabulary: Llama 2's with 32,000 Arabic pieces trained on real text where `../shared/data` or ALLAM_TEST_DATA has them, else a
small one of the sample. Ours reads Parquet shards, takes held-out documents aside (none here), writes [BOS] ids [EOS] and an index for each language, and
joins the shards' parts. datatrove: `ParquetReader` and `DocumentTokenizer` (unshuffled, as ours; its post-processor is given BOS and EOS), called without
an executor, which would add to its time. sentencepiece: `encode` of every text, which is in memory, and nothing else. Ours loads the tokenizer in each
round, as datatrove's step does. The tokens of all documents must be identical on all sides. Processor time of one thread.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
from loguru import logger
from tokenizers.processors import TemplateProcessing

from allam.chat.tokens import BOS, EOS
from allam.documents import Document, shard_path, write_documents
from allam.text.tokenizer import MODEL_FILE, Tokenizer
from allam.train import pack
from allam.train.config import PackConfig
from bench._harness import Row, arguments, finish, in_turn, processor_seconds
from bench._text import extended_llama, merged_tokenizer, one_worker, real_or_sample

# (language, domain, real file, the sample's file in its place, documents at most)
SOURCES = (("ar", "news", "arabic/saudinewsnet.jsonl.xz", "web_ar.jsonl.gz", 4000), ("en", "books", "english/english_books.jsonl.xz", "web_en.jsonl.gz", 400))
SHARDS = 2  # of each language
CONFIG = PackConfig(languages=("en", "ar"), held_out={"share": 0.0})

logger.disable("datatrove")


def prepare(root: Path, quick: bool) -> tuple[list[str], dict[str, list[str]]]:
    """Writes the shards below `root/natural`; returns the files' names and the texts by language, in their order."""
    names, texts = [], {}
    for language, domain, real, sample, limit in SOURCES:
        limit = 100 if quick else limit
        name, records = real_or_sample(real, sample, limit, quick)
        documents = [Document(f"{language}-{i}", record["text"], language, language, domain, "natural")  # type: ignore[arg-type]
                     for i, record in enumerate(records)]
        for shard in range(SHARDS):
            first, end = (len(documents) * part // SHARDS for part in (shard, shard + 1))
            write_documents(shard_path(root / "natural" / "documents", language, shard), documents[first:end])
        names.append(name)
        texts[language] = [document.text for document in documents]
    (root / "translated" / "documents").mkdir(parents=True)
    return names, texts


def run_ours(root: Path, tokenizer: Path, out: Path) -> None:
    """The stage."""
    pack._tokenizers.clear()
    shutil.rmtree(out, ignore_errors=True)
    (out / "work").mkdir(parents=True)
    pack.run(CONFIG, {"natural": root / "natural", "translated": root / "translated", "tokenizer": tokenizer}, out)


def run_datatrove(root: Path, tokenizer: Path, out: Path) -> None:
    """Reader and tokenizer step for each language."""
    for language, *_ in SOURCES:
        step = DocumentTokenizer(str(out / language), str(tokenizer / "tokenizer.json"), shuffle_documents=False, save_final_metadata=False)
        step.post_processor = TemplateProcessing(single=f"{BOS} $A {EOS}", pair=None,
                                                 special_tokens=[(token, step.tokenizer.token_to_id(token)) for token in (BOS, EOS)])
        del step.tokenizer  # made again with the post-processor
        for _ in step.run(ParquetReader(str(root / "natural" / "documents" / language)).run()) or ():
            pass


def check(out: Path, texts: dict[str, list[str]], tokenizer: Path) -> int:
    """Leaves with an error where the tokens of a language differ between the three; returns how many there are."""
    spelled, total = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / MODEL_FILE)), 0
    special, kind = Tokenizer.load(tokenizer), Tokenizer.load(tokenizer).dtype
    for language, domain, *_ in SOURCES:
        ours = _tokens(out / "ours" / "packs" / language / domain / "tokens.bin", kind)
        (file,) = (out / "datatrove" / language).glob("*.ds")
        alone = [i for text in texts[language] for i in (special.bos_id, *spelled.encode(text), special.eos_id)]
        for name, other in (("datatrove", _tokens(file, kind)), ("sentencepiece", np.array(alone, kind))):
            if not np.array_equal(ours, other):
                raise SystemExit(f"{language}: the {len(ours)} tokens differ from {name}'s {len(other)}")
        total += len(ours)
    return total


def _tokens(path: Path, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.fromfile(path, kind)


def main() -> None:
    given = arguments(__doc__ or "")
    one_worker()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        made = None if given.quick else extended_llama(root / "real")
        tokenizer = made["merged"] if made else merged_tokenizer(root / "sample", 512 if given.quick else 4000)
        names, texts = prepare(root, given.quick)
        megabytes = sum(len(text.encode()) for some in texts.values() for text in some) / 1e6
        alone = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / MODEL_FILE)).encode

        def ours() -> float:
            return megabytes / processor_seconds(lambda: run_ours(root, tokenizer, root / "out" / "ours"))

        def datatrove() -> float:
            shutil.rmtree(root / "out" / "datatrove", ignore_errors=True)
            return megabytes / processor_seconds(lambda: run_datatrove(root, tokenizer, root / "out" / "datatrove"))

        def spelled() -> float:
            return megabytes / processor_seconds(lambda: [alone(text) for some in texts.values() for text in some])

        ours(), datatrove()
        print(f"{check(root / 'out', texts, tokenizer):,} tokens are identical on all sides")
        size = f"{sum(map(len, texts.values()))} documents of {' and '.join(names)}, {megabytes:.1f} MB"
        pairs = ((datatrove, "datatrove's DocumentTokenizer", 3.0), (spelled, "sentencepiece alone", 2.0))
        rows = [Row(size, "MB/s", *in_turn(given.rounds, ours, peer), peer_name=name, better="higher", target=target) for peer, name, target in pairs]
    finish("pack", rows, ["datatrove", "tokenizers", "sentencepiece", "pyarrow"], given.quick)


if __name__ == "__main__":
    main()
