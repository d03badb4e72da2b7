"""The gate: each promise is broken on purpose by a merged model, and the table says where, with ids; a sound merge keeps them all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allam.chat.tokens import END
from allam.errors import UserError
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import check, fast, gate, merge, model
from allam.tokenizer.config import MergedTokenizerConfig
from allam.tokenizer.sampling import group_of, sample_lines
from allam.tokenizer.script import is_arabic_piece


@pytest.fixture(scope="module")
def lines(tokenizers: dict[str, Path]) -> gate.Lines:
    found: gate.Lines = {"noise": check.noise()[:60]}
    for group, line in sample_lines([tokenizers["natural"] / "documents"], group_of, 400, 0):
        found.setdefault(group, []).append(line)
    return found


def judge(tokenizers: dict[str, Path], merged: Any, folder: Path, lines: gate.Lines, **bounds: float) -> dict[str, gate.Finding]:
    """The broken promises of a merged model, by their names."""
    folder.mkdir(exist_ok=True)
    fast.write_tokenizer(folder, model.serialise(merged))
    config = MergedTokenizerConfig.model_validate(bounds)
    findings = gate.measure(gate.Folders(tokenizers["base"], tokenizers["arabic"], folder), lines, config, lines["arabic"], thorough=False)
    broken = {finding.promise: finding for finding in findings if not finding.held}
    if broken:
        with pytest.raises(UserError, match=f"breaks {len(broken)} of {len(findings)} promises"):
            gate.require(findings)
    return broken


@pytest.fixture
def broken(tokenizers: dict[str, Path], tmp_path: Path, lines: gate.Lines) -> Callable[..., dict[str, gate.Finding]]:
    """Judges the stage's own merged model after `change` has been at it."""
    def by(change: Callable[[Any], None], **bounds: float) -> dict[str, gate.Finding]:
        merged = model.read(tokenizers["merged"] / "tokenizer.model")
        change(merged)
        return judge(tokenizers, merged, tmp_path / "merged", lines, **bounds)

    return by


def test_the_stages_own_merge_keeps_every_promise(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    assert broken(lambda merged: None, max_unmet_share=1.0) == {}


def test_new_pieces_with_a_score_of_zero_cut_arabic_words_otherwise(broken: Callable[..., dict[str, gate.Finding]], tokenizers: dict[str, Path]) -> None:
    """The public recipes' way."""
    first = len(model.read(tokenizers["base"] / "tokenizer.model").pieces)

    def change(merged: Any) -> None:
        for piece in merged.pieces[first:]:
            piece.score = 0.0

    finding = broken(change)["running Arabic words cut as by the Arabic-only tokenizer"]
    assert finding.measured < 0.99 * finding.of
    assert "instead of" in finding.examples[0]
    assert gate.RANKED_FIRST in finding.examples[0]


def test_every_word_cut_otherwise_is_listed_in_a_file_with_both_cuts_and_the_cause(tokenizers: dict[str, Path], tmp_path: Path, lines: gate.Lines,
                                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    base, arabic = (model.normal_pieces(model.read(tokenizers[name] / "tokenizer.model")) for name in ("base", "arabic"))
    before, alone = (Tokenizer.load(tokenizers[name]) for name in ("base", "arabic"))
    file = tmp_path / gate.EXCEPTIONS
    finding = gate.words_cut_alike(base, arabic, alone, before, lines, 1.0, file)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) > gate.SHOWN
    assert sum(row["count"] for row in rows) == finding.of - finding.measured
    assert all(row["merged"] == before.pieces(row["ids"]) != row["arabic_only"] == alone.pieces(alone.encode(row["word"])) for row in rows)
    assert {row["cause"] for row in rows} == {gate.RANKED_FIRST}
    assert finding.examples[-1] == f"exceptions.jsonl lists all {len(rows):,} words with both cuts and cause"
    monkeypatch.setattr(gate, "LISTED", 12)
    finding = gate.words_cut_alike(base, arabic, alone, before, lines, 1.0, file)
    assert len(file.read_text(encoding="utf-8").splitlines()) == 12
    assert f"the most frequent 12 of {len(rows):,} words" in finding.examples[-1]


def test_a_stray_piece_of_signs_changes_english_and_the_line_is_shown_with_its_ids(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    base, arabic = (model.read(tokenizers[name] / "tokenizer.model") for name in ("base", "arabic"))
    pieces = [*merge.new_pieces(base, arabic, is_arabic_piece), ").."]
    merged = merge.add_specials(merge.add_pieces(merge.add_pieces(base, [".."]), pieces), 64)
    texts = {"english": ["A plain line.", "(and so on..) end)"], "arabic": ["نص (هنا..)"]}
    found = judge(tokenizers, merged, tmp_path, texts, max_fertility_excess=1.0, max_unmet_share=1.0, min_same_segmentation=0.0)
    changed = found["lines without Arabic script whose ids changed"]
    assert (changed.measured, changed.of) == (1, 2)
    assert "(and so on..)" in changed.examples[0]
    assert str(len(base.pieces)) in changed.examples[0]
    assert found["tokens of english, over the base's"].measured < 1


def test_base_ids_that_move_are_listed(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(merged: Any) -> None:
        a, b = merged.pieces[300].piece, merged.pieces[301].piece
        merged.pieces[300].piece, merged.pieces[301].piece = b, a

    finding = broken(change)["ids of the base that mean something else"]
    assert finding.measured == 2
    assert finding.examples[0].startswith("id 300: ")


def test_a_base_score_that_moves_is_listed(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(merged: Any) -> None:
        merged.pieces[400].score -= 1

    assert broken(change)["ids of the base that mean something else"].measured == 1


def test_a_piece_that_stands_twice_is_listed_with_both_ids(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(merged: Any) -> None:
        merged.pieces.add(piece=merged.pieces[300].piece, score=-1e6, type=model.NORMAL)

    finding = broken(change)["pieces that stand twice"]
    assert "has the ids [300, " in finding.examples[0]


@pytest.mark.parametrize("kind", [model.USER_DEFINED, model.NORMAL])
def test_a_special_token_that_text_can_spell_is_listed(broken: Callable[..., dict[str, gate.Finding]], kind: int) -> None:
    def change(merged: Any) -> None:
        next(p for p in merged.pieces if p.piece == END).type = kind

    finding = broken(change)["special tokens and padding rows that are no control pieces"]
    assert finding.measured == 1
    assert END in finding.examples[0]


def test_a_user_defined_piece_besides_the_special_tokens_is_listed(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(merged: Any) -> None:
        merged.pieces.add(piece="<tool>", score=0.0, type=model.USER_DEFINED)

    assert "<tool>" in broken(change)["special tokens and padding rows that are no control pieces"].examples[0]


def test_a_piece_whose_parts_are_missing_can_be_reached_by_no_text(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(merged: Any) -> None:
        merged.pieces.add(piece="ظضغثط", score=-1e6, type=model.NORMAL)

    finding = broken(change, max_unmet_share=1.0)["new pieces that no text can reach"]
    assert finding.measured == 1
    assert "ظضغثط" in finding.examples[0]


def test_new_pieces_that_the_corpus_does_not_meet_are_bounded_by_the_recipe(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(merged: Any) -> None:
        for piece in ("ظظ", "ظظظظ"):
            merged.pieces.add(piece=piece, score=-1e6 if piece == "ظظ" else -2e6, type=model.NORMAL)

    assert any("looking" in p or "don't meet" in p for p in broken(change, max_unmet_share=0.0))
    assert not broken(change, max_unmet_share=1.0)


def test_arabic_that_costs_more_than_with_the_arabic_tokenizer_is_listed_by_its_dearest_words(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    merged = merge.add_specials(model.read(tokenizers["base"] / "tokenizer.model"), 64)
    texts = {"arabic": ["عاصمة مصر هي القاهرة"]}
    finding = judge(tokenizers, merged, tmp_path, texts, min_same_segmentation=0.0)["tokens of arabic, over the Arabic-only tokenizer's"]
    assert finding.measured > 2
    assert "tokens more" in finding.examples[0]


def test_the_characters_of_pieces_that_cannot_be_merged_are_named_and_the_setting_only_where_it_helps(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    arabic = model.read(tokenizers["arabic"] / "tokenizer.model")
    for piece in (",.", "🌹"):
        arabic.pieces.add(piece=piece, score=-9e5, type=model.NORMAL)
    (tmp_path / "arabic").mkdir()
    fast.write_tokenizer(tmp_path / "arabic", model.serialise(arabic))
    before, after = (Tokenizer.load(tokenizers[name]) for name in ("base", "merged"))
    [finding] = gate.fertility_kept(before, Tokenizer.load(tmp_path / "arabic"), after, {"arabic": ["🌹 🌹 ,."]}, 0.005)
    assert "2 pieces, with the characters U+1F339 '🌹', U+002C ',', U+002E '.', that can't be merged: set tokenizer.arabic.alphabet" in finding.remedy
    [finding] = gate.fertility_kept(before, Tokenizer.load(tokenizers["arabic"]), before, {"arabic": ["عاصمة مصر هي القاهرة"]}, 0.005)
    assert not finding.held
    assert "alphabet" not in finding.remedy


def test_a_fast_tokenizer_of_other_ids_is_listed(tokenizers: dict[str, Path], tmp_path: Path, lines: gate.Lines) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tokenizers["merged"], folder)
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.replace('"prepend": "▁"', '"prepend": "▁▁"'), encoding="utf-8")
    finding = gate.ids_agree(folder, {"english": ["a line"]})
    assert not finding.held
    assert "differs from SentencePiece" in finding.examples[0]


def test_the_one_character_that_cannot_come_back_is_sentencepieces_sign_for_a_space(tokenizers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    merged = Tokenizer.load(tokenizers["merged"])
    assert gate.text_comes_back(merged, {"noise": check.noise()}).held
    monkeypatch.setattr(gate, "SPACE", "\0")
    assert gate.lost_characters(merged) == ["▁"]


def test_lines_that_do_not_come_back_are_named(tokenizers: dict[str, Path]) -> None:
    proto = model.read(tokenizers["merged"] / "tokenizer.model")
    proto.normalizer_spec.remove_extra_whitespaces = True
    finding = gate.text_comes_back(Tokenizer(model.serialise(proto)), {"noise": ["a  b"]})
    assert not finding.held
    assert "noise: 'a  b' came back as 'a b'" in finding.examples
