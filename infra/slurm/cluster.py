#!/usr/bin/env python3
"""A real Slurm cluster of several nodes on one Debian machine, for tests and for trying: Debian's slurm-wlm and munge, no accounting.

    apt-get install slurm-wlm munge
    python3 infra/slurm/cluster.py start /tmp/cluster [--nodes 2] [--cpus 4] [--memory 8000]
    export SLURM_CONF=/tmp/cluster/slurm.conf          # whatever calls sbatch, squeue, scontrol
    python3 infra/slurm/cluster.py status /tmp/cluster
    python3 infra/slurm/cluster.py stop /tmp/cluster   # ends every job, every daemon, and removes the folder

Each node is a `slurmd` of its own. All claim the CPUs and the memory that the arguments say, however many there are (`config_overrides`): what runs
is real, how fast it runs is not. The daemons run as whoever calls this, so root is not needed; nothing outside the folder is touched, and several
clusters can stand side by side. The daemons inherit this process's CPU affinity, so that `taskset -c 1` before the command pins the whole cluster.
"""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "scontrol", "sbatch")
SECONDS_TO_START, SECONDS_TO_STOP = 60.0, 20.0
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MARK = "made by infra/slurm/cluster.py"

# cred_expire is also how long a requeued job waits before it may start again (120 s if not set); the seconds below are short for the same reason.
CONFIGURATION = """# {mark}
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5
JobRequeue=1
KillWait=5
MinJobAge={job_age}
SlurmdTimeout=15
ReturnToService=2
PropagateResourceLimits=NONE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
{nodes}
PartitionName=main Nodes=node[1-{count}] Default=YES MaxTime=INFINITE State=UP
"""


def start(folder: Path, nodes: int, cpus: int, memory: int, job_age: int) -> None:
    """Makes the folder and starts the daemons; returns when every node is idle. Memory is in MB; a finished job is remembered for `job_age` seconds."""
    missing = [name for name in NEEDED if shutil.which(name, path=SBIN) is None]
    if missing:
        sys.exit(f"error: {', '.join(missing)} not found\n  -> apt-get install slurm-wlm munge")
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"error: {folder} is not empty\n  -> stop the cluster that is there, or give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munged refuses a socket in a folder that others can write to, and clients must reach it
    (folder / "state").mkdir()
    host, ports = socket.gethostname().split(".")[0], _free_ports(nodes + 1)
    lines = "\n".join(f"NodeName=node{i + 1} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory} State=UNKNOWN"
                      for i, port in enumerate(ports[1:]))
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(mark=MARK, host=host, port=ports[0], user=getpass.getuser(), folder=folder, nodes=lines,
                                                  count=nodes, job_age=job_age))
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    try:
        _start_daemons(folder, key, nodes)
    except SystemExit:
        _end_daemons(folder)
        raise


def _start_daemons(folder: Path, key: Path, nodes: int) -> None:
    _run("munged", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}", f"--pid-file={folder}/munged.pid",
         f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed", "--num-threads=2")
    _run("slurmctld", "-f", str(folder / "slurm.conf"))
    for i in range(nodes):
        _run("slurmd", "-f", str(folder / "slurm.conf"), "-N", f"node{i + 1}")
    _wait(lambda: _idle(folder / "slurm.conf") == nodes, SECONDS_TO_START, f"the nodes did not come up; see {folder}/*.log")


def stop(folder: Path) -> None:
    """Cancels all jobs, ends the daemons and removes the folder."""
    configuration = folder / "slurm.conf"
    if not configuration.is_file() or MARK not in configuration.read_text():
        sys.exit(f"error: {folder} holds no cluster of this script's\n  -> give the folder that `start` was given")
    if _daemons(folder):
        environment = os.environ | {"SLURM_CONF": str(configuration)}
        subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment, capture_output=True, timeout=SECONDS_TO_STOP)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while _output(configuration, "squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.5)
        _end_daemons(folder)
    shutil.rmtree(folder)


def _end_daemons(folder: Path) -> None:
    for pid in _daemons(folder).values():
        os.kill(pid, signal.SIGTERM)
    _wait(lambda: not _daemons(folder), SECONDS_TO_STOP, f"some daemons did not end: {_daemons(folder)}")


def status(folder: Path) -> None:
    """Prints the daemons, the nodes and the queue."""
    print("daemons:", ", ".join(f"{name} {pid}" for name, pid in sorted(_daemons(folder).items())) or "none")
    for command in (("sinfo", "--Node", "--long"), ("squeue", "--all", "--long")):
        print(_output(folder / "slurm.conf", *command))


def _daemons(folder: Path) -> dict[str, int]:
    """The live daemons by name: the processes that the folder's pid files name, if their command line has the folder in it."""
    found = {}
    for file in folder.glob("*.pid"):
        try:
            pid = int(file.read_text())
            if str(folder) in Path(f"/proc/{pid}/cmdline").read_text():
                found[file.stem] = pid
        except (OSError, ValueError):
            continue
    return found


def _idle(configuration: Path) -> int:
    return _output(configuration, "sinfo", "--noheader", "--Node", "--format=%t").split().count("idle")


def _output(configuration: Path, *command: str) -> str:
    done = subprocess.run(command, env=os.environ | {"SLURM_CONF": str(configuration)}, capture_output=True, text=True, timeout=30)
    return done.stdout


def _run(*command: str) -> None:
    done = subprocess.run(command, env=os.environ | {"PATH": SBIN}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with status {done.returncode}\n{done.stdout}{done.stderr}")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all are held until all are found."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"error: {otherwise}")
        time.sleep(0.2)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("start", "stop", "status"))
    parser.add_argument("folder", type=Path, help="the cluster's own folder: configuration, key, state, logs")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=4, help="CPUs that each node claims to have")
    parser.add_argument("--memory", type=int, default=8000, help="MB of memory that each node claims to have")
    parser.add_argument("--job-age", type=int, default=300, help="seconds for which a job that ended is remembered")
    given = parser.parse_args()
    folder = given.folder.resolve()
    if given.what == "start":
        start(folder, given.nodes, given.cpus, given.memory, given.job_age)
        print(f"export SLURM_CONF={folder}/slurm.conf")
    else:
        (stop if given.what == "stop" else status)(folder)


if __name__ == "__main__":
    main()
