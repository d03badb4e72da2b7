"""Faster blocks, where a cluster profile asks for them: Liger's fused kernels for norms, rotary embeddings and SwiGLU (`fused_kernels: true`, on a GPU), and
torch.compile (`compile_blocks: true`).

The cross-entropy stays the engine's own (`allam/engine/loss.py`), which sums the losses and knows of domains, pipelines and split models. Liger changes classes
of transformers for the whole process, which trains and does nothing else with a model.
"""

from __future__ import annotations

import os
import shutil

import torch
from transformers import PreTrainedModel

from allam.errors import UserError


def use_fused_kernels(model: PreTrainedModel, device: torch.device) -> None:
    """Puts Liger's kernels in the places of a model's norms, rotary embeddings and feed-forward layers; its weights and their names stay.

    Raises `UserError` where there is no GPU, no Liger, or none of its kernels for this kind of model.
    """
    if device.type != "cuda":
        raise UserError(f"the cluster profile's fused_kernels need a GPU, and training runs on {device.type}", "set fused_kernels to false")
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN, _apply_liger_kernel_to_instance
    except ImportError:
        raise UserError("the cluster profile's fused_kernels need the package liger-kernel", "install allam[gpu], or set fused_kernels to false") from None
    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise UserError(f"Liger has no kernels for models of type {model.config.model_type!r}", "set the cluster profile's fused_kernels to false")
    _apply_liger_kernel_to_instance(model, rope=True, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False)


def compile_blocks(model: PreTrainedModel, device: torch.device) -> None:
    """Has torch.compile make one program of each block, forward and backward, when it is first used; weights and their names stay.

    Blocks alone, since they are alike, so that compiling takes the same for any depth. Raises `UserError` where there is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise UserError(f"the cluster profile's compile_blocks need a C++ compiler, and there is no {compiler}",
                        "install one (Debian's package g++), name yours in the environment variable CXX, or set compile_blocks to false")
    for block in model.modules():
        if type(block).__name__ in (model._no_split_modules or ()):
            block.compile()
