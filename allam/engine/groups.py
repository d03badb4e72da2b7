"""The groups of ranks that a parallel layout talks in: the same part of the model (data), a divided layer (tensor), a pipeline, a whole replica.

`Groups` is at the same time what DeepSpeed calls an mpu: asked by these names, it reduces gradients and divides optimizer state within `data` only,
and adds the squares of the gradient's norm over a replica, counting what all parts hold alike once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from allam.engine.device import GROUP_TIMEOUT, Ranks


@dataclass(frozen=True)
class Groups:
    """This rank's groups; `onward` and `back` are the pipeline's, one for each direction, so that neither waits for the other."""

    ranks: Ranks
    data: Any
    tensor: Any
    replica: Any
    onward: Any
    back: Any

    def neighbour(self, step: int) -> int:
        """The rank with this part of this replica `step` stages on."""
        return self.ranks.rank + step * self.ranks.replicas * self.ranks.tensor

    def get_model_parallel_rank(self) -> int:
        """For DeepSpeed: on 0 the gradients count that all parts hold alike, whatever the stage."""
        return self.ranks.part

    def get_model_parallel_world_size(self) -> int:
        """For DeepSpeed: ranks of a replica."""
        return self.ranks.tensor * self.ranks.pipeline

    def get_model_parallel_group(self) -> Any:
        """For DeepSpeed: a replica, over which norms and overflows are shared."""
        return self.replica

    def get_data_parallel_rank(self) -> int:
        """For DeepSpeed."""
        return self.ranks.replica

    def get_data_parallel_world_size(self) -> int:
        """For DeepSpeed."""
        return self.ranks.replicas

    def get_data_parallel_group(self) -> Any:
        """For DeepSpeed: the ranks that hold the same part of the model."""
        return self.data

    def get_data_parallel_group_ranks(self) -> list[int]:
        """For DeepSpeed."""
        return dist.get_process_group_ranks(self.data)


def make_groups(ranks: Ranks) -> Groups:
    """Makes the groups of a layout; collective, once a process."""
    stages, replicas, parts = range(ranks.pipeline), range(ranks.replicas), range(ranks.tensor)

    def rank(stage: int, replica: int, part: int) -> int:
        return (stage * ranks.replicas + replica) * ranks.tensor + part

    def mine(of_all: list[list[int]]) -> Any:
        return dist.new_subgroups_by_enumeration(of_all, timeout=GROUP_TIMEOUT)[0]

    pipelines = [[rank(s, r, p) for s in stages] for r in replicas for p in parts]
    return Groups(ranks, data=mine([[rank(s, r, p) for r in replicas] for s in stages for p in parts]),
                  tensor=mine([[rank(s, r, p) for p in parts] for s in stages for r in replicas]),
                  replica=mine([[rank(s, r, p) for s in stages for p in parts] for r in replicas]), onward=mine(pipelines), back=mine(pipelines))
