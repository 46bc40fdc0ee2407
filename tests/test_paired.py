"""Paired comparison: exact values, laws, and what disagrees is named."""

import itertools
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from made_runs import made, outcomes

from drawbench.cli import cli
from drawbench.errors import Problem
from drawbench.evaluation import paired
from drawbench.evaluation.paired import BOUND, ERROR, Outcomes


def compare(*words) -> "CliRunner":
    return CliRunner().invoke(cli, ["compare", *map(str, words)], prog_name="drawbench")


def p_by_counting(b: int, c: int) -> float:
    """Of all 2^(b + c) ways in which the images could have fallen, those as uneven as ours."""
    falls = [abs(2 * sum(fall) - b - c) for fall in itertools.product((0, 1), repeat=b + c)]
    return sum(fall >= abs(b - c) for fall in falls) / len(falls)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 3), (2, 7), (9, 1), (0, 10)])
def test_mcnemar_counts_all_outcomes(b, c):
    assert paired.mcnemar(b, c) == pytest.approx(p_by_counting(b, c), rel=1e-12)
    assert paired.mcnemar(b, c) == paired.mcnemar(c, b)


def test_mcnemar_holds_for_many_images():
    # 5,000 against 4,800 of 9,800: the normal approximation, with its correction, is good to a per
    # cent there.
    z = (200 - 1) / np.sqrt(9800)
    normal = 2 * (0.5 - 0.5 * np.vectorize(math.erf)(z / np.sqrt(2)))
    assert paired.mcnemar(5000, 4800) == pytest.approx(float(normal), rel=0.01)
    assert 0 < paired.mcnemar(1000, 0) < 1e-290


def test_the_interval_of_a_difference_of_errors_covers_the_truth():
    random = np.random.default_rng(0)
    b, c, _ = random.multinomial(500, (0.06, 0.04, 0.90), size=4000).T
    inside = [
        low <= 2.0 <= high
        for low, high in (
            paired.agresti_min(int(i), int(j), 500) for i, j in zip(b, c, strict=True)
        )
    ]
    assert 0.94 < np.mean(inside) < 0.965


def test_the_bootstrap_agrees_with_the_normal_interval_and_needs_only_its_seed():
    gaps = np.random.default_rng(1).normal(0.3, 2.0, size=800)
    (low, high), p = paired.bootstrap(gaps, 0)
    error = gaps.std(ddof=1) / np.sqrt(800)
    assert (low, high) == pytest.approx(
        (gaps.mean() - 1.96 * error, gaps.mean() + 1.96 * error), abs=0.1 * error
    )
    assert p == pytest.approx(
        2 * 0.5 * (1 - np.vectorize(math.erf)(gaps.mean() / error / np.sqrt(2))), rel=0.2
    )
    assert paired.bootstrap(gaps, 0) == ((low, high), p) != paired.bootstrap(gaps, 1)


def test_the_size_of_a_piece_changes_nothing(monkeypatch):
    gaps = np.random.default_rng(2).normal(size=50)
    whole = paired.bootstrap(gaps, 0)
    monkeypatch.setattr(paired, "_AT_ONCE", 777)
    assert paired.bootstrap(gaps, 0) == whole


def test_a_comparison_says_who_is_better_and_turns_round(tmp_path):
    first = Outcomes(ERROR, "t", np.array([1, 1, 0, 0, 0, 0, 0, 0], np.uint8))
    second = Outcomes(ERROR, "t", np.array([1, 0, 1, 1, 0, 0, 0, 0], np.uint8))
    there, back = paired.compare(first, second), paired.compare(second, first)
    assert there.values == (25.0, 37.5) and there.difference == -12.5 == -back.difference
    assert (there.only_first, there.only_second, there.n) == (1, 2, 8)
    assert (there.low, there.high) == pytest.approx(
        (-back.high, -back.low)
    ) and there.p == back.p == 1.0


def test_files_are_small_and_the_same_each_time(tmp_path):
    losses = np.random.default_rng(0).random(10_000) < 0.03
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        outcomes(tmp_path / name, losses)
    one, two = ((tmp_path / name / paired.FILE).read_bytes() for name in ("a", "b"))
    assert one == two and len(one) < 20_000
    assert paired.load(tmp_path / "a").value == pytest.approx(100 * losses.mean())


def test_compare_on_the_command_line(tmp_path):
    one, two = made(tmp_path / "one"), made(tmp_path / "two", seed=1)
    outcomes(one, [0] * 90 + [1] * 10)
    outcomes(two, [0] * 80 + [1] * 20)
    said = compare(one, two)
    assert said.exit_code == 0 and said.stderr == ""
    assert "one is 10.00 percentage points better" in said.stdout and "p = 0.002" in said.stdout
    found = json.loads(compare(one, two, "--json").stdout)
    assert (
        found["difference"] == -10 and found["low"] < -10 < found["high"] < 0 and found["n"] == 100
    )


def test_compare_generators_by_their_bounds(tmp_path):
    one, two = (
        made(tmp_path / name, {"task": "generate"}, seed=seed)
        for seed, name in enumerate(("one", "two"))
    )
    nats = np.random.default_rng(0).normal(90, 20, size=300)
    outcomes(one, nats, BOUND)
    outcomes(two, nats + np.random.default_rng(1).normal(0.5, 1, size=300), BOUND)
    found = json.loads(compare(one, two, "--json").stdout)
    assert found["p"] < 0.001 and found["high"] < 0, (
        "half a nat is nothing beside 20 from image to image, but much in pairs"
    )
    assert json.loads(compare(one, two, "--json").stdout) == found
    assert json.loads(compare(one, two, "--json", "--seed", 1).stdout)["low"] != found["low"]


@pytest.mark.parametrize(
    "case", ["other images", "other number", "other kind", "damaged", "no losses", "not a run"]
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path, case):
    one, two = made(tmp_path / "one"), made(tmp_path / "two", seed=1)
    outcomes(one, [0, 1, 0])
    outcomes(
        two,
        [0, 1] if case == "other number" else [0, 1, 1],
        BOUND if case == "other kind" else ERROR,
        "b" * 64 if case == "other images" else "a" * 64,
    )
    if case == "damaged":
        (two / paired.FILE).write_bytes((two / paired.FILE).read_bytes()[:-30])
    if case == "no losses":
        outcomes(two, [])
    said = compare(one, tmp_path / "none" if case == "not a run" else two)
    words = {
        "other images": "different test images",
        "other number": "different test images",
        "other kind": "do not compare",
    }
    words |= {"damaged": "damaged", "no losses": "does not hold", "not a run": "no run folder"}
    assert (
        said.exit_code == 1
        and said.stdout == ""
        and words[case] in said.stderr
        and said.stderr.count("\n") == 1
    )


def test_losses_that_could_run_something_are_refused(tmp_path):
    np.savez(
        tmp_path / paired.FILE,
        metric=ERROR,
        test_sha256="t",
        losses=np.array([{"a": 1}], dtype=object),
    )
    with pytest.raises(Problem, match="damaged"):
        paired.load(tmp_path)
