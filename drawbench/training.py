"""The one training loop.

It trains any task (:class:`drawbench.tasks.task.Task`), of which it uses ``model``, ``batch``,
``loss``, ``validate``, ``views``, ``selected_by``, ``images_per_epoch``, ``about``, ``fingerprint``
and ``length_hint``.

Everything random is a function of (seed, name, sample number). So the state of a training is the
weights, Adam's moments, the moving average and a few numbers, and a resumed training is
bit-identical to one that never stopped (for one number of threads and of processes and one version
of torch).

Several processes (:mod:`drawbench.distributed`) share the images of each update. From the summed
gradient on they all do the same.
"""

import copy
import math
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from drawbench import config as configs
from drawbench import distributed, fast, streams
from drawbench.config import Training
from drawbench.errors import Problem, reason
from drawbench.fast import native
from drawbench.models import widening
from drawbench.reporters import Reporter
from drawbench.runs import Run

OBJECTIVE, NORM = "objective", "gradient_norm"  # among the metrics of an update
READ_EVERY = {"cpu": 1, "cuda": 20, "mps": 20}  # updates; reading a number of a GPU waits for it
DEFAULT_MINUTES = 30.0
VALIDATIONS = 40  # in a training of the usual length
COOLDOWN = 0.25  # of the updates at the peak rate: how many follow while the rate falls
SMOOTHED = 5  # validations whose mean is watched for a plateau

# ----------------------------------------------------------------------------------------- stopping


class Interrupted(Exception):
    """A signal asked to stop, and everything is saved."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopFlag:
    """Remembers a signal until a safe moment: a save inside a handler could hang or corrupt."""

    number: int | None = None

    def check(self) -> None:
        """Raise :class:`Interrupted` if this process or another of its group received a signal."""
        # The answer is not kept: a signal that arrives meanwhile is for the next check.
        number = distributed.signal_to_stop(self.number)
        if number is not None:
            raise Interrupted(number)


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Set a flag at SIGINT and SIGTERM; a second signal has its usual effect."""
    flag = StopFlag()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number, _frame):
        flag.number = number
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, remember)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------ schedule and length


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Return the rate of an update: linear warm-up, times a cosine from 1 to 0.

    Args:
        step: 0-based number of the update.
        total: updates of the whole training, of which at most a tenth are warm-up.
    """
    warmup = min(warmup, total // 10)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return peak * rise * 0.5 * (1 + math.cos(math.pi * step / total))


def falling_rate(step: int, fall: int, peak: float, warmup: int) -> float:
    """Return the rate of an update in a training until a plateau: linear warm-up, the peak rate,
    and a linear fall to zero over :data:`COOLDOWN` times as many updates.

    Args:
        step: 0-based number of the update.
        fall: the update from which the rate falls.
    """
    warmup = min(warmup, fall // 10)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return peak * rise * min(1.0, 1 - (step - fall) / (cooled(fall) - fall))


def cooled(fall: int) -> int:
    """Return the length of a training whose rate falls from an update on."""
    return fall + max(1, int(COOLDOWN * fall))


def plateau(rows: list[dict[str, Any]], metric: str, share: float, limit: int) -> int:
    """Return the update from which the rate falls.

    It is the first validation at which the best mean of :data:`SMOOTHED` validations in a row is
    older than ``share`` of the updates made; at the latest, the update that leaves room for the
    fall before ``limit``. The mean, because the lowest of many single values is a lucky one, which
    the next ones do not reach although the network improves. A function of the validations alone,
    so a resumed training decides the same.

    Args:
        rows: the validations so far, with ``step`` and the metric (less is better).
    """
    latest, best, best_step = max(1, int(limit / (1 + COOLDOWN))), math.inf, 0
    for count, row in enumerate(rows, start=1):
        recent = statistics.fmean(each[metric] for each in rows[max(0, count - SMOOTHED) : count])
        if recent < best:
            best, best_step = recent, row["step"]
        if row["step"] - best_step > share * row["step"]:
            return min(row["step"], latest)
    return latest


def plan(task: Any, config: Any, say: Callable[[str], object]) -> Any:
    """Return the configuration with its length in steps.

    ``steps`` is taken as it is, ``epochs`` converted, and ``time_budget`` (30 minutes if no length
    is given) measured. From then on only steps count, so that a resumed run goes exactly as far as
    an uninterrupted one.

    Raises:
        Problem: there are more processes than images in an update.
    """
    training: Training = config.training
    distributed.share(training.batch)  # fails before there is a run folder
    steps = training.steps
    if training.epochs is not None:
        steps = max(1, math.ceil(training.epochs * task.images_per_epoch / training.batch))
    if steps is None:
        minutes = training.time_budget or DEFAULT_MINUTES
        if training.time_budget is None:
            hint = f" {task.length_hint}" if task.length_hint else ""
            say(
                f"No length given: training for {DEFAULT_MINUTES:g} minutes. For another length "
                f"use --time-budget MINUTES, --epochs or --steps.{hint}"
            )
        steps = _steps_in(minutes, task, training)
    every = training.evaluate_every or max(1, steps // (VALIDATIONS if steps >= 4000 else 10))
    return configs.replace(config, steps=steps, epochs=None, time_budget=None, evaluate_every=every)


def _copied(task: Any, training: Training) -> tuple[Any, torch.optim.Adam]:
    """Return a task with a copy of the model, to try updates on, and its optimizer."""
    trial = copy.copy(task)
    trial.model = copy.deepcopy(task.model).train()
    return trial, _adam(trial.model, training)


def try_update(task: Any) -> None:
    """Make an update of a copy of the model, so that what cannot be trained fails at once."""
    _update(*_copied(task, task.config.training), task.config.training, 0, 0.0)


def _steps_in(minutes: float, task: Any, training: Training) -> int:
    """Return how many updates fit, measured on a copy of the model."""
    trial, optimizer = _copied(task, training)
    seconds: list[float] = []
    start = begin = time.perf_counter()
    while distributed.broadcast(
        len(seconds) < 8 or (begin - start < min(10.0, 3.0 * minutes) and len(seconds) < 200)
    ):
        _update(trial, optimizer, training, len(seconds), 0.0)[NORM].item()  # waits for a GPU
        before, begin = begin, time.perf_counter()
        seconds.append(begin - before)
    trial.validate(trial.model, lambda: None)
    end = time.perf_counter()
    usable = max(60 * minutes - VALIDATIONS * (end - begin) - (end - start), 15 * minutes)
    return distributed.broadcast(max(10, int(usable / statistics.median(seconds[3:]))))


def say_what_is_missing(
    training: Training, device: torch.device, say: Callable[[str], object]
) -> None:
    """Say what a CPU lacks: compiled kernels, or the arithmetic that is asked for."""
    why = native.why_no_kernels()
    if why and device.type == "cpu":
        say(f"Training is slower without compiled kernels: {why}.")
    if training.precision == "bfloat16" and not fast.multiplies_bfloat16(device):
        say("This CPU does not multiply bfloat16: products are in float32, which is faster here.")


# --------------------------------------------------------------------------------------------- loop


def _adam(model: nn.Module, training: Training) -> torch.optim.Adam:
    """Return Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019).

    Whatever has two dimensions or more decays: matrices, but also a start canvas and windows that
    are the same for every image. Biases and the start states of LSTMs do not.
    """
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) == decays], "weight_decay": decay}
        for decays, decay in ((True, training.weight_decay), (False, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def _update(
    task: Any, optimizer: torch.optim.Optimizer, training: Training, step: int, rate: float
) -> dict[str, Tensor]:
    """Make update number ``step``, without waiting for the device.

    Nothing changes if the loss or the gradient is not finite, which would make all weights NaN.

    Returns:
        The metrics, scalars: ``objective`` (the loss), those of the task, and ``gradient_norm``.

    Raises:
        Problem: the batch has less than an image for each process.
    """
    first, count = distributed.share(training.batch)
    # What a user's model draws in training, as dropout does, is a function of the update too.
    with streams.seeded(training.seed, "update", step, distributed.rank()):
        loss, facts = task.loss(task.batch(step * training.batch + first, count))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    parameters = list(task.model.parameters())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    metrics = torch.stack([loss.detach(), *facts.values()])
    means = distributed.mean_(gradients, metrics, count / training.batch)
    distributed.take_first_(list(task.model.buffers()))
    norm = torch.nn.utils.clip_grad_norm_(parameters, training.clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    # By this attribute a gradient scaler tells an optimizer to leave everything as it is.
    finite = torch.isfinite(means[0]) & torch.isfinite(norm)
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    values = torch.cat([means, norm[None]]).unbind()
    return dict(zip((OBJECTIVE, *facts, NORM), values, strict=True))


def _place(data: Any) -> str:
    """Return the folder that a data set is in, if its settings name one."""
    folder = getattr(data, "images", None) or getattr(data, "data", None)
    return f"the content of {folder}" if folder else "the data set"


def _load(weights: dict[str, Tensor], model: nn.Module, what: str) -> None:
    """Load weights; raise `Problem` if they do not fit the model."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise Problem(f"{what} not fit the model: {reason(error)}") from error


def check_start(weights: dict[str, Tensor], model: nn.Module) -> None:
    """Raise `Problem` unless weights can initialize a model (:meth:`Trainer.start_from`)."""
    _load(widening.widened(weights, model), copy.deepcopy(model), "the weights to start from do")


class Trainer:
    """A task in training: its model, Adam, the moving average, and the metrics so far."""

    def __init__(self, task: Any, run: Run, reporter: Reporter):
        self.task, self.run, self.reporter = task, run, reporter
        self.training: Training = run.config.training
        if self.training.steps is None:
            raise ValueError("the number of steps is not fixed yet: call plan() first")
        self.limit: int = self.training.steps
        self.evaluate_every: int = self.training.evaluate_every or self.limit
        self.optimizer = _adam(task.model, self.training)
        self.average = copy.deepcopy(task.model).requires_grad_(False)
        self.data: str = task.fingerprint
        self.step = 0
        self.saved_step: int | None = None
        self.best: float | None = None
        self.rows: list[dict[str, Any]] = []
        self.pending: list[dict[str, Tensor]] = []  # metrics that are still on the device
        self.read_every = READ_EVERY[next(task.model.parameters()).device.type]
        self.sums: dict[str, float] = {}  # of the metrics since the last row
        self.count = 0
        self.seconds = 0.0  # of training, validations included, over all its processes' lives
        self.began = 0.0  # when it would have begun, had it never stopped

    @property
    def fall(self) -> int:
        """The update from which the rate falls, in a training until a plateau, as far as known."""
        assert self.training.plateau is not None
        return plateau(self.rows, self.task.selected_by, self.training.plateau, self.limit)

    @property
    def total(self) -> int:
        """Updates of the whole training, as far as known."""
        return self.limit if self.training.plateau is None else min(self.limit, cooled(self.fall))

    # -- saving and restoring

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value for name, value in self.task.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for name, parameter in self.task.model.named_parameters():
            moments = self.optimizer.state[parameter]
            tensors |= {f"adam.{name}.{key}": value for key, value in moments.items()}
        return tensors

    def save(self) -> None:
        """Save the state, unless that of this step is saved already.

        Raises:
            Problem: a recent update was not finite, or the state cannot be written.
        """
        if self.step == self.saved_step:
            return
        self._read_metrics()
        keys = ("step", "best", "rows", "sums", "count", "seconds", "data")
        facts = {key: getattr(self, key) for key in keys}
        self.run.save_state(self._tensors(), {**facts, "config": configs.to_dict(self.run.config)})
        self.saved_step = self.step

    def restore(self) -> None:
        """Restore the last saved state, if there is one.

        Raises:
            Problem: it belongs to another configuration, data set or model; or the run is finished
                and has no state.
        """
        state = self.run.load_state(self.reporter.say)
        if state is None:
            return
        tensors, facts = state
        folder, data = self.run.folder, self.run.config.data
        if configs.from_dict(facts.get("config", {})) != self.run.config:
            raise Problem(
                f"the checkpoint in {folder} was made with another configuration than its "
                "config.json; restore that file, or start again with --force"
            )
        if facts.get("data", self.data) != self.data:  # old states do not have it
            raise Problem(
                f"{folder} was trained on another data set {data.dataset!r} than the one here "
                f"(fingerprint {facts['data']!s:.16}, here {self.data:.16}); "
                f"restore {_place(self.run.config.data)}, or start again with --force"
            )
        parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        what = f"the checkpoint in {folder} does"
        _load(parts["model"], self.task.model, what)
        _load(parts["average"], self.average, what)
        try:
            self._restore_facts(facts)
            if self.step:  # before the first update Adam has no moments
                self._restore_moments(parts["adam"])
        except (KeyError, TypeError, ValueError) as error:
            raise Problem(
                f"the checkpoint in {folder} is not a training state: {reason(error)}"
            ) from error
        self.saved_step = self.step
        if self.rows:
            self.run.write_metrics(self.rows)  # the file may be lost, or ahead of this state

    def _restore_facts(self, facts: dict[str, Any]) -> None:
        """Restore the numbers of a state; raise KeyError, TypeError or ValueError if it is none."""
        number = float | int
        kinds: dict[str, Any] = {"step": int, "best": number | None, "rows": list, "sums": dict}
        kinds |= {"count": int, "seconds": number}
        for key, kind in kinds.items():
            if not isinstance(facts[key], kind):
                raise TypeError(f"{key} is {type(facts[key]).__name__}")
        if not 0 <= facts["step"] <= self.limit:
            raise ValueError(f"step {facts['step']} of {self.limit}")
        rows = facts["rows"]
        if not all(isinstance(row, dict) and isinstance(row.get("step"), int) for row in rows):
            raise TypeError("rows must be tables with a step")
        if facts["best"] not in [None, *(row.get(self.task.selected_by) for row in rows)]:
            raise ValueError("best must be that of a row")
        numbers = [facts["seconds"], facts["count"], *facts["sums"].values()]
        if not all(isinstance(each, number) and abs(each) <= 1e300 for each in numbers):
            raise ValueError("sums must be numbers")
        for key in kinds:
            setattr(self, key, facts[key])

    def _restore_moments(self, moments: dict[str, Tensor]) -> None:
        """Restore Adam's moments; raise KeyError or ValueError if they do not fit the weights."""
        kinds = ("step", "exp_avg", "exp_avg_sq")
        for name, parameter in self.task.model.named_parameters():
            if not any(f"{name}.{key}" in moments for key in kinds):
                continue  # frozen or unused: Adam has no moments of what never had a gradient
            state = {key: moments[f"{name}.{key}"] for key in kinds}
            for key, value in state.items():
                counter = torch.Size(), torch.float32
                expected = counter if key == "step" else (parameter.shape, parameter.dtype)
                if (value.shape, value.dtype) != expected:
                    raise ValueError(f"{name}.{key} is {value.dtype} {tuple(value.shape)}")
            # The fused optimizer keeps the number of updates on the device, too.
            self.optimizer.state[parameter] = {k: m.to(parameter.device) for k, m in state.items()}

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Initialize from another run's weights, unless this training has begun.

        Those of a network with fewer LSTM units are widened, if the model says how
        (:mod:`drawbench.models.widening`).

        Raises:
            Problem: they do not fit the model.
        """
        weights = widening.widened(weights, self.task.model)
        for model in () if self.step else (self.task.model, self.average):
            _load(weights, model, "the weights to start from do")

    # -- training

    def fit(self, flag: StopFlag) -> None:
        """Train to the end.

        Raises:
            Interrupted: a signal came; the state is saved.
            Problem: the run is finished; or the loss is no longer finite, and the last good
                checkpoint is kept.
        """
        self.run.check_unfinished()
        start, first_step = time.perf_counter(), self.step
        self.began = start - self.seconds
        self.task.model.train()
        try:
            while True:
                if self._validation_due():
                    self._validate(flag.check)
                    self.save()
                flag.check()
                if self.step == self.total:
                    return
                self._train_step()
                if self.step % self.read_every == 0:
                    self._read_metrics()
                    now = time.perf_counter()
                    self.seconds = now - self.began
                    images = (self.step - first_step) * self.training.batch
                    name = next(iter(self.sums))
                    speed = images / (now - start)
                    facts = {name: self.sums[name] / self.count, "images/s": speed}
                    self.reporter.progress(self.step, self.total, facts)
                if self.step % self.training.checkpoint_every == 0:
                    self.save()
        except Interrupted:
            self.save()
            raise

    def _rate(self, step: int) -> float:
        peak, warmup = self.training.learning_rate, self.training.warmup
        if self.training.plateau is not None:
            return falling_rate(step, self.fall, peak, warmup)
        return learning_rate(step, self.total, peak, warmup)

    def _train_step(self) -> None:
        rate = self._rate(self.step)
        self.pending.append(_update(self.task, self.optimizer, self.training, self.step, rate))
        if self.read_every == 1:
            self._read_metrics()  # fails before anything else changes
        self.step += 1
        self._update_average()

    def _update_average(self) -> None:
        """Move the average towards the weights.

        The decay rises from 0.18 to ``ema_decay``, so that short trainings are averaged too.
        """
        decay = min(self.training.ema_decay, (1 + self.step) / (10 + self.step))
        model = self.task.model
        with torch.no_grad():
            pairs = list(self.average.parameters()), list(model.parameters())
            torch._foreach_lerp_(*pairs, 1 - decay)
            for mean, now in zip(self.average.buffers(), model.buffers(), strict=True):
                mean.copy_(now)

    def _read_metrics(self) -> None:
        """Add the pending metrics to the sums.

        Raises:
            Problem: a loss or its gradient was not finite. Updates may have followed, but none was
                saved.
        """
        if not self.pending:
            return
        pending, self.pending = self.pending, []
        table = torch.stack([torch.stack(list(row.values())) for row in pending]).tolist()
        for values in table:
            metrics = dict(zip(pending[0], values, strict=True))
            loss, norm = metrics.pop(OBJECTIVE), metrics[NORM]
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise Problem(
                    f"the loss or its gradient is no longer finite (loss {loss:g}, gradient norm "
                    f"{norm:g}); no weight was changed. Train again with a lower --learning-rate "
                    "or a smaller --clip"
                )
            for name, value in metrics.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.count += 1

    def _validation_due(self) -> bool:
        """Whether this step is to be validated and is not yet, as after a stop in a validation."""
        due = self.step == self.total or (self.step > 0 and self.step % self.evaluate_every == 0)
        return due and (not self.rows or self.rows[-1]["step"] != self.step)

    def _validate(self, check: Callable[[], None]) -> None:
        """Validate the average, write a row, keep the best weights."""
        self._read_metrics()
        validation = self.task.validate(self.average, check)
        self.seconds = time.perf_counter() - self.began
        row = {
            "step": self.step,
            "images_seen": self.step * self.training.batch,
            **{f"train_{name}": total / self.count for name, total in self.sums.items()},
            **validation,
            "learning_rate": self._rate(self.step - 1),
            "seconds": round(self.seconds, 3),
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
        if self.reporter.wants_views:
            self._show()

    def _show(self) -> None:
        """Show the average as it is now; what goes wrong with a picture costs no training."""
        try:
            self.reporter.views(self.step, self.task.views(self.average))
        except Exception as error:
            self.reporter.say(f"No pictures for the log: {type(error).__name__}, {reason(error)}.")
