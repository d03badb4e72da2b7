"""The ranks, the device and the threads of a training or evaluation process: one call at the head of a stage, `join()`.

Under torchrun (RANK and WORLD_SIZE are set) the process joins the others; without it, it becomes the only rank of a group of its own on a free
port. gloo carries the group on CPUs, NCCL on GPUs. Threads are fixed and algorithms deterministic, since a resumed run must end with the same bits.
"""

from __future__ import annotations

import datetime
import logging
import os
import resource
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from allam.cluster import ClusterProfile, execution
from allam.errors import StageFailed, UserError

T = TypeVar("T")
GROUP_TIMEOUT = datetime.timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of its stage, and the device that it computes on.

    While a model is trained, `tensor` times `pipeline` ranks hold one copy of it, a replica: rank = (stage * replicas + replica) * tensor + part. Parts of
    one stage are neighbours, since they talk most, stages lie farthest apart. Each rank is a replica by itself where both are 1.
    """

    rank: int
    world_size: int
    device: torch.device
    tensor: int = 1
    pipeline: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes."""
        return self.rank == 0

    @property
    def replicas(self) -> int:
        """Copies of the model."""
        return self.world_size // (self.tensor * self.pipeline)

    @property
    def part(self) -> int:
        """Which part of each divided layer this rank holds."""
        return self.rank % self.tensor

    @property
    def replica(self) -> int:
        """Which copy of the model this rank belongs to."""
        return self.rank // self.tensor % self.replicas

    @property
    def stage(self) -> int:
        """Which stage of the pipeline this rank holds."""
        return self.rank // (self.tensor * self.replicas)

    @property
    def speaks(self) -> bool:
        """Whether this rank is the one whose losses count for its replica: the last stage has them, and each of its parts the same."""
        return self.part == 0 and self.stage == self.pipeline - 1

    def sum(self, values: list[float], everywhere: Sequence[float] = ()) -> list[float]:
        """The element-wise sum of `values` over the replicas and of `everywhere` over all ranks, one after the other (the same on each rank)."""
        if self.world_size == 1:
            return [*values, *everywhere]
        total = torch.tensor([*(v if self.speaks else 0.0 for v in values), *everywhere], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(v) for v in total.tolist()]

    def broadcast(self, value: object) -> object:
        """Rank 0's `value`, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's `value`, in the order of the ranks, on each."""
        if self.world_size == 1:
            return [value]
        box: list[Any] = [None] * self.world_size
        dist.all_gather_object(box, value)
        return box

    def barrier(self) -> None:
        """Waits until every rank is here."""
        if self.world_size > 1:
            dist.barrier()


def join(profile: ClusterProfile | None = None) -> Ranks:
    """Fixes threads and determinism, joins the process group (once a process) and says who we are.

    Raises `UserError` where the profile asks for CUDA and there is none.
    """
    profile = profile or execution()
    device = _device(profile)
    _fix_arithmetic(profile.threads, device)
    if not dist.is_initialized():
        _set_environment()
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=GROUP_TIMEOUT)
        except (RuntimeError, dist.DistError) as error:
            raise StageFailed(f"the ranks could not find each other at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {error}",
                              "run the same command again; on a cluster check that this address can be reached from every node") from None
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def compute_device(profile: ClusterProfile | None = None) -> torch.device:
    """For stages of a single process without a group (sampling, benchmarks): fixes threads and determinism and returns the device."""
    profile = profile or execution()
    device = _device(profile)
    _fix_arithmetic(profile.threads, device)
    return device


def _device(profile: ClusterProfile) -> torch.device:
    there = torch.cuda.is_available()
    if profile.device == "cuda" and not there:
        raise UserError(f"the cluster profile {profile.name!r} asks for device: cuda, and torch finds none here",
                        "set device: cpu or auto, or install a CUDA build of torch on a machine with a GPU")
    if profile.device == "cpu" or not there:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _fix_arithmetic(threads: int, device: torch.device) -> None:
    torch.set_num_threads(threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs a pass over every new tensor


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process has held so far: the device's on a GPU, else the resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _set_environment() -> None:
    """One rank of its own where torchrun gave none."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def quiet_libraries() -> None:
    """Leaves only warnings of the libraries below us: DeepSpeed alone prints about forty lines a start."""
    for name in ("DeepSpeed", "deepspeed", "transformers", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
