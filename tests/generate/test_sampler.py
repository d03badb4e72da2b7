"""Sampling: greedy as transformers does it, reproducible prompt by prompt, and nothing produced that must not be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from allam.chat.template import encode_prompt, stop_ids
from allam.errors import UserError
from allam.generate.sampler import _choose, forbidden_ids, generate
from allam.text.tokenizer import Tokenizer

QUESTIONS = ["What is the capital of Egypt?", "ما عاصمة المغرب؟", "How much is 6 plus 9?", "Who are you, and what can you do for me today?", "كم 2 + 3؟"]


@pytest.fixture
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    return [encode_prompt(tokenizer, [{"role": "user", "content": q}]) for q in QUESTIONS]


def test_greedy_equals_transformers_token_by_token(model: LlamaForCausalLM, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
    ours = generate(model, tokenizer, prompts, 20, temperature=0, top_p=1, seed=0, stop_ids=stop_ids(tokenizer))
    for prompt, answer in zip(prompts, ours, strict=True):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=stop_ids(tokenizer), pad_token_id=0,
                                suppress_tokens=forbidden_ids(tokenizer, stop_ids(tokenizer)))[0, len(prompt):].tolist()
        while theirs and theirs[-1] in (*stop_ids(tokenizer), 0):
            theirs.pop()
        assert answer == theirs
    assert len({tuple(a) for a in ours}) > 1


def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours(model: LlamaForCausalLM, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
    together = generate(model, tokenizer, prompts, 16, temperature=1.0, top_p=0.95, seed=[10, 11, 12, 13, 14], stop_ids=stop_ids(tokenizer))
    for number, prompt in enumerate(prompts):
        assert generate(model, tokenizer, [prompt], 16, temperature=1.0, top_p=0.95, seed=[10 + number], stop_ids=stop_ids(tokenizer)) == [together[number]]
    assert generate(model, tokenizer, prompts, 16, temperature=1.0, top_p=0.95, seed=10, stop_ids=stop_ids(tokenizer)) == together
    other = generate(model, tokenizer, prompts, 16, temperature=1.0, top_p=0.95, seed=99, stop_ids=stop_ids(tokenizer))
    assert other != together


def test_prompts_of_one_batch_may_use_different_temperatures(model: LlamaForCausalLM, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
    greedy = generate(model, tokenizer, prompts[:1], 12, temperature=0, top_p=1, seed=0, stop_ids=stop_ids(tokenizer))
    mixed = generate(model, tokenizer, [prompts[0], prompts[0]], 12, temperature=[0, 1.5], top_p=[1, 1], seed=5, stop_ids=stop_ids(tokenizer))
    assert mixed[0] == greedy[0]
    assert mixed[1] != greedy[0]


def test_special_tokens_and_padding_rows_are_never_produced(model: LlamaForCausalLM, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
    forbidden = forbidden_ids(tokenizer, stop_ids(tokenizer))
    assert tokenizer.vocab_size - 1 in forbidden  # the last row only fills the vocabulary
    with torch.no_grad():
        model.lm_head.weight[forbidden] *= 20  # what an undertrained row may do
    produced = generate(model, tokenizer, prompts * 4, 24, temperature=2.0, top_p=1, seed=0, stop_ids=stop_ids(tokenizer))
    assert not {token for answer in produced for token in answer} & {*forbidden, *stop_ids(tokenizer)}


def test_a_stop_id_ends_a_text_and_is_left_out(model: LlamaForCausalLM, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
    free = generate(model, tokenizer, prompts[:1], 12, temperature=0, top_p=1, seed=0, stop_ids=[])[0]
    at = next(i for i in range(1, len(free)) if free[i] not in free[:i])
    assert generate(model, tokenizer, prompts[:1], 12, temperature=0, top_p=1, seed=0, stop_ids=[free[at]])[0] == free[:at]


def test_draws_follow_the_nucleus_and_the_temperature() -> None:
    logits = torch.log(torch.tensor([[0.05, 0.5, 0.3, 0.15]]))
    random = [np.random.Generator(np.random.PCG64(0))]
    for temperature, top_p, expected in ((1.0, 1.0, [0.05, 0.5, 0.3, 0.15]), (1.0, 0.8, [0, 0.625, 0.375, 0]), (0.5, 1.0, None)):
        counts = Counter(_choose(logits.clone(), [temperature], [top_p], random)[0] for _ in range(4000))
        squares = np.exp(logits[0].numpy().astype(float)) ** 2
        wanted = np.array(expected) if expected else squares / squares.sum()
        np.testing.assert_allclose([counts[i] / 4000 for i in range(4)], wanted, atol=0.03)


def test_a_prompt_beyond_the_models_positions_is_refused_with_a_remedy(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="max_new_tokens"):
        generate(model, tokenizer, [[1] * 250], 20, temperature=0, top_p=1, seed=0, stop_ids=[])


def test_no_prompts_give_no_answers(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    assert generate(model, tokenizer, [], 5, temperature=0, top_p=1, seed=0, stop_ids=[]) == []
