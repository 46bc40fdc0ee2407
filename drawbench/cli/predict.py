"""``drawbench predict``."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from drawbench.cli import options
from drawbench.errors import Problem, one_line

BATCH = 32  # pictures in memory at a time
MAX_INPUT = 1 << 26  # bytes of a picture on standard input
STDIN = "standard input"


@click.command(
    epilog="""\b
Examples:
  drawbench predict results/published/eye-4 seven.png
  drawbench predict RUN photos/ --format gif --out paths    every picture in a folder
  drawbench predict RUN scan.jpg --side 40 --invert no
  curl -s https://example.org/7.png | drawbench predict RUN -
  find photos -name '*.png' -print0 | xargs -0 drawbench predict RUN --json
"""
)
@options.RUN_ARGUMENT
@click.argument("images", metavar="IMAGE|FOLDER|-...", nargs=-1, required=True, type=options.path)
@click.option(
    "--fit",
    type=click.Choice(["pad", "crop", "stretch"]),
    help="How a picture becomes an image of the network's size: in the middle of a black one, its "
    "centre cut out, or stretched.  [default: pad for digits, else crop]",
)
@click.option(
    "--side",
    type=click.IntRange(1),
    help="With pad: the pixels of the longer side.  [default: unchanged; a picture larger than the "
    "image is taken for one digit, which is cut out and reduced to MNIST's 20]",
)
@click.option(
    "--invert",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    help="Networks for digits expect them light on black; auto inverts a picture with a light "
    "border for these.",
)
@click.option("--top", type=click.IntRange(1), default=3, help="Answers to print for a picture.")
@click.option(
    "--out",
    type=options.folder,
    default=Path("predictions"),
    help="Folder for the pictures of the glimpses.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["png", "gif", "both", "none"]),
    default="png",
    help="How to draw the glimpses.",
)
@options.TRUST
@options.common
def command(
    run: Path,
    images: tuple[Path, ...],
    fit: str | None,
    side: int | None,
    invert: str,
    top: int,
    out: Path,
    form: str,
    trust: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what a trained classifier sees on pictures, and show where it looked.

    A folder stands for all pictures in it, and - for one picture on standard input (its bytes, not
    a list of names). How each was made to fit the network is said on standard error and in the
    answer with --json. Networks that do not glimpse have no path to draw. A picture that cannot be
    used does not stop the others; the exit status is then 1.
    """
    from drawbench import tasks
    from drawbench.cli import console
    from drawbench.data import prepare
    from drawbench.tasks import weights

    opened, config, model = tasks.load_run(run, trust)
    if config.task != "classify":
        raise Problem(f"{run} is a generator; only classifiers answer: see drawbench generate")
    about = opened.load_best()[1]
    facts = weights.facts_of(opened, about)
    classes = weights.class_names(about, facts["classes"])
    size = (facts["channels"], facts["height"], facts["width"])
    rules = prepare.rules(config.data, size, fit, side, invert)
    predictions: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    taken: set[str] = set()
    for batch in _batches(images, rules, failures):
        predictions += _answers(model, batch, classes, out, form, taken)
    for sentence in _remarks(predictions):
        console.say(sentence)
    for failure in failures:
        console.say(f"{failure['problem']}.")
    result = {"run": str(run), "predictions": predictions, "failures": failures}
    rows = [_row(prediction, top) for prediction in predictions]
    console.emit(result, console.columns(rows) if rows else "No answer.", as_json)
    if failures:
        total = len(failures) + len(predictions)
        raise Problem(f"{len(failures)} of {total} pictures could not be used")


def _paths(images: tuple[Path, ...], failures: list[dict[str, str]]) -> Iterator[tuple[str, Path]]:
    """Yield the name and the file of every picture; note folders without any."""
    from drawbench.data import folders

    for image in images:
        if str(image) == "-":
            with tempfile.TemporaryDirectory(prefix="drawbench-") as folder:
                path = Path(folder, "picture")
                path.write_bytes(sys.stdin.buffer.read(MAX_INPUT + 1))
                yield STDIN, path
        elif os.path.isdir(image):
            try:
                found, problem = folders.pictures(image), f"{image} holds no pictures"
            except Problem as error:
                found, problem = [], str(error)
            if not found:
                failures.append({"image": one_line(str(image)), "problem": one_line(problem)})
            yield from ((one_line(str(path)), path) for path in found)
        else:
            yield one_line(str(image)), image


def _batches(
    images: tuple[Path, ...], rules: Any, failures: list[dict[str, str]]
) -> Iterator[list[tuple[str, Any, list[str]]]]:
    """Yield name, pixels and preparation of pictures, some at a time."""
    from drawbench.data import image_files, prepare

    batch = []
    for name, path in _paths(images, failures):
        try:
            batch.append((name, *prepare.prepare(path, rules)))
        except image_files.Unusable as problem:
            sentence = str(problem).replace(str(path), name)
            failures.append({"image": name, "problem": sentence})
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _answers(
    model: Any,
    batch: list[tuple[str, Any, list[str]]],
    classes: tuple[str, ...],
    out: Path,
    form: str,
    taken: set[str],
) -> list[dict[str, Any]]:
    """Return what a model makes of pictures, and draw its glimpses."""
    import numpy as np
    import torch

    from drawbench.models import as_images
    from drawbench.tasks.pictures import glimpse_facts

    images = torch.from_numpy(np.stack([pixels for _, pixels, _ in batch]))
    with torch.no_grad():
        record = model(as_images(images))
    probabilities = record.logits.float().softmax(-1)
    if not torch.isfinite(probabilities).all():
        raise Problem("the network's answers are not finite: its weights are broken")
    shown = glimpse_facts(model, images, None, record, classes) if form != "none" else None
    answers = []
    for n, (name, _, steps) in enumerate(batch):
        last = probabilities[n, -1]
        answer = {
            "image": name,
            "answer": classes[int(last.argmax())],
            "probability": float(last.max()),
            "probabilities": dict(zip(classes, last.tolist(), strict=True)),
            "after_each_glimpse": [
                [classes[int(each.argmax())], float(each.max())] for each in probabilities[n]
            ],
            "prepared": ", ".join(steps),
            "pictures": [],
        }
        if shown is not None:
            stem = _stem("stdin" if name == STDIN else Path(name).stem, taken)
            answer["pictures"] = [str(path) for path in _draw(shown, n, out, stem, form)]
        answers.append(answer)
    return answers


def _stem(name: str, taken: set[str]) -> str:
    """Return a file name that no other picture has got, short enough for what is added to it."""
    name = name.encode("utf-8", "surrogateescape")[:150].decode("utf-8", "ignore")
    stem, number = name, 2
    while stem in taken:
        stem, number = f"{name}-{number}", number + 1
    taken.add(stem)
    return stem


def _draw(shown: tuple[Any, ...], n: int, out: Path, stem: str, form: str) -> list[Path]:
    """Draw the glimpses at one picture of a batch."""
    from drawbench import figures

    images, _, logits, patches, where, classes = shown
    one = slice(n, n + 1)
    facts = (images[one], None, logits[one], patches[one], where.part(one), classes)
    paths = []
    if form in ("png", "both"):
        (sheet,) = figures.glimpse_paths(*facts)
        paths += figures.save(sheet, out, f"{stem}-glimpses")
    if form in ("gif", "both"):
        paths.append(figures.glimpse_animation(out / f"{stem}-glimpses.gif", *facts))
    return paths


def _remarks(predictions: list[dict[str, Any]]) -> Iterator[str]:
    """Yield, for each way in which pictures were prepared, how and which."""
    ways: dict[str, list[str]] = {}
    for prediction in predictions:
        ways.setdefault(prediction["prepared"], []).append(prediction["image"])
    for way, names in ways.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{others}: {way or 'used as it is'}."


def _row(prediction: dict[str, Any], top: int) -> dict[str, str]:
    """Return the cells of a picture."""
    best = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])[:top]
    row = {"picture": prediction["image"], "answer": prediction["answer"]}
    row["probabilities"] = ", ".join(f"{name} {100 * share:.1f}%" for name, share in best)
    return row | {"glimpses": " ".join(prediction["pictures"])}
