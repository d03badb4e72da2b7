"""Small benchmarks asked while a model is pretrained: the same scores as at the end, nothing lost or repeated by a kill, English watched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from allam.artifacts import file_sha256
from allam.cluster import ClusterProfile
from allam.engine.model import load_model
from allam.errors import StageFailed, UserError
from allam.eval.benchmarks import run_benchmarks, summary
from allam.eval.config import BenchmarksConfig
from allam.eval.model import EvaluatedModel
from allam.items import BenchmarkConfig
from allam.pipeline import make_plan
from allam.prompts import read_items
from allam.recipe import load
from allam.section import FileRef, HeldOut
from allam.text.tokenizer import Tokenizer
from allam.train import measurements, mix, pack, pretrain
from allam.train.config import MixStageConfig, ModelConfig, PackConfig, PhaseConfig, PretrainStageConfig

BOTH = {"components": {"en": 0.5, "ar": 0.5}, "domains": {"en": {"web": 1.0}, "ar": {"web": 1.0}}, "max_epochs": 20}
ITEMS = {"capitals": ("en", [("What is the capital of France?", ["Paris", "Iron", "A camel", "Water"]), ("What has seven days?", ["A week", "A year"]),
                             ("What is Fe the symbol of?", ["Camel", "Iron", "Water and iron"]), ("What boils at one hundred degrees?", ["Water", "Paris"])]),
         "عربي": ("ar", [("ما عاصمة فرنسا؟", ["باريس", "القاهرة"]), ("أين يعيش الجمل؟", ["في الصحراء", "في الماء", "في باريس"])])}


class Phase:
    """A phase of pretraining on the tests' corpus, with two benchmarks."""

    def __init__(self, root: Path, corpus: dict[str, Path], tokenizer: Path) -> None:
        self.root, self.benchmarks = root, dict[str, BenchmarkConfig]()
        for number, (language, items) in enumerate(ITEMS.values()):
            file = root / f"{number}.jsonl"
            rows = [{"id": str(i), "question": asked, "choices": choices, "answer": 0} for i, (asked, choices) in enumerate(items)]
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            self.benchmarks[f"b{number}"] = BenchmarkConfig.model_validate({
                "path": file.name, "type": "multiple_choice", "language": language, "shots": number,
                "files": [FileRef(path=file.name, sha256=file_sha256(file), size=file.stat().st_size)]})
        packs, order = root / "packs", root / "order"
        for folder in (packs, order):
            (folder / "work").mkdir(parents=True)
        pack.run(PackConfig(held_out=HeldOut(share=0.1), held_out_bytes=1000), corpus | {"tokenizer": tokenizer}, packs)
        plan = MixStageConfig.model_validate(BOTH | {"tokens": 3000, "sequence_length": 16, "global_batch": 8})
        mix.run(plan, {"pack": packs}, order)
        self.inputs = {"tokenizer": tokenizer, "pack": packs, "mix": order, "held_out": packs, "root": root}

    def train(self, name: str, **changes: Any) -> Path:
        phase = PhaseConfig.model_validate({"tokens": 3000, "global_batch": 8, "sequence_length": 16, "precision": "fp32", "mix": BOTH, "eval_every": 10,
                                            "optimizer": {"learning_rate": 1e-2}, "benchmarks": list(self.benchmarks)} | changes)
        shape = ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48, max_positions=64)
        (self.root / name / "work").mkdir(parents=True, exist_ok=True)
        pretrain.run(PretrainStageConfig(model=shape, phase=phase, benchmarks=self.benchmarks), self.inputs, self.root / name)
        return self.root / name


@pytest.fixture(scope="module")
def phase(tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Path], merged_tokenizer: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLAM_CLUSTER", ClusterProfile(threads=1).model_dump_json())
        made = Phase(tmp_path_factory.mktemp("phase"), corpus, merged_tokenizer)
        made.train("whole")
        yield made


def _evals(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]


def test_benchmarks_are_asked_before_at_intervals_and_after(phase: Phase) -> None:
    rows = _evals(phase.root / "whole")
    assert [row["step"] for row in rows] == [0, 10, 20, 24]
    assert all(set(row["benchmarks"]) == {"b0", "b1"} and set(row["benchmarks"]["b0"]) == {"accuracy", "accuracy_norm"} for row in rows)


def test_the_last_accuracies_are_those_that_lm_eval_gives_the_finished_model(phase: Phase) -> None:
    config = BenchmarksConfig(benchmarks=phase.benchmarks)
    items = {name: read_items(phase.root / asked.path, asked) for name, asked in phase.benchmarks.items()}
    found = run_benchmarks(EvaluatedModel(load_model(phase.root / "whole" / "model"), Tokenizer.load(phase.inputs["tokenizer"])), config, items)
    last = _evals(phase.root / "whole")[-1]["benchmarks"]
    for name, rows in found.items():
        result = summary(rows)
        assert last[name] == {kind: pytest.approx(result[kind], abs=1e-6) for kind in ("accuracy", "accuracy_norm")}


def test_a_run_killed_between_measurements_writes_each_once_and_learns_the_same_bits(phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = ClusterProfile(threads=1, checkpoint_steps=7)
    step = pretrain.Trainer.step
    with monkeypatch.context() as patch:
        patch.setenv("ALLAM_CLUSTER", profile.model_dump_json())
        patch.setattr(pretrain.Trainer, "step", lambda self, *given, **more: 1 / 0 if self._step == 12 else step(self, *given, **more))
        with pytest.raises(ZeroDivisionError):
            phase.train("killed")
    assert [folder.name for folder in (phase.root / "killed" / "work" / "checkpoints").iterdir()] == ["step-00000007"]
    assert (phase.root / "killed" / "work" / "evals.jsonl").read_text().count("\n") in (1, 2)  # that of step 10, behind the checkpoint, may be there
    resumed, whole = phase.train("killed"), phase.root / "whole"
    for name in ("evals.jsonl", "metrics.jsonl", "model/model.safetensors"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_fall_of_english_accuracy_beyond_what_the_profile_allows_stops_training() -> None:
    rows = [{"bits_per_byte": {}, "benchmarks": {"mmlu": {"accuracy": a}, "facts": {"accuracy": b}, "facts_ar": {"accuracy": 0.0}}}
            for a, b in ((0.75, 0.65), (0.6, 0.7), (0.4, 0.36))]
    watching = ClusterProfile(max_english_fall=0.3, on_english_rise="stop")
    measurements._watch_english(watching, rows[:2], 10, ["mmlu", "facts"])
    measurements._watch_english(watching.model_copy(update={"max_english_fall": 0.33}), rows, 20, ["mmlu", "facts"])
    with pytest.raises(StageFailed, match=r"step 20: accuracy on mmlu, facts fell from 70.0% to 38.0%, more than the profile's max_english_fall of 30.0%"):
        measurements._watch_english(watching, rows, 20, ["mmlu", "facts"])


def test_few_items_are_drawn_alike_each_time(phase: Phase) -> None:
    first, again = (phase.train(name, tokens=3000, benchmark_items=1, eval_every=0) for name in ("few", "few again"))
    rows = _evals(first)
    assert rows == _evals(again)
    assert {value for row in rows for value in row["benchmarks"]["b0"].values()} <= {0.0, 1.0}


def test_the_plan_gives_a_phase_the_files_of_the_benchmarks_that_it_names_and_no_others() -> None:
    plan = make_plan(load("demo", ["train.pretrain.benchmarks=[]", "train.continue.benchmarks=[facts_ar]"]))
    assert plan.specs["pretrain"].config_data["benchmarks"] == {}
    assert list(plan.specs["continue"].config_data["benchmarks"]) == ["facts_ar"]
    assert plan.specs["continue"].config_data["benchmarks"]["facts_ar"]["files"][0]["sha256"] != "missing"
    other = make_plan(load("demo", ["train.pretrain.benchmarks=[]", "train.continue.benchmarks=[facts_ar]", "eval.benchmarks.benchmarks.facts_en.limit=3"]))
    assert other.specs["continue"].key == plan.specs["continue"].key


def test_a_recipe_without_benchmarks_asks_none_and_the_plan_says_so() -> None:
    plan = make_plan(load("demo", ["train.continue.benchmarks=[facts_ar]", "eval.benchmarks.benchmarks={}"]))
    assert plan.specs["continue"].config_data["benchmarks"] == {}
    assert any(told.startswith("train.continue.benchmarks names facts_ar, and eval.benchmarks.benchmarks is empty") for told in plan.warnings)


@pytest.mark.parametrize(("name", "told"), [("facts", "train.continue.benchmarks: there is no 'facts' in eval.benchmarks.benchmarks"),
                                            ("generate_en", "train.continue.benchmarks: 'generate_en' is of type generation")])
def test_a_benchmark_that_training_cannot_ask_is_refused_by_the_plan(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        make_plan(load("demo", [f"train.continue.benchmarks=[{name}]"]))
