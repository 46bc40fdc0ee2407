"""The pictures that explain DRAW, from two finished generators: with and without attention."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from drawbench import figures
from drawbench.data.batch import Batch
from drawbench.errors import Problem
from drawbench.evaluation import drawings
from drawbench.figures import save
from drawbench.figures.explained import Drawn
from drawbench.models import attention_of
from drawbench.runs import Run

SAMPLES = 400  # drawn, to find some that change their mind
ROWS = 6  # of a figure
WINDOWS = 4  # of one drawing that are shown
SURE, RESTED = 0.9, 0.8  # of the last answer, and of an earlier one that counts as another mind
CHUNK = 2000  # canvases read at a time

Reader = Callable[[Tensor], Tensor]  # pictures (N, C, H, W) in [0, 1] -> logits (N, K)


class Explained(NamedTuple):
    """What was drawn and counted."""

    paths: list[Path]
    #: By run: the share of samples, percent, that a reader takes for another class half-way than at
    #: the end.
    changed_after_half: dict[str, float]


def draw(
    runs: list[Run], models: list[Any], reader: Reader | None, folder: Path, seed: int = 0
) -> Explained:
    """Draw samples of two generators side by side, the windows of the first one's first drawing,
    the KL of the steps, and, with a reader, what it takes each drawing for after each step.

    Args:
        models: of the runs, with their best weights.
        reader: of pictures of the size that they draw.
        seed: of the samples; the first few are shown side by side, unselected.

    Raises:
        Problem: a model that cannot sample, draws from a condition, or keeps no canvases; runs of
            one name.
    """
    for run, model in zip(runs, models, strict=True):
        if getattr(model, "conditional", False) or not hasattr(model, "sample"):
            why = "draws from a condition" if hasattr(model, "sample") else "cannot sample"
            raise Problem(
                f"the model of {run.folder} {why}; what is explained draws by itself, as "
                "draw-mnist does"
            )
    windows = [attention_of(model) not in (None, "none") for model in models]
    titles = ["with attention" if through else "without attention" for through in windows]
    if len(set(titles)) == 1:
        titles = [run.folder.name for run in runs]
    if len(set(titles)) == 1:
        raise Problem(f"two runs are explained side by side, but both are called {titles[0]}")
    samples = [drawings.samples(model, SAMPLES, seed) for model in models]
    halves = [
        _half(title, run, model, drawn)
        for title, run, model, drawn in zip(titles, runs, models, samples, strict=True)
    ]
    paths = save(figures.side_by_side(*halves), folder, "explained_steps")
    first = samples[0]
    assert first is not None and first.frames is not None
    if first.write_windows is not None:
        paths += save(_windows(models[0], first.images[:1]), folder, "explained_windows")
    kl = {name: run.result()["kl_per_step"] for name, run in zip(titles, runs, strict=True)}
    kinds = ["draw" if through else "draw without attention" for through in windows]
    paths += save(figures.kl_lines(kl, kinds), folder, "explained_kl")
    changed = {}
    for run, drawn in zip(runs, samples, strict=True):
        if reader is None or drawn is None or drawn.frames is None:
            continue
        read = probabilities(reader, drawn.frames)
        answers = read.argmax(-1)
        share = (answers[:, read.shape[1] // 2 - 1] != answers[:, -1]).double().mean()
        changed[run.folder.name] = 100 * share.item()
        rows = changes_of_mind(read.numpy())[:ROWS]
        if len(rows):
            classes = [str(number) for number in range(read.shape[2])]
            figure = figures.readings(drawn.frames[rows], read[rows], classes)
            paths += save(figure, folder, f"explained_readings_{run.folder.name}")
    return Explained(paths, changed)


def _half(title: str, run: Run, model: Any, drawn: drawings.Pictures | None) -> Drawn:
    """Return the first drawings of a model, with their title."""
    if drawn is None or drawn.frames is None or drawn.images.shape[1] not in (1, 3):
        raise Problem(f"the model of {run.folder} keeps no pictures of its steps to show")
    writes = figures.window_outlines(drawn.write_windows, getattr(model, "write_patch", None))
    title = f"{title}: {run.result()['value']:.2f} nats"
    return Drawn(title, drawn.frames[:ROWS].numpy(), writes and writes.part(slice(ROWS)))


def _windows(model: Any, image: Tensor) -> Any:
    """Show through which windows a model reads (or writes) one of its own drawings, made black and
    white.
    """
    drawing = drawings.reconstructions(model, Batch((image > 0.5).float()), torch.arange(1))
    assert drawing is not None
    windows, patch = drawing.read_windows, getattr(model, "read_patch", None)
    if windows is None:
        windows, patch = drawing.write_windows, model.write_patch
    assert windows is not None and patch is not None
    steps = torch.linspace(0, windows.stride.shape[1] - 1, WINDOWS).round().long()
    chosen = type(windows)(*(field[0, steps] for field in windows))
    names = [f"step {step + 1}" for step in steps.tolist()]
    return figures.attention_explained((image[0] > 0.5).float(), chosen, patch, names)


@torch.no_grad()
def probabilities(reader: Reader, frames: Tensor) -> Tensor:
    """Return what a reader takes each canvas for.

    Args:
        frames: (B, T, C, H, W) in [0, 1].

    Returns:
        (B, T, K), probabilities.
    """
    pieces = frames.flatten(0, 1).split(CHUNK)
    return torch.cat([reader(piece).softmax(-1) for piece in pieces]).unflatten(0, frames.shape[:2])


def changes_of_mind(read: np.ndarray) -> np.ndarray:
    """Return which drawings a reader took for something else, the latest change first.

    Args:
        read: (B, T, K), its probabilities.

    Returns:
        int64 (M,), drawings whose last answer has at least `SURE` and which had another answer of
        at least `RESTED` at an earlier step.
    """
    answers, strength = read.argmax(-1), read.max(-1)
    other = (answers != answers[:, -1:]) & (strength >= RESTED)
    last = np.where(other.any(1), read.shape[1] - other[:, ::-1].argmax(1), 0)
    last[strength[:, -1] < SURE] = 0
    order = np.argsort(-last, kind="stable")
    return order[last[order] > 0]
