"""The fixed binarisation of MNIST, on which likelihoods of binarised MNIST are published.

Salakhutdinov & Murray ("On the quantitative analysis of deep belief networks", ICML 2008) drew each
pixel once, white with probability equal to its intensity; Larochelle distributes the result as
three text files, ``binarized_mnist/ binarized_mnist_{train,valid,test}.amat`` under the sources
folder. A line is an image: 784 zeros and ones, row by row, with a blank between and a line feed at
the end, so a file of N images has exactly ``1568 N`` bytes. The images have no labels and are
ordered by class.
"""

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drawbench.data import network
from drawbench.errors import Problem
from drawbench.files import plain

SIDE = 28
FOLDER = "binarized_mnist"
URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
SHA256 = {
    "binarized_mnist_train.amat": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "binarized_mnist_valid.amat": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "binarized_mnist_test.amat": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}

_PARTS = {
    "train": "binarized_mnist_train.amat",
    "validation": "binarized_mnist_valid.amat",
    "test": "binarized_mnist_test.amat",
}
_COUNTS = {
    "binarized_mnist_train.amat": 50_000,
    "binarized_mnist_valid.amat": 10_000,
    "binarized_mnist_test.amat": 10_000,
}
_LINE = (
    2 * SIDE**2
)  # bytes of an image: each pixel is followed by a blank or, at the end, by a line feed
_PIECE = 1 << 20  # bytes fetched at a time
_AGAIN = "delete it and run the command again to download it, or put the original file there"


class Missing(Problem):
    """None of the files is there, and they could not be downloaded. Damaged or incomplete files are
    an ordinary Problem.
    """


def load(
    root: str | Path, download: bool = True, progress: Callable[[int, int], object] | None = None
) -> dict[str, Tensor]:
    """The three parts, each file held against its known SHA-256 at every load.

    Args:
        root: the sources folder.
        download: whether missing files may be fetched.
        progress: called with the bytes fetched and to be fetched.

    Returns: uint8 (50000, 1, 28, 28), (10000, 1, 28, 28) and (10000, 1, 28, 28), black 0 and white
        255, as ``train``, ``validation`` and ``test``.

    Raises: Missing: no file is there and none could be had. Problem: a file is cut short, changed,
        mixed up or unreadable, or only some are there and the rest could not be had.
    """
    folder = Path(root) / FOLDER
    missing = [file for file in SHA256 if not (folder / file).exists()]
    # A damaged file is the first thing to say, before anything is fetched.
    contents = {file: _checked(folder / file) for file in SHA256 if file not in missing}
    if missing:
        try:
            if not download:
                raise Problem(
                    f"{folder / missing[0]} is missing: let it be downloaded, or put {URL}{missing[0]} there"
                )
            _download(folder, missing, progress)
        except Problem as problem:
            raise (Missing if len(missing) == len(SHA256) else Problem)(str(problem)) from problem
        contents |= {file: _checked(folder / file) for file in missing}
    return {part: _decode(contents[file]) for part, file in _PARTS.items()}


def _checked(path: Path) -> bytes:
    """The bytes of a file, found right in length and SHA-256."""
    expected = _COUNTS[path.name] * _LINE
    try:
        with plain(path).open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            # A wrong file may be of any length: it is not read to its end.
            content = stream.read() if length == expected else b""
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error
    if len(content) != expected:
        lines = (
            f"{expected:,} are expected ({_COUNTS[path.name]:,} lines of {SIDE**2} zeros and ones)"
        )
        raise Problem(
            f"{path} has {length:,} bytes where {lines}, so it is cut short, too long or another file: {_AGAIN}"
        )
    found = hashlib.sha256(content).hexdigest()
    for other, pinned in SHA256.items():
        if found == pinned and other != path.name:
            raise Problem(f"{path} holds {other}, so the files were mixed up: {_AGAIN}")
    if found != SHA256[path.name]:
        raise Problem(
            f"{path} is damaged, its SHA-256 is {found} where {SHA256[path.name]} is expected: {_AGAIN}"
        )
    return content


def _decode(content: bytes) -> Tensor:
    """uint8 (N, 1, 28, 28), black 0 and white 255, of bytes known to be ``0`` and ``1``, every
    second one a separator.
    """
    pixels = np.frombuffer(content, np.uint8)[::2] & 1
    return torch.from_numpy(pixels * np.uint8(255)).view(-1, 1, SIDE, SIDE)


def _download(
    folder: Path, files: list[str], progress: Callable[[int, int], object] | None
) -> None:
    """Fetch files into a temporary folder, check them, then move them into place: never half a file
    at a real name.
    """
    try:
        with network.downloading(f"the fixed binarised MNIST ({URL})", folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
                total, done = sum(_COUNTS[file] * _LINE for file in files), 0
                for file in files:
                    report = (
                        (lambda read, before=done: progress(before + read, total))
                        if progress
                        else None
                    )
                    _fetch(URL + file, Path(temporary) / file, _COUNTS[file] * _LINE, report)
                    done += _COUNTS[file] * _LINE
                for file in files:
                    _checked(Path(temporary) / file)
                for file in files:
                    os.replace(Path(temporary) / file, folder / file)
    finally:
        _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """A folder that was made for nothing would look like files that were lost."""
    try:
        folder.rmdir()
    except OSError:  # it holds something, or is not there
        return


def _fetch(url: str, path: Path, length: int, report: Callable[[int], object] | None) -> None:
    """Write what a server gives into a file; no more than one byte beyond the length expected,
    whatever the server sends.
    """
    if not network.answers([url]):
        raise OSError("the server does not answer")
    read = 0
    with (
        urllib.request.urlopen(url, timeout=network.NETWORK_SECONDS) as response,
        path.open("wb") as file,
    ):
        while read <= length and (piece := response.read(min(_PIECE, length + 1 - read))):
            file.write(piece)
            read += len(piece)
            if report:
                report(read)
