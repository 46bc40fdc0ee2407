"""The one training loop, for every model.

What differs between a classifier and a generator is the :class:`Task`: what a batch is, what its
loss is, how it is validated. Everything random is a function of (seed, name, sample number), so the
state of a training is the weights, Adam's moments, the running average and a few numbers; with
them, going on is the same to the bit as never having stopped (for one number of threads and of
processes and one version of torch).

Several processes (:mod:`drawbench.distributed`) share the images of each update. From the summed
gradient on all of them do the same.
"""

import copy
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from drawbench import config as configs
from drawbench import distributed
from drawbench.config import Training
from drawbench.errors import Problem, reason
from drawbench.runs import Run


class Task(Protocol):
    """What is trained."""

    model: Any  #: an ``nn.Module``; each task says which, which Python's types cannot
    images_per_epoch: int
    selected_by: str  #: the validation number that picks the best weights; lower is better
    about: dict[
        str, Any
    ]  #: what a reader of the weights must know to build the model, beside the configuration

    def batch(self, first: int, count: int) -> Any:
        """The training samples number ``first .. first + count - 1``, a function of these numbers
        alone.
        """

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss to descend, and numbers to log (means over the batch, without gradient),
        the one to show first.

        Tensors, so that a GPU need not be waited for.
        """

    def validate(self, model: Any, check: Callable[[], None]) -> dict[str, float]:
        """Measure a model on the validation images; ``check`` is called between batches and may
        raise.
        """


class Reporter(Protocol):
    """Who is told how it goes. The command line prints; a notebook may pass :class:`Quiet`."""

    def say(self, text: str) -> None: ...
    def progress(self, step: int, total: int, facts: dict[str, float]) -> None: ...
    def row(self, row: dict[str, Any]) -> None: ...


class Quiet:
    """A reporter that says nothing."""

    def say(self, text: str) -> None:
        pass

    def progress(self, step: int, total: int, facts: dict[str, float]) -> None:
        pass

    def row(self, row: dict[str, Any]) -> None:
        pass


# ----------------------------------------------------------------------------------------- stopping


class Interrupted(Exception):
    """A signal asked to stop, and everything is saved."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopFlag:
    """Remembers a signal until the loop has a good moment for it: a save inside a handler could
    hang or corrupt.
    """

    def __init__(self):
        self.number: int | None = None

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal came, to this process or to one that works with
        it.
        """
        number = distributed.signal_to_stop(
            self.number
        )  # not kept here: a signal that comes meanwhile is for the next check
        if number is not None:
            raise Interrupted(number)


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that SIGINT and SIGTERM set; a second signal ends the process at once, as it would
    have without us.
    """
    flag = StopFlag()
    before: dict[int, Any] = {}

    def remember(number, _frame):
        flag.number = number
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, remember)
    try:
        yield flag
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


# ----------------------------------------------------------------------------------------- schedule


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Linear warm-up (at most a tenth of the training), times a cosine from 1 to 0.

    Args:
        step: 0-based number of the update.
        total: updates of the whole training.
    """
    warmup = min(warmup, total // 10)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return peak * rise * 0.5 * (1 + math.cos(math.pi * step / total))


DESCENDED, NORM = "descended", "gradient_norm"  # among the logged numbers of an update
LOOK_EVERY = {"cpu": 1, "cuda": 20}  # updates; to look at a number of a GPU is to wait for it
DEFAULT_MINUTES = 30.0
VALIDATIONS = 40  # in a training of the usual length


def plan(task: Task, config: Any, say: Callable[[str], None]) -> Any:
    """The configuration with its length as a number of steps.

    ``steps`` is taken as given, ``epochs`` is converted, ``time_budget`` (30 minutes where no
    length is given at all) is measured. From then on only steps count, so a resumed run goes
    exactly as far as the uninterrupted one.

    Raises:
        Problem: there are more processes than images in an update.
    """
    training: Training = config.training
    distributed.share(training.batch)  # what does not go is said before there is a run folder
    steps = training.steps
    if training.epochs is not None:
        steps = max(1, math.ceil(training.epochs * task.images_per_epoch / training.batch))
    if steps is None:
        minutes = training.time_budget or DEFAULT_MINUTES
        if training.time_budget is None:
            say(
                f"No length given: training for {DEFAULT_MINUTES:g} minutes. Ask for another with --time-budget MINUTES, --epochs or "
                "--steps; --recipe paper-8 and paper-4 have the lengths behind the published results."
            )
        steps = _steps_in(minutes, task, training)
    every = training.evaluate_every or max(1, steps // (VALIDATIONS if steps >= 4000 else 10))
    return configs.replace(config, steps=steps, epochs=None, time_budget=None, evaluate_every=every)


def _steps_in(minutes: float, task: Task, training: Training) -> int:
    """How many updates fit, measured on a copy of the model so that nothing of the training itself
    has happened.
    """
    trial = copy.copy(task)
    trial.model = copy.deepcopy(task.model)
    optimizer = _adam(trial.model, training)
    seconds: list[float] = []
    start = time.perf_counter()
    while distributed.broadcast(
        len(seconds) < 8
        or (time.perf_counter() - start < min(10.0, 3.0 * minutes) and len(seconds) < 200)
    ):
        begin = time.perf_counter()
        _update(trial, optimizer, training, len(seconds), 0.0)[NORM].item()  # which waits for it
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    trial.validate(trial.model, lambda: None)
    validating = VALIDATIONS * (time.perf_counter() - begin)
    measuring = time.perf_counter() - start
    usable = max(60 * minutes - validating - measuring, 0.25 * 60 * minutes)
    return distributed.broadcast(max(10, int(usable / statistics.median(seconds[3:]))))


# --------------------------------------------------------------------------------------------- loop


def _adam(model: nn.Module, training: Training) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015), with decoupled decay (Loshchilov & Hutter 2019) of matrices; biases
    and start states do not decay.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=training.learning_rate, fused=True
    )


def _update(
    task: Task, optimizer: torch.optim.Optimizer, training: Training, step: int, rate: float
) -> dict[str, Tensor]:
    """Update number ``step``; nothing changes if the loss or the gradient is not finite: that would
    turn every weight into NaN.

    The host never waits for the device here.

    Returns: The logged numbers, float64 scalars: ``loss``, which is descended, those of the task,
        and ``gradient_norm``.

    Raises:
        Problem: the batch has less than an image for each process.
    """
    first, count = distributed.share(training.batch)
    loss, facts = task.loss(task.batch(step * training.batch + first, count))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    gradients = [
        parameter.grad for parameter in task.model.parameters() if parameter.grad is not None
    ]
    means = distributed.mean_(
        gradients, torch.stack([loss.detach(), *facts.values()]), count / training.batch
    )
    norm = torch.nn.utils.clip_grad_norm_(task.model.parameters(), training.clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    # What a gradient scaler tells an optimizer: leave everything as it is.
    optimizer.found_inf = (~(torch.isfinite(means[0]) & torch.isfinite(norm))).float()  # type: ignore[attr-defined]
    optimizer.step()
    return dict(
        zip(
            (DESCENDED, *facts, NORM), torch.cat([means, norm[None]]).double().unbind(), strict=True
        )
    )


class Trainer:
    """A task on its way: weights, Adam, the running average, and what was measured so far."""

    def __init__(self, task: Task, run: Run, reporter: Reporter):
        self.task, self.run, self.reporter = task, run, reporter
        self.training: Training = run.config.training
        if self.training.steps is None:
            raise ValueError("the number of steps is not fixed yet: call plan() first")
        self.total: int = self.training.steps
        self.every: int = self.training.evaluate_every or self.total
        self.optimizer = _adam(task.model, self.training)
        self.average = copy.deepcopy(task.model).requires_grad_(False)
        self.step = 0
        self.saved_step: int | None = None
        self.best: float | None = None
        self.rows: list[dict[str, Any]] = []
        self.pending: list[dict[str, Tensor]] = []  # numbers of updates that nobody has looked at
        self.look_every = LOOK_EVERY[next(task.model.parameters()).device.type]
        self.sums: dict[str, float] = {}  # of the logged numbers since the last row
        self.count = 0
        self.seconds = 0.0

    # -- the state, out and in

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value for name, value in self.task.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for name, parameter in self.task.model.named_parameters():
            tensors |= {
                f"adam.{name}.{key}": value
                for key, value in self.optimizer.state[parameter].items()
            }
        return tensors

    def save(self) -> None:
        """Save the state, unless this very step is saved already.

        Raises:
            Problem: an update since the last look was not finite.
        """
        if self.step == self.saved_step:
            return
        self._look()
        facts = {
            key: getattr(self, key) for key in ("step", "best", "rows", "sums", "count", "seconds")
        }
        self.run.save_state(self._tensors(), {**facts, "config": configs.to_dict(self.run.config)})
        self.saved_step = self.step

    def restore(self) -> None:
        """Take up the last saved state, if there is one.

        Raises:
            Problem: it belongs to another configuration or model.
        """
        state = self.run.load_state(self.reporter.say)
        if state is None:
            return
        tensors, facts = state
        if configs.from_dict(facts.get("config", {})) != self.run.config:
            raise Problem(
                f"the checkpoint in {self.run.folder} was made with another configuration than its config.json"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "adam": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        try:
            self.task.model.load_state_dict(parts["model"])
            self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            raise Problem(
                f"the checkpoint in {self.run.folder} does not fit the model: {reason(error)}"
            ) from error
        try:
            self._take_facts(facts)
            if self.step:  # before the first update Adam has no moments
                self._take_moments(parts["adam"])
        except (KeyError, TypeError, ValueError) as error:
            raise Problem(
                f"the checkpoint in {self.run.folder} is not a state to go on from: {reason(error)}"
            ) from error
        self.saved_step = self.step
        if self.rows:
            self.run.write_metrics(self.rows)  # the file may be lost, or ahead of this state

    def _take_facts(self, facts: dict[str, Any]) -> None:
        """The plain part of a state.

        Raises:
            KeyError, TypeError, ValueError: it is not one.
        """
        kinds: dict[str, Any] = {
            "step": int,
            "best": float | int | None,
            "rows": list,
            "sums": dict,
            "count": int,
            "seconds": float | int,
        }
        for key, kind in kinds.items():
            if not isinstance(facts[key], kind):
                raise TypeError(f"{key} is {type(facts[key]).__name__}")
        if not 0 <= facts["step"] <= self.total:
            raise ValueError(f"step {facts['step']} of {self.total}")
        if not all(
            isinstance(row, dict) and isinstance(row.get("step"), int) for row in facts["rows"]
        ):
            raise TypeError("rows must be tables with a step")
        if facts["best"] not in [None, *(row.get(self.task.selected_by) for row in facts["rows"])]:
            raise ValueError("best must be that of a row")
        numbers = [facts["seconds"], facts["count"], *facts["sums"].values()]
        if not all(isinstance(number, float | int) and abs(number) <= 1e300 for number in numbers):
            raise ValueError("sums must be numbers")
        for key in kinds:
            setattr(self, key, facts[key])

    def _take_moments(self, moments: dict[str, Tensor]) -> None:
        """Adam's part of a state.

        Raises:
            KeyError, ValueError: a moment is missing, or does not fit its weights.
        """
        for name, parameter in self.task.model.named_parameters():
            state = {key: moments[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for key, value in state.items():
                shape = torch.Size() if key == "step" else parameter.shape
                if value.shape != shape or value.dtype != torch.float32:
                    raise ValueError(f"{name}.{key} is {value.dtype} {tuple(value.shape)}")
            self.optimizer.state[parameter] = {
                key: m if key == "step" else m.to(parameter.device) for key, m in state.items()
            }

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of another training as the first ones, unless this one has begun.

        Raises:
            Problem: they do not fit the model.
        """
        if self.step:
            return
        try:
            for model in (self.task.model, self.average):
                model.load_state_dict(weights)
        except RuntimeError as error:
            raise Problem(
                f"the weights to start from do not fit the model: {reason(error)}"
            ) from error

    # -- going on

    def _average(self) -> None:
        """Move the running average towards the weights; the decay rises from 0.1, so that short
        trainings are averaged too.
        """
        decay = (
            min(self.training.average, (1 + self.step) / (10 + self.step))
            if self.training.average
            else 0.0
        )
        with torch.no_grad():
            for kept, now in zip(
                self.average.parameters(), self.task.model.parameters(), strict=True
            ):
                kept.lerp_(now, 1 - decay)
            for copied, original in zip(
                self.average.buffers(), self.task.model.buffers(), strict=True
            ):
                copied.copy_(original)

    def _advance(self) -> None:
        rate = learning_rate(
            self.step, self.total, self.training.learning_rate, self.training.warmup
        )
        self.pending.append(_update(self.task, self.optimizer, self.training, self.step, rate))
        if self.look_every == 1:
            self._look()  # before anything else changes
        self.step += 1
        self._average()

    def _look(self) -> None:
        """Add what the last updates logged to the sums.

        Raises: Problem: a loss or its gradient was not finite. Later updates may have been made
            since, but none was saved.
        """
        if not self.pending:
            return
        names = list(self.pending[0])
        table = torch.stack(
            [torch.stack(list(numbers.values())) for numbers in self.pending]
        ).tolist()
        self.pending = []
        for row in table:
            numbers = dict(zip(names, row, strict=True))
            loss, norm = numbers.pop(DESCENDED), numbers[NORM]
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise Problem(
                    f"the loss or its gradient is no longer finite (loss {loss:g}, gradient norm {norm:g}); no weight was changed. "
                    "Train again with a lower --learning-rate or a smaller --clip"
                )
            for name, value in numbers.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.count += 1

    def _measure(self, check: Callable[[], None]) -> None:
        """Validate the average, write a row, keep the best."""
        self._look()
        validation = self.task.validate(self.average, check)
        means = {f"train_{name}": total / self.count for name, total in self.sums.items()}
        rate = learning_rate(
            self.step - 1, self.total, self.training.learning_rate, self.training.warmup
        )
        row = {
            "step": self.step,
            "images_seen": self.step * self.training.batch,
            **means,
            **validation,
            "learning_rate": rate,
        }
        self.rows.append(row)
        self.sums, self.count = {}, 0
        value = validation[self.task.selected_by]
        if self.best is None or value < self.best:
            self.best = value
            facts = {
                "step": self.step,
                "validation": validation,
                "config": configs.to_dict(self.run.config),
                **self.task.about,
            }
            self.run.save_best(self.average.state_dict(), facts)
        self.run.write_metrics(self.rows)
        self.saved_step = None  # the row belongs to the state of this step
        self.reporter.row(row)

    def _due(self) -> bool:
        """Whether this step is to be measured and is not yet, also when a stop came in the middle
        of measuring it.
        """
        at_mark = self.step == self.total or (self.step > 0 and self.step % self.every == 0)
        return at_mark and (not self.rows or self.rows[-1]["step"] != self.step)

    def fit(self, flag: StopFlag) -> None:
        """Train to the end.

        Raises:
            Interrupted: a signal came; the state is saved.
            Problem: the loss is no longer finite; the last good checkpoint is kept.
        """
        training = self.training
        begin, began_at, spent = time.perf_counter(), self.step, self.seconds
        self.task.model.train()
        try:
            while True:
                if self._due():
                    self._measure(flag.check)
                    self.save()
                flag.check()
                if self.step == self.total:
                    return
                self._advance()
                if self.step % self.look_every == 0:
                    self._look()
                    elapsed = time.perf_counter() - begin
                    self.seconds = spent + elapsed
                    speed = (self.step - began_at) * training.batch / elapsed
                    shown = next(iter(self.sums))
                    self.reporter.progress(
                        self.step,
                        self.total,
                        {shown: self.sums[shown] / self.count, "images/s": speed},
                    )
                if self.step % training.save_every == 0:
                    self.save()
        except Interrupted:
            self.save()
            raise
