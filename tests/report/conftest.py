"""A small run made by hand: every artifact of a plan in the form that its stage writes, so that the report is tested without training anything."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from allam.artifacts import Manifest, checksum_outputs, commit, write_atomic
from allam.pipeline import STAGES

SCRIPT = "<script>alert('x')</script>"
NAMES = ("ingest", "filter", "dedup", "translate", "base_tokenizer", "arabic_tokenizer", "merged_tokenizer", "fertility", "pack", "pretrain", "extend",
         "continue", "curate", "sft", "sample", "review", "dpo", "export", "benchmarks_pretrain", "benchmarks_extend", "benchmarks_continue",
         "benchmarks_sft", "benchmarks_dpo", "judge", "votes")
SOURCES = {  # name: (language, domain, kind, read)
    "web_en": ("en", "web", "natural", 812), "books_en": ("en", "books", "natural", 240), "science_en": ("en", "science", "natural", 300),
    "code_en": ("en", "code", "natural", 420), "math_en": ("en", "math", "natural", 160), "web_ar": ("ar", "web", "natural", 905),
    "books_ar": ("ar", "books", "natural", 220), "news_ar": ("ar", "news", "natural", 310), "translated_web_ar": ("ar", "web", "translated", 412),
}
MODELS = ("pretrain", "extend", "continue", "sft", "dpo")


class Run:
    """Builds artifacts below `root`, each with a manifest; `inputs()` is what the report stage gets."""

    def __init__(self, root: Path, seed: int = 7) -> None:
        self.root, self.random, self.made = root, random.Random(seed), {}  # type: ignore[var-annotated]

    def add(self, name: str, metrics: dict[str, Any] | None = None, config: dict[str, Any] | None = None, seconds: float = 10.0, **files: Any) -> Path:
        """One artifact. `files` maps a path (`__` for a slash) to its content: bytes, text, records (a list) or plain data."""
        kind = name if name in STAGES else name.split("_")[0]
        key = hashlib.sha256(name.encode()).hexdigest()
        folder = self.root / kind / key[:16]
        folder.mkdir(parents=True)
        for path, content in files.items():
            write_atomic(folder / path.replace("__", "/"), encoded(path, content))
        manifest = Manifest(name=name, kind=kind, version=1, key=key, config=config or {}, inputs={}, outputs=checksum_outputs(folder), metrics=metrics or {},
                            started_at="2026-03-01T10:00:00+00:00", seconds=seconds, peak_memory_bytes=700_000_000 + 10_000_000 * len(self.made),
                            world_size=1, versions={"python": "3.11.2", "torch": "2.13.0"}, git_revision="0123456789ab")
        commit(folder, manifest)
        self.made[name] = folder
        return folder

    def inputs(self, *without: str) -> dict[str, Path]:
        """The stage's inputs, less some."""
        return {"root": self.root} | {name: folder for name, folder in self.made.items() if name not in without}


def encoded(path: str, content: Any) -> bytes:
    """A file's bytes: records become JSON Lines, compressed where the name says so."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, list):
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in content).encode()
        return zstandard.ZstdCompressor().compress(lines) if path.endswith(".zst") else lines
    return (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)).encode()


def build(root: Path) -> Run:
    """A whole run; text from the data carries markup that must never reach the page as such."""
    made = Run(root)
    _data(made)
    _tokenizers(made)
    _training(made)
    _alignment(made)
    _evaluation(made)
    return made


def _data(run: Run) -> None:
    sources = {n: {"language": lang, "domain": d, "kind": k, "path": f"documents/{n}.jsonl", "files": []} for n, (lang, d, k, _) in SOURCES.items()}
    ingest, filtered, deduplicated, translated = {}, {}, {}, {}
    for name, (_, domain, kind, read) in SOURCES.items():
        aside = {"bad_json": 2, "no_text": 1} if domain == "web" else {}
        ingest[name] = row(read, {}, aside)
        if kind == "translated":
            translated[name] = row(ingest[name]["out"], {"orphan_translation": 25, "length_ratio": 4})
            continue
        dropped = {"language": 31, "too_short": 44, "spam": 18, "stop_words": 9} if domain == "web" else {"too_short": 5} if domain in ("books", "news") else {}
        filtered[name] = row(ingest[name]["out"], dropped)
        deduplicated[name] = row(filtered[name]["out"], {"duplicate_url": 12, "duplicate_text": 20} if domain == "web" else {"duplicate_text": 2})
    broken = [{"file": "documents/web_en.jsonl.gz", "line": 17, "reason": "bad_json", "excerpt": '{"id": "web_en-000017", "text": "The sea ' + SCRIPT},
              {"file": "documents/web_ar.jsonl.gz", "line": 3, "reason": "no_text", "excerpt": '{"id": "web_ar-000003", "title": "بلا نص"}'}]
    run.add("ingest", {"funnel": ingest}, {"sources": sources}, 3.4, **{"set_aside.jsonl": broken})
    natural = {n: s for n, s in sources.items() if s["kind"] == "natural"}
    limits = {"min_language_score": 0.95, "min_words": 30, "max_spam_ratio": 0.3, "min_stop_word_ratio": 0.05, "max_stop_word_ratio": 0.75}
    statistics = {n: {"language_score": bump([i / 20 for i in range(19)] + [0.95, 0.96, 0.97, 0.98, 0.99, 1.0], 0.985, 0.02),
                      "words": bump([0, 1, 3, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 5000], 140, 120),
                      "spam_ratio": bump([round(i * 0.05, 2) for i in range(21)], 0.08, 0.1),
                      "stop_word_ratio": bump([round(i * 0.05, 2) for i in range(21)], 0.28 if s["language"] == "en" else 0.18, 0.08)}
                  for n, s in natural.items() if s["domain"] == "web"}
    lengths = {"under 5 words": (9, 7), "5 to 29 words": (60, 20), "30 words or more": (740, 4)}
    by_length = {n: {length: {"identified": judged, "language": dropped} for length, (judged, dropped) in lengths.items()}
                 for n, s in natural.items() if s["domain"] == "web"}
    replaced = {"web_ar": {"documents": 3, "phone": 4, "email": 1}, "web_en": {}}
    run.add("filter", {"funnel": filtered, "by_length": by_length, "anonymised": replaced}, {"sources": natural, **limits}, 12.7, **{
        "statistics.json": statistics,
        "dropped/web_en/00000.jsonl.zst": [lost("web_en", "language", "fr 0.9991", "Le port est calme ce matin et les bateaux attendent le vent du large."),
                                     lost("web_en", "spam", "spam ratio 0.6100", f"Buy now! {SCRIPT} Click here! Buy now! Click here! #deal #deal")],
        "dropped/web_ar/00000.jsonl.zst": [lost("web_ar", "too_short", "9 words", "صباح الخير يا أهل المدينة، الطقس اليوم جميل و HTML نظيف."),
                                     lost("web_ar", "stop_words", "stop-word ratio 0.0100", "تفاح موز برتقال عنب تمر رمان تين خوخ مشمش كرز")]})
    near = {"similarity": 0.8, "dropped": False, "sources": {"web_en": {"compared": 640, "near_duplicates": 16}}, "histogram": {"0.812": 16}, "examples": [
        {"document": "web_en-000051", "kept": "web_en-000007", "similarity": 0.812, "source": "web_en",
         "text": f"The harbour of the old town lies between two hills. {SCRIPT}", "kept_text": "The harbour of the old town lies between two low hills."}]}
    run.add("dedup", {"funnel": deduplicated}, {"url": True, "exact": True}, 4.1, **{
        "near_duplicates.json": near,
        "dropped/web_en/00000.jsonl.zst": [lost("web_en", "duplicate_url", "of web_en-000004", "The harbour of the old town lies between two hills.")]})
    run.add("translate", {"funnel": translated}, {"drop_orphans": True}, 2.2, **{
        "dropped/translated_web_ar/00000.jsonl.zst": [
            lost("translated_web_ar", "orphan_translation", "web_en-000099 was not kept", "يقع الميناء القديم بين تلّتين.")]})


def row(read: int, dropped: dict[str, int], aside: dict[str, int] | None = None) -> dict[str, Any]:
    """A source's row of a funnel."""
    aside = aside or {}
    return {"in": read, "out": read - sum(dropped.values()) - sum(aside.values()), "dropped": dropped, "set_aside": aside}


def lost(source: str, reason: str, detail: str, text: str) -> dict[str, Any]:
    """A line of dropped/<source>/<shard>.jsonl.zst."""
    return {"id": f"{source}-000042", "reason": reason, "detail": detail, "text": text, "url": None, "source": source}


def bump(edges: list[float], centre: float, width: float) -> dict[str, Any]:
    """A histogram with one hump."""
    return {"edges": edges, "counts": [round(100 * math.exp(-(((a + b) / 2 - centre) / width) ** 2)) for a, b in itertools.pairwise(edges)]}


def _tokenizers(run: Run) -> None:
    for name, size in (("base", 1024), ("arabic", 1024), ("merged", 1728)):
        run.add(f"{name}_tokenizer", config={"vocab_size": size, "seed": 0} if name != "merged" else {"arabic_script_only": True}, seconds=2.5,
                **{"summary.json": {"vocab_size": size}})
    cells = {"english": (1.61, 3.92, 1.61), "arabic": (6.44, 1.83, 1.83), "code": (3.35, 5.8, 3.35)}
    rows = [{"tokenizer": t, "language": text, "tokens_per_word": value, "bytes_per_token": 3.0, "byte_fallback_share": 0.4 if value > 5 else 0.01,
             "documents": 200, "words": 20000} for text, values in cells.items() for t, value in zip(("base", "arabic_only", "merged"), values, strict=True)]
    rows += [rows[0] | {"tokenizer": "llama3", "language": text, "tokens_per_word": 1.4} for text in cells]
    domains = [row | {"domain": "web_translated", "words": 1234} for row in reversed(rows) if row["language"] == "arabic"]
    run.add("fertility", config={"max_documents": 2000, "seed": 0}, seconds=3.3, **{"fertility.json": {"rows": rows, "by_domain": domains}})
    run.add("pack", config={"held_out_bytes": 200000}, seconds=4.0)


def _training(run: Run) -> None:
    english = {"web": (0.31, 400_000), "books": (0.09, 200_000), "science": (0.16, 220_000), "code": (0.39, 500_000), "math": (0.05, 90_000)}
    arabic = {"web": (0.71, 300_000), "books": (0.13, 90_000), "wiki": (0.007, 8_000), "news": (0.14, 90_000), "other": (0.013, 9_000)}
    translated = {"web": (0.65, 300_000), "books": (0.12, 90_000), "wiki": (0.0061, 8_000), "science": (0.22, 90_000), "other": (0.0039, 9_000)}
    _phase(run, "pretrain", 120, 10_240, 7.2, 2.1, {"en": english}, {"en": 1.0}, (4.6, 1.55, 5.2, 4.9))
    run.add("extend", {"new_rows": 700}, {"method": "mean", "seed": 0}, 1.4, **model())
    _phase(run, "continue", 180, 10_240, 4.9, 1.6, {"en": english, "ar": arabic, "ar_translated": translated},
           {"en": 0.55, "ar": 0.225, "ar_translated": 0.225}, (1.56, 1.5, 3.4, 1.2))


def _phase(run: Run, name: str, steps: int, batch: int, first: float, last: float, domains: dict[str, Any], shares: dict[str, float],
           bits: tuple[float, float, float, float]) -> None:
    """A pretraining stage: loss falls from `first` to `last`; bits are those of English and Arabic, before and after."""
    records, evals, ledger = [], [], {}  # type: ignore[var-annotated]
    bilingual = ("en", "ar") if "ar" in shares else ("en",)
    for step in range(1, steps + 1):
        left = math.exp(-4 * step / steps)
        loss = last + (first - last) * left + run.random.gauss(0, 0.05)
        record = {"step": step, "tokens": step * batch, "loss": loss, "grad_norm": 0.6 + 1.8 * left + run.random.random() * 0.2, "learning_rate": 1e-3}
        if len(shares) > 1:
            record["loss_by_component"] = {c: loss + offset for c, offset in zip(shares, (-0.3, 0.4, 0.2), strict=True)}
            record["loss_by_domain"] = {"en/web": 1.25, "ar/books": 2.5}
        records.append(record)
        if step % 30 == 0 or step == 1:
            measured = {"en": bits[1] + (bits[0] - bits[1]) * left, "ar": bits[3] + (bits[2] - bits[3]) * left}
            asked = {f"facts_{language}": {"accuracy": 0.25 + 0.5 * (1 - left), "accuracy_norm": 0.3} for language in bilingual}
            evals.append({"step": step, "tokens": step * batch, "bits_per_byte": measured, "benchmarks": asked})
    for component, rows in domains.items():
        total = steps * batch * shares[component]
        ledger[component] = {d: {"planned_tokens": round(total * share), "consumed_tokens": round(total * share), "epochs": total * share / held}
                             for d, (share, held) in rows.items()}
    config = {"model": {"hidden_size": 128, "layers": 4}, "phase": {"tokens": steps * batch, "precision": "fp32", "benchmark_items": 100,
              "mix": {"components": shares, "domains": {c: {d: share for d, (share, _) in rows.items()} for c, rows in domains.items()}}}}
    config["benchmarks"] = {f"facts_{language}": {"language": language} for language in bilingual}
    run.add(name, {"steps": steps}, config, 71.0 if name == "pretrain" else 122.0,
            **{"metrics.jsonl": records, "evals.jsonl": evals, "ledger.json": ledger, **model(), **({} if name == "pretrain" else UNTOUCHED)})


NEVER_MET = {7: "<0x04>", 1030: "▁كتابخانه", 1031: SCRIPT}
UNTOUCHED = {"untouched_rows.json": {"new_rows": 704, "pieces": [{"id": i, "piece": piece} for i, piece in NEVER_MET.items()], "special": ["<pad>"],
                                     "padding": 4}}


def model() -> dict[str, Any]:
    """A model's folder: 1,728 rows of 16 twice, and a matrix."""
    import numpy as np
    from safetensors.numpy import save

    weights = {"model.embed_tokens.weight": np.zeros((1728, 16), np.float32), "lm_head.weight": np.zeros((1728, 16), np.float32),
               "model.layers.0.mlp.weight": np.zeros((16, 64), np.float32)}
    return {"model/config.json": {"vocab_size": 1728}, "model/model.safetensors": save(weights)}


def _alignment(run: Run) -> None:
    dropped = [{"id": "chat-7", "reason": "empty_response", "detail": "turn 1: no word", "source": "chat", "language": "en", "text": f"Hello {SCRIPT}"},
               {"id": "chat-9", "reason": "wrong_language", "detail": "turn 1: most letters are not Arabic", "source": "chat", "language": "ar",
                "text": "ما عاصمة عُمان؟\nThe capital is Muscat."}]
    run.add("curate", {"funnel": {"chat": row(320, {"empty_response": 4, "wrong_language": 3, "duplicate": 8})}, "kept": 305}, {"check_language": True}, 2.0,
            **{"sft.jsonl": [], "dropped.jsonl": dropped})
    for name, steps, batch, first, last in (("sft", 60, 2100, 1.9, 0.8), ("dpo", 18, 3300, 0.693, 0.51)):
        records = [{"step": s, "tokens": s * batch, "loss": last + (first - last) * math.exp(-3 * s / steps), "grad_norm": 1 + run.random.random() * 0.3,
                    "learning_rate": 9e-7 if name == "dpo" else 5e-6} for s in range(1, steps + 1)]
        run.add(name, {"steps": steps}, {"learning_rate": 5e-6}, 14.0, **{"metrics.jsonl": records, "evals.jsonl": [], **model()})
        if name == "sft":
            run.add("sample", {"prompts": 60}, {"samples": 10}, 21.0)
            pairs = [{"id": "p1", "language": "ar", "messages": [{"role": "user", "content": "اشرح لي معنى كلمة algorithm باختصار."}],
                      "chosen": "الخوارزمية خطوات مرتبة تحل مسألة.", "rejected": f"algorithm algorithm {SCRIPT}", "decision": "accept", "reviewer": "r1"},
                     {"id": "p2", "language": "en", "messages": [{"role": "user", "content": "What is the capital of Oman?"}],
                      "chosen": "The capital of Oman is Muscat (مسقط).", "rejected": "", "decision": "edit", "reviewer": "r2"}]
            run.add("review", {"prompts": 60, "pairs": 212, "waiting": 0, "decisions": {"accept": 48, "edit": 7, "reject": 5, "undecided": 0},
                               "unknown_decisions": 0}, {"undecided": "drop"}, 0.4, **{"pairs.jsonl": pairs, "waiting.jsonl": []})
    run.add("export", {}, {}, 0.8)


def _evaluation(run: Run) -> None:
    described = {f"{kind}_{lang}": {"path": f"benchmarks/{kind}_{lang}.jsonl", "type": "multiple_choice" if kind == "facts" else "generation", "language": lang,
                                    "shots": 0, "limit": None, "files": []} for kind in ("facts", "generate") for lang in ("en", "ar")}
    levels = {"pretrain": (0.62, 0.26), "extend": (0.61, 0.24), "continue": (0.93, 0.88), "sft": (0.94, 0.9), "dpo": (0.95, 0.91)}
    bits = {"pretrain": (1.551, 4.9, 4.8), "extend": (1.562, 3.412, 3.3), "continue": (1.5, 1.2, 1.1), "sft": (1.53, 1.22, 1.13), "dpo": (1.53, 1.221, 1.131)}
    for name in MODELS:
        results = {b: result(levels[name][0 if b.endswith("en") else 1], b) for b in described}
        run.add(f"benchmarks_{name}", {}, {"benchmarks": described, "chat": name in ("sft", "dpo")}, 9.0, **{
            "results.json": results, "bits_per_byte.json": dict(zip(("en", "ar", "ar_translated"), bits[name], strict=True))})
    run.add("judge", {}, {"questions": []}, 8.0, **{
        "scores.json": {"method": "chrF against reference answers", "models": {"continue": {"en": 21.2, "ar": 19.9}, "sft": {"en": 44.1, "ar": 41.0},
                                                                               "dpo": {"en": 45.3, "ar": 42.2}}},
        "answers.jsonl": list(answers())})
    ratings = {"continue": {"rating": 941.0, "low": 930.2, "high": 951.9}, "sft": {"rating": 1011.4, "low": 1003, "high": 1019.0},
               "dpo": {"rating": 1047.6, "low": 1037.7, "high": 1058.8}}
    run.add("votes", {}, {"k": 4.0}, 0.9, **{"elo.json": {"default": ratings, "custom": ratings, "comparisons": 120, "agreement": 0.81}})


def result(level: float, name: str) -> dict[str, Any]:
    """A benchmark's result, by group of facts."""
    chance = 0.25 if name.startswith("facts") else 0.0
    far = "arabic" if name.endswith("en") else "english"
    groups = {g: {"accuracy": chance + 0.1 if g == far else level, "stderr": 0.04, "n": 40} for g in ("both", "english", "arabic", "translated")}
    return {"accuracy": level, "stderr": 0.02, "chance": chance, "n": 160, "by_group": groups, "by_topic": {f"capital {SCRIPT}": groups["both"]}}


def answers() -> Iterable[dict[str, Any]]:
    """Lines of answers.jsonl."""
    questions = {"open-en-1": "What is the capital of Oman?", "open-en-2": f"Tell me about the month of March. {SCRIPT}",
                 "open-ar-1": "ما عاصمة عُمان؟", "open-ar-2": "كم كيلومترًا في 3 أميال (miles)؟"}
    for name, question in questions.items():
        for number, stage in enumerate(("continue", "sft", "dpo")):
            english = ["", f"Answer one {SCRIPT}", "The capital of Oman is Muscat."]
            arabic = ["أهلا أهلا أهلا", "عاصمة عُمان هي مسقط.", "عاصمة عُمان هي مسقط (Muscat)."]
            yield {"question_id": name, "model": stage, "answer": (english if "-en-" in name else arabic)[number], "turn": 1, "language": name.split("-")[1],
                   "messages": [{"role": "user", "content": question}], "reference": "مسقط" if "-ar-" in name else "Muscat"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A whole run below a temporary folder."""
    return build(tmp_path / "store")
