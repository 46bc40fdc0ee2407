"""A Slurm of one node on this machine, for a test: Debian's slurm-wlm and munge, run as root."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=10
"""


def missing() -> list[str]:
    """Return the programs that are not installed, or ``root`` for one who is not."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return absent or ([] if os.geteuid() == 0 else ["root"])


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster with the partitions ``low`` and ``high``, which preempts it.

    Yields:
        The environment in which Slurm's commands find it.
    """
    folder.chmod(0o755)  # munge asks for it
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host, conf = socket.gethostname().split(".")[0], folder / "slurm.conf"
    conf.write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2)))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    places = {
        "key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid",
        "log-file": "munge.log", "seed-file": "munge.seed",
    }  # fmt: skip
    munge = [f"--{option}={folder / name}" for option, name in places.items()]
    env = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    servers = (
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", host],
    )
    processes = []
    try:
        for words in servers:
            with open(folder / f"{words[0]}.out", "wb") as log:
                processes.append(subprocess.Popen(words, env=env, stdout=log, stderr=log))
            if words[0] == "munged":
                wait_for(lambda: (folder / "munge.socket").exists())
        wait_for(lambda: "idle" in output(["sinfo", "-h", "-o", "%T"], env))
        yield env
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


def output(words: list[str], env: dict[str, str]) -> str:
    """Return what a command prints, nothing if it fails."""
    return subprocess.run(words, env=env, capture_output=True, text=True).stdout


def wait_for(condition, seconds: float = 60) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s")
        time.sleep(0.1)
