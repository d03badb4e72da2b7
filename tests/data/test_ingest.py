"""Every record of a raw file becomes a document or is set aside with a reason: nothing is lost, whatever the file holds."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from data_stages import checksums, ingest
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.data import archives, parts, tables
from allam.data.archives import Line
from allam.data.config import SourceConfig
from allam.data.parts import parts_of
from allam.data.tables import TableWriter
from allam.documents import SCHEMA, Document, read_documents, read_shard
from allam.errors import UserError
from allam.section import FileRef

LINES = ["The weather was cold.", "ذهبنا إلى السوق في الصباح.", "Nobody wanted to leave the house that day."]


def documents(out: Path) -> list[Document]:
    return list(read_documents(out / "documents"))


def set_aside(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "set_aside.jsonl").read_text().splitlines()]


def json_lines(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"id": f"d{i}", "text": text}, ensure_ascii=False).encode() + b"\n" for i, text in enumerate(texts))


PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress,
                                               ".bz2": bz2.compress}


@pytest.mark.parametrize("ending", PACKERS)
def test_json_lines_are_read_plain_and_packed(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a.jsonl{ending}").write_bytes(PACKERS[ending](json_lines(LINES)))
    metrics = ingest(tmp_path, tmp_path / "out", path=f"a.jsonl{ending}")
    assert [(d.id, d.text, d.source, d.language, d.domain, d.kind) for d in documents(tmp_path / "out")] == [
        (f"d{i}", text, "s", "en", "web", "natural") for i, text in enumerate(LINES)]
    assert metrics["funnel"]["s"] == {"in": 3, "out": 3, "dropped": {}, "set_aside": {}}
    assert metrics["sources"]["s"] == {"documents": 3, "bytes": sum(len(text.encode()) for text in LINES)}


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst", ".bz2"])
def test_an_archive_of_several_members_is_read_to_its_end(tmp_path: Path, ending: str) -> None:
    pack = PACKERS[ending]
    data = json_lines(LINES)
    (tmp_path / f"a.jsonl{ending}").write_bytes(pack(data[:40]) + pack(data[40:]))
    ingest(tmp_path, tmp_path / "out", path=f"a.jsonl{ending}")
    assert [d.text for d in documents(tmp_path / "out")] == LINES


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst", ".bz2"])
def test_an_archive_cut_at_any_byte_keeps_what_came_before_and_counts_one_truncated_record(tmp_path: Path, ending: str) -> None:
    def read_lines(path: Path) -> list[Line]:
        return list(archives.read_lines(archives.Content(path, lambda n: None), 1000))

    lines = [f"line {i} {'x' * (i % 7)}".encode() for i in range(40)]
    whole = PACKERS[ending](b"\n".join(lines) + b"\n")
    path = tmp_path / f"a{ending}"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found = read_lines(path)
        assert found[-1].problem == "truncated", cut
        kept = [line.data for line in found[:-1]]
        assert kept == lines[: len(kept)], cut
        assert all(not line.problem for line in found[:-1]), cut
    path.write_bytes(whole)
    assert [line.data for line in read_lines(path)] == lines


def test_a_truncated_archive_keeps_its_complete_documents(tmp_path: Path) -> None:
    whole = gzip.compress(json_lines([f"{text} {i * 7919}" for i in range(300) for text in LINES]))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    metrics = ingest(tmp_path, tmp_path / "out", path="a.jsonl.gz")["funnel"]["s"]
    assert metrics["set_aside"] == {"truncated": 1}
    assert 200 < metrics["out"] == metrics["in"] - 1
    assert set_aside(tmp_path / "out")[0]["line"] == metrics["in"]


def damaged_archives(data: bytes) -> dict[str, bytes]:
    """The data packed, with nonsense from the middle on (that of deflate begins with a kind of block that there is none of)."""
    deflate = zlib.compressobj(wbits=31)
    half = deflate.compress(data[: len(data) // 2]) + deflate.flush(zlib.Z_FULL_FLUSH)
    xz = lzma.compress(data)
    return {".gz": half + b"\xff" * 100, ".xz": xz[: len(xz) // 2] + bytes(255 - byte for byte in xz[len(xz) // 2:])}


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_a_damaged_archive_keeps_what_stands_before_the_damage_however_small_it_is(tmp_path: Path, ending: str) -> None:
    texts = ["".join(random.Random(i).choices("abcdefgh ", k=1000)) for i in range(100)]
    (tmp_path / f"a.jsonl{ending}").write_bytes(damaged_archives(json_lines(texts))[ending])
    metrics = ingest(tmp_path, tmp_path / "out", path=f"a.jsonl{ending}")["funnel"]["s"]
    kept = [d.text for d in documents(tmp_path / "out")]
    assert kept == texts[: len(kept)]
    assert 35 <= len(kept) <= 51
    assert metrics["set_aside"] == {"unreadable": 1}


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_no_document_of_a_member_whose_checksum_fails_is_kept_and_those_before_it_are(tmp_path: Path, ending: str) -> None:
    checked = zstandard.ZstdCompressor(write_checksum=True).compress
    pack, end = (gzip.compress, 8) if ending == ".gz" else (checked, 4)
    lines = json_lines([f"{text} {i * 7919}" for i in range(300) for text in LINES]).splitlines(keepends=True)
    bad = bytearray(pack(b"".join(lines[400:])))
    bad[-end] ^= 1  # of the checksum itself: what was read is as good as any, and nobody can know
    (tmp_path / f"a.jsonl{ending}").write_bytes(pack(b"".join(lines[:400])) + bad)
    metrics = ingest(tmp_path, tmp_path / "out", path=f"a.jsonl{ending}")["funnel"]["s"]
    assert [d.id for d in documents(tmp_path / "out")] == [f"d{i}" for i in range(400)]
    assert metrics["set_aside"].keys() == {"bad_checksum"}
    assert metrics["in"] > (500 if ending == ".gz" else 400)
    with pytest.raises(UserError, match="bad_checksum"):
        ingest(tmp_path, tmp_path / "strict", path=f"a.jsonl{ending}", max_set_aside_share=0.0)


def test_broken_lines_are_set_aside_with_file_line_and_reason(tmp_path: Path) -> None:
    good = json_lines(LINES).splitlines()
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([
        good[0], b'{"id": "x", "text": "cut', b"", b'{"id": "y", "text": "\xff\xfe"}', good[1], b'{"id": "z"}', b'{"id": "w", "text": "  \\n"}',
        b'{"id": "v", "text": 7}', b'["text"]', b'{"id": "u", "text": "\\ud800"}', good[2]]))
    metrics = ingest(tmp_path, tmp_path / "out", path="a.jsonl")
    assert metrics["funnel"]["s"] == {"in": 10, "out": 3, "dropped": {}, "set_aside": {"bad_json": 3, "bad_utf8": 1, "no_text": 3}}
    assert [(row["file"], row["line"], row["reason"]) for row in set_aside(tmp_path / "out")] == [
        ("a.jsonl", 2, "bad_json"), ("a.jsonl", 4, "bad_utf8"), ("a.jsonl", 6, "no_text"), ("a.jsonl", 7, "no_text"), ("a.jsonl", 8, "no_text"),
        ("a.jsonl", 9, "bad_json"), ("a.jsonl", 10, "bad_json")]


def test_a_record_over_the_limit_is_set_aside_and_the_next_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(["x" * 3_000_000, LINES[0]]))
    metrics = ingest(tmp_path, tmp_path / "out", path="a.jsonl", max_document_bytes=1000)
    assert metrics["funnel"]["s"]["set_aside"] == {"oversized": 1}
    assert [d.text for d in documents(tmp_path / "out")] == [LINES[0]]


def test_plain_text_is_cut_into_documents_at_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\n\nfirst\nstill first\n \t\nsecond\r\n\r\n\n" + b"bad \xff\n\nthird")
    ingest(tmp_path, tmp_path / "out", path="a.txt")
    assert [(d.id, d.text) for d in documents(tmp_path / "out")] == [("s-000000", "first\nstill first"), ("s-000001", "second\r"), ("s-000003", "third")]
    assert [(row["line"], row["reason"]) for row in set_aside(tmp_path / "out")] == [(9, "bad_utf8")]


def test_parquet_is_read_with_its_columns_and_bad_text_is_set_aside(tmp_path: Path) -> None:
    text = pa.array([LINES[0].encode(), b"\xff", None, LINES[1].encode()], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "text": text, "url": ["http://a.b/c", None, None, ""]}), tmp_path / "a.parquet")
    metrics = ingest(tmp_path, tmp_path / "out", path="a.parquet")
    assert metrics["funnel"]["s"] == {"in": 4, "out": 2, "dropped": {}, "set_aside": {"bad_utf8": 1, "no_text": 1}}
    assert [(d.id, d.url) for d in documents(tmp_path / "out")] == [("1", "http://a.b/c"), ("4", None)]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_text_that_parquet_holds_as_bytes_is_read_as_text(kind: pa.DataType, tmp_path: Path) -> None:
    text = pa.array(["نص سليم".encode(), b"\xff", LINES[0].encode()], kind)
    pq.write_table(pa.table({"id": pa.array([b"a", b"b", b"c"], kind), "text": text}), tmp_path / "a.parquet")
    metrics = ingest(tmp_path, tmp_path / "out", path="a.parquet")
    assert metrics["funnel"]["s"] == {"in": 3, "out": 2, "dropped": {}, "set_aside": {"bad_utf8": 1}}
    assert [(d.id, d.text) for d in documents(tmp_path / "out")] == [("a", "نص سليم"), ("c", LINES[0])]


def test_a_parquet_file_without_the_text_column_names_the_field_and_the_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"data\.sources\.s\.text_field.*a\.parquet.*'text'(.|\n)*content"):
        ingest(tmp_path, tmp_path / "out", path="a.parquet")


def test_a_table_without_the_text_column_beside_others_is_set_aside_whole(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,The weather was cold.\n")
    (tmp_path / "b.csv").write_text("id,content\n2,one\n3,two\n")
    pq.write_table(pa.table({"content": ["x", "y", "z"]}), tmp_path / "c.parquet")
    metrics = ingest(tmp_path, tmp_path / "out", path="*.*")["funnel"]["s"]
    assert metrics == {"in": 6, "out": 1, "dropped": {}, "set_aside": {"no_column": 5}}
    assert {(row["file"], row["excerpt"]) for row in set_aside(tmp_path / "out")} == {("b.csv", "id, content"), ("c.parquet", "content")}


def test_a_cut_parquet_file_is_set_aside(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": LINES}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    assert ingest(tmp_path, tmp_path / "out", path="*.parquet")["funnel"]["s"]["set_aside"] == {"unreadable": 1}


def test_fields_are_found_where_the_source_says(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"key": 7, "link": "http://x.y", "pair": [{"body": "نص"}], "en": "e1"}))
    ingest(tmp_path, tmp_path / "out", path="a.jsonl", language="ar", kind="translated", text_field="pair.0.body", id_field="key", id_prefix="p/",
           url_field="link", translation_of_field="en", translation_of_prefix="q/", licence="CC0")
    (found,) = documents(tmp_path / "out")
    assert (found.id, found.text, found.url, found.translation_of, found.licence) == ("p/7", "نص", "http://x.y", "q/e1", "CC0")


def test_pairs_without_ids_are_joined_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"en": "one", "ar": "واحد"}\nbroken\n{"en": "two", "ar": "اثنان"}\n')
    ingest(tmp_path, tmp_path / "en", path="a.jsonl", text_field="en", id_field=None, id_prefix="en/")
    ingest(tmp_path, tmp_path / "ar", path="a.jsonl", text_field="ar", id_field=None, language="ar", kind="translated", translation_of_field=None,
           translation_of_prefix="en/")
    assert [d.id for d in documents(tmp_path / "en")] == [d.translation_of for d in documents(tmp_path / "ar")] == ["en/000000", "en/000002"]


def test_a_repeated_id_is_set_aside_with_its_line_also_across_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": "first"}\n{"id": "2", "text": "second"}\n{"id": "1", "text": "third"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": "2", "text": "fourth"}\n{"id": "3", "text": "fifth"}\n')
    metrics = ingest(tmp_path, tmp_path / "out", path="*.jsonl")
    assert metrics["funnel"]["s"] == {"in": 5, "out": 3, "dropped": {}, "set_aside": {"duplicate_id": 2}}
    assert [d.text for d in documents(tmp_path / "out")] == ["first", "second", "fifth"]
    assert [(row["file"], row["line"]) for row in set_aside(tmp_path / "out")] == [("a.jsonl", 3), ("b.jsonl", 1)]


def test_a_shard_ends_with_its_last_document_allowed_however_short_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_A_SHARD", 20)
    (tmp_path / "a.jsonl").write_bytes(json_lines([f"t{i}" for i in range(51)]))
    (tmp_path / "b.jsonl").write_bytes(json_lines(["repeats", "ids"]) + b'{"id": "of its own", "text": "x"}')
    row = ingest(tmp_path, tmp_path / "out", path="*.jsonl")["funnel"]["s"]
    shards = sorted((tmp_path / "out" / "documents" / "s").iterdir())
    assert [len(list(read_shard(path))) for path in shards] == [20, 20, 11, 1]
    assert row == {"in": 54, "out": 52, "dropped": {}, "set_aside": {"duplicate_id": 2}}


def test_a_shard_of_long_documents_is_read_a_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BYTES_PER_GROUP", 2000)
    (tmp_path / "a.jsonl").write_bytes(json_lines(["x" * 900 for _ in range(10)]))
    ingest(tmp_path, tmp_path / "out", path="a.jsonl")
    read = list(tables.read_tables(tmp_path / "out" / "documents" / "s" / "00000.parquet", ["text"]))
    assert [table.num_rows for table in read] == [3, 3, 3, 1]


def test_each_file_has_shards_of_its_own_which_end_with_the_document_that_fills_them(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(["four", "four", "nine long", "سبع", "1"]))
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "b"}\n')
    ingest(tmp_path, tmp_path / "out", path="*.jsonl", shard_bytes=6)
    shards = [[d.text for d in read_shard(path)] for path in sorted((tmp_path / "out/documents/s").iterdir())]
    assert shards == [["four", "four"], ["nine long"], ["سبع"], ["1"], ["b"]]


def test_small_files_share_parts_and_a_new_one_changes_no_other_part() -> None:
    def runs(names: list[str]) -> set[tuple[str, ...]]:
        files = tuple(FileRef(path=name, sha256="0" * 64, size=1000) for name in sorted(names))
        parts = parts_of("s", SourceConfig(path="notes", language="en", domain="web", files=files))
        assert [file for part in parts for file in part.files] == list(files)
        return {tuple(file.path for file in part.files) for part in parts}

    names = [f"notes/{i:04d}.md" for i in range(3000)]
    before, after = runs(names), runs([*names, "notes/1500-more.md"])
    assert 5 <= len(before) <= 30
    assert max(map(len, before)) <= 1000
    assert len(before - after) == len(after - before) == 1


def test_row_groups_are_the_same_however_documents_are_handed_over(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([asdict(Document(str(i), LINES[i % 3] * (i % 50), "s", "en", "web", "natural")) for i in range(2500)], schema=SCHEMA)
    for name, cuts in (("one", [2500]), ("many", [1, 999, 1000, 7, 493])):
        with TableWriter(tmp_path / name) as writer:
            for count in cuts:
                writer.write(table.slice(writer.rows, count))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
    assert pq.ParquetFile(tmp_path / "one").num_row_groups == 3


def test_a_documents_made_id_names_its_file_where_the_path_may_name_several(tmp_path: Path) -> None:
    for name in ("raw/x.jsonl", "raw/2024/01.v2.jsonl.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PACKERS[".gz" if name.endswith(".gz") else ""](b'{"text": "one"}\nbroken\n{"text": "two"}\n'))
    made = {path: ingest(tmp_path, tmp_path / f"out{i}", path=path) and [d.id for d in documents(tmp_path / f"out{i}")]
            for i, path in enumerate(["raw", "raw/*.jsonl", "raw/*/*.gz", "raw/x.jsonl"])}
    assert made == {
        "raw": ["s-2024/01.v2-000000", "s-2024/01.v2-000002", "s-x-000000", "s-x-000002"], "raw/*.jsonl": ["s-x-000000", "s-x-000002"],
        "raw/*/*.gz": ["s-2024/01.v2-000000", "s-2024/01.v2-000002"], "raw/x.jsonl": ["s-000000", "s-000002"]}


def test_a_document_says_in_which_file_and_line_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "three"}\n')
    ingest(tmp_path, tmp_path / "out", path="*.jsonl")
    assert [(d.text, d.file, d.line) for d in documents(tmp_path / "out")] == [("one", "a.jsonl", 1), ("two", "a.jsonl", 3), ("three", "b.jsonl", 1)]


def test_pairs_in_two_folders_are_joined_by_their_files_names_and_numbers(tmp_path: Path) -> None:
    for language, texts in (("en", "one\n\ntwo\n"), ("ar", "واحد\n\nاثنان\n")):
        for name in ("a.txt", "b/c.txt"):
            (tmp_path / language / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / language / name).write_text(texts)
    ingest(tmp_path, tmp_path / "out_en", path="en", id_prefix="en/")
    ingest(tmp_path, tmp_path / "out_ar", path="ar", language="ar", kind="translated", translation_of_field=None, translation_of_prefix="en/")
    expected = ["en/a-000000", "en/a-000001", "en/b/c-000000", "en/b/c-000001"]
    assert [d.id for d in documents(tmp_path / "out_en")] == [d.translation_of for d in documents(tmp_path / "out_ar")] == expected


def test_skipped_records_are_not_counted_and_the_maximum_is_of_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(LINES) + b"broken\n" + b'{"text": "more"}\n{"text": "and more"}\n')
    metrics = ingest(tmp_path, tmp_path / "out", path="a.jsonl", skip_records=2, max_documents=2)
    assert metrics["funnel"]["s"] == {"in": 3, "out": 2, "dropped": {}, "set_aside": {"bad_json": 1}}
    assert [(d.id, d.text) for d in documents(tmp_path / "out")] == [("d2", LINES[2]), ("s-000004", "more")]


def test_too_many_broken_records_fail_the_stage_and_name_source_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(LINES) + b"broken\n")
    with pytest.raises(UserError, match=r"data\.sources\.s: 1 of 4 records are broken \(1 bad_json\)(.|\n)*max_set_aside_share"):
        ingest(tmp_path, tmp_path / "out", path="a.jsonl", max_set_aside_share=0.2)
    assert ingest(tmp_path, tmp_path / "out2", path="a.jsonl", max_set_aside_share=0.25)["funnel"]["s"]["out"] == 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_an_empty_source_is_the_users_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\n")
    with pytest.raises(UserError, match=r"data\.sources\.s\.path"):
        ingest(tmp_path, tmp_path / "out", path=name)


def test_an_unknown_ending_names_the_field_that_would_help(tmp_path: Path) -> None:
    (tmp_path / "a.doc").write_bytes(b"x")
    with pytest.raises(UserError, match=r"data\.sources\.s\.format"):
        ingest(tmp_path, tmp_path / "out", path="a.doc")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(
    st.builds(lambda i, t: json.dumps({"id": i, "text": t}).encode(), st.integers(0, 9), st.text(max_size=12)),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b" "))), max_size=25), st.sampled_from(list(PACKERS)), st.integers(0, 3), st.integers(1, 60))
def test_in_is_out_plus_set_aside_for_any_bytes(lines: list[bytes], ending: str, cut: int, shard_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        packed = PACKERS[ending](b"\n".join(lines))
        (root / f"a.jsonl{ending}").write_bytes(packed[: len(packed) - cut] if ending else packed)
        (root / "b.jsonl").write_text('{"id": "always", "text": "there"}\n')
        row = ingest(root, root / "out", path="*.jsonl*", shard_bytes=shard_bytes)["funnel"]["s"]
        assert row["out"] == len(documents(root / "out"))
        assert row["in"] == row["out"] + len(set_aside(root / "out"))
        assert len({d.id for d in documents(root / "out")}) == row["out"]
        if not (cut and ending):
            lines[:1] = [line.removeprefix(b"\xef\xbb\xbf") for line in lines[:1]]  # a byte order mark is no text
            assert row["in"] == 1 + sum(bool(line.strip()) for line in lines)


def test_running_again_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(LINES * 50) + b"broken\n")
    ingest(tmp_path, tmp_path / "one", path="a.jsonl", shard_bytes=2000)
    ingest(tmp_path, tmp_path / "two", path="a.jsonl", shard_bytes=2000)
    assert checksums(tmp_path / "one") == checksums(tmp_path / "two")
