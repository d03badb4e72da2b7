"""Which documents hold an item of a benchmark, in both languages, and what is done about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_stages import stage
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.data.config import DecontaminateConfig
from allam.data.contamination import ItemIndex
from allam.data.tables import read_dropped
from allam.documents import Document, read_documents, shard_path, write_documents
from allam.errors import UserError
from allam.files import FileTable
from allam.items import Item
from allam.pipeline import make_plan
from allam.recipe import load
from allam.text.forms import comparison_words

QUESTION = "Which of the following organelles is responsible for the production of most of the energy in an animal cell?"
SHORT = "What is the name of the largest moon of Saturn?"
ARABIC = "ما هي العضية المسؤولة عن إنتاج معظم الطاقة في الخلية الحيوانية؟"
AROUND = "The notes of the course are long and nobody reads them. {} Then the teacher went on to another matter altogether."


def contaminated(tmp_path: Path, texts: dict[str, str], items: list[dict[str, Any]], format: str = "items", **fields: Any) -> dict[str, Any]:
    """The stage over one source of texts by id and one file of items: what it kept, its metrics, and the lines of its side files."""
    folder, root = tmp_path / "in" / "documents", tmp_path / "root"
    root.mkdir(parents=True)
    (root / "items.jsonl").write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    write_documents(shard_path(folder, "web", 0), [Document(name, text, "web", "en", "web", "natural") for name, text in texts.items()])
    given = {"quiz": {"path": "items.jsonl", "format": format, "files": FileTable(root).resolve("items", "items.jsonl")}}
    config = DecontaminateConfig.model_validate({"items": given, "order": ("web",)} | fields)
    metrics = stage("decontaminate", config, {"documents": tmp_path / "in", "root": root}, tmp_path / "out")
    out = tmp_path / "out"
    dropped = [row for path in sorted((out / "dropped").rglob("*.zst")) for row in read_dropped(path)]
    return {"kept": [d.id for d in read_documents(out / "documents")], "metrics": metrics, "dropped": dropped,
            "found": list(read_dropped(out / "contamination.jsonl.zst"))}


def item(question: str, answer: Any = "Titan", **more: Any) -> dict[str, Any]:
    return {"id": "q1", "question": question, "answer": answer} | more


def test_thirteen_words_of_a_question_are_enough_and_twelve_are_not(tmp_path: Path) -> None:
    words = QUESTION.split()
    texts = {"all": AROUND.format(QUESTION), "thirteen": AROUND.format(" ".join(words[3:16])), "twelve": AROUND.format(" ".join(words[3:15]))}
    found = contaminated(tmp_path, texts, [item(QUESTION)])
    assert found["kept"] == ["twelve"]
    assert [(row["document"], row["benchmark"], row["item"], row["dropped"]) for row in found["found"]] == [
        ("all", "quiz", "q1", True), ("thirteen", "quiz", "q1", True)]
    assert found["found"][0]["words"] == "which of the following organelles is responsible for the production of most of"
    assert found["dropped"][0]["reason"] == "contaminated"
    assert found["dropped"][0]["detail"].startswith("quiz q1: which of the following")
    assert found["metrics"]["benchmarks"] == {"quiz": {"items": 1, "too_short": 0, "documents": 2, "found": 1}}


def test_a_shorter_question_must_stand_there_whole(tmp_path: Path) -> None:
    texts = {"whole": AROUND.format(SHORT.upper().replace("?", " ...")), "part": AROUND.format(" ".join(SHORT.split()[1:]))}
    assert contaminated(tmp_path, texts, [item(SHORT)])["kept"] == ["part"]


def test_a_very_short_question_is_looked_for_with_its_right_answer_and_left_out_if_that_is_short_too(tmp_path: Path) -> None:
    texts = {"asked": AROUND.format("Who wrote Hamlet?"), "answered": AROUND.format("Who wrote Hamlet? William Shakespeare of Stratford-upon-Avon, England.")}
    items = [item("Who wrote Hamlet?", 1, choices=["Marlowe", "William Shakespeare of Stratford upon Avon"]), item("Why?", "Because", id="q2")]
    found = contaminated(tmp_path, texts, items)
    assert found["kept"] == ["asked"]
    assert found["metrics"]["benchmarks"]["quiz"] == {"items": 1, "too_short": 1, "documents": 1, "found": 1}


def test_an_arabic_item_is_found_however_it_is_spelt(tmp_path: Path) -> None:
    spelt = "مَا هِيَ العضيه المسئوله عن انتاج معظــم الطاقة فى الخلية الحيوانيه"
    found = contaminated(tmp_path, {"spelt": f"قرأنا في الكتاب: {spelt}! ولم نعرف.", "other": "قرأنا في الكتاب عن الخلية الحيوانية ولم نعرف"}, [item(ARABIC)])
    assert found["kept"] == ["other"]


def test_both_languages_of_a_bilingual_item_are_looked_for(tmp_path: Path) -> None:
    rows = [{"id": "1", "q_en": QUESTION, "a_en": "mitochondria", "q_ar": ARABIC, "a_ar": "الميتوكوندريا"}]
    assert contaminated(tmp_path, {"en": AROUND.format(QUESTION), "ar": f"نص {ARABIC} نص", "none": "nothing"}, rows, "bilingual_qa")["kept"] == ["none"]


def test_a_judges_question_is_looked_for(tmp_path: Path) -> None:
    rows = [{"id": 7, "messages": [{"role": "user", "content": QUESTION}], "reference": "Mitochondria."}, {"question_id": 8, "turns": [SHORT, ARABIC]}]
    found = contaminated(tmp_path, {"one": AROUND.format(QUESTION), "two": f"{SHORT} {ARABIC}", "turn": f"x {SHORT} y"}, rows, "questions")
    assert [(row["document"], row["item"]) for row in found["found"]] == [("one", "7"), ("two", "8")]


@pytest.mark.parametrize("fields", [{"action": "mark"}, {"mark_only": ("web",)}])
def test_marked_documents_are_kept_and_named(tmp_path: Path, fields: dict[str, Any]) -> None:
    found = contaminated(tmp_path, {"all": AROUND.format(QUESTION)}, [item(QUESTION), item(QUESTION + " Explain.", id="q2")], **fields)
    assert found["kept"] == ["all"]
    assert [(row["item"], row["dropped"]) for row in found["found"]] == [("q1", False), ("q2", False)]
    assert found["metrics"]["funnel"]["web"] == {"in": 1, "out": 1, "dropped": {}, "set_aside": {}}


def test_nothing_is_looked_for_where_the_recipe_skips_it(tmp_path: Path) -> None:
    found = contaminated(tmp_path, {"all": AROUND.format(QUESTION)}, [item(QUESTION)], action="skip")
    assert (found["kept"], found["found"], found["metrics"]["benchmarks"]) == (["all"], [], {})


def test_examples_that_prompts_show_are_no_leak(tmp_path: Path) -> None:
    assert contaminated(tmp_path, {"all": AROUND.format(QUESTION)}, [item(QUESTION, split="dev")])["kept"] == ["all"]


def test_a_line_that_is_no_item_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"items\.jsonl, line 2: no item of the format 'items'"):
        contaminated(tmp_path, {"a": "text"}, [item(QUESTION), {"id": "2"}])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=9), max_size=6), st.lists(st.lists(st.sampled_from("abcdx"), max_size=30), max_size=5),
       st.sampled_from([(5, 3), (4, 2), (3, 3)]))
def test_items_are_found_where_a_plain_search_finds_them(questions: list[list[str]], texts: list[list[str]], sizes: tuple[int, int]) -> None:
    ngram_words, min_words = sizes
    items = [Item(str(i), " ".join(words), (), "y") for i, words in enumerate(questions)]
    index = ItemIndex((("quiz", item) for item in items), ngram_words, min_words)
    expected = set()
    for number, words in enumerate(questions):
        words = words if len(words) >= min_words else [*words, "y"]
        runs = [" ".join(words[i: i + ngram_words]) for i in range(max(1, len(words) - ngram_words + 1))] if len(words) >= min_words else []
        expected |= {(place, str(number)) for place, text in enumerate(texts) if any(f" {run} " in f" {' '.join(text)} " for run in runs)}
    found = [(hit.text, hit.item) for hit in index.search([" ".join(text) for text in texts])]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_a_long_text_is_read_in_pieces_without_cutting_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allam.data.contamination.CHARACTERS_AT_ONCE", 7)
    index = ItemIndex([("quiz", Item("1", QUESTION, (), ""))], 13, 8)
    text = AROUND.format(QUESTION)
    assert [index._spelt[n] if n else None for n in index.numbers(text)] == [w if w in index._vocabulary else None for w in comparison_words(text)]


def test_the_plan_fills_in_every_benchmark_and_the_judges_questions_and_what_the_recipe_names() -> None:
    plan = make_plan(load("demo", ["data.decontaminate.items={mine: {path: benchmarks/open_en.jsonl, format: questions}}"]))
    spec = plan.specs["decontaminate"]
    assert list(spec.config.items) == ["mine", "facts_en", "facts_ar", "generate_en", "generate_ar", "judge-0", "judge-1"]  # type: ignore[attr-defined]
    assert plan.specs["translate"].inputs["originals"] == "decontaminate"
    assert {plan.specs["pack"].inputs[name] for name in ("natural", "translated")} == {"decontaminate", "decontaminate_translated"}
    off = make_plan(load("demo", ["data.decontaminate.action=skip"])).specs["decontaminate"]
    assert off.config.items == {}  # type: ignore[attr-defined]  # so that benchmarks don't change its key


@pytest.mark.parametrize(("override", "message"), [
    ("data.decontaminate.mark_only=[web_eng]", "mark_only: there is no source 'web_eng'"),
    ("data.decontaminate.items={facts_en: {path: benchmarks/open_en.jsonl}}", "the recipe evaluates a benchmark of this name"),
    ("data.decontaminate.min_words=14", r"min_words \(14\) is more than ngram_words \(13\)")])
def test_mistakes_in_the_recipe_are_told_by_field(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan(load("demo", [override]))
