"""Generated data sets on disk: a folder of three npz files and a card that says how they came
about.

::

    cluttered-100x100-8-mnist/ train.npz  validation.npz  test.npz    images uint8 (N, H, W); labels
        uint8 (N,), or (N, digits) where there are several;
                                               boxes int16 (N, digits, 4): top, left, height, width
                                                   in pixels
        card.json                              recipe, source, seed, counts, SHA-256 of each file,
        version

The card is written last and removed first, so a folder with a card is complete. Plain
``numpy.load`` reads the files.
"""

import contextlib
import fcntl
import glob
import hashlib
import importlib.metadata
import json
import math
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy

from drawbench import files
from drawbench.data.scenes import DIGIT, Batch, Scene, fresh
from drawbench.data.sources import SPLITS, Source
from drawbench.errors import Problem, reason

FORMAT = "drawbench data set"
VERSION = 1  # rises when the same recipe and seed would give other pixels
CARD = "card.json"
FILES = {split: f"{split}.npz" for split in SPLITS}
_OURS = (CARD, *FILES.values(), "montage.png")  # all that is ever deleted
_RUN_FILES = ("config.json", "result.json", "metrics.csv")
_CHUNK_BYTES = 1 << 28  # working memory for rendering, roughly


@dataclass(frozen=True)
class Scenes:
    """One part of a stored data set, as arrays: see the module for shapes. ``card`` is that of the
    whole set.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    card: dict


def default_folder(
    root: str | Path, scene: Scene, dataset: str, source_name: str, seed: int
) -> Path:
    """Where a data set goes if nothing else is said, such as
    ``datasets/cluttered-100x100-8-mnist``; seed 0 is not named.
    """
    usual = Scene()
    words = [dataset, f"{scene.canvas}x{scene.canvas}"]
    if scene.clutter or dataset == "cluttered":
        words.append(
            str(scene.clutter)
            + (f"of{scene.clutter_size}" if scene.clutter_size != usual.clutter_size else "")
        )
    if scene.digits != (2 if dataset == "mnist2" else 1):
        words.append(f"{scene.digits}digits")
    words.append(source_name)
    if seed:
        words.append(f"seed{seed}")
    return Path(root) / "-".join(words)


def write(
    folder: str | Path,
    scene: Scene,
    source: Source,
    dataset: str,
    seed: int,
    counts: dict[str, int] | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], object] | None = None,
) -> dict:
    """Render a data set and store it.

    Scene ``n`` of a part is ``scenes.fresh(part, scene, n, seed, "set", part_name)``. With the
    default counts each digit of a part is the target (the first digit of its scene) exactly once,
    in random order; larger counts start over in another order.

    Args: folder: where to. The same data set there, undamaged, is kept; anything else is refused
        without ``force``. scene: the recipe. source: the digits; train, validation and test scenes
        are made of its parts of these names. dataset: the name of the recipe, such as ``cluttered``
        or ``mnist2``, for the card. seed: of all random choices. counts: scenes in each part; by
        default, and for parts not named, as many as the source's part has digits. force: replace
        what is in the folder. Only files with this module's names are ever deleted. progress:
        called with the number of scenes made and to be made, over all parts. say: called with one
        sentence if the data set was there already.

    Returns:
        The card.

    Raises: Problem: bad counts; a folder that holds something else; a data set there that is
        damaged; a disk that cannot be written.
    """
    folder = Path(folder)
    plan = _plan(scene, source, dataset, seed, counts)
    try:
        if not force and (there := _kept(folder, plan)):
            if say:
                say(f"{folder} already holds this data set, verified: it is kept")
            return there
        try:
            return _write_beside(folder, scene, source, plan, progress, force)
        except OSError:
            if not force and (
                there := _kept(folder, plan)
            ):  # another process made it at the same time and was faster
                return there
            raise
    except OSError as error:
        raise Problem(
            f"the data set could not be written to {folder} ({error.strerror or error}): free or change the place with --out"
        ) from error


def card(folder: str | Path) -> dict:
    """The card of a stored data set.

    Raises:
        Problem: there is none, or it is not a complete card of this version.
    """
    path = Path(folder) / CARD
    try:
        described = files.parse_json(files.read_text(path))
        _check_card(described)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Problem(
            f"{folder} holds no data set (no {CARD}): make one with 'drawbench make-data cluttered --out {folder}'"
        ) from error
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Problem(
            f"{path} is not a data set's card ({reason(error)}): make the data set again with --force, or name another folder"
        ) from error
    return described


def load(folder: str | Path, split: str, verify: bool = True) -> Scenes:
    """Read one part of a stored data set.

    Args: folder: of the data set. split: ``train``, ``validation`` or ``test``. verify: compare the
        file's SHA-256 with the card. Types, shapes and ranges are always checked.

    Raises: Problem: no such data set or part; a file that is missing, damaged, or not what the card
        says.
    """
    if split not in SPLITS:
        raise Problem(f"a data set has no part '{split}': choose one of {', '.join(SPLITS)}")
    described = card(folder)
    path, layout = Path(folder) / FILES[split], _layout(described, split)
    if verify:
        _verify(path, described, split)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                name: _read_array(archive, name, *expected) for name, expected in layout.items()
            }
        _check_values(arrays, described["recipe"]["canvas"])
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise Problem(
            f"{path} is damaged ({reason(error)}): make the data set again with '{described['command']} --force'"
        ) from error
    return Scenes(**arrays, card=described)


# ---- The card
# ----------------------------------------------------------------------------------------------------------------


def _plan(
    scene: Scene, source: Source, dataset: str, seed: int, counts: dict[str, int] | None
) -> dict:
    """The part of the card that is known before rendering; two data sets with equal plans have
    equal pixels.
    """
    counts = dict(counts or {})
    for split, count in counts.items():
        if split not in SPLITS:
            raise Problem(f"a data set has no part '{split}': choose among {', '.join(SPLITS)}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise Problem(
                f"the {split} part needs at least 1 scene, got {count}: use --{split} 1 or more"
            )
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": dataset,
        "recipe": asdict(scene),
        "source": source.name,
        "source_note": source.note,
        "source_sha256": source.sha256,
        "seed": seed,
        "counts": {split: counts.get(split, len(source.splits[split])) for split in SPLITS},
    }


def _complete(plan: dict, scene: Scene, source: Source, hashes: dict[str, dict[str, str]]) -> dict:
    """The card: the plan, what was written, and how to make it again."""
    try:
        version = importlib.metadata.version("drawbench")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        version = "not installed"
    return (
        plan
        | hashes
        | {
            "rule": _rule(scene),
            "command": _command(plan, source),
            "drawbench": version,
            "torch": torch.__version__,
        }
    )


def _rule(scene: Scene) -> str:
    """The recipe in words."""
    size, digits = (
        scene.clutter_size,
        "one digit" if scene.digits == 1 else f"{scene.digits} digits",
    )
    clutter = f"{scene.clutter} times a random {size}x{size} crop of a random digit of the same part, added at a uniform place; then "
    return (
        f"a black {scene.canvas}x{scene.canvas} canvas; {clutter if scene.clutter else ''}{digits} added at uniform places; every sum "
        "clipped to 255; places uniform over all positions inside the canvas, edges included; train, validation and test made from "
        "disjoint digits; clutter fixed in these files"
    )


def _command(plan: dict, source: Source) -> str:
    recipe, default = (
        plan["recipe"],
        {split: len(digits) for split, digits in source.splits.items()},
    )
    words = [
        f"drawbench make-data {plan['dataset']} --source {plan['source']} --canvas {recipe['canvas']} --digits {recipe['digits']}"
    ]
    words.append(
        f"--clutter {recipe['clutter']} --clutter-size {recipe['clutter_size']} --seed {plan['seed']}"
    )
    words += [
        f"--{split} {count}" for split, count in plan["counts"].items() if count != default[split]
    ]
    return " ".join(words)


def _check_card(described: object) -> None:
    """Raise ValueError, TypeError or KeyError where a card lacks what reading the data set relies
    on.
    """
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ValueError(f"its format is not '{FORMAT}'")
    if described["version"] != VERSION:
        raise ValueError(f"its version is {described['version']}, this drawbench reads {VERSION}")
    if not all(isinstance(described[name], dict) for name in ("recipe", "counts", "sha256")):
        raise TypeError("recipe, counts and sha256 must be tables")
    numbers = [*described["recipe"].values(), *(described["counts"][split] for split in SPLITS)]
    if not all(type(number) is int for number in numbers) or min(described["counts"].values()) < 1:
        raise ValueError("sizes and counts must be whole numbers, counts 1 or more")
    if asdict(Scene(**described["recipe"])) != described["recipe"]:
        raise ValueError("its recipe is not complete")
    texts = [described[name] for name in ("dataset", "source", "command")] + [
        described["sha256"][file] for file in FILES.values()
    ]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("names, commands and hashes must be text")


# ---- Writing
# -----------------------------------------------------------------------------------------------------------------


def _kept(folder: Path, plan: dict) -> dict | None:
    """The card if this very data set is there and sound, None if the folder is free; refuses every
    other content.
    """
    held = _held(folder)
    if held is None:
        return None
    if not (folder / CARD).is_file():
        raise Problem(
            f"{folder} holds {held}: choose another folder with --out, or write there all the same with --force"
        )
    there = card(folder)
    if any(there.get(name) != value for name, value in plan.items()):
        raise Problem(
            f"{folder} holds {held}: choose another folder with --out, or replace it with --force"
        )
    for split, file in FILES.items():
        _verify(folder / file, there, split)
    return there


def _held(folder: Path) -> str | None:
    """What is in a folder, in words; None if it does not exist or is empty."""
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        return "a file, not a folder"
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return None
    if CARD in names:
        there = card(folder)
        size = there["recipe"]["canvas"]
        return f"another data set ({there['dataset']} {size}x{size} from {there['source']}, seed {there.get('seed')})"
    if any(name in names for name in _RUN_FILES):
        return "a run"
    return f"files that are not a complete data set ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _write_beside(
    folder: Path,
    scene: Scene,
    source: Source,
    plan: dict,
    progress: Callable[[int, int], None] | None,
    force: bool,
) -> dict:
    """Write into a temporary folder beside the place, then move: an interrupted write leaves
    nothing that looks complete.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _beside(folder) as temporary:
        hashes: dict[str, dict[str, str]] = {"sha256": {}, "content_sha256": {}}
        done, total = 0, sum(plan["counts"].values())
        for split, file in FILES.items():
            report = (
                (lambda made, before=done: progress(before + made, total)) if progress else None
            )
            content = _write_part(
                temporary / file, scene, source, plan["seed"], split, plan["counts"][split], report
            )
            hashes["sha256"][file], hashes["content_sha256"][split] = (
                _sha256(temporary / file),
                content,
            )
            done += plan["counts"][split]
        finished = _complete(plan, scene, source, hashes)
        (temporary / CARD).write_text(json.dumps(finished, indent=2) + "\n", encoding="utf-8")
        _move(temporary, folder, force)
    return finished


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A temporary folder beside a place, removed at the end; those of writers that were killed are
    removed first.

    A writer holds a lock on its own as long as it lives, so that another does not take it for a
    dead one's.
    """
    for stray in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        with _locked(stray) as ours:
            if ours:
                shutil.rmtree(stray, ignore_errors=True)
    while True:
        temporary = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
        temporary.mkdir()
        with _locked(temporary):
            if not temporary.is_dir():  # another removed it before it was locked
                continue
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder, if nobody else holds it and the file system can; whether it is locked."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _move(temporary: Path, folder: Path, force: bool) -> None:
    """Put a finished data set in its place, over what is there only if ``force`` is set."""
    if not force or not os.path.lexists(folder):
        os.replace(temporary, folder)
        return
    for name in _OURS:  # the card is first, so a half replaced data set has none
        (folder / name).unlink(missing_ok=True)
    for name in (*FILES.values(), CARD):
        os.replace(temporary / name, folder / name)


def _write_part(
    path: Path,
    scene: Scene,
    source: Source,
    seed: int,
    split: str,
    count: int,
    report: Callable[[int], None] | None,
) -> str:
    """Render one part into an npz file, a chunk at a time, and give the SHA-256 of its content
    (images, labels, boxes).

    The file is deflated, which makes it some twenty times smaller. How well differs between
    versions of zlib, so the content has
    a hash of its own: that one is the same on every platform. No time of day is stored.
    """
    part, content = source.splits[split], hashlib.sha256()
    cost = 4 * scene.canvas**2 + 20 * (
        scene.clutter * scene.clutter_size**2 + scene.digits * DIGIT**2
    )  # bytes for a scene, roughly
    chunk = max(1, min(1_000, _CHUNK_BYTES // cost))
    labels, boxes = [], []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with _member(
            archive, "images", np.dtype(np.uint8), (count, scene.canvas, scene.canvas)
        ) as stream:
            for start in range(0, count, chunk):
                batch: Batch = fresh(
                    part, scene, torch.arange(start, min(start + chunk, count)), seed, "set", split
                )
                pixels = batch.images.numpy().data
                stream.write(pixels)
                content.update(pixels)
                labels.append(batch.labels.numpy())
                boxes.append(batch.boxes.numpy())
                if report:
                    report(min(start + chunk, count))
        # Several digits have a row of labels, one digit a plain number.
        shape = (count,) if scene.digits == 1 else (count, scene.digits)
        for name, array in (
            ("labels", np.concatenate(labels).reshape(shape)),
            ("boxes", np.concatenate(boxes).astype("<i2")),
        ):
            content.update(array.data)
            with _member(archive, name, array.dtype, array.shape) as stream:
                stream.write(array.data)
    return content.hexdigest()


def _member(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> IO[bytes]:
    """Open an array inside an npz file for writing its bytes, with the header written and nothing
    in it that varies.
    """
    stream = archive.open(
        f"{name}.npy", "w", force_zip64=True
    )  # by name, so the entry gets the fixed date 1980-01-01
    npy.write_array_header_1_0(
        stream, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return stream


# ---- Reading
# -----------------------------------------------------------------------------------------------------------------


def _sha256(path: Path) -> str:
    with files.plain(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(path: Path, described: dict, split: str) -> None:
    """Raise Problem unless the file is there with the SHA-256 that the card gives."""
    expected = described["sha256"][path.name]
    most = (1 << 20) + sum(
        2 * dtype.itemsize * math.prod(shape) for dtype, shape in _layout(described, split).values()
    )
    try:
        size = files.plain(path).stat().st_size
        found = (
            _sha256(path) if size <= most else f"not worth computing, of {size:,} bytes"
        )  # which would take minutes
    except OSError as error:
        raise Problem(
            f"{path} cannot be read ({error.strerror or error}): make the data set again with --force"
        ) from error
    if found != expected:
        raise Problem(
            f"{path} is damaged, its SHA-256 is {found} where the card says {expected}: make the data set again with --force"
        )


def _layout(described: dict, split: str) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Type and shape of each array, as the card promises them."""
    count, canvas, digits = (
        described["counts"][split],
        described["recipe"]["canvas"],
        described["recipe"]["digits"],
    )
    return {
        "images": (np.dtype(np.uint8), (count, canvas, canvas)),
        "labels": (np.dtype(np.uint8), (count,) if digits == 1 else (count, digits)),
        "boxes": (np.dtype("<i2"), (count, digits, 4)),
    }


def _read_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """One array, of the type and shape that the card promises."""

    def check(found_dtype: np.dtype, found_shape: tuple[int, ...]) -> None:
        if (found_shape, found_dtype) != (shape, dtype):
            raise ValueError(
                f"{name} is {found_dtype} {found_shape}, the card says {dtype} {shape}"
            )

    return files.read_array(archive, name, check)


def _check_values(arrays: dict[str, np.ndarray], canvas: int) -> None:
    labels, boxes = arrays["labels"], arrays["boxes"]
    if (worst := int(labels.max())) > 9:
        raise ValueError(f"a label is {worst}, outside 0..9")
    if (
        (boxes[..., 2:] != DIGIT).any()
        or boxes[..., :2].min() < 0
        or boxes[..., :2].max() > canvas - DIGIT
    ):
        raise ValueError(
            f"a box is not a {DIGIT}x{DIGIT} digit inside the {canvas}x{canvas} canvas"
        )
