"""``drawbench evaluate``."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from drawbench import config as configs
from drawbench.cli import experiment, options, sharing
from drawbench.config import MAX_BATCH, SOURCES
from drawbench.config.fields import check
from drawbench.errors import Problem

CONDITIONS = {
    "clutter": "clutter pieces",
    "canvas": "side of the canvas (pixels)",
    "glimpses": "glimpses",
}
MEASURING = ("samples", "images", "bound_samples")  # what only a generator has


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
@click.argument("run", type=options.run, required=False)
@click.option(
    "--clutter", type=options.Numbers(), help="Also test with these counts of clutter pieces."
)
@click.option(
    "--canvas", type=options.Numbers(), help="Also test on canvases of these sides, pixels."
)
@click.option(
    "--glimpses", type=options.Numbers(), help="Also test with these numbers of glimpses."
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    help="A generator: also the importance-weighted bound with this many samples.",
)
@click.option(
    "--images",
    "--data",
    "images",
    metavar="N|FOLDER",
    help="With --samples: number of test images, evenly spaced [default: all]. For a run on a "
    "folder, of images or made by make-data: where that folder is now. With --model: a folder made "
    "by make-data, whose test file is used.",
    multiple=True,
)
@click.option(
    "--bound-samples",
    type=click.IntRange(1),
    help="Samples per image for the bound itself.  [default: the run's]",
)
@click.option("--model", metavar="MODULE:FACTORY", help="Instead of a run: your own classifier.")
@experiment.ARGUMENTS
@click.option(
    "--weights",
    type=options.path,
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
    help="Images at a time in each process; affects memory only.",
)
@sharing.PROCESSES
@options.TRUST
@options.DATASETS
@options.SOURCES
@options.common
def command(run: Path | None, model: str | None, processes: int | None, **given: Any) -> None:
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
    given["images"], folder = _count_and_folder(given["images"])
    if run is None:
        if options.on_command_line("processes"):
            raise click.UsageError("--processes does not go with --model")
        _refuse(given, (*MEASURING, "glimpses", "out"), "does not go with --model")
        _measure_own(_own_config(model, given, folder), given)
        return
    own = ("weights", "source", "name", "arguments", "force")
    _refuse(given, own, "goes with --model only")
    from drawbench import tasks

    opened = tasks.open_run(run)
    generator = opened.config.task == "generate"
    foreign = CONDITIONS if generator else MEASURING
    _refuse(given, foreign, f"does not go with {run}, a run of {opened.config.task!r}")
    if given["images"] and not given["samples"]:
        raise click.UsageError(
            "--images N is for the importance-weighted bound; give --samples too"
        )
    sharing.start(processes)
    wishes = {name: given[name] for name in (*(MEASURING if generator else ()), "batch")}
    _measure(opened, given, folder, wishes)


def _refuse(given: dict[str, Any], names: Iterable[str], why: str) -> None:
    for name in names:
        if given[name]:
            option = {"name": "run", "arguments": "set"}.get(name, name.replace("_", "-"))
            raise click.UsageError(f"--{option} {why}")


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
    run: Any, given: dict[str, Any], images: Path | None, measuring: dict[str, Any]
) -> None:
    """Measure a run, write the curves, print."""
    from drawbench import distributed
    from drawbench.cli import console, training
    from drawbench.tasks import task as lifecycle

    screen = console.Console()
    datasets, sources, trust, out = (given[n] for n in ("datasets", "sources", "trust", "out"))
    place = {"datasets": datasets, "sources": sources, "trust": trust, "images": images}
    task = training.create_to_measure(run, screen=screen, **place)
    conditions = {name: given[name] for name in CONDITIONS if given[name]}
    for condition, values in conditions.items():
        if condition not in task.conditions:
            can = ", ".join(task.conditions) or "nothing"
            raise click.UsageError(
                f"{run.folder} cannot be measured against {condition}; it can vary {can}"
            )
        field = configs.settings(configs.Classify)[condition].field
        try:
            for value in values:
                check(field, value)
        except Problem as error:
            raise click.UsageError(f"--{error}") from error
    out = out or (run.folder if training.writable(run) else None)
    own = out is not None and out.resolve() == run.folder.resolve()
    if out is not None and not own and (out / "config.json").exists():
        raise Problem(f"{out} is another run, which stays as it is; name another folder with --out")
    if out is None and (conditions or measuring.get("samples")):
        screen.say(
            f"{run.folder} is an exported copy or read-only and stays as it is: what is measured "
            "now is printed only; to keep it, give --out."
        )
    with training.stopping(screen) as flag:
        measurement = lifecycle.measure(task, run, screen, flag.check, **measuring)
        screen.close()
        curves = {
            condition: task.against(task.model, condition, values, flag.check)
            for condition, values in conditions.items()
        }
    if distributed.rank():
        return
    fields = measurement.fields
    recorded = run.result() if run.finished else {}
    sha = measurement.outcomes.test_sha256
    foreign = recorded.get("test_sha256", sha) != sha
    if foreign:
        screen.say(
            f"The test images of {task.dataset.name} are not those of {run.folder / 'result.json'}"
            + (", which stays as it is; to keep what is measured now, give --out." if own else ".")
        )
    written: list[Path] = []
    if out is not None and not (own and foreign):
        out.mkdir(parents=True, exist_ok=True)
        usual = getattr(run.config.training, "bound_samples", None)
        if fields.get("bound_samples") in (None, usual):
            measurement.outcomes.save(out)
        for condition, rows in curves.items():
            # A data set of one's own hides what it was trained with.
            trained_at = getattr(task.config.data, condition, None)
            trained_at = task.model.glimpses if condition == "glimpses" else trained_at
            written += write_curve(out, condition, rows, trained_at)
        written += _keep(run, out, recorded, fields)
    result = {"run": str(run.folder), "dataset": task.dataset.name, **fields, "curves": curves}
    console.emit(result, _text(run.folder, fields, curves, written), given["as_json"])


def _keep(run: Any, out: Path, recorded: dict[str, Any], fields: dict[str, Any]) -> list[Path]:
    """Write what was measured: into another folder all of it, into a finished run's own result an
    importance-weighted bound.
    """
    from drawbench import files

    if out.resolve() != run.folder.resolve():
        files.write_json(out / "evaluation.json", fields)
        return [out / "evaluation.json"]
    found = {name: value for name, value in fields.items() if name.startswith("iw_")}
    if not recorded or not found or recorded.get("test_sha256") != fields["test_sha256"]:
        return []
    run.write_result({**recorded, **found})
    return [run.folder / "result.json"]


def _text(
    folder: Path, fields: dict[str, Any], curves: dict[str, list[dict]], written: list[Path]
) -> str:
    """Return what ``evaluate`` prints."""
    from drawbench.cli import console, training

    lines = [f"{folder}:", console.table([training.measured_row(fields)])]
    if "per_class_error" in fields:
        names = fields.get("classes") or range(len(fields["per_class_error"]))
        by_class = zip(names, fields["per_class_error"], strict=True)
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
        before = before.apply(pandas.to_numeric, errors="coerce").dropna()
        if list(before.columns) == list(frame.columns):
            frame = pandas.concat([before[~before[condition].isin(frame[condition])], frame])
    frame = frame.sort_values(condition)
    files.write_atomically(path, frame.to_csv(index=False, lineterminator="\n").encode())
    curve = error_curve(
        frame.rename(columns={condition: "condition"}), CONDITIONS[condition], trained_at=trained_at
    )
    return [path, *save(curve, folder / "figures", f"error_against_{condition}")]


# ------------------------------------------------------------------------------- your own network


def _own_config(model: Any, given: dict[str, Any], folder: Path | None) -> Any:
    """Return the configuration of a network of the user's own on one test file."""
    if ":" not in model:
        raise click.UsageError(
            f"--model must be module:factory, such as mymodel:network; got {model!r}"
        )
    settings = {"model": model, "weights": given["weights"] and str(given["weights"])}
    if given["source"]:
        settings["source"] = given["source"]
    for name in ("canvas", "clutter"):
        values = given[name]
        if values and len(values) != 1:
            raise click.UsageError(
                f"with --model, --{name} names the one test file: give one number, "
                f"got {len(values)}"
            )
        settings |= {name: values[0]} if values else {}
    if folder is not None:
        settings["data"] = str(folder)
    if given["arguments"]:
        settings["arguments"] = dict(given["arguments"])
    config = experiment.configure(configs.MeasureModel, None, settings)
    return experiment.with_stored_set(config, settings)


def _measure_own(config: Any, given: dict[str, Any]) -> None:
    """Measure a network of the user's own, and write its run folder."""
    from drawbench import data, user_code
    from drawbench.cli import console, training
    from drawbench.figures import confusion, save
    from drawbench.runs import Run, check_available, command_line
    from drawbench.tasks import measure_model

    model = config.model.model
    user_code.factory(model, (model,))  # before the data are loaded
    stem = "evaluate-" + model.replace(":", "-").replace(".", "-")
    name = given["name"] or training.free_name(given["runs"], stem)
    folder = training.folder_for(given["runs"], name)
    check_available(folder, given["force"])
    screen = console.Console()
    roots = data.sources_root(given["sources"]), given["datasets"]
    with training.stopping(screen) as flag:
        config, result, outcomes = measure_model.measure(
            config, given["weights"], *roots, screen, batch=given["batch"], check=flag.check
        )
    result["command"] = command_line()
    run = Run.create(folder, config, command=command_line(), force=given["force"])
    outcomes.save(folder)
    figures = save(confusion(result["confusion"]), run.figures, "confusion")
    run.write_result(result)
    row = {"model": result["model"], **training.measured_row(result)}
    lines = [console.table([row]), "", f"Folder: {folder}", *(f"  {path}" for path in figures)]
    console.emit({**result, "run": str(folder)}, "\n".join(lines), given["as_json"])
