"""The fixed binarisation of MNIST, on which likelihoods of binarised MNIST are published.

Salakhutdinov & Murray ("On the quantitative analysis of deep belief networks", ICML 2008) drew each
pixel once, white with probability equal to its intensity; Larochelle distributes the result as
three text files, ``binarized_mnist/binarized_mnist_{train,valid,test}.amat`` under the sources
folder. Each line is an image: 784 zeros and ones, row by row, separated by blanks and ended by a
line feed, so a file of N images has exactly ``1568 N`` bytes. The images have no labels and are
ordered by class.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drawbench.data import fetch
from drawbench.data.fetch import Original
from drawbench.errors import Problem

SIDE = 28
FOLDER = "binarized_mnist"
URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
PARTS = {
    "train": "binarized_mnist_train.amat",
    "validation": "binarized_mnist_valid.amat",
    "test": "binarized_mnist_test.amat",
}
COUNTS = dict(zip(PARTS.values(), (50_000, 10_000, 10_000), strict=True))
_DIGESTS = (
    "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
)
SHA256 = dict(zip(PARTS.values(), _DIGESTS, strict=True))
LINE = 2 * SIDE**2  # bytes of an image: each pixel is followed by a blank or a line feed


class Missing(Problem):
    """None of the files is there, and they could not be downloaded."""


def load(
    root: str | Path, download: bool = True, progress: Callable[[int, int], object] | None = None
) -> dict[str, Tensor]:
    """Load the three parts, comparing each file with its known SHA-256.

    Args:
        root: the sources folder.
        download: whether missing files may be downloaded.
        progress: called with the bytes read and to be read of each download.

    Returns:
        uint8 (50000, 1, 28, 28), (10000, 1, 28, 28) and (10000, 1, 28, 28), black 0 and white 255,
        as ``train``, ``validation`` and ``test``.

    Raises:
        Missing: no file is there and none could be downloaded.
        Problem: a file is truncated, changed, mixed up or unreadable, or only some are there and
            the rest could not be downloaded.
    """
    folder = Path(root) / FOLDER
    missing = [file for file in SHA256 if not (folder / file).exists()]
    # A damaged file is reported before anything is downloaded.
    contents = {file: _read(folder / file) for file in SHA256 if file not in missing}
    if missing:
        try:
            if not download:
                raise Problem(
                    f"{folder / missing[0]} is missing: let it be downloaded, or put "
                    f"{URL}{missing[0]} there"
                )
            originals = [
                Original(file, (URL + file,), SHA256[file], COUNTS[file] * LINE) for file in missing
            ]
            fetch.fetch("binarised MNIST", Path(root), folder, originals, progress=progress)
        except Problem as problem:
            raise (Missing if len(missing) == len(SHA256) else Problem)(str(problem)) from problem
        contents |= {file: _read(folder / file) for file in missing}
    return {part: _decode(contents[file]) for part, file in PARTS.items()}


def _read(path: Path) -> bytes:
    """Return the bytes of a file whose length and SHA-256 are right."""
    expected = COUNTS[path.name] * LINE
    content, length = fetch.content(path, expected)
    if length != expected:
        raise Problem(
            f"{path} has {length:,} bytes where {expected:,} are expected ({COUNTS[path.name]:,} "
            f"lines of {SIDE**2} zeros and ones): {fetch.ADVICE}"
        )
    digest = hashlib.sha256(content).hexdigest()
    for other, known in SHA256.items():
        if digest == known and other != path.name:
            raise Problem(f"{path} holds {other}, so the files were mixed up: {fetch.ADVICE}")
    if digest != SHA256[path.name]:
        raise Problem(
            f"{path} is damaged, its SHA-256 is {digest} where {SHA256[path.name]} is expected: "
            f"{fetch.ADVICE}"
        )
    return content


def _decode(content: bytes) -> Tensor:
    """Decode bytes that are ``0`` or ``1``, each followed by a separator: uint8 (N, 1, 28, 28)."""
    pixels = np.frombuffer(content, np.uint8)[::2] & 1
    return torch.from_numpy(pixels * np.uint8(255)).view(-1, 1, SIDE, SIDE)


def state(root: str | Path) -> tuple[str, str]:
    """Return ``verified``, ``missing`` or ``damaged``, and what to do; downloads nothing."""
    folder = Path(root) / FOLDER
    if not all((folder / file).exists() for file in SHA256):
        return "missing", f"drawbench generate downloads it, or put the files of {URL} there"
    try:
        for file in SHA256:
            _read(folder / file)
    except Problem as problem:
        return "damaged", str(problem)
    return "verified", ""
