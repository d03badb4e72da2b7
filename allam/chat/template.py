"""The chat form: how a conversation becomes token ids, and which of them the model is trained to produce (paper §3.1, C.2).

    <s><|system|>Be brief.<|end|><|user|>Hello<|end|><|assistant|>Hello!<|end|>

`<s>` stands once, at the head; every turn begins with its role's marker and ends with `<|end|>`; the assistant's content and its closing
`<|end|>` are what the model generates (mask 1). Earlier turns are never rewritten, so the ids of a conversation are a prefix of the ids
of its continuation (`is_prefix_preserving`), and every turn's sample can be cut out of one encoding (turn augmentation, Figure 11).

`encode_conversation` is what training and generation use: it places the markers by id, so no text inside a message can become one.
`CHAT_TEMPLATE` is the equal Jinja template for whoever loads the exported model with transformers; tests prove that the two agree, on messages that
spell markers too. transformers would take those for the real ones: the template puts the noncharacter U+FDD0, which Unicode keeps for such internal
use, behind their `<`, and tokenizer.json takes it away again after it has looked for markers (`GUARD`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from allam.chat.tokens import ASSISTANT, BASE_SPECIALS, BOS, END, EOS, PAD, ROLE_TOKENS, SYSTEM, USER

Message = Mapping[str, str]

GUARD = "\ufdd0"
_SIGN = "\\ufdd0"  # the guard as Jinja spells it
_HEADS = ("<|", *BASE_SPECIALS, PAD)  # how every special token of ours begins, or all of it


def chat_template(others: Iterable[str] = ()) -> str:
    """The Jinja template. `others` are special tokens of a base's that don't begin as ours do: where a message spells one, it is guarded too."""
    tokens = [(_quoted(token[0]), _quoted(token[1:])) for token in (*_HEADS, *others)]
    content = "message['content']"
    for first, rest in (*((first, _SIGN) for first in dict.fromkeys(first for first, _ in tokens)), *tokens):  # the guard itself, before it is put anywhere
        content += f" | replace('{first}{rest}', '{first}{_SIGN}{rest}')"
    return (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}"
        "{{ '" + ASSISTANT + "' }}{% generation %}{{ (" + content + ") + '" + END + "' }}{% endgeneration %}"
        "{% elif message['role'] == 'user' %}{{ '" + USER + "' + (" + content + ") + '" + END + "' }}"
        "{% elif message['role'] == 'system' and loop.first %}{{ '" + SYSTEM + "' + (" + content + ") + '" + END + "' }}"
        "{% else %}{{ raise_exception('only system (first), user and assistant turns are known, not ' + message['role']) }}"
        "{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}{% endif %}"
    )


def _quoted(text: str) -> str:
    """Text as it stands between the quotes of a Jinja string."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


CHAT_TEMPLATE = chat_template()


class Encoder(Protocol):
    """What is needed of a tokenizer: ids of plain text (never a special one), and the special tokens' ids."""

    @property
    def special(self) -> Mapping[str, int]:
        """Ids of the special tokens by their text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, in which nothing is a special token."""
        ...


def encode_conversation(tokenizer: Encoder, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """Ids of a conversation and its mask, of equal length: 1 where the assistant generates (its content and the closing `<|end|>`).

    Raises `ValueError` on an unknown role or a system turn that isn't the first.
    """
    special = tokenizer.special
    ids, mask = [special[BOS]], [0]
    for number, message in enumerate(messages):
        role = message["role"]
        if role not in ROLE_TOKENS or (role == "system" and number > 0):
            raise ValueError(f"turn {number} has the role {role!r}; allowed are system (first turn only), user and assistant")
        content = [*tokenizer.encode(message["content"]), special[END]]
        ids += [special[ROLE_TOKENS[role]], *content]
        mask += [0] + [int(role == "assistant")] * len(content)
    return ids, mask


def encode_prompt(tokenizer: Encoder, messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation that the assistant is to continue: they end after the `<|assistant|>` marker."""
    return [*encode_conversation(tokenizer, messages)[0], tokenizer.special[ASSISTANT]]


def encode_response(tokenizer: Encoder, content: str) -> list[int]:
    """Ids that follow `encode_prompt` where the assistant answers `content`: its text and the closing `<|end|>`."""
    return [*tokenizer.encode(content), tokenizer.special[END]]


def stop_ids(tokenizer: Encoder) -> list[int]:
    """Ids that end the assistant's turn: `<|end|>`, and `</s>` with which pretraining closed its documents."""
    return [tokenizer.special[END], tokenizer.special[EOS]]


def is_prefix_preserving(tokenizer: Encoder, messages: Sequence[Message]) -> bool:
    """Whether the encoding of each beginning of the conversation is a beginning of the whole one's encoding."""
    whole, mask = encode_conversation(tokenizer, messages)
    for end in range(len(messages) + 1):
        ids, part = encode_conversation(tokenizer, messages[:end])
        if whole[: len(ids)] != ids or mask[: len(part)] != part:
            return False
    return True
