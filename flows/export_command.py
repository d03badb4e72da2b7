"""`allam export`: the model of any stage, or of any checkpoint of a training, as a folder for transformers; by choice as GGUF, too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from allam.errors import StageFailed, UserError
from flows.options import Cluster, Overrides, RecipeName, StorePath
from flows.run import Run, open_run
from flows.terminal import out

MODELS = ("import_model", "pretrain", "extend", "continue", "sft", "dpo")
CONVERTER, CONVERTER_FOLDER = "convert_hf_to_gguf.py", "LLAMA_CPP"
GGUF = "model.gguf"


def export(recipe: RecipeName,
           to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to write it; must not exist, or be empty.")],
           stage: Annotated[str, typer.Option("--stage", metavar="STAGE", help="The stage that made the model: " + ", ".join(MODELS) + ".")] = "dpo",
           step: Annotated[int | None, typer.Option("--step", min=0, help="A checkpoint of that stage instead of its final model; the stage need not be done.")]
           = None,
           gguf: Annotated[bool, typer.Option("--gguf", help=f"Also write {GGUF} by llama.cpp's {CONVERTER}, found on PATH or below ${CONVERTER_FOLDER}.")]
           = False,
           cluster: Cluster = None, overrides: Overrides = None, store: StorePath = None) -> None:
    """Write a model for transformers: safetensors, tokenizer, chat template, generation config, model card, recipe.

    Its greedy answers are compared with the engine's, token by token.
    """
    run = open_run(recipe, overrides or [], cluster, store)
    run.plan.upstream(stage)
    spec, target = run.plan.specs[stage], to.expanduser().resolve()
    if spec.kind not in MODELS:
        raise UserError(f"--stage: {stage} makes no model", f"use one of: {', '.join(MODELS)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--to: {target} is there already, and not empty", "give another folder")
    converter = _converter() if gguf else None
    origin = run.store.folder(spec.kind, spec.key)
    if step is None and run.store.manifest(spec.kind, spec.key) is None:
        raise UserError(f"{stage} isn't made yet", f"`allam run RECIPE --to {stage}` makes it; --step N exports a checkpoint of a stage that is being made")
    tokenizer = run.plan.specs[spec.inputs["tokenizer"]]
    if run.store.manifest(tokenizer.kind, tokenizer.key) is None:
        raise UserError(f"{tokenizer.name} isn't made yet", f"`allam run RECIPE --to {tokenizer.name}` makes it")
    os.environ["ALLAM_CLUSTER"] = run.profile.model_dump_json()
    from allam.train.card import Origin
    from allam.train.export import export as write

    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        done = write(Origin(origin, step, benchmarks={} if step is not None else _benchmarks(run, stage)), run.store.folder(tokenizer.kind, tokenizer.key),
                     temporary)
        if converter is not None:
            _convert(converter, temporary)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    out.print(f"{target}: {', '.join(sorted(p.name for p in target.iterdir()))}; {done['greedy_tokens_compared']} tokens of greedy answers as the engine's",
              soft_wrap=True)


def _benchmarks(run: Run, stage: str) -> dict[str, Any]:
    """What was measured of the stage's model, where it was."""
    spec = run.plan.specs.get(f"benchmarks_{stage}")
    manifest = run.store.manifest(spec.kind, spec.key) if spec else None
    return manifest.metrics if manifest else {}


def _converter() -> Path:
    """llama.cpp's converter. Raises `UserError` before anything is written where it isn't installed."""
    folder = os.environ.get(CONVERTER_FOLDER)
    found = Path(folder).expanduser() / CONVERTER if folder else Path(shutil.which(CONVERTER) or CONVERTER)
    if not found.is_file():
        raise UserError(f"--gguf needs llama.cpp's {CONVERTER}, which is neither on PATH nor in ${CONVERTER_FOLDER}",
                        f"get llama.cpp, install its requirements (gguf among them), and set {CONVERTER_FOLDER} to its folder; or leave --gguf out")
    return found


def _convert(converter: Path, folder: Path) -> None:
    done = subprocess.run([sys.executable, str(converter), str(folder), "--outfile", str(folder / GGUF), "--outtype", "auto"], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0 or not (folder / GGUF).is_file():
        raise StageFailed(f"{converter} failed:\n{(done.stderr or done.stdout)[-2000:]}", "see what it says; without --gguf the folder is written")
