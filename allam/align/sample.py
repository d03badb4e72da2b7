"""Rejected responses: several samples for each preference prompt, by different temperatures and nucleus sizes (paper §C.3).

The settings are used in turn, so that ten samples of five settings are two of each. Prompts run in batches that depend on the data alone, and
each finished batch is appended to work/samples.jsonl: a run that is killed goes on after the last whole line and ends with the same bytes.

Writes candidates.jsonl. Run it with `allam stage sample --recipe demo`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from allam.align.config import SampleConfig
from allam.align.conversations import LANGUAGES, as_conversation, conversation_problem, evenly, json_lines, read_strict
from allam.artifacts import write_atomic
from allam.chat.template import encode_prompt, stop_ids
from allam.engine.device import compute_device
from allam.engine.model import load_model
from allam.errors import UserError
from allam.files import check_file
from allam.generate.sampler import generate
from allam.progress import Progress
from allam.text.tokenizer import Tokenizer

ROWS = 64  # samples of one batch, at least those of one prompt; part of the arithmetic, so no knob of the machine


def run(config: SampleConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Samples `config.samples` responses for each prompt."""
    device = compute_device()
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    model = load_model(inputs["model"] / "model")
    model.to(device)  # type: ignore[arg-type]
    given = [row for ref in config.files for row in _read(check_file(inputs["root"], ref))]
    fitting = _fitting(given, tokenizer, model.config.max_position_embeddings - config.max_new_tokens)
    if not fitting:
        raise UserError(f"none of {len(given)} prompts leaves room for align.sample.max_new_tokens = {config.max_new_tokens} in the model's "
                        f"{model.config.max_position_embeddings} positions", "lower align.sample.max_new_tokens, or raise train.model.max_positions")
    chosen = evenly(fitting, config.max_prompts)
    prompts, ids = [row for row, _ in chosen], [found for _, found in chosen]
    batches = _batches([len(i) for i in ids], max(1, ROWS // config.samples))
    settings = [config.settings[j % len(config.settings)] for j in range(config.samples)]
    journal = Journal(out / "work" / "samples.jsonl")
    with Progress("prompts", len(prompts), done=sum(len(b) for b in batches[:len(journal.rows)])) as progress:
        for batch in batches[len(journal.rows):]:
            generated = generate(
                model, tokenizer, [ids[n] for n in batch for _ in settings], config.max_new_tokens, [s.temperature for _ in batch for s in settings],
                [s.top_p for _ in batch for s in settings], [_seed(config.seed, prompts[n]["id"], j) for n in batch for j in range(config.samples)],
                stop_ids(tokenizer))
            journal.append([tokenizer.decode(answer).strip() for answer in generated])
            progress.update(len(batch))
    journal.close()
    texts = {n: row[k * config.samples:(k + 1) * config.samples]
             for batch, row in zip(batches, journal.rows, strict=True) for k, n in enumerate(batch)}
    rows = [_candidate(prompt, texts[n], settings) for n, prompt in enumerate(prompts)]
    write_atomic(out / "candidates.jsonl", json_lines(rows))
    return _metrics(rows) | {"prompts_too_long": len(given) - len(fitting)}


def _fitting(prompts: list[dict[str, Any]], tokenizer: Tokenizer, most_tokens: int) -> list[tuple[dict[str, Any], list[int]]]:
    """The prompts of at most so many tokens, with their tokens."""
    encoded = ((row, encode_prompt(tokenizer, row["messages"])) for row in prompts)
    return [(row, ids) for row, ids in encoded if len(ids) <= most_tokens]


class Journal:
    """Finished batches, one JSON line each, appended and synced; a torn last line is cut off when the file is opened again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.rows: list[list[str]] = [json.loads(line) for line in whole.splitlines()]
        self._file = open(path, "r+b" if path.is_file() else "w+b")  # noqa: SIM115 - open as long as the stage runs
        self._file.truncate(len(whole))
        self._file.seek(len(whole))

    def append(self, texts: list[str]) -> None:
        """Adds a batch, durably."""
        self._file.write(json.dumps(texts, ensure_ascii=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.append(texts)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _read(path: Path) -> list[dict[str, Any]]:
    """Prompts with chosen responses; raises `UserError` naming the first that isn't one."""
    rows, seen = [as_conversation(row) for row in read_strict(path)], set()
    for number, row in enumerate(rows, 1):
        where = f"{path.name}, row {number}"
        problem = conversation_problem(row.get("messages"), ends_with="user")
        if problem:
            raise UserError(f"{where}: {problem}", "give messages that end with the user's turn")
        if not isinstance(row.get("id"), str) or row["id"] in seen:
            raise UserError(f"{where}: the id {row.get('id')!r} is missing or stands twice", "give every prompt an id of its own")
        if row.get("language") not in LANGUAGES or not isinstance(row.get("chosen"), str) or not row["chosen"].strip():
            raise UserError(f"{where}: needs a language (en or ar) and a chosen response", "mend or remove the line")
        seen.add(row["id"])
    return rows


def _batches(lengths: list[int], size: int) -> list[list[int]]:
    """Numbers of the prompts in batches of like length, so that little is padding."""
    order = sorted(range(len(lengths)), key=lambda n: (lengths[n], n))
    return [order[i:i + size] for i in range(0, len(order), size)]


def _seed(seed: int, name: str, number: int) -> int:
    """The seed of one sample: a function of the recipe's seed, the prompt's id and the sample's number."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{number}:{name}".encode(), digest_size=8).digest(), "big")


def _candidate(prompt: dict[str, Any], texts: list[str], settings: list[Any]) -> dict[str, Any]:
    rejected = [{"text": text, "temperature": s.temperature, "top_p": s.top_p} for text, s in zip(texts, settings, strict=True)]
    return {"id": prompt["id"], "language": prompt["language"], "messages": prompt["messages"], "chosen": prompt["chosen"], "rejected": rejected}


def _metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How varied the samples are, and how often they are empty or equal the chosen response."""
    texts = [sample["text"] for row in rows for sample in row["rejected"]]
    count = max(len(texts), 1)
    return {"prompts": len(rows), "samples": len(texts), "empty": sum(not text for text in texts),
            "equal_to_chosen": sum(s["text"] == row["chosen"].strip() for row in rows for s in row["rejected"]),
            "distinct": sum(len({s["text"] for s in row["rejected"]}) for row in rows),
            "mean_characters": round(sum(map(len, texts)) / count, 2)}
