"""The job's script: rendered into the artifact's folder as job.sh, for Slurm and for people.

One `srun` task is one rank of allam.worker: there is no agent between Slurm and the ranks that could die alone, Slurm's kill reaches every rank of
every node, and one dead rank ends the step at once (`--kill-on-bad-exit`). The script itself starts the ranks again in the same allocation after one was
killed, and gives the job back to the queue before its time runs out. Whatever comes from the profile was validated there (allam/cluster.py) and is
quoted here; no path enters a #SBATCH line, since the job's files are named relative to the folder that it is submitted from.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from pathlib import Path

from allam.artifacts import ERROR, LOG, MANIFEST, SCRIPT, write_atomic
from allam.cluster import ClusterProfile
from allam.launch.folder import worker_variables
from allam.pipeline import StageSpec

BODY = """
# {name}: makes the artifact {label}. Written by `allam`, which submits it with `sbatch {script}` in this folder.

set -u
cd {folder} || exit 1
{setup}
{variables}

# The ranks meet at the first node of the job.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol --oneliner show node "$first" | sed -n 's/.* NodeAddr=\\([^ ]*\\).*/\\1/p')
export MASTER_ADDR="${{MASTER_ADDR:-$first}}"

# Slurm's warning that the time runs out: the ranks write a checkpoint and end; then the job goes back to the queue.
leaving=no
leave() {{
    leaving=yes
    echo "--- $(date --iso-8601=seconds) job $SLURM_JOB_ID: its time runs out; saving"
    scancel --signal=TERM "$SLURM_JOB_ID"
}}
trap leave USR1

back_to_the_queue() {{
    echo "--- $(date --iso-8601=seconds) job $SLURM_JOB_ID: back to the queue, $1"
    {requeue}
}}

for attempt in $(seq 0 {restarts}); do
    [ "$leaving" = yes ] && break
    export ALLAM_LAUNCH="slurm-$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}-$attempt"
    export MASTER_PORT=$((20000 + (SLURM_JOB_ID * 8 + attempt) % 20000))
    echo "--- $(date --iso-8601=seconds) job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, start $((${{SLURM_RESTART_COUNT:-0}} + 1)).$((attempt + 1))"
    rm -f {error}
    {srun} \\
        bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS; exec "$@"' rank \\
        {worker} &
    ranks=$!
    wait "$ranks"; status=$?
    while kill -0 "$ranks" 2>/dev/null; do wait "$ranks"; status=$?; done      # a signal ends `wait` early
    [ -e {manifest} ] && exit 0
    [ "$leaving" = yes ] && break
    # What the worker says of itself (a mistake, a failure) is final; without its word, or where it was ended from outside, it starts again.
    [ -e {error} ] && ! grep -q '"again": true' {error} && exit "$status"
    echo "--- a rank ended with status $status and no reason of its own"
    sleep {pause}
done

if [ "$leaving" = yes ]; then
    back_to_the_queue "to go on with a new time limit"
elif [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    back_to_the_queue "perhaps to better nodes"
fi
exit "${{status:-1}}"
"""
SECONDS_BETWEEN_STARTS = 5


def write_script(spec: StageSpec, folder: Path, profile: ClusterProfile) -> None:
    """Writes job.sh into the artifact's folder."""
    write_atomic(folder / SCRIPT, render(spec, folder, profile))


def job_name(folder: Path) -> str:
    """What `--dependency=singleton` goes by: the key, and the folder's hash, since the same artifact may be made in two stores at once."""
    return f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"


def comment(spec: StageSpec) -> str:
    """What is looked for in the queue before anything is submitted."""
    return f"allam:{spec.kind}/{spec.key}"


def render(spec: StageSpec, folder: Path, profile: ClusterProfile) -> str:
    """The script's text."""
    slurm = profile.slurm
    setup = [f"module load {module}" for module in slurm.modules] + list(slurm.lines)
    variables = [f"export {name}={shlex.quote(value)}" for name, value in worker_variables(folder, profile).items()]
    # after `scontrol requeue` Slurm ends this script; it must not end by itself before
    requeue = 'scontrol requeue "$SLURM_JOB_ID" && sleep 600' if slurm.requeue else "true    # not allowed by the profile"
    body = BODY.format(
        name=spec.name, label=f"{spec.kind}/{folder.name}", script=SCRIPT, folder=shlex.quote(str(folder)), setup="\n".join(setup),
        variables="\n".join(variables), requeue=requeue, restarts=slurm.restarts, pause=SECONDS_BETWEEN_STARTS, error=ERROR, manifest=MANIFEST,
        srun=_srun(spec, profile), worker=shlex.join([*slurm.container, slurm.python or sys.executable, "-m", "allam.worker", str(folder)]))
    return "#!/bin/bash\n" + "".join(f"#SBATCH {option}\n" for option in _options(spec, folder, profile)) + body


def _nodes_tasks_cpus(spec: StageSpec, profile: ClusterProfile) -> tuple[int, int, int]:
    """Nodes, tasks a node, and CPUs a task."""
    if spec.stage.ranks:
        return profile.slurm.nodes, profile.ranks // profile.slurm.nodes, profile.slurm.cpus_per_task or profile.threads
    return 1, 1, profile.slurm.cpus_per_task or max(profile.workers, profile.threads)


def _srun(spec: StageSpec, profile: ClusterProfile) -> str:
    """srun's part of the command; it must be told the CPUs again, which it doesn't take from sbatch since Slurm 22.05."""
    nodes, tasks, cpus = _nodes_tasks_cpus(spec, profile)
    options = [f"--nodes={nodes}", f"--ntasks={nodes * tasks}", f"--ntasks-per-node={tasks}", f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1", "--mpi=none"]
    options += ["--label"] if nodes * tasks > 1 else []
    return shlex.join(["srun", *options, *profile.slurm.srun])


def _options(spec: StageSpec, folder: Path, profile: ClusterProfile) -> list[str]:
    """sbatch's options, one a line of the script."""
    slurm, (nodes, tasks, cpus) = profile.slurm, _nodes_tasks_cpus(spec, profile)
    with_model = spec.stage.ranks or spec.stage.device
    gpus = slurm.gpus_per_node if spec.stage.ranks else 1 if with_model and slurm.gpus_per_node else None
    named = {
        "job-name": job_name(folder), "comment": comment(spec), "dependency": "singleton", "output": LOG, "open-mode": "append",
        "signal": f"B:USR1@{slurm.signal_seconds}", "nodes": nodes, "ntasks-per-node": tasks, "cpus-per-task": cpus, "gpus-per-node": gpus,
        "account": slurm.account, "partition": slurm.partition if with_model else slurm.cpu_partition or slurm.partition, "qos": slurm.qos,
        "constraint": slurm.constraint if with_model else None, "time": slurm.time_limit, "mem": slurm.memory,
    }
    flags = ["--requeue" if slurm.requeue else "--no-requeue"] + (["--exclusive"] if slurm.exclusive and spec.stage.ranks else [])
    return [f"--{name}={value}" for name, value in named.items() if value is not None] + flags + list(slurm.options)
