"""One model on all benchmarks, and its bits per byte on held-out text (paper §4.1, Figure 8). lm-eval computes, on local files alone.

Multiple choice: the choice whose text is likeliest after the question wins (`accuracy`), or likeliest per character (`accuracy_norm`).
Generation: the expected answer stands in the first line of the greedy one, word by word after normalisation (`accuracy`), or is all of it
(`exact_match`). Aligned models answer in sentences, hence the first; they are asked in the chat form, base models in plain text.

Writes results.json, bits_per_byte.json and samples/<benchmark>.jsonl. Run it with `allam stage benchmarks_continue --recipe demo`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from pathlib import Path
from typing import Any

os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = os.environ["TQDM_DISABLE"] = "1"  # before lm-eval is imported: it must look nothing up

import datasets
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from allam.artifacts import write_atomic, write_json
from allam.engine.bits_per_byte import bits_per_byte
from allam.engine.device import compute_device
from allam.engine.model import load_model
from allam.eval.config import BenchmarksConfig
from allam.eval.model import EvaluatedModel
from allam.files import check_file
from allam.items import BenchmarkConfig, Item
from allam.prompts import plain_prompt, read_items
from allam.text.forms import comparison_form
from allam.text.tokenizer import Tokenizer

_WORD = re.compile(r"\w+")


def run(config: BenchmarksConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Measures the model in `inputs["model"]`."""
    device = compute_device()
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    model = load_model(inputs["model"] / "model")
    model.to(device)  # type: ignore[arg-type]
    results: dict[str, Any] = {}
    samples: dict[str, list[dict[str, Any]]] = {}
    if config.benchmarks:
        items = {name: read_items(check_file(inputs["root"], benchmark.files[0]), benchmark) for name, benchmark in config.benchmarks.items()}
        samples = run_benchmarks(EvaluatedModel(model, tokenizer, config.chat), config, items)
        results = {name: summary(rows) for name, rows in samples.items()}
    per_byte = {path.stem: bits_per_byte(model, tokenizer, _texts(path), config.sequence_length)
                for path in sorted((inputs["held_out"] / "held_out").glob("*.jsonl"))}
    write_json(out / "results.json", results)
    write_json(out / "bits_per_byte.json", per_byte)
    (out / "samples").mkdir()
    for name, rows in samples.items():
        write_atomic(out / "samples" / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return {"accuracy": {name: result["accuracy"] for name, result in results.items()}, "bits_per_byte": per_byte}


def _texts(path: Path) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def run_benchmarks(model: EvaluatedModel, config: BenchmarksConfig, items: dict[str, tuple[list[Item], list[Item]]]) -> dict[str, list[dict[str, Any]]]:
    """Runs lm-eval over the items (those to ask and the examples) of each benchmark; returns what was asked and answered, item by item."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tasks = {}
    for name, benchmark in config.benchmarks.items():
        asked, examples = items[name]
        tasks[name] = _task(name, benchmark, asked, examples, config.max_new_tokens, model.chat)
    # `evaluate`, not `simple_evaluate`: that one indexes thousands of task files and asks the system about itself, seconds for nothing here
    outcome = evaluate(model, {"tasks": tasks, "groups": {}, "group_map": {}}, bootstrap_iters=0, log_samples=True)
    assert outcome is not None
    logged = outcome["samples"]
    return {name: [_sample(items[name][0][row["doc_id"]], row) for row in sorted(logged[name], key=lambda r: r["doc_id"])] for name in config.benchmarks}


def _task(name: str, config: BenchmarkConfig, asked: list[Item], examples: list[Item], max_new_tokens: int, chat: bool) -> ConfigurableTask:
    """A benchmark as a task of lm-eval whose documents are already prompts."""
    is_choice = config.type == "multiple_choice"
    in_chat = chat and not is_choice
    rows = [{"prompt": item.question if in_chat else plain_prompt(item, examples, config), "choices": list(item.choices), "answer": item.answer}
            for item in asked]
    common = {"task": name, "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)}, "test_split": "test", "num_fewshot": 0,
              "doc_to_text": lambda doc: doc["prompt"], "doc_to_target": lambda doc: doc["answer"]}
    if is_choice:
        special: dict[str, Any] = {"output_type": "multiple_choice", "doc_to_choice": lambda doc: doc["choices"], "target_delimiter": " "}
    else:
        measured = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("contains", "exact_match")]
        special = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n"], "max_gen_toks": max_new_tokens, "do_sample": False},
                   "metric_list": measured, "process_results": lambda doc, results: score_answer(results[0], doc["answer"])}
    return ConfigurableTask(config=common | special)


def score_answer(given: str, expected: str) -> dict[str, float]:
    """Whether the expected words stand in the given answer in one run, and whether they are all of it."""
    said, wanted = answer_words(given), answer_words(expected)
    contains = any(said[i:i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))
    return {"contains": float(contains), "exact_match": float(said == wanted)}


def answer_words(text: str) -> list[str]:
    """Words for comparing answers: without case, vowel signs, punctuation and English articles; alef's forms alike."""
    folded = comparison_form(text).casefold().translate(_ALEF)
    return [word for word in _WORD.findall(folded) if word not in ("a", "an", "the")]


_ALEF = str.maketrans("أإآ", "ااا")


def _sample(item: Item, row: dict[str, Any]) -> dict[str, Any]:
    """One line of samples/<benchmark>.jsonl."""
    common = {"id": item.id, "topic": item.topic, "group": item.group, "prompt": row["arguments"][0][0], "answer": item.answer_text}
    if item.choices and "acc" in row:
        scores = [float(r[0]) for r in row["filtered_resps"]]
        return common | {"choices": list(item.choices), "log_likelihoods": [round(s, 5) for s in scores], "chosen": item.choices[scores.index(max(scores))],
                         "correct": float(row["acc"]), "correct_norm": float(row["acc_norm"]), "chance": 1 / len(item.choices)}
    return common | {"given": row["filtered_resps"][0], "correct": float(row["contains"]), "exact_match": float(row["exact_match"]), "chance": 0.0}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with its standard error and chance, over all items and for each group and topic."""
    result = _cell(rows)
    for extra, name in (("correct_norm", "accuracy_norm"), ("exact_match", "exact_match")):
        if extra in rows[0]:
            result[name] = sum(r[extra] for r in rows) / len(rows)
    for field in ("group", "topic"):
        names = list(dict.fromkeys(r[field] for r in rows if r[field]))
        result[f"by_{field}"] = {name: _cell([r for r in rows if r[field] == name]) for name in names}
    return result


def _cell(rows: list[dict[str, Any]]) -> dict[str, Any]:
    count = len(rows)
    accuracy = sum(r["correct"] for r in rows) / count
    error = math.sqrt(accuracy * (1 - accuracy) / (count - 1)) if count > 1 else 0.0
    return {"accuracy": accuracy, "stderr": error, "chance": sum(r["chance"] for r in rows) / count, "n": count}
