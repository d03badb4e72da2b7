"""What decides about one translation (paper §2.1): the checks on a pair, in a fixed order, the first failure being the reason.

    PairRules(TranslateConfig()).decide("Hello, world.", "مرحبًا بالعالم.").reason        # None to keep it, else the reason
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from allam.data.config import TranslateConfig
from allam.data.pairs import loop_share, missing, numbers, ordinary_words
from allam.data.rules import identifier
from allam.text.language import reaches


@dataclass(frozen=True, slots=True)
class PairDecision:
    """`reason` to drop the translation, None to keep it; `detail` for people."""

    reason: str | None
    detail: str = ""


class PairRules:
    """Decides about translations into Arabic. Checks that need the source are left out where it isn't there."""

    def __init__(self, config: TranslateConfig) -> None:
        self.config = config
        self.identifier = identifier(config.language_model_sha256) if config.min_language_score > 0 else None

    def decide(self, source: str | None, translation: str) -> PairDecision:
        """The decision about one translation of `source`."""
        for reason, check in (("length_ratio", self._length_ratio), ("output_language", self._output_language), ("repetition", self._repetition),
                              ("untranslated", self._untranslated), ("numbers_lost", self._numbers_lost)):
            detail = check(source, translation)
            if detail:
                return PairDecision(reason, detail)
        return PairDecision(None)

    def _length_ratio(self, source: str | None, translation: str) -> str:
        if source is None:
            return ""
        ratio = len(translation) / max(len(source), 1)
        return "" if self.config.min_length_ratio <= ratio <= self.config.max_length_ratio else f"length ratio {ratio:.4f}"

    def _output_language(self, source: str | None, translation: str) -> str:
        if self.identifier is None:
            return ""
        label, score = self.identifier.identify(translation)
        return "" if label == "ar" and reaches(score, self.config.min_language_score) else f"{label or 'none'} {score:.4f}"

    def _repetition(self, source: str | None, translation: str) -> str:
        share = loop_share(translation)
        if share <= self.config.max_loop_share:
            return ""
        share -= loop_share(source or "")  # what the source says over and over may be said so in Arabic, too
        return f"{share:.4f} of the words stand in loops, more than in the source" if share > self.config.max_loop_share else ""

    def _untranslated(self, source: str | None, translation: str) -> str:
        there = ordinary_words(translation)
        if source is None or not there:
            return ""
        wanted = ordinary_words(source)
        left = wanted & there
        share = left.total() / max(wanted.total(), 1)
        return f"{left.total()} of {wanted.total()} words are left: {_some(left)}" if share > self.config.max_untranslated_share else ""

    def _numbers_lost(self, source: str | None, translation: str) -> str:
        wanted = numbers(source or "")
        if wanted.total() < max(self.config.min_numbers, 1):
            return ""
        lost = missing(wanted, numbers(translation))
        share = lost.total() / wanted.total()
        return f"{lost.total()} of {wanted.total()} numbers are lost: {_some(lost)}" if share > self.config.max_lost_numbers_share else ""


def _some(counts: Counter[str]) -> str:
    return " ".join(word for word, _ in counts.most_common(8))
