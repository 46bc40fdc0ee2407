"""A disk that is full from some moment on, fails one write, is read-only, or loses the run folder.

After the error, the disk works again and the run is resumed.
"""

import os
import resource
import shutil
import subprocess
from pathlib import Path

from . import checks
from .checks import Case, Tally
from .processes import RESUME, RUN, TASKS, Ended, Place, Reference, at_operation, command

COUNT = 36
SOME_BYTES = (0, 50, 150)  # still written; fewer than any file has


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    task = TASKS[case.number % 2]
    harms = (full, fails_once, small_disk, sealed, gone, sealed_from_the_start)
    harm = harms[(case.number // 2) % len(harms)]
    tally.about = f"{case.repeat} ({task}, {harm.__doc__.strip().rstrip('.')})"
    harm(case, place, command(task), references[task], tally)


def _judge(
    tally: Tally, place: Place, ended: Ended, words: list[str], reference: Reference
) -> None:
    """Check for one error and no loss, then carry the run on with a working disk."""
    tally.tried += 1
    checks.explained(tally, ended)
    checks.intact(tally, place)
    checks.finish(tally, place, words, reference)


def _limit(size: int) -> None:
    """Let no file of this process grow beyond ``size`` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def full(case, place, words, reference, tally) -> None:
    """The disk is full from some file operation on."""
    chance = case.chance()
    nth, size = chance.randint(1, int(0.95 * len(reference.operations))), chance.choice(SOME_BYTES)
    ended = place.call(words, before=at_operation(nth, lambda kind, path: _limit(size)))
    _judge(tally, place, ended, words, reference)


def fails_once(case, place, words, reference, tally) -> None:
    """One file cannot be written in full; later ones can."""
    chance = case.chance()
    locks = reference.numbers(".lock")
    nth = chance.choice([number for number in reference.numbers("write") if number not in locks])
    size, count = chance.choice(SOME_BYTES), 0

    def act(kind: str, path: str) -> None:
        nonlocal count
        count += 1
        _limit(size if count == nth else resource.RLIM_INFINITY)

    _judge(tally, place, place.call(words, before=at_operation(0, act)), words, reference)


def _run(*words: str) -> bool:
    return subprocess.run(words, capture_output=True).returncode == 0


def small_disk(case, place, words, reference, tally) -> None:
    """The file system is too small for the run; then it grows."""
    room = place.folder / "results"
    size = case.chance().randrange(16, 84, 4)  # kB; a run takes 92 at least
    room.mkdir()
    if not _run("mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(room)):
        tally.notes.append("small file systems were left out: mounting one takes root")
        return
    try:
        ended = place.call(words)
        assert _run("mount", "-o", "remount,size=64m", str(room))
        _judge(tally, place, ended, words, reference)
    finally:
        assert _run("umount", str(room))


def _seal(folder: Path, closed: bool) -> bool:
    """Make a folder read-only, or writable again; return whether this machine can."""
    if os.geteuid():
        folder.chmod(0o555 if closed else 0o755)
        return True
    return _run("chattr", "+i" if closed else "-i", str(folder))  # modes do not stop root


def sealed(case, place, words, reference, tally) -> None:
    """The run folder becomes read-only during the training."""
    nth = case.chance().randint(*_while_training(reference))
    before = at_operation(nth, lambda kind, path: _seal(Path(RUN), True))
    ended = place.call(words, before=before)
    if _seal(place.run, False):
        _judge(tally, place, ended, words, reference)
    else:
        tally.notes.append("read-only folders were left out: this file system cannot seal them")


def sealed_from_the_start(case, place, words, reference, tally) -> None:
    """A folder is read-only from the start."""
    names = ("", "results", "datasets") if words[0] == "classify" else ("", "results")
    folder = place.folder / case.chance().choice(names)
    folder.mkdir(exist_ok=True)
    if not _seal(folder, True):
        tally.notes.append("read-only folders were left out: this file system cannot seal them")
        return
    ended = place.call(words)
    _seal(folder, False)
    _judge(tally, place, ended, words, reference)


def gone(case, place, words, reference, tally) -> None:
    """The run folder is moved away during the training and later brought back."""
    nth = case.chance().randint(*_while_training(reference))
    away = place.folder / "away"
    ended = place.call(words, before=at_operation(nth, lambda kind, path: os.rename(RUN, away)))
    checks.explained(tally, place.call(RESUME))
    shutil.rmtree(place.run, ignore_errors=True)
    if away.exists():
        away.rename(place.run)
    _judge(tally, place, ended, words, reference)


def _while_training(reference: Reference) -> tuple[int, int]:
    """Return the first and the last operation of the training itself."""
    return reference.training(0), reference.training(0.999)
