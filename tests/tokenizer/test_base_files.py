"""Which files a plan reads for the base's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from allam.costs import vocabularies
from allam.pipeline import make_plan
from allam.recipe import load


def planned(root: Path, given: str) -> tuple[list[str], tuple[str, ...]]:
    spec = make_plan(load("demo", [f"data.root={root}", f"tokenizer.base.model={given}"])).specs["base_tokenizer"]
    return [Path(ref.path).name for ref in spec.config.files], spec.problems  # type: ignore[attr-defined]


@pytest.mark.parametrize(("held", "given", "read"), [
    (("tokenizer.json", "tokenizer_config.json"), "llama", ["tokenizer.json", "tokenizer_config.json"]),
    (("tokenizer.json", "tokenizer_config.json"), "llama/", ["tokenizer.json", "tokenizer_config.json"]),
    (("tokenizer.json", "tokenizer_config.json", "model.safetensors"), "llama/tokenizer.json", ["tokenizer.json", "tokenizer_config.json"]),
    (("tokenizer.json", "tokenizer_config.json", "tokenizer.model"), "llama", ["tokenizer.model"]),
    (("tokenizer.model",), "llama/tokenizer.model", ["tokenizer.model"]),
])
def test_a_folder_s_model_is_taken_and_else_its_json_with_the_configuration(tmp_path: Path, held: tuple[str, ...], given: str, read: list[str]) -> None:
    (tmp_path / "llama").mkdir()
    for name in held:
        (tmp_path / "llama" / name).write_text("{}")
    assert planned(tmp_path, given) == (read, ())


def test_a_configuration_that_is_missing_is_a_problem_of_the_plan(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    _, problems = planned(tmp_path, "tokenizer.json")
    assert len(problems) == 1
    assert "tokenizer_config.json" in problems[0]


def test_a_json_of_another_name_is_a_problem_of_the_plan_that_says_which_name_it_must_have(tmp_path: Path) -> None:
    (tmp_path / "openllama.json").write_text("{}")
    _, problems = planned(tmp_path, "openllama.json")
    assert problems == ("tokenizer.base.model: 'openllama.json': this file must have the name tokenizer.json, with tokenizer_config.json beside it: rename "
                        "it, or give the folder that holds both",)


def test_an_imported_byte_level_base_counts_as_llama_3s_in_what_training_will_cost(tmp_path: Path) -> None:
    plan = make_plan(load("demo", [f"data.root={tmp_path}", "tokenizer.base.model=tokenizer.json", "tokenizer.arabic.vocab_size=1000"]))
    assert vocabularies(plan) == {"base_tokenizer": 128_256, "merged_tokenizer": 129_256}
