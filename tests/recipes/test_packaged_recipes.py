"""The recipes that ship: they validate, they plan, and they hold the paper's numbers with their origins."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from allam.errors import UserError
from allam.pipeline import make_plan
from allam.recipe import load, locate, packaged

PAPER = ["allam_7b", "allam_13b", "allam_70b", "allam_7b_scratch"]


@pytest.mark.parametrize("name", sorted(packaged()))
def test_every_packaged_recipe_is_valid_and_plans_without_its_data(name: str) -> None:
    plan = make_plan(load(name))
    assert next(iter(plan.specs)) == "ingest"
    assert list(plan.specs)[-1] == "report"
    assert len({spec.key for spec in plan.specs.values()}) >= len(plan.specs) - 1  # pack and pack_base may coincide


@pytest.mark.parametrize("name", PAPER)
def test_every_value_of_a_paper_recipe_says_where_it_comes_from(name: str) -> None:
    for line in locate(name).read_text(encoding="utf-8").splitlines():
        text, _, comment = line.partition("#")
        opens_a_section = text.rstrip().endswith(":") or not text.strip() or text.startswith("extends:")
        if not opens_a_section:
            assert re.match(r"\s*(paper (§|Table|Figure)|assumed: )", comment), line


@pytest.mark.parametrize(("name", "tokens"), [("allam_7b", 1.2e12), ("allam_13b", 1.2e12), ("allam_70b", 6e11), ("allam_7b_scratch", 1.2e12)])
def test_the_paper_recipes_hold_the_papers_numbers(name: str, tokens: float) -> None:
    recipe = load(name)
    phase, align = recipe.train.continued, recipe.align
    assert phase.tokens == tokens
    assert (phase.optimizer.learning_rate, phase.optimizer.schedule, phase.precision) == (3e-5, "constant", "bf16")
    assert (align.sft.epochs, align.sft.learning_rate, align.sft.global_batch) == (3, 5e-6, 1024)
    assert (align.dpo.epochs, align.dpo.learning_rate, align.dpo.final_learning_rate, align.dpo.global_batch) == (1, 9e-7, 5e-7, 512)
    assert align.sample.samples == 10
    assert (recipe.data.filter.min_language_score, recipe.data.filter.min_words) == (0.95, 30)


def test_table_1_gives_the_papers_overall_shares() -> None:
    mix = load("allam_7b").train.continued.mix
    overall: dict[str, float] = {}
    for component, share in mix.components.items():
        for domain, part in mix.domains[component].items():
            overall[domain] = overall.get(domain, 0) + share * part
    paper = {"web": 48, "books": 11, "news": 3, "science": 14, "code": 21, "math": 2.5, "wiki": 0.3, "other": 0.2}
    for domain, percent in paper.items():
        assert abs(100 * overall[domain] - percent) < 0.8, domain  # the paper rounds; its science row adds up to 13.75


def test_from_scratch_needs_no_vocabulary_extension_and_one_tokenizer_from_the_first_step() -> None:
    specs = make_plan(load("allam_7b_scratch")).specs
    assert "extend" not in specs
    assert specs["pretrain"].inputs["tokenizer"] == specs["continue"].inputs["tokenizer"] == "merged_tokenizer"
    assert specs["continue"].inputs["model"] == "pretrain"


@pytest.mark.parametrize(("recipe", "field", "told"), [
    ("demo", "train.pretrain.new_rows_steps=5", "random weights has no new rows"),
    ("allam_7b_scratch", "train.continue.new_rows_steps=5", "needs an extended vocabulary"),
    ("demo", "train.continue.new_rows_steps=100000", "more than the phase's"),
])
def test_a_first_phase_for_new_rows_is_refused_where_it_cannot_be(recipe: str, field: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load(recipe, [field])


def test_a_base_of_the_hub_is_not_looked_for_below_the_data_root() -> None:
    folder = make_plan(load("allam_7b")).specs["import_model"]
    of_the_hub = make_plan(load("allam_7b", ["train.import_model.model=some/model", "train.import_model.revision=deadbeef"])).specs["import_model"]
    assert any("train.import_model.model" in problem for problem in folder.problems)
    assert of_the_hub.problems == ()


def test_a_recipe_that_extends_another_keeps_what_it_does_not_say(tmp_path: Path) -> None:
    child = tmp_path / "mine.yaml"
    child.write_text("extends: demo\nname: mine\ntrain:\n  continue:\n    tokens: 4096\n", encoding="utf-8")
    recipe, parent = load(str(child)), load("demo")
    assert recipe.train.continued.tokens == 4096
    assert recipe.train.continued.mix == parent.train.continued.mix
    assert recipe.data == parent.data


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match="extends itself"):
        load(str(tmp_path / "a.yaml"))


def test_planning_imports_neither_torch_nor_prefect() -> None:
    code = ("import sys; from allam.recipe import load; from allam.pipeline import make_plan; make_plan(load('allam_7b'));"
            "heavy = {'torch', 'prefect', 'transformers', 'datatrove', 'pyarrow', 'sentencepiece'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("override", ["data.ingest.order=[a]", "align.curate.files=[]", "eval.benchmarks.chat=true", "data.sources.web_en.files=[]"])
def test_what_the_plan_fills_in_is_refused_in_a_recipe(override: str) -> None:
    path = override.partition("=")[0]
    with pytest.raises(UserError, match=f"gives {re.escape(path)}, which the plan fills in"):
        load("demo", [override])


def test_chats_longer_than_the_model_are_refused() -> None:
    with pytest.raises(UserError, match=r"align.sft.max_length 4096 is longer than train.model.max_positions"):
        load("demo", ["align.sft.max_length=4096"])
