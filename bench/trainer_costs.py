"""What a training pays beside its steps at the proxy's settings, and how soon one that was killed takes its next step (paper §2.2, 2.3).

    python -m bench.trainer_costs [--quick] [--rounds 3]

The recipe `proxy`'s continued pretraining under the profile `laptop` (a checkpoint every 60 s), on one thread: its shape with the 15,616 pieces that it has
after the extension, its batch, sequence length and optimizer, lines of metrics with the loss by language and progress as in the stage, on random tokens.
One process trains until it has written as many checkpoints as there are rounds; all time outside of `Trainer.step` counts, so checkpoints, logs, progress
and whatever else lies between steps. It is killed in the step after the last one, and started again once a round: its time runs from the start of the
process over the imports, the model's folder and the checkpoint, whose files are checked first, to the beginning of the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

from allam import recipe
from allam.cluster import ClusterProfile
from allam.engine.loss import summed_loss
from allam.engine.model import load_model, new_model
from allam.engine.schedule import OptimizerSettings
from allam.engine.trainer import Trainer
from bench._harness import Row, arguments, finish

PIECES = 15_616  # docs/proxy.md
SECONDS = {True: 2.0, False: ClusterProfile().checkpoint_seconds}  # between checkpoints, by `quick`
MOST_SECONDS_TO_RESUME = 10.0
LANGUAGES = ("en", "ar", "ar_translated")
STEPS = 100_000  # more than it gets to


def shape(quick: bool) -> LlamaConfig:
    """The proxy's; with `quick` of few pieces."""
    model = recipe.load("proxy").train.model
    return LlamaConfig(vocab_size=500 if quick else PIECES, hidden_size=model.hidden_size, intermediate_size=model.intermediate_size,
                       num_hidden_layers=model.layers, num_attention_heads=model.heads, num_key_value_heads=model.kv_heads,
                       max_position_embeddings=model.max_positions, tie_word_embeddings=False)


class Timed(Trainer):
    """Tells, at each checkpoint, what was spent within and beside the steps since the last one."""

    stepping = 0.0
    since = 0.0

    def step(self, *given: Any, **more: Any) -> Any:
        """A step, timed."""
        start = time.perf_counter()
        self.since = self.since or start
        found = super().step(*given, **more)
        self.stepping += time.perf_counter() - start
        return found

    def save(self, done: int) -> None:
        """A checkpoint."""
        start = time.perf_counter()
        super().save(done)
        now = time.perf_counter()
        tell(steps=self.stepping, beside=now - self.since - self.stepping, checkpoint=now - start)
        self.since, self.stepping = now, 0.0


def tell(**values: float) -> None:
    """A line of JSON for the process that measures."""
    print(json.dumps(values), flush=True)


def train(folder: Path, quick: bool) -> None:
    """Trains until it is killed."""
    phase = recipe.load("proxy").train.continued
    batch, length = phase.global_batch, phase.sequence_length
    (folder / "work").mkdir(exist_ok=True)
    model = load_model(folder / "model")
    trainer = Timed(model, OptimizerSettings(**phase.optimizer.model_dump()), precision=phase.precision, global_batch=batch, total_steps=STEPS,
                    work=folder / "work", profile=ClusterProfile(threads=1, device="cpu", checkpoint_seconds=SECONDS[quick]))

    def loss(model: PreTrainedModel, items: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        tokens_BT = torch.stack(items)
        total, losses_BT = summed_loss(model, tokens_BT[:, :-1], tokens_BT[:, 1:])
        return total, {name: losses_BT[i :: len(LANGUAGES)].sum() for i, name in enumerate(LANGUAGES)}

    for step in trainer.steps():
        if step == trainer.start_step:
            tell(first_step=time.time(), processor=time.process_time())
        tokens = torch.randint(0, model.config.vocab_size, (batch, length + 1), generator=torch.Generator().manual_seed(step))
        result = trainer.step(list(tokens), loss, denominator=batch * length)
        trainer.log((step + 1) * batch * length, length, loss_by_component={name: float(f"{value:.6g}") for name, value in result.sums.items()})


@contextmanager
def training(folder: Path, quick: bool) -> Iterator[Iterator[dict[str, float]]]:
    """What a training process tells; it is killed at the end."""
    process = subprocess.Popen([sys.executable, "-m", "bench.trainer_costs", "--train", str(folder), str(int(quick))], stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"ALLAM_PROGRESS": str(folder / "progress.json"), "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    try:
        yield (json.loads(line) for line in process.stdout if line.startswith('{"'))
    finally:
        process.kill()
        process.wait()


def measure(given: argparse.Namespace, folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The rounds' times within and beside steps, and after a kill the seconds from the start of a process to its first step, and of its processor time."""
    with training(folder, given.quick) as told:
        next(told)
        rounds = [next(told) for _ in range(given.rounds)]
    resumed = []
    for _ in range(given.rounds):
        started = time.time()
        with training(folder, given.quick) as told:
            found = next(told)
            resumed.append({"seconds": found["first_step"] - started, "processor_seconds": found["processor"]})
    return rounds, resumed


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--train"]:
        train(Path(sys.argv[2]), sys.argv[3] == "1")
        return
    given = arguments(__doc__ or "", rounds=3)
    with tempfile.TemporaryDirectory() as name:
        model = new_model(shape(given.quick), seed=0)
        model.save_pretrained(Path(name) / "model")
        rounds, resumed = measure(given, Path(name))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    steps = [found["steps"] for found in rounds]
    what = f"{millions:.1f}M parameters, every {SECONDS[given.quick]:g} s"

    def first_step(metric: str, key: str, target: float | None) -> Row:
        return Row(f"a killed training's first step after its process's start, loading included, {metric}", "s", [found[key] for found in resumed],
                   [MOST_SECONDS_TO_RESUME] * len(resumed), "the limit", "lower", target)

    finish("trainer_costs", [
        Row(f"checkpoints, logs and progress, {what}", "s", [found["beside"] for found in rounds], steps, "the steps", "lower", 0.02),
        Row(f"a checkpoint alone, {what}", "s", [found["checkpoint"] for found in rounds], steps, "the steps", "lower"),
        first_step("by the clock", "seconds", 1.0), first_step("processor time", "processor_seconds", None)],
        ["torch", "deepspeed", "transformers", "safetensors"], given.quick)


if __name__ == "__main__":
    main()
