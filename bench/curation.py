"""Curation of web text on one core: our ingest, filter and dedup stages against a chain of stock datatrove steps, and against fastText's
`predict` alone, the floor of any chain that identifies languages with it (paper §2.1).

    python -m bench.curation [--quick] [--rounds 5]

Both read the same gzipped JSON Lines, keep what lid.176.ftz gives the source's language with at least 0.95, drop fewer than 30 words and exact
duplicates, and leave Parquet. The peer, for each source: `JsonlReader`, `LanguageFilter`, `LambdaFilter`, `ParquetWriter` and
`ExactDedupSignature` in one pass; `ExactFindDedups`; `ParquetReader`, `ExactDedupFilter`, `ParquetWriter`. Same model file, same zstd.

What differs, on purpose, and who does more because of it:
- Ours writes documents after each of its three stages, each artifact whole by itself; the peer writes them twice.
- Ours strips vowel marks before language ID and compares texts by their comparison form; the peer takes texts as they stand.
- Ours checks files and ids against duplicates, writes what was dropped with the reason, and histograms; the peer keeps plain counts.
- The peer asks fastText for all 176 scores a document (its default); ours for the best one, of many documents at once, by `allam.text.lid_batch`.
- datatrove's executor starts a manager process each run, about 0.1 s, which isn't counted: all figures are this process's own processor time.
Against the peer ours runs without its spam, stop-word and URL rules and without anonymisation, for which there is no stock step that decides alike. Against
the floor, which has the texts in memory, ours reads, runs all four filters and both searches for duplicates, and writes; then with anonymisation, too.

The two must keep the same documents, apart from those that marks or forms of a text explain; each such document is checked, and counted.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import ExactDedupConfig, ExactDedupFilter, ExactDedupSignature, ExactFindDedups
from datatrove.pipeline.filters import LambdaFilter, LanguageFilter
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from loguru import logger

from allam.data.config import FilterConfig
from allam.data.rules import identifier
from allam.recipe import load
from allam.text.forms import comparison_form
from allam.text.language import model_path, reaches
from bench._harness import Row, arguments, finish, in_turn, processor_seconds
from bench._text import one_worker, real_or_sample, run_stages

# (language, real file, the sample's file in its place, documents at most)
SOURCES = (("ar", "arabic/saudinewsnet.jsonl.xz", "web_ar.jsonl.gz", 4000), ("en", "english/english_books.jsonl.xz", "web_en.jsonl.gz", 400))
QUICK_DOCUMENTS = 300
FOUR_FILTERS, PEERS_FILTERS = ("language", "too_short", "spam", "stop_words"), ("language", "too_short")
RULES = FilterConfig()
# LanguageFilter asks for more than its threshold, the paper for at least 0.95: the largest float32 below makes them one
BELOW_MINIMUM = float(np.nextafter(np.float32(RULES.min_language_score), np.float32(0)))

logger.disable("datatrove")


@dataclass(frozen=True)
class Input:
    """The prepared files: `<language>/pages.jsonl.gz` below `root`."""

    root: Path
    names: dict[str, str]
    texts: dict[str, str]  # by id
    languages: dict[str, str]  # by id
    megabytes: float


def prepare(root: Path, quick: bool) -> Input:
    """Writes the input once; every 50th document is there twice, so that there is something to deduplicate in any text."""
    names, texts, languages = {}, {}, {}
    for language, real, sample, limit in SOURCES:
        names[language], documents = real_or_sample(real, sample, QUICK_DOCUMENTS if quick else limit, quick)
        documents = list({d["id"]: d for d in documents}.values())
        documents += [d | {"id": f"again-{d['id']}"} for d in documents[::50]]
        (root / language).mkdir(parents=True)
        with gzip.open(root / language / "pages.jsonl.gz", "wt", encoding="utf-8", compresslevel=6) as file:
            for d in documents:
                file.write(json.dumps({"id": d["id"], "text": d["text"], "url": d.get("url")}, ensure_ascii=False) + "\n")
                texts[d["id"]], languages[d["id"]] = d["text"], language
    return Input(root, names, texts, languages, sum(len(t.encode()) for t in texts.values()) / 1e6)


def run_ours(given: Input, out: Path, filters: Sequence[str] = PEERS_FILTERS, url: bool = False, anonymise: bool = False) -> None:
    """Ingest, filter, dedup."""
    sources = {f"web_{language}": {"path": f"{language}/pages.jsonl.gz", "language": language, "domain": "web", "filters": list(filters),
                                   "anonymise": anonymise} for language in given.names}
    recipe = load("demo", [f"data.root={given.root}", f"data.sources={json.dumps(sources)}", f"data.dedup.url={str(url).lower()}"])
    run_stages(recipe, ["ingest", "filter", "dedup"], out)


def run_floor(given: Input) -> None:
    """fastText's best label of every text, as one line."""
    predict = identifier(RULES.language_model_sha256).identify_bare
    for text in given.texts.values():
        predict(text)


def run_peer(given: Input, out: Path) -> None:
    """Three executors of one task for each source, as datatrove's examples of deduplication do it."""
    for language in given.names:
        base = str(out / language)
        exact = ExactDedupConfig(content_getter=_text)
        identify = LanguageFilter(language, language_threshold=BELOW_MINIMUM)
        identify.model.MODEL_URL = str(model_path())
        for number, steps in enumerate((
                [JsonlReader(str(given.root / language)), identify, LambdaFilter(_long_enough), ParquetWriter(f"{base}/filtered", compression="zstd"),
                 ExactDedupSignature(f"{base}/signatures", exact)],
                [ExactFindDedups(f"{base}/signatures", f"{base}/duplicates", exact)],
                [ParquetReader(f"{base}/filtered"), ExactDedupFilter(f"{base}/duplicates", exact), ParquetWriter(f"{base}/kept", compression="zstd")])):
            LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=f"{base}/logs/{number}").run()


def _text(document: Any) -> bytes:
    return document.text.encode()  # type: ignore[no-any-return]  # xxhash 4 refuses str


def _long_enough(document: Any) -> bool:
    return len(document.text.split()) >= RULES.min_words


def kept_ids(folder: Path, pattern: str) -> set[str]:
    """The ids in the Parquet files of a result."""
    return {name for path in folder.glob(pattern) for name in pq.read_table(path, columns=["id"])["id"].to_pylist()}


def check(given: Input, ours: set[str], peer: set[str]) -> None:
    """Leaves with an error where a document was decided differently for another reason than marks or the form of the text."""
    model = identifier(RULES.language_model_sha256)
    bare = _bare_scores()
    kept_forms = {comparison_form(given.texts[name]) for name in ours}
    marks = forms = 0
    for name in sorted(ours ^ peer):
        text, language = given.texts[name], given.languages[name]
        label, score = model.identify(text)
        if (label == language and reaches(score, RULES.min_language_score)) != (bare(text, language) > BELOW_MINIMUM):
            marks += 1
        elif name in peer and comparison_form(text) in kept_forms:
            forms += 1
        else:
            raise SystemExit(f"{name} was kept by {'ours' if name in ours else 'the peer'} alone, and neither marks nor the text's form explain it")
    print(f"of {len(given.texts)} documents ours kept {len(ours)}, the peer {len(peer)}, both {len(ours & peer)}; "
          f"decided otherwise because of vowel marks: {marks}, because of the comparison form: {forms}")


def _bare_scores() -> Any:
    """The language's score of a text as it stands, as datatrove sees it."""
    from datatrove.data import Document
    from datatrove.utils.lid import FT176LID

    models = {}
    for language in ("ar", "en"):
        models[language] = FT176LID([language])
        models[language].MODEL_URL = str(model_path())
    return lambda text, language: models[language].predict(Document(text=text, id=""))[1][language]


def main() -> None:
    given = arguments(__doc__ or "")
    one_worker()
    with tempfile.TemporaryDirectory() as folder:
        data, out = prepare(Path(folder) / "input", given.quick), Path(folder) / "out"

        def timed(run: Any) -> float:
            shutil.rmtree(out, ignore_errors=True)
            return data.megabytes / processor_seconds(lambda: run(data, out))

        timed(run_ours)  # also loads what both need
        ours = kept_ids(out / "dedup", "documents/*/*.parquet")
        timed(run_peer)
        check(data, ours, kept_ids(out, "*/kept/*.parquet"))
        measured = in_turn(given.rounds, lambda: timed(run_ours), lambda: timed(run_peer))
        whole = [in_turn(given.rounds, lambda run=run: data.megabytes / timed(run), lambda: processor_seconds(lambda: run_floor(data)))  # type: ignore[misc]
                 for run in (partial(run_ours, filters=FOUR_FILTERS, url=True), partial(run_ours, filters=FOUR_FILTERS, url=True, anonymise=True))]
    size = f"{len(data.texts)} documents of {' and '.join(data.names.values())}, {data.megabytes:.1f} MB"
    finish("curation", [
        Row(size, "MB/s", *measured, peer_name="datatrove's steps", better="higher", target=2.0),
        Row("the same, four filters, URL and exact duplicates", "s", *whole[0], peer_name="fastText's predict", better="lower", target=1.5),
        Row("the same, with anonymisation", "s", *whole[1], peer_name="fastText's predict", better="lower", target=2.0),
    ], ["datatrove", "fasttext-numpy2-wheel", "pyarrow"], given.quick)


if __name__ == "__main__":
    main()
