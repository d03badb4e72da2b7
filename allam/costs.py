"""What the training stages of a plan will take, for `allam plan`: tokens, FLOPs, device hours, energy, CO2.

Pretraining's tokens are the recipe's; those of SFT and DPO are counted in the files of conversations (allam/align/foreseen.py), where they are here.

An imported model counts by its own config.json. The sizes of vocabularies are known for certain only once the tokenizers are made: an imported base
tokenizer that isn't here counts as Llama 2's 32,000 pieces, or, where it is a `tokenizer.json`, as Llama 3's 128,256; the merged one counts as the sum
of both, which counts the pieces that they share twice.
"""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from allam.align.config import CurateConfig, DpoConfig, ReviewConfig, SampleConfig, SftConfig
from allam.align.foreseen import Foreseen, accepted_prompts, dpo_tokens, sft_tokens
from allam.cluster import ClusterProfile
from allam.imported import trained_shape
from allam.pipeline import Plan, make_plan
from allam.recipe import load
from allam.section import FileRef
from allam.train.config import PretrainStageConfig
from allam.train.estimate import Estimate, estimate

LLAMA_2_PIECES, LLAMA_3_PIECES = 32_000, 128_256
PAPER_RECIPES = ("allam_7b", "allam_13b", "allam_70b", "allam_7b_scratch")


def training_costs(plan: Plan, profile: ClusterProfile) -> dict[str, Estimate]:
    """The estimate of each training stage, by the stage's name; SFT and DPO are left out where their files aren't here."""
    pieces, shape = vocabularies(plan), trained_shape(plan)
    found = dict[str, Estimate]()
    for spec in plan.specs.values():
        if isinstance(spec.config, PretrainStageConfig):
            found[spec.name] = estimate(shape, pieces[spec.inputs["tokenizer"]], spec.config.phase.sequence_length, spec.config.phase.tokens, profile)
        elif isinstance(spec.config, (SftConfig, DpoConfig)) and (foreseen := _foreseen(plan, spec.config)) is not None:
            reference = foreseen.tokens if isinstance(spec.config, DpoConfig) else 0.0  # passed forward once, and kept
            found[spec.name] = estimate(shape, pieces[spec.inputs["tokenizer"]], foreseen.mean_length, round(spec.config.epochs * foreseen.tokens), profile,
                                        forward_tokens=reference, assumes=foreseen.assumes)
    return found


def _foreseen(plan: Plan, config: SftConfig | DpoConfig) -> Foreseen | None:
    curate, sample, review = (plan.specs[name].config for name in ("curate", "sample", "review"))
    assert isinstance(curate, CurateConfig)
    assert isinstance(sample, SampleConfig)
    assert isinstance(review, ReviewConfig)
    try:
        if isinstance(config, SftConfig):
            return sft_tokens(_here(plan, curate.files), config, curate.max_conversations)
        decisions = _here(plan, review.files) if review.undecided == "drop" else []
        accepted = accepted_prompts(decisions) if decisions else None  # nobody has begun yet: as many as there are prompts
        return dpo_tokens(_here(plan, sample.files), config, sample, accepted)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):  # a file that can't be read: its own stage says so
        return None


def _here(plan: Plan, files: Iterable[FileRef]) -> list[Path]:
    return [path for ref in files if (path := plan.root / ref.path).is_file()]


def beside_the_paper(recipe: str, profile: ClusterProfile) -> str | None:
    """One line for the paper's own recipes: what all four take, beside the GPU hours of the paper's section G, and why they differ."""
    if recipe not in PAPER_RECIPES:
        return None
    plans = [make_plan(load(name)) for name in PAPER_RECIPES]
    hours = sum(cost.device_hours for plan in plans for name, cost in training_costs(plan, profile).items()
                if isinstance(plan.specs[name].config, PretrainStageConfig))
    return (f"the paper's four recipes take {hours:,.0f} device hours of pretraining on this profile; the paper names about 5 million GPU hours for all (G): "
            "lower utilisation, ablations, restarts and alignment make up the rest (docs/training.md)")


def vocabularies(plan: Plan) -> dict[str, int]:
    """Pieces of the tokenizers that models are trained with, by the stage that makes them."""
    tokenizer = plan.recipe.tokenizer
    assumed = LLAMA_3_PIECES if str(tokenizer.base.model).endswith(".json") else LLAMA_2_PIECES
    base = base_pieces(plan) or assumed
    return {"base_tokenizer": base, "merged_tokenizer": base + tokenizer.arabic.vocab_size}


def base_pieces(plan: Plan) -> int | None:
    """Pieces of the base tokenizer: the recipe's number, or those of the file to import; None where that isn't here or can't be read."""
    base = plan.recipe.tokenizer.base
    if base.model is None:
        return base.vocab_size
    given = plan.root / base.model
    path = next((p for p in (given / "tokenizer.model", given / "tokenizer.json") if p.is_file()), given)
    if not path.is_file():
        return None
    try:
        if path.suffix == ".json":
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return max(*data["model"]["vocab"].values(), *(token["id"] for token in data.get("added_tokens", ())), -1) + 1
        from sentencepiece import SentencePieceProcessor  # only where a plan imports such a tokenizer

        return int(SentencePieceProcessor(model_file=str(path)).vocab_size())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return None
