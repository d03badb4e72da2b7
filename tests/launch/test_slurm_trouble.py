"""Slurm in trouble: what a real one doesn't show on demand, from a fake one (fake_slurm/) that really runs its jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from allam import slurm_queue
from allam.artifacts import SUBMITTED
from allam.cluster import ClusterProfile, Slurm, load_profile
from allam.errors import StageCancelled, StageFailed, UserError
from allam.launch import slurm
from allam.launch.slurm_script import render

FAKE = Path(__file__).parent / "fake_slurm"
CLUSTER = Path(__file__).parents[2] / "infra" / "slurm" / "cluster.py"


class FakeSlurm:
    """The fake's folder, a toy to make with it, and what tests ask and change."""

    def __init__(self, bench, root: Path) -> None:
        self.bench, self.root = bench, root
        (root / "jobs").mkdir(parents=True)
        self.profile = bench.profile.model_validate(bench.profile.model_dump() | {"launcher": "slurm", "slurm": {"poll_seconds": 0.05, "restarts": 0}})
        bench.toy(steps=3)

    def make(self, profile: ClusterProfile | None = None, on_progress=None):
        """Makes the toy."""
        return self.bench.make("toy", profile or self.profile, on_progress)

    def put(self, name: str, text: str = "") -> None:
        """Makes the fake behave otherwise, see its README."""
        (self.root / name).write_text(text)

    def jobs(self) -> list[str]:
        """The states of the jobs that were ever submitted, the first one first."""
        return [path.read_text().split("|")[0] for path in sorted((self.root / "jobs").iterdir(), key=lambda p: int(p.name))]

    def set_state(self, state: str, job: int = 1) -> None:
        """Puts a job into a state."""
        path = self.root / "jobs" / str(job)
        path.write_text("|".join([state, "None", *path.read_text().split("|")[2:]]))

    def release(self, job: int = 1) -> None:
        """Starts a held job."""
        subprocess.Popen([FAKE / "run_job", str(job), self.bench.folder("toy") / "job.sh"], start_new_session=True)

    def following(self, **options):
        """Starts `make` in a thread; returns it with the list that gets its outcome, once the job is in the queue."""
        outcome: list[object] = []

        def follow() -> None:
            try:
                outcome.append(self.make(**options))
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=follow)
        thread.start()
        wait_for((self.bench.folder("toy") / SUBMITTED).exists)
        return thread, outcome


def wait_for(condition, seconds: float = 20) -> None:
    """Waits until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def fake(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "fake"))
    monkeypatch.setenv("PATH", f"{FAKE}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "SECONDS_TO_APPEAR", 0.3)
    monkeypatch.setattr(slurm, "SECONDS_TO_COME_BACK", 0.3)
    monkeypatch.setattr(slurm, "SECONDS_TO_SEE_FILES", 0.3)
    monkeypatch.setattr("allam.launch.slurm_script.SECONDS_BETWEEN_STARTS", 0)
    return FakeSlurm(bench, tmp_path / "fake")


@pytest.mark.parametrize("given", [0, "0"])
def test_all_memory_of_a_node_may_be_asked_for_with_or_without_quotes(given):
    assert Slurm.model_validate({"memory": given}).memory == "0"


def test_a_stage_is_one_job_and_then_reused(fake):
    states = []
    made = fake.make(on_progress=states.append)
    assert (made.made, made.manifest.metrics, sorted(made.manifest.outputs)) == (True, {"steps": 3}, ["lines.txt"])
    assert any("job 1" in state["what"] for state in states)
    assert states[-1]["done"] == 3
    assert not fake.make().made
    assert fake.bench.store.verify(made.ref.path) == []
    wait_for(lambda: fake.jobs() == ["COMPLETED"])


def test_a_profile_may_leave_stages_without_ranks_on_this_machine(fake):
    profile = fake.profile.model_copy(update={"slurm": fake.profile.slurm.model_copy(update={"stages": "ranks"})})
    assert fake.make(profile).made
    assert fake.jobs() == []


def test_a_submission_that_never_answers_is_found_in_the_queue(fake, monkeypatch):
    monkeypatch.setattr(slurm_queue, "SECONDS_TO_ANSWER", 0.5)
    fake.put("hang")
    assert fake.make().made
    assert len(fake.jobs()) == 1


def test_a_submission_that_times_out_but_arrived_is_not_made_again(fake):
    fake.put("answer", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    assert fake.make().made
    assert len(fake.jobs()) == 1


def test_a_submission_that_got_lost_is_made_again(fake):
    fake.put("answer", "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)")
    fake.put("lost")
    assert fake.make().made
    assert len(fake.jobs()) == 1


def test_what_slurm_refuses_is_the_users_mistake_in_slurms_words(fake):
    fake.put("answer", "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified")
    fake.put("lost")
    with pytest.raises(UserError, match="Slurm refused the job: Batch job submission failed: Invalid account"):
        fake.make()
    assert fake.jobs() == []


def test_a_machine_without_sbatch_is_told_so(fake, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="there is no sbatch here"):
        fake.make()


def test_a_controller_that_is_down_for_a_while_fails_nothing(fake):
    fake.put("hold")
    thread, outcome = fake.following()
    fake.put("down")
    fake.put("sacct", "")
    time.sleep(0.8)
    assert thread.is_alive()
    fake.release()
    thread.join(20)
    assert outcome[0].made  # the manifest says so, though Slurm is still down
    assert len(fake.jobs()) == 1


@pytest.mark.parametrize("accounting", [None, "", "slurmdbd: no connection\n", "99|FAILED|1:0\n"], ids=["none", "empty", "garbled", "of_another_job"])
def test_a_job_that_nobody_remembers_has_not_failed_and_is_submitted_again(fake, accounting):
    fake.put("hold")
    thread, outcome = fake.following()
    if accounting is not None:
        fake.put("sacct", accounting)
    (fake.root / "hold").unlink()
    fake.set_state("GONE|GONE|GONE")  # of another name: no longer found
    thread.join(20)
    assert outcome[0].made
    assert len(fake.jobs()) == 2


def test_accounting_tells_of_a_job_that_the_controller_forgot(fake):
    fake.put("hold")
    thread, outcome = fake.following()
    (fake.bench.folder("toy") / "log.txt").write_text("first words\nlast words\n")
    fake.put("sacct", "1|FAILED|1:0\n")
    fake.put("forgets")
    thread.join(20)
    assert isinstance(outcome[0], StageFailed)
    assert "job 1 ended as FAILED (exit code 1:0); its log ends with\n  | first words\n  | last words" in str(outcome[0])


def test_accounting_that_still_calls_a_job_running_is_believed(fake):
    fake.put("hold")
    thread, outcome = fake.following()
    fake.put("sacct", "1|RUNNING|0:0\n")
    fake.put("forgets")
    time.sleep(0.8)
    assert thread.is_alive()
    fake.release()
    thread.join(20)
    assert outcome[0].made
    assert len(fake.jobs()) == 1


@pytest.mark.parametrize("state", ["REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "CONFIGURING", "NODE_FAIL", "PREEMPTED", "A_STATE_OF_TOMORROW"])
def test_a_job_that_slurm_puts_back_is_waited_for(fake, state):
    fake.put("hold")
    thread, outcome = fake.following()
    fake.set_state(state)
    time.sleep(0.15)
    fake.set_state("PENDING")
    time.sleep(0.4)
    assert thread.is_alive()
    fake.release()
    thread.join(20)
    assert outcome[0].made
    assert len(fake.jobs()) == 1


def test_a_job_lost_with_its_node_that_slurm_does_not_put_back_is_submitted_again(fake):
    fake.put("hold")
    thread, outcome = fake.following()
    (fake.root / "hold").unlink()
    fake.set_state("NODE_FAIL")
    thread.join(20)
    assert outcome[0].made
    assert fake.jobs()[0] == "NODE_FAIL"
    assert len(fake.jobs()) == 2


def test_a_job_that_vanishes_each_time_ends_as_a_failure(fake):
    fake.put("hold")
    thread, outcome = fake.following()
    for job in range(1, slurm.SUBMISSIONS + 1):
        wait_for(lambda job=job: len(fake.jobs()) == job)
        fake.set_state("NODE_FAIL", job)
    thread.join(20)
    assert isinstance(outcome[0], StageFailed)
    assert "vanished from the queue" in str(outcome[0])


def test_two_launchers_at_once_submit_one_job(fake):
    first, second = fake.following(), fake.following()
    for thread, outcome in (first, second):
        thread.join(20)
        assert outcome[0].manifest.metrics == {"steps": 3}
    assert len(fake.jobs()) == 1


def test_a_launcher_killed_between_submitting_and_writing_the_id_down_leaves_a_job_that_is_found(fake):
    fake.put("hold")
    _, first = fake.following()
    (fake.bench.folder("toy") / SUBMITTED).unlink()
    second, outcome = fake.following()
    assert json.loads((fake.bench.folder("toy") / SUBMITTED).read_text())["job"] == "1"
    fake.release()
    second.join(20)
    assert outcome[0].made
    assert len(fake.jobs()) == 1
    wait_for(lambda: len(first) == 1)


def test_a_cancelled_job_is_an_end_of_its_own_kind(fake):
    fake.put("hold")
    thread, outcome = fake.following()
    assert slurm.cancel_job(fake.bench.folder("toy")) == ["1"]
    thread.join(20)
    assert isinstance(outcome[0], StageCancelled)


def test_ctrl_c_cancels_the_job_and_a_crash_leaves_it(fake):
    fake.put("hold")

    def crash(state) -> None:
        raise ConnectionError("the server is gone")

    with pytest.raises(ConnectionError):
        fake.make(on_progress=crash)
    assert fake.jobs() == ["PENDING"]
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        fake.make()
    assert fake.jobs() == ["CANCELLED"]


def test_a_job_that_runs_too_long_is_cancelled(fake):
    fake.put("hold")
    thread, outcome = fake.following(profile=fake.profile.model_copy(update={"timeout_hours": 0.00003}))
    time.sleep(0.5)
    assert thread.is_alive()  # the queue's time doesn't count
    fake.set_state("RUNNING")
    thread.join(20)
    assert "ran longer than 3e-05 hours" in str(outcome[0])
    assert fake.jobs() == ["CANCELLED"]


@pytest.mark.parametrize(("act", "kind", "words", "starts"), [
    ("user_error", UserError, "toy.steps: 20 is a bad number", 1),
    ("failure", StageFailed, "the toy broke", 1),
    ("crash", StageFailed, "| last words", 3),
    ("killed", StageFailed, "most likely memory ran out", 3),
])
def test_a_workers_own_words_are_final_and_a_death_without_any_is_tried_again(fake, act, kind, words, starts):
    fake.bench.toy("other", act=act)
    profile = fake.profile.model_copy(update={"slurm": fake.profile.slurm.model_copy(update={"restarts": 2})})
    with pytest.raises(kind) as caught:
        fake.bench.make("other", profile)
    assert words in str(caught.value)
    assert (fake.bench.folder("other") / "log.txt").read_text().count(", start ") == starts
    assert len(fake.jobs()) == 1


def test_the_trial_cluster_touches_no_folder_of_others(tmp_path):
    (tmp_path / "slurm.conf").write_text("ClusterName=production\n")
    for what in ("start", "stop"):
        done = subprocess.run([sys.executable, CLUSTER, what, tmp_path], capture_output=True, text=True)
        assert done.returncode == 1
        assert "->" in done.stderr
    assert (tmp_path / "slurm.conf").read_text() == "ClusterName=production\n"


# --- what reaches the script ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("hostile", ["a b", "a'b", 'a"b', "a\nb", "$(reboot)", "`reboot`", "a;b", "a\\b", "", "-a", "a%j", "a\n#SBATCH --uid=0"])
@pytest.mark.parametrize("field", ["account", "partition", "qos", "constraint", "time_limit", "memory", "cpu_partition"])
def test_no_field_carries_more_than_a_word_into_a_job(field, hostile):
    with pytest.raises(ValidationError, match=field):
        ClusterProfile(slurm={field: hostile})


@pytest.mark.parametrize("slurm_section", [
    {"modules": ["cuda; reboot"]}, {"options": ["--wrap=reboot"]}, {"options": ["--comment=mine"]}, {"options": ["-A x"]}, {"srun": ["--x=$(reboot)"]},
    {"lines": ["one\ntwo"]}, {"time_limit": "10", "signal_seconds": 300}, {"container": ["a\nb"]}, {"python": "a\nb"}, {"nodes": 0}, {"unknown": 1},
])
def test_lists_of_a_profile_are_looked_at_one_by_one(slurm_section):
    with pytest.raises(ValidationError):
        ClusterProfile(slurm=slurm_section)


def test_variables_of_a_job_have_names():
    with pytest.raises(ValidationError):
        ClusterProfile(environment={"A=1; reboot": "x"})


@pytest.mark.parametrize(("limit", "seconds"), [("30", 1800), ("30:15", 1815), ("2:30:15", 9015), ("1-12", 129600), ("1-2:30", 95400), ("1-2:30:15", 95415)])
def test_time_limits_are_read_as_slurm_reads_them(limit, seconds):
    signal_seconds = (seconds - 1) // 2
    assert ClusterProfile(slurm={"time_limit": limit, "signal_seconds": min(signal_seconds, 65535)})
    if signal_seconds < 65535:
        with pytest.raises(ValidationError, match="little time to work"):
            ClusterProfile(slurm={"time_limit": limit, "signal_seconds": signal_seconds + 1})


def test_a_time_limit_that_yaml_made_a_number_is_refused_with_the_reason(tmp_path):
    (tmp_path / "mine.yaml").write_text("launcher: slurm\nslurm:\n  time_limit: 24:00:00\n")
    with pytest.raises(UserError, match="write it in quotes"):
        load_profile(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(("profile", "words"), [
    ({"ranks": 3, "slurm": {"nodes": 2}}, "don't divide by slurm.nodes"),
    ({"ranks": 4, "slurm": {"nodes": 2, "gpus_per_node": 4}}, "2 ranks a node want as many GPUs"),
    ({"device": "cuda"}, "no GPU is asked for"),
])
def test_a_layout_that_cannot_be_is_refused(profile, words):
    with pytest.raises(ValidationError, match=words):
        ClusterProfile(launcher="slurm", **profile)


def test_quotes_and_dollars_in_paths_and_variables_stay_what_they_are(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "fake"))
    monkeypatch.setenv("PATH", f"{FAKE}:{os.environ['PATH']}")
    bench.store.root = tmp_path / "it's $HOME `x` \"y\""
    fake = FakeSlurm(bench, tmp_path / "fake")
    environment = fake.profile.environment | {"TOY": "it's $(false) \"here\""}
    bench.toy("told", act="environment", steps=1)
    made = bench.make("told", fake.profile.model_copy(update={"environment": environment}))
    assert json.loads((made.ref.path / "telemetry.json").read_text())["TOY"] == "it's $(false) \"here\""


def test_the_packaged_profile_asks_for_what_it_says(bench):
    bench.toy()
    bench.toy("many", kind="toy_ranks")
    profile = load_profile("slurm")
    script = render(bench.plan.specs["many"], Path("/store/x"), profile)
    assert {"#SBATCH --nodes=4", "#SBATCH --ntasks-per-node=8", "#SBATCH --gpus-per-node=8", "#SBATCH --requeue", "#SBATCH --time=24:00:00",
            "#SBATCH --dependency=singleton"} <= set(script.splitlines())
    alone = render(bench.plan.specs["toy"], Path("/store/x"), profile)
    assert {"#SBATCH --nodes=1", "#SBATCH --ntasks-per-node=1", "#SBATCH --partition=cpu"} <= set(alone.splitlines())
    assert "gpus" not in "".join(line for line in alone.splitlines() if line.startswith("#SBATCH"))
