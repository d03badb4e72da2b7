"""The sample's documents: which source holds how many, where the planted defects stand, and what must be left of each.

`build_corpus` returns every source as a list of entries in file order; an entry knows the stage and reason that must drop it
(nothing for a sound one), so the expected counts are counted from the very entries that are written.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from allam.sample import defects, programs, templates_ar, templates_en
from allam.sample.compose import Composer, Plan, bare
from allam.sample.facts import misplaced

# Documents composed for a source, by style. The shares follow the mix of the paper's Table 1: web and code are the largest.
NATURAL = {
    "web_en": {"web": 800, "news": 350, "other": 250},
    "books_en": {"books": 350},
    "wiki_en": {},
    "science_en": {"science": 500},
    "web_ar": {"web": 1200},
    "books_ar": {"books": 300},
    "wiki_ar": {"wiki": 120},
    "news_ar": {"news": 320},
    "other_ar": {"other": 120},
}
# Translated source -> (English source, style, documents): each adds its English document to the English source.
TRANSLATED = {
    "translated_web_ar": ("web_en", "web", 700),
    "translated_books_ar": ("books_en", "books", 200),
    "translated_wiki_ar": ("wiki_en", "wiki", 100),
    "translated_science_ar": ("science_en", "science", 350),
    "translated_other_ar": ("web_en", "other", 80),
}
CODE, MATH = 1800, 550
ORPHANS = {"translated_web_ar": 4, "translated_books_ar": 2}
TRANSLATED_COPIES = {"translated_web_ar": 3, "translated_science_ar": 1}

# Where hand-written paragraphs go whose domain has no source in their language.
PARAGRAPH_SOURCES = {"en": {"news": "web_en", "other": "web_en"}, "ar": {"science": "wiki_ar", "math": "other_ar", "code": "other_ar"}}
STAGES = ("set_aside", "filter", "dedup", "translate")


@dataclass
class Entry:
    """One line of a source. `raw` overrides the record for lines that are broken; `key` links a translation to its original."""

    record: dict[str, Any]
    stage: str = ""
    reason: str = ""
    key: int | None = None
    copied: bool = False
    broken: Callable[[bytes], bytes] | None = None

    def line(self) -> bytes:
        """The line as it stands in a JSON Lines file, without the newline."""
        encoded = json.dumps(self.record, ensure_ascii=False).encode()
        return self.broken(encoded) if self.broken else encoded


@dataclass
class Corpus:
    """All sources, in recipe order, and the ids of hand-written paragraphs that the builder had to leave out."""

    sources: dict[str, list[Entry]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def expected(self) -> dict[str, dict[str, Any]]:
        """Exact counts of each source: lines, what each stage drops by reason, and what is kept."""
        counts: dict[str, dict[str, Any]] = {}
        for name, entries in self.sources.items():
            dropped = {stage: Counter(e.reason for e in entries if e.stage == stage) for stage in STAGES}
            kept = sum(not entry.stage for entry in entries)
            counts[name] = {"lines": len(entries), **{s: dict(sorted(c.items())) for s, c in dropped.items()}, "kept": kept}
        return counts


def build_corpus(seed: int, score: Callable[[str], tuple[str, float]], paragraphs: Path) -> Corpus:
    """Composes every source; `paragraphs` is the folder of hand-written ones."""
    composer, rng = Composer(seed, score), random.Random(seed + 1)
    corpus, pairs = Corpus(), {}
    clean: dict[str, list[Entry]] = {name: [] for name in NATURAL}
    for name, (source, style, count) in TRANSLATED.items():
        pairs[name] = [composer.document("translated", style) for _ in range(count + ORPHANS.get(name, 0))]
        clean[source] += [_entry(plan, "en", rng, key=id(plan)) for plan in pairs[name][:count]]
    for name, styles in NATURAL.items():
        for style, count in styles.items():
            clean[name] += [_entry(composer.document(name[-2:], style), name[-2:], rng) for _ in range(count)]
    _add_paragraphs(clean, corpus, composer, rng, paragraphs)
    ids: dict[int, str] = {}
    for name, entries in clean.items():
        rng.shuffle(entries)
        _set_urls(name, entries, rng)
        corpus.sources[name] = _with_defects(name, entries, composer, rng)
        _number(name, corpus.sources[name], ids)
    corpus.sources["code_en"] = _unique(programs.program, CODE, "code_en", rng, composer)
    corpus.sources["math_en"] = _unique(programs.exercise, MATH, "math_en", rng, composer)
    for name, plans in pairs.items():
        corpus.sources[name] = _translations(name, plans, ids, rng)
    return corpus


def _entry(plan: Plan, language: str, rng: random.Random, key: int | None = None) -> Entry:
    record = {"id": "", "text": plan.text(language), "date": _date(rng), "title": plan.title_text(language)}
    return Entry(record, key=key)


def _date(rng: random.Random) -> str:
    return str(date(2024, 1, 1) + timedelta(days=rng.randrange(850)))


def _number(name: str, entries: list[Entry], ids: dict[int, str]) -> None:
    for number, entry in enumerate(entries, start=1):
        entry.record["id"] = f"{name}-{number:06d}"
        if entry.key is not None:
            ids[entry.key] = entry.record["id"]


def _unique(make: Callable[[random.Random], str], count: int, name: str, rng: random.Random, composer: Composer) -> list[Entry]:
    entries: list[Entry] = []
    while len(entries) < count:
        text = make(rng)
        if bare(text) not in composer.seen:
            composer.seen.add(bare(text))
            entries.append(Entry({"id": f"{name}-{len(entries) + 1:06d}", "text": text}))
            if name == "code_en":
                entries[-1].record["url"] = f"https://code.example/programs/{len(entries):04d}.py"
    return entries


def _translations(name: str, plans: list[Plan], ids: dict[int, str], rng: random.Random) -> list[Entry]:
    """The Arabic of each plan with the id of its English; orphans name an id that no source has; copies repeat a text."""
    entries = []
    for number, plan in enumerate(plans):
        entry = _entry(plan, "ar", rng)
        if id(plan) in ids:
            entry.record["translation_of"] = ids[id(plan)]
        else:
            entry.record["translation_of"] = f"{TRANSLATED[name][0]}-9{number:05d}"
            entry.stage, entry.reason = "translate", "orphan_translation"
        entries.append(entry)
    rng.shuffle(entries)
    for _ in range(TRANSLATED_COPIES.get(name, 0)):
        originals = [i for i, entry in enumerate(entries) if not entry.stage and i < len(entries) - 1]
        at = rng.choice(originals)
        copy = Entry(dict(entries[at].record), "translate", "duplicate_text")
        entries.insert(rng.randint(at + 1, len(entries)), copy)
    _number(name, entries, {})
    return entries


def _add_paragraphs(clean: dict[str, list[Entry]], corpus: Corpus, composer: Composer, rng: random.Random, folder: Path) -> None:
    """Hand-written paragraphs become documents; one that states a fact in the wrong place or stays doubtful is left out by id."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            row = json.loads(line)
            language, domain = row["language"], row["domain"]
            source = PARAGRAPH_SOURCES[language].get(domain, f"{domain}_{language}")
            text = _framed(re.sub(r"\n\s*\n", "\n", row["text"].strip()), language, composer)
            reason = "language" if text is None else ", ".join(misplaced(text, language)) or (
                "copy" if bare(text) in composer.seen else "")
            if reason or text is None:
                corpus.left_out[row["id"]] = reason
                continue
            composer.seen.add(bare(text))
            clean[source].append(Entry({"id": "", "text": text, "date": _date(rng), "title": row["title"]}))


def _framed(text: str, language: str, composer: Composer) -> str | None:
    """The paragraph itself where the identifier is sure of it, else with a sentence of the templates around it; None if all fail."""
    styles = (templates_en if language == "en" else templates_ar).STYLES
    ends = [end for style in ("web", "wiki", "books") for end in styles[style]["close"] if "{" not in end]
    starts = [start for style in ("web", "wiki") for start in styles[style]["open"] if "{" not in start]
    tries = [text, *(f"{text}\n{end}" for end in ends), *(f"{start}\n{text}\n{end}" for start in starts for end in ends)]
    for candidate in tries:
        found, confidence = composer.score(candidate)
        if found == language and confidence >= 0.97:
            return candidate
    return None


def _set_urls(name: str, entries: list[Entry], rng: random.Random) -> None:
    if not name.startswith(("web", "wiki", "news")):
        return
    sites = ("atlas", "daftar", "library", "school", "notebook")
    for number, entry in enumerate(entries):
        folder = "pages" if name.endswith("en") else rng.choice(("pages", "صفحات"))
        entry.record["url"] = f"https://{rng.choice(sites)}-{name[:-3]}.example/{folder}/{name[-2:]}-{number:05d}"


# The same page in other spellings of its URL; the original is https://SITE/PATH.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "http": lambda url: url.replace("https://", "http://"),
    "www": lambda url: url.replace("https://", "https://www."),
    "upper-case host": lambda url: re.sub(r"//[^/]+", lambda m: m[0].upper(), url),
    "trailing slash": lambda url: url + "/",
    "fragment": lambda url: url + "#comments",
    "utm": lambda url: url + "?utm_source=mail&utm_medium=social",
    "default port": lambda url: re.sub(r"(//[^/]+)", r"\1:443", url),
    "percent-encoding": lambda url: _percent(url),
}


def _percent(url: str) -> str:
    scheme, rest = url.split("//")
    host, path = rest.split("/", 1)
    # An ASCII path gets an escape that is not needed; an Arabic one the escapes that browsers write.
    return f"{scheme}//{host}/" + (path.replace("a", "%61") if path.isascii() else quote(path))


_DIACRITICS = {"هي": "هِيَ", "هو": "هُوَ", "في": "فِي", "من": "مِنْ", "كان": "كَانَ", "إلى": "إِلَى"}
_TATWEEL = {"هذه": "هـــذه", "كل": "كـــل", "يوم": "يـــوم", "في": "فـــي", "من": "مـــن"}


def _respell(text: str, table: dict[str, str]) -> str:
    return re.sub("|".join(rf"(?<!\w){word}(?!\w)" for word in table), lambda match: table[match[0]], text)


def _spaced(text: str) -> str:
    return "  " + text.replace(". ", ".  ").replace("\n", "\n\n") + "\n"


def _with_defects(name: str, entries: list[Entry], composer: Composer, rng: random.Random) -> list[Entry]:
    """Inserts the planted lines of a source at random places; copies stand somewhere after their originals."""
    planted: list[Entry] = []

    def plant(texts: list[str], stage: str, reason: str) -> None:
        for number, text in enumerate(texts):
            # A final newline belongs to a repeated line, not to the document.
            record = {"id": "", "text": text.strip(), "date": _date(rng), "title": ""}
            if name.startswith(("web", "wiki", "news")):
                record["url"] = f"https://{(reason or 'exact-30').replace('_', '-')}-{number}.example/{name}"
            planted.append(Entry(record, stage, reason))

    plant(defects.FOREIGN.get(name, []) + defects.MIXED.get(name, []), "filter", "language")
    plant(defects.SHORT.get(name, []), "filter", "too_short")
    plant(defects.SPAM.get(name, []), "filter", "spam")
    plant(defects.STOP_WORDS.get(name, []), "filter", "stop_words")
    if name in defects.EXACT_29:
        plant([defects.EXACT_29[name]], "filter", "too_short")
        planted[-1].record["url"] = f"https://exact-29.example/{name}"
        plant([defects.EXACT_30[name]], "", "")
    for entry in planted:
        entries.insert(rng.randint(0, len(entries)), entry)
    if name in ("web_en", "web_ar"):
        _plant_copies(name, entries, composer, rng)
        _plant_broken(entries, rng)
    if name == "news_ar":
        original = _place_copy(entries, rng)
        _insert_copy(entries, rng, original, "duplicate_text", original.record["text"])
    return entries


def _plant_copies(name: str, entries: list[Entry], composer: Composer, rng: random.Random) -> None:
    language = name[-2:]
    for spelling in SPELLINGS.values():
        text = composer.document(language, "web").text(language)
        original = _place_copy(entries, rng)
        _insert_copy(entries, rng, original, "duplicate_url", text, spelling(original.record["url"]))
    changes: list[Callable[[str], str]] = [str, str, str, _spaced]
    if language == "ar":
        changes += [lambda text: _respell(text, _DIACRITICS), lambda text: _respell(text, _TATWEEL)]
    for change in changes:
        original = _place_copy(entries, rng, None if change is str else change)
        _insert_copy(entries, rng, original, "duplicate_text", change(original.record["text"]))


def _place_copy(entries: list[Entry], rng: random.Random, change: Callable[[str], str] | None = None) -> Entry:
    """A sound, untranslated entry without a copy so far, whose text `change` really changes; marks it as copied."""
    while True:
        entry = rng.choice(entries[:-1])
        if not entry.stage and not entry.copied and entry.key is None and (change is None or change(entry.record["text"]) != entry.record["text"]):
            entry.copied = True
            return entry


def _insert_copy(entries: list[Entry], rng: random.Random, original: Entry, reason: str, text: str, url: str | None = None) -> None:
    """Puts the copy somewhere after its original; without `url` it has one of its own."""
    url = url or f"https://mirror-{rng.randrange(10**6)}.example/copy"
    copy = Entry(dict(original.record) | {"text": text, "date": _date(rng), "url": url}, "dedup", reason)
    at = next(i for i, entry in enumerate(entries) if entry is original)
    entries.insert(rng.randint(at + 1, len(entries)), copy)


def _plant_broken(entries: list[Entry], rng: random.Random) -> None:
    def broken(reason: str, how: Callable[[bytes], bytes] | None, record: dict[str, Any]) -> None:
        entries.insert(rng.randint(0, len(entries)), Entry({"id": "", **record}, "set_aside", reason, broken=how))

    sound = [entry.record["text"] for entry in entries if not entry.stage and not entry.copied]
    for _ in range(3):
        broken("bad_json", lambda line: line[: len(line) * 3 // 5].decode(errors="ignore").encode(), {"text": rng.choice(sound)})
    for _ in range(2):
        broken("bad_utf8", lambda line: line[:40] + b"\xff" + line[40:], {"text": rng.choice(sound)})
    for record in ({"title": "text is missing"}, {"text": ""}, {"text": None}, {"text": 17}):
        broken("no_text", None, record)
