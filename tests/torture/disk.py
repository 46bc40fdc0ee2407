"""A disk that is full from some moment on, fails one write half way, cannot be written, or loses
the run folder.
"""

import os
import resource
import shutil
import subprocess
from pathlib import Path

from . import harness
from .harness import RUN, Case, Place, Reference, Tally

COUNT = 48
SOME = (0, 50, 150)  # bytes that are still written; less than any file has


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    task = harness.TASKS[case.number % 2]
    harms = (full, fails_once, small_disk, sealed, gone, sealed_from_the_start)
    harms[(case.number // 2) % len(harms)](case, place, task, references[task], tally)


def _held_to(
    tally: Tally, place: Place, ended: harness.Ended, words: list[str], reference: Reference
) -> None:
    """An error, said once; nothing lost; and once the disk works again, it goes on."""
    tally.tried += 1
    harness.said_once(tally, ended)
    harness.intact(tally, place)
    harness.finish(tally, place, words, reference)


def _limit(size: int) -> None:
    """No file of this process may grow beyond ``size`` bytes: a write gets as far as that, and the
    next one fails.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def full(case: Case, place: Place, task: str, reference: Reference, tally: Tally) -> None:
    """From its n-th change of a file on, what the process writes does not fit."""
    chance, words = case.chance(), harness.command(task)
    nth, size = chance.randint(1, int(0.95 * len(reference.operations))), chance.choice(SOME)
    tally.about = f"{case.again} ({task}, the disk is full from file operation {nth} on, but for {size} bytes)"
    ended = place.call(words, before=harness.at_operation(nth, lambda kind, path: _limit(size)))
    _held_to(tally, place, ended, words, reference)


def fails_once(case: Case, place: Place, task: str, reference: Reference, tally: Tally) -> None:
    """One file cannot be written further than a part of it; the next ones can."""
    chance, words = case.chance(), harness.command(task)
    writes = [
        number
        for number, operation in enumerate(reference.operations, start=1)
        if operation.startswith("write")
    ]
    nth, size = (
        chance.choice(
            [number for number in writes if ".lock" not in reference.operations[number - 1]]
        ),
        chance.choice(SOME),
    )
    tally.about = f"{case.again} ({task}, file operation {nth} fails after {size} bytes)"
    count = 0

    def act(kind: str, path: str) -> None:
        nonlocal count
        count += 1
        _limit(size if count == nth else resource.RLIM_INFINITY)

    _held_to(tally, place, place.call(words, before=harness.at_operation(0, act)), words, reference)


def small_disk(case: Case, place: Place, task: str, reference: Reference, tally: Tally) -> None:
    """A file system of its own, too small for the run; then a larger one."""
    words, room = harness.command(task), place.folder / "results"
    size = case.chance().randrange(16, 84, 4)  # a run takes 92 at least
    tally.about = f"{case.again} ({task}, {size} kB of disk)"
    room.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(room)], capture_output=True
    )
    if mounted.returncode:
        tally.notes.append(
            "a small file system of its own was left out: to mount one takes the rights of root"
        )
        return
    try:
        ended = place.call(words)
        subprocess.run(
            ["mount", "-o", "remount,size=64m", str(room)], check=True, capture_output=True
        )
        _held_to(tally, place, ended, words, reference)
        shutil.copytree(room, place.folder / "copy")  # what is mounted is gone with it
    finally:
        subprocess.run(["umount", str(room)], check=True, capture_output=True)


def _seal(folder: Path, close: bool) -> bool:
    """Let nobody make, remove or rename files in a folder, or let them again; whether that can be
    done here.
    """
    if os.geteuid():
        folder.chmod(0o555 if close else 0o755)
        return True
    return (
        subprocess.run(
            ["chattr", "+i" if close else "-i", str(folder)], capture_output=True
        ).returncode
        == 0
    )  # root may write anywhere


def sealed(case: Case, place: Place, task: str, reference: Reference, tally: Tally) -> None:
    """The run folder becomes read-only while it is worked on."""
    first, last = _while_there(reference)
    words, nth = harness.command(task), case.chance().randint(first, last)
    tally.about = f"{case.again} ({task}, the run folder is read-only from file operation {nth} on)"
    before = harness.at_operation(nth, lambda kind, path: _seal(Path(RUN), True))
    ended = place.call(words, before=before)
    if not _seal(place.run, False):
        tally.notes.append(
            "folders that become read-only were left out: this file system cannot seal a folder against root"
        )
        return
    _held_to(tally, place, ended, words, reference)


def sealed_from_the_start(
    case: Case, place: Place, task: str, reference: Reference, tally: Tally
) -> None:
    """Nothing can be written at all, or no run folder made."""
    words = harness.command(task)
    folder = case.chance().choice(
        (place.folder, place.folder / "results", place.folder / "datasets")
    )
    if folder.name == "datasets" and task == "generate":
        folder = place.folder  # this one makes no data set
    tally.about = f"{case.again} ({task}, {folder.name} is read-only)"
    folder.mkdir(exist_ok=True)
    if not _seal(folder, True):
        tally.notes.append(
            "read-only folders were left out: this file system cannot seal a folder against root"
        )
        return
    ended = place.call(words)
    _seal(folder, False)
    _held_to(tally, place, ended, words, reference)


def gone(case: Case, place: Place, task: str, reference: Reference, tally: Tally) -> None:
    """The run folder is moved away while it is worked on, and later brought back."""
    first, last = _while_there(reference)
    words, nth = harness.command(task), case.chance().randint(first, last)
    tally.about = f"{case.again} ({task}, the run folder is gone from file operation {nth} on)"
    away = place.folder / "away"
    ended = place.call(
        words, before=harness.at_operation(nth, lambda kind, path: os.rename(RUN, away))
    )
    harness.said_once(tally, place.call(harness.RESUME))
    shutil.rmtree(place.run, ignore_errors=True)
    if away.exists():
        away.rename(place.run)
    _held_to(tally, place, ended, words, reference)


def _while_there(reference: Reference) -> tuple[int, int]:
    """The first and the last operation between which a process works in its run folder, figures
    left out.
    """
    inside = [
        number
        for number, operation in enumerate(reference.operations, start=1)
        if f"/{RUN}/" in operation
    ]
    made = next(number for number in inside if "/.config.json" in reference.operations[number - 1])
    drawn = (number for number in inside if "/figures/" in reference.operations[number - 1])
    return made + 2, next(drawn, len(reference.operations) + 1) - 1
