"""`<s>` stands once at the head, whatever path a text takes: pretraining, measurement, chats, lm-eval, the exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bilingual import save_small_model, small_model, write_tokenizer
from byte_bases import write_base
from lm_eval.api.instance import Instance
from transformers import AutoTokenizer

from allam.chat.template import encode_conversation, encode_prompt
from allam.documents import Document, shard_path, write_documents
from allam.eval import model as eval_model
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import byte_base
from allam.train import export, pack
from allam.train.config import PackConfig

TEXTS = ["The capital of Egypt is Cairo.", "<s>عاصمة مصر هي القاهرة.", "<s> <s></s>"]
CHATS = [[{"role": "user", "content": text}, {"role": "assistant", "content": text}] for text in TEXTS]


@pytest.fixture(scope="module", params=["sentencepiece", "llama3", "qwen"])
def tokenizer_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model; a byte-level base with BOS; one that has none, and gets `<s>`."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sentencepiece":
        write_tokenizer(folder)
    else:
        byte_base.write(folder, byte_base.extended(byte_base.read(write_base(folder / "base", request.param)), [], 64), chat=True)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_folder)


def once(tokenizer: Tokenizer, ids: Any) -> bool:
    return list(ids).count(tokenizer.bos_id) == 1 and ids[0] == tokenizer.bos_id


def test_in_packed_documents(tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path) -> None:
    for name in ("natural", "translated"):
        write_documents(shard_path(tmp_path / name / "documents", "s", 0), [
            Document(f"{name}-{i}", text, "s", "en", "web", "natural") for i, text in enumerate(TEXTS)])
    (tmp_path / "out" / "work").mkdir(parents=True)
    inputs = {"natural": tmp_path / "natural", "translated": tmp_path / "translated", "tokenizer": tokenizer_folder}
    pack.run(PackConfig(), inputs, tmp_path / "out")
    tokens = [np.fromfile(path, dtype=np.uint16) for path in (tmp_path / "out").rglob("tokens*") if path.is_file()]
    ids = np.concatenate(tokens)
    assert (ids == tokenizer.bos_id).sum() == (ids == tokenizer.eos_id).sum() > 0
    starts = np.flatnonzero(ids == tokenizer.bos_id)
    assert starts[0] == 0
    assert (ids[starts[1:] - 1] == tokenizer.eos_id).all()


@pytest.mark.parametrize("chat", CHATS)
def test_in_chats_ours_and_transformers(tokenizer: Tokenizer, tokenizer_folder: Path, chat: list[dict[str, str]]) -> None:
    theirs = AutoTokenizer.from_pretrained(tokenizer_folder).apply_chat_template(chat, return_dict=True)["input_ids"]
    assert all(once(tokenizer, ids) for ids in (encode_conversation(tokenizer, chat)[0], encode_prompt(tokenizer, chat[:1]), theirs))


class Seen(eval_model.EvaluatedModel):
    """Keeps the rows that the model is given."""

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
        self.rows = [context + continuation for _, context, continuation in requests]
        return super()._loglikelihood_tokens(requests, **kwargs)


@pytest.mark.parametrize("context", ["", "Question: ", *TEXTS])
def test_in_what_lm_eval_asks(tokenizer: Tokenizer, context: str) -> None:
    seen = Seen(small_model(tokenizer), tokenizer)
    requests = [Instance("loglikelihood", {}, (context, text), i) for i, text in enumerate(TEXTS)]
    seen.loglikelihood(requests)
    assert all(once(tokenizer, row) for row in seen.rows)
    seen.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (TEXTS[1],), 0)])
    assert all(once(tokenizer, row) for row in seen.rows)


@pytest.mark.parametrize("chat", [False, True])
def test_in_prompts_of_generation(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, chat: bool) -> None:
    prompts: list[list[int]] = []
    generate = eval_model.generate

    def spied(model: Any, tokenizer: Tokenizer, given: list[list[int]], *rest: Any, **named: Any) -> Any:
        prompts.extend(given)
        return generate(model, tokenizer, given, *rest, **named)

    monkeypatch.setattr(eval_model, "generate", spied)
    evaluated = eval_model.EvaluatedModel(small_model(tokenizer), tokenizer, chat=chat)
    evaluated.generate_until([Instance("generate_until", {}, (text, {"until": [], "max_gen_toks": 2}), i) for i, text in enumerate(TEXTS)])
    assert len(prompts) == len(TEXTS)
    assert all(once(tokenizer, prompt) for prompt in prompts)


def test_in_the_exported_folder(tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path) -> None:
    save_small_model(tokenizer, tmp_path / "dpo", tokenizer_folder)
    (tmp_path / "export").mkdir()
    export.run(None, {"model": tmp_path / "dpo", "tokenizer": tokenizer_folder}, tmp_path / "export")  # type: ignore[arg-type]
    hf = AutoTokenizer.from_pretrained(tmp_path / "export" / "model")
    assert once(tokenizer, hf(TEXTS[0])["input_ids"])
    assert all(once(tokenizer, hf(text, split_special_tokens=True)["input_ids"]) for text in TEXTS)
    rendered = hf.apply_chat_template(CHATS[1], tokenize=False)
    assert once(tokenizer, hf(rendered, add_special_tokens=False)["input_ids"])
