"""What a preflight says of its measurements: which node, which figure, and nothing where all is well."""

from __future__ import annotations

from typing import Any

from allam.preflight.config import PreflightConfig
from allam.preflight.verdict import link_rates, problems

CONFIG = PreflightConfig(at="2026-01-01T00:00:00+00:00")


def rank(node: str, **different: Any) -> dict[str, Any]:
    return {"node": node, "python": "3.12.3", "torch": "2.9.0", "driver": "570.86", "gpus": 8, "clock_skew_s": 0.002, "compute_tflops": 650.0,
            "write_mb_s": 2000.0, "read_mb_s": 5000.0} | different


def test_like_nodes_have_no_problem() -> None:
    links = [{"nodes": [a, b], "gb_s": 45.0} for a, b in (("n1", "n2"), ("n2", "n3"), ("n3", "n1"))]
    assert problems([rank(node) for node in ("n1", "n1", "n2", "n2", "n3", "n3")], links, CONFIG) == []


def test_a_node_with_another_driver_is_named_beside_what_the_others_have() -> None:
    found = problems([rank("n1"), rank("n2", driver="550.54"), rank("n3")], [], CONFIG)
    assert found == ["driver: n2 has 550.54; the others have 570.86"]


def test_a_node_is_as_slow_as_its_slowest_rank() -> None:
    found = problems([rank("n1"), rank("n1"), rank("n2"), rank("n2", compute_tflops=390.0), rank("n3")], [], CONFIG)
    assert found == ["n2: computes at 390 TFLOP/s, 60% of the median node's 650"]


def test_a_node_at_exactly_the_least_share_is_not_slow() -> None:
    assert problems([rank("n1"), rank("n2", write_mb_s=1400.0), rank("n3")], [], CONFIG) == []
    assert len(problems([rank("n1"), rank("n2", write_mb_s=1399.0), rank("n3")], [], CONFIG)) == 1


def test_a_clock_that_is_behind_is_named_with_its_difference() -> None:
    found = problems([rank("n1"), rank("n2", clock_skew_s=-7.25), rank("n2", clock_skew_s=-7.2)], [], CONFIG)
    assert found == ["n2: its clock is 7.2 s behind rank 0's; check its time service (chronyc tracking)"]


def test_a_slow_node_is_the_one_without_a_fast_link() -> None:
    ring = [("n1", "n2", 45.0), ("n2", "n3", 11.0), ("n3", "n4", 12.0), ("n4", "n1", 44.0)]
    links = [{"nodes": [a, b], "gb_s": rate} for a, b, rate in ring]
    assert link_rates(links) == {"n1": 45.0, "n2": 45.0, "n3": 12.0, "n4": 44.0}
    assert problems([rank(f"n{i}") for i in range(1, 5)], links, CONFIG) == ["n3: exchanges with its neighbours at 12 GB/s, 27% of the median node's 45"]


def test_of_two_nodes_neither_is_blamed_for_their_link() -> None:
    assert link_rates([{"nodes": ["n1", "n2"], "gb_s": 0.1}]) == {}


def test_a_store_that_a_node_cannot_see_comes_first() -> None:
    found = problems([rank("n1"), rank("n2", storage_error="cannot read what n1 wrote", torch="2.8.0"), rank("n3")], [], CONFIG)
    assert found == ["n2: cannot read what n1 wrote", "torch: n2 has 2.8.0; the others have 2.9.0"]
