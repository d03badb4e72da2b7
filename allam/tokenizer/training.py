"""Training a SentencePiece BPE model on a sample of the corpus: the same corpus gives the same bytes, in bounded memory (paper §2.2).

The settings are those of Llama 2's tokenizer (they stand in its model file): identity normalisation, byte fallback, digits split, runs of
spaces as pieces, a space before each text.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import sentencepiece

from allam.documents import Document, is_held_out
from allam.errors import UserError
from allam.progress import Progress
from allam.section import DomainName, HeldOut
from allam.tokenizer import model
from allam.tokenizer.sampling import sample_lines_of

# BPE training shares out its counting among threads; one number for all machines keeps the bytes the same
_THREADS = 1


def training_lines(folders: Iterable[Path], language: str, limit: int, seed: int, held_out: HeldOut, domains: Mapping[DomainName, float] | None = None,
                   drawn: Counter[str] | None = None) -> Iterator[str]:
    """The sample of lines of one language on which its tokenizer is trained; held-out documents give none.

    `domains` gives shares of `limit` by domain: one with fewer lines gives what it has. Without it, domains stand in proportion to their lines. `drawn`
    counts the lines by domain. Raises `UserError` for a domain that the corpus has no document of in this language.
    """
    there, limits = set[str](), by_domain(domains, limit) if domains else {language: limit}

    def group_of(document: Document) -> str | None:
        if document.language != language or is_held_out(document.root_id, held_out.share, held_out.seed):
            return None
        there.add(document.domain)
        return language if not domains else document.domain if document.domain in domains else None

    sample = sample_lines_of(folders, group_of, limits, seed)
    first = list(islice(sample, 1))  # the whole corpus has been seen once then
    missing = sorted(set(domains or ()) - there)
    if missing and there:
        raise UserError(f"tokenizer.arabic.domains: the corpus has no text of {', '.join(missing)} in this language",
                        f"name domains that it has: {', '.join(sorted(there))}")
    return _counted_by_domain(chain(first, sample), drawn if drawn is not None else Counter())


def by_domain(domains: Mapping[DomainName, float], limit: int) -> dict[str, int]:
    """How many lines each domain is to give."""
    return {name: max(1, round(share * limit)) for name, share in domains.items()}


def _counted_by_domain(sample: Iterable[tuple[Document, str]], drawn: Counter[str]) -> Iterator[str]:
    for document, line in sample:
        drawn[document.domain] += 1
        yield line


def train(lines: Iterable[str], vocab_size: int, character_coverage: float, field: str, required: str = "",
          at_most: bool = False) -> tuple[bytes, dict[str, int]]:
    """Trains a model; returns its file's bytes and the counts of lines and characters read.

    `field` names the recipe's section in errors; the characters of `required` get a piece each however rare they are. Where `at_most`, a text that doesn't
    give `vocab_size` pieces gives a smaller model in place of an error.
    """
    counted, file = _Counted(lines), io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(counted), model_writer=file, model_type="bpe", vocab_size=vocab_size, character_coverage=character_coverage,
            byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
            allow_whitespace_only_pieces=True, split_by_unicode_script=True, split_by_whitespace=True, split_by_number=True,
            max_sentencepiece_length=16, required_chars=required, input_sentence_size=0, shuffle_input_sentence=False, num_threads=_THREADS, minloglevel=2,
            hard_vocab_limit=not at_most, unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
    except RuntimeError as error:
        if not counted.lines:
            raise UserError(f"{field}: no line of text to train on", "give data.sources some text of this language outside the held-out share") from None
        raise UserError(f"{field}.vocab_size: {vocab_size} pieces could not be trained on {counted.lines} lines with {counted.characters} characters: "
                        f"{str(error).strip().splitlines()[-1]}", "change vocab_size, or give more text") from None
    data = file.getvalue()
    model.check_model(model.parse(data, field), field)
    return data, {"lines": counted.lines, "characters": counted.characters}


class _Counted:
    """Passes lines on, counts them, and reports progress. Leaves out what SentencePiece would: NUL and its own sign for a space."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._source, self.lines, self.characters = lines, 0, 0

    def __iter__(self) -> Iterator[str]:
        with Progress("lines", what="reading lines") as progress:
            for line in self._source:
                line = line.replace("\0", "").replace("▁", "")
                if line:
                    self.lines += 1
                    self.characters += len(line)
                    progress.update()
                    yield line
