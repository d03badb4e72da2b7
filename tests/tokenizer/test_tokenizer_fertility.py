"""Fertility: counted by hand on a small corpus, by language and domain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from allam.documents import Document, shard_path, write_documents
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import fertility
from allam.tokenizer.config import FertilityConfig

TEXTS = {"en": "The capital of Egypt is Cairo.", "ar": "عاصمة مصر هي القاهرة.\nنعم 漢", "code": "def f(x):\n    return x\n"}


@pytest.fixture
def small(tokenizers: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    for name, language, domain in (("en", "en", "web"), ("ar", "ar", "news"), ("code", "en", "code")):
        write_documents(shard_path(tmp_path / "natural" / "documents", name, 0), [
            Document(f"{name}-{i}", TEXTS[name], name, language, domain, "natural") for i in range(5)])  # type: ignore[arg-type]
    write_documents(shard_path(tmp_path / "translated" / "documents", "t", 0), [
        Document("t-0", TEXTS["ar"], "t", "ar", "web", "translated", translation_of="en-0"), Document("t-1", " \n", "t", "ar", "web", "translated")])
    (tmp_path / "out").mkdir()
    return tokenizers | {name: tmp_path / name for name in ("natural", "translated", "out")}


def test_rows_are_tokens_over_words_for_each_tokenizer_and_language(small: dict[str, Path]) -> None:
    metrics = fertility.run(FertilityConfig(max_documents=100), small, small["out"])
    rows = {(row["tokenizer"], row["language"]): row for row in json.loads((small["out"] / "fertility.json").read_text())["rows"]}
    assert set(rows) == {(t, language) for t in ("base", "arabic_only", "merged") for language in ("english", "arabic", "code")}
    merged = Tokenizer.load(small["merged"])
    for language, text, words, documents in (("english", TEXTS["en"], 6, 5), ("arabic", TEXTS["ar"], 6, 6), ("code", TEXTS["code"], 4, 5)):
        row, tokens = rows["merged", language], len(merged.encode(text))
        assert row["tokens_per_word"] == pytest.approx(tokens / words)
        assert row["bytes_per_token"] == pytest.approx(len(text.encode()) / tokens)
        assert (row["documents"], row["words"]) == (documents, words * documents)
        assert metrics["tokens_per_word"]["merged"][language] == row["tokens_per_word"]


def test_a_character_without_a_piece_counts_as_byte_tokens_and_a_newline_does_not(small: dict[str, Path]) -> None:
    fertility.run(FertilityConfig(), small, small["out"])
    rows = {(row["tokenizer"], row["language"]): row for row in json.loads((small["out"] / "fertility.json").read_text())["rows"]}
    tokens = len(Tokenizer.load(small["merged"]).encode(TEXTS["ar"]))
    assert rows["merged", "arabic"]["byte_fallback_share"] == pytest.approx(3 / tokens)
    assert rows["base", "code"]["byte_fallback_share"] == 0


def test_translated_text_is_a_domain_of_its_own(small: dict[str, Path]) -> None:
    fertility.run(FertilityConfig(), small, small["out"])
    domains = {row["domain"] for row in json.loads((small["out"] / "fertility.json").read_text())["by_domain"]}
    assert domains == {"web", "news", "code", "web_translated"}


def test_at_most_the_asked_number_of_documents_of_each_language_is_read(small: dict[str, Path]) -> None:
    fertility.run(FertilityConfig(max_documents=2), small, small["out"])
    assert {row["documents"] for row in json.loads((small["out"] / "fertility.json").read_text())["rows"] if row["language"] != "arabic"} == {2}


def test_english_and_code_cost_what_they_cost_the_base_and_arabic_far_less(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    metrics = fertility.run(FertilityConfig(), tokenizers, tmp_path)
    comparison, words = metrics["comparison"], metrics["tokens_per_word"]
    assert comparison["english_merged_over_base"] == comparison["code_merged_over_base"] == 1.0
    assert comparison["arabic_merged_over_arabic_only"] < 1.05
    assert words["merged"]["arabic"] < words["base"]["arabic"] / 2
