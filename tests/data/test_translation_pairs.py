"""Which translations stand: each check at its boundary, on lines as people and machines write them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_stages import stage

from allam.data.config import SourceConfig, TranslateConfig
from allam.data.pair_rules import PairRules
from allam.data.pairs import loop_share, numbers, ordinary_words
from allam.data.rules import identifier
from allam.data.tables import read_dropped
from allam.documents import Document, read_documents, shard_path, write_documents

REAL = Path(os.environ.get("ALLAM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "parallel"
ENGLISH = "The old market was rebuilt in 1950 after the great fire, and 120 shops opened again within three years."
ARABIC = "أعيد بناء السوق القديمة عام 1950 بعد الحريق الكبير، وفتح 120 متجرًا أبوابه من جديد في غضون ثلاث سنوات."


def reason(source: str | None, translation: str, **fields: Any) -> str | None:
    return PairRules(TranslateConfig(**fields)).decide(source, translation).reason


def test_a_good_translation_passes_every_check() -> None:
    assert reason(ENGLISH, ARABIC) is None


def test_the_length_ratios_themselves_are_kept() -> None:
    for text in (ARABIC[:30], ARABIC * 3):
        ratio = len(text) / len(ENGLISH)
        free = {"max_lost_numbers_share": 1, "max_loop_share": 1}
        assert reason(ENGLISH, text, min_length_ratio=min(ratio, 0.3), max_length_ratio=max(ratio, 3.0), **free) is None
    ratio = len(ARABIC) / len(ENGLISH)
    assert reason(ENGLISH, ARABIC, min_length_ratio=np.nextafter(ratio, 9)) == "length_ratio"
    assert reason(ENGLISH, ARABIC, max_length_ratio=np.nextafter(ratio, 0)) == "length_ratio"


def test_the_output_must_be_arabic_with_the_lowest_score_or_more() -> None:
    line = "React مكتبة JavaScript لبناء واجهات المستخدم"
    label, score = identifier(TranslateConfig().language_model_sha256).identify(line)
    assert label == "ar"
    assert reason(None, line, min_language_score=score) is None
    assert reason(None, line, min_language_score=float(np.nextafter(np.float32(score), np.float32(2)))) == "output_language"
    assert reason(None, "بازار قدیمی پس از آتش‌سوزی بزرگ دوباره ساخته شد و مغازه‌ها باز شدند.") == "output_language"
    assert reason(None, ENGLISH) == "output_language"
    assert reason(None, ENGLISH, min_language_score=0) is None


def test_a_phrase_said_four_times_in_a_row_is_a_loop_and_three_times_is_none() -> None:
    assert loop_share("قال لا لا لا ثم مضى") == 0
    assert loop_share("قال لا لا لا لا ثم مضى") == 4 / 7
    assert loop_share("في ذلك اليوم " + "ذهب إلى البيت " * 3) == 0
    assert loop_share("في ذلك اليوم " + "ذهب إلى البيت " * 4) == 12 / 15
    assert loop_share("وهو بابابابابابابا الذي") == 0
    assert loop_share("وهو باباباباباباباباباباباب الذي") == 1 / 3
    assert loop_share("") == loop_share("1 1 1 1 1 -- -- -- --") == 0  # a table's figures and rules


def test_the_allowed_share_of_loops_is_kept_and_what_the_source_repeats_does_not_count() -> None:
    text = ARABIC + " نعم" * 4
    share = loop_share(text)
    assert reason(ENGLISH, text, max_loop_share=share) is None
    assert reason(ENGLISH, text, max_loop_share=np.nextafter(share, 0)) == "repetition"
    assert reason(ENGLISH + " Yes, yes," + " yes" * 9, text) is None


def test_words_left_in_english_are_counted_but_names_code_and_addresses_are_none() -> None:
    assert ordinary_words("The `useState` hook of React is at https://react.dev/learn and in src/main.py; see www.example.com, part iv") == {
        "hook": 1, "of": 1, "is": 1, "at": 1, "and": 1, "in": 1, "see": 1, "part": 1}
    source = "Open the file menu and choose save as draft."  # eight of its words begin with small letters
    translation = "افتح قائمة file ثم اختر الحفظ كمسودة في البرنامج."
    assert reason(source, translation, max_untranslated_share=1 / 8) is None
    assert reason(source, translation, max_untranslated_share=np.nextafter(1 / 8, 0)) == "untranslated"
    assert reason("GNU Emacs runs on Linux.", "يعمل GNU Emacs على نظام التشغيل Linux.", max_untranslated_share=0) is None


def test_numbers_are_the_same_in_either_digits_and_with_or_without_separators() -> None:
    assert numbers("In 1990, 12,500 people paid 37.5 each") == numbers("في ١٩٩٠ دفع ١٢٬٥٠٠ شخص ٣٧٫٥ لكل") == {"1990": 1, "12500": 1, "37": 1}
    assert numbers("in the 1970s, the 21st floor, a 3D film, 12 eggs, item 007") == {}
    assert numbers("pages 13,14,15") == {"13": 1, "14": 1, "15": 1}
    assert numbers("00" + "7" * 5000) == numbers("٧" * 5000) == {"7" * 5000: 1}  # more digits than Python reads as a number


def test_as_many_lost_numbers_as_allowed_are_kept() -> None:
    lost = ARABIC.replace("1950", "ألف وتسعمئة وخمسين")
    assert reason(ENGLISH, lost) is None  # one of two
    assert reason(ENGLISH, lost.replace("120", "مئة وعشرون")) == "numbers_lost"
    assert reason(ENGLISH, ARABIC.replace("1950", "١٩٥٠").replace("120", "١٢٠"), max_lost_numbers_share=0) is None
    assert reason(ENGLISH, lost, max_lost_numbers_share=0) == "numbers_lost"
    assert reason(ENGLISH, lost, max_lost_numbers_share=0, min_numbers=3) is None


def test_the_first_check_that_fails_is_the_reason() -> None:
    assert reason(ENGLISH * 9, ENGLISH) == "length_ratio"
    assert reason(ENGLISH, "no " * 20) == "output_language"


def document(id: str, text: str, source: str = "a", of: str | None = None) -> Document:
    return Document(id, text, source, "ar" if of else "en", "web", "translated" if of else "natural", translation_of=of)


def write(base: Path, *documents: Document) -> Path:
    for number, source in enumerate(dict.fromkeys(d.source for d in documents)):
        write_documents(shard_path(base / "documents", source, number), [d for d in documents if d.source == source])
    return base


def translate(tmp_path: Path, *documents: Document, **fields: Any) -> dict[str, str | None]:
    """The reason for each document, None where it is kept; the originals stand in two shards."""
    originals = write(tmp_path / "originals", document("e1", ENGLISH), document("e2", ENGLISH + " " + ENGLISH, "b"))
    out = tmp_path / "out"
    sources = {d.source: SourceConfig(path="x", language="ar", domain="web", kind="translated") for d in documents}
    metrics = stage("translate", TranslateConfig(sources=sources, **fields), {"documents": write(tmp_path / "in", *documents), "originals": originals}, out)
    assert sum(row["in"] for row in metrics["funnel"].values()) == len(documents)
    found: dict[str, str | None] = {d.id: None for d in read_documents(out / "documents")}
    return found | {row["id"]: row["reason"] for path in (out / "dropped").glob("*/*") for row in read_dropped(path)}


def test_each_translation_is_held_against_its_own_source(tmp_path: Path) -> None:
    found = translate(tmp_path, document("t1", ARABIC, "t", of="e2"), document("t2", ARABIC + " وشكرًا", "t", of="e1"), max_lost_numbers_share=0.4)
    assert found == {"t1": "numbers_lost", "t2": None}


def test_orphans_are_dropped_unless_the_recipe_keeps_them(tmp_path: Path) -> None:
    found = (document("t1", "نص قصير بالعربية", "t", of="gone"), document("t2", ARABIC, "t", of="e1"), document("t3", "no " * 9, "t", of="gone"))
    assert translate(tmp_path / "x", *found) == {"t1": "orphan_translation", "t2": None, "t3": "orphan_translation"}
    assert translate(tmp_path / "y", *found, drop_orphans=False) == {"t1": None, "t2": None, "t3": "output_language"}


def test_a_copy_of_a_dropped_translation_is_kept_and_a_copy_of_a_kept_one_is_not(tmp_path: Path) -> None:
    found = translate(tmp_path, document("t1", ARABIC, "t", of="gone"), document("t2", ARABIC, "t", of="e1"),
                      document("t3", ARABIC.replace(" ", "\n"), "u", of="e1"))
    assert found == {"t1": "orphan_translation", "t2": None, "t3": "duplicate_text"}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real pairs at {REAL}")
def test_no_professional_translation_of_wikipedia_falls() -> None:
    with gzip.open(REAL / "xquad_paragraphs_en_ar.jsonl.gz") as lines:
        rows = [json.loads(line) for line in lines]
    rules = PairRules(TranslateConfig())
    assert [rules.decide(row["en"], row["ar"]) for row in rows if rules.decide(row["en"], row["ar"]).reason] == []
