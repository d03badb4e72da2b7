"""Training and sampling: the same corpus gives the same bytes, nothing held out is seen, mistakes are explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from allam.artifacts import file_sha256
from allam.documents import Document, is_held_out, read_documents, shard_path, write_documents
from allam.errors import UserError
from allam.section import FileRef, HeldOut
from allam.tokenizer import arabic, base, model, sampling, training
from allam.tokenizer.config import ArabicTokenizerConfig, BaseTokenizerConfig

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
    with pytest.raises(UserError, match=r"is no SentencePiece model .*git-lfs"):
        base.run(reference_to(tmp_path, "tokenizer.model"), {"root": tmp_path}, tmp_path)


def test_a_base_that_is_extended_already_is_refused(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has been extended already: it holds <pad>"):
        base.run(reference_to(tokenizers["merged"], "tokenizer.model"), {"root": tokenizers["merged"]}, tmp_path)


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
