"""Mistakes that would lead out of the data root or the artifact, or make something empty look done, are refused by name."""

import json

import pytest

from allam.cluster import load_profile
from allam.errors import UserError
from allam.files import FileTable, check_file
from allam.pipeline import make_plan
from allam.recipe import load

SOURCE = "{path: raw/en.jsonl, language: en, domain: books}"


@pytest.mark.parametrize("name", ["../../escaped", "", "we/b", "a b", ".hidden"])
def test_a_sources_name_cannot_lead_out_of_the_artifact(name, tmp_path):
    recipe = tmp_path / "evil.yaml"
    recipe.write_text(f"extends: demo\nname: evil\ndata:\n  sources:\n    {json.dumps(name)}: {SOURCE}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.sources"):
        load(str(recipe))


@pytest.mark.parametrize(("override", "field"), [
    ("data.sources={}", "data.sources"), ("data.sources.web_en.path=''", "data.sources.web_en.path"),
    ("train.continue.optimizer.learning_rate=.inf", "learning_rate"),
    ("eval.benchmarks.benchmarks.../x={path: a, type: generation, language: en}", "benchmarks"),
])
def test_what_would_be_empty_endless_or_outside_is_refused_by_its_field(override, field):
    with pytest.raises(UserError, match=field):
        load("demo", [override])


def test_the_data_root_itself_is_no_source(tmp_path):
    with pytest.raises(UserError, match="data root itself"):
        FileTable(tmp_path).resolve("data.sources.all.path", ".")


def test_a_recipe_that_extends_another_and_names_sources_has_these_alone(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"extends: demo\nname: mine\ndata:\n  sources:\n    town: {SOURCE}\n", encoding="utf-8")
    recipe = load(str(tmp_path / "mine.yaml"))
    assert list(recipe.data.sources) == ["town"]
    assert recipe.data.held_out == load("demo").data.held_out


def test_a_recipe_for_the_data_alone_drops_the_benchmarks_of_the_one_that_it_extends(tmp_path):
    (tmp_path / "en.jsonl").write_text('{"id": "a", "text": "x"}\n')
    for more, missing in (("", True), ("eval: {benchmarks: {benchmarks: {}}, judge: {questions: []}}\n", False),
                          ("eval: {benchmarks: {benchmarks: {facts_en: {limit: 3}}}}\n", True)):
        data = f"data:\n  root: {tmp_path}\n  sources: {{s: {{path: en.jsonl, language: en, domain: web}}}}\n"
        (tmp_path / "mine.yaml").write_text(f"extends: demo\nname: mine\n{data}{more}")
        plan = make_plan(load(str(tmp_path / "mine.yaml")))
        assert bool(plan.specs["decontaminate"].problems) == missing, more
    assert len(plan.recipe.eval.benchmarks.benchmarks) == 4


@pytest.mark.parametrize(("text", "told"), [("rank: 2", "did you mean 'ranks'"), ("ranks: 0", "ranks: input should be greater"), ("- a", "profile")])
def test_a_broken_cluster_profile_is_told_field_by_field(text, told, tmp_path):
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_profile(str(tmp_path / "p.yaml"))
    assert told in str(error.value)
    assert "pydantic.dev" not in str(error.value)


def test_a_profile_that_is_no_text_is_the_users_mistake(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match="not readable"):
        load_profile(str(tmp_path / "p.yaml"))


@pytest.mark.parametrize("content", ['{"patterns": {"x": ["zz"]}}', '{"patterns": 5}', "[1"])
def test_a_damaged_lock_file_says_how_to_mend_it(content, tmp_path):
    lock = tmp_path / "demo.lock.json"
    lock.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="damaged") as error:
        make_plan(load("demo"), lock_file=lock)
    assert "allam lock" in str(error.value)


def test_a_damaged_cache_of_checksums_costs_a_reading_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    fresh = FileTable(tmp_path).resolve("f", "a.txt")
    cache = tmp_path / "files.json"
    cache.write_text(json.dumps({str(tmp_path / "a.txt"): 3}), encoding="utf-8")
    assert FileTable(tmp_path, cache).resolve("f", "a.txt") == fresh


def test_what_other_programs_leave_beside_the_data_is_none_of_it_unless_it_is_named(tmp_path):
    for name in ("a.jsonl", "_SUCCESS", ".a.jsonl.crc"):
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_text("{}\n")
    table = FileTable(tmp_path)
    assert [file.path for pattern in ("raw", "raw/*", "raw/_*") for file in table.resolve("f", pattern)] == ["raw/a.jsonl", "raw/a.jsonl", "raw/_SUCCESS"]


def test_neither_are_the_folders_that_other_programs_leave_there_unless_the_path_names_them(tmp_path):
    for name in ("raw/a.jsonl", "raw/.ipynb_checkpoints/a-checkpoint.jsonl", "raw/_temporary/0/part.jsonl", "_old/b.jsonl", "_old/_SUCCESS"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    for pattern, found in (("raw", ["raw/a.jsonl"]), ("**/*.jsonl", ["raw/a.jsonl"]), ("_old", ["_old/b.jsonl"]), ("_old/*", ["_old/b.jsonl"]),
                           ("raw/_temporary", ["raw/_temporary/0/part.jsonl"]), ("raw/_*/**/*", ["raw/_temporary/0/part.jsonl"]),
                           ("_old/_SUCCESS", ["_old/_SUCCESS"])):
        assert [file.path for file in FileTable(tmp_path).resolve("f", pattern)] == found, pattern


def test_a_file_that_changed_under_a_lock_says_which_command_takes_it_in(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    [ref] = FileTable(tmp_path).resolve("f", "a.txt")
    (tmp_path / "a.txt").write_text("second")
    with pytest.raises(UserError, match="has changed since the plan was made") as error:
        check_file(tmp_path, ref)
    assert "`allam lock RECIPE`" in error.value.remedy
