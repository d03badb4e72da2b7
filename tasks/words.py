"""What a stage did, in words: for Prefect's UI, its logs and the terminal. Nothing here needs Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from allam.artifacts import Manifest

METRICS_SHOWN = 40


def duration(seconds: float) -> str:
    """`4.2 s`, `3:05` (minutes) or `2:03:05` (hours)."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(num_bytes: float) -> str:
    """Bytes with a decimal unit, as `ls --si` gives them."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def number(value: Any) -> str:
    """A figure for people: thousands apart, four significant digits of a fraction."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 and value == int(value) else f"{value:.4g}"


def progress_line(state: Mapping[str, Any]) -> str:
    """`step 120 of 400 (30%), 3.1 a second, 1:30 left, loss 2.31`."""
    total, rate, left = state.get("total"), state.get("rate") or 0, state.get("seconds_left")
    words = [f"{state['what']}: " if state.get("what") else "", f"{number(state['done'])}"]
    words += [f" of {number(total)} {state['unit']} ({100 * state['done'] / total:.0f}%)"] if total else [f" {state['unit']}"]
    words += [f", {number(round(rate)) if rate >= 10 else f'{rate:.2g}'} a second"] if rate else []
    words += [f", {duration(left)} left"] if left else []
    words += [f", {name} {number(value)}" for name, value in (state.get("info") or {}).items()]
    return "".join(words)


def made_markdown(manifest: Manifest, path: Path, made: bool) -> str:
    """The page in Prefect's UI that says what a stage made."""
    total = sum(output.size for output in manifest.outputs.values())
    lines = [f"## {manifest.name}: {'made' if made else 'reused, as it was done already'}", "", "| | |", "|---|---|",
             f"| key | `{manifest.key}` |", f"| folder | `{path}` |", f"| files | {len(manifest.outputs)}, {size(total)} in all |",
             f"| time | {duration(manifest.seconds)}, from {manifest.started_at} |", f"| peak memory | {size(manifest.peak_memory_bytes)} |",
             f"| ranks | {manifest.world_size} |", f"| made from | {_inputs(manifest)} |"]
    lines += [f"| adopted from | `{manifest.adopted_from}` |"] if manifest.adopted_from else []
    funnel = manifest.metrics.get("funnel")
    if isinstance(funnel, Mapping):
        lines += ["", "### Documents", "", "| source | in | out | dropped | set aside |", "|---|---:|---:|---|---|"]
        lines += [f"| {name} | {number(row['in'])} | {number(row['out'])} | {_counts(row.get('dropped'))} | {_counts(row.get('set_aside'))} |"
                  for name, row in funnel.items()]
    figures = [(name, value) for name, value in flat({k: v for k, v in manifest.metrics.items() if k != "funnel"})]
    if figures:
        lines += ["", "### Figures", "", "| figure | value |", "|---|---:|"]
        lines += [f"| {name} | {number(value)} |" for name, value in figures[:METRICS_SHOWN]]
        lines += [f"| ... | {len(figures) - METRICS_SHOWN} more in manifest.json |"] if len(figures) > METRICS_SHOWN else []
    return "\n".join(lines) + "\n"


def _counts(reasons: Mapping[str, int] | None) -> str:
    return ", ".join(f"{reason} {number(count)}" for reason, count in (reasons or {}).items() if count) or "0"


def flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The figures and short words inside nested mappings, with dotted names; lists are left out."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from flat(item, f"{where}.{name}" if where else str(name))
    elif isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= 80):
        yield where, value


def _inputs(manifest: Manifest) -> str:
    return ", ".join(f"{name} `{ref['key'][:16]}`" for name, ref in manifest.inputs.items()) or "files"
