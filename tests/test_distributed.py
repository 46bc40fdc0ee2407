"""Several processes compute what one does, to rounding; they stop together; an error ends all.

The sums are tested inside this process, which takes the part of each process in turn; the rest by
real processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import commands
import pytest
import torch
import torch.nn.functional as F
from commands import flags

from drawbench import distributed, fast, runs, training
from drawbench.data.batch import Batch
from drawbench.distributed import Group
from drawbench.errors import Problem
from drawbench.evaluation import bounds, error_rate
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.glimpses import GaussianGlimpse

# ----------------------------------------------------------------------------------- the arithmetic


def in_each(processes, work, monkeypatch):
    """Return ``work()`` of each process: a first round collects the terms of the sums."""
    terms = [[] for _ in range(processes)]

    def collect(tensor):
        terms[distributed.rank()].append(tensor.clone())
        return tensor

    def total(tensor):
        return tensor.copy_(sum(next(iterator) for iterator in iterators))

    results = []
    for sum_ in (collect, total):
        monkeypatch.setattr(distributed, "_sum_", sum_)
        for number in range(processes):
            iterators = [iter(tensors) for tensors in terms]
            monkeypatch.setattr(distributed, "_group", Group(number, processes))
            results.append(work())
    monkeypatch.undo()
    return results[processes:]


@pytest.mark.parametrize("count", [1, 2, 7, 16, 100])
@pytest.mark.parametrize("processes", [1, 2, 3, 16])
def test_shares_are_contiguous_and_differ_by_at_most_one(count, processes):
    shares = [distributed._share(count, number, processes) for number in range(processes)]
    assert [first + k for first, many in shares for k in range(many)] == list(range(count))
    assert max(many for _, many in shares) - min(many for _, many in shares) <= 1


def test_a_process_on_its_own_changes_nothing():
    assert (distributed.rank(), distributed.size(), distributed.share(5)) == (0, 1, (0, 5))
    gradient = torch.ones(3)
    assert distributed.mean_([gradient], torch.tensor([0.5]), 1.0).tolist() == [0.5]
    assert distributed.broadcast("word") == "word"
    assert distributed.signal_to_stop(None) is None
    distributed.report_failure(1)
    distributed.leave()


def test_fewer_images_than_processes_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "_group", Group(0, 3))
    with pytest.raises(Problem, match=r"2 images cannot be shared by 3 processes.*--batch"):
        distributed.share(2)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_rows_are_gathered_in_order(count, monkeypatch):
    rows = torch.arange(count)

    def squares():
        return distributed.gather(lambda some: torch.stack([some, some**2], dim=1), rows)

    for gathered in in_each(3, squares, monkeypatch):
        assert torch.equal(gathered, torch.stack([rows, rows**2], dim=1))


def tiny_draw(side, **settings):
    sizes = dict(height=side, width=side, channels=1, hidden=8, latent=3)
    return Draw(**sizes, read_patch=2, write_patch=3, **settings)


def test_measuring_does_not_depend_on_the_processes(monkeypatch):
    torch.manual_seed(0)
    classifier = GlimpseClassifier(GaussianGlimpse(4), glimpses=2, hidden=8)
    draw = tiny_draw(8, steps=2)
    grey = torch.randint(0, 256, (23, 12, 12), dtype=torch.uint8)
    binary = Batch(255 * torch.randint(0, 2, (23, 1, 8, 8), dtype=torch.uint8))
    index = torch.tensor([22, 3, 11])

    def weighted():
        return bounds.importance_weighted(draw, binary, samples=3, index=index, batch=1).per_image

    for measure in (
        lambda: error_rate.predict(classifier, grey, batch=4),
        lambda: bounds.bound(draw, binary, samples=2, batch=4).kl,
        lambda: bounds.bound(draw, binary, samples=2, batch=4).sample_variance,
        weighted,
    ):
        alone = torch.as_tensor(measure())
        for together in in_each(3, measure, monkeypatch):
            torch.testing.assert_close(torch.as_tensor(together), alone, rtol=1e-4, atol=1e-6)


def classification(images):
    model = GlimpseClassifier(GaussianGlimpse(4), glimpses=4, hidden=8, window_clip=1e-3)
    forward = fast.forward_for(model)
    labels = torch.arange(len(images)) % 10
    return model, lambda part: F.cross_entropy(forward(images[part]).logits[:, -1], labels[part])


def drawing(images):
    model = tiny_draw(12, steps=3, window_clip=1e-3)
    noise = torch.randn(len(images), 3, 3)
    forward = fast.forward_for(model)

    def loss(part):
        terms = forward(images[part], noise[part]).terms(images[part])
        return (terms.kl.sum(1) - terms.reconstruction).mean()

    return model, loss


@pytest.mark.parametrize("kind", [classification, drawing])
def test_gradients_are_those_of_the_whole_batch_also_with_a_clip_per_image(kind, monkeypatch):
    """An image's clip is relative to the mean loss of its process's images: 4, 3 and 3."""
    torch.manual_seed(0)
    model, loss_of = kind(torch.rand(10, 1, 12, 12))

    def gradient():
        first, count = distributed.share(10)
        model.zero_grad()
        loss = loss_of(slice(first, first + count))
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        means = distributed.mean_(gradients, torch.tensor([loss.item(), 7.0]), count / 10)
        return [gradient.clone() for gradient in gradients], means.tolist()

    alone, (loss, _) = gradient()
    for together, means in in_each(3, gradient, monkeypatch):
        assert means == pytest.approx([loss, 7.0], rel=1e-6)
        for ours, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(
                ours, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max())
            )


# ------------------------------------------------------------------------ who reports and who waits


def store(failed=None):
    """Return the used part of a key-value store."""
    values = {} if failed is None else {"failed": failed}
    return Mock(compare_set=lambda key, _, value: values.setdefault(key, value).encode())


def test_the_first_to_fail_reports_and_the_others_end_with_its_status(monkeypatch):
    shared = store()
    monkeypatch.setattr(distributed, "_group", Group(1, 2, store=shared))
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    distributed.report_failure(2)
    monkeypatch.setattr(distributed, "_group", Group(0, 2, store=shared))
    with pytest.raises(SystemExit) as left:
        distributed.report_failure(1)
    assert left.value.code == 2


def test_the_status_of_a_launch():
    assert distributed._status(store(), {}, None, 2) == 0
    assert distributed._status(store(), {0: 143, 1: 143}, signal.SIGTERM, 2) == 143
    assert distributed._status(store(), {0: -2, 1: -2}, signal.SIGINT, 2) == 130
    assert distributed._status(store("1 2"), {0: -15, 1: 2}, None, 2) == 2
    with pytest.raises(Problem, match=r"process 1 of 2 was ended by SIGKILL"):
        distributed._status(store(), {1: -9}, None, 2)


def test_what_the_first_does_for_all_it_does_on_its_own(monkeypatch):
    broadcast = Mock(side_effect=lambda value: broadcast.sizes.append(distributed.size()) or value)
    broadcast.sizes = []
    monkeypatch.setattr(distributed, "_group", Group(0, 2))
    monkeypatch.setattr(distributed, "broadcast", broadcast)
    inner = distributed.by_first(lambda: distributed.size())
    assert distributed.by_first(lambda: inner() + inner())() == 2
    assert broadcast.sizes == [1, 1, 2]  # calls inside broadcast nothing
    with pytest.raises(ZeroDivisionError):
        distributed.by_first(lambda: 1 / 0)()
    assert distributed.size() == 2


def test_a_signal_during_the_agreement_is_not_lost(monkeypatch):
    def agree(number):
        flag.number = signal.SIGTERM
        return number

    flag = training.StopFlag()
    monkeypatch.setattr(distributed, "signal_to_stop", agree)
    flag.check()
    assert flag.number == signal.SIGTERM


# ---------------------------------------------------------------------- the environment's variables

COMPLETE = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def set_variables(monkeypatch, **changes):
    for key, value in (COMPLETE | changes).items():
        monkeypatch.setenv(key, value) if value is not None else monkeypatch.delenv(key, False)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("WORLD_SIZE", ("", "two", "0")),
        ("RANK", (None, "", "2", "-1")),
        ("LOCAL_RANK", ("",)),
        ("MASTER_ADDR", (None, "")),
        ("MASTER_PORT", (None, "70000")),
    ],
)
def test_incomplete_variables_are_one_sentence(monkeypatch, name, values):
    for value in values:
        set_variables(monkeypatch, **{name: value})
        with pytest.raises(Problem, match=rf"WORLD_SIZE=.* {name} is .*unset WORLD_SIZE"):
            distributed.join()
        distributed.join(shared=False)
        assert distributed.size() == 1


@pytest.mark.parametrize("count", [None, "1"])
def test_one_process_or_none_joins_nothing(monkeypatch, count):
    set_variables(monkeypatch, WORLD_SIZE=count, RANK=None)
    distributed.join()
    assert distributed.size() == 1


def test_others_that_never_start_are_one_sentence(monkeypatch):
    set_variables(monkeypatch, RANK="1", MASTER_PORT="9")  # where nobody listens
    monkeypatch.setattr(distributed, "JOIN_TIMEOUT", timedelta(seconds=1))
    with pytest.raises(Problem, match=r"process 1 of 2 .*did not reach the others at 127.*:9"):
        distributed.join()
    assert distributed.size() == 1


@pytest.mark.processes
def test_variables_of_a_launcher_do_not_concern_a_command_that_shares_no_work(monkeypatch):
    set_variables(monkeypatch, RANK=None)
    done = subprocess.check_output([*commands.MAIN, "doctor", "--json"], text=True, timeout=120)
    assert json.loads(done)["versions"]["filelock"]


# ----------------------------------------------------------------------------------- real processes

# FAULT is what is wrong with the second process.
PROGRAM = """
import os, signal, time
if "RANK" in os.environ:
    from drawbench import training
    from drawbench.errors import Problem
if os.environ.get("RANK") == "1":
    fault, update = os.environ.get("FAULT"), training._update
    def faulty(task, optimizer, settings, step, rate):
        if fault == "slow":
            time.sleep(0.2)
        if fault == "problem" and step == 5:
            raise Problem("the second process is out of paper")
        if fault == "killed" and step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(task, optimizer, settings, step, rate)
    training._update = faulty
from drawbench.cli import main
main()
"""
SIZES = {"source": "digits", "glimpses": 2, "hidden": 8, "batch": 15, "threads": 1}
SIZES |= {"steps": 12, "evaluate_every": 4, "checkpoint_every": 3, "figures": False}
CLASSIFY = ["classify", *flags(**SIZES, canvas=28, clutter=1, patch=4)]
GENERATE = ["generate", *flags(**SIZES, latent=4, validation_images=21, iw_samples=2, iw_images=5)]
RUNS = Path("results/runs")
NORMED = """
from torch import nn
def network():
    layers = nn.Conv2d(1, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(512, 10))
"""


def inside(*words):
    """Run the command inside this process: one process, to compare with."""
    result = commands.succeeded(commands.drawbench(*words))
    torch.set_num_threads(1)  # a run of two processes, resumed by one, takes the threads of both
    return result.stdout


@contextmanager
def started(*words, fault=""):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "FAULT": fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=120)


def outside(*words, fault="", status=0):
    """Run the command in processes of its own; return what it prints."""
    with started(*words, fault=fault) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == status, err
    assert "Traceback" not in err
    return out, err


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("place"))
        path = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        yield


@pytest.fixture(scope="module")
def one(place):
    inside(*CLASSIFY, "--run=one")
    return RUNS / "one"


@pytest.fixture(scope="module")
def two(one):
    out, err = outside(*CLASSIFY, "--run=two", "--processes=2", "--json")
    assert len(out.splitlines()) == 1 and json.loads(out)["steps"] == 12
    assert len([line for line in err.splitlines() if line.startswith("update 12 ")]) == 1
    return RUNS / "two"


def same_to_rounding(left, right):
    """Check that two run folders hold the same training but for the last bits."""
    for name in (runs.BEST, runs.LAST):
        tensors, expected = (runs.load_checkpoint(folder / name)[0] for folder in (left, right))
        for key, value in expected.items():
            torch.testing.assert_close(tensors[key], value, rtol=1e-3, atol=1e-5)
    ours, theirs = (runs.Run.open(folder) for folder in (left, right))
    for column, values in theirs.metrics().drop(columns="seconds").items():
        assert ours.metrics()[column].tolist() == pytest.approx(values.tolist(), rel=1e-4), column
    assert ours.result()["value"] == pytest.approx(theirs.result()["value"], rel=1e-4)


def test_two_processes_train_a_classifier_as_one_does(one, two):
    same_to_rounding(two, one)
    assert runs.Run.open(two).config.training.processes == 2


@pytest.mark.processes
def test_two_processes_train_and_measure_a_generator_as_one_does(place):
    expected = json.loads(inside(*GENERATE, "--run=drawn", "--json"))
    result = json.loads(outside(*GENERATE, "--run=drawn-by-two", "--processes=2", "--json")[0])
    same_to_rounding(RUNS / "drawn-by-two", RUNS / "drawn")
    assert result["iw_bound"] == pytest.approx(expected["iw_bound"], rel=1e-5)
    assert result["test_sha256"] == expected["test_sha256"]


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(one):
    question = ["evaluate", str(one), "--clutter=0..2", "--batch=30", "--json"]
    assert json.loads(outside(*question, "--processes=2")[0]) == json.loads(inside(*question))


@pytest.mark.slow  # 17 seconds
def test_a_signal_stops_all_at_one_step_and_resume_is_bit_identical(two):
    run = RUNS / "stopped"
    with started(*CLASSIFY, "--run=stopped", "--processes=2", fault="slow") as process:
        until = time.monotonic() + 300
        while not (run / runs.LAST).exists():
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    last_line = err.strip().splitlines()[-1]
    assert last_line == f"Stopped; everything is saved. Resume with: drawbench resume {run}"
    assert 0 < runs.load_checkpoint(run / runs.LAST)[1]["step"] < 12
    outside("resume", str(run))
    commands.same_run(run, two)


@pytest.mark.slow
def test_running_statistics_are_those_of_the_first_and_resume_exactly(place):
    Path("normed.py").write_text(NORMED)
    sizes = {**SIZES, "glimpses": None, "hidden": None, "canvas": 28, "clutter": 1}
    words = ["classify", "--model=normed:network", *flags(**sizes), "--processes=2"]
    outside(*words, "--run=normed")
    run = RUNS / "normed-stopped"
    outside(*words, "--run=normed-stopped", fault="killed", status=1)
    assert 0 < runs.load_checkpoint(run / runs.LAST)[1]["step"] < 12
    outside("resume", str(run), "--trust=normed")
    commands.same_run(run, RUNS / "normed")


@pytest.mark.processes
def test_an_error_in_one_ends_all_with_its_message(place):
    out, err = outside(*CLASSIFY, "--run=faulty", "--processes=2", fault="problem", status=1)
    assert out == "" and err.count("Error") == 1
    assert err.strip().splitlines()[-1] == "Error: the second process is out of paper"


@pytest.mark.slow
def test_more_processes_than_images_are_refused_before_there_is_a_run(place):
    _, err = outside(*CLASSIFY, "--batch=1", "--run=none", "--processes=2", status=1)
    assert err.startswith("Error: an update of 1 image cannot be shared by 2 processes")
    assert not (RUNS / "none").exists()


@pytest.mark.slow
def test_a_killed_process_ends_all_and_any_number_of_processes_resumes(one, two):
    begin = time.monotonic()
    _, err = outside(*CLASSIFY, "--run=killed", "--processes=2", fault="killed", status=1)
    assert time.monotonic() - begin < 300
    assert "has lost the others" in err or "SIGKILL" in err
    shutil.copytree(RUNS / "killed", RUNS / "killed-too")
    inside("resume", str(RUNS / "killed"), "--processes=1")
    same_to_rounding(RUNS / "killed", one)
    outside("resume", str(RUNS / "killed-too"), "--processes=3")
    same_to_rounding(RUNS / "killed-too", one)


@pytest.mark.slow
def test_torchrun_starts_the_same_command_line(two):
    Path("main.py").write_text(PROGRAM)
    torchrun = f"{sys.executable} -m torch.distributed.run --nproc-per-node=2 -- main.py".split()
    command = [*torchrun, *CLASSIFY, "--run=torchrun", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 12
    commands.same_run(RUNS / "torchrun", two)
    command += ["--processes=2", "--force"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert refused.stderr.count("Error: torchrun sets the number of processes") == 1
