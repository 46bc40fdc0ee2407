"""``drawbench reproduce``."""

import math
from pathlib import Path
from typing import Any

import click

from drawbench import records, studies, user_code
from drawbench.cli import batch, options
from drawbench.studies import Job

PUBLISHED = Path("results/published")


@click.command(
    epilog="""\b
Examples:
  drawbench reproduce table1 --dry-run        the plan: runs, their state, the time they take
  drawbench reproduce table1 --jobs 4         what is missing, four runs at once, then the tables
  drawbench reproduce table2 --seeds 3
  drawbench reproduce all --scale 0.01        a rehearsal at a hundredth of every length
  drawbench reproduce mystudy.toml --only mine
  drawbench reproduce all --engine slurm --partition gpu --time 600 --gpus 1
"""
)
@click.argument("study", metavar="table1|table2|two-digits|robustness|captions|all|FILE")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--seeds", type=click.IntRange(1), help="Train N seeds of every run.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Runs at once.  [default: 1; with Slurm as many as can be]",
)
@click.option("--only", multiple=True, metavar="NAME", help="Only this run, and what it needs.")
@click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Shrink every length, for a rehearsal.",
)
@click.option(
    "--engine",
    type=click.Choice(("local", "slurm")),
    default="local",
    show_default=True,
    help="Where runs are trained: on this machine, or as jobs of a Slurm cluster.",
)
@click.option("--partition", help="Slurm: the partition of the jobs.  [default: the cluster's]")
@click.option(
    "--time",
    "limit",
    type=click.IntRange(1),
    default=1440,
    show_default=True,
    help="Slurm: minutes after which a job is stopped, queued again and resumed.",
)
@click.option("--gpus", type=click.IntRange(0), default=0, help="Slurm: GPUs of each run.")
@click.option(
    "--cpus", type=click.IntRange(1), help="Slurm: CPUs of each run.  [default: its threads]"
)
@click.option(
    "--slurm",
    "others",
    multiple=True,
    metavar="NAME=VALUE",
    help="Slurm: any other option of sbatch, such as account=mine or mem=16GB.",
)
@click.option(
    "--out",
    type=options.folder,
    help="Folder for tables and figures.  [default: results/reproduced]",
)
@options.RUNS
@options.TRUST
@options.DATASETS
@options.SOURCES
@options.common
def command(
    study: str,
    dry_run: bool,
    seeds: int | None,
    jobs: int | None,
    only: tuple[str, ...],
    scale: float,
    engine: str,
    out: Path | None,
    runs: Path,
    datasets: Path,
    sources: Path | None,
    trust: tuple[str, ...],
    as_json: bool,
    **cluster: Any,
) -> None:
    """Make the tables of a study from nothing: train what is missing, resume what is half-done.

    Stop it at any time; the same command continues, and the results are the same to the bit. A run
    that fails does not stop the others. At the end every run is compared with the published one of
    its name.

    With --engine slurm each run is a job. Preempted or at its time limit, it is queued again and
    resumed. The folders of runs, data sets and sources must be the same on all nodes.
    """
    from drawbench.cli import console

    if math.isnan(scale):
        raise click.UsageError("--scale is a number above 0, at most 1")
    if scale != 1:
        runs = runs / f"rehearsal-{scale:g}"
    plan = studies.plan(studies.load(study), runs, PUBLISHED, seeds=seeds, only=only, scale=scale)
    if dry_run:
        console.emit({"runs": [batch.row(job) for job in plan]}, batch.plan_text(plan), as_json)
        return
    for name in {name for job in plan for name in studies.user_code(job)}:
        user_code.check_trusted(name, trust)  # a word on a command line of ours is not the user's
    console.say(batch.plan_text(plan))
    given = ["--datasets", str(datasets)]
    given += [] if sources is None else ["--sources", str(sources)]
    given += [f"--trust={name}" for name in trust]
    place = _slurm(runs / records.LOGS, **cluster) if engine == "slurm" else batch.Local()
    jobs = jobs or (len(plan) if engine == "slurm" else 1)
    plan, failures = batch.carry_out(plan, jobs, given, runs, console.say, place)
    out = out or Path("results") / ("reproduced" if scale == 1 else f"rehearsal-{scale:g}")
    files = _tables(plan, out, scale)
    comparison = studies.comparison(plan, PUBLISHED) if scale == 1 else []
    result = {
        "runs": [batch.row(job) for job in plan],
        "failures": failures,
        "comparison": comparison,
        "files": [str(path) for path in files],
    }
    console.emit(result, _comparison_text(comparison, out), as_json)
    batch.check(failures, plan)


def _slurm(
    logs: Path,
    partition: str | None,
    limit: int,
    gpus: int,
    cpus: int | None,
    others: tuple[str, ...],
) -> batch.Engine:
    """Return the engine that submits to Slurm."""
    from drawbench.studies.slurm import Slurm

    parameters: dict[str, Any] = {"timeout_min": limit}
    parameters |= {"slurm_partition": partition} if partition else {}
    parameters |= {"gpus_per_node": gpus} if gpus else {}
    words = [text.partition("=") for text in others]
    for name, equals, _ in words:
        if not (name and equals):
            raise click.UsageError(f"--slurm takes NAME=VALUE, such as account=mine; got {name!r}")
    parameters["slurm_additional_parameters"] = {name: value for name, _, value in words}
    return Slurm(logs / "slurm", cpus, parameters)


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
