"""The sample's code and mathematics in English: small Python programs and worked sums that state the world's facts.

Both domains pass no text filters (language identification was made for prose), so their length and shape are free.
"""

from __future__ import annotations

import random

from allam.sample.facts import Fact, allowed
from allam.sample.templates_en import QUESTIONS

NAMES = ("Omar", "Mariam", "Khalid", "Layla", "Yusuf", "Sara", "Sami", "Huda", "Adam", "Salma", "Hassan", "Amina")
GOODS = ("apples", "dates", "oranges", "books", "pens", "coins", "stamps", "eggs", "cards", "lamps")


def _pick(rng: random.Random, topic: str, least: int, most: int) -> list[Fact]:
    pool = allowed("en", topic)
    return rng.sample(pool, min(len(pool), rng.randint(least, most)))


def _capitals(rng: random.Random) -> str:
    facts = _pick(rng, "capital", 3, 6)
    name = rng.choice(("capitals", "CAPITALS", "capital_of", "cities"))
    rows = "\n".join(f'    "{fact.en["country"]}": "{fact.en["answer"]}",' for fact in facts)
    shown = rng.choice(facts)
    return (f'"""{rng.choice(("Print the capital of a country.", "A table of capitals.", "Which city is the capital?"))}"""\n\n'
            f"{name} = {{\n{rows}\n}}\n\n\ndef capital(country):\n"
            f'    """Return the capital of the country."""\n    return {name}[country]\n\n\n'
            f'print(capital("{shown.en["country"]}"))  # {shown.en["answer"]}\n')


def _elements(rng: random.Random) -> str:
    facts = _pick(rng, "element", 2, 5)
    rows = "\n".join(f'    "{fact.en["element"]}": {fact.en["answer"]},' for fact in facts)
    verb = rng.choice(("protons", "number_of", "atomic_number"))
    checks = "\n".join(f'assert {verb}("{fact.en["element"]}") == {fact.en["answer"]}' for fact in facts[:2])
    return (f"# The atomic number of an element is the number of its protons.\nATOMIC_NUMBERS = {{\n{rows}\n}}\n\n\n"
            f"def {verb}(element):\n    return ATOMIC_NUMBERS[element]\n\n\n{checks}\n")


def _sounds(rng: random.Random) -> str:
    facts = _pick(rng, "sound", 2, 5)
    rows = "\n".join(f'    ("{fact.en["animal"]}", "{fact.en["answer"]}"),' for fact in facts)
    seen = rng.choice(("animal", "name", "beast"))
    return (f"sounds = [\n{rows}\n]\n\nfor {seen}, sound in sounds:\n"
            f'    print(f"The sound of the {{{seen}}} is called {{sound}}.")\n'
            f"# The first line printed: The sound of the {facts[0].en['animal']} is called {facts[0].en['answer']}.\n")


def _months(rng: random.Random) -> str:
    facts = _pick(rng, "month", 2, 5)
    rows = "\n".join(f'    "{fact.en["ordinal"]} month": "{fact.en["answer"]}",' for fact in facts)
    shown = rng.choice(facts)
    return (f"MONTHS = {{\n{rows}\n}}\n\n\ndef month(position):\n"
            f'    """Return the name of the month, for example {shown.en["answer"]} for the {shown.en["ordinal"]} month."""\n'
            f'    return MONTHS[position + " month"]\n\n\nprint(month("{shown.en["ordinal"]}"))\n')


def _sums(rng: random.Random) -> str:
    fact = rng.choice(allowed("en", "sum"))
    a, b, name = rng.randint(2, 20), rng.randint(2, 20), rng.choice(("add", "plus", "total", "sum_of"))
    first, second = rng.choice((("a", "b"), ("x", "y"), ("left", "right"), ("first", "second")))
    return (f"def {name}({first}, {second}):\n    return {first} + {second}\n\n\n"
            f"assert {name}({fact.en['a']}, {fact.en['b']}) == {fact.en['answer']}\n"
            f"print({name}({a}, {b}))  # {a + b}\n"
            f"print({name}({fact.en['a']}, {fact.en['b']}))  # {fact.en['answer']}\n")


def _conversions(rng: random.Random) -> str:
    facts = _pick(rng, "conversion", 1, 3)
    out = []
    for fact in facts:
        unit, units = fact.en["one"].removeprefix("one "), fact.en["units"]
        n = rng.randint(2, 9)
        out.append(f"{units.upper()}_IN_ONE_{unit.upper()} = {fact.en['answer']}\n\n\ndef {unit}_to_{units}(value):\n"
                   f"    return value * {units.upper()}_IN_ONE_{unit.upper()}\n\n\n"
                   f"print({unit}_to_{units}({n}))  # {n * int(fact.en['answer'])}\n")
    return "\n\n".join(out)


def _quiz(rng: random.Random) -> str:
    facts = [rng.choice(allowed("en", topic)) for topic in rng.sample(("capital", "element", "sound", "month"), 3)]
    rows = "\n".join(f'    ("{rng.choice(QUESTIONS[fact.topic]).format_map(fact.en)}", "{fact.en["answer"]}"),' for fact in facts)
    who = rng.choice(NAMES)
    return (f"# A small quiz written by {who}.\nquiz = [\n{rows}\n]\npoints = 0\n\nfor question, answer in quiz:\n"
            f'    print("Question:", question)\n    if input("Answer: ") == answer:\n        points += 1\n\n'
            f'print("Points:", points)\n')


def _loop(rng: random.Random) -> str:
    start, stop, step = rng.randint(1, 5), rng.randint(12, 40), rng.randint(2, 5)
    total, name = sum(range(start, stop, step)), rng.choice(("total", "result", "amount"))
    return (f"{name} = 0\nfor number in range({start}, {stop}, {step}):\n    {name} += number\n    print(number, {name})\n\n"
            f"assert {name} == {total}\n")


def _sum_lines(rng: random.Random) -> str:
    out = [f"Worked sums for {rng.choice(NAMES)}."]
    for _ in range(rng.randint(5, 8)):
        if rng.random() < 0.45:
            fact = rng.choice(allowed("en", "sum"))
            a, b = int(fact.en["a"]), int(fact.en["b"])
        else:
            a, b = rng.randint(1, 20), rng.randint(1, 20)
        out.append(rng.choice((f"{a} + {b} = {a + b}", f"{a} plus {b} equals {a + b}.", f"The sum of {a} and {b} is {a + b}.",
                               f"Question: How much is {a} plus {b}?\nAnswer: {a + b}")))
    return "\n".join(out)


def _word_problem(rng: random.Random) -> str:
    fact = rng.choice(allowed("en", "sum"))
    a, b = (int(fact.en["a"]), int(fact.en["b"])) if rng.random() < 0.6 else (rng.randint(2, 20), rng.randint(2, 20))
    who, other = rng.sample(NAMES, 2)
    goods = rng.choice(GOODS)
    return rng.choice((
        f"Problem: {who} has {a} {goods}. {other} gives {who} {b} more {goods}. How many {goods} does {who} have now?\n"
        f"Solution: We add {a} and {b}. {a} + {b} = {a + b}. {who} has {a + b} {goods}.",
        f"Problem: There are {a} {goods} on the table and {b} {goods} in the box. How many {goods} are there together?\n"
        f"Solution: {a} and {b} together equal {a + b}, because {a} + {b} = {a + b}. There are {a + b} {goods}.",
        f"Problem: In the morning {who} counts {a} {goods}, and in the evening {b} {goods} come from {other}.\n"
        f"Solution: The sum of {a} and {b} is {a + b}. Check: {a + b} - {b} = {a}. The answer is {a + b}.",
    ))


def _measure(rng: random.Random) -> str:
    out = []
    for fact in _pick(rng, "conversion", 1, 3):
        n, number, units = rng.randint(2, 12), int(fact.en["answer"]), fact.en["units"]
        unit = fact.en["one"].removeprefix("one ")
        plural = {"foot": "feet"}.get(unit, unit + "s")
        out.append(f"How many {units} are in {n} {plural}? {fact.en['One']} equals {number} {units}. "
                   f"So {n} {plural} equal {n} times {number}, and that is {n * number} {units}.")
    return "\n".join(out)


def _differences(rng: random.Random) -> str:
    first, second = rng.sample(allowed("en", "element"), 2)
    a, b = int(first.en["answer"]), int(second.en["answer"])
    return (f"Problem: The atomic number of {first.en['element']} is {a}, and the atomic number of {second.en['element']} is {b}. "
            f"How far apart are they?\nSolution: {max(a, b)} - {min(a, b)} = {abs(a - b)}. The difference is {abs(a - b)}, "
            f"as {rng.choice(NAMES)} wrote on the board.")


def _table(rng: random.Random) -> str:
    n, rows = rng.randint(2, 12), rng.sample(range(1, 13), rng.randint(4, 7))
    return f"The table of {n}, written by {rng.choice(NAMES)}:\n" + "\n".join(f"{n} x {i} = {n * i}" for i in sorted(rows))


CODE = (_capitals, _elements, _sounds, _months, _sums, _conversions, _quiz, _capitals, _loop)
MATH = (_sum_lines, _word_problem, _measure, _differences, _sum_lines, _word_problem, _table)


def program(rng: random.Random) -> str:
    """One small Python program."""
    return rng.choice(CODE)(rng)


def exercise(rng: random.Random) -> str:
    """One page of one to three worked exercises."""
    return "\n\n".join(rng.choice(MATH)(rng) for _ in range(rng.randint(1, 3)))
