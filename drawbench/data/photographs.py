"""CIFAR-10 and SVHN, decoded by torchvision.

Under the sources folder CIFAR-10 lies as ``cifar-10-batches-py/`` and SVHN as
``SVHN/train_32x32.mat`` and ``SVHN/test_32x32.mat``. CIFAR-10's files are pickles, which can run
anything when they are opened: they are opened only after each has the MD5 that torchvision knows,
which is checked here and once more by torchvision, at every load.
"""

import hashlib
import tarfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drawbench import files
from drawbench.data import fetch
from drawbench.data.batch import Batch
from drawbench.data.dataset import Context, Dataset
from drawbench.data.digits import CLASSES
from drawbench.data.fetch import Original
from drawbench.errors import Problem

VALIDATION = 5_000  # the last images of the training files are the validation part


def load_cifar10(settings: Any, context: Context) -> Dataset:
    """Load CIFAR-10: 45,000 / 5,000 / 10,000 images, uint8 (N, 3, 32, 32). Settings: ``pixels``.

    The validation part is the last 5,000 of the training files. The download is 170 MB.

    Raises:
        Problem: files missing or damaged, or a failed download.
    """
    from torchvision.datasets import CIFAR10

    meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    md5 = dict([*CIFAR10.train_list, *CIFAR10.test_list, meta])

    def unpack(place: Path) -> None:
        packed = place / CIFAR10.filename
        with tarfile.open(packed) as archive:
            for file in md5:
                member = archive.extractfile(f"{CIFAR10.base_folder}/{file}")
                if member is None:
                    raise ValueError(f"{file} is not in {packed.name}")
                (place / file).write_bytes(member.read())
        packed.unlink()

    archive = Original(CIFAR10.filename, (CIFAR10.url,), CIFAR10.tgz_md5)
    folder = context.sources_root / CIFAR10.base_folder
    _require("CIFAR-10", folder, md5, lambda missing: [archive], context, unpack)
    with warnings.catch_warnings(action="ignore"):  # NumPy warns of its older conventions
        train, test = (CIFAR10(context.sources_root, train=train) for train in (True, False))
    arrays = [(part.data.transpose(0, 3, 1, 2), part.targets) for part in (train, test)]
    what = "CIFAR-10, 32x32 colour photographs"
    return _dataset("cifar10", what, arrays, train.classes, settings, context)


def load_svhn(settings: Any, context: Context) -> Dataset:
    """Load SVHN's cropped digits: 68,257 / 5,000 / 26,032 images. Settings: ``pixels``.

    Images are uint8 (N, 3, 32, 32); the validation part is the last 5,000 of the training file. The
    paper uses other pictures of the same houses: 64x64 crops with whole numbers, of which it cuts
    54x54 patches. The download is 250 MB.

    Raises:
        Problem: files missing or damaged, or a failed download.
    """
    from torchvision.datasets import SVHN

    splits = [SVHN.split_list[split] for split in ("train", "test")]
    known = {file: Original(file, (url,), md5) for url, file, md5 in splits}
    md5 = {file: digest for _, file, digest in splits}
    folder = context.sources_root / "SVHN"
    _require("SVHN", folder, md5, lambda missing: [known[file] for file in missing], context)
    with warnings.catch_warnings(action="ignore"):  # NumPy warns of its older conventions
        arrays = [
            (part.data, part.labels) for part in (SVHN(folder, "train"), SVHN(folder, "test"))
        ]
    what = (
        "SVHN in its 32x32 cropped-digit format, not the 64x64 crops with whole numbers that the "
        "paper uses"
    )
    return _dataset("svhn", what, arrays, CLASSES, settings, context)


def _dataset(
    name: str,
    what: str,
    arrays: list[tuple[Any, Any]],
    classes: Sequence[str],
    settings: Any,
    context: Context,
) -> Dataset:
    """Return the data set of the images and labels of the training and test files."""
    train, test = (
        Batch(
            torch.from_numpy(np.ascontiguousarray(images)),
            torch.from_numpy(np.asarray(labels, np.int64)),
        )
        for images, labels in arrays
    )
    train_rows, validation_rows = torch.arange(len(train)).tensor_split([-VALIDATION])
    parts = {"train": train.at(train_rows), "validation": train.at(validation_rows), "test": test}
    return Dataset.from_parts(
        name,
        name,
        parts,
        seed=context.seed,
        what=what,
        pixels="intensity" if hasattr(settings, "pixels") else None,
        classes=tuple(classes),
    )


def _require(
    name: str,
    folder: Path,
    md5: dict[str, str],
    originals: Callable[[list[str]], list[Original]],
    context: Context,
    unpack: Callable[[Path], None] = lambda place: None,
) -> None:
    """Check the MD5 of every file, and download those that are missing."""
    missing = [file for file in md5 if not (folder / file).exists()]
    for file in md5:
        if file not in missing:  # damage is reported before anything is downloaded
            _check(name, folder / file, md5[file])
    if not missing:
        return
    if not context.download:
        raise Problem(
            f"{folder / missing[0]} is missing: let {name} be downloaded, or put its original "
            "files there"
        )
    root, progress = context.sources_root, context.progress
    fetch.fetch(name, root, folder, originals(missing), unpack=unpack, progress=progress)
    for file in missing:
        _check(name, folder / file, md5[file])


def _check(name: str, path: Path, md5: str) -> None:
    try:
        with files.plain(path).open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error
    if digest.hexdigest() != md5:
        raise Problem(
            f"{path} does not have the MD5 {md5} of {name}, so it is damaged: delete it to have it "
            "downloaded"
        )
