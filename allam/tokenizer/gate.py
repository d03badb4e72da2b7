"""The gate of the merged tokenizer: what must hold before anything is trained with it, measured, with a table that says where it doesn't (paper §2.2).

Public merges of this kind have moved ids, changed English, cut Arabic words anew and split special tokens, each unnoticed until the model was trained.
`measure` returns one `Finding` a promise, with counts, the bound and examples with ids; `require` raises `UserError` with the table where one is
broken. The stage writes all of them to gate.json. Alone, on three folders of tokenizers and lines of text by group:

    findings = gate.measure(gate.Folders(base, arabic, merged), {"english": [...], "arabic": [...]}, MergedTokenizerConfig())
    print(gate.table(findings))
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from allam.artifacts import write_atomic
from allam.chat.tokens import BASE_SPECIALS, CHAT_SPECIALS, UNK, is_padding
from allam.errors import UserError
from allam.progress import track
from allam.text.tokenizer import MODEL_FILE, SPACE, Tokenizer
from allam.tokenizer import check, model
from allam.tokenizer.config import MergedTokenizerConfig
from allam.tokenizer.script import arabic_words, has_arabic, is_arabic_piece

SHOWN = 10  # examples of a broken promise
EXCEPTIONS, LISTED = "exceptions.jsonl", 10_000  # the words cut otherwise, so many different ones at most
RANKED_FIRST = "the base's own order of pieces"
Lines = dict[str, list[str]]  # by group: english, arabic, code, noise; each also as `<group>, trained on`


@dataclass(frozen=True)
class Folders:
    """The three tokenizers."""

    base: Path
    arabic: Path
    merged: Path


@dataclass(frozen=True)
class Finding:
    """One promise: what was counted, of how many, the bound in words, whether it held, and where it didn't."""

    promise: str
    measured: float
    of: int
    bound: str
    held: bool
    examples: tuple[str, ...] = ()
    remedy: str = ""

    def row(self) -> str:
        """The finding as lines of a table."""
        value = f"{self.measured:,}" if isinstance(self.measured, int) else f"{self.measured:.7f}"
        head = f"  {'held' if self.held else 'BROKEN':6}  {self.promise:<62} {value:>10} of {self.of:,} ({self.bound})"
        return "\n".join([head, *(f"            {example}" for example in self.examples)])


def table(findings: Iterable[Finding]) -> str:
    """All findings, one below the other."""
    return "\n".join(finding.row() for finding in findings)


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """What gate.json holds."""
    return [asdict(finding) for finding in findings]


def require(findings: list[Finding]) -> None:
    """Raises `UserError` with the broken promises and what to do about each."""
    broken = [finding for finding in findings if not finding.held]
    if broken:
        remedies = list(dict.fromkeys(finding.remedy for finding in broken if finding.remedy))
        raise UserError(f"the merged tokenizer breaks {len(broken)} of {len(findings)} promises:\n{table(broken)}", "; ".join(remedies))


def measure(folders: Folders, lines: Lines, config: MergedTokenizerConfig, reach: Iterable[str] = (), thorough: bool = True,
            exceptions: Path | None = None) -> list[Finding]:
    """All findings on `lines`; `reach` is text on which new pieces are looked for. A model that can't be loaded is judged by its pieces alone.

    The file `exceptions` gets a line for each Arabic word that is cut otherwise than by the Arabic-only tokenizer.

    Where not `thorough`, transformers isn't asked and not every character is tried, which takes some seconds however few the lines are.
    """
    base, arabic, merged = (model.read(folder / MODEL_FILE) for folder in (folders.base, folders.arabic, folders.merged))
    findings = [ids_stay(base, merged), nothing_twice(merged), specials_are_controls(merged)]
    if not all(finding.held for finding in findings):
        return findings
    before, alone, after = (Tokenizer.load(folder) for folder in (folders.base, folders.arabic, folders.merged))
    return [*findings, no_text_gives_a_special(merged, after, lines), pieces_reachable(base, merged, after),
            pieces_met(_new(base, merged), after, reach, config.max_unmet_share), lines_unchanged(before, after, lines),
            words_cut_alike(model.normal_pieces(base), model.normal_pieces(arabic), alone, after, lines, config.min_same_segmentation, exceptions),
            *fertility_kept(before, alone, after, lines, config.max_fertility_excess), *([ids_agree(folders.merged, lines), text_comes_back(after, lines)]
                                                                                        if thorough else [])]


def judged(promise: str, failures: list[str], of: int, remedy: str, most: int = 0) -> Finding:
    """The finding of a promise that at most so many may break."""
    return Finding(promise, len(failures), of, f"at most {most}", len(failures) <= most, tuple(failures[:SHOWN]), remedy)


def ids_stay(base: model.ModelProto, merged: model.ModelProto) -> Finding:
    """Each id of the base has its piece, kind and score in the merged model."""
    moved = [f"id {i}: {old.piece!r} became {merged.pieces[i].piece!r}" if i < len(merged.pieces) else f"id {i}: {old.piece!r} is gone"
             for i, old in enumerate(base.pieces) if i >= len(merged.pieces) or merged.pieces[i] != old]
    return judged("ids of the base that mean something else", moved, len(base.pieces), "append new pieces to the base's, in place of reordering them")


def nothing_twice(merged: model.ModelProto) -> Finding:
    """No piece stands twice."""
    where: dict[str, list[int]] = {}
    for i, p in enumerate(merged.pieces):
        where.setdefault(p.piece, []).append(i)
    twice = [f"{piece!r} has the ids {ids}" for piece, ids in where.items() if len(ids) > 1]
    return judged("pieces that stand twice", twice, len(merged.pieces), "add only pieces that the base lacks")


def specials_are_controls(merged: model.ModelProto) -> Finding:
    """Special tokens and padding rows are pieces that SentencePiece never looks for in text."""
    kinds = {p.piece: (i, p.type) for i, p in enumerate(merged.pieces)}
    wanted = [*BASE_SPECIALS, *CHAT_SPECIALS, *(p.piece for p in merged.pieces if is_padding(p.piece))]
    wrong = [f"{token!r} is {'no piece' if token not in kinds else 'id {} of type {}'.format(*kinds[token])}" for token in wanted
             if kinds.get(token, (0, None))[1] != (model.UNKNOWN if token == UNK else model.CONTROL)]
    others = [f"{p.piece!r} is id {i} of type {p.type}, which text can spell" for i, p in enumerate(merged.pieces)
              if p.type == model.USER_DEFINED and p.piece not in wanted]
    return judged("special tokens and padding rows that are no control pieces", wrong + others, len(wanted),
                    "give them the type CONTROL: text can spell a USER_DEFINED piece")


def no_text_gives_a_special(merged: model.ModelProto, after: Tokenizer, lines: Lines) -> Finding:
    """No line, and no special token spelled out, gives the id of a special token or a padding row."""
    forbidden = {i for i, p in enumerate(merged.pieces) if p.type in (model.CONTROL, model.UNKNOWN)}
    spelled = [f"a{merged.pieces[i].piece} b" for i in sorted(forbidden)]
    return texts_giving(forbidden, after, lines | {"spelled out": spelled}, "give special tokens the type CONTROL")


def texts_giving(forbidden: set[int], after: Tokenizer, lines: Lines, remedy: str) -> Finding:
    """The lines that give one of the forbidden ids."""
    met = [f"{group}: {text[:60]!r} gave {after.pieces(sorted(found))}" for group, texts in lines.items() for text in texts
           if (found := forbidden.intersection(after.encode(text)))]
    return judged("texts that gave a special token or a padding row", met, sum(map(len, lines.values())), remedy)


def _new(base: model.ModelProto, merged: model.ModelProto) -> list[tuple[int, str]]:
    return [(i, p.piece) for i, p in enumerate(merged.pieces) if i >= len(base.pieces) and p.type == model.NORMAL]


def pieces_reachable(base: model.ModelProto, merged: model.ModelProto, after: Tokenizer) -> Finding:
    """Each new piece is what its own text is cut into: one that isn't could never be reached by any text."""
    unreachable = [f"id {i} {piece!r}: its text gives {after.pieces(ids)} {ids}" for i, piece in _new(base, merged)
                   if (ids := _spell(after, piece)) != [i]]
    return judged("new pieces that no text can reach", unreachable, len(_new(base, merged)),
                    "leave them out: the pieces that they would be merged from are missing, or others are merged first")


def _spell(tokenizer: Tokenizer, piece: str) -> list[int]:
    """Ids of a piece's text, without the space that is put before a text."""
    text = piece.replace(SPACE, " ")
    ids = tokenizer.encode("\n" + text)
    return ids[len(tokenizer.encode("\n")):]


def pieces_met(new: list[tuple[int, str]], after: Tokenizer, reach: Iterable[str], most: float) -> Finding:
    """New pieces that the corpus's text is cut into at least once; those that it isn't are rows that training never sees."""
    met, count = Counter[int](), 0
    for text in track(reach, "lines", what="looking for new pieces"):
        met.update(after.encode(text))
        count += 1
    unmet = [f"id {i} {piece!r}" for i, piece in new if not met[i]]
    share = len(unmet) / max(1, len(new)) if count else 0.0
    return Finding(f"new pieces that {count:,} lines of the corpus don't meet", len(unmet), len(new), f"at most a share of {most}", share <= most,
                   tuple(unmet[:SHOWN]), "take a smaller tokenizer.arabic.vocab_size, or raise tokenizer.merged.max_unmet_share")


def lines_unchanged(before: Tokenizer, after: Tokenizer, lines: Lines) -> Finding:
    """Lines without Arabic script keep the base's ids."""
    texts = [(group, text) for group, group_lines in lines.items() for text in group_lines if not has_arabic(text)]
    changed = [f"{group}: {text[:60]!r}: {check.difference(after, new, old)}" for group, text in texts
               if (new := after.encode(text)) != (old := before.encode(text))]
    return judged("lines without Arabic script whose ids changed", changed, len(texts), "set tokenizer.merged.arabic_script_only to true")


def words_cut_alike(base: Collection[str], arabic: Collection[str], alone: Tokenizer, after: Tokenizer, lines: Lines, minimum: float,
                    exceptions: Path | None = None) -> Finding:
    """Running words of Arabic letters and marks between white space, cut as the Arabic-only tokenizer cuts them; all others go to the file `exceptions`.

    A word with a piece that the base alone has is listed and explained: base ids never move, and such a piece mostly stands for a letter that
    the Arabic-only tokenizer spells in bytes.
    """
    words = Counter(word for group, texts in lines.items() if group.startswith("arabic") for text in texts for word in arabic_words(text))
    base_only = {piece for piece in base if is_arabic_piece(piece) and piece not in arabic}
    listed, examples, same, unexplained, total, distinct = list[str](), list[str](), 0, 0, sum(words.values()), 0
    for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0])):
        ids = after.encode(word)
        got, wanted = after.pieces(ids), alone.pieces(alone.encode(word))
        if got == wanted:
            same += count
            continue
        own = [piece for piece in got if piece in base_only]
        unexplained += 0 if own else count
        cause = f"the base alone has {own[0]!r}" if own else RANKED_FIRST
        distinct += 1
        if distinct <= LISTED:
            listed.append(json.dumps({"word": word, "count": count, "merged": got, "ids": ids, "arabic_only": wanted, "cause": cause}, ensure_ascii=False))
        if distinct <= SHOWN:
            examples.append(f"{word} ({count} times): {' '.join(got)} {ids} instead of {' '.join(wanted)}; {cause}")
    if exceptions is not None:
        write_atomic(exceptions, "".join(line + "\n" for line in listed))
        if distinct:
            which = "all" if distinct <= LISTED else f"the most frequent {LISTED:,} of"
            examples.append(f"{exceptions.name} lists {which} {distinct:,} words with both cuts and cause")
    share = (total - unexplained) / max(1, total)
    return Finding("running Arabic words cut as by the Arabic-only tokenizer", same, total, f"a share of at least {minimum} the same or explained",
                   share >= minimum, tuple(examples),
                   f"rank new pieces below the base's in their own order; or lower tokenizer.merged.min_same_segmentation (now {minimum})")


def fertility_kept(before: Tokenizer, alone: Tokenizer, after: Tokenizer, lines: Lines, excess: float) -> list[Finding]:
    """Tokens of the merged tokenizer over those of the one that it should equal: the base on English and code, the Arabic-only one on Arabic."""
    findings = []
    for name, peer, most in (("english", before, 0.0), ("code", before, 0.0), ("arabic", alone, excess)):
        texts = [text for group, group_lines in lines.items() if group.startswith(name) for text in group_lines]
        if not texts:
            continue
        ours, theirs = (sum(map(len, tokenizer.encode_batch(texts))) for tokenizer in (after, peer))
        held = ours == theirs if name != "arabic" else ours <= theirs * (1 + most)
        findings.append(Finding(
            f"tokens of {name}, over the {'Arabic-only tokenizer' if name == 'arabic' else 'base'}'s", ours / max(1, theirs), len(texts),
            "exactly 1" if name != "arabic" else f"at most {1 + most:g}", held, () if held else tuple(_dearest(after, peer, texts)),
            "" if held else _cheaper(after, alone, texts) if name == "arabic" else "set tokenizer.merged.arabic_script_only to true"))
    return findings


def _cheaper(after: Tokenizer, alone: Tokenizer, texts: list[str]) -> str:
    """What to do about Arabic that costs too much: which characters the Arabic-only tokenizer has pieces of that the merged one can't have, first those
    that the merged one spells in bytes."""
    known = set(after.pieces(range(after.vocab_size)))
    lacking = {piece for text in texts for piece in alone.pieces(alone.encode(text)) if piece not in known}
    signs = sorted({c for piece in lacking for c in piece if c not in (SPACE, " ", "\ufffd") and not has_arabic(c)}, key=lambda c: (c in known, c))
    if not signs:
        return "train on more Arabic, or raise tokenizer.merged.max_fertility_excess"
    named = ", ".join(f"U+{ord(c):04X} {c!r}" for c in signs[:SHOWN]) + (f" and {len(signs) - SHOWN} more" if len(signs) > SHOWN else "")
    return (f"the Arabic-only tokenizer has {len(lacking)} pieces, with the characters {named}, that can't be merged: set tokenizer.arabic.alphabet to "
            "mergeable, so that others take their place")


def _dearest(after: Tokenizer, peer: Tokenizer, texts: list[str]) -> list[str]:
    """The words that cost most more tokens than with the peer, with both cuts."""
    words = Counter(word for text in texts for word in text.split())
    costs = {word: count * (len(after.encode(word)) - len(peer.encode(word))) for word, count in words.items()}
    return [f"{word[:30]!r} ({words[word]} times, {costs[word]} tokens more): {after.pieces(after.encode(word))} instead of {peer.pieces(peer.encode(word))}"
            for word in sorted(costs, key=lambda word: (-costs[word], word))[:SHOWN] if costs[word]]


def ids_agree(merged: Path, lines: Lines) -> Finding:
    """SentencePiece, `Tokenizer.encode` and transformers' AutoTokenizer give the same ids, and transformers puts BOS before them once."""
    failures = [f"{group}: {what}: {text[:60]!r}: {detail[:120]}"
                for group, what, text, detail in check.disagreements(merged, lines, through_transformers=True)]
    return judged("lines on which SentencePiece, ours and transformers differ", failures, sum(map(len, lines.values())),
                    "report this as a bug, with the base's tokenizer.model")


def text_comes_back(after: Tokenizer, lines: Lines) -> Finding:
    """decode(encode(x)) == x for every code point but U+2581, SentencePiece's own sign for a space, and for all lines without it."""
    lost = [f"U+{ord(c):04X} {c!r}: {after.decode(after.encode(f'a{c}b'))!r}" for c in lost_characters(after)]
    lost += [f"{group}: {text[:60]!r} came back as {after.decode(after.encode(text))[:60]!r}" for group, texts in lines.items() for text in texts
             if SPACE not in text and after.decode(after.encode(text)) != text]
    return judged("characters and lines that don't come back (U+2581 can't)", lost, 0x110000 - 0x800 + sum(map(len, lines.values())),
                    "use a base with byte fallback and identity normalisation")


def lost_characters(tokenizer: Tokenizer, normalised: Callable[[str], str] = str) -> list[str]:
    """All code points of Unicode, surrogates aside, that don't come back, `normalised` or as they are; U+2581, which SentencePiece can't, is passed over."""
    found = []
    for start in range(0, 0x110000, 1024):
        block = [chr(code) for code in range(start, start + 1024) if not 0xD800 <= code < 0xE000 and chr(code) != SPACE]
        together = "".join(block)
        if tokenizer.decode(tokenizer.encode(together)) != normalised(together):
            found += [c for c in block if tokenizer.decode(tokenizer.encode(f"a{c}b")) != normalised(f"a{c}b")]
    return found
