"""Tasks: one for each kind of stage, and what they say."""

import json
from pathlib import Path

import pytest
from prefect.states import Failed

from allam.artifacts import Manifest, OutputFile
from allam.errors import StageCancelled, StageFailed, UserError
from allam.pipeline import STAGES
from tasks.table import TASKS
from tasks.words import done_line, duration, made_line, made_markdown, number, progress_line, size

MANIFEST = Manifest(name="filter", kind="filter", version=1, key="ab" * 32, config={}, inputs={"documents": {"kind": "ingest", "key": "cd" * 32}},
                    outputs={"documents/web/0.parquet": OutputFile(size=2_500_000, sha256="0" * 64)},
                    metrics={"funnel": {"web_ar": {"in": 1200, "out": 1000, "dropped": {"too_short": 150, "spam": 50}, "set_aside": {}}}, "score": 0.98765,
                             "listed": [1, 2]},
                    started_at="2026-01-01T00:00:00+00:00", seconds=185, peak_memory_bytes=3 << 30, world_size=1, versions={})


def test_every_kind_of_stage_has_a_task_of_its_name_tagged_with_its_area():
    assert set(TASKS) == set(STAGES)
    for kind, stage in TASKS.items():
        assert stage.name == kind
        assert STAGES[kind].area in stage.tags
        assert ("devices" in stage.tags) or not STAGES[kind].ranks
        assert stage.description
        assert stage.persist_result is False


@pytest.mark.parametrize(("error", "again"), [(UserError("wrong"), False), (StageCancelled("by scancel"), False), (StageFailed("a lost node"), True)])
def test_a_mistake_and_a_cancelled_job_are_not_tried_again(error, again):
    assert TASKS["ingest"].retry_condition_fn(None, None, Failed(data=error)) is again


def test_the_page_of_a_stage_says_what_it_made():
    page = made_markdown(MANIFEST, Path("/store/filter/abab"), made=True)
    for words in ("## filter: made", "| files | 1, 2.5 MB in all |", "| time | 3 min 05 s, from 2026-01-01 00:00:00 UTC |",
                  "| artifact | `filter/abababababababab` |",
                  "| web_ar | 1,200 | 1,000 | 83.3% | too_short 150, spam 50 | 0 |",
                  "| score | 0.9877 |", "`/store/filter/abab`", "| from, as documents | `ingest/cdcdcdcdcdcdcdcd` |"):
        assert words in page
    assert "reused" in made_markdown(MANIFEST, Path("/store"), made=False)


def test_the_page_sums_the_documents_of_several_sources_and_passes_over_an_empty_one():
    funnel = {"a": {"in": 3, "out": 2, "dropped": {"spam": 1}, "set_aside": {}}, "b": {"in": 4, "out": 2, "dropped": {"spam": 1}, "set_aside": {"bad_json": 1}},
              "c": {"in": 0, "out": 0, "dropped": {}, "set_aside": {}}}
    page = made_markdown(MANIFEST.model_copy(update={"metrics": {"funnel": funnel}}), Path("/store"), made=True)
    assert "| c | 0 | 0 |  | 0 | 0 |\n| **all** | 7 | 4 | 57.1% | spam 2 | bad_json 1 |\n" in page


def test_the_page_of_a_reused_artifact_says_that_its_files_were_read_when_it_was_made():
    manifest = MANIFEST.model_copy(update={"metrics": {"files": {"read": 7, "reused": 1}}})
    assert "| this run | files: 7 read, 1 reused |" in made_markdown(manifest, Path("/store"), made=True)
    reused = made_markdown(manifest, Path("/store"), made=False)
    assert "| when it was made | files: 7 read, 1 reused |" in reused
    assert "files.read" not in reused


def test_a_line_says_how_many_files_were_read_and_how_many_reused():
    made = MANIFEST.model_copy(update={"metrics": {"files": {"read": 1, "reused": 1364}}})
    assert made_line(made, made=True) == "made in 3 min 05 s, 2.5 MB; files: 1 read, 1,364 reused"
    assert made_line(made, made=False) == "reused, 2.5 MB"


def test_figures_of_the_same_shape_stand_in_a_table_of_their_own():
    ledger = {"en": {"web": {"share": 0.31, "planned_tokens": 93312}, "code": {"share": 0.39, "planned_tokens": 117376}}, "ar": {"web": {"share": 0.3}}}
    page = made_markdown(MANIFEST.model_copy(update={"metrics": {"ledger": ledger, "loss": {"first": 6.9, "last": 1.1}}}), Path("/store"), made=True)
    assert "### Ledger\n\n|  | share | planned tokens |\n|---|---:|---:|\n| en, web | 0.31 | 93,312 |\n" in page
    assert "| ar, web | 0.3 |  |" in page
    assert "| loss.first | 6.9 |" in page
    assert "ledger.en" not in page


def test_the_page_of_the_filters_has_the_distributions_of_what_they_measured_by_language(tmp_path):
    ours, theirs = {"edges": [0.9, 0.95, 1.0], "counts": [0, 7]}, {"edges": [0.9, 0.95, 1.0], "counts": [2, 1200]}
    (tmp_path / "statistics.json").write_text(json.dumps({"a": {"language_score": ours}, "b": {"language_score": theirs}, "c": {"language_score": ours}}))
    sources = {"a": {"language": "ar"}, "b": {"language": "en"}, "c": {"language": "ar"}}
    page = made_markdown(MANIFEST.model_copy(update={"config": {"sources": sources}}), tmp_path, made=True)
    assert "### Documents by language score\n\n| language score | Arabic | | English | |\n|---|---:|---|---:|---|\n" in page
    assert f"| 0.9 to 0.95 | 0 |  | 2 | ▏ |\n| 0.95 to 1 | 14 | {'█' * 16} | 1,200 | {'█' * 16} |\n" in page


def test_no_figure_is_lost_where_shapes_differ():
    mixed = {"en": {"web": {"tokens": 5}, "documents": 7}, "ar": {"web": {"tokens": 6}}}
    page = made_markdown(MANIFEST.model_copy(update={"metrics": {"packed": mixed}}), Path("/store"), made=True)
    for line in ("| packed.en.web.tokens | 5 |", "| packed.en.documents | 7 |", "| packed.ar.web.tokens | 6 |"):
        assert line in page


def test_a_stage_in_short_is_its_time_and_size():
    assert [made_line(MANIFEST, True), made_line(MANIFEST, False)] == ["made in 3 min 05 s, 2.5 MB", "reused, 2.5 MB"]
    state = {"what": "pretraining", "unit": "steps", "done": 90, "total": 147, "rate": 1.7, "seconds_left": 33, "info": {"loss": 1.7}}
    assert done_line(state) == "pretraining: 90 of 147 steps (61%), loss 1.7"


@pytest.mark.parametrize(("state", "line"), [
    ({"what": "", "unit": "steps", "done": 120, "total": 400, "rate": 3.14, "seconds_left": 90, "info": {"loss": 2.3456}},
     "120 of 400 steps (30%), 3.1 a second, 1 min 30 s left, loss 2.346"),
    ({"what": "reading", "unit": "documents", "done": 12000, "total": None, "rate": 1500.4, "seconds_left": None, "info": {}},
     "reading: 12,000 documents, 1,500 a second"),
    ({"what": "", "unit": "documents", "done": 0, "total": 0, "rate": 0, "seconds_left": None, "info": None}, "0 documents"),
])
def test_progress_is_a_line_for_people(state, line):
    assert progress_line(state) == line


def test_figures_are_written_for_people():
    assert [duration(4.21), duration(185), duration(7385)] == ["4.2 s", "3 min 05 s", "2 h 03 min"]
    assert [size(999), size(919_900), size(2e12)] == ["999 B", "919.9 kB", "2.0 TB"]
    assert [number(1234567), number(0.123456), number(True), number("chrF")] == ["1,234,567", "0.1235", "True", "chrF"]
