"""Studies: readable lists of runs, such as all behind a table, and the plan to carry them out.

A study is a TOML file in this folder, or the user's own::

    title = "Table 1"

    [[run]]
    name = "draw-8"              # of the folder of its first seed; the others' end in -seedN
    task = "classify"
    recipe = "paper-8"
    seeds = [0, 1, 2]            # [0] if left out
    start = "draw-4"             # another run of the study whose weights are the initial ones
    settings = { distortion = 0.5 }
    evaluate = { clutter = "0..32..4" }
"""

import itertools
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from drawbench import config as configs
from drawbench import records
from drawbench.config.fields import nearest
from drawbench.errors import Problem, reason

KEYS = ("name", "task", "recipe", "seeds", "start", "settings", "evaluate")
TASKS = ("classify", "generate")  # commands that train
CONDITIONS = ("clutter", "canvas", "glimpses")  # to evaluate under
MIN_STEPS = 10  # of a rehearsal
UNCHECKED = ("start", "epochs", "time_budget")  # a path, and lengths that become steps


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        name: of the run's folder.
        task: the command that trains it.
        settings: what is set besides the recipe, the seed included.
        start: the name of the run that it starts from, if any.
        evaluate: conditions to measure under after training, with their values.
        folder: where it is or will be.
        state: ``finished``, ``half-done`` or ``to do``.
        minutes: core-minutes that training should take; None where nothing comparable is known.
        extras: other words of the command that trains it.
    """

    name: str
    task: str
    recipe: str | None
    settings: dict[str, Any]
    start: str | None
    evaluate: dict[str, str]
    folder: Path
    state: str = "to do"
    minutes: float | None = None
    extras: tuple[str, ...] = ()

    @property
    def config(self) -> Any:
        """Its configuration, with ``auto`` where the data are to decide."""
        kind = configs.TASKS[self.task]
        sections = configs.load_recipe(self.recipe) if self.recipe else {}
        sections.pop("task", None)
        return configs.merge(kind, configs.under(sections, self.settings), self.settings)

    def measured(self) -> bool:
        """Return whether the conditions to evaluate have been measured."""
        return all((self.folder / f"error_against_{name}.csv").is_file() for name in self.evaluate)

    @property
    def done(self) -> bool:
        return self.state == "finished" and self.measured()


def numbers(text: str) -> list[int]:
    """Return the whole numbers of a list: ``8``, ``0,4,8`` or ``0..32..4`` (from, to, step).

    Raises:
        ValueError: it is no such list, or one of more than 1,000 numbers.
    """
    found: list[int] = []
    try:
        for part in text.split(","):
            first, *rest = (int(word) for word in part.split(".."))
            last, step = (*rest, 1)[:2] if rest else (first, 1)
            if len(rest) > 2 or last < first or step < 1 or (last - first) // step > 1000:
                raise ValueError
            found += range(first, last + 1, step)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a list of whole numbers such as 0,4,8 or 0..32..4"
        ) from None
    return sorted(set(found))


def names() -> list[str]:
    """Return the names of the studies that come with the package."""
    folder = resources.files("drawbench.studies")
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def load(name: str) -> list[dict[str, Any]]:
    """Return the runs of a study: the name of one in the package, ``all`` of them, or a TOML file.

    Raises:
        Problem: there is no such study, or it is not valid.
    """
    if name == "all":
        runs: dict[str, dict[str, Any]] = {}
        for study in names():
            for run in load(study):
                known = runs.setdefault(run["name"], run)
                known["evaluate"] = known["evaluate"] | run["evaluate"]
                known["seeds"] = list(dict.fromkeys(known["seeds"] + run["seeds"]))
        return list(runs.values())
    if name in names():
        path: Any = resources.files("drawbench.studies") / f"{name}.toml"
    elif Path(name).is_file():
        path = Path(name)
    else:
        raise Problem(
            f"there is no study {name!r}{nearest(name, [*names(), 'all'])}; "
            f"give a TOML file or one of {', '.join([*names(), 'all'])}"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # also text that is no UTF-8
        raise Problem(f"study {name} is not valid TOML: {reason(error)}") from error
    if not isinstance(content.get("run"), list) or not content["run"]:
        raise Problem(f"study {name} lists no [[run]]")
    checked = [_checked(run, name) for run in content["run"]]
    listed = [run["name"] for run in checked]
    for run in checked:
        if listed.count(run["name"]) > 1:
            raise Problem(
                f"study {name} lists {run['name']!r} more than once; name its seeds together"
            )
        if run["start"] not in (None, *listed):
            hint = nearest(run["start"], listed)
            raise Problem(
                f"study {name}: {run['name']} starts from {run['start']!r}, no run of it{hint}"
            )
    return checked


def _checked(run: dict[str, Any], study: str) -> dict[str, Any]:
    """Return a run of a study with its defaults."""
    if not isinstance(run, dict):
        raise Problem(f"study {study}: a run is a table [[run]], got {run!r}")
    for key in run:
        if key not in KEYS:
            raise Problem(f"study {study}: a run has no {key!r}{nearest(key, KEYS)}")
    for key in ("name", "task", "recipe"):
        if not isinstance(run.get(key), str):
            raise Problem(f"study {study}: every run needs a {key!r}, got {run!r}")
    if run["task"] not in TASKS:
        raise Problem(
            f"study {study}: {run['name']} has the task {run['task']!r}, which trains nothing"
        )
    if Path(run["name"]).name != run["name"] or run["name"].startswith("."):
        raise Problem(f"study {study}: a run's name is one plain word, got {run['name']!r}")
    complete: dict[str, Any] = {"seeds": [0], "start": None, "settings": {}, "evaluate": {}} | run
    _check_values(complete, f"study {study}: {run['name']}")
    return complete


def _check_values(run: dict[str, Any], name: str) -> None:
    """Check what a run of a study may leave out, and its recipe."""
    seeds, start, evaluate = run["seeds"], run["start"], run["evaluate"]
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise Problem(f"{name} needs seeds such as [0, 1, 2], each once, got {seeds!r}")
    if start is not None and not isinstance(start, str):
        raise Problem(f"{name} starts from the name of another run, got {start!r}")
    if not isinstance(run["settings"], dict) or "seed" in run["settings"]:
        raise Problem(
            f"{name} needs settings such as {{ distortion = 0.5 }}, and its seeds in seeds"
        )
    if not isinstance(evaluate, dict) or not all(isinstance(v, str) for v in evaluate.values()):
        raise Problem(f'{name} is measured under conditions such as {{ clutter = "0..32..4" }}')
    for condition, values in evaluate.items():
        if condition not in CONDITIONS or run["task"] != "classify":
            hint = nearest(condition, CONDITIONS) if run["task"] == "classify" else ""
            raise Problem(f"{name} cannot be measured against {condition!r}{hint}")
        try:
            numbers(values)
        except ValueError as error:
            raise Problem(f"{name}: {condition} {error}") from error
    if configs.load_recipe(run["recipe"]).get("task", run["task"]) != run["task"]:
        raise Problem(f"{name}: the recipe {run['recipe']} is not one of drawbench {run['task']}")


def plan(
    runs: Iterable[dict[str, Any]],
    root: Path,
    published: Path,
    *,
    seeds: int | None = None,
    only: Iterable[str] = (),
    scale: float = 1.0,
    check: bool = True,
) -> list[Job]:
    """Return the jobs of a study, with their state and the time that they should take.

    Args:
        root: folder of run folders.
        published: folder of finished runs to take times from; it may be missing.
        seeds: train so many seeds of every run: the study's, then the smallest others.
        only: names of runs; all if empty. What they start from is added.
        scale: factor on the length of every training, for a rehearsal.
        check: look at the folders that are there; else every run is to do.

    Raises:
        Problem: a name is unknown, a setting is wrong, or a folder holds another run.
    """
    by_name = {run["name"]: run for run in runs}
    for name in only:
        if name not in by_name:
            raise Problem(f"the study has no run {name!r}{nearest(name, by_name)}")
    chosen = set(only) or set(by_name)
    while (
        needed := {by_name[n]["start"] for n in chosen if by_name[n]["start"] in by_name} - chosen
    ):
        chosen |= needed
    jobs = [
        _job(run, seed, root, published, scale, check)
        for name, run in by_name.items()
        if name in chosen
        for seed in _seeds(run["seeds"], seeds)
    ]
    order = {job.name: job for job in jobs}
    if len(order) < len(jobs):
        (name, _), *_ = Counter(job.name for job in jobs).most_common()
        raise Problem(f"two runs of the study would have the folder {name}: rename one")
    return sorted(jobs, key=lambda job: _depth(job, order))


def _depth(job: Job, jobs: dict[str, Job]) -> int:
    """How many runs must be trained before this one."""
    depth = 0
    while job.start in jobs:
        job, depth = jobs[job.start], depth + 1
        if depth > len(jobs):
            raise Problem(f"run {job.name} starts from itself")
    return depth


def _seeds(own: list[int], number: int | None) -> list[int]:
    """Return the seeds of a run, or a number of them: its own, then the smallest others."""
    if number is None:
        return own
    others = (seed for seed in itertools.count() if seed not in own)
    return list(itertools.islice(itertools.chain(own, others), number))


def _job(
    run: dict[str, Any], seed: int, root: Path, published: Path, scale: float, check: bool
) -> Job:
    settings = {**run["settings"], "seed": seed}
    start = run["start"]
    if start is not None:
        settings["start"] = str(root / start)
    unmarked = run.get("unmarked", run["seeds"][0])  # a study does not say, `classify --seeds` does
    name = run["name"] if seed == unmarked else f"{run['name']}-seed{seed}"
    job = Job(name, run["task"], run["recipe"], settings, start, run["evaluate"], root / name)
    try:
        training = job.config.training
    except Problem as error:
        raise Problem(f"run {run['name']}: {error}") from error
    if scale != 1:
        first = {name: re.split(r"\.\.|,", values)[0] for name, values in job.evaluate.items()}
        shrunk = settings | _rehearsed(training, scale)
        job = replace(job, settings=shrunk, evaluate=first)
    state = _state(job) if check else "to do"
    return replace(job, state=state, minutes=_minutes(job, run["name"], published))


def _rehearsed(training: Any, scale: float) -> dict[str, Any]:
    """Return the settings that shrink a training."""
    if training.steps is None:
        raise Problem("--scale needs runs with a number of steps")
    steps = max(MIN_STEPS, round(training.steps * scale))
    shrunk = {"steps": steps, "evaluate_every": steps, "warmup": round(training.warmup * scale)}
    for name in ("iw_samples", "iw_images"):
        if getattr(training, name, None) is not None:
            shrunk[name] = max(2, round(getattr(training, name) * scale))
    return shrunk


def _state(job: Job) -> str:
    if not (job.folder / "config.json").is_file():
        return "to do"
    expected = configs.to_dict(job.config)
    found = records.read_settings(job.folder)
    known = configs.settings(configs.TASKS[job.task])
    for section in ("data", "model", "training"):
        for name, value in expected[section].items():
            role = known[name].role if name in known else "model"
            given = role in ("model", "experiment") and value not in (None, "auto")
            if given and name not in UNCHECKED and found.get(name) != value:
                raise Problem(
                    f"{job.folder} holds another run: its {name} is {found.get(name)!r}, but here "
                    f"it is {value!r}; name another place with --runs DIR"
                )
    return progress(job.folder)


def progress(folder: Path) -> str:
    """Return how far the run in a folder is: ``finished``, ``half-done`` or ``to do``."""
    if (folder / "result.json").is_file():
        return "finished"
    return "half-done" if (folder / "config.json").is_file() else "to do"


def _minutes(job: Job, name: str, published: Path) -> float | None:
    """Estimate core-minutes from the published run of this name, unless a GPU trained it."""
    try:
        record = records.read(published / name, lambda sentence: None)
    except (Problem, OSError):
        return None
    steps, seconds = record.result.get("steps"), record.result.get("train_seconds")
    on_cores = record.environment.get("device") == "cpu"
    if not steps or not seconds or not on_cores or job.config.training.steps is None:
        return None
    return seconds / 60 * job.config.training.steps / steps


def arguments(job: Job) -> list[str]:
    """Return the command line, after ``drawbench``, that trains a job or resumes it."""
    if job.state == "half-done":
        return ["resume", str(job.folder)]
    words = [job.task, "--run", job.folder.name, "--runs", str(job.folder.parent), *job.extras]
    words += ["--recipe", job.recipe] if job.recipe else []
    for name, value in job.settings.items():
        flag = name.replace("_", "-")
        if name == "arguments":  # of a model of the user's own
            words += [word for key in value for word in ("--set", f"{key}={value[key]}")]
        elif isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words


def user_code(job: Job) -> list[str]:
    """Return what a job's settings name of a user's own code, as ``module:factory``."""
    named = (job.config.model.model, job.config.data.dataset)
    return [name for name in named if ":" in name]


def evaluation(job: Job) -> list[str]:
    """Return the command line that measures a finished job under its conditions."""
    words = ["evaluate", str(job.folder), "--out", str(job.folder)]
    for condition, values in job.evaluate.items():
        words += [f"--{condition}", values]
    return words


def environment() -> dict[str, str]:
    """Return the environment of a job's command: ours, without settings of commands, which would
    change what a recipe says.
    """
    ours = tuple(f"DRAWBENCH_{task.upper()}_" for task in TASKS)
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def command(job: Job) -> list[str]:
    """Return the command line of what a job needs next: training, resuming or measuring."""
    return evaluation(job) if job.state == "finished" else arguments(job)


def renewed(job: Job) -> Job:
    """Return a job in its state now."""
    return replace(job, state=progress(job.folder))


def comparison(jobs: Iterable[Job], published: Path) -> list[dict[str, Any]]:
    """Return a row for each finished job that has a published run: is it within the interval?"""
    rows = []
    for job in jobs:
        try:
            ours = records.read(job.folder, lambda sentence: None)
            theirs = records.read(published / job.name, lambda sentence: None).result
        except (Problem, OSError):
            continue
        value = ours.result["value"]
        rows.append(
            {
                "run": job.name,
                "value": value,
                "published": theirs["value"],
                "low": theirs["low"],
                "high": theirs["high"],
                "within": bool(theirs["low"] <= value <= theirs["high"]),
            }
        )
    return rows
