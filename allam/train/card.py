"""What stands beside exported weights: README.md (the model card) and recipe.json, from the manifests of everything that the model was made of.

The data ledger, the licences of the texts, the stages' configurations and figures are read where the store has them; what was removed is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from allam.artifacts import JOB, KEY_DIGITS_IN_PATH, Manifest, read_manifest, write_atomic, write_json
from allam.audit.packed import tokens_by_licence
from allam.engine.journal import EVALS, METRICS
from allam.errors import ArtifactError
from allam.text.tokenizer import Tokenizer

TRAININGS = ("pretrain", "continue", "sft", "dpo")
PHASES = ("pretrain", "continue")
LEDGER, RECIPE, CARD = "ledger.json", "recipe.json", "README.md"
LANGUAGES = {"en": "English", "ar": "Arabic", "ar_translated": "Arabic, translated from English"}


@dataclass
class Origin:
    """Where a model comes from: the artifact of the stage that made it, the step of a checkpoint (with its state), and benchmarks of it, if any."""

    artifact: Path
    step: int | None = None
    state: dict[str, Any] = field(default_factory=dict)
    benchmarks: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A stage on the way to the model: what it was and where it lies."""

    folder: Path
    kind: str
    about: dict[str, Any]  # "version", "key", "config", and "inputs" as {name: {"kind", "key"}}
    manifest: Manifest | None


def write(target: Path, origin: Origin, config: PretrainedConfig, tokenizer: Tokenizer) -> None:
    """Writes README.md and recipe.json into `target`."""
    stages = ancestry(origin.artifact)
    if stages:
        write_json(target / RECIPE, {name: {"kind": made.kind, **{k: made.about[k] for k in ("version", "key", "config")}} for name, made in stages.items()})
    write_atomic(target / CARD, card(origin, stages, config, tokenizer))


def ancestry(artifact: Path) -> dict[str, Made]:
    """The stages that an artifact was made of, by name, each after what it needs, and the artifact itself last. Nothing where it has no papers."""
    found: dict[str, Made] = {}

    def visit(folder: Path) -> None:
        manifest = read_manifest(folder)
        try:
            about = manifest.model_dump(mode="json") if manifest else json.loads((folder / JOB).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        if about["name"] in found:
            return
        for ref in about["inputs"].values():
            visit(folder.parent.parent / ref["kind"] / ref["key"][:KEY_DIGITS_IN_PATH])
        found[about["name"]] = Made(folder, about["kind"], about, manifest)

    visit(artifact)
    return found


def card(origin: Origin, stages: dict[str, Made], config: PretrainedConfig, tokenizer: Tokenizer) -> str:
    """README.md of the exported folder."""
    name = list(stages)[-1] if stages else None
    at = f", checkpoint of step {origin.step:,}" if origin.step is not None else ""
    lines = ["---", "language: [ar, en]", "library_name: transformers", "pipeline_tag: text-generation", "---", "", "# An Arabic-English language model", "",
             "Made by the open ALLaM pipeline after *ALLaM: Large Language Models for Arabic and English* (arXiv 2407.15390).", "",
             "| | |", "|---|---|",
             f"| architecture | {(config.architectures or ['?'])[0]}, {config.num_hidden_layers} layers of width {config.hidden_size} |",
             f"| vocabulary | {tokenizer.vocab_size:,} pieces, `{tokenizer.fingerprint[:16]}` |",
             f"| longest sequence | {config.max_position_embeddings:,} tokens |"]
    if name is not None:
        lines.append(f"| made by | stage `{name}`{at}, key `{stages[name].about['key'][:16]}` |")
        lines += _trainings(origin, stages) + _ledger(origin, stages) + _licences(origin, stages)
    if origin.benchmarks:
        lines += ["", "## Benchmarks", "", "```json", json.dumps(origin.benchmarks, ensure_ascii=False, indent=1), "```"]
    chat = ("The chat template is part of the tokenizer: `tokenizer.apply_chat_template(messages, add_generation_prompt=True)`."
            if any(made.kind == "sft" for made in stages.values()) else "It was not finetuned on conversations: it continues text.")
    recipe = [f"`{RECIPE}` has every stage's configuration and key."] if stages else []
    return "\n".join([*lines, "", "## Use", "", chat, *recipe, "It may state falsehoods; measure it on your own task before use.", ""])


def _trainings(origin: Origin, stages: dict[str, Made]) -> list[str]:
    """How it was trained: a row a stage, with its figures; of a checkpoint's own stage, how far it had come."""
    rows = []
    for name, made in stages.items():
        metrics: dict[str, Any] = made.manifest.metrics if made.manifest else {}
        if origin.step is not None and made.folder == origin.artifact:
            steps = f"{origin.step:,} of {origin.state['schedule']['total_steps']:,}"
            rows.append(f"| {name} | {steps} | {_so_far(origin)} |")
        elif made.kind == "import_model":
            rows.append(f"| {name} | `{made.about['config']['model']}`, revision {made.about['config']['revision']} | | | |")
        elif made.kind in TRAININGS:
            bits = metrics.get("bits_per_byte", {})
            told = _bits(bits.get("before", {}), bits.get("after", {}))
            losses = [metrics.get("loss", {}).get("last"), metrics.get("last_loss"), metrics.get("last", {}).get("loss")]
            rows.append(f"| {name} | {_number(metrics.get('steps'))} | {_number(metrics.get('tokens'))} | {next((v for v in losses if v is not None), '')} "
                        f"| {told} |")
    return ["", "## Training", "", "| stage | steps | tokens | last loss | held-out bits per byte |", "|---|---|---|---|---|", *rows] if rows else []


def _bits(before: dict[str, float], after: dict[str, float]) -> str:
    return "; ".join(f"{LANGUAGES.get(c, c)} {before[c]:.4f} → {value:.4f}" for c, value in after.items())


def _so_far(origin: Origin) -> str:
    """Tokens, last loss and bits per byte of a checkpoint, from the lines that stood in the logs when it was written."""
    found = {}
    for name in (METRICS, EVALS):
        path = next((p for p in (origin.artifact / name, origin.artifact / "work" / name) if p.is_file()), None)
        content = path.read_bytes()[: origin.state["logs"][name]] if path else b""
        found[name] = [json.loads(line) for line in content.splitlines()]
    row, evals = found[METRICS][-1] if found[METRICS] else {}, found[EVALS]
    bits = _bits(evals[0]["bits_per_byte"], evals[-1]["bits_per_byte"]) if evals else ""
    return f"{_number(row.get('tokens'))} | {row.get('loss', '')} | {bits}"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


def _ledger(origin: Origin, stages: dict[str, Made]) -> list[str]:
    """Tokens by phase, language, kind and domain; of a checkpoint's own phase, those until its step."""
    rows = []
    for name, made in stages.items():
        if made.kind not in PHASES:
            continue
        ledger = _consumed(origin, made)
        rows += [f"| {name} | {LANGUAGES.get(c, c)} | {d} | {tokens:,} |" for c, domains in ledger.items() for d, tokens in domains.items()]
    return ["", "## Data", "", "| phase | language | domain | tokens |", "|---|---|---|---|", *rows] if rows else []


def _consumed(origin: Origin, made: Made) -> dict[str, dict[str, int]]:
    """Tokens that a phase took, by component and domain; nothing where its ledger is gone."""
    if made.folder == origin.artifact and origin.state.get("ledger"):
        return dict(origin.state["ledger"])
    path = made.folder / LEDGER
    ledger = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {c: {d: row["consumed_tokens"] for d, row in domains.items()} for c, domains in ledger.items()}


def _licences(origin: Origin, stages: dict[str, Made]) -> list[str]:
    """Tokens of the packs by licence of their documents, of the components that were trained on: a pack may be there for its held-out text alone. Which
    licence the weights may carry follows from these and the base's."""
    rows, trained = [], dict[str, set[str]]()
    for made in stages.values():
        if made.kind in PHASES and "pack" in made.about["inputs"]:
            ledger = _consumed(origin, made)
            taken = {c for c, domains in ledger.items() if any(domains.values())} if ledger else set(LANGUAGES)  # without a ledger all may have been taken
            trained.setdefault(made.about["inputs"]["pack"]["key"], set()).update(taken)
    for name, made in stages.items():
        components = trained.get(made.about["key"], set())
        if made.kind != "pack" or made.manifest is None or not components:
            continue
        corpora = [made.folder.parent.parent / ref["kind"] / ref["key"][:KEY_DIGITS_IN_PATH]
                   for ref in (made.about["inputs"][which] for which in ("natural", "translated"))]
        try:
            found = tokens_by_licence(made.folder, made.manifest, corpora)
        except (OSError, ArtifactError):
            continue  # the corpus was removed since
        rows += [f"| {name} | {row['licence'] or '(none given)'} | {LANGUAGES.get(row['component'], row['component'])} | {row['documents']:,} "
                 f"| {row['tokens']:,} |" for row in found if row["component"] in components]
    return ["", "## Licences of the texts", "", "| pack | licence | language | documents | tokens |", "|---|---|---|---|---|", *rows] if rows else []
