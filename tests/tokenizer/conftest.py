"""A corpus made of the package's sample, and three tokenizers trained on it once for all tests of this folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from allam.documents import Document, shard_path, write_documents
from allam.sample import root
from allam.tokenizer import arabic, base, merge
from allam.tokenizer.config import ArabicTokenizerConfig, BaseTokenizerConfig, MergedTokenizerConfig

VOCABULARY = 700


def sample_documents_of(source: str) -> Iterator[dict[str, str]]:
    folder = root() / "documents"
    if (folder / f"{source}.parquet").is_file():
        yield from pq.read_table(folder / f"{source}.parquet").to_pylist()
    else:
        for line in (folder / f"{source}.jsonl").read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and line.endswith("}"):
                yield json.loads(line)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`natural` and `translated` as the data stages leave them: English, code, Arabic; translated Arabic."""
    folder = tmp_path_factory.mktemp("corpus")
    natural, translated = folder / "natural", folder / "translated"
    for source, language, domain in (("wiki_en", "en", "wiki"), ("code_en", "en", "code"), ("wiki_ar", "ar", "wiki"), ("news_ar", "ar", "news")):
        write_documents(shard_path(natural / "documents", source, 0), [
            Document(row["id"], row["text"], source, language, domain, "natural") for row in sample_documents_of(source)])  # type: ignore[arg-type]
    write_documents(shard_path(translated / "documents", "translated_wiki_ar", 0), [
        Document(row["id"], row["text"], "translated_wiki_ar", "ar", "wiki", "translated", translation_of=row["translation_of"])
        for row in sample_documents_of("translated_wiki_ar")])
    return {"natural": natural, "translated": translated}


@pytest.fixture(scope="session")
def tokenizers(corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the stages' inputs: the corpus, `base`, `arabic` and `merged`."""
    folder = tmp_path_factory.mktemp("tokenizers")
    inputs = corpus | {name: folder / name for name in ("base", "arabic", "merged")}
    for name in ("base", "arabic", "merged"):
        inputs[name].mkdir()
    base.run(BaseTokenizerConfig(vocab_size=VOCABULARY), inputs, inputs["base"])
    arabic.run(ArabicTokenizerConfig(vocab_size=VOCABULARY), inputs, inputs["arabic"])
    merge.run(MergedTokenizerConfig(checked_lines=500), inputs, inputs["merged"])
    return inputs


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real text and tokenizers, which are not part of the project."""
    folder = Path(os.environ.get("ALLAM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"NO REAL DATA at {folder}: set ALLAM_TEST_DATA to test on Llama 2's and Mistral's tokenizers")
    return folder
