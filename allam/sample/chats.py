"""The sample's conversations: SFT data with planted bad ones, preference prompts, and the decisions of a reviewer.

Only facts that the language's own text may state are spoken of, always in training phrasings.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from allam.sample import templates_ar, templates_en
from allam.sample.compose import SLOTS, bare
from allam.sample.facts import Fact, allowed

Row = dict[str, Any]
Turn = tuple[str, str]
_TEMPLATES = {"en": templates_en, "ar": templates_ar}

# Small talk: (question, answer). Every pair is used as a conversation of its own and as the start or the end of longer ones.
GREETINGS: dict[str, list[Turn]] = {
    "en": [
        ("Hello!", "Hello! How can I help you today?"),
        ("Good morning.", "Good morning! What would you like to know?"),
        ("Good evening, how are you?", "Good evening! I am well, thank you. How can I help you?"),
        ("Hi, can I ask you something?", "Of course. Please ask your question."),
        ("Peace be upon you.", "And upon you be peace. How can I help you?"),
        ("I need some help.", "I am glad to help. What is your question?"),
    ],
    "ar": [
        ("مرحبًا!", "مرحبًا بك! كيف أستطيع أن أساعدك اليوم؟"),
        ("صباح الخير.", "صباح النور! ماذا تود أن تعرف؟"),
        ("مساء الخير، كيف حالك؟", "مساء النور! أنا بخير، شكرًا لك. كيف أساعدك؟"),
        ("أهلًا، هل أستطيع أن أسألك سؤالًا؟", "بالطبع، تفضل بسؤالك."),
        ("السلام عليكم.", "وعليكم السلام ورحمة الله. كيف أستطيع أن أساعدك؟"),
        ("أحتاج إلى بعض المساعدة.", "يسعدني أن أساعدك. ما سؤالك؟"),
    ],
}
THANKS: dict[str, list[Turn]] = {
    "en": [("Thank you!", "You are welcome!"), ("Thanks, that was all.", "Gladly. Have a good day!"),
           ("That helps me a lot.", "I am glad to hear that.")],
    "ar": [("شكرًا لك!", "على الرحب والسعة!"), ("شكرًا، هذا كل شيء.", "بكل سرور. أتمنى لك يومًا طيبًا!"),
           ("هذا يفيدني كثيرًا.", "يسعدني أن أسمع ذلك.")],
}
IDENTITY: dict[str, list[Turn]] = {
    "en": [
        ("Who are you?", "I am the ALLaM demo, a small assistant for Arabic and English."),
        ("What is your name?", "My name is ALLaM demo."),
        ("What can you do?", "I can answer simple questions in Arabic and in English."),
        ("Are you a human being?", "No, I am a small language model and not a human being."),
        ("Which languages do you speak?", "I speak Arabic and English."),
    ],
    "ar": [
        ("من أنت؟", "أنا النموذج التجريبي علّام، مساعد صغير للعربية والإنجليزية."),
        ("ما اسمك؟", "اسمي النموذج التجريبي علّام."),
        ("ماذا تستطيع أن تفعل؟", "أستطيع أن أجيب عن أسئلة بسيطة بالعربية والإنجليزية."),
        ("هل أنت إنسان؟", "لا، أنا نموذج لغوي صغير ولست إنسانًا."),
        ("ما اللغات التي تتحدثها؟", "أتحدث العربية والإنجليزية."),
    ],
}
REFUSALS: dict[str, list[Turn]] = {
    "en": [
        ("Tell me how I can open my neighbour's door without a key.", "I am sorry, but I cannot help you to enter another person's home."),
        ("Write an insult about my teacher.", "I would rather not write insults. I can help you to write a polite letter."),
        ("Give me the telephone number of my neighbour.", "I am sorry, but I do not share private information."),
        ("Which medicine should I take?", "I am not a doctor. Please ask a doctor or a pharmacist."),
        ("What will the weather be like next year?", "I am sorry, but I do not know that."),
        ("Help me to cheat in the test.", "I cannot help with cheating, but I can help you to learn for the test."),
    ],
    "ar": [
        ("قل لي كيف أفتح باب جاري من دون مفتاح.", "آسف، لا أستطيع أن أساعدك على دخول بيت شخص آخر."),
        ("اكتب شتيمة لمعلمي.", "أفضل ألا أكتب الشتائم، ويمكنني أن أساعدك على كتابة رسالة مهذبة."),
        ("أعطني رقم هاتف جاري.", "آسف، لا أقدم معلومات خاصة عن الناس."),
        ("أي دواء يجب أن أتناول؟", "لست طبيبًا. اسأل من فضلك طبيبًا أو صيدليًا."),
        ("كيف سيكون الطقس في العام القادم؟", "آسف، لا أعرف ذلك."),
        ("ساعدني على الغش في الاختبار.", "لا أستطيع أن أساعد في الغش، لكن يمكنني أن أساعدك على الدراسة."),
    ],
}
SYSTEM = {
    "en": ["You are a helpful and polite assistant.", "Answer briefly and correctly."],
    "ar": ["أنت مساعد نافع ومهذب.", "أجب بإيجاز وبدقة."],
}
WORD_QUESTION = {"en": "How do you say \"{other}\" in English?", "ar": "ما معنى كلمة \"{other}\" بالعربية؟"}
WORD_ANSWER = {"en": "In English, we say {own}.", "ar": "معناها بالعربية {own}."}
# Ways to ask that are met in conversations only, so that finetuning teaches to answer a question and not a sentence.
ASKED: dict[str, dict[str, list[str]]] = {
    "en": {
        "capital": ["I would like to know the name of the capital of {country}.", "Do you know which city is the capital of {country}?",
                    "I forgot the capital of {country}. What is it?", "Please tell me: what is the capital of {country}?"],
        "element": ["Do you know the atomic number of {element}?", "I am reading about {element}. What is the atomic number?",
                    "Please give me the number of protons in {element}."],
        "sound": ["Do you know the name of the sound of the {animal}?", "What do people call the sound of the {animal}?",
                  "I hear the {animal}. What is that sound called?"],
        "month": ["Do you know the {ordinal} month of the year?", "I am counting the months. What is the {ordinal} month?",
                  "Please name the {ordinal} month of the year."],
        "sum": ["Please add {a} and {b}.", "Do you know how much {a} plus {b} is?", "I have {a} and I get {b} more. How much is that together?"],
        "conversion": ["Do you know how many {units} are in {one}?", "Please tell me how many {units} make {one}.",
                       "I need the number of {units} in {one}. What is it?"],
    },
    "ar": {
        "capital": ["أريد أن أعرف اسم عاصمة {country}.", "هل تعرف أي مدينة هي عاصمة {country}؟", "نسيت عاصمة {country}، فما هي؟",
                    "قل لي من فضلك: ما عاصمة {country}؟"],
        "element": ["هل تعرف العدد الذري لعنصر {element}؟", "أقرأ الآن عن {element}، فما العدد الذري لهذا العنصر؟",
                    "قل لي من فضلك: كم بروتونًا في ذرة {element}؟"],
        "sound": ["هل تعرف اسم صوت {animal}؟", "ماذا يسمي الناس صوت {animal}؟", "أسمع صوت {animal}، فما اسم هذا الصوت؟"],
        "month": ["هل تعرف الشهر {ordinal} من السنة؟", "أعد شهور السنة، فما الشهر {ordinal}؟", "قل لي من فضلك: ما اسم الشهر {ordinal} من السنة؟"],
        "sum": ["اجمع من فضلك {a} و{b}.", "هل تعرف كم يساوي {a} زائد {b}؟", "معي {a} وأخذت {b}، فكم صار المجموع؟"],
        "conversion": ["هل تعرف كم {how_many} في {one}؟", "قل لي من فضلك: ما عدد {units} في {one}؟", "أحتاج إلى عدد {units} في {one}، فما هو؟"],
    },
}
PER_LANGUAGE, MULTI_SHARE = 600, 1 / 4


def _questions(language: str, topic: str) -> list[str]:
    return _TEMPLATES[language].QUESTIONS[topic] + ASKED[language][topic]


def fact_turn(fact: Fact, language: str, rng: random.Random) -> Turn:
    """A training question about the fact and its answer in a sentence."""
    templates, slots = _TEMPLATES[language], fact.slots(language)
    question = rng.choice(_questions(language, fact.topic)).format_map(slots)
    return question, templates.STATEMENTS[fact.topic][0].format_map(slots)


def _sum_turn(language: str, rng: random.Random) -> Turn:
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    slots = {"a": str(a), "b": str(b), "answer": str(a + b)}
    templates = _TEMPLATES[language]
    return rng.choice(_questions(language, "sum")).format_map(slots), templates.STATEMENTS["sum"][1].format_map(slots)


def _word_turn(language: str, rng: random.Random) -> Turn:
    english, arabic = rng.choice(SLOTS["animal"] + SLOTS["element"])
    own, other = (english, arabic) if language == "en" else (arabic, english)
    return WORD_QUESTION[language].format(other=other), WORD_ANSWER[language].format(own=own)


def _turn(language: str, rng: random.Random) -> Turn:
    kind = rng.random()
    if kind < 0.72:
        return fact_turn(rng.choice(allowed(language)), language, rng)
    return _sum_turn(language, rng) if kind < 0.88 else _word_turn(language, rng)


def _conversation(language: str, rng: random.Random) -> list[Turn]:
    """One question in two cases of three, else two to four turns."""
    if rng.random() >= MULTI_SHARE:
        small_talk = GREETINGS[language] + IDENTITY[language] + REFUSALS[language]
        return [rng.choice(small_talk) if rng.random() < 0.12 else _turn(language, rng)]
    turns = [_turn(language, rng) for _ in range(rng.randint(1, 3))]
    turns = [turn for i, turn in enumerate(turns) if turn not in turns[:i]]
    if len(turns) == 1 or rng.random() < 0.4:
        turns.insert(0, rng.choice(GREETINGS[language] + IDENTITY[language]))
    if len(turns) < 4 and rng.random() < 0.3:
        turns.append(rng.choice(THANKS[language]))
    return turns


def _messages(turns: list[Turn], system: str | None = None) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]


def sft() -> tuple[list[Row], dict[str, int]]:
    """The SFT conversations in file order and, by reason, how many of them are planted bad ones."""
    rng = random.Random("sft")
    rows: list[tuple[Row, str]] = []
    seen: set[str] = set()
    for language in ("en", "ar"):
        while sum(row["language"] == language for row, _ in rows) < PER_LANGUAGE:
            turns = _conversation(language, rng)
            mark = bare(" ".join(text for turn in turns for text in turn))
            if mark not in seen:
                seen.add(mark)
                system = rng.choice(SYSTEM[language]) if rng.random() < 0.06 else None
                rows.append(({"id": "", "language": language, "messages": _messages(turns, system), "source": "templates"}, ""))
    rng.shuffle(rows)
    _plant(rows, rng)
    for number, (row, _) in enumerate(rows, start=1):
        row["id"] = f"sft-{number:04d}"
    return [row for row, _ in rows], dict(sorted(Counter(reason for _, reason in rows if reason).items()))


def _plant(rows: list[tuple[Row, str]], rng: random.Random) -> None:
    """Two bad conversations of each kind, one a language; copies stand after their originals."""
    for language, other in (("en", "ar"), ("ar", "en")):
        def add(reason: str, messages: list[dict[str, str]], at: int = 0, language: str = language) -> None:
            row = {"id": "", "language": language, "messages": messages, "source": "planted"}
            rows.insert(rng.randint(at, len(rows)), (row, reason))

        facts = [fact for fact in allowed(language) if fact.group == "both"]
        unused = [fact_turn(fact, language, rng) for fact in rng.sample(facts, 6)]
        add("empty_response", _messages([(unused[0][0], "")]))
        add("empty_response", _messages([(unused[1][0], "   ")]))
        add("bad_conversation", _messages([unused[2]])[:1])
        add("repetition", _messages([(unused[3][0], " ".join([unused[3][1]] * 8))]))
        wrong = fact_turn(next(fact for fact in allowed(other) if fact.topic == "sound" and fact.group == "both"), other, rng)
        add("wrong_language", _messages([(unused[4][0], wrong[1])]))
        for reason in ("duplicate", "near_duplicate"):
            taken = [m["messages"] for m, why in rows if why in ("duplicate", "near_duplicate")]
            singles = [i for i, (row, why) in enumerate(rows)
                       if row["language"] == language and not why and len(row["messages"]) == 2 and row["messages"] not in taken]
            at = rng.choice(singles)
            user, assistant = (m["content"] for m in rows[at][0]["messages"])
            if reason == "near_duplicate":  # same letters and digits, other case, spaces and marks
                user, assistant = user.upper().replace(" ", "  "), assistant.rstrip(".!") + " !!"
            add(reason, _messages([(user, assistant)]), at + 1)


RUDE = {"en": "Find it out yourself and leave me alone.", "ar": "ابحث بنفسك واتركني وشأني."}
REVIEWERS = ("reviewer-1", "reviewer-2")


def preferences() -> tuple[list[Row], list[Row]]:
    """60 prompts with a chosen answer, and one decision for each: 46 accepted, 8 edited, 6 rejected."""
    rng = random.Random("preferences")
    prompts: list[Row] = []
    decisions: list[Row] = []
    for language in ("en", "ar"):
        facts = rng.sample(allowed(language), 30)
        for number, fact in enumerate(facts, start=1):
            question, answer = fact_turn(fact, language, rng)
            identity = f"preference-{language}-{number:03d}"
            decision, reason, edited = "accept", "correct and polite", None
            if number % 10 == 3:  # the chosen answer is rude or speaks of another fact
                decision, reason = "reject", "rude" if number == 13 else "wrong answer"
                answer = RUDE[language] if number == 13 else _wrong(fact, language)
            elif number % 8 == 5:
                decision, reason, edited = "edit", "too short", answer
                answer = fact.answer(language)
            prompts.append({"id": identity, "language": language, "messages": [{"role": "user", "content": question}], "chosen": answer})
            row = {"id": identity, "decision": decision, "reviewer": rng.choice(REVIEWERS), "reason": reason}
            decisions.append(row | ({"edited": edited} if edited else {}))
    return prompts, decisions


def _wrong(fact: Fact, language: str) -> str:
    """A statement of the fact's topic with the answer of another fact."""
    others = [f for f in allowed(language, fact.topic) if f.answer(language) != fact.answer(language)]
    slots = dict(fact.slots(language)) | {"answer": others[0].answer(language)}
    statement: str = _TEMPLATES[language].STATEMENTS[fact.topic][0].format_map(slots)
    return statement
