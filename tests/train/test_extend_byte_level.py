"""Embeddings for a byte-level base's new pieces: the mean of the rows of the base's pieces that each is merged from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig

sys.path.append(str(Path(__file__).parents[1] / "chat"))
from byte_bases import write_base

from allam.engine.model import new_model, save_model
from allam.errors import StageFailed, UserError
from allam.text.byte_level import ByteLevelTokenizer, to_bytes
from allam.tokenizer import byte_base, onward
from allam.tokenizer.byte_arabic import arabic_words
from allam.tokenizer.script import is_arabic_bytes
from allam.train import export, extend
from allam.train.config import ExtendConfig
from allam.train.shape import write_generation_config
from allam.train.spelling import spell_new_pieces

LINES = ["باريس عاصمة فرنسا، ويمر بها نهر السين.", "القاهرة عاصمة مصر وأكبر مدنها.", "عاصمة العراق بغداد، وعاصمة الشام دمشق.", "ﷺ ﷺ"] * 2


class Bases:
    """A base's tokenizer and model, and the tokenizer extended by a few Arabic pieces."""

    def __init__(self, kind: str, folder: Path, tied: bool) -> None:
        self.base, self.merged, self.folder = write_base(folder / "base", kind), folder / "merged", folder
        self.before = ByteLevelTokenizer.load(self.base)
        words, _ = arabic_words(self.before, LINES)
        merges = onward.train(words, lambda word: [self.before.names[i] for i in self.before.spell(word)], self.before.names, 20,
                              lambda name: is_arabic_bytes(to_bytes(name)))
        byte_base.write(self.merged, byte_base.extended(byte_base.read(self.base), merges, 16), chat=True)
        self.after = ByteLevelTokenizer.load(self.merged)
        config = LlamaConfig(vocab_size=self.before.vocab_size + 3, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                             num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=tied, bos_token_id=self.before.bos_id)
        model = new_model(config, seed=0)
        save_model(folder / "model" / "model", config, [(name, p.detach() * 10) for name, p in model.named_parameters()], self.base)
        write_generation_config(folder / "model" / "model", self.before)

    def extend(self, **config: object) -> Path:
        out = self.folder / "extended"
        out.mkdir()
        extend.run(ExtendConfig.model_validate({"base_padding_rows": 3} | config),
                   {"model": self.folder / "model", "base_tokenizer": self.base, "tokenizer": self.merged}, out)
        return out

    def rows(self, folder: Path, name: str) -> torch.Tensor:
        return load_file(folder / "model" / "model.safetensors")[name]


@pytest.mark.parametrize(("kind", "tied"), [("llama3", False), ("qwen", True)])
def test_new_rows_are_the_mean_of_the_parts_also_where_these_end_within_characters(kind: str, tied: bool, tmp_path: Path) -> None:
    bases = Bases(kind, tmp_path, tied)
    out = bases.extend()
    spelled = spell_new_pieces(bases.base, bases.merged)
    parted = [i for i, ids in enumerate(spelled) if any(map(bases.before.is_byte, ids))]
    assert parted
    for name in (extend.INPUT,) if tied else (extend.INPUT, extend.OUTPUT):
        old, new = bases.rows(tmp_path / "model", name), bases.rows(out, name)
        first = bases.before.vocab_size
        assert torch.equal(new[:first], old[:first])
        for i in range(20):
            assert torch.allclose(new[first + i], old[spelled[i]].mean(dim=0), atol=1e-6)
        if kind == "qwen":  # its `<s>` begins as the token that began the base's documents
            assert torch.equal(new[bases.after.bos_id], old[bases.before.eos_id])
        assert torch.allclose(new[bases.after.special["<|end|>"]], old[:first].mean(dim=0), atol=1e-6)
    proof = json.loads((out / "proof.json").read_text())
    assert proof["logits"]["padding_row_likeliest"] == 0
    config = json.loads((out / "model" / "config.json").read_text())
    assert (config["bos_token_id"], config["vocab_size"]) == (bases.after.bos_id, bases.after.vocab_size)


def test_random_rows_and_the_bos_that_a_base_lacks_go_together(tmp_path: Path) -> None:
    assert Bases("qwen", tmp_path, tied=False).extend(method="random").is_dir()


def test_a_piece_followed_back_through_its_merges_is_what_the_base_makes_of_its_bytes(tmp_path: Path) -> None:
    bases = Bases("llama3", tmp_path, tied=True)
    first = bases.before.vocab_size
    for token in range(first, first + 20):
        assert bases.after.parts(token, first) == bases.before.spell(bases.after.names[token])


def test_rows_of_the_wrong_pieces_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = Bases("llama3", tmp_path, tied=True)
    monkeypatch.setattr(extend, "spell_new_pieces", lambda *folders: (lambda ids: [ids[1], ids[0], *ids[2:]])(spell_new_pieces(*folders)))
    with pytest.raises(StageFailed, match="is not that of its text"):
        bases.extend()


def test_a_merged_tokenizer_of_another_kind_is_refused(tmp_path: Path, merged_tokenizer: Path) -> None:
    base = write_base(tmp_path / "base", "llama3")
    with pytest.raises(UserError, match="holds a SentencePiece model and the other byte-level BPE"):
        spell_new_pieces(base, merged_tokenizer)


def test_the_extended_model_is_exported_with_its_tokenizer(tmp_path: Path) -> None:
    bases = Bases("qwen", tmp_path, tied=True)
    out = bases.extend()
    (tmp_path / "export").mkdir()
    export.run(None, {"model": out, "tokenizer": bases.merged}, tmp_path / "export")  # type: ignore[arg-type]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "export" / "model")
    for text in LINES:
        assert theirs(text)["input_ids"] == [bases.after.bos_id, *bases.after.encode(text)]
