from __future__ import annotations

import sys
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

sys.path.append(str(Path(__file__).parents[1] / "chat"))
from bilingual import small_model, write_tokenizer

from allam.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_folder)


@pytest.fixture
def model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    return small_model(tokenizer)
