"""What the pretraining stages of a plan will take, for `allam plan`: tokens, FLOPs, device hours, energy, CO2.

The sizes of vocabularies are known for certain only once the tokenizers are made: an imported base tokenizer counts as Llama 2's 32,000 pieces, or,
where it is a `tokenizer.json`, as Llama 3's 128,256; the merged one counts as the sum of both, which counts the pieces that they share twice.
"""

from __future__ import annotations

from allam.cluster import ClusterProfile
from allam.pipeline import Plan
from allam.train.config import PretrainStageConfig
from allam.train.estimate import Estimate, estimate

LLAMA_2_PIECES, LLAMA_3_PIECES = 32_000, 128_256


def training_costs(plan: Plan, profile: ClusterProfile) -> dict[str, Estimate]:
    """The estimate of each pretraining stage, by the stage's name."""
    pieces = vocabularies(plan)
    return {spec.name: estimate(spec.config.model, pieces[spec.inputs["tokenizer"]], spec.config.phase.sequence_length, spec.config.phase.tokens, profile)
            for spec in plan.specs.values() if isinstance(spec.config, PretrainStageConfig)}


def vocabularies(plan: Plan) -> dict[str, int]:
    """Pieces of the tokenizers that models are trained with, by the stage that makes them."""
    tokenizer = plan.recipe.tokenizer
    imported = LLAMA_3_PIECES if str(tokenizer.base.model).endswith(".json") else LLAMA_2_PIECES
    base = tokenizer.base.vocab_size if tokenizer.base.model is None else imported
    return {"base_tokenizer": base, "merged_tokenizer": base + tokenizer.arabic.vocab_size}
