"""Benchmarks through lm-eval on local files: prompts, scores, groups, and the files of public benchmarks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from bilingual import save_small_model, small_model
from lm_eval.api.instance import Instance
from transformers import LlamaForCausalLM

from allam import sample
from allam.artifacts import file_sha256
from allam.engine.choices import accuracies, log_likelihoods, question
from allam.errors import UserError
from allam.eval import benchmarks
from allam.eval.config import BenchmarksConfig
from allam.eval.model import EvaluatedModel, answer
from allam.items import BenchmarkConfig
from allam.prompts import plain_prompt, read_items
from allam.section import FileRef
from allam.text.tokenizer import Tokenizer

REAL = Path(os.environ.get("ALLAM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "benchmarks"
CONTEXTS = ["Question: What is the capital of Egypt?\nAnswer:", "السؤال: ما عاصمة المغرب؟\nالجواب:"]


def _benchmark(root: Path, path: str, **more: Any) -> BenchmarkConfig:
    file = root / path
    return BenchmarkConfig(path=path, files=(FileRef(path=path, sha256=file_sha256(file), size=file.stat().st_size),), **more)


def _instance(kind: str, *args: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=args, idx=0)


def test_a_likelihood_is_that_of_the_choices_tokens_after_one_bos(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    requests = [(c, f" {choice}") for c in CONTEXTS for choice in ("Cairo", "Rome or Paris", "الرباط", "5")]
    scores = EvaluatedModel(model, tokenizer).loglikelihood([_instance("loglikelihood", *r) for r in requests])
    for (context, continuation), (score, greedy) in zip(requests, scores, strict=True):
        before = [tokenizer.bos_id, *tokenizer.encode(context)]
        ids = [tokenizer.bos_id, *tokenizer.encode(context + continuation)]
        assert ids[:len(before)] == before
        log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
        by_hand = sum(log_p[i - 1, ids[i]].item() for i in range(len(before), len(ids)))
        assert score == pytest.approx(by_hand, abs=1e-3)
        assert greedy == all(log_p[i - 1].argmax().item() == ids[i] for i in range(len(before), len(ids)))


@pytest.mark.parametrize("shots", [0, 12])
def test_a_choice_asked_during_training_scores_as_the_same_choice_does_in_lm_eval(model: LlamaForCausalLM, tokenizer: Tokenizer, shots: int) -> None:
    config = BenchmarksConfig(benchmarks={
        f"facts_{language}": _benchmark(sample.root(), f"benchmarks/facts_{language}.jsonl", type="multiple_choice", language=language, limit=20, shots=shots)
        for language in ("en", "ar")})
    items = {name: read_items(sample.root() / c.path, c) for name, c in config.benchmarks.items()}
    found = benchmarks.run_benchmarks(EvaluatedModel(model, tokenizer), config, items)
    for name, (asked, examples) in items.items():
        questions = [question(tokenizer, plain_prompt(item, examples, config.benchmarks[name]), item.choices, int(item.answer),
                              model.config.max_position_embeddings) for item in asked]
        assert (max(len(row) for q in questions for row in q.rows) > 256) == (shots > 0)  # these lose their head
        for scores, row in zip(log_likelihoods(model, questions), found[name], strict=True):
            assert scores == pytest.approx(row["log_likelihoods"], abs=2e-4)
        result = benchmarks.summary(found[name])
        assert accuracies(model, {name: questions})[name] == {kind: pytest.approx(result[kind]) for kind in ("accuracy", "accuracy_norm")}


def test_a_long_context_loses_its_head_and_never_its_answer(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    long = EvaluatedModel(model, tokenizer).loglikelihood([_instance("loglikelihood", "word " * 600 + "end", " Cairo")])
    ids = tokenizer.encode("word " * 600 + "end Cairo")[-257:]
    answer_ids = len(tokenizer.encode("word end Cairo")) - len(tokenizer.encode("word end"))
    log_p = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0], -1)
    assert long[0][0] == pytest.approx(sum(log_p[-i, ids[-i]].item() for i in range(1, answer_ids + 1)), abs=1e-3)


def test_rolling_likelihood_predicts_each_token_once(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    text = "The capital of Egypt is Cairo."
    (score,) = EvaluatedModel(model, tokenizer).loglikelihood_rolling([_instance("loglikelihood_rolling", text)])
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    assert score == pytest.approx(sum(log_p[i, ids[i + 1]].item() for i in range(len(ids) - 1)), abs=1e-3)


def test_a_literal_end_of_text_in_an_item_stays_text(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_id not in EvaluatedModel(model, tokenizer).tok_encode("a </s> b")


def test_answers_come_in_the_order_of_the_questions(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    questions = ["A rather long question about the capital of Egypt?", "Short?", "ما عاصمة المغرب؟"]
    assert answer(model, tokenizer, questions, 8) == [answer(model, tokenizer, [q], 8)[0] for q in questions]


@pytest.fixture
def stage_inputs(tmp_path: Path, tokenizer_folder: Path, tokenizer: Tokenizer) -> dict[str, Path]:
    save_small_model(tokenizer, tmp_path / "start", tokenizer_folder)
    (tmp_path / "pack" / "held_out").mkdir(parents=True)
    for component, text in (("en", "The capital of Egypt is Cairo.\u2028It lies on the Nile."), ("ar", "عاصمة مصر هي القاهرة.")):
        (tmp_path / "pack" / "held_out" / f"{component}.jsonl").write_text(json.dumps({"id": "1", "text": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"root": sample.root(), "model": tmp_path / "start", "tokenizer": tokenizer_folder, "held_out": tmp_path / "pack"}


def _sample_config(chat: bool, **more: Any) -> BenchmarksConfig:
    kinds = {"facts_en": ("multiple_choice", "en"), "facts_ar": ("multiple_choice", "ar"), "generate_en": ("generation", "en"),
             "generate_ar": ("generation", "ar")}
    return BenchmarksConfig(chat=chat, max_new_tokens=12, benchmarks={
        name: _benchmark(sample.root(), f"benchmarks/{name}.jsonl", type=kind, language=language, **more) for name, (kind, language) in kinds.items()})


def test_the_stage_reports_accuracy_by_group_and_topic_with_its_chance(tmp_path: Path, stage_inputs: dict[str, Path]) -> None:
    metrics = benchmarks.run(_sample_config(chat=True, limit=24), stage_inputs, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["facts_en", "facts_ar", "generate_en", "generate_ar"]
    for name, result in results.items():
        rows = [json.loads(line) for line in (tmp_path / "samples" / f"{name}.jsonl").read_bytes().splitlines()]
        assert result["n"] == len(rows) == 24
        assert result["accuracy"] == pytest.approx(sum(r["correct"] for r in rows) / 24)
        assert result["chance"] == (0.25 if name.startswith("facts") else 0)
        assert sum(cell["n"] for cell in result["by_group"].values()) == 24
    assert set(results["facts_ar"]["by_group"]) == {"both", "english", "arabic", "translated"}
    assert 0 < metrics["bits_per_byte"]["en"] < 50
    assert set(metrics["bits_per_byte"]) == {"en", "ar"}
    first = json.loads((tmp_path / "samples" / "facts_ar.jsonl").read_bytes().splitlines()[0])
    assert first["prompt"].startswith("السؤال: ")
    assert max(first["log_likelihoods"]) == first["log_likelihoods"][first["choices"].index(first["chosen"])]


def test_running_again_gives_the_same_bytes(tmp_path: Path, stage_inputs: dict[str, Path]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        benchmarks.run(_sample_config(chat=False, limit=4), stage_inputs, tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.json*"))
    assert len(files) == 6
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_a_benchmark_learnt_by_heart_is_answered(tokenizer: Tokenizer) -> None:
    config = _sample_config(chat=False, limit=2)
    items = {name: read_items(sample.root() / c.path, c) for name, c in config.benchmarks.items()}
    model = small_model(tokenizer).train()
    texts = [f"{plain_prompt(item, [], config.benchmarks[name])} {item.answer_text}" for name, (asked, _) in items.items() for item in asked]
    rows = [torch.tensor([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]) for text in texts]
    ids, labels = (torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value) for value in (0, -100))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    results = {name: benchmarks.summary(rows) for name, rows in benchmarks.run_benchmarks(EvaluatedModel(model, tokenizer), config, items).items()}
    assert all(result["accuracy"] == 1.0 for result in results.values()), results
    assert results["generate_ar"]["exact_match"] == 1.0


@pytest.mark.parametrize(("given", "expected", "contains", "exact"), [
    ("The capital is Rome.", "Rome", 1, 0), ("  rome!", "Rome", 1, 1), ("Roman", "Rome", 0, 0), ("115", "15", 0, 0), ("عاصمةُ إيطاليا هي رُومَا.", "روما", 1, 0),
    ("الإسكندرية", "الاسكندرية", 1, 1), ("New Delhi is it", "new delhi", 1, 0), ("Delhi New", "New Delhi", 0, 0), ("", "x", 0, 0)])
def test_answers_are_compared_word_by_word_after_normalisation(given: str, expected: str, contains: int, exact: int) -> None:
    assert benchmarks.score_answer(given, expected) == {"contains": contains, "exact_match": exact}


def test_examples_come_from_the_items_own_topic_first(tmp_path: Path) -> None:
    rows = [{"id": f"{topic}{split}", "question": f"Which {topic}?", "choices": ["x", "y"], "answer": "B", "subject": topic, "split": split}
            for topic in ("law", "art") for split in ("dev", "test")]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = _benchmark(tmp_path, "b.jsonl", type="multiple_choice", language="en", shots=1)
    asked, examples = read_items(tmp_path / "b.jsonl", config)
    assert [item.id for item in asked] == ["lawtest", "arttest"]
    assert plain_prompt(asked[1], examples, config) == "Question: Which art?\nAnswer: y\n\nQuestion: Which art?\nAnswer:"


@pytest.mark.parametrize("row", [{"id": 1, "question": "?", "choices": ["x"], "answer": 0}, {"id": 1, "question": "?", "choices": ["x", "y"], "answer": 2},
                                 {"id": 1, "choices": ["x", "y"], "answer": 0}, {"id": 1, "question": " ", "choices": ["x", "y"], "answer": 0}, ["x"]])
def test_a_line_that_is_no_item_is_named(tmp_path: Path, row: Any) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(row))
    config = _benchmark(tmp_path, "b.jsonl", type="multiple_choice", language="en")
    with pytest.raises(UserError, match=r"b.jsonl, line 1"):
        read_items(tmp_path / "b.jsonl", config)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real benchmarks at {REAL}")
@pytest.mark.parametrize(("name", "format", "language", "type", "count"), [
    ("mmlu_en", "items", "en", "multiple_choice", 7566), ("mmlu_ar_acegpt", "items", "ar", "multiple_choice", 7566),
    ("exams_ar", "lettered", "ar", "multiple_choice", None),
    ("acva_ar", "yes_no", "ar", "multiple_choice", None), ("arabicmmlu_egypt", "arabicmmlu", "ar", "multiple_choice", None),
    ("xquad_qa_en_ar", "bilingual_qa", "ar", "generation", 612)])
def test_public_benchmarks_are_read_whole(name: str, format: str, language: str, type: str, count: int | None) -> None:
    path = REAL / f"{name}.jsonl.gz"
    shots = 0 if type == "generation" else 2
    config = BenchmarkConfig.model_validate({"path": path.name, "type": type, "language": language, "format": format, "shots": shots})
    asked, examples = read_items(path, config)
    assert len(asked) == count or count is None
    assert len(asked) > 200
    assert type == "generation" or len(examples) > 1
    assert all(len(item.choices) > 1 for item in asked) or type == "generation"
    spread, _ = read_items(path, config.model_copy(update={"limit": 50}))
    assert len(spread) == 50
    assert plain_prompt(spread[0], examples, config).count("الجواب:" if language == "ar" else "Answer:") == config.shots + 1
