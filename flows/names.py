"""What Prefect's UI calls flow runs, and what its form for a run says about the parameters, which are the same for all flows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from prefect.runtime import flow_run

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
ARGUMENTS = """

Args:
    recipe: A packaged recipe's name, such as `demo`, or the absolute path of a recipe's file.
    overrides: Fields of the recipe to set, such as `train.continue.tokens=1000000`.
    cluster: Where it runs: `laptop`, a name from infra/profiles/, or the absolute path of a profile. Never changes what is made.
    store: The absolute path of the folder of all artifacts; the worker's `$ALLAM_STORE` where it isn't given.
    to: The last stage to make, as `allam plan` names it, with what it needs; all stages of the flow where it isn't given.
    force: Stages to make again though they are done, and with them what is downstream of them.
"""


def flow_run_name() -> str:
    """`<flow> <recipe>`, such as `train proxy`."""
    return f"{flow_run.flow_name} {Path(str(flow_run.parameters['recipe'])).stem}"


def explained(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Adds to the docstring of a flow's function what its parameters mean: Prefect takes the words of its form from there."""
    function.__doc__ = inspect.cleandoc(function.__doc__ or "") + ARGUMENTS
    return function
