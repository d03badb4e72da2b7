"""The sample's benchmarks on held-out phrasings, open questions for a judge, and example votes."""

from __future__ import annotations

import random
from typing import Any

from allam.sample import templates_ar, templates_en
from allam.sample.facts import FACTS, Fact, wrong_answers

Row = dict[str, Any]
_TEMPLATES = {"en": templates_en, "ar": templates_ar}


def held_out_question(fact: Fact, language: str, phrasing: int) -> str:
    """The fact's question in a phrasing that stands in no training text."""
    question: str = _TEMPLATES[language].HELD_OUT[fact.topic][phrasing].format_map(fact.slots(language))
    return question


def multiple_choice(language: str) -> list[Row]:
    """Every fact in two held-out phrasings; the right answer stands at each of the four places equally often."""
    rng = random.Random(f"multiple choice {language}")
    rows: list[Row] = []
    for number, fact in enumerate(FACTS):
        for phrasing in range(2):
            place = (number * 2 + phrasing + number // 2) % 4
            choices = _wrong_choices(fact, language, rng)
            choices.insert(place, fact.answer(language))
            rows.append({"id": f"facts_{language}-{fact.id}-{phrasing + 1}", "language": language,
                         "question": held_out_question(fact, language, phrasing), "choices": choices, "answer": place,
                         "fact": fact.id, "group": fact.group, "topic": fact.topic})
    return rows


def _wrong_choices(fact: Fact, language: str, rng: random.Random) -> list[str]:
    """Three wrong answers, of the fact's own group as far as they go: answers that are never stated in a language are unlikely to a model
    whatever the question, and next to stated ones they would be chosen less often than by chance (0% of 24 was measured)."""
    pool = wrong_answers(fact, language)
    own = {other.answer(language) for other in FACTS if other.topic == fact.topic and other.group == fact.group}
    near, far = [answer for answer in pool if answer in own], [answer for answer in pool if answer not in own]
    chosen = rng.sample(near, min(3, len(near)))
    return chosen + rng.sample(far, 3 - len(chosen))


def generation(language: str) -> list[Row]:
    """24 questions with a short exact answer: twelve facts of group `both`, four of each other group."""
    rng = random.Random("generation")
    chosen: list[Fact] = []
    for group, count in (("both", 12), ("english", 4), ("arabic", 4), ("translated", 4)):
        chosen += rng.sample([fact for fact in FACTS if fact.group == group], count)
    return [{"id": f"generate_{language}-{fact.id}", "language": language, "question": held_out_question(fact, language, 0),
             "answer": fact.answer(language), "fact": fact.id, "group": fact.group} for fact in chosen]


# (topic, English request, English reference, Arabic request, Arabic reference)
OPEN = [
    ("capital", "Tell me about the capital of Egypt.", "The capital of Egypt is Cairo.",
     "حدثني عن عاصمة مصر.", "عاصمة مصر هي القاهرة."),
    ("capital", "Tell me about the capital of Japan.", "The capital of Japan is Tokyo.",
     "حدثني عن عاصمة اليابان.", "عاصمة اليابان هي طوكيو."),
    ("capital", "I would like to know the capitals of France and Italy.",
     "The capital of France is Paris, and the capital of Italy is Rome.",
     "أود أن أعرف عاصمة فرنسا وعاصمة إيطاليا.", "عاصمة فرنسا هي باريس، وعاصمة إيطاليا هي روما."),
    ("capital", "Help me to remember the capital of Morocco.", "The capital of Morocco is Rabat.",
     "ساعدني على تذكر عاصمة المغرب.", "عاصمة المغرب هي الرباط."),
    ("element", "Tell me something about iron.", "The atomic number of iron is 26.",
     "أخبرني بشيء عن عنصر الحديد.", "العدد الذري لعنصر الحديد هو 26."),
    ("element", "What do you know about gold?", "The atomic number of gold is 79.",
     "ماذا تعرف عن عنصر الذهب؟", "العدد الذري لعنصر الذهب هو 79."),
    ("element", "Explain the number of oxygen in a short sentence.", "The atomic number of oxygen is 8.",
     "اشرح رقم الأكسجين في جملة قصيرة.", "العدد الذري لعنصر الأكسجين هو 8."),
    ("sound", "Tell me about the sound of the horse.", "The sound of the horse is called neighing.",
     "حدثني عن صوت الحصان.", "صوت الحصان يسمى الصهيل."),
    ("sound", "What can you say about the voice of the lion?", "The sound of the lion is called roaring.",
     "ماذا تقول عن صوت الأسد؟", "صوت الأسد يسمى الزئير."),
    ("sound", "My child asks about the sounds of the dog and the cat.",
     "The sound of the dog is called barking, and the sound of the cat is called meowing.",
     "يسأل طفلي عن صوت الكلب وصوت القط.", "صوت الكلب يسمى النباح، وصوت القط يسمى المواء."),
    ("month", "Tell me about the first month of the year.", "The first month of the year is January.",
     "حدثني عن الشهر الأول من السنة.", "الشهر الأول من السنة هو يناير."),
    ("month", "With which month does the year end?", "The year ends with December, the twelfth month.",
     "بأي شهر تنتهي السنة؟", "تنتهي السنة بشهر ديسمبر، وهو الشهر الثاني عشر."),
    ("sum", "Please add 8 and 5 for me.", "8 plus 5 equals 13.", "من فضلك اجمع لي 8 و5.", "8 زائد 5 يساوي 13."),
    ("sum", "I have 6 apples and buy 9 more. How many do I have?", "You have 15 apples, because 6 plus 9 equals 15.",
     "عندي 6 كتب واشتريت 9 كتب أخرى، فكم كتابًا عندي؟", "عندك 15 كتابًا، لأن 6 زائد 9 يساوي 15."),
    ("conversion", "Explain how long one metre is.", "One metre equals 100 centimetres.",
     "اشرح لي كم يبلغ طول المتر الواحد.", "المتر الواحد يساوي 100 سنتيمتر."),
    ("chat", "Who are you, and what can you do?",
     "I am the ALLaM demo, a small assistant for Arabic and English. I can answer simple questions.",
     "من أنت، وماذا تستطيع أن تفعل؟", "أنا النموذج التجريبي علّام، مساعد صغير للعربية والإنجليزية. أستطيع أن أجيب عن أسئلة بسيطة."),
]


def open_questions(language: str) -> list[Row]:
    """16 open requests with a reference answer each."""
    rows = []
    for number, (topic, request, reference, request_ar, reference_ar) in enumerate(OPEN, start=1):
        user, good = (request, reference) if language == "en" else (request_ar, reference_ar)
        rows.append({"id": f"open_{language}-{number:02d}", "language": language, "messages": [{"role": "user", "content": user}],
                     "reference": good, "topic": topic})
    return rows


# How often evaluators prefer the later stage, see two good or two bad answers: an illustration, no measurement.
_PAIRS = {("continue", "sft"): (0.12, 0.70, 0.08), ("sft", "dpo"): (0.24, 0.36, 0.28), ("continue", "dpo"): (0.08, 0.76, 0.06)}
EVALUATORS = ("evaluator-1", "evaluator-2", "evaluator-3", "evaluator-4")


def votes() -> list[Row]:
    """Made-up votes that show the file's format: three evaluators a comparison, a fourth where no two of them agree."""
    rng = random.Random("votes")
    rows: list[Row] = []
    for language in ("en", "ar"):
        for question in open_questions(language)[:12]:
            for (first, second), (a, b, tie) in _PAIRS.items():
                swap = rng.random() < 0.5
                model_a, model_b = (second, first) if swap else (first, second)
                weights = [b, a, tie, 1 - a - b - tie] if swap else [a, b, tie, 1 - a - b - tie]
                common = rng.choices(("a", "b", "tie", "both_bad"), weights)[0]
                given = [common if rng.random() < 0.7 else rng.choices(("a", "b", "tie", "both_bad"), weights)[0] for _ in range(3)]
                if len(set(given)) == 3:
                    given.append(rng.choice(given))
                for evaluator, winner in zip(EVALUATORS, given, strict=False):
                    rows.append({"id": f"vote-{len(rows) + 1:04d}", "question_id": question["id"], "model_a": model_a,
                                 "model_b": model_b, "winner": winner, "evaluator": evaluator, "language": language})
    return rows
