"""Documents to tokens on disk, once for each tokenizer; held-out documents go to files of their own (paper §2.1).

    packs/<component>/<domain>/tokens.bin    [BOS] ids [EOS] of document after document, uint16 below 65,536 pieces, else uint32
                               index.npy     int64, where each document begins
          pack.json                          tokens, documents and UTF-8 bytes by component and domain; tokenizer; dtype
    held_out/<component>.jsonl               {"id", "text", "domain"}, for bits per byte; for all components, whatever is packed

Shards of documents are tokenized in `workers` processes, each into its own part below work/, which a later start finds again.
Alone: `allam stage pack --recipe demo`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from allam.artifacts import write_atomic, write_json
from allam.cluster import execution
from allam.documents import Document, is_held_out, shards
from allam.errors import UserError
from allam.progress import track
from allam.text.tokenizer import Tokenizer
from allam.train.config import PackConfig

COMPONENTS = ("en", "ar", "ar_translated")
PACKS, HELD_OUT, PACK, TOKENS, INDEX = "packs", "held_out", "pack.json", "tokens.bin", "index.npy"
BYTES_WORTH_A_PROCESS = 20_000_000  # compressed; starting processes costs about a second
DOCUMENTS_AT_ONCE = 500
COLUMNS = ("id", "text", "language", "domain", "kind", "translation_of")


@dataclass(frozen=True)
class _Job:
    """One shard and what to do with it; crosses to a worker process."""

    shard: Path
    part: Path
    tokenizer: Path
    config: PackConfig


def run(config: PackConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Packs the documents of the inputs `natural` and `translated` with the input `tokenizer`."""
    tokenizer = _tokenizer(inputs["tokenizer"])
    found = [path for name in ("natural", "translated") for path in shards(inputs[name] / "documents")]
    jobs = [_Job(path, out / "work" / f"part-{i:05d}", inputs["tokenizer"], config) for i, path in enumerate(found)]
    waiting = [job for job in jobs if not (job.part / PACK).is_file()]
    for _ in track(_each(waiting), "shards", total=len(waiting), what="packing"):
        pass
    summary = _join([job.part for job in jobs], out, tokenizer.dtype)
    held_out = {c: _write_held_out([job.part for job in jobs], c, config.held_out_bytes, out) for c in COMPONENTS}
    if not summary:
        raise UserError(f"there is no document to pack for {', '.join(config.languages)}",
                        "look at the report's funnel for what dropped them, or lower data.held_out.share")
    write_json(out / PACKS / PACK, {"components": summary, "dtype": tokenizer.dtype.name, "tokenizer": tokenizer.fingerprint,
                                    "vocab_size": tokenizer.vocab_size})
    return {"components": summary, "held_out": held_out}


def _each(jobs: list[_Job]) -> Iterator[None]:
    workers = min(execution().workers, len(jobs))
    if workers < 2 or sum(job.shard.stat().st_size for job in jobs) < BYTES_WORTH_A_PROCESS:
        for job in jobs:
            _pack_shard(job)
            yield
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_pack_shard, jobs)


_tokenizers: dict[Path, Tokenizer] = {}  # one a process


def _tokenizer(folder: Path) -> Tokenizer:
    """Loading takes half a second."""
    if folder not in _tokenizers:
        _tokenizers[folder] = Tokenizer.load(folder)
    return _tokenizers[folder]


def _pack_shard(job: _Job) -> None:
    """Tokenizes one shard into its part; the part's pack.json is written last."""
    shutil.rmtree(job.part, ignore_errors=True)
    job.part.mkdir(parents=True)
    tokenizer = _tokenizer(job.tokenizer)
    bos, eos = np.array([[tokenizer.bos_id], [tokenizer.eos_id]], tokenizer.dtype)
    domains: dict[str, _Domain] = {}
    held_out: dict[str, list[Document]] = {c: [] for c in COMPONENTS}
    for documents in _read(job.shard):
        kept = []
        for document in documents:
            if is_held_out(document.root_id, job.config.held_out.share, job.config.held_out.seed):
                held_out[document.component].append(document)
            elif document.component in job.config.languages:
                kept.append(document)
        for component, some in held_out.items():
            held_out[component] = _first_by_hash(some, job.config.held_out_bytes)
        for document in kept:
            name = f"{document.component}/{document.domain}"
            if name not in domains:
                domains[name] = _Domain(job.part / name)
            domains[name].add(np.concatenate([bos, tokenizer.encode_array(document.text), eos]), len(document.text.encode()))
    for component, some in held_out.items():
        _write_lines(job.part / f"{component}.jsonl", some)
    write_json(job.part / PACK, {name: domain.close() for name, domain in domains.items()})


class _Domain:
    """The tokens of one domain in one part."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._file = open(folder / TOKENS, "wb")  # noqa: SIM115 - closed by close()
        self._starts: list[int] = []
        self._tokens = self._bytes = 0

    def add(self, ids: np.ndarray[Any, Any], utf8_bytes: int) -> None:
        ids.tofile(self._file)
        self._starts.append(self._tokens)
        self._tokens += len(ids)
        self._bytes += utf8_bytes

    def close(self) -> dict[str, int]:
        self._file.close()
        np.save(self._folder / INDEX, np.array(self._starts, dtype=np.int64))
        return {"tokens": self._tokens, "documents": len(self._starts), "bytes": self._bytes}


def _read(shard: Path) -> Iterator[list[Document]]:
    """The shard's documents, some at once, with the fields that packing looks at; reading all of them took a third of its time."""
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=DOCUMENTS_AT_ONCE, columns=list(COLUMNS)):
            columns = [batch.column(name).to_pylist() for name in COLUMNS]
            yield [Document(name, text, "", language, domain, kind, translation_of=original)
                   for name, text, language, domain, kind, original in zip(*columns, strict=True)]


def _first_by_hash(documents: list[Document], limit: int) -> list[Document]:
    """The documents of the smallest hashes up to the one with which they hold more than `limit` bytes: what is behind it is never chosen, whatever else
    is found, so that the choice is the same however documents are sharded."""
    chosen: list[Document] = []
    total = 0
    for document in sorted(documents, key=lambda d: (hashlib.blake2b(d.id.encode(), digest_size=8).digest(), d.id)):
        chosen.append(document)
        total += len(document.text.encode())
        if total > limit:
            break
    return chosen


def _write_lines(path: Path, documents: list[Document]) -> None:
    lines = [json.dumps({"id": d.id, "text": d.text, "domain": d.domain}, ensure_ascii=False) + "\n" for d in documents]
    write_atomic(path, "".join(lines))


def _write_held_out(parts: list[Path], component: str, limit: int, out: Path) -> dict[str, int]:
    """Joins the parts' held-out documents, the first by hash that hold `limit` bytes (one at least); returns their number and bytes."""
    language, kind = component[:2], "translated" if component.endswith("translated") else "natural"
    chosen: list[Document] = []
    for part in parts:  # one after the other: together they would grow with the number of shards
        rows = map(json.loads, (part / f"{component}.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
        found = [Document(id=row["id"], text=row["text"], source="", language=language, domain=row["domain"], kind=kind) for row in rows]  # type: ignore[arg-type]
        chosen = _first_by_hash(chosen + found, limit)
    if len(chosen) > 1 and sum(len(d.text.encode()) for d in chosen) > limit:
        chosen.pop()
    (out / HELD_OUT).mkdir(exist_ok=True)
    _write_lines(out / HELD_OUT / f"{component}.jsonl", chosen)
    return {"documents": len(chosen), "bytes": sum(len(d.text.encode()) for d in chosen)}


def _join(parts: list[Path], out: Path, dtype: np.dtype[Any]) -> dict[str, dict[str, dict[str, int]]]:
    """Concatenates the parts in the order of the shards; returns tokens, documents and bytes by component and domain."""
    summary: dict[str, dict[str, dict[str, int]]] = {}
    counts = [json.loads((part / PACK).read_text(encoding="utf-8")) for part in parts]
    for name in sorted({name for count in counts for name in count}, key=_table_order):
        folder = out / PACKS / name
        folder.mkdir(parents=True)
        total, starts = {"tokens": 0, "documents": 0, "bytes": 0}, []
        with open(folder / f"{TOKENS}.tmp", "wb") as target:
            for part, count in zip(parts, counts, strict=True):
                if name not in count:
                    continue
                starts.append(np.load(part / name / INDEX) + total["tokens"])
                with open(part / name / TOKENS, "rb") as source:
                    shutil.copyfileobj(source, target, 2**22)
                total = {key: total[key] + count[name][key] for key in total}
        assert (folder / f"{TOKENS}.tmp").stat().st_size == total["tokens"] * dtype.itemsize, "a part was cut short"
        (folder / f"{TOKENS}.tmp").replace(folder / TOKENS)
        np.save(folder / INDEX, np.concatenate(starts))
        component, domain = name.split("/")
        summary.setdefault(component, {})[domain] = total
    return summary


def _table_order(name: str) -> tuple[int, str]:
    component, domain = name.split("/")
    return COMPONENTS.index(component), domain
