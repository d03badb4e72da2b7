"""Where a recipe runs: the execution half of the house's second rule. Nothing in a profile ever enters an artifact's key.

Profiles are YAML files: those in `infra/profiles/` or any path. The worker passes its profile on in `ALLAM_CLUSTER`; a stage asks
`execution()` for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from allam.errors import UserError, did_you_mean


class ClusterProfile(BaseModel):
    """How and where stages run. The defaults are a laptop's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("laptop", description="shown in plans and logs", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    launcher: Literal["local"] = Field("local", description="`local` starts worker processes on this machine")
    ranks: int = Field(1, ge=1, description="processes of a training stage; they share the global batch")
    threads: int = Field(2, ge=1, description="compute threads of one rank; results are bit-identical for the same number")
    workers: int = Field(2, ge=1, description="processes of a data stage")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA where there is one")
    micro_batch: int = Field(16, ge=1, description="sequences in one forward pass of one rank, at most")
    zero_stage: int = Field(0, ge=0, le=3, description="DeepSpeed's ZeRO stage")
    checkpoint_seconds: float = Field(60.0, gt=0, description="time between checkpoints of a training stage, in seconds")
    max_english_rise: float | None = Field(None, gt=0, description="while training: largest rise of held-out English bits per byte over the stage's "
                                           "start, as a share (0.05 is 5%); measured every `eval_every` steps; null: not watched")
    on_english_rise: Literal["warn", "stop"] = Field("warn", description="above `max_english_rise`: a warning in the log, or the stage stops; it goes on "
                                                     "from its last checkpoint under a profile that allows more")
    timeout_hours: float = Field(24.0, gt=0, description="after this a stage's processes are stopped and it fails")
    retries: int = Field(1, ge=0, description="how often a stage that failed (not by the user's mistake) is tried again")
    peak_tflops: float = Field(0.1, gt=0, description="of one device at the training precision, for estimates")
    utilisation: float = Field(0.5, gt=0, le=1, description="share of the peak that training reaches, for estimates")
    device_watts: float = Field(30.0, gt=0, description="power of one device under load, for estimates")
    pue: float = Field(1.0, ge=1, description="power usage effectiveness of the site, for estimates")
    kg_co2_per_kwh: float = Field(0.4, ge=0, description="carbon intensity of the electricity, for estimates")
    environment: dict[str, str] = Field(default_factory=dict, description="extra environment variables of the workers; no secrets here")


def load_profile(name_or_path: str | None) -> ClusterProfile:
    """The profile `laptop` (the defaults) for None, one of `infra/profiles/` by name, or a YAML file by path."""
    if name_or_path in (None, "laptop"):
        return ClusterProfile()
    path = Path(str(name_or_path))
    if not path.suffix:
        path = Path(__file__).parent.parent / "infra" / "profiles" / f"{name_or_path}.yaml"
    if not path.is_file():
        raise UserError(f"there is no cluster profile at {path}", "give `laptop`, a name from infra/profiles/ or the path of a YAML file")
    try:
        return ClusterProfile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail)}" for detail in error.errors(include_url=False))
        raise UserError(f"the cluster profile {path} is not valid:\n{problems}", "docs/recipe.md lists the fields of a profile at its end") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the cluster profile {path} is not readable as YAML: {error}", "mend the file") from None


def _explain(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"]) or "profile"
    if detail["type"] == "extra_forbidden":
        return f"{field}: unknown key; {did_you_mean(field, ClusterProfile.model_fields)}"
    message = str(detail["msg"])
    return f"{field}: {message[0].lower()}{message[1:]}, not {detail['input']!r}"


def execution() -> ClusterProfile:
    """The profile under which this process runs (the laptop's where nothing is set)."""
    text = os.environ.get("ALLAM_CLUSTER")
    return ClusterProfile.model_validate_json(text) if text else ClusterProfile()
