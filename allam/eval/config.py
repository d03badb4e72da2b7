"""What the evaluation stages need to know (paper §4, D). Imports pydantic and the standard library only."""

from __future__ import annotations

from allam.items import BenchmarkConfig
from allam.section import FileRef, Name, Section, assumed, paper, planned


class BenchmarksConfig(Section):
    """lm-eval on local benchmarks, and bits per byte, for one model."""

    benchmarks: dict[Name, BenchmarkConfig] = paper("4.1", "benchmarks by name", {})
    sequence_length: int = planned("that of continued pretraining", "context of bits per byte, in tokens", 128, ge=2)
    max_new_tokens: int = assumed("short answers", "longest generated answer in tokens", 24, ge=1)
    chat: bool = planned("on for aligned models", "wrap each generation question in the chat template", False)


class JudgeConfig(Section):
    """Open questions answered by the models and scored (§4.2)."""

    questions: tuple[str, ...] = paper("4.2", "JSON Lines files of open questions below `data.root`", ())
    endpoint: str | None = paper("4.2", "base URL of an OpenAI-compatible server that judges; null: chrF against references, under that name", None)
    judge_model: str | None = paper("4.2", "name of the judge's model on that server (the paper's is GPT-4)", None)
    max_new_tokens: int = assumed("short answers", "longest answer in tokens", 64, ge=1)
    judge_tokens: int = assumed("a short explanation and the score", "longest judgment in tokens", 512, ge=1)
    seed: int = assumed("sent along where a server honours it", "seed of the judge's sampling", 0)
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the files with their checksums", ())


class VotesConfig(Section):
    """Elo ratings from people's votes (§4.3)."""

    path: str | None = paper("4.3", "JSON Lines of votes below `data.root`; null: none yet", None)
    evaluators: int = paper("4.3", "people who judge each comparison; their majority counts, one more breaks a tie", 3, ge=1)
    k: float = assumed("the paper gives none; the resulting ratings are close to 1,000 in its Table 7", "step of one comparison", 4.0, gt=0)
    initial: float = paper("4.3, Table 7", "rating of a model before its first comparison", 1000.0)
    permutations: int = assumed("Elo depends on the order of comparisons", "random orders that the rating is averaged over", 200, ge=1)
    resamples: int = assumed("enough for a 95% interval", "bootstrap samples of the comparisons", 200, ge=1)
    seed: int = assumed("any", "seed of the orders", 0)
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the files with their checksums", ())


class EvalConfig(Section):
    """Evidence that the model got better."""

    benchmarks: BenchmarksConfig = paper("4.1", "automatic evaluation", BenchmarksConfig())
    judge: JudgeConfig = paper("4.2", "evaluation by a judge", JudgeConfig())
    votes: VotesConfig = paper("4.3", "human evaluation", VotesConfig())
