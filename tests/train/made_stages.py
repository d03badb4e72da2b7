"""Stages made one after the other, each in a folder of its own below one."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Stages:
    """Runs stages of the area `train` below `root` and keeps their metrics by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metrics: dict[str, dict[str, Any]] = {}

    def stage(self, name: str, module: Any, config: Any, **inputs: Path) -> Path:
        """The folder of what the stage made."""
        out = self.root / name
        (out / "work").mkdir(parents=True)
        self.metrics[name] = module.run(config, inputs | {"root": self.root}, out)
        return out
