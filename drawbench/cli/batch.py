"""Many trainings by one command: each in its own process, some at a time, to be resumed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import click

from drawbench import config as configs
from drawbench import distributed, records, studies
from drawbench.cli import experiment
from drawbench.errors import Problem
from drawbench.studies import Job

VERBS = {"to do": "Training", "half-done": "Resuming", "finished": "Measuring"}  # by state


def row(job: Job) -> dict[str, Any]:
    minutes = None if job.minutes is None else round(job.minutes, 1)
    return {"run": job.name, "state": job.state, "core_minutes": minutes, "starts_from": job.start}


def plan_text(plan: list[Job]) -> str:
    """Return the plan as a table, and what is left of it."""
    from drawbench.cli import console

    rows = [{name: _word(value) for name, value in row(job).items()} for job in plan]
    left = [job for job in plan if job.state != "finished"]
    known = [job.minutes for job in left if job.minutes is not None]
    unknown = len(left) - len(known)
    lengths = [f"about {sum(known) / 60:.1f} core-hours"] if known or not unknown else []
    lengths += [f"{unknown} of unknown length: no published run tells"] if unknown else []
    total = f"{len(left)} of {len(plan)} runs to train, {' and '.join(lengths)}."
    return f"{console.table(rows)}\n{total}"


def _word(value: Any) -> str:
    return "" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)


def check(failures: dict[str, str], plan: list[Job]) -> None:
    """Raise `Problem` if runs failed."""
    if failures:
        raise Problem(
            f"{len(failures)} of {len(plan)} runs failed: "
            + "; ".join(f"{name} ({why})" for name, why in failures.items())
        )


# -------------------------------------------------------------------------------------- processes


class Engine(Protocol):
    """Starts commands; what :meth:`begin` returns has the methods of a `subprocess.Popen`."""

    poll: float  #: seconds between two looks at the commands

    def begin(self, job: Job, more: Sequence[str], log: Path) -> Any:
        """Start what a job needs next, with more words on its command line."""


class Local:
    """Starts processes on this machine."""

    poll = 0.2

    def begin(self, job: Job, more: Sequence[str], log: Path) -> subprocess.Popen:
        with open(log, "ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "drawbench", *studies.command(job), *more],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # a signal reaches it through us, once
                env=studies.environment(),
            )


def on_its_share(job: Job, jobs: int) -> Job:
    """Return a job with its share of the cores where it has no number of threads of its own."""
    if jobs == 1 or job.config.training.threads is not None:
        return job
    return replace(job, settings=job.settings | {"threads": max(1, (os.cpu_count() or 1) // jobs)})


@dataclass
class _Process:
    """A command of a job that is running."""

    job: Job
    process: Any  # see Engine
    log: Path


def carry_out(
    plan: list[Job],
    jobs: int,
    given: list[str],
    runs: Path,
    say: Callable[[str], object],
    engine: Engine | None = None,
) -> tuple[list[Job], dict[str, str]]:
    """Run every command of a plan, ``jobs`` at once.

    Args:
        given: words that every command gets.
        say: told what begins and ends.
        engine: where they run; by default on this machine, which they share.

    Returns:
        The jobs in their new states, and why runs failed, by name.
    """
    engine = engine or Local()
    if isinstance(engine, Local):
        plan = [on_its_share(job, jobs) for job in plan]
    waiting, running = {job.name: job for job in plan if not job.done}, list[_Process]()
    finished = {job.name: job for job in plan if job.done}
    failures: dict[str, str] = {}
    logs = runs / records.LOGS
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
                    log = logs / f"{job.name}.log"
                    say(f"{VERBS[job.state]} {job.name} (log: {log}).")
                    process = engine.begin(job, [*given, "--json"], log)
                    running.append(_Process(waiting.pop(job.name), process, log))
            time.sleep(engine.poll)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                job = _after(one, failures)
                (finished if job.done or job.name in failures else waiting)[job.name] = job
                if job.name in finished:
                    state = "failed" if job.name in failures else "finished"
                    say(f"{job.name} {state} ({len(finished)} of {len(plan)}).")
    return [finished[job.name] for job in plan], failures


def _after(one: _Process, failures: dict[str, str]) -> Job:
    """Return a job in its state after a command has ended."""
    job = one.job
    if one.process.returncode:
        lines = one.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        failures[job.name] = f"status {one.process.returncode}, {(lines or ['no message'])[-1]}"
    return studies.renewed(job)


@contextlib.contextmanager
def _stopped_together(running: list[_Process]) -> Iterator[None]:
    """Pass SIGINT, SIGTERM and a hangup on to the runs, which save their state, and leave with its
    status. Whatever else ends us ends them too.
    """
    from drawbench.cli import console

    def stop(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    heard = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:  # ignored by nohup
        heard.append(hangup)
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    except BaseException as error:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
        if isinstance(error, SystemExit):
            console.say("Stopped; everything is saved. Continue with the same command.")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------- the seeds


def train_seeds(
    kind: Any,
    recipe: str | None,
    given: dict[str, Any],
    seeds: list[int],
    *,
    jobs: int,
    name: str | None,
    runs: Path,
    datasets: Path,
    sources: Path | None,
    trust: tuple[str, ...] = (),
    log: tuple[str, ...] = (),
    force: bool = False,
    quiet: bool = False,
    as_json: bool = False,
    pictures: int | None = None,
) -> None:
    """Train the runs of a row, which differ in their seed alone; the same command continues them.

    Raises:
        Problem: a run failed; the others are finished.
        UsageError: the options do not go together.
    """
    from drawbench.cli import console, training

    if "seed" in given:
        raise click.UsageError("--seeds and --seed contradict each other; give one of them")
    if distributed.by_torchrun():
        raise click.UsageError("torchrun trains one run; leave out --seeds, or use --processes")
    config = experiment.configure(kind, recipe, given)
    experiment.check_apart(config, runs)
    given = given | experiment.stored_settings(config, given)
    name = name or _name(config)
    training.folder_for(runs, name)
    row = {"name": name, "task": config.task, "recipe": recipe, "seeds": seeds}
    row |= {"unmarked": 0}  # so that a seed has the same folder in whatever list it stands
    extras = ("--force",) * force + (() if pictures is None else ("--pictures", str(pictures)))

    def plan(settings: dict[str, Any]) -> list[Job]:
        planned = [{**row, "settings": settings, "start": None, "evaluate": {}}]
        jobs = studies.plan(planned, runs, Path("results/published"), check=not force)
        return [replace(job, extras=extras) for job in jobs]

    place: dict[str, Any] = {"datasets": [datasets], "sources": [sources]}
    place |= {"trust": sorted(experiment.trusted(given, trust)), "log": log}
    words = [f"--{key}={value}" for key, values in place.items() for value in values if value]
    say: Callable[[str], object] = (lambda text: None) if quiet else console.say
    done, failures = _train_row(plan, given, config, jobs, words, runs, say)
    _report(done, failures, as_json)
    check(failures, done)


def _train_row(
    plan: Callable[[dict[str, Any]], list[Job]],
    given: dict[str, Any],
    config: Any,
    jobs: int,
    words: list[str],
    runs: Path,
    say: Callable[[str], object],
) -> tuple[list[Job], dict[str, str]]:
    """Train the runs of a row; of runs without a number of steps, the first finds it for all."""
    first, *rest = plan(given)
    if config.training.steps is not None or not rest:
        return carry_out([first, *rest], jobs, words, runs, say)
    done, failures = carry_out([first], 1, words, runs, say)
    if not (first.folder / "config.json").is_file():
        return [*done, *rest], failures | {job.name: f"{first.name} failed" for job in rest}
    steps = configs.load_recipe(str(first.folder))["training"]["steps"]
    _, *rest = plan(_with_steps(given, steps))
    others, more_failures = carry_out(rest, jobs, words, runs, say)
    return done + others, failures | more_failures


def _with_steps(given: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return settings with a number of steps in place of any other length."""
    return {k: value for k, value in given.items() if k not in configs.LENGTHS} | {"steps": steps}


def _name(config: Any) -> str:
    """Return the usual name of a row of runs: what can be known before the data are loaded."""
    model, looks = config.model.model.replace(":", "-").replace(".", "-"), ""
    if hasattr(config.model, "glimpses"):
        looks = f"-{config.model.glimpses}"
    dataset = config.data.dataset.replace(":", "-").replace(".", "-")
    return f"{config.task}-{model}{looks}-{dataset}"


def _report(plan: list[Job], failures: dict[str, str], as_json: bool) -> None:
    """Print the results of a row, and their mean."""
    from drawbench.cli import console
    from drawbench.tables.rows import estimate

    finished = {job.name: job for job in plan if job.state == "finished"}
    results = {name: records.read_result(job.folder) for name, job in finished.items()}
    rows = [
        {
            "run": str(finished[name].folder),
            "seed": result["seed"],
            "value": f"{result['value']:.2f}",
            "95% interval": f"{result['low']:.2f}-{result['high']:.2f}",
        }
        for name, result in results.items()
    ]
    text, mean = console.table(rows) if rows else "", None
    if results:
        mean = estimate(list(results.values()))
        metric = next(iter(results.values()))["metric"].replace("_", " ")
        text += f"\n\nmean {metric} {mean.value:.2f}, 95% interval {mean.low:.2f}-{mean.high:.2f} "
        text += f"over {mean.basis}"
    report = {
        "runs": [{"run": str(job.folder), "state": job.state} for job in plan],
        "results": list(results.values()),
        "mean": None if mean is None else mean._asdict(),
        "failures": failures,
    }
    console.emit(report, text, as_json)
