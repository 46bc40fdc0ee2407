"""Making a generated data set: rendering it in chunks into a folder that looks complete only when
it is (:mod:`drawbench.data.stored` reads it).
"""

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np
import torch
from numpy.lib import format as npy

from drawbench import files
from drawbench.data import cards, croissant, stored
from drawbench.data.cards import CARD, Recipe
from drawbench.data.digits import SPLITS, Source
from drawbench.errors import Problem

CHUNK_BYTES = 1 << 28  # working memory for rendering, roughly

_PARTS = (*SPLITS, "held_out")
_OURS = (CARD, *map("{}.npz".format, _PARTS), croissant.NAME, "montage.png")  # all ever deleted
_RUN_FILES = ("config.json", "result.json", "metrics.csv")

Progress = Callable[[int, int], object]
Say = Callable[[str], object]


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
    option: str = "--out",
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
        option: that names another place, for messages.

    Returns:
        The card.

    Raises:
        Problem: a folder that holds something else or is a symbolic link; a damaged data set there;
            a disk that cannot be written.
    """
    folder = Path(folder)
    plan = {  # what the card says before rendering; equal plans mean equal pixels
        "format": cards.FORMAT,
        "version": cards.VERSION,
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
        if not force and (kept := _kept(folder, plan, option)):
            say(f"{folder} already holds this data set, verified: it is kept")
            with contextlib.suppress(OSError):  # of an earlier version, and perhaps read-only
                if not os.path.lexists(folder / croissant.NAME):
                    _describe(folder, kept)
            return kept
        with _lock(folder, say):
            # another process may have made it in the meantime
            kept = None if force else _kept(folder, plan, option)
            return kept or _render(folder, scene, source, plan, progress)
    except OSError as error:
        raise Problem(
            f"the data set could not be written to {folder} ({error.strerror or error}): free the "
            f"place, or choose another with {option}"
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
    option = "--datasets"
    return write(folder, scene, source, dataset, seed, progress=progress, say=say, option=option)


def _command(plan: dict, source: Source) -> str:
    """Return the command that makes the data set."""
    parts = cards.recipe_of(plan).parts
    counts = {
        part.replace("_", "-"): count
        for part, count in plan["counts"].items()
        if count != len(source.splits[parts[part]])
    }
    options = {"source": plan["source"], **plan["recipe"], "data_seed": plan["seed"], **counts}
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    return " ".join([f"drawbench make-data {plan['dataset']}", *words])


def _kept(folder: Path, plan: dict, option: str) -> dict | None:
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
        present = cards.read(folder)
        if all(present.get(name) == value for name, value in plan.items()):
            for part in cards.recipe_of(present).parts:
                stored.check_file(folder, present, part)
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
    if option != "--out":  # a training, in which --force is for the run
        advice = "remove it"
    raise Problem(f"{folder} holds {content}: choose another folder with {option}, or {advice}")


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
    folder = Path(os.path.abspath(folder))  # "." has no name
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
        names = [f"{part}.npz" for part in scene.parts]
        complete = {
            **plan,
            "sha256": {name: stored.sha256(partial / name) for name in names},
            "content_sha256": content,
            "rule": scene.rule(plan["seed"]),
            "command": _command(plan, source),
            "drawbench": files.version_of("drawbench"),
            "torch": torch.__version__,
        }
        complete[cards.OWN_HASH] = cards.own_hash(complete)
        _describe(partial, complete)
        (partial / CARD).write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return complete


def _describe(folder: Path, content: dict) -> None:
    """Write ``croissant.json`` for the files in a folder."""
    sizes = {name: (folder / name).stat().st_size for name in content["sha256"]}
    side = cards.recipe_of(content).canvas
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
    layout, content = cards.layout_of(plan, part), hashlib.sha256()
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
