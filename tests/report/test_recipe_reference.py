"""docs/recipe.md is what the models say, and every field says where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from allam.pipeline import STAGES
from allam.recipe import Recipe
from allam.recipe_reference import fields, origin, reference, sections, type_name

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"
EVERY_SECTION = {**sections(Recipe), **{section: path for stage in STAGES.values() for section, path in sections(stage.config).items()}}


def test_the_committed_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python -m allam.recipe_reference > docs/recipe.md"


@pytest.mark.parametrize("section", EVERY_SECTION, ids=lambda section: section.__name__)
def test_every_field_is_the_papers_or_assumed_for_a_reason_and_described(section: type) -> None:
    for name, field in fields(section):
        assert re.match(r"paper §\w[\w.]*|assumed: .{3,}", origin(field)), f"{section.__name__}.{name}: {origin(field)!r}"
        assert field.description, f"{section.__name__}.{name}"
    assert section.__doc__


def test_the_reference_reaches_every_section_once() -> None:
    headings = re.findall(r"^## (\w+)$", reference(), re.M)
    assert len(headings) == len(set(headings))
    assert {"Recipe", "SourceConfig", "MixConfig", "OptimizerConfig", "SamplingSetting", "BenchmarkConfig", "VotesConfig"} <= set(headings)


def test_links_between_sections_lead_somewhere() -> None:
    page = reference()
    headings = {heading.lower() for heading in re.findall(r"^## (\w+)$", page, re.M)}
    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= headings


def test_types_are_said_as_a_writer_of_yaml_knows_them() -> None:
    assert type_name(int | None) == "whole number or null"
    assert type_name(dict[str, float]) == "mapping of names to number"
    assert type_name(tuple[str, ...]) == "list of text"
