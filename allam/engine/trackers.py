"""Training curves beside the artifact's own: TensorBoard event files, and Weights & Biases, where the cluster profile asks for them.

The artifact's metrics.jsonl stays the truth; these are views of it, for people who watch many runs. A tracker that fails says so once and is left,
since no training may stop for a picture of it. Weights & Biases takes its key and mode from its own environment variables (WANDB_API_KEY;
WANDB_MODE=offline on machines without a network).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from allam.cluster import ClusterProfile
from allam.errors import UserError

Track = Callable[[int, dict[str, float]], None]


def open_trackers(profile: ClusterProfile, folder: Path, start_step: int) -> Track:
    """A function that takes a step and its values by name; it does nothing where the profile names no tracker.

    `folder` is the artifact's, whose kind and key name the run; what an earlier process wrote from `start_step` on is replaced. Raises `UserError`
    where a tracker is not installed.
    """
    name = f"{folder.parent.name}-{folder.name}"
    opened = [_Careful(make(target, name, start_step)) for target, make in ((profile.tensorboard, _tensorboard), (profile.wandb_project, _wandb)) if target]

    def track(step: int, values: dict[str, float]) -> None:
        for tracker in opened:
            tracker(step, values)

    return track


def flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row and of the rows within it: `loss_by_component/en` and so on."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + name, float(value)


class _Careful:
    """Calls a tracker until it fails."""

    def __init__(self, track: Track) -> None:
        self._track: Track | None = track

    def __call__(self, step: int, values: dict[str, float]) -> None:
        if self._track is None:
            return
        try:
            self._track(step, values)
        except Exception as error:  # a full disk, a server that is gone: whatever a library raises
            print(f"warning: {type(error).__name__} from a tracker, which is left out from now on: {error}", flush=True)
            self._track = None


def _tensorboard(folder: str, name: str, start_step: int) -> Track:
    _require("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(Path(folder).expanduser() / name), purge_step=start_step + 1 if start_step else None)  # type: ignore[no-untyped-call]

    def track(step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)  # type: ignore[no-untyped-call]

    return track


def _wandb(project: str, name: str, start_step: int) -> Track:
    _require("wandb_project", "wandb")
    import wandb

    run = wandb.init(project=project, name=name, id=name, resume="allow")

    def track(step: int, values: dict[str, float]) -> None:
        run.log(values, step=step)

    return track


def _require(field: str, module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UserError(f"the cluster profile's {field} needs {module}, which is not installed", f"pip install {module}, or take the field out of the profile")
