"""Every file that is read again, cut short or with one byte changed.

The command that reads it must fail in a sentence, or end as if the file were sound.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from . import checks
from .checks import Case, Tally
from .processes import RESUME, RUN, TASKS, Place, Reference, command, interrupt

#: The file, whether the run is finished, and the number of bytes changed (a cut for every four).
FILES = (
    ("last.safetensors", False, 40),
    ("previous.safetensors", False, 20),
    ("best.safetensors", False, 20),
    ("config.json", False, 40),
    ("best.safetensors", True, 120),
    ("config.json", True, 120),
    ("result.json", True, 120),
    ("test.npz", True, 120),
    ("environment.json", True, 20),
    ("metrics.csv", True, 20),
)
DATA_FILES = ("train.npz", "validation.npz", "test.npz", "card.json")
CASES = [(task, *file) for task in TASKS for file in FILES]
CASES += [("data", name, True, 120) for name in DATA_FILES]
COUNT = len(CASES)
EXPORTED = ("best.safetensors", "config.json", "result.json")


def run(
    case: Case,
    place: Place,
    references: dict[str, Reference],
    tally: Tally,
    flips: int | None = None,
) -> None:
    kind, name, finished, usual = CASES[case.number % COUNT]
    reference = references["classify" if kind == "data" else kind]
    if finished:
        place.fill(reference.folder)
        (place.folder / "other").mkdir()
        shutil.copytree(place.run, place.folder / "other" / "run")
    else:
        interrupt(place, command(kind), reference)
    path = place.run / name
    if kind == "data":
        path = next((place.folder / "datasets").glob("*/card.json")).with_name(name)
    sound = place.folder.with_name(f"{place.folder.name}.sound")
    shutil.copytree(place.folder, sound, symlinks=True)
    flips = usual if flips is None else flips
    about = f"{case.repeat} ({kind}, {name} of {'a finished' if finished else 'an unfinished'} run"
    judge: Callable = judges(kind, name, finished)
    for change, content in changes(case.chance(), path.read_bytes(), flips, max(1, flips // 4)):
        tally.about = f"{about}, {change})"
        tally.tried += 1
        path.write_bytes(content)
        judge(tally, place, path, sound / path.relative_to(place.folder), reference)
        if finished:
            path.write_bytes((sound / path.relative_to(place.folder)).read_bytes())
        else:
            place.fill(sound)
    shutil.rmtree(sound)


def changes(
    chance: random.Random, content: bytes, flips: int, cuts: int
) -> Iterator[tuple[str, bytes]]:
    """Yield damaged contents with a description of each."""
    for cut in range(cuts):
        yield f"cut short at {cut / cuts:.0%}", content[: len(content) * cut // cuts]
    for _ in range(flips):
        at, change = chance.randrange(len(content)), chance.randrange(1, 256)
        byte = bytes([content[at] ^ change])
        yield f"byte {at} changed by {change}", content[:at] + byte + content[at + 1 :]


def judges(kind: str, name: str, finished: bool) -> Callable:
    """Return the check for a file: which command reads it, and what may come of that."""
    if kind == "data":
        return _remake
    if not finished:
        return _resume
    if name in EXPORTED:
        return _export
    return _compare if name == "test.npz" else _tabulate


def _resume(tally: Tally, place: Place, path: Path, sound: Path, reference: Reference) -> None:
    """``resume`` fails and names the file or its folder, or ends like the reference."""
    ended = place.call(RESUME)
    if ended.status == 0:
        checks.compare(tally, place, ended, reference)
    elif checks.explained(tally, ended):
        named = path.name in ended.err or path.parent.name in ended.err
        tally.check(named, f"it does not name the file: {ended.err[-300:]}")


def _export(tally: Tally, place: Place, path: Path, sound: Path, reference: Reference) -> None:
    """``export`` fails, or gives away the weights, settings and result as they were."""
    out = place.folder / "exported"
    ended = place.call(["export", str(RUN), str(out)])
    if ended.status:
        checks.explained(tally, ended)
    else:
        for name in EXPORTED:
            same = _content(out / name) == _content(sound.with_name(name))
            tally.check(same, f"{name} is given away changed", "silent")
    shutil.rmtree(out, ignore_errors=True)


def _content(path: Path):
    """Return tensors or settings, whatever the whitespace and the order around them."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        for name in ("sha256", "command", "exported"):
            content.pop(name, None)
        return content
    tensors, facts = checks.runs.load_checkpoint(path)
    return checks._bits(tensors), facts


def _compare(tally: Tally, place: Place, path: Path, sound: Path, reference: Reference) -> None:
    """``compare`` fails, or finds a run equal to itself."""
    ended = place.call(["compare", str(RUN), "other/run", "--json"])
    if ended.status:
        checks.explained(tally, ended)
    elif checks.no_traceback(tally, ended):
        same = json.loads(ended.out)["difference"] == 0
        tally.check(same, "the outcomes are read as others", "silent")


def _tabulate(tally: Tally, place: Place, path: Path, sound: Path, reference: Reference) -> None:
    """``tables`` uses the run or names what is left out; these files carry no hash."""
    ended = place.call(["tables", str(RUN), "--out", "tables"])
    if ended.status:
        checks.explained(tally, ended)
    else:
        checks.no_traceback(tally, ended)
    shutil.rmtree(place.folder / "tables", ignore_errors=True)


def _remake(tally: Tally, place: Place, path: Path, sound: Path, reference: Reference) -> None:
    """``make-data`` refuses the damaged set, or leaves one that is as it was."""
    settings = ["--source=digits", "--canvas=28", "--clutter=1", "--seed=0"]
    ended = place.call(["make-data", "cluttered", *settings])
    if ended.status:
        checks.explained(tally, ended)
    elif checks.no_traceback(tally, ended):
        same = path.read_bytes() == sound.read_bytes()
        if not same and path.suffix == ".json":
            same = json.loads(path.read_text()) == json.loads(sound.read_text())
        tally.check(same, "the damaged set is accepted", "silent")
