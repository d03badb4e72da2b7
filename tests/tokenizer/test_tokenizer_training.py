"""Training and sampling: the same corpus gives the same bytes, nothing held out is seen, mistakes are explained."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from allam.artifacts import file_sha256
from allam.documents import Document, is_held_out, read_documents, shard_path, write_documents
from allam.errors import UserError
from allam.section import FileRef, HeldOut
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import arabic, base, model, sampling, training
from allam.tokenizer.config import ArabicTokenizerConfig, BaseTokenizerConfig
from allam.tokenizer.script import is_arabic_piece

OUTPUTS = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "summary.json")


def folders(corpus: dict[str, Path]) -> list[Path]:
    return [corpus["natural"] / "documents", corpus["translated"] / "documents"]


def test_training_twice_gives_the_same_bytes(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    base.run(BaseTokenizerConfig(vocab_size=700), tokenizers, tmp_path)
    assert [(tmp_path / name).read_bytes() for name in OUTPUTS] == [(tokenizers["base"] / name).read_bytes() for name in OUTPUTS]


def test_no_line_of_a_held_out_document_is_trained_on(corpus: dict[str, Path]) -> None:
    held_out = HeldOut(share=0.5, seed=3)
    lines = set(training.training_lines(folders(corpus), "ar", 10**6, 0, held_out))
    kept = {line for d in read_documents(*folders(corpus)) if d.language == "ar" and not is_held_out(d.root_id, 0.5, 3) for line in sampling.lines_of(d.text)}
    assert lines == kept
    assert lines


def test_a_sample_has_the_asked_number_of_lines_and_another_seed_gives_others(corpus: dict[str, Path]) -> None:
    samples = [list(sampling.sample_lines(folders(corpus), sampling.group_of, 50, seed)) for seed in (0, 0, 1)]
    assert [sum(group == name for group, _ in samples[0]) for name in ("english", "arabic", "code")] == [50, 50, 50]
    assert samples[0] == samples[1] != samples[2]


def test_a_sample_does_not_depend_on_how_documents_lie_in_shards(tmp_path: Path) -> None:
    documents = [Document(f"d{i}", f"line {i}\nother {i}", "s", "en", "web", "natural") for i in range(40)]
    write_documents(shard_path(tmp_path / "one", "s", 0), documents)
    for shard in range(4):
        write_documents(shard_path(tmp_path / "four", "s", shard), documents[shard * 10:shard * 10 + 10])
    one, four = (list(sampling.sample_lines([tmp_path / name], sampling.group_of, 20, 0)) for name in ("one", "four"))
    assert one == four
    assert len(one) == 20


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=300), st.integers(1, 50))
def test_the_smallest_hashes_are_found(values: list[int], limit: int) -> None:
    found = sampling._SmallestHashes(limit)
    for value in values:
        found.add(value)
    assert found.largest() == (sorted(values)[:limit][-1] if values else -1)


@given(st.text(st.sampled_from("ab ل\t"), max_size=40), st.integers(1, 200))
def test_a_long_line_is_cut_without_losing_a_character(part: str, times: int) -> None:
    line = part * times
    cut = list(sampling.lines_of(line))
    assert "".join(cut) == ("" if not line or line.isspace() else line)
    assert all(len(piece.encode()) <= 4192 for piece in cut)


def test_lines_are_drawn_to_the_shares_of_the_recipe_and_a_domain_with_fewer_gives_all(corpus: dict[str, Path]) -> None:
    there = Counter(d.domain for d in read_documents(*folders(corpus)) if d.language == "ar" for _ in sampling.lines_of(d.text))
    few = min(there.values())
    for shares, limit, wanted in (({"wiki": 0.75, "news": 0.25}, few, {"wiki": round(0.75 * few), "news": round(0.25 * few)}),
                                  ({"news": 1.0}, 10**6, {"news": there["news"]}), ({}, 10**6, dict(there))):
        drawn: Counter[str] = Counter()
        lines = list(training.training_lines(folders(corpus), "ar", limit, 0, HeldOut(share=0), shares, drawn))
        assert dict(drawn) == wanted
        assert len(lines) == sum(wanted.values())


def test_a_domain_that_the_corpus_lacks_is_refused_with_those_it_has(corpus: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"(?s)tokenizer\.arabic\.domains: the corpus has no text of books.*news, wiki"):
        training.training_lines(folders(corpus), "ar", 100, 0, HeldOut(), {"wiki": 0.5, "books": 0.5})


@pytest.mark.parametrize("shares", [{"wiki": 0.5}, {"wiki": 1.5, "news": -0.5}, {"wiki": 1.0, "poetry": 0.0}])
def test_shares_by_domain_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="domains"):
        ArabicTokenizerConfig.model_validate({"domains": shares})


def test_the_stage_says_how_many_lines_of_each_domain_it_drew_and_which_fell_short(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    metrics = arabic.run(ArabicTokenizerConfig(vocab_size=700, max_sentences=10**6, domains={"wiki": 0.5, "news": 0.5}), tokenizers, tmp_path)
    assert set(metrics["lines_by_domain"]) == {"wiki", "news"}
    assert metrics["lines_asked_of_short_domains"] == {"wiki": 500_000, "news": 500_000}


def test_training_lines_keep_their_indentation(corpus: dict[str, Path]) -> None:
    assert any(line.startswith("    ") for line in training.training_lines(folders(corpus), "en", 10**6, 0, HeldOut()))


def test_an_arabic_tokenizer_spells_what_it_never_saw_in_bytes(tokenizers: dict[str, Path]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizers["arabic"] / "tokenizer.model"))
    assert [processor.id_to_piece(i) for i in processor.encode("漢")] == ["▁", "<0xE6>", "<0xBC>", "<0xA2>"]


def test_digits_stand_alone(tokenizers: dict[str, Path]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizers["base"] / "tokenizer.model"))
    assert processor.encode("2024", out_type=str) == ["▁", "2", "0", "2", "4"]


def test_a_vocabulary_too_large_for_the_text_is_named_with_its_field(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.arabic\.vocab_size: 90000 pieces could not be trained"):
        arabic.run(ArabicTokenizerConfig(vocab_size=90_000), tokenizers, tmp_path)


def test_lines_are_cut_at_characters_that_could_not_be_merged() -> None:
    lines = ["قال 🌹🌹 نعم، a b", "🌹", "لا"]
    assert list(arabic.cut_at_other_characters(lines, {" ", "a"})) == ["قال ", " نعم، a ", "لا"]


def test_a_rare_arabic_letter_of_the_base_is_a_piece_of_the_arabic_tokenizer_and_an_emoji_is_none(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    inputs = tokenizers | {name: tmp_path / name for name in ("natural", "translated", "base")}
    lines = "\n".join(f"العاصمة رقم {i} هي القاهرة 🌹 ومدينة أخرى" for i in range(300))
    write_documents(shard_path(inputs["natural"] / "documents", "s", 0), [Document("a", lines, "s", "ar", "web", "natural")])
    base = model.read(tokenizers["base"] / "tokenizer.model")
    base.pieces.add(piece="ک", score=-9999.0, type=model.NORMAL)
    inputs["base"].mkdir()
    (inputs["base"] / "tokenizer.model").write_bytes(model.serialise(base))
    for alphabet, letter, emoji in (("mergeable", True, False), ("all", False, True)):
        (tmp_path / alphabet).mkdir()
        arabic.run(ArabicTokenizerConfig(vocab_size=320, alphabet=alphabet), inputs, tmp_path / alphabet)  # type: ignore[arg-type]
        pieces = model.normal_pieces(model.read(tmp_path / alphabet / "tokenizer.model"))
        assert ("ک" in pieces, "🌹" in pieces) == (letter, emoji)


RLM = "\u200f"


@pytest.fixture(scope="module")
def marked(tokenizers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    """Real Arabic with a direction mark at every full stop, and a base that has the mark; the stage's inputs, and the folder of what it trained."""
    folder = tmp_path_factory.mktemp("marked")
    inputs = tokenizers | {name: folder / name for name in ("natural", "translated", "base")}
    texts = [d.text.replace(".", f"{RLM}.{RLM}").replace("،", f"»، {RLM}") for d in read_documents(tokenizers["natural"] / "documents") if d.language == "ar"]
    write_documents(shard_path(inputs["natural"] / "documents", "s", 0), [
        Document(str(i), text, "s", "ar", "web", "natural") for i, text in enumerate(texts)])
    proto = model.read(tokenizers["base"] / "tokenizer.model")
    for number, sign in enumerate((RLM, "»")):
        proto.pieces.add(piece=sign, score=-9000.0 - number, type=model.NORMAL)
    inputs["base"].mkdir()
    (inputs["base"] / "tokenizer.model").write_bytes(model.serialise(proto))
    (folder / "arabic").mkdir()
    arabic.run(ArabicTokenizerConfig(vocab_size=700), inputs, folder / "arabic")
    return inputs, folder / "arabic"


def test_pieces_of_signs_that_the_base_lacks_give_way_to_pieces_that_can_be_merged(marked: tuple[dict[str, Path], Path], tmp_path: Path) -> None:
    inputs, folder = marked
    proto, base = model.read(folder / "tokenizer.model"), model.normal_pieces(model.read(inputs["base"] / "tokenizer.model"))
    pieces = model.normal_pieces(proto)
    assert len(proto.pieces) == proto.trainer_spec.vocab_size == 700
    assert {RLM, "»"} <= pieces.keys()
    assert all(len(piece) == 1 or is_arabic_piece(piece) or piece in base for piece in pieces)
    assert list(pieces.values()) == [-float(i) for i in range(len(pieces))]
    assert json.loads((folder / "summary.json").read_text())["unmergeable_pieces"] > 0
    arabic.run(ArabicTokenizerConfig(vocab_size=700, alphabet="all"), inputs, tmp_path)
    assert any(RLM in piece and len(piece) > 1 for piece in model.normal_pieces(model.read(tmp_path / "tokenizer.model")))


def test_no_piece_becomes_unreachable_by_what_was_dropped(marked: tuple[dict[str, Path], Path]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(marked[1] / "tokenizer.model"))
    begin = processor.encode("\n", out_type=str)
    for piece in model.normal_pieces(model.read(marked[1] / "tokenizer.model")):
        assert processor.encode("\n" + piece.replace("▁", " "), out_type=str) == [*begin, piece]


def test_a_piece_that_only_a_dropped_one_leads_to_is_dropped_too(tokenizers: dict[str, Path]) -> None:
    proto = model.read(tokenizers["base"] / "tokenizer.model")
    for number, piece in enumerate((RLM, "»", f"»{RLM}", f"»{RLM}»")):
        proto.pieces.add(piece=piece, score=-9000.0 - number, type=model.NORMAL)
    base = set(model.normal_pieces(proto)) - {f"»{RLM}"}
    assert set(model.normal_pieces(arabic.only_mergeable(proto, base))) == base - {f"»{RLM}»"}


def test_dropping_the_last_merges_is_training_for_fewer_pieces(corpus: dict[str, Path]) -> None:
    more, fewer = (training.train(training.training_lines(folders(corpus), "ar", 2000, 0, HeldOut()), size, 0.9995, "t")[0] for size in (800, 700))
    cut = arabic.first_merges(model.parse(more, "more"), 700)
    assert model.normal_pieces(cut) == model.normal_pieces(model.parse(fewer, "fewer"))


def test_training_again_with_more_gives_as_many_pieces_where_a_first_surplus_is_too_small(
        marked: tuple[dict[str, Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, _ = marked
    asked: list[int] = []
    train = training.train

    def noted(lines: Iterable[str], vocab_size: int, *rest: Any, **more: Any) -> tuple[bytes, dict[str, int]]:
        asked.append(vocab_size)
        return train(lines, vocab_size, *rest, **more)

    monkeypatch.setattr(training, "train", noted)
    lines = [*training.training_lines(folders(inputs), "ar", 10**6, 0, HeldOut()),
             *(f"{a}{b}{a} {b}{b}{a}" for a in RLM + "»" for b in ".,:-" for _ in range(99))]
    data, counts = arabic.train_mergeable(lambda: lines, ArabicTokenizerConfig(vocab_size=700),
                                          {p for p in model.normal_pieces(model.read(inputs["base"] / "tokenizer.model")) if len(p) == 1})
    assert len(model.parse(data, "m").pieces) == 700
    assert asked == [716, 764]
    assert counts["unmergeable_pieces"] > 16


def test_a_text_that_just_suffices_needs_no_surplus(tokenizers: dict[str, Path]) -> None:
    lines = ["قال نعم ثم قال لا"] * 3
    most = len(model.parse(training.train(lines, 10_000, 1.0, "t", at_most=True)[0], "m").pieces)
    config = ArabicTokenizerConfig(vocab_size=300, character_coverage=1.0)
    data, _ = arabic.train_mergeable(lambda: lines, config.model_copy(update={"vocab_size": most}), set("▁ "))
    assert len(model.parse(data, "m").pieces) == most
    with pytest.raises(UserError, match=f"they give {most} that can be merged"):
        arabic.train_mergeable(lambda: lines, config.model_copy(update={"vocab_size": most + 1}), set("▁ "))


def test_a_corpus_without_the_language_is_named(tmp_path: Path) -> None:
    write_documents(shard_path(tmp_path / "natural" / "documents", "s", 0), [Document("a", "نص", "s", "ar", "web", "natural")])
    with pytest.raises(UserError, match=r"tokenizer\.base: no line of text to train on"):
        base.run(BaseTokenizerConfig(vocab_size=300), {"natural": tmp_path / "natural"}, tmp_path)


def reference_to(root: Path, name: str) -> BaseTokenizerConfig:
    path = root / name
    return BaseTokenizerConfig(model=name, files=(FileRef(path=name, sha256=file_sha256(path), size=path.stat().st_size),))


def test_an_existing_model_is_taken_byte_for_byte(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    base.run(reference_to(tokenizers["base"], "tokenizer.model"), {"root": tokenizers["base"]}, tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == (tokenizers["base"] / "tokenizer.model").read_bytes()


def test_an_lfs_pointer_in_place_of_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:9e55\nsize 499723\n")
    with pytest.raises(UserError, match=r"(?s)is no SentencePiece model .*git-lfs.*it is a Git LFS pointer"):
        base.run(reference_to(tmp_path, "tokenizer.model"), {"root": tmp_path}, tmp_path)


def test_a_model_cut_short_is_not_taken_for_a_pointer(tokenizers: dict[str, Path]) -> None:
    data = (tokenizers["base"] / "tokenizer.model").read_bytes()
    with pytest.raises(UserError, match=r"(?s)is no SentencePiece model .*damaged or cut short") as caught:
        model.parse(data[:-7], "cut.model")
    assert "pointer" not in str(caught.value)
    with pytest.raises(UserError, match="7 bytes are no SentencePiece model"):
        Tokenizer(b"garbage")


def test_a_base_that_is_extended_already_is_refused(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has been extended already: it holds <pad>"):
        base.run(reference_to(tokenizers["merged"], "tokenizer.model"), {"root": tokenizers["merged"]}, tmp_path)


def _append(proto: Any, piece: str, score: float, kind: int) -> None:
    proto.pieces.add(piece=piece, score=score, type=kind)


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: _append(p, "الكتاب", 0.0, model.NORMAL), r"extended already: its piece 'الكتاب', id \d+, has the score 0 and ranks above"),
    (lambda p: [_append(p, "ژ", 0.0, model.NORMAL), _append(p, "ژژ", 0.0, model.NORMAL)], "extended already: its piece 'ژژ'"),
    (lambda p: _append(p, "<pad_0>", 0.0, model.CONTROL), "extended already: it holds <pad_0>"),
    (lambda p: [_append(p, f"<pad_{i}>", -1e6 - i, model.NORMAL) for i in range(4)], "padded already: no text can be cut into 4 of its pieces, such as '<p"),
    (lambda p: _append(p, "[unused3]", -1e6, model.NORMAL), r"into 1 of its pieces, such as '\[unused3\]'"),
    (lambda p: _append(p, "ژژ", -1e6, model.UNUSED), "into 1 of its pieces, such as 'ژژ'"),
    (lambda p: _append(p, "", -1e6, model.NORMAL), "no text can be cut into: id 700 is ''"),
    (lambda p: _append(p, "ژژ", math.nan, model.NORMAL), "no text can be cut into: id 700 is 'ژژ' with the score nan"),
    (lambda p: _append(p, "ژژ", -math.inf, model.NORMAL), "the score -inf"),
    (lambda p: setattr(p.trainer_spec, "byte_fallback", False), "has no byte fallback"),
])
def test_a_base_that_is_extended_padded_or_damaged_is_refused_by_name(tokenizers: dict[str, Path], change: Callable[[Any], None], message: str) -> None:
    proto = model.read(tokenizers["base"] / "tokenizer.model")
    model.check_model(proto, "base.model")
    change(proto)
    with pytest.raises(UserError, match=message):
        model.check_model(proto, "base.model")


FAITHFUL = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}


@pytest.mark.parametrize(("settings", "message"), [
    (FAITHFUL | {"model_type": "unigram"}, "is a unigram model.*train"),
    (FAITHFUL | {"byte_fallback": False}, "no byte fallback"),
    ({"model_type": "bpe", "byte_fallback": True}, "changes text before it is cut"),
    (FAITHFUL | {"user_defined_symbols": "<code>"}, "1 user-defined pieces, such as .'<code>'"),
    (FAITHFUL | {"unk_id": 3, "bos_id": 0, "eos_id": 1}, "begins with the pieces"),
])
def test_a_model_that_cannot_be_extended_faithfully_is_refused_with_a_reason(
        corpus: dict[str, Path], tmp_path: Path, settings: dict[str, object], message: str) -> None:
    lines = list(training.training_lines(folders(corpus), "en", 500, 0, HeldOut()))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_prefix=str(tmp_path / "m"), vocab_size=400, minloglevel=2,
                                             hard_vocab_limit=False, **settings)
    with pytest.raises(UserError, match=f"(?s){message}"):
        base.run(reference_to(tmp_path, "m.model"), {"root": tmp_path}, tmp_path)
