"""What a stage did, in words: for Prefect's UI, its logs and the terminal. Nothing here needs Prefect."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from allam.artifacts import Manifest

ROWS_SHOWN = 40
BAR, EIGHTHS = 16, " ▏▎▍▌▋▊▉"  # characters of the longest bar of a distribution, and what fills a part of one
PARTS = ("files", "shards")  # what a stage that links an earlier artifact's outputs counts
STATISTICS = "statistics.json"  # the stage `filter` leaves there what it measured, by source
LANGUAGES = {"ar": "Arabic", "en": "English"}


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s` or `2 h 03 min`, as in the report."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


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
    """`120 of 400 steps (30%), 3.1 a second, 1 min 30 s left, loss 2.31`."""
    total, rate, left = state.get("total"), state.get("rate") or 0, state.get("seconds_left")
    words = [f"{state['what']}: " if state.get("what") else "", f"{number(state['done'])}"]
    words += [f" of {number(total)} {state['unit']} ({100 * state['done'] / total:.0f}%)"] if total else [f" {state['unit']}"]
    words += [f", {number(round(rate)) if rate >= 10 else f'{rate:.2g}'} a second"] if rate else []
    words += [f", {duration(left)} left"] if left else []
    words += [f", {name} {number(value)}" for name, value in (state.get("info") or {}).items()]
    return "".join(words)


def done_line(state: Mapping[str, Any]) -> str:
    """How far a stage came, without what lay ahead: `pretraining: 120 of 400 steps (30%), loss 2.31`."""
    return progress_line({**state, "rate": None, "seconds_left": None})


def made_line(manifest: Manifest, made: bool) -> str:
    """`made in 3 min 05 s, 2.5 MB; files: 1 read, 364 reused`, without the last part where there are none, or `reused, 2.5 MB`."""
    total = size(sum(output.size for output in manifest.outputs.values()))
    told = parts_line(manifest)
    return f"made in {duration(manifest.seconds)}, {total}{'; ' if told else ''}{told}" if made else f"reused, {total}"


def parts_line(manifest: Manifest) -> str:
    """`files: 1 read, 364 reused` of a stage that links what an earlier artifact has of it; nothing of the others."""
    for name in PARTS:
        if "reused" in manifest.metrics.get(name, ()):
            return f"{name}: {', '.join(f'{number(count)} {verb}' for verb, count in manifest.metrics[name].items())}"
    return ""


def made_markdown(manifest: Manifest, path: Path, made: bool) -> str:
    """The page in Prefect's UI that says what a stage made."""
    total = sum(output.size for output in manifest.outputs.values())
    lines = [f"## {manifest.name}: {'made' if made else 'reused, as it was done already'}", "",
             f"| artifact | `{manifest.kind}/{manifest.key[:16]}` |", "|---|---|",
             f"| folder | `{path}` |", f"| files | {len(manifest.outputs)}, {size(total)} in all |",
             f"| time | {duration(manifest.seconds)}, from {manifest.started_at.replace('T', ' ').replace('+00:00', ' UTC')} |",
             f"| peak memory | {size(manifest.peak_memory_bytes)} |", f"| ranks | {manifest.world_size} |"]
    lines += [f"| {'this run' if made else 'when it was made'} | {told} |"] if (told := parts_line(manifest)) else []
    lines += [f"| from, as {name} | `{ref['kind']}/{ref['key'][:16]}` |" for name, ref in manifest.inputs.items()]
    lines += [f"| adopted from | `{manifest.adopted_from}` |"] if manifest.adopted_from else []
    metrics = {name: value for name, value in manifest.metrics.items() if not (told and name in PARTS)}
    funnel = metrics.pop("funnel", None)
    if isinstance(funnel, Mapping) and funnel:
        lines += _funnel(funnel)
    tables = {name: rows for name, value in metrics.items() if _is_table(rows := list(_rows(value)), value)}
    figures = [[name, value] for name, value in flat({name: value for name, value in metrics.items() if name not in tables})]
    if figures:
        lines += _table("Figures", ["figure", "value"], figures)
    for name, rows in tables.items():
        columns = _columns(rows)
        lines += _table(name.replace("_", " ").capitalize(), ["", *(c.replace("_", " ") for c in columns)],
                        [[where, *(row.get(column, "") for column in columns)] for where, row in rows])
    for name, (columns, bins) in distributions(manifest, path).items():
        lines += _histograms(name.replace("_", " "), columns, bins)
    return "\n".join(lines) + "\n"


def _funnel(funnel: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of documents by source, with a line for all of several."""
    rows = {name: [row["in"], row["out"], Counter(row.get("dropped")), Counter(row.get("set_aside"))] for name, row in funnel.items()}
    if len(rows) > 1:
        rows["**all**"] = [sum(column[1:], start=column[0]) for column in zip(*rows.values(), strict=True)]
    lines = ["", "### Documents", "", "| source | in | out | kept | dropped | set aside |", "|---|---:|---:|---:|---|---|"]
    return lines + [f"| {name} | {number(before)} | {number(after)} | {f'{after / before:.1%}' if before else ''} | {_counts(dropped)} | {_counts(aside)} |"
                    for name, (before, after, dropped, aside) in rows.items()]


def _histograms(measure: str, languages: Sequence[str], bins: Sequence[Sequence[Any]]) -> list[str]:
    """A table of bins, with a bar beside each language's figures, the longest of each of the same length."""
    most = [max(counts) or 1 for counts in list(zip(*bins, strict=True))[1:]]
    lines = ["", f"### Documents by {measure}", "", f"| {measure} | {' | '.join(f'{language} |' for language in languages)} |",
             "|---|" + "---:|---|" * len(languages)]
    return lines + [f"| {bounds} | {' | '.join(f'{number(count)} | {bar(count / top)}' for count, top in zip(counts, most, strict=True))} |"
                    for bounds, *counts in bins]


def bar(share: float) -> str:
    """A bar of characters; a share above 0 shows at least as a line."""
    eighths = max(round(8 * BAR * share), 1 if share > 0 else 0)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).strip()


def distributions(manifest: Manifest, path: Path) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """By measure of the stage `filter`: the languages, and for each bin that holds documents its bounds and their number in each language."""
    if manifest.kind != "filter":
        return {}
    try:
        statistics = json.loads((path / STATISTICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sources, found = manifest.config.get("sources", {}), dict[str, dict[str, list[int]]]()
    edges = {name: histogram["edges"] for measures in statistics.values() for name, histogram in measures.items()}
    for source, measures in statistics.items():
        language = LANGUAGES.get(sources.get(source, {}).get("language"), "other")
        for name, histogram in measures.items():
            sums = found.setdefault(name, {}).setdefault(language, [0] * len(histogram["counts"]))
            found[name][language] = [a + b for a, b in zip(sums, histogram["counts"], strict=True)]
    return {name: (list(by_language), [[f"{low:g} to {high:g}", *counts] for low, high, *counts
                                       in zip(edges[name][:-1], edges[name][1:], *by_language.values(), strict=True) if any(counts)])
            for name, by_language in found.items()}


def _columns(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(column for _, row in rows for column in row))


def _is_table(rows: Sequence[tuple[str, Mapping[str, Any]]], value: Any) -> bool:
    """Whether `rows` hold all figures of a metric, and fill at least a third of their table."""
    cells = sum(len(row) for _, row in rows)
    return len(rows) > 1 and cells == len(list(flat(value))) and 3 * cells >= len(rows) * len(_columns(rows))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table whose first column names its rows; the rest are figures."""
    lines = ["", f"### {title}", "", f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    lines += [f"| {' | '.join(number(cell) for cell in row)} |" for row in rows[:ROWS_SHOWN]]
    return lines + ([f"| {len(rows) - ROWS_SHOWN} more in manifest.json |" + " |" * (len(columns) - 1)] if len(rows) > ROWS_SHOWN else [])


def _rows(value: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a table inside nested mappings, such as those of languages and domains; nothing where the innermost ones are of other shapes."""
    if not isinstance(value, Mapping) or not value:
        return
    if all(isinstance(item, Mapping) for item in value.values()):
        for name, item in value.items():
            yield from _rows(item, f"{where}, {name}" if where else str(name))
    elif where and not any(isinstance(item, (Mapping, list)) for item in value.values()):
        yield where, value


def _counts(reasons: Mapping[str, int] | None) -> str:
    return ", ".join(f"{reason} {number(count)}" for reason, count in (reasons or {}).items() if count) or "0"


def flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The figures and short words inside nested mappings, with dotted names; lists are left out."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from flat(item, f"{where}.{name}" if where else str(name))
    elif isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= 80):
        yield where, value
