"""``reproduce --engine slurm`` on a real Slurm, which these tests start on this machine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from slurm_cluster import cluster, missing, output, wait_for
from test_reproduce import write_study

from drawbench.cli import cli
from drawbench.runs import load_checkpoint
from drawbench.studies.slurm import Queue, Submitted

WITHOUT = missing()
needs_slurm = pytest.mark.skipif(bool(WITHOUT), reason=f"no {', '.join(WITHOUT)}")
STEPS = 600  # of the run that is preempted: long enough to be


def test_without_slurm_or_submitit_it_says_what_is_missing(tmp_path, monkeypatch):
    words = ["reproduce", str(write_study(tmp_path)), "--runs", str(tmp_path), "--engine", "slurm"]
    monkeypatch.setitem(sys.modules, "submitit", None)
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1 and "pip install 'drawbench[slurm]'" in result.stderr
    result = CliRunner().invoke(cli, [*words, "--slurm", "account"])
    assert result.exit_code == 2 and "NAME=VALUE" in result.stderr
    monkeypatch.delitem(sys.modules, "submitit")
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1 and "srun" in result.stderr


def test_a_job_that_dies_without_a_word_is_noticed(tmp_path):
    """Only at the second look at the queue: its result may take a moment to be seen."""
    queue = Queue()
    job = SimpleNamespace(
        job_id="7", paths=SimpleNamespace(result_pickle=tmp_path / "none", stderr="7.err")
    )
    submitted = Submitted(job, tmp_path / "log", queue)
    queue.ids, queue.time = {"run": "7"}, time.monotonic()
    assert submitted.poll() is None
    queue.ids = {}
    assert submitted.poll() is None
    queue.time += 1
    assert submitted.poll() == 1 and "7.err" in (tmp_path / "log").read_text()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    pytest.importorskip("submitit")
    with cluster(tmp_path_factory.mktemp("slurm")) as env:
        yield env | {"OMP_NUM_THREADS": "1"}


def begin(folder: Path, study: Path, env: dict[str, str], *more: str) -> subprocess.Popen:
    places = [f"--{name}={folder / name}" for name in ("runs", "datasets", "out")]
    words = ["reproduce", str(study), *places, "--json", *more]
    with open(folder / "reproduce.out", "wb") as file:
        command = [sys.executable, "-m", "drawbench", *words]
        return subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)


def queue(env: dict[str, str]) -> list[str]:
    """Return the jobs in the queue: partition and state."""
    return output(["squeue", "--noheader", "--format=%P %T"], env).splitlines()


def one_run(folder: Path, steps: int) -> Path:
    """Write a study of one run that measures nothing."""
    study = write_study(folder, first=steps)
    study.write_text("[[run]]" + study.read_text().split("[[run]]")[2].replace("evaluate", "# "))
    return study


@pytest.mark.slow
@pytest.mark.slurm
@needs_slurm
def test_a_preempted_run_is_queued_again_and_ends_the_same(slurm, tmp_path):
    """Jobs in the partition ``high`` take the place of those in ``low``."""
    study = one_run(tmp_path, STEPS)
    process = begin(
        tmp_path, study, slurm, "--engine", "slurm", "--partition", "low", "--time", "60"
    )
    run = tmp_path / "runs" / "first"
    wait_for(lambda: (run / "metrics.csv").exists(), 180)
    script = ["sbatch", "--partition=high", "--exclusive", "--wrap=sleep 1", "--output=/dev/null"]
    subprocess.run(script, env=slurm, check=True)
    wait_for(lambda: any(line.startswith("low PENDING") for line in queue(slurm)), 120)
    assert not (run / "result.json").exists()
    release(slurm)
    assert process.wait(300) == 0, (tmp_path / "reproduce.out").read_text()
    assert "Resume with" in (tmp_path / "runs/logs/first.log").read_text()
    assert "train error" in (tmp_path / "runs/logs/first.log").read_text().split("Resume with")[1]
    whole = tmp_path / "whole"
    words = [
        "reproduce",
        str(study),
        "--runs",
        str(whole),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    result = CliRunner().invoke(cli, [*words, "--datasets", str(tmp_path / "datasets")])
    assert result.exit_code == 0, result.stderr
    ours, theirs = (load_checkpoint(one / "best.safetensors")[0] for one in (run, whole / "first"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    values = [
        json.loads((one / "result.json").read_text())["value"] for one in (run, whole / "first")
    ]
    assert values[0] == values[1]


def release(env: dict[str, str]) -> None:
    """Let a job that was queued again start at once, not after Slurm's two minutes."""
    for number in output(["squeue", "--noheader", "--format=%i", "--partition=low"], env).split():
        subprocess.run(
            ["scontrol", "update", f"JobId={number}", "StartTime=now"], env=env, check=True
        )


@pytest.mark.slow
@pytest.mark.slurm
@needs_slurm
def test_a_cancelled_job_fails_its_run_alone_and_stopping_takes_the_jobs_away(slurm, tmp_path):
    study = write_study(tmp_path, first=100_000, second=20)
    study.write_text(study.read_text().replace('start = "first"', ""))
    process = begin(tmp_path, study, slurm, "--engine", "slurm")
    wait_for(lambda: (tmp_path / "runs/first/config.json").exists(), 120)
    jobs = output(["squeue", "--noheader", "--format=%i %k"], slurm).splitlines()
    (number,) = (line.split()[0] for line in jobs if line.endswith("/first"))
    subprocess.run(["scancel", number], env=slurm, check=True)
    assert process.wait(300) == 1
    answer = (tmp_path / "reproduce.out").read_text()
    assert "1 of 2 runs failed: first" in answer and "Resume with" in answer
    assert json.loads((tmp_path / "runs/second/result.json").read_text())["steps"] == 20
    process = begin(tmp_path, study, slurm, "--engine", "slurm")
    wait_for(lambda: "low RUNNING" in queue(slurm), 120)
    process.terminate()
    assert process.wait(120) == 143
    wait_for(lambda: not queue(slurm), 60)
    assert os.listdir(tmp_path / "runs/first")
