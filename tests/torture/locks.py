"""Two processes on one run folder, or that begin at once; and locks that the dead leave behind."""

import json
import signal
import time

from . import harness
from .harness import Case, Place, Reference, Tally

COUNT = 16


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    task = harness.TASKS[case.number % 2]
    harms = (second_is_refused, same_name_at_once, same_data_at_once, lock_of_the_dead)
    harms[(case.number // 2) % len(harms)](case, place, task, references[task], tally)


def second_is_refused(
    case: Case, place: Place, task: str, reference: Reference, tally: Tally
) -> None:
    words, share = harness.command(task), case.chance().uniform(0, 0.8)
    tally.about = f"{case.again} ({task}, a second process comes after {100 * share:.1f} % of the life of the first)"
    first = place.start(words)
    if first.wait_for(
        lambda: (place.run / "config.json").exists() and first.cpu() > share * reference.seconds
    ):
        first.send(
            signal.SIGSTOP
        )  # or it might end before the other begins, which then rightly makes the run anew
        refused(tally, first, place.call([*words, "--force"]))
        first.send(signal.SIGCONT)
    refused(tally, first, place.call(harness.RESUME))
    ended = first.ended()
    harness.no_traceback(tally, ended)
    tally.check(ended.status == 0, f"the first was disturbed: {ended.err[-600:]}")
    harness.finish(tally, place, words, reference)


def refused(tally: Tally, first: harness.Process, second: harness.Ended) -> None:
    """That the second was refused in a sentence, if the first is still there."""
    tally.tried += 1
    if first.alive():
        harness.said_once(tally, second)
        tally.check(
            "another process" in second.err,
            f"the second is not refused for the first: {second.err[-300:]}",
        )


def same_name_at_once(
    case: Case, place: Place, task: str, reference: Reference, tally: Tally
) -> None:
    tally.about = f"{case.again} ({task}, two of one name begin at once)"
    tally.tried += 1
    (place.folder / "datasets").symlink_to(reference.folder / "datasets")  # which would come first
    words = harness.command(task)
    processes = [place.start(words)]
    time.sleep(case.chance().uniform(0, 0.05))
    processes.append(place.start(harness.command(task, seed=1)))
    ended = [process.ended() for process in processes]
    if not tally.check(
        sorted(process.status for process in ended) == [0, 1], f"they ended with {ended}"
    ):
        return
    harness.said_once(tally, next(process for process in ended if process.status))
    seeds = (
        json.loads((place.run / "config.json").read_text())["training"]["seed"],
        json.loads((place.run / "result.json").read_text())["seed"],
    )
    winner = int(ended[1].status == 0)
    tally.check(
        seeds == (winner, winner),
        f"the run of seed {winner} has seeds {seeds} in its files",
        "silent",
    )
    if winner == 0:
        harness.finish(tally, place, words, reference)


def same_data_at_once(
    case: Case, place: Place, task: str, reference: Reference, tally: Tally
) -> None:
    """Two that make the same data set at the same time, each with a run of its own."""
    words = harness.command("classify")
    tally.about = f"{case.again} (two make one data set at once)"
    tally.tried += 1
    other = Place(place.folder.parent / f"{place.folder.name}-other", place.pictures)
    (place.folder / "datasets").mkdir()
    (other.folder / "datasets").symlink_to(place.folder / "datasets")
    processes = [each.start(words) for each in (place, other)]
    for each, process in zip((place, other), processes, strict=True):
        ended = process.ended()
        harness.no_traceback(tally, ended)
        if tally.check(ended.status == 0, f"one got in the other's way: {ended.err[-600:]}"):
            different = harness.differences(each.run, place.run)
            tally.check(not different, f"they differ in {', '.join(different)}")
    tally.check(not harness.strays(place), f"left behind: {harness.strays(place)}", "strays")


def lock_of_the_dead(
    case: Case, place: Place, task: str, reference: Reference, tally: Tally
) -> None:
    """A lock that is a file with something in it, and temporary files of a process that is long
    gone.
    """
    words = harness.command(task)
    tally.about = f"{case.again} ({task}, what the dead left)"
    tally.tried += 1
    place.run.mkdir(parents=True)
    for name in (".lock", ".config.json.12345.tmp", ".fresh-last.safetensors.12345.tmp"):
        (place.run / name).write_text("12345")
    harness.finish(tally, place, words, reference)
