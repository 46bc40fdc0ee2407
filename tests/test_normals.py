"""Noise by image index: the numbers of Box and Muller from a twin in Python, then their laws."""

import math

import pytest
import torch

from drawbench import streams
from drawbench.streams import normals

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def twin_mix(word: int) -> int:
    """SplitMix64's finaliser in Python's unbounded integers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


def twin_normals(index: int, count: int, seed: int, *name: str | int) -> list[float]:
    row, pairs = (
        twin_mix(((index + 1) * GOLDEN + streams.key(seed, *name)) & MASK),
        (count + 1) // 2,
    )
    words = [twin_mix((row + (column + 1) * GOLDEN) & MASK) >> 11 for column in range(2 * pairs)]
    found = [0.0] * (2 * pairs)
    for pair in range(pairs):
        u, v = (words[pair] + 1) / 2**53, words[pairs + pair] / 2**53
        found[pair] = math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
        found[pairs + pair] = math.sqrt(-2 * math.log(u)) * math.sin(2 * math.pi * v)
    return found[:count]


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_agrees_with_its_twin(count):
    index = torch.tensor([0, 7, 123_456_789, 2**62])
    found = normals(index, count, 5, "twin", 2)
    assert found.dtype == torch.float64 and found.shape == (4, count)
    wanted = [twin_normals(int(n), count, 5, "twin", 2) for n in index]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-13)


def test_golden_numbers():
    """They must not change: a published bound depends on them."""
    golden = [
        [-0.054008399165728166, -0.6395471518763263, -0.8209317026891128],
        [-0.43278218956007136, -0.25086891666047767, -0.291957864912118],
    ]
    wanted = torch.tensor(golden, dtype=torch.float64)
    torch.testing.assert_close(
        normals(torch.tensor([0, 9_999]), 3, 0, "noise"), wanted, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("count", [1, 6, 37])
def test_a_row_depends_on_its_index_alone(count):
    index = torch.arange(300)
    together = normals(index, count, 1, "rows")
    shuffled = streams.permutation(300, 9, "shuffle")
    assert torch.equal(normals(index[shuffled], count, 1, "rows"), together[shuffled])
    for size in (13, 128):
        assert torch.equal(
            torch.cat([normals(part, count, 1, "rows") for part in index.split(size)]), together
        )
    assert torch.equal(normals(torch.tensor([3, 3]), count, 1, "rows"), together[[3, 3]])


def test_every_moment_is_that_of_a_standard_normal():
    """Within 4 standard errors: E[z] = 0, E[z^2] = 1, E[z^3] = 0, E[z^4] = 3."""
    z = normals(torch.arange(100_000), 4, 0, "moments").flatten()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(z.pow(power).mean().item() - mean) < 4 * math.sqrt(variance / len(z))


def test_the_distribution_function_fits_everywhere():
    """Kolmogorov-Smirnov distance below its 0.1 % point, 1.95 / sqrt(n)."""
    z = normals(torch.arange(50_000), 3, 0, "shape").flatten().sort().values
    distance = (torch.special.ndtr(z) - torch.arange(1, len(z) + 1) / len(z)).abs().max()
    assert distance < 1.95 / math.sqrt(len(z))


def test_columns_neighbours_seeds_and_names_are_uncorrelated():
    index = torch.arange(40_000)
    z = normals(index, 6, 0, "a")
    families = torch.cat(
        [
            z,
            z.roll(1, 0),
            normals(index, 6, 1, "a"),
            normals(index, 6, 0, "b"),
            normals(index, 6, 0, "a", 1),
        ],
        dim=1,
    )
    for values in (
        families,
        families.square(),
    ):  # a pair of Box and Muller shares its radius; squares would show it
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
