"""The cases of a campaign, run in worker processes."""

import contextlib
import importlib
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import (
    checks,
    damage,
    disk,
    endurance,
    interruptions,
    locks,
    numbers,
    ranks,
    shared,
    surroundings,
)
from .checks import Case, Tally
from .processes import RUN, SETTINGS, TASKS, Place, Reference, at_operation, command


class Harm(NamedTuple):
    """A kind of fault, and how many cases of it a full campaign has."""

    title: str
    run: Callable
    count: int


HARMS = {
    "kills": Harm("killed (SIGKILL)", interruptions.kills, 200),
    "signals": Harm("stopped (SIGTERM, SIGINT), chains of five", interruptions.signals, 36),
    "disk": Harm("disk full, failing, read-only, gone", disk.run, disk.COUNT),
    "damage": Harm("files cut short or changed in a byte", damage.run, damage.COUNT),
    "locks": Harm("two processes on one folder", locks.run, locks.COUNT),
    "numbers": Harm("NaN and infinity", numbers.run, numbers.COUNT),
    "ranks": Harm("one process of two killed", ranks.run, ranks.COUNT),
    "shared": Harm("finished, exported and strangers' runs", shared.run, shared.COUNT),
    "surroundings": Harm("changed data, foreign settings", surroundings.run, surroundings.COUNT),
    "endurance": Harm("20,000 updates, a save every 50", endurance.run, endurance.COUNT),
}
ALONE = ("endurance",)  # timed, so nothing runs beside it
# With more threads processes could not fork, and sums of floats would change their order.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
SHORTEST = {"steps": 36, "evaluate-every": 12, "checkpoint-every": 4}  # for tests
References = dict[tuple[str, bool], Reference]  #: by task, and whether figures are drawn


def warm() -> None:
    """Load what every command loads, for all processes that a worker forks."""
    for name in ("classify", "generate", "resume", "evaluate", "export", "tables", "compare"):
        importlib.import_module(f"drawbench.cli.{name}")
    drawbench = "drawbench.figures drawbench.tasks.classify drawbench.tasks.generate"
    others = "matplotlib.backends.backend_agg PIL.GifImagePlugin PIL.PngImagePlugin pandas"
    more = "safetensors.torch sklearn.datasets sklearn.metrics torch._dynamo"  # the last: by AdamW
    for name in f"{drawbench} {others} {more}".split():
        importlib.import_module(name)


@contextlib.contextmanager
def clean_environment():
    """Set one thread for all processes and hide the settings of the person who runs this."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("DRAWBENCH_") or name == "WORLD_SIZE":
            del os.environ[name]
    os.environ |= ONE_THREAD
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def pool(workers: int) -> ProcessPoolExecutor:
    """Return workers that have loaded the libraries and have a single thread, so can fork."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), warm)


def shorten() -> None:
    """Make the trainings of this process and its forks as short as they can be."""
    for settings in SETTINGS.values():
        settings |= SHORTEST


def make_reference(folder: Path, task: str, pictures: bool) -> Reference:
    """Make the uninterrupted run of a task."""
    place, log = Place(folder, pictures), folder.with_name(f"{folder.name}.operations")
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def note(kind: str, path: str) -> None:
        os.write(descriptor, f"{kind} {path}\n".encode())

    ended = place.call(command(task), before=at_operation(0, note))
    os.close(descriptor)
    if ended.status:
        raise RuntimeError(f"the uninterrupted run failed: {ended.err}")
    return Reference(folder, ended.seconds, ended.seconds, log.read_text().splitlines())


def make_references(folder: Path, pictures: tuple[bool, ...] = (True, False)) -> References:
    """Make the uninterrupted runs.

    With pictures also one by ``python cli.py``, to time the loading and to check that a fork gives
    the same.
    """
    references = {
        (task, drawn): make_reference(folder / f"{task}-{drawn}", task, drawn)
        for task in TASKS
        for drawn in pictures
    }
    if True not in pictures:
        return references
    place, first = Place(folder / "cold"), references["classify", True]
    ended = place.call(command("classify"), cold=True)
    if ended.status or (different := checks.differences(place.run, first.folder / RUN)):
        raise RuntimeError(f"python cli.py and a fork differ: {ended.err or different}")
    loading = max(0.0, ended.seconds - first.seconds)
    return {key: replace(run, cold=run.seconds + loading) for key, run in references.items()}


def run_case(case: Case, folder: Path, references: References, **size: Any) -> Tally:
    """Run a case in a worker; ``size`` may make it smaller. Its folder stays if it has faults."""
    tally, drawn = Tally(about=case.repeat), case.whole and ("classify", True) in references
    place = Place(folder / f"{case.harm}-{case.number:04}", drawn)
    try:
        mine = {task: references[task, drawn] for task in TASKS}
        HARMS[case.harm].run(case, place, mine, tally, **size)
    except Exception as error:  # a fault of the harness is reported and ends only this case
        tally.fault(f"the case itself broke: {type(error).__name__}: {error}")
    if not tally.faults:
        for path in folder.glob(f"{place.folder.name}*"):
            shutil.rmtree(path)
    return tally


def choose(harms: list[str], share: float, seed: int) -> list[Case]:
    """Return the cases of a campaign: this share of each harm's, at least one."""
    return [
        Case(harm, number, seed)
        for harm in harms
        for number in range(max(1, round(HARMS[harm].count * share)))
    ]


def campaign(
    cases: list[Case], folder: Path, workers: int, say: Callable[[str], object]
) -> dict[str, Tally]:
    """Run cases and return their tallies by harm; ``say`` is told of each case."""
    tallies: dict[str, Tally] = {}
    with clean_environment(), pool(workers) as executor:
        references = executor.submit(make_references, folder / "reference").result()
        for together in (
            [case for case in cases if case.harm not in ALONE],
            [case for case in cases if case.harm in ALONE],
        ):
            run = partial(executor.submit, run_case)
            waiting = {run(case, folder, references): case for case in together}
            for number, done in enumerate(as_completed(waiting), start=1):
                case, tally = waiting[done], done.result()
                tallies.setdefault(case.harm, Tally()).add(tally)
                faults = [f"FAULT {fault}" for fault in tally.faults]
                head = f"{number} of {len(together)}: {case.harm} {case.number}"
                say("\n".join([head, *faults]))
    return {harm: tallies[harm] for harm in HARMS if harm in tallies}
