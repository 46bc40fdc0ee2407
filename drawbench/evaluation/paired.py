"""Two models on the same test images: which is better, by how much, and is that chance?

Each run folder keeps in ``test.npz`` the loss of its model on every test image. Comparing two
models image by image says more than comparing two intervals, because most images are easy or hard
for both.
"""

import io
import math
import sys
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from drawbench.errors import Problem
from drawbench.files import plain, read_array, write_atomically
from drawbench.records import BOUND, ERROR

FILE = "test.npz"
_TYPES = {ERROR: np.dtype(np.uint8), BOUND: np.dtype(np.float32)}  # of the losses
_DAMAGED = (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_MAX_IMAGES = 10_000_000
Z_95 = 1.959963984540054  # normal quantile of a two-sided 95% interval
RESAMPLES = 10_000
_CHUNK = 4_000_000  # random numbers at a time in the bootstrap; changes memory, not the result


@dataclass(frozen=True)
class Outcomes:
    """The losses of a model on N test images.

    Attributes:
        metric: ``test_error_percent``: ``losses`` are uint8, 1 for a wrong answer;
            ``nll_bound_nats``: float32, the bound of each image.
        test_sha256: of the test images; only results on the same images can be compared.
        losses: (N,).
    """

    metric: str
    test_sha256: str
    losses: np.ndarray

    @property
    def value(self) -> float:
        """The mean loss, percent or nats."""
        return float(self.losses.mean(dtype=np.float64)) * (100 if self.metric == ERROR else 1)

    def save(self, folder: Path) -> None:
        """Write ``test.npz`` into a run folder, atomically; equal outcomes give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **asdict(self))
        write_atomically(folder / FILE, buffer.getvalue())


def load(folder: Path) -> Outcomes:
    """Read what :meth:`Outcomes.save` wrote.

    Raises:
        Problem: the file is missing, damaged or something else.
    """
    path = folder / FILE
    rewrite = f"rewrite it with: drawbench evaluate {folder}"
    if not (folder / "last.safetensors").exists():  # a copy, which evaluate leaves as it is
        rewrite = "take it from the original of this copy again"
    try:
        with zipfile.ZipFile(plain(path)) as archive:
            metric = str(read_array(archive, "metric", _check_text))
            test = str(read_array(archive, "test_sha256", _check_text))
            outcomes = Outcomes(metric, test, read_array(archive, "losses", _check_losses))
    except FileNotFoundError as error:
        raise Problem(f"{path} is missing; {rewrite}") from error
    except (OSError, *_DAMAGED) as error:
        raise Problem(f"{path} is damaged; {rewrite}") from error
    losses = outcomes.losses
    valid = (losses <= 1).all() if metric == ERROR else np.isfinite(losses).all()
    if losses.dtype != _TYPES.get(metric) or len(losses) == 0 or not valid:
        raise Problem(f"{path} does not hold a loss for each test image; {rewrite}")
    return outcomes


def _check_text(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype.kind != "U" or dtype.itemsize > 1000 or shape != ():
        raise ValueError(f"expected a word, got {dtype} {shape}")


def _check_losses(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype not in _TYPES.values() or len(shape) != 1 or shape[0] > _MAX_IMAGES:
        raise ValueError(f"expected a loss for each image, got {dtype} {shape}")


@dataclass(frozen=True)
class Comparison:
    """How a first model compares with a second on the same ``n`` images.

    Attributes:
        values: of both, percent or nats.
        difference: first minus second; negative where the first is better.
        low, high: its 95% interval.
        p: two-sided p-value of no difference.
        test: how ``p`` and the interval were computed.
        only_first, only_second: images that only the first model gets wrong, and only the second;
            of bounds, images on which it is worse.
    """

    metric: str
    values: tuple[float, float]
    difference: float
    low: float
    high: float
    p: float
    test: str
    n: int
    only_first: int
    only_second: int


def compare(first: Outcomes, second: Outcomes, seed: int = 0) -> Comparison:
    """Compare by the exact McNemar test for errors, by the paired bootstrap for bounds.

    Args:
        seed: of the bootstrap.

    Raises:
        Problem: the two have different metrics or were measured on different images.
    """
    if first.metric != second.metric:
        raise Problem(
            f"{first.metric} cannot be compared with {second.metric}: one run is a classifier's,"
            " the other a generator's"
        )
    if first.test_sha256 != second.test_sha256 or len(first.losses) != len(second.losses):
        one, two = (
            f"{len(x.losses)} with SHA-256 {x.test_sha256[:12]}..." for x in (first, second)
        )
        raise Problem(
            f"the two were measured on different test images ({one}; {two}), so they cannot be"
            " compared in pairs"
        )
    gaps = first.losses.astype(np.float64) - second.losses
    worse = int((gaps > 0).sum()), int((gaps < 0).sum())
    if first.metric == ERROR:
        interval, p = agresti_min(*worse, len(gaps)), mcnemar(*worse)
        test = "exact McNemar test; Agresti-Min interval"
    else:
        interval, p = bootstrap(gaps, seed)
        test = f"paired bootstrap, {RESAMPLES:,} resamples, seed {seed}"
    values = first.value, second.value
    return Comparison(
        first.metric, values, values[0] - values[1], *interval, p, test, len(gaps), *worse
    )


def format_p(p: float) -> str:
    """Return a p-value as text: ``p = 0.012``, or ``p < 0.0001`` where it is smaller."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947).

    If the models are equally good, each gets half of the images wrong that only one gets wrong:
    p = min(1, 2 P(X <= min(b, c))) with X binomial (b + c, 1/2), in integers until the last
    division.
    """
    n = only_first + only_second
    term = total = 1
    for k in range(min(only_first, only_second)):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, max(sys.float_info.min, 2 * total / 2**n))


def agresti_min(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a difference of paired proportions, in percentage points.

    Agresti & Min 2005: the normal interval after adding half an image to each cell of the 2x2
    table, which keeps its coverage where few images differ.
    """
    b, c, n = only_first + 0.5, only_second + 0.5, n + 2
    spread = Z_95 * math.sqrt(b + c - (b - c) ** 2 / n)
    return 100 * (b - c - spread) / n, 100 * (b - c + spread) / n


def bootstrap(gaps: np.ndarray, seed: int) -> tuple[tuple[float, float], float]:
    """Return the 95% interval of a mean of paired differences, and the p-value of a mean of zero.

    Efron & Tibshirani 1993: the percentile interval; p is the share of resamples, shifted to a mean
    of zero, whose mean is as far from zero as the data's, and at least 1 / (resamples + 1).

    Args:
        gaps: float64 (N,).
        seed: of the resampling.
    """
    random, size = np.random.default_rng(seed), max(1, _CHUNK // len(gaps))
    shapes = ((min(size, RESAMPLES - start), len(gaps)) for start in range(0, RESAMPLES, size))
    parts = [gaps[random.integers(len(gaps), size=shape)].mean(axis=1) for shape in shapes]
    means, mean = np.concatenate(parts), gaps.mean()
    low, high = np.quantile(means, (0.025, 0.975))
    extreme = int((np.abs(means - mean) >= abs(mean)).sum())
    return (float(low), float(high)), (1 + extreme) / (1 + RESAMPLES)
