"""A model laid out over the ranks: which part of each parameter this rank holds, and whole parameters by name whatever the layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from allam import architectures
from allam.cluster import ClusterProfile
from allam.engine import pipeline, tensor_parallel
from allam.engine.device import Ranks
from allam.engine.groups import Groups, make_groups
from allam.engine.weights import Weights
from allam.errors import UserError
from allam.layouts import Shape, refusal


@dataclass(frozen=True)
class Layout:
    """Where the model's trained parameters are. `shapes` are those of the whole model, in its order, the same on every rank."""

    ranks: Ranks
    shapes: dict[str, torch.Size]
    groups: Groups | None = None  # None where each rank holds the whole model
    stages: dict[str, int] | None = None
    dimensions: dict[str, int] | None = None

    def part(self, name: str, whole: Tensor) -> Tensor:
        """What this rank holds of a parameter of its stage."""
        if self.groups is None or self.dimensions is None or name not in self.dimensions:
            return whole
        return tensor_parallel.part_of(whole, self.dimensions[name], self.groups)

    def read(self, weights: Weights, name: str) -> Tensor:
        """The same from the model's files, of which no more is read than this."""
        dimension = (self.dimensions or {}).get(name)
        return weights.part(name, dimension, self.ranks.tensor, self.ranks.part)

    def whole(self, name: str, part: Tensor | None) -> Tensor:
        """The whole parameter from what its stage's ranks hold, fp32, on every rank; collective. `part` is None on other stages' ranks."""
        if self.groups is None or self.stages is None or self.dimensions is None:
            assert part is not None
            return part
        if part is not None and name in self.dimensions:
            part = tensor_parallel.whole_of(part, self.dimensions[name], self.groups)
        if self.ranks.pipeline > 1:
            part = torch.empty(self.shapes[name], device=self.ranks.device) if part is None else part.contiguous()
            dist.broadcast(part, self.groups.neighbour(self.stages[name] - self.ranks.stage), group=self.groups.onward)
        assert part is not None
        return part


def refuse(model: PreTrainedModel, profile: ClusterProfile) -> None:
    """Raises `UserError` where the model is of an unknown type, or can't be laid out as the profile says."""
    if unknown := architectures.refusal(model.config.to_dict()):
        raise UserError(*unknown)
    shape = Shape.of_config(model.config.to_dict())
    if found := refusal(shape, profile):
        raise UserError(*found)


def lay_out(model: PreTrainedModel, ranks: Ranks) -> Layout:
    """Leaves this rank its part of the model, in place; collective."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters() if parameter.requires_grad}
    if ranks.tensor * ranks.pipeline == 1:
        return Layout(ranks, shapes)
    groups = make_groups(ranks)
    dimensions = tensor_parallel.divide(model, groups) if ranks.tensor > 1 else {}
    stages = pipeline.cut(model, groups) if ranks.pipeline > 1 else dict.fromkeys(shapes, 0)
    return Layout(ranks, shapes, groups, stages, dimensions)
