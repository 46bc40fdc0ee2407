"""Generated data sets on disk: a folder of three npz files and a card that describes them.

::

    cluttered-100x100-8-mnist/
        train.npz  validation.npz  test.npz
            images  uint8 (N, H, W)
            labels  uint8 (N,), or (N, digits) where there are several
            boxes   int16 (N, digits, 4): top, left, height, width in pixels
        card.json   recipe, source, seed, counts, SHA-256 of each file, version

The card is written last and removed first, so a folder with a card is complete. Plain
``numpy.load`` reads the files.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import filelock
import numpy as np
import torch
from numpy.lib import format as npy

from drawbench import files
from drawbench.data.digits import SPLITS, Source
from drawbench.data.scenes import DIGIT, Scene, fresh
from drawbench.errors import Problem, reason

FORMAT = "drawbench data set"
VERSION = 1  # rises when the same recipe and seed would give other pixels
CARD = "card.json"
FILES = {split: f"{split}.npz" for split in SPLITS}
CHUNK_BYTES = 1 << 28  # working memory for rendering, roughly

_OURS = (CARD, *FILES.values(), "montage.png")  # all that is ever deleted
_RUN_FILES = ("config.json", "result.json", "metrics.csv")

Progress = Callable[[int, int], object]
Say = Callable[[str], object]


@dataclass(frozen=True)
class Scenes:
    """One part of a stored data set as arrays, shaped as in the module; ``card`` is the set's."""

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    card: dict


def default_folder(
    root: str | Path, scene: Scene, dataset: str, source_name: str, seed: int
) -> Path:
    """Return the usual folder, such as ``datasets/cluttered-100x100-8-mnist``.

    Numbers that are the usual ones, and seed 0, are not named.
    """
    words = [dataset, f"{scene.canvas}x{scene.canvas}"]
    if scene.clutter or dataset == "cluttered":
        usual = scene.clutter_size == Scene.clutter_size
        words.append(f"{scene.clutter}" + ("" if usual else f"of{scene.clutter_size}"))
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
    progress: Progress | None = None,
    say: Say = lambda sentence: None,
) -> dict:
    """Render a data set and store it.

    Scene ``n`` of a part is ``scenes.fresh(part, scene, n, seed, "set", part_name)``. With the
    default counts each digit of a part is the target (the first digit of its scene) exactly once,
    in random order; larger counts start over in another order.

    Args:
        folder: the same data set there, undamaged, is kept; anything else is an error without
            ``force``.
        scene: the recipe.
        source: the digits; train, validation and test scenes are made of its parts of these names.
        dataset: the name of the recipe, such as ``cluttered`` or ``mnist2``, for the card.
        seed: of all random choices.
        counts: scenes in each part; by default, and for parts not named, one for each digit.
        force: replace what is in the folder. Only files with this module's names are ever deleted.
        progress: called with the number of scenes rendered and to be rendered, over all parts.
        say: called with one sentence if the data set is kept, or another process is making it.

    Returns:
        The card.

    Raises:
        Problem: bad counts; a folder that holds something else or is a symbolic link; a damaged
            data set there; a disk that cannot be written.
    """
    folder = Path(folder)
    plan = _plan(scene, source, dataset, seed, counts)
    try:
        if not force and (kept := _kept(folder, plan)):
            say(f"{folder} already holds this data set, verified: it is kept")
            return kept
        with _only_writer(folder, say):
            # another process may have made it in the meantime
            if not force and (kept := _kept(folder, plan)):
                return kept
            return _render(folder, scene, source, plan, progress)
    except OSError as error:
        raise Problem(
            f"the data set could not be written to {folder} ({error.strerror or error}): free the "
            "place, or choose another with --out"
        ) from error


def card(folder: str | Path) -> dict:
    """Return the card of a stored data set.

    Raises:
        Problem: there is none, or it is not a complete card of this version.
    """
    path = Path(folder) / CARD
    try:
        content = files.parse_json(files.read_text(path))
        _check_card(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Problem(
            f"{folder} holds no data set (no {CARD}): make one with 'drawbench make-data cluttered "
            f"--out {folder}'"
        ) from error
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Problem(
            f"{path} is not a data set's card ({reason(error)}): make the data set again with "
            "--force, or name another folder"
        ) from error
    return content


def load(folder: str | Path, split: str, verify: bool = True) -> Scenes:
    """Read one part of a stored data set.

    Args:
        folder: of the data set.
        split: ``train``, ``validation`` or ``test``.
        verify: compare the file's SHA-256 with the card. Types, shapes and ranges are always
            checked.

    Raises:
        Problem: no such data set or part; a file that is missing, damaged, or not what the card
            says.
    """
    if split not in SPLITS:
        raise Problem(f"a data set has no part '{split}': choose one of {', '.join(SPLITS)}")
    content = card(folder)
    path, layout = Path(folder) / FILES[split], _layout(content, split)
    if verify:
        _verify(path, content, split)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                name: _read_array(archive, name, *expected) for name, expected in layout.items()
            }
        _check_values(arrays, content["recipe"]["canvas"])
    # a broken file makes zipfile and zlib raise nearly anything: RuntimeError, zlib.error ...
    except Exception as error:
        raise Problem(
            f"{path} is damaged ({reason(error)}): make the data set again with "
            f"'{content['command']} --force'"
        ) from error
    return Scenes(**arrays, card=content)


# ---- The card


def _plan(
    scene: Scene, source: Source, dataset: str, seed: int, counts: dict[str, int] | None
) -> dict:
    """Return the part of the card known before rendering; equal plans mean equal pixels."""
    counts = dict(counts or {})
    for split, count in counts.items():
        if split not in SPLITS:
            raise Problem(f"a data set has no part '{split}': choose one of {', '.join(SPLITS)}")
        if type(count) is not int or count < 1:
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
    """Return the card: the plan, the hashes, and how to make the set again."""
    try:
        version = importlib.metadata.version("drawbench")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        version = "not installed"
    about = {
        "rule": _rule(scene),
        "command": _command(plan, source),
        "drawbench": version,
        "torch": torch.__version__,
    }
    return plan | hashes | about


def _rule(scene: Scene) -> str:
    """Return the recipe in words."""
    size = scene.clutter_size
    digits = "one digit" if scene.digits == 1 else f"{scene.digits} digits"
    clutter = (
        f"{scene.clutter} times a random {size}x{size} crop of a random digit of the same part, "
        "added at a uniform place; then "
    )
    return (
        f"a black {scene.canvas}x{scene.canvas} canvas; {clutter if scene.clutter else ''}"
        f"{digits} added at uniform places; "
        "every sum clipped to 255; places uniform over all positions inside the canvas, edges "
        "included; train, validation and test made from disjoint digits; clutter fixed in these "
        "files"
    )


def _command(plan: dict, source: Source) -> str:
    recipe = plan["recipe"]
    words = [
        f"drawbench make-data {plan['dataset']} --source {plan['source']}",
        *(f"--{name.replace('_', '-')} {value}" for name, value in recipe.items()),
        f"--seed {plan['seed']}",
        *(
            f"--{split} {count}"
            for split, count in plan["counts"].items()
            if count != len(source.splits[split])
        ),
    ]
    return " ".join(words)


def _check_card(content: object) -> None:
    """Check that a card has what reading the data set relies on.

    Raises:
        ValueError, TypeError, KeyError: it has not.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"its format is not '{FORMAT}'")
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']}, this drawbench reads {VERSION}")
    if not all(isinstance(content[name], dict) for name in ("recipe", "counts", "sha256")):
        raise TypeError("recipe, counts and sha256 must be tables")
    numbers = [*content["recipe"].values(), *(content["counts"][split] for split in SPLITS)]
    if not all(type(number) is int for number in numbers) or min(content["counts"].values()) < 1:
        raise ValueError("sizes and counts must be whole numbers, counts 1 or more")
    if asdict(Scene(**content["recipe"])) != content["recipe"]:
        raise ValueError("its recipe is not complete")
    texts = [content[name] for name in ("dataset", "source", "command")]
    if not all(
        isinstance(text, str) for text in [*texts, *map(content["sha256"].get, FILES.values())]
    ):
        raise TypeError("names, commands and hashes must be text")


# ---- Writing


def _kept(folder: Path, plan: dict) -> dict | None:
    """Return the card if this very data set is there and sound, None if the folder is free.

    Raises:
        Problem: there is anything else.
    """
    content = _content(folder)
    if content is None:
        return None
    if not (folder / CARD).is_file():
        raise Problem(
            f"{folder} holds {content}: choose another folder with --out, or write there all the "
            "same with --force"
        )
    present = card(folder)
    if any(present.get(name) != value for name, value in plan.items()):
        raise Problem(
            f"{folder} holds {content}: choose another folder with --out, or replace it with "
            "--force"
        )
    for split, file in FILES.items():
        _verify(folder / file, present, split)
    return present


def _content(folder: Path) -> str | None:
    """Return in words what is in a folder; None if it does not exist or is empty."""
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        return "a file, not a folder"
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return None
    if CARD in names:
        present = card(folder)
        size = present["recipe"]["canvas"]
        return (
            f"another data set ({present['dataset']} {size}x{size} from {present['source']}, seed "
            f"{present.get('seed')})"
        )
    if any(name in names for name in _RUN_FILES):
        return "a run"
    rest = ", ..." if len(names) > 3 else ""
    return f"files that are not a complete data set ({', '.join(names[:3])}{rest})"


def _beside(folder: Path, suffix: str) -> Path:
    return files.check_inside(folder.parent / f".{folder.name}.{suffix}", folder.parent)


@contextlib.contextmanager
def _only_writer(folder: Path, say: Say) -> Iterator[None]:
    """Hold the lock of a data set's folder, waiting for another process that makes it."""
    path = _beside(folder, "lock")
    files.check_inside(folder, folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"Waiting for another process that is making {folder}.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _render(
    folder: Path, scene: Scene, source: Source, plan: dict, progress: Progress | None
) -> dict:
    """Write into a folder beside the place, then move: no interrupted write looks complete."""
    partial = _beside(folder, "partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a writer that was killed: we hold the lock
    partial.mkdir()
    try:
        hashes: dict[str, dict[str, str]] = {"sha256": {}, "content_sha256": {}}
        done, total = 0, sum(plan["counts"].values())
        for split, file in FILES.items():
            count = plan["counts"][split]

            def report(rendered: int, before: int = done) -> None:
                if progress:
                    progress(before + rendered, total)

            hashes["content_sha256"][split] = _write_part(
                partial / file, scene, source, plan["seed"], split, count, report
            )
            hashes["sha256"][file] = _sha256(partial / file)
            done += count
        complete = _complete(plan, scene, source, hashes)
        (partial / CARD).write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return complete


def _move(partial: Path, folder: Path) -> None:
    """Put a finished data set in its place, over what may be there."""
    with contextlib.suppress(OSError):
        folder.rmdir()  # if it is empty
    if not os.path.lexists(folder):
        os.replace(partial, folder)
        return
    for name in _OURS:  # the card is first, so a half replaced data set has none
        (folder / name).unlink(missing_ok=True)
    for name in (*FILES.values(), CARD):
        os.replace(partial / name, folder / name)


def _write_part(
    path: Path,
    scene: Scene,
    source: Source,
    seed: int,
    split: str,
    count: int,
    report: Callable[[int], None],
) -> str:
    """Render one part into an npz file, a chunk at a time, and return the SHA-256 of its content.

    The file is deflated, which makes it some twenty times smaller. How well differs between
    versions of zlib, so the content (images, labels, boxes) has a hash of its own, which is the
    same on every platform. No time of day is stored.
    """
    part, content = source.splits[split], hashlib.sha256()
    # bytes for a scene, roughly
    pieces = scene.clutter * scene.clutter_size**2 + scene.digits * DIGIT**2
    chunk = max(1, min(1_000, CHUNK_BYTES // (4 * scene.canvas**2 + 20 * pieces)))
    labels, boxes = [], []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        shape: tuple[int, ...] = (count, scene.canvas, scene.canvas)
        with _member(archive, "images", np.dtype(np.uint8), shape) as stream:
            for start in range(0, count, chunk):
                end = min(start + chunk, count)
                rendered = fresh(part, scene, torch.arange(start, end), seed, "set", split)
                pixels = rendered.images.numpy().data
                stream.write(pixels)
                content.update(pixels)
                labels.append(rendered.labels.numpy())
                boxes.append(rendered.boxes.numpy())
                report(end)
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
    """Open an array inside an npz file for writing its bytes, after its header."""
    # opened by name, so that the entry gets the fixed date 1980-01-01
    stream = archive.open(f"{name}.npy", "w", force_zip64=True)
    npy.write_array_header_1_0(
        stream, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return stream


# ---- Reading


def _sha256(path: Path) -> str:
    with files.plain(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(path: Path, content: dict, split: str) -> None:
    """Check that a file is there with the SHA-256 that the card gives."""
    expected = content["sha256"][path.name]
    layout = _layout(content, split).values()
    limit = (1 << 20) + sum(2 * dtype.itemsize * math.prod(shape) for dtype, shape in layout)
    try:
        size = files.plain(path).stat().st_size
        # a file of any size would take minutes
        digest = _sha256(path) if size <= limit else f"not computed for {size:,} bytes"
    except OSError as error:
        raise Problem(
            f"{path} cannot be read ({error.strerror or error}): make the data set again with "
            "--force"
        ) from error
    if digest != expected:
        raise Problem(
            f"{path} is damaged, its SHA-256 is {digest} where the card says {expected}: make the "
            "data set again with --force"
        )


def _layout(content: dict, split: str) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Return type and shape of each array, as the card promises them."""
    count, recipe = content["counts"][split], content["recipe"]
    canvas, digits = recipe["canvas"], recipe["digits"]
    return {
        "images": (np.dtype(np.uint8), (count, canvas, canvas)),
        "labels": (np.dtype(np.uint8), (count,) if digits == 1 else (count, digits)),
        "boxes": (np.dtype("<i2"), (count, digits, 4)),
    }


def _read_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """Read one array of the type and shape that the card promises."""

    def check(actual_dtype: np.dtype, actual_shape: tuple[int, ...]) -> None:
        if (actual_shape, actual_dtype) != (shape, dtype):
            raise ValueError(
                f"{name} is {actual_dtype} {actual_shape}, the card says {dtype} {shape}"
            )

    return files.read_array(archive, name, check)


def _check_values(arrays: dict[str, np.ndarray], canvas: int) -> None:
    """Check labels and boxes.

    Raises:
        ValueError: a label is no digit, or a box leaves the canvas.
    """
    labels, boxes = arrays["labels"], arrays["boxes"]
    if (highest := int(labels.max())) > 9:
        raise ValueError(f"a label is {highest}, outside 0..9")
    places, sides = boxes[..., :2], boxes[..., 2:]
    if (sides != DIGIT).any() or places.min() < 0 or places.max() > canvas - DIGIT:
        raise ValueError(
            f"a box is not a {DIGIT}x{DIGIT} digit inside the {canvas}x{canvas} canvas"
        )
