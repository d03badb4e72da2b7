"""One optimizer step of a small Llama in fp32 on the CPU: allam's Trainer against a bare PyTorch loop (paper §2.2, 2.3).

    python -m bench.train_step [--quick] [--rounds 5]

Both take the same steps from the same weights on the same batches: forward, backward, clipping at a norm of 1, fused AdamW, decay of matrices
only, cosine schedule, one thread. The peer is what one would write by hand, with nothing around it: logits of the whole batch,
`cross_entropy`, `clip_grad_norm_`, `AdamW(fused=True)`. Ours goes through DeepSpeed, micro-batches (one here, as in the peer), checks for
numbers that are not finite, deterministic algorithms and a line of metrics a step. Neither writes a checkpoint while it is timed.
A second row has the Trainer with `compile_blocks` beside the Trainer without, from the second step on (the first compiles).
The losses of all steps must agree to a relative 1e-4; the rounds go on with the training, so they compare whole courses. Speed is by processor time, which
is the clock's where the thread has a core for itself.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

from allam.cluster import ClusterProfile
from allam.engine.loss import summed_loss
from allam.engine.model import new_model
from allam.engine.schedule import OptimizerSettings, learning_rate
from allam.engine.trainer import Trainer
from bench._harness import Row, arguments, finish, in_turn

SEQUENCES, LENGTH = 64, 256  # 16,384 tokens a step
STEPS = {True: 1, False: 2}  # timed in a round, by `quick`
WARM_UP = 1
THREADS = 1
SETTINGS = OptimizerSettings(learning_rate=1e-3, schedule="cosine", warmup_steps=2, weight_decay=0.1)
TOLERANCE = 1e-4
CONFIG = LlamaConfig(vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
                     tie_word_embeddings=False, max_position_embeddings=LENGTH)


def batch_of(step: int) -> Tensor:
    """The batch of a step, [SEQUENCES, LENGTH + 1]: a noisy counting, so that there is something to learn."""
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(0, CONFIG.vocab_size, (SEQUENCES, 1), generator=generator)
    noise = torch.randint(0, 2, (SEQUENCES, LENGTH + 1), generator=generator)
    return (starts + torch.arange(LENGTH + 1) + noise) % CONFIG.vocab_size


def loss(model: PreTrainedModel, items: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of token losses, as the pretraining stage makes it."""
    tokens_BT = torch.stack(items)
    return summed_loss(model, tokens_BT[:, :-1], tokens_BT[:, 1:])[0], {}


class Ours:
    """The Trainer, a step at a time."""

    def __init__(self, work: Path, total_steps: int, compiled: bool = False) -> None:
        work.mkdir()
        self.trainer = Trainer(new_model(CONFIG, seed=0), SETTINGS, precision="fp32", global_batch=SEQUENCES, total_steps=total_steps, work=work,
                               profile=ClusterProfile(threads=THREADS, device="cpu", micro_batch=SEQUENCES, checkpoint_seconds=1e9,
                                                      compile_blocks=compiled))
        self.steps = self.trainer.steps()
        self.losses: list[float] = []

    def take(self, steps: int) -> float:
        """Tokens a second of processor time over the next `steps`."""
        torch.use_deterministic_algorithms(True, warn_only=True)  # the Trainer's own setting; the peer runs without it
        start = time.process_time()
        for _ in range(steps):
            step = next(self.steps)
            self.losses.append(self.trainer.step(list(batch_of(step)), loss, denominator=SEQUENCES * LENGTH).loss)
            self.trainer.log((step + 1) * SEQUENCES * LENGTH, LENGTH)
        return steps * SEQUENCES * LENGTH / (time.process_time() - start)


class Bare:
    """The loop that one would write by hand."""

    def __init__(self, total_steps: int) -> None:
        self.model: Any = new_model(CONFIG, seed=0).train()
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": SETTINGS.weight_decay},
             {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}],
            lr=SETTINGS.learning_rate, betas=(SETTINGS.beta1, SETTINGS.beta2), eps=SETTINGS.epsilon, fused=True)
        self.total_steps = total_steps
        self.losses: list[float] = []

    def take(self, steps: int) -> float:
        """Tokens a second of processor time over the next `steps`."""
        torch.use_deterministic_algorithms(False)
        start = time.process_time()
        for step in range(len(self.losses), len(self.losses) + steps):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(SETTINGS, step, self.total_steps)
            tokens_BT = batch_of(step)
            logits_BTV = self.model(input_ids=tokens_BT[:, :-1], use_cache=False).logits
            value = F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten())
            value.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), SETTINGS.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(value.item())
        return steps * SEQUENCES * LENGTH / (time.process_time() - start)


def check_losses(ours: list[float], peer: list[float], name: str) -> None:
    """Leaves with an error where the two courses part; `name` is the peer's."""
    for step, (a, b) in enumerate(zip(ours, peer, strict=True)):
        if abs(a - b) > TOLERANCE * abs(b):
            raise SystemExit(f"step {step + 1}: our loss is {a}, {name}'s {b}")
    most = max(abs(a - b) / abs(b) for a, b in zip(ours, peer, strict=True))
    print(f"losses of {len(ours)} steps agree with {name}'s to {most:.1e}: {peer[0]:.4f} to {peer[-1]:.4f}")


def main() -> None:
    given = arguments(__doc__ or "")
    steps = STEPS[given.quick]
    total = WARM_UP + given.rounds * steps
    with tempfile.TemporaryDirectory() as folder:
        ours, bare = Ours(Path(folder) / "work", total), Bare(total)
        ours.take(WARM_UP)
        bare.take(WARM_UP)
        measured = in_turn(given.rounds, lambda: ours.take(steps), lambda: bare.take(steps))
        check_losses(ours.losses, bare.losses, "the bare loop")
        plain, compiled = Ours(Path(folder) / "plain", total), Ours(Path(folder) / "compiled", total, compiled=True)
        plain.take(WARM_UP)
        compiled.take(WARM_UP)
        compared = in_turn(given.rounds, lambda: compiled.take(steps), lambda: plain.take(steps))
        check_losses(compiled.losses, plain.losses, "the Trainer without compile_blocks")
    millions = sum(p.numel() for p in bare.model.parameters()) / 1e6
    what = f"training, {millions:.1f}M parameters, fp32, {SEQUENCES * LENGTH:,} tokens a step, processor time"
    finish("train_step", [Row(what, "tokens/s", *measured, peer_name="bare PyTorch", better="higher", target=0.97),
                          Row("the same with compile_blocks", "tokens/s", *compared, peer_name="without", better="higher")],
           ["torch", "deepspeed", "transformers"], given.quick)


if __name__ == "__main__":
    main()
