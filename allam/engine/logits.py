"""Logits as the model itself makes them, and the proof that a model of transformers is trained on its own loss.

The engine's losses go from the last hidden states to the output matrix by themselves (allam/engine/loss.py), so what a model does to its logits beyond
that has to be known: a factor (Cohere, Granite) or a soft cap (Gemma). allam/architectures.py names the fields; `check_own_loss` finds what nobody named.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from allam.architectures import architecture_of
from allam.errors import UserError

CHECKED_TOKENS = 48
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of the loss, relative: bf16 rounds the model's own logits before they are bent


@dataclass(frozen=True)
class LogitRule:
    """What becomes of the output matrix's products: times `factor`, then bent to stay within `cap`."""

    factor: float = 1.0
    cap: float | None = None

    def __call__(self, products: Tensor) -> Tensor:
        """The logits."""
        if self.factor != 1.0:
            products = products * self.factor
        return products if self.cap is None else torch.tanh(products / self.cap) * self.cap


def rule_of(config: PretrainedConfig) -> LogitRule:
    """The rule of a model's configuration."""
    known = architecture_of(config.model_type)
    factor, divisor, cap = (getattr(config, name, None) if name else None for name in (known.logit_factor, known.logit_divisor, known.logit_cap))
    return LogitRule((1.0 if factor is None else float(factor)) / (1.0 if divisor is None else float(divisor)), None if cap is None else float(cap))


def logits_of(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Logits in fp32, [..., vocabulary], of last hidden states [..., D]."""
    head: Any = model.get_output_embeddings()
    return rule_of(model.config)(head(states).float())


def silence_own_dropout(model: PreTrainedModel) -> None:
    """Sets the dropouts that come with a model (GPT-2's, Falcon's) to 0: only the recipe's is drawn from seed and step, as a resumed run needs. The model's
    own configuration, which is saved with it, stays; its modules get a copy, since Falcon's look there in the forward pass."""
    silent = copy.deepcopy(model.config) if _dropouts(model.config) else model.config
    for name in _dropouts(silent):
        setattr(silent, name, 0.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in _dropouts(module):
            setattr(module, name, 0.0)
        if module is not model and getattr(module, "config", None) is model.config:
            setattr(module, "config", silent)  # noqa: B010 - nn.Module declares no such attribute


def _dropouts(of: object) -> list[str]:
    return [name for name, value in vars(of).items() if isinstance(value, float) and value and "drop" in name]


@torch.no_grad()
def check_own_loss(model: PreTrainedModel, losses: Callable[[PreTrainedModel, Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The sums of the engine's `losses` and of the cross-entropy of the model's own logits, on ids from the whole vocabulary."""
    ids_BT = torch.linspace(0, model.config.vocab_size - 1, CHECKED_TOKENS, device=model.device).long().view(2, -1)
    own = model(input_ids=ids_BT[:, :-1], use_cache=False).logits.float()
    return losses(model, ids_BT[:, :-1], ids_BT[:, 1:]).sum(), F.cross_entropy(own.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="sum")


def refuse_another_loss(model_type: str, ours: Tensor, own: Tensor, dtype: torch.dtype) -> None:
    """Raises `UserError` where the two sums differ by more than rounding."""
    if abs(float(ours) - float(own)) > TOLERANCE[dtype] * abs(float(own)):
        raise UserError(f"the engine's loss of this {model_type} model, {float(ours):.6g}, is not that of its own logits, {float(own):.6g}: something in its "
                        "configuration does what the engine doesn't know, and it would be trained wrong", "give another model, or report its config.json")
