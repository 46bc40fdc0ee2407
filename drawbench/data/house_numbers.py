"""SVHN, house numbers from Street View (Netzer et al. 2011), in both published formats.

``--format cropped`` is one digit in 32x32 pixels (:func:`drawbench.data.photographs.load_svhn`).
``--format full`` are whole photographs with a box around each digit, of which are made

* for a generator the paper's images: the rectangle around all digits, enlarged by 30% in both
  directions, resized to 64x64 (Goodfellow et al. 2013, section 5.1); training takes a random 54x54
  window of it at each presentation, validation and test the middle one;
* for a classifier scenes of 64x64 with one labelled digit in the middle, half as high or wide as
  the scene, and its neighbours around it.

Under the sources folder the photographs lie as the published archives unpack: ``SVHN/train/``,
``SVHN/test/`` and ``SVHN/extra/``, each with ``1.png``, ``2.png`` ... and ``digitStruct.mat``. What
is cut out of them is kept in the folder of generated data sets, because it takes minutes.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drawbench import files, streams
from drawbench.data import digit_struct, fetch, image_files
from drawbench.data.batch import Batch
from drawbench.data.dataset import Context, Dataset
from drawbench.data.digit_struct import House
from drawbench.data.digits import CLASSES
from drawbench.data.fetch import Original
from drawbench.data.photographs import load_svhn
from drawbench.data.scenes import targets
from drawbench.errors import Problem

SIDE, WINDOW = 64, 54  # pixels
ENLARGED = 1.3  # the rectangle around a number
MAX_DIGITS = 5  # of a number: Goodfellow et al. leave out the only longer one
VALIDATION = 4_701  # images, at most a tenth
BYTES = {"train": 404_141_560, "test": 276_555_967, "extra": 1_955_489_752}  # of the archives
# Images of train and extra, and of test, after the rules of this file.
PUBLISHED = {"numbers": (235_754, 13_068), "scenes": (73_257, 26_032)}
URL = "http://ufldl.stanford.edu/housenumbers/{}.tar.gz"
VERSION = 1  # rises when the same photographs would give other pixels

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Cuts(NamedTuple):
    """What was cut out of the photographs of a part."""

    images: np.ndarray  #: uint8 (N, 3, 64, 64)
    labels: np.ndarray  #: int64 (N,), of the digit in the middle; of a number its first digit
    houses: np.ndarray  #: int64 (N,), which house each is of


def load(settings: Any, context: Context) -> Dataset:
    """Load house numbers. Settings: ``format``; for generators also ``pixels`` and ``extra``.

    The paper trains its generator on 231,053 images of ``train`` and ``extra`` and validates on
    4,701; which ones is not published, so they are drawn here. Fewer photographs than published
    make another data set, whose name ends in their number.

    Raises:
        Problem: h5py is not installed; files missing or damaged, or a failed download.
    """
    if settings.format == "cropped":
        return load_svhn(settings, context)
    draws = hasattr(settings, "pixels")
    kind, cut = ("numbers", _number) if draws else ("scenes", _digits)
    learned = ("train", "extra") if draws and settings.extra else ("train",)
    _require((*learned, "test"), context)
    test = _cuts("test", kind, cut, context)
    parts = _divide([_cuts(part, kind, cut, context) for part in learned])
    parts["test"] = Batch(torch.from_numpy(test.images), torch.from_numpy(test.labels))
    train, validation, tested = sizes = [len(part) for part in parts.values()]
    size = "" if (train + validation, tested) == PUBLISHED[kind] else f"-of-{train}"
    counts = f"{' / '.join(f'{count:,}' for count in sizes)} images"
    counts += (
        "; not all that are published, so a rehearsal, comparable with no paper" if size else ""
    )
    if draws:
        return _windows(f"svhn-54x54{size}", parts, counts, context.seed)
    return Dataset.from_parts(
        f"svhn-scenes-64x64{size}",
        "svhn",
        parts,
        seed=context.seed,
        what=f"SVHN, 64x64 scenes with one labelled digit in the middle ({counts})",
        classes=CLASSES,
    )


def _windows(name: str, parts: dict[str, Batch], counts: str, seed: int) -> Dataset:
    """Return the data set of windows: at random places in training, else in the middle."""

    def middle(part: Batch) -> Batch:
        corners = torch.full((len(part), 2), (SIDE - WINDOW) // 2)
        return Batch(window(part.images, corners, WINDOW))

    return Dataset(
        name,
        "svhn",
        Windows(Batch(parts["train"].images), seed),
        middle(parts["validation"]),
        middle(parts["test"]),
        rule=f"SVHN, 54x54 windows of whole house numbers at 64x64 ({counts}); pixels unchanged, "
        "256 levels",
        pixels="intensity",
    )


@dataclass(frozen=True)
class Windows:
    """Training images (:class:`drawbench.data.dataset.Train`): a window at a random place of each,
    another at each presentation.
    """

    part: Batch
    seed: int
    side: int = WINDOW

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, first: int, count: int) -> Batch:
        """As :meth:`drawbench.data.dataset.Train.batch`."""
        index = torch.arange(first, first + count, device=self.part.images.device)
        images = self.part.images[targets(index, len(self), self.seed, "train")]
        places = [size - self.side + 1 for size in images.shape[2:]]
        corners = streams.integers(index, places, self.seed, "window")
        return Batch(window(images, corners, self.side))

    def to(self, device: torch.device) -> "Windows":
        """As :meth:`drawbench.data.dataset.Train.to`."""
        return replace(self, part=self.part.to(device))

    @property
    def fingerprint(self) -> str:
        """A hash of the images before windows are cut."""
        return self.part.sha256()


def window(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut a square out of each image.

    Args:
        images: (B, C, H, W).
        corners: int64 (B, 2), top and left.

    Returns:
        (B, C, side, side).
    """
    batch, channels, _, width = images.shape
    rows, columns = (corners.T[..., None] + torch.arange(side, device=images.device)).unbind()
    tall = images.gather(2, rows[:, None, :, None].expand(batch, channels, side, width))
    return tall.gather(3, columns[:, None, None, :].expand(batch, channels, side, side))


def _divide(cuts: list[Cuts]) -> dict[str, Batch]:
    """Divide houses into training and validation: no photograph is in both."""
    images = torch.from_numpy(np.concatenate([part.images for part in cuts]))
    labels = torch.from_numpy(np.concatenate([part.labels for part in cuts]))
    ids = np.concatenate([part.houses + (n << 32) for n, part in enumerate(cuts)])
    names, house = np.unique(ids, return_inverse=True)
    count = min(VALIDATION, len(names) // 10)
    if not count:
        raise Problem(f"SVHN needs photographs of 10 or more houses to train on, got {len(names)}")
    order = streams.permutation(len(names), 0, "svhn", "validation").numpy()
    chosen = torch.from_numpy(np.isin(house, order[:count]))
    masks = {"train": ~chosen, "validation": chosen}
    return {name: Batch(images[mask], labels[mask]) for name, mask in masks.items()}


# ------------------------------------------------------------------------------------ the original


def _require(parts: tuple[str, ...], context: Context) -> None:
    """Download the archives of the parts that are missing, one after the other."""
    folder = context.sources_root / "SVHN"
    missing = [part for part in parts if not (folder / part / "digitStruct.mat").is_file()]
    for part in missing:
        if (folder / part).exists():
            raise Problem(
                f"{folder / part} has no digitStruct.mat: unpack {part}.tar.gz there again, or "
                "remove the folder to have it downloaded"
            )
    if missing and not context.download:
        raise Problem(
            f"{folder / missing[0]} is missing: let SVHN be downloaded, or unpack "
            f"{missing[0]}.tar.gz into {folder}"
        )
    for part in missing:
        megabytes = f"{BYTES[part] / 1e6:,.0f} MB"
        context.say(f"Downloading SVHN's {part}.tar.gz ({megabytes}) into {folder}.")
        fetch.fetch(
            f"SVHN's {part}.tar.gz ({megabytes})",
            context.sources_root,
            folder,
            [Original(f"{part}.tar.gz", (URL.format(part),), None, BYTES[part])],
            unpack=partial(_unpack, part),
            progress=context.progress,
        )


def _unpack(part: str, place: Path) -> None:
    """Replace an archive by its images and ``digitStruct.mat``; whatever else it has stays out."""
    packed, wanted = place / f"{part}.tar.gz", re.compile(rf"{part}/(\d+\.png|digitStruct\.mat)")
    with tarfile.open(packed) as archive:
        for member in archive:
            if member.isfile() and wanted.fullmatch(member.name):
                archive.extract(member, place, filter="data")
    packed.unlink()


# ----------------------------------------------------------------------------- cut out and kept


def _cuts(part: str, kind: str, cut: Callable[..., Iterator[Any]], context: Context) -> Cuts:
    """Return what is cut out of a part: kept from an earlier time, or cut now. One process cuts,
    others wait for it.
    """
    place = context.datasets_root / f"svhn-{kind}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(place / f".{part}.lock").acquire()
    except OSError as error:
        raise Problem(f"cannot write into {place}: {error.strerror or error}") from error
    with lock:
        return _cut_once(part, kind, cut, context)


def _cut_once(part: str, kind: str, cut: Callable[..., Iterator[Any]], context: Context) -> Cuts:
    source, kept = context.sources_root / "SVHN" / part, context.datasets_root / f"svhn-{kind}"
    card, paths = kept / f"{part}.json", [kept / f"{part}-{field}.npy" for field in Cuts._fields]
    about = {"version": VERSION, "sha256": _sha256(source / "digitStruct.mat")}
    if card.exists():
        if files.read_json(card) == about | {"files": [_sha256(path) for path in paths]}:
            return Cuts(*(np.load(path, allow_pickle=False) for path in paths))
        context.say(f"{card} is of other files, so {part} is cut out again.")
    houses = digit_struct.read(source / "digitStruct.mat", context.progress)
    context.say(f"Cutting {kind} out of {len(houses):,} photographs in {source}, once.")
    result = _cut_all(source, houses, cut, context)
    card.unlink(missing_ok=True)  # written last: with a card the files are complete
    for path, array in zip(paths, result, strict=True):
        _keep(path, array)
    files.write_json(card, about | {"files": [_sha256(path) for path in paths]})
    return result


def _cut_all(
    source: Path, houses: list[House], cut: Callable[..., Iterator[Any]], context: Context
) -> Cuts:
    rows: list[tuple[np.ndarray, int, int]] = []
    outside: list[str] = []
    for number, house in enumerate(houses):
        path = source / house.name
        if not path.is_file():
            raise Problem(
                f"{source / 'digitStruct.mat'} names {house.name}, which is not in {source}: "
                "unpack the original archive again"
            )
        image = image_files.read(path)
        image = image.repeat(3, axis=0) if len(image) == 1 else image
        boxes = _inside(house.boxes, *image.shape[1:])
        if boxes is None:
            outside.append(house.name)
        else:
            rows += [(pixels, label, number) for pixels, label in cut(image, boxes, house.labels)]
        if context.progress:
            context.progress(number + 1, len(houses))
    if outside:
        context.say(
            f"{len(outside):,} of {len(houses):,} photographs in {source} have a box outside the "
            f"image and are left out; the first: {outside[0]}."
        )
    if not rows:
        raise Problem(f"no photograph in {source} has its boxes inside the image")
    images, labels, which = zip(*rows, strict=True)
    return Cuts(np.stack(images), np.array(labels, np.int64), np.array(which, np.int64))


def _inside(boxes: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Return boxes as left, top, right, bottom, clipped to the image; None if one misses it."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners = corners.clip(0, [width, height, width, height])
    return corners if (corners[:, 2:] - corners[:, :2] >= 1).all() else None


def _number(
    image: np.ndarray, boxes: np.ndarray, labels: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, int]]:
    """Cut out the whole number, unless it has more than `MAX_DIGITS` digits."""
    if len(labels) > MAX_DIGITS:
        return
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    middle, half = (low + high) / 2, ENLARGED * (high - low) / 2
    size = np.array(image.shape[:0:-1])
    low, high = (middle - half).clip(0, size), (middle + half).clip(0, size)
    yield _resized(image, (*low, *high)), labels[0]


def _digits(
    image: np.ndarray, boxes: np.ndarray, labels: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, int]]:
    """Cut out a square around each digit, twice the larger side of its box; beyond the photograph
    its edge is repeated.
    """
    reach = int(np.ceil((boxes[:, 2:] - boxes[:, :2]).max()))
    wide = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    for box, label in zip(boxes, labels, strict=True):
        middle, half = (box[:2] + box[2:]) / 2 + reach, (box[2:] - box[:2]).max()
        yield _resized(wide, (*(middle - half), *(middle + half))), label


def _resized(image: np.ndarray, box: Box) -> np.ndarray:
    """Resize a part of uint8 (3, H, W) to uint8 (3, 64, 64), antialiased (bicubic)."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    small = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(small).transpose(2, 0, 1)


def _keep(path: Path, array: np.ndarray) -> None:
    """Write an array, whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            np.save(stream, array)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Problem(f"cannot write {path}: {error.strerror or error}") from error


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file; empty for one that cannot be read."""
    try:
        with files.plain(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""
