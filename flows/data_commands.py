"""`allam data ...`: what was dropped and why, tokens by licence, where a document went, and the ledger. Neither Prefect nor torch is needed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from allam.artifacts import Manifest
from allam.errors import UserError, did_you_mean
from flows.options import Json, Overrides, RecipeName, StorePath, print_json
from flows.run import Run, open_run, open_store
from flows.terminal import out, table
from tasks.words import number, size

data = typer.Typer(no_args_is_help=True, help="Look into the corpus: what was dropped, licences, where a document went, the ledger.")
SHOWN_CHARACTERS = 300


@data.command()
def dropped(recipe: RecipeName,
            reason: Annotated[str | None, typer.Option("--reason", help="Only this reason, such as spam or duplicate_url.")] = None,
            stage: Annotated[str | None, typer.Option("--stage", help="Only this stage, such as filter.")] = None,
            source: Annotated[str | None, typer.Option("--source", help="Only this source of the recipe.")] = None,
            show: Annotated[int, typer.Option("--show", min=0, help="Also show this many of the documents, of each source in turn.")] = 0,
            overrides: Overrides = None, store: StorePath = None, as_json: Json = False) -> None:
    """Count what the data stages dropped or set aside, by stage, source and reason, and show some of it."""
    from allam.audit.lost import losses, lost_records

    run = open_run(recipe, overrides or [], None, store)
    stages = [name for name, spec in run.plan.specs.items() if spec.stage.area == "data"]
    for option, value, names in (("--stage", stage, stages), ("--source", source, run.plan.recipe.data.sources)):
        if value is not None and value not in names:
            raise UserError(f"{option}: the recipe {run.plan.recipe.name!r} has no {option[2:]} {value!r}", did_you_mean(value, names))
    made = {name: found for name, found in _made(run, stages).items() if stage in (None, name)}
    if not made:
        raise UserError(f"{stage} is not made yet" if stage else "none of the data stages is made yet",
                        f"`allam run {recipe} --to {stage or stages[-1]}` makes {'it' if stage else 'them'}")
    rows = [row for name, (_, manifest) in made.items() for row in losses(name, manifest, source, reason)]
    if reason is not None and not rows:
        reasons = {row["reason"] for name, (_, manifest) in made.items() for row in losses(name, manifest, source)}
        raise UserError(f"nothing was dropped as {reason!r}", did_you_mean(reason, reasons) if reasons else "nothing was dropped at all")
    with_some = {name: [row["source"] for row in rows if row["stage"] == name] for name in made}
    records = [{"stage": name, **record} for name, record in islice(
        ((name, record) for name, (folder, _) in made.items() for record in lost_records(folder, dict.fromkeys(with_some[name]), reason)), show)]
    if as_json:
        print_json({"counts": rows, "records": records})
        return
    _print_table(("stage", "source", "reason", "documents"), [(r["stage"], r["source"], r["reason"], number(r["documents"])) for r in rows], ("documents",))
    for record in records:
        place = record.get("id") or f"{record['file']}, line {record['line']}"
        out.print(Text.assemble("\n", (f"{record['stage']}: {record['reason']}", "bold"), f"  {record['source']}  {_plain(place)}"))
        for line in (record.get("detail"), record.get("url"), record.get("text", record.get("excerpt"))):
            if line:
                out.print(Text("  " + _plain(line)))


@data.command()
def licences(recipe: RecipeName, overrides: Overrides = None, store: StorePath = None, as_json: Json = False) -> None:
    """Sum the tokens of the pack by licence and language; before there is a pack, documents and bytes of the corpus."""
    from allam.audit.licences import bytes_by_licence
    from allam.audit.packed import tokens_by_licence

    run = open_run(recipe, overrides or [], None, store)
    pack = _made(run, ["pack"]).get("pack")
    corpora = [folder for folder, _ in _made(run, [run.plan.specs["pack"].inputs[name] for name in ("natural", "translated")]).values()]
    if len(corpora) < 2:
        raise UserError("the corpus is not made yet", f"`allam run {recipe} --to {run.plan.specs['pack'].inputs['translated']}` makes it")
    rows = tokens_by_licence(pack[0], pack[1], corpora) if pack else bytes_by_licence(corpora)
    if as_json:
        print_json(rows)
        return
    what = "tokens" if pack else "bytes"
    total = sum(row[what] for row in rows) or 1
    _print_table(("licence", "language", "documents", what, "share"),
                 [(row["licence"] or "(none given)", row["component"], number(row["documents"]), number(row[what]) if pack else size(row[what]),
                   f"{100 * row[what] / total:.1f}%") for row in rows], ("documents", what, "share"))


@data.command()
def trace(name: Annotated[str, typer.Argument(help="The id of a document.", metavar="ID")], store: StorePath = None, as_json: Json = False) -> None:
    """List every artifact of the store that holds a document, its translations or its duplicates, and what was made from those."""
    from allam.audit.trace import trace as find

    place = open_store(store)
    found = find(place, name)
    if as_json:
        print_json(found)
    elif found:
        _print_table(("artifact", "stage", "holds", "where"), [tuple(row[c] for c in ("artifact", "stage", "holds", "where")) for row in found])
    else:
        out.print(Text(f"no artifact below {place.root} knows the document {name!r}"))


@data.command()
def ledger(recipe: RecipeName, overrides: Overrides = None, store: StorePath = None, as_json: Json = False) -> None:
    """Print planned and consumed tokens and epochs by language, kind and domain, for each phase of pretraining."""
    from allam.audit.ledger import ledger_rows, ledger_sums

    run = open_run(recipe, overrides or [], None, store)
    phases = {name: spec.inputs["mix"] for name, spec in run.plan.specs.items() if "mix" in spec.inputs and spec.stage.area == "train"}
    mixes, trainings = _made(run, phases.values()), _made(run, phases)
    if not mixes:
        raise UserError("no mix is made yet", f"`allam run {recipe} --to {next(iter(phases.values()))}` makes the first")
    rows = [row for name, mix in phases.items() if mix in mixes
            for row in ledger_rows(name, mixes[mix][1], trainings[name][0] if name in trainings else None)]
    if as_json:
        print_json(rows)
        return
    columns = ("phase", "language", "kind", "domain", "share", "planned", "consumed", "available", "epochs")
    _print_table(columns, [(r["phase"], r["language"], r["kind"], r["domain"], f"{100 * r['share']:.2f}%", number(r["planned"]),
                            "not yet" if r["consumed"] is None else number(r["consumed"]), number(r["available"]), f"{r['epochs']:.2f}")
                           for r in ledger_sums(rows)], columns[4:])


def _made(run: Run, names: Iterator[str] | Sequence[str] | Any) -> dict[str, tuple[Path, Manifest]]:
    """The stages among `names` that are done: folder and manifest."""
    found = {}
    for name in names:
        spec = run.plan.specs[name]
        manifest = run.store.manifest(spec.kind, spec.key)
        if manifest is not None:
            found[name] = run.store.folder(spec.kind, spec.key), manifest
    return found


def _plain(text: Any) -> str:
    """Text from outside as one line: without control characters, which could command the terminal, and not too long."""
    line = "".join(" " if c in "\n\t\r" else "" if unicodedata.category(c) == "Cc" else c for c in str(text)[: 2 * SHOWN_CHARACTERS])
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "..."


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    shown = table(*columns, right=right)
    for row in rows:
        shown.add_row(*(Text(_plain(cell)) for cell in row))
    out.print(shown)
