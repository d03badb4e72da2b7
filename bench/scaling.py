"""Cost of the data stages against the size of the corpus: 1, 4, 16 and 64 times the same real text, on one core (paper §2.1).

    python -m bench.scaling [--quick] [--rounds 2]

The stages run as the flow `data` runs them: ingest, filter, dedup, decontaminate, translate, decontaminate_translated, with the paper's filters, URL and
exact duplicates, anonymisation and the sample's benchmarks. Each stage runs in a process of its own with one worker and the environment that workers
have, so that the process's peak memory is that of a worker together with what looks at the whole corpus at once. Seconds are processor time, without
the start of Python.

The corpus grows as a real one does: each copy has other words. Of the words of a language all but the 500 most frequent are replaced, in the n-th copy
by those n places further among 1,000 of like frequency. So lengths, stop words and languages stay, no two copies are duplicates, and what is known
of one text is of no use for the next. Within each copy every 50th document stands twice. Sources are single files, shards of 0.5 MB, so that even
the smallest corpus has whole ones. The benchmark stops where the larger corpus isn't curated in proportion.

The peer of a time is what linear growth from the smallest size would cost, that of a memory the smallest size's. The exponent is the slope of a line
through log(seconds) over log(size), fitted by least squares; between the two largest sizes what is paid once (a model, late imports) hardly shows in it,
and buffers of a fixed size are full in both.
"""

from __future__ import annotations

import gzip
import importlib
import json
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from allam.cluster import ClusterProfile, process_variables
from allam.pipeline import make_plan
from allam.recipe import Recipe, load
from allam.sample import root as sample_root
from bench._harness import REAL_DATA, Row, arguments, finish
from bench._text import real_or_sample

SIZES, QUICK_SIZES = (1, 4, 16, 64), (1, 2)
STAGES = ("ingest", "filter", "dedup", "decontaminate", "translate", "decontaminate_translated")
MAX_EXPONENT, MAX_MEMORY = 1.05, 1.1
FREQUENT, BLOCK = 500, 1000
WORD = re.compile(r"[^\W\d_]+")
PAIRS = "parallel/mmlu_chatgpt_translated_en_ar.jsonl.gz"
SOURCES: dict[str, dict[str, Any]] = {
    "web_ar": {"language": "ar", "domain": "web"}, "web_en": {"language": "en", "domain": "web"},
    "source_en": {"language": "en", "domain": "wiki", "filters": []}, "translated_ar": {"language": "ar", "domain": "wiki", "kind": "translated"}}
Record = dict[str, Any]


@dataclass
class Cost:
    """Of one stage or of all: processor time, and the peak of resident memory."""

    seconds: float
    megabytes: float


def base_corpus(quick: bool) -> tuple[str, dict[str, list[Record]]]:
    """What is read, and the documents of each source at the size 1: about 2 MB of real text, or a few of the sample's documents."""
    limits = (60, 60) if quick else (300, 55)
    arabic = real_or_sample("arabic/saudinewsnet.jsonl.xz", "web_ar.jsonl.gz", limits[0], quick)
    english = real_or_sample("english/english_books.jsonl.xz", "web_en.jsonl.gz", limits[1], quick)
    corpus = {"web_ar": arabic[1], "web_en": english[1]}
    if not quick and (REAL_DATA / PAIRS).is_file():
        with gzip.open(REAL_DATA / PAIRS, "rt", encoding="utf-8") as file:
            pairs = [json.loads(line) for line in islice(file, 750)]
        corpus["source_en"] = [{"id": pair["id"], "text": pair["en"]} for pair in pairs]
        corpus["translated_ar"] = [{"id": f"{pair['id']}-ar", "text": pair["ar"], "translation_of": pair["id"]} for pair in pairs]
        names = [arabic[0], english[0], Path(PAIRS).name]
    else:
        corpus["source_en"] = real_or_sample("", "wiki_en.jsonl", limits[0], True)[1]
        corpus["translated_ar"] = real_or_sample("", "translated_wiki_ar.jsonl", limits[0], True)[1]
        names = [arabic[0], english[0], "wiki_en.jsonl", "translated_wiki_ar.jsonl"]
    for documents in corpus.values():
        documents[:] = list({d["id"]: d for d in documents}.values())
    for source in ("web_ar", "web_en"):
        corpus[source] += [d | {"id": f"again-{d['id']}"} for d in corpus[source][::50]]
    return f"{', '.join(names[:-1])} and {names[-1]}", corpus


class Words:
    """The words of one language, by frequency."""

    def __init__(self, texts: list[str]) -> None:
        counts = Counter(word for text in texts for word in WORD.findall(text))
        self.rare = sorted(counts, key=lambda word: (-counts[word], word))[min(FREQUENT, len(counts) // 10):]

    def others(self, copy: int) -> dict[str, str]:
        """What stands for each rare word in a copy."""
        blocks = [self.rare[first: first + BLOCK] for first in range(0, len(self.rare), BLOCK)]
        return {word: block[(i + copy) % len(block)] for block in blocks for i, word in enumerate(block)}


def write_copies(corpus: dict[str, list[Record]], copies: int, folder: Path) -> None:
    """Writes `<folder>/<copy>/<source>.jsonl.gz`; put one after another, those of the first n copies are the corpus of the size n."""
    words = {language: Words([d["text"] for source, documents in corpus.items() if SOURCES[source]["language"] == language for d in documents])
             for language in ("ar", "en")}
    for copy in range(copies):
        (folder / str(copy)).mkdir(parents=True)
        others = {language: known.others(copy) for language, known in words.items()}
        for source, documents in corpus.items():
            table = others[SOURCES[source]["language"]]
            with gzip.open(folder / str(copy) / f"{source}.jsonl.gz", "wt", encoding="utf-8", compresslevel=3) as file:
                for d in documents:
                    record = {"id": f"{copy}-{d['id']}", "text": WORD.sub(lambda found: table.get(found[0], found[0]), d["text"])}  # noqa: B023
                    record |= {"url": f"{d['url']}/{copy}"} if d.get("url") and source == "web_ar" else {}
                    record |= {"translation_of": f"{copy}-{d['translation_of']}"} if d.get("translation_of") else {}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")


def recipe_of_size(size: int, copies: Path, root: Path, quick: bool) -> Recipe:
    """Writes the corpus of a size below `root`, beside what the demo's benchmarks need; returns the recipe that reads it."""
    shutil.copytree(sample_root(), root, ignore=shutil.ignore_patterns("documents"))
    for source in SOURCES:
        with open(root / f"{source}.jsonl.gz", "wb") as file:
            for copy in range(size):
                file.write((copies / str(copy) / f"{source}.jsonl.gz").read_bytes())
    sources = {source: given | {"path": f"{source}.jsonl.gz"} for source, given in SOURCES.items()}
    return load("demo", [f"data.root={root}", f"data.sources={json.dumps(sources)}", f"data.ingest.shard_bytes={50_000 if quick else 500_000}"])


def run_stage(module: str, config: Any, inputs: dict[str, Path], out: Path) -> tuple[Cost, dict[str, Any]]:
    """In a process of its own: the stage's cost and its funnel. The status file's peak is this process's; that of getrusage begins with its parent's."""
    stage = importlib.import_module(module)
    (out / "work").mkdir(parents=True)
    start = time.process_time()
    metrics = stage.run(config, inputs, out)
    seconds = time.process_time() - start
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return Cost(seconds, int(peak[1]) * 1024 / 1e6), metrics["funnel"]


def run_all(recipe: Recipe, base: Path) -> tuple[dict[str, Cost], dict[str, int]]:
    """Each stage's cost, and how many documents each left."""
    plan, costs, left = make_plan(recipe), dict[str, Cost](), dict[str, int]()
    for name in STAGES:
        spec = plan.specs[name]
        inputs = {"root": spec.root} | {given: base / stage for given, stage in spec.inputs.items()}
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            costs[name], funnel = pool.submit(run_stage, spec.stage.module, spec.config, inputs, base / name).result()
        left[name] = sum(row["out"] for row in funnel.values())
    costs["all stages"] = Cost(sum(cost.seconds for cost in costs.values()), max(cost.megabytes for cost in costs.values()))
    return costs, left


def check(size: int, left: dict[str, int], left_at_1: dict[str, int]) -> None:
    """Leaves with an error where the copies aren't curated alike: other words change few decisions, duplicates between copies would change many."""
    for stage, documents in left_at_1.items():
        if not 0.8 <= left[stage] / (size * documents) <= 1.2:
            raise SystemExit(f"{stage} left {left[stage]} documents at the size {size}, and {documents} at the size 1: the copies are not curated alike")


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """The slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def rows_of(sizes: tuple[int, ...], rounds: list[dict[int, dict[str, Cost]]], what: str) -> list[Row]:
    """Exponents and memory of each stage and of all, then the cost of all at each size."""
    first, last = sizes[0], sizes[-1]
    rows = []
    for name in (*STAGES, "all stages"):
        slopes = [exponent(sizes, [costs[size][name].seconds for size in sizes]) for costs in rounds]
        rows.append(Row(f"{name}: time against size, {first}x to {last}x", "exponent", slopes, [1.0] * len(rounds), "linear", "lower", MAX_EXPONENT))
    slopes = [exponent(sizes[-2:], [costs[size]["all stages"].seconds for size in sizes[-2:]]) for costs in rounds]
    rows.append(Row(f"all stages: time against size, {sizes[-2]}x to {last}x", "exponent", slopes, [1.0] * len(rounds), "linear", "lower", MAX_EXPONENT))
    for name in (*STAGES, "all stages"):
        rows.append(Row(f"{name}: peak memory of the worker at {last}x", "MB", [costs[last][name].megabytes for costs in rounds],
                        [costs[first][name].megabytes for costs in rounds], f"at {first}x", "lower", MAX_MEMORY))
    rows.append(Row(f"all stages: peak memory at {last}x, beyond {sizes[-2]}x", "MB", [costs[last]["all stages"].megabytes for costs in rounds],
                    [costs[sizes[-2]]["all stages"].megabytes for costs in rounds], f"at {sizes[-2]}x", "lower", MAX_MEMORY))
    for size in sizes:
        ours, peer = [costs[size]["all stages"].seconds for costs in rounds], [size * costs[first]["all stages"].seconds for costs in rounds]
        rows.append(Row(f"all stages at {size}x of {what}", "s", ours, peer, f"{size} times 1x", "lower"))
        rows.append(Row(f"peak memory at {size}x", "MB", [costs[size]["all stages"].megabytes for costs in rounds],
                        [costs[first]["all stages"].megabytes for costs in rounds], f"at {first}x", "lower"))
    return rows


def main() -> None:
    given = arguments(__doc__ or "", rounds=2)  # a round takes about three minutes
    os.environ.update(process_variables(ClusterProfile(workers=1, threads=1), 1))
    sizes = QUICK_SIZES if given.quick else SIZES
    names, corpus = base_corpus(given.quick)
    megabytes = sum(len(d["text"].encode()) for documents in corpus.values() for d in documents) / 1e6
    what = f"{sum(map(len, corpus.values()))} documents of {names}, {megabytes:.2f} MB"
    rounds, left_at_1 = list[dict[int, dict[str, Cost]]](), dict[str, int]()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_copies(corpus, sizes[-1], base / "copies")
        recipes = {size: recipe_of_size(size, base / "copies", base / f"corpus-{size}", given.quick) for size in sizes}
        for number in range(given.rounds):
            costs = {}
            for size in sizes if number % 2 == 0 else sizes[::-1]:
                costs[size], left = run_all(recipes[size], base / "out")
                shutil.rmtree(base / "out")
                left_at_1 = left_at_1 or left
                check(size, left, left_at_1)
                print(f"{size}x: " + ", ".join(f"{name} {cost.seconds:.2f} s {cost.megabytes:.0f} MB ({left.get(name, '')})"
                                               for name, cost in costs[size].items()), flush=True)
            rounds.append(costs)
    print(f"exponent of all stages: {median(exponent(sizes, [costs[size]['all stages'].seconds for size in sizes]) for costs in rounds):.3f}")
    finish("scaling", rows_of(sizes, rounds, what), ["datatrove", "fasttext-numpy2-wheel", "numpy", "pyarrow"], given.quick)


if __name__ == "__main__":
    main()
