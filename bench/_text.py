"""What the benchmarks of text share: real or sample documents as plain dictionaries, and stages of a recipe run in this process."""

from __future__ import annotations

import gzip
import importlib
import json
import lzma
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from allam.cluster import ClusterProfile
from allam.pipeline import make_plan
from allam.recipe import Recipe, load
from allam.sample import root as sample_root
from bench._harness import REAL_DATA

SAMPLE = sample_root() / "documents"


def real_or_sample(real: str, sample: str, limit: int | None, quick: bool) -> tuple[str, list[dict[str, str]]]:
    """(name, documents): those of the real file where it is there, else of the sample's; always the sample's for a quick run."""
    path = REAL_DATA / real
    if quick or not path.is_file():
        path = SAMPLE / sample
    return path.name, list(islice(_records(path), limit))


def _records(path: Path) -> Iterator[dict[str, str]]:
    """The intact records of a JSON Lines file; the sample holds broken lines on purpose, and what is compared here is not how they are met."""
    opened = lzma.open if path.suffix == ".xz" else gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("text"), str) and record["text"] and isinstance(record.get("id"), str):
                yield record


def one_worker() -> None:
    """Makes every stage of this process compute on one core, as a cluster profile would."""
    os.environ["ALLAM_CLUSTER"] = ClusterProfile(workers=1, threads=1).model_dump_json()


def run_stages(recipe: Recipe, stages: Sequence[str], base: Path) -> dict[str, Path]:
    """Runs stages of the recipe in folders below `base`, in this process; returns the folders. A worker adds keys, locks and manifests to this."""
    plan, folders = make_plan(recipe), {name: base / name for name in stages}
    for name in stages:
        spec = plan.specs[name]
        (folders[name] / "work").mkdir(parents=True)
        inputs = {"root": spec.root} | {given: folders[stage] for given, stage in spec.inputs.items()}
        importlib.import_module(spec.stage.module).run(spec.config, inputs, folders[name])
    return folders


def merged_tokenizer(base: Path, vocab_size: int) -> Path:
    """The folder of a merged tokenizer that the demo's own stages train on the sample: curated corpus, base, Arabic, merge."""
    recipe = load("demo", [f"tokenizer.base.vocab_size={vocab_size}", f"tokenizer.arabic.vocab_size={vocab_size}"])
    stages = ["ingest", "filter", "dedup", "translate", "base_tokenizer", "arabic_tokenizer", "merged_tokenizer"]
    return run_stages(recipe, stages, base)["merged_tokenizer"]
