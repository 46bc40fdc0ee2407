"""Variational bounds measured on many images: every image once, sums in float64, noise by the
image's number.

The noise of image ``n`` and sample ``s`` is a function of (seed, ``n``, ``s``), so the result does
not depend on the batch size, the number of processes, or which other images are measured (beyond
the last bits of float32 matrix products).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from drawbench import distributed, fast, likelihood, models, streams
from drawbench.data.batch import Batch
from drawbench.errors import Problem
from drawbench.evaluation.paired import Z_95
from drawbench.evaluation.precision import full_precision
from drawbench.models.common import as_images

BATCH = 250  # images at a time
Records = Iterator[tuple[Any, Tensor, Tensor]]  # a record, its images and its noise


@dataclass(frozen=True)
class Bound:
    """The bound ``Lx + Lz`` of N images (DRAW, equation 12), each the mean over S samples of its
    latents, in nats.

    Attributes:
        reconstruction: float64 (N,), ``-log p(x | z)``.
        kl: float64 (N, T), the KL of each step.
        sample_variance: float64 (N,), of one sample's bound about its image's mean; NaN for S = 1.
        samples: S.
    """

    reconstruction: np.ndarray
    kl: np.ndarray
    sample_variance: np.ndarray
    samples: int

    @property
    def per_image(self) -> np.ndarray:
        """The bound of each image, (N,)."""
        return self.reconstruction + self.kl.sum(axis=1)

    @property
    def n(self) -> int:
        return len(self.reconstruction)

    @property
    def value(self) -> float:
        """Mean over the images, nats."""
        return float(self.per_image.mean())

    @property
    def standard_error(self) -> float | None:
        """Standard error of the value as an estimate for all images of this kind, the samples'
        noise included; None for one image.
        """
        return standard_error(self.per_image)

    @property
    def sampling_error(self) -> float | None:
        """Standard error of the value as an estimate of the exact bound of these very images, which
        more samples would lower; None for S = 1.
        """
        if self.samples < 2:
            return None
        return math.sqrt(float(self.sample_variance.sum()) / self.samples) / self.n

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the value, over images; None for one image."""
        if (error := self.standard_error) is None:
            return None
        return self.value - Z_95 * error, self.value + Z_95 * error


@dataclass(frozen=True)
class ImportanceWeighted:
    """The importance-weighted bound ``-log 1/K sum_k w_k`` of N images (Burda et al. 2016), in
    nats.

    Attributes:
        per_image: float64 (N,).
        effective: float64 (N,), effective samples, 1 .. K.
        samples: K.
    """

    per_image: np.ndarray
    effective: np.ndarray
    samples: int

    @property
    def value(self) -> float:
        return float(self.per_image.mean())

    @property
    def standard_error(self) -> float | None:
        return standard_error(self.per_image)


Measured = TypeVar("Measured", Bound, ImportanceWeighted)


def standard_error(values: np.ndarray) -> float | None:
    """Return ``s / sqrt(n)``, of the mean of independent values; None for a single one."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def noise(index: Tensor, steps: int, latent: int, seed: int, *name: str | int) -> Tensor:
    """Return standard normal noise for images by their number, float32 (B, steps, latent)."""
    numbers = streams.normals(index, steps * latent, seed, *name)
    return numbers.view(len(index), steps, latent).float()


def evenly(count: int, limit: int | None) -> Tensor:
    """Choose at most ``limit`` of ``count`` image numbers, evenly spaced, int64; all for None."""
    if limit is None or limit >= count:
        return torch.arange(count)
    return torch.arange(limit) * count // limit


@torch.no_grad()
def bound(
    model: Any,
    data: Batch,
    *,
    index: Tensor | None = None,
    samples: int = 1,
    seed: int = 0,
    batch: int = BATCH,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Bound:
    """Measure the bound of a generator.

    Args:
        model: a generator; it is measured in float32.
        data: images uint8 (N, C, H, W), with conditions if the model takes them.
        index: int64 (M,), which images; by default all. Their numbers determine their noise.
        samples: S, of the latents of each image.
        seed: of the noise.
        batch: images at a time, in each process: memory, but not the result, depends on it.
        check: called between batches, equally often in each process; it may raise to stop.
        progress: called with the numbers of images done and to do, counting each sample.

    Raises:
        Problem: ``samples`` is below 1, or a value is not finite.
    """
    zero = torch.zeros((), dtype=torch.float64, device=_device(model))

    def measure(records: Records) -> Tensor:
        """Return reconstruction, KL of each step and variance of some images, (B, 1 + T + 1)."""
        reconstruction = kl = mean = squares = zero
        for number, (record, inputs, _) in enumerate(records):
            terms = record.terms(inputs, torch.float64)
            reconstruction, kl = terms.reconstruction + reconstruction, terms.kl + kl
            # Welford 1962: the sum of squares about a running mean does not cancel.
            change = terms.bound - mean
            mean = mean + change / (number + 1)
            squares = squares + change * (terms.bound - mean)
        variance = squares / (samples - 1) if samples > 1 else torch.full_like(squares, math.nan)
        parts = [reconstruction[:, None] / samples, kl / samples, variance[:, None]]
        return torch.cat(parts, dim=1)

    table = _measure(measure, "bound", model, data, index, samples, seed, batch, check, progress)
    return _finite(Bound(table[:, 0], table[:, 1:-1], table[:, -1], samples))


@torch.no_grad()
def importance_weighted(
    model: Any,
    data: Batch,
    *,
    samples: int,
    index: Tensor | None = None,
    seed: int = 0,
    batch: int = BATCH,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> ImportanceWeighted:
    """Measure the importance-weighted bound, one sample at a time, so that memory depends on
    ``batch`` and not on K.

    Arguments as for :func:`bound`; ``samples`` is K.

    Raises:
        Problem: as :func:`bound`; or the generator's record has no ``log_weight``.
    """

    def measure(records: Records) -> Tensor:
        """Return the bound and the effective samples of some images, (B, 2)."""
        weights = likelihood.importance_weighted(
            _log_weight(record)(images, numbers) for record, images, numbers in records
        )
        return torch.stack([-weights.log_likelihood, weights.effective_samples], dim=1)

    options = (index, samples, seed, batch, check, progress)
    table = _measure(measure, "importance", model, data, *options)
    return _finite(ImportanceWeighted(table[:, 0], table[:, 1], samples))


@full_precision()
def _measure(
    measure: Callable[[Records], Tensor],
    name,
    model,
    data,
    index,
    samples,
    seed,
    batch,
    check,
    progress,
) -> np.ndarray:
    """Measure all images, ``batch`` at a time in each process, in the order of ``index``.

    ``measure`` takes a stream of ``samples`` records of the same images, each with the images in
    [0, 1] and the noise that it was made from; it returns numbers (B, ...).
    """
    if samples < 1:
        raise Problem(f"a bound needs at least 1 sample, got {samples}")
    index = torch.arange(len(data)) if index is None else index
    device = _device(model)
    forward, done, total = fast.forward_for(model), 0, samples * len(index)

    def records(rows: Tensor) -> Records:
        nonlocal done
        part = data.at(rows).to(device)
        inputs = as_images(part.images)
        for sample in range(samples):
            check()
            numbers = noise(rows.to(device), model.steps, model.latent, seed, name, sample)
            yield models.draw_images(forward, inputs, numbers, part.condition), inputs, numbers
            # as many as are done when all processes are as far as this one
            done = min(done + len(rows) * distributed.size(), total)
            progress(done, total)

    def table(rows: Tensor) -> Tensor:
        return measure(records(rows)).cpu()

    training = model.training
    model.eval()
    try:
        parts = index.split(batch * distributed.size())
        return torch.cat([distributed.gather(table, rows) for rows in parts]).numpy()
    finally:
        model.train(training)


def _log_weight(record: Any) -> Callable[[Tensor, Tensor], Tensor]:
    if not hasattr(record, "log_weight"):
        kind = type(record).__name__
        raise Problem(f"an importance-weighted bound needs log_weight, which {kind} does not have")
    return record.log_weight


def _device(model: Any) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


def _finite(result: Measured) -> Measured:
    broken, images = int((~np.isfinite(result.per_image)).sum()), len(result.per_image)
    if broken:
        words = f"the bound of {broken} of {images} images is not finite"
        raise Problem(f"{words}: the model's weights are broken")
    return result
