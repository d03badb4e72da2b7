"""The report page: what it says about a run, what it leaves out, and what it never lets through."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from allam import sample
from allam.align.config import SftConfig
from allam.artifacts import file_sha256
from allam.errors import ArtifactError
from allam.pipeline import ReportConfig
from allam.report.build import run as report
from allam.report.stages import _rows
from tests.report.conftest import SCRIPT, Run

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Reads a page: its tags with their attributes, and its text; notes tags that don't close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open, self.wrong = "", [], []  # type: ignore[var-annotated]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def made(run: Run, out: Path, *without: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The page, summary.json and the metrics of a report."""
    out.mkdir()
    metrics = report(ReportConfig(), run.inputs(*without), out)
    return (out / "report.html").read_text(encoding="utf-8"), json.loads((out / "summary.json").read_text(encoding="utf-8")), metrics


def test_a_whole_run_fills_every_section(run: Run, tmp_path: Path) -> None:
    page, _, metrics = made(run, tmp_path / "out")
    assert metrics["sections"] == ["funnel", "distributions", "fertility", "mixture", "loss", "bits", "asked", "benchmarks", "alignment", "answers", "votes",
                                   "time", "versions", "recipe"]
    for section in metrics["sections"]:
        assert f'id="{section}"' in page
        assert f'href="#{section}"' in page


def test_every_section_says_how_to_read_it(run: Run, tmp_path: Path) -> None:
    page, _, _metrics = made(run, tmp_path / "out")
    for section in re.split(r"<section ", page)[1:]:
        assert re.search(r'</h2>\s*<p class="read">.{40,}?</p>', section, re.S), section[:80]


def test_the_page_is_well_formed(run: Run, tmp_path: Path) -> None:
    page = Page(made(run, tmp_path / "out")[0])
    assert page.wrong == []
    assert page.open == []


def test_what_language_identification_takes_stands_by_kind_and_length_and_what_was_replaced_by_source(run: Run, tmp_path: Path) -> None:
    page = " ".join(re.sub(r"<[^>]+>", " ", made(run, tmp_path / "out")[0]).replace("\N{NARROW NO-BREAK SPACE}", "").split())
    table = page[page.index("What language identification takes"):page.index("What was lost, to look at")]
    assert "Arabic web 9 77.8% 60 33.3% 740 0.5% web_ar 9" in table
    assert "national id web_ar 3 1 0 4 0 0 0" in table


def test_markup_in_the_data_is_shown_and_never_run(run: Run, tmp_path: Path) -> None:
    text = made(run, tmp_path / "out")[0]
    page = Page(text)
    assert "<script" not in text.lower()
    assert page.text.count(SCRIPT) >= 6  # dropped text, set-aside lines, conversations, pairs, answers
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]


def test_markup_in_names_does_not_leave_a_chart_or_a_table(tmp_path: Path) -> None:
    run, name = Run(tmp_path / "store"), f'a"><b>{SCRIPT}'
    funnel = {name: {"in": 9, "out": 5, "dropped": {name: 3}, "set_aside": {name: 1}}}
    run.add("ingest", {"funnel": funnel}, {"sources": {name: {"language": name, "domain": name, "kind": name}}})
    run.add("fertility", **{"fertility.json": {"rows": [{"tokenizer": "base", "language": "english", "tokens_per_word": 1.5, "byte_fallback_share": 0.1}]}})
    run.add("votes", **{"elo.json": {"default": {name: {"rating": 1.0, "low": 0.5, "high": 2.0}}, "comparisons": 1}})
    run.add("judge", **{"scores.json": {"method": name, "models": {name: {"en": 1.0}}},
                        "answers.jsonl": [{"question_id": name, "model": name, "answer": name}]})
    page = Page(made(run, tmp_path / "out")[0])
    assert "script" not in {tag for tag, _ in page.tags}
    assert "b" not in {tag for tag, attributes in page.tags if attributes.get("class") is None}
    assert page.wrong == []


def test_the_page_needs_nothing_from_outside(run: Run, tmp_path: Path) -> None:
    text = made(run, tmp_path / "out")[0]
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "form", "base")
        assert "src" not in attributes
        assert "style" not in attributes  # the policy would refuse it
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text


def test_the_policy_lets_through_the_pages_own_style_sheet_alone(run: Run, tmp_path: Path) -> None:
    text = made(run, tmp_path / "out")[0]
    policy = next(a["content"] or "" for tag, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style is not None
    checksum = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{checksum}';")
    assert "unsafe" not in policy


def test_arabic_text_is_set_from_right_to_left_and_marked_as_arabic(run: Run, tmp_path: Path) -> None:
    text = made(run, tmp_path / "out")[0]
    for said in ("ما عاصمة عُمان؟", "صباح الخير يا أهل المدينة، الطقس اليوم جميل و HTML نظيف.", "الخوارزمية خطوات مرتبة تحل مسألة."):
        assert re.search(rf'lang="ar" dir="rtl">{re.escape(said)}<', text), said
    assert 'lang="en" dir="ltr">The capital of Oman is Muscat (مسقط).<' in text


def test_new_rows_that_training_never_touched_are_named(run: Run, tmp_path: Path) -> None:
    text = " ".join(Page(made(run, tmp_path / "out")[0]).text.split())
    assert "Of 704 rows of the embeddings that are new here, 3 are of pieces that never came in this stage's text, 1 of them single bytes: ␣كتابخانه, " in text
    assert "5 more are special tokens and padding." in text


def test_fertility_stands_by_domain_and_with_the_tokenizers_that_the_recipe_compares_with(run: Run, tmp_path: Path) -> None:
    text = "".join(Page(made(run, tmp_path / "out")[0]).text.split())
    rows = [f"Arabicwebtranslated{name}1,234{fertility}3.00{share}" for name, fertility, share in (
        ("base", "6.44", "40.0%"), ("Arabiconly", "1.83", "1.0%"), ("merged", "1.83", "1.0%"), ("llama3", "1.40", "1.0%"))]
    assert "".join(rows) in text


def test_the_loss_of_each_domain_at_the_end_stands_with_its_stage(run: Run, tmp_path: Path) -> None:
    text = " ".join(Page(made(run, tmp_path / "out")[0]).text.split())
    assert "Loss by domain over the last twentieth of the steps: Arabic, natural: books 2.500; English: web 1.250." in text


def test_the_funnel_counts_every_record_once(run: Run, tmp_path: Path) -> None:
    page, summary, _ = made(run, tmp_path / "out")
    total = summary["funnel"]
    assert total["in"] == 3779
    assert total["in"] == total["out"] + sum(total["dropped"].values()) + sum(total["set_aside"].values())
    assert total["adds_up"]
    assert total["dropped"]["duplicate_text"] == 52
    assert "do not add up" not in page


def test_near_duplicates_stand_beside_what_is_kept_in_their_place(run: Run, tmp_path: Path) -> None:
    text = Page(made(run, tmp_path / "out")[0]).text
    assert "they were kept, and this is what dropping them would cost" in text
    assert f"The harbour of the old town lies between two hills. {SCRIPT}" in text
    assert "The harbour of the old town lies between two low hills." in text
    assert "Near duplicates" not in made(Run(tmp_path / "store"), tmp_path / "other")[0]


def test_a_funnel_that_loses_records_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path / "store")
    run.add("ingest", {"funnel": {"web": {"in": 10, "out": 8, "dropped": {}, "set_aside": {"bad_json": 1}}}})
    page, summary, _ = made(run, tmp_path / "out")
    assert not summary["funnel"]["adds_up"]
    assert "do not add up" in page


def test_the_headline_tells_how_both_languages_changed(run: Run, tmp_path: Path) -> None:
    page, summary, _ = made(run, tmp_path / "out")
    assert summary["bits_per_byte_change"] == {"from": "extend", "to": "continue", "en": pytest.approx(1.5 / 1.562 - 1), "ar": pytest.approx(1.2 / 3.412 - 1),
                                               "ar_translated": pytest.approx(1.1 / 3.3 - 1)}
    assert "−64.8\u202f%" in page
    assert {row["what"] for row in summary["table"]} >= {"parameters", "Arabic bits per byte", "English bits per byte"}


def test_facts_are_counted_by_the_language_they_were_written_in(run: Run, tmp_path: Path) -> None:
    facts = made(run, tmp_path / "out")[1]["facts"]["dpo"]
    assert facts["own"] == {"accuracy": pytest.approx((3 * 0.95 + 2 * 0.91) / 5), "chance": 0.25, "n": 200}
    assert facts["translated"] == {"accuracy": pytest.approx(0.91), "chance": 0.25, "n": 40}
    assert facts["other"] == {"accuracy": pytest.approx(0.35), "chance": 0.25, "n": 80}


def test_parameters_are_counted_from_the_weights(run: Run, tmp_path: Path) -> None:
    summary = made(run, tmp_path / "out")[1]
    assert summary["parameters"] == 2 * 1728 * 16 + 16 * 64
    assert summary["vocabulary"] == 1728


def test_the_judge_is_named_for_what_it_is(run: Run, tmp_path: Path) -> None:
    page = made(run, tmp_path / "out")[0]
    assert "chrF against reference answers" in page
    assert "it is not a judgement of quality" in page


def test_the_recipe_names_the_origin_of_its_fields(run: Run, tmp_path: Path) -> None:
    page = Page(made(run, tmp_path / "out")[0])
    assert "paper §2.1" in page.text
    assert "assumed: the paper names no threshold" in page.text
    assert "phase.mix.domains.ar_translated" in page.text


def test_a_value_that_is_not_the_papers_is_said_to_be_the_recipes() -> None:
    rows = {row["field"]: row["origin"] for row in _rows({"epochs": 3, "learning_rate": 5e-4}, SftConfig, "")}
    assert rows == {"epochs": "paper §C.2", "learning_rate": "the recipe's; on the field: paper §C.2"}


def test_the_page_says_of_which_recipe_it_is(run: Run, tmp_path: Path) -> None:
    report(ReportConfig(recipe="mine"), run.inputs(), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>mine: report of a run</title>" in page
    assert "one run of the recipe mine made of" in " ".join(Page(page).text.split())


@pytest.mark.parametrize("without", [("extend", "benchmarks_extend"), ("pretrain", "benchmarks_pretrain"), ("votes",), ("judge",), ("fertility",), ("filter",),
                                     ("continue", "benchmarks_continue"), ("benchmarks_pretrain", "benchmarks_extend", "benchmarks_continue", "benchmarks_sft",
                                                                          "benchmarks_dpo")])
def test_what_is_missing_is_left_out(run: Run, tmp_path: Path, without: tuple[str, ...]) -> None:
    page, summary, metrics = made(run, tmp_path / "out", *without)
    assert Page(page).wrong == []
    assert summary["stages"] == 25 - len(without)
    assert len(metrics["sections"]) >= 11


def test_a_run_of_the_data_stages_alone_has_a_report(run: Run, tmp_path: Path) -> None:
    data = ("ingest", "filter", "dedup", "translate")
    page, summary, metrics = made(run, tmp_path / "out", *(name for name in run.made if name not in data))
    assert metrics["sections"] == ["funnel", "distributions", "time", "versions", "recipe"]
    assert summary["parameters"] is None
    assert 'href="#loss"' not in page


def test_benchmarks_asked_during_training_are_lines_over_the_tokens_of_their_phases(run: Run, tmp_path: Path) -> None:
    page = made(run, tmp_path / "out")[0]
    section = page[page.index('id="asked"'):page.index('id="benchmarks"')]
    assert "facts_ar: " in section  # a tooltip of a point
    assert all(f'class="dot c-{language}"' in section for language in ("en", "ar"))
    assert section.count("<th scope=") == 3
    assert "up to 100 items" in section


def test_a_run_that_asked_nothing_during_training_has_no_such_section(tmp_path: Path) -> None:
    run = Run(tmp_path / "store")
    run.add("continue", **{"metrics.jsonl": [{"step": 1, "tokens": 8, "loss": 2.0}], "evals.jsonl": [{"step": 1, "tokens": 8, "bits_per_byte": {"en": 1.0}}]})
    assert "asked" not in made(run, tmp_path / "out")[2]["sections"]


def test_a_run_without_any_finished_stage_says_so(tmp_path: Path) -> None:
    page, _, metrics = made(Run(tmp_path / "store"), tmp_path / "out")
    assert metrics["sections"] == []
    assert "No stage of this run is finished yet." in page


def test_the_same_artifacts_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    first, second = made(run, tmp_path / "first"), made(run, tmp_path / "second")
    assert first == second
    assert str(tmp_path) not in first[0]


def test_a_damaged_file_is_named(run: Run, tmp_path: Path) -> None:
    (run.made["votes"] / "elo.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"elo\.json is damaged"):
        made(run, tmp_path / "out")


def test_a_long_training_makes_neither_a_slow_nor_a_heavy_report(tmp_path: Path) -> None:
    run = Run(tmp_path / "store")
    records = [{"step": s, "tokens": s * 4_000_000, "loss": 2 + 1 / s, "grad_norm": 0.5, "learning_rate": 3e-5} for s in range(1, 150_001)]
    run.add("continue", **{"metrics.jsonl": records, "evals.jsonl": []})
    start = time.process_time()
    page, _, _ = made(run, tmp_path / "out")
    assert time.process_time() - start < 6  # of this process, whatever else the machine does
    assert len(page) < 300_000


def test_made_up_votes_are_called_so(run: Run, tmp_path: Path) -> None:
    assert "made up to show the file format" not in made(run, tmp_path / "before")[0]
    votes = sample.root() / "votes" / "votes.jsonl"
    other = Run(tmp_path / "other")
    other.add("votes", config={"files": [{"path": "votes/votes.jsonl", "sha256": file_sha256(votes), "size": 1}]},
              **{"elo.json": {"default": {"sft": {"rating": 1000.0, "low": 990.0, "high": 1010.0}}, "comparisons": 1}})
    assert "made up to show the file format" in made(other, tmp_path / "out")[0]
