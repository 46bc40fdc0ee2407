"""Paired comparison: exact values, laws, and what cannot be compared."""

import itertools
import math

import numpy as np
import pytest
from click.testing import Result
from commands import answer, drawbench, failed
from example_runs import finished_run, outcomes

from drawbench.errors import Problem
from drawbench.evaluation import paired
from drawbench.evaluation.paired import BOUND, ERROR, Outcomes


def compare(*words) -> Result:
    return drawbench("compare", *words)


def p_by_enumeration(b: int, c: int) -> float:
    """The share of all 2^(b + c) splits that are at least as uneven as (b, c)."""
    gaps = [abs(2 * sum(split) - b - c) for split in itertools.product((0, 1), repeat=b + c)]
    return sum(gap >= abs(b - c) for gap in gaps) / len(gaps)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 3), (2, 7), (9, 1), (0, 10)])
def test_mcnemar_is_exact(b, c):
    assert paired.mcnemar(b, c) == pytest.approx(p_by_enumeration(b, c), rel=1e-12)
    assert paired.mcnemar(b, c) == paired.mcnemar(c, b)


def test_mcnemar_for_many_images():
    # Of 9,800 images the normal approximation with continuity correction is good to a percent.
    z = (200 - 1) / math.sqrt(9800)
    assert paired.mcnemar(5000, 4800) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    assert 0 < paired.mcnemar(1000, 0) < 1e-290
    assert 0 < paired.mcnemar(5000, 0) < 1e-290


@pytest.mark.parametrize(
    ("p", "text"),
    [(1.0, "p = 1"), (0.0123, "p = 0.012"), (0.0001, "p = 0.0001"), (2e-308, "p < 0.0001")],
)
def test_small_p_values_are_not_printed_as_zero(p, text):
    assert paired.format_p(p) == text


def test_the_interval_of_a_difference_of_errors_covers_the_truth():
    random = np.random.default_rng(0)
    b, c, _ = random.multinomial(500, (0.06, 0.04, 0.90), size=4000).T
    intervals = [paired.agresti_min(int(i), int(j), 500) for i, j in zip(b, c, strict=True)]
    assert 0.94 < np.mean([low <= 2.0 <= high for low, high in intervals]) < 0.965


def test_the_bootstrap_agrees_with_the_normal_interval_and_depends_on_its_seed():
    gaps = np.random.default_rng(1).normal(0.3, 2.0, size=800)
    (low, high), p = paired.bootstrap(gaps, 0)
    mean, error = gaps.mean(), gaps.std(ddof=1) / math.sqrt(800)
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)
    assert p == pytest.approx(math.erfc(mean / error / math.sqrt(2)), rel=0.2)
    assert paired.bootstrap(gaps, 0) == ((low, high), p) != paired.bootstrap(gaps, 1)


def test_the_chunk_size_of_the_bootstrap_does_not_change_its_result(monkeypatch):
    gaps = np.random.default_rng(2).normal(size=50)
    whole = paired.bootstrap(gaps, 0)
    monkeypatch.setattr(paired, "_CHUNK", 777)
    assert paired.bootstrap(gaps, 0) == whole


def test_swapping_the_models_turns_the_comparison_round():
    first = Outcomes(ERROR, "t", np.array([1, 1, 0, 0, 0, 0, 0, 0], np.uint8))
    second = Outcomes(ERROR, "t", np.array([1, 0, 1, 1, 0, 0, 0, 0], np.uint8))
    there, back = paired.compare(first, second), paired.compare(second, first)
    assert there.values == (25.0, 37.5) and there.difference == -12.5 == -back.difference
    assert (there.only_first, there.only_second, there.n) == (1, 2, 8)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p == back.p == 1.0


def test_files_of_losses_are_small_and_reproducible(tmp_path):
    losses = np.random.default_rng(0).random(10_000) < 0.03
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        outcomes(tmp_path / name, losses)
    one, two = ((tmp_path / name / paired.FILE).read_bytes() for name in ("a", "b"))
    assert one == two and len(one) < 20_000
    assert paired.load(tmp_path / "a").value == pytest.approx(100 * losses.mean())


def test_compare_on_the_command_line(tmp_path):
    one, two = finished_run(tmp_path / "one"), finished_run(tmp_path / "two", seed=1)
    outcomes(one, [0] * 90 + [1] * 10)
    outcomes(two, [0] * 80 + [1] * 20)
    done = compare(one, two)
    assert done.exit_code == 0 and done.stderr == ""
    assert "one is 10.00 percentage points better" in done.stdout and "p = 0.002" in done.stdout
    fields = answer("compare", one, two)
    assert fields["difference"] == -10 and fields["n"] == 100
    assert fields["low"] < -10 < fields["high"] < 0


def test_compare_generators_by_their_bounds(tmp_path):
    one = finished_run(tmp_path / "one", {"task": "generate"})
    two = finished_run(tmp_path / "two", {"task": "generate"}, seed=1)
    nats = np.random.default_rng(0).normal(90, 20, size=300)
    outcomes(one, nats, BOUND)
    outcomes(two, nats + np.random.default_rng(1).normal(0.5, 1, size=300), BOUND)
    fields = answer("compare", one, two)
    # Half a nat is little beside 20 nats from image to image, but much in pairs.
    assert fields["p"] < 0.001 and fields["high"] < 0
    assert answer("compare", one, two) == fields
    assert answer("compare", one, two, "--seed", 1)["low"] != fields["low"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"test": "b" * 64}, "different test images"),
        ({"losses": [0, 1]}, "different test images"),
        ({"metric": BOUND}, "cannot be compared"),
        ({"losses": []}, "does not hold"),
        ({}, "damaged"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path, case, words):
    one, two = finished_run(tmp_path / "one"), finished_run(tmp_path / "two", seed=1)
    outcomes(one, [0, 1, 0])
    outcomes(two, **{"losses": [0, 1, 1], **case})
    if not case:
        (two / paired.FILE).write_bytes((two / paired.FILE).read_bytes()[:-30])
    failed(compare(one, two), words)


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path):
    failed(compare(tmp_path, tmp_path), str(tmp_path))


def test_losses_that_could_execute_code_are_refused(tmp_path):
    losses = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / paired.FILE, metric=ERROR, test_sha256="t", losses=losses)
    with pytest.raises(Problem, match="damaged"):
        paired.load(tmp_path)
