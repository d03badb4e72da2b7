"""Training with an extended vocabulary: allam's Trainer against transformers' Trainer, tokens a second and peak memory (paper §2.2).

    python -m bench.trainer [--quick] [--rounds 5]

A small Llama with 64,000 pieces in fp32 on the CPU, two threads, 16,384 tokens a step in micro-batches of 4,096; fused AdamW, clipping at 1, a constant
learning rate, a line of metrics a step, no checkpoints. Each side runs in a process of its own, so that its peak of resident memory is its own; both read
the same sequences in the same order, and the losses of all steps must agree to a relative 1e-4. Time is that of the steps after the first.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel, TrainerCallback, TrainingArguments
from transformers import Trainer as TransformersTrainer

from allam.cluster import ClusterProfile
from allam.engine.loss import summed_loss
from allam.engine.model import new_model
from allam.engine.schedule import OptimizerSettings
from allam.engine.trainer import Trainer
from bench._harness import Row, arguments, finish

LENGTH, THREADS, RATE = 256, 2, 1e-3
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Size:
    """Sequences of a micro-batch and of a step, and steps."""

    micro_batch: int
    batch: int
    steps: int
    pieces: int

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * LENGTH

    def config(self) -> LlamaConfig:
        """The model's shape."""
        return LlamaConfig(vocab_size=self.pieces, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
                           num_key_value_heads=4, tie_word_embeddings=False, max_position_embeddings=LENGTH)


SIZES = {True: Size(2, 4, 2, 2_000), False: Size(16, 64, 4, 64_000)}  # by `quick`


def sequence(number: int, pieces: int) -> Tensor:
    """[LENGTH + 1]: a noisy counting, so that there is something to learn."""
    generator = torch.Generator().manual_seed(number)
    start, noise = torch.randint(0, pieces, (1,), generator=generator), torch.randint(0, 2, (LENGTH + 1,), generator=generator)
    return (start + torch.arange(LENGTH + 1) + noise) % pieces


def ours(size: Size, work: Path) -> tuple[list[float], float]:
    """Losses of all steps, and the seconds of those after the first."""
    trainer = Trainer(new_model(size.config(), seed=0), OptimizerSettings(learning_rate=RATE, schedule="constant", weight_decay=0.0), precision="fp32",
                      global_batch=size.batch, total_steps=size.steps, work=work,
                      profile=ClusterProfile(threads=THREADS, device="cpu", micro_batch=size.micro_batch, checkpoint_seconds=1e9))

    def loss(model: PreTrainedModel, items: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        tokens_BT = torch.stack(items)
        return summed_loss(model, tokens_BT[:, :-1], tokens_BT[:, 1:])[0], {}

    losses, started = [], 0.0
    for step in trainer.steps():
        batch = [sequence(step * size.batch + i, size.pieces) for i in range(size.batch)]
        losses.append(trainer.step(batch, loss, denominator=size.tokens).loss)
        trainer.log((step + 1) * size.tokens, LENGTH)
        started = started or time.perf_counter()
    return losses, time.perf_counter() - started


class Sequences(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The sequences as transformers' Trainer takes them: `labels` for the count of targets, `shift_labels` for the loss."""

    def __init__(self, pieces: int, count: int) -> None:
        self._pieces, self._count = pieces, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        tokens = sequence(number, self._pieces)
        return {"input_ids": tokens[:-1], "labels": tokens[:-1], "shift_labels": tokens[1:]}


class Clock(TrainerCallback):
    """Keeps the loss that is logged at each step, and the time since the first one ended."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.started = self.ended = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **more: Any) -> None:
        """A line of metrics."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """An optimizer step is done."""
        self.ended = time.perf_counter()
        self.started = self.started or self.ended


def theirs(size: Size, work: Path) -> tuple[list[float], float]:
    """The same by transformers."""
    torch.set_num_threads(THREADS)
    clock = Clock()
    given = TrainingArguments(
        output_dir=str(work), per_device_train_batch_size=size.micro_batch, gradient_accumulation_steps=size.batch // size.micro_batch,
        max_steps=size.steps,
        learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0, adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8, max_grad_norm=1.0,
        optim="adamw_torch_fused", logging_steps=1, logging_nan_inf_filter=False, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential")
    model: Any = new_model(size.config(), seed=0)
    TransformersTrainer(model=model, args=given, train_dataset=Sequences(size.pieces, size.steps * size.batch), callbacks=[clock]).train()
    return clock.losses, clock.ended - clock.started


def side(name: str, quick: bool) -> dict[str, Any]:
    """Runs one side in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bench.trainer", "--side", name, str(int(quick))], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_side(name: str, size: Size) -> None:
    """What such a process does: trains, and prints losses, tokens a second and its peak of memory."""
    with tempfile.TemporaryDirectory() as work:
        losses, seconds = {"ours": ours, "peer": theirs}[name](size, Path(work))
    print(json.dumps({"losses": losses, "tokens_per_second": (size.steps - 1) * size.tokens / seconds,
                      "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--side"]:
        run_side(sys.argv[2], SIZES[sys.argv[3] == "1"])
        return
    given = arguments(__doc__ or "")
    size, results = SIZES[given.quick], dict[str, list[dict[str, Any]]](ours=[], peer=[])
    for i in range(given.rounds):
        for name in ("ours", "peer")[:: 1 if i % 2 == 0 else -1]:
            results[name].append(side(name, given.quick))
    for mine, other in zip(results["ours"][0]["losses"], results["peer"][0]["losses"], strict=True):
        if abs(mine - other) > TOLERANCE * other:
            raise SystemExit(f"our loss is {mine}, transformers' {other}")
    what = f"{size.pieces:,} pieces, fp32, {size.tokens:,} tokens a step"

    def row(metric: str, unit: str, key: str, better: str, target: float) -> Row:
        mine, other = ([found[key] for found in results[name]] for name in ("ours", "peer"))
        return Row(f"{metric}, {what}", unit, mine, other, peer_name="transformers' Trainer", better=better, target=target)

    finish("trainer", [row("training", "tokens/s", "tokens_per_second", "higher", 1.1), row("peak memory", "GB", "gigabytes", "lower", 0.6)],
           ["torch", "deepspeed", "transformers", "accelerate"], given.quick)


if __name__ == "__main__":
    main()
