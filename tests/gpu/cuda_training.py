"""A tiny Llama trained on CUDA in bf16, for the tests: in process, or as a program that can be killed.

    python cuda_training.py WORK STEPS CHECKPOINT_SECONDS      prints {"losses", "weights" (a hash), "resumed", "device"} as its last line
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

from allam.cluster import ClusterProfile
from allam.engine.loss import summed_loss
from allam.engine.model import new_model
from allam.engine.schedule import OptimizerSettings
from allam.engine.trainer import Trainer

GLOBAL_BATCH, LENGTH, VOCAB = 8, 64, 256
CONFIG = LlamaConfig(vocab_size=VOCAB, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                     tie_word_embeddings=False, max_position_embeddings=LENGTH)
SETTINGS = OptimizerSettings(learning_rate=3e-3, schedule="cosine", warmup_steps=2, weight_decay=0.1)


def batch_of(step: int) -> list[torch.Tensor]:
    """The whole batch of a step, on the CPU as a stage gives it: five batches that come again, so that there is something to learn."""
    generator = torch.Generator().manual_seed(step % 5)
    return list(torch.randint(0, VOCAB, (GLOBAL_BATCH, LENGTH + 1), generator=generator))


def loss(model: Any, items: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The sum of token losses, on the model's device."""
    tokens = torch.stack(items).to(model.device)
    return summed_loss(model, tokens[:, :-1], tokens[:, 1:])[0], {}


def train(work: Path, steps: int, checkpoint_seconds: float, **kernels: bool) -> dict[str, Any]:
    """Trains to the end, from the last checkpoint in `work` if there is one; `kernels` are fields of the cluster profile."""
    work.mkdir(parents=True, exist_ok=True)
    profile = ClusterProfile(threads=1, device="cuda", micro_batch=4, checkpoint_seconds=checkpoint_seconds, **kernels)
    trainer = Trainer(new_model(CONFIG, seed=0), SETTINGS, precision="bf16", global_batch=GLOBAL_BATCH, total_steps=steps, work=work, profile=profile)
    losses = []
    for step in trainer.steps():
        losses.append(trainer.step(batch_of(step), loss, denominator=GLOBAL_BATCH * LENGTH).loss)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
    digest = hashlib.sha256(b"".join(w.numpy().tobytes() for _, w in trainer.weights())).hexdigest()
    return {"losses": losses, "weights": digest, "resumed": trainer.start_step, "device": trainer.ranks.device.type}


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
