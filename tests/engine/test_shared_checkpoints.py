"""Ranks share the work of a checkpoint: each writes some of the tensors and checks some of the files; what goes wrong on one is known to all."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
from pathlib import Path

import pytest
import torch

from allam.engine import checkpoint
from allam.engine.device import join

TENSORS = {f"weight/layer{i}": torch.full((1000 + i,), float(i)) for i in range(7)}


def _rank(rank: int, port: int, folder: str, most_bytes: int | None, answers: multiprocessing.Queue[tuple[int, str]]) -> None:
    """Saves, unless rank 1 may write files of so many bytes only; then flips a byte of a file of rank 1 and looks for the newest sound checkpoint."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    ranks = join()
    if most_bytes is not None and rank == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        for step in (1, 2):
            checkpoint.save(Path(folder), step, TENSORS.items(), {"by": "rank 0"}, ranks)
    except OSError as error:
        answers.put((rank, f"could not write: {error}"))
        return
    if ranks.first:
        path = checkpoint.place(Path(folder), 2) / "00001.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    ranks.barrier()
    said: list[str] = []
    found = checkpoint.newest(Path(folder), ranks, said.append)
    assert found is not None
    answers.put((rank, f"{found['step']} {' '.join(said)}"))
    ranks.barrier()


def _two_ranks(folder: Path, most_bytes: int | None = None) -> dict[int, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[int, str]] = context.Queue()  # type: ignore[assignment]
    processes = [context.Process(target=_rank, args=(rank, port, str(folder), most_bytes, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    return found


@pytest.fixture(autouse=True)
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_each_rank_writes_some_tensors_and_damage_in_the_file_of_one_is_known_to_all(tmp_path: Path) -> None:
    found = _two_ranks(tmp_path)
    sound = checkpoint.place(tmp_path, 1)
    assert sorted(path.name for path in sound.iterdir()) == ["00000.safetensors", "00001.safetensors", "state.json"]
    read = checkpoint.Reader(sound)
    assert all(torch.equal(read(name), tensor) for name, tensor in TENSORS.items())
    assert found == {0: "1 checkpoint step-00000002 is damaged (00001.safetensors differs from its checksum); falling back to the one before", 1: "1 "}


def test_where_one_rank_cannot_write_all_ranks_stop_and_no_checkpoint_counts(tmp_path: Path) -> None:
    found = _two_ranks(tmp_path, most_bytes=1000)
    assert set(found) == {0, 1}
    assert all("could not write" in told and "00001.safetensors" in told for told in found.values()), found
    assert checkpoint.steps(tmp_path) == []
