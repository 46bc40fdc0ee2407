"""``drawbench evaluate``."""

from pathlib import Path
from typing import Any

import click

from drawbench import config as configs
from drawbench.cli import options, sharing
from drawbench.config import LARGEST_BATCH, SOURCES, SceneData
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
  drawbench evaluate results/runs/classify-draw-8-seed0
  drawbench evaluate RUN --clutter 0..32..4            error against clutter it was not trained with
  drawbench evaluate RUN --glimpses 1..12              error against looks at test time
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
    help="A generator: also the importance-weighted bound with so many samples.",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    help="Test images of that bound, evenly spaced.  [default: all]",
)
@click.option(
    "--bound-samples",
    type=click.IntRange(1),
    help="Samples for each image in the bound itself.  [default: the run's]",
)
@click.option(
    "--model",
    metavar="MODULE:FACTORY",
    help="Instead of a run: your own network, from a Python module of yours.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Of --model: safetensors, or torch.save(network.state_dict()).",
)
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    help="Of --model: where the digits come from.  [default: auto]",
)
@click.option(
    "--run",
    "name",
    help="Of --model: name of the folder for the result.  [default: made from the model's]",
)
@options.FORCE
@options.RUNS
@click.option(
    "--batch",
    type=click.IntRange(1, LARGEST_BATCH),
    default=250,
    show_default=True,
    help="Images at a time in each process: a matter of memory.",
)
@sharing.PROCESSES
@options.DATASETS
@options.SOURCES
@options.common
def command(
    run: Path | None,
    clutter: list[int] | None,
    canvas: list[int] | None,
    glimpses: list[int] | None,
    samples: int | None,
    images: int | None,
    bound_samples: int | None,
    model: str | None,
    weights: Path | None,
    source: str | None,
    name: str | None,
    force: bool,
    runs: Path,
    batch: int,
    processes: int | None,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Measure a run again from its best weights, on the test file, with a 95 % interval.

    A classifier: the error, and by class; with --clutter, --canvas or --glimpses also outside its
    training conditions; the table and the curve go into the run folder. A generator: the bound, and
    with --samples the importance-weighted one.

    With --model instead of a run: any torch.nn.Module that maps images (B, 1, H, W) in [0, 1] to
    logits (B, 10), or to a record with logits (B, T, 10), made by calling MODULE:FACTORY. It is
    measured on the test file that every model is measured on, of the one --canvas and --clutter
    given (100 and 8), and gets a folder of its own, which stands in tables beside the runs.
    """
    if (run is None) == (model is None):
        raise click.UsageError(
            "give a run to measure again, or --model MODULE:FACTORY, and not both"
        )
    if model is not None:
        for option, value in {
            "--glimpses": glimpses,
            "--samples": samples,
            "--images": images,
            "--bound-samples": bound_samples,
        }.items():
            if value:
                raise click.UsageError(f"{option} does not go with --model")
        _own(
            model,
            weights,
            _scene(canvas, clutter, source),
            runs,
            name,
            force,
            batch,
            datasets,
            sources,
            as_json,
        )
        return
    for option, given in {
        "--weights": weights,
        "--source": source,
        "--run": name,
        "--force": force,
    }.items():
        if given:
            raise click.UsageError(f"{option} goes with --model only")
    assert run is not None
    from drawbench.cli import classifying, console, generating, running

    opened = running.open_run(run)
    screen = console.Console()
    of_classifiers = {"--clutter": clutter, "--canvas": canvas, "--glimpses": glimpses}
    of_generators = {"--samples": samples, "--images": images, "--bound-samples": bound_samples}
    for option in [
        option
        for option, value in (
            of_generators if opened.config.task == "classify" else of_classifiers
        ).items()
        if value
    ]:
        raise click.UsageError(f"{option} does not go with {run}, a run of {opened.config.task!r}")
    if opened.config.task == "generate":
        if images and not samples:
            raise click.UsageError(
                "--images says how many images the importance-weighted bound is measured on; give --samples too"
            )
        sharing.start(processes)
        generating.evaluate(
            opened, samples, bound_samples, images, batch, datasets, sources, screen, as_json
        )
        return
    for option, values in of_classifiers.items():
        _check_values(opened.config, option.removeprefix("--"), values or [])
    sharing.start(processes)
    curves = {
        condition: values
        for condition, values in (("clutter", clutter), ("canvas", canvas), ("glimpses", glimpses))
        if values
    }
    classifying.evaluate(opened, curves, batch, datasets, sources, screen, as_json)


def _check_values(config: Any, setting: str, values: list[int]) -> None:
    """Wrong usage where a setting cannot have one of these values, told before anything is
    measured.
    """
    try:
        for value in values:
            configs.replace(config, **{setting: value})
    except Problem as error:
        raise click.UsageError(f"--{error}") from error


def _scene(canvas: list[int] | None, clutter: list[int] | None, source: str | None) -> SceneData:
    """The data set of the test file that --canvas, --clutter and --source name."""
    given: dict[str, Any] = {} if source is None else {"source": source}
    for setting, values in (("canvas", canvas), ("clutter", clutter)):
        if values is not None:
            if len(values) != 1:
                raise click.UsageError(
                    f"with --model, --{setting} names the one test file, so it is one number, got {len(values)}"
                )
            given[setting] = values[0]
    try:
        return SceneData(**given)
    except Problem as error:
        raise click.UsageError(str(error)) from error


def _own(
    model: str,
    weights: Path | None,
    data: SceneData,
    runs: Path,
    name: str | None,
    force: bool,
    batch: int,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Measure a network that somebody brought along, and write its folder."""
    from drawbench.cli import classifying, running
    from drawbench.config import Evaluate, OwnModel
    from drawbench.runs import refuse_taken
    from drawbench.tasks import user_model as own

    guest = own.load_guest(model, weights)
    folder = running.folder_for(runs, name, "evaluate-" + model.replace(":", "-").replace(".", "-"))
    refuse_taken(folder, force)
    config = Evaluate(data, OwnModel(model, None if weights is None else str(weights)))
    classifying.evaluate_own(config, guest, folder, force, batch, datasets, sources, as_json)
