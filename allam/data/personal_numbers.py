"""Which numbers are personal: phone numbers, payment cards, IBANs, Gulf national ids. Pure functions over ASCII digits.

A kind that carries a checksum is taken on its word; a form that ordinary numbers share is taken only after a word that says what it is, and after such a
word no check digit is asked for: people mistype, and what they call their id is one.

| kind | taken as it stands | only after a word such as "phone", "جوال"; "id", "هوية" |
|---|---|---|
| phone | + or 00 and a country code; an Arab country's code and mobile number; its national form with the leading 0; (212) 555-0123 | 7 to 15 digits |
| card | 13 to 19 digits of an issuer's range, whole or in its groups, with Luhn's check digit | |
| IBAN | the length of its country and the remainder 1 by 97 | |
| Saudi id, iqama | 10 digits from 1 or 2, Luhn's check digit, not round | 10 digits from 1 or 2 |
| Emirates id | 784, a year, 7 digits, a check digit by Luhn, or grouped 784-YYYY-NNNNNNN-N | the same with any check digit |
| Kuwaiti civil id | 12 digits: century, date of birth, serial number, check digit by 11 | the same with any check digit |
| Qatari, Bahraini, Omani id | | 11 digits from 2 or 3; 9 digits, the third and fourth a month; 7 to 9 digits |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

NumberKind = Literal["phone", "card", "national_id"]
FEWEST, MOST = 7, 19  # digits of a number that is looked at
MOST_GROUPS = 7  # +33 6 12 34 56 78

# Country code: (mobile, other) national numbers without the leading 0; and whether the national form has that 0.
_PLANS: dict[str, tuple[str, str, bool]] = {
    "966": (r"5\d{8}", r"1[1-7]\d{7}", True),                                  # Saudi Arabia
    "971": (r"5[024568]\d{7}", r"[234679]\d{7}", True),                        # Emirates
    "965": (r"[569]\d{7}", r"2\d{7}", False),                                  # Kuwait
    "974": (r"[3567]\d{7}", r"4\d{7}", False),                                 # Qatar
    "973": (r"[36]\d{7}", r"1\d{7}", False),                                   # Bahrain
    "968": (r"[79]\d{7}", r"2\d{7}", False),                                   # Oman
    "967": (r"7[01378]\d{7}", r"[1-7]\d{6}", True),                            # Yemen
    "962": (r"7[789]\d{7}", r"[2356]\d{7}", True),                             # Jordan
    "961": (r"(?:3\d{6}|7[01689]\d{6}|81\d{6})", r"[14-9]\d{6}", False),       # Lebanon: its 03 123456 looks like a date
    "963": (r"9\d{8}", r"[1-5][1-9]?\d{7}", True),                             # Syria
    "970": (r"5[69]\d{7}", r"[2489]\d{7}", True),                              # Palestine
    "964": (r"7[3-9]\d{8}", r"[1-6]\d{7,8}", True),                            # Iraq
    "20": (r"1[0125]\d{8}", r"(?:2\d{8}|3\d{7}|[4-9]\d{8})", True),            # Egypt
    "218": (r"9[1-6]\d{7}", r"[2-8]\d{7,8}", True),                            # Libya
    "216": (r"[2459]\d{7}", r"7\d{7}", False),                                 # Tunisia
    "213": (r"[567]\d{8}", r"[234]\d{7}", True),                               # Algeria
    "212": (r"[67]\d{8}", r"5\d{8}", True),                                    # Morocco
    "249": (r"(?:9\d|1[012])\d{7}", r"1[58]\d{7}", True),                      # Sudan
}
_INTERNATIONAL = re.compile("(?:" + "|".join(f"{code}0?(?:{mobile}|{other})" for code, (mobile, other, _) in _PLANS.items()) + ")")
_WITHOUT_PLUS = re.compile("(?:" + "|".join(f"{code}{mobile}" for code, (mobile, _, _) in _PLANS.items()) + ")")
_NATIONAL = re.compile("0(?:" + "|".join(f"{mobile}|{other}" for mobile, other, has_zero in _PLANS.values() if has_zero) + ")")
_ARAB_CODE = re.compile("(?:" + "|".join(_PLANS) + ")")
_OTHER_COUNTRY = re.compile(r"[1-9]\d{7,14}")  # E.164: at most 15 digits

_ISSUERS = re.compile(r"(?:4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
                      r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35\d{14}|62\d{14,17}|9682\d{12}|5[0678]\d{14}|6\d{15})")  # the last three: mada and Maestro
_CARD_GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 1), (4, 4, 4, 4, 3)}
_KUWAIT_WEIGHTS = (2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)

# Length of the IBAN of each country that has one.
_IBAN_LENGTHS = {pair[:2]: int(pair[2:]) for pair in re.findall(r"\w+", """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21
HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29
RO24 RS22 SA24 SC31 SD18 SE24 SI19 SK24 SM27 TL23 TN24 TR26 UA29 VA22 VG24 XK20""")}


def number_kind(groups: Sequence[str], separators: Sequence[str], plus: bool, after_phone_word: bool, after_id_word: bool) -> NumberKind | None:
    """What a number is, given in its groups of digits with what stands between them; None for an ordinary one."""
    digits = "".join(groups)
    if not FEWEST <= len(digits) <= MOST or digits in ("0123456789", "1234567890"):
        return None
    whole = len(groups) == 1
    if not plus and _ISSUERS.fullmatch(digits) and (whole or tuple(map(len, groups)) in _CARD_GROUPS) and luhn(digits):
        return "card"
    if not plus and _is_national_id(digits, tuple(map(len, groups)), after_id_word):
        return "national_id"
    return "phone" if _is_phone(digits, groups, separators, plus, after_phone_word) else None


def _is_national_id(digits: str, lengths: tuple[int, ...], after_id_word: bool) -> bool:
    if len(digits) == 15 and digits.startswith("784") and digits[3:5] in ("19", "20"):
        return lengths == (3, 4, 7, 1) or (len(lengths) == 1 and (after_id_word or luhn(digits)))
    if len(lengths) > 1:
        return False
    if len(digits) == 12 and digits[0] in "23" and _is_date(digits[3:5], digits[5:7]):
        check = 11 - sum(weight * int(digit) for weight, digit in zip(_KUWAIT_WEIGHTS, digits, strict=False)) % 11
        return after_id_word or check == int(digits[-1])
    if len(digits) == 10 and digits[0] in "12":
        return after_id_word or (luhn(digits) and not digits.endswith("0000"))
    if not after_id_word:
        return False
    return (len(digits) == 11 and digits[0] in "23") or (len(digits) == 9 and "01" <= digits[2:4] <= "12") or 7 <= len(digits) <= 9


def _is_date(month: str, day: str) -> bool:
    return "01" <= month <= "12" and "01" <= day <= "31"


def _is_phone(digits: str, groups: Sequence[str], separators: Sequence[str], plus: bool, after_phone_word: bool) -> bool:
    abroad = digits if plus else digits[2:] if digits.startswith("00") else ""
    if _is_calendar(groups) or any(len(group) == 1 and not (i == 1 and (abroad or group == "0")) for i, group in enumerate(groups) if i):
        return False  # one digit alone is an area (+971 4 331 2345), a kind of number (+33 6 12 34 56 78), or the 0 in +44 (0)20
    if groups[0] == "0":
        return False  # 0.0123456789
    if any("/" in separator for separator in separators) or len({"." in separator for separator in separators}) > 1:
        return False
    if abroad:
        return bool(_INTERNATIONAL.fullmatch(abroad)) or bool(_OTHER_COUNTRY.fullmatch(abroad) and not _ARAB_CODE.match(abroad) and "000000" not in abroad)
    if after_phone_word and len(digits) <= 15:
        return True
    if _WITHOUT_PLUS.fullmatch(digits):
        return True
    if _NATIONAL.fullmatch(digits):
        return len(groups[0]) > 1 and separators != ["."]  # one point makes a decimal fraction
    return tuple(map(len, groups)) == (3, 3, 4) and digits[0] in "23456789" and digits[3] in "23456789" and " " not in (separators[0], separators[1])


def _is_calendar(groups: Sequence[str]) -> bool:
    """Whether the number begins or ends as a date does: 01-02-2015, 2015-02-01, 2014-2015."""
    lengths = tuple(map(len, groups))
    for part in (slice(0, 3), slice(-3, None)):
        if lengths[part] in ((2, 2, 4), (1, 2, 4), (2, 1, 4), (1, 1, 4)) and groups[part][2][:2] in ("19", "20", "14", "13"):
            return True
        if lengths[part] in ((4, 2, 2), (4, 1, 2), (4, 2, 1)) and groups[part][0][:2] in ("19", "20", "14", "13"):
            return True
    return lengths == (4, 4) and all(group[:2] in ("18", "19", "20", "14", "13") for group in groups)


def luhn(digits: str) -> bool:
    """Whether the last digit is right by Luhn's formula."""
    doubled = (2 * int(digit) for digit in digits[-2::-2])
    return (sum(int(digit) for digit in digits[-1::-2]) + sum(value - 9 if value > 9 else value for value in doubled)) % 10 == 0


def iban_length(characters: str) -> int:
    """How many of the letters and digits (without spaces, in capitals) are an IBAN that they begin with; 0 for none."""
    length = _IBAN_LENGTHS.get(characters[:2], 0)
    if not length or len(characters) < length:
        return 0
    moved = characters[4:length] + characters[:4]
    return length if int("".join(str(int(character, 36)) for character in moved)) % 97 == 1 else 0
