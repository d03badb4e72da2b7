"""Samples and their masks: turn augmentation, batches and padding."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from allam.align.examples import Example, batch_numbers, conversation_examples, pad, response_example, steps_per_epoch, tokens_before
from allam.align.sft import masked_loss
from allam.chat.template import encode_conversation
from allam.chat.tokens import END
from allam.engine.loss import IGNORED
from allam.text.tokenizer import Tokenizer

TALK = [{"role": "user", "content": "What is the capital of Egypt?"}, {"role": "assistant", "content": "It is Cairo."},
        {"role": "user", "content": "وما عاصمة المغرب؟"}, {"role": "assistant", "content": "عاصمة المغرب هي الرباط."},
        {"role": "user", "content": "Thanks"}, {"role": "assistant", "content": "You are welcome."}]


def test_each_assistant_turn_becomes_a_sample_with_all_turns_before_it_masked(tokenizer: Tokenizer) -> None:
    examples, left_out = conversation_examples(tokenizer, TALK, 256, turn_augmentation=True)
    assert left_out == 0
    assert len(examples) == 3
    for number, example in enumerate(examples):
        assert example.ids == encode_conversation(tokenizer, TALK[:2 * number + 2])[0]
        trained = [i for i, m in zip(example.ids, example.mask, strict=True) if m]
        assert trained == [*tokenizer.encode(TALK[2 * number + 1]["content"]), tokenizer.special[END]]


def test_without_augmentation_one_sample_trains_all_assistant_turns(tokenizer: Tokenizer) -> None:
    (example,), _ = conversation_examples(tokenizer, TALK, 256, turn_augmentation=False)
    assert (example.ids, example.mask) == encode_conversation(tokenizer, TALK)


def test_augmented_samples_add_up_to_the_loss_of_the_whole_conversation(tokenizer: Tokenizer, model: LlamaForCausalLM) -> None:
    apart, _ = conversation_examples(tokenizer, TALK, 256, turn_augmentation=True)
    whole, _ = conversation_examples(tokenizer, TALK, 256, turn_augmentation=False)
    torch.testing.assert_close(masked_loss(model, apart)[0], masked_loss(model, whole)[0], rtol=1e-5, atol=1e-4)


def test_turns_that_end_too_late_are_left_out_and_counted(tokenizer: Tokenizer) -> None:
    second = len(encode_conversation(tokenizer, TALK[:4])[0])
    for augmentation, count in ((True, 2), (False, 1)):
        examples, left_out = conversation_examples(tokenizer, TALK, second, augmentation)
        assert (len(examples), left_out) == (count, 1)
        assert max(len(e.ids) for e in examples) == second
    assert conversation_examples(tokenizer, TALK, 3, True) == ([], 3)


def test_padding_changes_no_loss_and_the_mask_none_of_the_context(tokenizer: Tokenizer, model: LlamaForCausalLM) -> None:
    examples, _ = conversation_examples(tokenizer, TALK, 256, turn_augmentation=True)
    alone = sum(masked_loss(model, [e])[0].item() for e in examples)
    assert masked_loss(model, examples)[0].item() == pytest.approx(alone, rel=1e-5)
    ids = torch.tensor([examples[0].ids])
    log_p = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
    by_hand = -(log_p * torch.tensor(examples[0].mask[1:])).sum()
    torch.testing.assert_close(masked_loss(model, examples[:1])[0], by_hand, rtol=1e-5, atol=1e-5)


def test_padded_batches_hold_shifted_targets() -> None:
    ids, targets = pad([Example([5, 6, 7, 8], [0, 0, 1, 1]), Example([5, 6], [0, 1])])
    assert ids.tolist() == [[5, 6, 7], [5, 6, 0]]
    assert targets.tolist() == [[IGNORED, 7, 8], [6, IGNORED, IGNORED]]


def test_a_response_is_trained_and_its_prompt_is_not(tokenizer: Tokenizer) -> None:
    example = response_example(tokenizer, TALK[:1], "It is Cairo.")
    assert (example.ids, example.mask) == encode_conversation(tokenizer, TALK[:2])


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (8, 4), (3, 16)])
def test_every_epoch_sees_each_sample_once_in_another_order(count: int, batch: int) -> None:
    steps = steps_per_epoch(count, batch)
    epochs = [[n for s in range(steps) for n in batch_numbers(count, batch, 7, e * steps + s)] for e in range(3)]
    assert all(sorted(e) == list(range(count)) for e in epochs)
    if count > 3:
        assert epochs[0] != epochs[1]
    lengths = [n + 1 for n in range(count)]
    for step in range(3 * steps):
        seen = sum(lengths[n] for s in range(step) for n in batch_numbers(count, batch, 7, s))
        assert tokens_before(lengths, batch, 7, step) == seen
