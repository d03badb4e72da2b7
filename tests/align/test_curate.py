"""Curation: each conversation is kept or dropped for a named reason, and the counts add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allam import sample
from allam.align import curate
from allam.align.config import CurateConfig
from allam.align.conversations import arabic_share, as_conversation, evenly, is_in_language, words
from allam.align.near_duplicates import near_duplicates, shingles
from allam.artifacts import file_sha256
from allam.errors import UserError
from allam.section import FileRef


def _config(path: Path, **more: Any) -> CurateConfig:
    return CurateConfig(path=path.name, files=(FileRef(path=path.name, sha256=file_sha256(path), size=path.stat().st_size),), **more)


def _run(tmp_path: Path, lines: list[str], **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    path, out = tmp_path / "chats.jsonl", tmp_path / "out"
    path.write_text("\n".join(lines), encoding="utf-8")
    out.mkdir()
    metrics = curate.run(_config(path, **more), {"root": tmp_path}, out)
    return metrics, *([json.loads(line) for line in (out / name).read_bytes().splitlines()] for name in ("sft.jsonl", "dropped.jsonl"))


def _chat(answer: str, question: str = "What is the capital of Norway?", language: str = "en", **more: Any) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"language": language, "messages": messages, "source": "tests"} | more, ensure_ascii=False)


GOOD = _chat("The capital of Norway is Oslo.", id="good")


def test_the_samples_planted_defects_are_counted_exactly(tmp_path: Path) -> None:
    expected = json.loads((sample.root() / "EXPECTED.json").read_text(encoding="utf-8"))["chat"]
    path = sample.root() / "chat" / "sft.jsonl"
    config = CurateConfig(path="chat/sft.jsonl", files=(FileRef(path="chat/sft.jsonl", sha256=file_sha256(path), size=path.stat().st_size),))
    metrics = curate.run(config, {"root": sample.root()}, tmp_path)
    rows = metrics["funnel"].values()
    dropped: dict[str, int] = {}
    for row in rows:
        for reason, count in row["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    assert dropped == expected["dropped"]
    assert metrics["kept"] == expected["kept"]
    assert sum(row["in"] for row in rows) == expected["lines"]


@pytest.mark.parametrize(("line", "reason"), [
    (_chat("   \n "), "empty_response"),
    (_chat("Oslo."), "too_short"),
    (_chat("word " * 50), "too_long"),
    (_chat("It is Oslo in the north. " * 4), "repetition"),
    (_chat("عاصمة النرويج هي أوسلو."), "wrong_language"),
    (_chat("The capital is Oslo.", "ما عاصمة النرويج؟", "ar"), "wrong_language"),
    (_chat("The capital is Oslo.", language="fr"), "bad_conversation"),
    (_chat("The capital is Oslo.", question=" "), "bad_conversation"),
    ('{"messages": [{"role": "user", "content": "Oslo?"', "bad_conversation"),
    ('["no object"]', "bad_conversation"),
    (json.dumps({"language": "en", "messages": [{"role": "user", "content": "And?"}]}), "bad_conversation"),
    (_chat("Half a character: X").replace("X", "\\ud800"), "bad_conversation"),
    (json.dumps({"language": "en", "messages": [{"role": "assistant", "content": "I begin."}]}), "bad_conversation"),
    (_chat("  The capital of Norway\tis Oslo. "), "duplicate"),
    (_chat("the capital of NORWAY is Oslo!!"), "near_duplicate"),
])
def test_a_bad_conversation_is_dropped_for_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    metrics, kept, dropped = _run(tmp_path, [GOOD, line], min_response_words=2, max_response_words=30)
    assert [row["id"] for row in kept] == ["good"]
    assert [row["reason"] for row in dropped] == [reason]
    assert dropped[0]["where"] == "chats.jsonl:2"
    assert metrics["kept"] == 1


def test_similar_questions_about_different_facts_are_all_kept(tmp_path: Path) -> None:
    lines = [_chat(f"The capital of {country} is {capital}.", f"What is the capital of {country}?")
             for country, capital in (("Norway", "Oslo"), ("Egypt", "Cairo"), ("Kenya", "Nairobi"))]
    assert _run(tmp_path, lines)[0]["kept"] == 3


def test_code_and_numbers_are_in_any_language() -> None:
    assert is_in_language("42", "ar")
    assert is_in_language("استخدم الدالة التالية:\n```python\nprint('a long English program')\n```", "ar")
    assert not is_in_language("استخدم print hello world and so on", "ar")
    assert arabic_share("١٢٣ 45 !") is None


def test_nothing_left_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="empty_response"):
        _run(tmp_path, [_chat("")])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=60), st.builds(_chat, st.text(max_size=40)), st.just(GOOD)), max_size=12))
def test_in_is_always_out_plus_dropped(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    lines = [line.replace("\n", " ").replace("\r", " ").encode("utf-8", "replace").decode() for line in [GOOD, *lines]]
    metrics, kept, dropped = _run(tmp_path_factory.mktemp("curate"), lines)
    for row in metrics["funnel"].values():
        assert row["in"] == row["out"] + sum(row["dropped"].values())
    assert sum(row["in"] for row in metrics["funnel"].values()) == len(kept) + len(dropped) == sum(bool(line.encode().strip()) for line in lines)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(list("abcd")), max_size=12), max_size=12), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_near_duplicates_are_those_that_comparing_all_pairs_finds(texts: list[list[str]], similarity: float) -> None:
    kept: list[int] = []
    expected = {}
    for number, text in enumerate(texts):
        found = [k for k in kept if len(shingles(text) & shingles(texts[k])) / len(shingles(text) | shingles(texts[k])) >= similarity]
        if found:
            expected[number] = found[0]
        else:
            kept.append(number)
    assert near_duplicates(texts, similarity) == expected


def test_comparing_ignores_vowel_signs_case_and_punctuation() -> None:
    assert words("عَاصِمَةُ مِصْرَ، القاهرة!") == words("عاصمة مصر القاهرة")
    assert words("The CAPITAL.") == words("the capital")


@pytest.mark.parametrize("row", [
    {"lang": "en", "messages": [{"role": "user", "content": "What is bread?"}, {"role": "assistant", "content": "Food made of flour."}]},
    {"language": "en", "conversations": [{"from": "human", "value": "What is bread?"}, {"from": "gpt", "value": "Food made of flour."}]},
    {"language": "en", "instruction": "What is bread?", "input": "", "output": "Food made of flour."},
    {"language": "en", "prompt": "What is bread?", "response": "Food made of flour."},
])
def test_the_fields_common_forms_of_a_conversation_are_read_alike(row):
    assert as_conversation(row)["messages"] == [{"role": "user", "content": "What is bread?"}, {"role": "assistant", "content": "Food made of flour."}]
    assert as_conversation(row)["language"] == "en"


def test_the_input_of_an_instruction_stands_below_it():
    messages = as_conversation({"instruction": "Sum up.", "input": "A long text.", "output": "Short."})["messages"]
    assert messages[0]["content"] == "Sum up.\n\nA long text."


def test_a_preference_whose_responses_are_messages_is_read_as_text():
    row = as_conversation({"lang": "ar", "prompt": [{"role": "user", "content": "ما الخبز؟"}], "chosen": [{"role": "assistant", "content": "طعام من الدقيق."}],
                           "rejected": [{"role": "user", "content": "?"}]})
    assert (row["messages"], row["chosen"]) == ([{"role": "user", "content": "ما الخبز؟"}], "طعام من الدقيق.")
    assert row["rejected"] == [{"role": "user", "content": "?"}], "no answer of an assistant's: left as it is, to be refused by whoever needs it"


def test_a_limit_takes_conversations_evenly_from_the_whole_file():
    assert evenly(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert evenly([1, 2], None) == evenly([1, 2], 5) == [1, 2]
