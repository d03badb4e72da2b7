"""Direct preference optimization on the reviewed pairs (paper §3.2, C.3; Rafailov et al. 2023).

    loss = -log sigmoid(beta * ((log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected))))

The reference is the finetuned model that training starts from. Before the first step its log-probabilities are computed, in the layout and the precision of the
training, and kept in work/, so that there is never a second model in memory. The learning rate falls by a cosine from `learning_rate` to `final_learning_rate`.
Run it with `allam stage dpo --recipe demo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from allam.align.config import DpoConfig
from allam.align.conversations import read_strict
from allam.align.examples import Example, batch_numbers, pad, response_example, steps_per_epoch, tokens_before
from allam.artifacts import CHECKPOINTS
from allam.chat.template import stop_ids
from allam.engine.likelihood import shared_out
from allam.engine.loss import token_losses
from allam.engine.model import save_generation_config, save_model
from allam.engine.schedule import OptimizerSettings
from allam.engine.stability import count_spikes
from allam.engine.trainer import Trainer
from allam.engine.weights import open_model
from allam.errors import StageFailed, UserError
from allam.progress import Progress
from allam.text.tokenizer import Tokenizer

LOGGED = ("rewards/chosen", "rewards/rejected", "rewards/margin", "accuracy")


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt, with the reference's log-probabilities of each in nats."""

    chosen: Example
    rejected: Example
    reference_chosen: float = 0.0
    reference_rejected: float = 0.0

    @property
    def length(self) -> int:
        """Tokens of the longer sequence."""
        return max(len(self.chosen.ids), len(self.rejected.ids))

    @property
    def tokens(self) -> int:
        """Tokens of both."""
        return len(self.chosen.ids) + len(self.rejected.ids)


def run(config: DpoConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Trains the finetuned model to prefer the chosen responses."""
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    pairs, too_long = _read_pairs(config, tokenizer, inputs["pairs"] / "pairs.jsonl")
    model, weights = open_model(inputs["model"] / "model")
    total_steps = config.epochs * steps_per_epoch(len(pairs), config.global_batch)
    optimizer = OptimizerSettings(learning_rate=config.learning_rate, schedule="cosine", final_learning_rate=config.final_learning_rate,
                                  weight_decay=config.weight_decay, clip_norm=config.clip_norm)
    trainer = Trainer(model, optimizer, precision=config.precision, global_batch=config.global_batch, total_steps=total_steps,
                      work=out / "work", what="preference training", weights=weights,
                      about=lambda step: {"tokenizer": tokenizer.fingerprint})
    pairs = with_reference(trainer, model, pairs, out / "work" / "reference.npy")
    loss = preference_loss(config.beta)
    tokens = tokens_before([p.tokens for p in pairs], config.global_batch, config.seed, trainer.start_step)
    for step in trainer.steps():
        batch = sorted((pairs[i] for i in batch_numbers(len(pairs), config.global_batch, config.seed, step)), key=lambda p: p.length)
        result = trainer.step(batch, loss, denominator=len(batch))
        batch_tokens = sum(p.tokens for p in batch)
        tokens += batch_tokens
        trainer.log(tokens=tokens, sequence_length=batch_tokens / (2 * len(batch)), **{name: result.sums[name] / len(batch) for name in LOGGED})
    rows, _ = trainer.finish(out)
    save_model(out / "model", model.config, trainer.weights(), inputs["tokenizer"], writes=trainer.ranks.first)
    if not trainer.ranks.first:
        return {}
    save_generation_config(out / "model", stop_ids(tokenizer), tokenizer.bos_id, tokenizer.pad_id)
    return {"pairs": len(pairs), "pairs_too_long": too_long, "steps": total_steps, "tokens": tokens} | _summary(rows) | {"spikes": count_spikes(rows)}


def preference_loss(beta: float) -> Any:
    """The trainer's loss over pairs: the sum of the DPO losses, with the sums of rewards, margins and of pairs ranked rightly."""

    def loss(model: PreTrainedModel, pairs: list[Pair]) -> tuple[Tensor, dict[str, Tensor]]:
        log_p_2N = log_probabilities(model, [p.chosen for p in pairs] + [p.rejected for p in pairs])
        reference_2N = torch.tensor([p.reference_chosen for p in pairs] + [p.reference_rejected for p in pairs], device=log_p_2N.device)
        chosen_N, rejected_N = (beta * (log_p_2N - reference_2N)).chunk(2)
        margin_N = chosen_N - rejected_N
        logged = (chosen_N, rejected_N, margin_N, (margin_N > 0).float())
        return -F.logsigmoid(margin_N).sum(), {name: values.detach().sum() for name, values in zip(LOGGED, logged, strict=True)}

    return loss


def log_probabilities(model: PreTrainedModel, examples: list[Example]) -> Tensor:
    """The log-probability in nats of each example's unmasked tokens, [N] in fp32."""
    ids_BT, targets_BT = pad(examples, next(model.parameters()).device)
    return -token_losses(model, ids_BT, targets_BT).sum(dim=1)


def with_reference(trainer: Trainer, model: PreTrainedModel, pairs: list[Pair], cache: Path) -> list[Pair]:
    """The pairs with the model's log-probabilities, taken from `cache` where an earlier run left them; the ranks share the work.

    Raises `StageFailed` where there are none and training has begun, since the model is no longer the reference.
    """
    ranks = trainer.ranks
    values: Any = ranks.broadcast(_cached(cache, len(pairs)) if ranks.first else None)
    if values is None:
        if trainer.start_step:
            raise StageFailed(f"{cache} is missing or damaged, and the training that it belongs to has begun",
                              f"remove the folder {cache.parent / CHECKPOINTS}, so that this stage starts anew")
        values = reference(trainer, model, pairs)
        if ranks.first:
            temporary = cache.with_name(cache.name + ".tmp")
            with open(temporary, "wb") as file:
                np.save(file, np.array(values))
            temporary.replace(cache)
    return [Pair(p.chosen, p.rejected, c, r) for p, (c, r) in zip(pairs, values, strict=True)]


def _cached(cache: Path, count: int) -> list[list[float]] | None:
    try:
        values = np.load(cache, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values.tolist() if values.shape == (count, 2) else None  # type: ignore[no-any-return]


def reference(trainer: Trainer, model: PreTrainedModel, pairs: list[Pair]) -> list[list[float]]:
    """The log-probabilities in nats of each pair's chosen and rejected response under the model as it is; every rank calls alike."""
    size = trainer.profile.micro_batch
    order = sorted(range(len(pairs)), key=lambda n: (pairs[n].length, n))
    batches = [order[start:start + size] for start in range(0, len(order), size)]
    places = [[2 * n for n in batch] + [2 * n + 1 for n in batch] for batch in batches]
    with Progress("pairs", len(pairs), what="reference") as progress:
        values = shared_out(_of_both, [[pairs[n] for n in batch] for batch in batches], places, 2 * len(pairs), model, trainer.ranks, trainer.call,
                            lambda done: progress.update(min(done * size, len(pairs)) - progress.done))
    return np.array(values).reshape(-1, 2).tolist()  # type: ignore[no-any-return]


def _of_both(model: PreTrainedModel, pairs: list[Pair]) -> tuple[float, ...]:
    """The log-probabilities of the chosen responses, then those of the rejected ones."""
    return tuple(log_probabilities(model, [p.chosen for p in pairs] + [p.rejected for p in pairs]).double().tolist())


def _read_pairs(config: DpoConfig, tokenizer: Tokenizer, path: Path) -> tuple[list[Pair], int]:
    rows = read_strict(path)
    pairs = [Pair(response_example(tokenizer, row["messages"], row["chosen"]), response_example(tokenizer, row["messages"], row["rejected"]))
             for row in rows]
    fitting = [p for p in pairs if p.length <= config.max_length]
    if not fitting:
        raise UserError(f"none of {len(pairs)} pairs fits align.dpo.max_length = {config.max_length} tokens", "raise align.dpo.max_length")
    return fitting, len(pairs) - len(fitting)


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The logged values at the first step and averaged over the last fifth of the steps."""
    last = rows[-max(1, len(rows) // 5):]
    names = ("loss", *LOGGED)
    return {"first": {n: rows[0][n] for n in names}, "last": {n: round(sum(r[n] for r in last) / len(last), 6) for n in names}}
