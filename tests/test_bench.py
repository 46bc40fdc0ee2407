"""The benchmark: what it runs, in which order, and that the floor has the operations of a step and
no more. No time is asserted.
"""

import json
import multiprocessing
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from torch.utils.flop_counter import FlopCounterMode

from drawbench import bench
from drawbench.bench import (
    CPU,
    FAST,
    FLOOR,
    PLAIN,
    RENDER,
    Classifier,
    Data,
    Generator,
    Plan,
    Product,
    measuring,
)
from drawbench.cli import bench as command
from drawbench.cli import cli
from drawbench.errors import Problem
from drawbench.tasks.classify import FreshScenes

SMALL = Classifier(canvas=30, glimpses=2, patch=3, hidden=8, batch=4)
SMALL_DRAW = Generator(canvas=12, glimpses=3, hidden=8, latent=4, batch=2)


def drawbench(*words) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="drawbench")


def test_a_team_shares_the_batch_and_goes_home():
    rows = bench.measure(
        bench.growth_plans({"small": SMALL_DRAW}, ["training"], "processes", [1, 2]), rounds=1
    )
    assert [
        (row["processes"], row["implementation"]) for row in rows if row["precision"] == "float32"
    ] == [
        *((1, "fast"), (1, "floor")),
        *((2, "fast"), (2, "floor")),
    ]
    assert all(row["images_per_second"] > 0 and "peak_mb" not in row for row in rows)
    assert not multiprocessing.active_children()


def test_a_team_that_loses_a_process_says_so():
    team = bench.Team(SMALL, "evaluation", CPU, 2)
    try:
        team.run(FAST["float32"])
        multiprocessing.active_children()[0].kill()
        with pytest.raises(Problem, match="take fewer processes"):
            team.run(FAST["float32"])
    finally:
        team.close()
    assert not multiprocessing.active_children()


def test_a_batch_too_small_for_a_team():
    with pytest.raises(Problem, match="batch of 4 cannot be shared by 5"):
        bench.Team(SMALL, "training", CPU, 5)


# -------------------------------------------------------------------------------------------- turns


def test_contenders_take_turns():
    calls = []
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = bench.in_turn(runs, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert [len(taken) for taken in seconds.values()] == [3, 3]


def test_a_device_is_waited_for_before_each_reading_of_the_clock():
    calls = []
    bench.in_turn(
        {"a": lambda: calls.append("a")},
        rounds=2,
        warmup=0,
        synchronize=lambda: calls.append("wait"),
    )
    assert calls == ["wait", "a", "wait"] * 2


def test_no_rounds_are_no_measurement():
    with pytest.raises(Problem, match="at least 1 round, got 0"):
        bench.measure([Plan("small", SMALL, "training")], rounds=0, memory=False)


# -------------------------------------------------------------------------------------------- floor


def counted(case, gradients: bool) -> int:
    """Operations of the plain model's matrix products, counted by torch as they are called."""
    model, loss = case.loss()
    model.requires_grad_(gradients)
    with FlopCounterMode(display=False) as counter:
        value = loss(None)
        if gradients:
            value.backward()
    return counter.get_total_flops()


def surplus(case, gradients: bool) -> int:
    """What the plain model does beyond the floor, all of it about the image, which is the same at
    every step and needs no gradient.

    Where it reads through windows, it joins image and error into one tensor and sends a gradient
    into both. Where it reads the whole image, it takes it through the encoder at each of T steps
    instead of once, forward and for the weights, and sends it a gradient.
    """
    if isinstance(case, Classifier):
        return 0
    if case.attention in ("both", "read"):
        return 2 * case.batch * case.glimpses * case.read_patch * case.canvas**2 * gradients
    once = 2 * case.batch * case.canvas**2 * 4 * case.hidden
    return once * ((case.glimpses - 1) * (1 + gradients) + case.glimpses * gradients)


@pytest.mark.parametrize("gradients", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    "case",
    [SMALL, Classifier(batch=1), SMALL_DRAW, Generator(batch=1)]
    + [
        Generator(canvas=12, glimpses=3, attention=kind, hidden=8, latent=4, batch=2)
        for kind in ("read", "write", "none")
    ],
    ids=["small", "paper", "small generator", "paper's generator", "read", "write", "none"],
)
def test_the_floor_has_the_operations_of_the_plain_model_but_for_those_that_it_could_spare(
    case, gradients
):
    floor = bench.operations(case.products(), case.batch, gradients)
    assert floor == counted(case, gradients) - surplus(case, gradients)


@pytest.mark.parametrize("case", [Classifier(), Generator()], ids=["classifier", "generator"])
def test_at_the_papers_sizes_floor_and_plain_model_agree_within_two_percent(case):
    assert surplus(case, True) < 0.02 * bench.operations(case.products(), case.batch, True)


@pytest.mark.parametrize("precision", list(FLOOR))
@pytest.mark.parametrize("gradients", [True, False])
def test_the_floor_does_the_operations_that_are_counted(precision, gradients):
    for case in (
        SMALL,
        SMALL_DRAW,
        Generator(canvas=12, glimpses=3, attention="none", hidden=8, latent=4, batch=2),
    ):
        run = bench.floor(case.products(), case.batch, precision, gradients)
        with FlopCounterMode(display=False) as counter:
            run()
        assert counter.get_total_flops() == bench.operations(case.products(), case.batch, gradients)


def test_operations_by_hand():
    """Per image: 3 x (2x3 by 3x4), of which a gradient into one factor; 1 x 5 weights by 6, with
    both.
    """
    products = [Product(2, 3, 4, 3, into_right=False), Product(1, 5, 6, 1, weights=True)]
    assert bench.operations(products, 7, gradients=False) == 2 * 7 * (3 * 24 + 30)
    assert bench.operations(products, 7, gradients=True) == 2 * 7 * (2 * 3 * 24 + 3 * 30)


def test_what_must_be_exact_is_float32_in_the_floor_of_bfloat16(monkeypatch):
    seen = []
    real = torch.mm

    def record(left, right, out):
        seen.append(left.dtype)
        return real(left, right, out=out)

    monkeypatch.setattr(torch, "mm", record)
    products = [Product(1, 3, 4, 2, weights=True), Product(1, 3, 4, 1, weights=True, exact=True)]
    bench.floor(products, 2, "bfloat16", gradients=False)()
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]


# -------------------------------------------------------------------------------------------- cases


def test_cases_are_chosen_by_name_and_by_part():
    assert list(bench.select([])) == list(bench.CASES)
    assert list(bench.select(["generator-10", "classifier"])) == [
        "classifier-paper",
        "classifier-small",
        "generator-10",
    ]
    assert set(bench.GROWING) <= set(bench.CASES)


def test_settings_change_in_the_cases_that_have_them():
    chosen = bench.select(["classifier-small", "data-mnist2"], glimpses=3, batch=5, canvas=None)
    assert chosen["classifier-small"] == Classifier(canvas=60, glimpses=3, batch=5)
    assert chosen["data-mnist2"] == Data(canvas=60, digits=2, clutter=0, batch=5)


def test_an_unknown_part_is_named_with_the_nearest():
    with pytest.raises(Problem, match=r"no part 'genrator' to measure; did you mean 'generator'\?"):
        bench.select(["genrator"])


@pytest.mark.parametrize("case", [SMALL, SMALL_DRAW], ids=["classifier", "generator"])
def test_all_contenders_compute_the_same_loss(case):
    runs = bench.contenders(case, "evaluation")
    exact = runs[PLAIN]()
    assert not exact.requires_grad
    torch.testing.assert_close(runs[FAST["float32"]](), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(runs[FAST["bfloat16"]](), exact, rtol=0.05, atol=0.05)


def test_a_training_step_is_a_whole_update_that_leaves_the_weights_where_they_are(monkeypatch):
    kept = {}
    build = Classifier.build
    monkeypatch.setattr(Classifier, "build", lambda case: kept.setdefault("model", build(case)))
    runs = bench.contenders(SMALL, "training")
    before = [parameter.clone() for parameter in kept["model"].parameters()]
    for run in runs.values():
        run()
        assert all(parameter.grad is not None for parameter in kept["model"].parameters())
    assert all(
        torch.equal(old, new) for old, new in zip(before, kept["model"].parameters(), strict=True)
    )


def test_the_renderer_makes_other_scenes_each_time(monkeypatch):
    firsts = []
    monkeypatch.setattr(
        FreshScenes, "batch", lambda self, first, count: firsts.append((first, count))
    )
    (run,) = bench.contenders(Data(batch=3), "data").values()
    run()
    run()
    assert firsts == [(0, 3), (3, 3)]


# ------------------------------------------------------------------------------------------- memory


def test_peak_memory_is_that_of_the_work_and_not_of_the_process_before():
    """Sixteen images of a megapixel as float32 are 64 MB, which the plain model makes; this
    process' own peak is far above that.
    """
    case = Classifier(canvas=1000, glimpses=1, patch=2, hidden=4, batch=16)
    peak = bench.in_process(bench.peak_memory, case, "evaluation", PLAIN, CPU, 1)
    assert 64e6 <= peak < 250e6


def test_a_process_that_dies_is_a_problem():
    with pytest.raises(Problem, match="ended from outside"):
        bench.in_process(os._exit, 1)


# --------------------------------------------------------------------------------------------- rows


def test_rows_compare_round_by_round(monkeypatch):
    times = {
        PLAIN: [3.0, 2.0, 4.0],
        FAST["float32"]: [1.0, 2.0, 4.0],
        FLOOR["float32"]: [0.5, 0.5, 1.0],
    }
    case = Classifier(batch=100)
    plain, fast, floor = measuring._rows(
        Plan("one", case, "training", threads=3), times, {PLAIN: 5_000_000}
    )
    assert (fast["images_per_second"], fast["slowest"], fast["fastest"], fast["threads"]) == (
        50,
        25,
        100,
        3,
    )
    assert (fast["times_plain"], fast["times_plain_low"], fast["times_plain_high"]) == (1, 1, 3)
    assert (fast["floor_percent"], plain["floor_percent"]) == (25, 25)
    assert plain["peak_mb"] == 5 and "peak_mb" not in fast
    assert "times_plain" not in plain and "floor_percent" not in floor
    assert fast["gflops"] == pytest.approx(
        bench.operations(case.products(), 100, True) / 2e9, rel=1e-3
    )


def test_every_contender_of_every_plan_has_a_row():
    seen = []
    cases = {"small": SMALL, "draw": SMALL_DRAW, "data": Data(canvas=30, batch=2)}
    rows = bench.measure(
        bench.plans(cases),
        rounds=1,
        memory=False,
        progress=lambda done, total: seen.append((done, total)),
    )
    fast_and_floor = [tuple(contender) for contender in (*FAST.values(), *FLOOR.values())]
    expected = [
        (name, work, *who)
        for name in ("small", "draw")
        for work in SMALL.works
        for who in fast_and_floor
    ]
    found = [(row["case"], row["work"], row["implementation"], row["precision"]) for row in rows]
    assert found == [*expected, ("data", "data", *RENDER)]
    assert seen == [(n, 20) for n in range(1, 21)]  # five plans, three rounds each
    assert all(row["images_per_second"] > 0 for row in rows)
    rows = bench.measure(
        bench.plans({"small": SMALL}, ["training"]), rounds=1, memory=False, against_plain=True
    )
    assert [row["implementation"] for row in rows] == ["plain", "fast", "fast", "floor", "floor"]


def test_growth_varies_one_setting_where_there_is_one():
    cases = {"small": SMALL, "data": Data()}
    planned = bench.growth_plans(cases, ["training", "data"], "glimpses", [1, 4])
    assert [(plan.name, plan.case.glimpses) for plan in planned] == [("small", 1), ("small", 4)]
    planned = bench.growth_plans(cases, ["training", "data"], "threads", [1, 2])
    assert [(plan.name, plan.threads) for plan in planned] == [
        ("small", 1),
        ("small", 2),
        ("data", 1),
        ("data", 2),
    ]


def test_sizes_of_the_same_work_take_turns(monkeypatch):
    turns = []
    monkeypatch.setattr(
        measuring,
        "in_turn",
        lambda runs, rounds, **_: turns.append(list(runs)) or {name: [1.0] for name in runs},
    )
    fast_and_floor = [*FAST.values(), *FLOOR.values()]
    for along in ("batch", "threads"):
        rows = bench.measure(
            bench.growth_plans({"small": SMALL}, ["training"], along, [1, 2]), memory=False
        )
        assert [row[along] for row in rows] == [1] * 4 + [2] * 4
    by_batch, one_thread, two_threads = turns
    assert by_batch == [(number, contender) for number in (0, 1) for contender in fast_and_floor]
    assert (
        one_thread == two_threads == [(0, contender) for contender in fast_and_floor]
    )  # torch has one number of threads at a time


def test_threads_are_those_of_the_plan_and_then_as_before():
    before = torch.get_num_threads()
    rows = bench.measure([Plan("small", SMALL, "training", threads=2)], rounds=1, memory=False)
    assert {row["threads"] for row in rows} == {2}
    assert torch.get_num_threads() == before


# ------------------------------------------------------------------------------------------ command

TINY = ("--no-memory", "--rounds", 1, "--batch", 2, "--glimpses", 1, "--threads", 1)


def test_json_is_one_object_and_rows_and_machine_are_written(tmp_path):
    result = drawbench(
        "bench",
        "classifier-small",
        "data-mnist2",
        *TINY,
        "--against",
        "eager",
        "--out",
        tmp_path,
        "--json",
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    printed = json.loads(result.stdout)
    assert [Path(path).name for path in printed["written"]] == ["bench.csv", "bench.json"]
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written == {"environment": printed["environment"], "rows": printed["rows"]}
    assert {"processor", "cores", "threads", "torch", "device", "command"} <= set(
        written["environment"]
    )
    frame = pd.read_csv(tmp_path / "bench.csv")
    assert set(frame["work"]) == {"training", "evaluation", "data"}
    assert set(frame["implementation"]) == {"plain", "fast", "floor", "render"}


def test_the_table_has_a_line_for_each_row():
    result = drawbench(
        "bench", "generator-small", *TINY, "--work", "evaluation", "--against", "eager"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "times plain" in lines[0] and "floor %" in lines[0]
    assert [line.startswith("generator-small evaluation") for line in lines[1:6]] == [True] * 5
    assert "cores, cpu, torch" in lines[-1]


def test_growth_writes_rows_and_pictures(tmp_path):
    words = (
        "bench",
        "classifier-small",
        "--growth",
        "batch",
        "--values",
        "1,2",
        "--glimpses",
        1,
        "--no-memory",
        "--rounds",
        1,
    )
    result = drawbench(*words, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"growth_batch.{form}" for form in ("csv", "json", "pdf", "png")
    ]
    assert {row["batch"] for row in json.loads(result.stdout)["rows"]} == {1, 2}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--rounds", "0"), ("rounds", "0")),
        (("genrator",), ("genrator", "generator")),
        (("--values", "1,2"), ("--values", "--growth")),
        (("--growth", "batch", "--growth", "canvas", "--values", "1,2"), ("--values", "--growth")),
        (("--growth", "batch", "--values", "0,2"), ("--values", "at least 1")),
        (("--growth", "batch", "--batch", "2"), ("--growth batch", "leave out --batch")),
        (("--growth", "depth"), ("depth", "glimpses")),
        (("data", "--work", "training"), ("data-mnist2", "training")),
        (("data", "--growth", "glimpses"), ("data-mnist2", "training")),
    ],
)
def test_wrong_usage_is_told(words, names):
    result = drawbench("bench", *words)
    assert result.exit_code == 2 and result.stdout == ""
    for name in names:
        assert name in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_a_problem():
    result = drawbench("bench", "--device", "cuda")
    assert result.exit_code == 1 and "--device cuda was asked for" in result.stderr


@pytest.mark.gpu
def test_on_a_gpu_the_same_rows_come_out():
    device = torch.device("cuda")
    rows = bench.measure(
        bench.plans({"small": SMALL, "draw": SMALL_DRAW}),
        rounds=1,
        against_plain=True,
        device=device,
    )
    assert len(rows) == 4 * 5 and all(
        row["peak_mb"] > 0 for row in rows if row["implementation"] != "floor"
    )


def test_help_names_every_case_and_axis():
    text = drawbench("bench", "--help").stdout
    assert all(f"  {name} " in text for name in bench.CASES)
    assert tuple(bench.AXES) == command.AXES
