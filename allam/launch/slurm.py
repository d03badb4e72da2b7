"""Runs one stage as a job of Slurm's, or finds that it is done, or follows the job that is making it: local.py's contract on a cluster.

The job belongs to the artifact, not to whoever submitted it. Its name and its comment carry the artifact's key, which is looked up in the queue before
anything is submitted, and `--dependency=singleton` keeps Slurm from running two of one name should a submission have got lost halfway. So a launcher
may crash, restart or be started twice: the next one finds the job and follows it. The manifest alone says "done"; Slurm's state says what becomes of a
job without one, and no answer from Slurm is never taken for a failure. What ends a job: Ctrl-C in the launcher, `timeout_hours` of running, and
`cancel_job` (Prefect's cancel). Any other end of the launcher leaves it alone. docs/slurm.md is the user's guide.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from allam import slurm_queue as queue
from allam.artifacts import ERROR, LOG, MANIFEST, SCRIPT, SUBMITTED, SUBMITTING, ArtifactRef, Store, is_being_made, write_json
from allam.cluster import ClusterProfile
from allam.errors import AllamError, StageCancelled, StageFailed
from allam.launch.folder import LOG_LINES_SHOWN, RUN_AGAIN, Made, OnProgress, Relay, full_disk, log_lines, prepare, remove_scratch, tail, told_failure
from allam.launch.slurm_script import comment, job_name, write_script
from allam.pipeline import StageSpec
from allam.slurm_queue import Job, NoAnswer

SECONDS_TO_APPEAR = 60.0  # after a submission without an answer: so long it may take to show in the queue
SECONDS_TO_COME_BACK = 180.0  # after a node failed or preemption: so long until Slurm has requeued the job (its own default is 120)
SECONDS_TO_SEE_FILES = 20.0  # a shared file system shows a manifest later than Slurm shows the job's end
SECONDS_BETWEEN_FILES = 1.0  # between looks at the folder; those at the queue are `poll_seconds` apart
SUBMISSIONS = 4  # of a job that vanishes each time, before that counts as a failure
REMEDIES = {
    "TIMEOUT": "it could not save and requeue in time: raise slurm.signal_seconds in the cluster profile above the time of a step and a checkpoint",
    "OUT_OF_MEMORY": "most likely memory ran out: raise slurm.memory, or lower micro_batch, workers or ranks in the cluster profile",
}


def make(spec: StageSpec, inputs: Mapping[str, ArtifactRef], store: Store, profile: ClusterProfile, on_progress: OnProgress | None = None) -> Made:
    """Sees to it that the stage's artifact is done. `inputs` are the artifacts that it is made from, by the stage's names for them.

    Raises `UserError` or `StageFailed` with the worker's own words, or with Slurm's and the log's last lines. Ctrl-C cancels the job; after any other
    exception it goes on, and the next call follows it.
    """
    ref, report = store.ref(spec.kind, spec.key), on_progress or (lambda state: None)
    manifest = store.manifest(spec.kind, spec.key)
    if manifest is not None:
        remove_scratch(ref.path)
        return Made(ref, manifest, False)
    queue.refuse_without_slurm()
    try:
        _Launch(spec, inputs, store, profile, report).run()
    except KeyboardInterrupt:
        cancel_job(ref.path)
        raise
    manifest = store.manifest(spec.kind, spec.key)
    assert manifest is not None, "run() returns when the manifest stands"
    return Made(ref, manifest, True)


def cancel_job(folder: Path) -> list[str]:
    """Cancels whatever is in the queue for an artifact; returns the jobs' ids."""
    try:
        live = [job.id for job in queue.jobs(job_name(folder)) if not (job.ended or job.lost)]
    except NoAnswer:
        submitted = _read_submitted(folder)
        live = [submitted.job] if submitted else []
    for job in live:
        queue.cancel(job)
    return live


@dataclass(frozen=True)
class _Submitted:
    """What slurm.json says: the job, when it was submitted, and where the log ended then."""

    job: str
    at: datetime.datetime
    start_of_log: int


def _read_submitted(folder: Path) -> _Submitted | None:
    try:
        told = json.loads((folder / SUBMITTED).read_text(encoding="utf-8"))
        return _Submitted(str(told["job"]), datetime.datetime.fromisoformat(told["submitted_at"]), int(told["start_of_log"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass
class _Launch:
    """One call of `make`: finds or submits the job, and follows it to its end."""

    spec: StageSpec
    inputs: Mapping[str, ArtifactRef]
    store: Store
    profile: ClusterProfile
    report: OnProgress
    folder: Path = field(init=False)
    seconds_running: float = 0.0

    def __post_init__(self) -> None:
        self.folder = self.store.folder(self.spec.kind, self.spec.key)
        self._relay = Relay(self.folder, self.report)
        self._waiting_since = time.monotonic()

    def run(self) -> None:
        """Returns when the manifest stands; a job that vanished for no reason of its own is submitted again."""
        for _ in range(SUBMISSIONS):
            submitted = self._attach_or_submit()
            if submitted is None or self._follow(submitted):
                return
        raise StageFailed(f"{self.spec.name}: {SUBMISSIONS} jobs vanished from the queue one after another without a word",
                          f"see {self.folder / LOG}, ask the cluster's administrators, and {RUN_AGAIN}")

    # --- finding and submitting ------------------------------------------------------------------------------------------------

    def _attach_or_submit(self) -> _Submitted | None:
        """The job that makes the artifact, found or submitted; None where the artifact is done. One launcher at a time looks and submits."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _only_one(self.folder):
            while True:
                if self._is_done():
                    return None
                try:
                    live = self._live(queue.jobs(job_name(self.folder)))
                except NoAnswer as error:
                    self._wait(f"Slurm doesn't answer ({error})")
                    continue
                if live is not None:
                    submitted = _read_submitted(self.folder)
                    return submitted if submitted and submitted.job == live.id else self._note(live.id)
                if is_being_made(self.folder):
                    self._wait("a worker outside Slurm is at it")
                    continue
                prepare(self.spec, self.inputs, self.store)
                write_script(self.spec, self.folder, self.profile)
                end_of_log = _size(self.folder / LOG)
                try:
                    return self._note(queue.submit(self.folder, SCRIPT), end_of_log)
                except NoAnswer as error:
                    self._wait_for_it_to_appear(str(error))

    def _live(self, found: list[Job]) -> Job | None:
        """The artifact's job that isn't over, the running one first; by comment, or by the id that was written down."""
        submitted = _read_submitted(self.folder)
        live = [j for j in found if not (j.ended or j.lost) and (j.comment == comment(self.spec) or (submitted and j.id == submitted.job))]
        return min(live, key=lambda j: (j.state not in queue.RUNNING, int(j.id.partition("_")[0])), default=None)

    def _wait_for_it_to_appear(self, why: str) -> None:
        """Looks at the queue until the job shows, or until it would have."""
        since = time.monotonic()
        while time.monotonic() - since < SECONDS_TO_APPEAR:
            try:
                if self._live(queue.jobs(job_name(self.folder))) is not None:
                    return
            except NoAnswer:
                since = time.monotonic()  # it proves nothing
            self._wait(f"submitted without a clear answer ({why})")

    def _note(self, job: str, end_of_log: int | None = None) -> _Submitted:
        """Writes the job's id down; that of a job found in the queue with the end that its log has now."""
        submitted = _Submitted(job, datetime.datetime.now(datetime.UTC), _size(self.folder / LOG) if end_of_log is None else end_of_log)
        write_json(self.folder / SUBMITTED, {"job": job, "comment": comment(self.spec), "submitted_at": submitted.at.isoformat(timespec="seconds"),
                                             "start_of_log": submitted.start_of_log})
        return submitted

    # --- following -------------------------------------------------------------------------------------------------------------

    def _follow(self, submitted: _Submitted) -> bool:
        """Whether the artifact was made; False where the job vanished and shall be submitted again. Raises where it failed."""
        lost_since: float | None = None
        while not self._is_done():
            try:
                found = queue.jobs(job_name(self.folder))
            except NoAnswer as error:
                self._wait(f"Slurm doesn't answer ({error})", job=submitted.job)
                continue
            other = self._live(found)
            if other is not None and other.id != submitted.job:  # resubmitted by somebody else
                submitted = self._note(other.id)
            job = next((j for j in found if j.id == submitted.job), None) or queue.past(submitted.job, submitted.at)
            if job is not None and job.ended:
                return self._ended(job, submitted)
            if job is None or job.lost:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > SECONDS_TO_COME_BACK:
                    return self._is_done() or self._raise_own_words()
                self._wait(job.state if job else "not in the queue", job=submitted.job)
                continue
            lost_since = None
            self._count_running(job)
            self._wait(f"{job.state.lower()} ({job.detail})" if job.detail else job.state.lower(), job=submitted.job, working=job.state in queue.RUNNING)
        return True

    def _count_running(self, job: Job) -> None:
        self.seconds_running += self.profile.slurm.poll_seconds if job.state == "RUNNING" else 0
        if self.seconds_running > self.profile.timeout_hours * 3600:
            queue.cancel(job.id)
            raise StageFailed(f"{self.spec.name}: job {job.id} ran longer than {self.profile.timeout_hours:g} hours and was cancelled",
                              f"raise timeout_hours in the cluster profile and {RUN_AGAIN}")

    def _ended(self, job: Job, submitted: _Submitted) -> bool:
        """The manifest may show a little later than the job's end; without one, the end is an error."""
        since = time.monotonic()
        while not self._is_done() and time.monotonic() - since < SECONDS_TO_SEE_FILES and job.state == "COMPLETED":
            self._wait("the job has ended", job=job.id)
        if self._is_done():
            return True
        raise _failure(self.spec, self.folder, job, log_lines(self.folder, submitted.start_of_log))

    def _raise_own_words(self) -> bool:
        """For a job that nobody remembers: what its worker said, where it said anything; else False."""
        told = told_failure(self.spec, self.folder)
        if told is not None and not _was_ended_from_outside(self.folder):
            raise told
        return False

    def _is_done(self) -> bool:
        return self.store.manifest(self.spec.kind, self.spec.key) is not None

    def _wait(self, state: str, job: str | None = None, working: bool = False) -> None:
        """Waits for the next look at Slurm, passing on what the worker reports; says what for and since when, unless the worker does."""
        if working and self._relay.seen:
            self._waiting_since = time.monotonic()
        else:
            self.report({"what": f"job {job}, {state}" if job else state, "unit": "minutes", "done": int((time.monotonic() - self._waiting_since) / 60),
                         "total": None, "rate": 0, "seconds_left": None, "info": {}, "time": time.time()})
        until = time.monotonic() + self.profile.slurm.poll_seconds
        while (rest := until - time.monotonic()) > 0 and not (self.folder / MANIFEST).exists():
            self._relay()
            time.sleep(min(rest, SECONDS_BETWEEN_FILES))
        self._relay()


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Holds the lock of whoever looks for the artifact's job and submits it; the kernel releases it when its holder dies."""
    with open(folder / SUBMITTING, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _was_ended_from_outside(folder: Path) -> bool:
    """Whether error.json tells only of an end that others brought about."""
    try:
        return bool(json.loads((folder / ERROR).read_text(encoding="utf-8")).get("again"))
    except (OSError, ValueError, AttributeError):
        return False


def _failure(spec: StageSpec, folder: Path, job: Job, lines: list[str]) -> AllamError:
    """The error for a job that ended without a manifest: the worker's own words where it failed by itself, else Slurm's word and the log's end."""
    if job.state == "CANCELLED":
        return StageCancelled(f"{spec.name}: job {job.id} was cancelled in Slurm", RUN_AGAIN)
    told = None if _was_ended_from_outside(folder) or job.state not in ("FAILED", "COMPLETED") else told_failure(spec, folder)
    told = told or full_disk(spec, folder)
    if told is not None:
        return told
    remedy = REMEDIES.get(job.state, f"the whole log is {folder / LOG}")
    if any("Killed" in line or "status 137" in line for line in lines[-LOG_LINES_SHOWN:]):
        remedy = REMEDIES["OUT_OF_MEMORY"]
    how = f"{job.state} ({job.detail})" if job.detail else job.state
    return StageFailed(f"{spec.name}: job {job.id} ended as {how}; its log ends with\n{tail(lines)}", f"{remedy}; {RUN_AGAIN}")
