"""What training will take before it starts: parameters, FLOPs, device hours, days, energy and CO2, in plain Python, for `allam plan`.

FLOPs of a token are 6 for each parameter that multiplies (the input embedding only looks up), forward and backward, and 12·L·H·S/2 for causal
attention over S positions in L layers whose heads are H wide together (PaLM, appendix B, halved since a token sees half the positions on average).
A forward pass alone, as of DPO's reference, is a third.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from allam.cluster import ClusterProfile
from allam.train.config import ModelConfig

HOURS_A_DAY = 24


@dataclass(frozen=True)
class Dimensions:
    """What the costs of a model of Llama's kind depend on; `head_size` is the width of one head."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    tied_embeddings: bool

    @classmethod
    def of(cls, shape: ModelConfig) -> Dimensions:
        """Of a recipe's model."""
        return cls(shape.hidden_size, shape.layers, shape.heads, shape.kv_heads, shape.hidden_size // shape.heads, shape.intermediate_size,
                   shape.tied_embeddings)


@dataclass(frozen=True)
class Estimate:
    """One training stage. Energy holds the devices and the site's overhead (PUE), not hosts and networks. `assumes` says how the tokens are known, where
    the recipe doesn't give them."""

    parameters: int
    tokens: int
    flops: float
    device_hours: float
    days: float
    kwh: float
    kg_co2: float
    assumes: str = ""


def parameters(shape: Dimensions, vocab_size: int) -> int:
    """All parameters of a Llama of this shape: embeddings, attention, gated feed-forward, norms."""
    matrices = 1 if shape.tied_embeddings else 2
    return matrices * vocab_size * shape.hidden_size + shape.layers * _block(shape) + shape.hidden_size


def parameters_of_a_rank(shape: Dimensions, vocab_size: int, tensor: int, pipeline: int) -> int:
    """Those of the rank that holds most: its stage's blocks, of which each of `tensor` ranks has a part, and the embeddings, which are whole on the first
    and on the last stage."""
    if tensor * pipeline == 1:
        return parameters(shape, vocab_size)
    matrices = 1 if shape.tied_embeddings or pipeline > 1 else 2
    return matrices * vocab_size * shape.hidden_size + math.ceil(shape.layers / pipeline) * math.ceil(_block(shape) / tensor)


def _block(shape: Dimensions) -> int:
    attention = 2 * shape.hidden_size * shape.head_size * (shape.heads + shape.kv_heads)
    return attention + 3 * shape.hidden_size * shape.intermediate_size + 2 * shape.hidden_size


def flops_per_token(shape: Dimensions, vocab_size: int, sequence_length: float) -> float:
    """Floating-point operations of one token, forward and backward; recomputed activations are not counted."""
    multiplying = shape.layers * _block(shape) + vocab_size * shape.hidden_size
    return 6.0 * multiplying + 6.0 * shape.layers * shape.heads * shape.head_size * sequence_length


def estimate(shape: Dimensions, vocab_size: int, sequence_length: float, tokens: int, profile: ClusterProfile, *, forward_tokens: float = 0.0,
             assumes: str = "") -> Estimate:
    """What training `tokens`, and passing `forward_tokens` forward alone, takes under a profile's peak, utilisation, power, PUE and carbon intensity."""
    flops = flops_per_token(shape, vocab_size, sequence_length) * (tokens + forward_tokens / 3)
    device_hours = flops / (profile.peak_tflops * 1e12 * profile.utilisation) / 3600
    kwh = device_hours * profile.device_watts / 1000 * profile.pue
    return Estimate(parameters=parameters(shape, vocab_size), tokens=tokens, flops=flops, device_hours=device_hours, assumes=assumes,
                    days=device_hours / profile.ranks / HOURS_A_DAY, kwh=kwh, kg_co2=kwh * profile.kg_co2_per_kwh)
