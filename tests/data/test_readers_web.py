"""Crawls (WARC, WET) and dumps of wikis: what is a document, what is left out by its nature, and what is broken."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from pathlib import Path

import pytest
from test_readers import aside, given, read, texts
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from allam.data.readers import LEFT_OUT, Raw, SetAside
from allam.data.readers.wikitext import clean

ENGLISH = "The river rises in the hills north of the town and flows through three valleys before it reaches the sea."
ARABIC = "ينبع النهر من التلال الواقعة شمال المدينة ويجري عبر ثلاثة أودية قبل أن يصل إلى البحر."


def page(text: str, title: str = "A river", head: str = "") -> str:
    paragraphs = "".join(f"<p>{text} {number}</p>" for number in range(4))
    return (f"<html><head><title>{title}</title>{head}</head><body><nav><a href='/'>Home</a> <a href='/b'>Contact us</a></nav>"
            f"<article><h1>{title}</h1>{paragraphs}</article><footer>All rights reserved</footer></body></html>")


def crawl(*pages: tuple[str, str, str, bytes], packed: bool = True) -> bytes:
    """A WARC made by warcio: of each page (URL, status line, further headers, body) the request and the response."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=packed)
    writer.write_record(writer.create_warcinfo_record("a.warc.gz", {"software": "test"}))
    for i, (url, status, headers, body) in enumerate(pages):
        about = {"WARC-Date": "2024-03-0" + str(i % 9 + 1) + "T00:00:00Z", "WARC-Record-ID": f"<urn:uuid:0-{i}>"}
        lines = [tuple(line.split(": ", 1)) for line in headers.splitlines()]
        asked = StatusAndHeaders("GET / HTTP/1.1", [("Host", "a.b")], is_http_request=True)
        writer.write_record(writer.create_warc_record(url, "request", http_headers=asked))
        told = StatusAndHeaders(status, lines, protocol="HTTP/1.1")
        writer.write_record(writer.create_warc_record(url, "response", payload=io.BytesIO(body), http_headers=told, warc_headers_dict=about))
        writer.write_record(writer.create_warc_record(url, "metadata", payload=io.BytesIO(b"fetched: quickly")))
    writer.write_record(writer.create_revisit_record("http://a.b/again", "sha1:A", "http://a.b/1", "2024-03-01T00:00:00Z"))
    return out.getvalue()


def html(text: str, charset: str = "utf-8", head: str = "", url: str = "http://a.b/1") -> tuple[str, str, str, bytes]:
    return url, "200 OK", f"Content-Type: text/html; charset={charset}", page(text, head=head).encode(charset)


@pytest.mark.parametrize("packed", [True, False])
def test_a_crawls_pages_give_their_main_text_with_url_title_and_date(tmp_path: Path, packed: bool) -> None:
    dated = '<meta property="article:published_time" content="2023-05-06T10:00:00Z">'
    data = crawl(html(ENGLISH, head=dated), html(ARABIC, "windows-1256"), packed=packed)
    records = given(tmp_path, "a.warc.gz" if packed else "a.warc", data, id_prefix="w/")
    assert not aside(records)
    first, second = (record for record in records if isinstance(record, Raw))
    assert (first.id, first.url, first.title, first.date) == ("w/0-0", "http://a.b/1", "A river", "2023-05-06")
    assert (second.id, second.date) == ("w/0-1", "2024-03-02")  # no date of its own: the day of the fetch
    assert ENGLISH in first.text
    assert ARABIC in second.text
    assert "rights reserved" not in first.text
    assert "Contact" not in first.text


def test_failed_fetches_other_media_and_pages_without_text_are_left_out_by_reason_and_break_nothing(tmp_path: Path) -> None:
    records = given(tmp_path, "a.warc.gz", crawl(
        ("http://a.b/x", "404 Not Found", "Content-Type: text/html", page(ENGLISH).encode()), ("http://a.b/y", "301 Moved", "Location: /z", b""),
        ("http://a.b/i.png", "200 OK", "Content-Type: image/png", b"\x89PNG"),
        ("http://a.b/e", "200 OK", "Content-Type: text/html", b"<html><body></body></html>"),
        html(ENGLISH)))
    assert len(texts(records)) == 1
    assert sorted((reason, count) for _, reason, count in aside(records)) == [("fetch_failed", 2), ("no_main_text", 1), ("not_html", 1)]
    assert {reason for _, reason, _ in aside(records)} <= LEFT_OUT


def test_bodies_that_were_packed_or_sent_in_chunks_are_read(tmp_path: Path) -> None:
    body = page(ENGLISH).encode()
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    records = given(tmp_path, "a.warc.gz", crawl(
        ("http://a.b/1", "200 OK", "Content-Type: text/html\nContent-Encoding: gzip", gzip.compress(body)),
        ("http://a.b/2", "200 OK", "Content-Type: text/html\nTransfer-Encoding: chunked", chunked)))
    assert [ENGLISH in text for text in texts(records)] == [True, True]


def test_a_body_that_unpacks_beyond_the_limit_is_set_aside(tmp_path: Path) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    body = b"".join(bomb.compress(b"\0" * 1_000_000) for _ in range(50)) + bomb.flush()
    records = given(tmp_path, "a.warc.gz", crawl(("http://a.b/1", "200 OK", "Content-Type: text/html\nContent-Encoding: gzip", body), html(ENGLISH)))
    assert [reason for _, reason, _ in aside(records)] == ["oversized"]
    assert len(texts(records)) == 1


def test_undecodable_pages_are_set_aside(tmp_path: Path) -> None:
    broken = ("http://a.b/1", "200 OK", "Content-Type: text/html; charset=utf-8", page("caf\xe9 " * 40).encode("latin-1"))
    assert [reason for _, reason, _ in aside(given(tmp_path, "a.warc.gz", crawl(broken)))] == ["bad_utf8"]


def test_wet_records_are_taken_as_they_are(tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=True)
    for i, text in enumerate((ARABIC + "\n" + ENGLISH, " ")):
        about = {"WARC-Record-ID": f"<urn:uuid:{i}>", "WARC-Date": "2024-01-02T03:04:05Z"}
        writer.write_record(writer.create_warc_record(f"http://a.b/{i}", "conversion", io.BytesIO(text.encode()), warc_content_type="text/plain",
                                                      warc_headers_dict=about))
    records = given(tmp_path, "a.warc.wet.gz", out.getvalue())
    assert records[0] == Raw(1, ARABIC + "\n" + ENGLISH, "0", "http://a.b/0", None, "2024-01-02")
    assert aside(records) == [(2, "no_text", 1)]


def test_a_damaged_record_costs_itself_alone(tmp_path: Path) -> None:
    whole = crawl(*(html(f"{ENGLISH} {i}", url=f"http://a.b/{i}") for i in range(4)), packed=False)
    expected = texts(given(tmp_path, "a.warc", whole))
    at = whole.index(b"Content-Length", whole.index(b"0-1>"))
    for damage in (b"Content-Xength", b"Content-Length: 9", b"Content-Length: 99999"):
        records = given(tmp_path, "a.warc", whole[:at] + damage + whole[at + len(damage):])
        assert [reason for _, reason, _ in aside(records)] == ["bad_warc"], damage
        assert texts(records) == [text for i, text in enumerate(expected) if i != 1], damage


def test_the_responses_found_are_those_that_warcio_finds(tmp_path: Path) -> None:
    data = crawl(*(html(f"{ENGLISH} {i}", url=f"http://a.b/{i}") for i in range(5)))
    found = [record.rec_headers.get_header("WARC-Target-URI") for record in ArchiveIterator(io.BytesIO(data)) if record.rec_type == "response"]
    assert [record.url for record in given(tmp_path, "a.warc.gz", data) if isinstance(record, Raw)] == found


# --- wikis ----------------------------------------------------------------------------------------------------------------------

WIKI = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="ar">
  <siteinfo>
    <base>https://ar.example.org/wiki/%D8%A7%D9%84</base>
    <namespaces><namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">شكل</namespace></namespaces>
  </siteinfo>
"""


def article(number: int, title: str, text: str, more: str = "", space: int = 0) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return (f"  <page>\n    <title>{title}</title>\n    <ns>{space}</ns>\n    <id>{number}</id>\n{more}    <revision>\n      <id>9{number}</id>\n"
            f"      <timestamp>2024-02-0{number % 9 + 1}T01:02:03Z</timestamp>\n      <model>wikitext</model>\n"
            f'      <text bytes="{len(text)}" xml:space="preserve">{escaped}</text>\n    </revision>\n  </page>\n')


PAGES = [
    article(1, "نهر صغير", "{{معلومات نهر|طول=٣}}\n'''نهر صغير''' " + ARABIC +
            "<ref>مرجع</ref>\n\n== المجرى ==\n* أول\n* ثان\n[[شكل:ا.jpg|نص]]\n== مراجع ==\n[[تصنيف:أنهار]]"),
    article(2, "Old name", "#REDIRECT [[A river]]", '    <redirect title="A river" />\n'), article(3, "Talk:A river", "talk", space=1),
    article(4, "A river", f"{ENGLISH} See [[Sea|the sea]] & more."), article(5, "Empty", "{{stub}}"),
]
DUMP = WIKI + "".join(PAGES) + "</mediawiki>\n"


@pytest.mark.parametrize("pack", [str.encode, lambda text: bz2.compress(text.encode()),
                                  lambda text: b"".join(bz2.compress(part.encode()) for part in (text[:700], text[700:]))])
def test_a_wikis_articles_are_clean_text_with_id_title_date_and_url(tmp_path: Path, pack) -> None:  # type: ignore[no-untyped-def]
    data = pack(DUMP)
    records = given(tmp_path, "wiki.xml.bz2" if data[:2] == b"BZ" else "wiki.xml", data, id_prefix="ar/")
    assert records[0] == Raw(6, f"نهر صغير {ARABIC}\n\n## المجرى\n\n- أول\n- ثان", "ar/1",
                             "https://ar.example.org/wiki/%D9%86%D9%87%D8%B1_%D8%B5%D8%BA%D9%8A%D8%B1", "نهر صغير", "2024-02-02")
    assert texts(records)[1] == f"{ENGLISH} See the sea & more."
    assert sorted((reason, count) for _, reason, count in aside(records)) == [("no_text", 1), ("not_an_article", 1), ("redirect", 1)]


def test_a_broken_page_costs_itself_alone(tmp_path: Path) -> None:
    broken = [article(2, "B", ENGLISH).replace("</title>", ""), article(3, "C", ENGLISH).replace("</page>", ""), article(4, "D", "x" * 5000)]
    records = given(tmp_path, "wiki.xml", WIKI + article(1, "A", ENGLISH) + "".join(broken) + article(5, "E", ENGLISH), max_bytes=1000)
    assert [record.title for record in records if isinstance(record, Raw)] == ["A", "E"]
    assert [reason for _, reason, _ in aside(records)] == ["bad_xml", "bad_xml", "oversized"]


def test_a_dump_can_declare_no_entities(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
    empty = article(1, "A", "")
    for where in (laughs + WIKI + empty.replace("</text>", "&f;&b;</text>"), WIKI + empty.replace("<title>", laughs + "<title>&b;")):
        assert aside(given(tmp_path, "wiki.xml", where))[0][1] == "bad_xml"
        assert not texts(read(tmp_path / "wiki.xml"))


@pytest.mark.parametrize(("wikitext", "expected"), [
    ("'''Bold''' and ''slanted''", "Bold and slanted"), ("a {{t|b={{c}}}} d", "a d"), ("a<ref name=x>b</ref><ref name=x /> c", "a c"),
    ("x (;) y", "x y"), ("[[A|b]]s [[C]] [[D#e]] [[:Category:F]]", "bs C D Category:F"), ("[[File:a.png|thumb|a [[b]] c]]d[[Category:X]][[de:Y]]", "d"),
    ("[http://a.b text] [http://a.b]", "text"), ("{|\n|a||b\n|}\nc", "c"), ("a &amp; b&nbsp;c &mdash; &#x41;", "a & b c — A"),
    ("== H ==\ntext\n=== Empty ===\n== Gone ==\n", "## H\n\ntext"), ("* a\n** b\n# c", "- a\n  - b\n- c"), ("a<br />b", "a\nb"),
    ("<math>x^2</math> <nowiki>[[a]]</nowiki><!-- c -->", "x^2 [[a]]"), ("__NOTOC__ a __بلا_فهرس__", "a"), ("نص [[ملف:ا.jpg|تصغير]] هنا", "نص هنا"),
])
def test_wikitext_becomes_text(wikitext: str, expected: str) -> None:
    assert clean(wikitext) == expected


def test_a_dump_that_ends_in_a_page_is_truncated(tmp_path: Path) -> None:
    records = given(tmp_path, "wiki.xml", DUMP[: DUMP.index("See [[Sea")])
    assert next(record for record in records if isinstance(record, SetAside)).reason == "truncated"
    assert len(texts(records)) == 1
