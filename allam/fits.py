"""Whether a cluster profile can train what a plan asks for, before anything runs or is submitted: the batch and the ranks, and the memory of a device."""

from __future__ import annotations

from collections.abc import Iterable

from allam.align.config import DpoConfig, SftConfig
from allam.cluster import ClusterProfile
from allam.costs import vocabularies
from allam.pipeline import Plan, StageSpec
from allam.train.config import PhaseConfig, PretrainStageConfig
from allam.train.estimate import parameters


def misfits(plan: Plan, profile: ClusterProfile, specs: Iterable[StageSpec]) -> list[str]:
    """What the profile cannot do of the stages, one sentence each with its remedy; empty where all fits."""
    found = list[str]()
    for spec in specs:
        trained = spec.config.phase if isinstance(spec.config, PretrainStageConfig) else spec.config
        if not isinstance(trained, (PhaseConfig, SftConfig, DpoConfig)):
            continue
        if trained.global_batch % profile.ranks:
            found.append(f"{spec.name}: global_batch {trained.global_batch} doesn't divide by the {profile.ranks} ranks of the profile {profile.name!r}: "
                         f"set ranks to a divisor of {trained.global_batch}, or change global_batch in the recipe")
        count = parameters(plan.recipe.train.model, vocabularies(plan)[spec.inputs["tokenizer"]])
        held = state_bytes(count, trained.precision, profile) / 1e9
        if profile.device_memory_gb is not None and held > profile.device_memory_gb:
            found.append(f"{spec.name}: weights, gradients and optimizer take {held:.3g} GB of each device (ZeRO {profile.zero_stage}, {profile.ranks} ranks), "
                         f"without activations, and the profile {profile.name!r} says that it has {profile.device_memory_gb:g}: "
                         "raise zero_stage or ranks in the profile, or take a smaller model")
    return found


def state_bytes(count: int, precision: str, profile: ClusterProfile) -> float:
    """Bytes of a rank for `count` parameters: weights in the precision, gradients in fp32, and AdamW's two moments in fp32 with, in bf16 or under ZeRO, an
    fp32 master copy. ZeRO 1 divides the optimizer's part by the ranks, 2 also gradients, 3 also weights (Rajbhandari et al. 2020)."""
    stage = max(1, profile.zero_stage) if precision == "bf16" else profile.zero_stage  # as allam/engine/zero.py does
    weights, gradients, optimizer = (2.0 if precision == "bf16" else 4.0), 4.0, (12.0 if stage else 8.0)
    divided = [part / (profile.ranks if stage >= least else 1) for part, least in ((weights, 3), (gradients, 2), (optimizer, 1))]
    return count * sum(divided)
