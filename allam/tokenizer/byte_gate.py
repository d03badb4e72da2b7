"""The gate of an extended byte-level tokenizer: the promises of allam/tokenizer/gate.py where they mean the same, and those of its own (paper §2.2).

Its own: the base's ids, merges and settings stay and the new merges come behind them; no text without Arabic script can meet a new piece, which the pieces'
bytes say for all texts and the lines for those at hand; and each new piece is what its own bytes are merged to, which no other merge prevents.

    findings = byte_gate.measure(gate.Folders(base, arabic, merged), {"english": [...], "arabic": [...]}, MergedTokenizerConfig())
    print(gate.table(findings))
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers

from allam.chat.tokens import CHAT_SPECIALS, is_padding
from allam.text.byte_level import FAST_FILE, ByteLevelTokenizer, is_spelled, pair_of, to_bytes, whole_text, without_guard
from allam.text.tokenizer import SPACE
from allam.tokenizer import check, gate
from allam.tokenizer.byte_base import ByteBase
from allam.tokenizer.config import MergedTokenizerConfig
from allam.tokenizer.gate import Finding, Lines, judged
from allam.tokenizer.script import holds_arabic

SETTINGS = ("ignore_merges", "unk_token", "dropout", "byte_fallback", "fuse_unk")
BUG = "report this as a bug, with the base's tokenizer.json"


def measure(folders: gate.Folders, lines: Lines, config: MergedTokenizerConfig, reach: Iterable[str] = (), thorough: bool = True,
            exceptions: Path | None = None) -> list[Finding]:
    """All findings on `lines`; `reach` is text on which new pieces are looked for. A tokenizer that can't be loaded is judged by its pieces alone.

    The file `exceptions` gets a line for each Arabic word that is cut otherwise than by the Arabic-only tokenizer.

    Where not `thorough`, transformers isn't asked and not every character is tried, which takes some seconds however few the lines are.
    """
    base, merged = (json.loads((folder / FAST_FILE).read_bytes()) for folder in (folders.base, folders.merged))
    before, alone, after = (ByteLevelTokenizer.load(folder) for folder in (folders.base, folders.arabic, folders.merged))
    findings = [base_stays(base, merged), nothing_twice(merged), specials_are_special(merged, before, after)]
    if not all(finding.held for finding in findings):
        return findings
    new = [(i, name) for i, name in enumerate(after.names) if i >= before.vocab_size and i not in after.special.values() and i not in after.padding]
    forbidden = {*after.special.values(), *after.padding}
    spelled = [text for i in sorted(forbidden) for text in (after.names[i], f"a{after.names[i]} b")]
    shown = [(i, after.pieces([i])[0]) for i, _ in new]
    return [*findings, gate.texts_giving(forbidden, after, lines | {"spelled out": spelled}, BUG), only_in_arabic(new), pieces_reachable(merged, new, after),
            gate.pieces_met(shown, after, reach, config.max_unmet_share), gate.lines_unchanged(before, after, lines),
            words_cut_alike(before, alone, after, lines, exceptions), *gate.fertility_kept(before, alone, after, lines, config.max_fertility_excess),
            *([ids_agree(folders.merged, after, lines), text_comes_back(after, lines)] if thorough else [])]


def base_stays(base: dict[str, Any], merged: dict[str, Any]) -> Finding:
    """The base's tokens keep their ids, its merges come first in their order, and text is brought in form and cut into words as before."""
    old, ids = ByteBase(base, None, "").ids, ByteBase(merged, None, "").ids
    wrong = [f"{name!r} had the id {i} and has {ids.get(name)}" for name, i in old.items() if ids.get(name) != i]
    before, after = (list(map(pair_of, data["model"]["merges"])) for data in (base, merged))
    wrong += [f"merge {number} was {merge} and is {after[number] if number < len(after) else 'gone'}" for number, merge in enumerate(before)
              if after[number:number + 1] != [merge]]
    wrong += [f"{name} was {base['model'].get(name)} and is {merged['model'].get(name)}" for name in SETTINGS
              if base["model"].get(name) != merged["model"].get(name)]
    wrong += [f"the {name} is another" for name in ("pre_tokenizer", "decoder") if base.get(name) != merged.get(name)]
    wrong += ["the normalizer is another"] if without_guard(merged.get("normalizer")) != base.get("normalizer") else []
    return judged("ids, merges and settings of the base that changed", wrong, len(old) + len(before), "put new pieces and merges behind the base's")


def nothing_twice(merged: dict[str, Any]) -> Finding:
    """No id has two tokens."""
    where: dict[int, list[str]] = {}
    for name, i in ByteBase(merged, None, "").ids.items():
        where.setdefault(i, []).append(name)
    twice = [f"id {i} is {names}" for i, names in where.items() if len(names) > 1]
    return judged("ids with two tokens", twice, len(where), "add only pieces that the base lacks")


def specials_are_special(merged: dict[str, Any], before: ByteLevelTokenizer, after: ByteLevelTokenizer) -> Finding:
    """Special tokens are looked for before anything else or not at all, and neither they nor padding rows are made by a merge."""
    tokens = {token["content"]: token for token in merged["added_tokens"]}
    wanted = sorted({*CHAT_SPECIALS, *(after.names[i] for i in (*before.special.values(), after.bos_id, after.eos_id))})
    wrong = [f"{name!r} is {tokens.get(name, 'no added token')}" for name in wanted
             if not (token := tokens.get(name, {})).get("special") or token.get("normalized")]
    made = {left + right for left, right in map(pair_of, merged["model"]["merges"])}
    unmergeable = {*wanted, *(name for name in merged["model"]["vocab"] if is_padding(name))}
    wrong += [f"{name!r} is made by a merge" for name in sorted(made & unmergeable)]
    return judged("special tokens and padding rows that text can spell", wrong, len(unmergeable), "give special tokens `special: true`, `normalized: false`")


def only_in_arabic(new: list[tuple[int, str]]) -> Finding:
    """The bytes of each new piece hold Arabic script, and don't begin within a character, so that no other text can meet it."""
    wrong = [f"id {i} {name!r} is {to_bytes(name)!r}" for i, name in new if not is_spelled(name) or not holds_arabic(to_bytes(name))]
    return judged("new pieces that text without Arabic script could meet", wrong, len(new), "learn merges on words with Arabic script, of Arabic script")


def pieces_reachable(merged: dict[str, Any], new: list[tuple[int, str]], after: ByteLevelTokenizer) -> Finding:
    """The merges alone make each new piece of its own bytes; and one of whole characters is what its text is cut into."""
    plain = tokenizers.Tokenizer.from_str(json.dumps(merged | {"model": merged["model"] | {"ignore_merges": False}}))
    wrong = []
    for i, name in new:
        by_merges = [token.id for token in plain.model.tokenize(name)]
        text = whole_text(to_bytes(name))
        ids = by_merges if text is None else after.encode(text)
        if by_merges != [i] or ids != [i]:
            wrong.append(f"id {i} {after.pieces([i])[0]!r}: its bytes give {after.pieces(by_merges)} {by_merges}, its text {after.pieces(ids)} {ids}")
    return judged("new pieces that no text can reach", wrong, len(new), BUG)


def words_cut_alike(before: ByteLevelTokenizer, alone: ByteLevelTokenizer, after: ByteLevelTokenizer, lines: Lines, exceptions: Path | None) -> Finding:
    """Running words cut as the Arabic-only tokenizer cuts them. No promise: that one begins with bytes, where the base has merges of its own."""
    base, arabic = (set(tokenizer.pieces(range(tokenizer.vocab_size))) for tokenizer in (before, alone))
    return replace(gate.words_cut_alike(base, arabic, alone, after, lines, 0.0, exceptions), bound="reported", remedy="")


def ids_agree(folder: Path, after: ByteLevelTokenizer, lines: Lines) -> Finding:
    """`Tokenizer.encode` and transformers' AutoTokenizer give the same ids and text, and transformers puts BOS before them once."""
    fast, failures = check.Fast(folder, through_transformers=True), list[str]()
    for group, texts in lines.items():
        for text, plain, with_bos in zip(texts, fast.encode(texts, False), fast.encode(texts, True), strict=True):
            ids = after.encode(text)
            if plain != ids:
                failures.append(f"{group}: {text[:60]!r}: transformers gives {check.difference(after, plain, ids)}")
            elif with_bos != [after.bos_id, *ids]:
                failures.append(f"{group}: {text[:60]!r}: transformers doesn't put BOS before it once: {with_bos[:4]}")
            elif fast.decode(plain) != after.decode(ids):
                failures.append(f"{group}: {text[:60]!r}: transformers gives the text {fast.decode(plain)[:60]!r}")
    return judged("lines on which ours and transformers differ", failures, sum(map(len, lines.values())), BUG)


def text_comes_back(after: ByteLevelTokenizer, lines: Lines) -> Finding:
    """decode(encode(x)) == x for every code point and all lines; where the base brings text into NFC, x in NFC."""
    lost = [f"U+{ord(c):04X} {c!r}: {after.decode(after.encode(f'a{c}b'))!r}" for c in gate.lost_characters(after, after.normalise)]
    lost += [f"{group}: {text[:60]!r} came back as {after.decode(after.encode(text))[:60]!r}" for group, texts in (lines | {"sign": [f"a{SPACE}b"]}).items()
             for text in texts if after.decode(after.encode(text)) != after.normalise(text)]
    changed = sum(after.normalise(chr(code)) != chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    how = f" (in NFC, which changes {changed:,} of them)" if changed else ""
    return judged(f"characters and lines that don't come back{how}", lost, 0x110000 - 0x800 + sum(map(len, lines.values())), BUG)
