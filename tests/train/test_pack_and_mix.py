"""Packs hold every kept document once, and the mix takes from them exactly the shares that the recipe states."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.documents import Document, is_held_out, read_documents
from allam.errors import UserError
from allam.section import HeldOut
from allam.text.tokenizer import Tokenizer
from allam.train import mix, pack
from allam.train.config import MixStageConfig, PackConfig, PhaseConfig
from allam.train.mix import Domain, largest_remainder, order_of_domains, order_of_windows
from allam.train.windows import Windows

HELD_OUT = HeldOut(share=0.1, seed=0)
LENGTH = 16


def run_pack(corpus: dict[str, Path], tokenizer: Path, out: Path, **changes: Any) -> dict[str, Any]:
    (out / "work").mkdir(parents=True, exist_ok=True)
    return pack.run(PackConfig(held_out=HELD_OUT, **changes), corpus | {"tokenizer": tokenizer}, out)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Path], merged_tokenizer: Path) -> Path:
    out = tmp_path_factory.mktemp("pack")
    run_pack(corpus, merged_tokenizer, out)
    return out


def mix_config(tokens: int = 4000, **changes: Any) -> MixStageConfig:
    given = {"components": {"en": 0.5, "ar": 0.25, "ar_translated": 0.25}, "max_epochs": 4,
             "domains": {"en": {"web": 0.8, "math": 0.2}, "ar": {"web": 1.0}, "ar_translated": {"web": 1.0}}}
    return MixStageConfig.model_validate(given | {"tokens": tokens, "sequence_length": LENGTH, "global_batch": 4} | changes)


def run_mix(packed: Path, config: MixStageConfig, out: Path) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    return mix.run(config, {"pack": packed}, out)


# --- packs -------------------------------------------------------------------------------------------------------------------------

def test_a_pack_decodes_to_the_documents_in_their_order(packed: Path, corpus: dict[str, Path], merged_tokenizer: Path) -> None:
    tokenizer = Tokenizer.load(merged_tokenizer)
    folder = packed / "packs" / "en" / "web"
    tokens, starts = np.fromfile(folder / "tokens.bin", dtype=np.uint16), np.load(folder / "index.npy")
    found = [tokens[a:b].tolist() for a, b in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    expected = [d.text for d in read_documents(corpus["natural"] / "documents")
                if d.source == "web_en" and not is_held_out(d.root_id, HELD_OUT.share, HELD_OUT.seed)]
    assert [tokenizer.decode(ids) for ids in found] == expected
    assert {(ids[0], ids[-1]) for ids in found} == {(tokenizer.bos_id, tokenizer.eos_id)}


def test_every_document_is_either_packed_or_held_out(packed: Path, corpus: dict[str, Path]) -> None:
    about = json.loads((packed / "packs" / "pack.json").read_text())["components"]
    in_packs = sum(domain["documents"] for domains in about.values() for domain in domains.values())
    held_out = sum(len((packed / "held_out" / f"{c}.jsonl").read_text().splitlines()) for c in ("en", "ar", "ar_translated"))
    assert in_packs + held_out == len(list(read_documents(*(folder / "documents" for folder in corpus.values()))))
    assert held_out > 10


def test_a_translation_is_held_out_with_its_original(packed: Path) -> None:
    english = {json.loads(line)["id"] for line in (packed / "held_out" / "en.jsonl").read_text().splitlines()}
    translated = {json.loads(line)["id"] for line in (packed / "held_out" / "ar_translated.jsonl").read_text().splitlines()}
    assert {i.replace("translated_web_ar", "web_en") for i in translated} == {i for i in english if i.startswith("web_en")}


def test_held_out_text_is_written_for_all_components_whatever_is_packed(tmp_path: Path, corpus: dict[str, Path], base_tokenizer: Path, packed: Path) -> None:
    run_pack(corpus, base_tokenizer, tmp_path, languages=("en",))
    assert [p.name for p in (tmp_path / "packs").iterdir() if p.is_dir()] == ["en"]
    for component in ("en", "ar", "ar_translated"):
        assert (tmp_path / "held_out" / f"{component}.jsonl").read_bytes() == (packed / "held_out" / f"{component}.jsonl").read_bytes()


def test_held_out_text_stays_below_its_limit(tmp_path: Path, corpus: dict[str, Path], base_tokenizer: Path) -> None:
    metrics = run_pack(corpus, base_tokenizer, tmp_path, held_out_bytes=200)
    assert all(0 < held_out["bytes"] <= 200 for held_out in metrics["held_out"].values())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.lists(st.integers(0, 3), min_size=12, max_size=12), st.integers(1, 120))
def test_what_is_held_out_does_not_depend_on_the_shards(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], shards: list[int], limit: int) -> None:
    documents = [Document(f"d{i}", "x" * size, "s", "en", "web", "natural") for i, size in enumerate(sizes)]

    def chosen(parts: list[list[Document]]) -> str:
        out = tmp_path_factory.mktemp("held_out")
        for i, part in enumerate(parts):
            (out / str(i)).mkdir()
            pack._write_lines(out / str(i) / "en.jsonl", pack._first_by_hash(part, limit))
        pack._write_held_out([out / str(i) for i in range(len(parts))], "en", limit, out)
        return (out / "held_out" / "en.jsonl").read_text()

    assert chosen([documents]) == chosen([[d for d, shard in zip(documents, shards, strict=False) if shard == s] for s in range(4)])


def test_packing_goes_on_after_the_shards_that_are_done(tmp_path: Path, corpus: dict[str, Path], merged_tokenizer: Path, packed: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = pack._pack_shard, []

    def stops_at_the_third(job: Any) -> None:
        seen.append(job.shard.parent.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        real(job)

    monkeypatch.setattr(pack, "_pack_shard", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_pack(corpus, merged_tokenizer, tmp_path)
    run_pack(corpus, merged_tokenizer, tmp_path)
    assert len(seen) == 3 + 4  # six shards, two of them done before
    for path in (p for p in packed.rglob("*") if p.is_file() and "work" not in p.parts):
        assert (tmp_path / path.relative_to(packed)).read_bytes() == path.read_bytes()


# --- the mix -----------------------------------------------------------------------------------------------------------------------

SHARES = st.lists(st.integers(1, 50), min_size=1, max_size=8).map(lambda found: [x / sum(found) for x in found])


@given(SHARES, st.integers(0, 500))
def test_quotas_sum_to_the_budget_and_are_less_than_one_off(shares: list[float], total: int) -> None:
    quotas = largest_remainder(shares, total)
    assert sum(quotas) == total
    assert all(abs(q - s * total) < 1 + 1e-6 for q, s in zip(quotas, shares, strict=True))


@settings(max_examples=60, deadline=None)
@given(SHARES, st.integers(1, 300), st.integers(1, 40), st.integers(0, 3))
def test_every_prefix_has_the_shares_and_no_window_comes_twice_in_an_epoch(shares: list[float], total: int, windows: int, seed: int) -> None:
    domains = [Domain("en", f"d{i}", (share,), windows + i, 0) for i, share in enumerate(shares)]
    quotas = largest_remainder(shares, total)
    domain_N = order_of_domains(domains, total)
    window_N = order_of_windows(domains, domain_N, seed)
    assert len(domain_N) == total
    for i, (domain, quota) in enumerate(zip(domains, quotas, strict=True)):
        mine = window_N[domain_N == i]
        assert len(mine) == quota
        for start in range(0, quota, domain.windows):
            epoch = mine[start : start + domain.windows]
            assert len(set(epoch.tolist())) == len(epoch)
            assert all(0 <= w < domain.windows for w in epoch)
        so_far = np.cumsum(domain_N == i)
        expected = np.arange(1, total + 1) * quota / total
        assert np.abs(so_far - expected).max() <= 1 + len(domains) * quota / total


def test_the_ledger_holds_the_planned_tokens_and_epochs(tmp_path: Path, packed: Path) -> None:
    metrics = run_mix(packed, mix_config(), tmp_path)
    assert metrics["tokens"] == metrics["steps"] * 4 * LENGTH >= 4000
    rows = [row for domains in metrics["ledger"].values() for row in domains.values()]
    assert sum(row["planned_tokens"] for row in rows) == metrics["tokens"]
    assert metrics["ledger"]["en"]["web"]["planned_tokens"] == pytest.approx(0.4 * metrics["tokens"], abs=LENGTH)


def test_windows_are_read_at_any_position_and_overlap_by_their_target(tmp_path: Path, packed: Path) -> None:
    run_mix(packed, mix_config(), tmp_path)
    windows = Windows(packed, tmp_path)
    tokens = np.fromfile(packed / "packs" / "ar" / "web" / "tokens.bin", dtype=np.uint16)
    arabic = [i for i in range(len(windows)) if windows.span(i)[0] == "ar"]
    for i in arabic[:5]:
        start = int(windows._window_N[i]) * LENGTH
        assert windows[i].tolist() == tokens[start : start + LENGTH + 1].tolist()


def test_the_same_mix_gives_the_same_order_and_another_seed_another(tmp_path: Path, packed: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_mix(packed, mix_config(seed=seed), tmp_path / name)
    read = {name: (tmp_path / name / "order_window.npy").read_bytes() for name in "abc"}
    assert read["a"] == read["b"] != read["c"]


@settings(max_examples=60, deadline=None)
@given(SHARES, st.lists(st.integers(1, 299), max_size=3, unique=True).map(sorted), st.randoms(use_true_random=False))
def test_changed_shares_hold_from_their_position_on_and_nothing_is_repeated_or_left_out(shares: list[float], changes: list[int], chance: random.Random) -> None:
    total, windows = 300, 40
    parts = [shares, *(chance.sample(shares, len(shares)) for _ in changes)]
    domains = [Domain("en", f"d{i}", tuple(part[i] for part in parts), windows + i, 0) for i in range(len(shares))]
    domain_N = order_of_domains(domains, total, changes)
    window_N = order_of_windows(domains, domain_N, seed=1)
    unchanged_N = order_of_domains(domains, total)
    first = changes[0] if changes else total
    assert domain_N[:first].tolist() == unchanged_N[:first].tolist()
    assert window_N[:first].tolist() == order_of_windows(domains, unchanged_N, seed=1)[:first].tolist()
    bounds = [0, *changes, total]
    for part, start, end in zip(parts, bounds, bounds[1:], strict=False):
        found = np.bincount(domain_N[start:end], minlength=len(shares))
        assert all(abs(n - share * (end - start)) <= 2 + len(shares) * share for n, share in zip(found, part, strict=True))
    for i, domain in enumerate(domains):
        mine = window_N[domain_N == i]
        for begin in range(0, len(mine), domain.windows):
            epoch = mine[begin:begin + domain.windows]
            assert len(set(epoch.tolist())) == len(epoch)  # each window once before any comes again, also across the changes


def test_a_change_of_shares_is_in_the_ledger_and_may_bring_a_domain_of_its_own(tmp_path: Path, packed: Path) -> None:
    english = {"components": {"en": 1.0}, "domains": {"en": {"web": 1.0}}}
    change = {"from_token": 30 * LENGTH, "components": {"en": 0.5, "ar": 0.5}, "domains": {"en": {"math": 1.0}, "ar": {"web": 1.0}}}
    run_mix(packed, mix_config(100 * LENGTH, **english), tmp_path / "plain")
    metrics = run_mix(packed, mix_config(100 * LENGTH, **english, changes=[change]), tmp_path / "changed")
    plain, changed = Windows(packed, tmp_path / "plain"), Windows(packed, tmp_path / "changed")
    assert changed.plan["changes"] == [8]  # a step has four sequences
    assert [plain[i].tolist() for i in range(32)] == [changed[i].tolist() for i in range(32)]
    planned = {(c, d): row["planned_tokens"] // LENGTH for c, domains in metrics["ledger"].items() for d, row in domains.items()}
    assert planned == {("en", "web"): 32, ("en", "math"): 34, ("ar", "web"): 34}
    assert changed.consumed(32) == {"en": {"web": 32 * LENGTH, "math": 0}, "ar": {"web": 0}}
    assert sum(row["share"] for domains in metrics["ledger"].values() for row in domains.values()) == pytest.approx(1)


def test_changes_out_of_order_or_behind_the_end_are_refused() -> None:
    change = {"components": {"en": 1.0}, "domains": {"en": {"web": 1.0}}}
    with pytest.raises(ValueError, match="begin at the tokens 64, 64"):
        mix_config(changes=[change | {"from_token": 64}, change | {"from_token": 64}])
    mix = {"components": {"en": 1.0}, "domains": {"en": {"web": 1.0}}, "changes": [change | {"from_token": 2000}]}
    with pytest.raises(ValueError, match=r"a change from token 2000 on is behind the phase's last step \(2048 tokens\)"):
        PhaseConfig.model_validate({"tokens": 2048, "global_batch": 8, "sequence_length": 16, "mix": mix})


def test_a_domain_without_text_is_refused_by_name(tmp_path: Path, packed: Path) -> None:
    config = mix_config(domains={"en": {"web": 0.8, "math": 0.1, "science": 0.1}, "ar": {"web": 1.0}, "ar_translated": {"web": 1.0}})
    with pytest.raises(UserError, match=r"mix\.domains\.en\.science has a share of 0\.1 but 0 tokens"):
        run_mix(packed, config, tmp_path)


def test_too_many_epochs_are_refused_with_the_largest_budget_that_fits(tmp_path: Path, packed: Path) -> None:
    with pytest.raises(UserError, match=r"mix\.domains\.en\.math: .* tokens needed, .* available") as caught:
        run_mix(packed, mix_config(tokens=1_000_000), tmp_path)
    fitting = int(caught.value.remedy.split("tokens: ")[1].split(";")[0])
    run_mix(packed, mix_config(tokens=fitting), tmp_path / "fits")
    with pytest.raises(UserError):
        run_mix(packed, mix_config(tokens=fitting + 1), tmp_path / "does_not")
