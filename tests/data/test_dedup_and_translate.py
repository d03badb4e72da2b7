"""Which of two duplicates is kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from data_stages import stage
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.data import originals
from allam.data import signatures as module
from allam.data.config import DedupConfig
from allam.data.drops import Drops, read_drops
from allam.data.signatures import Repeats, save_array, signatures
from allam.data.tables import read_dropped
from allam.data.tasks import Meter
from allam.documents import Document, read_documents, shard_path, write_documents


def document(id: str, text: str, source: str = "a", url: str | None = None, of: str | None = None) -> Document:
    return Document(id, text, source, "ar" if of else "en", "web", "translated" if of else "natural", url=url, translation_of=of)


def write(base: Path, *documents: Document) -> Path:
    for source in dict.fromkeys(d.source for d in documents):
        write_documents(shard_path(base / "documents", source, 0), [d for d in documents if d.source == source])
    return base


def dedup(tmp_path: Path, *documents: Document, **fields: Any) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Ids that are kept, and (reason, detail) by id of what is dropped."""
    out = tmp_path / "out"
    stage("dedup", DedupConfig(**fields), {"documents": write(tmp_path / "in", *documents)}, out)
    dropped = {row["id"]: (row["reason"], row["detail"]) for path in sorted((out / "dropped").glob("*/*")) for row in read_dropped(path)}
    return [d.id for d in read_documents(out / "documents")], dropped


def test_the_first_in_the_recipes_order_is_kept_across_sources(tmp_path: Path) -> None:
    found = (document("1", "same text", "a"), document("2", "same\n  text", "b"))
    assert dedup(tmp_path / "x", *found, order=("a", "b")) == (["1"], {"2": ("duplicate_text", "as 1")})
    assert dedup(tmp_path / "y", *found, order=("b", "a")) == (["2"], {"1": ("duplicate_text", "as 2")})


def test_urls_are_compared_before_texts_and_a_text_is_not_lost_with_a_dropped_url(tmp_path: Path) -> None:
    kept, dropped = dedup(tmp_path, document("1", "one", url="http://e.com/a"), document("2", "two", url="https://www.e.com/a/"), document("3", "two"))
    assert kept == ["1", "3"]
    assert dropped == {"2": ("duplicate_url", "as 1")}


def test_documents_without_a_url_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    assert dedup(tmp_path, document("1", "one"), document("2", "two", url=None))[0] == ["1", "2"]


def test_each_comparison_can_be_left_out(tmp_path: Path) -> None:
    found = (document("1", "one", url="http://e.com"), document("2", "one", url="http://e.com"))
    assert dedup(tmp_path / "x", *found, url=False)[1] == {"2": ("duplicate_text", "as 1")}
    assert dedup(tmp_path / "y", *found, url=False, exact=False)[0] == ["1", "2"]


VALUES = st.tuples(st.sampled_from(["", "a", "b", "c", "d", "e"]), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(VALUES, max_size=8), max_size=5), st.integers(1, 4), st.sets(st.integers(0, 12)))
def test_repeats_are_found_as_a_plain_loop_finds_them_however_many_parts(files: list[list[tuple[str, int]]], rows_at_once: int, left_out: set[int]) -> None:
    starts = np.cumsum([0, *map(len, files)]).tolist()
    with tempfile.TemporaryDirectory() as folder, patch.object(module, "ROWS_AT_ONCE", rows_at_once):
        paths = [Path(folder) / f"{i}.npy" for i in range(len(files))]
        for path, values in zip(paths, files, strict=True):
            ranks = np.array([rank for _, rank in values], np.uint64).reshape(-1, 1)
            save_array(path, np.hstack([signatures(value for value, _ in values), ranks]))
        repeats = Repeats(paths, Path(folder) / "work", lambda i: np.array([starts[i] + row in left_out for row in range(len(files[i]))], bool))
        found = [[rows.tolist() for rows in repeats.of(i)] for i in range(len(files))]
    everything = [value for values in files for value in values]
    groups: dict[str, list[int]] = {}
    for number, (value, _) in enumerate(everything):
        if value and number not in left_out:
            groups.setdefault(value, []).append(number)
    best = {value: min(rows, key=lambda row: (-everything[row][1], row)) for value, rows in groups.items()}
    expected = sorted((row, best[value]) for value, rows in groups.items() for row in rows if row != best[value])
    assert len(repeats) == len(expected)
    assert [(row + starts[i], original) for i, pair in enumerate(found) for row, original in zip(*pair, strict=True)] == expected


@pytest.mark.parametrize("rows_at_once", [3, 1000])
def test_originals_are_found_by_id_whatever_their_order_and_however_many_parts(tmp_path: Path, rows_at_once: int) -> None:
    names = [f"doc-{i}" for i in range(40)]
    for shard, first in enumerate((20, 0)):
        write_documents(shard_path(tmp_path, "a", shard), [document(name, f"text of {name}") for name in names[first: first + 20]])
    shards = [("a", shard_path(tmp_path, "a", shard)) for shard in range(2)]
    links = [["doc-3", "doc-39", None, "doc-3"], [], ["elsewhere", *names[10:30]]]
    work = tmp_path / "work"
    work.mkdir()
    with patch.object(originals, "ROWS_AT_ONCE", rows_at_once), patch.object(module, "ROWS_AT_ONCE", rows_at_once):
        for i, named in enumerate(links):
            save_array(tmp_path / f"{i}.npy", signatures(named))
        originals.want(work, [tmp_path / f"{i}.npy" for i in range(len(links))])
        for task in range(2):
            originals.gather(work, shards, task, Meter(tmp_path / "meter"))
        originals.index(work, 2)
        found = originals.Originals(work)
        for named in links:
            assert list(found.find(signatures(named))) == [f"text of {name}" if name in names else None for name in named]


def test_two_signatures_that_share_their_first_half_are_two(tmp_path: Path) -> None:
    save_array(tmp_path / "0.npy", np.array([[7, 1], [7, 2], [7, 2], [7, 3], [7, 1], [8, 0]], np.uint64))
    assert [rows.tolist() for rows in Repeats([tmp_path / "0.npy"], tmp_path / "work").of(0)] == [[2, 4], [1, 0]]


def test_the_first_reason_stands_and_drops_come_back_in_the_order_of_rows(tmp_path: Path) -> None:
    base = write(tmp_path / "in", *(document(str(i), f"text {i}") for i in range(6)))
    drops = Drops([("a", base / "documents" / "a" / "00000.parquet")], tmp_path)
    for reason, rows in (("first", (1, 4)), ("second", (0, 1, 5))):
        for row in rows:
            drops.add(0, row, reason, f"{reason} {row}")
    drops.flush()
    expected = [(0, "second", "second 0"), (1, "first", "first 1"), (4, "first", "first 4"), (5, "second", "second 5")]
    assert list(read_drops(tmp_path, 0)) == expected
    assert drops.mask(0).tolist() == [True, True, False, False, True, True]
    assert list(read_drops(tmp_path, 1)) == []


def test_of_one_page_the_longest_text_is_kept_and_of_equal_texts_the_recipes_first(tmp_path: Path) -> None:
    pages = (document("cut", "Short version", url="http://e.com/a"), document("whole", "The whole of the page", url="http://e.com/a#top"),
             document("padded", "Cut " + " " * 50 + "again", url="http://e.com/a"))
    kept, dropped = dedup(tmp_path / "x", *pages)
    assert kept == ["whole"]
    assert dropped == {"cut": ("duplicate_url", "as whole"), "padded": ("duplicate_url", "as whole")}
    vocalised = (document("plain", "كتاب جديد"), document("marked", "كِتَابٌ جَدِيدٌ"))
    assert dedup(tmp_path / "y", *vocalised)[0] == ["plain"]
    assert dedup(tmp_path / "z", *reversed(vocalised))[0] == ["marked"]


def test_which_duplicate_is_kept_is_a_rule_of_the_recipe(tmp_path: Path) -> None:
    found = [Document("old", "same", "a", "en", "web", "natural", url="http://e.com/1", title="T", date="2024-03-09"),
             Document("new", "same", "a", "en", "web", "natural", url="http://e.com/2", date="2024-10-01T10:00:00Z"),
             Document("undated", "same", "a", "en", "web", "natural", url="http://e.com/3", date="yesterday")]
    assert dedup(tmp_path / "a", *found, keep=("newest",))[0] == ["new"]
    assert dedup(tmp_path / "b", *found, keep=("metadata", "newest"))[0] == ["old"]
    assert dedup(tmp_path / "c", *reversed(found), keep=())[0] == ["undated"]


@pytest.mark.parametrize(("fold", "one", "other"), [
    ("alef", "إلى أحمد آخر", "الى احمد اخر"),
    ("hamza", "مسؤول", "مسئول"), ("ya", "على المستشفى", "علي المستشفي"), ("ta_marbuta", "مكتبة المدرسة", "مكتبه المدرسه")])
def test_variants_of_letters_count_as_one_only_where_the_recipe_says_so(tmp_path: Path, fold: str, one: str, other: str) -> None:
    found = (document("1", one), document("2", other))
    assert dedup(tmp_path / "x", *found)[0] == ["1", "2"]
    assert dedup(tmp_path / "y", *found, folds=(fold,))[1] == {"2": ("duplicate_text", "as 1")}
    assert [d.text for d in read_documents(tmp_path / "y" / "out" / "documents")] == [one]


def test_a_rule_or_a_letter_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="folds names something twice: ya, ya"):
        DedupConfig(folds=("ya", "ya"))
