"""What is measured while a model is pretrained, before, at intervals and after, on the same ranks (the paper's Figure 8): bits per byte of held-out text, and
accuracy on small benchmarks. And the watch over English.

Each measurement is a line of evals.jsonl and a function of the step, so that a resumed run neither repeats nor loses one.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from allam.cluster import ClusterProfile
from allam.engine.bits_per_byte import bits_per_byte
from allam.engine.choices import Question, accuracies, question
from allam.engine.trainer import Trainer
from allam.errors import StageFailed
from allam.files import check_file
from allam.progress import note
from allam.prompts import plain_prompt, read_items
from allam.text.tokenizer import Tokenizer
from allam.train.config import PretrainStageConfig
from allam.train.pack import COMPONENTS, HELD_OUT


class Measurements:
    """Called with the number of steps done, on every rank."""

    def __init__(self, config: PretrainStageConfig, inputs: dict[str, Path], tokenizer: Tokenizer, model: PreTrainedModel, trainer: Trainer,
                 sequence_length: int) -> None:
        self._texts, self._languages = read_held_out(inputs["held_out"]), {name: asked.language for name, asked in config.benchmarks.items()}
        self._benchmarks = read_benchmarks(config, inputs, tokenizer, model.config.max_position_embeddings)
        self._model, self._tokenizer, self._trainer, self._length = model, tokenizer, trainer, sequence_length
        self._tokens_a_step = config.phase.global_batch * sequence_length

    def __call__(self, step: int) -> None:
        """Measures, writes it down, and says so or raises `StageFailed` where a value is no number or English got worse than the profile allows."""
        trainer = self._trainer
        bits = {c: round(bits_per_byte(self._model, self._tokenizer, found, self._length, trainer.ranks, trainer.call), 6) for c, found in self._texts.items()}
        _check_finite("held-out bits per byte", bits, step)
        more = {}
        if self._benchmarks:
            found = accuracies(self._model, self._benchmarks, trainer.ranks, trainer.call)
            shown = {name: both["accuracy"] for name, both in found.items()}
            _check_finite("accuracy", shown, step)
            trainer.shown = {name: round(value, 3) for name, value in shown.items()}
            more = {"benchmarks": {name: {kind: round(value, 6) for kind, value in both.items()} for name, both in found.items()}}
        trainer.journal.add_eval(step, step * self._tokens_a_step, bits_per_byte=bits, **more)
        _watch_english(trainer.profile, trainer.journal.evals(), step, [name for name, language in self._languages.items() if language == "en"])


def read_held_out(pack: Path) -> dict[str, list[str]]:
    """The held-out texts by component, of the components that have any."""
    found = {}
    for component in COMPONENTS:
        path = pack / HELD_OUT / f"{component}.jsonl"
        texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").split("\n")[:-1]] if path.is_file() else []
        if texts:
            found[component] = texts
    return found


def read_benchmarks(config: PretrainStageConfig, inputs: dict[str, Path], tokenizer: Tokenizer, longest: int) -> dict[str, list[Question]]:
    """The questions of each benchmark: `benchmark_items` of those that the evaluation at the end asks, always the same."""
    found = {}
    for name, benchmark in config.benchmarks.items():
        asked, examples = read_items(check_file(inputs["root"], benchmark.files[0]), benchmark)
        chosen = sorted(random.Random(name).sample(range(len(asked)), min(len(asked), config.phase.benchmark_items)))
        found[name] = [question(tokenizer, plain_prompt(item, examples, benchmark), item.choices, int(item.answer), longest)
                       for item in (asked[number] for number in chosen)]
    return found


def _check_finite(what: str, values: dict[str, float], step: int) -> None:
    """Stops the stage where a measurement is no number, which metrics and reports can't hold."""
    broken = {name: value for name, value in values.items() if not math.isfinite(value)}
    if broken:
        told = ", ".join(f"{name}: {value}" for name, value in broken.items())
        raise StageFailed(f"step {step}: {what} is no number ({told}): "
                          + ("the model has diverged" if step else "the weights that training starts from are broken"),
                          "lower optimizer.learning_rate, or give it a warm-up" if step else "import or make that model again")


def _watch_english(profile: ClusterProfile, evals: list[dict[str, Any]], step: int, benchmarks: list[str]) -> None:
    """Says so, or stops the stage, where held-out English or the mean accuracy on English benchmarks got worse than the profile allows."""
    english = [row["bits_per_byte"]["en"] for row in evals if "en" in row["bits_per_byte"]]
    accuracy = [sum(row["benchmarks"][name]["accuracy"] for name in benchmarks) / len(benchmarks) for row in evals if benchmarks]
    told = []
    if profile.max_english_rise is not None and english and english[-1] / english[0] - 1 > profile.max_english_rise:
        told.append(f"held-out English rose from {english[0]:.4f} to {english[-1]:.4f} bits per byte (+{english[-1] / english[0] - 1:.1%}), "
                    f"more than the profile's max_english_rise of {profile.max_english_rise:.1%}")
    if profile.max_english_fall is not None and accuracy and accuracy[0] - accuracy[-1] > profile.max_english_fall:
        told.append(f"accuracy on {', '.join(benchmarks)} fell from {accuracy[0]:.1%} to {accuracy[-1]:.1%}, more than the profile's max_english_fall of "
                    f"{profile.max_english_fall:.1%}")
    if not told:
        return
    if profile.on_english_rise == "stop":
        raise StageFailed(f"step {step}: {'; '.join(told)}",
                          "give English a larger share or lower the learning rate; or raise what the profile allows and run again")
    note(f"step {step}: {'; '.join(told)}")
