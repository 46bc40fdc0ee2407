"""Error rates: every image counted once, sums and counts until the last line."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drawbench import distributed, fast
from drawbench.errors import Problem
from drawbench.evaluation.paired import Z_95
from drawbench.evaluation.precision import full_precision


def wilson(errors: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927), in percent.

    Unlike value +- 1.96 standard errors, it stays within 0..100 and is right for few errors.

    Args:
        errors: how many of the ``n`` answers were wrong.

    Raises:
        ValueError: not ``0 <= errors <= n`` with ``n >= 1``.
    """
    if not 0 <= errors <= n or n < 1:
        raise ValueError(f"need 0 <= errors <= n and n >= 1, got errors {errors}, n {n}")
    p = errors / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Rounding must not push the interval of 0 or n errors past the value itself.
    low = 0.0 if errors == 0 else (centre - spread) / scale
    high = 1.0 if errors == n else (centre + spread) / scale
    return 100 * low, 100 * high


@dataclass(frozen=True)
class Score:
    """Counts of a classifier on a set of images.

    Attributes:
        confusion: int64 (classes, classes), rows the true class, columns the answer.
        errors_after: int64 (T,), errors of the answer after each glimpse; the last one counts.
    """

    confusion: np.ndarray
    errors_after: np.ndarray

    @property
    def n(self) -> int:
        return int(self.confusion.sum())

    @property
    def errors(self) -> int:
        return self.n - int(self.confusion.trace())

    @property
    def percent(self) -> float:
        return 100 * self.errors / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval, in percent."""
        return wilson(self.errors, self.n)

    @property
    def per_class(self) -> list[float | None]:
        """Error of each true class, in percent; None for a class without images."""
        totals, right = self.confusion.sum(axis=1), self.confusion.diagonal()
        return [100 * float(1 - r / t) if t else None for r, t in zip(right, totals, strict=True)]

    @property
    def majority(self) -> float:
        """Error of always answering the most frequent class, in percent."""
        return 100 * float(1 - self.confusion.sum(axis=1).max() / self.n)


@torch.no_grad()
@full_precision()
def predict(
    model: nn.Module,
    images: np.ndarray | Tensor,
    *,
    batch: int = 250,
    glimpses: int | None = None,
    noise: Tensor | None = None,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return class probabilities after every glimpse, float32 (N, T, classes).

    Args:
        model: a classifier; it is measured in float32.
        images: uint8 (N, C, H, W) or (N, H, W).
        batch: images at a time, in each process: memory, but not the result, depends on it.
        glimpses: looks per image, by default as many as in training.
        noise: (N, model.noise), for a model that draws where it looks; without it, the model looks
            where it believes is best.
        check: called between batches, equally often in each process; it may raise to stop.
    """
    device = next(model.parameters(), torch.empty(0)).device
    forward, training, images = fast.forward_for(model), model.training, torch.as_tensor(images)
    options: dict[str, Any] = {} if glimpses is None else {"glimpses": glimpses}

    def answers(rows: Tensor) -> Tensor:
        if noise is not None:
            options["noise"] = noise[rows].to(device)
        logits = forward(images[rows].to(device), **options).logits
        return logits.float().softmax(dim=-1).cpu()

    model.eval()
    try:
        parts = []
        for rows in torch.arange(len(images)).split(batch * distributed.size()):
            check()
            parts.append(distributed.gather(answers, rows))
    finally:
        model.train(training)
    return torch.cat(parts)


def score(probabilities: Tensor, labels: np.ndarray | Tensor) -> Score:
    """Count the errors.

    Args:
        probabilities: (N, T, classes).
        labels: integers (N,) in ``0..classes-1``.

    Raises:
        Problem: there is not one label per image, a label is not a class, or a probability is not
            a number.
    """
    from sklearn.metrics import confusion_matrix

    labels = np.asarray(labels)
    n, _, classes = probabilities.shape
    if labels.shape != (n,) or n == 0:
        raise Problem(
            f"a score needs one label per image, got labels of shape {labels.shape} for {n} images"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise Problem(f"labels must be in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
    if not torch.isfinite(probabilities).all():
        raise Problem("the model's answers are not finite: its weights are broken")
    answers = probabilities.argmax(dim=-1).numpy()
    return Score(
        confusion=confusion_matrix(labels, answers[:, -1], labels=np.arange(classes)),
        errors_after=(answers != labels[:, None]).sum(axis=0),
    )
