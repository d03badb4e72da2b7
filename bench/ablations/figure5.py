"""The paper's Figure 5: the start of continued pretraining, with new rows made by `mean` of old ones and drawn at random (paper §2.2).

    python -m bench.ablations.figure5 [--set data.root=...] [--recipe proxy] [--tokens 300000] [--seeds 3] [--store runs] [--quick]

Runs the recipe up to `continue` for both methods and each seed, which is that of the drawn rows and of the order of the text; what comes before `extend` is
made once. Under one seed both methods read the same text in the same order. Writes bench/results/ablations.figure5.json and docs/images/figure5.svg.
`--quick` trains `demo` for a few steps with one seed and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from allam.artifacts import Store
from allam.pipeline import make_plan
from allam.recipe import load
from allam.report.lines import Line, line_chart
from allam.report.svg import Chart
from bench._harness import REAL_DATA, write_result

IMAGE = Path(__file__).parents[2] / "docs" / "images" / "figure5.svg"
METHODS = {"mean": "#0f7b6c", "random": "#c2571a"}
STYLE = ("svg { background: #fff } text { font: 12px system-ui, sans-serif; fill: #5b6470 } .label { fill: #1c2430 } .grid { stroke: #e3e6ea } "
         ".axis { stroke: #5b6470 } .line { fill: none; stroke-width: 1.5; stroke: currentColor } "
         + " ".join(f".{name} {{ color: {colour}; }} text.{name} {{ fill: {colour}; font-weight: 600 }}" for name, colour in METHODS.items()))
EVALUATIONS = 12

Course = dict[str, list[dict[str, Any]]]


def course(recipe: str, store: Path, overrides: Sequence[str]) -> Course:
    """One continued pretraining: the rows of its metrics.jsonl and evals.jsonl."""
    options = [word for value in overrides for word in ("--set", value)]
    subprocess.run([sys.executable, "-m", "flows.cli", "run", recipe, "--to", "continue", "--store", str(store), *options], check=True)
    spec = make_plan(load(recipe, tuple(overrides)), store / "files.json").specs["continue"]
    folder = Store(store).folder(spec.kind, spec.key)
    return {name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()] for name in ("metrics", "evals")}


def bits(found: Course, language: str) -> list[tuple[float, float]]:
    """(tokens, bits per byte) of held-out text."""
    return [(float(row["tokens"]), float(row["bits_per_byte"][language])) for row in found["evals"]]


def training_loss(found: Course) -> list[tuple[float, float]]:
    """(tokens, loss) of each step."""
    return [(float(row["tokens"]), float(row["loss"])) for row in found["metrics"]]


def draw(courses: dict[str, list[Course]]) -> str:
    """Three charts beside each other: training loss, and bits per byte of both languages; one line for each seed."""
    def chart(series: Any, title: str, unit: str) -> Chart:
        lines = [Line(method, method, series(found)) for method in METHODS for found in courses[method]]
        return line_chart(lines, title, "tokens of continued pretraining", unit, width=360, height=270)

    charts = [chart(training_loss, "Training loss", "training loss (nats a token)"),
              chart(lambda found: bits(found, "ar"), "Held-out Arabic", "held-out Arabic (bits per byte)"),
              chart(lambda found: bits(found, "en"), "Held-out English", "held-out English (bits per byte)")]
    names = "".join(f'<text x="{50 + 90 * i}" y="16" class="{method}">{method}</text>' for i, method in enumerate(METHODS))
    inner = "".join(str(c.svg).replace("<svg ", f'<svg x="{i * 370}" y="24" ', 1) for i, c in enumerate(charts))
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1110 300" width="1110" height="300"><style>{STYLE}</style>{names}{inner}</svg>\n'


def report(courses: dict[str, list[Course]]) -> list[dict[str, Any]]:
    """Prints and returns, for each evaluation and method, the mean and the range over the seeds."""
    table = Table("tokens", "method", "Arabic", "English", title="held-out bits per byte: mean (least to most of the seeds)")
    rows = []
    for i, (tokens, _) in enumerate(bits(courses["mean"][0], "ar")):
        for method, found in courses.items():
            values = {language: [bits(one, language)[i][1] for one in found] for language in ("ar", "en")}
            rows.append({"tokens": int(tokens), "method": method, "bits_per_byte": values})
            table.add_row(f"{tokens:,.0f}", method, *(f"{statistics.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in values.values()))
    Console().print(table)
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="proxy")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the recipe; may be repeated")
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        with tempfile.TemporaryDirectory() as store:
            few = ["train.pretrain.tokens=8192", "train.continue.tokens=8192", *given.set]
            report({method: [course("demo", Path(store), [*few, f"train.extend.method={method}"])] for method in METHODS})
        return
    phase = load(given.recipe, tuple(given.set)).train.continued
    every = max(1, given.tokens // (phase.global_batch * phase.sequence_length) // EVALUATIONS)
    root = [f"data.root={REAL_DATA}"] if given.recipe == "proxy" and not any(v.startswith("data.root=") for v in given.set) else []
    common = [*root, *given.set, f"train.continue.tokens={given.tokens}", f"train.continue.eval_every={every}"]
    courses = {method: [course(given.recipe, given.store, [*common, f"train.extend.method={method}", f"train.extend.seed={seed}",
                                                           f"train.continue.mix.seed={seed}"]) for seed in range(given.seeds)] for method in METHODS}
    write_result("ablations.figure5", ("torch", "deepspeed", "transformers"), rows=report(courses),
                 loss={method: [training_loss(found) for found in some] for method, some in courses.items()})
    IMAGE.write_text(draw(courses), encoding="utf-8")


if __name__ == "__main__":
    main()
