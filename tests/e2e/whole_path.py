"""The whole path of a recipe, run as a user runs it: `allam run` in a process of its own with its temporary Prefect server."""

import json
import os
import subprocess
import sys
from pathlib import Path

CODE = Path(__file__).parents[2]
TINY = CODE / "tests" / "tiny.yaml"


def environment() -> dict[str, str]:
    """This environment without Prefect's settings, with this checkout's code."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {"PYTHONPATH": str(CODE), "COLUMNS": "200", "NO_COLOR": "1"}


def command(recipe: object, store: Path, *arguments: object) -> list[str]:
    """The argv of `allam run`."""
    return [sys.executable, "-m", "flows.cli", "run", str(recipe), "--store", str(store), *map(str, arguments)]


def run(recipe: object, store: Path, *arguments: object) -> subprocess.CompletedProcess:
    """`allam run`, to its end."""
    return subprocess.run(command(recipe, store, *arguments), env=environment(), cwd=store.parent, capture_output=True, text=True, check=False)


def allam(*arguments: object) -> subprocess.CompletedProcess:
    """Any other word of the command."""
    return subprocess.run([sys.executable, "-m", "flows.cli", *map(str, arguments)], env=environment(), capture_output=True, text=True, check=False)


def manifests(store: Path) -> dict[str, dict]:
    """Every done artifact's manifest, by stage name and key."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in store.glob("*/*/manifest.json")]
    return {f"{manifest['name']}/{manifest['key']}": manifest for manifest in found}


def result_checksums(store: Path) -> dict[str, str]:
    """The checksum of every output of every artifact but those that tell of speed: telemetry, and the report that shows it."""
    return {f"{name}/{path}": output["sha256"] for name, manifest in manifests(store).items() for path, output in manifest["outputs"].items()
            if not path.startswith("telemetry") and manifest["kind"] != "report"}
