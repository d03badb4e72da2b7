"""Training with an extended vocabulary: allam's Trainer against transformers' Trainer, tokens a second and peak memory (paper §2.2).

    python -m bench.trainer [--quick] [--rounds 5]

A small Llama with 64,000 pieces in fp32 on the CPU, one thread, 8,192 tokens a step in micro-batches of 4,096; fused AdamW, clipping at 1, a constant
learning rate, a line of metrics a step, no checkpoints. Each side trains in a process of its own, so that its peak of resident memory is its own; after a
first step of each they take their steps in turn, one waiting while the other computes. Both read the same sequences in the same order, and the losses of
all steps must agree to a relative 1e-4. Speed is by the processes' processor time, which is the clock's where one thread has a core for itself, and
by the clock.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
from bench._harness import Row, arguments, finish, in_turn

LENGTH, THREADS, RATE = 256, 1, 1e-3
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Size:
    """Sequences of a micro-batch and of a step, and the vocabulary."""

    micro_batch: int
    batch: int
    pieces: int

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * LENGTH

    def config(self) -> LlamaConfig:
        """The model's shape."""
        return LlamaConfig(vocab_size=self.pieces, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
                           num_key_value_heads=4, tie_word_embeddings=False, max_position_embeddings=LENGTH)


SIZES = {True: Size(2, 4, 2_000), False: Size(16, 32, 64_000)}  # by `quick`


def sequence(number: int, pieces: int) -> Tensor:
    """[LENGTH + 1]: a noisy counting, so that there is something to learn."""
    generator = torch.Generator().manual_seed(number)
    start, noise = torch.randint(0, pieces, (1,), generator=generator), torch.randint(0, 2, (LENGTH + 1,), generator=generator)
    return (start + torch.arange(LENGTH + 1) + noise) % pieces


class Turn:
    """One side's way of waiting until it is asked for a step: a line on standard input; then of telling what the step before took, as a line of JSON."""

    def __init__(self) -> None:
        self._begun: tuple[float, float] | None = None

    def wait(self) -> None:
        """Ends the step before, if there was one, and waits for the next to be asked for."""
        if self._begun is not None:
            clock, processor = self._begun
            print(json.dumps({"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processor}), flush=True)
        sys.stdin.readline()
        self._begun = time.perf_counter(), time.process_time()


def ours(size: Size, steps: int, work: Path, wait: Callable[[], None]) -> list[float]:
    """Losses of all steps, each of which begins with `wait`."""
    trainer = Trainer(new_model(size.config(), seed=0), OptimizerSettings(learning_rate=RATE, schedule="constant", weight_decay=0.0), precision="fp32",
                      global_batch=size.batch, total_steps=steps, work=work,
                      profile=ClusterProfile(threads=THREADS, device="cpu", micro_batch=size.micro_batch, checkpoint_seconds=1e9))

    def loss(model: PreTrainedModel, items: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        tokens_BT = torch.stack(items)
        return summed_loss(model, tokens_BT[:, :-1], tokens_BT[:, 1:])[0], {}

    losses = []
    wait()
    for step in trainer.steps():
        batch = [sequence(step * size.batch + i, size.pieces) for i in range(size.batch)]
        losses.append(trainer.step(batch, loss, denominator=size.tokens).loss)
        trainer.log((step + 1) * size.tokens, LENGTH)
        wait()
    return losses


class Sequences(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The sequences as transformers' Trainer takes them: `labels` for the count of targets, `shift_labels` for the loss."""

    def __init__(self, pieces: int, count: int) -> None:
        self._pieces, self._count = pieces, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        tokens = sequence(number, self._pieces)
        return {"input_ids": tokens[:-1], "labels": tokens[:-1], "shift_labels": tokens[1:]}


class Losses(TrainerCallback):
    """Keeps the loss that is logged at each step, and waits between steps."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.values: list[float] = []
        self._wait = wait

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Before the first step."""
        self._wait()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **more: Any) -> None:
        """A line of metrics, the last that a step does."""
        if logs and "loss" in logs:
            self.values.append(float(logs["loss"]))
            self._wait()


def theirs(size: Size, steps: int, work: Path, wait: Callable[[], None]) -> list[float]:
    """The same by transformers."""
    torch.set_num_threads(THREADS)
    losses = Losses(wait)
    given = TrainingArguments(
        output_dir=str(work), per_device_train_batch_size=size.micro_batch, gradient_accumulation_steps=size.batch // size.micro_batch,
        max_steps=steps,
        learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0, adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8, max_grad_norm=1.0,
        optim="adamw_torch_fused", logging_steps=1, logging_nan_inf_filter=False, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential")
    model: Any = new_model(size.config(), seed=0)
    TransformersTrainer(model=model, args=given, train_dataset=Sequences(size.pieces, steps * size.batch), callbacks=[losses]).train()
    return losses.values


class Side:
    """One side in a process of its own, and what it told."""

    def __init__(self, name: str, quick: bool, steps: int) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "bench.trainer", "--side", name, str(int(quick)), str(steps)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> dict[str, float]:
        """Lets it take a step; returns what that took."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.told()

    def end(self) -> dict[str, Any]:
        """Lets it leave after its last step; returns losses and peak of memory."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        found = self.told()
        self._process.wait()
        return found

    def told(self) -> dict[str, Any]:
        """The next line of JSON that it prints."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"'):  # transformers prints its metrics, too, as Python's dictionaries
                found: dict[str, Any] = json.loads(line)
                return found
        raise SystemExit("a side left without a word; see its error above")


def run_side(name: str, quick: bool, steps: int) -> None:
    """What such a process does: trains, and prints each step's time, then all losses and its peak of memory."""
    turn = Turn()
    with tempfile.TemporaryDirectory() as work:
        losses = {"ours": ours, "peer": theirs}[name](SIZES[quick], steps, Path(work), turn.wait)
    print(json.dumps({"losses": losses, "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}), flush=True)


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--side"]:
        run_side(sys.argv[2], sys.argv[3] == "1", int(sys.argv[4]))
        return
    given = arguments(__doc__ or "")
    size, sides = SIZES[given.quick], {name: Side(name, given.quick, 1 + given.rounds) for name in ("ours", "peer")}
    for side in sides.values():
        side.step()  # warms up
    mine, other = in_turn(given.rounds, sides["ours"].step, sides["peer"].step)
    ends = {name: side.end() for name, side in sides.items()}
    for a, b in zip(ends["ours"]["losses"], ends["peer"]["losses"], strict=True):
        if abs(a - b) > TOLERANCE * b:
            raise SystemExit(f"our loss is {a}, transformers' {b}")
    what = f"{size.pieces:,} pieces, fp32, {size.tokens:,} tokens a step"

    def speed(metric: str, key: str, target: float | None) -> Row:
        return Row(f"{metric}, {what}", "tokens/s", [size.tokens / took[key] for took in mine], [size.tokens / took[key] for took in other],
                   peer_name="transformers' Trainer", better="higher", target=target)

    memory = Row(f"peak memory, {what}", "GB", [ends["ours"]["gigabytes"]], [ends["peer"]["gigabytes"]], peer_name="transformers' Trainer", better="lower",
                 target=0.6)
    finish("trainer", [speed("training, processor time", "processor_seconds", 1.1), speed("training, by the clock", "seconds", None), memory],
           ["torch", "deepspeed", "transformers", "accelerate"], given.quick)


if __name__ == "__main__":
    main()
