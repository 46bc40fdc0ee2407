import copy
import math
import os
import signal
import statistics
import sys
from unittest.mock import Mock

import commands
import numpy as np
import pytest
import torch
from torch import nn

from drawbench import config, runs, streams, training
from drawbench.config import Classify
from drawbench.errors import Problem
from drawbench.reporters import Guarded, Quiet, Several, TensorBoard, Views
from drawbench.training import Interrupted, Trainer


class Line:
    """A small task: fit a line to points, which are a function of their number."""

    images_per_epoch = 40
    selected_by = "validation_error"
    length_hint = "--recipe line takes the published length."

    def __init__(self, seed=0, poison_at=None, fingerprint="0123456789abcdef"):
        with streams.seeded(seed, "weights"):
            self.model = nn.Linear(2, 1)
        self.about = {}
        self.poison_at = poison_at
        self.fingerprint = fingerprint

    def batch(self, first, count):
        index = torch.arange(first, first + count)
        points = streams.integers(index, [1000, 1000], 0, "points") / 1000
        return points * math.inf if first == self.poison_at else points

    def errors(self, model, points):
        return model(points).squeeze(-1) - points @ torch.tensor([2.0, -1.0])

    def loss(self, points):
        loss = self.errors(self.model, points).square().mean()
        return loss, {"loss": loss.detach()}

    def validate(self, model, check):
        check()
        errors = self.errors(model, self.batch(10**6, 50))
        return {"validation_error": float(errors.detach().abs().mean())}

    def views(self, model):
        grey = np.full((4, 6, 3), 99, np.uint8)
        return Views({"grey": grey}, {"weights": model.weight.detach().numpy().ravel()})


def new_run(folder, **changes):
    usual = dict(steps=30, batch=8, learning_rate=0.2, warmup=5)
    usual |= dict(evaluate_every=10, checkpoint_every=4)
    return runs.Run.create(folder, config.replace(Classify(), **{**usual, **changes}))


def train(run, flag=None, task=None):
    trainer = Trainer(task or Line(), run, Quiet())
    trainer.restore()
    trainer.fit(flag or training.StopFlag())
    return trainer


def content(run):
    """Return all that must be the same; tensors by name, type and bytes."""
    checkpoints = [runs.load_checkpoint(run.folder / runs.LAST), run.load_best()]
    for tensors, _ in checkpoints:
        for name, tensor in tensors.items():
            tensors[name] = tensor.dtype, tensor.tolist()
    same = [(tensors, commands.timeless(facts)) for tensors, facts in checkpoints]
    return same, commands.metrics(run.folder)


class StopAfter(training.StopFlag):
    """A signal before the n-th check, between steps or in the middle of a validation."""

    def __init__(self, checks):
        super().__init__()
        self.left = checks

    def check(self):
        self.left -= 1
        if self.left < 0:
            self.number = signal.SIGTERM
        super().check()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = new_run(tmp_path_factory.mktemp("whole") / "run")
    train(run)
    return content(run)


@pytest.mark.parametrize("checks", range(0, 36))
def test_a_run_stopped_anywhere_and_resumed_is_bit_identical(tmp_path, uninterrupted, checks):
    run = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(run, StopAfter(checks))
        raise Interrupted(signal.SIGTERM)  # it was over before the stop came
    train(runs.Run.open(run.folder))
    assert content(run) == uninterrupted


@pytest.mark.parametrize("lost", [1, 3, 11, 17, 29])
def test_a_run_resumed_from_an_older_checkpoint_is_bit_identical(tmp_path, uninterrupted, lost):
    """As after a SIGKILL: all since the last save, metrics rows included, is computed again."""
    run = new_run(tmp_path / "run")
    trainer = Trainer(Line(), run, Quiet())
    with pytest.raises(ZeroDivisionError):
        trainer.reporter.progress = lambda step, total, facts: 1 / (step != lost)
        trainer.fit(training.StopFlag())
    train(runs.Run.open(run.folder))
    assert content(run) == uninterrupted


class Tied(Line):
    """A task whose model has a frozen weight, an unused one, one in float64, and two names for
    one weight."""

    def __init__(self):
        super().__init__()
        self.model.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.model.unused = nn.Parameter(torch.ones(3))
        self.model.wide = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.model.again = self.model.weight

    def errors(self, model, points):
        points = torch.dropout(points, 0.1, train=model is self.model)  # seeded at every update
        return super().errors(model, points) * model.wide.float()


@pytest.mark.parametrize("checks", [5, 17])
def test_frozen_unused_and_tied_weights_are_resumed_too(tmp_path, checks):
    whole = new_run(tmp_path / "whole")
    train(whole, task=Tied())
    run = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(run, StopAfter(checks), Tied())
    trainer = train(run, task=Tied())
    assert content(run) == content(whole)
    model = trainer.task.model
    assert model.again is model.weight and torch.equal(model.unused, torch.ones(3))


def test_training_learns_and_keeps_the_best(uninterrupted):
    ((_, facts), (_, best)), _ = uninterrupted
    errors = [row["validation_error"] for row in facts["rows"]]
    assert errors[-1] < 0.5 * errors[0]
    assert facts["best"] == min(errors) == best["validation"]["validation_error"]
    assert [(row["step"], row["images_seen"]) for row in facts["rows"]] == [
        *((10, 80), (20, 160), (30, 240))
    ]


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_the_loop_equals_adam_with_clipping_and_averaging_in_plain_arithmetic(
    tmp_path, weight_decay
):
    """Kingma & Ba 2015, algorithm 1; clipping by the global norm; a moving average."""
    run = new_run(tmp_path / "run", clip=0.5, ema_decay=0.7, weight_decay=weight_decay)
    trainer = train(run)
    task = Line()
    weights = [p.detach().clone().double() for p in task.model.parameters()]
    average = [w.clone() for w in weights]
    moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
    for step in range(30):
        with torch.no_grad():
            for parameter, weight in zip(task.model.parameters(), weights, strict=True):
                parameter.copy_(weight)
        loss, _ = task.loss(task.batch(step * 8, 8))
        gradients = [g.double() for g in torch.autograd.grad(loss, list(task.model.parameters()))]
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        rise = min(1, (step + 1) / 3)  # warm-up: at most a tenth of 30 steps
        rate = 0.2 * rise * (1 + math.cos(math.pi * step / 30)) / 2
        for i, gradient in enumerate(gradients):
            gradient = gradient * min(1, 0.5 / (norm + 1e-6))
            m, v = moments[i]
            m.mul_(0.9).add_(gradient, alpha=0.1)
            v.mul_(0.999).add_(gradient.square(), alpha=0.001)
            if weights[i].ndim > 1:
                weights[i] *= 1 - rate * weight_decay
            mean, variance = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            weights[i] -= rate * mean / (variance.sqrt() + 1e-8)
            decay = min(0.7, (2 + step) / (11 + step))
            average[i] = decay * average[i] + (1 - decay) * weights[i]
    for ours, theirs in zip(trainer.average.parameters(), average, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path):
    run = new_run(tmp_path / "run")
    task = Line(poison_at=11 * 8)
    before = {}
    trainer = Trainer(task, run, Quiet())
    trainer.reporter.progress = lambda step, total, facts: before.update(
        copy.deepcopy(task.model.state_dict())
    )
    with pytest.raises(Problem, match=r"no longer finite .*no weight was changed"):
        trainer.fit(training.StopFlag())
    assert trainer.step == 11
    assert all(torch.equal(before[name], value) for name, value in task.model.state_dict().items())
    assert runs.load_checkpoint(run.folder / runs.LAST)[1]["step"] == 10


def test_metrics_read_several_at_a_time_are_the_same(tmp_path, monkeypatch):
    """As on a GPU, which is not waited for at every update; nothing that is not finite is saved."""
    truth, run = train(new_run(tmp_path / "each")), new_run(tmp_path / "together")
    monkeypatch.setitem(training.READ_EVERY, "cpu", 4)
    together = train(run)
    first, second = (commands.timeless({"rows": each.rows}) for each in (together, truth))
    assert first == second
    run = new_run(tmp_path / "poisoned")
    task = Line(poison_at=11 * 8)
    with pytest.raises(Problem, match=r"no longer finite"):
        Trainer(task, run, Quiet()).fit(training.StopFlag())
    assert all(torch.isfinite(value).all() for value in task.model.state_dict().values())
    assert runs.load_checkpoint(run.folder / runs.LAST)[1]["step"] == 10


def test_a_checkpoint_of_another_configuration_or_model_is_refused(tmp_path):
    run = train(new_run(tmp_path / "run")).run
    other = Line()
    other.model = nn.Linear(3, 1)
    with pytest.raises(Problem, match="does not fit the model"):
        Trainer(other, run, Quiet()).restore()
    with pytest.raises(Problem, match="weights to start from do not fit the model"):
        Trainer(other, run, Quiet()).start_from(run.load_best()[0])
    run.save_config(config.replace(run.config, learning_rate=0.01))
    with pytest.raises(Problem, match="another configuration"):
        train(runs.Run.open(run.folder))


def test_data_that_changed_are_refused_on_resume(tmp_path):
    run = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(run, StopAfter(15))
    with pytest.raises(Problem, match=r"another data set 'cluttered' .*0123456.*here fedcba"):
        train(runs.Run.open(run.folder), task=Line(fingerprint="fedcba9876543210"))
    tensors, facts = runs.load_checkpoint(run.folder / runs.LAST)
    assert facts.pop("data") == "0123456789abcdef"
    runs.save_checkpoint(run.folder / runs.LAST, tensors, facts)  # as earlier versions wrote it
    train(runs.Run.open(run.folder), task=Line(fingerprint="fedcba9876543210"))


# ------------------------------------------------------------------------------------ finished runs


@pytest.mark.parametrize("copied", [None, {}, {"half": True}, {"weights": False}])
def test_a_finished_run_and_its_copies_are_never_trained_again(tmp_path, copied):
    run = train(new_run(tmp_path / "run")).run
    run.write_result({"value": 1})
    if copied is not None:
        run = run.copy_to(tmp_path / "copy", **copied)
    before = {path: path.read_bytes() for path in run.folder.rglob("*.*")}
    with pytest.raises(Problem, match=r"is finished: it is never trained again"):
        train(runs.Run.open(run.folder))
    with pytest.raises(Problem, match=r"is finished: it is never trained again"):
        Trainer(Line(), run, Quiet()).fit(training.StopFlag())
    assert before == {path: path.read_bytes() for path in run.folder.rglob("*.*")}


# ---------------------------------------------------------------------------------------- reporters


def test_several_reporters_all_receive_everything(tmp_path):
    first, second = Mock(spec=Quiet), Mock(spec=Quiet)
    reporter = Several(first, Several(), second)
    trainer = Trainer(Line(), new_run(tmp_path / "run"), reporter)
    reporter.say("starting")
    trainer.fit(training.StopFlag())
    reporter.close()
    assert first.method_calls == second.method_calls
    first.say.assert_called_once_with("starting")
    first.close.assert_called_once_with()
    assert [call.args[0] for call in first.row.call_args_list] == trainer.rows
    assert first.progress.call_count == 30


def test_tensorboard_shows_the_rows_of_a_resumed_run_once(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = new_run(tmp_path / "run")
    trainer = Trainer(Line(), run, board := TensorBoard(run.subfolder("tensorboard")))
    with pytest.raises(Interrupted):
        trainer.fit(StopAfter(15))
    board.row({"step": 20, "validation_error": 9.0})  # of a process that was killed before a save
    board.row({"step": 30, "validation_error": 9.0})
    board.close()
    trainer = Trainer(Line(), run, board := TensorBoard(run.subfolder("tensorboard")))
    trainer.restore()
    trainer.fit(training.StopFlag())
    board.close()
    events = accumulator.EventAccumulator(str(run.folder / "tensorboard")).Reload()
    for name in ("validation_error", "train_loss", "learning_rate"):
        points = events.Scalars(name)
        assert [point.step for point in points] == [10, 20, 30]
        expected = [row[name] for row in trainer.rows]
        assert [point.value for point in points] == pytest.approx(expected, rel=1e-5)
    assert [(image.step, image.width, image.height) for image in events.Images("grey")] == [
        *((10, 6, 4), (20, 6, 4), (30, 6, 4))
    ]
    last = events.Histograms("weights")[-1]
    weights = trainer.average.weight.detach()
    assert (last.step, last.histogram_value.num) == (30, 2)
    assert last.histogram_value.max == pytest.approx(float(weights.max()))


def test_a_tracker_that_fails_costs_no_training(tmp_path):
    messages, rows = [], []

    class Tracker(Quiet):
        wants_views = True

        def row(self, row):
            rows.append(row["step"])
            if len(rows) == 2:
                raise ConnectionError("the server does not answer")

    screen = Mock(spec=Quiet, wants_views=False)
    screen.say = messages.append
    tracker = Guarded("mine:Tracker", Tracker(), messages.append)
    run = new_run(tmp_path / "run")
    trainer = Trainer(Line(), run, Several(screen, tracker))
    trainer.fit(training.StopFlag())
    assert rows == [10, 20] and trainer.step == 30 and screen.row.call_count == 3
    (message,) = messages
    assert "mine:Tracker failed (ConnectionError: the server does not answer)" in message


def test_pictures_that_cannot_be_drawn_cost_no_training(tmp_path):
    task, messages = Line(), []
    task.views = lambda model: 1 / 0
    reporter = Quiet()
    reporter.wants_views, reporter.say = True, messages.append
    trainer = Trainer(task, new_run(tmp_path / "run"), reporter)
    trainer.fit(training.StopFlag())
    assert trainer.step == 30 and len(messages) == 3 and "ZeroDivisionError" in messages[0]


def test_seconds_grow_and_go_on_after_a_stop(tmp_path, monkeypatch):
    clock = iter(range(10**6))  # every look at it takes a second
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    run = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(run, StopAfter(15))
    stopped = runs.load_checkpoint(run.folder / runs.LAST)[1]["seconds"]
    assert stopped > 0
    clock = iter(range(10**6, 10**7))  # in another process, with another clock
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    trainer = train(runs.Run.open(run.folder))
    seconds = list(run.metrics()["seconds"])
    assert seconds == sorted(seconds) and seconds[0] < stopped < seconds[-1] < stopped + 100
    assert trainer.rows[-1]["seconds"] == seconds[-1]


def test_a_state_of_a_version_without_seconds_is_resumed(tmp_path):
    run = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(run, StopAfter(20))
    tensors, facts = runs.load_checkpoint(run.folder / runs.LAST)
    facts["rows"] = [{k: v for k, v in row.items() if k != "seconds"} for row in facts["rows"]]
    assert facts["rows"]
    runs.save_checkpoint(run.folder / runs.LAST, tensors, facts)
    train(runs.Run.open(run.folder))
    seconds = run.metrics()["seconds"]
    assert seconds.isna().tolist() == [True, False, False]


def test_tensorboard_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(Problem, match=r"pip install 'drawbench\[tensorboard\]'"):
        TensorBoard(tmp_path)


# ------------------------------------------------------------------------------ schedule and length


def test_the_rate_rises_then_falls_to_zero():
    rates = [training.learning_rate(step, 1000, 0.1, 50) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1 / 50)
    assert rates[49] == pytest.approx(0.1, rel=0.01)
    assert max(rates) <= 0.1
    assert rates[500] == pytest.approx(0.05)
    assert 0 < rates[-1] < 1e-5
    assert training.learning_rate(0, 5, 0.1, 50) == 0.1  # five steps have no time to warm up


def test_the_rate_stays_until_the_plateau_then_falls_to_zero():
    rates = [training.falling_rate(step, 800, 0.1, 50) for step in range(training.cooled(800))]
    assert len(rates) == 1000
    assert rates[0] == pytest.approx(0.1 / 50)
    assert set(rates[49:801]) == {0.1}
    assert rates[900] == pytest.approx(0.05)
    assert 0 < rates[-1] < 0.1 / 150


ROWS = {  # validation errors at updates 10, 20, ...; where the rate falls with a limit of 1,000
    "improves to the end": (list(range(70, 0, -1)), 800),
    "stale after 90, at 130": ([9, 8, 7, 6, 5, 4, 3, 2] + [5] * 8, 130),
    "late gains count": ([5, 4, 3, 3, 2, 3, 1, 3, 3], 800),
    "equal is no gain": ([5] + [2] * 9, 90),
    "one lucky value": ([30 - n for n in range(8)] + [9] + [21 - n / 2 for n in range(12)], 800),
    "the same, but no gain": ([30 - n for n in range(8)] + [9] + [20] * 12, 190),
    "stale after the fall began": ([1 / n for n in range(1, 82)] + [1] * 40, 800),
}


@pytest.mark.parametrize(("errors", "fall"), ROWS.values(), ids=ROWS)
def test_the_plateau_is_where_the_best_is_old(errors, fall):
    rows = [{"step": 10 * n, "error": error} for n, error in enumerate(errors, start=1)]
    assert training.plateau(rows, "error", 0.3, 1000) == fall


class NoisyLine(Line):
    """The same, with noise on the training targets: the weights settle only as the rate falls."""

    def loss(self, points):
        noise = torch.frac(977 * points.sum(dim=1)) - 0.5
        loss = (self.errors(self.model, points) + noise).square().mean()
        return loss, {"loss": loss.detach()}


def test_a_training_ends_after_its_plateau_wherever_it_is_stopped(tmp_path):
    settings = dict(steps=600, evaluate_every=5, plateau=0.5, learning_rate=0.1)
    settings |= dict(ema_decay=0.0)
    whole = train(new_run(tmp_path / "whole", **settings), task=NoisyLine())
    assert whole.step == training.cooled(whole.fall) < 600
    errors = [row["validation_error"] for row in whole.rows]
    before = [row["step"] for row in whole.rows].index(whole.fall) + 1
    assert statistics.fmean(errors[-5:]) < statistics.fmean(errors[before - 5 : before])
    for checks in (7, whole.fall - 1, whole.fall, whole.fall + 1, whole.step - 1):
        run = new_run(tmp_path / str(checks), **settings)
        with pytest.raises(Interrupted):
            train(run, StopAfter(checks), NoisyLine())
        train(runs.Run.open(run.folder), task=NoisyLine())
        assert content(run) == content(whole.run)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_length_is_the_upper_limit_of_a_plateau(tmp_path, steps):
    run = new_run(tmp_path / "run", steps=steps, plateau=0.3, evaluate_every=1)
    assert train(run).step <= steps
    assert runs.load_checkpoint(run.folder / runs.LAST)[1]["step"] <= steps


def plan(**changes):
    messages = []
    usual = dict(steps=None, batch=8, evaluate_every=None)
    settings = config.replace(Classify(), **{**usual, **changes})
    return training.plan(Line(), settings, messages.append).training, messages


@pytest.mark.parametrize(
    ("length", "steps", "every"),
    [
        ({"steps": 7}, 7, 1),
        ({"steps": 400}, 400, 40),
        ({"steps": 4000}, 4000, 100),
        ({"epochs": 2}, 10, 1),
        ({"epochs": 0.01}, 1, 1),
    ],
)
def test_a_length_becomes_steps(length, steps, every):
    planned, messages = plan(**length)
    assert (planned.steps, planned.epochs, planned.evaluate_every) == (steps, None, every)
    assert not messages


def test_without_a_length_it_says_that_it_takes_half_an_hour(monkeypatch):
    monkeypatch.setattr(training, "_steps_in", lambda minutes, task, settings: int(minutes))
    planned, messages = plan()
    assert planned.steps == 30
    for words in ("30 minutes", "--time-budget", "--recipe line takes the published length."):
        assert words in messages[0]


def test_a_time_budget_becomes_steps_and_leaves_the_task_as_it_was():
    task = Line()
    before = copy.deepcopy(task.model.state_dict())
    config_of = config.replace(Classify(), time_budget=0.02, batch=8)
    planned = training.plan(task, config_of, pytest.fail).training
    assert planned.steps >= 10 and planned.time_budget is None  # only steps count from here on
    assert all(torch.equal(before[name], value) for name, value in task.model.state_dict().items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_and_the_old_handlers_return(number):
    before = signal.getsignal(number)
    with training.stop_flag() as flag:
        flag.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as stop:
            flag.check()
    assert stop.value.number == number
    assert signal.getsignal(number) == before


def test_a_training_can_be_initialized_from_another_runs_weights(tmp_path):
    first = train(new_run(tmp_path / "first"))
    weights, _ = first.run.load_best()
    trainer = Trainer(Line(seed=3), new_run(tmp_path / "second"), Quiet())
    trainer.start_from(weights)
    for model in (trainer.task.model, trainer.average):
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    trainer.fit(training.StopFlag())
    finished = [value.clone() for value in trainer.task.model.parameters()]
    trainer.start_from(weights)  # as a resume does: a training that has begun is left alone
    assert all(map(torch.equal, finished, trainer.task.model.parameters()))
    assert trainer.best < first.best
