"""Supervised finetuning (paper §3.1, C.2): the prompt is masked, each assistant turn is a sample with the turns before it as context.

The loss of a step is the mean over the assistant tokens of its global batch, whatever the ranks and micro-batches. Resumes after a kill
with the same weights, bit by bit. Run it with `allam stage sft --recipe demo`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from allam.align.config import SftConfig
from allam.align.conversations import read_strict
from allam.align.examples import Example, batch_numbers, conversation_examples, pad, steps_per_epoch, tokens_before
from allam.chat.template import stop_ids
from allam.engine.loss import summed_loss
from allam.engine.model import save_generation_config, save_model
from allam.engine.schedule import OptimizerSettings
from allam.engine.stability import count_spikes
from allam.engine.trainer import Trainer
from allam.engine.weights import open_model
from allam.errors import UserError
from allam.progress import note
from allam.text.tokenizer import Tokenizer


def run(config: SftConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Finetunes the continued model on the curated conversations."""
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    examples, left_out, conversations = _examples(config, tokenizer, inputs["conversations"] / "sft.jsonl")
    total_steps = config.epochs * steps_per_epoch(len(examples), config.global_batch)
    if config.warmup_steps > total_steps:
        note(f"align.sft.warmup_steps is {config.warmup_steps}, more than the {total_steps} steps that there are: the peak learning rate is never reached; "
             "lower it or align.sft.global_batch, or give more conversations")
    optimizer = OptimizerSettings(learning_rate=config.learning_rate, schedule=config.schedule, warmup_steps=config.warmup_steps,
                                  weight_decay=config.weight_decay, clip_norm=config.clip_norm)
    model, weights = open_model(inputs["model"] / "model")
    trainer = Trainer(model, optimizer, precision=config.precision, global_batch=config.global_batch,
                      total_steps=total_steps, work=out / "work", what="finetuning", weights=weights,
                      about=lambda step: {"tokenizer": tokenizer.fingerprint})
    tokens = tokens_before([len(e.ids) for e in examples], config.global_batch, config.seed, trainer.start_step)
    for step in trainer.steps():
        batch = sorted((examples[i] for i in batch_numbers(len(examples), config.global_batch, config.seed, step)), key=lambda e: len(e.ids))
        trainer.step(batch, masked_loss, denominator=sum(e.trained_tokens for e in batch))
        batch_tokens = sum(len(e.ids) for e in batch)
        tokens += batch_tokens
        trainer.log(tokens=tokens, sequence_length=batch_tokens / len(batch))
    rows, _ = trainer.finish(out)
    save_model(out / "model", model.config, trainer.weights(), inputs["tokenizer"], writes=trainer.ranks.first)
    if not trainer.ranks.first:
        return {}
    save_generation_config(out / "model", stop_ids(tokenizer), tokenizer.bos_id, tokenizer.pad_id)
    return {"conversations": conversations, "samples": len(examples), "turns_too_long": left_out, "steps": total_steps, "tokens": tokens,
            "trained_tokens": config.epochs * sum(e.trained_tokens for e in examples), "first_loss": rows[0]["loss"], "last_loss": rows[-1]["loss"],
            "spikes": count_spikes(rows)}


def masked_loss(model: PreTrainedModel, examples: list[Example]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the assistant tokens' losses in nats, as the trainer wants it."""
    ids_BT, targets_BT = pad(examples, next(model.parameters()).device)
    total, _ = summed_loss(model, ids_BT, targets_BT)
    return total, {}


def _examples(config: SftConfig, tokenizer: Tokenizer, path: Path) -> tuple[list[Example], int, int]:
    """The samples of all conversations, the turns that were too long, and the number of conversations."""
    examples, left_out, rows = [], 0, read_strict(path)
    for row in rows:
        found, too_long = conversation_examples(tokenizer, row["messages"], config.max_length, config.turn_augmentation)
        examples += found
        left_out += too_long
    if not examples:
        raise UserError(f"no assistant turn of {len(rows)} conversations ends within align.sft.max_length = {config.max_length} tokens",
                        "raise align.sft.max_length (and train.model.max_positions)")
    return examples, left_out, len(rows)
