"""Repetition and furniture of pages: planted spam of every kind is dropped, the real prose around it is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.data import spam
from allam.data.config import FilterConfig, SourceConfig
from allam.data.quality import measure
from allam.data.rules import Decision, Rules

PROSE_EN = ("The council met on Tuesday evening in the old town hall to decide what should become of the bridge, which has been closed since the flood. "
            "Some of the members wanted to repair it before the winter, while others said that a new one would be cheaper in the end.")
PROSE_AR = ("اجتمع المجلس مساء الثلاثاء في مبنى البلدية القديم ليقرر ما الذي ينبغي أن يفعل بالجسر الذي أغلق منذ الفيضان، وقد أراد بعض الأعضاء إصلاحه قبل "
            "الشتاء بينما قال آخرون إن بناء جسر جديد سيكون أرخص في النهاية.")
COOKIES = ("We use cookies to give you the best experience on our website\nBy continuing to browse this site you agree to our use of cookies\n"
           "Accept all cookies\nCookie settings\nPrivacy policy\nRead more\nShare this on Facebook\n© 2015 All rights reserved\n"
           "Subscribe to our newsletter for free today")
COOKIES_AR = ("نستخدم ملفات تعريف الارتباط لتحسين تجربتك على هذا الموقع\nباستخدامك لهذا الموقع فإنك توافق على استخدام ملفات الارتباط\nسياسة الخصوصية\n"
              "اقرأ المزيد\nإقرأ أيضاً\nشارك على فيسبوك\nتابعنا على تويتر\nجميع الحقوق محفوظة للموقع\nاشترك في النشرة البريدية ليصلك كل جديد")
MENU = "Home\nOur Shop\nGarden Tools\nKitchen\nOffers\nBlog\nGift Cards\nMy Account\nDelivery\nStores\nCareers\nHelp\nNew In\nWish List\nBrands\nSpring Sale"
MENU_AR = "الرئيسية\nأخبار محلية\nرياضة\nاقتصاد\nثقافة وفن\nصور\nفيديو\nمقالات الرأي\nصحة\nسياحة\nأسرة\nتقنية"
PLANTED = {
    "cookie banner": (f"{COOKIES}\n{PROSE_EN}", f"{COOKIES_AR}\n{PROSE_AR}"),
    "menu": (f"{MENU}\n{PROSE_EN}", f"{MENU_AR}\n{MENU_AR.replace('ر', 'و')}\n{PROSE_AR}"),
    "menu in one line": ("Home | News | Sport | Weather | Travel | Shop | Help | Jobs | Games | Radio | Maps | Food | Mail | Photo\n" + PROSE_EN,
                         "الرئيسية » أخبار » رياضة » طقس » سفر » متجر » وظائف » ألعاب » راديو » خرائط » طعام » بريد » صور\n" + PROSE_AR),
    "link farm": (PROSE_EN + " http://a.example/1 www.b.example c.com/x http://d.example/2" * 7, PROSE_AR + " http://a.example/1 www.b.example" * 9),
    "hashtags": (PROSE_EN + " #one #two #three #four #five #six #seven" * 4, PROSE_AR + " #سفر #صور #حب #بحر #صيف" * 4),
    "one stuffed keyword": (PROSE_EN + " cheap shoes and cheap boots, cheap socks" * 8, PROSE_AR + " أحذية رخيصة وأحذية جديدة" * 6),
    "several stuffed keywords": (PROSE_EN + " buy watches online, online watches buy, watches buy online" * 4,
                                 PROSE_AR + " عروض سيارات جدة، جدة عروض سيارات، سيارات جدة عروض" * 4),
    "repeated lines": (PROSE_EN + "\nYou have won a prize and only have to call us today." * 5,
                           PROSE_AR + "\nلقد ربحت جائزة وما عليك إلا الاتصال بنا اليوم." * 5),
    "repeated sentences": (PROSE_EN + " You have won a prize and only have to call us today." * 5,
                           PROSE_AR + " لقد ربحت جائزة وما عليك إلا الاتصال بنا اليوم." * 5),
}


def decide(text: str, language: str, *filters: str, **limits: float) -> Decision:
    return Rules(FilterConfig(**limits), SourceConfig(path="x", language=language, domain="web", filters=filters or ("spam", "stop_words"))).decide(text)


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_spam_is_dropped_in_both_languages(kind: str) -> None:
    english, arabic = PLANTED[kind]
    assert decide(english, "en").reason == "spam"
    assert decide(arabic, "ar").reason == "spam"


def test_the_prose_around_the_planted_spam_is_kept_and_has_no_spam() -> None:
    for text, language in ((PROSE_EN, "en"), (PROSE_AR, "ar")):
        assert decide(text, language).reason is None
        assert measure(text, language).spam_ratio == 0


def test_of_what_is_repeated_the_first_copy_is_no_spam() -> None:
    sentence = "the ferry to the island leaves at nine from the northern pier"  # 12 words
    assert measure(f"{sentence}\n{sentence}", "en").spam_ratio == 0.5
    assert measure(f"{sentence}, {sentence}", "en").spam_ratio == 11 / 24  # the comma makes another word of the first copy's last
    assert measure(f"{sentence} {sentence} {sentence}", "en").spam_ratio == 2 / 3


def test_a_run_of_seven_words_may_be_said_again_and_one_of_eight_may_not() -> None:
    seven = "he went down to the grey harbour"
    assert measure(f"{seven} once. {seven} twice.", "en").spam_ratio == 0
    assert measure(f"{seven} again, and {seven} again.", "en").spam_ratio == 0
    assert measure(f"{seven} again and {seven} again it", "en").spam_ratio == 8 / 18


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=80), st.integers(1, 30))
def test_the_runs_that_stood_before_are_found_however_long_text_is_cut(words: list[str], at_once: int) -> None:
    runs = [tuple(words[i:i + spam.RUN]) for i in range(len(words) - spam.RUN + 1)]
    repeated = {word for word in words if words.count(word) > 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spam, "RUNS_AT_ONCE", at_once)
        assert spam._runs(words, repeated) == [i for i, run in enumerate(runs) if run in runs[:i]]


def test_five_short_lines_are_a_stanza_and_six_a_menu() -> None:
    lines = ["grey sea", "long black", "land and", "yellow half-moon", "large", "and low"]
    assert measure("\n".join(lines[:5]), "en").spam_ratio == 0
    assert measure("\n".join(lines), "en").spam_ratio == 1
    assert measure("\n".join(f"{line}," for line in lines), "en").spam_ratio == 0  # lines that end like sentences


def test_an_over_used_word_makes_a_twentieth_of_the_words_and_stands_four_times() -> None:
    def text(words: int, times: int) -> str:
        return " ".join(["harbour"] * times + [f"w{i}" for i in range(words - times)])

    assert measure(text(80, 4), "en").spam_ratio == 4 / 80
    assert measure(text(81, 4), "en").spam_ratio == 0
    assert measure(text(20, 3), "en").spam_ratio == 0


def test_a_line_that_only_begins_like_a_button_is_prose() -> None:
    for text in ("Read more slowly, said the teacher, and look at every word before you go on to the next one.",
                 "Next morning the whole village was awake early.",
                 "شارك الوزير في الاجتماع الذي عقد أمس في العاصمة وتحدث فيه عن خطة السنة القادمة.", "Home is where my mother is, he said."):
        assert measure(text, "ar" if "الوزير" in text else "en").spam_ratio == 0


def test_ratios_at_the_thresholds_are_kept_and_the_next_ones_are_not() -> None:
    text = PROSE_EN + " " + " ".join(f"#tag{i}" for i in range(10))
    spam, stops = measure(text, "en").spam_ratio, measure(text, "en").stop_word_ratio
    assert spam == 10 / len(text.split())
    for name, value, filters in (("max_spam_ratio", spam, "spam"), ("max_stop_word_ratio", stops, "stop_words")):
        assert decide(text, "en", filters, **{name: value}).reason is None
        assert decide(text, "en", filters, **{name: value - 1e-9}).reason == filters
    assert decide(text, "en", "stop_words", min_stop_word_ratio=stops).reason is None
    assert decide(text, "en", "stop_words", min_stop_word_ratio=stops + 1e-9).reason == "stop_words"
