"""The recipe: WHAT is made. Frozen, complete, and the only thing that an artifact's key is made of.

`load("demo")` reads a recipe of this package, `load("path/to/mine.yaml", ["train.continue.tokens=1_000_000"])` one of yours with overrides.
Where it runs is no part of it: see allam/cluster.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from allam.align.config import AlignConfig
from allam.data.config import DataConfig
from allam.errors import UserError, did_you_mean
from allam.eval.config import EvalConfig
from allam.section import Section, assumed, is_planned, paper
from allam.tokenizer.config import TokenizerConfig
from allam.train.config import TrainConfig


class Recipe(Section):
    """Everything that determines an aligned Arabic–English model."""

    name: str = assumed("for people", "name of the recipe", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    data: DataConfig = paper("2.1", "raw text to a curated corpus")
    tokenizer: TokenizerConfig = paper("2.2", "vocabulary expansion")
    train: TrainConfig = paper("2.2, 2.3", "pretraining and continued pretraining")
    align: AlignConfig = paper("3", "finetuning and preferences")
    eval: EvalConfig = paper("4", "evaluation")

    @model_validator(mode="after")
    def _chats_fit_the_model(self) -> Recipe:
        for name, longest in (("sft", self.align.sft.max_length), ("dpo", self.align.dpo.max_length)):
            if longest > self.train.model.max_positions:
                raise ValueError(f"align.{name}.max_length {longest} is longer than train.model.max_positions {self.train.model.max_positions}")
        return self


def packaged() -> dict[str, Path]:
    """The recipes that ship in the package, by name."""
    folder = Path(str(resources.files("allam") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def locate(name_or_path: str) -> Path:
    """The YAML file of a packaged recipe's name or of a path."""
    recipes = packaged()
    if name_or_path in recipes:
        return recipes[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path.resolve()
    hint = did_you_mean(name_or_path, recipes) if not path.suffix else "check the path"
    raise UserError(f"there is no recipe {name_or_path!r}", hint)


def load(name_or_path: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Reads and validates a recipe; `overrides` are `dotted.path=value` with a YAML value. Raises `UserError` naming each bad field."""
    path = locate(name_or_path)
    tree = _read(path, ())
    for override in overrides:
        apply_override(tree, override)
    return validate(tree, str(path))


def _read(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """The recipe's plain data, laid over that of the recipe that it `extends`."""
    if path in children:
        raise UserError(f"the recipe {path} extends itself by way of {children[-1]}", "break the circle of `extends`")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as YAML: {error}", "mend the file; two spaces indent a level") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no mapping of sections", "start from allam/recipes/demo.yaml")
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    beside = path.parent / str(parent)
    return _overlay(_read(locate(str(beside) if beside.is_file() else str(parent)), (*children, path)), tree)


REPLACED_WHOLE = "data.sources"  # whoever names sources means these and not the parent's beside them


def _overlay(below: dict[str, Any], above: dict[str, Any], where: str = "") -> dict[str, Any]:
    """`above` laid over `below`: sections merge; all else (lists, nulls), the sources of text and what `{}` is given for are replaced."""
    merged = dict(below)
    for key, value in above.items():
        under, here = merged.get(key), f"{where}.{key}".lstrip(".")
        merged[key] = _overlay(under, value, here) if isinstance(under, dict) and isinstance(value, dict) and value and here != REPLACED_WHOLE else value
    return merged


def validate(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain data; `where` names its origin in the error."""
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors(include_url=False)]
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "a mistake"
        raise UserError(f"the recipe {where} has {count}:\n" + "\n".join(f"  {line}" for line in lines),
                        "docs/recipe.md lists every field with its type and default") from None
    if filled := list(_planned_fields(recipe, "")):
        raise UserError(f"the recipe {where} gives {', '.join(filled)}, which the plan fills in from the rest", "leave it out")
    return recipe


def _planned_fields(value: Any, where: str) -> Iterator[str]:
    """Paths of the fields that were given though the plan fills them in."""
    if isinstance(value, Section):
        for name in value.model_fields_set:
            field = type(value).model_fields[name]
            here = f"{where}.{field.alias or name}".lstrip(".")
            if is_planned(field):
                yield here
            else:
                yield from _planned_fields(getattr(value, name), here)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _planned_fields(inner, f"{where}.{key}")


class _Loader(yaml.SafeLoader):
    """YAML as a recipe needs it: a key given twice is refused, and 3e-5 is a number."""


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if key in result:
            raise yaml.YAMLError(f"the key {key!r} stands twice, the second time in line {key_node.start_mark.line + 1}")
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)
_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}

_FLOAT_WITHOUT_DOT = re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _first in "-+0123456789":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).insert(0, ("tag:yaml.org,2002:float", _FLOAT_WITHOUT_DOT))


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Sets `a.b.0.c=value` in plain data, in place; the value is YAML."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UserError(f"the override {override!r} is not of the form section.field=value", "for example --set train.continue.tokens=1000000")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"the value of the override {override!r} is not valid YAML: {error}", "quote it as in YAML") from None
    *parents, last = path.strip().split(".")
    node: Any = tree
    for i, name in enumerate(parents):
        node = _step(node, name, override, ".".join(parents[: i + 1]))
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _step(node: Any, name: str, override: str, where: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, override)]
    if node.get(name) is None:
        node[name] = {}
    if not isinstance(node[name], (dict, list)):
        raise UserError(f"the override {override!r} goes below {where}, which is {node[name]!r}", "give the path of a field")
    return node[name]


def _index(node: list[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) >= len(node):
        raise UserError(f"the override {override!r} needs a number below {len(node)} in place of {name!r}", "lists count from 0")
    return int(name)


def _explain(detail: Any) -> str:
    """One line for one of pydantic's errors: the field, the value, what is allowed."""
    location = [str(part) for part in detail["loc"]]
    field = ".".join(location) or "recipe"
    if detail["type"] == "extra_forbidden":
        return f"{field}: unknown key; {did_you_mean(location[-1], _fields_beside(location))}"
    if detail["type"] == "missing":
        return f"{field}: is missing"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{field}: {message}"
    return f"{field}: {message[0].lower()}{message[1:]}, not {detail['input']!r}"


def _fields_beside(location: list[str]) -> list[str]:
    """Names allowed where the last part of `location` stands."""
    model: Any = Recipe
    for part in location[:-1]:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            break
        by_alias = {f.alias or n: f for n, f in model.model_fields.items()}
        model = _model_of(by_alias[part].annotation) if part in by_alias else model
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [f.alias or n for n, f in model.model_fields.items()]
    return []


def _model_of(annotation: Any) -> Any:
    """The section inside `X | None`, `dict[str, X]` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_of(argument)
        if found is not None:
            return found
    return None
