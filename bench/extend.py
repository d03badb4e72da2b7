"""Extension of a checkpoint beside a plain copy of its files (paper §2.2): is it bound by the disk, and within how much memory?

    python -m bench.extend [--quick] [--rounds 5]

A synthetic Llama in bf16 gets as many new rows as it has old ones: 16 shards of 0.1 GB (--quick: less than one). Both sides write to the same file system
and wait until the disk has it all. The stage proves old values and new rows on what it wrote, which the copy doesn't. Peak memory counts
everything that a process of its own adds after its imports, mapped files included, beside 1.5 times the largest shard.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from allam.train import extend
from allam.train.config import ExtendConfig
from bench._checkpoint import checkpoint, tokenizers
from bench._harness import Row, arguments, finish, in_turn

FULL, QUICK = (16_000, 2048, 14), (700, 64, 2)  # pieces, width, layers
MEGABYTE = 1e6


def extended(root: Path, out: Path) -> None:
    """Extends `root/model`; the proof by logits is left out, since it loads the model."""
    extend.run(ExtendConfig(logits_below=0), {"model": root, "base_tokenizer": root / "base_tokenizer", "tokenizer": root / "merged_tokenizer"}, out)


def peak_bytes(root: Path, out: Path) -> int:
    """What an extension adds at most to the resident memory of this process, whose imports and first use are done on a small model."""
    with tempfile.TemporaryDirectory() as name:
        small = Path(name)
        checkpoint(small, 700, 32, 1)
        tokenizers(small, 700, 100)
        extended(small, small / "out")
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    extended(root, out)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def peak_bytes_alone(root: Path, out: Path) -> int:
    """`peak_bytes` in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bench.extend", str(root), str(out)], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    given = arguments(__doc__ or "")
    pieces, width, layers = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        tokenizers(root, pieces, pieces if not given.quick else 100)
        largest = checkpoint(root, pieces, width, layers)
        total = sum(path.stat().st_size for path in (root / "model").iterdir()) / MEGABYTE

        def timed(ours: bool) -> float:
            out = root / "out"
            os.sync()
            start = time.perf_counter()
            if ours:
                extended(root, out)
            else:
                shutil.copytree(root / "model", out / "model")
            os.sync()
            rate = total / (time.perf_counter() - start)
            shutil.rmtree(out)
            return rate

        extended(root, root / "first")  # imports and caches
        shutil.rmtree(root / "first")
        ours, peer = in_turn(given.rounds, lambda: timed(True), lambda: timed(False))
        peak = peak_bytes_alone(root, root / "out")
    finish("extend", [Row(f"extension of {total:,.0f} MB", "MB/s", ours, peer, "copy", "higher", 1.0),
                      Row("peak memory", "MB", [peak / MEGABYTE], [largest / MEGABYTE], "largest shard", "lower", 1.5)],
           ["torch", "safetensors"], given.quick)


if __name__ == "__main__":
    if len(sys.argv) == 3 and not sys.argv[1].startswith("-"):
        print(peak_bytes(Path(sys.argv[1]), Path(sys.argv[2])))
    else:
        main()
