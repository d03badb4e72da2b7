"""Languages of many texts at once: the answers are fastText's own, label and score."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fasttext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.data.config import FilterConfig
from allam.sample import root as sample_root
from allam.text import lid_batch
from allam.text.language import LanguageIdentifier, model_path
from allam.text.lid_batch import BatchIdentifier
from allam.text.lid_file import UnknownModelError, read_model

REAL = Path(os.environ.get("ALLAM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = ("arabic/saudinewsnet.jsonl.xz", "arabic/tweets.jsonl.xz", "arabic/tashkeela_diacritised.jsonl.xz", "arabic/langid_other_languages.jsonl.gz",
        "english/english_books.jsonl.xz", "english/openlogic_latex.jsonl.xz")
ODD = ("", " \n\t", "\0", "a\0b\x0bc\x0cd\re\x1cf\x85g\u00a0h\u2003i", "</s>",
       "before </s> after", "word</s>", "__label__ar", "x __label__zz hello __label__en",
       "< > <a> <>", "\U0001f600\U0001f600 \U00020000", "ا", "ﷺ ﻻ", "\ufeff\u200f", "1 2 3", "the " * 50, "q" * 70 + " " + "ب" * 40, "é" * 300)


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    return LanguageIdentifier.load(FilterConfig().language_model_sha256)


@pytest.fixture(scope="module")
def batch(identifier: LanguageIdentifier) -> BatchIdentifier:
    return BatchIdentifier(read_model(model_path()), identifier.identify_bare)


def sample_lines() -> list[str]:
    """The lines of the sample's documents."""
    lines = []
    for path in sorted((sample_root() / "documents").glob("*.jsonl*")):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            lines += [line for line in file.read().decode(errors="replace").split("\n") if line]
    return lines


def test_label_and_score_are_fasttexts_for_every_line_of_the_sample(identifier: LanguageIdentifier, batch: BatchIdentifier) -> None:
    lines = sample_lines()[:2000]
    assert len(lines) == 2000
    assert batch.compute(lines) == list(map(identifier.identify_bare, lines))


def test_label_and_score_are_fasttexts_for_what_it_reads_in_its_own_way(identifier: LanguageIdentifier, batch: BatchIdentifier) -> None:
    assert batch.compute(ODD) == list(map(identifier.identify_bare, ODD))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=5))
def test_label_and_score_are_fasttexts_for_any_text(identifier: LanguageIdentifier, batch: BatchIdentifier, texts: list[str]) -> None:
    assert batch.compute(texts) == list(map(identifier.identify_bare, texts))


def test_answers_do_not_depend_on_what_was_asked_before_or_together(identifier: LanguageIdentifier, batch: BatchIdentifier,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    lines = sample_lines()[:600]
    expected = list(map(identifier.identify_bare, lines))
    monkeypatch.setattr(lid_batch, "CHARACTERS_AT_ONCE", 5000)
    assert batch.identify(lines) == expected
    assert batch.identify(lines[::-1]) == expected[::-1]


def test_threads_may_ask_at_once(identifier: LanguageIdentifier, batch: BatchIdentifier) -> None:
    lines = sample_lines()[:800]
    expected = list(map(identifier.identify_bare, lines))
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda turn: batch.compute(lines[turn:] + lines[:turn]), range(0, 800, 50)):
            assert sorted(found) == sorted(expected)


def test_words_of_the_vocabulary_are_found_and_what_only_begins_or_ends_like_one_is_not(identifier: LanguageIdentifier, batch: BatchIdentifier) -> None:
    words = [word.decode() for word in batch.model.words]
    lines = words + [word + "q" for word in words] + ["q" + word for word in words]
    assert len(lines) > 20_000
    assert batch.compute(lines) == list(map(identifier.identify_bare, lines))


def test_a_text_longer_than_a_batch_is_answered_alike(batch: BatchIdentifier, identifier: LanguageIdentifier) -> None:
    long = "كلمة واحدة " * 100_000
    assert len(long) > lid_batch.CHARACTERS_AT_ONCE
    assert batch.identify([long, "short"]) == list(map(identifier.identify_bare, [long, "short"]))


def test_a_file_that_cannot_be_read_as_such_a_model_leaves_the_answers_to_fasttext(identifier: LanguageIdentifier, tmp_path: Path) -> None:
    whole = model_path().read_bytes()
    for name, data, found in (("cut", whole[:500_000], "buffer"), ("softmax", whole[:32] + b"\3" + whole[33:], "loss, kind"), ("other", b"GGUF" * 20, "magic")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnknownModelError, match=found):
            read_model(tmp_path / name)
    other = LanguageIdentifier(fasttext.load_model(str(model_path())), tmp_path / "cut")
    lines = sample_lines()[:200]
    assert other.identify_all_bare(lines) == list(map(identifier.identify_bare, lines))


def test_sums_made_in_another_way_than_fasttexts_leave_the_answers_to_fasttext(identifier: LanguageIdentifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchIdentifier, "compute", lambda self, texts: [(label, score * (1 - 1e-7)) for label, score in map(identifier.identify_bare, texts)])
    other = LanguageIdentifier(fasttext.load_model(str(model_path())), model_path())
    lines = sample_lines()[:200]
    assert other.identify_all_bare(lines) == list(map(identifier.identify_bare, lines))


def real_lines() -> Iterator[str]:
    """Lines of real text in Arabic, English and 41 other languages."""
    for name in FILES:
        path = REAL / name
        if not path.is_file():
            pytest.skip(f"REAL TEXT IS NOT THERE: {path}; set ALLAM_TEST_DATA")
        with (lzma.open if path.suffix == ".xz" else gzip.open)(path, "rt", encoding="utf-8") as file:
            for record in map(json.loads, file):
                yield from filter(None, record["text"].split("\n"))


@pytest.mark.slow
def test_label_and_score_are_fasttexts_for_hundreds_of_thousands_of_real_lines(identifier: LanguageIdentifier) -> None:
    lines = list(real_lines())
    assert len(lines) > 200_000
    assert identifier.identify_all_bare(lines) == list(map(identifier.identify_bare, lines))
