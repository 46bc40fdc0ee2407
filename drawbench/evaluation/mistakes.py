"""Where a classifier errs: against the clutter on the digit, on training and on test digits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from drawbench.data.batch import Batch
from drawbench.data.dataset import Dataset
from drawbench.errors import Problem
from drawbench.evaluation import error_rate

GROUPS = 4  # of images with clutter on their digit, by how much
MARGIN = 4  # pixels around a digit's ink: MNIST's digits fill 20 x 20 of 28 x 28
FAR = 1 << 40  # presentations from here on are scenes that no training has seen


class Mistakes(NamedTuple):
    """Errors on the test images."""

    table: pd.DataFrame  #: ``digits``, ``clutter`` (percent), ``error``, ``low``, ``high``, ``n``
    which: Tensor  #: int64 (K,), test images answered wrongly, the surest first


def clutter_on_digit(images: Tensor, clean: Tensor) -> Tensor:
    """Return how much clutter lies on or beside each digit: the ink it adds within 4 pixels of the
    digit's bounding box, as a share of the digit's own ink.

    Args:
        images: uint8 (N, 1, H, W), digits with clutter.
        clean: uint8 (N, 1, H, W), the same digits at the same places without clutter.

    Returns:
        float64 (N,), 0 for a digit left alone.
    """
    ink = clean[:, 0] > 0
    rows, columns = _span(ink.any(dim=2)), _span(ink.any(dim=1))
    box = rows[:, :, None] & columns[:, None, :]
    added = (images[:, 0].double() - clean[:, 0].double()).clamp_min(0) * box
    return added.sum(dim=(1, 2)) / clean[:, 0].double().sum(dim=(1, 2)).clamp_min(1)


def _span(lines: Tensor) -> Tensor:
    """Return True from the first to the last True of each row (N, L), and ``MARGIN`` beyond."""
    wider = F.max_pool1d(lines.float(), 2 * MARGIN + 1, stride=1, padding=MARGIN)
    behind = wider.cummax(dim=1).values
    ahead = wider.flip(1).cummax(dim=1).values.flip(1)
    return (behind * ahead).bool()


def find(
    model: Any, dataset: Dataset, check: Callable[[], None] = lambda: None, batch: int = 250
) -> Mistakes:
    """Find the errors of a classifier on cluttered scenes.

    The same count of training digits, undistorted and in clutter that no training has shown, tells
    overfitting to digits from trouble with clutter.

    Args:
        check: called between batches; it may raise to stop.
        batch: images at a time.

    Raises:
        Problem: the data set has no clutter.
    """
    if dataset.under is None:
        raise Problem(f"errors are told apart by their clutter, and {dataset.name} has none")
    test = dataset.test
    answers = error_rate.predict(model, test.images, batch=batch, check=check)[:, -1]
    assert test.labels is not None
    wrong = answers.argmax(dim=1) != test.labels
    clean = torch.cat([part.images for part in dataset.under("clutter", 0)])
    tables = [_by_clutter("test digits", wrong, clutter_on_digit(test.images, clean))]
    trained = _training_scenes(dataset, len(test))
    if trained is not None:
        images, labels, clean = trained
        again = error_rate.predict(model, images, batch=batch, check=check)[:, -1]
        found = again.argmax(dim=1) != labels
        tables.append(_by_clutter("training digits", found, clutter_on_digit(images, clean)))
    sure = torch.where(wrong, answers.max(dim=1).values, -1.0).argsort(descending=True, stable=True)
    return Mistakes(pd.concat(tables, ignore_index=True), sure[: int(wrong.sum())])


def _training_scenes(dataset: Dataset, count: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return unseen scenes of training digits, their labels, and the same without clutter; None
    where training shows stored images.
    """
    train: Any = dataset.train
    scene = getattr(train, "scene", None)
    if scene is None:
        return None
    train = replace(train, distortion=0.0)
    bare = replace(train, scene=replace(scene, clutter=0))
    parts: list[tuple[Batch, Batch]] = [
        (train.batch(FAR + first, size), bare.batch(FAR + first, size))
        for first, size in ((n, min(1000, count - n)) for n in range(0, count, 1000))
    ]
    images, clean = (torch.cat([part[n].images for part in parts]) for n in (0, 1))
    return (
        images,
        torch.cat([part[0].labels for part in parts if part[0].labels is not None]),
        clean,
    )


def _by_clutter(name: str, wrong: Tensor, clutter: Tensor) -> pd.DataFrame:
    """Return the error without clutter on the digit, and in groups of equally many images with ever
    more of it.
    """
    order = clutter.argsort(stable=True).numpy()
    alone = int((clutter == 0).sum())
    rows = []
    for group in (order[:alone], *np.array_split(order[alone:], GROUPS)):
        if not len(group):
            continue
        errors = int(wrong[group].sum())
        low, high = error_rate.wilson(errors, len(group))
        share = 100 * float(clutter[group].mean())
        facts = {"error": 100 * errors / len(group), "low": low, "high": high, "n": len(group)}
        rows.append({"digits": name, "clutter": share, **facts})
    return pd.DataFrame(rows)
