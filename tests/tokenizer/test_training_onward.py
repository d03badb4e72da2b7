"""BPE trained onward from a base's pieces, against a trainer that counts everything anew for each merge; and what counts as Arabic in bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from allam.tokenizer import onward
from allam.tokenizer.script import has_arabic, holds_arabic, is_arabic_bytes

ARABIC = st.text("ابتسم", min_size=1, max_size=8)


def slow_merges(words: dict[str, list[str]], counts: dict[str, int], known: set[str], wanted: int, allowed: Callable[[str], bool]) -> list[onward.Merge]:
    merges: list[onward.Merge] = []
    while len(merges) < wanted:
        pairs = Counter[onward.Merge]()
        for word, pieces in words.items():
            for left, right in pairwise(pieces):
                if left + right not in known and allowed(left + right):
                    pairs[left, right] += counts[word]
        if not pairs or max(pairs.values()) < onward.LEAST:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        known = known | {"".join(best)}
        words = {word: joined(pieces, best) for word, pieces in words.items()}
    return merges


def joined(pieces: list[str], pair: onward.Merge) -> list[str]:
    made: list[str] = []
    at = 0
    while at < len(pieces):
        both = tuple(pieces[at:at + 2]) == pair
        made.append("".join(pair) if both else pieces[at])
        at += 2 if both else 1
    return made


@given(st.dictionaries(st.text("abc", min_size=1, max_size=9), st.integers(1, 5), max_size=12), st.integers(0, 12))
def test_merges_are_those_of_counting_everything_anew(counts: dict[str, int], wanted: int) -> None:
    """From words that `ab` and `ca` were already merged in, and with pieces that hold `cc` forbidden."""
    def cut(word: str) -> list[str]:
        return joined(joined(list(word), ("a", "b")), ("c", "a"))

    known = {"a", "b", "c", "ab", "ca"}
    found = onward.train(counts, cut, known, wanted, lambda piece: "cc" not in piece)
    assert found == slow_merges({word: cut(word) for word in counts}, counts, known, wanted, lambda piece: "cc" not in piece)


@given(st.dictionaries(ARABIC, st.integers(1, 5), min_size=1, max_size=12))
def test_the_order_in_which_words_come_changes_nothing(counts: dict[str, int]) -> None:
    backwards = dict(reversed(counts.items()))
    assert onward.train(counts, list, "ابتسم", 20, lambda piece: True) == onward.train(backwards, list, "ابتسم", 20, lambda piece: True)


def test_training_ends_where_no_pair_stands_twice() -> None:
    assert onward.train({"اب": 1, "تب": 1, "سم": 2}, list, "ابتسم", 20, lambda piece: True) == [("س", "م")]


def test_a_pair_whose_piece_the_base_has_stays_apart() -> None:
    assert onward.train({"سم": 9, "مس": 2}, list, {"س", "م", "سم"}, 20, lambda piece: True) == [("م", "س")]


@settings(deadline=None)  # the first call lists the beginnings of all characters
@given(st.text(max_size=6) | st.text("ـ\u0640اﷲ\u0700\ufb4b\ufefe\u085e\U0001eeff çé漢", max_size=6), st.data())
def test_no_part_of_a_text_without_arabic_script_counts_as_arabic(text: str, data: st.DataObject) -> None:
    encoded = text.encode(errors="replace")
    start = data.draw(st.integers(0, len(encoded)))
    part = encoded[start:data.draw(st.integers(start, len(encoded)))]
    if part and holds_arabic(part):
        assert has_arabic(text)
    if part and is_arabic_bytes(part):
        assert holds_arabic(part)


def test_what_counts_as_arabic_in_bytes() -> None:
    whole = "قلم".encode()
    assert all(map(is_arabic_bytes, [whole, b"  " + whole, whole[:-1], b"\xd9", b" \xdb", b"\xef\xae", "ﷺ".encode()]))
    assert not any(map(is_arabic_bytes, [b" ", whole[1:], b"\xef\xad", b"\xef", b"a", "«ق".encode(), "قa".encode(), whole[:-1] + b"a"]))
    assert holds_arabic("«ق".encode())
    assert not holds_arabic(whole[1:])
