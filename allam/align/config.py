"""What the alignment stages need to know (paper §3, C). Imports pydantic and the standard library only."""

from __future__ import annotations

from typing import Literal

from allam.section import FileRef, Section, assumed, paper, planned


class CurateConfig(Section):
    """Quality checks of SFT data (§3.1)."""

    path: str | tuple[str, ...] = assumed("data are files", "JSON Lines of conversations below `data.root`: a path, a glob, or a list of them",
                                          "chat/sft.jsonl")
    max_conversations: int | None = assumed("for trials", "keep at most so many conversations, evenly spread over those that pass", None, ge=1)
    min_response_words: int = paper("3.1", "conversations with a shorter assistant turn are dropped (1: empty ones)", 1, ge=0)
    max_response_words: int = paper("3.1", "conversations with a longer assistant turn are dropped", 2000, ge=1)
    max_repetition: float = assumed("lexical diversity without a threshold in the paper", "share of a response's words that lie in repeated 4-grams, at most",
                                    0.5, ge=0, le=1)
    near_duplicates: bool = paper("3.1", "drop near-exact lexical duplicates", True)
    check_language: bool = paper("3.1", "drop responses in another language than the conversation's", True)
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the files with their checksums", ())


class SftConfig(Section):
    """Supervised finetuning with the prompt masked and turn augmentation (C.2)."""

    epochs: int = paper("C.2", "passes over the data", 3, ge=1)
    learning_rate: float = paper("C.2", "learning rate", 5e-6, gt=0)
    global_batch: int = paper("C.2", "samples of one optimizer step, over all ranks; with turn augmentation each assistant turn is one", 1024, ge=1)
    schedule: Literal["constant", "cosine", "linear"] = assumed("the paper gives none", "shape of the learning rate", "constant")
    warmup_steps: int = assumed("the paper gives none", "steps from 0 to the learning rate", 0, ge=0)
    weight_decay: float = assumed("the paper gives none", "decoupled weight decay", 0.0, ge=0)
    clip_norm: float = assumed("as in pretraining", "largest gradient norm", 1.0, gt=0)
    max_length: int = assumed("Llama 2's 4,096", "tokens of one sample; turns that end later are left out, counted", 4096, ge=8)
    turn_augmentation: bool = paper("C.2, Figure 11", "each assistant turn becomes a sample with the turns before it as masked context", True)
    precision: Literal["fp32", "bf16"] = paper("H", "bf16 mixed precision with fp32 master weights, or fp32", "bf16")
    seed: int = assumed("any", "seed of the order", 0)


class SamplingSetting(Section):
    """One way to sample."""

    temperature: float = paper("C.3", "softmax temperature", gt=0)
    top_p: float = paper("C.3", "nucleus", gt=0, le=1)


class SampleConfig(Section):
    """Rejected responses sampled from the model by different temperatures and nuclei (C.3)."""

    path: str | tuple[str, ...] = assumed("data are files", "JSON Lines of prompts with chosen responses below `data.root`: a path, a glob, or a list "
                                          "of them", "chat/preferences.jsonl")
    max_prompts: int | None = assumed("for trials", "use at most so many prompts, evenly spread over the files", None, ge=1)
    samples: int = paper("C.3", "responses sampled for each prompt", 10, ge=1)
    settings: tuple[SamplingSetting, ...] = assumed(
        "the paper names the method, not the values", "settings, used in turn",
        tuple(SamplingSetting(temperature=t, top_p=p) for t, p in ((0.7, 0.9), (1.0, 0.95), (1.0, 1.0), (1.3, 0.9), (1.3, 1.0))))
    max_new_tokens: int = assumed("long answers need more", "longest sampled response in tokens", 512, ge=1)
    seed: int = assumed("any", "seed of the sampling", 0)
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the files with their checksums", ())


class ReviewConfig(Section):
    """Decisions of people on preference pairs: accept, edit or reject (§3.2)."""

    decisions: str | None = paper("3.2", "JSON Lines of decisions below `data.root`; null: none yet", None)
    undecided: Literal["wait", "drop", "accept"] = paper("3.2", "what to do with a pair that nobody judged; the paper uses only verified samples", "wait")
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the decisions with their checksums", ())


class DpoConfig(Section):
    """Direct preference optimization (C.3)."""

    beta: float = assumed("the paper gives no value; 0.1 is DPO's own default", "strength of the KL penalty", 0.1, gt=0)
    epochs: int = paper("C.3", "passes over the pairs", 1, ge=1)
    learning_rate: float = paper("C.3", "learning rate at the start", 9e-7, gt=0)
    final_learning_rate: float = paper("C.3", "learning rate at the end of the cosine", 5e-7, ge=0)
    global_batch: int = paper("C.3", "pairs of one optimizer step, over all ranks", 512, ge=1)
    weight_decay: float = assumed("the paper gives none", "decoupled weight decay", 0.0, ge=0)
    clip_norm: float = assumed("as in pretraining", "largest gradient norm", 1.0, gt=0)
    max_length: int = assumed("Llama 2's 4,096", "tokens of prompt and response", 4096, ge=8)
    precision: Literal["fp32", "bf16"] = paper("H", "bf16 mixed precision with fp32 master weights, or fp32", "bf16")
    seed: int = assumed("any", "seed of the order", 0)


class AlignConfig(Section):
    """From a pretrained to an aligned model."""

    curate: CurateConfig = paper("3.1", "quality checks", CurateConfig())
    sft: SftConfig = paper("3.1", "supervised finetuning", SftConfig())
    sample: SampleConfig = paper("C.3", "rejected responses", SampleConfig())
    review: ReviewConfig = paper("3.2", "human verification", ReviewConfig())
    dpo: DpoConfig = paper("3.2", "preference training", DpoConfig())
