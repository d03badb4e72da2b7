"""What Slurm knows of a job, asked by its own commands: sbatch, squeue, scontrol, sacct, scancel. Always an argv list, never a shell's string.

No answer is an answer of its own: a controller that is down, busy or forgetful never means that a job failed. `None` says "Slurm doesn't tell".
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allam.errors import UserError
from allam.launch.folder import RANK_VARIABLES

SECONDS_TO_ANSWER = 60.0  # a busy controller's own limit is 10 to 100 s
KEPT_VARIABLES = ("SLURM_CONF", "SLURM_JWT")
RUNNING = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING"}
ENDED = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY", "DEADLINE"}
LOST = {"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED"}  # not the job's doing; most come back into the queue
TEMPORARY = re.compile(r"contact|timed out|temporarily|connect|communication|try again|in progress|slurm_receive|slurm_send|I/O error", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """A job as Slurm tells it. `state` is Slurm's own word, `detail` why it waits or how it ended."""

    id: str
    state: str
    detail: str = ""
    comment: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is over by its own doing or by somebody's wish. A state that isn't known here counts as waiting."""
        return self.state in ENDED

    @property
    def lost(self) -> bool:
        """Whether it ended with a node or for another job's sake."""
        return self.state in LOST


class SubmissionUnclear(Exception):
    """sbatch gave no clear answer: the job may have been submitted or not."""


def submit(folder: Path, script: str) -> str:
    """Submits the script in `folder`; returns the job's id. Raises `UserError` where Slurm refuses it and `SubmissionUnclear` where nobody knows."""
    try:
        done = subprocess.run(["sbatch", "--parsable", script], cwd=folder, env=_environment(), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=SECONDS_TO_ANSWER)
    except FileNotFoundError:
        raise UserError("there is no sbatch here, and the cluster profile says launcher: slurm",
                        "run this where jobs are submitted (a login node), or take another profile with --cluster") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SubmissionUnclear(f"sbatch: {type(error).__name__}") from None
    said = (done.stderr or done.stdout).strip()
    found = re.match(r"(\d+)(;|$)", done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "")
    if done.returncode == 0 and found:
        return found[1]
    if done.returncode == 0 or TEMPORARY.search(said):
        raise SubmissionUnclear(said)
    raise UserError(f"Slurm refused the job: {said.removeprefix('sbatch: error: ')}",
                    f"mend `slurm` in the cluster profile; what was submitted is {folder / script}")


def jobs(name: str) -> list[Job] | None:
    """The jobs of that name, also ended ones that the controller still remembers; None where it doesn't answer."""
    said = _ask("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i|%T|%r|%k")
    if said is None:
        return None
    found = [line.strip().split("|", 3) for line in said.splitlines() if line.count("|") >= 3]
    return [Job(number, state, "" if reason == "None" else reason, comment) for number, state, reason, comment in found]


def past(number: str, submitted_at: datetime.datetime) -> Job | None:
    """A job that isn't in the queue any more, from the controller's memory or from accounting; None where neither tells."""
    said = _ask("scontrol", "--oneliner", "show", "job", number) or ""
    told = dict(part.partition("=")[::2] for part in said.split() if "=" in part)
    if told.get("JobId") == number and "JobState" in told:
        return Job(number, told["JobState"], f"exit code {told.get('ExitCode', '?')}", told.get("Comment", ""))
    day_before = (submitted_at - datetime.timedelta(days=1)).strftime("%Y-%m-%d")  # else sacct begins at midnight
    lines = (_ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={number}", f"--starttime={day_before}",
                  "--format=JobIDRaw,State,ExitCode") or "").splitlines()
    rows = [line.split("|") for line in lines if line.startswith(f"{number}|") and line.count("|") == 2]
    return Job(number, rows[-1][1].split()[0], f"exit code {rows[-1][2]}") if rows and rows[-1][1] else None


def cancel(number: str) -> None:
    """Cancels a job; one that is over stays as it is."""
    _ask("scancel", number)


def _ask(*command: str) -> str | None:
    """A command's output, or None where it failed or didn't answer in time."""
    try:
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS_TO_ANSWER)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _environment(inherited: Sequence[str] = KEPT_VARIABLES) -> dict[str, str]:
    """The caller's environment without what would change a submission: SBATCH_*, SQUEUE_* and the like, a job that the caller is part of, its ranks."""
    prefixes = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SRUN_", "SALLOC_")
    return {name: value for name, value in os.environ.items()
            if name in inherited or not (name.startswith(prefixes) or name in RANK_VARIABLES)}
