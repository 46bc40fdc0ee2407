"""Two processes on one run folder, two that begin at once, and what dead processes leave behind."""

import json
import signal
import time

from . import checks
from .checks import Case, Tally
from .processes import RESUME, TASKS, Ended, Place, Process, Reference, command

COUNT = 12


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    task = TASKS[case.number % 2]
    harms = (second_is_refused, same_name_at_once, same_data_at_once, left_by_the_dead)
    harm = harms[(case.number // 2) % len(harms)]
    tally.about = f"{case.repeat} ({task}, {harm.__doc__.strip().rstrip('.')})"
    harm(case, place, task, references[task], tally)


def second_is_refused(case, place, task, reference, tally) -> None:
    """A second process comes while the first is at work."""
    words, share = command(task), case.chance().uniform(0, 0.8)
    first = place.start(words)
    begun = place.run / "config.json"
    if first.wait_for(lambda: begun.exists() and first.cpu() > share * reference.seconds):
        first.send(signal.SIGSTOP)  # it must not end before the second begins
        _refused(tally, first, place.call([*words, "--force"]))
        first.send(signal.SIGCONT)
    _refused(tally, first, place.call(RESUME))
    checks.succeeded(tally, first.ended())
    checks.finish(tally, place, words, reference)


def _refused(tally: Tally, first: Process, second: Ended) -> None:
    """Check that the second was refused in a sentence, if the first is still there."""
    tally.tried += 1
    if first.alive() and checks.explained(tally, second):
        tally.check("another process" in second.err, f"not for the first: {second.err[-300:]}")


def same_name_at_once(case, place, task, reference, tally) -> None:
    """Two runs of one name begin at once."""
    tally.tried += 1
    (place.folder / "datasets").symlink_to(reference.folder / "datasets")  # made beforehand
    processes = [place.start(command(task))]
    time.sleep(case.chance().uniform(0, 0.05))
    processes.append(place.start(command(task, seed=1)))
    ended = [process.ended() for process in processes]
    if not tally.check(sorted(end.status for end in ended) == [0, 1], f"they ended with {ended}"):
        return
    checks.explained(tally, next(end for end in ended if end.status))
    winner = int(ended[1].status == 0)
    config = json.loads((place.run / "config.json").read_text())["training"]["seed"]
    result = json.loads((place.run / "result.json").read_text())["seed"]
    seeds = f"seed {winner} won, the files say {config} and {result}"
    tally.check(config == result == winner, seeds, "silent")
    if winner == 0:
        checks.finish(tally, place, command(task), reference)


def same_data_at_once(case, place, task, reference, tally) -> None:
    """Two make the same data set at once, each for its own run."""
    tally.tried += 1
    other = Place(place.folder.with_name(f"{place.folder.name}-other"), place.pictures)
    (place.folder / "datasets").mkdir()
    (other.folder / "datasets").symlink_to(place.folder / "datasets")
    words, places = command("classify"), (place, other)
    processes = [each.start(words) for each in places]
    for each, process in zip(places, processes, strict=True):
        if checks.succeeded(tally, process.ended()):
            different = checks.differences(each.run, place.run)
            tally.check(not different, f"they differ in {', '.join(different)}")
    left = checks.strays(place)
    tally.check(not left, f"left behind: {left}", "strays")


def left_by_the_dead(case, place, task, reference, tally) -> None:
    """A dead process left a lock file and temporary files."""
    tally.tried += 1
    place.run.mkdir(parents=True)
    for name in (".lock", ".config.json.12345.tmp", ".fresh-last.safetensors.12345.tmp"):
        (place.run / name).write_text("12345")
    checks.finish(tally, place, command(task), reference)
