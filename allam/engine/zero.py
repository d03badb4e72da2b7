"""A model and AdamW under DeepSpeed, with every parameter's fp32 weight and moments reachable by name, whatever the ZeRO stage.

That is what makes checkpoints free of the layout: DeepSpeed's own hold one rank's flat partitions, and its loader unpickles.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

os.environ.setdefault("DS_SKIP_CUDA_CHECK", "1")  # no op of DeepSpeed's own is compiled here
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.runtime.utils import combine_grad_norm_groups, get_global_norm_of_tensors, is_model_parallel_parameter
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)

from allam.engine.device import quiet_libraries
from allam.engine.layout import Layout
from allam.engine.schedule import OptimizerSettings
from allam.engine.weights import Weights

MOMENTS = ("exp_avg", "exp_avg_sq")
LARGEST_BUCKET = 500_000_000  # DeepSpeed's default, elements


class _Calls(nn.Module):
    """Runs any function of the model inside DeepSpeed's forward, where its hooks gather partitioned parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(self.model, *args)


class _Parameters(nn.Module):
    """In the place of a module, whose parameters DeepSpeed takes one by one."""

    def __init__(self, parameters: Iterator[nn.Parameter]) -> None:
        super().__init__()
        self._arriving = parameters

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """They come once."""
        return self._arriving


class ZeroModel:
    """`model`, in fp32 on the CPU or with its values still in `weights`, in DeepSpeed's hands on the rank's device: forward, backward, clipped
    AdamW steps, and fp32 state by parameter name."""

    def __init__(self, model: nn.Module, settings: OptimizerSettings, *, precision: str, zero_stage: int, micro_steps: int, layout: Layout,
                 offload: bool = False, weights: Weights | None = None) -> None:
        self.module, self.layout, self.clip_norm = model, layout, settings.clip_norm
        ranks = layout.ranks
        self.names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._read = None if weights is None else partial(layout.read, weights)
        masters = {name: p.detach() for name, p in self.names.items()} if precision == "bf16" and self._read is None else {}  # the model's own, on the CPU
        # DeepSpeed has no stage 0 that adds bf16 gradients up in fp32; stage 1 does the same arithmetic
        self.stage = max(1, zero_stage) if precision == "bf16" else zero_stage
        self._own_clipping = self.stage == 0  # DeepSpeed clips fp32 without ZeRO but doesn't tell the norm
        quiet_libraries()
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else compiled at the first start: 30 s, and a compiler needed
        config = self._config(precision, micro_steps, ranks.replicas, offload)
        optimizer = _adamw(self.names, settings)  # before ZeRO-3 takes the parameters' shapes
        self._place(model, torch.bfloat16 if precision == "bf16" else torch.float32, config)
        self.engine, *_ = deepspeed.initialize(
            model=_Calls(model), optimizer=optimizer, dist_init_required=False, mpu=layout.groups, config=config)
        self._decays = [group["weight_decay"] for group in self.engine.optimizer.param_groups]
        self._make_moments()
        self._refuse: Callable[[float], bool] | None = None
        self._refused: float | None = None  # the norm of a step that was refused
        self._let_steps_be_refused()
        for name, parameter in self.names.items() if precision == "bf16" else ():
            safe_set_full_fp32_param(parameter, (self._read(name) if self._read else masters[name]).to(ranks.device))

    def _place(self, model: nn.Module, dtype: torch.dtype, config: dict[str, Any]) -> None:
        """Moves the model to the rank's device; under ZeRO-3 parameter by parameter, each leaving its share there: it never lies there whole."""
        device, groups = self.layout.ranks.device, self.layout.groups
        arriving = self._arrive(model)
        if self.stage < 3:
            for parameter in arriving:
                parameter.data = parameter.data.to(device)
            model.to(device)
            return
        sizes = ("train_batch_size", "gradient_accumulation_steps")  # it would count ranks that share a replica as more data
        deepspeed.zero.Init(module=_Parameters(arriving), data_parallel_group=None if groups is None else groups.get_data_parallel_group(), dtype=dtype,
                            config_dict_or_path={key: value for key, value in config.items() if key not in sizes}, mpu=groups)
        for buffer in model.buffers():
            buffer.data = buffer.data.to(device)

    def _arrive(self, model: nn.Module) -> Iterator[nn.Parameter]:
        """The parameters one after the other, each with its values, which are read only now where the model came without."""
        for name, parameter in model.named_parameters():
            if self._read is not None:
                parameter.data = self._read(name)
            yield parameter

    def _config(self, precision: str, micro_steps: int, replicas: int, offload: bool) -> dict[str, Any]:
        config: dict[str, Any] = {
            "train_batch_size": micro_steps * replicas,  # in DeepSpeed's eyes; the sequences of a micro-batch are ours to count
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": micro_steps,
            "gradient_clipping": 0.0 if self._own_clipping else self.clip_norm,
            "steps_per_print": None,
            "wall_clock_breakdown": False,
            "communication_data_type": "fp32",
            "zero_optimization": {"stage": self.stage, "overlap_comm": False,
                                  # a buffer of so many elements is made at once: DeepSpeed's own default takes 2 GB for the smallest model
                                  "reduce_bucket_size": min(LARGEST_BUCKET, sum(p.numel() for p in self.names.values()))},
        }
        if offload:
            config["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": self.layout.ranks.device.type == "cuda"}
            config["zero_force_ds_cpu_optimizer"] = False  # DeepSpeed's own is compiled at the first start; torch's steps on CPUs, too
        if precision == "bf16":
            config |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
        return config

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)` inside the engine's forward."""
        return self.engine(function, *args)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of `loss` (already divided by whatever it is to be divided by) to the step's."""
        self.engine.backward(loss, scale_wrt_gas=False)

    def update(self, learning_rate: float, refuse: Callable[[float], bool] | None = None, *, decays: bool = True) -> tuple[float, bool]:
        """Ends a micro-step; after the last one of a step, clips and takes AdamW's step, unless the gradient is no number or `refuse`, given its norm
        before clipping, says so (alike on all ranks): then weights and moments stay as they are. Weights decay unless `decays` is false. Returns the
        norm (0 within a step) and whether the step was refused.
        """
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()
            return 0.0, False
        for group, decay in zip(self.engine.optimizer.param_groups, self._decays, strict=True):
            group["lr"], group["weight_decay"] = learning_rate, decay if decays else 0.0
        self._refuse, self._refused = refuse, None
        if self._own_clipping:
            norm = self._clip()
            if not math.isfinite(norm) or (refuse is not None and refuse(norm)):
                self._refused = norm
                for parameter in self.names.values():
                    parameter.grad = None  # AdamW passes over such parameters
        self.engine.step()
        if self._refused is not None:
            return self._refused, True
        return norm if self._own_clipping else float(self.engine.get_global_grad_norm()), False

    def _clip(self) -> float:
        """The norm of the whole gradient, which is scaled down to `clip_norm` where it is larger."""
        groups, norm = self.layout.groups, nn.utils.get_total_norm([p.grad for p in self.names.values() if p.grad is not None])
        if groups is not None:
            counted = [p.grad for p in self.names.values() if p.grad is not None and (groups.ranks.part == 0 or is_model_parallel_parameter(p))]
            square = nn.utils.get_total_norm(counted).square().to(self.layout.ranks.device)
            dist.all_reduce(square, group=groups.replica)
            norm = square.sqrt()
        nn.utils.clip_grads_with_norm_(self.names.values(), self.clip_norm, norm)
        return float(norm)

    def _let_steps_be_refused(self) -> None:
        """DeepSpeed's ZeRO leaves out a step whose norm is no number. That way is taken for refused steps, too: it is told that the norm is none."""
        optimizer = self.engine.optimizer
        if hasattr(optimizer, "get_grads_for_norm"):  # DeepSpeed's own optimizer for bf16 under stage 1
            take_step = optimizer.step

            def step(*args: Any, **more: Any) -> None:
                if self._refuse is None or not self._is_refused(get_global_norm_of_tensors(optimizer.get_grads_for_norm()[0], mpu=optimizer.mpu)):
                    take_step(*args, **more)
                    return
                optimizer.overflow = True
                optimizer.clear_hp_grads()
                optimizer.clear_lp_grads()

            optimizer.step = step
        elif self.stage in (1, 2):
            whole_norm = optimizer.scaled_global_norm

            def whole(*args: Any, **more: Any) -> Tensor:
                norm: Tensor = whole_norm(*args, **more)
                return torch.full_like(norm, math.nan) if self._is_refused(norm) else norm

            optimizer.scaled_global_norm = whole
        elif self.stage == 3:
            norms_by_group = optimizer._get_norm_groups

            def by_group() -> list[Tensor]:
                norms: list[Tensor] = norms_by_group()
                return [torch.full_like(norms[0], math.nan)] if self._is_refused(combine_grad_norm_groups(norms)) else norms

            optimizer._get_norm_groups = by_group

    def _is_refused(self, found: Tensor) -> bool:
        if self._refuse is None:
            return False
        norm = float(found)
        if math.isfinite(norm) and self._refuse(norm):
            self._refused = norm
        return self._refused is not None

    # --- state by name ---------------------------------------------------------------------------------------------------------

    def _base(self) -> torch.optim.Optimizer:
        """torch's AdamW below whatever DeepSpeed wraps around it."""
        optimizer = self.engine.optimizer
        return optimizer if self.stage == 0 else optimizer.optimizer  # type: ignore[no-any-return]

    def _flat_parameters(self) -> list[Tensor]:
        if self.stage == 3:
            return list(self.engine.optimizer.fp32_partitioned_groups_flat)
        return [p for group in self._base().param_groups for p in group["params"]]

    def _make_moments(self) -> None:
        """AdamW makes its state at the first step; a checkpoint has to be loaded before."""
        state = self._base().state
        for flat in self._flat_parameters():
            state[flat] = {"step": torch.zeros((), dtype=torch.float32, device=flat.device),
                           **{key: torch.zeros_like(flat, memory_format=torch.preserve_format) for key in MOMENTS}}
        if self.stage in (1, 2):
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """`weight/<name>`, `exp_avg/<name>`, `exp_avg_sq/<name>` in fp32 on the CPU. Collective: every rank walks it to the end."""
        for name in self.layout.shapes:
            parameter = self.names.get(name)
            found: list[Tensor | None]
            if parameter is None:  # another stage's
                found = [None, None, None]
            elif self.stage == 0:
                kept = self._base().state[parameter]
                found = [parameter.detach(), *(kept[key] for key in MOMENTS)]
            else:
                found = [safe_get_full_fp32_param(parameter), *(safe_get_full_optimizer_state(parameter, key) for key in MOMENTS)]
            for kind, value in zip(("weight", *MOMENTS), found, strict=True):
                part = None if value is None else value.to(self.layout.ranks.device, torch.float32).reshape(self.shape(name))
                yield f"{kind}/{name}", self.layout.whole(name, part).to("cpu")

    def shape(self, name: str) -> torch.Size:
        """The shape of what the layout leaves this rank of a parameter (ZeRO-3 leaves an empty tensor in its place)."""
        parameter = self.names[name]
        return parameter.ds_shape if hasattr(parameter, "ds_shape") else parameter.shape  # type: ignore[no-any-return]

    @torch.no_grad()
    def load(self, step: int, tensors: Callable[[str], Tensor]) -> None:
        """Sets weights and moments from `tensors(key)`, keys as `state` names them, and AdamW's count of steps."""
        for name, parameter in self.names.items():
            values = {kind: self.layout.part(name, tensors(f"{kind}/{name}")).to(self.layout.ranks.device) for kind in ("weight", *MOMENTS)}
            if self.stage == 0:
                parameter.copy_(values["weight"])
                for key in MOMENTS:
                    self._base().state[parameter][key].copy_(values[key])
                continue
            safe_set_full_fp32_param(parameter, values["weight"])
            for key in MOMENTS:
                safe_set_full_optimizer_state(parameter, values[key], key)
        for flat in self._flat_parameters():
            self._base().state[flat]["step"].fill_(step)
        self._refresh()

    def _refresh(self) -> None:
        """Copies the fp32 masters into the weights that the forward pass uses."""
        optimizer = self.engine.optimizer
        if self.stage == 3:
            for i in range(len(optimizer.fp16_groups)):
                optimizer._reassign_or_swap_out_partitioned_parameters(i)
        elif self.stage != 0:
            optimizer.update_lp_params()


def _adamw(names: dict[str, nn.Parameter], settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW that decays matrices (embeddings among them, as Llama does) and leaves norms and biases alone."""
    matrices = [p for p in names.values() if p.ndim >= 2]
    vectors = [p for p in names.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, betas=(settings.beta1, settings.beta2),
                             eps=settings.epsilon, fused=True)
