"""What was made of an unchanged file is linked, whatever came or went beside it, and the result is that of a store that never saw the file before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_stages import checksums, configs, make, make_stages

from allam.artifacts import read_manifest
from allam.data.config import DataConfig
from allam.documents import read_documents

TEXTS = [
    "Our neighbour has planted small trees in front of her house, and when they are tall enough, she wants to sit in their shade.",
    "The harbour of the old town lies between two hills, and the boats wait there for the wind to turn.",
    "Nobody wanted to leave the house that day.",
]


def write(root: Path, name: str, *ids: str) -> None:
    """A file of documents, one of them broken, one too short for the filter."""
    root.mkdir(exist_ok=True)
    lines = [json.dumps({"id": i, "text": TEXTS[number % 3] + f" {name} {number}"}) for number, i in enumerate(ids)]
    (root / name).write_text("\n".join([*lines, "broken", '{"text": "short"}', ""]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "raw", "a.jsonl", "a1", "a2", "a3")
    write(tmp_path / "raw", "b.jsonl", "b1", "a2", "b1", "b3")  # a2 repeats an id of a.jsonl, the second b1 one of its own
    write(tmp_path / "raw", "d.jsonl", "d1", "c1", "d3")
    return tmp_path / "raw"


def data(**source: Any) -> DataConfig:
    """A source of all files, whose filter drops the short documents."""
    fields = {"path": "*.jsonl", "language": "en", "domain": "web", "filters": ["too_short"]} | source
    return DataConfig.model_validate({"sources": {"s": fields}, "filter": {"min_words": 5}, "ingest": {"max_set_aside_share": 1.0, "shard_bytes": 250}})


def run(root: Path, store: Path, config: DataConfig | None = None) -> dict[str, Path]:
    """Makes ingest and filter; returns their folders."""
    return make_stages(config or data(), root, store, "ingest", "filter")


def counts(made: dict[str, Path]) -> tuple[dict[str, int], dict[str, int]]:
    """What the two stages say about reuse."""
    manifests = {name: read_manifest(folder) for name, folder in made.items()}
    return manifests["ingest"].metrics["files"], manifests["filter"].metrics["shards"]


def result(made: dict[str, Path]) -> dict[str, dict[str, str]]:
    """The checksums of all outputs."""
    return {name: checksums(folder) for name, folder in made.items()}


def test_only_a_new_file_is_read_and_filtered_and_the_bytes_are_those_of_a_fresh_store(root: Path, tmp_path: Path) -> None:
    first = run(root, tmp_path / "store")
    shards = len(list(first["ingest"].glob("documents/s/*")))
    assert counts(first) == ({"read": 3, "reused": 0}, {"filtered": shards, "reused": 0})
    write(root, "c.jsonl", "c1")  # between the others: later shards get new numbers, and c1 in d.jsonl now repeats an id
    second = run(root, tmp_path / "store")
    files, filtered = counts(second)
    assert files == {"read": 1, "reused": 3}
    assert filtered == {"filtered": 2, "reused": shards - 1}  # that of c.jsonl, and the one of d.jsonl that lost a document
    assert result(second) == result(run(root, tmp_path / "fresh"))


def test_what_is_reused_is_linked_and_not_copied(root: Path, tmp_path: Path) -> None:
    first = run(root, tmp_path / "store")
    write(root, "e.jsonl", "e1")
    second = run(root, tmp_path / "store")
    for name in ("ingest", "filter"):
        assert (first[name] / "documents/s/00000.parquet").samefile(second[name] / "documents/s/00000.parquet")


def test_a_document_comes_back_when_the_file_whose_id_it_repeated_goes(root: Path, tmp_path: Path) -> None:
    first = run(root, tmp_path / "store")
    repeated = [json.loads(line) for line in (first["ingest"] / "set_aside.jsonl").read_text().splitlines() if "duplicate_id" in line]
    assert [(row["file"], row["line"]) for row in repeated] == [("b.jsonl", 2), ("b.jsonl", 3)]
    (root / "a.jsonl").unlink()
    second = run(root, tmp_path / "store")
    assert counts(second)[0] == {"read": 0, "reused": 2}
    assert [d.id for d in read_documents(second["ingest"] / "documents") if d.file == "b.jsonl"] == ["b1", "a2", "b3", "s-b-000005"]
    assert result(second) == result(run(root, tmp_path / "fresh"))
    write(root, "a.jsonl", "a1", "a2", "a3")
    write(root, "e.jsonl", "e1")
    third = run(root, tmp_path / "store")
    assert counts(third)[0] == {"read": 1, "reused": 3}  # a.jsonl from the first artifact, the others from the second
    assert result(third) == result(run(root, tmp_path / "fresh"))


@pytest.mark.parametrize("damaged", ["documents/s/00000.parquet", "as_read/s/00002.parquet", "set_aside.jsonl", "parts.json", "manifest.json"])
def test_a_damaged_file_is_never_linked(root: Path, tmp_path: Path, damaged: str) -> None:
    first = run(root, tmp_path / "store")
    content = bytearray((first["ingest"] / damaged).read_bytes())
    content[len(content) // 2] ^= 1
    (first["ingest"] / damaged).write_bytes(content)
    write(root, "e.jsonl", "e1")
    second = run(root, tmp_path / "store")
    assert counts(second)[0] == ({"read": 2, "reused": 2} if damaged.endswith(".parquet") else {"read": 4, "reused": 0})
    assert result(second) == result(run(root, tmp_path / "fresh"))


def test_a_missing_file_is_made_again(root: Path, tmp_path: Path) -> None:
    first = run(root, tmp_path / "store")
    (first["filter"] / "documents/s/00000.parquet").unlink()
    write(root, "e.jsonl", "e1")
    second = run(root, tmp_path / "store")
    assert counts(second)[1]["filtered"] == 2
    assert result(second) == result(run(root, tmp_path / "fresh"))


def test_a_changed_file_or_field_is_read_again_and_a_changed_filter_reads_nothing_again(root: Path, tmp_path: Path) -> None:
    shards = counts(run(root, tmp_path / "store"))[1]["filtered"]
    write(root, "d.jsonl", "d1", "c1", "d4")
    assert counts(run(root, tmp_path / "store"))[0] == {"read": 1, "reused": 2}
    assert counts(run(root, tmp_path / "store", data(licence="CC0-1.0"))) == ({"read": 3, "reused": 0}, {"filtered": shards, "reused": 0})
    filters = run(root, tmp_path / "store", data(filters=["spam"]))
    assert counts(filters)[1] == {"filtered": shards, "reused": 0}
    assert counts(filters)[0] == {"read": 0, "reused": 3}


def test_another_version_of_a_stage_reuses_nothing(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "store")
    config, _ = configs(data(), root)["ingest"]
    again = make(tmp_path / "store", "ingest", config, {"root": root}, version=2)
    assert read_manifest(again).metrics["files"] == {"read": 3, "reused": 0}


def test_an_artifact_that_is_not_done_is_not_looked_at(root: Path, tmp_path: Path) -> None:
    first = run(root, tmp_path / "store")
    (first["ingest"] / "manifest.json").unlink()
    write(root, "e.jsonl", "e1")
    assert counts(run(root, tmp_path / "store"))[0] == {"read": 4, "reused": 0}
