"""The measurements of `allam preflight`, on the ranks that a training stage would have (paper §G quotes its cluster's all-reduce).

Run by allam/worker.py like a training stage: through the same launcher, job script, container and modules, so that what stops a training stops this
first. Writes `preflight.json`: a row a rank, the links between neighbouring nodes, the all-reduce, and what is wrong in words.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from allam.artifacts import WORK, write_json
from allam.engine.device import Ranks, join, quiet_libraries
from allam.preflight.config import PreflightConfig
from allam.preflight.verdict import problems
from allam.progress import Progress

ROUNDS = 5  # of each exchange; the best counts, since the first sets up connections
MATRIX = {"cuda": 8192, "cpu": 1024}  # rows of the square matrices
LINK_BYTES = 1 << 26


def run(config: PreflightConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Measures and judges; returns the number of ranks, nodes and problems. The problems don't fail the stage: the command says them."""
    quiet_libraries()
    ranks = join()
    control = dist.new_group(backend="gloo")  # small exchanges of Python objects, whatever carries the tensors
    facts = _facts()
    with Progress("measurements", total=5, what="preflight") as progress:
        facts["clock_skew_s"] = _clock_skew(ranks, control)
        progress.update(1)
        nodes = _gather(facts["node"], ranks, control)
        facts |= _storage(config, ranks, nodes, out, control)
        progress.update(1)
        facts["compute_tflops"] = _compute(config.compute_seconds, ranks.device)
        progress.update(1)
        all_reduce = [_all_reduce(size, ranks) for size in config.all_reduce_bytes]
        progress.update(1)
        links = _links(ranks, nodes, control)
        progress.update(1)
    rows = _gather(facts, ranks, control)
    dist.barrier(control)
    found = problems(rows, links, config)
    if ranks.first:
        write_json(out / "preflight.json", {"ranks": rows, "links": links, "all_reduce": all_reduce, "problems": found})
    return {"ranks": ranks.world_size, "nodes": len(set(nodes)), "problems": len(found)}


def _gather(value: Any, ranks: Ranks, control: Any) -> list[Any]:
    gathered: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(gathered, value, group=control)
    return gathered


def _facts() -> dict[str, Any]:
    """What this rank runs on: names and versions that must be the same everywhere, and memory."""
    facts: dict[str, Any] = {
        "rank": int(os.environ["RANK"]), "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "python": platform.python_version(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "cpus": os.cpu_count(), "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "free_memory_gb": round(psutil.virtual_memory().available / 1e9, 1)}
    for package in ("deepspeed", "transformers", "allam"):
        facts[package] = importlib.metadata.version(package)
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        facts |= {"gpu": device.name, "gpus": torch.cuda.device_count(), "gpu_memory_gb": round(device.total_memory / 1e9, 1), "driver": _driver()}
    return facts


def _driver() -> str | None:
    """The NVIDIA driver's version, as the kernel module gives it."""
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _clock_skew(ranks: Ranks, control: Any) -> float:
    """Seconds by which this rank's clock is ahead of rank 0's, from the quickest of some exchanges (Cristian 1989)."""
    skew = 0.0
    for other in range(1, ranks.world_size):
        best = float("inf")
        for _ in range(ROUNDS):
            if ranks.rank == 0:
                clock = torch.zeros(1, dtype=torch.float64)
                dist.recv(clock, src=other, group=control)
                dist.send(torch.tensor([time.time()], dtype=torch.float64), dst=other, group=control)
            elif ranks.rank == other:
                answer, asked = torch.zeros(1, dtype=torch.float64), time.time()
                dist.send(torch.zeros(1, dtype=torch.float64), dst=0, group=control)
                dist.recv(answer, src=0, group=control)
                took = time.time() - asked
                if took < best:
                    best, skew = took, asked + took / 2 - float(answer.item())
    return skew


def _leaders(nodes: list[str]) -> list[int]:
    """The first rank of each node, in the order of the nodes."""
    return [rank for rank, node in enumerate(nodes) if nodes.index(node) == rank]


def _storage(config: PreflightConfig, ranks: Ranks, nodes: list[str], out: Path, control: Any) -> dict[str, Any]:
    """Each node's first rank writes a file below the store and reads the next node's: MB/s, and whether the store is shared at all."""
    leaders = _leaders(nodes)
    mine = out / WORK / f"probe-{ranks.rank}.bin"
    facts: dict[str, Any] = {}
    block = (ranks.rank % 251).to_bytes(1, "big") * min(1 << 22, config.storage_bytes)
    if ranks.rank in leaders:
        try:
            facts |= {"write_mb_s": _write(mine, block, config.storage_bytes), "free_store_gb": round(shutil.disk_usage(out).free / 1e9, 1)}
        except OSError as error:
            facts["storage_error"] = f"cannot write to the store at {out}: {error}"
    dist.barrier(control)
    if ranks.rank in leaders:
        other = leaders[(leaders.index(ranks.rank) + 1) % len(leaders)]
        try:
            facts["read_mb_s"] = _read(mine.with_name(f"probe-{other}.bin"), other % 251, config.storage_bytes)
        except OSError as error:
            facts.setdefault("storage_error", f"cannot read what {nodes[other]} wrote to the store at {out}, which every node must see: {error}")
    dist.barrier(control)
    mine.unlink(missing_ok=True)
    return facts


def _write(path: Path, block: bytes, size: int) -> float:
    path.parent.mkdir(parents=True, exist_ok=True)
    start, left = time.monotonic(), size
    with open(path, "wb") as file:
        while left > 0:
            left -= file.write(block[:left])
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # or a lone node would read its own memory
    return size / 1e6 / (time.monotonic() - start)


def _read(path: Path, byte: int, size: int) -> float:
    start, seen = time.monotonic(), 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 22):
            if block.count(byte) != len(block):
                raise OSError(f"{path.name} holds other bytes than were written")
            seen += len(block)
    if seen != size:
        raise OSError(f"{path.name} has {seen} bytes, {size} were written")
    return size / 1e6 / (time.monotonic() - start)


def _compute(seconds: float, device: torch.device) -> float:
    """TFLOP/s of matrix products, bf16 on a GPU and fp32 on a CPU; all ranks at once, as in training."""
    rows = MATRIX[device.type]
    left = torch.ones(rows, rows, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
    right, products = left.clone(), 0

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic()

    torch.matmul(left, right)
    start = finished()
    while (now := finished()) - start < seconds:
        for _ in range(4):
            torch.matmul(left, right)
        products += 4
    return products * 2 * rows**3 / (now - start) / 1e12


def _all_reduce(size: int, ranks: Ranks) -> dict[str, Any]:
    """The sum of a tensor over all ranks. Bus bandwidth as nccl-tests has it: bytes over time, times 2 (n - 1) / n."""
    tensor = torch.zeros(max(1, size // 4), device=ranks.device)
    best = min(_timed(lambda: dist.all_reduce(tensor), ranks) for _ in range(ROUNDS))
    return {"bytes": size, "seconds": best, "bus_gb_s": size / best * 2 * (ranks.world_size - 1) / ranks.world_size / 1e9}


def _timed(exchange: Any, ranks: Ranks) -> float:
    ranks.barrier()
    start = time.monotonic()
    exchange()
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
    return time.monotonic() - start


def ring(leaders: list[int]) -> tuple[list[tuple[int, int]], list[list[tuple[int, int]]]]:
    """The pairs of neighbours in a ring, and the same in phases in which no rank is in two pairs."""
    count = len(leaders)
    pairs = [(leaders[i], leaders[(i + 1) % count]) for i in range(count if count > 2 else count - 1)]
    even = len(pairs) - len(pairs) % 2
    return pairs, [pairs[:even:2], pairs[1:even:2], pairs[even:]]


def _links(ranks: Ranks, nodes: list[str], control: Any) -> list[dict[str, Any]]:
    """GB/s between the first ranks of neighbouring nodes, to and fro."""
    pairs, phases = ring(_leaders(nodes))
    measured: dict[int, float] = {}
    for phase in phases:
        dist.barrier(control)
        for a, b in phase:
            if ranks.rank in (a, b):
                rate = _exchange(b if ranks.rank == a else a, ranks.rank == a, ranks.device)
                if ranks.rank == a:
                    measured[pairs.index((a, b))] = rate
    gathered = {index: rate for part in _gather(measured, ranks, control) for index, rate in part.items()}
    return [{"nodes": [nodes[a], nodes[b]], "gb_s": gathered[i]} for i, (a, b) in enumerate(pairs)]


def _exchange(peer: int, sends_first: bool, device: torch.device) -> float:
    tensor = torch.zeros(LINK_BYTES // 4, device=device)
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.monotonic()
        for sends in (sends_first, not sends_first):
            if sends:
                dist.send(tensor, dst=peer)
            else:
                dist.recv(tensor, src=peer)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.monotonic() - start)
    return 2 * LINK_BYTES / best / 1e9
