"""`allam run` with its temporary server, as a user calls it on a laptop."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from small import write_small_recipe

CODE = Path(__file__).parents[2]


def run(root: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """`allam run small.yaml` with no server configured."""
    return subprocess.run(command(root, *arguments), cwd=root, env=clean(environment), capture_output=True, text=True)


def command(root: Path, *arguments: object) -> list[str]:
    """The argv."""
    return [sys.executable, "-m", "flows.cli", "run", "small.yaml", "--store", "store", *map(str, arguments)]


def clean(more: dict[str, str] | None = None) -> dict[str, str]:
    """This environment without Prefect's settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {"PYTHONPATH": str(CODE)} | (more or {})


def rows(root: Path, query: str) -> list[tuple]:
    """What the temporary server wrote into its database."""
    with sqlite3.connect(root / "store" / ".prefect" / "prefect.db") as database:
        return database.execute(query).fetchall()


@pytest.mark.slow
def test_a_run_makes_then_reuses_then_makes_again_what_is_forced(tmp_path):
    write_small_recipe(tmp_path)
    first = run(tmp_path, "--to", "dedup")
    assert (first.returncode, first.stderr) == (0, "")
    assert [line.split()[:2] for line in first.stdout.splitlines()] == [["made", "ingest"], ["made", "filter"], ["made", "dedup"]]
    start = time.process_time()
    second = run(tmp_path, "--to", "dedup")
    assert time.process_time() - start < 15
    assert [line.split()[:2] for line in second.stdout.splitlines()] == [["reused", "ingest"], ["reused", "filter"], ["reused", "dedup"]]
    forced = run(tmp_path, "--to", "dedup", "--force", "filter")
    assert [line.split()[:2] for line in forced.stdout.splitlines()] == [["reused", "ingest"], ["made", "filter"], ["made", "dedup"]]
    assert set(rows(tmp_path, "select name, state_type from flow_run")) == {("pipeline small", "COMPLETED"), ("data small", "COMPLETED")}
    names = [name for (name,) in rows(tmp_path, "select name from task_run where flow_run_id in (select id from flow_run where name = 'data small')")]
    assert sorted(names) == sorted(["ingest: make", *["ingest: reuse"] * 2, *["filter: make"] * 2, "filter: reuse", *["dedup: make"] * 2, "dedup: reuse"])
    assert len(rows(tmp_path, "select 1 from artifact where type = 'markdown'")) == 9
    assert set(json.loads((tmp_path / "store" / "plans" / "small.json").read_text())["stages"]) == {"ingest", "filter", "dedup"}


@pytest.mark.slow
def test_a_mistake_found_by_a_stage_ends_the_run_with_status_2_without_a_retry(tmp_path):
    write_small_recipe(tmp_path)
    (tmp_path / "raw" / "web_ar.jsonl").write_text("")
    done = run(tmp_path, "--to", "dedup")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("error:") == 1
    assert "web_ar" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.split()[:2] == ["failed", "ingest"]
    assert rows(tmp_path, "select run_count from task_run where name = 'ingest: make'") == [(1,)]


@pytest.mark.slow
def test_a_run_whose_whole_tree_is_killed_goes_on_and_leaves_no_server_behind(tmp_path):
    write_small_recipe(tmp_path)
    process = subprocess.Popen(command(tmp_path, "--to", "dedup"), cwd=tmp_path, env=clean(), stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("store/filter/*/.lock")) and time.monotonic() < deadline:
        time.sleep(0.01)
    servers = [p for p in psutil.Process(process.pid).children() if "uvicorn" in p.cmdline()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(servers) == 1
    psutil.wait_procs(servers, timeout=30)
    assert not servers[0].is_running()
    done = run(tmp_path, "--to", "dedup")
    assert done.returncode == 0, done.stdout + done.stderr
    verified = subprocess.run([sys.executable, "-m", "flows.cli", "verify", "--store", "store"], cwd=tmp_path, env=clean(), capture_output=True, text=True)
    assert "3 artifacts are what their manifests say" in verified.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
@pytest.mark.parametrize("when", ["at first", "on the way"])
def test_a_full_disk_ends_a_run_with_one_clear_message_and_nothing_done(tmp_path, when):
    write_small_recipe(tmp_path)
    (tmp_path / "store").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(tmp_path / "store")], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        if when == "on the way":
            assert run(tmp_path, "--to", "ingest").returncode == 0
        free = os.statvfs(tmp_path / "store").f_bavail * os.statvfs(tmp_path / "store").f_frsize
        subprocess.run(["fallocate", "-l", str(free - 40_000), str(tmp_path / "store" / "ballast")], check=True)
        done = run(tmp_path, "--to", "dedup")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "full" in done.stderr
        assert "free some space" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        for manifest in tmp_path.glob("store/*/*/manifest.json"):
            json.loads(manifest.read_text())
        assert not list(tmp_path.glob("store/dedup/*/manifest.json"))
        (tmp_path / "store" / "ballast").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=200m", str(tmp_path / "store")], check=True)
        again = run(tmp_path, "--to", "dedup")
        assert again.returncode == 0, again.stdout + again.stderr
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "store")], check=True)
