"""What every section of a recipe is made of: frozen models that refuse unknown keys, and fields that say where they come from.

Each field is made with `paper(...)` or `assumed(...)`, since the paper gives no DPO beta, vocabulary size, sequence length or pretraining batch:
a reader of a recipe must be able to tell the paper's numbers from ours. docs/recipe.md is made from them. Fields made with `planned(...)` are none of a
recipe's: the plan fills them in.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A frozen part of a recipe. Unknown keys are refused, so that a misspelt knob is never silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True, allow_inf_nan=False)


# A name that people give to a source or a benchmark: it becomes a file's or folder's name, so it can't lead out of the artifact.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
DomainName = Literal["web", "books", "wiki", "news", "science", "code", "math", "other"]  # rows of the paper's Table 1


def paper(section: str, description: str, default: Any = ..., **constraints: Any) -> Any:
    """A field whose meaning and value the paper states in `section` (as in "2.1" or "C.3")."""
    return Field(default, description=description, json_schema_extra={"origin": f"paper §{section}"}, **constraints)


def assumed(reason: str, description: str, default: Any = ..., **constraints: Any) -> Any:
    """A field that the paper leaves open; `reason` says why it has the value or the form that it has."""
    return Field(default, description=description, json_schema_extra={"origin": f"assumed: {reason}"}, **constraints)


def planned(reason: str, description: str, default: Any = ..., **constraints: Any) -> Any:
    """A field that the plan fills in, from other fields or from the files found: part of a stage's identity, refused in a recipe."""
    return Field(default, description=description, json_schema_extra={"origin": f"planned: {reason}"}, **constraints)


def is_planned(field: FieldInfo) -> bool:
    """Whether a recipe must leave the field out."""
    return isinstance(field.json_schema_extra, dict) and str(field.json_schema_extra.get("origin", "")).startswith("planned")


class FileRef(Section):
    """One external file as it enters an artifact's key: its path below the data root and its content's checksum."""

    path: str = assumed("relative, so that moving the root changes no key", "path below `data.root`, with forward slashes")
    sha256: str = assumed("content, not time stamps, is identity", "SHA-256 of the file, 64 hexadecimal digits, or 'missing'")
    size: int = assumed("for progress and for a first check", "size in bytes", ge=0)


class HeldOut(Section):
    """Documents kept out of training, by hash of the id that a document shares with its translations."""

    share: float = assumed("enough for stable bits per byte", "share of documents kept out of all training and tokenizers", 0.02, ge=0, lt=1)
    seed: int = assumed("any", "seed of the split", 0)
