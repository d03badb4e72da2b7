"""The one training loop: pretraining, SFT and DPO give it data and a loss, and it does the rest on any number of ranks.

    trainer = Trainer(model, OptimizerSettings(learning_rate=3e-5), precision="fp32", global_batch=32, total_steps=100, work=out / "work")
    for step in trainer.steps():                                # goes on after the last good checkpoint
        batch = [rows[i] for i in order_of(step)]               # the WHOLE global batch, the same on every rank, a pure function of the step
        result = trainer.step(batch, loss, denominator=len(batch))
        trainer.log(tokens=..., sequence_length=..., extra=result.sums["extra"])     # one line of metrics.jsonl
    save_model(out / "model", config, trainer.weights(), inputs["tokenizer"], writes=trainer.ranks.first)      # allam.engine.model
    trainer.finish(out)                                         # copies metrics.jsonl, evals.jsonl and telemetry.jsonl to `out`

    def loss(model, items):                                     # items: one micro-batch, a part of `batch`
        ...
        return sum_of_losses, {"extra": detached_sum}           # sums, not means: the trainer divides by `denominator`

The gradient is that of (sum of losses over the global batch) / denominator, whatever the ranks and the micro-batch: for SFT give the number of
assistant tokens in the whole batch, for DPO the number of pairs. A batch may be shorter than `global_batch` (the last one of an epoch), never empty.
Checkpoints are written every `checkpoint_seconds` of the cluster profile and at SIGTERM, after which the process leaves with `SystemExit`.
"""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from allam.cluster import ClusterProfile, execution
from allam.engine import checkpoint
from allam.engine.device import Ranks, join, peak_memory_bytes
from allam.engine.dropout import add_dropout, seed_masks
from allam.engine.logs import JsonLines
from allam.engine.model import flops_per_token
from allam.engine.schedule import OptimizerSettings, learning_rate
from allam.engine.stability import StabilityMonitor
from allam.engine.trackers import flat, open_trackers
from allam.engine.zero import ZeroModel
from allam.errors import StageFailed, UserError
from allam.progress import Progress

T = TypeVar("T")
CHECKPOINTS, METRICS, EVALS, TELEMETRY = "checkpoints", "metrics.jsonl", "evals.jsonl", "telemetry.jsonl"
SECONDS_BETWEEN_TELEMETRY = 5.0


@dataclass(frozen=True)
class StepResult:
    """One optimizer step. `loss` is the batch's (sum / denominator) before the step, `grad_norm` the norm before clipping, `sums` over all ranks."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    sums: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Optimizer, ranks, checkpoints and logs around a model. See the module's docstring for how a stage uses it.

    `model` is a transformers model in fp32 on the CPU, with the weights to start from; `global_batch` counts sequences (or conversations, or pairs)
    of one step over all ranks; `work` is the artifact's scratch folder;
    `seed` is that of `dropout`'s masks. Raises `UserError` where the batch doesn't divide by the ranks.
    """

    def __init__(self, model: PreTrainedModel, optimizer: OptimizerSettings, *, precision: Literal["fp32", "bf16"], global_batch: int,
                 total_steps: int, work: Path, what: str = "training", profile: ClusterProfile | None = None, dropout: float = 0.0,
                 seed: int = 0) -> None:
        self.profile = profile or execution()
        self.ranks: Ranks = join(self.profile)
        self.optimizer, self.total_steps, self.what = optimizer, total_steps, what
        if global_batch % self.ranks.world_size:
            raise UserError(f"global_batch {global_batch} doesn't divide by {self.ranks.world_size} ranks",
                            f"set ranks in the cluster profile to a divisor of {global_batch}, or change global_batch in the recipe")
        self.micro_steps = math.ceil(global_batch / self.ranks.world_size / self.profile.micro_batch)
        self._checkpoints = work / CHECKPOINTS
        self._logs = {name: JsonLines(work / name, self.ranks.first) for name in (METRICS, EVALS, TELEMETRY)}
        self.parameters = sum(p.numel() for p in model.parameters())
        self._config = model.config
        self._dropout, self._seed = dropout, seed
        if dropout:
            add_dropout(model, dropout)
        model.to(self.ranks.device).train()  # type: ignore[arg-type]
        self._zero = ZeroModel(model, optimizer, precision=precision, zero_stage=self.profile.zero_stage, micro_steps=self.micro_steps,
                               ranks=self.ranks)
        self.start_step = self._resume()
        self._step = self.start_step
        self._result: StepResult | None = None
        self._terminated = self._stop = self._save = False
        self._track = open_trackers(self.profile, work.parent, self.start_step) if self.ranks.first else None
        self._monitor = StabilityMonitor(self._logs[METRICS].rows())
        self._saved_at = time.monotonic()
        self._speed: _Speed | None = None
        self._waited = 0.0

    # --- the loop --------------------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """The numbers of the steps that remain, from 0; between them it writes checkpoints and heeds SIGTERM."""
        with self._heeding_sigterm(), Progress("steps", self.total_steps, done=self.start_step, what=self.what) as progress:
            for step in range(self.start_step, self.total_steps):
                self._step, self._result = step, None
                yield step
                assert self._result is not None, "a stage must call step() once in each round of steps()"
                self._between_steps(step + 1)
                progress.update(loss=round(self._result.loss, 4))

    def step(self, batch: Sequence[T], loss: Callable[[PreTrainedModel, list[T]], tuple[Tensor, dict[str, Tensor]]],
             denominator: float) -> StepResult:
        """Takes one optimizer step on the whole global `batch`, of which each rank computes its share in micro-batches.

        Raises `StageFailed` where loss or gradient is not finite; what stands on disk is the last checkpoint.
        """
        if not batch or denominator <= 0:
            raise ValueError(f"a step needs items and a positive denominator, not {len(batch)} and {denominator}")
        rate = learning_rate(self.optimizer, self._step, self.total_steps)
        scale = self.ranks.world_size / denominator  # DeepSpeed averages gradients over the ranks
        total, norm = torch.zeros((), device=self.ranks.device), 0.0
        sums: dict[str, Any] = {}
        for i, (items, weight) in enumerate(self._micro_batches(batch)):
            if self._dropout:
                seed_masks(self._seed, self._step, i, self.ranks.rank)
            part, extras = self._zero.call(loss, items)
            self._zero.backward(part * (scale * weight))
            total += part.detach().float() * weight
            for name, value in extras.items():
                sums[name] = sums.get(name, 0.0) + value.detach().double() * weight
            norm = self._zero.update(rate)
        total_loss, gathered = self._gather(total, sums)
        if not (math.isfinite(total_loss) and math.isfinite(norm)):
            raise StageFailed(f"step {self._step + 1}: the loss is {total_loss} and the gradient's norm {norm}",
                              "lower optimizer.learning_rate, or look for broken text in the batch's documents")
        self._result = StepResult(self._step, total_loss / denominator, norm, rate, gathered)
        return self._result

    def _micro_batches(self, batch: Sequence[T]) -> list[tuple[list[T], float]]:
        """This rank's items in `micro_steps` parts with weight 1. A part without items (a short last batch) borrows one with weight 0,
        since every rank must take the same number of backward passes."""
        mine = _part(batch, self.ranks.rank, self.ranks.world_size)
        parts = [_part(mine, i, self.micro_steps) for i in range(self.micro_steps)]
        return [(list(p), 1.0) if p else ([batch[0]], 0.0) for p in parts]

    def _gather(self, total: Tensor, sums: dict[str, Any]) -> tuple[float, dict[str, float]]:
        """Loss and sums over all ranks, and with them whether to save (rank 0's clock) or to stop (any rank's signal)."""
        names = sorted(sums)
        due = self.ranks.first and time.monotonic() - self._saved_at >= self.profile.checkpoint_seconds
        flags = [float(due), float(self._terminated)]
        values = torch.stack([total.double(), *(sums[n] for n in names)]).tolist()
        values = self.ranks.sum([*values, *flags])
        self._save, self._stop = values[-2] > 0, values[-1] > 0
        return values[0], dict(zip(names, values[1:-2], strict=True))

    def _between_steps(self, done: int) -> None:
        if self._stop or (self._save and done < self.total_steps):
            self.save(done)
        if self._stop:
            self.ranks.barrier()  # launchers kill all ranks when the first one leaves; none may before the writing one is done
            raise SystemExit(f"stopped by SIGTERM after step {done}; the checkpoint is written")

    @contextmanager
    def _heeding_sigterm(self) -> Iterator[None]:
        """SIGTERM (Slurm's warning before the time limit, a cancelled run) asks for a checkpoint after the current step."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            self._terminated = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    # --- the model -------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)` in evaluation mode, for measurements during training; every rank must call it alike."""
        self._zero.engine.eval()
        try:
            return self._zero.call(function, *args)
        finally:
            self._zero.engine.train()

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The fp32 weights by name, on the CPU. Collective: every rank walks it to the end."""
        for key, value in self._zero.state():
            kind, _, name = key.partition("/")
            if kind == "weight":
                yield name, value

    # --- checkpoints and logs --------------------------------------------------------------------------------------------------

    def save(self, done: int) -> None:
        """Writes a checkpoint after `done` steps (the loop does so by itself)."""
        sizes = {name: log.sync() for name, log in self._logs.items()}
        checkpoint.save(self._checkpoints, done, self._zero.state(), {"logs": sizes}, writes=self.ranks.first)
        self._saved_at = time.monotonic()

    def _resume(self) -> int:
        """Loads the newest sound checkpoint, cuts the logs back to it, and returns the number of steps done."""
        found: Any = self.ranks.broadcast(checkpoint.newest(self._checkpoints) if self.ranks.first else None)
        sizes = found["logs"] if found else {}
        for name, log in self._logs.items():
            log.cut(sizes.get(name, 0))
        if not found:
            return 0
        try:
            self._zero.load(found["step"], checkpoint.Reader(Path(found["folder"])))
        except KeyError as error:
            raise StageFailed(f"the checkpoint {found['folder']} has no tensor {error}", "remove the folder to start this stage anew") from None
        if self.ranks.first:
            print(f"resumed from {Path(found['folder']).name}", flush=True)
        return int(found["step"])

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """What runs within counts as the time that this rank waits for data."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - start

    def log(self, tokens: int, sequence_length: float, **more: Any) -> None:
        """Writes the last step's line of metrics.jsonl, marked where loss or gradient norm spiked; every few seconds one of telemetry.jsonl.

        `tokens` counts from the start of training; `sequence_length` is the (mean) length that attention ran over, for the count of FLOPs.
        """
        result = self._result
        assert result is not None, "log() comes after step()"
        row = {"step": result.step + 1, "tokens": tokens, "loss": _short(result.loss), "grad_norm": _short(result.grad_norm),
               "learning_rate": _short(result.learning_rate), **{k: _short(v) if isinstance(v, float) else v for k, v in more.items()}}
        if spikes := self._monitor.add(row):
            row["spikes"] = spikes
        self._add(METRICS, row)
        now = time.monotonic()
        if self._speed is None:  # the first step of a process warms up
            self._speed = _Speed(now, tokens, self._waited)
        elif now - self._speed.time >= SECONDS_BETWEEN_TELEMETRY or result.step + 1 == self.total_steps:
            self._add(TELEMETRY, {"step": result.step + 1, "tokens": tokens, **self._telemetry(self._speed, now, tokens, sequence_length)})
            self._speed = _Speed(now, tokens, self._waited)

    def _telemetry(self, since: _Speed, now: float, tokens: int, sequence_length: float) -> dict[str, float]:
        """Speed since the last line: tokens a second over all ranks, TFLOP/s a device, utilisation of the profile's peak, peak memory of this rank,
        and the share of the time that this rank waited for data."""
        seconds = max(now - since.time, 1e-9)
        rate = (tokens - since.tokens) / seconds
        tflops = rate * flops_per_token(self._config, self.parameters, sequence_length) / self.ranks.world_size / 1e12
        return {"tokens_per_second": round(rate, 1), "tflops_per_device": _short(tflops), "utilisation": _short(tflops / self.profile.peak_tflops),
                "peak_memory_bytes": peak_memory_bytes(self.ranks.device), "data_wait_share": round((self._waited - since.waited) / seconds, 4)}

    def log_eval(self, step: int, tokens: int, **values: Any) -> None:
        """Writes a line of evals.jsonl: a measurement after `step` steps (0: before the first)."""
        self._add(EVALS, {"step": step, "tokens": tokens, **values})

    def _add(self, name: str, row: dict[str, Any]) -> None:
        self._logs[name].add(row)
        if self._track is not None:
            self._track(int(row["step"]), {key: value for key, value in flat(row) if key != "step"})

    def evals(self) -> list[dict[str, Any]]:
        """The measurements so far, the same on every rank."""
        rows: Any = self.ranks.broadcast(self._logs[EVALS].rows())
        return rows  # type: ignore[no-any-return]

    def finish(self, out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Copies the logs to the artifact; returns the rows of metrics.jsonl and of evals.jsonl (none on all ranks but the first)."""
        for name, log in self._logs.items():
            log.sync()
            if self.ranks.first:
                shutil.copyfile(log.path, out / name)
        return self._logs[METRICS].rows(), self._logs[EVALS].rows()


@dataclass(frozen=True)
class _Speed:
    """Where the clock, the tokens and the waiting stood at the last line of telemetry."""

    time: float
    tokens: int
    waited: float


def _part(items: Sequence[T], i: int, n: int) -> Sequence[T]:
    """Part `i` of `n` contiguous parts whose sizes differ by one at most."""
    return items[len(items) * i // n : len(items) * (i + 1) // n]


def _short(value: float) -> float:
    """Six significant digits: enough for a chart, and a third of the size."""
    return float(f"{value:.6g}")
