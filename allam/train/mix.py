"""Which window of which pack comes when: an index over the packs by language, kind and domain, with a ledger (paper §2.1, Table 1).

    order_domain.npy   uint8, for each sequence of the phase the number of its domain in plan.json's `domains`
    order_window.npy   int64, the window's number in that domain's tokens.bin: tokens [n*L, n*L + L + 1), the last one a target only
    plan.json          sequence length, steps, domains, and the ledger: share, planned tokens, epochs by component and domain

No token is copied. A domain's quota of windows follows from its share by largest remainder; each epoch of a domain is a permutation of its own;
and sequences are interleaved so that every prefix of the phase has the mix's shares, which makes the data position a pure function of the step.

Where shares change at a position, the sequences before it are those of the mix without the change, and each domain goes on in its permutations where it
was: so a training that has come to the position can go on from its checkpoint, and nothing is repeated or left out for it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allam.artifacts import write_json
from allam.errors import UserError
from allam.train.config import ORDER_DOMAIN, PLAN, ComponentName, DomainName, MixStageConfig, Shares
from allam.train.pack import PACK, PACKS

ORDER_WINDOW = "order_window.npy"


@dataclass(frozen=True)
class Domain:
    """A domain with a share of the mix, and the windows that its pack holds. `shares`: as the phase begins, and from each change on."""

    component: str
    domain: str
    shares: tuple[float, ...]
    windows: int
    tokens: int

    @property
    def name(self) -> str:
        """`component.domain`, as in the recipe."""
        return f"{self.component}.{self.domain}"


def run(config: MixStageConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Plans the order of the phase over the input `pack`."""
    pack = json.loads((inputs["pack"] / PACKS / PACK).read_text(encoding="utf-8"))
    domains = find_domains(config, pack["components"])
    steps = -(-config.tokens // (config.global_batch * config.sequence_length))
    total, tokens_a_step = steps * config.global_batch, config.global_batch * config.sequence_length
    changes = [-(-change.from_token // tokens_a_step) for change in config.changes]
    domain_N = order_of_domains(domains, total, [step * config.global_batch for step in changes])
    quotas = np.bincount(domain_N, minlength=len(domains)).tolist()
    _refuse_too_many_epochs(config, domains, quotas)
    window_N = order_of_windows(domains, domain_N, config.seed)
    _save(out / ORDER_DOMAIN, domain_N)
    _save(out / ORDER_WINDOW, window_N)
    ledger: dict[str, dict[str, Any]] = {}
    for domain, quota in zip(domains, quotas, strict=True):
        ledger.setdefault(domain.component, {})[domain.domain] = {
            "share": quota / total if changes else domain.shares[0], "planned_tokens": quota * config.sequence_length, "available_tokens": domain.tokens,
            "epochs": round(quota / domain.windows, 6)}
    plan = {"sequence_length": config.sequence_length, "global_batch": config.global_batch, "steps": steps,
            "tokens": steps * config.global_batch * config.sequence_length, "tokenizer": pack["tokenizer"],
            "domains": [[d.component, d.domain] for d in domains], "changes": changes, "ledger": ledger}
    write_json(out / PLAN, plan)
    return {key: plan[key] for key in ("steps", "tokens", "ledger")}


def find_domains(config: MixStageConfig, packed: dict[str, dict[str, dict[str, int]]]) -> list[Domain]:
    """The domains with a share, in the recipe's order, those that a change brings behind the others.

    Raises `UserError` naming those whose pack can't fill a single sequence.
    """
    parts: list[Shares] = [config, *config.changes]
    places = dict.fromkeys((component, domain) for part in parts for component in part.components for domain in part.domains.get(component, {}))
    domains, empty = [], []
    for component, domain in sorted(places, key=lambda place: next((i for i, part in enumerate(parts) if _share(part, *place)), len(parts))):
        shares = tuple(_share(part, component, domain) for part in parts)
        if not any(shares):
            continue
        tokens = packed.get(component, {}).get(domain, {}).get("tokens", 0)
        found = Domain(component, domain, shares, max(0, tokens - 1) // config.sequence_length, tokens)
        domains.append(found)
        if found.windows == 0:
            share = max(part.domains.get(component, {}).get(domain, 0) for part in parts)
            empty.append(f"mix.domains.{found.name} has a share of {share:g} but {tokens} tokens, "
                         f"fewer than a sequence of {config.sequence_length} and its target")
    if empty:
        raise UserError("\n".join(empty), "add documents of that domain, or move its share to others (a component's shares sum to 1)")
    return domains


def _share(part: Shares, component: ComponentName, domain: DomainName) -> float:
    """Of all tokens."""
    return part.components.get(component, 0) * part.domains.get(component, {}).get(domain, 0)


def largest_remainder(shares: list[float], total: int) -> list[int]:
    """Whole numbers that sum to `total`, each less than one away from its share of it (Hamilton's method; ties go to the first)."""
    scale = total / sum(shares)
    exact = [share * scale for share in shares]
    quotas = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (quotas[i] - exact[i], i))
    for i in by_remainder[: total - sum(quotas)]:
        quotas[i] += 1
    return quotas


def _refuse_too_many_epochs(config: MixStageConfig, domains: list[Domain], quotas: list[int]) -> None:
    length = config.sequence_length
    lines = [f"mix.domains.{d.name}: {quota * length:,} tokens needed, {d.windows * length:,} available: "
             f"{math.ceil(100 * quota / d.windows) / 100:.2f} epochs, more than max_epochs {config.max_epochs:g}"
             for d, quota in zip(domains, quotas, strict=True) if quota > config.max_epochs * d.windows]
    if not lines:
        return
    if config.changes:
        raise UserError("\n".join(lines), "add text, change the shares, or raise max_epochs")
    low, high = 0, sum(quotas) // config.global_batch  # steps that fit, steps that don't
    while high - low > 1:
        middle = (low + high) // 2
        tried = largest_remainder([d.shares[0] for d in domains], middle * config.global_batch)
        fits = all(q <= config.max_epochs * d.windows for d, q in zip(domains, tried, strict=True))
        low, high = (middle, high) if fits else (low, middle)
    fitting = low * config.global_batch * length
    remedy = f"the largest budget that fits is tokens: {fitting}" if fitting else "not even one step fits"
    raise UserError("\n".join(lines), f"{remedy}; or add text, change the shares, or raise max_epochs")


def order_of_domains(domains: list[Domain], total: int, changes: Sequence[int] = ()) -> NDArray[np.uint8]:
    """For each of `total` sequences the domain's number. From each change's sequence on the rest of the phase is planned by its shares, as far as the next."""
    starts = [0, *changes]
    parts = [_interleaved(largest_remainder([d.shares[i] for d in domains], total - start))[:end - start]
             for i, (start, end) in enumerate(pairwise([*starts, total]))]
    return np.concatenate(parts)


def _interleaved(quotas: list[int]) -> NDArray[np.uint8]:
    """Item k of a domain with quota q stands at (k + 1/2) / q of the whole, so a prefix of n sequences holds n times the share of a domain, give or take
    one and half the number of domains times the share."""
    places = [(np.arange(quota) + 0.5) / quota for quota in quotas if quota]
    numbers = np.concatenate([np.full(quota, i, dtype=np.uint8) for i, quota in enumerate(quotas)])
    return numbers[np.argsort(np.concatenate(places), kind="stable")]


def order_of_windows(domains: list[Domain], domain_N: NDArray[np.uint8], seed: int) -> NDArray[np.int64]:
    """For each sequence the number of its domain's window."""
    window_N = np.empty(len(domain_N), np.int64)
    for i, domain in enumerate(domains):
        mine = np.flatnonzero(domain_N == i)
        window_N[mine] = _epochs(domain, len(mine), seed)
    return window_N


def _epochs(domain: Domain, quota: int, seed: int) -> NDArray[np.int64]:
    """`quota` windows of a domain: whole permutations, then the beginning of one more."""
    name = int.from_bytes(hashlib.blake2b(domain.name.encode(), digest_size=8).digest(), "big")
    rounds = [np.random.default_rng([seed, name, epoch]).permutation(domain.windows) for epoch in range(-(-quota // domain.windows))]
    return np.concatenate(rounds)[:quota].astype(np.int64) if rounds else np.empty(0, dtype=np.int64)


def _save(path: Path, array: NDArray[Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        np.save(file, array)
    temporary.replace(path)
