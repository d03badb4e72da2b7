"""Two spellings of one address compare equal; two addresses don't."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.data.signatures import signatures
from allam.text.urls import normalise_url

PAGE = "http://example.com/news/a~b"


@pytest.mark.parametrize("spelling", [
    "https://example.com/news/a~b", "HTTP://EXAMPLE.com/news/a~b", "http://www.example.com/news/a~b", "http://example.com:80/news/a~b",
    "https://example.com:443/news/a~b", "http://example.com/news/a%7Eb", "http://example.com/news/a%7eb", "http://example.com/news/a~b/",
    "http://example.com/news/a~b#top", "http://example.com/news/a~b?utm_source=x&fbclid=1", "http://example.com/x/../news/./a~b",
    "http://user:secret@example.com/news/a~b", "//example.com/news/a~b", "example.com/news/a~b", "  http://example.com./news/a~b \n",
    "http://example.com/news/a~b?", "http://example.com/news/a~b;jsessionid=0A1B2C?PHPSESSID=1&pk_campaign=x&at_custom1=y",
])
def test_a_spelling_of_the_page_has_the_pages_form(spelling: str) -> None:
    assert normalise_url(spelling) == normalise_url(PAGE)


@pytest.mark.parametrize("other", [
    "http://example.com/news/A~b", "http://example.com/news", "http://example.org/news/a~b", "http://sub.example.com/news/a~b",
    "http://example.com:8080/news/a~b", "http://example.com/news/a~b?page=2", "ftp://example.com/news/a~b", "http://example.com/news%2Fa~b",
    "http://example.com/news/a~b#!/other", "http://example.com/news/a~b#/route", "http://example.com/news/a~b?pk_id=5", "http://example.com/news//a~b",
    "http://example.com/news/a~b/index.html", "http://example.com:443/news/a~b",
])
def test_another_page_has_another_form(other: str) -> None:
    assert normalise_url(other) != normalise_url(PAGE)


def test_international_names_and_paths_have_one_spelling() -> None:
    assert normalise_url("http://مثال.إختبار/صفحة") == normalise_url("https://xn--mgbh0fb.xn--kgbechtv/%D8%B5%D9%81%D8%AD%D8%A9")
    assert normalise_url("http://%D9%85%D8%AB%D8%A7%D9%84.إختبار/") == normalise_url("http://XN--MGBH0FB.xn--kgbechtv")
    assert normalise_url("http://ex.com/صفحة?س=ج") == normalise_url("http://ex.com/%d8%b5%d9%81%d8%ad%d8%a9?%d8%b3=%d8%ac")


def test_other_parameters_and_their_order_are_kept() -> None:
    assert normalise_url("http://e.com/?b=2&utm_medium=m&a=1") == "//e.com?b=2&a=1"


@pytest.mark.parametrize("broken", ["http://[::1", "http://e.com:99999999/", "not a url", "", "http://", "mailto:a@b.c", "http://[::g]/"])
def test_what_is_no_address_is_compared_as_it_stands(broken: str) -> None:
    assert normalise_url(broken) == broken


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_has_a_form_and_the_form_is_its_own_form(text: str) -> None:
    for url in (text, f"http://example.com/{text}", f"https://www.e.com/a?{text}", f"http://e.com/#!{text}"):
        form = normalise_url(url)
        assert normalise_url(form) == form


@settings(max_examples=200, deadline=None)
@given(st.text("htp:/[]@%25.w#?;é٣\u202e\ud800 ", max_size=20))
def test_no_address_is_so_broken_that_it_raises(text: str) -> None:
    for url in (text, f"http://{text}", f"//{text}"):
        assert isinstance(normalise_url(url), str)
        signatures([normalise_url(url)])
