"""Extension: what new rows are by each method, what is proven of what was written, and which inputs are refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from allam.documents import Document, shard_path, write_documents
from allam.engine.model import load_config, new_model, save_model
from allam.errors import StageFailed, UserError
from allam.files import FileTable
from allam.section import HeldOut
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import merge
from allam.tokenizer.model import read, serialise
from allam.train import alignment, export, extend, import_model, new_rows, spelling
from allam.train.config import ExtendConfig, ImportConfig
from allam.train.shape import write_generation_config
from allam.train.shards import Shards, lengthen
from bench import _checkpoint

OLD = 340
CODE = Path(__file__).parents[2]


def base_model(tokenizer: Path, out: Path, *, tied: bool = False, rows: int = OLD,
               dtype: torch.dtype = torch.float32, shard_bytes: int = 2**40, **changes: Any) -> Path:
    """An artifact's folder with an untrained Llama for the base tokenizer, in as many shards as `shard_bytes` makes."""
    config = LlamaConfig(vocab_size=rows, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         max_position_embeddings=256, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2)
    model = new_model(config, seed=0)
    weights = {name: (p.detach() * 10).to(dtype) for name, p in model.named_parameters()} | changes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("allam.engine.model.SHARD_BYTES", shard_bytes)
        save_model(out / "model", config, [(name, value) for name, value in weights.items() if value is not None], tokenizer)
    write_generation_config(out / "model", Tokenizer.load(tokenizer))
    return out


class Extending:
    """Base and merged tokenizer, and a way to run the stage."""

    def __init__(self, base: Path, merged: Path, root: Path) -> None:
        self.base, self.merged, self.root = base, merged, root
        self.runs = 0

    def model(self, **how: Any) -> Path:
        self.runs += 1
        return base_model(self.base, self.root / f"base-{self.runs}", **how)

    def run(self, model: Path, *, inputs: dict[str, Path] | None = None, **config: Any) -> Path:
        self.runs += 1
        out = self.root / f"extended-{self.runs}"
        out.mkdir()
        given = {"model": model, "base_tokenizer": self.base, "tokenizer": self.merged} | (inputs or {})
        self.metrics = extend.run(ExtendConfig.model_validate(config), given, out)
        return out


@pytest.fixture
def extending(base_tokenizer: Path, merged_tokenizer: Path, tmp_path: Path) -> Extending:
    return Extending(base_tokenizer, merged_tokenizer, tmp_path)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in (folder / "model").glob("*.safetensors") for name, value in load_file(path).items()}


# --- values ------------------------------------------------------------------------------------------------------------------------

def test_exponential_rows_lean_to_the_last_part_coming_in_and_to_the_first_going_out(extending: Extending) -> None:
    model = extending.model()
    before, after = tensors(model), tensors(extending.run(model, method="exponential"))
    first, second = extend.spell_new_pieces(extending.base, extending.merged)[2][:2]
    spelled = extend.spell_new_pieces(extending.base, extending.merged)[3]  # `ية`: four bytes
    assert len(spelled) == 4
    powers = [math.exp(2 * i) for i in range(4)]
    for name, weights in ((extend.INPUT, powers), (extend.OUTPUT, powers[::-1])):
        expected = sum(w / sum(powers) * before[name][i] for w, i in zip(weights, spelled, strict=True))
        assert torch.allclose(after[name][OLD + 3], expected, atol=1e-6)
    assert first != second


def test_exponential_shares_of_a_very_long_piece_don_t_overflow() -> None:
    for steepness in (2.0, -2.0):
        shares = [share for _, share in new_rows.exponential_weights([list(range(2000))], steepness)[0]]
        assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize(("method", "tied"), [("mean", True), ("random", False), ("exponential", True)])
def test_ids_without_text_get_the_mean_of_all_rows_whatever_the_method(extending: Extending, method: str, tied: bool) -> None:
    model = extending.model(tied=tied)
    before, after = tensors(model), tensors(extending.run(model, method=method))
    special = Tokenizer.load(extending.merged)
    assert (extend.OUTPUT in after) is not tied
    for name in after.keys() & {extend.INPUT, extend.OUTPUT}:
        for token in (special.special["<|end|>"], *special.padding):
            assert torch.allclose(after[name][token], before[name].mean(dim=0), atol=1e-6)


def test_random_rows_have_the_old_rows_mean_and_covariance() -> None:
    old = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 0.5, 3.0]) + 1
    drawn = torch.cat(list(new_rows.random_rows(old, new_rows.mean_row(old), torch.ones(20_000, dtype=torch.bool), seed=1)))
    assert torch.allclose(drawn.mean(0), old.mean(0), atol=0.1)
    assert torch.allclose(drawn.T.cov(), old.T.cov(correction=0), atol=0.3)
    assert torch.equal(drawn, torch.cat(list(new_rows.random_rows(old, new_rows.mean_row(old), torch.ones(20_000, dtype=torch.bool), seed=1))))
    assert not torch.equal(drawn, torch.cat(list(new_rows.random_rows(old, new_rows.mean_row(old), torch.ones(20_000, dtype=torch.bool), seed=2))))


def test_rows_are_the_same_however_many_fit_into_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    old = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    weights = new_rows.mean_weights([[i % 50, (7 * i) % 50, 3] for i in range(90)] + [[]])
    whole = torch.cat(list(new_rows.weighted_rows(old, new_rows.mean_row(old), weights)))
    monkeypatch.setattr(new_rows, "BLOCK_VALUES", 80)
    blocks = list(new_rows.weighted_rows(old, new_rows.mean_row(old), weights))
    assert len(blocks) > 5
    assert max(map(len, blocks)) <= 10
    assert torch.equal(torch.cat(blocks), whole)
    assert whole[0].equal(old[[0, 0, 3]].double().mean(0).bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_block_in_which_no_id_has_text_is_the_mean(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(new_rows, "BLOCK_VALUES", 16)
    old = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    average = new_rows.mean_row(old)
    made = torch.cat(list(new_rows.weighted_rows(old, average, new_rows.mean_weights([[], [], [], [4, 5], []]))))
    assert made.dtype == dtype
    assert made[[0, 1, 2, 4]].equal(average.to(dtype).expand(4, 8))
    assert made[3].equal(old[[4, 5]].double().mean(0).to(dtype))


# --- by translation ----------------------------------------------------------------------------------------------------------------

WORDS = {"الماء": "Water", "عاصمة": "capital", "المدينة": "week", "ية": "iron"}


def parallel(root: Path, held_out: str = "") -> dict[str, Path]:
    """Documents of a few lines, English and Arabic, in which `WORDS` translate each other among words that don't."""
    english, arabic = [], []
    names = list(WORDS.items())
    for i in range(60):
        chosen = [names[(i + k) % len(names)] for k in (0, 1 + i % 2)]
        texts = [" ".join(pair[side] for pair in chosen) + (f"\n{chosen[0][side]}") for side in (1, 0)]
        english.append(Document(f"e{i}", texts[0], "web_en", "en", "web", "natural"))
        arabic.append(Document(f"a{i}", texts[1], "web_ar", "ar", "web", "translated", translation_of=f"e{i}"))
    write_documents(shard_path(root / "natural" / "documents", "web_en", 0), english)
    write_documents(shard_path(root / "translated" / "documents", "web_ar", 0), arabic)
    return {"natural": root / "natural", "translated": root / "translated"}


@pytest.fixture
def reachable(extending: Extending) -> Extending:
    """The base with pieces learnt from the Arabic words, so that the words are single ids."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(WORDS) * 20), model_prefix=str(extending.root / "arabic"), model_type="bpe", vocab_size=295, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2, num_threads=1)
    base, arabic = read(extending.base / "tokenizer.model"), read(extending.root / "arabic.model")
    merged = merge.add_specials(merge.add_pieces(base, merge.new_pieces(base, arabic, lambda piece: True)), 8)
    extending.merged = extending.root / "reachable"
    extending.merged.mkdir()
    (extending.merged / "tokenizer.model").write_bytes(serialise(merged))
    return extending


def test_translation_gives_a_piece_the_rows_of_the_english_that_it_translates(reachable: Extending) -> None:
    inputs, folder = parallel(reachable.root), reachable.model()
    before, after = tensors(folder), tensors(reachable.run(folder, inputs=inputs, method="translation"))
    base, merged = Tokenizer.load(reachable.base), Tokenizer.load(reachable.merged)
    learnt = alignment.translations(ExtendConfig(method="translation"), inputs, base, merged, OLD)
    english = {arabic: set(base.encode(word)) for arabic, word in WORDS.items()}
    for arabic in WORDS:
        (piece,) = merged.encode(arabic)
        shares = learnt[piece - OLD]
        others = set().union(*(ids for word, ids in english.items() if word != arabic)) - english[arabic]
        assert sum(share for i, share in shares if i in english[arabic]) > 0.9
        assert not {i for i, _ in shares} & others
        for name in (extend.INPUT, extend.OUTPUT):
            assert torch.allclose(after[name][piece], sum(share * before[name][i] for i, share in shares), atol=1e-6)


def test_a_piece_that_no_translation_meets_gets_the_mean_of_its_spelling(reachable: Extending) -> None:
    inputs, folder = parallel(reachable.root), reachable.model()
    by_translation, by_mean = (tensors(reachable.run(folder, inputs=inputs, method=method))[extend.INPUT] for method in ("translation", "mean"))
    step = Tokenizer.load(reachable.merged).encode("الم")[0]  # a step on the way to a word, which no line holds
    assert step >= OLD
    assert torch.equal(by_translation[step], by_mean[step])
    assert not torch.equal(by_translation, by_mean)


def test_translation_reads_no_held_out_document_and_not_more_pairs_than_asked_for(extending: Extending) -> None:
    inputs = parallel(extending.root)
    count = {share: len(list(alignment.lines(ExtendConfig(held_out=HeldOut(share=share), max_pairs=500), inputs))) for share in (0.0, 0.5)}
    assert count[0.0] == 120
    assert 20 < count[0.5] < 100
    some = list(alignment.lines(ExtendConfig(held_out=HeldOut(share=0.0), max_pairs=7), inputs))
    assert len(some) == 7
    assert some == list(alignment.lines(ExtendConfig(held_out=HeldOut(share=0.0), max_pairs=7), inputs))


def test_translation_without_any_translation_says_so(extending: Extending) -> None:
    inputs = parallel(extending.root)
    with pytest.raises(UserError, match="the corpus holds no translation"):
        extending.run(extending.model(), inputs=inputs | {"natural": inputs["translated"]}, method="translation")


# --- shards and proof --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_only_shards_with_embeddings_are_written_anew_and_transformers_loads_all(extending: Extending, dtype: torch.dtype) -> None:
    model = extending.model(shard_bytes=20_000, dtype=dtype)
    out = extending.run(model)
    names = sorted(path.name for path in (model / "model").glob("*.safetensors"))
    assert len(names) >= 3
    assert sorted(path.name for path in (out / "model").glob("*.safetensors")) == names
    linked = [name for name in names if (out / "model" / name).samefile(model / "model" / name)]
    assert len(linked) == len(names) - 2
    loaded, info = AutoModelForCausalLM.from_pretrained(out / "model", dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    assert loaded.config.vocab_size == loaded.get_output_embeddings().weight.shape[0] == Tokenizer.load(extending.merged).vocab_size
    assert loaded.dtype == dtype
    before, after = tensors(model), tensors(out)
    assert all(torch.equal(after[name][: len(value)], value) for name, value in before.items())
    index = json.loads((out / "model" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in after.values())
    assert set(index["weight_map"]) == set(after)


def test_writing_over_an_extended_folder_leaves_the_base_as_it_was(extending: Extending) -> None:
    model = extending.model(shard_bytes=20_000)
    before = {path.name: path.read_bytes() for path in (model / "model").iterdir()}
    out = extending.run(model)
    first = tensors(out)
    given = {"model": model, "base_tokenizer": extending.base, "tokenizer": extending.merged}
    extend.run(ExtendConfig(), given, out)
    assert {path.name: path.read_bytes() for path in (model / "model").iterdir()} == before
    assert all(torch.equal(value, first[name]) for name, value in tensors(out).items())


def test_where_files_can_t_be_linked_they_are_copied(extending: Extending, monkeypatch: pytest.MonkeyPatch) -> None:
    model = extending.model(shard_bytes=20_000)

    def refuse(*args: Any, **more: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    out = extending.run(model)
    assert json.loads((out / "proof.json").read_text())["old_values"]["linked_files"] == 0
    assert set(tensors(out)) == set(tensors(model))


def test_proof_json_says_what_was_checked(extending: Extending) -> None:
    out = extending.run(extending.model())
    proof = json.loads((out / "proof.json").read_text())
    assert proof == extending.metrics["proof"]
    assert proof["old_values"] == {"tensors": 21, "changed": 0, "files": 1, "linked_files": 0}
    assert proof["new_rows"][extend.INPUT]["computed_again"] == 11
    assert proof["new_rows"][extend.OUTPUT]["largest_difference"] < 1e-6
    assert proof["padding_rows"]["rows"] == 2
    assert proof["transformers"] == {"class": "LlamaForCausalLM", "shapes_compared": 21}
    assert proof["logits"]["largest_difference"] <= 1e-5 * proof["logits"]["largest_logit"]
    assert proof["logits"]["padding_row_likeliest"] == 0


def test_a_model_above_the_bound_says_that_its_logits_were_not_compared(extending: Extending) -> None:
    extending.run(extending.model(), logits_below=1000)
    assert extending.metrics["proof"]["logits"] == {"skipped": "37,280 parameters, train.extend.logits_below is 1,000"}


def spoil(path: Path, name: str, row: int) -> None:
    """Changes one value of one row."""
    values = load_file(path)
    values[name][row, 5] += 0.25
    save_file(values, path, metadata={"format": "pt"})


@pytest.mark.parametrize(("name", "row", "told"), [
    (extend.INPUT, 17, "changed old values of model.embed_tokens.weight"), ("model.layers.1.mlp.up_proj.weight", 3, "changed old values of model.layers.1"),
    (extend.OUTPUT, OLD + 2, "lm_head.weight: the row of id 342 \\('▁الماء'\\) is not that of its text"),
    (extend.INPUT, OLD + 10, "the row of id 350 \\('<|padding_1|>'\\) is not")])
def test_a_wrong_value_on_disk_fails_the_proof_with_its_place(extending: Extending, monkeypatch: pytest.MonkeyPatch, name: str, row: int, told: str) -> None:
    def lengthen_and_spoil(source: Shards, target: Path, changes: Any) -> None:
        lengthen(source, target, changes)
        spoil(target / "model.safetensors", name, row)

    monkeypatch.setattr(extend, "lengthen", lengthen_and_spoil)
    with pytest.raises(StageFailed, match=told.replace("|", "\\|")):
        extending.run(extending.model())


def test_rows_given_to_the_wrong_ids_fail_the_proof(extending: Extending, monkeypatch: pytest.MonkeyPatch) -> None:
    right = extend.spell_new_pieces
    monkeypatch.setattr(extend, "spell_new_pieces", lambda *folders: (lambda ids: [ids[1], ids[0], *ids[2:]])(right(*folders)))
    with pytest.raises(StageFailed, match=r"the row of id 340 .* is not that of its text"):
        extending.run(extending.model())


def test_transformers_never_generates_a_padding_row_even_where_it_is_the_likeliest(extending: Extending) -> None:
    model = extending.model()
    rows = tensors(model)[extend.OUTPUT]
    out = extending.run(model)
    token = Tokenizer.load(extending.merged).padding[0]
    values = load_file(out / "model" / "model.safetensors")
    prompt = torch.tensor([[1, 300, 301]])
    loaded = AutoModelForCausalLM.from_pretrained(out / "model")
    hidden = loaded.model(prompt).last_hidden_state[0, -1].detach()
    values[extend.OUTPUT][token] = hidden * 100
    save_file(values, out / "model" / "model.safetensors", metadata={"format": "pt"})
    spoiled = AutoModelForCausalLM.from_pretrained(out / "model")
    assert int(spoiled(prompt).logits[0, -1].argmax()) == token
    made = spoiled.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
    assert not set(made[0].tolist()) & set(Tokenizer.load(extending.merged).padding)
    assert len(rows) == OLD


@pytest.mark.parametrize(("tied", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_export_and_import_again_change_nothing(extending: Extending, tied: bool, dtype: torch.dtype) -> None:
    extended = extending.run(extending.model(tied=tied, dtype=dtype))
    exported, imported = extending.root / "exported", extending.root / "imported"
    exported.mkdir()
    imported.mkdir()
    export.run(None, {"model": extended, "tokenizer": extending.merged}, exported)  # type: ignore[arg-type]
    files = FileTable(exported).resolve("train.import_model.model", "model")
    import_model.run(ImportConfig(model="model", files=files), {"root": exported, "tokenizer": extending.merged}, imported)
    first = tensors(extended)
    for folder in (exported, imported):
        assert all(torch.equal(value, first[name]) for name, value in tensors(folder).items())
        assert set(tensors(folder)) == set(first)
        assert load_config(folder / "model").to_dict() == load_config(extended / "model").to_dict() | {"_name_or_path": str(folder / "model")}
        assert (folder / "model" / "tokenizer.model").read_bytes() == (extending.merged / "tokenizer.model").read_bytes()
        never = json.loads((folder / "model" / "generation_config.json").read_text())["suppress_tokens"]
        assert set(Tokenizer.load(extending.merged).padding) <= set(never)


def test_an_export_that_answers_alike_with_other_weights_is_refused(extending: Extending, monkeypatch: pytest.MonkeyPatch) -> None:
    extended, out = extending.run(extending.model()), extending.root / "exported"
    out.mkdir()
    save = export.save_model
    monkeypatch.setattr(export, "save_model", lambda folder, config, weights, *rest: save(
        folder, config, ((name, value * 2 if name == extend.OUTPUT else value) for name, value in weights), *rest))
    with pytest.raises(StageFailed, match=r"lm_head.weight of the exported model differs from the model that went in"):
        export.run(None, {"model": extended, "tokenizer": extending.merged}, out)  # type: ignore[arg-type]


@pytest.mark.slow
def test_memory_stays_within_one_and_a_half_times_the_largest_shard(tmp_path: Path) -> None:
    base, merged = _checkpoint.tokenizers(tmp_path, 16_000, 16_000)
    largest = _checkpoint.checkpoint(tmp_path, 16_000, 2048, 4)
    shards = list((tmp_path / "model").glob("*.safetensors"))
    assert len(shards) == 6
    assert sum(path.stat().st_size for path in shards) > 5 * largest
    done = subprocess.run([sys.executable, "-m", "bench.extend", str(tmp_path), str(tmp_path / "out")], cwd=CODE, capture_output=True, text=True,
                          check=False, env=os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.splitlines()[-1])  # resident memory, mapped files included, beyond that after the imports
    matrix = 16_000 * 2048 * 2
    assert matrix < peak < 1.5 * largest, (peak, largest)
    assert Tokenizer.load(base).vocab_size < Tokenizer.load(merged).vocab_size


# --- wrong inputs ------------------------------------------------------------------------------------------------------------------

def merged_with(extending: Extending, pieces: list[str], name: str) -> Path:
    """The merged tokenizer with its last pieces replaced."""
    proto = spelling.model_pb2.ModelProto()
    proto.ParseFromString((extending.merged / "tokenizer.model").read_bytes())
    for at, piece in enumerate(pieces):
        proto.pieces[OLD + at].piece = piece
    folder = extending.root / name
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    return folder


def test_a_padded_base_is_refused_until_the_recipe_says_how_many_rows_pad_it(extending: Extending) -> None:
    padded = extending.model(rows=OLD + 12)
    with pytest.raises(UserError, match=r"352 rows for its tokenizer's 340 pieces(.|\n)*base_padding_rows=12(.|\n)*give the model as it was before"):
        extending.run(padded)
    with pytest.raises(UserError, match=r"and 7 padding rows: it is padded"):
        extending.run(padded, base_padding_rows=7)
    after = tensors(extending.run(padded, base_padding_rows=12))
    assert after[extend.INPUT].shape == (351, 32)
    assert torch.equal(after[extend.OUTPUT][:OLD], tensors(padded)[extend.OUTPUT][:OLD])


def test_a_base_with_fewer_rows_than_pieces_is_refused(extending: Extending) -> None:
    with pytest.raises(UserError, match=r"300 rows, fewer than its tokenizer's 340 pieces(.|\n)*give the tokenizer that the model was trained with"):
        extending.run(extending.model(rows=300))


def test_extending_twice_is_refused(extending: Extending) -> None:
    extended = extending.run(extending.model())
    with pytest.raises(UserError, match=r"351 rows for its tokenizer's 340 pieces(.|\n)*extended already"):
        extending.run(extended)
    with pytest.raises(UserError, match=r"the base tokenizer is extended already: it holds '<pad>'"):
        extending.run(extended, inputs={"base_tokenizer": extending.merged})


def test_a_tokenizer_that_adds_nothing_or_is_of_another_base_is_refused(extending: Extending) -> None:
    model = extending.model()
    with pytest.raises(UserError, match="340 pieces and the base's 340: nothing is added"):
        extending.run(model, inputs={"tokenizer": extending.base})
    other = extending.root / "other"
    other.mkdir()
    proto = spelling.model_pb2.ModelProto()
    proto.ParseFromString((extending.merged / "tokenizer.model").read_bytes())
    proto.pieces[300].piece = "zzz"
    (other / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match=r"id 300 is .* in the base tokenizer and 'zzz' in the merged one(.|\n)*merge again"):
        extending.run(model, inputs={"tokenizer": other})


def test_a_piece_that_stands_twice_is_refused(extending: Extending) -> None:
    with pytest.raises(UserError, match=r"holds 'ية' twice(.|\n)*merge again, each piece once"):
        extending.run(extending.model(), inputs={"tokenizer": merged_with(extending, ["ية"], "twice")})


def random_matrix(rows: int, width: int = 32) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("how", "told"), [
    ({extend.OUTPUT: None}, "has no tensor lm_head.weight .tie_word_embeddings is false"),
    ({extend.INPUT: None}, "has no tensor model.embed_tokens.weight"),
    ({extend.OUTPUT: random_matrix(OLD + 4)}, r"rows don't agree: model.embed_tokens.weight \[340, 32\], lm_head.weight \[344, 32\], vocab_size 340"),
    ({extend.OUTPUT: random_matrix(OLD, 16)}, r"rows don't agree: .*lm_head.weight \[340, 16\]"),
    ({extend.INPUT: random_matrix(OLD + 4), extend.OUTPUT: random_matrix(OLD + 4)}, r"\[344, 32\], vocab_size 340 in config.json"),
    ({extend.INPUT: torch.ones(OLD, 32, dtype=torch.int8)}, "is I8 of shape .*not a matrix in F32, BF16, F16(.|\n)*before any quantisation"),
    ({"lm_head.bias": torch.zeros(OLD)}, "has lm_head.bias, with a value for each id"),
    ({"tied": True, extend.OUTPUT: random_matrix(OLD)}, "config.json ties input and output embeddings, and lm_head.weight differs"),
    ({extend.INPUT: torch.full((OLD, 32), float("nan"))}, "holds values that are no numbers")])
def test_matrices_that_don_t_fit_are_refused_with_their_shapes(extending: Extending, how: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        extending.run(extending.model(**how))


def test_a_tied_model_that_also_holds_its_output_matrix_is_extended_alike(extending: Extending) -> None:
    plain = tensors(extending.model(tied=True))[extend.INPUT]
    after = tensors(extending.run(extending.model(tied=True, **{extend.OUTPUT: plain.clone()}), method="random"))
    assert torch.equal(after[extend.INPUT], after[extend.OUTPUT])


def test_damaged_and_missing_shards_are_named(extending: Extending) -> None:
    model = extending.model(shard_bytes=20_000)
    first, second = sorted((model / "model").glob("*.safetensors"))[:2]
    whole = first.read_bytes()
    for damaged, told in ((whole[:-10], r"it has .* bytes, not"), (b"\x00" * 8, "header would be 0 bytes"), (b"version https://git-lfs", "header would be"),
                          (whole[:8] + b"x" + whole[9:], "Expecting value")):
        first.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{first.name} is no whole safetensors file(.|\n)*{told}(.|\n)*copy or download this shard again"):
            extending.run(model)
    first.write_bytes(whole)
    moved = second.read_bytes()
    second.unlink()
    with pytest.raises(UserError, match=f"lacks {second.name}, named in model.safetensors.index.json"):
        extending.run(model)
    second.write_bytes(first.read_bytes())
    with pytest.raises(UserError, match=r"stands in .* and in|where model.safetensors.index.json says"):
        extending.run(model)
    second.write_bytes(moved)
    (model / "model" / "consolidated.safetensors").write_bytes(whole)  # the same weights in their maker's own form, as some repositories have
    assert not (extending.run(model) / "model" / "consolidated.safetensors").exists()
