"""The sequences of a phase, read from memory-mapped packs at any position (what packing and mixing wrote)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allam.errors import UserError
from allam.train.config import ORDER_DOMAIN, PLAN
from allam.train.mix import ORDER_WINDOW
from allam.train.pack import PACK, PACKS, TOKENS


class Windows:
    """Sequences of L + 1 tokens by their number in the phase; the last token is a target only."""

    def __init__(self, pack: Path, mix: Path) -> None:
        self.plan = json.loads((mix / PLAN).read_text(encoding="utf-8"))
        about = json.loads((pack / PACKS / PACK).read_text(encoding="utf-8"))
        if about["tokenizer"] != self.plan["tokenizer"]:
            raise UserError(f"the mix {mix} was planned for packs of another tokenizer than {pack}", "run the mix again on this pack")
        self.fingerprint: str = about["tokenizer"]
        self.length: int = self.plan["sequence_length"]
        self.domains: list[tuple[str, str]] = [(c, d) for c, d in self.plan["domains"]]
        self.components: list[str] = list(dict.fromkeys(c for c, _ in self.domains))
        self.domain_N = np.load(mix / ORDER_DOMAIN, mmap_mode="r")
        self._window_N = np.load(mix / ORDER_WINDOW, mmap_mode="r")
        self._tokens = [np.memmap(pack / PACKS / c / d / TOKENS, dtype=about["dtype"], mode="r") for c, d in self.domains]

    def __len__(self) -> int:
        return len(self.domain_N)

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        """Tokens of sequence `i`, of shape [L + 1]."""
        start = int(self._window_N[i]) * self.length
        return np.asarray(self._tokens[self.domain_N[i]][start : start + self.length + 1], dtype=np.int64)

    def span(self, i: int) -> tuple[str, str, int, int]:
        """Component, domain, and where in its pack sequence `i` begins and ends (its L + 1 tokens)."""
        start = int(self._window_N[i]) * self.length
        return *self.domains[self.domain_N[i]], start, start + self.length + 1

    def distinct(self, sequences: NDArray[np.int64], at_once: int) -> Iterator[NDArray[Any]]:
        """The input tokens of these sequences, which are of one domain, each window once and `at_once` windows at a time: [windows, L]."""
        if not len(sequences):
            return
        tokens, numbers = self._tokens[self.domain_N[sequences[0]]], np.unique(self._window_N[sequences])
        whole = tokens[: len(tokens) // self.length * self.length].reshape(-1, self.length)
        for start in range(0, len(numbers), at_once):
            yield whole[numbers[start : start + at_once]]

    def consumed(self, sequences: int | NDArray[np.int64]) -> dict[str, dict[str, int]]:
        """Tokens by component and domain in the first so many sequences, or in the sequences of these numbers."""
        chosen = self.domain_N[:sequences] if isinstance(sequences, int) else self.domain_N[sequences]
        counts = np.bincount(chosen, minlength=len(self.domains))
        found: dict[str, dict[str, int]] = {}
        for (component, domain), count in zip(self.domains, counts, strict=True):
            found.setdefault(component, {})[domain] = int(count) * self.length
        return found
