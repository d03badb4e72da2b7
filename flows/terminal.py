"""What the `allam` command writes: a live line a stage, tables, and errors. Colours follow the terminal and NO_COLOR."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from allam.artifacts import Manifest, Store
from allam.errors import AllamError
from allam.history import Status
from allam.launch.folder import Made
from allam.pipeline import Plan
from allam.progress import untold
from allam.train.estimate import Estimate
from tasks.words import duration, parts_line, progress_line, size

SECONDS_BETWEEN_LINES = 15.0  # where the output is a log
WIDTH_OF_LOGS = 200
out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
if not out.is_terminal and "COLUMNS" not in os.environ:
    out = Console(highlight=False, soft_wrap=True, width=WIDTH_OF_LOGS)
COLOURS = {"done": "green", "would run": "yellow", "files missing": "red", "being made": "cyan", "damaged": "red"}


def show_error(error: AllamError) -> None:
    """One clear message and its remedy, on the error stream."""
    err.print(Text("error: ", "bold red") + Text(error.message))
    if error.remedy:
        err.print(Text("  -> ", "bold") + Text(error.remedy))


class LiveLines:
    """A line a stage: while it runs what progress it makes, then what became of it. In a log, a plain line every 15 seconds."""

    def __init__(self, names: Iterable[str]) -> None:
        self.width = max((len(name) for name in names), default=0)
        self.live: Live | None = None
        self.begun = self.written = time.monotonic()
        self.notes: set[str] = set()  # what the stage warned of so far

    def started(self, name: str) -> None:
        """A stage begins."""
        self.begun = self.written = time.monotonic()
        self.notes.clear()
        self._close()
        if out.is_terminal:
            self.live = Live(self._line("...", name, "starting"), console=out, transient=True, refresh_per_second=4)
            self.live.start()

    def progressed(self, name: str, state: Mapping[str, Any]) -> None:
        """A stage reports progress, and what it warns of, once."""
        show_warnings(f"{name}: {note}" for note in untold(state, self.notes))
        if self.live is not None:
            self.live.update(self._line("...", name, progress_line(state)))
        elif time.monotonic() - self.written >= SECONDS_BETWEEN_LINES:
            self.written = time.monotonic()
            out.print(self._line("...", name, progress_line(state)))

    def finished(self, name: str, made: Made) -> None:
        """A stage is done."""
        self._close()
        total = size(sum(output.size for output in made.manifest.outputs.values()))
        if made.made:
            out.print(self._line("made", name, f"{duration(time.monotonic() - self.begun):>11}  {total:>9}  {parts_line(made.manifest)}", "green"))
        else:
            out.print(self._line("reused", name, f"{'':>11}  {total:>9}", "dim"))

    def failed(self, name: str, error: BaseException) -> None:
        """A stage failed; the error itself is shown at the end."""
        self._close()
        out.print(self._line("failed", name, duration(time.monotonic() - self.begun), "red"))

    def _close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _line(self, word: str, name: str, rest: str, colour: str = "cyan") -> Text:
        return Text.assemble((f"{word:>7}", colour), f"  {name:<{self.width}}  {rest}", no_wrap=True, overflow="ellipsis")


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table in the house's style; the columns named in `right` hold figures."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        result.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    return result


def show_plan(statuses: list[Status], estimates: Mapping[str, Estimate], devices: str, notes: Iterable[str] = ()) -> None:
    """The stages with key, state and reason; below, what training will take on `devices`, and `notes` on it."""
    stages = table("stage", "key", "state", "why")
    for status in statuses:
        stages.add_row(status.spec.name, status.spec.key[:12], Text(status.state, COLOURS[status.state]), Text(status.why))
    out.print(stages)
    if estimates:
        out.print()
        figures = ("tokens", "flops", "device_hours", "days", "kwh", "kg_co2")
        columns = ("tokens", "FLOPs", "device hours", "days", "kWh", "kg CO2")
        costs = table("to be trained", *columns, right=columns)
        for name, cost in estimates.items():
            costs.add_row(name, *(quantity(getattr(cost, figure), figure) for figure in figures))
        if len(estimates) > 1:
            costs.add_row("in all", *(quantity(sum(getattr(cost, figure) for cost in estimates.values()), figure) for figure in figures))
        out.print(costs)
        out.print(devices)
        for name, cost in estimates.items():
            if cost.assumes:
                out.print(Text(f"{name}: {cost.assumes}"))
        for note in notes:
            out.print(Text(note))
    counts = {state: sum(s.state == state for s in statuses) for state in COLOURS}
    out.print("\n" + ", ".join(f"{count} {state}" for state, count in counts.items() if count))


def show_warnings(warnings: Iterable[str]) -> None:
    """What the recipe may do but probably shouldn't."""
    for warning in warnings:
        out.print(Text("warning: ", "bold yellow") + Text(warning))


def quantity(value: float, figure: str = "") -> str:
    """A figure with a unit of thousands: 1.20T, 55.0k, 0.42; very large ones with an exponent. A thousand million tokens are a billion, as all say."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    for factor, unit in ((1e15, ""), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value:.2e}" if not unit else f"{value / factor:.3g}{'B' if figure == 'tokens' and unit == 'G' else unit}"
    return f"{value:.2g}"


# --- results --------------------------------------------------------------------------------------------------------------------

def show_results(plan: Plan, store: Store) -> None:
    """What came of a run: bits per byte and the benchmarks of each model, and where the report lies."""
    rows = results(plan, store)
    if rows:
        fields = list(dict.fromkeys(field for figures in rows.values() for field in figures))
        shown = table("model", *fields, right=fields)
        for model, figures in rows.items():
            shown.add_row(model, *(figures.get(field, "") for field in fields))
        out.print()
        out.print(shown)
    report = report_file(plan, store)
    if report is not None:
        out.print(f"\nreport: {report}")


def results(plan: Plan, store: Store) -> dict[str, dict[str, str]]:
    """{model: {figure: value}} from the benchmarks that are done, in the order in which the models are made."""
    rows: dict[str, dict[str, str]] = {}
    for spec in plan.specs.values():
        folder = store.folder(spec.kind, spec.key)
        if spec.kind != "benchmarks" or store.manifest(spec.kind, spec.key) is None:
            continue
        figures = {f"bits/byte {language}": f"{value:.3f}" for language, value in _read(folder / "bits_per_byte.json").items()
                   if isinstance(value, (int, float))}
        figures |= {name: f"{100 * result['accuracy']:.1f}%" for name, result in _read(folder / "results.json").items()
                    if isinstance(result, dict) and isinstance(result.get("accuracy"), (int, float))}
        rows[spec.inputs["model"]] = figures
    return rows


def report_file(plan: Plan, store: Store) -> str | None:
    """The report's HTML file, where it is made."""
    spec = plan.specs["report"]
    if store.manifest(spec.kind, spec.key) is None:
        return None
    pages = sorted(store.folder(spec.kind, spec.key).glob("*.html"))
    return str(pages[0]) if pages else None


def _read(path: Any) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def show_manifest(manifest: Manifest, figures: Iterable[tuple[str, Any]]) -> None:
    """One artifact: what made it, from what, and what is in it."""
    facts = table("", "")
    facts.show_header = False
    for name, value in (("stage", manifest.name), ("kind", f"{manifest.kind}, version {manifest.version}"), ("key", manifest.key),
                        ("made", f"{manifest.started_at}, in {duration(manifest.seconds)}, {size(manifest.peak_memory_bytes)} of memory, "
                                 f"{manifest.world_size} rank{'s' if manifest.world_size > 1 else ''}"),
                        ("revision", manifest.git_revision or "unknown"), ("adopted from", manifest.adopted_from),
                        ("from", ", ".join(f"{n} {ref['kind']}/{ref['key'][:16]}" for n, ref in manifest.inputs.items()) or "files")):
        if value:
            facts.add_row(name, str(value))
    out.print(facts)
    for title, rows in (("configuration", manifest.config), ("versions", manifest.versions)):
        out.print(f"\n[bold]{title}[/bold]")
        out.print_json(json.dumps(rows, ensure_ascii=False))
    out.print("\n[bold]figures[/bold]")
    for name, value in figures:
        out.print(Text(f"  {name}  {value}"))
    out.print("\n[bold]files[/bold]")
    for name, output in manifest.outputs.items():
        out.print(Text(f"  {size(output.size):>9}  {output.sha256[:12]}  {name}"))
