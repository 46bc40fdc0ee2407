"""All figures of one run, computed and drawn into its folder."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from drawbench import figures, published
from drawbench.data.dataset import Dataset
from drawbench.errors import Problem
from drawbench.evaluation import bounds, drawings
from drawbench.evaluation.mistakes import find as find_mistakes
from drawbench.figures import save
from drawbench.figures.style import array, as_bytes
from drawbench.figures.windows import Outlines
from drawbench.files import write_atomically
from drawbench.models.common import as_images
from drawbench.reporters import Views
from drawbench.runs import Run

CHANNELS = (1, 3)  # of images that can be shown
SHOWN = 16  # images in the glimpse figures
VIEWED = 64  # validation images whose windows a log shows
STEP_ROWS = 6  # samples shown step by step
PAIRS = 8  # in the animation of reconstructions
ATTENDED = 3  # captions in the figure of attended words
INTERPOLATIONS = 4  # rows


def classifier_pictures(
    run: Run, model: nn.Module, dataset: Dataset, result: dict[str, Any]
) -> list[Path]:
    """Draw the learning curve, the confusion matrix and, where a model glimpses, its glimpses.

    Args:
        dataset: its first test images are shown.
        result: the content of ``result.json``.

    Returns:
        The files written.

    Raises:
        Problem: if ``metrics.csv`` or the result is not what a run writes.
    """
    with _content_of(run.folder / "result.json"):
        confusion = figures.confusion(result["confusion"], dataset.classes)
    with _content_of(run.folder / "metrics.csv"):
        metrics = run.metrics()
        references = _error_references(run, dataset, float(metrics["validation_error"].max()))
        curves = figures.learning_curves(metrics, references)
    paths = save(curves, run.figures, "learning_curve")
    paths += save(confusion, run.figures, "confusion")
    return paths + _glimpse_pictures(model, dataset, run.figures)


def _glimpse_pictures(model: Any, dataset: Dataset, folder: Path) -> list[Path]:
    """Draw the glimpses of the first test images; nothing for a model without patches to show."""
    shown = dataset.test.at(torch.arange(min(SHOWN, len(dataset.test))))
    with torch.no_grad():
        record = model(as_images(shown.images.to(next(model.parameters()).device)))
    facts = glimpse_facts(model, shown.images, shown.labels, record, dataset.classes)
    if facts is None:
        return []
    sheets = enumerate(figures.glimpse_paths(*facts), start=1)
    paths = [path for n, sheet in sheets for path in save(sheet, folder, f"glimpses_{n}")]
    return [*paths, figures.glimpse_animation(folder / "glimpses.gif", *facts)]


def mistakes(
    folder: Path,
    model: Any,
    dataset: Dataset,
    count: int = SHOWN,
    check: Callable[[], None] = lambda: None,
) -> tuple[Any, list[Path]]:
    """Measure and draw where a classifier errs; see :mod:`drawbench.evaluation.mistakes`.

    Args:
        folder: gets ``errors_by_clutter.csv``, and figures in ``figures``.
        count: misread images to show.
        check: called between batches; it may raise to stop.

    Returns:
        The table and the files written.
    """
    found = find_mistakes(model, dataset, check)
    csv = folder / "errors_by_clutter.csv"
    write_atomically(csv, found.table.to_csv(index=False, lineterminator="\n").encode())
    frame = found.table.rename(columns={"clutter": "condition", "digits": "name"})
    words = "ink of clutter on or beside the digit (% of its own ink)"
    curve = figures.error_curve(frame, words, ylabel="error (%)")
    paths = [csv, *save(curve, folder / "figures", "errors_by_clutter")]
    if not len(found.which) or dataset.size[0] not in CHANNELS:
        return found.table, paths
    shown = dataset.test.at(found.which[:count])
    with torch.no_grad():
        record = model(as_images(shown.images.to(next(model.parameters()).device)))
    where = _glimpse_outlines(model, record, *dataset.size[1:])
    sheet = figures.mistakes_sheet(
        shown.images, shown.labels, record.logits, where, dataset.classes
    )
    return found.table, [*paths, *save(sheet, folder / "figures", "errors")]


def glimpse_facts(
    model: Any, images: Any, labels: Any, record: Any, classes: Any
) -> tuple[Any, ...] | None:
    """Return the arguments of the figures of glimpses; None where there are none to show.

    Args:
        images: uint8 (B, C, H, W), at which the model looked.
        labels: (B,), or None where the true classes are unknown.
        record: what the model returned.
        classes: names of the classes.
    """
    _, channels, height, width = images.shape
    patches = getattr(record, "patches", None)
    where = _glimpse_outlines(model, record, height, width)
    if where is None or patches is None or patches.ndim != 5 or patches.shape[2] % channels:
        return None
    if channels not in CHANNELS:
        return None
    return images, labels, record.logits, patches, where, classes


def classifier_views(model: Any, dataset: Dataset) -> Views:
    """Return the glimpses at a few validation images, and where all windows of more of them are.

    Both are empty for a model that does not glimpse.
    """
    part = dataset.validation.at(torch.arange(min(VIEWED, len(dataset.validation))))
    with _measuring(model), torch.no_grad():
        record = model(as_images(part.images.to(next(model.parameters()).device)))
    pictures = {}
    if (
        facts := glimpse_facts(model, part.images, part.labels, record, dataset.classes)
    ) is not None:
        images, labels, logits, patches, where, classes = facts
        few = slice(4)
        some = (images[few], labels[few], logits[few], patches[few], where.part(few), classes)
        pictures["glimpses"] = _pixels(figures.glimpse_paths(*some)[0])
    return Views(pictures, _window_values("window", getattr(record, "windows", None)))


def generator_views(model: Any, dataset: Dataset) -> Views:
    """Return samples and reconstructions, and where the windows of the reconstructions are."""
    pictures: dict[str, np.ndarray] = {}
    values: dict[str, np.ndarray] = {}
    index = bounds.evenly(len(dataset.validation), SHOWN)
    shown = dataset.validation.at(index)
    with _measuring(model):
        samples = hasattr(model, "sample")
        drawn = drawings.samples(model, len(index), 0, shown.condition) if samples else None
        again = drawings.reconstructions(model, shown, index)
    if drawn is not None and drawn.images.shape[1] in CHANNELS:
        pictures["samples"] = _pixels(figures.sample_sheet(drawn.images))
    if again is not None and again.images.shape[1] in CHANNELS:
        panel = figures.reconstruction_panel(as_images(shown.images).cpu(), again.images)
        pictures["reconstructions"] = _pixels(panel)
        values |= _window_values("read", again.read_windows)
        values |= _window_values("write", again.write_windows)
    return Views(pictures, values)


@contextlib.contextmanager
def _measuring(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _window_values(name: str, windows: Any) -> dict[str, np.ndarray]:
    """Return all numbers of each field of windows (named tuples of tensors), by name."""
    fields = windows._asdict() if hasattr(windows, "_asdict") else {}
    return {
        f"{name}/{field}": array(value).astype(float).ravel()
        for field, value in fields.items()
        if isinstance(value, torch.Tensor)
    }


def _pixels(figure: Figure) -> np.ndarray:
    """Return a figure as uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(as_bytes(figure, "png"))) as picture:
        return np.asarray(picture.convert("RGB"))


def _glimpse_outlines(model: Any, record: Any, height: int, width: int) -> Outlines | None:
    """Return the outlines of what was read, at every scale; None where there are none."""
    glimpse, where = getattr(model, "glimpse", None), getattr(record, "windows", None)
    if where is None or glimpse is None or not hasattr(glimpse, "corners"):
        return None
    scales = range(1, getattr(glimpse, "scales", 1))
    try:
        corners = [glimpse.corners(where, height, width)]
        corners += [glimpse.corners(where, height, width, scale=scale) for scale in scales]
    except NotImplementedError:  # a glimpse need not have an outline
        return None
    return figures.outlines(torch.stack(corners, dim=2), getattr(where, "variance", None))


def _error_references(run: Run, dataset: Dataset, worst: float) -> dict[str, float]:
    """Return chance, if the curve comes near it, and the paper's error on the same task."""
    chance = 100 * (1 - 1 / len(dataset.classes or "01"))
    references = {"chance": chance} if worst > 30 else {}
    if run.config.model.model != "draw":
        return references
    looks = run.config.model.glimpses
    for entry in published.results(dataset.name):
        name, facts = entry["model"], (entry["metric"], entry.get("glimpses"))
        if name.startswith("Differentiable RAM") and facts == ("error", looks):
            references[f"paper, {looks} glimpses, test"] = float(entry["value"])
    return references


def generator_pictures(
    run: Run, model: nn.Module, dataset: Dataset, result: dict[str, Any], count: int = 16
) -> list[Path]:
    """Draw the learning curve, the KL of the steps, samples, reconstructions and interpolations.

    Args:
        result: the content of ``result.json``.
        count: samples, and test images to reconstruct.

    Returns:
        The files written.

    Raises:
        Problem: if ``metrics.csv`` or the result is not what a run writes.
    """
    with _content_of(run.folder / "result.json"):
        bars = figures.kl_per_step_bars(result["kl_per_step"])
    with _content_of(run.folder / "metrics.csv"):
        metrics = run.metrics()
        curves = figures.generator_curve(metrics, _bound_references(run, dataset))
        kl = figures.kl_map(metrics)
    paths = save(curves, run.figures, "learning_curve")
    paths += save(kl, run.figures, "kl_over_training")
    paths += save(bars, run.figures, "kl_per_step")
    paths += draw_samples(model, dataset, run.figures, count)
    return paths + _reconstruction_pictures(model, dataset, run.figures, count)


def _bound_references(run: Run, dataset: Dataset) -> dict[str, float]:
    """Return the paper's bound where the model and the data are the paper's."""
    attention = getattr(run.config.model, "attention", None)
    name = {"both": "DRAW", "none": "DRAW without attention"}.get(str(attention))
    for entry in published.results(dataset.name):
        if entry["metric"] == "bound" and entry["model"] == name:
            return {"paper, test": float(entry["value"])}
    return {}


def draw_samples(
    model: Any,
    dataset: Dataset | None,
    folder: Path,
    count: int = 16,
    seed: int = 0,
    suffix: str = "",
    condition: Tensor | None = None,
    show: Callable[[Tensor], str] | None = None,
) -> list[Path]:
    """Draw samples, their steps and their animation; with data also the nearest training images.

    Args:
        seed: of the noise.
        suffix: end of the file names, so that other samples are not overwritten.
        condition: (count, ...), to draw from; by default of evenly spaced test images.
        show: returns a condition in words; by default as the data set does.

    Returns:
        The files written; none for a model that cannot sample.
    """
    if not hasattr(model, "sample"):
        return []
    if dataset is not None:
        condition, show = dataset.test.condition, dataset.show
        condition = None if condition is None else condition[bounds.evenly(len(condition), count)]
    drawn = drawings.samples(model, count if condition is None else len(condition), seed, condition)
    if drawn is None or drawn.images.shape[1] not in CHANNELS:
        return []
    if condition is not None and show is not None:
        paths = _caption_pictures(drawn, list(map(show, condition)), model, folder, suffix)
        return paths + _held_out_pictures(model, dataset, folder, seed)
    near = None if dataset is None else drawings.nearest(drawn.images, dataset.train)
    paths = save(figures.sample_sheet(drawn.images, near), folder, f"samples{suffix}")
    if drawn.frames is None or drawn.frames.shape[1] < 2:
        return paths
    _, writes = _outlines(drawn, model)
    few = writes and writes.part(slice(STEP_ROWS))
    steps = figures.steps_panel(drawn.frames[:STEP_ROWS], few)
    paths += save(steps, folder, f"sample_steps{suffix}")
    animation = folder / f"samples{suffix}.gif"
    return [*paths, figures.drawing_animation(animation, drawn.frames, writes)]


def _caption_pictures(
    drawn: drawings.Pictures, texts: list[str], model: Any, folder: Path, suffix: str
) -> list[Path]:
    """Draw samples over their captions; with attention to words also which step saw which word."""
    paths = save(figures.captioned(drawn.images, texts), folder, f"samples{suffix}")
    if drawn.frames is None or drawn.attended is None:
        return paths
    captions = [
        figures.Caption(text.split(), weights.numpy())
        for text, weights in zip(texts, drawn.attended, strict=True)
    ]
    few = slice(ATTENDED)
    heat = figures.attended_words(drawn.frames[few], captions[few])
    paths += save(heat, folder, f"attended_words{suffix}")
    some, (_, writes) = slice(PAIRS), _outlines(drawn, model)
    animation, writes = folder / f"samples{suffix}.gif", writes and writes.part(some)
    facts = (drawn.frames[some], captions[some], writes)
    return [*paths, figures.caption_animation(animation, *facts)]


def _held_out_pictures(model: Any, dataset: Dataset | None, folder: Path, seed: int) -> list[Path]:
    """Draw one sample from each caption that training left out."""
    held_out = None if dataset is None else dataset.held_out
    if dataset is None or dataset.show is None or held_out is None or held_out.condition is None:
        return []
    captions = held_out.condition.unique(dim=0)
    drawn = drawings.samples(model, len(captions), seed, captions)
    if drawn is None:
        return []
    sheet = figures.captioned(drawn.images, list(map(dataset.show, captions)))
    return save(sheet, folder, "held_out_samples")


def _reconstruction_pictures(model: Any, dataset: Dataset, folder: Path, count: int) -> list[Path]:
    """Draw reconstructions of evenly spaced test images, their animation, and interpolations."""
    index = bounds.evenly(len(dataset.test), count)
    shown = dataset.test.at(index)
    drawn = drawings.reconstructions(model, shown, index)
    if drawn is None or drawn.images.shape[1] not in CHANNELS:
        return []
    images = as_images(shown.images).cpu()
    panel = figures.reconstruction_panel(images, drawn.images)
    paths = save(panel, folder, "reconstructions")
    if drawn.frames is not None and drawn.frames.shape[1] > 1:
        few = slice(PAIRS)
        windows = [some and some.part(few) for some in _outlines(drawn, model)]
        path = folder / "reconstructions.gif"
        paths.append(
            figures.reconstruction_animation(path, images[few], drawn.frames[few], *windows)
        )
    test = dataset.test
    if len(test) < 2 or test.condition is not None:  # latents are decoded without a condition
        return paths
    ends = test.images[bounds.evenly(len(test), 2 * INTERPOLATIONS)]
    rows = drawings.interpolations(model, ends)
    if rows is not None:
        paths += save(figures.interpolation_panel(rows), folder, "interpolations")
    return paths


def _outlines(drawn: Any, model: Any) -> list[Outlines | None]:
    """Return the outlines of the windows read and written."""
    kinds = ((drawn.read_windows, "read_patch"), (drawn.write_windows, "write_patch"))
    return [figures.window_outlines(some, getattr(model, patch, None)) for some, patch in kinds]


@contextlib.contextmanager
def _content_of(path: Path) -> Iterator[None]:
    """Name the file whose content, though readable, is not what a run writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise Problem(
            f"{path} is not what a run writes ({error!r}); "
            "restore it, or train the run again with --force"
        ) from error
