"""A tiny Llama trained on fixed random sequences, for the tests: in process, or as a program on one or more ranks.

    python tiny_training.py WORK STEPS PROFILE_JSON PRECISION ON_SPIKE SPIKE     prints {"losses", "norms", "weights" (a hash), "resumed"} on rank 0
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig

from allam.cluster import ClusterProfile
from allam.engine.loss import summed_loss
from allam.engine.model import new_model
from allam.engine.schedule import OptimizerSettings
from allam.engine.trainer import Trainer

GLOBAL_BATCH, LENGTH, VOCAB = 8, 16, 64
CONFIG = LlamaConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                     tie_word_embeddings=False, max_position_embeddings=64)
SETTINGS = OptimizerSettings(learning_rate=1e-2, schedule="cosine", warmup_steps=2, weight_decay=0.1)


def make_trainer(work: Path, total_steps: int, profile: ClusterProfile, precision: Any = "fp32", dropout: float = 0.0,
                 **changes: Any) -> Trainer:
    """A trainer around the same fresh model each time."""
    work.mkdir(parents=True, exist_ok=True)
    return Trainer(new_model(CONFIG, seed=0), SETTINGS, precision=precision, global_batch=GLOBAL_BATCH, total_steps=total_steps, work=work,
                   profile=profile, dropout=dropout, **changes)


def batch_of(step: int) -> list[torch.Tensor]:
    """The whole batch of a step: half of each sequence repeats, so that there is something to learn."""
    generator = torch.Generator().manual_seed(1000 + step % 5)
    halves = torch.randint(0, VOCAB, (GLOBAL_BATCH, LENGTH // 2 + 1), generator=generator)
    return list(torch.cat([halves, halves], dim=1)[:, : LENGTH + 1])


def loss(model: Any, items: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The sum of token losses, and the number of tokens beside it."""
    tokens = torch.stack(items)
    total, losses = summed_loss(model, tokens[:, :-1], tokens[:, 1:])
    return total, {"tokens": torch.tensor(float(losses.numel()))}


def train(trainer: Trainer, step_seconds: float = 0.0, spike: int = -1) -> dict[str, Any]:
    """Trains to the end, each step at least so long, with a loss fifty times as large at step `spike`; losses, norms and batches (as hashes) of the steps
    taken, and a hash of the weights."""
    losses, norms, items = [], [], []

    def spiked(model: Any, items: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        total, sums = loss(model, items)
        return total * 50, sums

    for step in trainer.steps():
        items.append(hashlib.sha256(torch.stack(batch_of(step)).numpy().tobytes()).hexdigest())
        result = trainer.step(batch_of(step), spiked if step == spike else loss, denominator=GLOBAL_BATCH * LENGTH)
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        losses.append(result.loss)
        norms.append(result.grad_norm)
        time.sleep(step_seconds)
    weights = dict(trainer.weights())
    digest = hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights.values())).hexdigest()
    return {"losses": losses, "norms": norms, "weights": digest, "sums": {n: float(w.double().sum()) for n, w in weights.items()},
            "norm_of_weights": {n: float(w.double().norm()) for n, w in weights.items()}, "resumed": trainer.start_step,
            "items": items, "updates": trainer._updates}


def launch(work: Path, steps: int, profile: ClusterProfile, precision: str = "fp32", ranks: int = 1, on_spike: str = "mark",
           spike: int = -1) -> list[subprocess.Popen[str]]:
    """Starts this file as a program on `ranks` ranks; the first process is rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(ranks):
        environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
                                    "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen([sys.executable, __file__, str(work), str(steps), profile.model_dump_json(), precision, on_spike,
                                         str(spike)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return started


def outcome(started: list[subprocess.Popen[str]]) -> dict[str, Any]:
    """Waits for the ranks and returns what rank 0 printed; raises where one failed."""
    texts = [process.communicate(timeout=300)[0] for process in started]
    for process, text in zip(started, texts, strict=True):
        assert process.returncode == 0, text
    found: dict[str, Any] = json.loads(texts[0].strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = make_trainer(Path(sys.argv[1]), int(sys.argv[2]), ClusterProfile.model_validate_json(sys.argv[3]), sys.argv[4], on_spike=sys.argv[5])
    done = train(made, spike=int(sys.argv[6]))
    if made.ranks.first:
        print(json.dumps(done))
    dist.destroy_process_group()  # else gloo's threads may still be at work when the process ends, which aborts it (one start in about ten under load)
