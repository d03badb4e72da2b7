"""How the report writes numbers, sizes and text of either direction. Every figure on the page goes through here, so that like reads like."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

LANGUAGES = {"en": "English", "ar": "Arabic"}
COMPONENTS = {"en": "English", "ar": "Arabic, natural", "ar_translated": "Arabic, translated"}
MODELS = {
    "import_model": "base",
    "pretrain": "base",
    "extend": "extended",
    "continue": "continued",
    "sft": "finetuned",
    "dpo": "aligned",
}
MINUS, MISSING = "\N{MINUS SIGN}", "\N{EN DASH}"

_ARABIC = re.compile(r"[\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc]")


def is_arabic(text: str) -> bool:
    """Whether a text is to be set from right to left: at least a third of its letters are Arabic."""
    letters = sum(unicodedata.category(c).startswith("L") for c in text)
    return 3 * sum(1 for c in _ARABIC.findall(text) if unicodedata.category(c).startswith("L")) >= letters > 0


def direction(text: str) -> Markup:
    """The `lang` and `dir` attributes of an element that holds `text`."""
    return Markup('lang="ar" dir="rtl"') if is_arabic(text) else Markup('lang="en" dir="ltr"')


def isolated(text: Any) -> Markup:
    """Text from outside within a sentence of the page: escaped, and isolated so that its direction moves nothing around it."""
    said = str(text)
    return Markup("<bdi {}>{}</bdi>").format(direction(said), said)


def shortened(text: str, length: int = 320) -> str:
    """The beginning of a long text, cut at a space, with an ellipsis."""
    text = text.strip()
    if len(text) <= length:
        return text
    return text[:length].rsplit(None, 1)[0] + " …"


def count(value: float | None) -> str:
    """A whole number with thousands separated: 12,345."""
    return MISSING if value is None else f"{round(value):,}".replace("-", MINUS)


def compact(value: float | None) -> str:
    """A large number at three digits: 1.25 M. Small ones stay whole."""
    if value is None:
        return MISSING
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if letter == "k" else size)
            return f"{scaled:.{0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2}f}\N{NARROW NO-BREAK SPACE}{letter}"
    return count(value) if float(value).is_integer() or abs(value) >= 100 else decimal(value, 2)


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with so many digits after the point."""
    return MISSING if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def plain(value: float) -> str:
    """A number as short as it can be said: an axis label, a learning rate."""
    if value == 0:
        return "0"
    if abs(value) >= 1e4:
        return compact(value)
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", MINUS)
    return f"{value:.4g}".replace("-", MINUS)


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one as a percentage."""
    return MISSING if share is None else f"{100 * share:.{digits}f}\N{NARROW NO-BREAK SPACE}%".replace("-", MINUS)


def change(share: float | None, digits: int = 1) -> str:
    """A relative change with its sign: +3.1 %."""
    if share is None:
        return MISSING
    text = percent(share, digits)
    return text if text.startswith(MINUS) else f"+{text}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 4.2 s, 3 min 12 s, 5 h 04 min."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(number: float | None) -> str:
    """A number of bytes in decimal units, as the command and Prefect's pages give it."""
    if number is None:
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB" if number < 999.5 else f"{number:,.0f} TB"


def model_name(model: str) -> str:
    """What the report calls the model of a stage."""
    return MODELS.get(model, model)


def sentence(name: str) -> str:
    """A reason or a name from the data as words: `duplicate_url` is `duplicate url`."""
    return name.replace("_", " ")


def scalar(value: Any) -> str:
    """A value of the recipe on one line."""
    if value is None:
        return "null"
    if value == "":
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(scalar(v) for v in value) or "(none)"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {scalar(v)}" for k, v in value.items()) or "(none)"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)

