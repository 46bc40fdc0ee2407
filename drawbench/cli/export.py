"""``drawbench export``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench export results/runs/NAME results/published/NAME
  drawbench export RUN FOLDER --half        weights of half the size; measures the copy
  drawbench export RUN FOLDER --no-weights  numbers and figures: enough for tables and compare
  drawbench export RUN FOLDER --onnx --license mit   for other programs, and for the hub
"""
)
@options.RUN_ARGUMENT
@click.argument("folder", type=options.folder)
@click.option(
    "--half", is_flag=True, help="Round the weights to half precision, and measure the copy."
)
@click.option(
    "--weights/--no-weights", default=True, help="Copy the weights, or numbers and figures only."
)
@click.option(
    "--onnx",
    is_flag=True,
    help="Also write model.onnx, and check that it computes the same: images to class "
    "probabilities, or noise to samples.  [needs drawbench\\[onnx]]",
)
@click.option(
    "--license",
    default="unknown",
    metavar="ID",
    help="License of the weights for the card, such as mit or cc-by-4.0.",
)
@options.PLACE
@options.common
def command(
    run: Path,
    folder: Path,
    half: bool,
    weights: bool,
    onnx: bool,
    license: str,
    as_json: bool,
    **place: Any,
) -> None:
    """Copy a finished run to keep or share: numbers, figures, best weights and a card.

    Training states are left out: a copy can be evaluated, plotted and drawn with, but not trained.
    With --half its result is that of the rounded weights. The card is README.md, in the form that
    the Hugging Face hub reads: upload the folder as it is.
    """
    if (half or onnx) and not weights:
        option = "--half" if half else "--onnx"
        raise click.UsageError(f"{option} needs the weights that --no-weights leaves out; use one")
    import shutil

    from drawbench import files, records, tasks
    from drawbench.cli import console, training
    from drawbench.report.card import model_card

    opened = tasks.open_run(run)
    records.read(opened.folder, console.say)  # a shared run has a sound result
    copy = opened.copy_to(folder, half=half, weights=weights)
    try:
        if half:
            measurement = training.measure(copy, **place)
            measurement.outcomes.save(folder)
            copy.write_result(copy.result() | measurement.fields)
        if onnx:
            _write_onnx(folder, place["trust"])
        card = model_card(records.read(folder, console.say), license)
        files.write_atomically(folder / "README.md", card.encode())
    except BaseException:
        shutil.rmtree(folder)
        raise
    result = copy.result()
    size = (folder / "best.safetensors").stat().st_size if weights else 0
    content = f"weights {size / 1e6:.1f} MB" if weights else "no weights"
    text = f"{folder}: {result['metric'].replace('_', ' ')} {result['value']:.2f}, {content}."
    console.emit({**result, "run": str(folder), "weights_bytes": size}, text, as_json)


def _write_onnx(folder: Path, trust: tuple[str, ...]) -> None:
    """Write the model of an exported run as ``model.onnx``, with what its numbers are."""
    from drawbench import tasks
    from drawbench.tasks import onnx_export, weights

    run, config, model = tasks.load_run(folder, trust)
    facts = weights.facts_of(run, run.load_best()[1])
    shape: tuple[int, ...] = (facts["channels"], facts["height"], facts["width"])
    about: dict[str, Any] = {"task": config.task, "model": config.model.model, "image": shape}
    if config.task == "classify":
        about["classes"] = weights.class_names(run.load_best()[1], facts["classes"])
    else:
        shape = (int(model.steps), int(model.latent))  # type: ignore[arg-type]
    onnx_export.export(model, shape, folder / "model.onnx", about)
