"""How a training step grows with the number of steps, the batch, the canvas and the processes."""

import dataclasses
import itertools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from drawbench.bench.cases import FAST, Classifier, Contender, Generator, contenders
from drawbench.bench.memory import in_process, peak_memory
from drawbench.bench.processes import side_by_side
from drawbench.bench.timing import WARMUP, in_turn
from drawbench.fast import native

# Multiples of the case's own value. A canvas grows by its pixels, so its side by their root.
SCALES = {
    "glimpses": (1 / 8, 1 / 4, 1 / 2, 1),
    "batch": (1 / 4, 1 / 2, 1, 2),
    "canvas": (1, 2**0.5, 2, 8**0.5),
}
CPU = torch.device("cpu")


def measure(
    name: str,
    case: Classifier | Generator,
    *,
    precision: str = "float32",
    rounds: int = 10,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Measure a training step of the fast path while one size of a case varies; a row for each
    value.

    A row has ``case``, ``precision``, ``axis`` and its ``value`` (pixels of a canvas); ``seconds``
    of a step (median of the rounds), ``seconds_low`` and ``seconds_high``; ``peak_mb``; and
    ``off_percent``, how far the seconds are from the straight line through those of all values.
    ``processes`` of one thread each take a batch each, which costs no more than one does in theory:
    there the line is flat, through the first.

    Args:
        name: of the case.
        precision: of its matrix products.
        rounds: rounds that count; in each, the values of an axis take turns.
        progress: called with the number of rounds done and to do.
    """
    native.keep_freed_memory()
    threads, who = torch.get_num_threads(), FAST[precision]
    ticks, total = itertools.count(1), (len(SCALES) + threads) * (WARMUP + rounds)

    def tick() -> None:
        progress(next(ticks), total)

    facts = {"case": name, "precision": precision}
    rows = []
    for axis, scales in SCALES.items():
        cases = [_scaled(case, axis, scale) for scale in scales]
        values = [getattr(one, axis) ** (2 if axis == "canvas" else 1) for one in cases]
        runs = {k: contenders(one, "training")[who] for k, one in enumerate(cases)}
        seconds = in_turn(runs, rounds, tick=tick)
        middle = [statistics.median(taken) for taken in seconds.values()]
        for value, one, taken, off in zip(
            values, cases, seconds.values(), off_line(values, middle), strict=True
        ):
            peak = in_process(peak_memory, one, "training", who, CPU, threads)
            rows.append({**facts, **_row(axis, value, taken, off), "peak_mb": peak / 1e6})
    alone = None
    for count in range(1, threads + 1):
        taken = _processes(case, who, count, rounds, tick)
        alone = alone or statistics.median(taken)
        off = 100 * (statistics.median(taken) / alone - 1)
        rows.append({**facts, **_row("processes", count, taken, off)})
    return rows


def _processes(case, who: Contender, count: int, rounds: int, tick) -> list[float]:
    with side_by_side(case, "training", count) as run:
        return in_turn({who: partial(run, who)}, rounds, tick=tick)[who]


def _scaled(case: Any, axis: str, scale: float) -> Any:
    return dataclasses.replace(case, **{axis: max(1, round(getattr(case, axis) * scale))})


def _row(axis: str, value: int, taken: list[float], off: float) -> dict[str, Any]:
    return {
        "axis": axis,
        "value": value,
        "seconds": statistics.median(taken),
        "seconds_low": min(taken),
        "seconds_high": max(taken),
        "off_percent": off,
    }


def off_line(values: list[int], seconds: list[float]) -> list[float]:
    """Return how far each is from a straight line through all, in percent of the line.

    The line has the least squares of these percentages, nearly.
    """
    weights = 1 / np.asarray(seconds)
    line = np.polyval(np.polyfit(values, seconds, 1, w=weights), values)
    return [float(100 * (one / on - 1)) for one, on in zip(seconds, line, strict=True)]
