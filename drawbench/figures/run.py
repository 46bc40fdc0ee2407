"""All figures of one run, into its folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from drawbench.errors import Problem
from drawbench.evaluation import as_input
from drawbench.figures import curves, glimpses
from drawbench.figures.style import save
from drawbench.runs import Run

# DRAW, Table 1: shown beside our curve where the task is the paper's.
PAPER_TEST_ERROR = {4: 4.18, 8: 3.36}


def of_classifier(run: Run, model: nn.Module, images, labels) -> list[Path]:
    """Learning curve, confusion, glimpse paths and a film of a classifier's run.

    Args:
        images, labels: uint8 (N, H, W) and (N,) from the test file; the first sixteen are shown.

    Returns:
        The files written.

    Raises:
        Problem: ``metrics.csv`` or ``result.json`` is missing or holds something else.
    """
    paths: list[Path] = []
    with _content_of(run.folder / "metrics.csv"):
        paths += save(curves.learning_curves(run.metrics(), _references(run)), run.figures, "learning_curve")
    with _content_of(run.folder / "result.json"):
        paths += save(curves.confusion(run.result()["confusion"]), run.figures, "confusion")
    shown, names = images[:16], labels[:16]
    with torch.no_grad():
        seen = model(as_input(shown, next(model.parameters()).device))
    if hasattr(seen, "windows"):
        for number, sheet in enumerate(glimpses.glimpse_paths(shown, names, seen), start=1):
            paths += save(sheet, run.figures, f"glimpses_{number}")
        paths.append(glimpses.glimpse_film(shown, names, seen, run.figures / "glimpses.gif"))
    return paths


@contextlib.contextmanager
def _content_of(path: Path) -> Iterator[None]:
    """Name the file where its content, though readable, is not what a run writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise Problem(f"{path} is not what a run writes ({error!r}); write it again: drawbench resume {path.parent}") from error


def _references(run: Run) -> dict[str, float]:
    """Lines to hold the curve against: chance, and the paper's number if this is the paper's task."""
    data, looks = run.config.data, run.config.model.glimpses
    references = {"chance": 90.0}
    if data.source == "mnist" and (data.canvas, data.clutter) == (100, 8) and looks in PAPER_TEST_ERROR:
        references[f"paper, {looks} glimpses, test"] = PAPER_TEST_ERROR[looks]
    return references
