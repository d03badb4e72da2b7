"""Whatever bytes a file holds: no reader raises, memory stays bounded, and every record that can be counted is a document or set aside."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_readers import SRT, VTT, aside, read, texts
from test_readers_web import DUMP, ENGLISH, crawl, html

from allam.data.config import SourceConfig
from allam.data.readers import Raw, SetAside, read_records

PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": [str(i) for i in range(50)], "text": [f"{ENGLISH} {i}" for i in range(50)]}), out, row_group_size=20)
    return out.getvalue()


FILES: dict[str, bytes] = {
    "a.jsonl": b"".join(json.dumps({"id": str(i), "text": f"نص {i}"}, ensure_ascii=False).encode() + b"\n" for i in range(20)),
    "a.csv": ("id,text\n" + "".join(f'{i},"line {i}\nwith ""quotes"""\n' for i in range(20))).encode(),
    "a.tsv": ("id\ttext\n" + "".join(f"{i}\tline {i}\n" for i in range(20))).encode(),
    "a.txt": b"one\n\ntwo\nlines\n\n\nthree\n",
    "a.md": b"---\ntitle: T\ndate: 2024-01-02\n---\n# Head\n\ntext\n",
    "a.srt": SRT.encode(), "a.vtt": VTT.encode(), "a.xml": DUMP.encode(), "a.parquet": parquet(),
    "a.warc": crawl(*(html(f"{ENGLISH} {i}", url=f"http://a.b/{i}") for i in range(2)), packed=False),
}


def read_hostile(name: str, data: bytes, max_bytes: int = 100_000) -> list[Raw | SetAside]:
    """The records of a file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(data)
        return read(Path(folder) / name, max_bytes)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.md", "a.srt", "a.xml"])
def test_an_archive_cut_at_any_byte_gives_whole_documents_and_says_where_it_broke(name: str, ending: str) -> None:
    whole = texts(read_hostile(name, FILES[name]))
    packed = PACK[ending](FILES[name])
    for cut in range(0, len(packed), 1 + len(packed) // 60):
        records = read_hostile(name + ending, packed[:cut])
        assert texts(records) == whole[: len(texts(records))], cut
        assert [reason for _, reason, _ in aside(records)].count("truncated") == 1, cut


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_any_byte_gives_whole_documents_before_the_cut(name: str) -> None:
    whole, data = texts(read_hostile(name, FILES[name])), FILES[name]
    step = 1 + len(data) // (12 if name == "a.warc" else 60)
    for cut in range(0, len(data), step):
        found = texts(read_hostile(name, data[:cut]))
        assert found[:-1] == whole[: max(0, len(found) - 1)] or name in ("a.md", "a.srt", "a.vtt"), cut


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from([name for name in FILES if name != "a.warc"]), ending=st.sampled_from(list(PACK)),
       flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_never_raise(name: str, ending: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(PACK[ending](FILES[name]) if name != "a.parquet" else FILES[name])
    for at, mask in flips:
        data[at % len(data)] ^= mask
    records = read_hostile(name if name == "a.parquet" else name + ending, bytes(data))
    assert all(isinstance(record, SetAside) or record.text.strip() for record in records)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 20), st.integers(1, 255))
def test_flipped_bytes_of_a_crawl_never_raise(at: int, mask: int) -> None:
    data = bytearray(FILES["a.warc"])
    data[at % len(data)] ^= mask
    assert len(read_hostile("a.warc", bytes(data))) <= 6


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([*FILES, "a.jsonl.gz", "a.csv.bz2", "a.warc.gz"]), st.binary(max_size=300))
def test_any_bytes_never_raise(name: str, data: bytes) -> None:
    read_hostile(name, data)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=8), st.integers(1, 3)), max_size=12))
def test_every_row_of_a_csv_file_is_a_document_or_set_aside(rows: list[tuple[str, int]]) -> None:
    import csv

    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "text"])
    for text, cells in rows:
        writer.writerow([text] * cells)
    records = read_hostile("a.csv", out.getvalue().encode())
    good = [text.replace("\r\n", "\n") for text, cells in rows if cells == 2 and text.strip()]
    assert [text.replace("\r\n", "\n") for text in texts(records)] == good
    assert len(records) == len(rows)


# --- memory ---------------------------------------------------------------------------------------------------------------------

MB = 1 << 20
LIMIT = MB  # of a document
ALLOWED = 12 * MB  # of Python's memory: a few times the limit, and some pieces of unpacked content


def peak(path: Path, **fields: str) -> tuple[int, list[Raw | SetAside]]:
    """The most memory that reading took, and the records."""
    config = SourceConfig(**({"path": path.name, "language": "en", "domain": "web"} | fields))  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        records = list(read_records("s", config, path, LIMIT, lambda n: None))
        return tracemalloc.get_traced_memory()[1], records
    finally:
        tracemalloc.stop()


def write_huge(path: Path, before: bytes, after: bytes, size: int) -> None:
    """A gzip file with a run of `size` letters between two texts."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(before)
        for _ in range(size // MB):
            file.write(b"x" * MB)
        file.write(after)


WARC_HEAD = (b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:1>\r\nWARC-Target-URI: http://a.b/\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
             b"Content-Type: application/http\r\nContent-Length: %d\r\n\r\n")
GOOD_WARC = FILES["a.warc"]
AROUND: dict[str, tuple[bytes, bytes, int]] = {  # before and after the run, and how many documents are left
    "a.jsonl": (b'{"text": "', b'"}\n{"text": "kept"}\n', 1), "a.csv": (b'id,text\n1,"', b'"\n2,kept\n', 1), "a.txt": (b"", b"\n\nkept\n", 1),
    "a.md": (b"---\n", b"", 0), "a.srt": (b"1\n00:00:01,000 --> 00:00:02,000\n", b"\n", 0),
    "a.xml": (b"<mediawiki><page><title>", b"</title></page>" + DUMP.encode(), 2), "a.warc": (WARC_HEAD, b"\r\n\r\n" + GOOD_WARC, 2),
}


@pytest.mark.parametrize("size", [24 * MB, pytest.param(200 * MB, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", AROUND)
def test_a_huge_document_is_set_aside_in_bounded_memory_and_the_next_ones_are_read(
        name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allam.data.archives.BOMB_BYTES", 1 << 40)  # one letter over and over packs as well as a bomb does
    before, after, left = AROUND[name]
    write_huge(tmp_path / f"{name}.gz", before % size if name == "a.warc" else before, after, size)
    most, records = peak(tmp_path / f"{name}.gz")
    assert "oversized" in [reason for _, reason, _ in aside(records)]
    assert len(texts(records)) == left
    assert most < ALLOWED


@pytest.mark.parametrize("name", [*AROUND, "a.whole"])
def test_a_bomb_is_left_unread_beyond_its_bound(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allam.data.archives.BOMB_BYTES", 8 * MB)
    bomb = gzip.compress(b"\0" * (20 * MB), 9)
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(AROUND[name][0] if name in AROUND else b"") + bomb * 500)  # 10 GB in 10 MB
    most, records = peak(path, **({"format": "whole_text"} if name == "a.whole" else {}))
    assert not texts(records)
    assert {"bomb", "oversized"} & {reason for _, reason, _ in aside(records)}
    assert most < ALLOWED


def test_long_rows_of_parquet_are_set_aside_one_at_a_time(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["kept", "x" * (5 * MB), "y" * (5 * MB), "also kept"]}), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    records = read(tmp_path / "a.parquet", LIMIT)
    assert texts(records) == ["kept", "also kept"]
    assert aside(records) == [(2, "oversized", 1), (3, "oversized", 1)]


def test_a_long_value_of_parquet_never_becomes_pythons(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["kept", "x" * (64 * MB), "also kept"]}), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    most, records = peak(tmp_path / "a.parquet")
    assert texts(records) == ["kept", "also kept"]
    assert most < ALLOWED


def test_rows_of_parquet_that_unpack_to_more_than_any_text_does_are_set_aside_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allam.data.readers.parquet.BOMB_BYTES", 8 * MB)
    table = pa.table({"text": ["before", "word " * (4 * MB), "after", "kept", "kept, too"]})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(table.slice(0, 3))
        writer.write_table(table.slice(3))
    records = read(tmp_path / "a.parquet", LIMIT)
    assert texts(records) == ["kept", "kept, too"]
    assert aside(records) == [(1, "bomb", 3)]


@pytest.mark.parametrize("kind", ["string", "dictionary", "nested", "list"])
def test_a_parquet_file_that_shares_one_long_value_takes_no_more_memory_than_some_of_them(kind: str, tmp_path: Path) -> None:
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["x" * (8 * MB)]))
    column = {"nested": lambda: pa.StructArray.from_arrays([shared], ["body"]),
              "list": lambda: pa.ListArray.from_arrays(pa.array([0, *range(301)], pa.int32()), shared)}.get(kind, lambda: shared)()
    table, field = pa.table({"text": column}), {"nested": "text.body", "list": "text.0"}.get(kind, "text")
    if kind == "string":
        table = table.replace_schema_metadata(None)
        with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, tmp_path / "a.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert (tmp_path / "a.parquet").stat().st_size < MB
    most, records = peak(tmp_path / "a.parquet", text_field=field)
    empty = [(1, "no_text", 1)] if kind == "list" else []
    assert aside(records) == empty + [(len(empty) + i + 1, "oversized", 1) for i in range(300)]
    assert most < 200 * MB  # 64 MB of rows, in Python's strings
