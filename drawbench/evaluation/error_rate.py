"""Error rates: every image counted once, sums and counts until the last line."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drawbench import distributed
from drawbench.errors import Problem
from drawbench.fast.glimpse import fast_logits
from drawbench.models.glimpse import GlimpseClassifier

Z_95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


def wilson(errors: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927), in percent.

    Unlike value +- 1.96 standard errors it stays inside 0..100 and is right for few errors.

    Args:
        errors: how many of the ``n`` images were wrong.

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

    Attributes: confusion: int64 (classes, classes), rows the true class, columns the answer.
        errors_after: int64 (T,), errors of the answer after each glimpse; the last is the answer
        that counts.
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
        """95 %, in percent."""
        return wilson(self.errors, self.n)

    @property
    def per_class(self) -> list[float | None]:
        """Error of each true class, percent; None for a class with no image."""
        totals, right = self.confusion.sum(axis=1), self.confusion.diagonal()
        return [100 * float(1 - r / t) if t else None for r, t in zip(right, totals, strict=True)]

    @property
    def majority(self) -> float:
        """Error of always answering the commonest class, percent."""
        return 100 * float(1 - self.confusion.sum(axis=1).max() / self.n)


def as_input(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 grey images (B, H, W) as a network takes them: float32 (B, 1, H, W) in [0, 1]."""
    return (torch.as_tensor(images).to(device).float() / 255).unsqueeze(1)


@torch.no_grad()
def predict(
    model: nn.Module,
    images: np.ndarray | Tensor,
    *,
    batch: int = 250,
    glimpses: int | None = None,
    noise: Tensor | None = None,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Class probabilities after every glimpse, float32 (N, T, classes).

    Args: images: uint8 (N, H, W). batch: images at a time, in each process: memory, not the result,
        depends on it. glimpses: looks per image, if not as in training. noise: (N, model.noise),
        for a model that draws where it looks; without it, it looks where it holds best. check:
        called between batches, as often in each process; it may raise to stop.
    """
    device = next(model.parameters(), torch.empty(0)).device
    wishes: dict[str, Any] = {} if glimpses is None else {"glimpses": glimpses}
    training = model.training
    step, images = batch * distributed.size(), torch.as_tensor(images)

    def answers(rows: Tensor) -> Tensor:
        some = images[rows].to(device)
        if isinstance(model, GlimpseClassifier):
            logits = fast_logits(model, some[:, None], **wishes)
        else:
            if noise is not None:
                wishes["noise"] = noise[rows].to(device)
            logits = model(as_input(some, device), **wishes).logits
        return logits.float().softmax(dim=-1).cpu()

    model.eval()
    try:
        parts = []
        for first in range(0, len(images), step):
            check()
            rows = torch.arange(first, min(first + step, len(images)))
            parts.append(distributed.gather(answers, rows))
    finally:
        model.train(training)
    return torch.cat(parts)


def score(probabilities: Tensor, labels: np.ndarray) -> Score:
    """Count the errors.

    Args:
        probabilities: (N, T, classes).
        labels: integers (N,) in ``0..classes-1``.

    Raises: Problem: there is not one label per image, a label is not a class, or a probability is
        not a number.
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
        raise Problem("the model's answers are not finite; its weights are broken")
    answers = probabilities.argmax(dim=-1).numpy()
    return Score(
        confusion=confusion_matrix(labels, answers[:, -1], labels=np.arange(classes)),
        errors_after=(answers != labels[:, None]).sum(axis=0),
    )
