"""The one path of every training on the command line: from configuration to printed result."""

import contextlib
import itertools
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import click

from drawbench import config as configs
from drawbench import data, distributed, records, tasks, user_code
from drawbench.cli import console, experiment
from drawbench.errors import Problem
from drawbench.reporters import Guarded, Reporter, Several, TensorBoard
from drawbench.runs import LAST, Run, check_available, command_line
from drawbench.tasks import task as lifecycle
from drawbench.tasks import user_model
from drawbench.tasks.task import Measurement, Task
from drawbench.training import (
    Interrupted,
    StopFlag,
    check_start,
    plan,
    say_what_is_missing,
    stop_flag,
)

PICTURES = 16  # samples and reconstructions that are drawn
CAPTIONS = {  # columns of a generator that draws from captions, and their estimates
    "held-out captions": "held_out",
    "wrong captions": "wrong_condition",
    "read right %": "read",
    "held out, read right %": "held_out_read",
}


def create(
    config: Any,
    datasets: Path,
    sources: Path | None,
    screen: Reporter,
    trust: Collection[str] = (),
    images: Path | None = None,
) -> Task:
    """Create the task of a configuration, its data loaded or made."""
    return tasks.create(
        experiment.with_images(config, images),
        sources_root=data.sources_root(sources),
        datasets_root=datasets,
        reporter=screen,
        trusted=trust,
    )


def create_to_measure(run: Run, *, screen: Reporter, **place: Any) -> Task:
    """Create the task of a run that is not trained here: on any machine, whatever it was trained on
    and in which precision.
    """
    here = configs.replace(run.config, device="auto", precision="float32", graph=None)
    return create(here, screen=screen, **place)


def start(
    config: Any,
    *,
    name: str | None,
    force: bool,
    runs: Path,
    as_json: bool,
    pictures: int = PICTURES,
    log: tuple[str, ...] = (),
    quiet: bool = False,
    **place: Any,
) -> Path:
    """Start a new run, train to the end, test and print; return the run's folder."""
    if name is not None:
        check_available(folder_for(runs, name), force)  # before minutes of work, not after
    experiment.check_apart(config, runs)
    origin = config.training.start and Run.open(Path(config.training.start))
    weights = origin.load_best()[0] if origin else None
    screen = console.screen(quiet)
    task = create(config, screen=screen, **place)
    if weights is not None:  # while nothing is replaced yet
        check_start(weights, task.model)
    if ":" in config.model.model:
        user_model.check_training(task)
    task.config = plan(task, task.config, screen.say)
    folder = folder_for(runs, name or free_name(runs, name_of(task)))
    if origin and origin.folder.resolve() == folder.resolve():
        raise Problem(
            f"{folder} cannot start from itself: give the new run another name with --run"
        )
    reporter = listeners(screen, folder, log, task.config)
    run = Run.create(folder, task.config, command=command_line(), force=force)
    finish(task, run, reporter, as_json, pictures)
    return folder


def listeners(screen: Reporter, folder: Path, log: tuple[str, ...], config: Any) -> Reporter:
    """Return the reporter of a training in a run folder, with the trackers that ``--log`` names.

    Raises:
        Problem: a tracker is not installed, or is none.
    """
    if not log or distributed.rank():
        return screen
    trackers = (_tracker(name, folder, config, screen) for name in dict.fromkeys(log))
    return Several(screen, *trackers)


def _tracker(name: str, folder: Path, config: Any, screen: Reporter) -> Reporter:
    if name == "tensorboard":
        return TensorBoard(folder / "tensorboard")
    make = user_code.factory(name, {name})
    with user_code.blamed(name):
        tracker = make(folder, configs.to_dict(config))
    if not isinstance(tracker, Reporter):
        raise Problem(
            f"{name} returned an object of type {type(tracker).__name__}, not a drawbench.Reporter"
        )
    return Guarded(name, tracker, screen.say)


def finish(
    task: Task, run: Run, reporter: Reporter, as_json: bool, pictures: int = PICTURES
) -> None:
    """Train to the end, test, write the result and the figures, print."""
    click.get_current_context().meta["drawbench.run"] = run.folder  # for a stop at once
    say_what_is_missing(task.config.training, task.device, reporter.say)
    resume = f"Stopped; everything is saved. Resume with: drawbench resume {run.folder}"
    own = (task.config.model.model, task.config.data.dataset)
    modules = dict.fromkeys(name.partition(":")[0] for name in own if ":" in name)
    resume += "".join(f" --trust {module}" for module in modules)
    with run.locked(), stopping(reporter, resume) as flag:
        trainer = lifecycle.train(task, run, reporter, flag)
        reporter.close()
        measurement = lifecycle.measure(task, run, reporter, flag.check)
        reporter.close()
        conclusion = lifecycle.conclude(task, run, trainer, measurement, reporter, pictures)
    if conclusion is not None:
        result, figures = conclusion
        text = summary(result, run.folder, figures)
        console.emit({**result, "run": str(run.folder)}, text, as_json)


def measure(run: Run, **place: Any) -> Measurement:
    """Measure a run's best weights on the test images; a signal stops it and writes nothing."""
    screen = console.Console()
    task = create_to_measure(run, screen=screen, **place)
    with stopping(screen) as flag:
        return lifecycle.measure(task, run, screen, flag.check)


@contextlib.contextmanager
def stopping(
    reporter: Reporter, farewell: str = "Stopped; nothing was written."
) -> Iterator[StopFlag]:
    """Give a flag that signals set; where one stops the work, leave with its status."""
    with stop_flag() as flag:
        try:
            yield flag
        except Interrupted as stop:
            reporter.close()
            console.say(farewell)
            raise SystemExit(128 + stop.number) from None
        finally:
            reporter.close()


def writable(run: Run) -> bool:
    """Return whether measurements may be added to a run's folder without being asked for.

    A copy without training states was exported to be shared or published: it stays as it is.
    """
    return run.writable and (not run.finished or (run.folder / LAST).exists())


@distributed.by_first
def folder_for(root: Path, name: str) -> Path:
    """Return the folder ``root/name`` of a new run.

    Raises:
        Problem: the name is not one plain word.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise Problem(f"a run's name is one plain word, got {name!r}; its place is --runs DIR")
    if name == records.LOGS:
        raise Problem(f"no run can be called {name}: that is where the logs of runs go")
    try:
        os.path.abspath(root / name).encode()
    except UnicodeEncodeError as error:  # checkpoints could be written there, but not read
        raise Problem(
            "the folder of a run must have a path in UTF-8; rename a part of it"
        ) from error
    return root / name


@distributed.by_first
def free_name(root: Path, stem: str) -> str:
    """Return ``stem``, with a number where a run of that name exists."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not (root / name).exists())


def name_of(task: Task) -> str:
    """Return the default name of a run: task, model, looks, data set and seed."""
    facts, attention = task.facts(), getattr(task.config.model, "attention", "both")
    model = facts["model"].replace(":", "-").replace(".", "-")
    attention = {"both": "", "none": "-no-attention"}.get(attention, f"-{attention}-attention")
    looks = "" if facts["glimpses"] in (None, 1) else f"-{facts['glimpses']}"
    seed = task.config.training.seed
    return f"{task.name}-{model}{looks}{attention}-{facts['dataset']}-seed{seed}"


# ------------------------------------------------------------------------------------- the words


def summary(result: dict[str, Any], folder: Path, figures: list[Path]) -> str:
    """Return what a person reads at the end of a training."""
    minutes = {"minutes": f"{result['train_seconds'] / 60:.1f}"}
    lines = [console.table([{**model_row(result), **measured_row(result), **minutes}]), ""]
    if "multiply_adds" in result:
        lines.append(
            f"{result['parameters']:,} parameters; per image {result['pixels_read']:,} pixels read "
            f"and {result['multiply_adds']:,} multiply-adds."
        )
    if result.get("pixels"):
        lines.append(f"Pixels: {result['pixels']}.")
    if result["source"] == "digits":
        lines.append(
            "These are scikit-learn's embedded digits, enlarged: not MNIST, and not comparable "
            "with published numbers."
        )
    if "entropy_floor" in result:
        lines.append(
            "The pixels are not binary: this is a cross-entropy above its floor, not a likelihood."
        )
    return "\n".join([*lines, "", f"Run folder: {folder}", *(f"  {path}" for path in figures)])


def model_row(result: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that say what was trained on what."""
    row = {"model": result["model"], "glimpses": result["glimpses"] or "whole image"}
    if result["task"] == "generate":
        return {**row, "attention": result["attention"] or "unknown", "data": result["dataset"]}
    if result["source"] in configs.SOURCES:
        return {**row, "digits from": result["source"]}
    return {**row, "data": result["dataset"]}


def measured_row(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that say what was measured."""
    interval = f"{fields['low']:.2f}-{fields['high']:.2f}"
    if fields["metric"] == records.ERROR:
        row = {"test error %": f"{fields['value']:.2f}", "95% interval": interval}
        if "sampled_error" in fields:
            row["with sampled places %"] = f"{fields['sampled_error']:.2f}"
        row |= {"images": fields["n"], "majority class %": f"{fields['majority_error']:.1f}"}
        return row | {"chance %": f"{fields['chance_error']:.1f}"}
    row = {
        "bound (nats)": f"{fields['value']:.2f}",
        "95% interval": "none: one image" if fields["n"] == 1 else interval,
        "reconstruction": f"{fields['reconstruction']:.2f}",
        "KL": f"{fields['kl']:.2f}",
        "images": fields["n"],
    }
    if "bits_per_dimension" in fields:
        row["bits/dim"] = f"{fields['bits_per_dimension']:.4f}"
    if "entropy_floor" in fields:
        row["entropy floor"] = f"{fields['entropy_floor']:.2f}"
    for name, field in CAPTIONS.items():
        if field in fields:
            row[name] = f"{fields[field]['value']:.2f}"
    if "iw_bound" in fields:
        name = f"importance-weighted, K = {fields['iw_samples']} ({fields['iw_images']} images)"
        row[name] = f"{fields['iw_bound']:.2f}"
    return row
