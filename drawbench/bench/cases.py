"""Speed and memory of the toolkit, measured so that they can be believed.

- Contenders take turns, A B A B ..., so that a machine that drifts drifts for all; what is compared is compared round by round.
- A step is held against its floor: the matrix products that it cannot do without, and nothing else, on the same machine, with the
  same threads, in the same rounds. :class:`Product` lists them; their count agrees with the plain model's (``tests/test_bench.py``).
- Peak memory is measured in a process of its own for each contender, for the peak of a process never falls.

A *training step* is the loss of a batch, its gradient, clipping and Adam; making the batch is a part of its own, *data*. An *evaluation*
is the loss without gradients. The weights are the initial ones and a picture is noise, one pixel in ten lit: speed does not depend on
either. To add a case, add it to :data:`CASES`.

Symbols: B images in a batch, S side of the square image, N side of a patch, T steps (glimpses), U units of an LSTM, Z latents in a step.
"""

import contextlib
import dataclasses
import difflib
import gc
import itertools
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawbench import attention, distributed, likelihood, models, streams
from drawbench import config as configs
from drawbench.data import sources
from drawbench.errors import Problem
from drawbench.experiments.classify import CLASSES, FreshScenes, scene_of
from drawbench.models.draw_fast import fast_drawing
from drawbench.models.glimpse_fast import fast_logits

Run = Callable[[], object]
Loss = Callable[[torch.dtype | None], Tensor]  # by the fast path with products of that dtype, or by the plain model for None
Key = TypeVar("Key", bound=Hashable)
CPU = torch.device("cpu")


class Contender(NamedTuple):
    """One way to do a piece of work."""

    implementation: str
    precision: str  #: of the matrix products


PLAIN = Contender("plain", "float32")
FAST = {name: Contender("fast", name) for name in ("float32", "bfloat16")}
FLOOR = {name: Contender("floor", name) for name in ("float32", "bfloat16")}
RENDER = Contender("render", "uint8")


# -------------------------------------------------------------------------------------------------------------- the floor


class Product(NamedTuple):
    """A matrix product of a model, ``left (rows, inner) @ right (inner, columns)`` for each image, ``times`` times in a step.

    A gradient by either factor is another product of the same size.
    """

    rows: int
    inner: int
    columns: int
    times: int
    into_left: bool = True  #: the left factor needs a gradient; an image does not
    into_right: bool = True
    weights: bool = False  #: the right factor is the same for all images and times, so its gradient is one product over all their rows
    exact: bool = False  #: float32 in any case: what chooses windows, and the generator's small windows, slower in bfloat16


def operations(products: Iterable[Product], batch: int, gradients: bool) -> int:
    """Floating point operations (two for a multiply-add) of products, with those of their gradients if wanted."""
    total = 0
    for product in products:
        passes = 1 + gradients * (product.into_left + product.into_right)
        total += 2 * batch * product.times * product.rows * product.inner * product.columns * passes
    return total


Call = tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]  # function, left, right, out


def floor(products: Iterable[Product], batch: int, precision: str, gradients: bool, device: torch.device = CPU) -> Run:
    """The matrix products of a step and nothing else; the result goes where there is room already.

    Args:
        products: of one image.
        batch: B.
        precision: ``"float32"`` or ``"bfloat16"``, of all that need not be exact.
        gradients: those for the gradients too.
    """
    calls: list[Call] = []
    for product in products:
        dtype = torch.float32 if product.exact else getattr(torch, precision)
        random = partial(_random, dtype, device)
        calls += (_with_weights if product.weights else _one_by_one)(product, batch, gradients, random)

    def run() -> None:
        for function, left, right, out in calls:
            function(left, right, out=out)

    return run


def _random(dtype: torch.dtype, device: torch.device, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=streams.stream(0, "bench")).to(device, dtype)


def _with_weights(product: Product, batch: int, gradients: bool, random: Callable[..., Tensor]) -> list[Call]:
    """A product with weights (columns, inner), the images below one another, and the gradient of the weights in one piece."""
    rows = batch * product.rows
    seen, into = random(product.times, rows, product.inner), random(product.times, rows, product.columns)
    weight = random(product.columns, product.inner)
    out, into_seen, into_weight = (torch.empty_like(like) for like in (into[0], seen[0], weight))
    calls: list[Call] = []
    for t in range(product.times):
        calls.append((torch.mm, seen[t], weight.t(), out))
        if gradients and product.into_left:
            calls.append((torch.mm, into[t], weight, into_seen))
    if gradients and product.into_right:
        calls.append((torch.mm, into.flatten(0, 1).t(), seen.flatten(0, 1), into_weight))
    return calls


def _one_by_one(product: Product, batch: int, gradients: bool, random: Callable[..., Tensor]) -> list[Call]:
    """A product whose factors are both each image's own."""
    rows, inner, columns = product[:3]
    left, right, into = (random(batch, *shape) for shape in ((rows, inner), (inner, columns), (rows, columns)))
    calls: list[Call] = [(torch.bmm, left, right, torch.empty_like(into))]
    if gradients and product.into_left:
        calls.append((torch.bmm, into, right.mT, torch.empty_like(left)))
    if gradients and product.into_right:
        calls.append((torch.bmm, left.mT, into, torch.empty_like(right)))
    return calls * product.times


# -------------------------------------------------------------------------------------------------------------- the cases


def _pictures(batch: int, side: int) -> Tensor:
    """Noise, one pixel in ten lit, bool (B, 1, S, S)."""
    return torch.rand(batch, 1, side, side, generator=streams.stream(0, "bench")) < 0.1


@dataclass(frozen=True)
class Classifier:
    """The glimpse classifier at some size; the defaults are the paper's."""

    works: ClassVar = ("training", "evaluation")
    canvas: int = 100
    glimpses: int = 8
    patch: int = 12
    hidden: int = 256
    batch: int = 128

    def build(self) -> nn.Module:
        settings = configs.ClassifierModel(glimpses=self.glimpses, patch=self.patch, hidden=self.hidden)
        with streams.seeded(0, "bench"):
            return models.build_classifier(settings, (self.canvas, self.canvas), CLASSES)

    def loss(self, device: torch.device = CPU) -> tuple[nn.Module, Loss]:
        """The network and its loss on one batch."""
        model: Any = self.build().to(device)
        pixels = (_pictures(self.batch, self.canvas) * torch.tensor(255, dtype=torch.uint8)).to(device)
        labels = torch.arange(self.batch, device=device) % CLASSES

        def loss(products: torch.dtype | None) -> Tensor:
            logits = model(pixels.float() / 255).logits if products is None else fast_logits(model, pixels, products=products)
            return F.cross_entropy(logits[:, -1], labels)

        return model, loss

    def products(self) -> list[Product]:
        """What an image cannot do without. The image itself needs no gradient."""
        side, patch, units, steps = self.canvas, self.patch, self.hidden, self.glimpses
        return [
            Product(1, units, len(attention.PARAMETERS), steps, weights=True, exact=True),  # the window
            Product(patch, side, side, steps, into_right=False),  # F_Y image
            Product(patch, side, patch, steps),  # ... F_X^T
            Product(1, patch**2 + units, 4 * units, steps, weights=True),  # the LSTM
            Product(steps, units, CLASSES, 1, weights=True, exact=True),  # the answers
        ]


@dataclass(frozen=True)
class Generator:
    """DRAW at some size; the defaults are the paper's for MNIST."""

    works: ClassVar = ("training", "evaluation")
    canvas: int = 28
    glimpses: int = 64
    attention: str = "both"
    read_patch: int = 2
    write_patch: int = 5
    hidden: int = 256
    latent: int = 100
    batch: int = 100

    def build(self) -> nn.Module:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in ("canvas", "batch")}
        with streams.seeded(0, "bench"):
            return models.build_generator(configs.GeneratorModel(**own), (1, self.canvas, self.canvas))

    def loss(self, device: torch.device = CPU) -> tuple[nn.Module, Loss]:
        """The network and its loss on one batch."""
        model: Any = self.build().to(device)
        images = _pictures(self.batch, self.canvas).float().to(device)
        noise = torch.randn(self.batch, self.glimpses, self.latent, generator=streams.stream(0, "bench")).to(device)

        def loss(products: torch.dtype | None) -> Tensor:
            made = model(images, noise) if products is None else fast_drawing(model, images, noise, products)
            return likelihood.terms(made.logits, images, made.mu, made.log_sigma).bound.mean()

        return model, loss

    def products(self) -> list[Product]:
        """What an image cannot do without. The image itself needs no gradient."""
        units, steps, latent, window = self.hidden, self.glimpses, self.latent, len(attention.PARAMETERS)
        reads, writes = (self.attention in ("both", side) for side in ("read", "write"))
        seen = 2 * self.read_patch**2 if reads else self.canvas**2
        with_weights = partial(Product, 1, times=steps, weights=True)
        products = [
            with_weights(seen + 2 * units, 4 * units),  # the encoder
            with_weights(units, 2 * latent),  # mu and log sigma
            with_weights(latent + units, 4 * units),  # the decoder
        ]
        if reads or writes:  # the numbers of the windows, and the patch to write
            products.append(with_weights(units, window * (reads + writes) + writes * self.write_patch**2, exact=True))
        return products + self._reading(reads) + self._writing(writes)

    def _reading(self, attentive: bool) -> list[Product]:
        side, patch, steps = self.canvas, self.read_patch, self.glimpses
        if not attentive:  # the image is the same at every step, and so is its part of the encoder's product
            return [Product(1, side**2, 4 * self.hidden, 1, into_left=False, weights=True)]
        return [
            Product(patch, side, side, steps, into_right=False, exact=True),  # F_Y image
            Product(patch, side, side, steps, exact=True),  # F_Y error
            Product(2 * patch, side, patch, steps, exact=True),  # both, F_X^T
        ]

    def _writing(self, attentive: bool) -> list[Product]:
        side, patch, steps = self.canvas, self.write_patch, self.glimpses
        if not attentive:
            return [Product(1, self.hidden, side**2, steps, weights=True)]
        return [
            Product(patch, patch, side, steps, exact=True),  # patch F_X
            Product(side, patch, side, steps, exact=True),  # F_Y^T ...
        ]


@dataclass(frozen=True)
class Data:
    """Fresh scenes from the embedded digits; they are made on the CPU, wherever the model is."""

    works: ClassVar = ("data",)
    canvas: int = 100
    digits: int = 1
    clutter: int = 8
    batch: int = 1000

    def render(self) -> Run:
        """A batch, other scenes at every call."""
        settings = configs.SceneData(canvas=self.canvas, digits=self.digits, clutter=self.clutter)
        fresh = FreshScenes(sources.load("digits", Path()).splits["train"], scene_of(settings), 0)
        made = 0

        def run() -> None:
            nonlocal made
            fresh.batch(made, self.batch)
            made += self.batch

        return run

    def products(self) -> list[Product]:
        return []


Case = Classifier | Generator | Data
CASES: dict[str, Case] = {  # the part of the toolkit, a dash, the size
    "classifier-paper": Classifier(),
    "classifier-small": Classifier(canvas=60, glimpses=4, batch=32),
    "generator-paper": Generator(),
    "generator-10": Generator(glimpses=10),
    "generator-no-attention": Generator(glimpses=20, attention="none"),
    "generator-small": Generator(glimpses=10, batch=20),
    "data-cluttered-100": Data(),
    "data-cluttered-60": Data(canvas=60, clutter=4),
    "data-mnist2": Data(canvas=60, digits=2, clutter=0),
}

GROWING = ("classifier-paper", "generator-10")  # whose growth is measured if nothing else is asked for


def select(names: Iterable[str], **changes: int | None) -> dict[str, Case]:
    """Cases by name or by part (``"generator"`` is all of that part); all if no name is given.

    Args:
        names: of cases and parts.
        changes: of their settings, such as ``batch=10``, where a case has that setting; None leaves it.

    Raises:
        Problem: a name is neither.
    """
    parts = list(dict.fromkeys(name.partition("-")[0] for name in CASES))
    names = list(names) or parts
    for name in names:
        if name not in CASES and name not in parts:
            close = difflib.get_close_matches(name, [*parts, *CASES], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise Problem(f"there is no part {name!r} to measure{hint}; there are {', '.join([*parts, *CASES])}")
    chosen = {key: case for key, case in CASES.items() if key in names or key.partition("-")[0] in names}
    return {key: changed(case, **changes) for key, case in chosen.items()}


def changed(case: Case, **changes: int | None) -> Case:
    """The case with other settings, where it has them; None leaves one as it is."""
    new: dict[str, Any] = {name: value for name, value in changes.items() if value is not None and hasattr(case, name)}
    return dataclasses.replace(case, **new)


def contenders(case: Case, work: str, device: torch.device = CPU) -> dict[Contender, Run]:
    """Every way there is to do a piece of work, ready to run, the floor apart."""
    if isinstance(case, Data):
        return {RENDER: case.render()}
    model, loss = case.loss(device)
    losses = {PLAIN: partial(loss, None), **{contender: partial(loss, getattr(torch, name)) for name, contender in FAST.items()}}
    if work == "evaluation":
        return {contender: torch.no_grad()(loss) for contender, loss in losses.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)  # at rate 0 every step does the same

    def step(loss: Callable[[], Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        if distributed.size() > 1:
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            distributed.mean_(gradients, torch.zeros(1), 1 / distributed.size())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return {contender: partial(step, loss) for contender, loss in losses.items()}


# --------------------------------------------------------------------------------------------------------- the measurement

WARMUP = 2  # rounds before those that count


def in_turn(
    runs: dict[Key, Run],
    rounds: int,
    warmup: int = WARMUP,
    synchronize: Callable[[], object] = lambda: None,
    tick: Callable[[], object] = lambda: None,
) -> dict[Key, list[float]]:
    """Time each contender once a round, A B C A B C ..., so that a machine that drifts drifts for all.

    Args:
        runs: the contenders by name.
        rounds: that count, at least 1.
        warmup: rounds before them that do not.
        synchronize: waits for what a device still has to do; called before each reading of the clock.
        tick: called after each round.

    Returns:
        Seconds of each counted round, by name.

    Raises:
        Problem: there is no round to count.
    """
    if rounds < 1:
        raise Problem(f"a measurement needs at least 1 round, got {rounds}; use --rounds 1 or more")
    seconds: dict[Key, list[float]] = {name: [] for name in runs}
    for number in range(warmup + rounds):
        for name, run in runs.items():
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
        tick()
    return seconds


def in_process(function: Callable[..., int], *arguments: Any) -> int:
    """What a function of this package gives in a fresh process.

    Raises:
        Problem: the process died, as the system lets it where memory runs out.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            return process.submit(function, *arguments).result()
    except BrokenProcessPool as error:
        raise Problem(
            "the process that measures memory was ended from outside, so there may be too little; use a smaller --batch"
        ) from error


def peak_memory(case: Case, work: str, contender: Contender, device: torch.device, threads: int) -> int:
    """Bytes by which a piece of work, done three times, raises the memory of this process above its model and inputs.

    On a CPU it is the resident set, on a GPU what torch has allocated there. A peak never falls, so call it through
    :func:`in_process`.
    """
    torch.set_num_threads(threads)
    run = contenders(case, work, device)[contender]
    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins again at what is held now
    on_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_gpu else _resident_peak()
    for _ in range(3):
        run()
    return (torch.cuda.max_memory_allocated(device) if on_gpu else _resident_peak()) - before


def _resident_peak() -> int:
    """Bytes, the largest resident set that this process has had."""
    with contextlib.suppress(OSError):
        # Not getrusage on Linux: there a process begins with the peak of the one that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Team:
    """Processes of this machine that do a piece of work together, each its share of the batch, as ``--processes`` does in training.

    Close it after use.

    Args:
        case: with the whole batch.
        size: how many processes; they share the threads that torch has here, at least one each.

    Raises:
        Problem: there is not one image for each.
    """

    def __init__(self, case: "Case", work: str, device: torch.device, size: int):
        if case.batch < size:
            raise Problem(f"a batch of {case.batch} cannot be shared by {size} processes; use a larger --batch")
        self._stack = contextlib.ExitStack()
        context, threads = multiprocessing.get_context("spawn"), max(1, torch.get_num_threads() // size)
        self._store = distributed.meeting_place()
        self._ends = []
        for number in range(size):
            mine, theirs = context.Pipe()
            share = changed(case, batch=case.batch // size + (number < case.batch % size))
            arguments = theirs, distributed.seat(self._store, number, size), share, work, device, threads
            process = context.Process(target=_member, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._stack.callback(process.join)
            self._ends.append(mine)
        self._stack.callback(self._tell, None)

    def run(self, contender: Contender) -> None:
        """Let all do the work once, and wait for the last.

        Raises:
            Problem: one of them has died.
        """
        self._tell(contender)
        try:
            for end in self._ends:
                end.recv()
        except (EOFError, OSError) as error:
            raise Problem("a process of the team was ended, so there may be too little memory; take fewer processes") from error

    def _tell(self, contender: Contender | None) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):  # one that has died is missed when its answer is
                end.send(contender)

    def close(self) -> None:
        """Send the processes home."""
        self._stack.close()


def _member(end: Connection, seat: dict[str, str], case: "Case", work: str, device: torch.device, threads: int) -> None:
    """A process of a :class:`Team`: works whenever it is told to, until told to stop."""
    os.environ.update(seat)
    torch.set_num_threads(threads)
    distributed.join()
    runs = contenders(case, work, device)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (contender := end.recv()) is not None:
            runs[contender]()
            end.send(True)
    distributed.leave()


class Plan(NamedTuple):
    """Something to measure."""

    name: str
    case: Case
    work: str  #: ``"training"``, ``"evaluation"`` or ``"data"``
    threads: int | None = None  #: of the CPU; as many as there are anyway if None
    processes: int | None = None  #: that share the work; this one alone if None


def plans(cases: dict[str, Case], works: Iterable[str] = ()) -> list[Plan]:
    """All that cases do, or those ``works`` of it."""
    return [Plan(name, case, work) for name, case in cases.items() for work in case.works if work in (tuple(works) or case.works)]


_UP_TO_ALL_CORES = tuple(sorted({2**power for power in range(8) if 2**power < (os.cpu_count() or 1)} | {os.cpu_count() or 1}))
# What cost may grow with, and the values that show how.
AXES: dict[str, tuple[int, ...]] = {
    "glimpses": (2, 4, 8, 16, 32, 64),
    "batch": (8, 16, 32, 64, 128, 256),
    "canvas": (30, 60, 120, 240),
    "threads": _UP_TO_ALL_CORES,
    "processes": _UP_TO_ALL_CORES,
}


def growth_plans(cases: dict[str, Case], works: Iterable[str], along: str, values: Iterable[int]) -> list[Plan]:
    """The same work at several values of one of :data:`AXES`, of the cases that have it."""
    values = tuple(values)
    if along == "threads":
        return [plan._replace(threads=value) for plan in plans(cases, works) for value in values]
    if along == "processes":
        return [plan._replace(processes=value) for plan in plans(cases, works) for value in values]
    able = {name: case for name, case in cases.items() if hasattr(case, along)}
    return [plan._replace(case=changed(plan.case, **{along: value})) for plan in plans(able, works) for value in values]


def measure(
    todo: list[Plan],
    *,
    rounds: int = 10,
    against_plain: bool = False,
    memory: bool = True,
    device: torch.device = CPU,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Measure what is planned. The same work at several sizes takes turns too, so that a curve is not the drift of the machine.

    Args:
        rounds: that count; two more come before them.
        against_plain: let the plain models take part.
        memory: measure peak memory too, in a new process for each row.
        device: where the models run.
        progress: called now and then with what is done and all there is to do.

    Returns:
        A row for each contender of each plan: ``case``, ``work``, ``implementation``, ``precision``, the case's settings, ``threads``;
        ``images_per_second``, ``slowest`` and ``fastest`` of the rounds; ``gflops``, the rate at which it gets through the
        operations of its floor (10^9 / s); but for the floors ``floor_percent``, the share of the floor in its time (median over
        the rounds), and ``peak_mb`` (:func:`peak_memory`, 10^6 bytes); and where the plain model took part ``times_plain`` with
        ``times_plain_low`` and ``times_plain_high``: median and range over the rounds of how many times faster it is.

    Raises:
        Problem: no rounds, or a size that there cannot be.
    """
    groups = [list(group) for _, group in itertools.groupby(todo, key=lambda plan: (plan.name, plan.work, plan.threads))]
    ticks, total = itertools.count(1), len(todo) + len(groups) * (WARMUP + rounds)

    def tick() -> None:
        progress(next(ticks), total)

    threads, rows = torch.get_num_threads(), []
    try:
        for group in groups:
            torch.set_num_threads(group[0].threads or threads)
            rows += _together(group, rounds, against_plain, memory, device, tick)
    finally:
        torch.set_num_threads(threads)
    return rows


def _together(
    group: list[Plan], rounds: int, against_plain: bool, memory: bool, device: torch.device, tick: Callable[[], object]
) -> list[dict[str, Any]]:
    """The rows of plans that take turns; arguments as :func:`measure`, but ``tick``, called after each plan's memory and each round."""
    runs: dict[tuple[int, Contender], Run] = {}
    peaks: list[dict[Contender, int]] = []
    with contextlib.ExitStack() as teams:
        for number, plan in enumerate(group):
            ready = _competitors(plan, against_plain, device, teams)
            runs |= {(number, contender): run for contender, run in ready.items()}
            measured = [contender for contender in ready if memory and not plan.processes and contender.implementation != "floor"]
            arguments = device, torch.get_num_threads()
            peaks.append({contender: in_process(peak_memory, plan.case, plan.work, contender, *arguments) for contender in measured})
            tick()
        seconds = in_turn(runs, rounds, synchronize=torch.cuda.synchronize if device.type == "cuda" else lambda: None, tick=tick)
    rows = []
    for number, plan in enumerate(group):
        rows += _rows(plan, {contender: taken for (n, contender), taken in seconds.items() if n == number}, peaks[number])
    return rows


def _competitors(plan: Plan, against_plain: bool, device: torch.device, teams: contextlib.ExitStack) -> dict[Contender, Run]:
    """The contenders of one plan, with the plain model or without, and the floors, which one process does; ``teams`` closes a team."""
    runs = contenders(plan.case, plan.work, device)
    if plan.processes:
        team = Team(plan.case, plan.work, device, plan.processes)
        teams.callback(team.close)
        runs = {contender: partial(team.run, contender) for contender in runs}
    if not against_plain:
        runs.pop(PLAIN, None)
    if products := plan.case.products():
        runs |= {who: floor(products, plan.case.batch, name, plan.work == "training", device) for name, who in FLOOR.items()}
    return runs


def _rows(plan: Plan, seconds: dict[Contender, list[float]], peaks: dict[Contender, int]) -> list[dict[str, Any]]:
    """The rows of :func:`measure` for one plan."""
    count = operations(plan.case.products(), plan.case.batch, plan.work == "training")
    rows = []
    for contender, taken in seconds.items():
        row = {"case": plan.name, "work": plan.work, **contender._asdict(), **dataclasses.asdict(plan.case)}
        row["threads"] = plan.threads or torch.get_num_threads()
        if plan.processes:
            row["processes"] = plan.processes
        rates = [plan.case.batch / second for second in taken]
        row |= {"images_per_second": _short(statistics.median(rates)), "slowest": _short(min(rates)), "fastest": _short(max(rates))}
        if count:
            row["gflops"] = _short(count / statistics.median(taken) / 1e9)
        if contender.implementation != "floor" and count:
            least = seconds[FLOOR[contender.precision]]
            row["floor_percent"] = _short(100 * statistics.median(_ratios(least, taken)))
        if contender in peaks:
            row["peak_mb"] = _short(peaks[contender] / 1e6)
        if PLAIN in seconds and contender != PLAIN:
            ratios = _ratios(seconds[PLAIN], taken)
            row |= {"times_plain": _short(statistics.median(ratios))}
            row |= {"times_plain_low": _short(min(ratios)), "times_plain_high": _short(max(ratios))}
        rows.append(row)
    return rows


def _ratios(above: list[float], below: list[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def _short(value: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{value:.4g}")
