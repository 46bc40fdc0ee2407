"""Runs as jobs of a Slurm cluster, through submitit.

A job is one ``drawbench`` command. Preempted, or at its time limit, the command saves its state,
the job goes back into the queue, and the next start resumes the run. Whoever submitted it may leave
in the meantime: the same study finds its jobs in the queue again.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drawbench import studies
from drawbench.errors import Problem, reason
from drawbench.studies import Job

STOPPED = (130, 143)  # exit statuses of a command that a signal stopped
QUEUE_EVERY = 15.0  # seconds between two looks at the queue
MAX_RESTARTS = 1000  # after time limits


@dataclass
class Command:
    """What a job does: train or resume a run, or measure it.

    Attributes:
        job: the run.
        more: words after those of its command line.
        log: receives what the command prints.
    """

    job: Job
    more: tuple[str, ...]
    log: Path
    process: subprocess.Popen | None = field(default=None, repr=False)

    def __call__(self) -> int:
        """Carry the command out on a node and return its exit status."""
        job = studies.renewed(self.job)
        if job.done:
            return 0
        with open(self.log, "ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "drawbench", *studies.command(job), *self.more],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                preexec_fn=_ignore_user_signal,
                env=studies.environment(),
            )
        status = self.process.wait()
        if status in STOPPED and _state() == "RUNNING":  # Slurm told the command, and not us
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            signal.pause()
        return status

    def checkpoint(self, *_args: Any, **_more: Any) -> Any:
        """Stop at a state that can be resumed; submitit puts the job back into the queue."""
        import submitit

        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(ChildProcessError):  # not `wait`, in which the signal found us
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Command(self.job, self.more, self.log))


def _ignore_user_signal() -> None:
    """Leave the signal that announces the end of a job to the process that started the command."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _state() -> str:
    """Return the state of the job that this is."""
    words = ["squeue", "--noheader", "--format=%T", "--jobs", os.environ["SLURM_JOB_ID"]]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


class Queue:
    """Our jobs in Slurm's queue, looked at from time to time."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}  #: of the jobs, by the folders of their runs
        self.time = -QUEUE_EVERY

    def look(self) -> dict[str, str]:
        """Return the jobs that wait or run."""
        if time.monotonic() - self.time >= QUEUE_EVERY:
            words = ["squeue", "--noheader", "--user", str(os.getuid()), "--format=%i %k"]
            result = subprocess.run(words, capture_output=True, text=True)
            if result.returncode:
                raise Problem(f"squeue failed: {result.stderr.strip()}")
            lines = [line.split(" ", 1) for line in result.stdout.splitlines()]
            self.ids = {folder: number for number, folder in lines}
            self.time = time.monotonic()
        return self.ids


class Submitted:
    """A command in the queue or on a node, with what `subprocess.Popen` has of methods."""

    def __init__(self, job: Any, log: Path, queue: Queue):
        self.job, self.log, self.queue = job, log, queue
        self.returncode: int | None = None
        self.missed = 0.0  # when it was first not in the queue

    def poll(self) -> int | None:
        """Return the exit status, None before there is one."""
        if self.returncode is None and self.job.paths.result_pickle.exists():
            error = self.job.exception()
            self.returncode = 1 if error else self.job.result()
            if error:
                self._say(reason(error))
        elif self.returncode is None and self.job.job_id not in self.queue.look().values():
            self.missed = self.missed or self.queue.time
            if self.queue.time > self.missed:  # twice: a result may take a moment to be seen
                self._say(
                    f"Slurm job {self.job.job_id} ended without a word; see {self.job.paths.stderr}"
                )
                self.returncode = 1
        return self.returncode

    def terminate(self) -> None:
        """Take the job out of the queue; on a node its command saves its state first."""
        self.job.cancel(check=False)

    def wait(self) -> None:
        """Wait until the job has left its node."""
        while self.job.job_id in self.queue.look().values():
            time.sleep(1)

    def _say(self, text: str) -> None:
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")


class Slurm:
    """Submits commands.

    Args:
        folder: for what submitit writes; every node must see it.
        cpus: of each run; None for as many as its configuration has threads.
        parameters: of submitit, such as ``slurm_partition`` and ``timeout_min``.

    Raises:
        Problem: submitit or Slurm is not there, or does not know a parameter.
    """

    poll = 1.0  # seconds

    def __init__(self, folder: Path, cpus: int | None, parameters: Mapping[str, Any]):
        try:
            import submitit
        except ImportError:
            raise Problem(
                "--engine slurm needs submitit; install it with: pip install 'drawbench[slurm]'"
            ) from None
        self.library, self.queue, self.folder, self.cpus = submitit, Queue(), folder, cpus
        try:
            self.executor = submitit.AutoExecutor(
                folder, cluster="slurm", slurm_max_num_timeout=MAX_RESTARTS
            )
            self.executor.update_parameters(**parameters)
        except (RuntimeError, ValueError, NameError) as error:
            raise Problem(f"--engine slurm: {reason(error)}") from error

    def begin(self, job: Job, more: Sequence[str], log: Path) -> Submitted:
        """Submit the next command of a run, unless it is in the queue already."""
        name = str(job.folder.absolute())
        if number := self.queue.look().get(name):
            found: Any = self.library.SlurmJob(self.folder, number)
            return Submitted(found, log, self.queue)
        training = job.config.training
        cpus = self.cpus or (training.threads or 1) * training.processes
        self.executor.update_parameters(
            name=f"drawbench-{job.name}", cpus_per_task=cpus, slurm_comment=name
        )
        submitted = self.executor.submit(Command(job, tuple(more), log.absolute()))
        self.queue.time = -QUEUE_EVERY  # it is there from now on
        return Submitted(submitted, log, self.queue)
