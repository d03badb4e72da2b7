"""Stage `report`: one self-contained HTML page about a run, and summary.json with its headline figures.

Everything on the page comes from the artifacts and manifests of the plan's other stages; what is missing is left out, so that a run that has
only data and tokenizers has a report too. The page needs no network: no script, no font, no image from outside, and a policy that forbids them.
Alone: `allam stage report --recipe RECIPE`. How to read it: docs/report.md.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from allam.artifacts import write_atomic, write_json
from allam.pipeline import ReportConfig
from allam.report import words
from allam.report.alignment import alignment_section
from allam.report.data import distribution_section, funnel_section
from allam.report.evaluation import answer_section, benchmark_section, vote_section
from allam.report.mixture import fertility_section, mixture_section
from allam.report.read import Artifacts
from allam.report.stages import recipe_section, time_section, version_section
from allam.report.summary import cards, summarize
from allam.report.training import asked_section, bits_section, loss_section

TEMPLATES = Path(__file__).parent / "templates"


def run(config: ReportConfig, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Writes report.html and summary.json into `out`; returns the names of the sections and the headline's rows."""
    artifacts = Artifacts(inputs)
    summary = summarize(artifacts)
    sections = {
        "funnel": funnel_section(artifacts), "distributions": distribution_section(artifacts), "fertility": fertility_section(artifacts),
        "mixture": mixture_section(artifacts), "loss": loss_section(artifacts), "bits": bits_section(artifacts), "asked": asked_section(artifacts),
        "benchmarks": benchmark_section(artifacts), "alignment": alignment_section(artifacts), "answers": answer_section(artifacts),
        "votes": vote_section(artifacts), "time": time_section(artifacts), "versions": version_section(artifacts), "recipe": recipe_section(artifacts),
    }
    page = render(summary, sections, config.recipe)
    write_atomic(out / "report.html", page)
    write_json(out / "summary.json", summary)
    return {"sections": [name for name, content in sections.items() if content], "bytes": len(page.encode()), "headline": summary["table"]}


def render(summary: dict[str, Any], sections: dict[str, Any], recipe_name: str) -> str:
    """The page. All text from outside is escaped by the template engine; the style sheet alone is let through, by its checksum."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for name in ("compact", "decimal", "percent", "change", "duration", "size", "isolated", "direction", "sentence", "plain", "scalar"):
        environment.filters[name] = getattr(words, name)
    environment.filters["number"] = words.count  # jinja's own `count` is another word for length
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8").strip()
    policy = f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'; base-uri 'none'; form-action 'none'"
    return environment.get_template("report.html").render(
        style=Markup(style), policy=policy, recipe_name=recipe_name, summary=summary, cards=cards(summary), **sections)
