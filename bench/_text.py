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
from allam.documents import Document, shard_path, write_documents
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


def run_stages(recipe: Recipe, stages: Sequence[str], base: Path, made: dict[str, Path] | None = None) -> dict[str, Path]:
    """Runs stages of the recipe in folders below `base`, in this process; returns the folders. A worker adds keys, locks and manifests to this.

    `made` are folders of stages that need not run.
    """
    plan, folders = make_plan(recipe), {name: base / name for name in stages} | (made or {})
    for name in stages:
        spec = plan.specs[name]
        (folders[name] / "work").mkdir(parents=True)
        inputs = {"root": spec.root} | {given: folders[stage] for given, stage in spec.inputs.items()}
        importlib.import_module(spec.stage.module).run(spec.config, inputs, folders[name])
    return folders


def merged_tokenizer(base: Path, vocab_size: int) -> Path:
    """The folder of a merged tokenizer that the demo's own stages train on the sample: curated corpus, base, Arabic, merge."""
    recipe = load("demo", [f"tokenizer.base.vocab_size={vocab_size}", f"tokenizer.arabic.vocab_size={vocab_size}"])
    stages = [spec.name for spec in make_plan(recipe).upstream("merged_tokenizer")]
    return run_stages(recipe, stages, base)["merged_tokenizer"]


# (file below the real data, language, domain, documents at most): what the tokenizer's benchmarks train and judge on
CORPUS = (("arabic/saudinewsnet.jsonl.xz", "ar", "news", 8000), ("arabic/hindawi_books.jsonl.xz", "ar", "books", 2000),
          ("arabic/tweets.jsonl.xz", "ar", "web", 16_000), ("arabic/tashkeela_diacritised.jsonl.xz", "ar", "other", 2500),
          ("english/english_books.jsonl.xz", "en", "books", 1000), ("english/learnxinyminutes_en.jsonl.xz", "en", "code", 136),
          ("english/react_docs_en.jsonl.xz", "en", "code", 133), ("english/openlogic_latex.jsonl.xz", "en", "math", 447))
LLAMA = "tokenizers/llama2_tokenizer.model"


def extended_llama(base: Path, checked_lines: int = 3000) -> dict[str, Path] | None:
    """Folders below `base` of a corpus of real text, Llama 2's tokenizer, an Arabic one of 32,000 pieces and the two merged, made by the stages.

    None where the real data isn't there.
    """
    if not all((REAL_DATA / path).is_file() for path in (LLAMA, *(path for path, *_ in CORPUS))):
        return None
    for path, language, domain, limit in CORPUS:
        source = Path(path).name.split(".")[0]
        documents = (Document(f"{source}-{i}", record["text"], source, language, domain, "natural")  # type: ignore[arg-type]
                     for i, record in enumerate(islice(_records(REAL_DATA / path), limit)))
        write_documents(shard_path(base / "decontaminate" / "documents", source, 0), documents)
    recipe = load("demo", [f"data.root={REAL_DATA}", f"tokenizer.base.model={LLAMA}", "tokenizer.arabic.vocab_size=32000",
                           f"tokenizer.merged.checked_lines={checked_lines}"])
    stages = ["base_tokenizer", "arabic_tokenizer", "merged_tokenizer"]
    (base / "decontaminate_translated" / "documents").mkdir(parents=True)
    folders = run_stages(recipe, stages, base, {name: base / name for name in ("decontaminate", "decontaminate_translated")})
    return {"natural": base / "decontaminate"} | {name.removesuffix("_tokenizer"): folders[name] for name in stages}
