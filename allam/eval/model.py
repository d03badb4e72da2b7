"""Our models as lm-eval sees them: log-likelihoods and greedy answers in batches, each sequence with `<s>` exactly once.

A subclass of lm-eval's own, because its generic one goes through transformers' tokenizers, which would turn a literal `</s>` in an item into the
real one. Requests that share their input, such as choices of one token each, share one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel

from allam.chat.template import encode_prompt, stop_ids
from allam.chat.tokens import END
from allam.engine.logits import logits_of
from allam.generate.sampler import generate
from allam.progress import Progress
from allam.text.tokenizer import Tokenizer

TOKENS_IN_BATCH = 8192
PROMPTS_IN_BATCH = 64


class EvaluatedModel(TemplateLM):  # type: ignore[misc]
    """A model with its tokenizer. `chat` wraps the questions of generation benchmarks in the chat form."""

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, chat: bool = False) -> None:
        super().__init__()
        self.model, self.text_tokenizer, self.chat = model.eval(), tokenizer, chat
        self.max_length: int = model.config.max_position_embeddings
        self._device = model.device

    @property
    def eot_token_id(self) -> int:
        """The id that ends a document."""
        return self.text_tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The id that begins a document."""
        return self.text_tokenizer.bos_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, after `<s>` unless `add_special_tokens` is false."""
        ids = self.text_tokenizer.encode(string)
        return ids if add_special_tokens is False else [self.prefix_token_id, *ids]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each continuation, and whether it is the greedy one."""
        return super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def _loglikelihood_tokens(self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any) -> list[tuple[float, bool]]:
        rows: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for number, (_, context, continuation) in enumerate(requests):
            row = tuple((context + continuation)[-self.max_length - 1:][:-1])
            rows.setdefault(row, []).append((number, continuation[-len(row):]))
        results = [(0.0, False)] * len(requests)
        order = sorted(rows, key=lambda row: (-len(row), row))
        with Progress("requests", len(requests), what="log-likelihood") as progress:
            for batch in _batches(order):
                wanted = [(number, r, continuation, len(row)) for r, row in enumerate(batch) for number, continuation in rows[row]]
                for (number, _, _, _), score in zip(wanted, self._score(batch, wanted), strict=True):
                    results[number] = score
                progress.update(len(wanted))
        return results

    def _score(self, batch: list[tuple[int, ...]], wanted: list[tuple[int, int, list[int], int]]) -> list[tuple[float, bool]]:
        """Scores of continuations, each given as (request, row of the batch, its ids, length of the row)."""
        ids = torch.zeros((len(batch), len(batch[0])), dtype=torch.long)
        for r, row in enumerate(batch):  # padding on the right can't reach what stands before it
            ids[r, :len(row)] = torch.tensor(row, dtype=torch.long)
        states_BTD = self.model.base_model(input_ids=ids.to(self._device), use_cache=False).last_hidden_state
        at_N = torch.tensor([(r, length - len(c) + i) for _, r, c, length in wanted for i in range(len(c))], device=self._device)
        targets_N = torch.tensor([token for _, _, c, _ in wanted for token in c], device=self._device)
        logits_NV = logits_of(self.model, states_BTD[at_N[:, 0], at_N[:, 1]])
        log_p_N = torch.log_softmax(logits_NV, dim=-1).gather(1, targets_N[:, None])[:, 0].double()
        greedy_N = logits_NV.argmax(dim=-1) == targets_N
        sizes = [len(c) for _, _, c, _ in wanted]
        return [(float(p.sum()), bool(g.all())) for p, g in zip(log_p_N.split(sizes), greedy_N.split(sizes), strict=True)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood in nats of whole texts, in windows of the model's length."""
        totals = []
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = [make_disjoint_window(w) for w in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)]
            totals.append(sum(score for score, _ in self._loglikelihood_tokens([(("", ""), context, target) for context, target in windows])))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy answers, cut before the first of the request's `until` texts."""
        contexts, options = [r.args[0] for r in requests], [r.args[1] for r in requests]
        limit = max((int(o["max_gen_toks"]) for o in options), default=0)
        answers = answer(self.model, self.text_tokenizer, [[{"role": "user", "content": c}] for c in contexts] if self.chat else contexts, limit)
        return [_cut(text, o.get("until", [])) for text, o in zip(answers, options, strict=True)]


def answer(model: PreTrainedModel, tokenizer: Tokenizer, questions: Sequence[Any], max_new_tokens: int) -> list[str]:
    """Greedy answers to conversations (lists of messages, in the chat form) or to plain texts, in the order of the questions."""
    room = model.config.max_position_embeddings - max_new_tokens
    prompts = [([tokenizer.bos_id, *tokenizer.encode(q)] if isinstance(q, str) else encode_prompt(tokenizer, q))[-room:] for q in questions]
    stops = stop_ids(tokenizer) if END in tokenizer.special else [tokenizer.eos_id]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    answers = [""] * len(prompts)
    with Progress("answers", len(prompts), what="generation") as progress:
        for start in range(0, len(order), PROMPTS_IN_BATCH):
            batch = order[start:start + PROMPTS_IN_BATCH]
            found = generate(model, tokenizer, [prompts[i] for i in batch], max_new_tokens, temperature=0.0, top_p=1.0, seed=0, stop_ids=stops)
            for i, ids in zip(batch, found, strict=True):
                answers[i] = tokenizer.decode(ids).strip()
            progress.update(len(batch))
    return answers


def _batches(order: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Rows, longest first, in batches of at most `TOKENS_IN_BATCH` padded tokens."""
    batches, start = [], 0
    while start < len(order):
        size = max(1, TOKENS_IN_BATCH // len(order[start]))
        batches.append(order[start:start + size])
        start += size
    return batches


def _cut(text: str, until: list[str]) -> str:
    ends = [text.find(end) for end in until if end and end in text]
    return text[:min(ends)].strip() if ends else text
