"""Documents of the sample's prose: a plan is drawn once and rendered in English or Arabic, so a translation is the same plan.

A document is an opening, three or four facts (as a statement, or as a question with its answer), between them fillers that name
other things of the world without stating anything, and a closing. A plan that would state a fact where its group forbids it, or
whose text has fewer than 34 words or looks doubtful to the language identifier, is thrown away and the next one is drawn.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from allam.sample import templates_ar, templates_en
from allam.sample.facts import FACTS, Fact, allowed, misplaced

LANGUAGES = {"en": templates_en, "ar": templates_ar}
MIN_WORDS, MAX_WORDS = 34, 120

# Slot values as (English, Arabic) pairs; a document keeps its people, place, day and season from beginning to end.
SLOTS: dict[str, list[tuple[str, str]]] = {
    "m": [("Omar", "عمر"), ("Khalid", "خالد"), ("Yusuf", "يوسف"), ("Sami", "سامي"), ("Adam", "آدم"), ("Hassan", "حسن"),
          ("Tariq", "طارق"), ("Karim", "كريم"), ("Nabil", "نبيل"), ("Salim", "سليم"), ("Ibrahim", "إبراهيم")],
    "f": [("Mariam", "مريم"), ("Layla", "ليلى"), ("Sara", "سارة"), ("Huda", "هدى"), ("Salma", "سلمى"), ("Amina", "أمينة"),
          ("Zaynab", "زينب"), ("Fatima", "فاطمة"), ("Nadia", "نادية"), ("Samira", "سميرة"), ("Khadija", "خديجة")],
    "place": [("the library", "المكتبة"), ("the school", "المدرسة"), ("the market", "السوق"), ("the museum", "المتحف"),
              ("the garden", "الحديقة"), ("the station", "المحطة"), ("the old town", "المدينة القديمة"),
              ("the harbour", "الميناء"), ("the town square", "ساحة البلدة"), ("the hospital", "المستشفى")],
    "day": [("Sunday", "الأحد"), ("Monday", "الاثنين"), ("Tuesday", "الثلاثاء"), ("Wednesday", "الأربعاء"),
            ("Thursday", "الخميس"), ("Friday", "الجمعة"), ("Saturday", "السبت")],
    "season": [("spring", "الربيع"), ("summer", "الصيف"), ("autumn", "الخريف"), ("winter", "الشتاء")],
    "food": [("bread", "الخبز"), ("dates", "التمر"), ("rice", "الأرز"), ("cheese", "الجبن"), ("honey", "العسل"),
             ("fish", "السمك"), ("fruit", "الفاكهة")],
    "thing": [("the old notebook", "الدفتر القديم"), ("the blue book", "الكتاب الأزرق"), ("the long letter", "الرسالة الطويلة"),
              ("the old map", "الخريطة القديمة"), ("the morning newspaper", "صحيفة الصباح"),
              ("the small dictionary", "القاموس الصغير"), ("the red album", "الألبوم الأحمر")],
    "country": [(fact.en["country"], fact.ar["country"]) for fact in FACTS if fact.topic == "capital"],
    "city": [(fact.en["answer"], fact.ar["answer"]) for fact in FACTS if fact.topic == "capital"],
    "element": [(fact.en["element"], fact.ar["element"]) for fact in FACTS if fact.topic == "element"],
    "animal": [(fact.en["animal"], fact.ar["animal"]) for fact in FACTS if fact.topic == "sound"],
    "sound": [(fact.en["answer"], fact.ar["answer"]) for fact in FACTS if fact.topic == "sound"],
    "month": [(fact.en["answer"], fact.ar["answer"]) for fact in FACTS if fact.topic == "month"],
    "units": [(fact.en["units"], fact.ar["units"]) for fact in FACTS if fact.topic == "conversion"],
}

Pick = dict[str, int]


@dataclass(frozen=True)
class Sentence:
    """One sentence of a plan: which template (list path and index), with which slot picks or fact; `block` stands on lines of its own."""

    parts: tuple[tuple[str | int, ...], ...]
    picks: Pick
    fact: Fact | None = None
    block: bool = False

    def render(self, language: str) -> str:
        """The sentence in "en" or "ar"."""
        slots = {name: SLOTS[name][i][0 if language == "en" else 1] for name, i in self.picks.items()}
        slots |= self.fact.slots(language) if self.fact else {}
        texts = [_template(language, path).format_map(_Keep(slots)) for path in self.parts]
        if self.block:
            form, question = texts
            text = form.replace("{question}", question).replace("{answer}", slots["answer"])
        else:
            text = "".join(texts)
        return text[0].upper() + text[1:]


class _Keep(dict[str, str]):
    """Leaves {question} and {answer} of a question form alone until the question itself is rendered."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


def _template(language: str, path: tuple[str | int, ...]) -> str:
    node: Any = getattr(LANGUAGES[language], str(path[0]))
    for step in path[1:]:
        node = node[step]
    text: str = node
    # A question form keeps its own {answer}: it is filled in last.
    return text.replace("{answer}", "{{answer}}") if path[0] == "QA" else text


@dataclass(frozen=True)
class Plan:
    """A document before it has a language: its style, the facts it states, its sentences, its title's number."""

    style: str
    facts: tuple[Fact, ...]
    sentences: tuple[Sentence, ...]
    title: int

    def text(self, language: str) -> str:
        """The document: sentences joined by spaces, questions with answers on lines of their own."""
        out = ""
        for sentence in self.sentences:
            line = sentence.render(language)
            out += ("\n" if sentence.block and out and not out.endswith("\n") else "") + line
            out += "\n" if sentence.block else " "
        return re.sub(r" *\n", "\n", out).strip()

    def title_text(self, language: str) -> str:
        """The document's title."""
        titles: list[str] = LANGUAGES[language].TITLES[self.style]
        return titles[self.title]


class Composer:
    """Draws plans from one random stream and keeps every text unique (by its letters and digits alone)."""

    def __init__(self, seed: int, score: Callable[[str], tuple[str, float]]) -> None:
        """`score` gives language and confidence of a text; see `allam.sample.language`."""
        self.rng = random.Random(seed)
        self.score = score
        self.seen: set[str] = set()
        self.uses: dict[str, int] = {}

    def document(self, where: str, style: str) -> Plan:
        """One accepted plan for `where`: "en", "ar" (natural) or "translated" (has to hold in both languages)."""
        while True:
            plan = self._draw(where, style)
            languages = ("en", "ar") if where == "translated" else (where,)
            if all(self._accept(plan.text(language), language, where == "translated") for language in languages):
                for language in languages:
                    self.seen.add(bare(plan.text(language)))
                for fact in plan.facts:
                    self.uses[where + fact.id] = self.uses.get(where + fact.id, 0) + 1
                return plan

    def _accept(self, text: str, language: str, translation: bool) -> bool:
        if not MIN_WORDS <= len(text.split()) <= MAX_WORDS or bare(text) in self.seen:
            return False
        if misplaced(text, language, translation=translation and language == "ar"):
            return False
        found, confidence = self.score(text)
        return found == language and confidence >= 0.97

    def _draw(self, where: str, style: str) -> Plan:
        rng, picks = self.rng, self._picks()
        # The facts that were used least come first, so that all of a group are met equally often.
        pool = allowed(where)
        rng.shuffle(pool)
        pool.sort(key=lambda fact: self.uses.get(where + fact.id, 0) // 8)
        facts = tuple(pool[: rng.choice((3, 3, 4, 4, 5))])
        body: list[Sentence] = []
        for fact in facts:
            body.append(self._mention(fact, picks))
            if rng.random() < 0.3:
                body.append(self._mention(fact, picks))
            if rng.random() < 0.6:
                body.append(self._filler(style, picks))
        style_lines = templates_en.STYLES[style]
        opening = Sentence((("STYLES", style, "open", rng.randrange(len(style_lines["open"]))),), picks)
        closing = Sentence((("STYLES", style, "close", rng.randrange(len(style_lines["close"]))),), picks)
        unique = list(dict.fromkeys((s.parts, s.fact.id if s.fact else "") for s in body))
        kept = [next(s for s in body if (s.parts, s.fact.id if s.fact else "") == mark) for mark in unique]
        return Plan(style, facts, (opening, *kept, closing), rng.randrange(len(templates_en.TITLES[style])))

    def _mention(self, fact: Fact, picks: Pick) -> Sentence:
        rng = self.rng
        if rng.random() < 0.4:
            form = ("QA", rng.randrange(len(templates_en.QA)))
            question = ("QUESTIONS", fact.topic, rng.randrange(len(templates_en.QUESTIONS[fact.topic])))
            return Sentence((form, question), {}, fact, block=True)
        statement = ("STATEMENTS", fact.topic, rng.randrange(len(templates_en.STATEMENTS[fact.topic])))
        lead = (("LEADS", rng.randrange(len(templates_en.LEADS))),) if rng.random() < 0.15 else ()
        return Sentence((*lead, statement), picks if lead else {}, fact)

    def _filler(self, style: str, picks: Pick) -> Sentence:
        rng, kind = self.rng, self.rng.random()
        if kind < 0.35:
            return Sentence((("STYLES", style, "fill", rng.randrange(len(templates_en.STYLES[style]["fill"]))),), picks)
        if kind < 0.7:
            return Sentence((("NEUTRAL", rng.randrange(len(templates_en.NEUTRAL))),), picks | self._picks(neutral=True))
        start, end = rng.randrange(len(templates_en.DETAILS_START)), rng.randrange(len(templates_en.DETAILS_END))
        return Sentence((("DETAILS_START", start), ("DETAILS_END", end)), picks)

    def _picks(self, neutral: bool = False) -> Pick:
        names = ("country", "city", "element", "animal", "sound", "month", "units") if neutral else (
            "m", "f", "place", "day", "season", "food", "thing")
        return {name: self.rng.randrange(len(SLOTS[name])) for name in names}


def bare(text: str) -> str:
    """Letters and digits alone, lower-cased, without Arabic diacritics and tatweel: what makes two texts 'the same' here."""
    return "".join(c for c in text.lower() if c.isalnum() and c != "\u0640")
