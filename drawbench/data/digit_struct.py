"""``digitStruct.mat``: the boxes and labels of SVHN's full house numbers (Netzer et al. 2011).

A MATLAB 7.3 file, which is HDF5 behind a header of 512 bytes. ``digitStruct`` is a group of two
columns of references, an image's ``name`` (character codes) and its ``bbox``, a group with
``label``, ``left``, ``top``, ``width`` and ``height``. Each of these is one number where a house
has one digit, and a column of references to numbers where it has several.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from drawbench import files
from drawbench.errors import Problem, one_line, reason

HEADER = b"MATLAB 7.3"
MAX_DIGITS, MAX_NAME, MAX_HOUSES = 100, 255, 1_000_000  # that a file may claim
BOX = ("left", "top", "width", "height")


class House(NamedTuple):
    """An image with its digits."""

    name: str  #: of the image file
    labels: tuple[int, ...]  #: 0..9, from left to right; the file says 10 for 0
    boxes: np.ndarray  #: float64 (digits, 4): left, top, width, height, pixels


def read(path: Path, progress: Callable[[int, int], object] | None = None) -> list[House]:
    """Read all houses, in the order of the file.

    Raises:
        Problem: h5py is not installed; the file is missing, damaged or of another kind.
    """
    try:
        import h5py
    except ImportError as error:
        raise Problem(
            f"reading {path} needs h5py: install it with: pip install 'drawbench[svhn]'"
        ) from error
    _check_header(path)
    try:
        with h5py.File(path, "r") as file:
            names, boxes = (file["digitStruct"][field] for field in ("name", "bbox"))
            if names.shape != boxes.shape or not 0 < names.size <= MAX_HOUSES:
                raise ValueError(f"it has names {names.shape} and boxes {boxes.shape}")
            pairs = zip(names[()].ravel(), boxes[()].ravel(), strict=True)
            houses = []
            for done, (name, box) in enumerate(pairs, start=1):
                houses.append(_house(file, file[name], file[box], h5py.ref_dtype))
                if progress and done % 1000 == 0:
                    progress(done, names.size)
    except Exception as error:  # HDF5 raises nearly anything over a damaged file
        raise Problem(
            f"{path} is damaged, or not the digitStruct.mat of SVHN ({one_line(reason(error))}): "
            "unpack the original archive again"
        ) from error
    return houses


def _check_header(path: Path) -> None:
    """Raise Problem unless the file says that it is MATLAB 7.3."""
    try:
        with files.plain(path).open("rb") as stream:
            header = stream.read(len(HEADER))
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error
    if header != HEADER:
        other = header.decode("latin-1").strip()
        kind = f"a {other} file" if header.startswith(b"MATLAB") else "no MATLAB file"
        raise Problem(
            f"{path} is {kind}, but SVHN's digitStruct.mat is of MATLAB 7.3: unpack the original "
            "archive again"
        )


def _house(file: Any, name: Any, box: Any, reference: np.dtype) -> House:
    """Return one house; raise ValueError if its fields are not what the format says."""
    text = "".join(map(chr, _read(name, MAX_NAME)))
    if not text or Path(text).name != text or not text.isprintable():
        raise ValueError(f"an image is called {text[:80]!r}")

    def numbers(field: str) -> list[float]:
        values = _read(box[field], MAX_DIGITS)
        if box[field].dtype == reference:
            values = [number for each in values for number in _read(file[each], 1)]
        return [float(value) for value in values]

    labels, sides = numbers("label"), np.array([numbers(side) for side in BOX]).T
    if len(sides) != len(labels) or not np.isfinite(sides).all():
        raise ValueError(f"{text} has {len(labels)} labels and boxes {sides.tolist()}")
    if not labels or not set(labels) <= set(range(11)):
        raise ValueError(f"{text} has the labels {labels}, not 1 to 10")
    order = sorted(range(len(labels)), key=lambda digit: sides[digit, 0])
    return House(text, tuple(int(labels[digit]) % 10 for digit in order), sides[order])


def _read(dataset: Any, limit: int) -> list[Any]:
    """Return the values of a small dataset, whose size is checked before memory is allocated."""
    if not 0 < dataset.size <= limit:
        raise ValueError(f"{dataset.name} has {dataset.size} values, expected 1 to {limit}")
    return list(dataset[()].ravel())
