"""What lies in folders of runs, in whatever state, and how two runs differ; read without torch.

Where :mod:`drawbench.records` reads finished runs and refuses everything else, this module gives
every run folder a row: a damaged one has its reason in it.
"""

import contextlib
import csv
import fnmatch
import json
import math
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from drawbench import records, studies
from drawbench.config.fields import nearest
from drawbench.errors import Problem, one_line
from drawbench.files import plain, read_text

Row = dict[str, Any]
SELECTED_BY = {"classify": "validation_error", "generate": "validation_bound"}  # of each task
FIELDS = (
    *("run", "name", "state", "task", "model", "glimpses", "data", "metric", "value", "low"),
    *("high", "seed", "steps", "progress", "minutes", "age", "problem"),
)


def rows(places: Iterable[Path], say: Callable[[str], object]) -> list[Row]:
    """Return a row for every run folder in some places, each a run or a folder of runs.

    A row has :data:`FIELDS`, None where something is unknown, and ``settings``. Its state is
    ``finished``, ``running``, ``half-done`` or ``damaged``.

    Args:
        say: told which places cannot be read.
    """
    found = []
    for place in places:
        try:
            folders = records.folders(place)
        except OSError as error:
            say(f"Left out: {one_line(str(place))} cannot be read ({error.strerror or error}).")
            continue
        found += [_row(folder) for folder in folders if (folder / "config.json").is_file()]
    return found


def _row(folder: Path) -> Row:
    """Return the row of a run folder; never raise, whatever is in it."""
    row: Row = dict.fromkeys(FIELDS) | {"run": one_line(str(folder)), "settings": {}}
    row |= {"name": one_line(folder.name), "state": "damaged"}
    try:
        row["age"] = _age(folder)
        row["settings"] = settings = _plain(records.read_settings(folder), folder)
        row |= {name: settings.get(name) for name in ("task", "model", "glimpses", "seed", "steps")}
        row["data"] = settings.get("dataset")
        state = studies.progress(folder)
        row |= _finished(folder) if state == "finished" else _unfinished(folder, settings)
    except (Problem, OSError, ValueError) as error:
        row["problem"] = one_line(str(error))
    return row


def _plain(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return values that were read; raise `Problem` if they cannot be printed as JSON again."""
    try:
        json.dumps(values, allow_nan=False)
    except ValueError as error:
        raise Problem(f"a file in {folder} holds a number that is not finite") from error
    return values


def _age(folder: Path) -> float | None:
    """Return the seconds since anything that a training writes has changed."""
    times = []
    for name in ("config.json", "metrics.csv", "last.safetensors", "result.json"):
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(0.0, time.time() - max(times)) if times else None


def _finished(folder: Path) -> Row:
    result = records.read_result(folder)
    seconds = result.get("train_seconds")
    names = ("task", "model", "glimpses", "seed", "steps", "metric", "value", "low", "high")
    fields = {name: result.get(name) for name in names}
    return fields | {
        "state": "finished",
        "data": result["dataset"],
        "progress": 1.0,
        "minutes": None if seconds is None else seconds / 60,
    }


def _unfinished(folder: Path, settings: dict[str, Any]) -> Row:
    """Return how far a run is, and its best validation."""
    metric = SELECTED_BY.get(settings["task"], "")
    steps, values = 0.0, list[float]()
    with contextlib.suppress(OSError, ValueError, csv.Error):
        for line in csv.DictReader(read_text(folder / "metrics.csv").splitlines()):
            step, value = _number(line.get("step")), _number(line.get(metric))
            if step is not None:  # else it is no row of ours
                steps = max(steps, step)
                values += [] if value is None else [value]
    total: Any = settings.get("steps")
    known = type(total) is int and total > 0
    return {
        "state": "running" if in_use(folder) else "half-done",
        "metric": metric if values else None,
        "value": min(values, default=None),
        "progress": min(1.0, steps / total) if known else None,
    }


def _number(text: Any) -> float | None:
    """Return a cell of a table as a finite number; None where it is none."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def in_use(folder: Path) -> bool:
    """Return whether a process is working in a run folder; False where the system cannot tell."""
    try:
        import fcntl

        with plain(folder / ".lock").open("rb") as file:
            # Shared and given back at once: a command that starts now waits longer than that.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


# ------------------------------------------------------------------------------- choose and order


def chosen(found: list[Row], conditions: Iterable[str]) -> list[Row]:
    """Return the rows that fulfil all conditions.

    Args:
        conditions: ``FIELD=PATTERN`` (with ``*`` and ``?``), ``FIELD<NUMBER`` or ``FIELD>NUMBER``;
            a field of the row or a setting.

    Raises:
        Problem: a condition is malformed, or no run has the field.
    """
    for condition in conditions:
        match = re.fullmatch(r"([\w-]+)([=<>])(.*)", condition)
        limit = None if match is None else _number(match[3])
        if match is None or (match[2] != "=" and limit is None):
            raise Problem(f"{condition!r} is not FIELD=PATTERN, FIELD<NUMBER or FIELD>NUMBER")
        name, sign = _field(match[1], found), match[2]
        if sign == "=":
            found = [row for row in found if _fits(_value(row, name), match[3])]
        else:
            direction = 1 if sign == ">" else -1
            numbers = [(row, _number(_value(row, name))) for row in found]
            found = [
                row for row, n in numbers if n is not None and direction * (n - (limit or 0.0)) > 0
            ]
    return found


def _fits(value: Any, pattern: str) -> bool:
    if type(value) in (int, float) and _number(pattern) == value:
        return True
    text = {"True": "yes", "False": "no", "None": "none"}.get(str(value), str(value))
    return fnmatch.fnmatchcase(text.lower(), pattern.lower())


def ordered(found: list[Row], field: str, reverse: bool = False) -> list[Row]:
    """Return the rows by a field; those without it come last.

    Raises:
        Problem: no run has the field.
    """
    name = _field(field, found)
    having = [row for row in found if _value(row, name) is not None]
    numbers = all(type(_value(row, name)) in (int, float, bool) for row in having)
    key: Callable[[Any], Any] = float if numbers else str
    having.sort(key=lambda row: key(_value(row, name)), reverse=reverse)
    return having + [row for row in found if _value(row, name) is None]


def _field(name: str, found: list[Row]) -> str:
    name = name.replace("-", "_")
    known = {*FIELDS, *(key for row in found for key in row["settings"])}
    if name not in known and found:
        raise Problem(f"no run has a field {name!r}{nearest(name, known)}")
    return name


def _value(row: Row, name: str) -> Any:
    return row[name] if name in FIELDS else row["settings"].get(name)


# ------------------------------------------------------------------------------------ differences


def differences(first: Path, second: Path) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return what differs between two runs: ``settings``, ``results`` and ``environment``.

    Runs that are not finished have no results.

    Raises:
        Problem: one of them is no run folder, or a file of it is damaged.
    """
    folders = (first, second)
    tables = {
        "settings": [records.read_settings(folder) for folder in folders],
        "results": [
            records.read_result(folder) if studies.progress(folder) == "finished" else {}
            for folder in folders
        ],
        "environment": [records.read_environment(folder) for folder in folders],
    }
    for pair in tables.values():
        for folder, values in zip(folders, pair, strict=True):
            _plain(values, folder)
    return {
        title: {
            name: (one.get(name), two.get(name))
            for name in {**one, **two}
            if one.get(name) != two.get(name) and (title, name) != ("environment", "command")
        }
        for title, (one, two) in tables.items()
    }
