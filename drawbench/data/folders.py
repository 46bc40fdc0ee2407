"""Any folder of images, for a generator or, with a subfolder for each class, for a classifier."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from drawbench import streams
from drawbench.data import image_files, pixels
from drawbench.data.batch import Batch
from drawbench.data.dataset import Context, Dataset
from drawbench.data.image_files import Unusable
from drawbench.errors import Problem, one_line

PARTS = ("train", "validation", "test")  # subfolders by which a folder may be divided


class _Image(NamedTuple):
    """A decoded image."""

    path: Path
    pixels: np.ndarray  #: uint8 (C, side, side)
    size: tuple[int, int]  #: width and height in the file, pixels


def load(settings: Any, context: Context) -> Dataset:
    """Load every image of a folder and its subfolders, as squares; see :mod:`.image_files`.

    Files are taken in the order of their paths. Names that begin with a dot are left out; links are
    followed, each folder and file is read once. The first image decides whether all are grey (one
    channel) or in colour (three).

    Subfolders ``train`` and ``test``, if there are both, are these parts, and ``validation`` or, if
    there is none, a tenth of ``train`` is the validation part. Otherwise a tenth of all images is
    the validation part and a tenth the test part. Which images those are follows from the data seed
    and the names of the files. For a classifier each subfolder (of those of the parts, if there are
    these) is a class, and each class is divided so; one image in two classes is an error. Copies of
    one image stay together, so that none is learned and measured.

    Settings: ``images`` (the folder), ``size`` (side of the squares, pixels), ``broken`` (``stop``
    at a file that cannot be used, or ``skip`` such files), ``data_seed`` and, for generators,
    ``pixels``.

    Raises:
        Problem: no such folder, or one that cannot be read; too few images, of a class or in all;
            an image in two classes or in two given parts; with ``stop``, a file that cannot be
            used.
    """
    rule, side, seed = getattr(settings, "pixels", None), settings.size, settings.data_seed
    if settings.images is None:
        raise Problem("the data set 'folder' is a folder of images: name it with --images DIR")
    root = Path(settings.images)
    paths = _find(root, rule is None, context)

    def keep(condition: Callable[[Path], bool], why: str) -> list[Path]:
        kept = list(filter(condition, paths))
        if len(kept) < len(paths):
            context.say(f"{why}: {len(paths) - len(kept):,} images elsewhere are left out.")
        return kept

    folders = {path: path.relative_to(root).parts[:-1] for path in paths}
    tops = {parents[0] for parents in folders.values() if parents}
    divided = tops.issuperset(("train", "test"))
    given = tuple(part for part in PARTS if part in tops) if divided else ()
    if divided:
        why = f"{root} has subfolders {', '.join(given[:-1])} and {given[-1]}"
        paths = keep(lambda path: folders[path][:1] in {(part,) for part in given}, why)
    classes, class_of = None, dict.fromkeys(paths, "")
    if rule is None:
        class_of = {path: "".join(folders[path][divided:][:1]) for path in paths}
        classes = tuple(sorted(set(class_of.values()) - {""}))
        if len(classes) < 2:
            raise Problem(
                f"{root} must have a subfolder for each of two or more classes, but has "
                f"{len(classes)}: sort the images into subfolders, or use drawbench generate"
            )
        for parent in (root / part for part in given or ("",)):
            _check_no_empty_class(parent, classes)
        why = "images must lie in the subfolder of a class"
        paths = keep(lambda path: class_of[path] != "", why)
    images = _decode(root, paths, side, settings.broken == "skip", context)
    _remark(images, root, side, context)
    labels = [class_of[image.path] for image in images]
    copies = _copies(images)
    if classes:
        _check_together(copies, images, labels, "classes")
    if given:
        tops_of = [folders[image.path][0] for image in images]
        _check_together(copies, images, tops_of, "parts")
    parts = _divide(images, labels, copies, classes or ("",), root, given, seed)
    if classes:
        context.say(_balance(Counter(labels), Counter(labels[row] for row in parts["test"])))
    stacked = torch.from_numpy(np.stack([image.pixels for image in images]))
    numbers = torch.tensor([classes.index(label) for label in labels]) if classes else None
    whole = Batch(stacked, numbers)
    rule = "intensity" if rule == "auto" else rule
    # The name goes into file names and tables, where not every character is safe.
    word = re.sub(r"[^A-Za-z0-9_.]+", "-", root.resolve().name).strip("-.") or "images"
    name = f"folder-{word}" + (f"-{side}x{side}" if side != 32 else "")
    name += "" if rule in (None, "intensity") else f"-{rule}"
    kind = "grey" if stacked.shape[1] == 1 else "colour"
    jpeg = any(image.path.suffix.lower() in (".jpg", ".jpeg") for image in images)
    lossy = " (JPEG, which lacks the finest detail)" if jpeg else ""
    return Dataset.from_parts(
        pixels.named(name, seed),
        "folder",
        {split: whole.at(torch.tensor(rows)) for split, rows in parts.items()},
        seed=context.seed,
        what=f"{len(images):,} {kind} images of the folder '{word}'{lossy}, the centre square of "
        f"each resized to {side}x{side}",
        pixels=rule,
        data_seed=seed,
        classes=classes,
    )


def pictures(root: Path) -> list[Path]:
    """Return the files below a folder that have the suffix of an image, in order."""
    found = (path for path in _walk(root) if path.suffix.lower() in image_files.suffixes())
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _find(root: Path, labelled: bool, context: Context) -> list[Path]:
    """Return the images in the order of their paths, and say what else is there.

    Of links to one file the first is taken; where folders are classes, the first in each folder.
    """
    if not root.is_dir():
        raise Problem(
            f"{root} is {'not a folder' if root.exists() else 'missing'}: name a folder of images "
            "with --images DIR"
        )
    images: dict[tuple, Path] = {}
    others = Counter[str]()
    # By code points of the path with slashes, which is the same order on every system.
    for path in sorted(_walk(root), key=lambda path: path.relative_to(root).as_posix()):
        suffix = path.suffix.lower()
        if suffix in image_files.suffixes():
            folder = path.relative_to(root).parts[:-1][:2] if labelled else ()
            images.setdefault((os.path.realpath(path), folder), path)
        else:
            others[suffix or "no suffix"] += 1
    if not images:
        raise Problem(
            f"{root} holds no images (.jpg, .png, .webp, .tif ...): name a folder of images with "
            "--images DIR"
        )
    if others:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(5))
        context.say(one_line(f"{others.total():,} files in {root} are not images: {kinds}."))
    return list(images.values())


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below a folder; linked folders come last, and each folder once."""
    waiting, links, visited = [root], list[Path](), {root.resolve(), *root.resolve().parents}
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = folder.resolve()
        if folder != root and real in visited:
            continue
        visited.add(real)
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise Problem(
                f"{folder} cannot be read ({error.strerror or error}): allow it, or move it out of "
                f"{root}"
            ) from error
        for path in (folder / name for name in names if not name.startswith(".")):
            if not os.path.isdir(path):
                yield path
            else:
                (links if path.is_symlink() else waiting).append(path)


def _decode(root: Path, paths: list[Path], side: int, skip: bool, context: Context) -> list[_Image]:
    images: list[_Image] = []
    unusable: list[str] = []
    for done, path in enumerate(paths, start=1):
        try:
            image = _Image(path, *image_files.read_sized(path, side))
            if images and len(image.pixels) != len(images[0].pixels):
                kinds = {1: "grey", 3: "in colour"}
                raise Unusable(
                    f"{one_line(str(path))} is {kinds[len(image.pixels)]} but "
                    f"{one_line(str(images[0].path))} is {kinds[len(images[0].pixels)]}"
                )
            images.append(image)
        except Unusable as error:
            if not skip:
                raise Problem(
                    f"{error}: remove or convert it, or leave out such files with --broken skip"
                ) from error
            unusable.append(str(error))
        if context.progress:
            context.progress(done, len(paths))
    if unusable:
        context.say(
            f"{len(unusable):,} of {len(paths):,} images in {root} cannot be used and were "
            f"skipped; the first: {unusable[0]}."
        )
    return images


def _remark(images: list[_Image], root: Path, side: int, context: Context) -> None:
    """Say what resizing did, where that may surprise."""
    sizes = sorted({image.size for image in images}, key=lambda size: (size[0] * size[1], size))
    if len(sizes) > 1:
        (w, h), (wide, high) = sizes[0], sizes[-1]
        context.say(
            f"The images in {root} have {len(sizes):,} sizes, {w}x{h} to {wide}x{high}: the centre "
            f"square of each is resized to {side}x{side}."
        )
    small = [image for image in images if min(image.size) < side]
    if small:
        w, h = small[0].size
        context.say(
            f"{len(small):,} images are smaller than {side}x{side} and were enlarged; the first: "
            f"{one_line(str(small[0].path))}, {w}x{h} (--size sets the side)."
        )


def _check_no_empty_class(parent: Path, classes: Sequence[str]) -> None:
    """Raise Problem if a subfolder holds no image: a class would be missing without a word."""
    for folder in sorted(parent.iterdir()):
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in classes:
            raise Problem(
                f"{folder} holds no images, but each subfolder is a class: add images or remove it"
            )


def _copies(images: list[_Image]) -> list[int]:
    """Return, for each image, the row of the first one with the same pixels."""
    first: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.pixels, digest_size=16).digest() for image in images)
    return [first.setdefault(digest, row) for row, digest in enumerate(digests)]


def _check_together(
    copies: list[int], images: list[_Image], groups: Sequence[str], kind: str
) -> None:
    """Raise Problem if the same image lies in two groups, which are of a kind."""
    for row, other in enumerate(copies):
        if groups[other] != groups[row]:
            raise Problem(
                f"{one_line(str(images[other].path))} and {one_line(str(images[row].path))} are "
                f"the same image in two {kind}: keep it in one of them"
            )


def _balance(every: Counter[str], test: Counter[str]) -> str:
    """Return a sentence on the sizes of the classes, and on what guessing would reach."""
    (largest, most), *_ = every.most_common(1)
    smallest, fewest = every.most_common()[-1]
    if most == fewest:
        return f"{len(every)} classes of {most:,} images each."
    guess = test.most_common(1)[0]
    return (
        f"{len(every)} classes of {fewest:,} ('{smallest}') to {most:,} images ('{largest}'): "
        f"answering '{guess[0]}' is right for {100 * guess[1] / test.total():.1f}% of the test "
        "images."
    )


def _divide(
    images: list[_Image],
    labels: list[str],
    copies: list[int],
    classes: Sequence[str],
    root: Path,
    given: tuple[str, ...],
    data_seed: int,
) -> dict[str, list[int]]:
    """Return the row numbers of the parts, each in the order of the paths.

    Args:
        copies: of :func:`_copies`; copies go into the same part.
        given: the parts that have a subfolder each; empty if there are none.
    """
    names = [image.path.relative_to(root).as_posix() for image in images]

    def choose(rows: list[int], count: int) -> set[int]:
        alike: dict[int, list[int]] = {}
        for row in rows:
            alike.setdefault(copies[row], []).append(row)
        chosen: set[int] = set()
        for first in sorted(alike, key=lambda row: streams.key(data_seed, "part", names[row])):
            if len(chosen) < max(1, count):
                chosen.update(alike[first])
        return chosen

    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in classes:
        rows = [row for row, own in enumerate(labels) if own == label]
        if given:
            test = {row for row in rows if names[row].startswith("test/")}
        else:
            test = choose(rows, len(rows) // 10)
        rest = [row for row in rows if row not in test]
        validation = {row for row in rest if names[row].startswith("validation/")}
        if "validation" not in given and len(rest) > 1:
            validation = choose(rest, len(rest if given else rows) // 10)
        if not test or not validation or len(rest) == len(validation):
            of_class = f" of the class '{label}'" if label else ""
            learned = len({copies[row] for row in rest})
            learned -= len({copies[row] for row in validation}) if "validation" in given else 0
            measured = f", {len(validation)} to validate on" if "validation" in given else ""
            raise Problem(
                f"{root} has {learned} different usable images{of_class} to train on{measured} and "
                f"{len(test)} to test on, but {1 if measured else 2} and 1 or more are needed"
            )
        parts["train"] += [row for row in rest if row not in validation]
        parts["validation"] += validation
        parts["test"] += test
    return {split: sorted(rows) for split, rows in parts.items()}
