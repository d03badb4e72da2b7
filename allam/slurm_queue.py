"""What Slurm knows of a job, asked by its own commands: sbatch, squeue, scontrol, sacct, scancel. Always an argv list, never a shell's string.

No answer is an answer of its own: a controller that is down, busy or forgetful never means that a job failed.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from allam.cluster import RANK_VARIABLES
from allam.errors import UserError

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


class NoAnswer(Exception):
    """Slurm gave no clear answer, for the reason that the message says; a job that was to be submitted may have been or not."""


def submit(folder: Path, script: str) -> str:
    """Submits the script in `folder`; returns the job's id. Raises `UserError` where Slurm refuses it, `NoAnswer` where nobody knows."""
    try:
        done = subprocess.run(["sbatch", "--parsable", script], cwd=folder, env=_environment(), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=SECONDS_TO_ANSWER)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"sbatch: {type(error).__name__}") from None
    said = (done.stderr or done.stdout).strip()
    found = re.match(r"(\d+)(;|$)", done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "")
    if done.returncode == 0 and found:
        return found[1]
    if done.returncode == 0 or TEMPORARY.search(said):
        raise NoAnswer(_first_line(said))
    raise UserError(f"Slurm refused the job: {said.removeprefix('sbatch: error: ')}",
                    f"mend `slurm` in the cluster profile; what was submitted is {folder / script}")


def refuse_without_slurm() -> None:
    """Raises `UserError` where there is no Slurm to ask."""
    if missing := [command for command in ("sbatch", "squeue", "scontrol", "scancel") if shutil.which(command) is None]:
        raise UserError(f"there is no {missing[0]} here, and the cluster profile asks for Slurm",
                        "run this where jobs are submitted (a login node), or take another profile with --cluster")


def jobs(name: str) -> list[Job]:
    """The jobs of that name, also ended ones that the controller still remembers. Raises `NoAnswer`."""
    said = _ask("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i|%T|%r|%k")
    found = [line.strip().split("|", 3) for line in said.splitlines() if line.count("|") >= 3]
    return [Job(number, state, "" if reason == "None" else reason, comment) for number, state, reason, comment in found]


def past(number: str, submitted_at: datetime.datetime) -> Job | None:
    """A job that isn't in the queue any more, from the controller's memory or from accounting; None where neither tells."""
    said = _ask_in_vain("scontrol", "--oneliner", "show", "job", number)
    told = dict(part.partition("=")[::2] for part in said.split() if "=" in part)
    if told.get("JobId") == number and "JobState" in told:
        return Job(number, told["JobState"], f"exit code {told.get('ExitCode', '?')}", told.get("Comment", ""))
    day_before = (submitted_at - datetime.timedelta(days=1)).strftime("%Y-%m-%d")  # else sacct begins at midnight
    lines = _ask_in_vain("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={number}", f"--starttime={day_before}",
                         "--format=JobIDRaw,State,ExitCode").splitlines()
    rows = [line.split("|") for line in lines if line.startswith(f"{number}|") and line.count("|") == 2]
    return Job(number, rows[-1][1].split()[0], f"exit code {rows[-1][2]}") if rows and rows[-1][1] else None


def cancel(number: str) -> None:
    """Cancels a job; one that is over stays as it is."""
    _ask_in_vain("scancel", number)


def _ask(*command: str) -> str:
    """A command's output. Raises `NoAnswer` where it failed or didn't answer in time."""
    try:
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS_TO_ANSWER)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"{command[0]}: {type(error).__name__}") from None
    if done.returncode:
        raise NoAnswer(_first_line(done.stderr))
    return done.stdout


def _ask_in_vain(*command: str) -> str:
    """A command's output, empty where there is none to be had."""
    try:
        return _ask(*command)
    except NoAnswer:
        return ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _environment() -> dict[str, str]:
    """The caller's environment without what would change a submission: SBATCH_*, SQUEUE_* and the like, a job that the caller is part of, its ranks."""
    prefixes = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SRUN_", "SALLOC_")
    return {name: value for name, value in os.environ.items()
            if name in KEPT_VARIABLES or not (name.startswith(prefixes) or name in RANK_VARIABLES)}
