"""Random numbers as functions of seed, name and index: against twins in Python, then their laws."""

import math

import pytest
import torch

from drawbench import streams
from drawbench.streams import normals

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def twin_mix(word: int) -> int:
    """SplitMix64's finaliser in Python's unbounded integers, as Steele, Lea & Flood print it."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


def twin_integers(index: int, highs: list[int], seed: int, *name: str | int) -> list[int]:
    row = twin_mix(((index + 1) * GOLDEN + streams.key(seed, *name)) & MASK)
    words = [twin_mix((row + (column + 1) * GOLDEN) & MASK) for column in range(len(highs))]
    return [((word >> 32) * high) >> 32 for word, high in zip(words, highs, strict=True)]


def chi_square(counts: torch.Tensor) -> float:
    """Return by how many standard deviations the chi-square statistic of equal cells exceeds its
    mean.
    """
    counts, freedom = counts.double(), len(counts) - 1
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    return float((statistic - freedom) / (2 * freedom) ** 0.5)


def test_golden_key():
    assert streams.key(0, "order", 3) == 16488431461137102602
    assert streams.key(-1) == 15035169530955190612


def test_golden_integers():
    found = streams.integers(torch.tensor([0, 1, 54_999, 2**40]), [10, 93, 2**31], 0, "clutter")
    assert found.tolist() == [
        [8, 76, 2090235012],
        [2, 28, 830372678],
        [3, 60, 1900957583],
        [4, 7, 234940041],
    ]


def test_integers_agree_with_their_twin():
    index, highs = torch.tensor([0, 7, 123_456_789, 2**62]), [1, 2, 21, 55_000, 2**31]
    expected = [twin_integers(int(n), highs, 5, "twin", 2) for n in index]
    assert streams.integers(index, highs, 5, "twin", 2).tolist() == expected


@pytest.mark.parametrize("shape", [[100, 7], 1, 6, 37])
def test_a_row_depends_on_its_index_alone(shape):
    """Of integers with these limits, or of that many normals."""
    index, draw = torch.arange(300), streams.integers if isinstance(shape, list) else normals
    together = draw(index, shape, 1, "rows")
    shuffled = streams.permutation(300, 9, "shuffle")
    assert torch.equal(draw(index[shuffled], shape, 1, "rows"), together[shuffled])
    for size in (13, 128):
        parts = [draw(part, shape, 1, "rows") for part in index.split(size)]
        assert torch.equal(torch.cat(parts), together)
    assert torch.equal(draw(torch.tensor([3, 3]), shape, 1, "rows"), together[[3, 3]])


@pytest.mark.parametrize("high", [2, 10, 73, 1_000])
def test_integers_are_uniform_over_the_whole_range(high):
    found = streams.integers(torch.arange(100_000), [high], 0, "uniform")
    assert found.min() == 0 and found.max() == high - 1
    assert abs(chi_square(found[:, 0].bincount(minlength=high))) < 4


def test_columns_seeds_and_names_are_independent():
    index = torch.arange(50_000)
    columns = streams.integers(index, [16, 16], 0, "a")
    others = [streams.integers(index, [16], *name) for name in ((1, "a"), (0, "b"))]
    for other in [*others, columns[:, 1:], columns[:, :1].roll(1, 0)]:
        assert abs(chi_square((columns[:, 0] * 16 + other[:, 0]).bincount(minlength=256))) < 4


@pytest.mark.parametrize("high", [0, -3, 2**31 + 1])
def test_an_impossible_limit_is_refused(high):
    with pytest.raises(ValueError, match=str(high)):
        streams.integers(torch.arange(3), [5, high], 0, "x")


def test_a_stream_ignores_the_global_generator():
    torch.manual_seed(1)
    first = torch.rand(5, generator=streams.stream(3, "weights"))
    torch.manual_seed(2)
    torch.rand(7)
    assert torch.equal(torch.rand(5, generator=streams.stream(3, "weights")), first)
    assert not torch.equal(torch.rand(5, generator=streams.stream(4, "weights")), first)


def test_a_permutation_holds_every_number_once_and_depends_on_its_name():
    orders = [streams.permutation(500, 0, "order", epoch) for epoch in range(3)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(500))
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    assert torch.equal(streams.permutation(500, 0, "order", 1), orders[1])


def test_golden_permutation():
    assert streams.permutation(8, 0, "order").tolist() == [4, 1, 3, 2, 6, 0, 5, 7]


def test_every_order_of_four_is_equally_likely():
    orders = torch.stack([streams.permutation(4, 0, "four", n) for n in range(4_800)])
    ranks = (orders * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_inverse=True)[1]
    assert abs(chi_square(ranks.bincount(minlength=24))) < 4 and ranks.max() == 23


# --- normals ---


def twin_normals(index: int, count: int, seed: int, *name: str | int) -> list[float]:
    row, pairs = twin_mix(((index + 1) * GOLDEN + streams.key(seed, *name)) & MASK), -(-count // 2)
    words = [twin_mix((row + (column + 1) * GOLDEN) & MASK) >> 11 for column in range(2 * pairs)]
    found = [0.0] * (2 * pairs)
    for pair in range(pairs):
        u, v = (words[pair] + 1) / 2**53, words[pairs + pair] / 2**53
        found[pair] = math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
        found[pairs + pair] = math.sqrt(-2 * math.log(u)) * math.sin(2 * math.pi * v)
    return found[:count]


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_normals_agree_with_their_twin(count):
    index = torch.tensor([0, 7, 123_456_789, 2**62])
    found = normals(index, count, 5, "twin", 2)
    assert found.dtype == torch.float64 and found.shape == (4, count)
    wanted = [twin_normals(int(n), count, 5, "twin", 2) for n in index]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-13)


def test_golden_normals():
    """They must not change: published bounds depend on them."""
    golden = [
        [-0.054008399165728166, -0.6395471518763263, -0.8209317026891128],
        [-0.43278218956007136, -0.25086891666047767, -0.291957864912118],
    ]
    wanted = torch.tensor(golden, dtype=torch.float64)
    torch.testing.assert_close(
        normals(torch.tensor([0, 9_999]), 3, 0, "noise"), wanted, rtol=0, atol=1e-13
    )


def test_every_moment_is_that_of_a_standard_normal():
    """Within 4 standard errors: E[z] = 0, E[z^2] = 1, E[z^3] = 0, E[z^4] = 3."""
    z = normals(torch.arange(100_000), 4, 0, "moments").flatten()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(z.pow(power).mean().item() - mean) < 4 * math.sqrt(variance / len(z))


def test_the_distribution_function_fits_everywhere():
    """Kolmogorov-Smirnov distance below its 0.1% point, 1.95 / sqrt(n)."""
    z = normals(torch.arange(50_000), 3, 0, "shape").flatten().sort().values
    distance = (torch.special.ndtr(z) - torch.arange(1, len(z) + 1) / len(z)).abs().max()
    assert distance < 1.95 / math.sqrt(len(z))


def test_normals_of_other_columns_rows_seeds_and_names_are_uncorrelated():
    index = torch.arange(40_000)
    z = normals(index, 6, 0, "a")
    others = (normals(index, 6, *name) for name in ((1, "a"), (0, "b"), (0, "a", 1)))
    families = torch.cat([z, z.roll(1, 0), *others], dim=1)
    # A pair of Box and Muller shares its radius; squares would show it.
    for values in (families, families.square()):
        correlation = torch.corrcoef(values.T) - torch.eye(30, dtype=torch.float64)
        assert correlation.abs().max() < 4.5 / math.sqrt(len(index))


def test_no_number_is_infinite_even_at_the_ends_of_the_uniforms(monkeypatch):
    for word in (0, -1):  # all bits 0, all bits 1
        monkeypatch.setattr(streams, "_mix", lambda x, word=word: torch.full_like(x, word))
        z = normals(torch.arange(2), 4, 0, "ends")
        assert z.isfinite().all() and z.abs().max() < 8.58


def test_a_count_below_one_is_named():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        normals(torch.arange(3), 0, 0, "x")
