"""The arguments and options that several commands share, with their completions."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from allam.cluster import profile_names
from allam.errors import AllamError
from allam.pipeline import make_plan
from allam.recipe import load, packaged
from flows.run import open_store


def _recipe_names(incomplete: str) -> list[str]:
    return [name for name in packaged() if name.startswith(incomplete)]


def _stage_names(context: typer.Context, incomplete: str) -> list[str]:
    try:
        plan = make_plan(load(context.params.get("recipe") or "demo"))
    except AllamError:
        return []
    return [name for name in plan.specs if name.startswith(incomplete)]


def _profile_names(incomplete: str) -> list[str]:
    return [name for name in profile_names() if name.startswith(incomplete)]


def _keys(context: typer.Context, incomplete: str) -> list[str]:
    keys = [f"{folder.parent.name}/{folder.name}" for folder in open_store(context.params.get("store")).folders()]
    return [key for key in keys if key.startswith(incomplete)]


RecipeName = Annotated[str, typer.Argument(help="A recipe of the package (`allam recipes` lists them) or the path of a YAML file.", metavar="RECIPE",
                                           autocompletion=_recipe_names)]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="The recipe that the stage belongs to.", autocompletion=_recipe_names)]
StageName = Annotated[str, typer.Argument(help="A stage, as `allam plan` names it.", metavar="STAGE", autocompletion=_stage_names)]
Overrides = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="FIELD=VALUE", help="Set a field of the recipe, such as "
                                                     "train.continue.tokens=1000000. May be repeated.")]
To = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage; only what it needs is made.", autocompletion=_stage_names)]
Force = Annotated[list[str] | None, typer.Option("--force", metavar="STAGE", autocompletion=_stage_names,
                                                 help="Make this stage again though it is done, and what is downstream of it. May be repeated.")]
Key = Annotated[str, typer.Argument(help="The first digits of an artifact's key, with or without its kind: pack/3f2a.", metavar="KEY", autocompletion=_keys)]
Keys = Annotated[list[str] | None, typer.Argument(help="Keys as for `show`, or `all` (the default).", metavar="[KEY]...", autocompletion=_keys)]
Cluster = Annotated[str | None, typer.Option("--cluster", metavar="PROFILE", autocompletion=_profile_names,
                                             help="Where it runs: laptop (the default), a name from infra/profiles/, or the path of a YAML file. "
                                             "Never changes what is made.")]
StorePath = Annotated[str | None, typer.Option("--store", metavar="FOLDER", help="The folder of all artifacts; else $ALLAM_STORE, else ./runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def print_json(value: Any) -> None:
    """What `--json` prints."""
    print(json.dumps(value, ensure_ascii=False, indent=1))
