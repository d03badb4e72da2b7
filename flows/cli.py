"""The `allam` command. `plan`, `stage`, `ls`, `show`, `verify`, `adopt`, `lock` and `recipes` need neither Prefect nor torch; `run` is the Prefect flow.

Exit status: 0 done, 2 the user's mistake, 1 a failure. ALLAM_DEBUG=1 shows the traceback of an error.
"""

from __future__ import annotations

import datetime
import errno
import os
import shutil
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from allam.artifacts import MANIFEST, Manifest, adopt, changed_outputs, read_manifest, stage_name, withdraw
from allam.begin import begin_from
from allam.cluster import profile_names
from allam.costs import beside_the_paper, training_costs
from allam.errors import AllamError, ArtifactError, StageFailed, UserError
from allam.files import lock_path, write_lock
from allam.fits import misfits
from allam.history import explain, record, remade
from allam.launch import make
from allam.launch.folder import Made, job
from allam.pipeline import make_plan
from allam.recipe import load, locate, packaged
from allam.train.config import PretrainStageConfig
from allam.versions import git_revision, versions
from flows.data_commands import data
from flows.export_command import export
from flows.options import Cluster, Force, Json, Key, Keys, Overrides, RecipeName, RecipeOption, StageName, StorePath, To, print_json
from flows.preflight import preflight
from flows.run import Run, inputs_of, open_run, open_store, refuse_what_cannot_run
from flows.terminal import LiveLines, out, report_file, results, show_error, show_manifest, show_plan, show_results, show_warnings, table
from tasks.words import flat, number, size

ROOM_TO_WORK = 2_000_000  # bytes; with less, Prefect's database, too, fails in ways that don't name the disk
DAYS_OF_A_LAPTOP = 30  # whoever plans more than that has a cluster
STATUS_OF_CTRL_C = 130  # typer's, for KeyboardInterrupt
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]},
                  help="From raw English and Arabic text and an English-centred model to an aligned bilingual model and a report.")
app.add_typer(data, name="data")
app.command()(export)
app.command()(preflight)


@app.command()
def plan(recipe: RecipeName, to: To = None, force: Force = None, overrides: Overrides = None, cluster: Cluster = None, store: StorePath = None,
         as_json: Json = False) -> None:
    """Show every stage: its key, whether it is done, why not, and what training will take. Runs nothing."""
    run = open_run(recipe, overrides or [], cluster, store)
    statuses = explain(run.plan, run.store, to, force or [])
    costs = training_costs(run.plan, run.profile)
    warnings = [*misfits(run.plan, run.profile, [s.spec for s in statuses if s.state != "done"]), *run.plan.warnings]
    if as_json:
        stages = [{"name": s.spec.name, "kind": s.spec.kind, "key": s.spec.key, "state": s.state, "why": s.why, "missing": list(s.spec.problems),
                   "folder": str(run.store.folder(s.spec.kind, s.spec.key)),
                   "estimate": asdict(costs[s.spec.name]) if s.spec.name in costs else None} for s in statuses]
        print_json({"recipe": run.plan.recipe.name, "store": str(run.store.root), "cluster": run.profile.name, "warnings": warnings,
                     "stages": stages})
    else:
        to_train = {s.spec.name: costs[s.spec.name] for s in statuses if s.state != "done" and s.spec.name in costs}
        notes = [beside_the_paper(run.plan.recipe.name, run.profile)] if to_train and cluster else []
        if cluster is None and sum(cost.days for cost in to_train.values()) > DAYS_OF_A_LAPTOP:
            notes.append(f"no --cluster was given, so these are a laptop's: give a profile, as in `allam plan {recipe} --cluster node8` "
                         f"(there are {', '.join(profile_names()[1:])}; or your own file)")
        unknown = [s.spec.name for s in statuses if s.state != "done" and s.spec.kind in ("sft", "dpo") and s.spec.name not in costs]
        if to_train and unknown:
            notes.append(f"{', '.join(unknown)}: not counted, since no conversation can be read where the recipe's align section says")
        show_plan(statuses, to_train, f"on {run.profile.ranks} x {run.profile.peak_tflops:g} TFLOP/s at {run.profile.utilisation:.0%} of it "
                  f"(profile {run.profile.name})", [note for note in notes if note])
        show_warnings(warnings)


@app.command()
def run(recipe: RecipeName, to: To = None, force: Force = None, cluster: Cluster = None, overrides: Overrides = None, store: StorePath = None) -> None:
    """Run a recipe through Prefect: make what isn't done, reuse what is.

    The server is the one at PREFECT_API_URL, else a temporary one whose database lies in the store.
    """
    opened = open_run(recipe, overrides or [], cluster, store)
    specs = opened.plan.upstream(to) if to else list(opened.plan.specs.values())
    remade(opened.plan, force or [])
    refuse_what_cannot_run(opened, specs)
    opened.store.root.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop)
    from flows.server import prefect_server

    if sys.stderr.isatty() and not os.environ.get("PREFECT_API_URL"):
        print("starting a temporary Prefect server ...", file=sys.stderr, flush=True)
    try:
        with prefect_server(opened.store.root):
            from flows.pipeline import pipeline
            from tasks.stage import watcher

            watcher.set(LiveLines(spec.name for spec in specs))
            pipeline(recipe=_portable(recipe), overrides=overrides or [], cluster=_portable(cluster) if cluster else None, store=str(opened.store.root),
                     to=to, force=force or [])
    except Exception as error:
        if isinstance(error, UserError) or shutil.disk_usage(opened.store.root).free > ROOM_TO_WORK:
            raise
        raise StageFailed(f"the disk that holds {opened.store.root} is full", "free some space and run the same command again") from error
    show_results(opened.plan, opened.store)


@app.command()
def stage(name: StageName, recipe: RecipeOption, force: Annotated[bool, typer.Option("--force", help="Make it again though it is done.")] = False,
          checkpoint: Annotated[Path | None, typer.Option("--checkpoint", metavar="FOLDER", help="Go on from this checkpoint of a training that differs in "
                                                          "nothing but later changes of its mix.")] = None,
          overrides: Overrides = None, cluster: Cluster = None, store: StorePath = None) -> None:
    """Run one stage alone, without a server. What it is made from must be there."""
    opened = open_run(recipe, overrides or [], cluster, store)
    signal.signal(signal.SIGTERM, _stop)
    out.print(str(_make(opened, name, force, checkpoint).ref.path))


@app.command("ls")
def list_artifacts(store: StorePath = None, as_json: Json = False) -> None:
    """List the artifacts in the store, done or not."""
    place, rows = open_store(store), list[dict[str, Any]]()
    for folder in place.folders():
        try:
            manifest, state = read_manifest(folder), "done"
        except ArtifactError:
            manifest, state = None, "damaged"
        state = state if manifest or state == "damaged" else "not done"
        total = sum(output.size for output in manifest.outputs.values()) if manifest else None
        rows.append({"kind": folder.parent.name, "key": folder.name, "stage": manifest.name if manifest else stage_name(folder), "state": state, "bytes": total,
                     "made": manifest.started_at if manifest else None, "path": str(folder)})
    if as_json:
        print_json(rows)
        return
    shown = table("artifact", "stage", "state", "size", "made", right=("size",))
    for row in sorted(rows, key=lambda row: str(row["made"] or "~")):
        shown.add_row(f"{row['kind']}/{row['key']}", row["stage"] or "", row["state"], size(row["bytes"]) if row["bytes"] is not None else "",
                      str(row["made"] or ""))
    out.print(shown if rows else f"no artifacts below {place.root}")


@app.command()
def show(key: Key, store: StorePath = None, as_json: Json = False) -> None:
    """Show one artifact: what made it, from what, its figures and its files."""
    folder = open_store(store).find(key)
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} is not done", f"its log is {folder / 'log.txt'}")
    if as_json:
        print_json(manifest.model_dump(mode="json") | {"path": str(folder)})
    else:
        show_manifest(manifest, ((name, number(value)) for name, value in flat(manifest.metrics)))


@app.command()
def verify(keys: Keys = None, store: StorePath = None, as_json: Json = False) -> None:
    """Check the files of artifacts against the checksums in their manifests."""
    place = open_store(store)
    folders = place.folders() if not keys or keys == ["all"] else [place.find(key) for key in keys]
    if not keys or keys == ["all"]:
        folders = [folder for folder in folders if (folder / "manifest.json").exists()]
    problems = {f"{folder.parent.name}/{folder.name}": place.verify(folder) for folder in folders}
    if as_json:
        print_json(problems)
    for label, lines in problems.items():
        for line in lines if not as_json else []:
            out.print(f"{label}: {line}")
    bad = sum(bool(lines) for lines in problems.values())
    if bad:
        raise ArtifactError(f"{bad} of {len(folders)} artifacts are not what their manifests say",
                            "remove their folders and run the recipe again; what stands upstream is reused")
    if not as_json:
        out.print(f"{len(folders)} artifacts are what their manifests say")


@app.command("adopt")
def adopt_artifact(name: StageName, path: Annotated[Path, typer.Argument(help="The folder that holds the stage's outputs.", metavar="PATH")],
                   recipe: RecipeOption, overrides: Overrides = None, store: StorePath = None) -> None:
    """Take the outputs in PATH, made elsewhere, as the stage's artifact, instead of making it."""
    opened = open_run(recipe, overrides or [], None, store)
    opened.plan.upstream(name)
    spec, source = opened.plan.specs[name], path.expanduser().resolve()
    told = job(spec, inputs_of(opened, spec))
    manifest = Manifest(**{field: told[field] for field in ("name", "kind", "version", "key", "config", "inputs")}, outputs={},
                        metrics=_metrics_beside(source, spec.kind), started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                        seconds=0, peak_memory_bytes=0, world_size=1, versions=versions(), git_revision=git_revision())
    if source.is_dir() and (lacking := spec.stage.lacks(source)):
        raise UserError(f"{source} holds no {' and no '.join(lacking)}, which later stages read of a {name}", "give the folder that holds them")
    folder = opened.store.folder(spec.kind, spec.key)
    adopt(source, folder, manifest, told)
    record(opened.plan, opened.store, [name])
    out.print(str(folder))


@app.command()
def lock(recipe: RecipeName, to: To = None, output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; else "
         "beside the recipe, where it is heeded.")] = None, overrides: Overrides = None, store: StorePath = None) -> None:
    """Write down the recipe's external files with their checksums; new files then are an explicit change.

    With --to only the files must be there that the stages up to it need; others are locked where they are there.
    """
    if output is None and locate(recipe) in packaged().values():
        raise UserError(f"{recipe!r} is a recipe of the package, which no list of your files belongs in",
                        f"lock a recipe of your own (one that says `extends: {recipe}` is enough), or give --output FILE")
    loaded, target = load(recipe, overrides or []), output or lock_path(locate(recipe))
    planned = make_plan(loaded, open_store(store).root / "files.json")
    problems = [problem for spec in (planned.upstream(to) if to else planned.specs.values()) for problem in spec.problems]
    if problems:
        raise UserError("files are missing:\n" + "\n".join(f"  {problem}" for problem in dict.fromkeys(problems)),
                        "put them there, change the recipe, or lock what the first stages need with --to STAGE")
    differs = write_lock(target, planned.files)
    told = f" ({', '.join(f'{count} {verb}' for verb, count in differs.items())})" if differs else ""
    out.print(f"{target}: {len(planned.files.found)} files{told}")


@app.command()
def report(recipe: RecipeName, overrides: Overrides = None, store: StorePath = None, as_json: Json = False) -> None:
    """Print the results of a finished run and the path of its HTML report, which is made where it isn't yet."""
    opened = open_run(recipe, overrides or [], None, store)
    _make(opened, "report", False)
    if as_json:
        print_json({"report": report_file(opened.plan, opened.store), "results": results(opened.plan, opened.store)})
    else:
        show_results(opened.plan, opened.store)


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the recipes that ship in the package."""
    found = {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in packaged().items()}
    if as_json:
        print_json(found)
        return
    shown = table("recipe", "what it is")
    for name, words in found.items():
        shown.add_row(name, words)
    out.print(shown)


def _make(opened: Run, name: str, force: bool, checkpoint: Path | None = None) -> Made:
    """One stage through the launcher, with a live line."""
    opened.plan.upstream(name)
    spec, lines = opened.plan.specs[name], LiveLines([name])
    refuse_what_cannot_run(opened, [spec])
    inputs = inputs_of(opened, spec)
    missing = [spec.inputs[n] for n, ref in inputs.items() if opened.store.manifest(ref.kind, ref.key) is None]
    if missing:
        raise UserError(f"{name} is made from {', '.join(dict.fromkeys(missing))}, which {'is' if len(set(missing)) == 1 else 'are'} not made yet",
                        f"`allam run RECIPE --to {name}` makes them, too")
    folder = opened.store.folder(spec.kind, spec.key)
    if checkpoint is not None:
        if not isinstance(spec.config, PretrainStageConfig):
            raise UserError(f"--checkpoint: {name} doesn't read a mix", "leave it away, or name the stage pretrain or continue")
        begin_from(checkpoint.resolve(), folder, job(spec, inputs), again=force)
    elif force and folder.is_dir():
        withdraw(folder)
    lines.started(name)
    try:
        made = make(spec, inputs, opened.store, opened.profile, lambda state: lines.progressed(name, state))
    except BaseException as error:
        lines.failed(name, error)
        raise
    lines.finished(name, made)
    record(opened.plan, opened.store, [name])
    return made


def _metrics_beside(source: Path, kind: str) -> dict[str, Any]:
    """The metrics of an artifact that is adopted from another store; none of a folder of any other origin."""
    if not source.is_dir() or not any(source.iterdir()):
        raise UserError(f"there are no files in {source}", "give the folder that holds the stage's outputs")
    manifest = read_manifest(source)
    if manifest is not None and manifest.kind != kind:
        raise UserError(f"{source} holds an artifact of {manifest.kind!r}, not of {kind!r}", "give the folder that holds this stage's outputs")
    if manifest is not None and (changed := changed_outputs(source, manifest)):
        raise UserError(f"{source} is not as its manifest says:\n" + "\n".join(f"  {line}" for line in changed),
                        f"copy it again; if the change is wanted, take {source / MANIFEST} away first")
    return manifest.metrics if manifest else {}


def _portable(name_or_path: str) -> str:
    """A path made absolute; a name as it is. Flow runs may happen in another folder."""
    return str(Path(name_or_path).resolve()) if Path(name_or_path).suffix else name_or_path


def _stop(_signal: int, _frame: object) -> None:
    """SIGTERM ends the command as Ctrl-C does, but for Slurm jobs, which only Ctrl-C cancels: a login node that shuts down doesn't mean them."""
    raise SystemExit(STATUS_OF_CTRL_C)


def main() -> None:
    """The `allam` command: runs a subcommand and turns errors into messages and exit codes. Typer itself ends with SystemExit."""
    status = 0
    try:
        app()
    except AllamError as error:
        status = _explain(error)
    except SystemExit as ended:
        status = int(ended.code or 0)
        if status == STATUS_OF_CTRL_C:
            status = _explain(StageFailed("stopped", "run the same command again; it goes on where it was"))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        status = _explain(StageFailed(f"the disk is full: {error.filename or error}", "free some space and run the same command again") if full
                          else StageFailed(str(error), "check the path and its permissions"))
    except Exception as error:
        status = _explain(StageFailed(f"{type(error).__name__}: {error}", "this is a mistake in the program: ALLAM_DEBUG=1 shows where"))
    sys.exit(status)


def _explain(error: AllamError) -> int:
    if os.environ.get("ALLAM_DEBUG") == "1":
        traceback.print_exc()
    show_error(error)
    return error.exit_code


if __name__ == "__main__":
    main()
