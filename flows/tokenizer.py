"""The flow of the area `tokenizer`."""

from __future__ import annotations

from prefect import flow

from allam.artifacts import ArtifactRef
from flows.cancel import cancel_jobs
from flows.names import explained, flow_run_name
from flows.run import current_run, run_stages


@flow(name="tokenizer", flow_run_name=flow_run_name, persist_result=False, on_cancellation=[cancel_jobs])
@explained
def tokenizer(recipe: str = "demo", overrides: list[str] | None = None, cluster: str | None = None, store: str | None = None,
         to: str | None = None, force: list[str] | None = None) -> dict[str, ArtifactRef]:
    """The vocabulary expansion (paper §2.2): the base's tokenizer, an Arabic one, the two merged, and their fertility.

    Makes what the area needs upstream first.
    """
    return run_stages(current_run(recipe, overrides or [], cluster, store), ["tokenizer"], to, force or [])
