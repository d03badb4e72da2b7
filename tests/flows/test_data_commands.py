"""`allam data ...` on a small store: what it counts and shows is what the artifacts hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small import DOCUMENTS, write_small_recipe

from allam import worker
from allam.artifacts import Store, write_json
from allam.audit.lost import lost_records
from allam.data.tables import write_dropped
from allam.launch.folder import job
from allam.pipeline import make_plan
from allam.recipe import load

CODE = Path(__file__).parents[2]
DATA = ("ingest", "filter", "dedup", "decontaminate", "translate", "decontaminate_translated")
HOSTILE = "Short \x1b[31mred\x07 [bold]text[/bold]."
SKIP = ["data.decontaminate.action=skip"]  # the small recipe has no benchmarks at hand


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store where the data stages are done, over the small recipe's documents and some that are dropped."""
    root = tmp_path_factory.mktemp("audited")
    recipe = write_small_recipe(root)
    english = [{"id": "copy", "text": DOCUMENTS["web_en.jsonl"][0] + " "}, {"id": "short", "text": "Far too short."}, {"id": "hostile", "text": HOSTILE}]
    (root / "raw" / "web_en.jsonl").open("a", encoding="utf-8").write("".join(json.dumps(row) + "\n" for row in [*english, {"title": "no text"}]))
    translated = "    ar_translated: {path: ar.jsonl, language: ar, domain: web, kind: translated, licence: MIT}\n"
    recipe.write_text(recipe.read_text().replace("    web_ar:\n", f"{translated}    web_ar:\n"))
    (root / "raw" / "ar.jsonl").write_text(json.dumps({"id": "t0", "text": DOCUMENTS["web_ar.jsonl"][0], "translation_of": "web_en-0"}) + "\n")
    plan, store = make_plan(load(str(recipe), [*SKIP, "data.ingest.max_set_aside_share=0.5"])), Store(root / "store")
    for name in DATA:
        spec = plan.specs[name]
        folder = store.folder(spec.kind, spec.key)
        folder.mkdir(parents=True)
        write_json(folder / "job.json", job(spec, {part: store.ref(plan.specs[made].kind, plan.specs[made].key) for part, made in spec.inputs.items()}))
        assert worker.main(folder) == 0
    return root


@pytest.fixture
def data(allam, audited):
    """`allam data COMMAND RECIPE ...` on that store."""
    shutil.copy(audited / "small.yaml", allam.recipe)

    def call(command: str, *arguments: object, status: int = 0) -> str:
        about = [allam.recipe, "--set", SKIP[0], "--set", "data.ingest.max_set_aside_share=0.5"] if command != "trace" else []
        return allam("data", command, *about, *arguments, "--store", audited / "store", status=status)

    return call


def test_dropped_documents_are_counted_by_stage_source_and_reason(data):
    counts = json.loads(data("dropped", "--json"))["counts"]
    assert [(row["stage"], row["source"], row["reason"], row["documents"]) for row in counts] == [
        ("ingest", "web_en", "no_text", 1), ("filter", "web_en", "too_short", 2), ("dedup", "web_en", "duplicate_text", 1)]
    assert json.loads(data("dropped", "--stage", "filter", "--reason", "too_short", "--json"))["counts"] == counts[1:2]


def test_the_first_few_that_are_shown_are_of_all_sources(tmp_path):
    for source, rows in {"a": ["a1", "a2", "a3"], "b": ["b1"], "c": ["c1", "c2"]}.items():
        lines = [{"id": row, "source": source, "reason": "spam" if row != "c1" else "language"} for row in rows]
        (tmp_path / "dropped" / source).mkdir(parents=True)
        write_dropped(tmp_path / "dropped" / source / "00000.jsonl.zst", [json.dumps(line).encode() + b"\n" for line in lines])
    assert [record["id"] for record in lost_records(tmp_path, ["b", "a", "c"])] == ["b1", "a1", "c1", "a2", "c2", "a3"]
    assert [record["id"] for record in lost_records(tmp_path, ["a", "c"], "spam")] == ["a1", "c2", "a2", "a3"]


def test_they_are_shown_as_they_are_without_commanding_the_terminal(data):
    shown = data("dropped", "--reason", "too_short", "--show", 20)
    assert "Far too short." in shown
    assert "Short [31mred [bold]text[/bold]." in shown
    assert "filter: too_short  web_en  hostile" in shown
    assert len(json.loads(data("dropped", "--show", 1, "--json"))["records"]) == 1
    assert "web_en.jsonl, line 7" in data("dropped", "--reason", "no_text", "--show", 1)


@pytest.mark.parametrize(("arguments", "words"), [
    (("--reason", "spamm"), "nothing was dropped as 'spamm'"),
    (("--stage", "filtre"), "did you mean 'filter'?"), (("--source", "web_fr"), "did you mean 'web_")])
def test_what_is_asked_for_and_not_there_is_told_with_what_is(data, arguments, words):
    assert words in data("dropped", *arguments, status=2)


def test_before_there_is_a_pack_licences_are_given_in_documents_and_bytes(data):
    rows = json.loads(data("licences", "--json"))
    size = {name: sum(len(text.encode()) for text in texts) for name, texts in DOCUMENTS.items()}
    translated = len(DOCUMENTS["web_ar.jsonl"][0].encode())
    assert rows == sorted([
        {"licence": None, "component": "en", "documents": 3, "bytes": size["web_en.jsonl"]},
        {"licence": None, "component": "ar", "documents": 2, "bytes": size["web_ar.jsonl"]},
        {"licence": "MIT", "component": "ar_translated", "documents": 1, "bytes": translated}], key=lambda row: -row["bytes"])
    assert "(none given)" in data("licences")


def test_a_document_is_traced_with_its_translation_and_its_duplicates(data):
    places = json.loads(data("trace", "web_en-0", "--json"))
    found = {(place["stage"], place["holds"]) for place in places}
    assert found >= {(stage, "document") for stage in ("ingest", "filter", "dedup", "decontaminate")}
    assert found >= {(stage, "translation") for stage in ("ingest", "translate", "decontaminate_translated")}
    assert ("dedup", "duplicate of it") in found
    assert "dropped" in data("trace", "copy")
    assert "knows the document 'nobody'" in data("trace", "nobody")


def test_what_is_not_made_yet_is_told_with_the_command_that_makes_it(data, allam, tmp_path):
    assert "--to mix_base` makes the first" in data("ledger", status=2)
    empty = ("--set", SKIP[0], "--store", tmp_path / "empty")
    assert "none of the data stages is made yet" in allam("data", "dropped", allam.recipe, *empty, status=2)
    assert "the corpus is not made yet" in allam("data", "licences", allam.recipe, *empty, status=2)


def test_neither_torch_nor_prefect_nor_datatrove_is_imported(audited):
    code = ("import sys; sys.argv = ['allam', 'data', 'trace', 'web_en-0']\nfrom flows.cli import main\ntry: main()\nfinally: "
            "print(sorted({'torch', 'prefect', 'transformers', 'datatrove', 'sentencepiece'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=CODE, env=os.environ | {"ALLAM_STORE": str(audited / "store")}, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
