"""Tokenizer: exactly SentencePiece's ids, every text back, no text a special token."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from allam.chat.tokens import BASE_SPECIALS, CHAT_SPECIALS, padding_token
from allam.errors import UserError
from allam.text.bpe import SHORT, is_exact_for
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


@pytest.mark.parametrize("length", [SHORT - 1, SHORT, SHORT + 1, 5 * SHORT, 1000])
def test_a_long_part_gets_the_ids_of_sentencepiece(merged: Tokenizer, reference: sentencepiece.SentencePieceProcessor, length: int) -> None:
    text = f"one {'العاصمةcapital' * (length // 14 + 1)}"[:4 + length] + " two"
    assert merged.encode(text) == reference.encode(text)


def test_threads_may_share_a_tokenizer(merged: Tokenizer, reference: sentencepiece.SentencePieceProcessor) -> None:
    texts = [f"The capital of Egypt is Cairo, {i}. عاصمة مصر هي القاهرة {'x' * i}" for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(merged.encode, texts)) == reference.encode(texts)


def test_a_piece_of_letter_and_sign_keeps_texts_from_being_cut_between_them(tokenizers: dict[str, Path]) -> None:
    proto = model.read(tokenizers["base"] / "tokenizer.model")
    proto.pieces.add(piece="t.", score=-1.0, type=model.NORMAL)
    data = model.serialise(proto)
    ids = Tokenizer(data).encode("it. at, (at.)")
    assert ids == sentencepiece.SentencePieceProcessor(model_proto=data).encode("it. at, (at.)")
    assert len(proto.pieces) - 1 in ids


ADDED = {
    "two pieces of one score, of which the first in the text goes first": [("xq", -1.0, model.NORMAL), ("qx", -1.0, model.NORMAL)],
    "a score of 0, above the -0 of the first merge that was learnt": [("xq", -0.0, model.NORMAL), ("qx", 0.0, model.NORMAL)],
    "a score that is no number, which keeps SentencePiece at work": [("xq", float("-inf"), model.NORMAL)],
    "a character that is a piece only beside another": [("中文", -1.0, model.NORMAL), ("😀😀", -2.0, model.NORMAL)],
    "a piece of several words, which keeps SentencePiece at work": [("x▁q", -1.0, model.NORMAL)],
    "a piece that is matched before any merge": [("xqx", 0.0, model.model_pb2.ModelProto.SentencePiece.USER_DEFINED)],
    "a piece that is taken apart again": [("qx", -1.0, model.model_pb2.ModelProto.SentencePiece.UNUSED)],
}


@pytest.mark.parametrize("added", ADDED.values(), ids=ADDED.keys())
def test_unusual_pieces_give_sentencepieces_ids(tokenizers: dict[str, Path], added: list[tuple[str, float, int]]) -> None:
    proto = model.read(tokenizers["base"] / "tokenizer.model")
    for piece, score, kind in added:
        proto.pieces.add(piece=piece, score=score, type=kind)
    data = model.serialise(proto)
    tokenizer, reference = Tokenizer(data), sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in ("xqxqx qxqx", "x q x qx", "中文 中 文中文", "😀😀😀 😀", "the capital xqx, (qx.)"):
        assert tokenizer.encode(text) == reference.encode(text), text
    assert is_exact_for(proto) == all(kind == model.NORMAL and score > float("-inf") and "▁" not in piece for piece, score, kind in added)


@pytest.mark.parametrize("damage", ["full", pytest.param("cut short", marks=pytest.mark.slow)])
def test_a_cache_that_cannot_be_used_costs_time_and_nothing_else(tokenizers: dict[str, Path], reference: sentencepiece.SentencePieceProcessor,
                                                                 tmp_path: Path, damage: str) -> None:
    program = f"from allam.text.tokenizer import Tokenizer; print(Tokenizer.load({str(tokenizers['merged'])!r}).encode('the capital'))"
    small_files = ("import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
                   if damage == "full" else "")

    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", small_files + program], env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, capture_output=True,
                              text=True, timeout=300)

    if damage == "cut short":
        ask()
        for file in tmp_path.rglob("*.nb*"):
            file.write_bytes(file.read_bytes()[:10])
    done = ask()
    assert done.stdout.strip() == str(reference.encode("the capital")), done.stderr
    assert "each process compiles anew" in done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr


def test_fingerprints_differ_between_tokenizers_and_stay_the_same_for_one(tokenizers: dict[str, Path]) -> None:
    prints = [Tokenizer.load(tokenizers[name]).fingerprint for name in ("base", "arabic", "merged", "merged")]
    assert len(set(prints)) == 3
    assert prints[2] == prints[3]


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.model in"):
        Tokenizer.load(tmp_path)
