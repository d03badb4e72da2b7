"""A real Slurm cluster of two nodes and a spare one (infra/slurm/cluster.py): a two-node training is killed in every way, and ends with the same weights."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from allam.artifacts import artifact_key
from allam.cluster import ClusterProfile
from allam.errors import StageCancelled, UserError
from allam.launch import make
from allam.launch.folder import Made
from allam.pipeline import PREFLIGHT, StageSpec
from allam.preflight.config import PreflightConfig

HERE = Path(__file__).parent
STEPS, STEP_SECONDS = 40, 0.2
pytestmark = pytest.mark.slow

LAUNCH = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
import toy_stages; toy_stages.install()
from conftest import Bench
from allam.cluster import ClusterProfile
bench = Bench(Path({root!r}))
bench.toy(**{config!r})
bench.make("toy", ClusterProfile.model_validate_json({profile!r}))
"""


class Training:
    """A training of two ranks on two nodes, followed by a launcher in a thread."""

    def __init__(self, bench, name: str = "toy", step_seconds: float = STEP_SECONDS, steps: int = STEPS, **slurm: object) -> None:
        self.bench, self.name = bench, name
        self.config = {"kind": "toy_ranks", "act": "train", "steps": steps, "step_seconds": step_seconds}
        bench.toy(name, **self.config)
        environment = bench.profile.environment | {"PYTHONPATH": f"{bench.profile.environment['PYTHONPATH']}:{HERE.parent / 'engine'}"}
        self.profile = ClusterProfile(
            launcher="slurm", ranks=2, threads=1, zero_stage=1, micro_batch=4, checkpoint_seconds=0.5, device="cpu", environment=environment,
            slurm={"nodes": 2, "poll_seconds": 0.3, "memory": "1000"} | slurm)
        self.folder = bench.folder(name)
        self.outcome: list[Made | BaseException] = []

    def start(self) -> Training:
        """Starts the launcher."""
        def follow() -> None:
            try:
                self.outcome.append(self.bench.make(self.name, self.profile))
            except BaseException as error:
                self.outcome.append(error)

        self.thread = threading.Thread(target=follow)
        self.thread.start()
        return self

    def finish(self) -> Made:
        """Waits for the launcher; returns what it made."""
        self.thread.join(900)
        assert not self.thread.is_alive(), self.log()
        if isinstance(self.outcome[0], BaseException):
            raise self.outcome[0]
        return self.outcome[0]

    def reach(self, step: int) -> None:
        """Waits until a checkpoint of `step` steps or more is there."""
        wait_for(lambda: self.reached() >= step, 300, self.log)

    def reached(self) -> int:
        """The step of the newest checkpoint."""
        found = (self.folder / "work" / "checkpoints").glob("step-????????")
        return max((int(path.name.removeprefix("step-")) for path in found), default=0)

    def log(self) -> str:
        """The log so far."""
        return (self.folder / "log.txt").read_text() if (self.folder / "log.txt").exists() else ""

    def jobs(self) -> list[tuple[str, str, str]]:
        """Each start of the ranks: the job, its nodes, the start's number."""
        return re.findall(r"job (\d+) on (\S+), start (\S+)", self.log())

    def rank(self, number: int) -> psutil.Process:
        """A rank's process."""
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if environment.get("RANK") == str(number) and str(self.folder) in environment.get("ALLAM_PROGRESS", "") and "allam.worker" in process.cmdline():
                    return process
            except psutil.Error:
                continue
        raise LookupError(f"no rank {number}")


def wait_for(condition: Callable[[], object], seconds: float, words: Callable[[], str] = str) -> None:
    """Waits until `condition()` holds; else fails with `words()`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, words()
        time.sleep(0.1)


def slurm(*command: str) -> str:
    """A command's output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def assert_same(made: Made, expected: Made) -> None:
    """The weights and every step's loss, bit by bit."""
    for name in ("weights.json", "metrics.jsonl"):
        assert made.manifest.outputs[name] == expected.manifest.outputs[name]


_undisturbed: list[Made] = []


@pytest.fixture
def undisturbed(bench, slurm_cluster) -> Made:
    """The same training, left alone; made once."""
    if not _undisturbed:
        training = Training(bench, "undisturbed", step_seconds=0.0).start()
        _undisturbed.append(training.finish())
        assert [nodes for _, nodes, _ in training.jobs()] == ["node[1-2]"]
    return _undisturbed[0]


def test_a_stage_runs_on_two_nodes_and_one_without_ranks_on_one(bench, slurm_cluster):
    bench.toy("one", steps=2)
    bench.toy("two", kind="toy_ranks", act="ranks", steps=2, inputs={"source": "one"})
    profile = ClusterProfile(launcher="slurm", ranks=2, threads=1, workers=3, environment=bench.profile.environment, slurm={"nodes": 2, "poll_seconds": 0.2})
    assert bench.make("one", profile).manifest.world_size == 1
    made = bench.make("two", profile)
    assert made.manifest.world_size == 2
    assert re.search(r"job \d+ on node\[1-2\], start 1\.1", (made.ref.path / "log.txt").read_text())
    assert bench.store.verify(made.ref.path) == []


def test_a_requeued_job_goes_on_to_the_same_weights(bench, undisturbed):
    training = Training(bench).start()
    training.reach(8)
    job = training.jobs()[0][0]
    slurm("scontrol", "requeue", job)
    made = training.finish()
    assert [(number, start) for number, _, start in training.jobs()] == [(job, "1.1"), (job, "2.1")]
    assert "resumed from step-" in training.log()
    assert_same(made, undisturbed)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_started_again_in_the_same_job(bench, undisturbed, rank):
    training = Training(bench).start()
    training.reach(8)
    training.rank(rank).send_signal(signal.SIGKILL)
    made = training.finish()
    assert [start for _, _, start in training.jobs()] == ["1.1", "1.2"]
    assert "resumed from step-" in training.log()
    assert_same(made, undisturbed)


def test_a_drained_node_lets_the_job_go_on_and_a_node_that_goes_down_sends_it_to_others(bench, undisturbed):
    training = Training(bench).start()
    training.reach(4)
    try:
        slurm("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
        reached = training.reached()
        training.reach(reached + 4)
        assert len(training.jobs()) == 1
        slurm("scontrol", "update", "nodename=node2", "state=down", "reason=test")
        made = training.finish()
    finally:
        slurm("scontrol", "update", "nodename=node2", "state=resume")
    assert [nodes for _, nodes, _ in training.jobs()] == ["node[1-2]", "node[1,3]"]
    assert len({job for job, _, _ in training.jobs()}) == 1
    assert "resumed from step-" in training.log()
    assert_same(made, undisturbed)


def test_a_killed_launcher_leaves_its_job_and_the_next_one_follows_it(bench, undisturbed, tmp_path):
    training = Training(bench)
    code = LAUNCH.format(paths=[str(HERE), str(HERE / "toy"), str(HERE.parents[1])], root=str(tmp_path), config=training.config,
                         profile=training.profile.model_dump_json())
    first = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    training.reach(8)
    first.kill()
    first.wait()
    assert training.rank(0).is_running()
    made = training.start().finish()
    assert len(training.jobs()) == 1
    assert_same(made, undisturbed)


def test_a_job_whose_time_runs_out_saves_requeues_itself_and_goes_on(bench, undisturbed):
    training = Training(bench, time_limit="2", signal_seconds=10)  # Slurm warns up to a minute early
    training.profile = training.profile.model_copy(update={"checkpoint_seconds": 1e6})
    training.config["step_seconds"] = 3.0
    bench.toy("toy", **training.config)
    training.folder = bench.folder("toy")
    made = training.start().finish()
    assert len({job for job, _, _ in training.jobs()}) == 1
    assert [start for _, _, start in training.jobs()][:2] == ["1.1", "2.1"]
    assert "its time runs out; saving" in training.log()
    assert "resumed from step-" in training.log()
    assert_same(made, undisturbed)


def test_ctrl_c_ends_the_job_with_a_checkpoint_and_the_next_run_goes_on(bench, undisturbed, tmp_path):
    training = Training(bench)
    code = LAUNCH.format(paths=[str(HERE), str(HERE / "toy"), str(HERE.parents[1])], root=str(tmp_path), config=training.config,
                         profile=training.profile.model_dump_json())
    first = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    training.reach(8)
    first.send_signal(signal.SIGINT)
    first.wait(30)
    wait_for(lambda: not slurm("squeue", "--noheader"), 30)
    made = training.start().finish()
    assert len({job for job, _, _ in training.jobs()}) == 2
    assert_same(made, undisturbed)


def test_what_is_cancelled_in_slurm_ends_as_cancelled(bench, slurm_cluster):
    training = Training(bench).start()
    training.reach(4)
    slurm("scancel", training.jobs()[0][0])
    with pytest.raises(StageCancelled, match="was cancelled in Slurm"):
        training.finish()


def test_a_request_that_the_cluster_can_never_meet_is_the_users_mistake(bench, slurm_cluster):
    training = Training(bench, partition="no_such_partition").start()
    with pytest.raises(UserError, match=r"Slurm refused the job: .*invalid partition"):
        training.finish()


def test_a_mistake_of_the_users_ends_the_job_at_once_in_its_own_words(bench, slurm_cluster):
    bench.toy(kind="toy_ranks", act="user_error")
    profile = ClusterProfile(launcher="slurm", ranks=2, threads=1, environment=bench.profile.environment, slurm={"nodes": 2, "poll_seconds": 0.2})
    with pytest.raises(UserError, match=r"toy\.steps: 20 is a bad number"):
        bench.make("toy", profile)
    assert (bench.folder("toy") / "log.txt").read_text().count(", start ") == 1


def test_a_preflight_measures_both_nodes_and_their_link(bench, slurm_cluster):
    config = PreflightConfig(at="now", storage_bytes=2_000_000, all_reduce_bytes=(1 << 20,), compute_seconds=0.05, min_share=0.01)
    spec = StageSpec(PREFLIGHT, PREFLIGHT, config, {}, artifact_key(PREFLIGHT, 1, config.model_dump(mode="json"), {}), bench.store.root)
    profile = ClusterProfile(launcher="slurm", ranks=2, threads=1, device="cpu", slurm={"nodes": 2, "poll_seconds": 0.3, "memory": "1000"})
    found = json.loads((make(spec, {}, bench.store, profile).ref.path / "preflight.json").read_text())
    nodes = [row["node"] for row in found["ranks"]]
    assert len(set(nodes)) == 2
    assert [link["nodes"] for link in found["links"]] == [nodes]
    assert found["links"][0]["gb_s"] > 0
    assert all(row["read_mb_s"] > 0 for row in found["ranks"])
    assert found["problems"] == []
