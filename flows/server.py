"""A Prefect server for the length of one command, for whoever has none: `allam run` starts it while Prefect is still being imported.

Prefect has such a server of its own, started by its first use; this one comes up about four seconds sooner, has the services off that only
deployments need, keeps its database below the store, and dies with the command, whatever kills that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from allam.errors import StageFailed

SECONDS_TO_START, SECONDS_TO_STOP = 180.0, 10.0  # the database's first migration alone takes ten on a busy machine
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "PREFECT_SERVER_LOGGING_LEVEL": "ERROR", "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
NOT_NEEDED = ("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "FOREMAN", "TRIGGERS", "REPOSSESSOR")


def quiet_environment(store: Path) -> None:
    """Sets what keeps Prefect quiet, at home below the store, and off the network; what the user has set stays. Call it before importing Prefect."""
    for name, value in (QUIET | {"PREFECT_HOME": str(store / ".prefect")}).items():
        os.environ.setdefault(name, value)


class TemporaryServer:
    """A server on a free port of this machine; `start` returns at once, `wait` when it answers."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def api_url(self) -> str:
        """What PREFECT_API_URL must be."""
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        """Starts the process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in NOT_NEEDED}
        arguments = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1",
                     "--port", str(self.port), "--log-level", "error", "--lifespan", "on"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent, start_new_session=True,
                env=os.environ | off | {"PREFECT_UI_ENABLED": "false", "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
                                        "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"})

    def wait(self) -> None:
        """Waits until the server answers; raises `StageFailed` where it doesn't come up."""
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.api_url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise StageFailed("Prefect's temporary server did not start", f"its log is {self.log}; or set PREFECT_API_URL to a server that runs")

    def stop(self) -> None:
        """Stops the process, which first writes down the events that it holds."""
        self.process.terminate()
        try:
            self.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _die_with_parent() -> None:
    """In the child: asks the kernel for SIGTERM when the command dies, so that no server outlives a `kill -9`."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _send_what_waits() -> None:
    """Sends Prefect's queued logs and events (task states are events), which else would be lost or retried for long against a server that is gone."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for queue in (APILogWorker, EventsWorker):
        queue.drain_all(timeout=SECONDS_TO_STOP)


@contextmanager
def prefect_server(store: Path) -> Iterator[None]:
    """Within, PREFECT_API_URL is set: to the user's server where it was, else to a temporary one. Prefect must not be imported before."""
    quiet_environment(store)
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    server = TemporaryServer(store / ".prefect" / "server.log")
    server.start()
    os.environ["PREFECT_API_URL"] = server.api_url
    try:
        import flows.pipeline  # noqa: F401 (the server comes up meanwhile)

        server.wait()
        yield
    finally:
        _send_what_waits()
        del os.environ["PREFECT_API_URL"]
        server.stop()
