"""Generated data sets on disk: a folder of three npz files and a card that describes them.

::

    cluttered-100x100-8-mnist/
        train.npz  validation.npz  test.npz
            images  uint8 (N, H, W)
            labels  uint8 (N,), or (N, digits) where there are several
            boxes   int16 (N, digits, 4): top, left, height, width in pixels
        card.json   recipe, source, seed, counts, SHA-256 of each file, version
        croissant.json  the same in the Croissant format, for search engines and hubs

What the files hold is up to the recipe (:class:`Recipe`): captioned scenes have an array
``captions`` and a fourth file ``held_out.npz``.

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
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import filelock
import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from drawbench import files
from drawbench.data import croissant
from drawbench.data.digits import SPLITS, Source
from drawbench.data.scenes import Digits, Layout, Scene
from drawbench.data.sentences import CaptionScene
from drawbench.errors import Problem, reason

FORMAT = "drawbench data set"
VERSION = 1  # rises when the same recipe and seed would give other pixels
CARD = "card.json"
OWN_HASH = "card_sha256"  # of the card itself
FIELDS = set(
    [
        "format",
        "version",
        "dataset",
        "recipe",
        "source",
        "source_note",
        "source_sha256",
        "seed",
        "counts",
        "sha256",
        "content_sha256",
        "rule",
        "command",
        "drawbench",
        "torch",
    ]
)
CHUNK_BYTES = 1 << 28  # working memory for rendering, roughly

_PARTS = (*SPLITS, "held_out")
_OURS = (CARD, *map("{}.npz".format, _PARTS), croissant.NAME, "montage.png")  # all ever deleted
_RUN_FILES = ("config.json", "result.json", "metrics.csv")

Progress = Callable[[int, int], object]
Say = Callable[[str], object]


class Recipe(Protocol):
    """How scenes of a set are rendered: a dataclass whose fields are whole numbers."""

    @property
    def parts(self) -> Mapping[str, str]:
        """The files, without ending, and the part of the source that each is made of."""

    @property
    def canvas(self) -> int:
        """Side of the square images, pixels."""

    @property
    def scene_bytes(self) -> int:
        """Memory that rendering a scene takes, roughly."""

    def stored(self, digits: Digits, index: Tensor, seed: int, part: str) -> Any:
        """Render scenes ``index`` of a part: a named tuple of tensors, ``images`` first."""

    def layout(self, count: int) -> dict[str, Layout]:
        """Return type and shape of each array of a part of ``count`` scenes."""

    def check(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError if an array holds what no scene has."""

    def words(self, dataset: str) -> list[str]:
        """Return what a folder's name says beside data set, canvas, source and seed."""

    def rule(self, seed: int) -> str:
        """Return the recipe in words."""


RECIPES: dict[str, Callable[..., Recipe]] = {"captions": CaptionScene}  # others are a `Scene`


class Scenes(NamedTuple):
    """One part of a stored data set as arrays, shaped as in the module."""

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    card: dict  #: of the whole set
    captions: np.ndarray | None = None  #: uint8 (N, 12), numbers of words


def default_folder(
    root: str | Path,
    scene: Recipe,
    dataset: str,
    source: Source,
    seed: int,
    counts: dict[str, int] | None = None,
) -> Path:
    """Return the usual folder, such as ``datasets/cluttered-100x100-8-mnist``.

    Numbers that are the usual ones, and seed 0, are not named. Whatever else differs is, so that
    two sets never want the same folder.
    """
    words = [dataset, f"{scene.canvas}x{scene.canvas}", *scene.words(dataset), source.name]
    if seed:
        words.append(f"seed{seed}")
    usual = {part: len(source.splits[split]) for part, split in scene.parts.items()}
    if (numbers := usual | (counts or {})) != usual:
        words += [str(numbers[part]) for part in scene.parts]
    return Path(root) / "-".join(words)


def write(
    folder: str | Path,
    scene: Recipe,
    source: Source,
    dataset: str,
    seed: int,
    counts: dict[str, int] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    say: Say = lambda sentence: None,
) -> dict:
    """Render a data set and store it.

    Scene ``n`` of a part is ``scene.stored(digits, n, seed, part_name)``. With the default counts
    each digit of a part of a :class:`Scene` is the target (the first digit of its scene) exactly
    once, in random order; larger counts start over in another order.

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
        Problem: a folder that holds something else or is a symbolic link; a damaged data set there;
            a disk that cannot be written.
    """
    folder = Path(folder)
    plan = {  # what the card says before rendering; equal plans mean equal pixels
        "format": FORMAT,
        "version": VERSION,
        "dataset": dataset,
        "recipe": asdict(scene),  # type: ignore[call-overload]
        "source": source.name,
        "source_note": source.note,
        "source_sha256": source.sha256,
        "seed": seed,
        "counts": {part: len(source.splits[split]) for part, split in scene.parts.items()}
        | (counts or {}),
    }
    try:
        if not force and (kept := _kept(folder, plan)):
            say(f"{folder} already holds this data set, verified: it is kept")
            with contextlib.suppress(OSError):  # of an earlier version, and perhaps read-only
                if not os.path.lexists(folder / croissant.NAME):
                    _describe(folder, kept)
            return kept
        with _lock(folder, say):
            # another process may have made it in the meantime
            kept = None if force else _kept(folder, plan)
            return kept or _render(folder, scene, source, plan, progress)
    except OSError as error:
        raise Problem(
            f"the data set could not be written to {folder} ({error.strerror or error}): free the "
            "place, or choose another with --out"
        ) from error


def write_if_missing(
    folder: Path,
    scene: Recipe,
    source: Source,
    dataset: str,
    seed: int,
    say: Say,
    progress: Progress | None,
) -> dict:
    """Make a data set that a training needs, saying so, or verify it; return its card. Arguments as
    of :func:`write`.
    """
    is_new = not (folder / CARD).is_file()
    if is_new:
        say(f"Making {folder} (once; the same as drawbench make-data).")
    say = say if is_new else str  # that it is kept is no news
    return write(folder, scene, source, dataset, seed, progress=progress, say=say)


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
            f"{folder} holds no data set (no {CARD}): name its folder with --data FOLDER, or make "
            f"one with: drawbench make-data cluttered --out {folder}"
        ) from error
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Problem(
            f"{path} is not a data set's card ({reason(error)}): make the data set again with "
            "--force, or name another folder"
        ) from error
    return content


def settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings of the configuration that a stored data set was made with.

    Raises:
        Problem: as :func:`card`.
    """
    content = card(folder)
    if content["dataset"] in RECIPES:
        raise Problem(
            f"{folder} holds {content['dataset']}, which are trained on by name: "
            f"drawbench generate --dataset {content['dataset']}"
        )
    return {**content["recipe"], "source": content["source"], "data_seed": content["seed"]}


def verified(folder: str | Path, expected: Any, source: Source) -> dict:
    """Return the card of a stored data set whose files were compared with it.

    Args:
        expected: settings of the data set; those that are among :func:`settings` must agree.
        source: the digits that it must have been made of.

    Raises:
        Problem: as :func:`card`; the set is damaged, or another one.
    """
    content = card(folder)
    for name, value in settings(folder).items():
        wanted = getattr(expected, name, value)
        if wanted not in (value, "auto"):
            raise Problem(
                f"the data set in {folder} has {name} {value}, but the settings say {wanted}; "
                "name the right folder with --data FOLDER"
            )
    if content["source_sha256"] != source.sha256:
        raise Problem(
            f"the data set in {folder} was made of other digits than the {source.name} found here: "
            "make it again, or give their folder with --sources DIR"
        )
    for split in SPLITS:
        _verify(Path(folder), content, split)
    return content


def load(folder: str | Path, split: str, verify: bool = True) -> Scenes:
    """Read one part of a stored data set.

    Args:
        folder: of the data set.
        split: ``train``, ``validation`` or ``test``, or another part of the recipe.
        verify: compare the file's SHA-256 with the card. Types, shapes and ranges are always
            checked.

    Raises:
        Problem: no such data set; a file that is missing, damaged, or not what the card says.
    """
    content = card(folder)
    path, layout = Path(folder) / f"{split}.npz", _layout(content, split)
    if verify:
        _verify(Path(folder), content, split)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                name: _read_array(archive, name, expected) for name, expected in layout.items()
            }
        _recipe(content).check(arrays)
    # a broken file makes zipfile and zlib raise nearly anything: RuntimeError, zlib.error ...
    except Exception as error:
        raise Problem(
            f"{path} is damaged ({reason(error)}): make the data set again with "
            f"'{content['command']} --force'"
        ) from error
    return Scenes(**arrays, card=content)


# ---- The card


def _recipe(content: dict) -> Recipe:
    """Return the recipe of a card; raise TypeError or ValueError if it is none."""
    return RECIPES.get(content["dataset"], Scene)(**content["recipe"])


def _command(plan: dict, source: Source) -> str:
    """Return the command that makes the data set."""
    parts = _recipe(plan).parts
    counts = {
        part.replace("_", "-"): count
        for part, count in plan["counts"].items()
        if count != len(source.splits[parts[part]])
    }
    options = {"source": plan["source"], **plan["recipe"], "data_seed": plan["seed"], **counts}
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    return " ".join([f"drawbench make-data {plan['dataset']}", *words])


def _check_card(content: Any) -> None:
    """Raise ValueError, TypeError or KeyError if a card lacks what reading relies on."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"its format is not '{FORMAT}'")
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']}, this drawbench reads {VERSION}")
    if not all(isinstance(content[name], dict) for name in ("recipe", "counts", "sha256")):
        raise TypeError("recipe, counts and sha256 must be tables")
    texts = [content[name] for name in ("dataset", "source", "command")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("names and commands must be text")
    recipe = content["recipe"]
    parts = RECIPES.get(content["dataset"], Scene).parts  # type: ignore[attr-defined]
    counts = [content["counts"][part] for part in parts]
    if not all(type(number) is int for number in (*recipe.values(), *counts)) or min(counts) < 1:
        raise ValueError("sizes and counts must be whole numbers, counts 1 or more")
    if asdict(_recipe(content)) != recipe:  # type: ignore[call-overload]
        raise ValueError("its recipe is not complete")
    if not all(isinstance(content["sha256"][f"{part}.npz"], str) for part in parts):
        raise TypeError("hashes must be text")
    if set(content) - {OWN_HASH} != FIELDS:
        raise ValueError("it has other fields than a card")
    # Cards of earlier versions have no hash of their own.
    if OWN_HASH in content and content[OWN_HASH] != _own_hash(content):
        raise ValueError("its content does not match its own SHA-256")


def _own_hash(content: dict) -> str:
    """Return the SHA-256 of a card without its own hash."""
    fields = {name: value for name, value in content.items() if name != OWN_HASH}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


# ---- Writing


def _kept(folder: Path, plan: dict) -> dict | None:
    """Return the card if this very data set is there and sound, None if the folder is free.

    Raises:
        Problem: there is anything else.
    """
    if not os.path.lexists(folder):
        return None
    names = sorted(os.listdir(folder)) if folder.is_dir() else None
    advice = "write there all the same with --force"
    if names is None:
        content = "a file, not a folder"
    elif not names:
        return None
    elif CARD in names:
        present = card(folder)
        if all(present.get(name) == value for name, value in plan.items()):
            for part in _recipe(present).parts:
                _verify(folder, present, part)
            return present
        content, advice = (
            f"another data set: {_differences(present, plan)}",
            "replace it with --force",
        )
    elif any(name in names for name in _RUN_FILES):
        content = "a run"
    else:
        rest = ", ..." if len(names) > 3 else ""
        content = f"files that are not a complete data set ({', '.join(names[:3])}{rest})"
    raise Problem(f"{folder} holds {content}: choose another folder with --out, or {advice}")


def _differences(present: dict, plan: dict) -> str:
    """Return what a data set has otherwise than planned: ``canvas 60 instead of 100``."""

    def facts(card: dict) -> dict[str, Any]:
        counts = {f"{part} images": count for part, count in card["counts"].items()}
        digits = f"{card['source']} (SHA-256 {card['source_sha256'][:8]}...)"
        return {
            "version": card["version"],
            "data set": card["dataset"],
            **card["recipe"],
            "source": digits,
            "seed": card["seed"],
            **counts,
        }

    there, wanted = facts(present), facts(plan)
    return ", ".join(
        f"{name.replace('_', ' ')} {there.get(name)} instead of {wanted[name]}"
        for name in wanted
        if there.get(name) != wanted[name]
    )


def _beside(folder: Path, suffix: str) -> Path:
    return files.check_inside(folder.parent / f".{folder.name}.{suffix}", folder.parent)


def _lock(folder: Path, say: Say) -> filelock.AcquireReturnProxy:
    """Lock a data set's folder, waiting for another process that makes it."""
    lock = filelock.FileLock(_beside(folder, "lock"))
    files.check_inside(folder, folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"Waiting for another process that is making {folder}.")
        return lock.acquire()


def _render(
    folder: Path, scene: Recipe, source: Source, plan: dict, progress: Progress | None
) -> dict:
    """Write into a folder beside the place, then move: no interrupted write looks complete."""
    partial = _beside(folder, "partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a writer that was killed: we hold the lock
    partial.mkdir()
    done, total = 0, sum(plan["counts"].values())

    def report(scenes: int) -> None:
        nonlocal done
        done += scenes
        if progress:
            progress(done, total)

    try:
        content = {
            part: _write_part(partial / f"{part}.npz", scene, source, plan, part, report)
            for part in scene.parts
        }
        files = [f"{part}.npz" for part in scene.parts]
        try:
            version = importlib.metadata.version("drawbench")
        except importlib.metadata.PackageNotFoundError:  # run from a checkout, not installed
            version = "not installed"
        complete = {
            **plan,
            "sha256": {file: _sha256(partial / file) for file in files},
            "content_sha256": content,
            "rule": scene.rule(plan["seed"]),
            "command": _command(plan, source),
            "drawbench": version,
            "torch": torch.__version__,
        }
        complete[OWN_HASH] = _own_hash(complete)
        _describe(partial, complete)
        (partial / CARD).write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return complete


def _describe(folder: Path, content: dict) -> None:
    """Write ``croissant.json`` for the files in a folder."""
    sizes = {name: (folder / name).stat().st_size for name in content["sha256"]}
    side = _recipe(content).canvas
    text = croissant.describe(content, side, sizes, datetime.now(UTC).date().isoformat())
    (folder / croissant.NAME).write_text(text, encoding="utf-8")


def _move(partial: Path, folder: Path) -> None:
    """Put a finished data set in its place, over what may be there."""
    with contextlib.suppress(OSError):
        folder.rmdir()  # if it is empty
    if not os.path.lexists(folder):
        os.replace(partial, folder)
        return
    for name in _OURS:  # the card is first, so a half replaced data set has none
        (folder / name).unlink(missing_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == CARD):  # the card is last
        os.replace(path, folder / path.name)


def _write_part(
    path: Path, scene: Recipe, source: Source, plan: dict, part: str, report: Callable[[int], None]
) -> str:
    """Render one part into an npz file, a chunk at a time, and return the SHA-256 of its content.

    The file is deflated, which makes it some twenty times smaller. How well differs between
    versions of zlib, so the content (images, labels, boxes) has a hash of its own, which is the
    same on every platform. No time of day is stored.
    """
    layout, content = _layout(plan, part), hashlib.sha256()
    digits = source.splits[scene.parts[part]]
    chunk = max(1, min(1_000, CHUNK_BYTES // scene.scene_bytes))
    renderings = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with _member(archive, "images", *layout["images"]) as stream:
            for index in torch.arange(plan["counts"][part]).split(chunk):
                rendered = scene.stored(digits, index, plan["seed"], part)
                images = rendered.images.numpy().data
                stream.write(images)
                content.update(images)
                renderings.append(rendered[1:])
                report(len(index))
        for name, chunks in zip(list(layout)[1:], zip(*renderings, strict=True), strict=True):
            dtype, shape = layout[name]
            array = torch.cat(chunks).numpy().astype(dtype).reshape(shape)
            content.update(array.data)
            with _member(archive, name, dtype, shape) as stream:
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


def _verify(folder: Path, content: dict, split: str) -> None:
    """Check that a part's file is there with the SHA-256 that the card gives."""
    path, layout = folder / f"{split}.npz", _layout(content, split).values()
    expected = content["sha256"][path.name]
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


def _layout(content: dict, split: str) -> dict[str, Layout]:
    """Return type and shape of each array, as the card promises them."""
    return _recipe(content).layout(content["counts"][split])


def _read_array(archive: zipfile.ZipFile, name: str, expected: Layout) -> np.ndarray:
    def check(*actual: Any) -> None:
        if actual != expected:
            raise ValueError(
                f"{name} is {actual[0]} {actual[1]}, the card says {expected[0]} {expected[1]}"
            )

    return files.read_array(archive, name, check)
