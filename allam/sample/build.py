"""Writes the sample: `python -m allam.sample.build [OUT]` (about a minute; OUT is the package's data folder unless given).

Deterministic: the same tables, templates and paragraphs give the same decoded content, file by file; compressed bytes may differ
between versions of the compressors. `check` is run over what was composed before anything is written.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from allam.sample import benchmarks, chats, root
from allam.sample.corpus import Corpus, Entry, build_corpus
from allam.sample.facts import FACTS, GROUPS, misplaced
from allam.sample.language import score

SEED = 20260131
PARAGRAPHS = Path(__file__).parent / "paragraphs"

README = """# The sample

Written by `python -m allam.sample.build`; do not edit. `EXPECTED.json` holds the exact counts that a pipeline must arrive at.

- `documents/`: 16 sources in five file formats, with planted defects; translated sources name their English originals by id
- `chat/`: SFT conversations (some bad on purpose), preference prompts with a chosen answer, one reviewer's decision on each
- `benchmarks/`: multiple choice and generation on phrasings that occur in no training text, open questions with references
- `votes/`: made-up votes that illustrate the file format. Nobody was asked, and no model's answers were seen
"""

# File of each source: the formats differ so that every reader is used.
FILES = {
    "web_en": "web_en.jsonl.gz", "books_en": "books_en.jsonl.zst", "wiki_en": "wiki_en.jsonl", "science_en": "science_en.jsonl.gz",
    "code_en": "code_en.parquet", "math_en": "math_en.jsonl.gz",
    "web_ar": "web_ar.jsonl.gz", "books_ar": "books_ar.jsonl.zst", "wiki_ar": "wiki_ar.jsonl", "news_ar": "news_ar.parquet",
    "other_ar": "other_ar.txt",
    "translated_web_ar": "translated_web_ar.jsonl.gz", "translated_books_ar": "translated_books_ar.jsonl",
    "translated_wiki_ar": "translated_wiki_ar.jsonl", "translated_science_ar": "translated_science_ar.jsonl",
    "translated_other_ar": "translated_other_ar.jsonl",
}


def build(out: Path) -> dict[str, Any]:
    """Composes, checks and writes everything below `out`; returns what stands in EXPECTED.json."""
    corpus = build_corpus(SEED, score, PARAGRAPHS)
    check(corpus)
    for name, file in FILES.items():
        _write_source(out / "documents" / file, corpus.sources[name])
    sft, bad = chats.sft()
    prompts, decisions = chats.preferences()
    _write_rows(out / "chat/sft.jsonl", sft)
    _write_rows(out / "chat/preferences.jsonl", prompts)
    _write_rows(out / "chat/decisions.jsonl", decisions)
    for language in ("en", "ar"):
        _write_rows(out / f"benchmarks/facts_{language}.jsonl", benchmarks.multiple_choice(language))
        _write_rows(out / f"benchmarks/generate_{language}.jsonl", benchmarks.generation(language))
        _write_rows(out / f"benchmarks/open_{language}.jsonl", benchmarks.open_questions(language))
    _write_rows(out / "votes/votes.jsonl", benchmarks.votes())
    groups = Counter(fact.group for fact in FACTS)
    expected = {
        "sources": {name: corpus.expected()[name] for name in FILES},
        "facts": {group: groups[group] for group in GROUPS},
        "chat": {"lines": len(sft), "dropped": bad, "kept": len(sft) - sum(bad.values())},
        "preferences": {"lines": len(prompts), "decisions": dict(sorted(Counter(d["decision"] for d in decisions).items()))},
        "paragraphs_left_out": corpus.left_out,
    }
    _write(out / "README.md", README.encode())
    _write(out / "EXPECTED.json", json.dumps(expected, ensure_ascii=False, indent=1).encode() + b"\n")
    return expected


def check(corpus: Corpus) -> None:
    """Raises ValueError for a sound document that a filter would drop or that states a fact where its group forbids it."""
    for name, entries in corpus.sources.items():
        language = name[-2:]
        for entry in entries:
            text = entry.record.get("text")
            if entry.stage or not isinstance(text, str):
                continue
            wrong = misplaced(text, language, translation=name.startswith("translated"))
            if wrong:
                raise ValueError(f"{entry.record['id']} states {', '.join(wrong)}, which its source must not: {text[:200]}")
            if name in ("code_en", "math_en"):
                continue
            found, confidence = score(text)
            if found != language or confidence < 0.97 or len(text.split()) < 30:
                raise ValueError(f"{entry.record['id']} is no sound document ({found} {confidence:.3f}): {text[:200]}")


def _write_source(path: Path, entries: list[Entry]) -> None:
    if path.suffix == ".parquet":
        names = list(entries[0].record)
        table = pa.table({name: pa.array([entry.record[name] for entry in entries], pa.string()) for name in names})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        _write(path, buffer.getvalue())
    elif path.suffix == ".txt":
        _write(path, "\n\n".join(entry.record["text"] for entry in entries).encode() + b"\n")
    else:
        data = b"".join(entry.line() + b"\n" for entry in entries)
        if path.suffix == ".gz":
            data = gzip.compress(data, compresslevel=9, mtime=0)
        elif path.suffix == ".zst":
            data = zstandard.ZstdCompressor(level=19).compress(data)
        _write(path, data)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    _write(path, b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    result = build(Path(sys.argv[1]) if len(sys.argv) > 1 else root())
    print(json.dumps({name: counts["kept"] for name, counts in result["sources"].items()}))
