"""Tokenizer: exactly SentencePiece's ids, every text back, no text a special token."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from allam.chat.tokens import BASE_SPECIALS, CHAT_SPECIALS, padding_token
from allam.errors import UserError
from allam.text import word_ids as module
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import model

SPELLED = [*BASE_SPECIALS, *CHAT_SPECIALS, padding_token(0), "<0x41>", "<|im_start|>"]
FRAGMENTS = [*SPELLED, " ", "  ", "    ", "\n", "\t", "العاصمة", "الْقَاهِرَة", "return x", "capital", "١٢", "42", "،", "»", "هههه", "🇸🇦", "\u200f"]
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="▁")
TEXTS = st.one_of(st.text(CHARACTERS, max_size=60), st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(CHARACTERS, max_size=3)), max_size=20).map("".join))


@pytest.fixture(scope="module")
def merged(tokenizers: dict[str, Path]) -> Tokenizer:
    return Tokenizer.load(tokenizers["merged"])


@pytest.fixture(scope="module")
def reference(tokenizers: dict[str, Path]) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizers["merged"] / "tokenizer.model"))


@settings(max_examples=1000, deadline=None)
@given(TEXTS)
@example("")
@example("".join(SPELLED))
@example("a\0b")
@example("x \n y\n\n  z  ")
def test_any_text_gets_the_ids_of_sentencepiece_no_special_one_and_comes_back(
        merged: Tokenizer, reference: sentencepiece.SentencePieceProcessor, text: str) -> None:
    ids = merged.encode(text)
    assert ids == reference.encode(text)
    assert not set(ids) & set(merged.special.values())
    assert all(i < merged.vocab_size - 0 and not reference.is_control(i) for i in ids)
    assert merged.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("▁ a\nه"), max_size=12))
def test_the_sign_for_a_space_gets_sentencepieces_ids_and_comes_back_as_a_space(
        merged: Tokenizer, reference: sentencepiece.SentencePieceProcessor, text: str) -> None:
    assert merged.encode(text) == reference.encode(text)
    assert merged.decode(merged.encode(text)) == text.replace("▁", " ")


def test_a_lone_surrogate_is_refused_with_its_place(merged: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"lone surrogate, '\\ud800' at position 2"):
        merged.encode("ab\ud800c")


def test_special_tokens_and_padding_rows_decode_to_nothing(merged: Tokenizer) -> None:
    ids = [merged.bos_id, *merged.encode("مرحبا"), merged.special["<|end|>"], merged.vocab_size - 1, merged.eos_id]
    assert merged.decode(ids) == "مرحبا"


def test_a_batch_gets_the_ids_of_its_texts(merged: Tokenizer) -> None:
    texts = ["The capital of Egypt is Cairo.", "", "عاصمة مصر هي القاهرة."]
    assert merged.encode_batch(texts) == [merged.encode(text) for text in texts]


def test_base_and_arabic_tokenizers_have_no_pad_token_and_the_merged_one_has(tokenizers: dict[str, Path], merged: Tokenizer) -> None:
    assert Tokenizer.load(tokenizers["base"]).pad_id is None
    assert Tokenizer.load(tokenizers["arabic"]).special == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert merged.pad_id == merged.special["<pad>"]
    assert set(merged.special) == {*BASE_SPECIALS, *CHAT_SPECIALS}


def test_a_full_memory_is_emptied_and_ids_stay_the_same(tokenizers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_KNOWN", 3)
    tokenizer = Tokenizer.load(tokenizers["merged"])
    text = "one two three four five six seven one two"
    assert tokenizer.encode(text) == tokenizer.encode(text)
    assert len(tokenizer._words) <= 3


def test_long_parts_are_not_kept_and_more_new_parts_than_go_together_are_learnt(
        tokenizers: dict[str, Path], reference: sentencepiece.SentencePieceProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEARNT_TOGETHER", 2)
    tokenizer = Tokenizer.load(tokenizers["merged"])
    text = f"one two {'x' * 65} three, {'x' * 65} four\n(five)"
    assert tokenizer.encode(text) == tokenizer.encode(text) == reference.encode(text)
    assert all(len(word) <= 64 for memory in (tokenizer._words._after_space, tokenizer._words._other) for word in memory)


def test_a_refused_text_leaves_nothing_half_learnt(tokenizers: dict[str, Path], reference: sentencepiece.SentencePieceProcessor) -> None:
    tokenizer = Tokenizer.load(tokenizers["merged"])
    with pytest.raises(UserError, match="lone surrogate"):
        tokenizer.encode("never seen before \ud800")
    assert tokenizer.encode("never seen before") == reference.encode("never seen before")


def test_a_piece_of_letter_and_sign_keeps_texts_from_being_cut_between_them(tokenizers: dict[str, Path]) -> None:
    proto = model.read(tokenizers["base"] / "tokenizer.model")
    proto.pieces.add(piece="t.", score=-1.0, type=model.NORMAL)
    data = model.serialise(proto)
    ids = Tokenizer(data).encode("it. at, (at.)")
    assert ids == sentencepiece.SentencePieceProcessor(model_proto=data).encode("it. at, (at.)")
    assert len(proto.pieces) - 1 in ids


def test_fingerprints_differ_between_tokenizers_and_stay_the_same_for_one(tokenizers: dict[str, Path]) -> None:
    prints = [Tokenizer.load(tokenizers[name]).fingerprint for name in ("base", "arabic", "merged", "merged")]
    assert len(set(prints)) == 3
    assert prints[2] == prints[3]


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.model in"):
        Tokenizer.load(tmp_path)
