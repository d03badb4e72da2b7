"""Which parallel layouts a model and a cluster profile allow. One that can't be had is refused with the reason and the nearest one that can.

Data parallelism and ZeRO take any model that is trained at all (allam/architectures.py) and any number of ranks. Tensor parallelism divides attention
heads and the feed-forward layer, pipeline parallelism the blocks; both need to know the architecture (allam/engine/tensor_parallel.py and pipeline.py).
Asked before anything is submitted (allam/fits.py) and again by the engine, which knows an imported model's shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from allam.cluster import ClusterProfile

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")  # those that tests/engine/test_layouts.py holds to one rank, by transformers' names


@dataclass(frozen=True)
class Shape:
    """What a layout depends on."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    tied_embeddings: bool

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Shape:
        """From the content of a model's config.json; other architectures than ours may name these fields otherwise."""
        heads = config.get("num_attention_heads", 1)
        return cls(str(config.get("model_type")), config.get("num_hidden_layers", 1), heads, config.get("num_key_value_heads") or heads,
                   config.get("intermediate_size", 1), bool(config.get("tie_word_embeddings", False)))


def refusal(shape: Shape, profile: ClusterProfile) -> tuple[str, str] | None:
    """Why the profile's layout can't be had for a model of this shape, and the nearest one that can; None where it can."""
    tensor, pipeline = profile.tensor_parallel, profile.pipeline_parallel
    if tensor * pipeline == 1:
        return None
    if shape.architecture not in ARCHITECTURES:
        return (f"tensor_parallel and pipeline_parallel know {', '.join(ARCHITECTURES)}, and this model is {shape.architecture!r}",
                "set both to 1 and zero_stage to 3 in the cluster profile, which divides the weights of any model")
    common = math.gcd(shape.heads, shape.kv_heads, shape.intermediate_size)
    if common % tensor:
        return (f"tensor_parallel {tensor} doesn't divide the model's {shape.heads} heads, {shape.kv_heads} key and value heads and intermediate size "
                f"{shape.intermediate_size} alike", f"set tensor_parallel to {_nearest(tensor, common, profile.ranks // pipeline)} in the cluster profile")
    if pipeline > shape.layers:
        fewer = max(p for p in range(1, shape.layers + 1) if profile.ranks // tensor % p == 0)
        return (f"pipeline_parallel {pipeline} asks for more stages than the model has blocks ({shape.layers})",
                f"set pipeline_parallel to {fewer} in the cluster profile")
    if pipeline > 1 and shape.tied_embeddings:
        return ("pipeline_parallel puts the input and the output embeddings on different ranks, and this model's are one matrix",
                f"set pipeline_parallel to 1{' and zero_stage to 3' if tensor == 1 else ''} in the cluster profile")
    if pipeline > 1 and profile.zero_stage == 3:
        return ("DeepSpeed's zero_stage 3 asks all ranks to run the same blocks, and the stages of a pipeline run different ones",
                "set zero_stage to 2 in the cluster profile, or pipeline_parallel to 1")
    return None


def batch_refusal(global_batch: int, ranks: int, replicas: int) -> tuple[str, str]:
    """What to say where a batch doesn't divide by the copies of the model."""
    if ranks == replicas:
        return (f"global_batch {global_batch} doesn't divide by the {ranks} ranks",
                f"set ranks in the cluster profile to a divisor of {global_batch}, or change global_batch in the recipe")
    return (f"global_batch {global_batch} doesn't divide by the {replicas} copies of the model ({ranks} ranks, {ranks // replicas} to a copy)",
            f"set ranks in the cluster profile to {ranks // replicas} times a divisor of {global_batch}, or change global_batch in the recipe")


def _nearest(wanted: int, common: int, ranks: int) -> int:
    """The divisor of both numbers that lies nearest to `wanted`, the smaller of two."""
    return min((n for n in range(1, common + 1) if common % n == 0 and ranks % n == 0), key=lambda n: (abs(n - wanted), n))
