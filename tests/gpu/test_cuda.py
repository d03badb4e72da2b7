"""What only a GPU can show: the Trainer in bf16 on CUDA learns, and a killed run ends with the weights of an undisturbed one.

    make test-gpu
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cuda_training
import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA: torch finds no GPU here (or is a CPU build), so NOTHING was tested on one"),
]

STEPS = 400
KILL_AFTER = (40, 150)  # steps whose checkpoint is waited for before each SIGKILL
RARELY = 1e6  # seconds between checkpoints
OFTEN = 0.05
GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by a Trainer in this process; each program needs a group of its own


def _launch(work: Path, checkpoint_seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, cuda_training.__file__, str(work), str(STEPS), str(checkpoint_seconds)],
                            env={name: value for name, value in os.environ.items() if name not in GROUP},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 0, text
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def _newest_step(work: Path) -> int:
    return max((int(p.name.split("-")[1]) for p in (work / "checkpoints").glob("step-*") if not p.name.endswith(".tmp")), default=0)


def test_training_in_bf16_on_cuda_lowers_the_loss(tmp_path: Path) -> None:
    done = cuda_training.train(tmp_path, 60, RARELY)
    assert done["device"] == "cuda"
    assert done["losses"][-1] < 0.8 * done["losses"][0]


def test_fused_kernels_change_nothing_but_rounding(tmp_path: Path) -> None:
    pytest.importorskip("liger_kernel", reason="NO LIGER: install allam[gpu]; its kernels were NOT tested")
    plain, fused = (cuda_training.train(tmp_path / str(kernels), 20, RARELY, fused_kernels=kernels) for kernels in (False, True))
    assert fused["losses"] == pytest.approx(plain["losses"], rel=2e-2)  # bf16
    assert fused["weights"] != plain["weights"]  # the kernels were at work


def test_compiled_blocks_change_nothing_but_rounding(tmp_path: Path) -> None:
    plain, compiled = (cuda_training.train(tmp_path / str(blocks), 20, RARELY, compile_blocks=blocks) for blocks in (False, True))
    assert compiled["losses"] == pytest.approx(plain["losses"], rel=2e-2)  # bf16


def test_killed_twice_and_resumed_a_run_on_cuda_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = _outcome(_launch(tmp_path / "whole", RARELY))
    work, killed_at = tmp_path / "killed", []
    for after in KILL_AFTER:
        process = _launch(work, OFTEN)
        while process.poll() is None and _newest_step(work) < after:
            time.sleep(0.005)
        process.kill()
        text = process.communicate()[0]
        assert process.returncode == -9, f"the kill did not land: {text}"
        killed_at.append(_newest_step(work))
    resumed = _outcome(_launch(work, RARELY))
    assert STEPS > resumed["resumed"] >= killed_at[-1] > killed_at[0] > 0
    assert resumed["weights"] == whole["weights"]
    assert resumed["losses"] == whole["losses"][resumed["resumed"]:]
