"""What the sample promises: facts stand where their group allows, held-out phrasings nowhere, planted defects exactly as counted."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from allam.sample import benchmarks, chats, root, templates_ar, templates_en
from allam.sample.build import FILES, build
from allam.sample.compose import bare
from allam.sample.facts import FACTS, GROUPS, TOPICS, misplaced

ENGLISH = ("web_en", "books_en", "wiki_en", "science_en", "code_en", "math_en")
NATURAL_ARABIC = ("web_ar", "books_ar", "wiki_ar", "news_ar", "other_ar")
TRANSLATED = tuple(name for name in FILES if name.startswith("translated"))


@cache
def expected() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((root() / "EXPECTED.json").read_bytes())
    return result


def decoded(path: Path) -> bytes | list[dict[str, Any]]:
    """A file's content without its compression; rows for Parquet."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompress(path.read_bytes())
    return pq.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes()


@cache
def lines(name: str) -> list[Any]:
    """The lines of a source: bytes of JSON Lines, rows of Parquet, texts of plain text."""
    content = decoded(root() / "documents" / FILES[name])
    if isinstance(content, list):
        return content
    return content.decode().strip().split("\n\n") if FILES[name].endswith(".txt") else content.splitlines()


@cache
def records(name: str) -> list[dict[str, Any]]:
    """The records of a source that can be read and have a text."""
    found = []
    for line in lines(name):
        if isinstance(line, bytes):
            try:
                line = json.loads(line)
            except ValueError:
                continue
        row = {"id": "", "text": line} if isinstance(line, str) else line
        if isinstance(row.get("text"), str) and row["text"]:
            found.append(row)
    return found


def texts(*names: str) -> Iterator[str]:
    for name in names:
        for row in records(name):
            yield row["text"]


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root() / path).read_text(encoding="utf-8").splitlines()]


def conversations() -> Iterator[str]:
    for row in rows("chat/sft.jsonl") + rows("chat/preferences.jsonl"):
        yield " ".join(message["content"] for message in row["messages"]) + " " + row.get("chosen", "")
    for row in rows("chat/decisions.jsonl"):
        yield row.get("edited", "")


def test_building_again_gives_the_committed_content(tmp_path: Path) -> None:
    build(tmp_path)
    files = sorted(path.relative_to(root()) for path in root().rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for file in files:
        assert decoded(root() / file) == decoded(tmp_path / file), f"{file}: run `python -m allam.sample.build` and commit"


def test_the_expected_counts_add_up_to_the_lines_of_each_source() -> None:
    for name, counts in expected()["sources"].items():
        dropped = sum(sum(counts[stage].values()) for stage in ("set_aside", "filter", "dedup", "translate"))
        assert counts["lines"] == counts["kept"] + dropped == len(lines(name)), name
    assert list(expected()["sources"]) == list(FILES)


@pytest.mark.parametrize("name", ["web_en", "web_ar"])
def test_broken_lines_are_as_many_as_expected(name: str) -> None:
    reasons: Counter[str] = Counter()
    for line in lines(name):
        try:
            text = json.loads(line.decode("utf-8")).get("text")
        except UnicodeDecodeError:
            reasons["bad_utf8"] += 1
        except ValueError:
            reasons["bad_json"] += 1
        else:
            reasons["no_text"] += not (isinstance(text, str) and text.strip())
    assert reasons == expected()["sources"][name]["set_aside"]


@pytest.mark.parametrize("name", ["web_en", "web_ar"])
def test_one_document_has_exactly_29_words_and_one_exactly_30(name: str) -> None:
    lengths = Counter(len(text.split()) for text in texts(name))
    assert lengths[29] == 1
    assert lengths[30] == 1
    assert sum(count for length, count in lengths.items() if length < 30) == expected()["sources"][name]["filter"]["too_short"]


def test_no_document_is_an_unplanned_copy_of_another() -> None:
    marks = Counter(bare(text) for name in FILES for text in texts(name))
    copies = sum(count - 1 for count in marks.values())
    planned = sum(s["dedup"].get("duplicate_text", 0) + s["translate"].get("duplicate_text", 0) for s in expected()["sources"].values())
    assert copies == planned


def test_no_held_out_phrasing_occurs_in_training_text_or_chat() -> None:
    questions = {bare(benchmarks.held_out_question(fact, language, phrasing)): fact.id
                 for fact in FACTS for language in ("en", "ar") for phrasing in range(2)}
    found = re.compile("|".join(sorted(map(re.escape, questions), key=len, reverse=True)))
    for text in [*texts(*FILES), *conversations()]:
        assert not found.search(bare(text)), text


@pytest.mark.parametrize("templates", [templates_en, templates_ar])
def test_each_topic_has_eight_training_phrasings_and_two_held_out_ones_that_differ(templates: Any) -> None:
    for topic in TOPICS:
        training = templates.STATEMENTS[topic] + templates.QUESTIONS[topic]
        assert len(training) >= 8
        assert len(templates.HELD_OUT[topic]) >= 2
        assert not {bare(phrase) for phrase in training} & {bare(phrase) for phrase in templates.HELD_OUT[topic]}


def test_english_and_arabic_templates_are_aligned_entry_by_entry() -> None:
    def shape(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: shape(value) for key, value in node.items()}
        return len(node)

    for table in ("STATEMENTS", "QUESTIONS", "HELD_OUT", "QA", "LEADS", "NEUTRAL", "DETAILS_START", "DETAILS_END", "STYLES", "TITLES"):
        assert shape(getattr(templates_en, table)) == shape(getattr(templates_ar, table)), table


@pytest.mark.parametrize(("names", "language", "translation", "forbidden"), [
    (ENGLISH, "en", False, "arabic"), (NATURAL_ARABIC, "ar", False, "english and translated"),
    (TRANSLATED, "ar", True, "english and arabic"),
])
def test_no_text_states_a_fact_that_its_group_keeps_out(names: tuple[str, ...], language: str, translation: bool, forbidden: str) -> None:
    for text in texts(*names):
        assert not misplaced(text, language, translation=translation), f"{forbidden} facts must not stand here: {text}"


def test_every_fact_is_stated_often_where_its_group_allows_it() -> None:
    for names, language, groups in ((ENGLISH, "en", {"both", "english", "translated"}), (NATURAL_ARABIC, "ar", {"both", "arabic"}),
                                    (TRANSLATED, "ar", {"both", "translated"})):
        everything = list(texts(*names))
        for fact in FACTS:
            if fact.group in groups:
                assert sum(fact.stated_in(text, language) for text in everything) >= 30, (fact.id, names)


def test_chats_state_no_fact_that_the_language_may_not_state() -> None:
    for row in rows("chat/sft.jsonl") + rows("chat/preferences.jsonl"):
        text = " ".join(m["content"] for m in row["messages"] if m["role"] == "user")
        answers = " ".join(m["content"] for m in row["messages"] if m["role"] == "assistant") + row.get("chosen", "")
        if row.get("source") != "planted" and len(row["messages"]) <= 2:
            assert not misplaced(f"{text} {answers}", row["language"]), row["id"]


def test_every_translation_names_an_english_document_but_for_the_planted_orphans() -> None:
    ids = {row["id"] for name in ENGLISH for row in records(name)}
    for name in TRANSLATED:
        orphans = sum(row["translation_of"] not in ids for row in records(name))
        assert orphans == expected()["sources"][name]["translate"].get("orphan_translation", 0), name


def test_a_translation_has_the_facts_of_its_original() -> None:
    originals = {row["id"]: row["text"] for name in ENGLISH for row in records(name)}
    for row in records("translated_web_ar"):
        if row["translation_of"] in originals:
            for fact in FACTS:
                if fact.topic in ("capital", "element"):
                    in_both = fact.stated_in(originals[row["translation_of"]], "en"), fact.stated_in(row["text"], "ar")
                    assert in_both[0] == in_both[1], (row["id"], fact.id)


def test_sound_arabic_prose_has_no_latin_letters() -> None:
    for name in (*NATURAL_ARABIC, *TRANSLATED):
        with_latin = [text for text in texts(name) if re.search("[A-Za-z]", text)]
        counts = expected()["sources"][name]["filter"]
        assert len(with_latin) <= counts.get("language", 0) + counts.get("spam", 0), with_latin[:1]


def test_ids_and_urls_are_unique_as_written() -> None:
    ids = [row["id"] for name in FILES if name != "other_ar" for row in records(name)]
    assert len(ids) == len(set(ids))
    urls = Counter(row["url"] for name in FILES for row in records(name) if row.get("url"))
    assert max(urls.values()) == 1


@pytest.mark.parametrize("language", ["en", "ar"])
def test_the_multiple_choice_benchmark_is_balanced_and_complete(language: str) -> None:
    items = rows(f"benchmarks/facts_{language}.jsonl")
    assert len(items) == 2 * len(FACTS)
    assert len({item["id"] for item in items}) == len(items)
    assert set(Counter(item["answer"] for item in items).values()) == {len(items) // 4}
    facts = {fact.id: fact for fact in FACTS}
    for item in items:
        assert len(set(item["choices"])) == 4
        assert item["choices"][item["answer"]] == facts[item["fact"]].answer(language)
        assert item["group"] == facts[item["fact"]].group


def test_the_facts_are_sixty_in_the_four_groups() -> None:
    assert expected()["facts"] == {"both": 24, "english": 12, "arabic": 12, "translated": 12}
    assert set(GROUPS) == {fact.group for fact in FACTS}
    assert len({fact.id for fact in FACTS}) == len(FACTS) == 60


def test_planted_bad_conversations_are_as_many_as_expected() -> None:
    found = rows("chat/sft.jsonl")
    chat = expected()["chat"]
    assert len(found) == chat["lines"] == chat["kept"] + sum(chat["dropped"].values())
    spoken = [bare(" ".join(m["content"] for m in row["messages"])) for row in found]
    copies = len(spoken) - len(set(spoken))
    assert copies == chat["dropped"]["duplicate"] + chat["dropped"]["near_duplicate"]
    empty = sum(any(m["role"] == "assistant" and not m["content"].strip() for m in row["messages"]) for row in found)
    assert empty == chat["dropped"]["empty_response"]
    assert sum(row["messages"][-1]["role"] != "assistant" for row in found) == chat["dropped"]["bad_conversation"]


def test_a_third_of_the_conversations_have_several_turns() -> None:
    found = [row for row in rows("chat/sft.jsonl") if row["source"] != "planted"]
    several = sum(sum(m["role"] == "user" for m in row["messages"]) > 1 for row in found)
    assert 0.28 <= several / len(found) <= 0.42
    assert Counter(row["language"] for row in found) == {"en": chats.PER_LANGUAGE, "ar": chats.PER_LANGUAGE}


def test_every_preference_has_exactly_one_decision() -> None:
    prompts, decisions = rows("chat/preferences.jsonl"), rows("chat/decisions.jsonl")
    assert sorted(p["id"] for p in prompts) == sorted(d["id"] for d in decisions)
    assert Counter(d["decision"] for d in decisions) == expected()["preferences"]["decisions"]
    assert all(("edited" in d) == (d["decision"] == "edit") for d in decisions)


def test_a_fourth_evaluator_votes_where_three_disagree() -> None:
    comparisons: dict[tuple[str, ...], list[str]] = {}
    for vote in rows("votes/votes.jsonl"):
        key = (vote["question_id"], *sorted((vote["model_a"], vote["model_b"])))
        comparisons.setdefault(key, []).append(vote["winner"])
    assert {len(set(votes[:3])) == 3 for votes in comparisons.values() if len(votes) == 4} == {True}
    assert all(len(votes) == (4 if len(set(votes[:3])) == 3 else 3) for votes in comparisons.values())
    assert any(len(votes) == 4 for votes in comparisons.values())
