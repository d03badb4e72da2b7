"""What all flows share: a plan opened once, and its stages run one after another through their tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from allam.artifacts import ArtifactRef, Store, withdraw
from allam.cluster import ClusterProfile, load_profile
from allam.errors import UserError, did_you_mean
from allam.files import lock_path
from allam.fits import misfits
from allam.history import explain, record, remade
from allam.pipeline import Plan, StageSpec, make_plan
from allam.recipe import load, locate

AREAS = ("data", "tokenizer", "train", "align", "eval", "report")
DEFAULT_STORE = "runs"


@dataclass(frozen=True)
class Run:
    """A recipe's plan, where its artifacts lie, and how its stages are run."""

    plan: Plan
    store: Store
    profile: ClusterProfile


def open_store(store: str | None) -> Store:
    """The store at `store`, else at $ALLAM_STORE, else in ./runs."""
    return Store(Path(store or os.environ.get("ALLAM_STORE") or DEFAULT_STORE))


def open_run(recipe: str, overrides: Sequence[str] = (), cluster: str | None = None, store: str | None = None) -> Run:
    """Plans a recipe. Raises `UserError` for a mistake in the recipe, an override or the profile; missing files stand in the plan."""
    place = open_store(store)
    plan = make_plan(load(recipe, tuple(overrides)), place.root / "files.json", lock_path(locate(recipe)))
    return Run(plan, place, load_profile(cluster))


_opened: ContextVar[Run | None] = ContextVar("opened", default=None)


@contextmanager
def opened(run: Run) -> Iterator[None]:
    """Within, the areas' flows work on `run`: the pipeline plans once, whatever happens to the recipe's file meanwhile."""
    token = _opened.set(run)
    try:
        yield
    finally:
        _opened.reset(token)


def current_run(recipe: str, overrides: Sequence[str], cluster: str | None, store: str | None) -> Run:
    """The pipeline's run where a flow is part of it, else one of its own."""
    return _opened.get() or open_logged_run(recipe, overrides, cluster, store)


def open_logged_run(recipe: str, overrides: Sequence[str], cluster: str | None, store: str | None) -> Run:
    """`open_run` within a flow, whose log gets what the plan warns of."""
    from prefect import get_run_logger  # the commands that open runs need no Prefect

    run = open_run(recipe, overrides, cluster, store)
    for warning in run.plan.warnings:
        get_run_logger().warning(warning)
    return run


def area_of(plan: Plan, spec: StageSpec) -> str:
    """The area whose flow runs a stage: its own, or the latest one that it needs something of (`export` waits for `align`)."""
    return max((s.stage.area for s in plan.upstream(spec.name)), key=AREAS.index)


def wanted(run: Run, areas: Sequence[str], to: str | None) -> list[StageSpec]:
    """The stages of some areas' flow in the plan's order: its own, and what they need upstream where that isn't done."""
    scope = list(run.plan.specs.values()) if to is None else run.plan.upstream(to)
    own = [spec for spec in scope if area_of(run.plan, spec) in areas]
    needed = {s.name for spec in own for s in run.plan.upstream(spec.name)}
    names = {spec.name for spec in own}
    return [s for s in run.plan.specs.values() if s.name in names or (s.name in needed and run.store.manifest(s.kind, s.key) is None)]


def refuse_what_cannot_run(run: Run, specs: Sequence[StageSpec]) -> None:
    """Raises `UserError` before anything runs where a stage that must run lacks external files, or is more than the cluster profile can do."""
    to_run = [spec for spec in specs if run.store.manifest(spec.kind, spec.key) is None]
    if unfit := misfits(run.plan, run.profile, to_run):
        raise UserError("\n".join(unfit), "`allam plan RECIPE --cluster PROFILE` says it beforehand, too")
    problems = [problem for spec in to_run for problem in spec.problems]
    if problems:
        raise UserError(f"the recipe {run.plan.recipe.name!r} names files that aren't there:\n" + "\n".join(f"  {p}" for p in dict.fromkeys(problems)),
                        "put them there, change the paths in the recipe, or give their folder with --set data.root=/path/to/folder")


def withdraw_forced(run: Run, specs: Sequence[StageSpec], force: Sequence[str]) -> None:
    """Makes undone what `force` names and what is downstream of it, the last first, so that a crash leaves nothing made from old inputs."""
    scope, forced = {spec.name for spec in specs}, remade(run.plan, force)
    for name in force:
        if name not in scope:
            raise UserError(f"{name!r} is forced but no part of this run", did_you_mean(name, scope))
    for name in reversed(list(run.plan.specs)):
        spec = run.plan.specs[name]
        if name in forced and run.store.folder(spec.kind, spec.key).is_dir():
            withdraw(run.store.folder(spec.kind, spec.key))


def run_stages(run: Run, areas: Sequence[str], to: str | None, force: Sequence[str]) -> dict[str, ArtifactRef]:
    """Runs the flow of some areas; returns pointers to the artifacts that it made or reused, by stage."""
    from tasks.stage import run_stage
    from tasks.table import TASKS

    withdraw_forced(run, wanted(run, areas, to), force)
    specs = wanted(run, areas, to)
    refuse_what_cannot_run(run, specs)
    _say_why(run, specs)
    done: dict[str, ArtifactRef] = {}
    try:
        for spec in specs:
            done[spec.name] = run_stage(TASKS[spec.kind], spec, inputs_of(run, spec, done), run.store, run.profile)
    finally:
        if done:
            record(run.plan, run.store, done)
    return done


def _say_why(run: Run, specs: Sequence[StageSpec]) -> None:
    """Writes to the flow run's log why stages will be made: new files by their names."""
    from prefect import get_run_logger

    names = {spec.name for spec in specs}
    for status in explain(run.plan, run.store):
        if status.spec.name in names and status.state != "done":
            get_run_logger().info("%s will be made: %s", status.spec.name, status.why)


def inputs_of(run: Run, spec: StageSpec, done: Mapping[str, ArtifactRef] | None = None) -> dict[str, ArtifactRef]:
    """Pointers to a stage's inputs, by the stage's names for them; those in `done` as they are, so that Prefect's graph shows the edges."""
    refs = {name: (done or {}).get(name) or run.store.ref(s.kind, s.key) for name, s in run.plan.specs.items() if name in spec.inputs.values()}
    return {name: refs[source] for name, source in spec.inputs.items()}
