"""The measurements, on real ranks of this machine through the launcher that training uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from allam.artifacts import Store, artifact_key
from allam.cluster import ClusterProfile
from allam.launch import make
from allam.pipeline import PREFLIGHT, StageSpec
from allam.preflight import probe
from allam.preflight.config import PreflightConfig


def test_two_ranks_measure_each_other_through_the_launcher_of_a_training_stage(tmp_path: Path) -> None:
    config = PreflightConfig(at="now", storage_bytes=3_000_000, all_reduce_bytes=(4096, 1 << 20), compute_seconds=0.05)
    spec = StageSpec(PREFLIGHT, PREFLIGHT, config, {}, artifact_key(PREFLIGHT, 1, config.model_dump(mode="json"), {}), tmp_path)
    made = make(spec, {}, Store(tmp_path), ClusterProfile(ranks=2, threads=1, device="cpu"))
    assert made.manifest.metrics == {"ranks": 2, "nodes": 1, "problems": 0}
    found = json.loads((made.ref.path / "preflight.json").read_text(encoding="utf-8"))
    assert [row["rank"] for row in found["ranks"]] == [0, 1]
    assert all(row["compute_tflops"] > 0 and abs(row["clock_skew_s"]) < 0.5 for row in found["ranks"])
    assert found["ranks"][0]["write_mb_s"] > 0
    assert found["ranks"][0]["read_mb_s"] > 0
    assert [row["bytes"] for row in found["all_reduce"]] == [4096, 1 << 20]
    assert all(row["bus_gb_s"] == pytest.approx(row["bytes"] / row["seconds"] / 1e9) for row in found["all_reduce"])  # 2 (n - 1) / n is 1 of two ranks
    assert found["links"] == []
    assert set(made.manifest.outputs) == {"preflight.json"}


def test_what_a_neighbour_wrote_is_read_back_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "probe-3.bin"
    assert probe._write(path, bytes([3]) * 1000, 2500) > 0
    assert probe._read(path, 3, 2500) > 0
    with pytest.raises(OSError, match="holds other bytes"):
        probe._read(path, 4, 2500)
    with pytest.raises(OSError, match="has 2500 bytes, 2501 were written"):
        probe._read(path, 3, 2501)


@pytest.mark.parametrize("count", range(1, 8))
def test_every_link_of_the_ring_is_measured_once_and_no_node_twice_at_a_time(count: int) -> None:
    pairs, phases = probe.ring(list(range(count)))
    assert len(pairs) == (count if count > 2 else count - 1)
    assert sorted(pair for phase in phases for pair in phase) == sorted(pairs)
    for phase in phases:
        busy = [rank for pair in phase for rank in pair]
        assert len(busy) == len(set(busy))
