"""The launcher: makes, reuses, waits, resumes, and says what went wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from allam.artifacts import is_being_made
from allam.errors import StageFailed, UserError
from allam.launch import local

LAUNCH = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
import toy_stages; toy_stages.install()
from conftest import Bench
bench = Bench(Path({root!r}))
bench.toy(**{config!r})
bench.make("toy")
"""


def launcher(root: Path, **config: object) -> subprocess.Popen:
    """A launcher in a process of its own, so that it can be killed; it hears Ctrl-C also where these tests run in the background, deaf to it."""
    here = Path(__file__).parent
    code = LAUNCH.format(paths=[str(here), str(here / "toy"), str(here.parents[1])], root=str(root), config=config)
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_for(condition, seconds: float = 60) -> None:
    """Waits until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def helpers(folder: Path) -> list[psutil.Process]:
    """Processes that were started for this folder and still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("ALLAM_PROGRESS", "") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_stage_is_made_once_and_then_reused(bench):
    bench.toy(note="الأول")
    bench.toy("second", inputs={"source": "toy"}, note="second")
    states = []
    first = bench.make("toy", on_progress=states.append)
    assert (first.made, first.manifest.metrics, first.manifest.world_size) == (True, {"steps": 20}, 1)
    assert (states[-1]["done"], states[-1]["total"], states[-1]["unit"]) == (20, 20, "steps")
    assert not bench.make("toy").made
    second = bench.make("second")
    assert second.manifest.inputs == {"source": {"kind": "toy", "key": first.ref.key}}
    assert (second.ref.path / "lines.txt").read_text().splitlines()[19:21] == ["19 second", "0 الأول"]


def test_the_worker_gets_the_profile_its_threads_and_no_network(bench, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    bench.toy(act="environment")
    made = bench.make("toy", bench.profile.model_copy(update={"threads": 1, "name": "small"}))
    told = json.loads((made.ref.path / "telemetry.json").read_text())
    assert told == {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "0",
                    "TOY": "yes", "RANK": None, "profile": "small", "cwd": str(made.ref.path)}


def test_a_cluster_profile_changes_no_key(bench):
    bench.toy()
    assert bench.make("toy").made
    assert not bench.make("toy", bench.profile.model_copy(update={"threads": 1, "workers": 7, "ranks": 2, "micro_batch": 3, "zero_stage": 2})).made


@pytest.mark.parametrize(("act", "kind", "message", "remedy"), [
    ("user_error", UserError, "toy: toy.steps: 20 is a bad number", "take another"),
    ("failure", StageFailed, "toy: the toy broke", "mend it"),
    ("crash", StageFailed, "its worker was killed by SIGABRT", "the whole log is"),
    ("killed", StageFailed, "most likely because memory ran out", "lower micro_batch"),
])
def test_what_goes_wrong_in_a_worker_is_told_with_a_remedy_and_leaves_nothing_done(bench, act, kind, message, remedy):
    bench.toy(act=act)
    with pytest.raises(kind) as caught:
        bench.make("toy")
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert bench.store.manifest("toy", bench.plan.specs["toy"].key) is None
    if act == "crash":
        assert "| last words" in caught.value.message


def test_a_stop_that_was_asked_for_is_a_line_of_the_log(bench):
    bench.toy(act="ends_itself")
    with pytest.raises(StageFailed, match="stopped from outside"):
        bench.make("toy")
    log = (bench.folder("toy") / "log.txt").read_text()
    assert "\nstopped by SIGTERM after step 3\n" in log
    assert "Traceback" not in log


def test_a_stage_whose_input_is_not_made_is_the_users_mistake(bench):
    bench.toy()
    bench.toy("second", inputs={"source": "toy"})
    with pytest.raises(UserError, match="second needs toy, which isn't made yet"):
        bench.make("second")


def test_a_stage_that_takes_too_long_is_stopped_with_everything_that_it_started(bench, monkeypatch):
    monkeypatch.setattr(local, "SECONDS_TO_STOP", 1.0)
    bench.toy(act="sleep")
    with pytest.raises(StageFailed, match=r"ran longer than 0\.0003 hours"):
        bench.make("toy", bench.profile.model_copy(update={"timeout_hours": 0.0003}))
    assert helpers(bench.folder("toy")) == []


def test_stopping_the_launcher_stops_the_worker_and_what_it_started(bench, tmp_path):
    bench.toy(act="sleep")
    process = launcher(tmp_path, act="sleep")
    wait_for(lambda: len(helpers(bench.folder("toy"))) == 2)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    wait_for(lambda: not helpers(bench.folder("toy")), 15)


def test_a_worker_that_outlives_its_launcher_is_waited_for(bench, tmp_path):
    bench.toy(steps=60, step_seconds=0.05)
    process = launcher(tmp_path, steps=60, step_seconds=0.05)
    wait_for(lambda: is_being_made(bench.folder("toy")) and (bench.folder("toy") / "work" / "state.json").exists())
    process.kill()
    process.wait()
    worker = helpers(bench.folder("toy"))
    states = []
    made = bench.make("toy", on_progress=states.append)
    assert len(worker) == 1
    assert states
    assert made.made
    assert (made.ref.path / "log.txt").read_text().count("---") == 1  # started once


def test_a_killed_process_tree_resumes_where_it_was_and_ends_the_same(bench, tmp_path):
    bench.toy("undisturbed", note="same", steps=40)
    bench.toy(note="same", steps=40, step_seconds=0.03)
    expected = {name: output.sha256 for name, output in bench.make("undisturbed").manifest.outputs.items()}
    state, reached = bench.folder("toy") / "work" / "state.json", [0]
    while reached[-1] < 30:
        process = launcher(tmp_path, note="same", steps=40, step_seconds=0.03)
        wait_for(lambda: state.exists() and len(json.loads(state.read_text())) >= reached[-1] + 10)
        for victim in (process, *helpers(bench.folder("toy"))):
            victim.kill()
        process.wait()
        reached.append(len(json.loads(state.read_text())))
        assert bench.store.manifest("toy", bench.plan.specs["toy"].key) is None
    made = bench.make("toy")
    assert {name: output.sha256 for name, output in made.manifest.outputs.items()} == expected
    assert bench.store.verify(made.ref.path) == []
    assert reached == sorted(set(reached))  # each time from where it was


def test_a_helper_that_outlives_its_worker_does_not_keep_the_lock_for_ever(bench):
    bench.toy(act="leave_helper")
    with pytest.raises(StageFailed):
        bench.make("toy")
    assert bench.make("toy").made
    assert helpers(bench.folder("toy")) == []


def test_a_helper_of_a_killed_tree_is_ended_before_the_stage_runs_again(bench, tmp_path):
    bench.toy(act="sleep")
    process = launcher(tmp_path, act="sleep")
    wait_for(lambda: len(helpers(bench.folder("toy"))) == 2)
    worker = [p for p in helpers(bench.folder("toy")) if "allam.worker" in p.cmdline()]
    process.kill()
    worker[0].kill()
    process.wait()
    wait_for(lambda: not is_being_made(bench.folder("toy")))
    left = helpers(bench.folder("toy"))
    assert len(left) == 1
    with pytest.raises(StageFailed, match="ran longer"):
        bench.make("toy", bench.profile.model_copy(update={"timeout_hours": 0.0003}))
    assert not left[0].is_running() or left[0].status() == psutil.STATUS_ZOMBIE


def test_two_launchers_of_one_key_make_it_once(bench):
    bench.toy(steps=20, step_seconds=0.05)
    results = []
    threads = [threading.Thread(target=lambda: results.append(bench.make("toy"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert bench.store.verify(results[0].ref.path) == []
    assert not (results[0].ref.path / "work").exists()


def test_scratch_left_by_a_kill_after_the_manifest_is_removed(bench):
    bench.toy()
    (bench.make("toy").ref.path / "work").mkdir()
    made = bench.make("toy")
    assert (made.made, (made.ref.path / "work").exists()) == (False, False)


def test_a_file_larger_than_allowed_is_told_like_a_full_disk(bench):
    bench.toy(act="disk_full")
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20, before[1]))
    try:
        with pytest.raises(StageFailed, match="is full") as caught:
            bench.make("toy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "free some space" in caught.value.remedy
    assert not (bench.folder("toy") / "big.bin").exists()
    assert bench.make("toy").made


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_one_clear_message_and_the_next_run_goes_on(bench, tmp_path):
    (tmp_path / "store").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path / "store")], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        bench.toy(act="disk_full")
        with pytest.raises(StageFailed, match="is full") as caught:
            bench.make("toy")
        assert "free some space" in caught.value.remedy
        assert bench.store.manifest("toy", bench.plan.specs["toy"].key) is None
        assert not (bench.folder("toy") / "big.bin").exists()
        subprocess.run(["mount", "-o", "remount,size=100m", str(tmp_path / "store")], check=True)
        assert bench.make("toy").made
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "store")], check=True)


@pytest.mark.slow
def test_all_ranks_run_and_rank_0_alone_commits(bench):
    bench.toy(kind="toy_ranks", act="ranks")
    made = bench.make("toy", bench.profile.model_copy(update={"ranks": 2}))
    assert (made.made, made.manifest.world_size, made.manifest.metrics) == (True, 2, {"steps": 20})
    assert sorted(made.manifest.outputs) == ["lines.txt"]


@pytest.mark.slow
def test_two_launchers_of_one_stage_with_ranks_both_end(bench):
    bench.toy(kind="toy_ranks", act="ranks", step_seconds=0.1)
    results, profile = [], bench.profile.model_copy(update={"ranks": 2})
    threads = [threading.Thread(target=lambda: results.append(bench.make("toy", profile))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
