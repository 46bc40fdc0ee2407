"""From runs to rows: runs that differ only in their seed, machine and measuring share a row.

The runs of a row have the same data, test images and settings, apart from the seed and settings
with the role ``machine`` or ``report``, and nearly the same length: a time budget becomes a number
of updates that differs a little from run to run. Runs until a plateau end where their validations
say so: they share a row if their limits are alike.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from scipy.special import stdtrit

from drawbench import config as configs
from drawbench.records import ERROR, Record

MAX_LENGTH_RATIO = 1.1  # between the longest and the shortest run of a row
ATTENTION = {
    "none": " without attention",
    "read": ", attention to read only",
    "write": ", attention to write only",
}


class Estimate(NamedTuple):
    """A mean with its 95% interval, and what the interval is over."""

    value: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True)
class Row:
    """Runs of one experiment that differ in their seed.

    Attributes:
        records: at least one.
        differences: settings that tell it from rows that would look the same.
    """

    records: tuple[Record, ...]
    differences: str = ""

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def model(self) -> str:
        """The model's name, such as ``draw without attention``."""
        name = self.first.result["model"]
        attention = str(self.first.settings.get("attention"))
        return name + (ATTENTION.get(attention, "") if name == "draw" else "")

    @property
    def glimpses(self) -> int | None:
        return self.first.result.get("glimpses")

    @property
    def notes(self) -> str:
        """What it uses beyond the paper, and what tells it from similar rows."""
        task: Any = configs.TASKS[self.first.result["task"]]
        kind = task.kinds["model"].get(self.first.result["model"])
        own = {field.name: field for field in fields(kind)} if kind is not None else {}
        notes = []
        for name, setting in configs.settings(task).items():
            field, value = own.get(name, setting.field), self.first.settings.get(name)
            note = field.metadata["note"]
            if note and value not in (None, field.default):
                notes.append(note.format(_short(value)))
        return ", ".join([*notes, self.differences] if self.differences else notes)

    @property
    def updates(self) -> str | int | None:
        """Training updates: a number, or a range where the seeds differ."""
        counts = sorted({_length(record) for record in self.records} - {0})
        if len(counts) > 1:
            return f"{counts[0]:,} to {counts[-1]:,}"
        return counts[0] if counts else None

    @property
    def pointer(self) -> str:
        return ", ".join(record.pointer for record in self.records)

    @property
    def legend(self) -> str:
        """A name for a line in a figure."""
        name = self.model if self.glimpses is None else f"{self.model}, {self.glimpses} glimpses"
        if self.notes:
            name += f"\n({self.notes})"
        return name.replace("$", r"\$")  # matplotlib reads mathematics between dollar signs

    def mean(self, field: str) -> float | None:
        """Return the mean over seeds of a field of the result; None where a run lacks it."""
        values: list[Any] = [record.result.get(field) for record in self.records]
        return None if None in values else statistics.fmean(values)

    @property
    def device(self) -> str | None:
        """What trained the first seed: ``cpu``, or the name of a GPU."""
        return self.first.environment.get("device")

    @property
    def timed(self) -> "Row":
        """The row of the seeds that the device of the first one trained: only their durations can
        be averaged.
        """
        same = [each for each in self.records if each.environment.get("device") == self.device]
        return Row(tuple(same))

    def whole(self, field: str) -> int | None:
        """Return :meth:`mean` as a whole number."""
        mean = self.mean(field)
        return None if mean is None else round(mean)

    def estimate(self) -> Estimate:
        """Return the metric with its interval, see :func:`estimate`."""
        return estimate([record.result for record in self.records])

    def about(self) -> dict[str, Any]:
        """Return the last columns of every row of ours."""
        return {
            "seeds": len(self.records),
            "updates": self.updates,
            "notes": self.notes or None,
            "runs or source": self.pointer,
        }


def estimate(results: list[dict[str, Any]], field: str = "value") -> Estimate:
    """Return a mean over seeds with its t-interval, which does not go below zero, nor an error's
    above 100%.

    The interval of a single result is the one over its test images.

    Args:
        results: ``field``, ``low``, ``high`` and ``n`` of each seed.
    """
    values = [result[field] for result in results]
    if len(values) == 1:
        images = f"{int(results[0]['n']):,} test images"
        return Estimate(values[0], results[0]["low"], results[0]["high"], images)
    mean, count = statistics.fmean(values), len(values)
    half = float(stdtrit(count - 1, 0.975)) * statistics.stdev(values) / math.sqrt(count)
    most = 100.0 if field == "error" or results[0].get("metric") == ERROR else math.inf
    return Estimate(mean, max(0.0, mean - half), min(most, mean + half), f"{count} seeds (t)")


def by_dataset(records: Iterable[Record], first: str = "") -> dict[str, list[Record]]:
    """Return the runs of each data set, by its name; one data set can be the first.

    The likelihood of 256 levels and the cross-entropy of a Bernoulli never share a table, so runs
    with the former are of the data set ``NAME-logistic``.
    """
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.result["dataset"]):
        likelihood = record.result.get("likelihood") or record.settings.get("likelihood")
        name = record.result["dataset"] + ("-logistic" if likelihood == "logistic" else "")
        groups.setdefault(name, []).append(record)
    return ({first: groups[first]} if first in groups else {}) | groups


def rows(records: Iterable[Record]) -> list[Row]:
    """Group runs into rows, ordered by model, glimpses, notes and name."""
    groups: dict[str, list[list[Record]]] = {}
    for record in sorted(records, key=lambda record: (_limit(record), record.seed, record.name)):
        alike = groups.setdefault(_key(record), [])
        if alike and _limit(record) <= MAX_LENGTH_RATIO * _limit(alike[-1][0]):
            alike[-1].append(record)
        else:
            alike.append([record])
    result = [
        Row(tuple(sorted(group, key=lambda record: (record.seed, record.name))))
        for alike in groups.values()
        for group in alike
    ]
    return sorted(
        _with_differences(result),
        key=lambda row: (row.model, row.glimpses or 0, row.notes, row.pointer),
    )


def _length(record: Record) -> int:
    """Return the training updates; 0 where they are unknown."""
    return record.result.get("steps") or 0


def _limit(record: Record) -> int:
    """Return the most updates that a run could make: its length, unless a plateau ended it."""
    until_plateau = record.settings.get("plateau") is not None
    return record.settings["steps"] if until_plateau else _length(record)


def _compared(record: Record) -> dict[str, Any]:
    """Return the settings that the runs of a row share."""
    left_out = ("seed", *configs.LENGTHS)
    return {name: value for name, value in record.experiment.items() if name not in left_out}


def _key(record: Record) -> str:
    """Return what the runs of a row have in common, as text."""
    fields = ("task", "model", "dataset", "source", "test_sha256", "glimpses")
    return repr((sorted(_compared(record).items()), [record.result.get(name) for name in fields]))


def _with_differences(rows: list[Row]) -> list[Row]:
    """Name the settings that differ among rows that would look the same."""
    alike: dict[tuple, list[Row]] = {}
    for row in rows:
        look = (row.model, row.first.result["dataset"], row.glimpses, row.notes)
        alike.setdefault(look, []).append(row)
    named = []
    for group in alike.values():
        facts = [
            _compared(row.first)
            | {"test images": str(row.first.result.get("test_sha256"))[:8], "updates": row.updates}
            for row in group
        ]
        names = sorted(set().union(*facts))
        names = [name for name in names if len({repr(fact.get(name)) for fact in facts}) > 1]
        for row, fact in zip(group, facts, strict=True):
            words = [f"{name} {_short(fact.get(name))}" for name in names]
            named.append(Row(row.records, ", ".join(words)))
    return named


def _short(value: Any) -> str:
    """Return a setting in a word; of a path the last part."""
    if isinstance(value, str):
        return Path(value).name
    return f"{value:g}" if isinstance(value, float) else str(value)
