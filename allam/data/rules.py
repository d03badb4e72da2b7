"""What decides about one document of natural text (paper §2.1): its source's filters, in the recipe's order, the first failure being the reason.
What is kept is anonymised where the source asks for it; the filters see the text as it came.

    rules = Rules(FilterConfig(), source)
    rules.decide("some text").reason        # None to keep it, else the name of the filter
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pyarrow as pa

from allam.data.anonymise import Anonymiser
from allam.data.config import FilterConfig, FilterName, SourceConfig
from allam.data.quality import Measures, comparable, measure_words
from allam.data.tables import dropped_line
from allam.data.tally import Tally
from allam.text.forms import without_marks
from allam.text.language import LanguageIdentifier, reaches


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` to drop the document, None to keep it; `detail` for people; `measured`, by name, what was measured until then."""

    reason: FilterName | None
    detail: str
    measured: dict[str, float]


class Rules:
    """Decides about the documents of one source."""

    def __init__(self, config: FilterConfig, source: SourceConfig) -> None:
        self.config, self.source = config, source
        self.names: tuple[FilterName, ...] = source.filter_names
        self.identifier = identifier(config.language_model_sha256) if "language" in self.names else None
        self.anonymise = Anonymiser(config.anonymise) if config.is_anonymised(source) else None

    def decide(self, text: str) -> Decision:
        """The decision about one text."""
        return next(self.decide_all([text]))

    def decide_all(self, texts: Sequence[str]) -> Iterator[Decision]:
        """The decision about each text. Languages are identified for all of them first, which takes a sixth of the time of one after the other."""
        bares = list(map(without_marks, texts))
        answers = self.identifier.identify_all_bare(bares) if self.identifier is not None else [("", 0.0)] * len(bares)
        return map(self._decide, texts, bares, answers)

    def _decide(self, text: str, bare: str, answer: tuple[str, float]) -> Decision:
        """What several filters look at, the text without marks and its words, is made once."""
        view = comparable(bare)
        words = view.split()
        measured: dict[str, float] = {"words": len(words) if bare is text else len(text.split())}  # a word may be made of marks alone
        measures: Measures | None = None
        for name in self.names:
            if name in ("spam", "stop_words") and measures is None:
                measures = measure_words(view, words, self.source.language)
                measured |= {"spam_ratio": measures.spam_ratio, "stop_word_ratio": measures.stop_word_ratio}
            detail = self._failure(name, answer, measured, measures)
            if detail is not None:
                return Decision(name, detail, measured)
        return Decision(None, "", measured)

    def _failure(self, name: FilterName, answer: tuple[str, float], measured: dict[str, float], measures: Measures | None) -> str | None:
        """None where the text passes the filter, else the detail."""
        config = self.config
        if name == "language":
            label, score = answer
            measured["language_score"] = score if label == self.source.language else 0.0
            passes = label == self.source.language and reaches(score, config.min_language_score)
            return None if passes else f"{label or 'none'} {score:.4f}"
        if name == "too_short":
            return None if measured["words"] >= config.min_words else f"{int(measured['words'])} words"
        assert measures is not None
        if name == "spam":
            most_used = f"; most used: {measures.most_used}" if measures.most_used else ""
            return None if measures.spam_ratio <= config.max_spam_ratio else f"spam ratio {measures.spam_ratio:.4f}{most_used}"
        passes = config.min_stop_word_ratio <= measures.stop_word_ratio <= config.max_stop_word_ratio
        return None if passes else f"stop-word ratio {measures.stop_word_ratio:.4f}"


def sift(table: pa.Table, rules: Rules, tally: Tally) -> tuple[pa.Table, list[bytes]]:
    """The documents of `table` that are kept, anonymised, and a line about each that is dropped; everything is counted in `tally`."""
    texts, keep, dropped, changed = table["text"].to_pylist(), [], [], False
    for i, (text, decision) in enumerate(zip(texts, rules.decide_all(texts), strict=True)):
        tally.add(decision.reason, decision.measured)
        keep.append(decision.reason is None)
        if decision.reason is not None:
            dropped.append(dropped_line(table.slice(i, 1).to_pylist()[0], decision.reason, decision.detail))
        elif rules.anonymise is not None:
            texts[i], replaced = rules.anonymise(text)
            tally.replace(replaced)
            changed = changed or bool(replaced)
    if changed:
        table = table.set_column(table.schema.get_field_index("text"), table.schema.field("text"), pa.array(texts, pa.string()))
    kept = table.filter(pa.array(keep, pa.bool_()))
    tally.keep(kept)
    return kept, dropped


@cache
def identifier(sha256: str) -> LanguageIdentifier:
    """One model a process; raises `UserError` for another model than the recipe's."""
    return LanguageIdentifier.load(sha256)
