"""Tensor parallelism for transformers' models (Shoeybi et al. 2019): each rank holds some attention heads and a part of the feed-forward layer.

Which layers are divided says the architecture's own plan in transformers (`base_model_tp_plan`): projections into heads and into the feed-forward
layer by rows of their matrices ("colwise"), those out of them by columns ("rowwise"). Their inputs are the same on all ranks of the group, whose
partial outputs are added up; so the residual stream, the norms, embeddings, output matrix and loss are whole and alike on each. Parameters that are
whole but see only this rank's heads (Qwen3's q/k norms) get the sum of the ranks' gradients.

Ours rather than DeepSpeed's AutoTP, which excludes ZeRO 3 while training and pipelines altogether; DeepSpeed learns of it by `Groups`.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from allam.engine.groups import Groups
from allam.engine.weights import is_without_values

ROWS, COLUMNS = 0, 1  # of a weight of shape [outputs, inputs]
SHARED_GRADIENT = "replicated_with_grad_allreduce"


class _Same(torch.autograd.Function):
    """The same input for all parts: nothing to do forward, gradients add up backward."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _added(gradient, ctx.group), None


class _Added(torch.autograd.Function):
    """The sum of all parts' outputs; its gradient is the same for each."""

    @staticmethod
    def forward(ctx: Any, partial: Tensor, group: Any) -> Tensor:
        return _added(partial, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def _added(tensor: Tensor, group: Any) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


class _ByColumns(nn.Linear):
    """A linear layer of which each rank holds some columns; the bias, whole on each, is added to the sum."""

    group: Any

    def forward(self, input: Tensor) -> Tensor:
        total: Tensor = _Added.apply(F.linear(input, self.weight), self.group)
        return total if self.bias is None else total + self.bias


def divide(model: PreTrainedModel, groups: Groups) -> dict[str, int]:
    """Leaves each rank its part of the model's layers, in place; returns the dimension by which each divided parameter is divided.

    The model must be one that `allam.layouts.refusal` lets pass.
    """
    plan: dict[str, str] = model.config.base_model_tp_plan or {}
    prefix, divided, readers = f"{model.base_model_prefix}.", dict[str, int](), dict[str, nn.Module]()
    for name, module in list(model.named_modules()):
        style = plan.get(re.sub(r"\.\d+\.", ".*.", name.removeprefix(prefix)))
        if style == "colwise":
            assert isinstance(module, nn.Linear)
            for parameter in module._parameters:
                if module._parameters[parameter] is not None:
                    divided[f"{name}.{parameter}"] = ROWS
            parent = name.rpartition(".")[0]
            readers[parent] = model.get_submodule(parent)
        elif style == "rowwise":
            assert isinstance(module, nn.Linear)
            divided[f"{name}.weight"] = COLUMNS
            module.__class__ = _ByColumns
            module.group = groups.tensor
        elif style == SHARED_GRADIENT:
            for parameter in module.parameters():
                parameter.register_hook(lambda gradient: _added(gradient, groups.tensor))
    for name, dimension in divided.items():
        _keep_part(model, name, dimension, groups)
    for reader in readers.values():
        _share_input(reader, groups.tensor)
    return divided


def _keep_part(model: nn.Module, name: str, dimension: int, groups: Groups) -> None:
    """Replaces a parameter by this rank's part of it, marked so that DeepSpeed counts each part's gradient in the norm."""
    parent, _, own = name.rpartition(".")
    module, whole = model.get_submodule(parent), model.get_parameter(name)
    value = whole.detach()
    of_shape = value.chunk(groups.ranks.tensor, dimension)[groups.ranks.part] if is_without_values(value) else part_of(value, dimension, groups)
    part = nn.Parameter(of_shape, requires_grad=whole.requires_grad)
    part.tensor_model_parallel = True  # type: ignore[attr-defined]
    setattr(module, own, part)


def part_of(whole: Tensor, dimension: int, groups: Groups) -> Tensor:
    """This rank's part of a whole parameter, a copy."""
    return whole.chunk(groups.ranks.tensor, dimension)[groups.ranks.part].clone(memory_format=torch.contiguous_format)


def whole_of(part: Tensor, dimension: int, groups: Groups) -> Tensor:
    """The whole of which each rank of the group gives a part; collective."""
    parts = [torch.empty_like(part) for _ in range(groups.ranks.tensor)]
    dist.all_gather(parts, part.contiguous(), group=groups.tensor)
    return torch.cat(parts, dimension)


def _share_input(reader: nn.Module, group: Any) -> None:
    """Makes a module's hidden states the shared input of the divided layers inside, so that their gradients are added up once."""

    def share(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if positional:
            return (_Same.apply(positional[0], group), *positional[1:]), named
        return positional, named | {"hidden_states": _Same.apply(named["hidden_states"], group)}

    reader.register_forward_pre_hook(share, with_kwargs=True)
