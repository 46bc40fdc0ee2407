"""``drawbench evaluate``."""

import contextlib
from pathlib import Path
from typing import Any

import click

from drawbench import config as configs
from drawbench.cli import options, sharing
from drawbench.config import MAX_BATCH, SOURCES
from drawbench.config.fields import check
from drawbench.errors import Problem


class Numbers(click.ParamType):
    """Whole numbers: ``8``, ``0,4,8`` or ``0..32..4`` (from, to, step)."""

    name = "numbers"

    def convert(self, value, param, ctx) -> list[int]:
        if isinstance(value, list):
            return value
        numbers: list[int] = []
        try:
            for part in value.split(","):
                first, *rest = (int(word) for word in part.split(".."))
                last, step = (*rest, 1)[:2] if rest else (first, 1)
                if len(rest) > 2 or last < first or step < 1 or (last - first) // step > 1000:
                    raise ValueError
                numbers += range(first, last + 1, step)
        except ValueError:
            self.fail(
                f"{value!r} is not a list of whole numbers such as 0,4,8 or 0..32..4", param, ctx
            )
        return sorted(set(numbers))


@click.command(
    epilog="""\b
Examples:
  drawbench evaluate results/runs/NAME
  drawbench evaluate RUN --clutter 0..32..4            error against clutter it was not trained with
  drawbench evaluate RUN --glimpses 1..12              error against glimpses at test time
  drawbench evaluate RUN --samples 100 --images 1000   a generator: the importance-weighted bound
  drawbench evaluate --model mymodel:network --weights mymodel.safetensors
                                                       your own network on the standard test file
"""
)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--clutter", type=Numbers(), help="Also test with these counts of clutter pieces.")
@click.option("--canvas", type=Numbers(), help="Also test on canvases of these sides, pixels.")
@click.option("--glimpses", type=Numbers(), help="Also test with these numbers of glimpses.")
@click.option(
    "--samples",
    type=click.IntRange(1),
    help="A generator: also the importance-weighted bound with this many samples.",
)
@click.option(
    "--images",
    "images",
    metavar="N|FOLDER",
    help="With --samples: number of test images, evenly spaced [default: all]. "
    "For a run on a folder of images: where that folder is now.",
    multiple=True,
)
@click.option(
    "--bound-samples",
    type=click.IntRange(1),
    help="Samples per image for the bound itself.  [default: the run's]",
)
@click.option("--model", metavar="MODULE:FACTORY", help="Instead of a run: your own classifier.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="With --model: safetensors, or torch.save(network.state_dict()).",
)
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    help="With --model: where the digits come from.  [default: auto]",
)
@click.option("--run", "name", help="With --model: name of the folder for the result.")
@click.option(
    "--out",
    type=options.folder,
    help="Folder for tables and figures.  [default: the run's, unless it is an exported copy]",
)
@options.FORCE
@options.RUNS
@click.option(
    "--batch",
    type=click.IntRange(1, MAX_BATCH),
    default=250,
    show_default=True,
    help="Images at a time in each process; affects memory only.",
)
@sharing.PROCESSES
@options.TRUST
@options.DATASETS
@options.SOURCES
@options.common
def command(
    run: Path | None,
    clutter: list[int] | None,
    canvas: list[int] | None,
    glimpses: list[int] | None,
    samples: int | None,
    images: tuple[str, ...],
    bound_samples: int | None,
    model: str | None,
    weights: Path | None,
    source: str | None,
    name: str | None,
    out: Path | None,
    force: bool,
    runs: Path,
    batch: int,
    processes: int | None,
    trust: tuple[str, ...],
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Measure a run again from its best weights, on the test images, with a 95% interval.

    A classifier: the error, and by class; with --clutter, --canvas or --glimpses also outside its
    training conditions, as a table and a curve. A generator: the bound, and with --samples the
    importance-weighted one. New values of a condition are added to those measured before. An
    exported copy is not written to; name another folder with --out.

    With --model instead of a run: any torch.nn.Module that maps images (B, 1, H, W) in [0, 1] to
    logits (B, 10), made by calling MODULE:FACTORY. It is measured on the test file that every model
    is measured on, of the one --canvas and --clutter given (100 and 8), and gets a run folder.
    """
    if (run is None) == (model is None):
        raise click.UsageError(
            "give a run to measure again, or --model MODULE:FACTORY, and not both"
        )
    count, folder = _count_and_folder(images)
    asked = {"clutter": clutter, "canvas": canvas, "glimpses": glimpses}
    conditions = {condition: values for condition, values in asked.items() if values}
    measuring: dict[str, Any] = {
        "samples": samples,
        "images": count,
        "bound_samples": bound_samples,
    }
    if model is not None:
        for option in [*(name for name, value in measuring.items() if value), "glimpses", "out"]:
            if {**measuring, "glimpses": glimpses, "out": out}[option]:
                raise click.UsageError(f"--{option.replace('_', '-')} does not go with --model")
        config = _own_config(model, weights, canvas, clutter, source)
        _measure_own(config, weights, name, force, runs, batch, datasets, sources, as_json)
        return
    for option, value in {"--weights": weights, "--source": source, "--run": name}.items():
        if value:
            raise click.UsageError(f"{option} goes with --model only")
    assert run is not None
    from drawbench import tasks

    opened = tasks.open_run(run)
    generator = opened.config.task == "generate"
    for option in conditions if generator else [key for key, value in measuring.items() if value]:
        raise click.UsageError(
            f"--{option.replace('_', '-')} does not go with {run}, a run of {opened.config.task!r}"
        )
    if count and not samples:
        raise click.UsageError(
            "--images N is for the importance-weighted bound; give --samples too"
        )
    sharing.start(processes)
    wishes = measuring if generator else {}
    _measure(
        opened,
        conditions,
        folder,
        out,
        trust,
        datasets,
        sources,
        as_json,
        {"batch": batch, **wishes},
    )


def _count_and_folder(images: tuple[str, ...]) -> tuple[int | None, Path | None]:
    """Split --images into a number of images and a folder."""
    count, folder = None, None
    for value in images:
        if value.isdigit() and int(value) > 0 and not Path(value).is_dir():
            count = int(value)
        elif Path(value).is_dir():
            folder = Path(value)
        else:
            raise click.UsageError(
                f"--images takes a number of images of 1 or more, or a folder; got {value!r}"
            )
    return count, folder


def _measure(
    run: Any,
    conditions: dict[str, list[int]],
    folder: Path | None,
    out: Path | None,
    trust: tuple[str, ...],
    datasets: Path,
    sources: Path | None,
    as_json: bool,
    measuring: dict[str, Any],
) -> None:
    """Measure a run, write the curves, print."""
    from drawbench import distributed
    from drawbench.cli import console, training
    from drawbench.tasks import task as lifecycle

    screen = console.Console()
    config = options.with_images(run.config, folder)
    task = training.create(config, datasets, sources, screen, trust)
    for condition, values in conditions.items():
        if condition not in task.conditions:
            can = ", ".join(task.conditions) or "nothing"
            raise click.UsageError(
                f"{run.folder} cannot be measured against {condition}; it can vary {can}"
            )
        _check_values(config, condition, values)
    model = lifecycle.best_model(task, run)
    screen.close()
    with training.stopping(screen) as stop:
        measurement = task.test(
            model, stop, lambda done, total: screen.progress(done, total, {}), **measuring
        )
        screen.close()
        curves = {
            condition: task.against(model, condition, values, stop)
            for condition, values in conditions.items()
        }
    if distributed.rank():
        return
    fields = measurement.fields
    recorded = run.result() if run.finished else {}
    sha = measurement.outcomes.test_sha256
    if recorded.get("test_sha256", sha) != sha:
        screen.say(
            f"The test images of {task.dataset.name} are not those of {run.folder / 'result.json'}."
        )
    place = out or (run.folder if training.writable(run) else None)
    written: list[Path] = []
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        if fields.get("bound_samples") in (None, getattr(config.training, "bound_samples", None)):
            measurement.outcomes.save(place)
        for condition, rows in curves.items():
            written += write_curve(place, condition, rows, _trained_at(task, condition))
    elif curves:
        screen.say(
            f"{run.folder} is an exported copy or read-only and stays as it is; "
            "to write, give --out."
        )
    result = {"run": str(run.folder), "dataset": task.dataset.name, **fields, "curves": curves}
    console.emit(result, _text(run.folder, fields, curves, written), as_json)


def _text(
    folder: Path, fields: dict[str, Any], curves: dict[str, list[dict]], written: list[Path]
) -> str:
    """Return what ``evaluate`` prints."""
    from drawbench.cli import console, training

    lines = [f"{folder}:", console.table([training.measured_row(fields)])]
    if "per_class_error" in fields:
        by_class = enumerate(fields["per_class_error"])
        rows = [
            {"class": n, "error %": f"{error:.2f}"} for n, error in by_class if error is not None
        ]
        lines += ["", console.table(rows)]
    for curve in curves.values():
        rounded = [{name: round(value, 2) for name, value in row.items()} for row in curve]
        lines += ["", console.table(rounded)]
    if written:
        lines += ["", "Written:", *(f"  {path}" for path in written)]
    return "\n".join(lines)


CONDITIONS = {
    "clutter": "clutter pieces",
    "canvas": "side of the canvas (pixels)",
    "glimpses": "glimpses",
}


def write_curve(
    folder: Path, condition: str, rows: list[dict[str, Any]], trained_at: int | None
) -> list[Path]:
    """Add the errors against a condition to the table in a folder, and draw them.

    Returns:
        The files written.
    """
    import pandas

    from drawbench import files
    from drawbench.figures import error_curve, save

    path = folder / f"error_against_{condition}.csv"
    frame = pandas.DataFrame(rows)
    with contextlib.suppress(OSError, ValueError):  # no table there, or a damaged one
        before = pandas.read_csv(path)
        if list(before.columns) == list(frame.columns):
            frame = pandas.concat([before[~before[condition].isin(frame[condition])], frame])
    frame = frame.sort_values(condition)
    files.write_atomically(path, frame.to_csv(index=False, lineterminator="\n").encode())
    curve = error_curve(
        frame.rename(columns={condition: "condition"}), CONDITIONS[condition], trained_at=trained_at
    )
    return [path, *save(curve, folder / "figures", f"error_against_{condition}")]


def _trained_at(task: Any, condition: str) -> int | None:
    """Return the value of a condition in training; None where a data set of one's own hides it."""
    if condition == "glimpses":
        return task.model.glimpses
    return getattr(task.config.data, condition, None)


def _check_values(config: Any, setting: str, values: list[int]) -> None:
    """Raise `UsageError` where a setting cannot have one of these values, before measuring."""
    kind: Any = type(config)
    field = configs.settings(kind)[setting].field
    try:
        for value in values:
            check(field, value)
    except Problem as error:
        raise click.UsageError(f"--{error}") from error


# ------------------------------------------------------------------------------- your own network


def _own_config(
    model: str,
    weights: Path | None,
    canvas: list[int] | None,
    clutter: list[int] | None,
    source: str | None,
) -> Any:
    """Return the configuration of a network of the user's own on one test file."""
    given: dict[str, Any] = {} if source is None else {"source": source}
    for setting, values in (("canvas", canvas), ("clutter", clutter)):
        if values is not None:
            if len(values) != 1:
                raise click.UsageError(
                    f"with --model, --{setting} names the one test file: give one number, "
                    f"got {len(values)}"
                )
            given[setting] = values[0]
    if ":" not in model:
        raise click.UsageError(
            f"--model must be module:factory, such as mymodel:network; got {model!r}"
        )
    given |= {"model": model, "weights": None if weights is None else str(weights)}
    try:
        return configs.merge(configs.MeasureModel, {}, given)
    except Problem as error:
        raise click.UsageError(str(error)) from error


def _measure_own(
    config: Any,
    weights: Path | None,
    name: str | None,
    force: bool,
    runs: Path,
    batch: int,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Measure a network of the user's own, and write its run folder."""
    from drawbench import data, user_code
    from drawbench.cli import console, training
    from drawbench.figures import confusion, save
    from drawbench.runs import Run, check_available, command_line
    from drawbench.tasks import measure_model

    own = config.model.model
    user_code.factory(own, (own,))  # before the data are loaded
    stem = "evaluate-" + own.replace(":", "-").replace(".", "-")
    folder = training.folder_for(runs, name or training.free_name(runs, stem))
    check_available(folder, force)
    screen = console.Console()
    root = data.sources_root(sources)
    with training.stopping(screen) as stop:
        config, result, outcomes = measure_model.measure(
            config, weights, root, datasets, screen, batch=batch, check=stop
        )
    screen.close()
    result["command"] = command_line()
    run = Run.create(folder, config, command=command_line(), force=force)
    outcomes.save(folder)
    figures = save(confusion(result["confusion"]), run.figures, "confusion")
    run.write_result(result)
    row = {"model": result["model"], **training.measured_row(result)}
    lines = [console.table([row]), "", f"Folder: {folder}", *(f"  {path}" for path in figures)]
    console.emit({**result, "run": str(folder)}, "\n".join(lines), as_json)
