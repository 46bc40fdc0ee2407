"""CIFAR-10 and SVHN, decoded by torchvision.

Under the sources folder CIFAR-10 lies as ``cifar-10-batches-py/`` and SVHN as
``SVHN/train_32x32.mat`` and ``SVHN/test_32x32.mat``. CIFAR-10's files are pickles, which can run
anything when they are opened: they are opened only after each has the MD5 that torchvision knows,
which is checked here and once more by torchvision, at every load.
"""

import hashlib
import tarfile
import warnings
from collections.abc import Callable
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
from drawbench.errors import Problem, reason

VALIDATION = 5_000  # the last images of the training files are the validation part

Arrays = tuple[np.ndarray, np.ndarray]  # images (N, 3, 32, 32) and labels (N,)


def load_cifar10(settings: Any, context: Context) -> Dataset:
    """Load CIFAR-10: 45,000 / 5,000 / 10,000 images, uint8 (N, 3, 32, 32). Settings: ``pixels``.

    The validation part is the last 5,000 of the training files. The download is 170 MB.

    Raises:
        Problem: files missing or damaged, or a failed download.
    """
    from torchvision.datasets import CIFAR10

    pairs = [*CIFAR10.train_list, *CIFAR10.test_list]
    md5 = dict([*pairs, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])
    folder = context.sources_root / CIFAR10.base_folder

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
    _require("CIFAR-10", folder, md5, lambda missing: [archive], context, unpack)

    names: list[str] = []

    def read(train: bool) -> Arrays:
        cifar = CIFAR10(context.sources_root, train=train)
        names[:] = cifar.classes
        return cifar.data.transpose(0, 3, 1, 2), np.array(cifar.targets)

    parts = _parts("CIFAR-10", folder, lambda: [read(True), read(False)])
    return Dataset.from_parts(
        "cifar10",
        "cifar10",
        parts,
        seed=context.seed,
        what="CIFAR-10, 32x32 colour photographs",
        pixels=_rule(settings),
        classes=tuple(names),
    )


def load_svhn(settings: Any, context: Context) -> Dataset:
    """Load SVHN's cropped digits: 68,257 / 5,000 / 26,032 images. Settings: ``pixels``.

    Images are uint8 (N, 3, 32, 32); the validation part is the last 5,000 of the training file. The
    paper uses other pictures of the same houses: 64x64 crops with whole numbers, of which it cuts
    54x54 patches. The download is 250 MB.

    Raises:
        Problem: files missing or damaged, or a failed download.
    """
    from torchvision.datasets import SVHN

    known = {SVHN.split_list[split][1]: SVHN.split_list[split] for split in ("train", "test")}
    folder = context.sources_root / "SVHN"
    _require(
        "SVHN",
        folder,
        {file: md5 for file, (_, _, md5) in known.items()},
        lambda missing: [Original(file, (known[file][0],), known[file][2]) for file in missing],
        context,
    )

    def read(split: str) -> Arrays:
        houses = SVHN(folder, split)
        return houses.data, houses.labels

    return Dataset.from_parts(
        "svhn",
        "svhn",
        _parts("SVHN", folder, lambda: [read("train"), read("test")]),
        seed=context.seed,
        what="SVHN in its 32x32 cropped-digit format, not the 64x64 crops with whole numbers that "
        "the paper uses",
        pixels=_rule(settings),
        classes=CLASSES,
    )


def _rule(settings: Any) -> str | None:
    rule = getattr(settings, "pixels", None)
    return "intensity" if rule == "auto" else rule


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
    _check(name, folder, md5, missing)  # a damaged file is reported before anything is downloaded
    if not missing:
        return
    if not context.download:
        raise Problem(
            f"{folder / missing[0]} is missing: let {name} be downloaded, or put its original "
            "files there"
        )
    fetch.fetch(
        name,
        context.sources_root,
        folder,
        originals(missing),
        unpack=unpack,
        progress=context.progress,
    )
    _check(name, folder, md5, [])


def _check(name: str, folder: Path, md5: dict[str, str], missing: list[str]) -> None:
    for file, expected in md5.items():
        if file in missing:
            continue
        try:
            with files.plain(folder / file).open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        except OSError as error:
            raise Problem(f"{folder / file} cannot be read ({error.strerror or error})") from error
        if digest.hexdigest() != expected:
            raise Problem(
                f"{folder / file} does not have the MD5 {expected} of {name}, so it is damaged: "
                "delete it to have it downloaded"
            )


def _parts(name: str, folder: Path, read: Callable[[], list[Arrays]]) -> dict[str, Batch]:
    """Return the three parts of what torchvision decodes.

    Files with the right MD5 decode; the rest is for a torchvision or NumPy that reads them
    otherwise.
    """
    try:
        # The files are older than NumPy's present conventions, of which it warns.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train, test = (
                Batch(
                    torch.from_numpy(np.ascontiguousarray(images)),
                    torch.from_numpy(np.asarray(labels, np.int64)),
                )
                for images, labels in read()
            )
    except Exception as error:
        raise Problem(
            f"{name} in {folder} cannot be read ({reason(error)}): put the original files there"
        ) from error
    cut = len(train) - VALIDATION
    if cut < 1:
        raise Problem(
            f"{name} has {len(train):,} training images, but {VALIDATION:,} are kept for "
            "validation: put the original files there"
        )
    rows = torch.arange(len(train))
    return {"train": train.at(rows[:cut]), "validation": train.at(rows[cut:]), "test": test}
