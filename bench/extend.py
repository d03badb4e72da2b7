"""Extension of a checkpoint beside a plain copy of its files (paper §2.2): is it bound by the disk, and within how much memory?

    python -m bench.extend [--quick] [--rounds 5]

A synthetic Llama in bf16 gets as many new rows as it has old ones: 16 shards of 0.1 GB (--quick: less than one). Both sides begin with none of the
checkpoint in the page cache, write to the same file system, and end when the disk has every file. The stage proves old values and new rows on what it
wrote, which the copy doesn't. Three pairs in turn:

- as in a store, where shards without an embedding are links to the base's;
- where nothing can be linked, as across file systems: every byte is copied, and read again on both sides for the proof;
- as in a store, with the SHA-256 of all files, which a stage's manifest has; beside the copy with that of its files, one after another, as `sha256sum` does.

Rates are in the checkpoint's own bytes. Peak memory counts everything that a process of its own adds after its imports, mapped files included, beside
1.5 times the largest shard.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

from allam.artifacts import checksum_outputs, file_sha256
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
    gc.freeze()
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


def on_disk(folder: Path, *, forget: bool = False) -> None:
    """Waits until the disk has all files below a folder; with `forget` they leave the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            if forget:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


@contextlib.contextmanager
def without_links() -> Iterator[None]:
    """A store on another file system than the base's."""
    with mock.patch("os.link", side_effect=OSError(errno.EXDEV, "another file system")):
        yield


def timed(root: Path, make: Callable[[Path], object]) -> tuple[float, float]:
    """Seconds and processor seconds of `make(out)`, its files on the disk."""
    out = root / "out"
    on_disk(root / "model", forget=True)
    start, used = time.perf_counter(), time.process_time()
    make(out)
    on_disk(out)
    passed, worked = time.perf_counter() - start, time.process_time() - used
    shutil.rmtree(out)
    return passed, worked


def main() -> None:
    given = arguments(__doc__ or "")
    pieces, width, layers = QUICK if given.quick else FULL
    rows, used = list[Row](), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        tokenizers(root, pieces, pieces if not given.quick else 100)
        largest = checkpoint(root, pieces, width, layers)
        total = sum(path.stat().st_size for path in (root / "model").iterdir()) / MEGABYTE
        extended(root, root / "first")  # imports and caches
        shutil.rmtree(root / "first")
        gc.freeze()  # as in a stage's worker

        def extend_and_copy_all(out: Path) -> None:
            with without_links():
                extended(root, out)

        def extend_and_sum(out: Path) -> None:
            extended(root, out)
            checksum_outputs(out)

        def copy(out: Path) -> None:
            shutil.copytree(root / "model", out / "model")

        def copy_and_sum(out: Path) -> None:
            copy(out)
            for path in (out / "model").iterdir():
                file_sha256(path)

        def rate(make: Callable[[Path], object]) -> float:
            passed, worked = timed(root, make)
            used.setdefault(make.__name__, []).append(worked)
            return total / passed

        def extend_with_links(out: Path) -> None:
            extended(root, out)

        pairs = {f"extension of {total:,.0f} MB": (extend_with_links, copy, "copy", 1.0), "nothing linked": (extend_and_copy_all, copy, "copy", None),
                 "with checksums": (extend_and_sum, copy_and_sum, "copy and sha256sum", None)}
        for metric, (ours, peer, peer_name, target) in pairs.items():
            rows.append(Row(metric, "MB/s", *in_turn(given.rounds, partial(rate, ours), partial(rate, peer)), peer_name, "higher", target))
        rows.append(Row("processor time, with links", "s", used["extend_with_links"], used["copy"][:given.rounds], "copy", "lower"))
        peak = peak_bytes_alone(root, root / "out")
    rows.append(Row("peak memory", "MB", [peak / MEGABYTE], [largest / MEGABYTE], "largest shard", "lower", 1.5))
    finish("extend", rows, ["torch", "safetensors"], given.quick)


if __name__ == "__main__":
    if len(sys.argv) == 3 and not sys.argv[1].startswith("-"):
        print(peak_bytes(Path(sys.argv[1]), Path(sys.argv[2])))
    else:
        main()
