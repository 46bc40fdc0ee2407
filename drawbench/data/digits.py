"""Where the digits come from: MNIST and two drop-in relatives, or scikit-learn's embedded digits.

Original files lie in torchvision's layout (``MNIST/raw/train-images-idx3-ubyte`` ...) under one
folder, the sources folder; :func:`_locate` names the other layouts that are recognised. Files are
verified every time they are loaded, because a truncated, mixed up or changed file would otherwise
pass as a result. They are decoded here, from the very bytes that were verified: torchvision's
reader opens the files a second time and accepts truncated ones.
"""

import hashlib
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from drawbench.data import binarised, fetch
from drawbench.data.fetch import Original
from drawbench.data.scenes import DIGIT, Digits
from drawbench.errors import Problem

SPLITS = ("train", "validation", "test")
CLASSES = tuple("0123456789")
VALIDATION = 5_000  # the last training digits of an MNIST-like source are its validation part


@dataclass(frozen=True)
class Source:
    """The digits of one source, in parts that share no digit."""

    name: str  #: ``mnist``, ``fashion``, ``kmnist`` or ``digits``
    splits: dict[str, Digits]  #: by the names in ``SPLITS``
    note: str  #: one sentence on what the digits are, for cards, tables and figures
    sha256: str  #: of the pixels and labels of all parts, however the files were packed


@dataclass(frozen=True)
class Finding:
    """The state of one source, and what to do about it if there is anything to do."""

    name: str
    state: str  #: ``verified``, ``unverified``, ``missing`` or ``damaged``
    where: str
    advice: str = ""


class _Family(NamedTuple):
    """A source in MNIST's file format."""

    name: str
    folder: str  #: also the name of torchvision's class
    note: str
    sha256: dict[str, str]  #: by file, where it is known


# Entries in each file. The first number of an IDX file tells its kind: 2051 images, 2049 labels.
COUNTS = {
    "train-images-idx3-ubyte": 60_000,
    "train-labels-idx1-ubyte": 60_000,
    "t10k-images-idx3-ubyte": 10_000,
    "t10k-labels-idx1-ubyte": 10_000,
}
_MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_FASHION = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
_OTHER = "in place of digits, not comparable with MNIST"
FAMILIES = {
    "mnist": _Family("mnist", "MNIST", "MNIST", dict(zip(COUNTS, _MNIST, strict=True))),
    "fashion": _Family(
        "fashion",
        "FashionMNIST",
        f"Fashion-MNIST: clothes {_OTHER}",
        dict(zip(COUNTS, _FASHION, strict=True)),
    ),
    "kmnist": _Family("kmnist", "KMNIST", f"Kuzushiji-MNIST: cursive kana {_OTHER}", {}),
}
NAMES = ("auto", *FAMILIES, "digits")

_EMBEDDED_NOTE = (
    "scikit-learn's embedded 8x8 digits enlarged to 28x28: not MNIST, and not comparable with "
    "published numbers"
)
_EMBEDDED_COUNTS = (1_197, 200, 400)
_EMBEDDED_SHA256 = "5141ecbd853d80ebcca393668407798eb77d2c0eb3c61ae3fdb364ad6bbb20c7"


def load(
    name: str, root: Path, download: bool = True, warn: Callable[[str], object] = warnings.warn
) -> Source:
    """Load a source, verified.

    Every file is checked for its exact header, length and label range, and compared with its known
    SHA-256. That of KMNIST's unpacked files is not published: a download has the right MD5, but
    files that were put there by hand are not proved to be the originals.

    Args:
        name: one of ``NAMES``. ``auto`` is MNIST where it is found or can be downloaded, otherwise
            the embedded digits and a warning. MNIST files that are damaged or incomplete are an
            error: falling back would hide them.
        root: the sources folder.
        download: whether missing files may be downloaded.
        warn: called with one sentence when ``auto`` falls back.

    Returns:
        The source. Parts of MNIST-like ones are the first 55,000 training digits, the last 5,000
        and the 10,000 test digits.

    Raises:
        Problem: an unknown name; files missing, damaged or mixed up; a failed download.
    """
    root = Path(root)
    if name not in NAMES:
        raise Problem(f"there is no source '{name}': choose one of {', '.join(NAMES)}")
    if name == "digits":
        return _embedded_digits()
    family = FAMILIES["mnist" if name == "auto" else name]
    missing = [file for file in COUNTS if _locate(family, root, file) is None]
    if missing:
        for file in COUNTS.keys() - set(missing):
            _read(family, root, file)  # a damaged file is reported before anything is downloaded
        try:
            if not download:
                _read(family, root, missing[0])  # raises that it is missing
            _download(family, root, missing)
        except Problem as problem:
            if name != "auto" or len(missing) < len(COUNTS):
                raise
            warn(
                f"{problem}; until then scikit-learn's embedded digits take the place of MNIST, "
                "and every result says so"
            )
            return _embedded_digits()
    images, labels, test_images, test_labels = (
        _array(file, _read(family, root, file)) for file in COUNTS
    )
    splits = {
        "train": Digits(images[:-VALIDATION], labels[:-VALIDATION]),
        "validation": Digits(images[-VALIDATION:], labels[-VALIDATION:]),
        "test": Digits(test_images, test_labels),
    }
    return Source(family.name, splits, family.note, _sha256(splits))


def survey(root: Path) -> list[Finding]:
    """Return the state of every known source and what to do about it; downloads nothing."""
    findings = [_survey_family(family, Path(root)) for family in FAMILIES.values()]
    folder = str(Path(root) / binarised.FOLDER)
    state, advice = binarised.state(root)
    findings.append(Finding("binarized_mnist", state, folder, advice))
    try:
        _embedded_digits()
        state, advice = "verified", ""
    except Problem as problem:
        state, advice = "damaged", str(problem)
    return [*findings, Finding("digits", state, "inside scikit-learn", advice)]


def _survey_family(family: _Family, root: Path) -> Finding:
    places = [path for file in COUNTS if (path := _locate(family, root, file))]
    if not places:
        advice = f"--source {family.name} downloads it, or put the four original files there"
        return Finding(family.name, "missing", str(root / family.folder / "raw"), advice)
    where = str(places[0].parent)
    try:
        for file in COUNTS:
            _read(family, root, file)
    except Problem as problem:
        return Finding(family.name, "damaged", where, str(problem))
    if not family.sha256:
        return Finding(family.name, "unverified", where, "well formed; its SHA-256 is not known")
    return Finding(family.name, "verified", where)


# ---- MNIST-like files


def _locate(family: _Family, root: Path, file: str) -> Path | None:
    """Return where a file of a family lies, or None.

    Recognised are ``<family>/raw/<file>``, as torchvision has it, ``<family>/<file>`` and, for
    MNIST, ``<file>`` in the sources folder; with a dot for the second dash
    (``train-images.idx3-ubyte``), and packed (``.gz``).
    """
    folders = [root / family.folder / "raw", root / family.folder]
    if family.name == "mnist":  # the relatives have files of the same names
        folders.append(root)
    dotted = file.replace("-idx", ".idx")
    names = (file, dotted, f"{file}.gz", f"{dotted}.gz")
    places = (folder / name for folder in folders for name in names)
    return next((path for path in places if path.exists()), None)


def _header(file: str) -> bytes:
    """Return the first bytes of an IDX file: kind, count and, of images, height and width."""
    if "images" in file:
        return struct.pack(">4i", 2051, COUNTS[file], DIGIT, DIGIT)
    return struct.pack(">2i", 2049, COUNTS[file])


def _length(file: str) -> int:
    return len(_header(file)) + COUNTS[file] * (DIGIT**2 if "images" in file else 1)


def _read(family: _Family, root: Path, file: str) -> bytes:
    """Return the bytes of a file whose kind, count, length, labels and SHA-256 are right."""
    path, expected = _locate(family, root, file), _header(file)
    if path is None:
        raise Problem(
            f"{root / family.folder / 'raw' / file} is missing: let it be downloaded, put the "
            "original file there (packed as .gz will do), or use --source digits"
        )
    content, length = fetch.content(path, _length(file))
    start = content[:16]
    for other in COUNTS:
        if other != file and start.startswith(_header(other)):
            raise Problem(f"{path} begins like {other}, so the files were mixed up: {fetch.ADVICE}")
    if not expected.startswith(start[: len(expected)]):
        raise Problem(
            f"{path} is not the file of {family.folder} that it should be (it begins "
            f"{start.hex()}, not {expected.hex()}): {fetch.ADVICE}"
        )
    if length != _length(file):
        raise Problem(
            f"{path} has {length:,} bytes where {_length(file):,} are expected: {fetch.ADVICE}"
        )
    if "labels" in file and (highest := max(content[len(expected) :])) > 9:
        raise Problem(f"{path} holds the label {highest}, outside 0..9: {fetch.ADVICE}")
    digest, known = hashlib.sha256(content).hexdigest(), family.sha256.get(file)
    if known and digest != known:
        raise Problem(
            f"{path} is damaged, its SHA-256 is {digest} where {known} is expected: {fetch.ADVICE}"
        )
    return content


def _array(file: str, content: bytes) -> Tensor:
    """Return what follows the header, in memory that can be written to, as torch demands."""
    body = np.frombuffer(content, np.uint8, offset=len(_header(file))).copy()
    return torch.from_numpy(body.reshape(-1, DIGIT, DIGIT) if "images" in file else body)


def _sha256(splits: dict[str, Digits]) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for tensor in (splits[split].images, splits[split].labels):
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _download(family: _Family, root: Path, missing: list[str]) -> None:
    """Download and unpack files of a family; torchvision knows their servers and MD5."""
    import torchvision

    dataset = getattr(torchvision.datasets, family.folder)
    originals = [
        Original(packed, tuple(mirror + packed for mirror in dataset.mirrors), md5)
        for packed, md5 in dataset.resources
        if packed.removesuffix(".gz") in missing
    ]

    def unpack(folder: Path) -> None:
        for original in originals:
            packed = folder / original.name
            content, _ = fetch.content(packed, _length(packed.stem))
            packed.with_suffix("").write_bytes(content)
            packed.unlink()

    fetch.fetch(family.folder, root, root / family.folder / "raw", originals, unpack=unpack)


# ---- Embedded digits


def enlarge(small: Tensor) -> Tensor:
    """Enlarge 8x8 images with values 0..16 to 28x28 ones with values 0..255.

    Linear interpolation to 24x24, and a black margin of 2 pixels. The centre of output pixel ``j``
    lies at ``(j + 0.5) / 3 - 0.5`` of the small image, so all weights are thirds and, over both
    directions, ninths: the sum of value times weight is a whole number, at most ``9 * 16 = 144``,
    and is rounded once, to ``(255 * sum + 72) // 144``. Beyond the edge the edge value is repeated.
    Floating-point interpolation would differ in the last bit between machines and versions, and
    these pixels must be the same bytes everywhere.

    Args:
        small: integers (N, 8, 8) in 0..16.

    Returns:
        uint8 (N, 28, 28).
    """
    thirds = torch.zeros(24, 8, dtype=torch.int64)
    for j in range(24):
        # Three times the centre's place, counted from the pixel on its left:
        # 3 * ((j + 0.5) / 3 - 0.5) = j - 1.
        left, part = divmod(j - 1, 3)
        thirds[j, max(left, 0)] += 3 - part
        thirds[j, min(left + 1, 7)] += part
    ninths = torch.einsum("ia,nab,jb->nij", thirds, small.to(torch.int64), thirds)
    return torch.nn.functional.pad((255 * ninths + 72) // 144, (2, 2, 2, 2)).to(torch.uint8)


def _embedded_digits() -> Source:
    """Return scikit-learn's 1,797 digits, enlarged, in contiguous parts.

    Neighbouring digits were often written by the same hand, which shuffling would put into both
    training and test.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = enlarge(torch.from_numpy(raw.images).to(torch.int64)).split(list(_EMBEDDED_COUNTS))
    labels = torch.from_numpy(raw.target).to(torch.uint8).split(list(_EMBEDDED_COUNTS))
    splits = dict(zip(SPLITS, map(Digits, images, labels), strict=True))
    digest = _sha256(splits)
    if digest != _EMBEDDED_SHA256:
        raise Problem(
            f"scikit-learn's digits are not the known ones (SHA-256 {digest}, not "
            f"{_EMBEDDED_SHA256}): reinstall scikit-learn"
        )
    return Source("digits", splits, _EMBEDDED_NOTE, digest)
