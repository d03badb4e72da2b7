"""Personal data in real forms is replaced; years, prices, verses, dates and the numbers of books are not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allam.data.anonymise import PLACEHOLDERS, Anonymiser
from allam.data.config import AnonymiseConfig, FilterConfig, SourceConfig
from allam.data.personal_numbers import iban_length, luhn

anonymise = Anonymiser(AnonymiseConfig())

REPLACED = {
    "email": ["ali.hassan+news@mail.example.com.sa", "INFO@example.org", "user٧@example.net", "user\u200e@example.net",
              "info@شركة.السعودية", "ali.hassan@mail.شركة.السعودية", "علي.حسن@شركة.السعودية", "kontakt@münchen.de", "info@مثال.com",
              "info@xn--mgbh0fb.xn--kgbechtv"],
    "ip": ["8.8.4.44", "85.132.4.201", "٨٥.١٣٢.٤.٢٠١", "٨٥٫١٣٢٫٤٫٢٠١", "８５.１３２.４.２０１", "2a00:1450:4001:81b::200e", "2a00:1450:4001:81b:0:0:0:200e"],
    "phone": [
        "0501234567", "050 123 4567", "050-123-4567", "٠٥٠١٢٣٤٥٦٧", "۰۵۰۱۲۳۴۵۶۷", "０５０１２３４５６７", "+９６６ ５０ １２３ ４５６７",
        "0\u200e50\u200e1234567",
        "+966 50 123 4567", "00966501234567", "966501234567",
        "(+20) 100 123 4567", "01001234567", "+971 4 123 4567", "+971 04-123 4567", "00971 4 331 2345", "0791234567",
        "07701234567", "0933123456", "06 12 34 56 78", "+212 612-345678",
        "+965 5512 3456",
        "+974 33123456", "+973 36123456", "+968 92123456", "+961 3 123456", "+961 3 123 456", "+962 7 9012 3456", "+٢١٢ ٦ ١٢ ٣٤ ٥٦ ٧٨",
        "+33 6 12 34 56 78", "+44 (0)20 7946 0958", "+1 (212) 555-0123", "(212) 555-0123", "+44 20 7946 0958"],
    "card": ["4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111", "٤١١١ ١١١١ ١١١١ ١١١١", "3782 822463 10005", "5555555555554444",
             "5888450000000003"],
    "iban": ["SA03 8000 0000 6080 1016 7519", "sa0380000000608010167519",
             "AE07 0331 2345 6789 0123 456", "GB29 NWBK 6016 1331 9268 19", "SA٠٣٨٠٠٠٠٠٠٠٦٠٨٠١٠١٦٧٥١٩"],
    "national_id": ["1101798278", "١١٠١٧٩٨٢٧٨", "１１０１７９８２７８", "784-1990-1234567-1", "784 1990 1234567 1"],
}
AFTER_A_WORD = {
    "phone": ["هاتف: 22334455", "جوال رقم ( 55123456", "Tel. 4567890", "فاكس ٤٥٦٧٨٩٠", "WhatsApp 36123456", "للتواصل على الرقم 920001234"],
    "national_id": ["الهوية رقم 28563412345", "CPR no 850712345", "الرقم المدني 12345678", "رقم الهوية: ١١٠١٧٩٨٢٧٩", "رقم الهوية 1800000000",
                    "National ID: 1101798279", "الرقم المدني 285071201234", "الهوية 784199012345671"],
}
LEFT = [
    "في عام 2014-2015", "بين ١٤٣٥ و١٤٣٦", "1436/10/05", "١٤٣٦/١٠/٠٥ هـ", "01-02-2015", "01/02/2015 10:30", "2015-07-23 01:02:03", "1,500,000,000",
    "1.500.000.000", "بقيمة (7.038.700.000)",
    "0.0123456789", "السعر 55123456 ريال", "آية 2:255", "(البقرة 255)", "ISBN 978-0-19-852663-6", "ISBN 0198526636",
    "ردمك: 0198526636", "4111111111111112", "1101798279", "1800000000",
    "SA03 8000 0000 6080 1016 7518", "127.0.0.1", "192.168.1.1",
    "1.2.3.4", "١٫٢٫٣٫٤", "٨٥٫١٣٢.٤.٢٠١", "٢٫١٤٥٫٣٢٠٫٠٠٠", "٣٫١٤١٥٩٢٦٥", "version 10.2.30.4", "300.1.1.1", "12:30:45", "std::vector",
    "::1", "fe80::1", "@user", "a@b", "شكرا@user", "علي@شركة",
    "1 2 3 4 5 6 7 8 9 10",
    "http://news.example/2015/07/23/0501234567", "c-.266.92-.03.025-.037.031z", "user0501234567", "0123456789", "31 12 1999", "+10000000",
    "+5 6 7 8 9 10 11 12", "12 3 456 7890", "300000000000",
]


@pytest.mark.parametrize("kind", REPLACED)
def test_personal_data_is_replaced_by_its_placeholder_in_both_languages(kind: str) -> None:
    for value in REPLACED[kind]:
        for before, after in (("write to ", " today."), ("اكتب إلى ", "، وشكرًا."), ("(", ")"), ("", "")):
            found, counts = anonymise(before + value + after)
            assert counts == {kind: 1}, (value, found, counts)
            assert found.replace("(", "") == (before + PLACEHOLDERS[kind] + after).replace("(", "")  # a bracket before a number goes with it


def test_numbers_without_a_form_of_their_own_are_replaced_after_a_word_that_says_what_they_are() -> None:
    for kind, texts in AFTER_A_WORD.items():
        for text in texts:
            assert anonymise(text)[1] == {kind: 1}, text
            bare = "".join(character for character in text if not character.isalpha() and character not in ":.(").strip()
            assert anonymise(bare)[1] == {}, bare


@pytest.mark.parametrize("text", LEFT)
def test_ordinary_numbers_and_addresses_of_nobody_are_left(text: str) -> None:
    assert anonymise(text) == (text, {})
    assert anonymise(f"كما ورد {text} في النص") == (f"كما ورد {text} في النص", {})


def test_a_kuwaiti_civil_id_needs_its_date_and_its_check_digit() -> None:
    weights, body = (2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2), "28507120123"
    check = 11 - sum(w * int(d) for w, d in zip(weights, body, strict=True)) % 11
    assert anonymise(f"{body}{check}")[1] == {"national_id": 1}
    assert anonymise(f"{body}{(check + 1) % 10}")[1] == {}


@pytest.mark.parametrize(("text", "expected"), [
    ("راسلنا info@example.comوشكرا", "راسلنا [email]وشكرا"), ("راسلنا info@example.com.وشكرا لكم", "راسلنا [email].وشكرا لكم"),
    ("راسلنا info@شركة.السعودية.", "راسلنا [email]."), ("من علي@شركة.السعودية، اليوم", "من [email]، اليوم"),
    ("مع user@example.ثم عاد", "مع user@example.ثم عاد")])
def test_an_address_ends_where_its_sentence_goes_on(text: str, expected: str) -> None:
    assert anonymise(text)[0] == expected


def test_luhn_and_the_ibans_remainder_find_every_single_wrong_digit() -> None:
    for valid, check in (("4111111111111111", luhn), ("SA0380000000608010167519", lambda value: iban_length(value) == len(value))):
        assert check(valid)
        for i in range(2, len(valid)):
            for digit in "0123456789":
                assert check(valid[:i] + digit + valid[i + 1:]) == (digit == valid[i])


def test_marks_of_direction_among_the_digits_hide_nothing_and_those_around_stay() -> None:
    for hidden in ("\u200f", "\u202a\u202c", "\u00ad"):
        split = f"05{hidden}012{hidden}34567"
        assert anonymise(f"اتصل{hidden} على {hidden}{split}{hidden} أو {hidden}a@b{hidden}.com.") == (
            f"اتصل{hidden} على {hidden}[phone]{hidden} أو {hidden}[email].", {"phone": 1, "email": 1})


def test_each_kind_can_be_left_alone() -> None:
    text = " ".join(values[0] for values in REPLACED.values())
    for kind in PLACEHOLDERS:
        counts = Anonymiser(AnonymiseConfig(**{kind: False}))(text)[1]
        assert counts == {other: 1 for other in PLACEHOLDERS if other != kind}


def test_web_news_and_other_text_is_anonymised_unless_the_source_says_otherwise() -> None:
    config = FilterConfig()
    for domain, expected in (("web", True), ("news", True), ("other", True), ("books", False), ("code", False)):
        assert config.is_anonymised(SourceConfig(path="x", language="en", domain=domain)) == expected
    assert config.is_anonymised(SourceConfig(path="x", language="en", domain="books", anonymise=True))
    assert not config.is_anonymised(SourceConfig(path="x", language="en", domain="web", anonymise=False))
    assert not FilterConfig(anonymise=AnonymiseConfig(domains=())).is_anonymised(SourceConfig(path="x", language="en", domain="web"))


PIECES = st.sampled_from([*(value for values in REPLACED.values() for value in values), *LEFT,
                          "هاتف", "tel", "CPR", " ", " ", ", ", "\n", "\u200f", "قال إن", "the", "(", ")", "-", ".", "+", "7"])


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map(" ".join))
def test_what_stands_around_is_kept_and_a_second_time_changes_nothing(text: str) -> None:
    once, counts = anonymise(text)
    assert anonymise(once)[0] == once
    assert sum(once.count(placeholder) for placeholder in PLACEHOLDERS.values()) == sum(counts.values())
    if not counts:
        assert once is text


def test_a_long_table_of_numbers_takes_time_by_its_length_only() -> None:
    import time

    numbers = random.Random(0)
    table = " ".join(str(numbers.randrange(10 ** numbers.randrange(1, 12))) for _ in range(20_000))
    start = time.process_time()
    anonymise(table)
    anonymise("٠-" * 100_000)
    anonymise("a." * 100_000 + "@" + "b." * 100_000)
    anonymise("a@b.example 0501234567\u200f" * 20_000)
    assert time.process_time() - start < 10
