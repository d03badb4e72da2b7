"""Real tokenizers on real text: the published size of Chinese-LLaMA's merge, measured fertility, Llama 2 and Mistral extended with Arabic."""

from __future__ import annotations

import gzip
import json
import lzma
from itertools import islice
from pathlib import Path

import pytest

from allam.artifacts import file_sha256
from allam.documents import Document, shard_path, write_documents
from allam.errors import UserError
from allam.section import FileRef
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import arabic, base, fertility, merge, model
from allam.tokenizer.config import ArabicTokenizerConfig, BaseTokenizerConfig, FertilityConfig, MergedTokenizerConfig


def texts_of(path: Path, count: int, field: str = "text") -> list[str]:
    with (lzma.open if path.suffix == ".xz" else gzip.open)(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)[field] for line in islice(file, count)]


def test_merging_chinese_llamas_two_models_gives_its_published_size(real_data: Path) -> None:
    llama, chinese = (model.read(real_data / "tokenizers" / f"{name}.model") for name in ("llama2_tokenizer", "chinese_llama_chinese_sp"))
    merged = merge.add_pieces(llama, merge.new_pieces(llama, chinese, lambda piece: True))
    assert len(merged.pieces) == 49_953


def test_a_unigram_model_is_refused_as_a_base(real_data: Path, tmp_path: Path) -> None:
    name = "tokenizers/chinese_llama_chinese_sp.model"
    config = BaseTokenizerConfig(model=name, files=(reference_to(real_data, name),))
    with pytest.raises(UserError, match="is a unigram model"):
        base.run(config, {"root": real_data}, tmp_path)


@pytest.mark.parametrize(("tokenizer", "field", "measured"), [
    ("llama2", "en", 1.537), ("llama2", "ar", 5.403), ("mistral_v1", "en", 1.495), ("mistral_v1", "ar", 5.306)])
def test_fertility_is_that_of_the_published_measurement(real_data: Path, tokenizer: str, field: str, measured: float) -> None:
    """Of SOURCES.md beside the data: the first 300 documents, cut at 4,000 characters, words between white space."""
    encoder = Tokenizer((real_data / "tokenizers" / f"{tokenizer}_tokenizer.model").read_bytes())
    texts = [text[:4000] for text in texts_of(real_data / "parallel" / "xquad_paragraphs_en_ar.jsonl.gz", 300, field)]
    assert sum(map(len, encoder.encode_batch(texts))) / sum(len(text.split()) for text in texts) == pytest.approx(measured, abs=0.0006)


@pytest.mark.parametrize("tokenizer", ["llama2", "mistral_v1"])
def test_a_published_base_counts_as_not_extended(real_data: Path, tokenizer: str) -> None:
    path = real_data / "tokenizers" / f"{tokenizer}_tokenizer.model"
    model.check_model(model.read(path), path.name)


def reference_to(root: Path, name: str) -> FileRef:
    return FileRef(path=name, sha256=file_sha256(root / name), size=(root / name).stat().st_size)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["llama2", "mistral_v1"])
def test_a_real_base_extended_with_arabic_passes_its_gate_on_real_text(real_data: Path, tmp_path: Path, tokenizer: str) -> None:
    sources = (("arabic/saudinewsnet", "ar", "news", 4000), ("arabic/hindawi_books", "ar", "books", 200), ("arabic/tweets", "ar", "web", 10_000),
               ("arabic/tashkeela_diacritised", "ar", "other", 2500), ("english/english_books", "en", "books", 200),
               ("english/learnxinyminutes_en", "en", "code", 136), ("english/openlogic_latex", "en", "math", 447))
    inputs = {name: tmp_path / name for name in ("natural", "translated", "base", "arabic", "merged", "fertility")} | {"root": real_data}
    for name in ("base", "arabic", "merged", "fertility"):
        inputs[name].mkdir()
    for path, language, domain, count in sources:
        source = Path(path).name
        write_documents(shard_path(inputs["natural"] / "documents", source, 0), [
            Document(f"{source}-{i}", text, source, language, domain, "natural")  # type: ignore[arg-type]
            for i, text in enumerate(texts_of(real_data / f"{path}.jsonl.xz", count))])
    name = f"tokenizers/{tokenizer}_tokenizer.model"
    base.run(BaseTokenizerConfig(model=name, files=(reference_to(real_data, name),)), inputs, inputs["base"])
    arabic.run(ArabicTokenizerConfig(vocab_size=16_000), inputs, inputs["arabic"])
    metrics = merge.run(MergedTokenizerConfig(checked_lines=10_000), inputs, inputs["merged"])
    gate = metrics["gate"]
    same = gate["running Arabic words cut as by the Arabic-only tokenizer"]
    assert same["measured"] / same["of"] > 0.9995
    assert gate["lines without Arabic script whose ids changed"]["measured"] == 0
    assert gate["lines on which SentencePiece, ours and transformers differ"]["measured"] == 0
    compared = fertility.run(FertilityConfig(max_documents=500), inputs, inputs["fertility"])["comparison"]
    assert compared["english_merged_over_base"] == compared["code_merged_over_base"] == 1.0
    assert compared["arabic_merged_over_arabic_only"] < 1.03  # two thirds of these documents are tweets, whose emoji stay bytes
