"""Ways of running a stage in processes of its own: on this machine (local.py), or as a job of Slurm's (slurm.py). The cluster profile chooses."""

from __future__ import annotations

from collections.abc import Mapping

from allam.artifacts import ArtifactRef, Store
from allam.cluster import ClusterProfile
from allam.launch import local, slurm
from allam.launch.folder import Made, OnProgress
from allam.pipeline import StageSpec


def make(spec: StageSpec, inputs: Mapping[str, ArtifactRef], store: Store, profile: ClusterProfile, on_progress: OnProgress | None = None) -> Made:
    """Sees to it that the stage's artifact is done, where the profile says that it runs. See `local.make`, whose contract both have."""
    launcher = slurm if profile.is_job(spec.stage.ranks) else local
    return launcher.make(spec, inputs, store, profile, on_progress)
