"""A real Prefect server and a real worker: deploy as a user does, trigger by deployment, and lose the worker on the way."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from small import write_small_recipe

from allam.artifacts import file_sha256
from flows.server import TemporaryServer

CODE = Path(__file__).parents[2]
PATIENCE = 240  # seconds in which a server must answer
pytestmark = pytest.mark.slow


class Server:
    """A server with its own home, and what a user types against it."""

    def __init__(self, root: Path) -> None:
        self.root, self.recipe, self.store = root, write_small_recipe(root), root / "store"
        port = TemporaryServer(root / "unused").port
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = os.environ | {
            "PREFECT_HOME": str(root / "home"), "PREFECT_API_URL": self.url, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "ALLAM_STORE": str(self.store), "PREFECT_WORKER_QUERY_SECONDS": "2", "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.log = open(root / "server.log", "w")  # noqa: SIM115 (the processes write to it until the end)
        self.processes = [self.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")]
        self.wait_for(self.answers, 180)

    def start(self, *command: str) -> subprocess.Popen:
        """Starts a process of its own session."""
        return subprocess.Popen([sys.executable, "-m", *command], env=self.environment, cwd=self.root, stdout=self.log, stderr=self.log, start_new_session=True)

    def type(self, *command: str) -> None:
        """Runs a command in the repository's folder, in a terminal where nobody answers questions."""
        argv = ["script", "--quiet", "--return", "--command", shlex.join([sys.executable, "-m", *command]), os.devnull]
        done = subprocess.run(argv, env=self.environment, cwd=CODE, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr

    def has_pool(self) -> bool:
        """Whether a worker has made the pool."""
        return bool(self.api("/work_pools/filter", {}))

    def api(self, path: str, body: object = None) -> object:
        """Calls the server's API, and again, as Prefect's own client does, where SQLite is locked and the server says 503 or nothing at all.

        On a busy machine it said nothing for more than a minute once.
        """
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=content, headers={"Content-Type": "application/json"})
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=90) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline:
                    raise
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            return bool(self.api("/health"))
        except OSError:
            return False

    def wait_for(self, condition, seconds: float) -> None:
        """Waits until `condition()` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.root / "server.log").read_text()[-4000:]
            time.sleep(0.5)

    def trigger(self, to: str, flow: str = "pipeline", **more: object) -> str:
        """Runs a flow's deployment; returns the run's id."""
        deployment = self.api(f"/deployments/name/{flow}/allam")
        parameters = {"recipe": str(self.recipe), "to": to, "store": str(self.store)} | more
        once = {"idempotency_key": uuid.uuid4().hex}  # so that asking again makes no second run
        return str(self.api(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters} | once)["id"])

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(self.api(f"/flow_runs/{run}")["state_type"])

    def kill(self, process: subprocess.Popen) -> None:
        """Kills a process and all its descendants at once, as a power cut does."""
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for victim in tree:
            victim.send_signal(signal.SIGKILL)
        process.wait()

    def close(self, first: int = 0) -> None:
        """Ends what still runs, from a process on: the server is the first."""
        for process in self.processes[first:]:
            if process.poll() is None:
                self.kill(process)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    try:
        first = running.start("prefect", "worker", "start", "--pool", "allam", "--type", "process")
        running.processes.append(first)
        running.wait_for(running.has_pool, 120)
        running.kill(first)
        running.type("prefect", "deploy", "--all")
        running.type("flows.automations")
        running.type("flows.automations")  # a second time changes nothing
        yield running
    finally:
        running.close()


@pytest.fixture(autouse=True)
def no_worker_outlives_its_test(server: Server) -> Iterator[None]:
    """It would take the next test's runs, and knows nothing of their cluster."""
    yield
    server.close(first=1)


class Jobs:
    """Stages as Slurm jobs of a store of their own; each waits at its start while the gate is closed."""

    def __init__(self, server: Server, name: str, ranks: int = 1) -> None:
        self.store, self.gate, self.profile = server.root / name, server.root / f"{name}.closed", server.root / f"{name}.yaml"
        lines = [f"while [ -e {self.gate} ]; do sleep 0.2; done"]
        self.profile.write_text(json.dumps({
            "launcher": "slurm", "ranks": ranks, "threads": 1, "micro_batch": 4, "device": "cpu", "checkpoint_seconds": 0.2,
            "slurm": {"stages": "all" if ranks == 1 else "ranks", "nodes": ranks, "poll_seconds": 0.5, "memory": "2000", "lines": lines}}))

    def queued(self) -> list[tuple[str, str]]:
        """Number and state of all jobs of this store, the first one first."""
        told = subprocess.run(["squeue", "--noheader", "--states=all", "--sort=i", "--format=%i %T %Z"], capture_output=True, text=True, check=True).stdout
        return [(line.split()[0], line.split()[1]) for line in told.splitlines() if str(self.store) in line]

    def states(self) -> list[str]:
        """The states alone."""
        return [state for _, state in self.queued()]


def test_every_flow_is_deployed_and_the_pipeline_and_the_data_on_a_schedule(server):
    deployments = {d["entrypoint"]: d for d in server.api("/deployments/filter", {})}
    assert sorted(deployments) == ["flows.align.align", "flows.data.data", "flows.evaluation.evaluation", "flows.pipeline.pipeline",
                                   "flows.tokenizer.tokenizer", "flows.train.train"]
    schedule = deployments["flows.pipeline.pipeline"]["schedules"][0]["schedule"]
    assert (schedule["cron"], schedule["timezone"]) == ("0 2 * * *", "Asia/Riyadh")
    schedule = deployments["flows.data.data"]["schedules"][0]["schedule"]
    assert (schedule["cron"], schedule["timezone"]) == ("0 1 * * *", "Asia/Riyadh")
    assert deployments["flows.data.data"]["parameters"]["store"] == str(server.store)
    assert len(server.api("/automations/filter", {})) == 2
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    server.wait_for(lambda: {run["auto_scheduled"] for run in server.api("/flow_runs/filter", scheduled)} == {True}, 120)


def test_the_form_of_every_flow_says_what_its_parameters_mean(server):
    for deployment in server.api("/deployments/filter", {}):
        fields = deployment["parameter_openapi_schema"]["properties"]
        assert sorted(fields) == ["cluster", "force", "overrides", "recipe", "store", "to"]
        assert all(field["description"] for field in fields.values()), deployment["entrypoint"]


def test_a_run_triggered_by_deployment_completes_and_says_what_it_made(server):
    worker = server.start("prefect", "worker", "start", "--pool", "allam")
    server.processes.append(worker)
    run = server.trigger("dedup")
    server.wait_for(lambda: server.state(run) in ("COMPLETED", "FAILED", "CRASHED"), 600)
    assert server.state(run) == "COMPLETED"
    server.wait_for(lambda: len(server.api("/artifacts/filter", {})) >= 3, 30)
    pages = {artifact["key"]: artifact["data"] for artifact in server.api("/artifacts/filter", {}) if artifact["type"] == "markdown"}
    assert sorted(pages) == ["dedup", "filter", "ingest"]
    assert "| web_en | 3 | 3 |" in pages["filter"]
    assert all(str(artifact["description"]).startswith("small: ") for artifact in server.api("/artifacts/filter", {}) if artifact["type"] == "markdown")
    tasks = {task["name"]: task for task in server.api("/task_runs/filter", {})}
    assert tasks["filter: make"]["state_type"] == "COMPLETED"
    assert tasks["filter: make"]["tags"] == ["data"]
    again = server.trigger("dedup")
    server.wait_for(lambda: server.state(again) in ("COMPLETED", "FAILED", "CRASHED"), 600)
    server.wait_for(lambda: "filter: reuse" in {task["name"] for task in server.api("/task_runs/filter", {})}, 30)


def test_scheduled_runs_of_the_data_read_only_the_file_that_is_new(server):
    root = server.root / "nightly"
    recipe, store = write_small_recipe(root), root / "store"
    (root / "raw" / "english").mkdir()
    (root / "raw" / "web_en.jsonl").rename(root / "raw" / "english" / "1.jsonl")
    recipe.write_text(recipe.read_text().replace("path: web_en.jsonl", "path: english"))
    worker = server.start("prefect", "worker", "start", "--pool", "allam")
    server.processes.append(worker)
    parameters = [f"--param={name}={value}" for name, value in (("recipe", recipe), ("to", "dedup"), ("store", store))]
    server.type("prefect", "--no-prompt", "deploy", "flows.data.data", "--name", "nightly", "--pool", "allam", "--interval", "45", "--concurrency-limit", "1",
                *parameters)
    deployment = server.api("/deployments/name/data/nightly")["id"]

    def completed() -> list[str]:
        wanted = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        runs = server.api("/flow_runs/filter", wanted)
        assert all(run["auto_scheduled"] for run in runs)
        return [run["id"] for run in runs]

    def parts() -> list[dict[str, int]]:
        manifests = sorted(store.glob("ingest/*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_text())["metrics"]["files"] for path in manifests]

    server.wait_for(lambda: completed() and len(parts()) == 1, 600)
    assert parts() == [{"read": 2, "reused": 0}]
    new = {"id": "new", "text": "word " * 40, "url": "https://example.org/new"}
    (root / "2.jsonl").write_text(json.dumps(new) + "\n")
    (root / "2.jsonl").rename(root / "raw" / "english" / "2.jsonl")
    server.wait_for(lambda: len(list(store.glob("dedup/*/manifest.json"))) == 2, 600)
    assert parts() == [{"read": 2, "reused": 0}, {"read": 1, "reused": 2}]
    runs = len(completed())
    server.wait_for(lambda: len(completed()) > runs + 1, 600)  # the run at hand, and one that finds nothing new
    assert len(parts()) == 2
    pages = server.api("/artifacts/filter", {"artifacts": {"key": {"any_": ["filter"]}, "flow_run_id": {"any_": completed()}}})
    assert {page["description"].split("; ")[-1] for page in pages if "made in" in page["description"]} == {"shards: 2 filtered, 0 reused",
                                                                                                       "shards: 1 filtered, 2 reused"}
    logs = [line["message"] for line in server.api("/logs/filter", {"logs": {"flow_run_id": {"any_": completed()}}})]
    assert any("english/2.jsonl added" in message for message in logs)
    server.type("prefect", "--no-prompt", "deployment", "delete", "data/nightly")


def test_a_run_whose_worker_was_killed_is_marked_as_crashed_and_goes_on_elsewhere(server):
    first = server.start("prefect", "worker", "start", "--pool", "allam")
    server.processes.append(first)
    server.recipe.write_text(server.recipe.read_text() + "\n")
    with open(server.root / "raw" / "web_en.jsonl", "a") as file:
        file.write('{"id": "more", "text": "One more line.", "url": "https://example.org/more"}\n')
    run = server.trigger("dedup")
    server.wait_for(lambda: len(list(server.store.glob("ingest/*/.lock"))) == 2, 200)
    server.kill(first)
    assert server.state(run) == "RUNNING"
    server.wait_for(lambda: server.state(run) in ("CRASHED", "SCHEDULED"), 600)
    second = server.start("prefect", "worker", "start", "--pool", "allam")
    server.processes.append(second)
    server.wait_for(lambda: server.state(run) == "COMPLETED", 600)
    assert len(list(server.store.glob("dedup/*/manifest.json"))) == 2


def test_a_two_node_training_outlives_the_killed_worker_and_ends_with_the_same_weights(server, slurm_cluster):
    server.environment["SLURM_CONF"] = os.environ["SLURM_CONF"]
    recipe, more = str(CODE / "tests" / "tiny.yaml"), "train.pretrain.tokens=131072"
    undisturbed, jobs = Jobs(server, "undisturbed", ranks=2), Jobs(server, "killed", ranks=2)
    server.type("flows.cli", "run", recipe, "--to", "pretrain", "--set", more, "--store", str(undisturbed.store), "--cluster", str(undisturbed.profile))
    shutil.copytree(undisturbed.store, jobs.store, ignore=shutil.ignore_patterns("pretrain"))
    first = server.start("prefect", "worker", "start", "--pool", "allam")
    server.processes.append(first)
    run = server.trigger("pretrain", recipe=recipe, overrides=[more], cluster=str(jobs.profile), store=str(jobs.store))
    server.wait_for(lambda: list(jobs.store.glob("pretrain/*/work/checkpoints/step-????????")), 600)
    jobs.gate.touch()
    server.kill(first)
    subprocess.run(["scontrol", "requeue", jobs.queued()[0][0]], check=True)
    server.wait_for(lambda: server.state(run) in ("CRASHED", "SCHEDULED"), 600)
    server.wait_for(lambda: jobs.states() == ["RUNNING"], 60)
    second = server.start("prefect", "worker", "start", "--pool", "allam")
    server.processes.append(second)
    server.wait_for(lambda: server.state(run) == "RUNNING", 600)
    jobs.gate.unlink()
    server.wait_for(lambda: server.state(run) == "COMPLETED", 600)
    server.wait_for(lambda: jobs.states() == ["COMPLETED"], 60)  # one job, from the beginning to the end
    log = next(jobs.store.glob("pretrain/*/log.txt")).read_text()
    assert log.count(", start ") == 2
    assert "resumed from step-" in log
    weights = [file_sha256(next(store.glob("pretrain/*/model/model.safetensors"))) for store in (undisturbed.store, jobs.store)]
    assert weights[0] == weights[1]


def test_cancelling_a_run_cancels_its_job(server, slurm_cluster):
    server.environment["SLURM_CONF"] = os.environ["SLURM_CONF"]
    server.processes.append(server.start("prefect", "worker", "start", "--pool", "allam"))
    jobs = Jobs(server, "cancelled")
    jobs.gate.touch()
    run = server.trigger("ingest", cluster=str(jobs.profile), store=str(jobs.store))
    server.wait_for(lambda: jobs.states() == ["RUNNING"], 600)
    server.api(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    server.wait_for(lambda: jobs.states() == ["CANCELLED"], 120)
    server.wait_for(lambda: server.state(run) == "CANCELLED", 120)
