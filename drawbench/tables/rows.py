"""From runs to rows: runs that differ in nothing but their seed are one row.

A row is made of runs with the same data, test images and settings, :data:`BESIDE` apart, and of the
same length: within a tenth, because a time budget becomes a number of updates that differs a little
from run to run. The number of updates is stated in the row.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scipy.special import stdtrit

from drawbench.records import LARGEST, Record

# Settings that make no other experiment: the seed, the length (see above), and where and how often
# things are kept.
BESIDE = (
    "seed",
    "steps",
    "epochs",
    "time_budget",
    "evaluate_every",
    "save_every",
    "threads",
    "device",
    "checkpoint_steps",
)
SAME_LENGTH = 1.1

# What the papers do not use: setting -> its value there, and what to say of another.
AIDS: dict[str, tuple[Any, str]] = {
    "distortion": (0.0, "training digits distorted ({})"),
    "weight_decay": (0.0, "weight decay {}"),
    "start": (None, "trained on from {}"),
    "intermediate": (0.0, "loss of earlier answers ({})"),
}
ATTENTION = {
    "none": " without attention",
    "read": ", attention to read only",
    "write": ", attention to write only",
}


class Estimate(NamedTuple):
    """A mean with its 95 % interval, and what that interval is of."""

    value: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True)
class Row:
    """Runs of one experiment that differ in their seed.

    Attributes:
        records: at least one.
        told_apart: settings in which it differs from rows that would look the same.
    """

    records: tuple[Record, ...]
    told_apart: str = ""

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def model(self) -> str:
        """What it is called, such as ``draw without attention``."""
        result = self.first.result
        return result["model"] + (
            ATTENTION.get(self.first.settings.get("attention", ""), "")
            if result["model"] == "draw"
            else ""
        )

    @property
    def glimpses(self) -> int | None:
        return self.first.result.get("glimpses")

    @property
    def notes(self) -> str:
        """What it used beyond the paper, and what tells it from rows that would look the same."""
        told = [
            (self.first.settings.get(name, usual), usual, words)
            for name, (usual, words) in AIDS.items()
        ]
        aids = [words.format(_short(value)) for value, usual, words in told if value != usual]
        return ", ".join([*aids, self.told_apart] if self.told_apart else aids)

    @property
    def steps(self) -> str | int | None:
        """Updates: a number, or from - to where the seeds differ."""
        counts = sorted({_length(record) for record in self.records} - {0})
        return (
            None
            if not counts
            else counts[0]
            if len(counts) == 1
            else f"{counts[0]:,} to {counts[-1]:,}"
        )

    @property
    def pointer(self) -> str:
        return ", ".join(record.pointer for record in self.records)

    @property
    def legend(self) -> str:
        """A name for a line in a figure."""
        looks = (
            ""
            if self.glimpses is None
            else f", {self.glimpses} {'glimpses' if self.first.result['task'] == 'classify' else 'steps'}"
        )
        name = f"{self.model}{looks}" + (f"\n({self.notes})" if self.notes else "")
        return name.replace("$", r"\$")  # between which matplotlib reads mathematics

    def mean(self, field: str) -> float | None:
        """The mean over seeds of a field of the result; None where a run has none."""
        values = [record.result.get(field) for record in self.records]
        numbers = [
            float(value)
            for value in values
            if isinstance(value, int | float) and abs(value) <= LARGEST
        ]
        return statistics.fmean(numbers) if len(numbers) == len(values) else None

    def whole(self, field: str) -> int | None:
        """:meth:`mean` as a whole number."""
        mean = self.mean(field)
        return None if mean is None else round(mean)

    def estimate(self) -> Estimate:
        """Of the metric, see :func:`estimate`."""
        return estimate([record.result for record in self.records])

    def about(self) -> dict[str, Any]:
        """The columns that every own row ends with."""
        return {
            "seeds": len(self.records),
            "updates": self.steps,
            "notes": self.notes or None,
            "runs or source": self.pointer,
        }


def estimate(results: list[dict[str, Any]], field: str = "value") -> Estimate:
    """Of one run the interval over its test images; of several the t-interval over the seeds, not
    below zero.

    Args:
        results: with ``field``, ``low``, ``high`` and ``n`` of each seed.
    """
    values = [result[field] for result in results]
    if len(values) == 1:
        return Estimate(
            values[0],
            results[0]["low"],
            results[0]["high"],
            f"{int(results[0]['n']):,} test images",
        )
    mean = statistics.fmean(values)
    half = (
        float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    )
    return Estimate(mean, max(0.0, mean - half), mean + half, f"{len(values)} seeds (t)")


def rows(records: Iterable[Record]) -> list[Row]:
    """Runs gathered into rows, ordered by model, glimpses, notes and name."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (_length(record), record.seed, record.name)):
        key = _key(record)
        number = 0
        while (held := groups.get(f"{key} {number}")) and _length(record) > SAME_LENGTH * _length(
            held[0]
        ):
            number += 1
        groups.setdefault(f"{key} {number}", []).append(record)
    made = [
        Row(tuple(sorted(group, key=lambda record: (record.seed, record.name))))
        for group in groups.values()
    ]
    return sorted(
        _told_apart(made), key=lambda row: (row.model, row.glimpses or 0, row.notes, row.pointer)
    )


def _length(record: Record) -> int:
    """Its updates; 0 where it does not say."""
    return record.result.get("steps") or 0


def _key(record: Record) -> str:
    """What the runs of a row have in common."""
    settings = {name: value for name, value in record.settings.items() if name not in BESIDE}
    told = ("task", "model", "dataset", "source", "test_sha256", "glimpses")
    return repr((sorted(settings.items()), [record.result.get(name) for name in told]))


def _told_apart(made: list[Row]) -> list[Row]:
    """Rows that would look the same get the settings in which they differ."""
    alike: dict[tuple, list[Row]] = {}
    for row in made:
        alike.setdefault(
            (row.model, row.first.result["dataset"], row.glimpses, row.notes), []
        ).append(row)
    apart = []
    for group in alike.values():
        images = [
            {"test images": str(row.first.result.get("test_sha256"))[:8], "updates": row.steps}
            for row in group
        ]
        settings = [
            row.first.settings | dict.fromkeys(BESIDE) | more
            for row, more in zip(group, images, strict=True)
        ]
        differ = [
            name
            for name in sorted(set().union(*settings))
            if len({repr(some.get(name)) for some in settings}) > 1
        ]
        told = [
            ", ".join(f"{name} {_short(some.get(name))}" for name in differ) for some in settings
        ]
        apart += [Row(row.records, words) for row, words in zip(group, told, strict=True)]
    return apart


def _short(value: Any) -> str:
    """A setting in a word; of a path its last part."""
    return (
        Path(value).name
        if isinstance(value, str)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
