"""The benchmark: its contenders, their turns, and a floor with exactly the operations of a step.

No time is asserted.
"""

import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from torch.utils.flop_counter import FlopCounterMode

from drawbench import bench, fast
from drawbench.bench import (
    AUTOCAST,
    COMPILED,
    CPU,
    FAST,
    FLOOR,
    GRAPHS,
    PLAIN,
    PROCESSES,
    RENDER,
    Captions,
    Classifier,
    Data,
    Eye,
    Generator,
    Plan,
    Product,
    memory,
    timing,
)
from drawbench.cli import cli
from drawbench.data import scenes, sentences
from drawbench.errors import Problem

SMALL = Classifier(canvas=30, glimpses=2, patch=3, hidden=8, batch=4)
SMALL_CAPTIONS = Captions(canvas=13, glimpses=3, hidden=8, latent=4, batch=2, words=4, alignment=6)
SMALL_DRAW = Generator(canvas=12, glimpses=3, hidden=8, latent=4, batch=2)
HAS_BFLOAT16 = fast.multiplies_bfloat16()
CONTENDERS = (PLAIN, AUTOCAST, *FAST.values(), *FLOOR.values())


def drawbench(*words) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="drawbench")


def small_draw(attention: str) -> Generator:
    return Generator(canvas=12, glimpses=3, attention=attention, hidden=8, latent=4, batch=2)


# -------------------------------------------------------------------------------------------- turns


def test_contenders_take_turns():
    calls = []
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = bench.in_turn(runs, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert [len(taken) for taken in seconds.values()] == [3, 3]


def test_the_clock_waits_for_the_device():
    calls = []
    run, wait = (lambda: calls.append("run")), (lambda: calls.append("wait"))
    bench.in_turn({"a": run}, rounds=2, warmup=0, synchronize=wait)
    assert calls == ["wait", "run", "wait"] * 2


def test_zero_rounds_are_refused():
    with pytest.raises(Problem, match="at least 1 round, got 0"):
        bench.measure([Plan("small", SMALL, "training")], rounds=0, memory=False)


# -------------------------------------------------------------------------------------------- floor


def counted(case, gradients: bool) -> int:
    """Count the operations of the plain model's matrix products as torch calls them."""
    model, loss = case.build(), case.loss()
    model.requires_grad_(gradients)
    with FlopCounterMode(display=False) as counter:
        value = loss(model)
        if gradients:
            value.backward()
    return counter.get_total_flops()


def surplus(case, gradients: bool) -> int:
    """Count what the plain model does beyond the floor.

    All of it concerns the image, which is the same at every step and needs no gradient. Where it
    reads through windows, it joins image and error into one tensor and sends a gradient into both.
    Where it reads the whole image, it takes it through the encoder at each of T steps instead of
    once, forward and for the weights, and sends it a gradient. The counter does not see into the
    LSTMs that read captions.
    """
    if isinstance(case, Classifier):
        return 0
    unseen = 0
    if isinstance(case, Captions):
        inputs = len(sentences.WORDS) + case.words
        unseen = 2 * case.batch * case.length * inputs * 8 * case.words * (1 + 2 * gradients)
    if case.attention in ("both", "read"):
        twice = 2 * case.batch * case.glimpses * case.read_patch * case.canvas**2 * gradients
        return twice - unseen
    once = 2 * case.batch * case.canvas**2 * 4 * case.hidden
    return once * ((case.glimpses - 1) * (1 + gradients) + case.glimpses * gradients)


@pytest.mark.parametrize("gradients", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    "case",
    [SMALL, Classifier(batch=1), Eye(batch=1), SMALL_DRAW, Generator(batch=1), SMALL_CAPTIONS]
    + [small_draw(attention) for attention in ("read", "write", "none")],
    ids=["small", "paper", "eye", "draw", "paper's draw", "captions", "read", "write", "none"],
)
def test_the_floor_counts_the_operations_of_the_plain_model_less_the_avoidable(case, gradients):
    floor = bench.operations(case.products(), case.batch, gradients)
    assert floor == counted(case, gradients) - surplus(case, gradients)


@pytest.mark.parametrize("case", [Classifier(), Generator()], ids=["classifier", "generator"])
def test_at_the_papers_sizes_the_avoidable_is_below_two_percent(case):
    assert surplus(case, True) < 0.02 * bench.operations(case.products(), case.batch, True)


@pytest.mark.parametrize("precision", list(FLOOR))
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("case", [SMALL, SMALL_DRAW, small_draw("none")])
def test_the_floor_runs_the_operations_that_it_counts(case, precision, gradients):
    run = bench.floor(case.products(), case.batch, precision, gradients)
    with FlopCounterMode(display=False) as counter:
        run()
    assert counter.get_total_flops() == bench.operations(case.products(), case.batch, gradients)


def test_operations_by_hand():
    """Per image: 3 x (2x3 by 3x4) with a gradient into one factor; 1x5 by 5x6 with both."""
    products = [Product(2, 3, 4, 3, into_right=False), Product(1, 5, 6, 1, weights=True)]
    assert bench.operations(products, 7, gradients=False) == 2 * 7 * (3 * 24 + 30)
    assert bench.operations(products, 7, gradients=True) == 2 * 7 * (2 * 3 * 24 + 3 * 30)


def test_the_bfloat16_floor_keeps_exact_products_in_float32(monkeypatch):
    dtypes = []
    real = torch.mm

    def record(left, right, out):
        dtypes.append(left.dtype)
        return real(left, right, out=out)

    monkeypatch.setattr(torch, "mm", record)
    products = [Product(1, 3, 4, 2, weights=True), Product(1, 3, 4, 1, weights=True, exact=True)]
    bench.floor(products, 2, "bfloat16", gradients=False)()
    assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32]


# -------------------------------------------------------------------------------------------- cases


def test_cases_are_selected_by_name_and_by_part():
    assert list(bench.select([])) == list(bench.CASES)
    expected = ["classifier-paper", "classifier-eye", "classifier-small", "generator-10"]
    assert list(bench.select(["generator-10", "classifier"])) == expected


def test_settings_change_in_the_cases_that_have_them():
    cases = bench.select(["classifier-small", "data-mnist2"], glimpses=3, batch=5, canvas=None)
    assert cases["classifier-small"] == Classifier(canvas=60, glimpses=3, batch=5)
    assert cases["data-mnist2"] == Data(canvas=60, digits=2, clutter=0, batch=5)


def test_an_unknown_case_is_named_with_the_nearest():
    with pytest.raises(Problem, match=r"no case 'genrator'; did you mean 'generator'\?"):
        bench.select(["genrator"])


@pytest.mark.parametrize(
    "case", [SMALL, SMALL_DRAW, SMALL_CAPTIONS], ids=["classifier", "draw", "captions"]
)
def test_all_contenders_compute_the_same_loss(case):
    runs = bench.contenders(case, "evaluation")
    exact = runs[PLAIN]()
    assert not exact.requires_grad
    torch.testing.assert_close(runs[FAST["float32"]](), exact, rtol=1e-5, atol=1e-5)
    for contender in (AUTOCAST, FAST["bfloat16"]):
        if case is SMALL_CAPTIONS and contender is AUTOCAST and not HAS_BFLOAT16:
            continue  # torch has no LSTM of bfloat16 for it
        rounded = runs[contender]()
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
        assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)


def test_a_training_step_is_a_whole_update_that_leaves_the_weights_unchanged(monkeypatch):
    models = []
    build = Classifier.build

    def remember(case):
        models.append(build(case))
        return models[-1]

    monkeypatch.setattr(Classifier, "build", remember)
    runs = bench.contenders(SMALL, "training")
    parameters = list(models[0].parameters())
    before = [parameter.clone() for parameter in parameters]
    for run in (run for who, run in runs.items() if who not in COMPILED.values()):
        run()
        assert all(parameter.grad is not None for parameter in parameters)
    assert all(torch.equal(old, new) for old, new in zip(before, parameters, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own
def test_the_compiled_model_computes_the_same_loss():
    runs = bench.contenders(SMALL, "evaluation")
    torch.testing.assert_close(runs[COMPILED["float32"]](), runs[PLAIN](), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(runs[COMPILED["bfloat16"]](), runs[AUTOCAST](), rtol=0.05, atol=0.05)


def test_every_batch_of_scenes_is_new(monkeypatch):
    batches = []
    monkeypatch.setattr(scenes, "fresh", lambda *args, **_: batches.append(args[2].tolist()))
    (run,) = bench.contenders(Data(batch=3), "data").values()
    run()
    run()
    assert batches == [[0, 1, 2], [3, 4, 5]]


# ------------------------------------------------------------------------------------------- memory


def test_a_system_that_does_not_tell_its_memory_is_said(monkeypatch):
    def refuse(*_, **__):
        raise OSError

    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    monkeypatch.setattr(memory.Path, "read_text", refuse)
    with pytest.raises(Problem, match="--no-memory"):
        memory._resident_peak()


def test_peak_memory_is_that_of_the_work_alone():
    """4.2 million weights are 17 MB; a step adds their gradient and Adam's two moments.

    The peak of this process is far above that.
    """
    case = Classifier(canvas=30, glimpses=1, patch=2, hidden=1024, batch=2)
    peak = bench.in_process(bench.peak_memory, case, "training", PLAIN, CPU, 1)
    assert 45e6 <= peak < 150e6


def test_a_killed_process_is_a_problem():
    with pytest.raises(Problem, match="was killed"):
        bench.in_process(os._exit, 1)


# --------------------------------------------------------------------------------------------- rows


@pytest.fixture(autouse=True)
def both_precisions(monkeypatch):
    """Measure bfloat16 on every CPU: how fast it is does not matter here."""
    monkeypatch.setattr(fast, "_cpu_multiplies_bfloat16", lambda: True)


def test_rows_compare_round_by_round():
    times = {
        PLAIN: [3.0, 2.0, 4.0],
        AUTOCAST: [2.0, 2.0, 2.0],
        FAST["float32"]: [1.0, 2.0, 4.0],
        FLOOR["float32"]: [0.5, 0.5, 1.0],
        FLOOR["bfloat16"]: [0.5, 0.5, 0.5],
    }
    case = Classifier(batch=100)
    plain, autocast, fast, floor, _ = timing._rows(
        Plan("one", case, "training"), times, {PLAIN: 5_000_000}
    )
    assert [fast[key] for key in ("images_per_second", "slowest", "fastest")] == [50, 25, 100]
    assert [fast[f"times_plain{end}"] for end in ("", "_low", "_high")] == [1, 1, 3]
    assert [fast[f"times_autocast{end}"] for end in ("", "_low", "_high")] == [1, 0.5, 2]
    assert autocast["times_plain"] == 1.5 and plain["times_autocast"] == 0.6667
    assert (fast["floor_percent"], plain["floor_percent"], autocast["floor_percent"]) == (
        25,
        25,
        25,
    )
    assert plain["peak_mb"] == 5 and "peak_mb" not in fast
    assert "times_plain" not in plain and "floor_percent" not in floor
    operations = bench.operations(case.products(), 100, True)
    assert fast["gflops"] == pytest.approx(operations / 2e9, rel=1e-3)


def test_every_contender_of_every_plan_has_a_row():
    ticks = []
    cases = {"small": SMALL, "draw": SMALL_DRAW, "data": Data(canvas=30, batch=2)}
    rows = bench.measure(
        bench.plans(cases),
        rounds=1,
        memory=False,
        against=["eager"],
        progress=lambda done, total: ticks.append((done, total)),
    )
    expected = [
        (name, work, *contender)
        for name in ("small", "draw")
        for work in SMALL.works
        for contender in CONTENDERS
    ]
    keys = ("case", "work", "implementation", "precision")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        *expected,
        ("data", "data", *RENDER),
    ]
    assert ticks == [(n, 20) for n in range(1, 21)]  # five plans: memory and three rounds each
    assert all(row["images_per_second"] > 0 for row in rows)


def test_processes_of_one_thread_each_do_a_batch(monkeypatch):
    """Two of them take turns with one process of two threads, and both batches count."""
    seconds = {}
    real = timing.in_turn

    def remember(*args, **named):
        seconds.update(real(*args, **named))
        return {who: list(taken) for who, taken in seconds.items()}

    monkeypatch.setattr(timing, "in_turn", remember)
    torch.set_num_threads(2)
    plan = Plan("small", SMALL, "evaluation")
    rows = bench.measure([plan], rounds=1, memory=False, against=["processes"])
    by_contender = {(row["implementation"], row["precision"]): row for row in rows}
    for who in PROCESSES.values():
        (taken,) = seconds[who]
        rate = by_contender[who]["images_per_second"]
        assert rate == pytest.approx(2 * SMALL.batch / taken, rel=1e-3)
    ratio = by_contender[FAST["float32"]]["times_processes"]
    one, two = (seconds[group["float32"]][0] for group in (FAST, PROCESSES))
    assert ratio == pytest.approx(two / 2 / one, rel=1e-3)


# ------------------------------------------------------------------------------------------- growth


def test_points_on_a_line_are_off_by_nothing_and_others_by_their_distance():
    assert bench.growth.off_line([1, 2, 4, 8], [3, 5, 9, 17]) == pytest.approx([0] * 4, abs=1e-9)
    seconds = [1.0, 2.0, 3.0, 5.0]
    off = bench.growth.off_line([1, 2, 3, 4], seconds)
    line = [second / (1 + percent / 100) for second, percent in zip(seconds, off, strict=True)]
    assert line[1] - line[0] == pytest.approx(line[3] - line[2]) and max(off) > 5


def test_growth_has_a_row_for_each_value_of_each_size(monkeypatch, tmp_path):
    monkeypatch.setattr(bench.growth, "in_process", lambda *_: 3_000_000)
    words = ("generator-small", "--growth", "--rounds", 1, "--threads", 1, "--out", tmp_path)
    monkeypatch.setattr("drawbench.bench.cases.CASES", {"generator-small": SMALL_DRAW})
    result = drawbench("bench", *words, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    values = {
        axis: [row["value"] for row in rows if row["axis"] == axis]
        for axis in ("glimpses", "batch", "canvas", "processes")
    }
    assert values == {
        "glimpses": [1, 1, 2, 3],  # an eighth, a quarter and a half of 3, at least 1
        "batch": [1, 1, 2, 4],
        "canvas": [144, 289, 576, 1156],
        "processes": [1],
    }
    assert all(row["seconds_low"] <= row["seconds"] <= row["seconds_high"] for row in rows)
    assert {path.name for path in tmp_path.iterdir()} == {
        "growth.csv",
        "growth-generator-small.png",
    }


# ------------------------------------------------------------------------------------------ command

TINY = ("--no-memory", "--rounds", 1, "--batch", 2, "--glimpses", 1, "--threads", 1)


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("has_it", [True, False])
def test_bfloat16_is_measured_where_the_cpu_multiplies_it(monkeypatch, has_it):
    monkeypatch.setattr(fast, "_cpu_multiplies_bfloat16", lambda: has_it)
    plans = bench.plans({"small": SMALL}, ["evaluation"])
    rows = bench.measure(plans, rounds=1, against=["eager"], memory=False)
    assert {row["precision"] for row in rows} == {"float32", *(["bfloat16"] if has_it else [])}
    assert {row["implementation"] for row in rows} == {"plain", "fast", "floor"}
    result = drawbench("bench", "classifier-small", *TINY, "--work", "evaluation")
    assert ("bfloat16 is left out" in result.stdout) is not has_it


def test_json_is_one_object_and_the_rows_are_written(tmp_path):
    cases = ("classifier-small", "data-mnist2")
    result = drawbench("bench", *cases, *TINY, "--against", "eager", "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [Path(path).name for path in printed["written"]] == ["bench.csv", "bench.json"]
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written == {"environment": printed["environment"], "rows": printed["rows"]}
    machine = {"processor", "cores", "threads", "torch", "device", "command"}
    assert machine <= set(written["environment"])
    frame = pd.read_csv(tmp_path / "bench.csv")
    assert set(frame["work"]) == {"training", "evaluation", "data"}
    assert set(frame["implementation"]) == {"plain", "fast", "floor", "render"}


def test_the_table_has_a_line_for_each_row(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a narrower terminal gets a list
    words = ("generator-small", *TINY, "--work", "evaluation", "--against", "eager")
    result = drawbench("bench", *words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(heading in lines[0] for heading in ("x plain", "x autocast", "floor %"))
    assert all(line.startswith("generator-small evaluation") for line in lines[1:7])
    assert "cores, cpu, torch" in lines[-1]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--rounds", "0"), ("rounds", "0")),
        (("genrator",), ("genrator", "generator")),
        (("data", "--work", "training"), ("data-mnist2", "training")),
        (("data-mnist2", "--canvas", "10"), ("28x28", "canvas of 10")),
        (("generator-10", "--precision", "bfloat16"), ("--precision goes with --growth",)),
        (("generator-10", "--growth", "--work", "training"), ("--work does not go with",)),
    ],
)
def test_wrong_usage_is_explained(words, names):
    result = drawbench("bench", *words)
    assert result.exit_code == 2 and result.stdout == ""
    assert all(name in result.stderr for name in names)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_device_is_a_problem():
    result = drawbench("bench", "--device", "cuda")
    assert result.exit_code == 1 and "--device cuda" in result.stderr


@pytest.mark.gpu
def test_a_gpu_gives_the_same_rows():
    plans = bench.plans({"small": SMALL, "draw": SMALL_DRAW})
    rows = bench.measure(plans, rounds=1, against=["eager"], device=torch.device("cuda"))
    assert len(rows) == 4 * len(CONTENDERS) + 2 * len(GRAPHS)  # only training is replayed
    assert all(row["peak_mb"] > 0 for row in rows if row["implementation"] != "floor")


def test_help_names_every_case():
    text = drawbench("bench", "--help").stdout
    assert all(f"  {name} " in text for name in bench.CASES)
