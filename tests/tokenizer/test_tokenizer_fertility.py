"""Fertility: counted by hand on a small corpus, by language and domain."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece

from allam.artifacts import file_sha256
from allam.documents import Document, shard_path, write_documents
from allam.errors import UserError
from allam.pipeline import make_plan
from allam.recipe import load
from allam.section import FileRef
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import fertility, others
from allam.tokenizer.config import FertilityConfig, OtherTokenizer

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


def test_other_tokenizers_that_the_recipe_names_are_counted_beside_the_three(small: dict[str, Path]) -> None:
    root = small["merged"].parent
    paths = {"same": small["merged"] / "tokenizer.model", "fast": small["merged"] / "tokenizer.json"}
    unigram = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS.values()), model_writer=unigram, model_type="unigram", vocab_size=60,
                                             hard_vocab_limit=False, minloglevel=2)
    paths["unigram"] = root / "unigram.model"
    paths["unigram"].write_bytes(unigram.getvalue())
    config = FertilityConfig(others={name: OtherTokenizer(model=path.name, files=(
        FileRef(path=path.relative_to(root).as_posix(), sha256=file_sha256(path), size=path.stat().st_size),)) for name, path in paths.items()})
    metrics = fertility.run(config, small | {"root": root}, small["out"])
    rows = {(row["tokenizer"], row["language"]): row for row in json.loads((small["out"] / "fertility.json").read_text())["rows"]}
    for language in ("english", "arabic", "code"):
        for name in ("same", "fast"):
            assert rows[name, language] | {"tokenizer": "merged"} == rows["merged", language]
        assert rows["unigram", language]["tokens_per_word"] > 1
    assert set(metrics["tokens_per_word"]) == {"base", "arabic_only", "merged", "same", "fast", "unigram"}


def test_another_tokenizer_may_not_take_the_name_of_ours_and_its_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.fertility\.others: .*merged: the recipe's own tokenizers"):
        load("demo", ["tokenizer.fertility.others={merged: {model: x.model}}"])
    plan = make_plan(load("demo", [f"data.root={tmp_path}", "tokenizer.fertility.others={llama: {model: x.model}}"]))
    assert plan.specs["fertility"].problems == (f"tokenizer.fertility.others.llama.model: no file at {tmp_path}/x.model",)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(UserError, match=r"broken\.json is no tokenizer\.json"):
        others.read(tmp_path / "broken.json")


def test_english_and_code_cost_what_they_cost_the_base_and_arabic_far_less(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    metrics = fertility.run(FertilityConfig(), tokenizers, tmp_path)
    comparison, words = metrics["comparison"], metrics["tokens_per_word"]
    assert comparison["english_merged_over_base"] == comparison["code_merged_over_base"] == 1.0
    assert comparison["arabic_merged_over_arabic_only"] < 1.05
    assert words["merged"]["arabic"] < words["base"]["arabic"] / 2
