"""What the training stages need to know (paper §2.1 to 2.3, C.2, H). Imports pydantic and the standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from allam.items import BenchmarkConfig
from allam.section import DomainName, FileRef, HeldOut, Name, Section, assumed, paper, planned

ORDER_DOMAIN, PLAN = "order_domain.npy", "plan.json"  # of a mix
ComponentName = Literal["en", "ar", "ar_translated"]


def _must_sum_to_one(what: str, shares: Mapping[Any, float]) -> None:
    total = math.fsum(shares.values())
    if shares and abs(total - 1) > 5e-4:
        raise ValueError(f"{what} sum to {total:.4f}, not 1: change {', '.join(f'{k}={v:g}' for k, v in shares.items())}")
    if any(v < 0 for v in shares.values()):
        raise ValueError(f"{what} hold a negative share")


class ModelConfig(Section):
    """The shape of a decoder-only Llama. The vocabulary's size comes from the tokenizer."""

    hidden_size: int = assumed("Llama 2's where one is imported", "width of the residual stream", 128, ge=8)
    layers: int = assumed("Llama 2's where one is imported", "transformer blocks", 4, ge=1)
    heads: int = assumed("Llama 2's where one is imported", "attention heads", 4, ge=1)
    kv_heads: int = assumed("Llama 2's where one is imported", "key and value heads (grouped-query attention)", 4, ge=1)
    intermediate_size: int = assumed("about 8/3 of the width", "width of the feed-forward layer", 344, ge=8)
    max_positions: int = assumed("Llama 2's 4,096", "longest sequence in tokens", 4096, ge=8)
    rope_theta: float = assumed("Llama 2's", "base of the rotary frequencies", 10000.0, gt=0)
    tied_embeddings: bool = assumed("Llama 2's are untied", "input and output embeddings share one matrix", False)
    norm_eps: float = assumed("Llama 2's", "epsilon of RMSNorm", 1e-5, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(f"hidden_size {self.hidden_size} must be heads ({self.heads}) times an even number")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


class PackConfig(Section):
    """Documents to tokens, once for each tokenizer."""

    languages: tuple[ComponentName, ...] = assumed("the base model sees English only", "components to pack", ("en", "ar", "ar_translated"))
    held_out: HeldOut = planned("taken from data.held_out", "documents kept out of training, for bits per byte", HeldOut())
    held_out_bytes: int = assumed("bounds the cost of evaluation", "UTF-8 bytes of held-out text for each component, at most", 200_000, ge=1)


class Shares(Section):
    """Which share of tokens comes from which language, kind and domain (Table 1)."""

    components: dict[ComponentName, float] = paper("2.1, Figure 4", "shares of tokens of natural English, natural Arabic and translated Arabic")
    domains: dict[ComponentName, dict[DomainName, float]] = paper("2.1, Table 1", "shares of domains within each component; each sums to 1")

    @model_validator(mode="after")
    def _shares_sum(self) -> Self:
        _must_sum_to_one("the shares in `components`", self.components)
        for component, share in self.components.items():
            if share > 0 and component not in self.domains:
                raise ValueError(f"component {component!r} has a share of {share:g} but no row in `domains`")
        for component, domains in self.domains.items():
            _must_sum_to_one(f"the shares in `domains.{component}`", domains)
        return self


class MixChange(Shares):
    """Other shares from a position of the phase on."""

    from_token: int = assumed("the paper's mix stays as it is", "tokens of the phase before it holds, rounded up to whole steps", ge=1)


class MixConfig(Shares):
    """The shares of a phase. With `changes` they are others later on: what was read before stays as it was, and each domain goes on where it was."""

    changes: tuple[MixChange, ...] = assumed("the paper's mix stays as it is", "other shares from a position on, in the order of positions", ())
    max_epochs: float = assumed("repeating text more often stops to help (Muennighoff et al. 2023)",
                                "a domain that the budget would repeat more often is refused by name", 4.0, gt=0)
    seed: int = assumed("any", "seed of the order of sequences", 0)

    @model_validator(mode="after")
    def _changes_follow_each_other(self) -> Self:
        positions = [change.from_token for change in self.changes]
        if positions != sorted(set(positions)):
            raise ValueError(f"the `changes` begin at the tokens {', '.join(map(str, positions))}: order them so that each begins later than the one before")
        return self


class MixStageConfig(MixConfig):
    """A mix with the budget of the phase that reads it (filled in by the pipeline)."""

    tokens: int = assumed("taken from the phase", "tokens to plan for", ge=1)
    sequence_length: int = assumed("taken from the phase", "tokens of one sequence", ge=2)
    global_batch: int = assumed("taken from the phase; the last step is full", "sequences of one step", ge=1)


class OptimizerConfig(Section):
    """AdamW and its schedule."""

    learning_rate: float = paper("2.2", "peak learning rate; continued pretraining keeps the base model's final one, constant", 3e-5, gt=0)
    schedule: Literal["constant", "cosine", "linear", "wsd"] = paper("2.2", "shape of the learning rate after warm-up", "constant")
    final_learning_rate: float = assumed("used by all schedules but constant", "learning rate at the last step", 0.0, ge=0)
    warmup_steps: int = assumed("the paper found warm-up of little effect", "steps from 0 to the peak learning rate", 0, ge=0)
    state_warmup_steps: int = paper("2.2", "optimizer-state warm-up: first steps with learning rate 0, in which only Adam's moments grow", 0, ge=0)
    weight_decay: float = assumed("Llama 2's", "decoupled weight decay of matrices", 0.1, ge=0)
    beta1: float = assumed("Llama 2's", "decay of the first moment", 0.9, ge=0, lt=1)
    beta2: float = assumed("Llama 2's", "decay of the second moment", 0.95, ge=0, lt=1)
    epsilon: float = assumed("Llama 2's 1e-5; 1e-8 for small models", "Adam's epsilon", 1e-8, gt=0)
    clip_norm: float = assumed("Llama 2's", "largest gradient norm", 1.0, gt=0)


class PhaseConfig(Section):
    """One phase of pretraining."""

    tokens: int = paper("2.1", "tokens to train on", ge=1)
    global_batch: int = assumed("the paper gives no pretraining batch; Llama 2's is 4M tokens", "sequences of one optimizer step, over all ranks", 32, ge=1)
    sequence_length: int = assumed("Llama 2's 4,096", "tokens of one sequence", 4096, ge=2)
    precision: Literal["fp32", "bf16"] = paper("H", "bf16 mixed precision with fp32 master weights, or fp32", "bf16")
    optimizer: OptimizerConfig = paper("2.2", "optimizer and schedule", OptimizerConfig())
    mix: MixConfig = paper("2.1, Table 1", "mixture of this phase")
    eval_every: int = assumed("continuous evaluation (Figure 8)", "steps between measurements of held-out bits per byte; 0: only at the end", 0, ge=0)
    benchmarks: tuple[Name, ...] = paper("4.1, Figure 8", "multiple-choice benchmarks of `eval.benchmarks` that are asked before, every `eval_every` steps, "
                                         "and after", ())
    benchmark_items: int = assumed("a standard error of at most five points", "items of each of them, drawn once", 100, ge=1)
    dropout: float = paper("2.2, Figure 6", "share of values dropped in training; the paper decided against it, since Llama 2 was trained without and "
                           "English suffers", 0.0, ge=0, lt=1)
    on_spike: Literal["mark", "skip", "roll_back"] = assumed(
        "the paper compares runs by their spikes (Figure 3) and doesn't say that it left any out", "what happens at a step whose loss or gradient norm spikes: "
        "`mark` it in metrics.jsonl only; `skip` its update; `roll_back`, too, to the last checkpoint of a multiple of `roll_back_steps`, and go on behind it",
        "mark")
    roll_back_steps: int = assumed("PaLM's authors went back about 100 steps", "steps between the checkpoints that `roll_back` goes back to", 100, ge=1)
    new_rows_steps: int = assumed("the paper trains everything from the start", "first steps in which only the rows that the vocabulary's extension added "
                                  "are trained, without weight decay; everything else stays as it is, bit for bit", 0, ge=0)
    attend_across_documents: bool = assumed("Llama 2 packs so", "whether a token sees the documents before its own in the same sequence", True)
    seed: int = assumed("any", "seed of the weights, and of dropout's masks", 0)

    @model_validator(mode="after")
    def _something_is_learned(self) -> PhaseConfig:
        if self.optimizer.state_warmup_steps >= self.steps:
            raise ValueError(f"optimizer.state_warmup_steps {self.optimizer.state_warmup_steps} leaves none of the phase's {self.steps} steps (tokens / "
                             "global_batch / sequence_length): all would be taken at learning rate 0; lower it, or raise tokens")
        return self

    @model_validator(mode="after")
    def _changes_are_within(self) -> PhaseConfig:
        if self.mix.changes and self.mix.changes[-1].from_token > (self.steps - 1) * self.global_batch * self.sequence_length:
            raise ValueError(f"mix.changes: a change from token {self.mix.changes[-1].from_token} on is behind the phase's last step ({self.tokens} tokens): "
                             "lower from_token, or raise tokens")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps: the token budget divided by a step's tokens, rounded up."""
        return -(-self.tokens // (self.global_batch * self.sequence_length))


class ExtendConfig(Section):
    """New rows of the embeddings for the new tokens (§2.2)."""

    method: Literal["mean", "random", "exponential", "translation"] = paper(
        "2.2, Figure 5", "`mean` of the old rows of a new piece's old tokens, or `random` for the ablation; `exponential` (Nakash et al. 2025) weights "
        "them by position; `translation` (after Remy et al. 2024) takes those of the English pieces that a new piece translates", "mean")
    seed: int = assumed("any", "seed of `random`, and of the pairs of `translation`", 0)
    base_padding_rows: int = assumed("most bases have none", "rows of an imported base beyond its tokenizer's pieces that only pad it; they are dropped", 0,
                                     ge=0)
    logits_below: int = assumed("loading a model for a check takes 4 bytes a parameter", "models with fewer parameters prove that their old logits are "
                                "unchanged", 2_000_000_000, ge=0)
    max_pairs: int = assumed("a few thousand pieces meet most words", "pairs of lines that `translation` learns from, at most", 50_000, ge=1)
    held_out: HeldOut = planned("taken from data.held_out where `translation` reads the corpus", "documents that it must not read", HeldOut())


class ImportConfig(Section):
    """An existing base model, such as Llama 2, instead of one pretrained here."""

    model: str = paper("2.2", "folder in Hugging Face's format below `data.root`, or, with a `revision`, a model's id on the hub")
    revision: str | None = assumed("a hub's model needs one", "commit of the hub's repository: makes `model` an id on the hub", None)
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the folder's files with their checksums", ())


class TrainConfig(Section):
    """The model and its phases."""

    model: ModelConfig = assumed("the base model's", "shape of the model", ModelConfig())
    pack: PackConfig = assumed("the paper doesn't say", "tokens on disk", PackConfig())
    import_model: ImportConfig | None = paper("2.2", "base model to continue from; null: pretrain one first", None)
    pretrain: PhaseConfig | None = paper("2.3", "pretraining on English from random weights; null where a model is imported", None)
    from_scratch: bool = paper("2.3", "the tokenizer is bilingual from the first step, and the vocabulary is not expanded later", False)
    extend: ExtendConfig = paper("2.2", "embeddings of new tokens", ExtendConfig())
    continued: PhaseConfig = paper("2.2", "continued pretraining on both languages; the recipe's section `continue`", alias="continue")

    @model_validator(mode="after")
    def _one_base(self) -> TrainConfig:
        if (self.import_model is None) == (self.pretrain is None):
            raise ValueError("give exactly one of `pretrain` and `import_model`: the base is either trained here or imported")
        if self.from_scratch and self.import_model is not None:
            raise ValueError("`from_scratch: true` needs `pretrain`, not `import_model`")
        if self.pretrain is not None and self.pretrain.new_rows_steps:
            raise ValueError(f"pretrain.new_rows_steps is {self.pretrain.new_rows_steps}: a model from random weights has no new rows; set it to 0")
        if self.continued.new_rows_steps and self.from_scratch:
            raise ValueError("continue.new_rows_steps needs an extended vocabulary, which `from_scratch: true` has not; set it to 0")
        if self.continued.new_rows_steps > self.continued.steps:
            raise ValueError(f"continue.new_rows_steps {self.continued.new_rows_steps} is more than the phase's {self.continued.steps} steps")
        for name, phase in (("pretrain", self.pretrain), ("continue", self.continued)):
            if phase is not None and phase.sequence_length > self.model.max_positions:
                raise ValueError(f"{name}.sequence_length {phase.sequence_length} is longer than model.max_positions {self.model.max_positions}")
        return self


class PretrainStageConfig(Section):
    """What one pretraining stage needs: the phase without its mix (an input), and the model's shape."""

    model: ModelConfig = assumed("taken from train.model", "shape of a model that starts from random weights")
    phase: PhaseConfig = assumed("taken from the recipe", "the phase")
    benchmarks: dict[Name, BenchmarkConfig] = planned("those of eval.benchmarks that the phase names", "what is asked during training", {})
