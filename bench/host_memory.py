"""Peak memory of a rank until it holds its share of a model: one whose values are read as each rank takes its share, beside one loaded whole on each.

    python -m bench.host_memory [--quick]      a Llama of 302M parameters (bf16 files) on four ranks, CPU, gloo; from after the imports on

Measured where DeepSpeed takes over, whose gradient buffers and optimizer state come next and lie on the device. Here that is the host, too, so the figures
hold the rank's share of the weights, which with GPUs they would not.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import deepspeed
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from allam.cluster import ClusterProfile
from allam.engine.model import load_model
from allam.engine.schedule import OptimizerSettings
from allam.engine.trainer import Trainer
from allam.engine.weights import open_model
from bench._harness import Row, arguments, finish

RANKS = 4
LAYOUTS = {"ZeRO-3": {"zero_stage": 3}, "TP2×PP2": {"tensor_parallel": 2, "pipeline_parallel": 2}}


def _peak() -> int:
    """Of this program alone: getrusage's would be the one's that started it, where that is larger."""
    [line] = [line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def start(folder: Path, work: Path, layout: str, how: str) -> None:
    """On a rank: prints the bytes by which its peak grew until it held its share."""
    before = _peak()

    def taken_over(**_: Any) -> None:
        print(_peak() - before, flush=True)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        raise SystemExit(0)

    deepspeed.initialize = taken_over
    model, weights = open_model(folder) if how == "shares" else (load_model(folder), None)
    profile = ClusterProfile.model_validate({"ranks": RANKS, "threads": 1, "device": "cpu", **LAYOUTS[layout]})
    work.mkdir(parents=True, exist_ok=True)
    Trainer(model, OptimizerSettings(learning_rate=1e-4), precision="fp32", global_batch=RANKS, total_steps=1, work=work, profile=profile, weights=weights)


def measure(folder: Path, work: Path, layout: str, how: str) -> float:
    """Megabytes of the rank that takes most."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = os.environ | {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench.host_memory", str(folder), str(work), layout, how]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(RANKS)]
    told = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise RuntimeError(f"a rank of {layout} failed")
    return max(int(text.strip().splitlines()[-1]) for text in told) / 1e6


def main() -> None:
    given = arguments(__doc__ or "", rounds=3)
    width, layers = (64, 2) if given.quick else (1024, 16)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = LlamaConfig(vocab_size=32_000, hidden_size=width, intermediate_size=width * 4, num_hidden_layers=layers, num_attention_heads=16,
                             num_key_value_heads=4, tie_word_embeddings=False)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(root / "model", max_shard_size="200MB")
        rows = []
        for layout in LAYOUTS:
            found: dict[str, list[float]] = {"shares": [], "whole": []}
            for i in range(given.rounds):
                for how, values in found.items():
                    values.append(measure(root / "model", root / f"{layout}-{how}-{i}", layout, how))
            rows.append(Row(f"{layout}: peak of a rank until it holds its share", "MB", found["shares"], found["whole"], "the model loaded whole on each rank",
                            "lower"))
    finish("host_memory", rows, ["torch", "deepspeed", "transformers", "safetensors"], given.quick)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 5:
        start(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    else:
        main()
