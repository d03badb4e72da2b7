"""Stages that do next to nothing, or what a test needs to go wrong. Each writes real outputs through the real worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from allam.artifacts import write_atomic
from allam.cluster import execution
from allam.errors import StageFailed, UserError
from allam.pipeline import STAGES, Stage
from allam.progress import Progress
from allam.section import Section


class ToyConfig(Section):
    """What the toy does."""

    act: Literal["count", "user_error", "failure", "crash", "killed", "ends_itself", "sleep", "environment",
                 "disk_full", "leave_helper", "ranks", "train"] = "count"
    steps: int = 20
    step_seconds: float = 0.0
    note: str = ""


def install() -> None:
    """Adds the kinds `toy` and `toy_ranks`."""
    STAGES["toy"] = Stage("data", "toy_stages", ToyConfig)
    STAGES["toy_ranks"] = Stage("train", "toy_stages", ToyConfig, ranks=True)


def run(config: ToyConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Counts to `steps`, resuming from work/, or does what `act` says."""
    if config.act == "train":
        return _train(config, out)
    act = globals().get(f"_{config.act}")
    if act is not None:
        act(config, inputs, out)
    return _count(config, inputs, out)


def _count(config: ToyConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    state = out / "work" / "state.json"
    lines = json.loads(state.read_text()) if state.exists() else []
    (out / "half.txt").write_text("not whole yet")
    with Progress("steps", config.steps, done=len(lines), what="counting") as progress:
        while len(lines) < config.steps:
            lines.append(f"{len(lines)} {config.note}")
            time.sleep(config.step_seconds)
            write_atomic(state, json.dumps(lines))
            progress.update(1, last=len(lines))
    (out / "half.txt").unlink()
    sources = [path.joinpath("lines.txt").read_text() for name, path in sorted(inputs.items()) if name != "root"]
    write_atomic(out / "lines.txt", "".join(f"{line}\n" for line in lines) + "".join(sources))
    return {"steps": len(lines)}


def _train(config: ToyConfig, out: Path) -> dict[str, Any]:
    """The tiny model of tests/engine on all ranks, at a pace that leaves time to kill it."""
    from tiny_training import make_trainer, train

    trainer = make_trainer(out / "work", config.steps, execution())
    done = train(trainer, config.step_seconds)
    if trainer.ranks.first:
        write_atomic(out / "weights.json", json.dumps({"sha256": done["weights"]}))
    trainer.finish(out)
    return {"steps": config.steps}


def _user_error(*_: object) -> None:
    raise UserError("toy.steps: 20 is a bad number", "take another")


def _failure(*_: object) -> None:
    raise StageFailed("the toy broke", "mend it")


def _crash(*_: object) -> None:
    print("last words", flush=True)
    os.abort()


def _ends_itself(*_: object) -> None:
    raise SystemExit("stopped by SIGTERM after step 3")


def _killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _sleep(*_: object) -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)


def _disk_full(config: ToyConfig, inputs: dict[str, Path], out: Path) -> None:
    with open(out / "big.bin", "wb") as file:
        for _ in range(64):
            file.write(b"\0" * (1 << 20))


def _leave_helper(config: ToyConfig, inputs: dict[str, Path], out: Path) -> None:
    """Once: a forked helper that keeps the lock outlives the worker's sudden death."""
    if (out / "work" / "left").exists():
        return
    (out / "work" / "left").touch()
    if os.fork() == 0:
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)


def _environment(config: ToyConfig, inputs: dict[str, Path], out: Path) -> None:
    names = ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "TOY", "RANK")
    write_atomic(out / "telemetry.json", json.dumps({n: os.environ.get(n) for n in names} | {"profile": execution().name, "cwd": os.getcwd()}))


def _ranks(config: ToyConfig, inputs: dict[str, Path], out: Path) -> None:
    """Every rank leaves its number in the scratch folder; rank 0 waits for all of them."""
    seen, size = out / "work" / "ranks", int(os.environ.get("WORLD_SIZE", "1"))
    seen.mkdir(exist_ok=True)
    (seen / os.environ.get("RANK", "0")).touch()
    while len(list(seen.iterdir())) < size:
        time.sleep(0.05)
    if os.environ.get("RANK", "0") != "0":
        sys.exit(0)
