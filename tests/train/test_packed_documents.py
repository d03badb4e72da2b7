"""The licence of every token, and the place of every document in a pack, follow from the documents that the pack was made from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allam.artifacts import ArtifactRef, Manifest, Store, commit, write_json
from allam.audit.ledger import ledger_rows, ledger_sums
from allam.audit.packed import tokens_by_licence
from allam.audit.trace import trace
from allam.documents import is_held_out, read_documents
from allam.errors import ArtifactError
from allam.section import HeldOut
from allam.text.tokenizer import Tokenizer
from allam.train import mix, pack
from allam.train.config import MixStageConfig, PackConfig
from allam.train.pretrain import write_ledger
from allam.train.windows import Windows

HELD_OUT = HeldOut(share=0.1, seed=0)


def manifest(kind: str, key: str, config: dict[str, Any], metrics: dict[str, Any], inputs: dict[str, ArtifactRef]) -> Manifest:
    return Manifest(name=kind, kind=kind, version=1, key=key, config=config, inputs={name: {"kind": ref.kind, "key": ref.key} for name, ref in inputs.items()},
                    outputs={}, metrics=metrics, started_at=f"2026-01-01T00:00:0{len(inputs)}+00:00", seconds=1, peak_memory_bytes=1, world_size=1, versions={})


@pytest.fixture
def store(tmp_path: Path, corpus: dict[str, Path], merged_tokenizer: Path) -> Store:
    """The corpus, its pack and a mix as artifacts; the mix has trained nothing yet."""
    store, refs = Store(tmp_path / "store"), {}
    for name, kind in (("natural", "decontaminate"), ("translated", "translate")):
        refs[name] = store.ref(kind, name)
        shutil.copytree(corpus[name], refs[name].path)
    for name in refs:
        write_json(refs[name].path / "job.json", {"name": name})
        commit(refs[name].path, manifest(refs[name].kind, name, {}, {}, {}))
    config, packed = PackConfig(held_out=HELD_OUT), store.ref("pack", "p" * 16)
    (packed.path / "work").mkdir(parents=True)
    metrics = pack.run(config, {name: ref.path for name, ref in refs.items()} | {"tokenizer": merged_tokenizer}, packed.path)
    commit(packed.path, manifest("pack", packed.key, config.model_dump(mode="json"), metrics, refs))
    shares = {"components": {"en": 0.5, "ar": 0.25, "ar_translated": 0.25}, "max_epochs": 4, "tokens": 4000, "sequence_length": 16, "global_batch": 4,
              "domains": {"en": {"web": 0.8, "math": 0.2}, "ar": {"web": 1.0}, "ar_translated": {"web": 1.0}}}
    mixed = store.ref("mix", "m" * 16)
    mixed.path.mkdir(parents=True)
    metrics = mix.run(MixStageConfig.model_validate(shares), {"pack": packed.path}, mixed.path)
    commit(mixed.path, manifest("mix", mixed.key, shares, metrics, {"pack": packed, "unused": packed, "third": packed}))
    return store


def inputs(store: Store) -> tuple[Path, Manifest, list[Path]]:
    folder = store.folder("pack", "p" * 16)
    found = store.manifest("pack", "p" * 16)
    assert found is not None
    return folder, found, [store.folder("decontaminate", "natural"), store.folder("translate", "translated")]


def test_tokens_by_licence_are_those_of_its_documents(store: Store, corpus: dict[str, Path], merged_tokenizer: Path) -> None:
    tokenizer, expected = Tokenizer.load(merged_tokenizer), dict[tuple[str | None, str], int]()
    for d in read_documents(*(corpus[name] / "documents" for name in ("natural", "translated"))):
        if not is_held_out(d.root_id, HELD_OUT.share, HELD_OUT.seed):
            expected[d.licence, d.component] = expected.get((d.licence, d.component), 0) + len(tokenizer.encode_batch([d.text])[0]) + 2
    rows = tokens_by_licence(*inputs(store))
    assert {(row["licence"], row["component"]): row["tokens"] for row in rows} == expected
    assert [row["tokens"] for row in rows] == sorted(expected.values(), reverse=True)


def test_the_tokens_of_a_traced_document_decode_to_its_text(store: Store, merged_tokenizer: Path) -> None:
    tokenizer, texts = Tokenizer.load(merged_tokenizer), {}
    folder, _, corpora = inputs(store)
    texts = {d.id: d for d in read_documents(*(corpus / "documents" for corpus in corpora))}
    for name in ("web_en-3", "web_en-41", "web_ar-7", "math_en-5"):
        for place in trace(store, name):
            if place["holds"] == "tokens":
                where, _, rest = place["where"].partition(": ")
                begin, end = (int(word) for word in rest.split(" (")[0].split(" to "))
                ids = np.fromfile(folder / where / "tokens.bin", np.uint16)[begin:end].tolist()
                assert tokenizer.decode(ids[1:-1]).strip() == texts[rest.split("(")[1][:-1]].text.strip()


def test_a_trace_goes_on_to_what_was_made_from_the_pack(store: Store) -> None:
    found = {(place["artifact"].split("/")[0], place["holds"]) for place in trace(store, "web_en-3")}
    held_out = is_held_out("web_en-3", HELD_OUT.share, HELD_OUT.seed)
    assert found >= {("decontaminate", "document"), ("translate", "translation"), ("pack", "held out" if held_out else "tokens"), ("mix", "made from it")}
    assert trace(store, "nobody") == []


def test_a_pack_of_other_documents_is_refused(store: Store) -> None:
    folder, found, corpora = inputs(store)
    with pytest.raises(ArtifactError, match=r"documents of en/math, its inputs"):
        tokens_by_licence(folder, found.model_copy(update={"config": found.config | {"held_out": {"share": 0.5, "seed": 0}}}), corpora)


def test_the_ledger_sums_what_was_planned_and_what_training_consumed(store: Store, tmp_path: Path) -> None:
    mixed, folder = store.manifest("mix", "m" * 16), store.folder("mix", "m" * 16)
    assert mixed is not None
    planned = ledger_rows("continue", mixed, None)
    assert {(row["language"], row["kind"], row["domain"]) for row in planned} == {
        ("en", "natural", "web"), ("en", "natural", "math"), ("ar", "natural", "web"), ("ar", "translated", "web")}
    assert all(row["consumed"] is None for row in planned)
    write_ledger(tmp_path, Windows(store.folder("pack", "p" * 16), folder), global_batch=1, lost=set())
    sums = ledger_sums(ledger_rows("continue", mixed, tmp_path))
    total = sums[-1]
    assert (total["language"], total["kind"], total["domain"]) == ("all", "all", "all")
    assert total["planned"] == total["consumed"] == mixed.metrics["tokens"]
    assert total["share"] == pytest.approx(1)
    english = next(row for row in sums if (row["language"], row["domain"]) == ("en", "all"))
    assert english["planned"] == sum(row["planned"] for row in planned if row["language"] == "en")
