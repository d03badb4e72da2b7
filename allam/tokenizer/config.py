"""What the tokenizer stages need to know (paper §2.2). Imports pydantic and the standard library only."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator

from allam.section import DomainName, FileRef, HeldOut, Name, Section, assumed, paper, planned

OWN = ("base", "arabic_only", "merged")  # names of the recipe's tokenizers in the results


class BaseTokenizerConfig(Section):
    """The English-centred tokenizer to extend: read from a SentencePiece model or a byte-level `tokenizer.json`, or trained on the corpus's English."""

    model: str | None = paper("2.2", "below `data.root`: a SentencePiece model (`tokenizer.model`, such as Llama 2's), a byte-level `tokenizer.json` (such as "
                              "Llama 3's or Qwen's) with its `tokenizer_config.json` beside it, or a folder that holds one; null: train one here", None)
    vocab_size: int = assumed("a stand-in for Llama 2's 32,000", "pieces of a tokenizer trained here", 1024, ge=300)
    max_sentences: int = assumed("bounded memory", "lines of text to train on, at most", 200_000, ge=1)
    seed: int = assumed("any", "seed of the sample of lines", 0)
    held_out: HeldOut = planned("taken from data.held_out", "documents that no tokenizer sees", HeldOut())
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "its files with their checksums", ())


class ArabicTokenizerConfig(Section):
    """An Arabic-only SentencePiece BPE tokenizer with byte fallback; for a byte-level base byte-level BPE, and as many merges learnt onward from its own."""

    vocab_size: int = assumed("the paper gives no size; 32,000 doubles Llama 2's vocabulary", "pieces, bytes included", 1024, ge=300)
    max_sentences: int = assumed("bounded memory", "lines of text to train on, at most", 200_000, ge=1)
    domains: dict[DomainName, float] = assumed(
        "the corpus's own mixture", "shares of max_sentences by domain, such as {web: 0.5, books: 0.5}; a domain with fewer lines gives what it has. Empty: in "
        "proportion to the corpus's lines", {})
    character_coverage: float = assumed("bytes take the rest", "share of characters that get a piece (not for byte-level bases)", 0.9995, gt=0, le=1)
    alphabet: Literal["mergeable", "all"] = assumed(
        "a piece such as an emoji's can't be merged without changing English that holds it",
        "`mergeable`: only characters of Arabic script and those that the base has get pieces; `all`: whatever the text holds. New pieces of a byte-level "
        "base are of Arabic script alone, or hold some", "mergeable")
    seed: int = assumed("any", "seed of the sample of lines", 0)
    held_out: HeldOut = planned("taken from data.held_out", "documents that no tokenizer sees", HeldOut())

    @field_validator("domains")
    @classmethod
    def _shares_of_one(cls, domains: dict[str, float]) -> dict[str, float]:
        if domains and (min(domains.values()) <= 0 or abs(math.fsum(domains.values()) - 1) > 5e-4):
            raise ValueError(f"shares must be above 0 and sum to 1: {', '.join(f'{name}={share:g}' for name, share in domains.items())}")
        return domains


class MergedTokenizerConfig(Section):
    """The base tokenizer with the Arabic pieces that it lacks."""

    arabic_script_only: bool = assumed(
        "pieces such as '..' would change how English and code are cut", "add only pieces made of Arabic letters, marks and punctuation (byte-level bases: "
        "see arabic.alphabet)", True)
    pad_to_multiple: int = assumed("tensor cores like multiples of 64", "the vocabulary is padded to a multiple of this", 64, ge=1)
    checked_lines: int = assumed("a minute's work", "lines of English, of Arabic and of code, each, on which the result is checked; held-out ones besides",
                                 3000, ge=1)
    reach_lines: int = assumed("the Arabic tokenizer's own sample", "lines of Arabic in which each new piece is looked for", 200_000, ge=1)
    min_same_segmentation: float = assumed(
        "reached on real text with Llama 2's and Mistral's tokenizers",
        "share of running Arabic words that must be cut as the Arabic-only tokenizer cuts them, or hold a piece that the base alone has", 1.0, ge=0, le=1)
    max_fertility_excess: float = assumed("what a merge may cost", "share by which tokens of Arabic may exceed the Arabic-only tokenizer's", 0.005, ge=0)
    max_unmet_share: float = assumed(
        "steps on the way to longer pieces: a share of 0.0007 of 31,369 on real text, 0.06 of 752 on the sample's templates",
        "share of new pieces that the looked-through lines may leave unmet, rows that no text trains", 0.1, ge=0, le=1)
    seed: int = assumed("any", "seed of the sample of lines", 0)
    held_out: HeldOut = planned("taken from data.held_out", "documents that no tokenizer sees", HeldOut())


class OtherTokenizer(Section):
    """A tokenizer to compare with; nothing is made of it."""

    model: str = assumed(
        "any that there is a file of", "below `data.root`: a SentencePiece model of any kind, a tokenizer.json, or a folder that holds one", min_length=1)
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "its file with its checksum", ())


class FertilityConfig(Section):
    """Tokens a word for English, Arabic and code over the three tokenizers (Figure 1), and over others."""

    max_documents: int = paper("2.2", "documents of the subsample of the corpus, for each language and code", 2000, ge=1)
    others: dict[Name, OtherTokenizer] = assumed("the paper compares its own three", "tokenizers to compare with, by name", {})
    seed: int = assumed("any", "seed of the subsample", 0)

    @field_validator("others")
    @classmethod
    def _not_our_own(cls, others: dict[str, OtherTokenizer]) -> dict[str, OtherTokenizer]:
        if taken := others.keys() & set(OWN):
            raise ValueError(f"{', '.join(sorted(taken))}: the recipe's own tokenizers have the names {', '.join(OWN)}; give another name")
        return others


class TokenizerConfig(Section):
    """The three tokenizers and their comparison."""

    base: BaseTokenizerConfig = paper("2.2", "the tokenizer to extend", BaseTokenizerConfig())
    arabic: ArabicTokenizerConfig = paper("2.2", "the Arabic-only tokenizer", ArabicTokenizerConfig())
    merged: MergedTokenizerConfig = paper("2.2", "the merged tokenizer", MergedTokenizerConfig())
    fertility: FertilityConfig = paper("2.2", "the comparison", FertilityConfig())
