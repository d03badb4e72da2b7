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
Checkpoints are written every `checkpoint_seconds` and `checkpoint_steps` of the cluster profile, after the best evaluation where it asks for that, and at
SIGTERM, after which the process leaves with `SystemExit`.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from allam.architectures import dropout_refusal
from allam.artifacts import CHECKPOINTS, JOB, consumed, write_json
from allam.cluster import COMPILED_DROPOUT, ClusterProfile, execution
from allam.engine import checkpoint
from allam.engine.device import Ranks, join
from allam.engine.dropout import add_dropout, seed_masks
from allam.engine.journal import Journal, short
from allam.engine.kernels import compile_blocks, use_fused_kernels
from allam.engine.layout import lay_out, refuse
from allam.engine.logits import check_own_loss, refuse_another_loss, silence_own_dropout
from allam.engine.loss import make_loss_head, token_losses
from allam.engine.new_rows_only import NewRowsFirst, OnlyNewRows
from allam.engine.schedule import OptimizerSettings, learning_rate
from allam.engine.stability import ROLLED_BACK, SKIPPED, StabilityMonitor
from allam.engine.weights import Weights
from allam.engine.zero import ZeroModel
from allam.errors import StageFailed, UserError
from allam.layouts import ARCHITECTURES, batch_refusal
from allam.progress import Progress, note
from allam.versions import git_revision, versions

T = TypeVar("T")
NOT_FINITE, NAMED_IN_ERRORS = "not_finite.json", 20


@dataclass(frozen=True)
class StepResult:
    """One optimizer step. `loss` is the batch's (sum / denominator) before the step, `grad_norm` the norm before clipping, `sums` over all ranks; `answer`
    is what was done about a spike: {"skipped": True}, or {"rolled_back_to": steps}."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    sums: dict[str, float] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Optimizer, ranks, checkpoints and logs around a model. See the module's docstring for how a stage uses it.

    `model` is a transformers model in fp32 on the CPU, with the weights to start from, or without them where `weights` has them;
    `global_batch` counts sequences (or conversations, or pairs) of one step over all ranks; `work` is the artifact's scratch folder;
    `seed` is that of `dropout`'s masks; `on_spike` says whether the update of a step that spikes is kept, left out, or left out with all since the last
    multiple of `roll_back_steps`; with `new_rows_first` the first steps train nothing else; `about` is what the stage wants checkpoints to hold after so
    many steps, the same for the same step. Raises `UserError` where the batch doesn't divide by the ranks.
    """

    def __init__(self, model: PreTrainedModel, optimizer: OptimizerSettings, *, precision: Literal["fp32", "bf16"], global_batch: int,
                 total_steps: int, work: Path, what: str = "training", profile: ClusterProfile | None = None, dropout: float = 0.0,
                 seed: int = 0, on_spike: Literal["mark", "skip", "roll_back"] = "mark", roll_back_steps: int = 100,
                 new_rows_first: NewRowsFirst | None = None, weights: Weights | None = None,
                 about: Callable[[int], dict[str, Any]] = lambda step: {}) -> None:
        self.profile = profile or execution()
        refuse(model, self.profile)
        self.ranks: Ranks = replace(join(self.profile), tensor=self.profile.tensor_parallel, pipeline=self.profile.pipeline_parallel)
        self.optimizer, self.total_steps, self.what = optimizer, total_steps, what
        if self.ranks.world_size % (self.ranks.tensor * self.ranks.pipeline):
            raise UserError(f"{self.ranks.world_size} ranks were started, no multiple of tensor_parallel ({self.ranks.tensor}) times pipeline_parallel "
                            f"({self.ranks.pipeline})", "start as many ranks as the cluster profile says")
        if global_batch % self.ranks.replicas:
            raise UserError(*batch_refusal(global_batch, self.ranks.world_size, self.ranks.replicas))
        self.micro_steps = math.ceil(global_batch / self.ranks.replicas / self.profile.micro_batch)
        self._checkpoints = work / CHECKPOINTS
        self.journal = Journal(work, model, self.ranks, self.profile)
        self._config = model.config
        self._dropout, self._seed = dropout, seed
        self._on_spike, self._roll_back_steps = on_spike, roll_back_steps if on_spike == "roll_back" else 0
        self._about, self._precision, self._global_batch = about, precision, global_batch
        if self.profile.fused_kernels:
            use_fused_kernels(model, self.ranks.device)
        silence_own_dropout(model)
        if dropout:
            if refused := dropout_refusal(model.config.model_type):
                raise UserError(*refused)
            add_dropout(model, dropout)
        if self.profile.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if self.profile.compile_blocks:
            if dropout:
                raise UserError(*COMPILED_DROPOUT)
            compile_blocks(model, self.ranks.device)
        layout = lay_out(model, self.ranks)
        self._new_rows_steps = new_rows_first.steps if new_rows_first else 0
        self._only_new_rows = OnlyNewRows(model, new_rows_first.first_row) if new_rows_first else None
        model.train()
        make_loss_head(model)
        self._zero = ZeroModel(model, optimizer, precision=precision, zero_stage=self.profile.zero_stage, micro_steps=self.micro_steps, layout=layout,
                               offload=self.profile.offload_optimizer, weights=weights)
        if model.config.model_type not in ARCHITECTURES:  # those are held to one rank by tests in every layout
            self._check_own_loss()
        self._updates, self._monitor = 0, StabilityMonitor()
        self.start_step = self._resume()
        self._step = self.start_step
        self._result: StepResult | None = None
        self.shown: dict[str, float] = {}  # beside the loss in the line of progress, by name
        self._terminated = self._stop = self._save = False
        self._saved_at = time.monotonic()

    # --- the loop --------------------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """The numbers of the steps that remain, from 0; between them it writes checkpoints and heeds SIGTERM."""
        with self._heeding_sigterm(), Progress("steps", self.total_steps, done=self.start_step, what=self.what) as progress:
            if self._roll_back_steps and not self.start_step:
                self.save(0)
            self.journal.start()
            for step in range(self.start_step, self.total_steps):
                self._step, self._result = step, None
                yield step
                assert self._result is not None, "a stage must call step() once in each round of steps()"
                self._between_steps(step + 1)
                progress.update(loss=round(self._result.loss, 4), **self.shown)

    def step(self, batch: Sequence[T], loss: Callable[[PreTrainedModel, list[T]], tuple[Tensor, dict[str, Tensor]]],
             denominator: float, describe: Callable[[list[T]], list[str]] | None = None) -> StepResult:
        """Takes one optimizer step on the whole global `batch`, of which each rank computes its share in micro-batches.

        Raises `StageFailed` where loss or gradient is not finite, with what `describe` (called on rank 0) says of the items to blame; what stands on
        disk is the last checkpoint.
        """
        if not batch or denominator <= 0:
            raise ValueError(f"a step needs items and a positive denominator, not {len(batch)} and {denominator}")
        rate = learning_rate(self.optimizer, self._step, self.total_steps)
        if self._only_new_rows is not None:
            self._only_new_rows.on = self._step < self._new_rows_steps
            if self._step == self._new_rows_steps:
                self._monitor = StabilityMonitor()  # the norm of all gradients is no spike beside that of a few
        scale = self.ranks.replicas / denominator  # DeepSpeed averages gradients over the replicas
        total, norm, refused = torch.zeros((), device=self.ranks.device), 0.0, False
        sums: dict[str, Any] = {}
        gathered: list[tuple[float, dict[str, float]]] = []

        def spikes(norm: float) -> bool:
            gathered.append(self._gather(total, sums))
            return bool(self._monitor.judge({"loss": short(gathered[0][0] / denominator), "grad_norm": short(norm)}))

        micro_batches, begun = self._micro_batches(batch), deque[Tensor]()
        ahead = self.ranks.pipeline - 1 - self.ranks.stage  # later stages have as many to compute before the first gradient comes back
        for i in range(len(micro_batches) + ahead):
            if i < len(micro_batches):
                items, weight = micro_batches[i]
                if self._dropout:
                    seed_masks(self._seed, self._step, i, self.ranks.stage * self.ranks.replicas + self.ranks.replica)
                part, extras = self._zero.call(loss, items)
                begun.append(part * (scale * weight))
                total += part.detach().float() * weight
                for name, value in extras.items():
                    sums[name] = sums.get(name, 0.0) + value.detach().double() * weight
            if i >= ahead:
                self._zero.backward(begun.popleft())
                norm, refused = self._zero.update(rate, None if self._on_spike == "mark" else spikes, decays=self._step >= self._new_rows_steps)
        total_loss, summed = gathered[0] if gathered else self._gather(total, sums)
        if not (math.isfinite(total_loss) and math.isfinite(norm)):
            self._stop_at(batch, loss, describe, f"the loss is {total_loss} and the gradient's norm {norm}")
        self._updates += not refused
        self._result = StepResult(self._step, total_loss / denominator, norm, rate, summed, self._answer() if refused else {})
        return self._result

    def _answer(self) -> dict[str, Any]:
        """What is done about a spike, whose update was refused: nothing more, or back to the last checkpoint of the grid."""
        if not self._roll_back_steps:
            return {SKIPPED: True}
        step = self._step // self._roll_back_steps * self._roll_back_steps
        folder = checkpoint.place(self._checkpoints, step)
        problem = checkpoint.damage_found_by(self.ranks, folder)
        if problem:
            raise StageFailed(f"step {self._step + 1} is a spike, and the checkpoint {folder} to roll back to is damaged ({problem})",
                              f"remove the checkpoints from {folder.name} on, so that training goes on before it, and run again")
        self._load(checkpoint.state_of(folder))
        return {ROLLED_BACK: step}

    def _stop_at(self, batch: Sequence[T], loss: Callable[..., Any], describe: Callable[[list[T]], list[str]] | None, what: str) -> None:
        """Raises `StageFailed` that names the items whose loss alone is no number; all of the batch, saying so, where no item stands out."""
        alone = [0.0] * len(batch)
        mine = range(len(batch))[self.ranks.replica :: self.ranks.replicas]
        for i in range(-(-len(batch) // self.ranks.replicas)):  # as often on each rank, as ZeRO-3 needs
            number = mine[min(i, len(mine) - 1)] if mine else 0
            alone[number] = float(not math.isfinite(self.call(lambda model, item: float(loss(model, [item])[0]), batch[number])))
        broken = [item for item, found in zip(batch, self.ranks.sum(alone), strict=True) if found]
        to_blame = broken or list(batch)
        named = describe(to_blame) if describe is not None and self.ranks.first else []
        told = ""
        if named:
            write_json(self.journal.work / NOT_FINITE, {"step": self._step + 1, "documents": named})
            more = f" and {len(named) - NAMED_IN_ERRORS} more (all stand in work/{NOT_FINITE})" if len(named) > NAMED_IN_ERRORS else ""
            where = "in the documents"
            if len(broken) in (0, len(batch)):
                where = ("with each item of the batch: the model has most likely diverged" if broken else
                         "though each item's loss alone is a number: none can be singled out") + "; the batch has the documents"
            told = f" {where} {', '.join(named[:NAMED_IN_ERRORS])}{more}"
        self.ranks.barrier()  # the rank that tells must not be killed because another one left
        raise StageFailed(f"step {self._step + 1}: {what}{told}", "lower optimizer.learning_rate, or give it a warm-up; " + (
                          "where the text of these documents is broken, take them down (data.take_down)" if named else "or look for broken text in the batch"))

    def _micro_batches(self, batch: Sequence[T]) -> list[tuple[list[T], float]]:
        """This replica's items in `micro_steps` parts with weight 1. A part without items (a short last batch) borrows one with weight 0,
        since every rank must take the same number of backward passes."""
        mine = _part(batch, self.ranks.replica, self.ranks.replicas)
        parts = [_part(mine, i, self.micro_steps) for i in range(self.micro_steps)]
        return [(list(p), 1.0) if p else ([batch[0]], 0.0) for p in parts]

    def _gather(self, total: Tensor, sums: dict[str, Any]) -> tuple[float, dict[str, float]]:
        """Loss and sums over all ranks, and with them whether to save (rank 0's clock) or to stop (any rank's signal)."""
        names = sorted(sums)
        due = self.ranks.first and time.monotonic() - self._saved_at >= self.profile.checkpoint_seconds
        values = torch.stack([total.double(), *(sums[n] for n in names)]).tolist()
        values = self.ranks.sum(values, everywhere=[float(due), float(self._terminated)])
        self._save, self._stop = values[-2] > 0, values[-1] > 0
        return values[0], dict(zip(names, values[1:-2], strict=True))

    def _between_steps(self, done: int) -> None:
        if self._stop or (done < self.total_steps and (self._save or self._is_kept(done))):
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
            return self._zero.call(lambda model, *given: (function(model, *given),), *args)[0]  # ZeRO-3's hooks want tensors or a tuple
        finally:
            self._zero.engine.train()

    @torch.no_grad()
    def _check_own_loss(self) -> None:
        """Raises `UserError` where the engine's loss in training mode is another than that of the model's own logits."""
        ours, own = self._zero.call(check_own_loss, token_losses)
        refuse_another_loss(self._config.model_type, ours, own, torch.bfloat16 if self._precision == "bf16" else torch.float32)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The fp32 weights by name, on the CPU. Collective: every rank walks it to the end."""
        for key, value in self._zero.state():
            kind, _, name = key.partition("/")
            if kind == "weight":
                yield name, value

    # --- checkpoints and logs --------------------------------------------------------------------------------------------------

    def save(self, done: int) -> None:
        """Writes a checkpoint after `done` steps (the loop does so by itself), and removes those that the profile doesn't keep."""
        sizes = self.journal.sync()
        state = self._state(done, sizes) if self.ranks.first else {}
        checkpoint.save(self._checkpoints, done, self._zero.state(), state, self.ranks)
        if self.ranks.first:
            anchor = done // self._roll_back_steps * self._roll_back_steps if self._roll_back_steps else None
            checkpoint.prune(self._checkpoints, self.profile.checkpoints_kept, lambda step: step == anchor or self._is_for_good(step))
        self._saved_at = time.monotonic()

    def _is_kept(self, done: int) -> bool:
        """Whether a checkpoint after `done` steps is due whatever the clock says."""
        return self._is_for_good(done) or (self._roll_back_steps > 0 and done % self._roll_back_steps == 0)

    def _is_for_good(self, step: int) -> bool:
        """Whether the profile keeps the checkpoint of `step` beyond the newest ones, and beyond the end of training."""
        every = self.profile.checkpoint_steps
        return step > 0 and ((every > 0 and step % every == 0) or (self.profile.keep_best_checkpoint and step == self.journal.best_step))

    def _state(self, done: int, log_sizes: dict[str, int]) -> dict[str, Any]:
        """What a checkpoint holds beside the tensors. There is no state of random generators: masks and data order are functions of seed and step."""
        job = self.journal.work.parent / JOB
        stage = json.loads(job.read_text(encoding="utf-8")) if job.is_file() else {}
        return {
            "logs": log_sizes, "updates": self._updates, "monitor": self._monitor.state(),
            "schedule": {**asdict(self.optimizer), "total_steps": self.total_steps,
                         "next_learning_rate": learning_rate(self.optimizer, min(done, self.total_steps - 1), self.total_steps)},
            "random": {"seed": self._seed, "dropout": self._dropout, "masks_depend_on": ["seed", "step", "micro_step", "rank"]},
            "data": {"steps": done, "batch": self._global_batch}, **self._about(done),
            "layout": {"ranks": self.ranks.world_size, "tensor_parallel": self.ranks.tensor, "pipeline_parallel": self.ranks.pipeline,
                       "zero_stage": self._zero.stage, "micro_batch": self.profile.micro_batch,
                       "threads": self.profile.threads, "device": self.ranks.device.type, "precision": self._precision},
            "recipe": {name: stage[name] for name in ("name", "kind", "version", "key", "config", "inputs") if name in stage},
            "model": json.loads(self._config.to_json_string(use_diff=False)), "versions": versions(), "git_revision": git_revision()}

    def _resume(self) -> int:
        """Loads the newest sound checkpoint, cuts the logs back to it, and returns the number of steps done."""
        found = checkpoint.newest(self._checkpoints, self.ranks, note)
        if found:
            self._refuse_another(found)
            self._load(found)
            self._monitor = StabilityMonitor(found["monitor"])
            if self.ranks.first:
                print(f"resumed from {Path(found['folder']).name}", flush=True)
        done = int(found["step"]) if found else 0
        self.journal.resume(found["logs"] if found else {}, done)
        return done

    def _load(self, state: dict[str, Any]) -> None:
        try:
            self._zero.load(state["updates"], checkpoint.Reader(Path(state["folder"])))
        except KeyError as error:
            raise StageFailed(f"the checkpoint {state['folder']} has no tensor {error}", "remove the folder to start this stage anew") from None
        self._updates = state["updates"]

    def _refuse_another(self, state: dict[str, Any]) -> None:
        """A checkpoint goes on only in the training that it is of. Folders are named by keys, so another's is there only where somebody put it."""
        expected = {"total_steps": self.total_steps, "batch": self._global_batch, "tokenizer": self._about(0).get("tokenizer")}
        found = {"total_steps": state["schedule"]["total_steps"], "batch": state["data"]["batch"], "tokenizer": state.get("tokenizer")}
        for name, value in expected.items():
            if found[name] != value:
                raise StageFailed(f"the checkpoint {state['folder']} is of another training: its {name} is {found[name]}, not {value}",
                                  "remove the folder to start this stage anew")
        if consumed(state) != (planned := consumed(self._about(state["step"]))):
            raise StageFailed(f"the checkpoint {state['folder']} has read other data than the mix names for its {state['step']} steps: {consumed(state)}, not "
                              f"{planned}", f"remove the folder {state['folder']} to start this stage anew")

    def log(self, tokens: int, sequence_length: float, **more: Any) -> None:
        """Writes the last step's line of metrics.jsonl, marked where loss or gradient norm spiked, and that of telemetry.jsonl.

        `tokens` counts from the start of training; `sequence_length` is the (mean) length that attention ran over, for the count of FLOPs.
        """
        result = self._result
        assert result is not None, "log() comes after step()"
        row = {"step": result.step + 1, "tokens": tokens, "loss": short(result.loss), "grad_norm": short(result.grad_norm),
               "learning_rate": short(result.learning_rate), **{k: short(v) if isinstance(v, float) else v for k, v in more.items()}}
        if spikes := self._monitor.add(row):
            row["spikes"] = spikes
        row |= result.answer
        self.journal.add_metrics(row, sequence_length)

    def finish(self, out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Copies the logs to the artifact, and the checkpoints that are kept for good; returns the rows of metrics.jsonl (none on all ranks
        but the first) and of evals.jsonl."""
        self.journal.copy_to(out)
        if self.ranks.first:
            checkpoint.keep_for_good(self._checkpoints, out / CHECKPOINTS, self._is_for_good)
        return self.journal.metrics(), self.journal.evals()


def _part(items: Sequence[T], i: int, n: int) -> Sequence[T]:
    """Part `i` of `n` contiguous parts whose sizes differ by one at most."""
    return items[len(items) * i // n : len(items) * (i + 1) // n]
