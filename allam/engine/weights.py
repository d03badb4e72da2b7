"""A model whose values stay in its files until a rank takes its share of them, so that no rank's host ever holds it whole.

    model, weights = open_model(folder)       # the model's shapes, with values that take no memory
    Trainer(model, ..., weights=weights)      # lays the shapes out, and reads tensor by tensor what the layout leaves this rank

From a divided layer (tensor parallelism) only this rank's rows or columns are read, of a pipeline only its blocks; under ZeRO-3 each tensor is read, shared
out and let go before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from allam.engine.model import load_config, load_model
from allam.layouts import ARCHITECTURES


class Weights:
    """The tensors of a model's files by name."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    self._files[name], self.shapes[name] = path, tuple(file.get_slice(name).get_shape())

    def part(self, name: str, dimension: int | None = None, parts: int = 1, number: int = 0) -> Tensor:
        """Part `number` of `parts` of a tensor along `dimension` (None: the whole of it), fp32, in memory of its own. Each call opens the file anew: pages
        that were read through an open one would count as this process's."""
        with safe_open(self._files[name], framework="pt") as file:
            if dimension is None or parts == 1:
                found = file.get_tensor(name)
            else:
                size = self.shapes[name][dimension] // parts
                here = slice(number * size, (number + 1) * size)
                found = file.get_slice(name)[here] if dimension == 0 else file.get_slice(name)[:, here]
            return found.to(torch.float32, copy=True, memory_format=torch.contiguous_format)  # type: ignore[no-any-return]


def open_model(folder: Path) -> tuple[PreTrainedModel, Weights | None]:
    """The model of `folder` in evaluation mode, and its values; None where they are in the model already, since transformers translates the tensors' names
    of that architecture, or files and configuration don't agree in a way that it knows to handle."""
    config = load_config(folder)
    if config.model_type in ARCHITECTURES:
        weights, model = Weights(folder), _shapes_of(config)
        if all(weights.shapes.get(name) == parameter.shape for name, parameter in model.named_parameters()):
            return model.eval(), weights
    return load_model(folder), None


def _shapes_of(config: PretrainedConfig) -> PreTrainedModel:
    """The model with parameters of one stored value each, as wide as they are, and with its buffers."""
    with _parameters_without_storage():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    made: dict[int, nn.Parameter] = {}  # tied ones stay one
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                made.setdefault(id(parameter), nn.Parameter(torch.zeros(()).expand(parameter.shape), requires_grad=parameter.requires_grad))
                module._parameters[name] = made[id(parameter)]
    return model


def is_without_values(tensor: Tensor) -> bool:
    """Whether it is one of `open_model`'s, a shape only."""
    return not any(tensor.stride())


@contextmanager
def _parameters_without_storage() -> Iterator[None]:
    """Within, each parameter loses its storage as soon as a module registers it, before anybody fills it. `torch.device("meta")` would take the buffers
    (the frequencies of positions), too, which stand in no file."""
    register = nn.Module.register_parameter

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            module._parameters[name] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    patched: Any = nn.Module
    patched.register_parameter = registered
    try:
        yield
    finally:
        patched.register_parameter = register
