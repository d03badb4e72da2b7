"""Tasks that processes of other executors can import: what they do is told by files."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from allam.data.tasks import Meter
from allam.errors import UserError


def note(folder: Path, task: int, meter: Meter) -> None:
    """Writes a line for each time that the task is done. `kill-<task>` and `fail-<task>` say how it ends instead, `hold-<task>` when not."""
    with open(folder / f"begun-{task}", "a") as file:
        file.write("begun\n")
    if (folder / f"kill-{task}").exists():
        (folder / f"kill-{task}").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if (folder / f"fail-{task}").exists():
        raise UserError(f"the file of task {task} is not readable", "mend it")
    (folder / f"pid-{task}").write_text(str(os.getpid()))
    while (folder / f"hold-{task}").exists():
        time.sleep(0.05)
    (folder / f"done-{task}").write_text(f"{task}\n")
    meter.add(1)
