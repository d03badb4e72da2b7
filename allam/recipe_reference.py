"""docs/recipe.md: every field of a recipe with its type, default, meaning and origin, made from the sections' own descriptions.

    python -m allam.recipe_reference > docs/recipe.md

A test compares the committed file with what this prints, and checks that every field says whether it is the paper's or assumed.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from allam.cluster import ClusterProfile
from allam.recipe import Recipe
from allam.section import is_planned

HEAD = """# The recipe, field by field

A recipe says *what* is made: it is YAML, and everything in it is part of the identity of what it makes. Where it runs is no part of it
(that is a cluster profile, `infra/profiles/`). `allam run RECIPE --set section.field=value` changes a field without an edit, and a key that no section has is
refused. Defaults need not be written down; a field without a default must be.

**Origin** says where a field or its value comes from: `paper §x` for what the paper *ALLaM: Large Language Models for Arabic and
English* states there, `assumed` with the reason for what it leaves open.

The recipes of the package lie in `allam/recipes/`; start from `demo.yaml`.

This page is generated from the models (`python -m allam.recipe_reference > docs/recipe.md`); change a field's description, not this file.
"""


def fields(section: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """A section's fields by the names that a recipe uses; without those that the plan fills in."""
    for name, field in section.model_fields.items():
        if not is_planned(field):
            yield field.alias or name, field


def origin(field: FieldInfo) -> str:
    """`paper §x`, `assumed: reason`, or nothing where the field was made with neither."""
    return str(field.json_schema_extra.get("origin", "")) if isinstance(field.json_schema_extra, dict) else ""


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section in a field's type: itself, or inside `X | None`, `dict[str, X]` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in typing.get_args(annotation) if (found := section_of(argument)) is not None), None)


def type_name(annotation: Any) -> str:
    """A type as a reader of YAML understands it."""
    kind, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if kind is Literal:
        return " or ".join(f"`{a}`" for a in arguments)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments)
    if kind is typing.Annotated:
        return type_name(arguments[0])
    if kind is dict:
        return f"mapping of {type_name(arguments[0])} to {type_name(arguments[1])}" if typing.get_origin(arguments[0]) is Literal \
            else f"mapping of names to {type_name(arguments[1])}"
    if kind is tuple:
        return f"list of {type_name(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(annotation, str(annotation))


def default_text(field: FieldInfo) -> str:
    """The default as YAML would write it; a section's own defaults stand in its own table."""
    value = field.default
    if value is PydanticUndefined:
        return "*required*"
    if isinstance(value, BaseModel):
        return "its defaults"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, BaseModel):
        return _yaml(value.model_dump())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml(v) for v in value) + "]"
    return str(value)


def limits(field: FieldInfo) -> str:
    """The values allowed, where the field has bounds."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{sign} {getattr(rule, name):g}" for rule in field.metadata for name, sign in signs.items() if getattr(rule, name, None) is not None)


def sections(top: type[BaseModel] = Recipe) -> dict[type[BaseModel], str]:
    """Every section below `top` with the path at which a recipe first holds it, in the order of reading."""
    found: dict[type[BaseModel], str] = {}

    def visit(section: type[BaseModel], path: str) -> None:
        if section in found:
            return
        found[section] = path
        for name, field in fields(section):
            inner = section_of(field.annotation)
            if inner is not None:
                star = ".*" if typing.get_origin(field.annotation) is dict else ".0" if typing.get_origin(field.annotation) is tuple else ""
                visit(inner, f"{path}.{name}{star}".lstrip("."))

    visit(top, "")
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(section: type[BaseModel]) -> list[str]:
    """A section's fields as a Markdown table."""
    lines = ["| field | type | default | meaning | origin |", "|---|---|---|---|---|"]
    for name, field in fields(section):
        allowed = limits(field)
        kind = type_name(field.annotation) + (f", {allowed}" if allowed else "")
        lines.append(f"| `{name}` | {_cell(kind)} | {_cell(default_text(field))} | {_cell(field.description or '')} | {_cell(origin(field))} |")
    return lines


def reference() -> str:
    """The whole page."""
    lines = [HEAD]
    for section, path in sections().items():
        lines += [f"## {section.__name__}", "", f"`{path}`. {_docstring(section)}" if path else _docstring(section), "", *table(section), ""]
    return "\n".join([*lines, *_profile()]).rstrip() + "\n"


def _profile() -> list[str]:
    """The fields of a cluster profile, which are no part of a recipe."""
    lines = []
    for section, path in sections(ClusterProfile).items():
        where = f"`{path}` of a cluster profile." if path else "No part of a recipe: the YAML file that `--cluster` names."
        lines += [f"## {section.__name__}", "", f"{where} {_docstring(section)}", "", "| field | type | default | meaning |", "|---|---|---|---|"]
        for name, field in fields(section):
            value = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
            default = "its defaults" if isinstance(value, BaseModel) else f"`{_yaml(value)}`"
            kind = "mapping of names to text" if typing.get_origin(field.annotation) is dict else type_name(field.annotation)
            bounds = limits(field)
            lines.append(f"| `{name}` | {_cell(kind)}{', ' + bounds if bounds else ''} | {default} | {_cell(field.description or '')} |")
        lines += [""]
    return lines


def _docstring(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
