"""``drawbench reproduce``."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from drawbench import studies
from drawbench.cli import options
from drawbench.errors import Problem
from drawbench.studies import Job

PUBLISHED = Path("results/published")
POLL = 0.2  # seconds


@click.command(
    epilog="""\b
Examples:
  drawbench reproduce table1 --dry-run        the plan: runs, their state, the time they take
  drawbench reproduce table1 --jobs 4         what is missing, four runs at once, then the tables
  drawbench reproduce table2 --seeds 3
  drawbench reproduce all --scale 0.01        a rehearsal at a hundredth of every length
  drawbench reproduce mystudy.toml --only mine
"""
)
@click.argument("study", metavar="table1|table2|two-digits|robustness|all|FILE")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--seeds", type=click.IntRange(1), help="Train seeds 0 to N-1 of every run.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at once.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this run, and what it needs.")
@click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Shrink every length, for a rehearsal.",
)
@click.option(
    "--out",
    type=options.folder,
    help="Folder for tables and figures.  [default: results/reproduced]",
)
@options.RUNS
@options.DATASETS
@options.SOURCES
@options.common
def command(
    study: str,
    dry_run: bool,
    seeds: int | None,
    jobs: int,
    only: tuple[str, ...],
    scale: float,
    out: Path | None,
    runs: Path,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Make the tables of a study from nothing: train what is missing, resume what is half-done.

    Stop it at any time; the same command continues, and the results are the same to the bit. A run
    that fails does not stop the others. At the end every run is compared with the published one of
    its name.
    """
    from drawbench.cli import console

    if scale != 1:
        runs = runs / f"rehearsal-{scale:g}"
    plan = studies.plan(studies.load(study), runs, PUBLISHED, seeds=seeds, only=only, scale=scale)
    console.say(_plan_text(plan))
    if dry_run:
        console.emit({"runs": [_row(job) for job in plan]}, "", as_json)
        return
    given = ["--datasets", str(datasets)]
    given += [] if sources is None else ["--sources", str(sources)]
    plan, failures = _carry_out(plan, jobs, given, runs)
    out = out or Path("results") / ("reproduced" if scale == 1 else f"rehearsal-{scale:g}")
    files = _tables(plan, out, scale)
    comparison = studies.comparison(plan, PUBLISHED) if scale == 1 else []
    result = {
        "runs": [_row(job) for job in plan],
        "failures": failures,
        "comparison": comparison,
        "files": [str(path) for path in files],
    }
    console.emit(result, _comparison_text(comparison, out), as_json)
    if failures:
        raise Problem(
            f"{len(failures)} of {len(plan)} runs failed: "
            + "; ".join(f"{name} ({why})" for name, why in failures.items())
        )


def _row(job: Job) -> dict[str, Any]:
    minutes = None if job.minutes is None else round(job.minutes, 1)
    return {"run": job.name, "state": job.state, "core_minutes": minutes, "starts_from": job.start}


def _plan_text(plan: list[Job]) -> str:
    """Return the plan as a table, and what is left of it."""
    from drawbench.cli import console

    rows = [{name: _word(value) for name, value in _row(job).items()} for job in plan]
    left = [job for job in plan if job.state != "finished"]
    hours = sum(job.minutes or 0 for job in left) / 60
    unknown = sum(job.minutes is None for job in left)
    total = f"{len(left)} of {len(plan)} runs to train, about {hours:.1f} core-hours"
    return f"{console.table(rows)}\n{total}" + (
        f" and {unknown} of unknown length." if unknown else "."
    )


def _word(value: Any) -> str:
    return "" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)


# -------------------------------------------------------------------------------------- processes


@dataclass
class _Process:
    """A command of a job that is running."""

    job: Job
    process: subprocess.Popen
    log: Path


def _carry_out(
    plan: list[Job], jobs: int, given: list[str], runs: Path
) -> tuple[list[Job], dict[str, str]]:
    """Run every command of a plan, ``jobs`` at once.

    Returns:
        The jobs in their new states, and why runs failed, by name.
    """
    from drawbench.cli import console

    waiting, running = {job.name: job for job in plan if not job.done}, list[_Process]()
    finished = {job.name: job for job in plan if job.done}
    failures: dict[str, str] = {}
    logs = runs / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with _stopped_together(running):
        while waiting or running:
            for job in list(waiting.values()):
                if len(running) == jobs:
                    break
                if job.start in failures:
                    failures[job.name] = f"{job.start}, from which it starts, failed"
                    finished[job.name] = waiting.pop(job.name)
                elif job.start not in {*waiting, *(other.job.name for other in running)}:
                    running.append(_begin(waiting.pop(job.name), jobs, given, logs))
            time.sleep(POLL)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                job = _after(one, failures)
                (finished if job.done or job.name in failures else waiting)[job.name] = job
                if job.name in finished:
                    state = "failed" if job.name in failures else "finished"
                    console.say(f"{job.name} {state} ({len(finished)} of {len(plan)}).")
    return [finished[job.name] for job in plan], failures


def _begin(job: Job, jobs: int, given: list[str], logs: Path) -> _Process:
    """Start the next command of a job."""
    from drawbench.cli import console

    if job.state == "finished":
        words, what = studies.evaluation(job), "Measuring"
    else:
        words, what = studies.arguments(job), "Resuming" if job.state == "half-done" else "Training"
        if jobs > 1 and words[0] != "resume" and job.config.training.threads is None:
            words += ["--threads", str(max(1, (os.cpu_count() or 1) // jobs))]
    log = logs / f"{job.name}.log"
    console.say(f"{what} {job.name} (log: {log}).")
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "drawbench", *words, *given, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # a signal reaches it through us, once
        )
    return _Process(job, process, log)


def _after(one: _Process, failures: dict[str, str]) -> Job:
    """Return a job in its state after a command has ended."""
    job = one.job
    if one.process.returncode:
        lines = one.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        failures[job.name] = f"status {one.process.returncode}, {(lines or ['no message'])[-1]}"
    return replace(job, state=studies.progress(job.folder))


@contextlib.contextmanager
def _stopped_together(running: list[_Process]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the runs, which save their state, and leave with its status."""
    from drawbench.cli import console

    def stop(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
        console.say("Stopped; everything is saved. Continue with the same command.")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------- the result


def _tables(plan: list[Job], out: Path, scale: float) -> list[Path]:
    """Write the tables and figures of the finished runs; those of a rehearsal say so."""
    from drawbench import records
    from drawbench.cli import console, tables

    folders = [job.folder for job in plan if job.state == "finished"]
    warning = "" if scale == 1 else f"Rehearsal at {scale:g} of every length: not results."
    return tables.write(records.find(folders, console.say), out, warning)


def _comparison_text(comparison: list[dict[str, Any]], out: Path) -> str:
    """Return, row by row, whether a run is within the interval of the published one."""
    from drawbench.cli import console

    rows = [
        {
            "run": row["run"],
            "value": f"{row['value']:.2f}",
            "published": f"{row['published']:.2f}",
            "95% interval": f"{row['low']:.2f}-{row['high']:.2f}",
            "within": "yes" if row["within"] else "no",
        }
        for row in comparison
    ]
    text = f"{console.table(rows)}\n\n" if rows else ""
    return f"{text}Tables and figures: {out}"
