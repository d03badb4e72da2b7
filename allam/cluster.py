"""Where a recipe runs: the execution half of the house's second rule. Nothing in a profile ever enters an artifact's key.

Profiles are YAML files: those in `infra/profiles/` or any path. The worker passes its profile on in `ALLAM_CLUSTER`; a stage asks
`execution()` for it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from allam.errors import UserError, did_you_mean

# What may stand in a job's script: nothing that ends a line, quotes, or makes a shell or Slurm read on (no $, `, ;, %, blanks, backslashes).
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,:/@+=-]*$")]
Constraint = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,*&|!()\[\]-]*$")]
Duration = Annotated[str, StringConstraints(pattern=r"^(\d+-\d{1,2}(:\d{1,2}){0,2}|\d+(:\d{1,2}){0,2})$")]
Memory = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value), StringConstraints(pattern=r"^\d+[KMGT]?$")]
Option = Annotated[str, StringConstraints(pattern=r"^--[a-z][a-z-]*(=[A-Za-z0-9_.,:/@+*=\[\]()&|-]+)?$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
OneLine = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
OURS = ("array", "chdir", "comment", "dependency", "error", "job-name", "no-requeue", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable",
        "requeue", "signal", "test-only", "wait", "wrap")  # options that the launcher sets or relies on


def _seconds(limit: str) -> int:
    """A time limit as Slurm reads it: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds."""
    days, dash, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(part * unit for part, unit in zip(parts, units, strict=False))


class Slurm(BaseModel):
    """How jobs are submitted to Slurm; only read where `launcher` or `data_executor` is `slurm`. docs/slurm.md is the guide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: Literal["all", "ranks"] = Field("all", description="which stages are jobs: all, or only those with ranks (training), the others on this machine")
    nodes: int = Field(1, ge=1, description="nodes of a stage with ranks, which are spread evenly over them; other stages get one")
    account: Word | None = Field(None, description="sbatch's --account")
    partition: Word | None = Field(None, description="sbatch's --partition, of every stage that computes with a model")
    cpu_partition: Word | None = Field(None, description="partition of the other stages (data, tokenizers, packs, reports); null: the same one")
    qos: Word | None = Field(None, description="sbatch's --qos")
    constraint: Constraint | None = Field(None, description="sbatch's --constraint, of stages that compute with a model")
    time_limit: Duration | None = Field(None, description="sbatch's --time; a stage that needs longer saves and requeues itself. null: the partition's")
    gpus_per_node: int | None = Field(None, ge=1, description="sbatch's --gpus-per-node of stages with ranks; a model on one process gets one. null: none")
    cpus_per_task: int | None = Field(None, ge=1, description="sbatch's --cpus-per-task; null: `threads` for a rank, else `workers` or `threads`")
    task_jobs: int = Field(100, ge=1, description="jobs of a data stage's array that run at the same time, where `data_executor` is `slurm`")
    task_memory: Memory | None = Field("2G", description="sbatch's --mem of each job of that array, on one CPU; null: the partition's default")
    memory: Memory | None = Field(None, description="sbatch's --mem, of a node, such as 900G; 0: all of it; null: the partition's default")
    exclusive: bool = Field(False, description="whole nodes for stages with ranks (sbatch's --exclusive)")
    modules: tuple[Word, ...] = Field((), description="environment modules to load, in this order")
    container: tuple[OneLine, ...] = Field((), description="words before the worker's command, such as apptainer, exec, --nv, /images/allam.sif")
    srun: tuple[Option, ...] = Field((), description="more options of srun, such as pyxis's --container-image=/images/allam.sqsh")
    python: OneLine = Field("", description="the interpreter on the nodes (in the container); empty: this one")
    options: tuple[Option, ...] = Field((), description="more options of sbatch, such as --reservation=paper")
    lines: tuple[OneLine, ...] = Field((), description="lines of bash for the job's script, before the worker starts; they run as they stand")
    requeue: bool = Field(True, description="may Slurm and the job itself put it back into the queue: node failure, preemption, the time limit")
    signal_seconds: int = Field(300, ge=10, le=65535, description="seconds before the time limit to save and requeue; more than a step and a checkpoint take")
    restarts: int = Field(3, ge=0, description="how often a job starts its ranks again in the same allocation after one was killed")
    poll_seconds: float = Field(30.0, gt=0, description="time between looks at the queue; controllers of large clusters like few")

    @field_validator("time_limit", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        if isinstance(value, int):
            raise ValueError(f"{value} is a number, since YAML reads 24:00:00 as one; write it in quotes, as in \"24:00:00\"")
        return value

    @model_validator(mode="after")
    def _leaves_the_launchers_options_alone(self) -> Slurm:
        taken = [option for option in self.options if option.removeprefix("--").partition("=")[0] in OURS]
        if taken:
            raise ValueError(f"options has {taken[0]}, which the launcher sets itself; leave it out")
        return self

    @model_validator(mode="after")
    def _leaves_time_to_work(self) -> Slurm:
        if self.time_limit is not None and _seconds(self.time_limit) <= 2 * self.signal_seconds:
            raise ValueError(f"a job of {self.time_limit} that saves {self.signal_seconds} s before its end has little time to work; "
                             "raise time_limit, or lower signal_seconds")
        return self


class ClusterProfile(BaseModel):
    """How and where stages run. The defaults are a laptop's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("laptop", description="shown in plans and logs", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    launcher: Literal["local", "slurm"] = Field("local", description="`local` starts worker processes on this machine, `slurm` submits jobs")
    ranks: int = Field(1, ge=1, description="processes of a training stage; they share the global batch")
    threads: int = Field(2, ge=1, description="compute threads of one rank; results are bit-identical for the same number")
    workers: int = Field(2, ge=1, description="processes of a data stage")
    data_executor: Literal["local", "slurm", "ray"] = Field(
        "local", description="what does the tasks of a data stage (one a file or shard): `local` processes of the stage, an array of jobs as `slurm` says, or "
        "a Ray cluster; small stages, and what looks at the whole corpus, stay with the stage")
    ray_address: Word | None = Field(None, description="of the Ray cluster (`ray://host:10001`, `host:6379`, `auto`); null: RAY_ADDRESS, or one on this "
                                     "machine for as long as the stage runs")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA where there is one")
    micro_batch: int = Field(16, ge=1, description="sequences in one forward pass of one rank, at most")
    activation_checkpointing: bool = Field(False, description="keep only the blocks' inputs and compute the rest again in the backward pass: a third more "
                                           "arithmetic, a fraction of the memory, the same result")
    fused_kernels: bool = Field(False, description="while training on a GPU: Liger's kernels for norms, rotary embeddings and SwiGLU (allam[gpu]); equal "
                                "within rounding")
    compile_blocks: bool = Field(False, description="while training: torch.compile of the model's blocks, which takes half a minute at the start and a C++ "
                                 "compiler; equal within rounding. Not with zero_stage 3, parallel layouts, activation_checkpointing, or a phase's dropout")
    zero_stage: int = Field(0, ge=0, le=3, description="DeepSpeed's ZeRO stage, over the ranks that hold the same part of the model")
    offload_optimizer: bool = Field(False, description="keep AdamW's state in the host's memory and step there: slower, and less memory of a GPU; needs "
                                    "zero_stage 1 to 3")
    tensor_parallel: int = Field(1, ge=1, description="ranks that share each block's heads and feed-forward layer while training; they talk in every block, so "
                                 "keep them on one node")
    pipeline_parallel: int = Field(1, ge=1, description="stages of consecutive blocks while training, each on ranks of its own; they idle least with many "
                                   "micro-batches in a step. ranks are a multiple of tensor_parallel times pipeline_parallel")
    checkpoint_seconds: float = Field(60.0, gt=0, description="time between checkpoints of a training stage, in seconds")
    checkpoints_kept: int = Field(2, ge=1, description="while training: the newest checkpoints that are kept, so that a damaged one has another behind it")
    checkpoint_steps: int = Field(0, ge=0, description="while training: a checkpoint also every so many steps, which is kept for good in the artifact's "
                                  "`checkpoints/`, to be exported; 0: none")
    keep_best_checkpoint: bool = Field(False, description="while pretraining: a checkpoint after each evaluation with the fewest held-out bits per byte so far "
                                       "(mean of the components); the last such is kept for good")
    tensorboard: str | None = Field(None, min_length=1, description="while training: folder for TensorBoard's event files, a sub-folder a stage")
    wandb_project: str | None = Field(None, description="while training: project of Weights & Biases; its key and mode come from WANDB_API_KEY and WANDB_MODE",
                                      min_length=1)
    max_english_rise: float | None = Field(None, gt=0, description="while training: largest rise of held-out English bits per byte over the stage's "
                                           "start, as a share (0.05 is 5%); measured every `eval_every` steps; null: not watched")
    max_english_fall: float | None = Field(None, gt=0, le=1, description="while training: largest fall of the mean accuracy on the phase's English "
                                           "`benchmarks` below the stage's start (0.05 is five points; with few items chance moves it as far); null: not "
                                           "watched")
    on_english_rise: Literal["warn", "stop"] = Field("warn", description="where English gets worse than these two allow: a warning in the log, or the stage "
                                                     "stops; it goes on from its last checkpoint under a profile that allows more")
    timeout_hours: float = Field(24.0, gt=0, description="after this a stage's processes are stopped and it fails")
    retries: int = Field(1, ge=0, description="how often a stage that failed (not by the user's mistake) is tried again")
    device_memory_gb: float | None = Field(None, gt=0, description="memory of one device in GB of 10^9 bytes; a run whose weights, gradients and optimizer "
                                           "don't fit is refused before it starts. null: not checked")
    peak_tflops: float = Field(0.1, gt=0, description="of one device at the training precision, for estimates")
    utilisation: float = Field(0.5, gt=0, le=1, description="share of the peak that training reaches, for estimates")
    device_watts: float = Field(30.0, gt=0, description="power of one device under load, for estimates")
    pue: float = Field(1.0, ge=1, description="power usage effectiveness of the site, for estimates")
    kg_co2_per_kwh: float = Field(0.4, ge=0, description="carbon intensity of the electricity, for estimates")
    environment: dict[VariableName, str] = Field(default_factory=dict, description="extra environment variables of the workers; no secrets here")
    slurm: Slurm = Field(default_factory=Slurm, description="how jobs are submitted, where `launcher` or `data_executor` is `slurm`")

    @property
    def replicas(self) -> int:
        """Copies of the model while training, which share the global batch."""
        return self.ranks // (self.tensor_parallel * self.pipeline_parallel)

    @model_validator(mode="after")
    def _offloads_what_zero_has(self) -> ClusterProfile:
        if self.offload_optimizer and not self.zero_stage:
            raise ValueError("offload_optimizer needs DeepSpeed's ZeRO; set zero_stage to 1, 2 or 3")
        return self

    @model_validator(mode="after")
    def _compiles_whole_blocks(self) -> ClusterProfile:
        against = {"zero_stage 3": self.zero_stage == 3, "tensor_parallel": self.tensor_parallel > 1, "pipeline_parallel": self.pipeline_parallel > 1,
                   "activation_checkpointing": self.activation_checkpointing}
        if self.compile_blocks and any(against.values()):
            raise ValueError(f"compile_blocks doesn't go with {', '.join(name for name, is_set in against.items() if is_set)}: nothing may come between the "
                             "parts of a block; set compile_blocks to false")
        return self

    @model_validator(mode="after")
    def _ranks_fit_the_layout(self) -> ClusterProfile:
        copy = self.tensor_parallel * self.pipeline_parallel
        if self.ranks % copy:
            raise ValueError(f"ranks ({self.ranks}) are no multiple of tensor_parallel ({self.tensor_parallel}) times pipeline_parallel "
                             f"({self.pipeline_parallel}); make ranks {max(copy, round(self.ranks / copy) * copy)}")
        return self

    @model_validator(mode="after")
    def _ranks_fit_the_nodes(self) -> ClusterProfile:
        if self.launcher != "slurm":
            return self
        if self.ranks % self.slurm.nodes:
            raise ValueError(f"ranks ({self.ranks}) don't divide by slurm.nodes ({self.slurm.nodes}); make ranks a multiple of the nodes")
        a_node = self.ranks // self.slurm.nodes
        if self.slurm.gpus_per_node is not None and self.slurm.gpus_per_node != a_node:
            raise ValueError(f"{a_node} ranks a node want as many GPUs, and slurm.gpus_per_node is {self.slurm.gpus_per_node}; make ranks nodes times GPUs")
        if self.device == "cuda" and self.slurm.gpus_per_node is None and not any(o.startswith("--g") for o in self.slurm.options):
            raise ValueError("device is cuda and no GPU is asked for; set slurm.gpus_per_node, or --gres in slurm.options")
        return self

    def is_job(self, ranks: bool) -> bool:
        """Whether a stage, with ranks or without, is a job of Slurm's."""
        return self.launcher == "slurm" and (ranks or self.slurm.stages == "all")


COMPILED_DROPOUT = ("the cluster profile's compile_blocks don't go with dropout, whose masks they would draw otherwise", "set compile_blocks to false")
PROFILES = Path(__file__).parent.parent / "infra" / "profiles"


def profile_names() -> list[str]:
    """The names that `load_profile` knows."""
    return ["laptop", *sorted(path.stem for path in PROFILES.glob("*.yaml"))]


def load_profile(name_or_path: str | None) -> ClusterProfile:
    """The profile `laptop` (the defaults) for None, one of `infra/profiles/` by name, or a YAML file by path, whose stem names a profile without `name`."""
    if name_or_path in (None, "laptop"):
        return ClusterProfile()
    path = Path(str(name_or_path))
    if not path.suffix:
        path = PROFILES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise UserError(f"there is no cluster profile at {path}", "give `laptop`, a name from infra/profiles/ or the path of a YAML file")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if isinstance(given, dict) and "name" not in given:
            given["name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "profile"
        return ClusterProfile.model_validate(given)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail)}" for detail in error.errors(include_url=False))
        raise UserError(f"the cluster profile {path} is not valid:\n{problems}", "docs/recipe.md lists the fields of a profile at its end") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the cluster profile {path} is not readable as YAML: {error}", "mend the file") from None


def _explain(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"]) or "profile"
    if detail["type"] == "extra_forbidden":
        known = Slurm.model_fields if detail["loc"][0] == "slurm" else ClusterProfile.model_fields
        return f"{field}: unknown key; {did_you_mean(str(detail['loc'][-1]), known)}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message if field == "profile" else f"{field}: {message}"
    return f"{field}: {message[0].lower()}{message[1:]}, not {detail['input']!r}"


def process_variables(profile: ClusterProfile, threads: int) -> dict[str, str]:
    """What the environment of every process that works under a profile has. Hub look-ups are off unless the caller or the profile says otherwise."""
    package_root = str(Path(__file__).parents[1])
    variables = {
        "ALLAM_CLUSTER": profile.model_dump_json(), "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false",
        "ARROW_DEFAULT_MEMORY_POOL": os.environ.get("ARROW_DEFAULT_MEMORY_POOL", "system"),  # Arrow's mimalloc held 30 MB more, and grew with the shards
        "PYTHONSAFEPATH": "1",  # else files in the artifact's folder, the working directory, could be imported
        "PYTHONPATH": os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")])),
    }
    variables |= {name: str(threads) for name in THREAD_VARIABLES}
    variables |= {name: os.environ.get(name, "1") for name in OFFLINE_VARIABLES}
    return variables | profile.environment


def execution() -> ClusterProfile:
    """The profile under which this process runs (the laptop's where nothing is set)."""
    text = os.environ.get("ALLAM_CLUSTER")
    return ClusterProfile.model_validate_json(text) if text else ClusterProfile()
