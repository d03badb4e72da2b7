"""Comparison forms and language identification on real lines."""

from __future__ import annotations

import numpy as np
import pytest

from allam.data.config import FilterConfig
from allam.errors import UserError
from allam.text.forms import comparison_form, comparison_words, without_marks
from allam.text.language import LanguageIdentifier, reaches
from allam.text.stop_words import ARABIC, ENGLISH

VOCALISED = "الشَّهَادَةِ ظَاهِرَةً ، وَبِحَقٍّ بَيِّنٍ تَضْعُفُ التُّهْمَةُ"


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    return LanguageIdentifier.load(FilterConfig().language_model_sha256)


def test_diacritics_and_tatweel_are_stripped_and_nothing_else() -> None:
    assert without_marks(VOCALISED) == "الشهادة ظاهرة ، وبحق بين تضعف التهمة"
    assert without_marks("ســـلام café naïve") == "سلام café naïve"


def test_the_comparison_form_folds_presentation_forms_width_marks_and_white_space() -> None:
    assert comparison_form("\ufefb \n كتــابٌ\t ﷲ") == "لا كتاب الله"
    assert comparison_form("ﬁne\u00a0 text ") == "fine text"
    assert comparison_form("Case Matters") != comparison_form("case matters")


def test_vocalised_arabic_is_recognised_because_the_classifier_sees_it_stripped(identifier: LanguageIdentifier) -> None:
    label, score = identifier.identify(VOCALISED)
    raw = identifier._predict(VOCALISED, 1, 0.0, "strict")[0]
    assert label == "ar"
    assert score > raw[0] or raw[1] != "__label__ar"


def test_line_breaks_do_not_cut_the_text_that_the_classifier_sees(identifier: LanguageIdentifier) -> None:
    text = "The weather was cold,\nand nobody\r\nwanted to leave the house."
    assert identifier.identify(text) == identifier.identify(text.replace("\r", " ").replace("\n", " "))


def test_an_empty_text_has_no_language(identifier: LanguageIdentifier) -> None:
    label, score = identifier.identify("ًٌٍ")
    assert not (label in ("en", "ar") and reaches(score, 0.95))


def test_a_score_of_exactly_095_in_the_models_own_precision_is_kept() -> None:
    exact = float(np.float32(0.95))
    assert exact < 0.95  # why the comparison can't be made in double precision
    assert reaches(exact, 0.95)
    assert not reaches(float(np.nextafter(np.float32(0.95), np.float32(0))), 0.95)


def test_another_model_than_the_recipes_is_refused_with_its_checksum() -> None:
    with pytest.raises(UserError, match=r"data\.filter\.language_model_sha256"):
        LanguageIdentifier.load("0" * 64)


@pytest.mark.parametrize("sign", ["\u200f", "\u200b", "\u200d", "\u202b", "\u2066", "\u061c", "\u00ad", "\ufeff"])
def test_characters_that_nobody_sees_make_no_difference_in_comparing_and_stay_for_language_identification(sign: str) -> None:
    text = "ذهبنا إلى السوق with the neighbours"
    other = f"{sign}ذهبنا إلى الس{sign}وق with the neigh{sign}bours"
    assert comparison_form(other) == comparison_form(text)
    assert comparison_words(other) == comparison_words(text)
    assert without_marks(other) == other


def test_stop_words_stand_in_the_form_in_which_words_are_looked_up() -> None:
    for word in ENGLISH | ARABIC:
        assert word == without_marks(word).lower()
        assert word.split() == [word]
    assert "ومن" in ARABIC
