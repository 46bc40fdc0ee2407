"""All cases of a campaign, in workers."""

import importlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from . import harness
from .harness import Case, Reference, Tally

SHORTEST = {"steps": 36, "evaluate-every": 12, "save-every": 4}  # for tests
HARMS = ("kills", "signals", "disk", "damage", "locks", "numbers", "ranks", "endurance")
ALONE = ("endurance",)  # is timed, so nothing runs beside it
# Of all processes: with more threads they could not fork, and sums of floats would come in another
# order.
SINGLE = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def pool(workers: int) -> ProcessPoolExecutor:
    """Workers that have loaded the libraries, once for all that they start, and have a single
    thread, so that they can fork.
    """
    spawned = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, spawned, importlib.import_module, (f"{__package__}.warm",))


def shorten() -> None:
    """Let trainings be as short as they can in this process and those that it forks."""
    for settings in harness.SETTINGS.values():
        settings |= SHORTEST


References = dict[tuple[str, bool], Reference]  # by task, and whether with pictures


def refer(folder: Path, pictures: tuple[bool, ...] = (True, False)) -> References:
    """The uninterrupted runs; with pictures also one from the very beginning, to know how long that
    takes and that it is no other.
    """
    references = {
        (task, drawn): harness.refer(folder / f"{task}-{drawn}", task, drawn)
        for task in harness.TASKS
        for drawn in pictures
    }
    if True not in pictures:
        return references
    place, first = harness.Place(folder / "cold"), references["classify", True]
    ended = place.call(harness.command("classify"), cold=True)
    if ended.status or harness.differences(place.run, first.folder / harness.RUN):
        raise RuntimeError(f"python cli.py and a fork do not give the same: {ended.err}")
    loading = max(0.0, ended.seconds - first.seconds)
    return {key: replace(found, cold=found.seconds + loading) for key, found in references.items()}


def one(case: Case, folder: Path, references: References, **size: int) -> Tally:
    """A case, in a worker; ``size`` may make it smaller than it is in a campaign."""
    tally, drawn = Tally(about=case.again), case.pictures and ("classify", True) in references
    mine = {task: references[task, drawn] for task in harness.TASKS}
    with harness.fresh_place(folder / f"{case.harm}-{case.number:04}", drawn, tally) as place:
        try:
            importlib.import_module(f".{case.harm}", __package__).run(
                case, place, mine, tally, **size
            )
        except (
            Exception
        ) as error:  # a fault of the harness is one to report too, not one that ends the campaign
            tally.fault(f"the case itself broke: {type(error).__name__}: {error}")
    return tally


def chosen(harms: list[str], kills: int, share: float, seed: int) -> list[Case]:
    """The cases of a campaign."""
    cases = []
    for harm in harms:
        whole = kills if harm == "kills" else importlib.import_module(f".{harm}", __package__).COUNT
        cases += [Case(harm, number, seed) for number in range(max(1, round(whole * share)))]
    return cases


def campaign(
    cases: list[Case], folder: Path, workers: int, say: Callable[[str], object]
) -> dict[str, Tally]:
    """Go through cases; what came of them, by harm. ``say`` is told of each that is done."""
    tallies: dict[str, Tally] = {}
    with pool(workers) as executor:
        references = executor.submit(refer, folder / "reference").result()
        for together in (
            [case for case in cases if case.harm not in ALONE],
            [case for case in cases if case.harm in ALONE],
        ):
            waiting = {executor.submit(one, case, folder, references): case for case in together}
            for number, done in enumerate(as_completed(waiting), start=1):
                case, tally = waiting[done], done.result()
                tallies.setdefault(case.harm, Tally()).add(tally)
                say(
                    "\n".join(
                        [
                            f"{number} of {len(together)}: {case.harm} {case.number}",
                            *(f"FAULT {fault}" for fault in tally.faults),
                        ]
                    )
                )
    return {harm: tallies[harm] for harm in HARMS if harm in tallies}
