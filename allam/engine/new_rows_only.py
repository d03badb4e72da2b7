"""A first phase that trains only the new rows of the embeddings, before the rest of the model moves (paper §2.2: new rows from old ones).

Gradients are cut where they arrive at a parameter, before DeepSpeed adds them up, so that the phase is the same under every ZeRO stage and needs no other
set of trainable parameters afterwards. With a gradient of zero, moments of zero and no weight decay, AdamW leaves a value as it is, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class NewRowsFirst:
    """The first `steps` steps train the rows from `first_row` on of the input and output embeddings, and nothing else."""

    first_row: int
    steps: int


class OnlyNewRows:
    """Cuts the gradients of `model` while `on`."""

    def __init__(self, model: PreTrainedModel, first_row: int) -> None:
        self.on = False
        embeddings = [m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings()) if isinstance(m, (nn.Embedding, nn.Linear))]
        for parameter in model.parameters():
            parameter.register_hook(self._cut(first_row if any(parameter is one for one in embeddings) else None))

    def _cut(self, first_row: int | None) -> Callable[[Tensor], Tensor | None]:
        def cut(gradient: Tensor) -> Tensor | None:
            if not self.on:
                return None
            if first_row is None:
                return torch.zeros_like(gradient)
            kept = gradient.clone()
            kept[:first_row] = 0
            return kept

        return cut
