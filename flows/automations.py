"""Puts Prefect's view right after a crash: `python -m flows.automations`, once for each server.

A flow run whose process is killed (a machine that lost its power) says nothing more, and Prefect would show it as running for ever. The first
automation marks it as crashed when its heartbeats stop; the second gives a crashed run of a deployment back to the workers, which go on where
the disk says that it was. A run that was cancelled, or that failed with an error, stays as it is.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import cast

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

HEARTBEATS_MISSED = 3
HEARTBEAT, CRASHED = "prefect.flow-run.heartbeat", "prefect.flow-run.Crashed"
ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "Scheduled", "AwaitingRetry")}
FLOW_RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})


def automations(silence: timedelta) -> list[Automation]:
    """The two automations; a run that is silent for as long as `silence` counts as crashed."""
    each = {"prefect.resource.id"}
    return [
        Automation(
            name="allam: a run without heartbeats has crashed", description=f"marks flow runs that were silent for {silence.total_seconds():.0f} s",
            trigger=EventTrigger(match=FLOW_RUNS, after={HEARTBEAT}, expect={HEARTBEAT} | ENDED, for_each=each, posture=Posture.Proactive, threshold=1,
                                 within=silence),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, name=None, message="its process stopped sending heartbeats", force=False)]),
        Automation(
            name="allam: a crashed run goes back to the workers", description="reschedules crashed runs of deployments",
            trigger=EventTrigger(match=FLOW_RUNS, expect={CRASHED}, for_each=each, posture=Posture.Reactive, threshold=1, within=timedelta(0)),
            actions=[ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message="rescheduled after a crash", force=False)]),
    ]


def install(silence: timedelta) -> None:
    """Creates the automations on the server, or brings those of the same name up to date."""
    for automation in automations(silence):
        try:
            found = cast(Automation, Automation.read(name=automation.name))  # awaitable in async code only
        except ValueError:
            automation.create()
            continue
        found.trigger, found.actions, found.description = automation.trigger, automation.actions, automation.description
        found.update()


def main() -> None:
    """Installs the automations for the heartbeats that PREFECT_FLOWS_HEARTBEAT_FREQUENCY sets, here as for the workers."""
    frequency = get_current_settings().flows.heartbeat_frequency
    if frequency is None:
        sys.exit("heartbeats are off: set PREFECT_FLOWS_HEARTBEAT_FREQUENCY to a number of seconds (30 or more), here and for the workers")
    silence = timedelta(seconds=HEARTBEATS_MISSED * frequency)
    install(silence)
    print(f"installed: runs without heartbeats for {silence.total_seconds():.0f} s are marked as crashed and rescheduled")


if __name__ == "__main__":
    main()
