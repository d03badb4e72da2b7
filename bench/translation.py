"""The stage `machine_translate` with a model that can translate: chrF of held-out sentences, in order and with their sources shuffled (paper §2.1).

    python -m bench.translation [--quick]

Published weights can't be had everywhere, so a small Marian model is trained here (bench/_marian.py; 21 minutes of one core) on the sentence
pairs of Tatoeba in `../shared/data` or ALLAM_TEST_DATA. English sentences are held out by a hash, with all their Arabic versions, which count as
references; Tatoeba says the same thing in many ways, so a second figure leaves out those whose Arabic stands in the training set, too. Ours is
the stage's output against the references of each sentence, the peer's the same output against those of another: what is above it comes from
the source, not from what Arabic sentences have in common. Wanted are 5 chrF more.
"""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from sacrebleu.metrics.chrf import CHRF

from allam.data import machine_translate
from allam.data.config import MachineTranslateConfig
from allam.documents import Document, is_held_out, read_documents, shard_path, write_documents
from allam.text.forms import without_marks
from bench._harness import REAL_DATA, Row, arguments, finish
from bench._marian import Pair, make_model, make_vocabularies, train
from bench._text import SAMPLE, _records, one_worker

STEPS, PIECES, WIDTH, LAYERS = 4000, 2000, 256, 2
HELD_OUT_SHARE = 0.05


def pairs(quick: bool) -> list[Pair]:
    """Sentences with their Arabic, without diacritics; for a quick run the first lines of the sample's translated documents."""
    if not quick:
        with gzip.open(REAL_DATA / "parallel" / "tatoeba_en_ar.jsonl.gz") as lines:
            return [(row["en"], without_marks(row["ar"])) for row in map(json.loads, lines)]
    english = {row["id"]: row["text"].split("\n")[0] for row in _records(SAMPLE / "web_en.jsonl.gz")}
    translated = list(_records(SAMPLE / "translated_web_ar.jsonl.gz"))
    return [(english[row["translation_of"]], row["text"].split("\n")[0]) for row in translated if row["translation_of"] in english]


def references(found: list[Pair]) -> dict[str, list[str]]:
    """The Arabic versions of each held-out sentence."""
    held_out: dict[str, list[str]] = {}
    for english, arabic in found:
        if is_held_out(english, HELD_OUT_SHARE, 0):
            held_out.setdefault(english, []).append(arabic)
    return held_out


def train_marian(folder: Path, found: list[Pair], steps: int, width: int) -> None:
    """Trains the model and leaves it in `folder`, as transformers keeps one."""
    torch.set_num_threads(1)
    kept = [pair for pair in found if not is_held_out(pair[0], HELD_OUT_SHARE, 0)]
    tokenizer = make_vocabularies(folder, kept, PIECES)
    model = make_model(tokenizer, width, LAYERS)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(kept)} pairs, {steps} steps", flush=True)
    train(model, tokenizer, kept, steps, lambda step, loss, seconds: print(f"step {step}: loss {loss:.2f}, {seconds:.0f} s", flush=True))
    model.save_pretrained(folder)


def translate(model: Path, sentences: list[str], base: Path) -> list[str]:
    """The stage's translations of these sentences, one a document."""
    write_documents(shard_path(base / "in" / "documents", "en", 0), (
        Document(f"{i:06d}", sentence, "en", "en", "other", "natural") for i, sentence in enumerate(sentences)))
    out = base / "machine_translate" / "key"
    (out / "work").mkdir(parents=True)
    config = MachineTranslateConfig(domains=("other",), order=("en",), model=model.name)
    machine_translate.run(config, {"documents": base / "in", "root": model.parent}, out)
    return [document.text for document in read_documents(out / "documents")]


def measure(model: Path, what: str, held_out: dict[str, list[str]]) -> Row:
    """chrF in order and with shuffled sources."""
    sentences = sorted(held_out)
    with tempfile.TemporaryDirectory() as folder:
        answers = translate(model, sentences, Path(folder))
    others = list(range(len(sentences)))
    random.Random(0).shuffle(others)
    most = max(map(len, held_out.values()))
    # sacrebleu takes None where a sentence has fewer references than others; its types don't say so
    streams: list[Any] = [[held_out[s][i] if i < len(held_out[s]) else None for s in sentences] for i in range(most)]
    shuffled = [answers[other] for other in others]
    for sentence, answer in list(zip(sentences, answers, strict=True))[:: max(1, len(answers) // 8)]:
        print(f"{sentence}  ->  {answer}  ({held_out[sentence][0]})")
    ours, peer = (CHRF().corpus_score(some, streams).score for some in (answers, shuffled))
    return Row(f"{len(sentences)} {what}", "chrF", [ours], [peer], peer_name="shuffled sources", better="higher")


def measure_all(model: Path, found: list[Pair]) -> list[Row]:
    """All held-out sentences, and those whose Arabic the model has never seen."""
    held_out = references(found)
    seen = {arabic for english, arabic in found if english not in held_out}
    unseen = {english: versions for english, versions in held_out.items() if not seen.intersection(versions)}
    return [measure(model, "held-out sentences", held_out), measure(model, "of them with unseen Arabic", unseen)]


def main() -> None:
    given = arguments(__doc__ or "")
    one_worker()
    found = pairs(given.quick)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "marian"
        train_marian(model, found, 5 if given.quick else STEPS, 32 if given.quick else WIDTH)
        finish("translation", measure_all(model, found), ["torch", "transformers", "sacrebleu"], given.quick)


if __name__ == "__main__":
    main()
