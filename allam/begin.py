"""A training that begins from another's checkpoint, since both have read the same up to there: `allam stage continue --checkpoint FOLDER` (paper §2.1).

Only `mix.changes` may differ between them (and `max_epochs`, which is a limit): from another model, text, order or schedule the result would not be what
its key says. That the mixes are the same up to the checkpoint's step is told by the tokens read of each domain.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from allam.artifacts import CHECKPOINTS, WORK, consumed, folder_lock, read_manifest, withdraw, write_atomic
from allam.errors import UserError
from allam.history import differences
from allam.train.config import ORDER_DOMAIN, PLAN

MAY_DIFFER = ("changes", "max_epochs")  # of a phase's mix


def begin_from(checkpoint: Path, folder: Path, job: Mapping[str, Any], *, again: bool = False) -> None:
    """Copies a checkpoint of another training, with its logs as far as they went then, into the work folder of the artifact that `job` (job.json) makes,
    for its training to go on from. With `again` what the artifact holds is removed, but not before the checkpoint is known to be of use.

    Raises `UserError` where it is none, or of a training that differs in more than later changes of its mix, or has read other data, or not one that a
    spike could roll back to; or where the artifact is done or has checkpoints of its own.
    """
    if folder.resolve() in checkpoint.resolve().parents:
        raise UserError(f"{checkpoint} is of this training itself", "leave --checkpoint away: a training goes on from its own checkpoints")
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        logs, recipe = dict[str, int](state["logs"]), state["recipe"]
        if checkpoint.name != f"step-{state['step']:08d}":  # a damaged one that was put aside, or a copy, which training would pass over
            raise ValueError
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{checkpoint} is no checkpoint, or has another's name ({type(error).__name__} at its state.json)",
                        "give a folder such as runs/continue/KEY/checkpoints/step-00001000") from None
    if others := differences(_compared(recipe), _compared(job)):
        raise UserError(f"{checkpoint} is of a training that differs in more than later changes of its mix: {', '.join(others)}",
                        "leave --checkpoint away, or give one of a training that is the same but for mix.changes")
    phase = job["config"]["phase"]
    found, wanted = consumed(state), consumed({"ledger": _planned(Path(job["paths"]["mix"]), state["step"])})
    if found != wanted:
        raise UserError(f"{checkpoint} has read other data than the mix names for its {state['step']} steps: {found}, not {wanted}",
                        "leave --checkpoint away, give an earlier one, or change the mix from a later position on")
    if phase["on_spike"] == "roll_back" and state["step"] % phase["roll_back_steps"]:
        raise UserError(f"{checkpoint.name} is between two multiples of roll_back_steps ({phase['roll_back_steps']}), and a spike would roll back to the first",
                        "give a checkpoint of such a multiple")
    written = {Path(name).name: checkpoint.parents[1] / Path(name).name for name in logs}
    if short := [path for name, path in written.items() if logs[name] and (not path.is_file() or path.stat().st_size < logs[name])]:
        raise UserError(f"{short[0]}, which {checkpoint.name} goes with, is missing or shorter than it was", "leave the checkpoint where its training put it")
    if again:
        withdraw(folder)
    target = folder / WORK / CHECKPOINTS / checkpoint.name
    with folder_lock(folder):
        if read_manifest(folder) is not None:
            raise UserError(f"{folder} is done already", "add --force to make it again from this checkpoint")
        if target.parent.is_dir() and any(target.parent.iterdir()):
            raise UserError(f"{target.parent} has checkpoints of this training already, from which it goes on",
                            "leave --checkpoint away, or remove that folder to begin from the one given")
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(checkpoint, temporary)
        for name, path in written.items():
            write_atomic(folder / WORK / name, path.read_bytes()[:logs[name]] if logs[name] else b"")
        temporary.rename(target)


def _planned(mix: Path, steps: int) -> dict[str, dict[str, int]]:
    """The ledger of a mix's first steps."""
    plan = json.loads((mix / PLAN).read_text(encoding="utf-8"))
    counts = np.bincount(np.load(mix / ORDER_DOMAIN, mmap_mode="r")[: steps * plan["global_batch"]], minlength=len(plan["domains"]))
    found: dict[str, dict[str, int]] = {}
    for (component, domain), count in zip(plan["domains"], counts.tolist(), strict=True):
        found.setdefault(component, {})[domain] = count * plan["sequence_length"]
    return found


def _compared(job: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same in both: the version, the inputs but for the mix, and the configuration but for what may differ in it."""
    config = job.get("config", {})
    phase = config.get("phase", {})
    mix = {name: value for name, value in phase.get("mix", {}).items() if name not in MAY_DIFFER}
    return {"version": job.get("version"), "inputs": {name: ref for name, ref in job.get("inputs", {}).items() if name != "mix"},
            "config": {**config, "phase": {**phase, "mix": mix}}}
