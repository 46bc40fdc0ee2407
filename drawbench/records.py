"""Finished runs as their folders tell them, for tables, figures and reports: read in milliseconds,
without torch.

:mod:`drawbench.runs` makes run folders and goes on with them; this module only reads what they say,
and is lenient: a run of another version, with settings that are not known here, still has its row.
"""

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from drawbench import config as configs
from drawbench.errors import Problem, one_line
from drawbench.files import printable, read_hashed, read_json, read_text

METRICS = {"classify": "test_error_percent", "generate": "nll_bound_nats"}
CONDITIONS = ("clutter", "canvas", "glimpses")  # of errors measured outside the training conditions
TABLES = {"metrics.csv": ("step",)} | {
    f"error_against_{name}.csv": (name, "error", "low", "high", "n") for name in CONDITIONS
}
WORDS, NUMBERS = (
    ("task", "model", "dataset", "source", "metric"),
    ("value", "low", "high", "n"),
)  # what every result has
WIDEST = 10_000  # columns of a table: a generator has one for each step
LARGEST = 1e300  # of any number, so that sums of them stay finite
MORE_NUMBERS = ("steps", "glimpses", "images_seen", "train_seconds")  # what it may have


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes: folder: where it lies. settings: every setting by its name, those that its
        ``config.json`` does not know at their defaults. result: ``result.json``. tables: of
        :data:`TABLES`, those that are there, by name.
    """

    folder: Path
    settings: dict[str, Any]
    result: dict[str, Any]
    tables: dict[str, pd.DataFrame]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def pointer(self) -> str:
        """Where to find it: its folder and the one above, such as ``published/draw-8``. Never the
        path of somebody's home.
        """
        return one_line("/".join(self.folder.absolute().parts[-2:]))

    @property
    def seed(self) -> int:
        return self.settings.get("seed") or 0

    @cached_property
    def environment(self) -> dict[str, Any]:
        """``environment.json``, or nothing where it cannot be read."""
        try:
            found = _read_json(self.folder / "environment.json")
        except Problem:
            return {}
        return found if isinstance(found, dict) else {}

    def picture(self, name: str) -> Path | None:
        """A file of its ``figures``, if it is there."""
        path = self.folder / "figures" / name
        return path if path.is_file() else None


def read(folder: Path, say: Callable[[str], object]) -> Record:
    """The run in a folder.

    Args:
        say: is told of tables that are damaged; the run is used without them.

    Raises:
        Problem: it is not one, not finished, or its files are damaged or contradict each other.
    """
    if not (folder / "config.json").is_file():
        raise Problem(f"{folder} is not a run folder: it has no config.json")
    config = _read_json(folder / "config.json")
    if not (
        isinstance(config, dict)
        and isinstance(config.get("task"), str)
        and config["task"] in METRICS
    ):
        raise Problem(
            f"{folder / 'config.json'} is not the configuration of a run that trains a model"
        )
    sections = {name: section for name, section in config.items() if name != "task"}
    if not all(isinstance(section, dict) for section in sections.values()):
        raise Problem(f"{folder / 'config.json'} must have sections with keys")
    if not (folder / "result.json").is_file():
        raise Problem(
            f"{folder} is not finished: it has no result.json; go on with it: drawbench resume {folder}"
        )
    known = configs.settings(configs.TASKS[config["task"]])
    given = {key: value for section in sections.values() for key, value in section.items()}
    for name, value in given.items():
        if name in known and not _is_setting(value, configs.allowed_types(known[name])):
            raise Problem(
                f"{folder / 'config.json'}: {name} must be {configs.value_type(known[name]).__name__}, got {configs.shown(value)}"
            )
    settings = {name: field.default for name, field in known.items()} | given
    record = Record(
        folder, settings, _read_json(folder / "result.json", read_hashed), _tables(folder, say)
    )
    _check(record, config["task"])
    return record


def _read_json(path: Path, read: Callable[[Path], Any] = read_json) -> Any:
    """A JSON file with texts that can be printed."""
    try:
        return printable(read(path))
    except (ValueError, RecursionError) as error:
        raise Problem(f"{path} is nested too deep") from error


def _is_setting(value: Any, allowed: tuple[type, ...]) -> bool:
    """Whether a value can be that of a setting of these types; a number of one type passes for
    another.
    """
    if isinstance(value, int):
        return abs(value) <= configs.LARGEST_INT
    return isinstance(value, allowed)


def _tables(folder: Path, say: Callable[[str], object]) -> dict[str, pd.DataFrame]:
    """The tables of a run folder that are sound; what is no finite number in them is missing."""
    found = {}
    for file, columns in TABLES.items():
        path = folder / file
        if not path.is_file():
            continue
        try:
            frame = pd.read_csv(io.StringIO(_check_width(read_text(path))))
            frame = frame.apply(pd.to_numeric, errors="coerce")  # all there is in them are numbers
            found[file] = frame.where(frame.abs() < math.inf).dropna(subset=list(columns))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
        ) as error:  # pandas' own errors are ValueErrors
            say(
                f"Left out: {one_line(str(path))} is not a table with the columns {', '.join(columns)} ({type(error).__name__})."
            )
    return found


def _check_width(text: str) -> str:
    """A table as text.

    Raises: ValueError: it has more columns than any of ours, each of which would cost pandas far
        more than its comma.
    """
    if any(line.count(",") > WIDEST for line in text.splitlines()):
        raise ValueError(f"more than {WIDEST:,} columns")
    return text


def _check(record: Record, task: str) -> None:
    """Nothing, if the result is complete and goes with the configuration.

    Raises:
        Problem: it is not or does not.
    """
    path, result = record.folder / "result.json", record.result
    if not isinstance(result, dict):
        raise Problem(f"{path} is not a result: it must be a table of fields")
    bad = [name for name in WORDS if not isinstance(result.get(name), str)]
    numbers = [*NUMBERS, *(name for name in MORE_NUMBERS if result.get(name) is not None)]
    bad += [
        name
        for name in numbers
        if type(result.get(name)) not in (int, float) or not abs(result[name]) <= LARGEST
    ]
    if bad:
        raise Problem(
            f"{path} is not a result: it lacks {', '.join(bad)}, or they are of a wrong kind"
        )
    if not (0 <= result["low"] <= result["value"] <= result["high"] and result["n"] >= 1):
        raise Problem(
            f"{path} is not a result: value {result['value']} with an interval {result['low']} - {result['high']}"
        )
    told = {
        "task": task,
        "metric": METRICS[task],
        "source": record.settings["source"],
        "seed": record.seed,
    }
    for name, value in told.items():
        if name in result and result[name] != value and value != "auto":
            raise Problem(
                f"{path} does not go with its config.json: {name} {result[name]!r} there, {value!r} here"
            )


def find(places: Iterable[Path], say: Callable[[str], object]) -> list[Record]:
    """All finished runs in some places, each a run folder or a folder of run folders.

    A run that cannot be used, has the name of one before, or repeats the settings and the seed of
    one before, is left out, and ``say`` is told why in a sentence.
    """
    found: list[Record] = []
    for folder in [folder for place in places for folder in _folders(place)]:
        try:
            record = read(folder, say)
            _refuse_double(record, found)
        except Problem as problem:
            say(f"Left out: {problem}.")
        else:
            found.append(record)
    return found


def _folders(place: Path) -> list[Path]:
    if (place / "config.json").exists():
        return [place]
    return sorted(
        path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _refuse_double(record: Record, others: list[Record]) -> None:
    for other in others:
        if other.folder.resolve() == record.folder.resolve():
            raise Problem(f"{record.folder} is named twice")
        if other.name == record.name:
            raise Problem(
                f"{record.folder} has the same name as {other.folder}, which is taken; rename one of them"
            )
        same = all(
            other.result.get(name) == record.result.get(name)
            for name in ("model", "dataset", "test_sha256")
        )
        if same and other.settings == record.settings:
            raise Problem(
                f"{record.folder} has the settings and the seed of {other.folder}: it is no further evidence"
            )
