"""What to measure, and the measurement."""

import contextlib
import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch

from drawbench.bench.cases import FLOOR, PLAIN, Case, Contender, changed, contenders
from drawbench.bench.memory import in_process, peak_memory
from drawbench.bench.products import CPU, Run, floor, operations
from drawbench.bench.team import Team
from drawbench.errors import Problem

Key = TypeVar("Key", bound=Hashable)


class Plan(NamedTuple):
    """Something to measure."""

    name: str
    case: Case
    work: str  #: ``"training"``, ``"evaluation"`` or ``"data"``
    threads: int | None = None  #: of the CPU; as many as there are anyway if None
    processes: int | None = None  #: that share the work; this one alone if None


def plans(cases: dict[str, Case], works: Iterable[str] = ()) -> list[Plan]:
    """All that cases do, or those ``works`` of it."""
    return [
        Plan(name, case, work)
        for name, case in cases.items()
        for work in case.works
        if work in (tuple(works) or case.works)
    ]


_UP_TO_ALL_CORES = tuple(
    sorted(
        {2**power for power in range(8) if 2**power < (os.cpu_count() or 1)} | {os.cpu_count() or 1}
    )
)
# What cost may grow with, and the values that show how.
AXES: dict[str, tuple[int, ...]] = {
    "glimpses": (2, 4, 8, 16, 32, 64),
    "batch": (8, 16, 32, 64, 128, 256),
    "canvas": (30, 60, 120, 240),
    "threads": _UP_TO_ALL_CORES,
    "processes": _UP_TO_ALL_CORES,
}


def growth_plans(
    cases: dict[str, Case], works: Iterable[str], along: str, values: Iterable[int]
) -> list[Plan]:
    """The same work at several values of one of :data:`AXES`, of the cases that have it."""
    values = tuple(values)
    if along == "threads":
        return [plan._replace(threads=value) for plan in plans(cases, works) for value in values]
    if along == "processes":
        return [plan._replace(processes=value) for plan in plans(cases, works) for value in values]
    able = {name: case for name, case in cases.items() if hasattr(case, along)}
    return [
        plan._replace(case=changed(plan.case, **{along: value}))
        for plan in plans(able, works)
        for value in values
    ]


WARMUP = 2  # rounds before those that count


def in_turn(
    runs: dict[Key, Run],
    rounds: int,
    warmup: int = WARMUP,
    synchronize: Callable[[], object] = lambda: None,
    tick: Callable[[], object] = lambda: None,
) -> dict[Key, list[float]]:
    """Time each contender once a round, A B C A B C ..., so that a machine that drifts drifts for
    all.

    Args: runs: the contenders by name. rounds: that count, at least 1. warmup: rounds before them
        that do not. synchronize: waits for what a device still has to do; called before each
        reading of the clock. tick: called after each round.

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


def measure(
    todo: list[Plan],
    *,
    rounds: int = 10,
    against_plain: bool = False,
    memory: bool = True,
    device: torch.device = CPU,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Measure what is planned. The same work at several sizes takes turns too, so that a curve is
    not the drift of the machine.

    Args:
        rounds: that count; two more come before them.
        against_plain: let the plain models take part.
        memory: measure peak memory too, in a new process for each row.
        device: where the models run.
        progress: called now and then with what is done and all there is to do.

    Returns: A row for each contender of each plan: ``case``, ``work``, ``implementation``,
        ``precision``, the case's settings, ``threads``; ``images_per_second``, ``slowest`` and
        ``fastest`` of the rounds; ``gflops``, the rate at which it gets through the operations of
        its floor (10^9 / s); but for the floors ``floor_percent``, the share of the floor in its
        time (median over the rounds), and ``peak_mb`` (:func:`peak_memory`, 10^6 bytes); and where
        the plain model took part ``times_plain`` with ``times_plain_low`` and ``times_plain_high``:
        median and range over the rounds of how many times faster it is.

    Raises:
        Problem: no rounds, or a size that there cannot be.
    """
    groups = [
        list(group)
        for _, group in itertools.groupby(
            todo, key=lambda plan: (plan.name, plan.work, plan.threads)
        )
    ]
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
    group: list[Plan],
    rounds: int,
    against_plain: bool,
    memory: bool,
    device: torch.device,
    tick: Callable[[], object],
) -> list[dict[str, Any]]:
    """The rows of plans that take turns; arguments as :func:`measure`, but ``tick``, called after
    each plan's memory and each round.
    """
    runs: dict[tuple[int, Contender], Run] = {}
    peaks: list[dict[Contender, int]] = []
    with contextlib.ExitStack() as teams:
        for number, plan in enumerate(group):
            ready = _competitors(plan, against_plain, device, teams)
            runs |= {(number, contender): run for contender, run in ready.items()}
            measured = [
                contender
                for contender in ready
                if memory and not plan.processes and contender.implementation != "floor"
            ]
            arguments = device, torch.get_num_threads()
            peaks.append(
                {
                    contender: in_process(peak_memory, plan.case, plan.work, contender, *arguments)
                    for contender in measured
                }
            )
            tick()
        seconds = in_turn(
            runs,
            rounds,
            synchronize=torch.cuda.synchronize if device.type == "cuda" else lambda: None,
            tick=tick,
        )
    rows = []
    for number, plan in enumerate(group):
        rows += _rows(
            plan,
            {contender: taken for (n, contender), taken in seconds.items() if n == number},
            peaks[number],
        )
    return rows


def _competitors(
    plan: Plan, against_plain: bool, device: torch.device, teams: contextlib.ExitStack
) -> dict[Contender, Run]:
    """The contenders of one plan, with the plain model or without, and the floors, which one
    process does; ``teams`` closes a team.
    """
    runs = contenders(plan.case, plan.work, device)
    if plan.processes:
        team = Team(plan.case, plan.work, device, plan.processes)
        teams.callback(team.close)
        runs = {contender: partial(team.run, contender) for contender in runs}
    if not against_plain:
        runs.pop(PLAIN, None)
    if products := plan.case.products():
        runs |= {
            who: floor(products, plan.case.batch, name, plan.work == "training", device)
            for name, who in FLOOR.items()
        }
    return runs


def _rows(
    plan: Plan, seconds: dict[Contender, list[float]], peaks: dict[Contender, int]
) -> list[dict[str, Any]]:
    """The rows of :func:`measure` for one plan."""
    count = operations(plan.case.products(), plan.case.batch, plan.work == "training")
    rows = []
    for contender, taken in seconds.items():
        row = {
            "case": plan.name,
            "work": plan.work,
            **contender._asdict(),
            **dataclasses.asdict(plan.case),
        }
        row["threads"] = plan.threads or torch.get_num_threads()
        if plan.processes:
            row["processes"] = plan.processes
        rates = [plan.case.batch / second for second in taken]
        row |= {
            "images_per_second": _short(statistics.median(rates)),
            "slowest": _short(min(rates)),
            "fastest": _short(max(rates)),
        }
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
