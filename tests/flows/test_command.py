"""The `allam` command: what it says, what it makes, and its exit status."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import write_small_recipe

from allam.artifacts import Store
from allam.recipe import locate
from flows.terminal import LiveLines

CODE = Path(__file__).parents[2]
DATA = ("ingest", "filter", "dedup")


def states(allam, *arguments: object) -> dict[str, tuple[str, str]]:
    """{stage: (state, why)} from `allam plan --json`."""
    plan = json.loads(allam("plan", allam.recipe, "--json", *arguments))
    return {stage["name"]: (stage["state"], stage["why"]) for stage in plan["stages"]}


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store where ingest, filter and dedup are done; keys don't depend on where files lie, so that a copy serves each test."""
    root = tmp_path_factory.mktemp("made")
    write_small_recipe(root)
    for name in DATA:
        done = subprocess.run([sys.executable, "-m", "flows.cli", "stage", name, "--recipe", root / "small.yaml", "--store", root / "store"], cwd=CODE)
        assert done.returncode == 0
    return root / "store"


@pytest.fixture
def made(allam, made_data: Path) -> None:
    """The copy."""
    shutil.copytree(made_data, allam.store)


def test_a_plan_needs_neither_torch_nor_prefect_and_takes_less_than_two_seconds(tmp_path):
    code = ("import sys, time; start = time.monotonic(); sys.argv = ['allam', 'plan', 'allam_7b']\n"
            "from flows.cli import main\ntry: main()\nfinally: print(sorted({'torch', 'prefect', 'transformers', 'datatrove', 'sentencepiece'}"
            " & set(sys.modules)), time.process_time())")
    done = subprocess.run([sys.executable, "-c", code], cwd=CODE, env=os.environ | {"ALLAM_STORE": str(tmp_path)}, capture_output=True, text=True)
    modules, _, seconds = done.stdout.splitlines()[-1].rpartition(" ")
    assert (done.returncode, modules) == (0, "[]"), done.stderr
    assert float(seconds) < 2
    assert "give a profile, as in `allam plan allam_7b --cluster node8`" in " ".join(done.stdout.split())


def test_what_a_stage_warns_of_stands_in_the_terminal_once(capsys):
    lines, state = LiveLines(["pretrain"]), {"unit": "steps", "done": 1, "total": 9, "notes": ["a checkpoint is damaged"]}
    lines.started("pretrain")
    for notes in (["a checkpoint is damaged"], ["a checkpoint is damaged", "English rose"]):
        lines.progressed("pretrain", state | {"notes": notes})
    told = capsys.readouterr().out
    assert told.splitlines() == ["warning: pretrain: a checkpoint is damaged", "warning: pretrain: English rose"]


def test_nothing_is_done_at_first(allam):
    assert {states(allam)[name] for name in DATA} == {("would run", "never made")}


def test_stages_that_were_made_one_by_one_are_listed_shown_and_verified(allam, made):
    told = states(allam)
    assert {name: told[name][0] for name in DATA} == dict.fromkeys(DATA, "done")
    assert "reused  filter" in allam("stage", "filter", "--recipe", allam.recipe)
    listed = json.loads(allam("ls", "--json"))
    assert sorted(row["stage"] for row in listed) == sorted(DATA)
    stopped = allam.store / "filter" / ("0" * 16)
    stopped.mkdir()
    (stopped / "job.json").write_text('{"name": "filter"}')
    assert [(row["stage"], row["state"]) for row in json.loads(allam("ls", "--json")) if row["key"] == stopped.name] == [("filter", "not done")]
    shutil.rmtree(stopped)
    key = next(row["key"] for row in listed if row["stage"] == "filter")
    assert json.loads(allam("show", f"filter/{key[:6]}", "--json"))["metrics"]["funnel"]["web_en"]["in"] == 3
    assert "funnel.web_ar.out" in allam("show", key)
    assert "3 artifacts are what their manifests say" in allam("verify")


def test_verify_ends_with_status_1_after_a_flipped_byte_and_names_the_file(allam, made):
    victim = next(allam.store.glob("dedup/*/documents/web_ar/*"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    assert f"documents/web_ar/{victim.name}: content differs" in allam("verify", "all", status=1)
    assert "content differs" in allam("verify", f"dedup/{victim.parents[2].name}", status=1)
    allam("verify", f"filter/{next(allam.store.glob('filter/*')).name}")


def test_changing_a_field_runs_exactly_the_stages_downstream_and_the_plan_says_why(allam, made):
    allam.edit(lambda tree: tree["data"].setdefault("filter", {}).update(min_words=31))
    told = states(allam)
    assert told["ingest"] == ("done", "")
    assert told["filter"] == ("would run", "config changed: filter.min_words 30 -> 31")
    assert told["dedup"] == ("would run", "upstream filter changed")
    assert "reused  ingest" in allam("stage", "ingest", "--recipe", allam.recipe)
    assert "made  filter" in allam("stage", "filter", "--recipe", allam.recipe)
    assert states(allam, "--set", "data.filter.min_words=30")["dedup"] == ("done", "")  # what was made before is still there


def test_a_new_file_is_named_as_the_reason(allam, made):
    with open(allam.root / "raw" / "web_en.jsonl", "a") as file:
        file.write('{"id": "more", "text": "One more line.", "url": "https://example.org/more"}\n')
    assert states(allam)["ingest"] == ("would run", "config changed: ingest.sources.web_en.files web_en.jsonl has new content")
    assert states(allam)["filter"] == ("would run", "upstream ingest changed")


def test_a_lock_file_makes_new_files_an_explicit_change(allam):
    allam.edit(lambda tree: tree["data"]["sources"]["web_en"].update(path="web_en*.jsonl"))
    allam.edit(lambda tree: tree["align"].update(curate={"path": "web_en.jsonl"}, sample={"path": "web_en.jsonl"}))
    allam.edit(lambda tree: (tree["align"].update(review={}), tree["eval"]["judge"].update(questions=["web_en.jsonl"]), tree["eval"].update(votes={})))
    allam.edit(lambda tree: [benchmark.update(path="web_en.jsonl") for benchmark in tree["eval"]["benchmarks"]["benchmarks"].values()])
    assert "small.lock.json" in allam("lock", allam.recipe)
    before = json.loads(allam("plan", allam.recipe, "--json"))["stages"][0]["key"]
    (allam.root / "raw" / "web_en_new.jsonl").write_text('{"id": "n", "text": "new"}\n')
    assert json.loads(allam("plan", allam.recipe, "--json"))["stages"][0]["key"] == before
    assert "web_en_new.jsonl came after" in allam("plan", allam.recipe)
    assert "small.lock.json: 3 files (1 added, 0 changed, 0 removed)" in allam("lock", allam.recipe)
    assert json.loads(allam("plan", allam.recipe, "--json"))["stages"][0]["key"] != before
    assert "warning" not in allam("plan", allam.recipe)


def test_a_lock_of_the_data_alone_needs_no_other_files_and_is_heeded(allam):
    allam.edit(lambda tree: tree["data"]["sources"]["web_en"].update(path="web_en*.jsonl"))
    assert "align.curate.path" in allam("lock", allam.recipe, status=2)
    assert "small.lock.json: 2 files" in allam("lock", allam.recipe, "--to", "dedup")
    before = states(allam)["ingest"], json.loads(allam("plan", allam.recipe, "--json"))["stages"][0]["key"]
    (allam.root / "raw" / "web_en_new.jsonl").write_text('{"id": "n", "text": "new"}\n')
    assert (states(allam)["ingest"], json.loads(allam("plan", allam.recipe, "--json"))["stages"][0]["key"]) == before


def test_a_locked_file_that_changed_and_an_id_to_take_down_that_names_nothing_are_warned_of(allam):
    allam("lock", allam.recipe, "--to", "dedup")
    allam.edit(lambda tree: tree["data"].update(take_down=["nobody"]))
    assert "1 of the 1 ids in data.take_down name no document" in " ".join(allam("stage", "ingest", "--recipe", allam.recipe).split())
    with open(allam.root / "raw" / "web_en.jsonl", "a") as file:
        file.write('{"id": "more", "text": "One more line.", "url": "https://example.org/more"}\n')
    assert "web_en.jsonl changed after" in allam("plan", allam.recipe, "--to", "dedup")


def test_a_packaged_recipe_is_locked_only_to_a_place_of_the_users(allam):
    assert "extends: demo" in allam("lock", "demo", status=2)
    assert "demo.json: " in allam("lock", "demo", "--output", allam.root / "demo.json")
    assert "documents/web_en.jsonl.gz" in json.loads((allam.root / "demo.json").read_text())["files"]
    assert not locate("demo").with_suffix(".lock.json").exists()


def test_a_new_file_is_all_that_is_read_and_the_command_says_so(allam):
    allam.edit(lambda tree: tree["data"]["sources"]["web_en"].update(path="web_en*.jsonl"))
    assert "files: 2 read, 0 reused" in allam("stage", "ingest", "--recipe", allam.recipe)
    assert "shards: 2 filtered, 0 reused" in allam("stage", "filter", "--recipe", allam.recipe)
    (allam.root / "raw" / "web_en_new.jsonl").write_text('{"id": "n", "text": "new"}\n')
    assert "files: 1 read, 2 reused" in allam("stage", "ingest", "--recipe", allam.recipe)
    assert "shards: 1 filtered, 2 reused" in allam("stage", "filter", "--recipe", allam.recipe)
    assert "artifacts are what their manifests say" in allam("verify")


def test_a_cluster_profile_runs_nothing_again(allam, made):
    (allam.root / "big.yaml").write_text("name: big\nranks: 4\nthreads: 8\nworkers: 16\ndevice: cuda\n")
    told = states(allam, "--cluster", allam.root / "big.yaml")
    assert all(told[name] == ("done", "") for name in DATA)
    assert "reused  dedup" in allam("stage", "dedup", "--recipe", allam.recipe, "--cluster", allam.root / "big.yaml")


def test_forcing_a_stage_is_planned_with_what_is_downstream(allam, made):
    told = states(allam, "--force", "filter")
    assert (told["ingest"][0], told["filter"], told["dedup"]) == ("done", ("would run", "forced"), ("would run", "upstream filter forced"))
    assert "made  filter" in allam("stage", "filter", "--recipe", allam.recipe, "--force")


def test_a_stage_that_was_removed_or_failed_says_so_in_the_plan(allam, made):
    folder = next(allam.store.glob("dedup/*"))
    subprocess.run(["rm", "-r", folder], check=True)
    assert "was removed" in states(allam)["dedup"][1]
    folder.mkdir()
    (folder / "job.json").write_text("{}")
    assert "was stopped before it was done" in states(allam)["dedup"][1]
    (folder / "error.json").write_text('{"message": "the disk is full", "remedy": "", "exit_code": 1}')
    assert states(allam)["dedup"][1] == "failed: the disk is full"
    (folder / "manifest.json").write_text("{}")
    assert states(allam)["dedup"][0] == "damaged"


def test_what_was_made_elsewhere_can_be_adopted(allam, made):
    other = Store(allam.root / "other")
    elsewhere = next(allam.store.glob("dedup/*"))
    assert "done already" in allam("adopt", "dedup", elsewhere, "--recipe", allam.recipe, status=2)
    assert "holds an artifact of 'dedup', not of 'ingest'" in allam("adopt", "ingest", elsewhere, "--recipe", allam.recipe, "--store", other.root, status=2)
    allam("adopt", "dedup", elsewhere, "--recipe", allam.recipe, "--store", other.root)
    adopted = json.loads(allam("show", f"dedup/{elsewhere.name}", "--json", "--store", other.root))
    assert adopted["adopted_from"] == str(elsewhere)
    assert adopted["outputs"] == json.loads(allam("show", f"dedup/{elsewhere.name}", "--json"))["outputs"]
    allam("verify", "--store", other.root)
    assert states(allam, "--store", other.root)["dedup"] == ("done", "")
    copy = other.root / "damaged"
    shutil.copytree(next(allam.store.glob("filter/*")), copy)
    shard = next(copy.glob("documents/*/*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert f"{shard.relative_to(copy)}: " in allam("adopt", "filter", copy, "--recipe", allam.recipe, "--store", other.root, status=2)
    (other.root / "notes").mkdir(parents=True)
    (other.root / "notes" / "README.md").write_text("not documents", encoding="utf-8")
    assert "holds no documents/*/*.parquet" in allam("adopt", "filter", other.root / "notes", "--recipe", allam.recipe, "--store", other.root, status=2)
    assert "there are no files" in allam("adopt", "filter", allam.root / "nowhere", "--recipe", allam.recipe, "--store", other.root, status=2)


@pytest.mark.parametrize(("change", "message", "remedy"), [
    (lambda tree: tree["data"].update(filtr={}), "data.filtr: unknown key", "did you mean 'filter'?"),
    (lambda tree: tree["data"].update(filter={"min_words": "many"}), "data.filter.min_words:", "not 'many'"),
    (lambda tree: tree["data"].pop("sources"), "data.sources: is missing", "docs/recipe.md"),
    (lambda tree: tree["train"]["continue"]["mix"]["components"].update(en=0.9), "train.continue.mix", "docs/recipe.md"),
])
def test_a_broken_recipe_is_one_clear_message_and_status_2(allam, change, message, remedy):
    allam.edit(change)
    for command in (("plan", allam.recipe), ("run", allam.recipe), ("stage", "ingest", "--recipe", allam.recipe)):
        words = allam(*command, status=2)
        assert message in words
        assert remedy in words
        assert words.count("error:") == 1
    assert not list(allam.store.glob("*/*/manifest.json"))


def test_a_missing_file_stops_a_run_before_anything_is_made_and_names_the_field(allam):
    (allam.root / "raw" / "web_ar.jsonl").unlink()
    told = states(allam)
    assert told["ingest"][0] == "files missing"
    words = allam("run", allam.recipe, "--to", "dedup", status=2)
    assert f"data.sources.web_ar.path: no file at {allam.root / 'raw' / 'web_ar.jsonl'}" in words
    assert "--set data.root=" in words
    assert not list(allam.store.glob("*/*/job.json"))


@pytest.mark.parametrize(("arguments", "words"), [
    (("plan", "demmo"), "did you mean 'demo'?"),
    (("plan", "demo", "--set", "data.filter"), "not of the form"),
    (("plan", "demo", "--set", "data.filter.min_words=many"), "data.filter.min_words"),
    (("plan", "demo", "--to", "filtr"), "did you mean 'filter'?"),
    (("plan", "demo", "--force", "filtr"), "did you mean 'filter'?"),
    (("plan", "demo", "--cluster", "moon"), "there is no cluster profile"),
    (("run", "demo", "--to", "filtr"), "did you mean 'filter'?"),
    (("run", "demo", "--force", "filtr"), "did you mean 'filter'?"),
    (("stage", "filtr", "--recipe", "demo"), "did you mean 'filter'?"),
    (("stage", "filter", "--recipe", "demo"), "is made from ingest, which is not made yet"),
    (("report", "demo"), "are not made yet"),
    (("show", "abc"), "no artifact 'abc'"),
    (("stage", "filter"), "--recipe"),
    (("frobnicate",), "No such command"),
])
def test_a_users_mistake_is_status_2_with_a_remedy(allam, arguments, words):
    assert words in allam(*arguments, status=2)


def test_an_empty_source_is_one_clear_message_and_nothing_is_done(allam):
    (allam.root / "raw" / "web_ar.jsonl").write_text("")
    words = allam("stage", "ingest", "--recipe", allam.recipe, status=2)
    assert "web_ar" in words
    assert states(allam)["ingest"][0] == "would run"
    assert "failed:" in states(allam)["ingest"][1]


def test_a_program_error_is_told_without_a_traceback(allam, monkeypatch):
    monkeypatch.setattr("flows.cli.explain", lambda *_: 1 / 0)
    words = allam("plan", "demo", status=1)
    assert "ZeroDivisionError" in words
    assert "ALLAM_DEBUG=1" in words


def test_a_stage_is_stopped_by_a_signal_with_status_1_and_resumes(allam):
    process = subprocess.Popen([sys.executable, "-m", "flows.cli", "stage", "ingest", "--recipe", allam.recipe], cwd=CODE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(allam.store.glob("ingest/*/.lock")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    _, words = process.communicate(timeout=60)
    assert process.returncode == 1, words
    assert "stopped" in words
    assert "Traceback" not in words
    assert not list(allam.store.glob("ingest/*/manifest.json"))
    allam("stage", "ingest", "--recipe", allam.recipe)


def test_help_and_recipes_read_well(allam):
    words = allam("--help")
    for command in ("plan", "run", "stage", "ls", "show", "verify", "adopt", "lock", "report", "recipes"):
        assert command in words
    assert "demo" in allam("recipes")
    assert "The whole path on the sample" in json.loads(allam("recipes", "--json"))["demo"]


@pytest.mark.parametrize(("words", "offered"), [
    (("plan", "demo", "--cluster", "wo"), "workstation"), (("run", "pro"), "proxy"), (("show", "inge"), "ingest/"), (("stage", "ded"), "dedup"),
])
def test_the_shell_completes_recipes_stages_profiles_and_keys(allam, made, words, offered):
    asked = os.environ | {"_ALLAM_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("allam", *words)), "COMP_CWORD": str(len(words))}
    program = "from flows.cli import app; app(prog_name='allam')"
    found = subprocess.run([sys.executable, "-c", program], cwd=CODE, capture_output=True, text=True, check=True, env=asked)
    assert found.stdout.startswith(offered)
