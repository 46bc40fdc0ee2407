"""Photographs: CIFAR-10 and SVHN as torchvision reads them, and any folder of images.

Under the sources folder CIFAR-10 lies as ``cifar-10-batches-py/`` and SVHN as
``SVHN/train_32x32.mat`` and ``SVHN/test_32x32.mat``. CIFAR-10's files are pickles, which can run
anything when they are opened: they are opened only after each has the MD5 that torchvision knows,
which is checked here and once more by torchvision, at every load.
"""

import contextlib
import os
import pickle
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from drawbench import streams
from drawbench.data import network
from drawbench.errors import Problem, one_line, reason

Say = Callable[[str], object]
Progress = Callable[[int, int], object]

VALIDATION = 5_000  # the last images of the training files are the validation part
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
LARGEST = (
    1 << 26
    # pixels of an image file: Pillow takes 4 bytes for each, twice where it is transparent, and must
    # not take a gigabyte
)
LARGEST_SIDE = 1024  # pixels of a picture to learn
FEWEST = 3  # images: one for each part

# What SUFFIXES stand for. Pillow goes by content and knows many more, among them one (EPS) that
# starts another program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
_GREY = (
    "1",
    "L",
    "LA",
    "La",
    "I",
    "I;16",
    "I;16L",
    "I;16B",
    "F",
)  # modes of Pillow; palettes count as colour


class Photographs(NamedTuple):
    """Pictures in three parts that share none: uint8 (N, C, H, W) by ``train``, ``validation`` and
    ``test``, and what they are.
    """

    name: str
    parts: dict[str, Tensor]
    note: str


# ---- CIFAR-10 and SVHN
# -------------------------------------------------------------------------------------------------------


def cifar10(root: str | Path, download: bool = True) -> Photographs:
    """CIFAR-10: 45,000 images, the last 5,000 of the training files as validation, and 10,000 test
    images, uint8 (N, 3, 32, 32).

    Args:
        root: the sources folder.
        download: whether missing files may be fetched (170 MB).

    Raises:
        Problem: files missing or damaged, a download that failed.
    """
    from torchvision.datasets import CIFAR10

    files = dict(
        [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    )
    folder = Path(root) / CIFAR10.base_folder
    _require(
        "CIFAR-10",
        folder,
        files,
        [CIFAR10.url],
        download,
        lambda place: CIFAR10(place.parent, download=True),
    )
    train, test = _read(
        "CIFAR-10",
        folder,
        lambda: [CIFAR10(root, train=train).data.transpose(0, 3, 1, 2) for train in (True, False)],
    )
    return Photographs(
        "cifar10", _cut("CIFAR-10", train, test), "CIFAR-10, 32x32 colour photographs"
    )


def svhn(root: str | Path, download: bool = True) -> Photographs:
    """SVHN in its cropped format: 68,257 images, the last 5,000 of the training file, 26,032 test
    images, uint8 (N, 3, 32, 32).

    The paper uses other pictures of the same houses: 64x64 crops with whole numbers, of which it
        cuts 54x54 patches.

    Args:
        root: the sources folder.
        download: whether missing files may be fetched (250 MB).

    Raises:
        Problem: files missing or damaged, a download that failed.
    """
    from torchvision.datasets import SVHN

    pairs = [SVHN.split_list[split] for split in ("train", "test")]
    folder = Path(root) / "SVHN"

    def fetch(place: Path) -> None:
        for split in ("train", "test"):
            SVHN(place, split, download=True)

    _require(
        "SVHN",
        folder,
        {file: md5 for _, file, md5 in pairs},
        [url for url, _, _ in pairs],
        download,
        fetch,
    )
    train, test = _read(
        "SVHN", folder, lambda: [SVHN(folder, split).data for split in ("train", "test")]
    )
    note = "SVHN in its 32x32 cropped-digit format, not the 64x64 crops with whole numbers that the paper uses"
    return Photographs("svhn", _cut("SVHN", train, test), note)


def _require(
    name: str,
    folder: Path,
    files: dict[str, str],
    urls: list[str],
    download: bool,
    fetch: Callable[[Path], object],
) -> None:
    """See to it that every file is there with its MD5; fetch what is missing into a temporary
    folder first.
    """
    missing = _missing(name, folder, files)
    if not missing:
        return
    if not download:
        raise Problem(
            f"{folder / missing[0]} is missing: let {name} be downloaded, or put its original files there"
        )
    with network.downloading(name, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as temporary:
            place = Path(temporary) / folder.name
            if not network.answers(urls):
                raise OSError("no server could be reached")
            # Standard output belongs to results; torchvision may print there.
            with (
                network.socket_timeout(),
                contextlib.redirect_stdout(sys.stderr),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                fetch(place)
            if left_out := _missing(name, place, files):
                raise OSError(f"{left_out[0]} was not among what was downloaded")
            folder.mkdir(exist_ok=True)
            for file in missing:
                os.replace(place / file, folder / file)


def _missing(name: str, folder: Path, files: dict[str, str]) -> list[str]:
    """The files that are not there; the others are found right in MD5, or named as damaged."""
    from torchvision.datasets.utils import check_integrity

    for file, md5 in files.items():
        try:
            if (folder / file).exists() and not check_integrity(folder / file, md5):
                raise Problem(
                    f"{folder / file} does not have the MD5 {md5} of {name}, so it is damaged: delete it to have it downloaded"
                )
        except OSError as error:
            raise Problem(f"{folder / file} cannot be read ({error.strerror or error})") from error
    return [file for file in files if not (folder / file).exists()]


def _read(name: str, folder: Path, read: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """What torchvision decodes. Files with the right MD5 decode; the rest is for a torchvision or
    numpy that reads them otherwise.
    """
    try:
        # The files are older than numpy's present conventions, of which it warns.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        ImportError,
        pickle.UnpicklingError,
    ) as error:
        raise Problem(
            f"{name} in {folder} cannot be read ({reason(error)}): put the original files there"
        ) from error


def _cut(name: str, train: np.ndarray, test: np.ndarray) -> dict[str, Tensor]:
    for what, images in (("training", train), ("test", test)):
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[1:] != (3, 32, 32)
            or not len(images)
        ):
            raise Problem(
                f"the {what} images of {name} must be uint8 (N, 3, 32, 32), but are {images.dtype} {images.shape}"
            )
    whole = torch.from_numpy(np.ascontiguousarray(train))
    cut = len(whole) - VALIDATION
    if cut < 1:
        raise Problem(
            f"{name} has {len(whole):,} training images, but {VALIDATION:,} are kept for validation, so more are needed"
        )
    return {
        "train": whole[:cut],
        "validation": whole[cut:],
        "test": torch.from_numpy(np.ascontiguousarray(test)),
    }


# ---- A folder of images
# ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Picture:
    """One decoded image: uint8 (C, side, side), and the width and height in the file, pixels."""

    path: Path
    pixels: np.ndarray
    size: tuple[int, int]


class _Unusable(Exception):
    """Why an image cannot be used, as the end of a sentence that begins with its name."""


def folder(
    images: str | Path,
    side: int,
    broken: str,
    data_seed: int,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Photographs:
    """Every image of a folder and its subfolders, as squares.

    Files with a name in ``SUFFIXES`` are read, in the order of their paths; names that begin with a
    dot are left out, linked folders are not entered. Each image is turned upright (EXIF), laid on
    black where it is transparent, cut to the largest square around its centre and resized with
    antialiasing (bicubic). Of an animation the first picture is taken. Grey images give one
    channel, colour images (palettes among them) three; the first image decides which, and one of
    the other kind cannot be used.

    If there are subfolders ``train`` and ``test``, these are the parts, and a tenth of ``train`` is
    the validation part. If not, a tenth of all images is the validation part and a tenth the test
    part. Which images those are follows from the data seed and the names of the files.

    Args: images: the folder. side: of the squares, pixels. broken: ``stop`` at an image that cannot
        be used, or ``skip`` such images and say how many they were. data_seed: of the choice of
        parts. say: called with a sentence where images of several sizes were made equal, enlarged,
        left out or skipped. progress: called with the number of images read and to be read.

    Returns:
        uint8 (N, C, side, side) in three parts.

    Raises: Problem: a side or word that is none; no such folder, or one that cannot be read; fewer
        than 3 usable images; with
            ``stop``, an image that cannot be decoded, is larger than ``LARGEST`` pixels, or is grey
            among colour (or the reverse).
    """
    if broken not in ("stop", "skip"):
        raise Problem(
            f"--broken says what to do with images that cannot be used, stop or skip, but it is '{broken}'"
        )
    if not 1 <= side <= LARGEST_SIDE:
        raise Problem(
            f"the side of the pictures must be in 1..{LARGEST_SIDE} pixels, but it is {side}: use --size 32, for example"
        )
    root = Path(images)
    paths, divided = _find(root, say)
    pictures = _decode(root, paths, side, broken, say, progress)
    _remark(pictures, root, side, say)
    stacked = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    parts = {
        part: stacked[rows] for part, rows in _divide(pictures, root, divided, data_seed).items()
    }
    # The name goes into file names and tables, where not every character of a folder's name is
    # safe.
    word = re.sub(r"[^A-Za-z0-9_.]+", "-", root.resolve().name).strip("-.") or "images"
    kind = "grey" if stacked.shape[1] == 1 else "colour"
    note = f"{len(stacked):,} {kind} images of the folder '{word}', the centre square of each resized to {side}x{side}"
    return Photographs(f"folder-{word}" + (f"-{side}x{side}" if side != 32 else ""), parts, note)


def _find(root: Path, say: Say | None) -> tuple[list[Path], bool]:
    """The images in the order of their paths, and whether they lie in ``train`` and ``test``."""
    if not root.is_dir():
        raise Problem(
            f"{root} is {'not a folder' if root.exists() else 'missing'}: name a folder of images with --images DIR"
        )

    def stop(error: OSError) -> None:
        raise Problem(
            f"{error.filename} cannot be read ({error.strerror or error}): allow it, or move it out of {root}"
        ) from error

    found = []
    for place, folders, names in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place) / name
            for name in names
            if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    # By code points of the path with slashes, which is the same order on every system.
    found.sort(key=lambda path: path.relative_to(root).as_posix())
    if not found:
        raise Problem(
            f"{root} holds no images ({', '.join(SUFFIXES)}): name a folder of images with --images DIR"
        )
    inside = [path for path in found if _part(path, root) in ("train", "test")]
    divided = {_part(path, root) for path in inside} == {"train", "test"}
    if divided and len(inside) < len(found) and say:
        say(
            f"{root} has subfolders train and test, so the {len(found) - len(inside):,} images elsewhere in it are left out."
        )
    return (inside if divided else found), divided


def _part(path: Path, root: Path) -> str:
    """The subfolder that an image lies in, at whatever depth; empty for one beside the subfolders."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _decode(
    root: Path,
    paths: list[Path],
    side: int,
    broken: str,
    say: Say | None,
    progress: Progress | None,
) -> list[_Picture]:
    pictures: list[_Picture] = []
    unusable: list[str] = []
    # Pillow warns of what it can read all the same, and of large images, which are measured here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for done, path in enumerate(paths):
            try:
                picture = _picture(path, side)
                if pictures and picture.pixels.shape != pictures[0].pixels.shape:
                    kinds = [
                        {1: "grey", 3: "in colour"}[one.pixels.shape[0]]
                        for one in (picture, pictures[0])
                    ]
                    raise _Unusable(f"is {kinds[0]} but {_named(pictures[0].path)} is {kinds[1]}")
                pictures.append(picture)
            except _Unusable as error:
                if broken == "stop":
                    raise Problem(
                        f"{_named(path)} {error}: remove or convert it, or leave out such images with --broken skip"
                    ) from error
                unusable.append(f"{_named(path)} {error}")
            if progress:
                progress(done + 1, len(paths))
    if unusable and say:
        say(
            f"{len(unusable):,} of {len(paths):,} images in {root} cannot be used and were skipped; the first: {unusable[0]}."
        )
    return pictures


def _picture(path: Path, side: int) -> _Picture:
    try:
        if (
            not path.is_file()
        ):  # a link to nowhere, or a pipe, which would be waited for without end
            raise _Unusable("is not a file that can be read")
        with Image.open(path, formats=FORMATS) as image:
            size = image.size
            if size[0] * size[1] > LARGEST:
                raise _Unusable(
                    f"has {size[0]:,} x {size[1]:,} pixels, more than the {LARGEST:,} that are allowed"
                )
            # A JPEG can be decoded at a half, a quarter or an eighth of its size, much faster; what
            # is left is reduced below.
            image.draft(None, (4 * side, 4 * side))
            return _Picture(path, _square(_opaque(_upright(image)), side), size)
    except _Unusable:
        raise
    except Image.DecompressionBombError as error:
        raise _Unusable(f"has more pixels than the {LARGEST:,} that are allowed") from error
    # a broken file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error,
    # IndexError ...
    except Exception as error:
        raise _Unusable(
            f"cannot be decoded ({one_line(reason(error).replace(str(path), path.name))})"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    """As the camera was held; an image whose EXIF cannot be read stays as it is."""
    with contextlib.suppress(SyntaxError, ValueError, KeyError, TypeError):
        ImageOps.exif_transpose(image, in_place=True)  # else it would be held twice
    return image


def _opaque(image: Image.Image) -> Image.Image:
    """Mode L or RGB, transparent parts on black."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip at 255
        values = np.array(image, dtype=np.int32)
        np.clip(values, 0, 65_535, out=values)
        values += 128
        values //= 257
        return Image.fromarray(values.astype(np.uint8))
    mode = "L" if image.mode in _GREY else "RGB"
    if not (image.mode.endswith(("A", "a")) or "transparency" in image.info):
        return image.convert(mode)
    seen = image if image.mode == mode + "A" else image.convert(mode + "A")
    on_black = Image.new(mode, image.size)
    on_black.paste(seen.convert(mode), mask=seen.getchannel("A"))
    return on_black


def _square(image: Image.Image, side: int) -> np.ndarray:
    """The largest centred square, resized, uint8 (C, side, side)."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    small = image.resize(
        (side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short)
    )
    pixels = np.array(small, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _remark(pictures: list[_Picture], root: Path, side: int, say: Say | None) -> None:
    """What resizing did, where that may surprise."""
    if len(pictures) < FEWEST:
        raise Problem(
            f"{root} holds {len(pictures)} usable images, but a train, a validation and a test part need {FEWEST} or more"
        )
    sizes = {picture.size for picture in pictures}
    if say and len(sizes) > 1:
        (w, h), (wide, high) = (
            pick(sizes, key=lambda size: (size[0] * size[1], size)) for pick in (min, max)
        )
        span = f"{len(sizes):,} sizes, {w}x{h} to {wide}x{high}"
        say(
            f"The images in {root} have {span}: the centre square of each is resized to {side}x{side}."
        )
    small = [picture for picture in pictures if min(picture.size) < side]
    if say and small:
        (w, h), first = small[0].size, _named(small[0].path)
        say(
            f"{len(small):,} images are smaller than {side}x{side} and were enlarged; the first: {first}, {w}x{h} (--size sets the side)."
        )


def _divide(
    pictures: list[_Picture], root: Path, divided: bool, data_seed: int
) -> dict[str, list[int]]:
    """Row numbers of the parts, each in the order of the paths."""

    def chosen(rows: list[int], count: int) -> set[int]:
        names = {row: pictures[row].path.relative_to(root).as_posix() for row in rows}
        return set(
            sorted(rows, key=lambda row: (streams.key(data_seed, "part", names[row]), names[row]))[
                :count
            ]
        )

    rows = list(range(len(pictures)))
    test = (
        {row for row in rows if _part(pictures[row].path, root) == "test"}
        if divided
        else chosen(rows, max(1, len(rows) // 10))
    )
    rest = [row for row in rows if row not in test]
    if not test or len(rest) < 2:
        raise Problem(
            f"{root} has {len(rest)} usable images in train and {len(test)} in test, but 2 and 1 or more are needed"
        )
    validation = chosen(rest, max(1, (len(rest) if divided else len(rows)) // 10))
    return {
        "train": [row for row in rest if row not in validation],
        "validation": sorted(validation),
        "test": sorted(test),
    }


def _named(path: Path) -> str:
    """A path that can be printed whatever bytes its name has."""
    return one_line(str(path))
