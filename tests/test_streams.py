"""Random numbers as functions of seed, name and index."""

import pytest
import torch

from drawbench import streams

MASK = (1 << 64) - 1


def twin_mix(word: int) -> int:
    """SplitMix64's finaliser in Python's unbounded integers, as Steele, Lea & Flood print it."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


def twin_integers(index: int, highs: list[int], seed: int, *name: str | int) -> list[int]:
    golden = 0x9E3779B97F4A7C15
    row = twin_mix(((index + 1) * golden + streams.key(seed, *name)) & MASK)
    words = [twin_mix((row + (column + 1) * golden) & MASK) for column in range(len(highs))]
    return [((word >> 32) * high) >> 32 for word, high in zip(words, highs, strict=True)]


def chi_square(counts: torch.Tensor) -> float:
    """How many standard deviations the chi-square statistic of equal cells lies above its mean."""
    counts = counts.double()
    freedom = len(counts) - 1
    return float(
        (((counts - counts.mean()) ** 2 / counts.mean()).sum() - freedom) / (2 * freedom) ** 0.5
    )


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


def test_a_row_does_not_depend_on_its_neighbours():
    index = torch.arange(1_000)
    together = streams.integers(index, [100, 7], 1, "rows")
    shuffled = streams.permutation(1_000, 9, "shuffle")
    assert torch.equal(streams.integers(index[shuffled], [100, 7], 1, "rows"), together[shuffled])
    assert torch.equal(
        torch.cat([streams.integers(one, [100, 7], 1, "rows") for one in index.split(13)]), together
    )


@pytest.mark.parametrize("high", [2, 10, 73, 1_000])
def test_integers_are_uniform_over_the_whole_range(high):
    found = streams.integers(torch.arange(100_000), [high], 0, "uniform")
    assert found.min() == 0 and found.max() == high - 1
    assert abs(chi_square(found[:, 0].bincount(minlength=high))) < 4


def test_columns_seeds_and_names_are_independent():
    index = torch.arange(50_000)
    columns = streams.integers(index, [16, 16], 0, "a")
    others = [
        columns[:, 1:],
        streams.integers(index, [16], 1, "a"),
        streams.integers(index, [16], 0, "b"),
    ]
    for other in [*others, columns[:, :1].roll(1, 0)]:
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


def test_a_permutation_holds_everything_once_and_every_name_has_its_own():
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
