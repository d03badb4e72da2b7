"""AdamW's settings, and its learning rate as a pure function of the step, so that a resumed run needs no state for it (paper §2.2, C.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["constant", "cosine", "linear", "wsd"]
WSD_DECAY_SHARE = 0.1  # of all steps, at the end: 10 to 20% are usual (MiniCPM, arXiv 2404.06395)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule; the fields of the recipe's `optimizer` sections."""

    learning_rate: float
    schedule: ScheduleName = "constant"
    final_learning_rate: float = 0.0
    warmup_steps: int = 0
    state_warmup_steps: int = 0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float = 1.0


def learning_rate(settings: OptimizerSettings, step: int, total_steps: int) -> float:
    """The learning rate of step number `step` (from 0) of `total_steps`.

    It is 0 for `state_warmup_steps`, in which only Adam's moments grow; then the schedule begins. Warm-up rises linearly and reaches the peak at its
    last step; cosine and linear reach the final rate at the last step.
    """
    peak, final = settings.learning_rate, settings.final_learning_rate
    if step < settings.state_warmup_steps:
        return 0.0
    step, total_steps = step - settings.state_warmup_steps, total_steps - settings.state_warmup_steps
    if step < settings.warmup_steps:
        return peak * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return peak
    start = settings.warmup_steps
    if settings.schedule == "wsd":
        start = max(start, total_steps - 1 - max(1, round(WSD_DECAY_SHARE * total_steps)))  # the last step at the peak
    if step < start:
        return peak
    done = min(1.0, (step - start) / max(1, total_steps - 1 - start))
    if settings.schedule == "cosine":
        return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done))
    return peak + (final - peak) * done
