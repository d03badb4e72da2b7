"""Stage fertility: tokens a word of English, Arabic and code under the three tokenizers, and others to compare with (paper §2.2, Figure 1).

As in the paper the corpus is subsampled, held-out documents included. A word is what stands between white space.

    allam stage fertility --recipe demo
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allam.artifacts import write_json
from allam.files import check_file
from allam.progress import Progress
from allam.text.tokenizer import Tokenizer
from allam.tokenizer import others
from allam.tokenizer.config import OWN, FertilityConfig
from allam.tokenizer.sampling import group_of, sample_documents

TOKENIZERS = dict(zip(("base", "arabic", "merged"), OWN, strict=True))  # input of the stage: name in the results
LANGUAGES = ("english", "arabic", "code")


@dataclass(slots=True)
class Count:
    """Sums over the documents of one language (or domain) under one tokenizer."""

    documents: int = 0
    words: int = 0
    text_bytes: int = 0
    tokens: int = 0
    byte_tokens: int = 0

    def add(self, words: int, text_bytes: int, ids: list[int], byte_ids: frozenset[int]) -> None:
        """Counts one document."""
        self.documents += 1
        self.words += words
        self.text_bytes += text_bytes
        self.tokens += len(ids)
        self.byte_tokens += sum(map(byte_ids.__contains__, ids))

    def row(self, tokenizer: str, language: str) -> dict[str, Any]:
        """A row of fertility.json."""
        return {"tokenizer": tokenizer, "language": language, "tokens_per_word": self.tokens / self.words,
                "bytes_per_token": self.text_bytes / self.tokens, "byte_fallback_share": self.byte_tokens / self.tokens,
                "documents": self.documents, "words": self.words}


def run(config: FertilityConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Writes fertility.json: `rows` by language, `by_domain` the same by language and domain. A language without text has no row."""
    cuts = {name: others.of(Tokenizer.load(inputs[key])) for key, name in TOKENIZERS.items()}
    cuts |= {name: others.read(check_file(inputs["root"], other.files[0])) for name, other in config.others.items()}
    counts: dict[tuple[str, str], Count] = defaultdict(Count)
    by_domain: dict[tuple[str, str, str], Count] = defaultdict(Count)
    folders = [inputs["natural"] / "documents", inputs["translated"] / "documents"]
    with Progress("documents", what="counting tokens") as progress:
        for language, document in sample_documents(folders, group_of, config.max_documents, config.seed):
            words, text_bytes = len(document.text.split()), len(document.text.encode())
            for name, cut in cuts.items() if words else ():
                ids = cut.encode(document.text)
                counts[name, language].add(words, text_bytes, ids, cut.byte_ids)
                by_domain[name, language, f"{document.domain}{'' if document.kind == 'natural' else '_translated'}"].add(words, text_bytes, ids, cut.byte_ids)
            progress.update()
    rows = [counts[name, language].row(name, language) for language in LANGUAGES for name in cuts if (name, language) in counts]
    domain_rows = [count.row(name, language) | {"domain": domain} for (name, language, domain), count in sorted(by_domain.items())]
    write_json(out / "fertility.json", {"rows": rows, "by_domain": domain_rows})
    return {"tokens_per_word": {name: {row["language"]: row["tokens_per_word"] for row in rows if row["tokenizer"] == name} for name in cuts},
            "comparison": comparison(counts)}


def comparison(counts: dict[tuple[str, str], Count]) -> dict[str, float]:
    """Tokens of the merged tokenizer over those of the tokenizer that it should equal: the Arabic-only one, the base."""
    peers = {"arabic": "arabic_only", "english": "base", "code": "base"}
    return {f"{language}_merged_over_{peer}": counts["merged", language].tokens / counts[peer, language].tokens
            for language, peer in peers.items() if (peer, language) in counts}
