"""Finished runs as their folders tell them, read in milliseconds, without torch.

:mod:`drawbench.runs` creates, resumes and writes run folders; this module reads them for tables,
figures and reports, and says what ``result.json`` holds. It is lenient: a run of another version,
with settings that are not known here, still has its row.
"""

import io
import itertools
import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from drawbench import config as configs
from drawbench.errors import Problem, one_line
from drawbench.files import printable, read_hashed, read_json, read_text

if TYPE_CHECKING:
    import pandas as pd

ERROR, BOUND = "test_error_percent", "nll_bound_nats"
METRICS = {"classify": ERROR, "generate": BOUND}  # of each task
MAX_NUMBER = 1e300  # in a result, so that sums stay finite
LOGS = "logs"  # the folder beside run folders for what their commands print
CONDITIONS = ("clutter", "canvas", "glimpses")  # that test errors are measured against
TABLES = {"metrics.csv": ("step",)} | {
    f"error_against_{name}.csv": (name, "error", "low", "high", "n") for name in CONDITIONS
}


class Field(NamedTuple):
    """A field of ``result.json``.

    Attributes:
        kind: ``text``, ``number``, ``list``, or ``estimate``: a table of numbers ``value``,
            ``low``, ``high`` (a 95% interval) and ``n``.
        required: it must be there and not null.
        task: the one task that has it; empty: both.
    """

    kind: str
    meaning: str
    required: bool = False
    task: str = ""


FIELDS = {
    "task": Field("text", "classify or generate", True),
    "model": Field("text", "name, or module:factory", True),
    "dataset": Field("text", "name of the test set; results under different names differ", True),
    "source": Field("text", "where the images come from", True),
    "metric": Field("text", f"{ERROR} or {BOUND}", True),
    "value": Field("number", "the metric on the test images: percent or nats", True),
    "low": Field("number", "lower end of its 95% interval", True),
    "high": Field("number", "upper end of its 95% interval", True),
    "n": Field("number", "test images counted", True),
    "seed": Field("number", "seed of the training; null: unknown"),
    "steps": Field("number", "training updates; null: unknown"),
    "images_seen": Field("number", "training images presented; null: unknown"),
    "train_seconds": Field("number", "duration of the training; null: unknown"),
    "start": Field("text", "run that the initial weights came from"),
    "best_step": Field("number", "update whose weights were measured"),
    "command": Field("text", "command line that produced the result"),
    "test_sha256": Field("text", "SHA-256 of the test images"),
    "weights": Field("text", "type in which the weights are stored, where it is not float32"),
    "glimpses": Field("number", "glimpses of a classifier, steps of a generator; null: none"),
    "parameters": Field("number", "trainable numbers"),
    "pixels_read": Field("number", "pixels read of one image", task="classify"),
    "multiply_adds": Field("number", "multiply-adds for one image", task="classify"),
    "clutter": Field("text", "clutter in training: fresh or fixed", task="classify"),
    "errors": Field("number", "test images classified wrongly", task="classify"),
    "sampled_error": Field("number", "test error with sampled places, percent", task="classify"),
    "chance_error": Field("number", "error of guessing, percent", task="classify"),
    "majority_error": Field("number", "error of the most frequent class, percent", task="classify"),
    "classes": Field("list", "names of the classes", task="classify"),
    "per_class_error": Field("list", "test error of each class, percent", task="classify"),
    "errors_after_glimpse": Field("list", "test error after each glimpse", task="classify"),
    "confusion": Field("list", "images by true class, then predicted class", task="classify"),
    "validation_error": Field("number", "of the weights measured, percent", task="classify"),
    "validation_bound": Field("number", "of the weights measured, nats", task="generate"),
    "attention": Field("text", "both, read, write or none; null: unknown", task="generate"),
    "likelihood": Field("text", "bernoulli, or logistic for 256 levels", task="generate"),
    "pixels": Field("text", "how the pixels were made binary, in a sentence", task="generate"),
    "image": Field("text", "CxHxW", task="generate"),
    "standard_error": Field("number", "of the bound over images, nats", task="generate"),
    "bound_samples": Field("number", "samples per image of the bound", True, "generate"),
    "sampling_error": Field("number", "part of the standard error from sampling", task="generate"),
    "reconstruction": Field("number", "reconstruction term of the bound, nats", True, "generate"),
    "kl": Field("number", "KL term of the bound, nats", True, "generate"),
    "kl_per_step": Field("list", "KL term of each step, nats", True, "generate"),
    "bits_per_dimension": Field(
        "number", "the bound in bits per pixel and channel, of likelihoods", task="generate"
    ),
    "entropy_floor": Field("number", "least cross-entropy of grey pixels, nats", task="generate"),
    "above_floor": Field("number", "the bound above that floor, nats", task="generate"),
    "iw_bound": Field("number", "importance-weighted bound, nats", task="generate"),
    "iw_samples": Field("number", "its samples per image", task="generate"),
    "iw_images": Field("number", "its test images", task="generate"),
    "iw_standard_error": Field("number", "its standard error over images", task="generate"),
    "iw_effective_samples": Field("number", "its mean effective samples", task="generate"),
    "wrong_condition": Field("estimate", "bound under other images' captions", task="generate"),
    "held_out": Field("estimate", "bound of captions left out of training", task="generate"),
    "read": Field("estimate", "drawings with the right digits in place, %", task="generate"),
    "held_out_read": Field("estimate", "the same of held-out captions, %", task="generate"),
    "real_read": Field("estimate", "the same of test images: the ceiling, %", task="generate"),
    "held_out_real_read": Field("estimate", "of held-out test images, %", task="generate"),
}


def check_result(result: Any) -> None:
    """Check that a result has the fields of :data:`FIELDS`; it may have others as well.

    Raises:
        Problem: a field is missing, has the wrong type, or contradicts another.
    """
    if not isinstance(result, dict):
        raise Problem("a result must be a table of fields")
    tasks = ("", task := result.get("task"))
    required = [name for name, field in FIELDS.items() if field.required and field.task in tasks]
    if missing := [name for name in required if name not in result]:
        raise Problem(f"the result lacks {', '.join(missing)}")
    for name, field in FIELDS.items():
        value = result.get(name)
        if not (_is(field.kind, value) or (value is None and name not in required)):
            raise Problem(f"{name} must be a {field.kind}, got {configs.shown(value)}")
    metric = result["metric"]
    if METRICS.get(str(task)) != metric:
        raise Problem(f"task {task!r} does not go with metric {metric!r}")
    value, low, high = result["value"], result["low"], result["high"]
    if not low <= value <= high or (metric == ERROR and not 0 <= low <= high <= 100):
        raise Problem(f"value {value} does not go with the interval {low} to {high}")
    if result["n"] < 1:
        raise Problem(f"n must be at least 1, got {result['n']}")


def is_number(value: Any) -> bool:
    """Return whether a value from a file is a number that can be computed with; NaN is none."""
    return type(value) in (int, float) and abs(value) <= MAX_NUMBER


def _is(kind: str, value: Any) -> bool:
    if kind == "number":
        return is_number(value)
    if kind == "estimate":
        names = ("value", "low", "high", "n")
        return isinstance(value, dict) and all(_is("number", value.get(name)) for name in names)
    return isinstance(value, str if kind == "text" else list)


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        folder: the run folder.
        settings: by name, defaults filled in; without those of other models and data sets.
        result: ``result.json``.
        tables: those of :data:`TABLES` that are there, by file name.
    """

    folder: Path
    settings: dict[str, Any]
    result: dict[str, Any]
    tables: dict[str, "pd.DataFrame"]

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.folder)).name  # "." has none of its own

    @property
    def pointer(self) -> str:
        """The folder and its parent, such as ``published/draw-8``: no path of anybody's home."""
        return one_line("/".join(self.folder.absolute().parts[-2:]))

    @property
    def seed(self) -> int:
        return self.settings.get("seed") or 0

    @property
    def experiment(self) -> dict[str, Any]:
        """The settings that can change what is learned: no ``machine`` and no ``report``."""
        known = configs.settings(configs.TASKS[self.result["task"]])
        return {
            name: value
            for name, value in self.settings.items()
            if name not in known or known[name].role not in ("machine", "report")
        }

    @cached_property
    def environment(self) -> dict[str, Any]:
        """``environment.json``; empty where it cannot be read."""
        return read_environment(self.folder)

    def picture(self, name: str) -> Path | None:
        """Return the path of a file in ``figures``, if it exists."""
        path = self.folder / "figures" / name
        return path if path.is_file() else None


def read(folder: Path, say: Callable[[str], object]) -> Record:
    """Read the run in a folder.

    Args:
        say: told which tables are damaged; the run is read without them.

    Raises:
        Problem: it is no run folder, not finished, or its files are damaged or disagree.
    """
    settings = read_settings(folder)
    task, result_path = settings.pop("task"), folder / "result.json"
    if not result_path.is_file():
        raise Problem(
            f"{folder} is not finished: it has no result.json;"
            f" resume with: drawbench resume {folder}"
        )
    result = read_result(folder)
    own = {name: settings.get(name) for name in ("seed", "source")}
    if task in METRICS:  # evaluate measures models of either task
        own["task"] = task
    for name, value in own.items():
        if value not in (None, "auto", result.get(name)) and result.get(name) is not None:
            raise Problem(
                f"{result_path} and config.json disagree: {name} is {result[name]!r} there,"
                f" {value!r} here"
            )
    return Record(folder, settings, result, _tables(folder, say))


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the run in a folder by name, defaults filled in, and its ``task``.

    Raises:
        Problem: it is no run folder, or its configuration is damaged or trains no model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise Problem(f"{folder} is not a run folder: it has no config.json")
    config = _read(path, read_json)
    try:
        settings = configs.stored_settings(config)
    except Problem as problem:
        raise Problem(f"{path}: {problem}") from problem
    if config["task"] == configs.MakeData.task:
        raise Problem(f"{path} is the configuration of a data set, not of a model")
    return settings | {"task": config["task"]}


def read_result(folder: Path) -> dict[str, Any]:
    """Return ``result.json`` of the run in a folder.

    Raises:
        Problem: it is missing, damaged, or lacks a field.
    """
    path = folder / "result.json"
    result = _read(path, read_hashed)
    try:
        check_result(result)
    except Problem as problem:
        raise Problem(f"{path} is not a result: {problem}") from problem
    return result


def read_environment(folder: Path) -> dict[str, Any]:
    """Return ``environment.json`` of the run in a folder; empty where it cannot be read."""
    with suppress(Problem):
        content = _read(folder / "environment.json", read_json)
        return content if isinstance(content, dict) else {}
    return {}


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """Read a JSON file whose texts can be printed."""
    try:
        return printable(reader(path))
    except (ValueError, RecursionError) as error:
        raise Problem(f"{path} is nested too deep") from error


def _tables(folder: Path, say: Callable[[str], object]) -> dict[str, "pd.DataFrame"]:
    """Return the undamaged tables of a run folder; cells that are no finite numbers are missing."""
    import pandas as pd

    tables = {}
    for file, columns in TABLES.items():
        path = folder / file
        if not path.is_file():
            continue
        try:
            frame = pd.read_csv(io.StringIO(read_text(path)))
            frame = frame.apply(pd.to_numeric, errors="coerce")
            tables[file] = frame.where(frame.abs() < math.inf).dropna(subset=list(columns))
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            say(
                f"Left out: {one_line(str(path))} is not a table with the columns"
                f" {', '.join(columns)} ({type(error).__name__})."
            )
    return tables


def find(places: Iterable[Path], say: Callable[[str], object]) -> list[Record]:
    """Return the finished runs in some places, each a run folder or a folder of run folders.

    A run is left out, and ``say`` is told why, if it cannot be used, has the name of another, or
    repeats the settings and the seed of another.
    """
    records: list[Record] = []
    for folder in itertools.chain.from_iterable(map(folders, places)):
        try:
            record = read(folder, say)
            _refuse_double(record, records)
        except Problem as problem:
            say(f"Left out: {problem}.")
        else:
            records.append(record)
    return records


def folders(place: Path) -> list[Path]:
    """Return the run folder that a place is, or the folders in it, which may be runs."""
    if (place / "config.json").exists():
        return [place]
    return sorted(
        path
        for path in place.iterdir()
        if path.is_dir() and path.name[0] != "." and path.name != LOGS
    )


def _refuse_double(record: Record, others: list[Record]) -> None:
    for other in others:
        if other.folder.resolve() == record.folder.resolve():
            raise Problem(f"{record.folder} is named twice")
        if other.name == record.name:
            raise Problem(f"{record.folder} has the name of {other.folder}; rename one of the two")
        about = [
            ([run.result.get(name) for name in ("model", "dataset", "test_sha256")], run.experiment)
            for run in (record, other)
        ]
        if about[0] == about[1]:
            raise Problem(
                f"{record.folder} has the settings and the seed of {other.folder}, so it is no"
                " further evidence"
            )
