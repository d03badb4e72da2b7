"""Near duplicates: what is found around the threshold, what is kept of a chain, and that reporting them changes nothing else."""

from __future__ import annotations

import json
import lzma
import os
import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zstandard
from data_stages import checksums, make_stages, profile, stage
from test_dedup_and_translate import dedup, document, write

import allam.sample
from allam.artifacts import Store
from allam.audit.trace import trace
from allam.data import near_duplicates, near_pairs, tasks
from allam.data.config import DataConfig, DedupConfig
from allam.data.minhash import HASHES, bands, minhash
from allam.data.tables import read_dropped
from allam.documents import Document, read_documents
from allam.text.forms import comparison_words

REAL = Path(os.environ.get("ALLAM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "arabic" / "saudinewsnet.jsonl.xz"


@pytest.fixture(scope="module")
def paragraphs() -> list[list[str]]:
    """The words of the sample's hand-written paragraphs, in both languages."""
    texts = [json.loads(line)["text"] for path in sorted((Path(allam.sample.__file__).parent / "paragraphs").glob("*.jsonl"))
             for line in path.read_text(encoding="utf-8").splitlines()]
    return [text.split() for text in texts if len(text.split()) >= 20]


def pair(paragraphs: list[list[str]], choice: random.Random, share: float) -> tuple[str, str, float]:
    """Two texts of the paragraphs that have about this share of word runs in common, and their true similarity."""
    found = choice.sample(paragraphs, 24)
    common, ends = [word for words in found[:16] for word in words], [[word for words in some for word in words] for some in (found[16:20], found[20:])]
    own = round(len(common) * (1 - share) / (2 * share))
    one, other = (" ".join([*common, *end[:own]]) for end in ends)
    return one, other, jaccard(one, other)


def runs(text: str) -> set[tuple[str, ...]]:
    words = comparison_words(text)
    return {tuple(words[i:i + 5]) for i in range(max(1, len(words) - 4))}


def jaccard(one: str, other: str) -> float:
    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


def lines(out: Path) -> list[dict[str, Any]]:
    with open(out / near_duplicates.PAIRS_FILE, "rb") as file:
        return [json.loads(line) for line in zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()]


def report(tmp_path: Path, *documents: Document, **fields: Any) -> dict[str, tuple[str, float]]:
    """(kept, similarity) by the id of what would be dropped."""
    fields = {"near_duplicates": "report"} | fields
    assert len(dedup(tmp_path, *documents, **fields)[0]) == len(documents)
    return {line["document"]: (line["kept"], line["similarity"]) for line in lines(tmp_path / "out")}


def test_pairs_well_above_the_threshold_are_found_and_pairs_well_below_are_not(tmp_path: Path, paragraphs: list[list[str]]) -> None:
    choice = random.Random(1)
    pairs = [pair(paragraphs, choice, share) for share in (0.5, 0.65, 0.9, 0.97) for _ in range(12)]
    found = report(tmp_path, *(document(f"{i}{side}", pairs[i][k], "ab"[k]) for k, side in enumerate("xy") for i in range(len(pairs))))
    truth = {i for i, (_, _, true) in enumerate(pairs) if true >= 0.8}
    assert len(truth) == 24
    assert {int(name[:-1]) for name in found} == truth
    for name, (kept, similarity) in found.items():
        assert kept[:-1] == name[:-1]
        assert similarity == pytest.approx(pairs[int(name[:-1])][2], abs=0.08)


def test_the_estimate_is_right_on_average_and_as_exact_as_128_numbers_can_be(paragraphs: list[list[str]]) -> None:
    choice, errors = random.Random(2), []
    for _ in range(150):
        one, other, true = pair(paragraphs, choice, 0.8)
        shared = np.count_nonzero(minhash(comparison_words(one), 5) == minhash(comparison_words(other), 5))
        errors.append((shared / HASHES - true) / np.sqrt(true * (1 - true) / HASHES))
    assert abs(np.mean(errors)) < 0.25
    assert 0.8 < np.std(errors) < 1.2


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_a_pair_at_the_threshold_is_compared_with_a_probability_of_99_percent(similarity: float) -> None:
    count, length = bands(similarity)
    assert count * length <= HASHES
    assert 1 - (1 - similarity**length) ** count >= 0.99
    assert bands(0.8) == (21, 6)


def test_no_chain_drops_what_is_far_from_all_that_is_kept(tmp_path: Path, paragraphs: list[list[str]]) -> None:
    words = [word for some in paragraphs[:60] for word in some]
    texts = [" ".join(words[i * 50: i * 50 + 600 - i]) for i in range(4)]
    assert jaccard(texts[0], texts[1]) > 0.84
    assert jaccard(texts[0], texts[2]) < 0.72
    found = report(tmp_path, *(document(str(i + 1), text) for i, text in enumerate(texts)), keep=())
    assert {name: kept for name, (kept, _) in found.items()} == {"2": "1", "4": "3"}


def test_the_better_one_is_kept_by_the_recipes_rule(tmp_path: Path, paragraphs: list[list[str]]) -> None:
    words = [word for some in paragraphs[:10] for word in some]
    found = [document("cut", " ".join(words[:-3]), "a"), document("whole", " ".join(words), "b"), document("other", " ".join(words[2:]), "b")]
    assert set(report(tmp_path / "x", *found, order=("a", "b"))) == {"cut", "other"}
    assert {kept for kept, _ in report(tmp_path / "y", *found, order=("a", "b"), keep=()).values()} == {"cut"}


def test_drop_drops_what_report_names_and_says_what_is_kept(tmp_path: Path, paragraphs: list[list[str]]) -> None:
    one, other, _ = pair(paragraphs, random.Random(3), 0.95)
    found = [document("1", one + " end", "a"), document("2", other, "a"), document("3", "something else", "b"), document("4", "Something, ELSE!", "b")]
    assert report(tmp_path / "x", *found).keys() == {"2", "3"}
    kept, dropped = dedup(tmp_path / "y", *found, near_duplicates="drop")
    assert kept == ["1", "4"]
    assert dropped == {"2": ("near_duplicate", "as 1"), "3": ("near_duplicate", "as 4")}
    assert [line["dropped"] for line in lines(tmp_path / "y" / "out")] == [True, True]
    summary = json.loads((tmp_path / "y" / "out" / near_duplicates.SUMMARY_FILE).read_text())
    assert summary["sources"] == {"a": {"compared": 2, "near_duplicates": 1}, "b": {"compared": 2, "near_duplicates": 1}}
    assert [(example["document"], example["kept_text"]) for example in summary["examples"]] == [("2", (one + " end")[:500]), ("3", "Something, ELSE!")]


def test_what_is_dropped_as_an_exact_duplicate_or_has_no_words_is_not_compared(tmp_path: Path) -> None:
    base = write(tmp_path / "in", document("1", "a text of a few words"), document("2", "a  text of a few words"), document("3", "!!!"), document("4", "..."))
    metrics = stage("dedup", DedupConfig(near_duplicates="report"), {"documents": base}, tmp_path / "out")
    assert metrics["near_duplicates"] == {"a": {"compared": 1, "near_duplicates": 0}}


def test_a_report_changes_nothing_else_and_off_leaves_nothing(tmp_path: Path, paragraphs: list[list[str]]) -> None:
    base, made = write(tmp_path / "in", *corpus(paragraphs, 40)), {}
    for action in ("off", "report"):
        metrics = stage("dedup", DedupConfig(near_duplicates=action), {"documents": base}, tmp_path / action)
        found = metrics.pop("near_duplicates", None)
        assert (found is None) == (action == "off")
        made[action] = metrics, checksums(tmp_path / action)
        assert (tmp_path / action / "work" / "near").exists() == (action == "report")
    for name in (near_duplicates.PAIRS_FILE, near_duplicates.SUMMARY_FILE):
        del made["report"][1][name]
    assert made["off"] == made["report"]


def corpus(paragraphs: list[list[str]], count: int) -> list[Document]:
    """Families of five texts each that differ by a few words, over two sources."""
    choice, found = random.Random(count), []
    for i in range(count):
        words = [word for some in choice.sample(paragraphs, 6) for word in some]
        for j in range(5):
            changed = list(words)
            for _ in range(choice.randrange(6)):
                changed[choice.randrange(len(words))] = choice.choice(words)
            found.append(document(f"{i}-{j}", " ".join(changed[: len(words) - choice.randrange(20)]), "ab"[j % 2]))
    return found


def test_workers_parts_and_an_interruption_change_no_byte_and_signatures_are_not_made_again(tmp_path: Path, paragraphs: list[list[str]],
                                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    config, inputs = DedupConfig(near_duplicates="drop"), {"documents": write(tmp_path / "in", *corpus(paragraphs, 20))}
    stage("dedup", config, inputs, tmp_path / "one")
    expected = checksums(tmp_path / "one")
    assert len(lines(tmp_path / "one")) > 20
    with monkeypatch.context() as patch:
        patch.setenv("ALLAM_CLUSTER", profile(2))
        patch.setattr(tasks, "BYTES_WORTH_A_WORKER", 1)
        stage("dedup", config, inputs, tmp_path / "two")
    assert checksums(tmp_path / "two") == expected
    with monkeypatch.context() as patch:
        patch.setattr(near_duplicates, "ROWS_AT_ONCE", 23)
        patch.setattr(near_pairs, "ROWS_AT_ONCE", 23)
        stage("dedup", config, inputs, tmp_path / "parts")
    assert checksums(tmp_path / "parts") == expected
    near, calls = near_pairs._near, iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(near_pairs, "_near", lambda *about: near(*about) if next(calls) < 8 else pytest.fail("killed", pytrace=False))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            stage("dedup", config, inputs, tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(near_pairs, "minhash", lambda *_: pytest.fail("a signature is made again"))
        stage("dedup", config, inputs, tmp_path / "killed")
    assert checksums(tmp_path / "killed") == expected


def test_a_trace_names_near_duplicates_too_since_a_take_down_may_mean_them(tmp_path: Path, paragraphs: list[list[str]]) -> None:
    one, other, _ = pair(paragraphs, random.Random(3), 0.95)
    (tmp_path / "web.jsonl").write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in {"1": one + " end", "2": other}.items()))
    config = {"sources": {"web": {"path": "web.jsonl", "language": "ar", "domain": "web", "filters": []}}, "dedup": {"near_duplicates": "report"}}
    make_stages(DataConfig.model_validate(config), tmp_path, tmp_path / "store", "ingest", "filter", "dedup")
    for name in ("1", "2"):
        places = {place["holds"]: place["where"] for place in trace(Store(tmp_path / "store"), name) if place["stage"] == "dedup"}
        assert places["near duplicate"].startswith("2 of 1, similarity 0.9")
        assert "document" in places


def test_a_bare_off_of_yaml_is_off() -> None:
    assert DedupConfig.model_validate(yaml.safe_load("near_duplicates: off")).near_duplicates == "off"
    with pytest.raises(ValueError, match="'off', 'report' or 'drop'"):
        DedupConfig.model_validate({"near_duplicates": True})


def test_of_real_news_all_close_copies_are_found_and_nothing_that_is_far(tmp_path: Path) -> None:
    if not REAL.exists():
        pytest.skip(f"REAL TEXT IS NOT THERE: {REAL}; set ALLAM_TEST_DATA")
    with lzma.open(REAL, "rt", encoding="utf-8") as file:
        texts = {str(i): json.loads(line)["text"] for i, line in enumerate(islice(file, 800))}
    out = tmp_path / "out"
    stage("dedup", DedupConfig(near_duplicates="drop"), {"documents": write(tmp_path / "in", *(document(n, text) for n, text in texts.items()))}, out)
    found = lines(out)
    assert len(found) >= 5
    assert all(jaccard(texts[line["document"]], texts[line["kept"]]) > 0.7 for line in found)
    left, holders, close = [d.id for d in read_documents(out / "documents")], dict[tuple[str, ...], set[str]](), set[tuple[str, str]]()
    sets = {name: runs(texts[name]) for name in left}
    for name, own in sets.items():
        for run in own:
            holders.setdefault(run, set()).add(name)
    for some in holders.values():
        close |= {(a, b) for a in some for b in some if a < b and len(some) < 20}
    assert max(len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in close) < 0.9
    assert {row["reason"] for path in (out / "dropped").glob("*/*") for row in read_dropped(path)} <= {"near_duplicate", "duplicate_text"}
