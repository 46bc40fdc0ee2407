"""Every file that is read again, cut short at each 2 % of its length, and with single bytes
changed.

What comes of it must be a sentence, or exactly what was in the file before. Each way of reading is
the product's own; a few cases of each file go through the real ``resume`` to the end.
"""

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import harness
from .harness import RUN, Case, Place, Reference, Tally

FLIPS, CUTS, RESUMED = 300, 50, 2
RUN_FILES = (
    "last",
    "previous",
    "best",
    "config.json",
    "environment.json",
    "result.json",
    "metrics.csv",
    "test.npz",
)
DATA_FILES = ("train.npz", "validation.npz", "test.npz", "card.json")
FILES = [(task, name) for task in harness.TASKS for name in RUN_FILES] + [
    ("data", name) for name in DATA_FILES
]
COUNT = len(FILES)
UNREAD = (
    "previous",
    "environment.json",
    "test.npz",
)  # by resume, but for the command in environment.json, without which it goes on


def run(
    case: Case,
    place: Place,
    references: dict[str, Reference],
    tally: Tally,
    flips: int = FLIPS,
    cuts: int = CUTS,
    resumed: int = RESUMED,
) -> None:
    task, name = FILES[case.number % COUNT]
    reference = references["classify" if task == "data" else task]
    shutil.copytree(reference.folder, place.folder, dirs_exist_ok=True, symlinks=True)
    path = place.folder / where(place.folder, task, name)
    whole = path.read_bytes()
    read = READERS[name if task != "data" else "data"]
    changes = list(_changed(case.chance(), whole, flips, cuts))
    tally.about = f"{case.again} ({task}, {name})"
    tally.tried += len(changes)
    for kind, what in place.apart(
        lambda: _read_all(path, whole, changes, lambda: read(path), name)
    ):
        tally.about = f"{case.again} ({task}, {name} {what.partition(': ')[0]})"
        tally.fault(what.partition(": ")[2], kind)
    if name in UNREAD:
        return
    chance = case.chance()
    for number in range(resumed):
        what, content = chance.choice(changes)
        tally.about = f"{case.again} ({task}, {name} {what}, resume {number})"
        path.write_bytes(content)
        again(tally, place, reference, path)
        shutil.rmtree(place.folder)
        shutil.copytree(reference.folder, place.folder, symlinks=True)


def where(folder: Path, task: str, name: str) -> Path:
    """A file, relative to a place."""
    if task == "data":
        return next((folder / "datasets").glob("*/card.json")).with_name(name).relative_to(folder)
    return RUN / (name if "." in name else f"{name}.safetensors")


def _changed(
    chance: random.Random, whole: bytes, flips: int, cuts: int
) -> Iterator[tuple[str, bytes]]:
    for cut in range(cuts):
        yield f"cut short at {100 * cut // cuts} %", whole[: len(whole) * cut // cuts]
    for _ in range(flips):
        position, change = chance.randrange(len(whole)), chance.randrange(1, 256)
        yield (
            f"byte {position} changed by {change}",
            whole[:position] + bytes([whole[position] ^ change]) + whole[position + 1 :],
        )


def _read_all(
    path: Path, whole: bytes, changes: list[tuple[str, bytes]], read: Callable[[], Any], name: str
) -> list[tuple[str, str]]:
    """The kind of each fault, and a sentence."""
    from drawbench.errors import Problem

    expected, found = read(), []
    for what, content in changes:
        path.write_bytes(content)
        try:
            given = read()
        except (Problem, OSError) as problem:
            if "\n" in str(problem).strip():
                found.append(("", f"{what}: not one sentence: {problem}"))
            continue
        except Exception as error:
            found.append(("tracebacks", f"{what}: {type(error).__name__}: {error}"))
            continue
        finally:
            path.write_bytes(whole)
        if given != expected:
            found.append(("silent", f"{what}: it is read as something else"))
    return found


# ---------------------------------------------------------------------------------- ways of reading


def _state(path: Path) -> Any:
    """What ``resume`` goes on from: the newest state, or the one before, if it says so."""
    from drawbench.runs import Run

    said: list[str] = []
    before = path.with_name("previous.safetensors")
    wanted, kept = [_plain(path), _plain(before)], before.read_bytes()
    try:
        tensors, facts = Run.open(RUN).load_state(said.append)  # type: ignore[misc]
    finally:
        before.write_bytes(kept)  # it has moved if it was taken
    if said and path.name in said[0] and "taking the one before" in said[0]:
        assert _numbers(tensors, facts) == wanted[1], "not the state before"
        return "whole"  # it was said, which is all that is asked
    return "whole" if _numbers(tensors, facts) == _WHOLE.setdefault(path, wanted[0]) else "changed"


_WHOLE: dict[Path, Any] = {}


def _plain(path: Path) -> Any:
    from drawbench.errors import Problem
    from drawbench.runs import load_checkpoint

    with contextlib.suppress(Problem):
        return _numbers(*load_checkpoint(path))


def _numbers(tensors: dict[str, Any], facts: dict) -> Any:
    return {name: harness._bits(tensor) for name, tensor in tensors.items()}, facts


def _checkpoint(path: Path) -> Any:
    from drawbench.runs import load_checkpoint

    return _numbers(*load_checkpoint(path))


def _exported(path: Path) -> Any:
    """The weights, settings and result that ``drawbench export`` gives away; a Problem if it
    refuses in a sentence.
    """
    from click.testing import CliRunner

    from drawbench.cli import cli
    from drawbench.errors import Problem
    from drawbench.runs import BEST

    out = Path("exported")
    shutil.rmtree(out, ignore_errors=True)
    told = CliRunner().invoke(cli, ["export", str(RUN), str(out)], prog_name="drawbench")
    if told.exit_code:
        if told.exit_code not in (1, 2) or told.stderr.count("Error: ") != 1:
            raise RuntimeError(
                f"export ended with {told.exit_code}: {told.exception!r} {told.output}"
            )
        raise Problem(told.stderr.strip().splitlines()[-1])
    settings, result = (
        json.loads((out / name).read_text()) for name in ("config.json", "result.json")
    )
    return _checkpoint(out / BEST), settings, result


def _record(path: Path) -> Any:
    """What tables, figures and reports read; numbers in ``metrics.csv`` carry no hash, so it may be
    read in another way there.
    """
    from drawbench import records

    found = records.read(RUN, lambda text: None)
    return found.settings, found.result, isinstance(found.environment, dict)


def _outcomes(path: Path) -> Any:
    from drawbench.evaluation import paired

    found = paired.load(RUN)
    return found.metric, found.test_sha256, found.losses.tobytes()


def _scenes(path: Path) -> Any:
    from drawbench.data import store

    parts = [store.load(path.parent, split) for split in ("train", "validation", "test")]
    return [(part.images.tobytes(), part.labels.tobytes(), part.boxes.tobytes()) for part in parts]


READERS: dict[str, Callable[[Path], Any]] = {
    "last": _state,
    "previous": _checkpoint,
    "best": _exported,
    "config.json": _exported,
    "environment.json": _record,
    "result.json": _exported,
    "metrics.csv": _record,
    "test.npz": _outcomes,
    "data": _scenes,
}


def again(tally: Tally, place: Place, reference: Reference, path: Path) -> None:
    """``resume`` with a damaged file: a sentence, or the same end as ever."""
    ended = place.call(harness.RESUME)
    harness.no_traceback(tally, ended)
    if ended.status == 1:
        harness.said_once(tally, ended)
        named = path.name in ended.err or path.parent.name in ended.err
        tally.check(named, f"it does not say which file: {ended.err[-300:]}")
        return
    if not tally.check(ended.status == 0, f"exit status {ended.status}: {ended.err[-600:]}"):
        return
    tally.resumed += 1
    different = harness.differences(place.run, reference.folder / RUN)
    if tally.check(not different, f"not the same in {', '.join(different)}", "silent"):
        tally.identical += 1
