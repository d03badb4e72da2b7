"""The facts of the sample's small world: every country, element, animal, month, sum and conversion, in both languages.

Arabic nouns stand in the very form in which the templates use them (with article, counted form, gender of the verb), so that
no template glues a form together. A fact's group says in which text it may be stated:

    both        natural English and natural Arabic text
    english     English text only, never translated: is it known in Arabic by transfer?
    arabic      Arabic text only
    translated  English text and its Arabic translations, never natural Arabic text

Read by `allam.sample.build`; `Fact.stated_in` is what the tests use to find a statement in the wrong place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

GROUPS = ("both", "english", "arabic", "translated")
TOPICS = ("capital", "element", "sound", "month", "sum", "conversion")

# Who may be stated where: natural English, natural Arabic, and English text that has a translation (with that translation).
ALLOWED = {
    "en": frozenset({"both", "english", "translated"}),
    "ar": frozenset({"both", "arabic"}),
    "translated": frozenset({"both", "translated"}),
}


@dataclass(frozen=True)
class Fact:
    """One fact: `en` and `ar` hold the template slots of each language, `answer` among them; `subject` and `said` are the
    words (English, Arabic) whose meeting in one document counts as a statement of the fact."""

    id: str
    topic: str
    group: str
    en: dict[str, str]
    ar: dict[str, str]
    subject: tuple[str, str]
    said: tuple[str, str]

    def slots(self, language: str) -> dict[str, str]:
        """The template slots in `language` ("en" or "ar")."""
        return self.en if language == "en" else self.ar

    def answer(self, language: str) -> str:
        """The short answer in `language`, as the benchmarks' choices show it."""
        return self.slots(language)["answer"]

    def stated_in(self, text: str, language: str) -> bool:
        """Whether subject and answer both occur in `text`, as whole words (Arabic: with or without attached particles)."""
        index = 0 if language == "en" else 1
        return bool(_word(self.subject[index], language).search(text) and _word(self.said[index], language).search(text))


@cache
def _word(form: str, language: str) -> re.Pattern[str]:
    if form.isdigit():
        return re.compile(rf"(?<!\d){form}(?!\d)")
    if language == "en":
        return re.compile(rf"\b{re.escape(form)}", re.IGNORECASE)
    # "الثاني" must not be found in "الثاني عشر": the second month is not the twelfth.
    return re.compile(rf"(?<![\u0621-\u064a])(?:[وفبك]|ال|لل|ل)*{re.escape(form)}(?![\u0621-\u064a])(?! عشر)")


# (group, id, English country, English capital, Arabic country, Arabic capital)
CAPITALS = [
    ("both", "egypt", "Egypt", "Cairo", "مصر", "القاهرة"),
    ("both", "saudi_arabia", "Saudi Arabia", "Riyadh", "السعودية", "الرياض"),
    ("both", "france", "France", "Paris", "فرنسا", "باريس"),
    ("both", "japan", "Japan", "Tokyo", "اليابان", "طوكيو"),
    ("both", "morocco", "Morocco", "Rabat", "المغرب", "الرباط"),
    ("both", "italy", "Italy", "Rome", "إيطاليا", "روما"),
    ("both", "china", "China", "Beijing", "الصين", "بكين"),
    ("english", "peru", "Peru", "Lima", "بيرو", "ليما"),
    ("english", "norway", "Norway", "Oslo", "النرويج", "أوسلو"),
    ("english", "kenya", "Kenya", "Nairobi", "كينيا", "نيروبي"),
    ("english", "canada", "Canada", "Ottawa", "كندا", "أوتاوا"),
    ("english", "cuba", "Cuba", "Havana", "كوبا", "هافانا"),
    ("arabic", "iraq", "Iraq", "Baghdad", "العراق", "بغداد"),
    ("arabic", "lebanon", "Lebanon", "Beirut", "لبنان", "بيروت"),
    ("arabic", "yemen", "Yemen", "Sanaa", "اليمن", "صنعاء"),
    ("arabic", "sudan", "Sudan", "Khartoum", "السودان", "الخرطوم"),
    ("arabic", "bahrain", "Bahrain", "Manama", "البحرين", "المنامة"),
    ("translated", "greece", "Greece", "Athens", "اليونان", "أثينا"),
    ("translated", "austria", "Austria", "Vienna", "النمسا", "فيينا"),
    ("translated", "poland", "Poland", "Warsaw", "بولندا", "وارسو"),
    ("translated", "russia", "Russia", "Moscow", "روسيا", "موسكو"),
    ("translated", "hungary", "Hungary", "Budapest", "المجر", "بودابست"),
]

# (group, English element, Arabic element, atomic number)
ELEMENTS = [
    ("both", "iron", "الحديد", 26),
    ("both", "gold", "الذهب", 79),
    ("both", "oxygen", "الأكسجين", 8),
    ("english", "silver", "الفضة", 47),
    ("english", "zinc", "الزنك", 30),
    ("arabic", "copper", "النحاس", 29),
    ("arabic", "tin", "القصدير", 50),
    ("translated", "lead", "الرصاص", 82),
    ("translated", "nickel", "النيكل", 28),
]

# (group, English animal, English sound, Arabic animal, Arabic sound)
SOUNDS = [
    ("both", "horse", "neighing", "الحصان", "الصهيل"),
    ("both", "lion", "roaring", "الأسد", "الزئير"),
    ("both", "dog", "barking", "الكلب", "النباح"),
    ("both", "cat", "meowing", "القط", "المواء"),
    ("english", "frog", "croaking", "الضفدع", "النقيق"),
    ("english", "sheep", "bleating", "الخروف", "الثغاء"),
    ("arabic", "wolf", "howling", "الذئب", "العواء"),
    ("arabic", "bee", "buzzing", "النحلة", "الطنين"),
    ("translated", "donkey", "braying", "الحمار", "النهيق"),
    ("translated", "snake", "hissing", "الثعبان", "الفحيح"),
]

# (group, English ordinal, English month, Arabic ordinal, Arabic month)
MONTHS = [
    ("both", "first", "January", "الأول", "يناير"),
    ("both", "third", "March", "الثالث", "مارس"),
    ("both", "seventh", "July", "السابع", "يوليو"),
    ("both", "twelfth", "December", "الثاني عشر", "ديسمبر"),
    ("english", "second", "February", "الثاني", "فبراير"),
    ("english", "tenth", "October", "العاشر", "أكتوبر"),
    ("arabic", "fourth", "April", "الرابع", "أبريل"),
    ("arabic", "ninth", "September", "التاسع", "سبتمبر"),
    ("translated", "sixth", "June", "السادس", "يونيو"),
    ("translated", "eleventh", "November", "الحادي عشر", "نوفمبر"),
]

SUMS = [("both", 3, 4), ("both", 8, 5), ("both", 6, 9), ("both", 12, 7)]

# (group, id, English one, English units, number, Arabic one, counted after the number, after "كم", definite plural, verb "equals")
CONVERSIONS = [
    ("both", "metre", "one metre", "centimetres", 100, "المتر الواحد", "سنتيمتر", "سنتيمترًا", "السنتيمترات", "يساوي"),
    ("both", "hour", "one hour", "minutes", 60, "الساعة الواحدة", "دقيقة", "دقيقة", "الدقائق", "تساوي"),
    ("english", "foot", "one foot", "inches", 12, "القدم الواحدة", "بوصة", "بوصة", "البوصات", "تساوي"),
    ("arabic", "kilogram", "one kilogram", "grams", 1000, "الكيلوغرام الواحد", "غرام", "غرامًا", "الغرامات", "يساوي"),
    ("translated", "day", "one day", "hours", 24, "اليوم الواحد", "ساعة", "ساعة", "الساعات", "يساوي"),
]
# Wrong choices for conversions beyond the five right answers, so that each question has three others of the same kind.
OTHER_AMOUNTS = ("10", "30", "7", "500")
OTHER_SUMS = ("11", "9", "17", "21")


def _capital(group: str, key: str, country: str, city: str, country_ar: str, city_ar: str) -> Fact:
    en, ar = {"country": country, "answer": city}, {"country": country_ar, "answer": city_ar}
    return Fact(f"capital-{key}", "capital", group, en, ar, (country, country_ar.removeprefix("ال")),
                (city, city_ar.removeprefix("ال")))


def _element(group: str, name: str, name_ar: str, number: int) -> Fact:
    en = {"element": name, "Element": name.capitalize(), "answer": str(number)}
    ar = {"element": name_ar, "answer": str(number)}
    return Fact(f"element-{name}", "element", group, en, ar, (name, name_ar.removeprefix("ال")), (str(number), str(number)))


def _sound(group: str, animal: str, sound: str, animal_ar: str, sound_ar: str) -> Fact:
    en = {"animal": animal, "answer": sound, "Answer": sound.capitalize()}
    ar = {"animal": animal_ar, "answer": sound_ar}
    stem, stem_ar = sound.removesuffix("ing"), sound_ar.removeprefix("ال")
    return Fact(f"sound-{animal}", "sound", group, en, ar, (animal, animal_ar.removeprefix("ال")), (stem, stem_ar))


def _month(group: str, ordinal: str, month: str, ordinal_ar: str, month_ar: str) -> Fact:
    en, ar = {"ordinal": ordinal, "answer": month}, {"ordinal": ordinal_ar, "answer": month_ar}
    subject = (f"{ordinal} month", f"شهر {ordinal_ar}")
    return Fact(f"month-{month.lower()}", "month", group, en, ar, subject, (month, month_ar))


def _sum(group: str, a: int, b: int) -> Fact:
    slots = {"a": str(a), "b": str(b), "answer": str(a + b)}
    return Fact(f"sum-{a}-{b}", "sum", group, slots, slots, (f"{a} plus {b}", f"{a} زائد {b}"), (str(a + b), str(a + b)))


def _conversion(group: str, key: str, one: str, units: str, number: int, one_ar: str, counted: str, how_many: str,
                units_ar: str, equals: str) -> Fact:
    en = {"one": one, "One": one.capitalize(), "units": units, "answer": str(number)}
    ar = {"one": one_ar, "counted": counted, "how_many": how_many, "units": units_ar, "plural": units_ar.removeprefix("ال"),
          "equals": equals, "answer": str(number)}
    # The counted noun is the telling word: "12" beside "inch" is the fact, "12" beside "foot" (on foot) need not be.
    subject = (units.removesuffix("es") if units.endswith("ches") else units.removesuffix("s"), counted)
    return Fact(f"conversion-{key}", "conversion", group, en, ar, subject, (str(number), str(number)))


FACTS: tuple[Fact, ...] = (
    *(_capital(*row) for row in CAPITALS),
    *(_element(*row) for row in ELEMENTS),
    *(_sound(*row) for row in SOUNDS),
    *(_month(*row) for row in MONTHS),
    *(_sum(*row) for row in SUMS),
    *(_conversion(*row) for row in CONVERSIONS),
)


def allowed(where: str, topic: str | None = None) -> list[Fact]:
    """The facts that may be stated in `where` ("en", "ar", "translated"), of one topic or of all."""
    return [fact for fact in FACTS if fact.group in ALLOWED[where] and topic in (None, fact.topic)]


def misplaced(text: str, language: str, *, translation: bool = False) -> list[str]:
    """The ids of facts that `text` states although their group keeps them out of such text; empty when all is well."""
    groups = ALLOWED["translated" if translation else language]
    return [fact.id for fact in FACTS if fact.group not in groups and fact.stated_in(text, language)]


def wrong_answers(fact: Fact, language: str) -> list[str]:
    """Every other answer of the fact's topic, in table order, for use as wrong choices."""
    others = {"sum": OTHER_SUMS, "conversion": OTHER_AMOUNTS}.get(fact.topic, ())
    pool = [other.answer(language) for other in FACTS if other.topic == fact.topic] + list(others)
    return [answer for answer in dict.fromkeys(pool) if answer != fact.answer(language)]
