"""Two models on the same test images: which is better, by how much, and could that be chance?

Each run folder keeps, in ``test.npz``, what its model lost on every test image. Two models that saw
the same images are compared
image by image, which says far more than two intervals beside each other: most images are easy or
    hard for both.
"""

import io
import math
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from drawbench.errors import Problem
from drawbench.files import plain, read_array, write_atomically

FILE = "test.npz"
ERROR, BOUND = "test_error_percent", "nll_bound_nats"  # the metrics of result.json
_TYPES = {ERROR: np.dtype(np.uint8), BOUND: np.dtype(np.float32)}  # of the losses
_MOST = 10_000_000  # test images
Z_95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval
RESAMPLES = 10_000
_AT_ONCE = (
    4_000_000  # numbers drawn at a time in the bootstrap: memory, not the result, depends on it
)


@dataclass(frozen=True)
class Outcomes:
    """What a model lost on each of N test images.

    Attributes: metric: ``test_error_percent``: ``losses`` are 1 where it was wrong, uint8;
        ``nll_bound_nats``: the bound of each image, float32. test_sha256: of the test images, so
        that nobody compares results on different ones. losses: (N,).
    """

    metric: str
    test_sha256: str
    losses: np.ndarray

    @property
    def value(self) -> float:
        """The mean loss: percent, or nats."""
        return float(self.losses.mean(dtype=np.float64)) * (100 if self.metric == ERROR else 1)

    def save(self, folder: Path) -> None:
        """Write ``test.npz`` into a run folder, atomically; the same outcomes give the same bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **asdict(self))
        write_atomically(folder / FILE, buffer.getvalue())


def load(folder: Path) -> Outcomes:
    """Read what :meth:`Outcomes.save` wrote.

    Raises:
        Problem: the file is missing, damaged or something else.
    """
    path = folder / FILE
    try:
        with zipfile.ZipFile(plain(path)) as archive:
            metric, test = (
                str(read_array(archive, name, _a_word)) for name in ("metric", "test_sha256")
            )
            found = Outcomes(metric, test, read_array(archive, "losses", _losses))
    except FileNotFoundError as error:
        raise Problem(f"{path} is missing; write it with: drawbench evaluate {folder}") from error
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise Problem(
            f"{path} is damaged; write it again with: drawbench evaluate {folder}"
        ) from error
    fit = (found.losses <= 1).all() if found.metric == ERROR else np.isfinite(found.losses).all()
    if found.losses.dtype != _TYPES.get(found.metric) or len(found.losses) == 0 or not fit:
        raise Problem(
            f"{path} does not hold a loss for each test image; write it again with: drawbench evaluate {folder}"
        )
    return found


def _a_word(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype.kind != "U" or dtype.itemsize > 1000 or shape != ():
        raise ValueError(f"a word is expected, got {dtype} {shape}")


def _losses(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype not in _TYPES.values() or len(shape) != 1 or shape[0] > _MOST:
        raise ValueError(f"a loss for each image is expected, got {dtype} {shape}")


@dataclass(frozen=True)
class Comparison:
    """How a first model compares with a second on the same ``n`` images.

    Attributes:
        values: of both, percent or nats.
        difference: first minus second; negative where the first is better.
        low, high: its 95 % interval.
        p: two-sided, of no difference.
        test: what was computed, in words.
        only_first, only_second: images on which only that model was worse.
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
    """The exact McNemar test for errors, the paired bootstrap for bounds.

    Args:
        seed: of the bootstrap.

    Raises:
        Problem: they were not measured in the same way on the same images.
    """
    if first.metric != second.metric:
        raise Problem(
            f"{first.metric} and {second.metric} do not compare: one run is a classifier's, the other a generator's"
        )
    if first.test_sha256 != second.test_sha256 or len(first.losses) != len(second.losses):
        raise Problem(
            f"the two were measured on different test images ({len(first.losses)} with SHA-256 {first.test_sha256[:12]}..., "
            f"{len(second.losses)} with {second.test_sha256[:12]}...), so they cannot be compared in pairs"
        )
    gaps = first.losses.astype(np.float64) - second.losses
    worse = int((gaps > 0).sum()), int((gaps < 0).sum())
    if first.metric == ERROR:
        interval, p, test = (
            agresti_min(*worse, len(gaps)),
            mcnemar(*worse),
            "exact McNemar test; interval of Agresti & Min",
        )
    else:
        interval, p = bootstrap(gaps, seed)
        test = f"paired bootstrap, {RESAMPLES:,} resamples, seed {seed}"
    values = first.value, second.value
    return Comparison(
        first.metric, values, values[0] - values[1], *interval, p, test, len(gaps), *worse
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p of McNemar's test (1947): of the images that one model alone gets wrong,
    half should be each one's.

    ``min(1, 2 P(X <= min(b, c)))`` with X binomial (b + c, 1/2), in whole numbers until the last
    division.
    """
    n = only_first + only_second
    term = total = 1
    for k in range(min(only_first, only_second)):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**n)


def agresti_min(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired proportions, percentage points: Agresti & Min
    2005.

    The normal interval after half an image is added to each cell of the table of right and wrong,
    which keeps it honest where few images differ.
    """
    b, c, n = only_first + 0.5, only_second + 0.5, n + 2
    spread = Z_95 * math.sqrt(b + c - (b - c) ** 2 / n)
    return 100 * (b - c - spread) / n, 100 * (b - c + spread) / n


def bootstrap(gaps: np.ndarray, seed: int) -> tuple[tuple[float, float], float]:
    """The mean of paired differences: 95 % percentile interval, and the two-sided p of a mean of
    zero (Efron & Tibshirani 1993).

    p is the share of resamples, the data moved to a mean of zero, whose mean is as far off as ours;
    never below 1 / (resamples + 1).

    Args:
        gaps: float64 (N,).
        seed: of the resampling.
    """
    random, size = np.random.default_rng(seed), max(1, _AT_ONCE // len(gaps))
    starts = range(0, RESAMPLES, size)
    parts = [
        gaps[random.integers(len(gaps), size=(min(size, RESAMPLES - start), len(gaps)))].mean(
            axis=1
        )
        for start in starts
    ]
    means, mean = np.concatenate(parts), gaps.mean()
    low, high = np.quantile(means, (0.025, 0.975))
    as_far = int((np.abs(means - mean) >= abs(mean)).sum())
    return (float(low), float(high)), (1 + as_far) / (1 + RESAMPLES)
