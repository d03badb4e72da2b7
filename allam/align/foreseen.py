"""How many tokens finetuning and preference training will see, from the files of conversations alone, before any of them is tokenised: for `allam plan`.

What isn't known yet is assumed, and said: 4 bytes of text to a token (measured with a merged tokenizer of 15,616 pieces: 3.1 to 3.8 in English chats, 4.6 to
5.4 in Arabic ones; with 2,048 pieces 2.1 to 4.4), nothing dropped by curation, and sampled responses that all differ, each as long as the chosen one.
Of long files the beginnings stand for the rest, and some for many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allam.align.config import DpoConfig, SampleConfig, SftConfig
from allam.align.conversations import as_conversation, conversation_problem, evenly, lines_of

BYTES_A_TOKEN = 4.0
MARKERS = 2  # of a turn: its role's and its end
FILES, LINES, BYTES = 20, 2_000, 2**19  # read of a stage's files; of each so many lines, and so many bytes, beside which what is read ahead is little


@dataclass(frozen=True)
class Foreseen:
    """One pass over the data: its sequences and all their tokens; `assumes` is what was assumed, in words."""

    sequences: float
    tokens: float
    assumes: str

    @property
    def mean_length(self) -> float:
        """Tokens of a sequence."""
        return self.tokens / self.sequences


def sft_tokens(files: Sequence[Path], config: SftConfig, most: int | None) -> Foreseen | None:
    """One epoch of finetuning on at most so many conversations; None where the files hold none that can be read."""
    conversations = sequences = tokens = 0.0
    read = _Read(files)
    for row, stands_for in read:
        messages = row.get("messages")
        if messages is None or conversation_problem(messages, "assistant"):
            continue
        conversations += stands_for
        ends = [end for end in _ends(messages) if end <= config.max_length]
        for end in ends if config.turn_augmentation else ends[-1:]:
            sequences += stands_for
            tokens += stands_for * end
    share = 1.0 if most is None else min(1.0, most / max(conversations, 1.0))
    told = f"{round(sequences * share):,} samples of {round(conversations * share):,} conversations, as if curation dropped none"
    return Foreseen(sequences * share, tokens * share, f"{told}{_told(read)}") if sequences else None


def dpo_tokens(files: Sequence[Path], config: DpoConfig, sample: SampleConfig, accepted: set[str] | None) -> Foreseen | None:
    """One epoch of preference training; a pair is two sequences. Of prompts only those `accepted` count, where that is known already."""
    prompts = counted = sequences = tokens = 0.0
    read = _Read(files)
    for row, stands_for in read:
        messages, chosen = row.get("messages"), row.get("chosen")
        if messages is None or conversation_problem(messages, "user") or not isinstance(chosen, str):
            continue
        prompts += stands_for
        if accepted is not None and row.get("id") not in accepted:
            continue
        counted += stands_for
        before, answer = 2.0 + sum(_tokens(message) for message in messages), _tokens({"content": chosen}) - 1
        if before + answer <= config.max_length:
            sequences += 2 * sample.samples * stands_for
            tokens += sample.samples * stands_for * (2 * before + answer + min(answer, sample.max_new_tokens))
    share = 1.0 if sample.max_prompts is None else min(1.0, sample.max_prompts / max(prompts, 1.0))
    told = (f"{round(sequences * share / 2):,} pairs of {round(counted * share):,} prompts, as if every sampled response were another and as long as the "
            f"chosen one{'' if accepted is not None else ', and every prompt were accepted'}")
    return Foreseen(sequences * share, tokens * share, f"{told}{_told(read)}") if sequences else None


def accepted_prompts(files: Sequence[Path]) -> set[str]:
    """Ids of the prompts that the decisions so far accept or edit."""
    last = dict[Any, Any]()
    for path in files:
        with open(path, "rb") as raw:
            last |= {line.value.get("id"): line.value.get("decision") for line in lines_of(raw, path.suffix) if line.value is not None}
    return {name for name, decision in last.items() if isinstance(name, str) and decision in ("accept", "edit")}


def _tokens(message: dict[str, str]) -> float:
    return len(message["content"].encode()) / BYTES_A_TOKEN + MARKERS


def _ends(messages: list[dict[str, str]]) -> Iterator[float]:
    """Where the assistant's turns end, in tokens from the conversation's head."""
    end = 1.0  # BOS
    for message in messages:
        end += _tokens(message)
        if message["role"] == "assistant":
            yield end


class _Read:
    """The conversations of files, each with the number that it stands for; `whole` says afterwards whether that was always one."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files, self.whole = files, True

    def __iter__(self) -> Iterator[tuple[dict[str, Any], float]]:
        chosen = evenly(list(self._files), FILES)
        of_files = sum(path.stat().st_size for path in self._files) / max(1, sum(path.stat().st_size for path in chosen))
        for path in chosen:
            rows, share = _first(path)
            self.whole &= share == 1 and len(chosen) == len(self._files)
            for row in rows:
                yield as_conversation(row), of_files / share


def _first(path: Path) -> tuple[list[dict[str, Any]], float]:
    """The objects on the first lines of a file, and the share of it that they are, by the bytes on disk."""
    rows = list[dict[str, Any]]()
    with open(path, "rb") as raw:
        for number, line in enumerate(lines_of(raw, path.suffix)):
            if number >= LINES and raw.tell() >= BYTES:
                return rows, raw.tell() / path.stat().st_size
            if line.value is not None:
                rows.append(line.value)
    return rows, 1.0


def _told(read: _Read) -> str:
    return f", at {BYTES_A_TOKEN:g} bytes of text a token" + ("" if read.whole else f", by the beginnings of {FILES} files at most")

