"""Which of two duplicates is kept, and which translations stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from data_stages import stage
from hypothesis import given
from hypothesis import strategies as st

from allam.data import signatures as module
from allam.data.config import DedupConfig, SourceConfig, TranslateConfig
from allam.data.signatures import find_repeats, save_array, signatures
from allam.data.tables import read_dropped
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
    dropped = {row["id"]: (row["reason"], row["detail"]) for path in sorted((out / "dropped").iterdir()) for row in read_dropped(path)}
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


def translate(tmp_path: Path, *documents: Document, **fields: Any) -> dict[str, str | None]:
    """The reason for each document, None where it is kept."""
    originals = write(tmp_path / "originals", document("e1", "x" * 100), document("e2", "y" * 100))
    out = tmp_path / "out"
    sources = {d.source: SourceConfig(path="x", language="ar", domain="web", kind="translated") for d in documents}
    stage("translate", TranslateConfig(sources=sources, **fields), {"documents": write(tmp_path / "in", *documents), "originals": originals}, out)
    found: dict[str, str | None] = {d.id: None for d in read_documents(out / "documents")}
    return found | {row["id"]: row["reason"] for path in (out / "dropped").iterdir() for row in read_dropped(path)}


def test_a_translation_stands_with_its_source_and_within_the_length_ratios(tmp_path: Path) -> None:
    found = translate(tmp_path, *(document(f"t{n}", chr(ord("a") + i) * n, "t", of="e1") for i, n in enumerate((29, 30, 300, 301))))
    assert found == {"t29": "length_ratio", "t30": None, "t300": None, "t301": "length_ratio"}


def test_orphans_are_dropped_unless_the_recipe_keeps_them(tmp_path: Path) -> None:
    found = (document("t1", "نص", "t", of="gone"), document("t2", "ن" * 90, "t", of="e2"))
    assert translate(tmp_path / "x", *found) == {"t1": "orphan_translation", "t2": None}
    assert translate(tmp_path / "y", *found, drop_orphans=False) == {"t1": None, "t2": None}


def test_a_copy_of_a_dropped_translation_is_kept_and_a_copy_of_a_kept_one_is_not(tmp_path: Path) -> None:
    text = "كلام " * 15
    found = translate(tmp_path, document("t1", text, "t", of="gone"), document("t2", text, "t", of="e1"), document("t3", text.replace(" ", "\n"), "u", of="e2"))
    assert found == {"t1": "orphan_translation", "t2": None, "t3": "duplicate_text"}


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "c", "d", "e"]), max_size=8), max_size=5), st.integers(1, 4))
def test_repeats_are_found_as_a_plain_loop_finds_them_however_many_parts(files: list[list[str]], rows_at_once: int) -> None:
    import tempfile
    from unittest.mock import patch

    with tempfile.TemporaryDirectory() as folder, patch.object(module, "ROWS_AT_ONCE", rows_at_once):
        paths = [Path(folder) / f"{i}.npy" for i in range(len(files))]
        for path, values in zip(paths, files, strict=True):
            save_array(path, signatures(values))
        found = find_repeats(paths)
    seen: dict[str, int] = {}
    number = 0
    for values, rows in zip(files, found, strict=True):
        for value, row in zip(values, rows.tolist(), strict=True):
            assert row == (seen.get(value, -1) if value else -1)
            if value:
                seen.setdefault(value, number)
            number += 1
    assert all(rows.dtype == np.int64 for rows in found)
