"""The filters' decisions at their boundaries, on real lines of text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from allam.data.config import FilterConfig, SourceConfig
from allam.data.quality import measure
from allam.data.rules import Rules
from allam.text.language import LanguageIdentifier

THIRTY = ("Our neighbour has planted small trees in front of her house, and when they are tall enough, she wants to sit in their shade and read "
          "the newspaper every morning.")
PERSIAN = ("هر روز صبح پدربزرگ به باغ می‌رفت و درختان سیب را آب می‌داد. او می‌گفت که درخت مانند فرزند است و باید با مهربانی از آن نگهداری کرد تا "
           "میوه‌های شیرین بدهد و سایه‌اش برای همه باشد.")
PROSE_AR = ("زرعت جارتنا أشجارًا صغيرة أمام بيتها، وعندما تكبر هذه الأشجار تريد أن تجلس في ظلها كل صباح وتقرأ الصحيفة مع كوب من الشاي حتى يستيقظ "
            "بقية أفراد العائلة من نومهم.")


def rules(language: str = "en", **thresholds: float) -> Rules:
    return Rules(FilterConfig(**thresholds), SourceConfig(path="x", language=language, domain="web"))


def test_a_document_of_exactly_30_words_is_kept_and_one_of_29_is_dropped() -> None:
    assert rules().decide(THIRTY).reason is None
    dropped = rules().decide(THIRTY.replace(" every morning", " daily"))
    assert (dropped.reason, dropped.detail) == ("too_short", "29 words")


def test_a_score_equal_to_the_threshold_is_kept_and_the_next_higher_threshold_drops_it() -> None:
    label, score = LanguageIdentifier.load(FilterConfig().language_model_sha256).identify(THIRTY)
    assert label == "en"
    assert 0.9 < score < 1
    assert rules(min_language_score=score).decide(THIRTY).reason is None
    above = float(np.nextafter(np.float32(score), np.float32(2)))
    assert rules(min_language_score=above).decide(THIRTY).reason == "language"


def test_a_text_in_a_third_language_is_dropped_whatever_its_score() -> None:
    decision = rules("ar", min_language_score=0.0).decide(PERSIAN)
    assert decision.reason == "language"
    assert decision.detail.startswith("fa ")
    assert rules("en").decide(PROSE_AR).reason == "language"
    assert rules("ar").decide(PROSE_AR).reason is None


def test_the_first_failure_in_the_recipes_order_is_the_reason() -> None:
    for order, reason in ((("language", "too_short"), "language"), (("too_short", "language"), "too_short"), ((), None)):
        source = SourceConfig(path="x", language="en", domain="web", filters=order)
        assert Rules(FilterConfig(), source).decide("سلام دنیا").reason == reason


def test_each_kind_of_text_has_filters_of_its_own_unless_its_source_names_others() -> None:
    four, prose, length = ("language", "too_short", "spam", "stop_words"), ("language", "too_short"), ("too_short",)
    for domain, path, language, expected in (
            ("web", "a.jsonl", "en", four), ("web", "a.jsonl", "ar", four), ("news", "a.jsonl", "ar", prose), ("wiki", "a.xml", "en", prose),
            ("other", "a.txt", "ar", prose), ("books", "a.jsonl", "ar", prose), ("books", "a.jsonl", "en", length), ("other", "talks/*.srt", "ar", length),
            ("other", "talks/a.vtt.gz", "en", length), ("code", "a.parquet", "en", ()), ("math", "a.srt", "en", ())):
        assert SourceConfig(path=path, language=language, domain=domain).filter_names == expected, (domain, path)
        assert SourceConfig(path=path, language=language, domain=domain, filters=("spam",)).filter_names == ("spam",)
    assert SourceConfig(path="talks", format="srt", language="en", domain="other").filter_names == length


def test_code_and_formulas_pass_since_their_domains_have_no_filters() -> None:
    for domain in ("code", "math"):
        source = SourceConfig(path="x", language="en", domain=domain)
        assert Rules(FilterConfig(), source).decide("x = y").reason is None


def test_prose_has_almost_no_spam_and_a_third_of_function_words() -> None:
    for text, language in ((THIRTY, "en"), (PROSE_AR, "ar")):
        measures = measure(text, language)
        assert measures.words == len(text.split())
        assert measures.spam_ratio == 0
        assert 0.2 < measures.stop_word_ratio < 0.6


def test_repeated_lines_links_hashtags_and_an_over_used_word_are_spam() -> None:
    assert measure("one two three\n" * 4, "en").spam_ratio == 9 / 12
    assert measure("see http://a.b/c and www.shop.example or mail me@shop.example #sale #now", "en").spam_ratio == 5 / 9
    over_used = measure("cheap, watches cheap. hands Cheap «cheap» feet", "en")
    assert (over_used.spam_ratio, over_used.most_used) == (4 / 7, "cheap")
    assert measure("the the the the cat and 7 7 7 7 — — — —", "en").spam_ratio == 0


def test_a_word_counts_as_spam_once_even_where_two_rules_meet() -> None:
    assert measure("#sale #sale #sale #sale\n#sale #sale #sale #sale", "en").spam_ratio == 1


def test_a_spam_ratio_equal_to_the_threshold_is_kept() -> None:
    text = "#one #two #three and here is the rest of it"  # 3 of 10 words
    source = SourceConfig(path="x", language="en", domain="web", filters=("spam",))
    assert Rules(FilterConfig(max_spam_ratio=0.3), source).decide(text).reason is None
    assert Rules(FilterConfig(max_spam_ratio=0.29), source).decide(text).reason == "spam"


def test_stop_words_are_found_behind_punctuation_vowel_marks_and_conjunctions() -> None:
    assert measure("«فِي» البيتِ، وَمِنَ الحقلِ!", "ar").stop_word_ratio == 0.5
    assert measure("It’s (the) house; DON'T", "en").stop_word_ratio == 3 / 4


def test_marks_of_direction_and_the_egyptian_ya_hide_no_stop_word() -> None:
    assert measure("\u200fفي\u200f البيت \u202bمن\u202c حجر", "ar").stop_word_ratio == 0.5
    assert measure("فى البيت الى البحر", "ar").stop_word_ratio == 0.5


def test_a_hashtag_or_an_address_in_brackets_is_one_too() -> None:
    assert measure("fine (#harbour) boats [www.b.example], «@anna»; and shop.com,", "en").spam_ratio == 4 / 7


def test_lists_and_empty_talk_are_dropped_for_their_stop_words() -> None:
    source = SourceConfig(path="x", language="en", domain="web", filters=("stop_words",))
    assert Rules(FilterConfig(), source).decide("kitchen table chair window curtain garden fence bicycle").reason == "stop_words"
    assert Rules(FilterConfig(), source).decide("and then it was that which they had been when he was there").reason == "stop_words"
    assert Rules(FilterConfig(), source).decide(THIRTY).reason is None


@pytest.mark.parametrize(("name", "language"), [("arabic/saudinewsnet", "ar"), ("arabic/hindawi_books", "ar"), ("english/english_books", "en")])
def test_good_real_prose_is_hardly_touched(name: str, language: str) -> None:
    import lzma
    import os

    root = Path(os.environ.get("ALLAM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = root / f"{name}.jsonl.xz"
    if not path.is_file():
        pytest.skip(f"REAL TEXT IS NOT THERE: {path}; set ALLAM_TEST_DATA")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        texts = [text for text in (json.loads(line)["text"] for line, _ in zip(lines, range(300), strict=False)) if len(text.split()) >= 30]
    source = SourceConfig(path="x", language=language, domain="web", filters=("spam", "stop_words"))
    kept = [Rules(FilterConfig(), source).decide(text).reason for text in texts].count(None)
    assert kept >= 0.98 * len(texts)
