"""The measurement: contenders in turn, and a row for each of them."""

import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Collection, Hashable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch

from drawbench import fast
from drawbench.bench.cases import (
    AUTOCAST,
    COMPILED,
    FLOOR,
    PLAIN,
    PROCESSES,
    Case,
    Contender,
    contenders,
)
from drawbench.bench.floor import CPU, Run, floor, operations
from drawbench.bench.memory import in_process, peak_memory
from drawbench.bench.processes import side_by_side
from drawbench.errors import Problem
from drawbench.fast import native

Key = TypeVar("Key", bound=Hashable)
WARMUP = 2  # rounds before those that count
#: What the fast path can be compared with, and the name of its implementation.
OPPONENTS = {"eager": "plain", "compile": "compiled", "processes": "processes"}


class Plan(NamedTuple):
    """A piece of work to measure."""

    name: str
    case: Case
    work: str  #: ``"training"``, ``"evaluation"`` or ``"data"``


def plans(cases: dict[str, Case], works: Iterable[str] = ()) -> list[Plan]:
    """List all the work of the cases, or only that in ``works``."""
    works = tuple(works)
    return [
        Plan(name, case, work)
        for name, case in cases.items()
        for work in case.works
        if not works or work in works
    ]


def in_turn(
    runs: dict[Key, Run],
    rounds: int,
    warmup: int = WARMUP,
    synchronize: Callable[[], object] = lambda: None,
    tick: Callable[[], object] = lambda: None,
) -> dict[Key, list[float]]:
    """Time every contender once a round, A B C A B C ..., and return the seconds of each round.

    Args:
        runs: the contenders by name.
        rounds: rounds that count, at least 1.
        warmup: rounds before them.
        synchronize: waits for the device; called before each reading of the clock.
        tick: called after each round.

    Raises:
        Problem: no round counts.
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


def measure(
    todo: list[Plan],
    *,
    rounds: int = 10,
    against: Collection[str] = (),
    memory: bool = True,
    device: torch.device = CPU,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Measure pieces of work and return a row for each contender of each.

    A row has ``case``, ``work``, ``implementation``, ``precision``, the settings of the case,
    ``threads``; ``images_per_second`` (median over the rounds), ``slowest`` and ``fastest``;
    ``gflops``, the rate at which it gets through the operations of its floor (10^9 / s);
    ``floor_percent``, the floor's share of its time (median), and ``peak_mb`` (:func:`peak_memory`,
    10^6 bytes), the share except for floors, the peak for what runs eagerly in one process; and
    the speed-up over each opponent that takes part, ``times_plain`` (float32), ``times_autocast``
    (bfloat16), ``times_compiled`` and ``times_processes`` (both in the row's own precision), each
    with ``_low`` and ``_high``: the median and range of the ratios round by round.

    Args:
        rounds: rounds that count; two more come first.
        against: opponents, of :data:`OPPONENTS`. ``"eager"`` is the plain model, in float32 and
            under bfloat16 autocast; ``"compile"`` the same through ``torch.compile``;
            ``"processes"`` the same in as many processes of one thread as there are threads, each
            with a batch of its own (on a CPU).
        memory: measure peak memory too, in a fresh process for each row.
        device: where the models run.
        progress: called with the number of steps done and to do.

    A CPU that does not multiply bfloat16 is measured in float32 alone, as it trains.

    Raises:
        Problem: no round counts, or a process that measures memory is killed.
    """
    native.keep_freed_memory()  # as in training
    ticks, total = itertools.count(1), len(todo) * (1 + WARMUP + rounds)

    def tick() -> None:
        progress(next(ticks), total)

    rows = []
    for plan in todo:
        runs, threads = contenders(plan.case, plan.work, device), torch.get_num_threads()
        for name, implementation in OPPONENTS.items():
            if name not in against:
                runs = {who: run for who, run in runs.items() if who[0] != implementation}
        runs = _that_train(runs, device)
        peaks = {
            who: in_process(peak_memory, plan.case, plan.work, who, device, threads)
            for who in (runs if memory else ())
            if who not in COMPILED.values()
        }
        tick()
        with contextlib.ExitStack() as stack:
            if products := plan.case.products():
                training = plan.work == "training"
                for name, who in FLOOR.items():
                    runs[who] = floor(products, plan.case.batch, name, training, device)
                if "processes" in against and device.type == "cpu":
                    run = stack.enter_context(side_by_side(plan.case, plan.work, threads))
                    for one, who in zip((PLAIN, AUTOCAST), PROCESSES.values(), strict=True):
                        runs[who] = partial(run, one)
            runs = _that_train(runs, device)
            wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
            seconds = in_turn(runs, rounds, synchronize=wait, tick=tick)
        for who in PROCESSES.values():  # each round is a batch for every process
            if who in seconds:
                seconds[who] = [second / threads for second in seconds[who]]
        rows += _rows(plan, seconds, peaks)
    return rows


def _that_train(runs: dict[Contender, Run], device: torch.device) -> dict[Contender, Run]:
    """Return the contenders in the precisions in which a training computes on a device."""
    if fast.multiplies_bfloat16(device):
        return runs
    return {who: run for who, run in runs.items() if who.precision != "bfloat16"}


def _rows(
    plan: Plan, seconds: dict[Contender, list[float]], peaks: dict[Contender, int]
) -> list[dict[str, Any]]:
    """Return the rows of :func:`measure` for one plan."""
    count = operations(plan.case.products(), plan.case.batch, plan.work == "training")
    rows = []
    for contender, taken in seconds.items():
        row = {
            "case": plan.name,
            "work": plan.work,
            **contender._asdict(),
            **dataclasses.asdict(plan.case),
            "threads": torch.get_num_threads(),
        }
        rates = [plan.case.batch / second for second in taken]
        for name, pick in _STATISTICS.items():
            row[name] = _rounded(pick(rates))
        if count:
            row["gflops"] = _rounded(count / statistics.median(taken) / 1e9)
        if count and contender.implementation != "floor":
            shares = _ratios(seconds[FLOOR[contender.precision]], taken)
            row["floor_percent"] = _rounded(100 * statistics.median(shares))
        if contender in peaks:
            row["peak_mb"] = _rounded(peaks[contender] / 1e6)
        for name, opponent in _opponents(contender.precision):
            if opponent in seconds and contender != opponent:
                ratios = _ratios(seconds[opponent], taken)
                row[name] = _rounded(statistics.median(ratios))
                row |= {f"{name}_low": _rounded(min(ratios)), f"{name}_high": _rounded(max(ratios))}
        rows.append(row)
    return rows


def _opponents(precision: str) -> list[tuple[str, Contender]]:
    """Return whom a contender is compared with, by the name of the column."""
    others = [("times_plain", PLAIN), ("times_autocast", AUTOCAST)]
    if precision in COMPILED:
        others.append(("times_compiled", COMPILED[precision]))
        others.append(("times_processes", PROCESSES[precision]))
    return others


_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "images_per_second": statistics.median,
    "slowest": min,
    "fastest": max,
}


def _ratios(above: list[float], below: list[float]) -> list[float]:
    """Divide round by round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def _rounded(value: float) -> float:
    """Round to four significant digits; more would be noise."""
    return float(f"{value:.4g}")
