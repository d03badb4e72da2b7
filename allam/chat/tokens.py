"""Names of the special tokens, in one place: the tokenizer gives them ids, chat templates and training use them (paper §2.2, §3.1).

The first three come with a Llama-like base. The others are added by the merge, each a single id that no text can produce:
a CONTROL piece of the SentencePiece model.
"""

from __future__ import annotations

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
PAD, SYSTEM, USER, ASSISTANT, END = "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"

BASE_SPECIALS = (UNK, BOS, EOS)
CHAT_SPECIALS = (PAD, SYSTEM, USER, ASSISTANT, END)  # in the order of their ids
ROLE_TOKENS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}

_PADDING = "<|padding_{}|>"


def padding_token(number: int) -> str:
    """The name of the row number `number` that fills the vocabulary up to a round size."""
    return _PADDING.format(number)


def is_padding(piece: str) -> bool:
    """Whether `piece` is the name of such a row."""
    return piece.startswith("<|padding_") and piece.endswith("|>")
