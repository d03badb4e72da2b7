"""The flow of the whole path: data, tokenizer, train, align, evaluation, one after another."""

from __future__ import annotations

from prefect import flow

from flows.align import align
from flows.cancel import cancel_jobs
from flows.data import data
from flows.evaluation import evaluation
from flows.names import explained, flow_run_name
from flows.run import AREAS as ALL_AREAS
from flows.run import area_of, open_logged_run, opened, refuse_what_cannot_run, wanted, withdraw_forced
from flows.tokenizer import tokenizer
from flows.train import train

FLOWS = {"data": data, "tokenizer": tokenizer, "train": train, "align": align, "eval": evaluation}


@flow(name="pipeline", flow_run_name=flow_run_name, persist_result=False, on_cancellation=[cancel_jobs])
@explained
def pipeline(recipe: str = "demo", overrides: list[str] | None = None, cluster: str | None = None, store: str | None = None,
             to: str | None = None, force: list[str] | None = None) -> None:
    """Raw text and an English-centred model to an aligned Arabic–English model and a report."""
    run = open_logged_run(recipe, overrides or [], cluster, store)
    withdraw_forced(run, wanted(run, ALL_AREAS, to), force or [])
    specs = wanted(run, ALL_AREAS, to)
    refuse_what_cannot_run(run, specs)
    areas = {area_of(run.plan, spec) for spec in specs}
    with opened(run):
        for area, flow_of_area in FLOWS.items():
            if area in areas or (area == "eval" and "report" in areas):
                flow_of_area(recipe, overrides, cluster, store, to)
