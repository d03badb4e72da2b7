"""Bases that have a tokenizer.json only: Llama 3's, Qwen's and GPT-2's kind, extended with Arabic by training onward."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers as library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

sys.path.append(str(Path(__file__).parents[1] / "chat"))
from byte_bases import write_base

from allam.artifacts import file_sha256
from allam.chat.template import encode_conversation
from allam.chat.tokens import CHAT_SPECIALS
from allam.errors import UserError
from allam.section import FileRef
from allam.text.byte_level import ByteLevelTokenizer, to_bytes
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import arabic, base, byte_arabic, byte_base, byte_gate, check, fertility, gate, merge
from allam.tokenizer.config import ArabicTokenizerConfig, BaseTokenizerConfig, FertilityConfig, MergedTokenizerConfig
from allam.tokenizer.sampling import group_of, sample_lines
from allam.tokenizer.script import has_arabic, is_arabic_bytes

KINDS = ("llama3", "qwen", "gpt2")
MERGED = MergedTokenizerConfig(checked_lines=60, max_unmet_share=0.2)
OUTPUTS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "summary.json")


def base_config(folder: Path) -> BaseTokenizerConfig:
    paths = [folder / name for name in ("tokenizer.json", "tokenizer_config.json")]
    return BaseTokenizerConfig(model=folder.name, files=tuple(
        FileRef(path=f"{folder.name}/{path.name}", sha256=file_sha256(path), size=path.stat().st_size) for path in paths))


def run_stages(corpus: dict[str, Path], kind: str, folder: Path) -> dict[str, Path]:
    given = write_base(folder / kind, kind)
    inputs = corpus | {"root": folder} | {name: folder / name for name in ("base", "arabic", "merged")}
    for name in ("base", "arabic", "merged"):
        inputs[name].mkdir()
    base.run(base_config(given), inputs, inputs["base"])
    arabic.run(ArabicTokenizerConfig(vocab_size=650), inputs, inputs["arabic"])
    if kind == "qwen":
        merge.run(MERGED, inputs, inputs["merged"])
    else:  # without the gate, whose tests judge the same tokenizer
        byte_base.write(inputs["merged"], byte_base.extended(byte_base.read(inputs["base"]), byte_arabic.read_merges(inputs["arabic"]), 64), chat=True)
    return inputs


@pytest.fixture(scope="session")
def extended(corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """The stages' folders for each kind of base."""
    return {kind: run_stages(corpus, kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(params=KINDS)
def folders(request: pytest.FixtureRequest, extended: dict[str, dict[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = extended[request.param]
    return found


@cache
def byte_level(folder: Path) -> ByteLevelTokenizer:
    return ByteLevelTokenizer.load(folder)


def test_the_bases_files_are_taken_byte_for_byte(folders: dict[str, Path]) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        given = next(path for path in folders["root"].glob(f"*/{name}") if path.parent.name in KINDS)
        assert (folders["base"] / name).read_bytes() == given.read_bytes()


def test_ids_are_the_bases_then_arabic_pieces_then_chat_tokens_and_padding(folders: dict[str, Path]) -> None:
    before, after = byte_level(folders["base"]), byte_level(folders["merged"])
    assert after.names[:before.vocab_size] == before.names
    merges = json.loads((folders["arabic"] / "merges.json").read_text())
    assert len(merges) == 650 - 258
    first = before.vocab_size + len(merges)
    assert after.names[before.vocab_size:first] == ["".join(pair) for pair in merges]
    added = ([] if "llama3" in str(folders["root"]) else ["<s>"]) + list(CHAT_SPECIALS)
    assert after.names[first:first + len(added)] == added
    assert after.vocab_size % 64 == 0
    assert after.padding == list(range(first + len(added), after.vocab_size))
    assert all(is_arabic_bytes(to_bytes(name)) for name in after.names[before.vocab_size:first])


def test_bos_is_the_bases_own_or_where_it_has_none_a_new_one(extended: dict[str, dict[str, Path]]) -> None:
    llama, qwen = (byte_level(extended[kind]["merged"]) for kind in ("llama3", "qwen"))
    assert llama.names[llama.bos_id] == "<|begin_of_text|>"
    assert (qwen.names[qwen.bos_id], qwen.names[qwen.eos_id]) == ("<s>", "<|endoftext|>")
    before = byte_level(extended["qwen"]["base"])
    assert before.bos_id == before.eos_id == qwen.eos_id


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.text("ا ب\u064e\u0651.ت a<|eot_id|>", max_size=40))
def test_any_text_comes_back_gives_no_special_id_and_without_arabic_keeps_the_bases(folders: dict[str, Path], text: str) -> None:
    before, after = (byte_level(folders[name]) for name in ("base", "merged"))
    ids = after.encode(text)
    assert after.decode(ids) == after.normalise(text)
    assert {*after.special.values(), *after.padding}.isdisjoint(ids)
    if not has_arabic(text):
        assert ids == before.encode(text)


def test_qwens_normalisation_brings_text_into_nfc(extended: dict[str, dict[str, Path]]) -> None:
    tokenizer = byte_level(extended["qwen"]["merged"])
    assert tokenizer.decode(tokenizer.encode("cafe\u0301 ا\u0653")) == "caf\u00e9 \u0622"
    promises = json.loads((extended["qwen"]["merged"] / "gate.json").read_text())
    assert any("(in NFC, which changes 1," in promise["promise"] for promise in promises)


def test_pieces_read_as_text_and_parts_of_characters_as_bytes(extended: dict[str, dict[str, Path]]) -> None:
    tokenizer = byte_level(extended["gpt2"]["merged"])
    ids = tokenizer.encode("the \u06e9")
    assert "".join(tokenizer.pieces(ids)) == "the▁<0xDB><0xA9>"
    assert [tokenizer.is_byte(i) for i in ids[-2:]] == [True, True]
    assert not any(map(tokenizer.is_byte, tokenizer.encode("the")))


def test_a_lone_surrogate_is_refused_with_its_place(extended: dict[str, dict[str, Path]]) -> None:
    with pytest.raises(UserError, match="at position 1"):
        byte_level(extended["llama3"]["merged"]).encode("a\ud800")


def test_saving_and_loading_in_transformers_changes_no_id(folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer, texts = byte_level(folders["merged"]), check.noise()
    AutoTokenizer.from_pretrained(folders["merged"]).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text, ids in zip(texts, again(texts, split_special_tokens=True)["input_ids"], strict=True):
        assert ids == [tokenizer.bos_id, *tokenizer.encode(text)]


def test_the_chat_template_gives_our_ids_and_mask_also_where_messages_spell_special_tokens(folders: dict[str, Path]) -> None:
    tokenizer, exported = byte_level(folders["merged"]), AutoTokenizer.from_pretrained(folders["merged"])
    spelled = " ".join(tokenizer.special) + " [MASK] <tool_call> <\ufdd0|end|> [\ufdd0MASK] <|padding_0|>"
    messages = [{"role": "system", "content": spelled}, {"role": "user", "content": "ما العاصمة؟ " + spelled}, {"role": "assistant", "content": spelled}]
    encoded = exported.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = encode_conversation(tokenizer, messages)
    assert (list(encoded["input_ids"]), list(encoded["assistant_masks"])) == (ids, mask)
    assert ids.count(tokenizer.bos_id) == 1


def test_the_same_corpus_gives_the_same_bytes(extended: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    again, before = tmp_path, extended["llama3"]
    arabic.run(ArabicTokenizerConfig(vocab_size=650), before, again)
    assert all((again / file).read_bytes() == (before["arabic"] / file).read_bytes() for file in (*OUTPUTS, "merges.json"))


def test_arabic_costs_fewer_tokens_and_english_and_code_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    fertility.run(FertilityConfig(max_documents=30), folders, tmp_path)
    rows = json.loads((tmp_path / "fertility.json").read_text())["rows"]
    cost = {(row["tokenizer"], row["language"]): row["tokens_per_word"] for row in rows}
    assert cost["merged", "arabic"] < 0.7 * cost["base", "arabic"]
    assert all(cost["merged", language] == cost["base", language] for language in ("english", "code"))


def test_a_vocabulary_too_large_for_the_text_is_refused_with_what_there_is(extended: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vocab_size: 90000 pieces .* could not be trained on \d+ different words: after \d+ merges"):
        arabic.run(ArabicTokenizerConfig(vocab_size=90_000), extended["llama3"], tmp_path)


# --- the gate, each promise broken on purpose ------------------------------------------------------------------------------------


@pytest.fixture
def broken(extended: dict[str, dict[str, Path]], tmp_path: Path) -> Callable[..., dict[str, gate.Finding]]:
    """The promises that the stage's own tokenizer breaks after `change` has been at its tokenizer.json."""
    def by(change: Callable[[dict[str, Any]], None], more: Sequence[str] = ()) -> dict[str, gate.Finding]:
        inputs = extended["llama3"]
        data = json.loads((inputs["merged"] / "tokenizer.json").read_text())
        change(data)
        (tmp_path / "tokenizer.json").write_text(json.dumps(data))
        (tmp_path / "tokenizer_config.json").write_bytes((inputs["merged"] / "tokenizer_config.json").read_bytes())
        lines: gate.Lines = {"noise": [*check.noise()[:60], *more]}
        for group, line in sample_lines([inputs["natural"] / "documents"], group_of, 100, 0):
            lines.setdefault(group, []).append(line)
        config = MergedTokenizerConfig(max_unmet_share=1.0)
        findings = byte_gate.measure(gate.Folders(inputs["base"], inputs["arabic"], tmp_path), lines, config, lines["arabic"], thorough=False)
        found = {finding.promise: finding for finding in findings if not finding.held}
        if found:
            with pytest.raises(UserError, match=f"breaks {len(found)} of {len(findings)} promises"):
                gate.require(findings)
        return found

    return by


def test_words_that_the_arabic_only_tokenizer_cuts_otherwise_are_listed_with_their_cause(extended: dict[str, dict[str, Path]]) -> None:
    folders = extended["qwen"]  # whose gate the stage has been through
    before, alone, after = (byte_level(folders[name]) for name in ("base", "arabic", "merged"))
    rows = [json.loads(line) for line in (folders["merged"] / gate.EXCEPTIONS).read_text(encoding="utf-8").splitlines()]
    [finding] = [f for f in json.loads((folders["merged"] / "gate.json").read_text()) if f["promise"].startswith("running Arabic words")]
    assert finding["held"]
    assert sum(row["count"] for row in rows) == finding["of"] - finding["measured"] > 0
    assert all(row["merged"] == after.pieces(after.encode(row["word"])) != row["arabic_only"] == alone.pieces(alone.encode(row["word"])) for row in rows)
    named = {row["cause"] for row in rows} - {gate.RANKED_FIRST}
    assert all(any(repr(piece) in cause for piece in before.pieces(range(before.vocab_size))) for cause in named)


def test_the_stages_own_tokenizer_keeps_every_promise(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    assert broken(lambda data: None) == {}


def first_new(data: dict[str, Any]) -> int:
    """The id of the first new piece."""
    return 1 + max(token["id"] for token in data["added_tokens"] if token["content"] not in CHAT_SPECIALS)


def test_an_english_piece_shows_in_its_bytes_and_in_the_lines_that_changed(
        broken: Callable[..., dict[str, gate.Finding]], extended: dict[str, dict[str, Path]]) -> None:
    before = byte_level(extended["llama3"]["base"])
    left, right = before.names[before.encode(" archipelago")[0]], before.names[before.encode(" archipelago")[1]]

    def change(data: dict[str, Any]) -> None:
        """The last new piece becomes one of two neighbours in English words."""
        vocab, merges = data["model"]["vocab"], data["model"]["merges"]
        vocab[left + right] = vocab.pop("".join(merges.pop()))
        merges.append([left, right])

    found = broken(change, more=["An archipelago is a group of islands."])
    assert {"new pieces that text without Arabic script could meet", "lines without Arabic script whose ids changed"} <= found.keys()
    assert "archipelago" in found["lines without Arabic script whose ids changed"].examples[0]


def test_new_merges_before_the_bases_are_found(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(data: dict[str, Any]) -> None:
        data["model"]["merges"].insert(0, data["model"]["merges"].pop())

    finding = broken(change)["ids, merges and settings of the base that changed"]
    assert finding.examples[0].startswith("merge 0 was (")


def test_a_moved_id_is_named(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(data: dict[str, Any]) -> None:
        vocab = data["model"]["vocab"]
        vocab["a"], vocab["b"] = vocab["b"], vocab["a"]

    assert any("'a' had the id" in example for example in broken(change)["ids, merges and settings of the base that changed"].examples)


def test_a_piece_whose_part_is_never_made_is_unreachable(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    """A step on the way is taken out, so that what is built on it can't be reached; whole words are still found, since Llama 3 looks them up."""
    def change(data: dict[str, Any]) -> None:
        new = {name for name, i in data["model"]["vocab"].items() if i >= first_new(data)}
        merges = data["model"]["merges"]
        step = next(pair for pair in reversed(merges) if pair[0] in new)[0]
        merges[:] = [pair for pair in merges if "".join(pair) != step]

    finding = broken(change)["new pieces that no text can reach"]
    assert finding.measured >= 2


def test_a_special_token_that_text_can_spell_is_found(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(data: dict[str, Any]) -> None:
        next(token for token in data["added_tokens"] if token["content"] == "<|end|>")["special"] = False

    assert "special tokens and padding rows that text can spell" in broken(change)


def test_arabic_that_costs_more_than_the_bound_shows_the_dearest_words(broken: Callable[..., dict[str, gate.Finding]]) -> None:
    def change(data: dict[str, Any]) -> None:
        new = {name for name, i in data["model"]["vocab"].items() if i >= first_new(data)}
        data["model"]["merges"] = [pair for pair in data["model"]["merges"] if "".join(pair) not in new]
        data["model"]["ignore_merges"] = True

    assert any(name.startswith("tokens of arabic, over") for name in broken(change))


# --- what can't be extended ------------------------------------------------------------------------------------------------------


def refused(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], match: str) -> None:
    data, config = (json.loads((folder / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json"))
    change(data, config)
    target = folder.parent / "changed"
    target.mkdir(exist_ok=True)
    (target / "tokenizer.json").write_text(json.dumps(data))
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=match) as caught:
        byte_base.read(target)
    assert "->" in str(caught.value)


@pytest.mark.parametrize(("match", "change"), [
    ("is a WordPiece tokenizer", lambda data, config: data.update(model=json.loads(library.models.WordPiece({"a": 0}).__getstate__()))),
    ("is a unigram tokenizer", lambda data, config: data["model"].update(type="Unigram")),
    ("made of a SentencePiece model", lambda data, config: data["model"].update(byte_fallback=True)),
    ("no step of type ByteLevel", lambda data, config: data.update(pre_tokenizer={"type": "Whitespace"})),
    ("1 bytes have no piece", lambda data, config: data["model"]["vocab"].pop("Ġ")),
    ("end_of_word_suffix '</w>'", lambda data, config: data["model"].update(end_of_word_suffix="</w>")),
    ("puts a space before each text", lambda data, config: data["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True)),
    (r"changes text before it is cut \(Lowercase\)", lambda data, config: data.update(normalizer={"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})),
    ("names no eos_token", lambda data, config: config.pop("eos_token")),
    ("'<|nothing|>' is no special token", lambda data, config: config.update({"eos_token": "<|nothing|>"})),
    ("has been extended already", lambda data, config: data["added_tokens"].append(byte_base.special_token("<|user|>", 9999))),
    ("holds <s>, and", lambda data, config: data["added_tokens"].append(byte_base.special_token("<s>", 9999))),
    ("has two tokens", lambda data, config: data["model"]["vocab"].update({"xyz": 5})),
])
def test_a_base_that_cannot_be_trained_onward_is_refused_with_what_to_give(
        extended: dict[str, dict[str, Path]], tmp_path: Path, match: str, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    (tmp_path / "base").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_bytes((extended["llama3"]["base"] / name).read_bytes())
    refused(tmp_path / "base", change, match)


def test_a_pointer_in_place_of_the_file_and_a_missing_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"there is no tokenizer_config\.json beside"):
        byte_base.read(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="is no JSON"):
        byte_base.read(tmp_path)


def test_the_kind_of_base_is_found_by_its_files(extended: dict[str, dict[str, Path]], tokenizers: dict[str, Path]) -> None:
    assert isinstance(Tokenizer.load(extended["qwen"]["base"]), ByteLevelTokenizer)
    assert not isinstance(Tokenizer.load(tokenizers["merged"]), ByteLevelTokenizer)
