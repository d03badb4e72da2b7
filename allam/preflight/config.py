"""What a preflight measures, and what it puts up with. No part of a recipe: `allam preflight` fills it in."""

from __future__ import annotations

from allam.section import Section, assumed


class PreflightConfig(Section):
    """Sizes and bounds of the measurements before a long run."""

    at: str = assumed("each preflight is an artifact of its own", "when it was asked for, in ISO 8601")
    storage_bytes: int = assumed("longer than a controller's cache hides", "bytes that each node writes below the store and reads from its neighbour's file",
                                 256_000_000, ge=1)
    all_reduce_bytes: tuple[int, ...] = assumed("a small bucket of gradients and a large one", "sizes of the tensors that all ranks sum", (1 << 20, 1 << 26))
    compute_seconds: float = assumed("clocks of GPUs settle within it", "seconds of matrix products on each rank", 2.0, gt=0)
    min_share: float = assumed("nodes of one kind differ by a few percent", "share of the median node's rate below which a node is named as slow",
                               0.7, gt=0, le=1)
    max_clock_skew_seconds: float = assumed("logs, locks and credentials go by the clock", "largest difference to rank 0's clock", 1.0, gt=0)
