"""Finished runs, exported runs, and run folders from strangers.

``resume`` leaves a finished run as it is, also a copy without states, and no command follows a link
out of a run folder to write.
"""

import shutil
from pathlib import Path

from . import checks
from .checks import Case, Tally
from .processes import RESUME, RUN, TASKS, Place, Reference, command, interrupt

COUNT = 16
#: What a stranger may have replaced by a link to a file or folder of yours.
LINKS = ("figures", "metrics.csv", "result.json", "environment.json", "test.npz", ".lock")
LINKS += ("last.safetensors", "previous.safetensors", "best.safetensors")
LINKS += (".fresh-last.safetensors",)


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    task = TASKS[case.number % 2]
    harms = (finished, exported, links_in_finished, links_in_unfinished)
    harm = harms[(case.number // 2) % len(harms)]
    tally.about = f"{case.repeat} ({task}, {harm.__doc__.strip().rstrip('.')})"
    tally.tried += 1
    harm(case, place, task, references[task], tally)


def finished(case, place, task, reference, tally) -> None:
    """A finished run is resumed."""
    place.fill(reference.folder)
    before = checks.snapshot(place.run)
    checks.finish(tally, place, command(task), reference)
    tally.check(checks.snapshot(place.run) == before, "the finished run has changed", "silent")


def exported(case, place, task, reference, tally) -> None:
    """An exported run, which has no states, is resumed."""
    place.fill(reference.folder)
    checks.succeeded(tally, place.call(["export", str(RUN), "copy"]))
    copy = place.folder / "copy"
    tally.check(not (copy / "last.safetensors").exists(), "the states were exported")
    before = checks.snapshot(copy)
    ended = place.call(["resume", "copy"])
    if ended.status:
        checks.explained(tally, ended)
    else:
        checks.no_traceback(tally, ended)
    tally.check(checks.snapshot(copy) == before, "the exported run has changed", "silent")


def links_in_finished(case, place, task, reference, tally) -> None:
    """A finished run holds links to files outside."""
    place.fill(reference.folder)
    _with_links(case, place, tally)


def links_in_unfinished(case, place, task, reference, tally) -> None:
    """An unfinished run holds links to files outside."""
    interrupt(place, command(task), reference)
    _with_links(case, place, tally)


def _with_links(case: Case, place: Place, tally: Tally) -> None:
    """Replace some files by links and check that no command writes through them."""
    outside = place.folder / "outside"
    outside.mkdir()
    names = case.chance().sample(LINKS, 3)
    tally.about += f" as {', '.join(names)}"
    for name in names:
        _link(place.run / name, outside / name)
    before = checks.snapshot(outside)
    for words in (RESUME, ["evaluate", str(RUN)], ["plot", str(RUN)]):
        ended = place.call(words)
        if ended.status:
            checks.explained(tally, ended)
        else:
            checks.no_traceback(tally, ended)
        after = checks.snapshot(outside)
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        wrote = f"{words[0]} wrote outside: {', '.join(changed)}"
        if not tally.check(not changed, wrote, "silent"):
            break


def _link(path: Path, target: Path) -> None:
    """Move a file or folder out and leave a link in its place."""
    if path.exists():
        shutil.move(path, target)
    elif path.suffix:
        target.write_bytes(b"precious")
    else:
        target.mkdir()
    path.symlink_to(target)
