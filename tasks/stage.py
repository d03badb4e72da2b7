"""What all tasks share: make a stage's artifact or find it made, show its progress in the UI, and say what it made.

There is one truth, the manifest on disk: the task looks for it first (allam.launch.make does), Prefect's own result cache is off, and what
a task returns is a small `ArtifactRef`. A retry after a crash goes on in the same folder; a mistake of the user's is not retried.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast
from uuid import UUID

from prefect import Task, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import task

from allam.artifacts import ArtifactRef, Manifest, Store
from allam.cluster import ClusterProfile
from allam.errors import AllamError, StageCancelled, UserError
from allam.launch import make
from allam.launch.folder import Made
from allam.pipeline import STAGES, StageSpec
from allam.progress import untold
from tasks.words import done_line, made_line, made_markdown, progress_line

SECONDS_BETWEEN_UI_UPDATES, SECONDS_BETWEEN_LOG_LINES = 3.0, 15.0
SPARE_SECONDS = 60.0  # the launcher's own timeout comes first, so that it can stop the worker and say so
StageTask = Task[[StageSpec, Mapping[str, ArtifactRef], Store, ClusterProfile], ArtifactRef]


class Watcher(Protocol):
    """Whoever follows a run from within its process: the terminal's live line."""

    def started(self, name: str) -> None:
        """A stage begins; it may turn out to be done."""

    def progressed(self, name: str, state: Mapping[str, Any]) -> None:
        """A new state of a stage's progress (see allam/progress.py)."""

    def finished(self, name: str, made: Made) -> None:
        """A stage is done."""

    def failed(self, name: str, error: BaseException) -> None:
        """A stage failed."""


watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def stage_task(kind: str, description: str, *, retry_delay_seconds: float = 10.0) -> StageTask:
    """The Prefect task of a kind of stage. The tag `devices` marks those that compute with a model, for a limit on how many run at once."""
    stage = STAGES[kind]
    tags = [stage.area, *(["devices"] if stage.ranks or stage.device else [])]
    return task(name=kind, description=description, tags=tags, cache_policy=NO_CACHE, persist_result=False, retry_delay_seconds=retry_delay_seconds,
                retry_condition_fn=_is_worth_a_retry)(_run_stage)


def run_stage(stage: StageTask, spec: StageSpec, inputs: Mapping[str, ArtifactRef], store: Store, profile: ClusterProfile) -> ArtifactRef:
    """Calls a stage's task with the name, the retries and the timeout that this run gives it."""
    verb = "make" if store.manifest(spec.kind, spec.key) is None else "reuse"
    # a job may wait in the queue for days; the launcher counts the time that it runs
    timeout = None if profile.is_job(spec.stage.ranks) else profile.timeout_hours * 3600 + SPARE_SECONDS
    run = stage.with_options(task_run_name=f"{spec.name}: {verb}", retries=profile.retries, timeout_seconds=timeout)
    return run(spec, inputs, store, profile)


def _is_worth_a_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return not isinstance(state.result(raise_on_failure=False), (UserError, StageCancelled))


def _run_stage(spec: StageSpec, inputs: Mapping[str, ArtifactRef], store: Store, profile: ClusterProfile) -> ArtifactRef:
    """One stage: made, or found made."""
    followed, log = watcher.get() or _Nobody(), get_run_logger()
    followed.started(spec.name)
    reports = _Reports(spec, lambda state: followed.progressed(spec.name, state), log)
    try:
        made = make(spec, inputs, store, profile, reports)
    except BaseException as error:
        followed.failed(spec.name, error)
        if isinstance(error, AllamError):
            log.error(str(error))
        if isinstance(error, Exception):  # what ends the process shall not wait for a server
            reports.close("stopped at ")
        raise
    reports.close("done: ", 100.0)
    followed.finished(spec.name, made)
    log.info("%s %s: %s", spec.name, made_line(made.manifest, made.made), made.ref.path)
    _publish(made.manifest, made)
    return made.ref


def _publish(manifest: Manifest, made: Made) -> None:
    recipe = Path(str((flow_run.parameters or {}).get("recipe", ""))).stem  # the stages of all recipes share their pages' keys
    create_markdown_artifact(made_markdown(manifest, made.ref.path, made.made), key=artifact_name(manifest.name),
                             description=f"{recipe}: {made_line(manifest, made.made)}")


def artifact_name(stage: str) -> str:
    """The key of a stage's artifact in Prefect's UI, which allows lower case, digits and dashes."""
    return stage.replace("_", "-")


@dataclass
class _Nobody:
    """Watches without a word."""

    def started(self, name: str) -> None: ...
    def progressed(self, name: str, state: Mapping[str, Any]) -> None: ...
    def finished(self, name: str, made: Made) -> None: ...
    def failed(self, name: str, error: BaseException) -> None: ...


class _Reports:
    """Passes a stage's progress on: at once to the terminal, every few seconds to the UI's bar and its log."""

    def __init__(self, spec: StageSpec, watch: Callable[[Mapping[str, Any]], None], log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self.spec, self.watch, self.log = spec, watch, log
        self.notes: set[str] = set()  # what the stage warned of so far
        self.artifact: UUID | None = None
        self.state: Mapping[str, Any] = {}
        self.shown = self.logged = time.monotonic()  # what is done within seconds needs no bar

    def __call__(self, state: Mapping[str, Any]) -> None:
        self.watch(state)
        self.state = state
        for note in untold(state, self.notes):
            self.log.warning(f"{self.spec.name}: {note}")
        now = time.monotonic()
        if now - self.shown >= SECONDS_BETWEEN_UI_UPDATES:
            self.shown = now
            self._show(state)
        if now - self.logged >= SECONDS_BETWEEN_LOG_LINES:
            self.logged = now
            self.log.info(f"{self.spec.name}: {progress_line(state)}")

    def _show(self, state: Mapping[str, Any]) -> None:
        if self.artifact is None:
            created = create_progress_artifact(_percent(state), key=f"{artifact_name(self.spec.name)}-progress", description=progress_line(state))
            self.artifact = cast(UUID, created)  # awaitable in async code only
        else:
            update_progress_artifact(self.artifact, _percent(state), description=progress_line(state))

    def close(self, word: str, percent: float | None = None) -> None:
        """Says in the UI how a stage that had a bar ended, and where; fills the bar to `percent` where it is given."""
        if self.artifact is not None:
            update_progress_artifact(self.artifact, _percent(self.state) if percent is None else percent, description=word + done_line(self.state))


def _percent(state: Mapping[str, Any]) -> float:
    return min(100.0, 100.0 * state["done"] / state["total"]) if state.get("total") else 0.0
