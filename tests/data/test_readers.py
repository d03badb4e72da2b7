"""Every format's records become documents or are set aside with line and reason; what becomes of ids, URLs, titles and dates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from allam.data.archives import BadChecksumError
from allam.data.config import SourceConfig
from allam.data.readers import ONE_DOCUMENT_A_FILE, Raw, SetAside, file_format, read_records

MB = 1_000_000


def read(path: Path, max_bytes: int = MB, **fields: Any) -> list[Raw | SetAside]:
    config = SourceConfig(**({"path": path.name, "language": "en", "domain": "web"} | fields))
    try:
        return list(read_records("s", config, path, max_bytes, lambda n: None))
    except BadChecksumError as error:
        return list(read_records("s", config, path, max_bytes, lambda n: None, error.trusted))


def given(folder: Path, name: str, data: bytes | str, max_bytes: int = MB, **fields: Any) -> list[Raw | SetAside]:
    """The records of a file with that name and content."""
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return read(folder / name, max_bytes, **fields)


def texts(records: list[Raw | SetAside]) -> list[str]:
    return [record.text for record in records if isinstance(record, Raw)]


def aside(records: list[Raw | SetAside]) -> list[tuple[int, str, int]]:
    return [(record.line, record.reason, record.records) for record in records if isinstance(record, SetAside)]


# --- CSV and TSV ----------------------------------------------------------------------------------------------------------------

def test_csv_has_names_at_the_top_and_cells_with_line_breaks_quotes_and_separators(tmp_path: Path) -> None:
    records = given(tmp_path, "a.csv", 'id,text,url,title,date\r\n1,"Two lines,\nand a ""quote""",http://a.b,T,2024-01-02\r\n2,نص عربي,,,\r\n')
    assert records == [Raw(2, 'Two lines,\nand a "quote"', "1", "http://a.b", "T", "2024-01-02"), Raw(4, "نص عربي", "2")]


def test_tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    assert given(tmp_path, "a.tsv", "body\tid\nwords, and words\t7\n", text_field="body") == [Raw(2, "words, and words", "7")]


def test_a_row_with_another_number_of_cells_is_set_aside_with_its_line(tmp_path: Path) -> None:
    records = given(tmp_path, "a.csv", "id,text\n1,one\n2\n3,three,more\n\n4,\n5,five\n")
    assert texts(records) == ["one", "five"]
    assert aside(records) == [(3, "bad_row", 1), (4, "bad_row", 1), (6, "no_text", 1)]


def test_a_stray_quote_costs_its_own_line_alone(tmp_path: Path) -> None:
    rows = [f"{i},text {i}\n" for i in range(40)]
    rows[7] = '7,"never closed\n'
    records = given(tmp_path, "a.csv", "id,text\n" + "".join(rows))
    assert aside(records) == [(9, "bad_row", 1)]
    assert len(texts(records)) == 39


def test_rereading_after_stray_quotes_is_bounded(tmp_path: Path) -> None:
    lines = 'x","\n' + 'a,""\n' * 2  # opens a cell both where a row begins and inside of a cell; then rows that change nothing inside of a cell
    records = given(tmp_path, "a.csv", "id,text\n" + lines * 20_000, max_bytes=2000)
    assert not texts(records)
    found = [reason for _, reason, _ in aside(records)]
    assert found[0] == "oversized"
    assert 10 < found.count("no_text") < 1000  # of 40,000: with each of the rows read again behind each of the quotes it would take minutes


def test_a_row_of_another_width_is_one_record_however_many_lines_its_cells_span(tmp_path: Path) -> None:
    wrong = '2,"a cell\nof lines, that\nlook, like rows",extra\n'
    records = given(tmp_path, "a.csv", f'id,text\n1,one\n{wrong}3,"three\nlines, too"\n"a, single\ncell"\n4,four\n')
    assert texts(records) == ["one", "three\nlines, too", "four"]
    assert aside(records) == [(3, "bad_row", 1), (8, "bad_row", 1)]


def test_prose_behind_a_quote_that_is_closed_nowhere_is_no_row(tmp_path: Path) -> None:
    prose = "once upon a time\nthere was, they say\na quote without an end\n\nand so on\n"
    records = given(tmp_path, "a.csv", f'id,text\n1,one\n2,"{prose}')
    assert texts(records) == ["one"]
    assert aside(records) == [(3, "bad_row", 1)]


def test_a_cell_over_the_limit_is_left_out_to_its_closing_quote(tmp_path: Path) -> None:
    cell = 'a line of ""it""\nand, one\nmore of the same\n' * 300
    records = given(tmp_path, "a.csv", f'id,text\n1,one\n2,"{cell}"\n3,three\n', max_bytes=1000)
    assert texts(records) == ["one", "three"]
    assert aside(records) == [(3, "oversized", 1)]


def test_without_a_row_of_names_each_row_is_set_aside_and_counted(tmp_path: Path) -> None:
    records = given(tmp_path, "a.csv", b"id,te\xffxt\n1,one\n2,two\n3,\"three\n4,four\n5,five")
    assert aside(records) == [(1, "bad_utf8", 6)]


def test_an_undecodable_row_and_one_over_the_limit_are_set_aside_and_the_next_is_read(tmp_path: Path) -> None:
    records = given(tmp_path, "a.csv", b"\xef\xbb\xbfid,text\n1,\xff\xfe\n2," + b"x" * 3000 + b"\n3,kept\n", max_bytes=1000)
    assert texts(records) == ["kept"]
    assert aside(records) == [(2, "bad_utf8", 1), (3, "oversized", 1)]


def test_of_csv_without_the_texts_column_each_row_is_set_aside(tmp_path: Path) -> None:
    assert given(tmp_path, "a.csv", "id,content\n1,x\n2,y\n") == [SetAside(1, "no_column", "id, content", 2)]


# --- plain text and Markdown ----------------------------------------------------------------------------------------------------

def test_a_text_file_can_be_one_document(tmp_path: Path) -> None:
    assert given(tmp_path, "a.txt", "first\n\nsecond\n", format="whole_text") == [Raw(1, "first\n\nsecond\n")]
    assert texts(given(tmp_path, "a.txt", "first\n\nsecond\n")) == ["first", "second"]


@pytest.mark.parametrize(("data", "reason"), [(b"", "no_text"), (b"caf\xe9", "bad_utf8"), (b"x" * 1001, "oversized")])
def test_a_whole_file_that_is_no_document_is_set_aside(tmp_path: Path, data: bytes, reason: str) -> None:
    assert aside(given(tmp_path, "a.txt", data, max_bytes=1000, format="whole_text")) == [(1, reason, 1)]


def test_markdown_takes_title_and_date_from_its_front_matter(tmp_path: Path) -> None:
    records = given(tmp_path, "a.md", "---\ntitle: 'A page: one'\ndate: 2024-01-02\ntags: [a, b]\nurl: http://a.b/c\n---\n\n# Head\n\n- item\n")
    assert records == [Raw(1, "# Head\n\n- item", url="http://a.b/c", title="A page: one", date="2024-01-02")]


def test_markdown_without_front_matter_or_with_an_open_rule_is_text(tmp_path: Path) -> None:
    assert texts(given(tmp_path, "a.md", "---\nno end\n")) == ["---\nno end"]
    assert texts(given(tmp_path, "a.md", "# Head\n\n---\n\ntext\n")) == ["# Head\n\n---\n\ntext"]


def test_broken_front_matter_and_a_page_of_front_matter_alone_are_set_aside(tmp_path: Path) -> None:
    assert aside(given(tmp_path, "a.md", "---\ntitle: [\n---\ntext\n")) == [(1, "bad_front_matter", 1)]
    assert aside(given(tmp_path, "a.md", "---\ntitle: x\n---\n")) == [(1, "no_text", 1)]


def test_front_matter_that_grows_when_it_is_read_does_no_harm(tmp_path: Path) -> None:
    laughs = "a: &a {k: v}\n" + "".join(f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True))
    assert texts(given(tmp_path, "a.md", f"---\n{laughs}title: T\n---\ntext\n")) == ["text"]


# --- transcripts ----------------------------------------------------------------------------------------------------------------

SRT = """1
00:00:01,000 --> 00:00:03,000
<i>Good evening</i>, and welcome.

2
00:00:03,200 --> 00:00:05,000
{\\an8}We begin
with the news.

3
00:00:05,100 --> 00:00:06,000
[Music]

4
00:00:09,000 --> 00:00:11,000
مرحبا بكم.
"""

VTT = """WEBVTT - captions
Kind: captions

NOTE this is
a comment

STYLE
::cue { color: red }

intro
00:01.000 --> 00:03.000 align:start position:0%
hello<00:00:01.500><c> everyone</c>

00:03.000 --> 00:05.000
hello everyone
<v Nora>how are you &amp; yours

00:05.000 --> 00:07.000
how are you &amp; yours
fine, fine
"""


def test_srt_is_joined_to_paragraphs_by_its_pauses(tmp_path: Path) -> None:
    assert given(tmp_path, "a.srt", SRT.replace("\n", "\r\n")) == [Raw(1, "Good evening, and welcome. We begin with the news.\n\nمرحبا بكم.")]


def test_vtt_loses_times_tags_comments_styles_and_lines_that_roll(tmp_path: Path) -> None:
    assert given(tmp_path, "a.vtt", VTT) == [Raw(1, "hello everyone how are you & yours fine, fine")]


@pytest.mark.parametrize(("line", "speech"), [
    ("and so [Music] we begin", "and so we begin"), ("Thank you. [Applause]", "Thank you."), ("[موسيقى] أهلا بكم", "أهلا بكم"),
    ("شكرا [ضحك وتصفيق]، شكرا", "شكرا، شكرا"), ("♪ la la la ♪", "la la la"), ("[ Cheering and Applause ] Good evening", "Good evening"),
    ("♪ [Music] ♪", ""), ("(door closes)", ""), ("[door closes]", "")])
def test_sounds_that_captions_name_amid_speech_go(tmp_path: Path, line: str, speech: str) -> None:
    assert texts(given(tmp_path, "a.srt", f"1\n00:00:01,000 --> 00:00:03,000\n{line}\n")) == ([speech] if speech else [])


@pytest.mark.parametrize("line", ["the [Music Department] of the [city]", "he studied (music) [sic] at school", "في كتاب [الموسيقى الكبير] للفارابي",
                                  "see [1] and [Musical notes]"])
def test_other_brackets_amid_speech_stay(tmp_path: Path, line: str) -> None:
    assert texts(given(tmp_path, "a.srt", f"1\n00:00:01,000 --> 00:00:03,000\n{line}\n")) == [line]


def test_cues_without_a_blank_line_between_them_lose_their_numbers_and_times_too(tmp_path: Path) -> None:
    cues = "1\n00:00:01,000 --> 00:00:02,000\nIn the year\n1984\n2\n00:00:03,000 --> 00:00:04,000\nthere were\n00:00:04,000 --> 00:00:05,000\nthree of them.\n"
    assert given(tmp_path, "a.srt", cues) == [Raw(1, "In the year 1984 there were three of them.")]


def test_a_cue_without_times_is_set_aside_with_its_line(tmp_path: Path) -> None:
    records = given(tmp_path, "a.srt", SRT.replace("00:00:03,200 -->", "00:00:xx ->"))
    assert aside(records) == [(5, "bad_cue", 1)]
    assert texts(records) == ["Good evening, and welcome.\n\nمرحبا بكم."]


# --- formats --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("path", "expected"), [
    ("a.jsonl.zst", "jsonl"), ("x.parquet", "parquet"), ("b.csv.gz", "csv"), ("b.tsv", "tsv"), ("c.md", "markdown"), ("CC-MAIN-1.warc.gz", "warc"),
    ("CC-MAIN-1.warc.wet.gz", "warc"), ("arwiki-pages-articles-multistream.xml.bz2", "mediawiki"), ("d.srt", "srt"), ("d.vtt.xz", "vtt"),
    ("https://a.b/c.jsonl.gz?version=1", "jsonl")])
def test_a_files_ending_names_its_format(path: str, expected: str) -> None:
    assert file_format("s", SourceConfig(path="x", language="en", domain="web"), path) == expected


def test_formats_of_one_document_a_file_give_one_document(tmp_path: Path) -> None:
    for kind in ONE_DOCUMENT_A_FILE:
        records = given(tmp_path, "a.bin", SRT, format=kind)
        assert len(texts(records)) == 1, kind
