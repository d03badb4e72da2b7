"""The whole method in one place: which stages a recipe needs, what each takes from the others, and the key of each result.

Read from top to bottom it is the paper: curate the corpus (§2.1), merge an Arabic tokenizer into the base's and give its new tokens
embeddings (§2.2), continue pretraining on both languages, or first pretrain from scratch on English (§2.3), finetune and align (§3), evaluate (§4).
Nothing heavy is imported here: a plan needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from allam.align.config import CurateConfig, DpoConfig, ReviewConfig, SampleConfig, SftConfig
from allam.artifacts import artifact_key
from allam.data.config import (
    DecontaminateConfig,
    DedupConfig,
    FilterConfig,
    IngestConfig,
    ItemsFile,
    MachineTranslateConfig,
    SourceConfig,
    TranslateConfig,
    translation_source,
)
from allam.errors import UserError, did_you_mean
from allam.eval.config import BenchmarksConfig, JudgeConfig, VotesConfig
from allam.files import FileTable, check_checksum
from allam.items import BenchmarkConfig
from allam.preflight.config import PreflightConfig
from allam.recipe import Recipe
from allam.section import Section, planned
from allam.tokenizer.config import ArabicTokenizerConfig, BaseTokenizerConfig, FertilityConfig, MergedTokenizerConfig, OtherTokenizer
from allam.train.config import ComponentName, DomainName, ExtendConfig, ImportConfig, MixStageConfig, PackConfig, PhaseConfig, PretrainStageConfig


class ExportConfig(Section):
    """The final model as a folder for transformers; nothing to choose yet."""


class ReportConfig(Section):
    """The HTML report; everything else that it says comes from its inputs."""

    recipe: str = planned("its heading", "the recipe's name", "")


@dataclass(frozen=True)
class Stage:
    """A kind of stage: the module whose `run(config, inputs, out)` makes it. `version` is bumped when its output changes."""

    area: str
    module: str
    config: type[Section]
    version: int = 1
    ranks: bool = False  # runs on all ranks of the cluster profile, not on one process
    device: bool = False  # one process that computes with a model
    makes: tuple[str, ...] = ()  # patterns of what later stages read: an adopted folder must hold a file of each

    def lacks(self, folder: Path) -> list[str]:
        """The patterns of `makes` for which a folder holds no file."""
        return [pattern for pattern in self.makes if not any(path.is_file() for path in folder.glob(pattern))]


_DOCUMENTS, _TOKENIZER, _MODEL = ("documents/*/*.parquet",), ("tokenizer.json",), ("model/config.json", "model/*.safetensors")

STAGES: dict[str, Stage] = {
    "ingest": Stage("data", "allam.data.ingest", IngestConfig, version=8, makes=_DOCUMENTS),
    "filter": Stage("data", "allam.data.filter", FilterConfig, version=5, makes=_DOCUMENTS),
    "dedup": Stage("data", "allam.data.dedup", DedupConfig, version=4, makes=_DOCUMENTS),
    "decontaminate": Stage("data", "allam.data.decontaminate", DecontaminateConfig, version=2, makes=_DOCUMENTS),
    "machine_translate": Stage("data", "allam.data.machine_translate", MachineTranslateConfig, device=True, makes=_DOCUMENTS),
    "translate": Stage("data", "allam.data.translate", TranslateConfig, version=4, makes=_DOCUMENTS),
    "base_tokenizer": Stage("tokenizer", "allam.tokenizer.base", BaseTokenizerConfig, makes=_TOKENIZER),
    "arabic_tokenizer": Stage("tokenizer", "allam.tokenizer.arabic", ArabicTokenizerConfig, version=3, makes=_TOKENIZER),
    "merged_tokenizer": Stage("tokenizer", "allam.tokenizer.merge", MergedTokenizerConfig, version=4, makes=_TOKENIZER),
    "fertility": Stage("tokenizer", "allam.tokenizer.fertility", FertilityConfig, makes=("fertility.json",)),
    "pack": Stage("train", "allam.train.pack", PackConfig, version=2, makes=("packs/*/*/tokens.bin", "packs/*/*/index.npy")),
    "mix": Stage("train", "allam.train.mix", MixStageConfig, makes=("plan.json", "order_*.npy")),
    "import_model": Stage("train", "allam.train.import_model", ImportConfig, makes=_MODEL),
    "pretrain": Stage("train", "allam.train.pretrain", PretrainStageConfig, version=7, ranks=True, makes=_MODEL),
    "extend": Stage("train", "allam.train.extend", ExtendConfig, version=3, makes=_MODEL),
    "continue": Stage("train", "allam.train.pretrain", PretrainStageConfig, version=7, ranks=True, makes=_MODEL),
    "curate": Stage("align", "allam.align.curate", CurateConfig, version=2, makes=("sft.jsonl",)),
    "sft": Stage("align", "allam.align.sft", SftConfig, version=3, ranks=True, makes=_MODEL),
    "sample": Stage("align", "allam.align.sample", SampleConfig, device=True, makes=("candidates.jsonl",)),
    "review": Stage("align", "allam.align.review", ReviewConfig, makes=("pairs.jsonl",)),
    "dpo": Stage("align", "allam.align.dpo", DpoConfig, version=2, ranks=True, makes=_MODEL),
    "export": Stage("train", "allam.train.export", ExportConfig, version=3, makes=_MODEL),
    "benchmarks": Stage("eval", "allam.eval.benchmarks", BenchmarksConfig, version=2, device=True, makes=("results.json", "bits_per_byte.json")),
    "judge": Stage("eval", "allam.eval.judge", JudgeConfig, device=True, makes=("scores.json",)),
    "votes": Stage("eval", "allam.eval.votes", VotesConfig, makes=("elo.json",)),
    "report": Stage("report", "allam.report.build", ReportConfig, version=4, makes=("report.html",)),
}


PREFLIGHT = "preflight"  # runs like a stage with ranks and is none of a recipe's


def stage_of(kind: str) -> Stage:
    """What makes an artifact of this kind."""
    return Stage("launch", "allam.preflight.probe", PreflightConfig, ranks=True) if kind == PREFLIGHT else STAGES[kind]


@dataclass(frozen=True)
class StageSpec:
    """One stage of a plan. `inputs` maps the stage's names of its inputs to the names of the stages that make them."""

    name: str
    kind: str
    config: Section
    inputs: dict[str, str]
    key: str
    root: Path  # of external files; execution, not identity
    problems: tuple[str, ...] = field(default=())

    @property
    def stage(self) -> Stage:
        """What makes it."""
        return stage_of(self.kind)

    @property
    def config_data(self) -> dict[str, Any]:
        """The configuration as it enters the key."""
        return self.config.model_dump(mode="json")


class Plan:
    """The stages of a recipe in an order in which they can run."""

    def __init__(self, recipe: Recipe, root: Path, files: FileTable) -> None:
        self.recipe = recipe
        self.root = root
        self.files = files  # the external files that the recipe's paths name
        self.specs: dict[str, StageSpec] = {}
        self.warnings: list[str] = []  # what the recipe may do but probably shouldn't

    def add(self, name: str, config: Section, inputs: dict[str, str] | None = None, kind: str | None = None,
            problems: tuple[str, ...] = ()) -> str:
        """Adds a stage whose inputs are already in the plan; returns its name."""
        kind, inputs = kind or name, inputs or {}
        key = artifact_key(kind, STAGES[kind].version, config.model_dump(mode="json"), {k: self.specs[v].key for k, v in inputs.items()})
        self.specs[name] = StageSpec(name, kind, config, inputs, key, self.root, problems)
        return name

    def upstream(self, name: str) -> list[StageSpec]:
        """The stage and everything that it needs, in the plan's order."""
        if name not in self.specs:
            raise UserError(f"the recipe {self.recipe.name!r} has no stage {name!r}", did_you_mean(name, self.specs))
        needed, waiting = set(), [name]
        while waiting:
            current = waiting.pop()
            if current not in needed:
                needed.add(current)
                waiting += self.specs[current].inputs.values()
        return [spec for spec in self.specs.values() if spec.name in needed]


def data_root(recipe: Recipe) -> Path:
    """The folder below which the recipe's paths lie."""
    if recipe.data.root is None:
        return Path(__file__).parent / "sample" / "data"
    return Path(recipe.data.root).expanduser().resolve()


def make_plan(recipe: Recipe, cache_file: Path | None = None, lock_file: Path | None = None) -> Plan:
    """All stages of the recipe with their keys. Missing files don't stop a plan: they stand in the stages' `problems`."""
    files = FileTable(data_root(recipe), cache_file, lock_file)
    plan = Plan(recipe, data_root(recipe), files)
    _data(plan, files)
    _tokenizer(plan, files)
    trained = _train(plan, files)
    aligned = _align(plan, files)
    plan.add("export", ExportConfig(), {"model": "dpo", "tokenizer": "merged_tokenizer"})
    _evaluate(plan, files, trained + aligned)
    plan.add("report", ReportConfig(recipe=plan.recipe.name), {name: name for name in plan.specs})
    if files.unlocked:
        more = f" and {len(files.unlocked) - 1} more" if len(files.unlocked) > 1 else ""
        plan.warnings.append(f"{next(iter(files.unlocked))}{more} came after {lock_file} was written and will be left out: `allam lock RECIPE` takes new "
                             "files in; without a lock file each run takes what it finds")
    if files.resized:
        more = f" and {len(files.resized) - 1} more" if len(files.resized) > 1 else ""
        plan.warnings.append(f"{next(iter(files.resized))}{more} changed after {lock_file} was written: what was made of the locked content stands, and what "
                             "still has to read the file will refuse it. `allam lock RECIPE` takes it as it is now")
    files.save()
    return plan


def _files(files: FileTable, where: str, *paths: str, urls: bool = False) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`files=` for a config, and the problems met."""
    before = len(files.problems)
    found = tuple(ref for path in paths for ref in files.resolve(where, path, urls=urls))
    return {"files": found}, tuple(f"{where}: {message}" for where, message in files.problems[before:])


def _several(paths: str | tuple[str, ...]) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else paths


def _data(plan: Plan, files: FileTable) -> None:
    """§2.1: web text and other sources are read, filtered, deduplicated and rid of what evaluation asks; translated text keeps the link to its
    English source."""
    data, problems, sources = plan.recipe.data, list[str](), dict[str, SourceConfig]()
    for name, source in data.sources.items():
        found, missing = _files(files, f"data.sources.{name}.path", source.path, urls=True)
        check_checksum(f"data.sources.{name}.sha256", found["files"], source.sha256)
        sources[name] = source.model_copy(update=found | {"sha256": None})  # the files' own checksums are the identity
        problems += missing
    natural = {name: source for name, source in sources.items() if source.kind == "natural"}
    translated = {name: source for name, source in sources.items() if source.kind == "translated"}
    gone = _take_down(plan, problems)
    plan.add("ingest", data.ingest.model_copy(update={"sources": sources, "order": tuple(sources), "take_down": gone}), problems=tuple(problems))
    plan.add("filter", data.filter.model_copy(update={"sources": _without_files(natural)}), {"documents": "ingest"})
    plan.add("dedup", data.dedup.model_copy(update={"order": tuple(natural)}), {"documents": "filter"})
    clean, missing = _decontaminate(plan, files)
    plan.add("decontaminate", clean.model_copy(update={"order": tuple(natural)}), {"documents": "dedup"}, problems=missing)
    checked = data.translate.model_copy(update={"sources": _without_files(translated), "order": tuple(translated)})
    inputs = {"documents": "ingest", "originals": "decontaminate"}
    if data.machine_translate is not None:
        made = _machine_translate(plan, files, data.machine_translate, natural)
        checked = checked.model_copy(update={"order": (*translated, *made)})
        inputs["machine"] = "machine_translate"
    plan.add("translate", checked, inputs)
    plan.add("decontaminate_translated", clean.model_copy(update={"order": checked.order}), {"documents": "translate"}, kind="decontaminate",
             problems=missing)
    _warn_of_sources_left_out(plan, translated)


def _take_down(plan: Plan, problems: list[str]) -> tuple[str, ...]:
    """The ids that must go, read from the recipe's file where it names one."""
    given = plan.recipe.data.take_down
    if isinstance(given, str):
        _, missing = _files(plan.files, "data.take_down", given)
        problems += missing
        given = () if missing else tuple(line.strip() for line in (plan.root / given).read_text(encoding="utf-8").splitlines() if line.strip())
    return tuple(sorted(set(given)))


def _decontaminate(plan: Plan, files: FileTable) -> tuple[DecontaminateConfig, tuple[str, ...]]:
    """Against what the recipe names and everything that it evaluates (§4)."""
    config, evaluation = plan.recipe.data.decontaminate, plan.recipe.eval
    unknown = sorted(set(config.mark_only) - set(plan.recipe.data.sources))
    if unknown:
        raise UserError(f"data.decontaminate.mark_only: there is no source {unknown[0]!r}", did_you_mean(unknown[0], plan.recipe.data.sources))
    named = {f"data.decontaminate.items.{name}.path": (name, given) for name, given in config.items.items()}
    named |= {f"eval.benchmarks.benchmarks.{name}.path": (name, ItemsFile(path=given.path, format=given.format))
              for name, given in evaluation.benchmarks.benchmarks.items()}
    named |= {f"eval.judge.questions.{i}": (f"judge-{i}", ItemsFile(path=path, format="questions")) for i, path in enumerate(evaluation.judge.questions)}
    items, problems = dict[str, ItemsFile](), list[str]()
    for where, (name, given) in named.items() if config.action != "skip" else ():
        if name in items:
            raise UserError(f"data.decontaminate.items.{name}: the recipe evaluates a benchmark of this name", "give the file another name, or leave it out: "
                            "what is evaluated is looked for anyway")
        found, missing = _files(files, where, given.path)
        items[name] = given.model_copy(update=found)
        problems += missing
    return config.model_copy(update={"items": items}), tuple(problems)


def _machine_translate(plan: Plan, files: FileTable, config: MachineTranslateConfig, natural: dict[str, SourceConfig]) -> list[str]:
    """English documents of chosen domains, translated by a model; returns the names of the sources that this makes."""
    chosen = tuple(name for name, source in natural.items() if source.language == "en" and source.domain in config.domains)
    if not chosen:
        raise UserError(f"data.machine_translate.domains: no English source is of the domains {', '.join(config.domains)}",
                        f"name a domain of {', '.join(sorted({s.domain for s in natural.values() if s.language == 'en'})) or 'an English source'}")
    made = [translation_source(name) for name in chosen]
    taken = next((name for name in made if name in plan.recipe.data.sources), None)
    if taken is not None:
        raise UserError(f"data.sources.{taken}: this name is for the translations that data.machine_translate makes", "give the source another name")
    found, problems = dict[str, Any](), tuple[str, ...]()
    if config.model is not None and config.revision is None:
        found, problems = _files(files, "data.machine_translate.model", config.model)
    plan.add("machine_translate", config.model_copy(update=found | {"order": chosen}), {"documents": "decontaminate"}, problems=problems)
    return made


def _warn_of_sources_left_out(plan: Plan, translated: dict[str, SourceConfig]) -> None:
    """The paper keeps the English sources of translated documents in its English mix (§2.1); a mix says so by domain."""
    mix, config = plan.recipe.train.continued.mix, plan.recipe.data.machine_translate

    def is_read(component: ComponentName, domain: DomainName) -> bool:
        return any(part.components.get(component, 0) * part.domains.get(component, {}).get(domain, 0) > 0 for part in (mix, *mix.changes))

    for domain in dict.fromkeys([*(source.domain for source in translated.values()), *(config.domains if config is not None else ())]):
        if is_read("ar_translated", domain) and not is_read("en", domain):
            also = "; its own Table 1 has none, either" if domain in ("wiki", "other") else ""
            plan.warnings.append(f"train.continue.mix.domains: translated {domain} text has a share, and the English {domain} text that it was translated "
                                 f"from has none: the paper keeps such sources in its English data (§2.1){also}")


def _without_files(sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
    return {name: source.model_copy(update={"files": ()}) for name, source in sources.items()}


def _tokenizer(plan: Plan, files: FileTable) -> None:
    """§2.2: the base's tokenizer, an Arabic-only one, the two merged, and the fertility of the three."""
    config, held_out = plan.recipe.tokenizer, {"held_out": plan.recipe.data.held_out}
    corpus = {"natural": "decontaminate", "translated": "decontaminate_translated"}
    if config.base.model is not None:
        found, problems = _files(files, "tokenizer.base.model", *_base_files(plan.root, config.base.model))
        if config.base.model.endswith(".json") and Path(config.base.model).name != "tokenizer.json":
            problems = (f"tokenizer.base.model: {config.base.model!r}: this file must have the name tokenizer.json, with tokenizer_config.json beside it: "
                        "rename it, or give the folder that holds both",)
        plan.add("base_tokenizer", config.base.model_copy(update=found), problems=problems)
    else:
        plan.add("base_tokenizer", config.base.model_copy(update=held_out), {"natural": "decontaminate"})
    plan.add("arabic_tokenizer", config.arabic.model_copy(update=held_out), corpus | {"base": "base_tokenizer"})
    plan.add("merged_tokenizer", config.merged.model_copy(update=held_out), corpus | {"base": "base_tokenizer", "arabic": "arabic_tokenizer"})
    others, problems = dict[str, OtherTokenizer](), tuple[str, ...]()
    for name, other in config.fertility.others.items():
        path = _base_files(plan.root, other.model)[0] if (plan.root / other.model).is_dir() else other.model
        found, missing = _files(files, f"tokenizer.fertility.others.{name}.model", path)
        others[name], problems = other.model_copy(update=found), (*problems, *missing)
    plan.add("fertility", config.fertility.model_copy(update={"others": others}),
             corpus | {"base": "base_tokenizer", "arabic": "arabic_tokenizer", "merged": "merged_tokenizer"}, problems=problems)


def _base_files(root: Path, given: str) -> tuple[str, ...]:
    """The files of a base's tokenizer: its SentencePiece model, or where there is none, tokenizer.json and the configuration beside it."""
    folder = given.rstrip("/") if (root / given).is_dir() else str(Path(given).parent)
    if given.endswith(".json") or ((root / given).is_dir() and not (root / given / "tokenizer.model").is_file()):
        return (f"{folder}/tokenizer.json", f"{folder}/tokenizer_config.json")
    return (f"{folder}/tokenizer.model",) if (root / given).is_dir() else (given,)


def _train(plan: Plan, files: FileTable) -> list[str]:
    """§2.2 and 2.3: a base model, imported or pretrained on English; embeddings for the new tokens; then both languages."""
    train, recipe = plan.recipe.train, plan.recipe
    for name, phase in (("pretrain", train.pretrain), ("continue", train.continued)):
        if phase is not None and phase.optimizer.state_warmup_steps + phase.optimizer.warmup_steps > phase.steps:
            plan.warnings.append(f"train.{name}.optimizer: its warm-up ({phase.optimizer.state_warmup_steps} + {phase.optimizer.warmup_steps} steps) is longer "
                                 f"than the phase's {phase.steps} steps: the peak learning rate is never reached; lower warmup_steps, or raise tokens")
    corpus = {"natural": "decontaminate", "translated": "decontaminate_translated"}
    pack = train.pack.model_copy(update={"held_out": recipe.data.held_out})
    plan.add("pack", pack, corpus | {"tokenizer": "merged_tokenizer"})
    if train.import_model is not None:
        of_the_hub = train.import_model.revision is not None  # then the name is a repository's, and no path below the root
        found, problems = ({}, ()) if of_the_hub else _files(files, "train.import_model.model", train.import_model.model)
        base = plan.add("import_model", train.import_model.model_copy(update=found), {"tokenizer": "base_tokenizer"}, problems=problems)
    else:
        assert train.pretrain is not None
        tokenizer, packed = "merged_tokenizer", "pack"
        if not train.from_scratch:
            tokenizer = "base_tokenizer"
            packed = plan.add("pack_base", pack.model_copy(update={"languages": ("en",)}), corpus | {"tokenizer": tokenizer}, kind="pack")
        plan.add("mix_base", _mix(train.pretrain), {"pack": packed}, kind="mix")
        asked, problems = _asked(plan, files, "pretrain", train.pretrain)
        base = plan.add("pretrain", PretrainStageConfig(model=train.model, phase=train.pretrain, benchmarks=asked),
                        {"tokenizer": tokenizer, "pack": packed, "mix": "mix_base", "held_out": "pack"}, problems=problems)
    trained = [base]
    if not train.from_scratch:
        extended, inputs = train.extend, {"model": base, "base_tokenizer": "base_tokenizer", "tokenizer": "merged_tokenizer"}
        if extended.method == "translation":
            extended, inputs = extended.model_copy(update={"held_out": recipe.data.held_out}), inputs | corpus
        trained.append(plan.add("extend", extended, inputs))
    plan.add("mix", _mix(train.continued), {"pack": "pack"})
    asked, problems = _asked(plan, files, "continue", train.continued)
    plan.add("continue", PretrainStageConfig(model=train.model, phase=train.continued, benchmarks=asked),
             {"model": trained[-1], "tokenizer": "merged_tokenizer", "pack": "pack", "mix": "mix", "held_out": "pack"}, problems=problems)
    return [*trained, "continue"]


def _asked(plan: Plan, files: FileTable, stage: str, phase: PhaseConfig) -> tuple[dict[str, BenchmarkConfig], tuple[str, ...]]:
    """The benchmarks that a phase asks while it trains, with their files, and the problems met."""
    known, found, problems = plan.recipe.eval.benchmarks.benchmarks, dict[str, BenchmarkConfig](), list[str]()
    if phase.benchmarks and not known:  # a recipe for the data alone, say, that emptied them
        plan.warnings.append(f"train.{stage}.benchmarks names {', '.join(phase.benchmarks)}, and eval.benchmarks.benchmarks is empty: training asks nothing")
        return {}, ()
    for name in phase.benchmarks:
        if name not in known:
            raise UserError(f"train.{stage}.benchmarks: there is no {name!r} in eval.benchmarks.benchmarks", did_you_mean(name, known))
        if known[name].type != "multiple_choice":
            raise UserError(f"train.{stage}.benchmarks: {name!r} is of type {known[name].type}", "name multiple-choice benchmarks, which training can ask")
        given, missing = _files(files, f"eval.benchmarks.benchmarks.{name}.path", known[name].path)
        found[name] = known[name].model_copy(update=given)
        problems += missing
    return found, tuple(problems)


def _mix(phase: PhaseConfig) -> MixStageConfig:
    return MixStageConfig(**phase.mix.model_dump(), tokens=phase.tokens, sequence_length=phase.sequence_length, global_batch=phase.global_batch)


def _align(plan: Plan, files: FileTable) -> list[str]:
    """§3: supervised finetuning, rejected samples from the model, people's verdicts, preference training."""
    align, tokenizer = plan.recipe.align, {"tokenizer": "merged_tokenizer"}
    found, problems = _files(files, "align.curate.path", *_several(align.curate.path))
    plan.add("curate", align.curate.model_copy(update=found), problems=problems)
    plan.add("sft", align.sft, {"model": "continue", "conversations": "curate"} | tokenizer)
    found, problems = _files(files, "align.sample.path", *_several(align.sample.path))
    plan.add("sample", align.sample.model_copy(update=found), {"model": "sft"} | tokenizer, problems=problems)
    found, problems = _files(files, "align.review.decisions", *([align.review.decisions] if align.review.decisions else []))
    plan.add("review", align.review.model_copy(update=found), {"candidates": "sample"}, problems=problems)
    plan.add("dpo", align.dpo, {"model": "sft", "pairs": "review"} | tokenizer)
    return ["sft", "dpo"]


def _evaluate(plan: Plan, files: FileTable, models: list[str]) -> None:
    """§4: benchmarks and bits per byte before and after each training stage; a judge; people's votes."""
    config, benchmarks, problems = plan.recipe.eval, dict[str, Any](), list[str]()
    for name, benchmark in config.benchmarks.benchmarks.items():
        found, missing = _files(files, f"eval.benchmarks.benchmarks.{name}.path", benchmark.path)
        benchmarks[name] = benchmark.model_copy(update=found)
        problems += missing
    for model in models:
        tokenizer = plan.specs[model].inputs["tokenizer"]
        filled = {"benchmarks": benchmarks, "chat": model in ("sft", "dpo"), "sequence_length": plan.recipe.train.continued.sequence_length}
        plan.add(f"benchmarks_{model}", config.benchmarks.model_copy(update=filled),
                 {"model": model, "tokenizer": tokenizer, "held_out": "pack"}, kind="benchmarks", problems=tuple(problems))
    found, missing = _files(files, "eval.judge.questions", *config.judge.questions)
    judged = ["continue", "sft", "dpo"]
    plan.add("judge", config.judge.model_copy(update=found), {"tokenizer": "merged_tokenizer"} | {name: name for name in judged}, problems=missing)
    found, missing = _files(files, "eval.votes.path", *([config.votes.path] if config.votes.path else []))
    plan.add("votes", config.votes.model_copy(update=found), problems=missing)
