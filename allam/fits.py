"""Whether a cluster profile can train what a plan asks for, before anything runs or is submitted: the batch and the ranks, the parallel layout and the
model's shape, an imported base's own rows, positions and tensors, and the memory of a device."""

from __future__ import annotations

from collections.abc import Iterable

from allam.align.config import DpoConfig, SftConfig
from allam.cluster import COMPILED_DROPOUT, ClusterProfile
from allam.costs import base_pieces, vocabularies
from allam.imported import config_of_import, import_misfits, trained_shape
from allam.layouts import Shape, batch_refusal, refusal
from allam.pipeline import Plan, StageSpec
from allam.train.config import PhaseConfig, PretrainStageConfig
from allam.train.estimate import parameters_of_a_rank


def misfits(plan: Plan, profile: ClusterProfile, specs: Iterable[StageSpec]) -> list[str]:
    """What the profile cannot do of the stages, one sentence each with its remedy, after the stages that it is true of; empty where all fits."""
    specs = list(specs)
    found, shape = import_misfits(plan, base_pieces(plan), specs), _shape(plan)
    for spec in specs:
        trained = spec.config.phase if isinstance(spec.config, PretrainStageConfig) else spec.config
        if not isinstance(trained, (PhaseConfig, SftConfig, DpoConfig)):
            continue
        if trained.global_batch % profile.replicas:
            problem, remedy = batch_refusal(trained.global_batch, profile.ranks, profile.replicas)
            found.append(f"{spec.name}: {problem} of the profile {profile.name!r}: {remedy}")
        if profile.compile_blocks and isinstance(trained, PhaseConfig) and trained.dropout:
            found.append(f"{spec.name}: {': '.join(COMPILED_DROPOUT)}")
        if shape is not None and (refused := refusal(shape, profile)):
            found.append(f"{spec.name}: {': '.join(refused)}")
        count = parameters_of_a_rank(trained_shape(plan), vocabularies(plan)[spec.inputs["tokenizer"]], profile.tensor_parallel,
                                     profile.pipeline_parallel)
        held = state_bytes(count, trained.precision, profile) / 1e9
        if profile.device_memory_gb is not None and held > profile.device_memory_gb:
            found.append(f"{spec.name}: weights, gradients and optimizer take {held:.3g} GB of each device (ZeRO {profile.zero_stage}, {profile.ranks} ranks, "
                         f"tensor_parallel {profile.tensor_parallel}, pipeline_parallel {profile.pipeline_parallel}), "
                         f"without activations, and the profile {profile.name!r} says that it has {profile.device_memory_gb:g}: "
                         "raise zero_stage, ranks or tensor_parallel in the profile, or take a smaller model")
    stages: dict[str, list[str]] = {}
    for line in found:
        name, _, told = line.partition(": ")
        stages.setdefault(told, []).append(name)
    return [f"{', '.join(names)}: {told}" for told, names in stages.items()]


def _shape(plan: Plan) -> Shape | None:
    """Of the model that is trained: the recipe's, or the imported one's where its folder is here; None where only the hub knows."""
    train = plan.recipe.train
    if train.import_model is None:
        model = train.model
        return Shape("llama", model.layers, model.heads, model.kv_heads, model.intermediate_size, model.tied_embeddings)
    config = config_of_import(plan)
    return None if config is None else Shape.of_config(config)


def state_bytes(count: int, precision: str, profile: ClusterProfile) -> float:
    """Bytes of a rank that holds `count` parameters: weights in the precision, gradients in fp32, and AdamW's two moments in fp32 with, in bf16 or under
    ZeRO, an fp32 master copy. ZeRO 1 divides the optimizer's part by the copies of the model, 2 also gradients, 3 also weights (Rajbhandari et al. 2020);
    `offload_optimizer` moves that part to the host."""
    stage = max(1, profile.zero_stage) if precision == "bf16" else profile.zero_stage  # as allam/engine/zero.py does
    weights, gradients, optimizer = (2.0 if precision == "bf16" else 4.0), 4.0, (0.0 if profile.offload_optimizer else 12.0 if stage else 8.0)
    divided = [part / (profile.replicas if stage >= least else 1) for part, least in ((weights, 3), (gradients, 2), (optimizer, 1))]
    return count * sum(divided)
