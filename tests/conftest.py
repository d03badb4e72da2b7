"""What tests of several folders share: a real Slurm cluster on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)  # the same examples each time; `--hypothesis-profile default` looks for new ones
settings.load_profile("repeatable")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in the background; tests of Ctrl-C would wait forever
    signal.signal(signal.SIGINT, signal.default_int_handler)

CLUSTER = Path(__file__).parents[1] / "infra" / "slurm" / "cluster.py"


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two nodes and a spare one, made by infra/slurm/cluster.py; SLURM_CONF is set while it stands. Returns its folder."""
    if any(shutil.which(daemon, path=f"{os.environ['PATH']}:/usr/sbin") is None for daemon in ("slurmctld", "slurmd", "munged")):
        pytest.skip("NO SLURM HERE, so that nothing was tried on a cluster: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("cluster") / "slurm"
    subprocess.run([sys.executable, CLUSTER, "start", folder, "--nodes", "3"], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield folder
    finally:
        del os.environ["SLURM_CONF"]
        subprocess.run([sys.executable, CLUSTER, "stop", folder], check=True)
