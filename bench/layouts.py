"""What is learned in each parallel layout beside one rank: losses of 30 steps and final weights, gloo on the CPU, fp32, the same global batch.

    python -m bench.layouts [--quick]            all layouts of docs/training.md (--quick: one of each kind); ours is the difference, peer the tolerance
    python -m bench.layouts WORK RUNS_JSON       runs of one's own, for the tests: [{"name", "profile", "model", "objective", ...}]

The losses' difference is the largest relative one of any step. The weights' is the norm of the difference over the norm, and the largest difference
over the largest weight, each of the parameter where it is largest. Ranks are forked from one process, so that a layout of eight starts in a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from allam.align.dpo import Pair, preference_loss, reference
from allam.align.examples import Example
from allam.align.sft import masked_loss
from allam.cluster import ClusterProfile
from allam.engine.bits_per_byte import bits_per_byte
from allam.engine.choices import log_likelihoods, question
from allam.engine.loss import document_positions, token_losses
from allam.engine.new_rows_only import NewRowsFirst
from allam.engine.schedule import OptimizerSettings
from allam.engine.trainer import Trainer
from allam.engine.weights import open_model
from bench._harness import Row, arguments, finish

STEPS, GLOBAL_BATCH, LENGTH, VOCAB, BOS = 30, 8, 16, 64, 1
LOSSES, WEIGHTS, LARGEST = 1e-5, 5e-4, 1e-3  # tolerances
LAYOUTS = {  # ranks, tensor, pipeline, ZeRO
    "DP2": (2, 1, 1, 0), "ZeRO-1": (2, 1, 1, 1), "ZeRO-2": (2, 1, 1, 2), "ZeRO-3": (2, 1, 1, 3), "TP2": (2, 2, 1, 0), "PP2": (2, 1, 2, 0),
    "DP2×TP2": (4, 2, 1, 0), "DP2×PP2": (4, 1, 2, 0), "TP2×PP2": (4, 2, 2, 0), "DP2×TP2×PP2": (8, 2, 2, 0),
    "DP2×TP2, ZeRO-3": (4, 2, 1, 3), "DP2×PP2, ZeRO-2": (4, 1, 2, 2), "DP2×TP2×PP2, ZeRO-1": (8, 2, 2, 1),
}
QUICK = ("ZeRO-2", "TP2", "PP2")
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
SETTINGS = OptimizerSettings(learning_rate=1e-2, schedule="cosine", warmup_steps=2, weight_decay=0.1, clip_norm=0.5)


def profile_of(ranks: int, tensor: int, pipeline: int, zero_stage: int, micro_batch: int = 2) -> ClusterProfile:
    """A profile of this layout on CPUs."""
    return ClusterProfile(ranks=ranks, threads=1, device="cpu", micro_batch=micro_batch, checkpoint_seconds=1e6, zero_stage=zero_stage,
                          tensor_parallel=tensor, pipeline_parallel=pipeline)


def config_of(model: str) -> PretrainedConfig:
    """Three blocks, so that two stages of a pipeline are unequal."""
    made: dict[str, Callable[[], PretrainedConfig]] = {
        "llama": lambda: LlamaConfig(**SHAPE, num_hidden_layers=3, tie_word_embeddings=False),
        "llama, tied": lambda: LlamaConfig(**SHAPE, num_hidden_layers=3, tie_word_embeddings=True),
        "llama, biases": lambda: LlamaConfig(**SHAPE, num_hidden_layers=3, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
        "qwen2": lambda: Qwen2Config(**SHAPE, num_hidden_layers=3, tie_word_embeddings=False),  # biases of queries, keys and values
        "qwen3": lambda: Qwen3Config(**SHAPE, num_hidden_layers=3, head_dim=8, tie_word_embeddings=False),  # norms of queries and keys
    }
    return made[model]()


def model_of(config: PretrainedConfig) -> PreTrainedModel:
    """The same weights each time; norms and biases not at their ones and zeros, where mistakes would hide."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def batch_of(step: int) -> list[Tensor]:
    """Half of each sequence repeats, so that there is something to learn, and documents begin within."""
    generator = torch.Generator().manual_seed(1000 + step)
    halves = torch.randint(2, VOCAB, (GLOBAL_BATCH, LENGTH // 2 + 1), generator=generator)
    halves[:, 0] = BOS
    return list(torch.cat([halves, halves], dim=1)[:, : LENGTH + 1])


def pretraining(model: PreTrainedModel, items: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of token losses, attention kept within documents."""
    tokens = torch.stack(items)
    ids = tokens[:, :-1]
    losses = token_losses(model, ids, tokens[:, 1:], positions_BT=document_positions(ids, BOS))
    return losses.sum(), {"tokens": torch.tensor(float(losses.numel()))}


def _example(tokens: Tensor, length: int) -> Example:
    return Example(tokens[:length].tolist(), [0] * 4 + [1] * (length - 4))


def items_of(objective: str, step: int) -> tuple[list[Any], float]:
    """The global batch of a step and its denominator; SFT's and DPO's are of several lengths."""
    rows = batch_of(step)
    if objective == "pretraining":
        return rows, GLOBAL_BATCH * LENGTH
    examples = [_example(row, 8 + i) for i, row in enumerate(rows)]
    if objective == "sft":
        return examples, sum(e.trained_tokens for e in examples)
    return [Pair(e, _example(row.flip(0), 9 + i), -20.0, -21.0) for i, (e, row) in enumerate(zip(examples, rows, strict=True))], GLOBAL_BATCH


class _Bytes:
    """Enough of a tokenizer for bits per byte and questions."""

    bos_id = BOS

    def encode_batch(self, texts: list[str], /) -> list[list[int]]:
        return [[2 + b % (VOCAB - 2) for b in text.encode()] for text in texts]


def train(work: Path, run: dict[str, Any], profile: ClusterProfile) -> dict[str, Any]:
    """Trains on this rank to the end, or saves after `stop` steps and leaves; rank 0 writes the weights."""
    objective = run.get("objective", "pretraining")
    loss = {"pretraining": pretraining, "sft": masked_loss, "dpo": preference_loss(0.1)}[objective]
    settings = replace(SETTINGS, learning_rate=SETTINGS.learning_rate / 10) if objective == "dpo" else SETTINGS  # else it is chaotic from step 8 on
    model, weights = model_of(config_of(run.get("model", "llama"))), None
    if run.get("from_files"):
        model.save_pretrained(work / f"base-{os.environ['RANK']}")
        model, weights = open_model(work / f"base-{os.environ['RANK']}")
    trainer = Trainer(model, settings, weights=weights, precision=run.get("precision", "fp32"), global_batch=GLOBAL_BATCH,
                      total_steps=run.get("steps", STEPS), work=work, profile=profile, on_spike="skip",
                      new_rows_first=NewRowsFirst(VOCAB // 2, run["new_rows_steps"]) if "new_rows_steps" in run else None)
    found: dict[str, Any] = {"resumed": trainer.start_step, "losses": [], "norms": [], "sums": [], "order": [], "skipped": []}

    def fifty_times(model: PreTrainedModel, items: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        total, sums = loss(model, items)
        return total * 50, sums

    for step in trainer.steps():
        items, denominator = items_of(objective, step)
        result = trainer.step(items, fifty_times if step == run.get("spike") else loss, denominator)
        found["skipped"] += [step] if result.answer else []
        trainer.log((step + 1) * GLOBAL_BATCH * LENGTH, LENGTH)
        found["losses"].append(result.loss)
        found["norms"].append(result.grad_norm)
        found["sums"].append(result.sums)
        found["order"].append(hashlib.sha256(torch.stack(batch_of(step)).numpy().tobytes()).hexdigest())
        if step + 1 == run.get("stop"):
            trainer.save(step + 1)
            break
    texts = ["in the beginning was the word", "في البدء كان الكلمة", "a", "the quick brown fox jumps over the lazy dog " * 3]
    found["bits_per_byte"] = bits_per_byte(trainer._zero.module, _Bytes(), texts, LENGTH, trainer.ranks, trainer.call)  # type: ignore[arg-type]
    asked = [question(_Bytes(), text, ["a", "the light", "كلمة"], 0, LENGTH) for text in texts]
    scores = log_likelihoods(trainer._zero.module, asked, trainer.ranks, trainer.call)  # type: ignore[arg-type]
    found["log_likelihoods"] = [score for choices in scores for score in choices]
    if objective == "dpo":
        found["reference"] = reference(trainer, trainer._zero.module, items_of(objective, 0)[0])  # type: ignore[arg-type]
    weights = dict(trainer.weights())
    if trainer.ranks.first:
        save_file(weights, work / "weights.safetensors")
        (work / "found.json").write_text(json.dumps(found))
    return found


def _rank(work: Path, run: dict[str, Any], profile: ClusterProfile, rank: int, port: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(profile.ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    train(work, run, profile)
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(work: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Does a run on forked ranks; returns what rank 0 found. Raises `RuntimeError` where one failed, and ends the others."""
    profile = ClusterProfile.model_validate(run["profile"])
    work.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [_forked(partial(_rank, work, run, profile, rank, port)) for rank in range(profile.ranks)]
    failed = False
    for _ in range(profile.ranks):
        ended, status = os.wait()
        ranks.remove(ended)
        if status and not failed:
            failed = True
            for other in ranks:
                os.kill(other, signal.SIGKILL)
    if failed:
        raise RuntimeError(f"a rank of {run.get('name', run['profile'])} failed; what it said stands above")
    found: dict[str, Any] = json.loads((work / "found.json").read_text())
    return found


def _forked(function: Callable[[], None]) -> int:
    if pid := os.fork():
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def differences(one: Path, other: Path) -> dict[str, float]:
    """Of two runs' losses and weights, as the module's docstring says."""
    losses = [json.loads((work / "found.json").read_text())["losses"] for work in (one, other)]
    whole, same = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    if whole.keys() != same.keys():
        raise RuntimeError(f"the weights have other names: {sorted(whole.keys() ^ same.keys())}")
    return {"losses": max(abs(a - b) / a for a, b in zip(losses[0][-len(losses[1]):], losses[1], strict=True)),
            "weights": max(float((whole[n] - same[n]).norm() / whole[n].norm()) for n in whole),
            "largest": max(float((whole[n] - same[n]).abs().max() / whole[n].abs().max()) for n in whole)}


def main() -> None:
    given = arguments(__doc__ or "")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        on_ranks(root / "one", {"profile": profile_of(1, 1, 1, 0).model_dump(mode="json")})
        for layout in QUICK if given.quick else LAYOUTS:
            on_ranks(root / layout, {"name": layout, "profile": profile_of(*LAYOUTS[layout]).model_dump(mode="json")})
            found = differences(root / "one", root / layout)
            rows += [Row(f"{layout}: {what}", "of one rank's", [found[what]], [tolerance], "tolerance", "lower", 1.0)
                     for what, tolerance in (("losses", LOSSES), ("weights", WEIGHTS), ("largest", LARGEST))]
    finish("layouts", rows, ["torch", "deepspeed", "transformers"], given.quick)
    if beyond := [row.metric for row in rows if row.ours[0] > row.peer[0]]:
        raise SystemExit(f"beyond the tolerance: {', '.join(beyond)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        for run in json.loads(sys.argv[2]):
            on_ranks(Path(sys.argv[1]) / run.get("folder", run["name"]), run)
    else:
        main()
