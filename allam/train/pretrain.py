"""Pretraining from random weights, and continued pretraining of a given model: one module for both (paper §2.2, §2.3).

With an input `model` training continues from it; otherwise it starts from random weights of the recipe's shape. Data, model and schedule are
pure functions of the step, so that a killed run ends with the same weights. Held-out bits per byte and benchmarks are measured before, at intervals, and after.
Alone: `allam stage pretrain --recipe demo`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from allam.architectures import packing_refusal
from allam.artifacts import write_json
from allam.engine.device import join
from allam.engine.journal import short
from allam.engine.loss import document_positions, summed_loss
from allam.engine.model import new_model, save_model
from allam.engine.new_rows_only import NewRowsFirst
from allam.engine.schedule import OptimizerSettings
from allam.engine.stability import count_spikes, lost_steps
from allam.engine.trainer import Trainer
from allam.engine.weights import open_model
from allam.errors import UserError
from allam.text.tokenizer import Tokenizer
from allam.train.blame import documents_of
from allam.train.config import PretrainStageConfig
from allam.train.measurements import Measurements
from allam.train.shape import llama_config, write_generation_config
from allam.train.untouched import first_new_row, write_untouched
from allam.train.windows import Windows


def run(config: PretrainStageConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Trains through the input `mix`; returns losses, bits per byte before and after, and the ledger."""
    phase = config.phase
    join()
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    windows = Windows(inputs["pack"], inputs["mix"])
    model, weights = open_model(inputs["model"] / "model") if "model" in inputs else (new_model(llama_config(config.model, tokenizer), phase.seed), None)
    _check(model, tokenizer, windows)
    model_config = model.config
    if not phase.attend_across_documents and (refused := packing_refusal(model_config.model_type)):
        raise UserError(*refused)
    first_row = first_new_row(inputs.get("model"))
    if phase.new_rows_steps and not first_row:
        raise UserError(f"new_rows_steps is {phase.new_rows_steps}, but the model that training starts from was not extended: it has no new rows",
                        "set new_rows_steps to 0")

    def about(step: int) -> dict[str, Any]:
        return {"tokenizer": tokenizer.fingerprint, "ledger": windows.consumed(step * phase.global_batch)}

    trainer = Trainer(model, OptimizerSettings(**phase.optimizer.model_dump()), precision=phase.precision, global_batch=phase.global_batch,
                      total_steps=windows.plan["steps"], work=out / "work", what="pretraining" if "model" not in inputs else "continued pretraining",
                      dropout=phase.dropout, seed=phase.seed, on_spike=phase.on_spike, roll_back_steps=phase.roll_back_steps,
                      new_rows_first=NewRowsFirst(first_row, phase.new_rows_steps) if phase.new_rows_steps else None, weights=weights, about=about)
    tokens_a_step = phase.global_batch * windows.length
    measure = Measurements(config, inputs, tokenizer, model, trainer, windows.length)
    if trainer.start_step == 0 and not trainer.journal.evals():  # a checkpoint of step 0 has it already
        measure(0)
    loss = _loss_by_domain(windows, trainer, None if phase.attend_across_documents else tokenizer.bos_id)
    for step in trainer.steps():
        batch = list(range(step * phase.global_batch, (step + 1) * phase.global_batch))
        result = trainer.step(batch, loss, denominator=tokens_a_step,
                              describe=lambda numbers: documents_of(windows, inputs["pack"], numbers))
        trainer.log((step + 1) * tokens_a_step, windows.length, **_means(windows, batch, result.sums))
        if phase.eval_every and (step + 1) % phase.eval_every == 0 and step + 1 < trainer.total_steps:
            measure(step + 1)
    measure(trainer.total_steps)
    save_model(out / "model", model_config, trainer.weights(), inputs["tokenizer"], writes=trainer.ranks.first)
    rows, evals = trainer.finish(out)
    if not trainer.ranks.first:
        return {}
    write_generation_config(out / "model", tokenizer)
    lost = lost_steps(rows)
    ledger = write_ledger(out, windows, phase.global_batch, lost)
    untouched = write_untouched(out, windows, tokenizer, first_row, lost, phase.global_batch)
    return {"steps": trainer.total_steps, "tokens": trainer.total_steps * tokens_a_step, "parameters": trainer.journal.parameters,
            "loss": {"first": rows[0]["loss"], "last": rows[-1]["loss"]}, "spikes": count_spikes(rows), "lost_steps": len(lost),
            **{name: {"before": evals[0][name], "after": evals[-1][name]} for name in ("bits_per_byte", "benchmarks") if name in evals[0]},
            "ledger": ledger, "untouched_rows": untouched}


def _check(model: PreTrainedModel, tokenizer: Tokenizer, windows: Windows) -> None:
    rows = model.config.vocab_size
    if windows.fingerprint != tokenizer.fingerprint:
        raise UserError("the packs were made with another tokenizer than the model's", "pack the documents again with this tokenizer")
    if rows != tokenizer.vocab_size:
        raise UserError(f"the model's vocabulary has {rows} rows and the tokenizer's {tokenizer.vocab_size}",
                        "extend the model for this tokenizer first (stage extend), or give the model's own tokenizer")
    longest = model.config.max_position_embeddings
    if windows.length > longest:
        raise UserError(f"sequence_length {windows.length} is longer than the model's {longest} positions", "shorten sequence_length in the recipe")


def _loss_by_domain(windows: Windows, trainer: Trainer,
                    bos_id: int | None) -> Callable[[PreTrainedModel, list[int]], tuple[Tensor, dict[str, Tensor]]]:
    """The sum of token losses of a micro-batch of sequence numbers, and its parts by domain. With `bos_id` attention stays within documents."""
    names = _names(windows)

    def loss(model: PreTrainedModel, numbers: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        with trainer.journal.waiting_for_data():
            tokens = torch.from_numpy(np.stack([windows[i] for i in numbers])).to(model.device)
        ids_BT = tokens[:, :-1]
        positions_BT = None if bos_id is None else document_positions(ids_BT, bos_id)
        total, losses_BT = summed_loss(model, ids_BT, tokens[:, 1:], positions_BT=positions_BT)
        losses_B = losses_BT.sum(dim=1)
        domains_B = torch.tensor(windows.domain_N[numbers].tolist()).to(losses_B.device)
        here_BD = domains_B[:, None] == torch.arange(len(names), device=losses_B.device)
        sums_D = torch.where(here_BD, losses_B.double()[:, None], 0.0).sum(dim=0)  # in this order always, where index_add's on a GPU is any
        return total, dict(zip(names, sums_D.unbind(), strict=True))

    return loss


def _names(windows: Windows) -> list[str]:
    return [f"{component}/{domain}" for component, domain in windows.domains]


def _means(windows: Windows, batch: list[int], sums: dict[str, float]) -> dict[str, dict[str, float]]:
    """The mean loss of a token in a batch's sequences, whose `sums` are by domain: by language and kind, and by domain; without those that it has none of."""
    counts = np.bincount(windows.domain_N[batch], minlength=len(windows.domains))
    found: dict[str, list[tuple[float, int]]] = {}
    for (component, _), name, count in zip(windows.domains, _names(windows), counts, strict=True):
        if count:
            found.setdefault(component, []).append((sums[name], int(count)))
            found[name] = [(sums[name], int(count))]
    means = {name: short(sum(s for s, _ in parts) / (sum(n for _, n in parts) * windows.length)) for name, parts in found.items()}
    return {"loss_by_component": {c: means[c] for c in windows.components if c in means},
            "loss_by_domain": {name: means[name] for name in _names(windows) if name in means}}


def write_ledger(out: Path, windows: Windows, global_batch: int, lost: set[int]) -> dict[str, Any]:
    """ledger.json: by component and domain what was planned, what was consumed, and what of that left nothing in the weights, since its steps spiked."""
    consumed = windows.consumed(len(windows))
    sequences = np.array([step * global_batch + i for step in sorted(lost) for i in range(global_batch)], dtype=np.int64)
    skipped = windows.consumed(sequences)
    ledger = {c: {d: {"planned_tokens": row["planned_tokens"], "consumed_tokens": consumed[c][d], "skipped_tokens": skipped[c][d],
                      "epochs": row["epochs"], "share": row["share"]}
                  for d, row in domains.items()} for c, domains in windows.plan["ledger"].items()}
    write_json(out / "ledger.json", ledger)
    return ledger
