"""The merge: base ids stay, Arabic is cut as the Arabic tokenizer cuts it, specials are single ids, transformers agrees."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allam.chat.template import encode_conversation
from allam.chat.tokens import CHAT_SPECIALS, PAD, is_padding
from allam.errors import UserError
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import check, merge, model
from allam.tokenizer.config import MergedTokenizerConfig
from allam.tokenizer.script import arabic_words, has_arabic, is_arabic_piece


@pytest.fixture(scope="module")
def protos(tokenizers: dict[str, Path]) -> dict[str, Any]:
    return {name: model.read(tokenizers[name] / "tokenizer.model") for name in ("base", "arabic", "merged")}


@pytest.fixture(scope="module")
def auto(tokenizers: dict[str, Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizers["merged"])


def test_base_pieces_keep_their_ids_and_scores(protos: dict[str, Any]) -> None:
    base, merged = protos["base"].pieces, protos["merged"].pieces
    assert list(merged[:len(base)]) == list(base)


def test_new_pieces_are_arabic_rank_below_the_base_and_keep_their_order(protos: dict[str, Any]) -> None:
    base, arabic = model.normal_pieces(protos["base"]), model.normal_pieces(protos["arabic"])
    new = [p for p in protos["merged"].pieces[len(protos["base"].pieces):] if p.type == model.NORMAL]
    assert new
    assert all(is_arabic_piece(p.piece) and p.piece not in base for p in new)
    assert {p.piece for p in new} == {piece for piece in arabic if is_arabic_piece(piece) and piece not in base}
    scores = [min(base.values()), *(p.score for p in new)]
    assert all(a > b for a, b in itertools.pairwise(scores))
    assert [arabic[p.piece] for p in new] == sorted((arabic[p.piece] for p in new), reverse=True)


def test_special_tokens_then_padding_rows_end_the_vocabulary_as_control_pieces(protos: dict[str, Any]) -> None:
    pieces = list(protos["merged"].pieces)
    first = next(i for i, p in enumerate(pieces) if p.piece == PAD)
    assert len(pieces) % 64 == 0
    assert [p.piece for p in pieces[first:first + 5]] == list(CHAT_SPECIALS)
    assert all(p.type == model.CONTROL for p in pieces[first:])
    assert all(is_padding(p.piece) for p in pieces[first + 5:])
    assert len(pieces) - first - 5 < 64


@pytest.mark.parametrize("multiple", [1, 8, 128, 1000])
def test_the_vocabulary_is_padded_to_the_multiple_of_the_recipe(protos: dict[str, Any], multiple: int) -> None:
    padded = merge.add_specials(protos["base"], multiple)
    assert len(padded.pieces) % multiple == 0
    assert len(padded.pieces) - len(protos["base"].pieces) - 5 < multiple


def test_running_the_stage_again_gives_the_same_bytes_and_measures_what_it_promises(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    metrics = merge.run(MergedTokenizerConfig(checked_lines=500), tokenizers, tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (tokenizers["merged"] / file.name).read_bytes(), file.name
    found = metrics["gate"]
    assert found["lines without Arabic script whose ids changed"]["measured"] == 0
    assert found["lines without Arabic script whose ids changed"]["of"] > 900
    cut = found["running Arabic words cut as by the Arabic-only tokenizer"]
    assert cut["measured"] == cut["of"] > 1000
    assert metrics["vocab_size"] == metrics["base_pieces"] + metrics["new_pieces"] + metrics["special_tokens"] + metrics["padding_rows"]
    json.dumps(metrics, allow_nan=False)


def test_scores_stay_in_order_where_float32_has_no_room_for_a_step_of_one(protos: dict[str, Any]) -> None:
    deep = model.copy(protos["base"])
    next(p for p in deep.pieces if p.type == model.NORMAL).score = -5e7
    merged = merge.add_pieces(deep, ["اب", "ابت", "ابتث"])
    scores = [p.score for p in merged.pieces[-3:]]
    assert -5e7 > scores[0] > scores[1] > scores[2]
    assert len({np.float32(s) for s in scores}) == 3


def test_llama_2_runs_of_spaces_with_a_billion_below_zero_do_not_push_new_pieces_down(protos: dict[str, Any]) -> None:
    base = model.copy(protos["base"])
    lowest = min(p.score for p in base.pieces if p.piece.strip("▁"))
    for p in base.pieces:
        if not p.piece.strip("▁"):
            p.score = -1e9
    assert merge.add_pieces(base, ["اب"]).pieces[-1].score == lowest - 1


def test_merging_twice_is_refused(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the base tokenizer has been extended already"):
        merge.run(MergedTokenizerConfig(), tokenizers | {"base": tokenizers["merged"]}, tmp_path)


def test_a_merge_that_would_add_nothing_is_refused(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)the merge adds no piece.*tokenizer\.arabic.vocab_size"):
        merge.run(MergedTokenizerConfig(), tokenizers | {"arabic": tokenizers["base"]}, tmp_path)


def test_a_piece_that_stands_twice_is_refused(protos: dict[str, Any]) -> None:
    twice = model.copy(protos["base"])
    twice.pieces.add(piece=twice.pieces[300].piece, score=-9999.0, type=model.NORMAL)
    with pytest.raises(UserError, match="holds 1 pieces twice"):
        model.check_model(twice, "base")


def test_a_fast_tokenizer_with_other_ids_fails_the_check_with_a_table(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tokenizers["merged"], folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"]["normalizers"].pop(1)  # the space before a text
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"(?s)1 of 1 lines fail.*english +the fast tokenizer differs from SentencePiece: 'a line'.*instead of"):
        check.agreement(folder, {"english": ["a line"]})


def test_transformers_keeps_the_ids_after_saving_and_loading_again(auto: Any, tokenizers: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    auto.save_pretrained(tmp_path)
    again, ours = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tokenizers["merged"])
    lines = check.noise()
    assert again(lines, add_special_tokens=False, split_special_tokens=True)["input_ids"] == ours.encode_batch(lines)
    assert again("مرحبا")["input_ids"] == [ours.bos_id, *ours.encode("مرحبا")]


def test_transformers_knows_every_special_token_by_our_id(auto: Any, tokenizers: dict[str, Path]) -> None:
    ours = Tokenizer.load(tokenizers["merged"])
    assert {token: auto.convert_tokens_to_ids(token) for token in ours.special} == ours.special
    assert (auto.bos_token_id, auto.eos_token_id, auto.pad_token_id) == (ours.bos_id, ours.eos_id, ours.pad_id)
    assert all(auto(token, add_special_tokens=False)["input_ids"] == [ours.special[token]] for token in CHAT_SPECIALS)
    assert len(auto) == ours.vocab_size


def test_the_chat_template_gives_the_ids_of_a_conversation_with_one_bos(auto: Any, tokenizers: dict[str, Path]) -> None:
    ours = Tokenizer.load(tokenizers["merged"])
    messages = [{"role": "user", "content": "  ما عاصمة مصر؟\n"}, {"role": "assistant", "content": "عاصمة مصر هي القاهرة."},
                {"role": "user", "content": "And of Greece?"}, {"role": "assistant", "content": " Athens."}]
    encoded = auto.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = encode_conversation(ours, messages)
    assert encoded["input_ids"] == ids
    assert ids.count(ours.bos_id) == 1
    assert encoded["assistant_masks"] == mask


def test_arabic_script_means_letters_marks_digits_and_punctuation_but_no_joiners() -> None:
    assert all(map(is_arabic_piece, ["▁الـ", "َّ", "،", "؟", "٣", "ﷺ", "▁▁ب", "پ"]))
    assert not any(map(is_arabic_piece, ["▁", "", ".", "ا.", "ا▁ب", "\u200f", "\ufeff", "»", "a", "ש", "\u200cا"]))
    assert has_arabic("a ب")
    assert not has_arabic("naïve ש \u200f\ufeff")
    assert arabic_words("قال: نعم، مَرْحَبًا بـ 5 كتب٢ abc عالم") == ["مَرْحَبًا", "بـ", "عالم"]
