"""Which decoder-only models of transformers are trained, by the `model_type` of their config.json, and what is peculiar to them (paper §2.2 adapts Llama).

A type stands here once tests/engine/test_architectures.py has held the engine's loss to that of transformers' own class, its attention within packed
documents to documents by themselves, and its export to the engine's answers. Others are refused by name: a factor on the logits or a mask of its own
that nobody looked for would be learned wrong, silently. Plain Python, since a plan asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from allam.layouts import ARCHITECTURES


@dataclass(frozen=True)
class Architecture:
    """`inputs` and `outputs` are the names that the embeddings have in files, the first one being transformers' own; `logit_factor`, `logit_divisor` and
    `logit_cap` name the fields of config.json by which logits are multiplied, divided, and bent to stay below; `packs`: positions that begin again keep
    attention within a document."""

    inputs: tuple[str, ...] = ("model.embed_tokens.weight",)
    outputs: tuple[str, ...] = ("lm_head.weight",)
    logit_factor: str | None = None
    logit_divisor: str | None = None
    logit_cap: str | None = None
    packs: bool = True


_CAPPED, _SCALED = Architecture(logit_cap="final_logit_softcapping"), Architecture(logit_factor="logit_scale")
KNOWN = {
    **dict.fromkeys((*ARCHITECTURES, "arcee", "exaone4", "gemma", "glm", "glm4", "nemotron", "olmo", "olmo2", "olmo3", "phi", "phi3", "smollm3", "stablelm",
                     "starcoder2"), Architecture()),
    "cohere": _SCALED, "cohere2": _SCALED, "gemma2": _CAPPED, "gemma3_text": _CAPPED,
    "falcon": Architecture(("transformer.word_embeddings.weight",), packs=False),
    "gpt2": Architecture(("transformer.wte.weight", "wte.weight")),
    "gpt_neox": Architecture(("gpt_neox.embed_in.weight",), ("lm_head.weight", "embed_out.weight")),
    "granite": Architecture(logit_divisor="logits_scaling"),
    "opt": Architecture(("model.decoder.embed_tokens.weight",), packs=False),
}


def architecture_of(model_type: object) -> Architecture:
    """What is peculiar to a type; as Llama's where it isn't known."""
    return KNOWN.get(str(model_type), Architecture())


def refusal(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a model of this config.json can't be trained, and what can; None where it can."""
    kind = str(config.get("model_type"))
    if kind not in KNOWN:
        return (f"models of type {kind!r} are not among those that the engine is known to train rightly",
                f"give a decoder-only model of one of the types {', '.join(sorted(KNOWN))}")
    if kind == "falcon" and config.get("alibi"):
        return "this falcon places its tokens by ALiBi, which the engine was not tried with", "give one with rotary positions (alibi: false)"
    return None


def dropout_refusal(model_type: object) -> tuple[str, str] | None:
    """Why the recipe's dropout can't be had; None where it can."""
    if model_type in ARCHITECTURES:
        return None
    return (f"dropout is added where {', '.join(ARCHITECTURES)} add to the residual stream, and this model is {str(model_type)!r}", "set dropout to 0")


def packing_refusal(model_type: object) -> tuple[str, str] | None:
    """Why attention can't be kept within documents; None where it can."""
    if architecture_of(model_type).packs:
        return None
    return (f"transformers' {str(model_type)!r} doesn't keep attention within the documents of a packed sequence", "set attend_across_documents to true")
