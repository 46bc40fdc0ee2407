"""Variational bounds measured on many images: every image once, sums in float64, noise by the
image's number.

The noise of image ``n`` and sample ``s`` is a function of (seed, ``n``, ``s``), so neither the
batch size nor which other images are measured, nor by how many processes, changes what is measured
(beyond the last bits of float32 matrix products).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drawbench import distributed, fast, likelihood, streams
from drawbench.errors import Problem
from drawbench.evaluation.error_rate import Z_95
from drawbench.models import Generator

BATCH = 250  # images at a time


@dataclass(frozen=True)
class Bound:
    """The bound ``Lx + Lz`` of N images (DRAW, equation 12), each the mean over S samples of its
    latents, in nats.

    Attributes: reconstruction: float64 (N,), ``-log p(x | z)``. kl: float64 (N, T), the KL of each
        step. sample_variance: float64 (N,), of one sample's bound around its image's mean; not a
        number for S = 1. samples: S.
    """

    reconstruction: np.ndarray
    kl: np.ndarray
    sample_variance: np.ndarray
    samples: int

    @property
    def per_image(self) -> np.ndarray:
        """(N,)."""
        return self.reconstruction + self.kl.sum(axis=1)

    @property
    def n(self) -> int:
        return len(self.reconstruction)

    @property
    def value(self) -> float:
        """Mean over the images, nats."""
        return float(self.per_image.mean())

    @property
    def standard_error(self) -> float:
        """Of the value as an estimate for all images of this kind: from image to image, the
        samples' noise included.
        """
        return standard_error(self.per_image)

    @property
    def sampling_error(self) -> float | None:
        """Of the value as an estimate of the exact bound of these very images: what more samples
        would lessen. None for S = 1.
        """
        if self.samples < 2:
            return None
        return math.sqrt(float(self.sample_variance.sum()) / self.samples) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, over images."""
        return self.value - Z_95 * self.standard_error, self.value + Z_95 * self.standard_error


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
    def standard_error(self) -> float:
        return standard_error(self.per_image)


def standard_error(values: np.ndarray) -> float:
    """``s / sqrt(n)`` of the mean of independent values; 0 for a single one, about which nothing is
    known.
    """
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def noise(index: Tensor, steps: int, latent: int, seed: int, *name: str | int) -> Tensor:
    """Standard normal noise for images by their number, float32 (B, steps, latent)."""
    return (
        streams.normals(index, steps * latent, seed, *name).view(len(index), steps, latent).float()
    )


def as_images(images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, C, H, W) as a generator takes them: float32 in [0, 1]."""
    return images.to(device).float() / 255


def evenly(count: int, wanted: int | None) -> Tensor:
    """``wanted`` of ``count`` image numbers, evenly spaced, int64; all where None or more are
    wanted than there are.
    """
    if wanted is None or wanted >= count:
        return torch.arange(count)
    return torch.arange(wanted) * count // wanted


@torch.no_grad()
def bound(
    model: Generator,
    images: Tensor,
    *,
    index: Tensor | None = None,
    samples: int = 1,
    seed: int = 0,
    batch: int = BATCH,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Bound:
    """Measure the bound.

    Args:
        model: a generator; it is measured in float32.
        images: uint8 (N, C, H, W).
        index: int64 (M,), which images; all if None. Their numbers choose their noise.
        samples: S, of the latents for each image.
        seed: of the noise.
        batch: images at a time, in each process: memory, not the result, depends on it.
        check: called between batches, as often in each process; it may raise to stop.
        progress: called with the images done and to be done, samples counted apart.

    Raises:
        Problem: no samples asked for, or a value that is not finite.
    """
    _at_least_one("samples", samples)
    chosen = torch.arange(len(images)) if index is None else index
    device = next(model.parameters()).device
    done = 0

    def measure(rows: Tensor) -> Tensor:
        """Reconstruction, KL of each step and variance of some images, float64 (B, 1 + T + 1)."""
        nonlocal done
        inputs = as_images(images[rows], device)
        reconstruction = mean = squares = torch.zeros(len(rows), dtype=torch.float64, device=device)
        kl = reconstruction.new_zeros(len(rows), model.steps)
        for number in range(samples):
            check()
            drawn = noise(rows.to(device), model.steps, model.latent, seed, "bound", number)
            made = fast.drawing(model, inputs, drawn)
            terms = likelihood.terms(made.logits, inputs, made.mu, made.log_sigma, torch.float64)
            reconstruction, kl = reconstruction + terms.reconstruction, kl + terms.kl
            # Welford 1962: the sum of squares about a running mean does not cancel.
            change = terms.bound - mean
            mean = mean + change / (number + 1)
            squares = squares + change * (terms.bound - mean)
            done = _tell(progress, done, rows, samples * len(chosen))
        variance = squares / (samples - 1) if samples > 1 else torch.full_like(squares, math.nan)
        return torch.cat(
            [reconstruction[:, None] / samples, kl / samples, variance[:, None]], dim=1
        ).cpu()

    table = _in_batches(measure, chosen, batch)
    measured = Bound(table[:, 0], table[:, 1:-1], table[:, -1], samples)
    _finite(measured.per_image)
    return measured


@torch.no_grad()
def importance_weighted(
    model: Generator,
    images: Tensor,
    *,
    samples: int,
    index: Tensor | None = None,
    seed: int = 0,
    batch: int = BATCH,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> ImportanceWeighted:
    """Measure the importance-weighted bound, a sample at a time, so that memory depends on
    ``batch`` and not on K.

    Arguments as :func:`bound`; ``samples`` is K.
    """
    _at_least_one("samples", samples)
    chosen = torch.arange(len(images)) if index is None else index
    device = next(model.parameters()).device
    done = 0

    def measure(rows: Tensor) -> Tensor:
        """The bound and the effective samples of some images, float64 (B, 2)."""
        inputs = as_images(images[rows], device)

        def log_weights():
            nonlocal done
            for number in range(samples):
                check()
                drawn = noise(
                    rows.to(device), model.steps, model.latent, seed, "importance", number
                )
                made = fast.drawing(model, inputs, drawn)
                yield likelihood.log_weights(made.logits, inputs, made.mu, made.log_sigma, drawn)
                done = _tell(progress, done, rows, samples * len(chosen))

        weights = likelihood.importance_weighted(log_weights())
        return torch.stack([-weights.log_likelihood, weights.effective_samples], dim=1).cpu()

    table = _in_batches(measure, chosen, batch)
    measured = ImportanceWeighted(table[:, 0], table[:, 1], samples)
    _finite(measured.per_image)
    return measured


def _in_batches(measure: Callable[[Tensor], Tensor], index: Tensor, batch: int) -> np.ndarray:
    """What is measured of all images, ``batch`` at a time in each process, in the order of
    ``index``.
    """
    return torch.cat(
        [distributed.gather(measure, rows) for rows in index.split(batch * distributed.size())]
    ).numpy()


def _tell(progress: Callable[[int, int], object], done: int, rows: Tensor, total: int) -> int:
    """Tell how many images are done after these rows, if all processes are as far as this one."""
    done = min(done + len(rows) * distributed.size(), total)
    progress(done, total)
    return done


def _at_least_one(what: str, count: int) -> None:
    if count < 1:
        raise Problem(f"a bound needs at least 1 of its {what}, got {count}")


def _finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise Problem(
            f"the bound of {int((~np.isfinite(values)).sum())} of {len(values)} images is not finite; the model's weights are broken"
        )
