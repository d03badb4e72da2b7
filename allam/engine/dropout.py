"""Dropout for models that come without it, as Llama does (the paper's §2.2 and Figure 6 compare continued pretraining with and without).

It falls on what each block's attention and feed-forward add to the residual stream, and on the embeddings, as in the first Transformer. The
masks are a function of seed, step, micro-step and rank, so that a resumed run draws the same; another layout draws others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

BLOCK_PARTS = ("self_attn", "mlp")


def add_dropout(model: PreTrainedModel, share: float) -> None:
    """Drops `share` of the values while the model is in training mode. Raises `ValueError` where the model's blocks are not named as Llama's."""
    parts = [module for name, module in model.named_modules() if name.rpartition(".")[2] in BLOCK_PARTS]
    if not parts:
        raise ValueError(f"{type(model).__name__} has no modules named {' or '.join(BLOCK_PARTS)}: dropout can't be added to it")

    def drop(module: nn.Module, arguments: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        if not module.training:
            return output
        if isinstance(output, tuple):  # attention gives its weights beside the output
            return F.dropout(output[0], share), *output[1:]
        return F.dropout(output, share)

    for module in (model.get_input_embeddings(), *parts):
        module.register_forward_hook(drop)


def seed_masks(seed: int, step: int, micro_step: int, rank: int) -> None:
    """Sets torch's generators for the masks of one micro-batch."""
    torch.manual_seed(hash((seed, step, micro_step, rank)) & (2**63 - 1))  # of integers: the same in every process
