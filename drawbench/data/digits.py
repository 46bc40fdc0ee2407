"""Where the digits come from: MNIST and two drop-in relatives, or scikit-learn's embedded digits.

Original files lie in torchvision's layout (``MNIST/raw/train-images-idx3-ubyte`` ...) under one
folder, the sources folder; :func:`_locate` names the other layouts that are recognised. Files are
verified every time they are loaded, because a truncated, mixed up or changed file would otherwise
pass as a result. They are decoded here, from the very bytes that were verified: torchvision's
reader opens the files a second time and accepts truncated ones.
"""

import contextlib
import gzip
import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drawbench import files
from drawbench.data import binarised, fetch
from drawbench.data.fetch import Original
from drawbench.data.scenes import DIGIT, Digits
from drawbench.errors import Problem, reason

SPLITS = ("train", "validation", "test")
CLASSES = tuple("0123456789")
VALIDATION = 5_000  # the last training digits of an MNIST-like source are its validation part


@dataclass(frozen=True)
class Source:
    """The digits of one source, in parts that share no digit.

    Attributes:
        name: ``mnist``, ``fashion``, ``kmnist`` or ``digits``.
        splits: the parts, by the names in ``SPLITS``.
        note: one sentence on what the digits are, for cards, tables and figures.
        sha256: of the pixels and labels of all parts, however the files were packed.
    """

    name: str
    splits: dict[str, Digits]
    note: str
    sha256: str


@dataclass(frozen=True)
class Finding:
    """The state of one source.

    Attributes:
        state: ``verified``, ``unverified``, ``missing`` or ``damaged``.
        where: its folder.
        advice: what to do about it; empty if there is nothing to do.
    """

    name: str
    state: str
    where: str
    advice: str


@dataclass(frozen=True)
class _Family:
    """A source in MNIST's file format.

    Attributes:
        folder: its folder, and the name of torchvision's class.
        sha256: known SHA-256 by file.
    """

    name: str
    folder: str
    note: str
    sha256: dict[str, str]


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
FAMILIES = {
    family.name: family
    for family in (
        _Family("mnist", "MNIST", "MNIST", dict(zip(COUNTS, _MNIST, strict=True))),
        _Family(
            "fashion",
            "FashionMNIST",
            "Fashion-MNIST: clothes in place of digits, not comparable with MNIST",
            {},
        ),
        _Family(
            "kmnist",
            "KMNIST",
            "Kuzushiji-MNIST: cursive kana in place of digits, not comparable with MNIST",
            {},
        ),
    )
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

    MNIST is compared with its known SHA-256 at every load. The publishers of Fashion-MNIST and
    KMNIST give the MD5 of the packed files only, which is checked after a download; the unpacked
    files are checked for the exact header, length and label range, and against ``SHA256SUMS``
    beside them, which is written at first use. So a later change is noticed, but files that were
    put there by hand are not proved to be the originals.

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
                raise _missing(family, root, missing[0])
            _download(family, root, missing)
        except Problem as problem:
            if name != "auto" or len(missing) < len(COUNTS):
                raise
            warn(
                f"{problem}; until then scikit-learn's embedded digits take the place of MNIST, "
                "and every result says so"
            )
            return _embedded_digits()
    return _load(family, root)


def survey(root: Path) -> list[Finding]:
    """Return the state of every known source and what to do about it; downloads nothing."""
    findings = [_survey_family(family, Path(root)) for family in FAMILIES.values()]
    state, advice = binarised.state(root)
    where = str(Path(root) / binarised.FOLDER)
    findings.append(Finding("binarized_mnist", state, where, advice))
    try:
        _embedded_digits()
        embedded = ("verified", "")
    except Problem as problem:
        embedded = ("damaged", str(problem))
    return [*findings, Finding("digits", embedded[0], "inside scikit-learn", embedded[1])]


def _survey_family(family: _Family, root: Path) -> Finding:
    state, advice, where = "verified", "", root / family.folder / "raw"
    places = [path for file in COUNTS if (path := _locate(family, root, file))]
    if not places:
        state = "missing"
        advice = f"--source {family.name} downloads it, or put the four original files there"
    else:
        where = places[0].parent
        try:
            for file in COUNTS:
                _read(family, root, file)
            if not _known(family, where):
                state = "unverified"
                advice = "well formed; its SHA-256 is noted beside it when it is first used"
        except Problem as problem:
            state, advice = "damaged", str(problem)
    return Finding(family.name, state, str(where), advice)


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
    for folder in folders:
        for name in (file, dotted, f"{file}.gz", f"{dotted}.gz"):
            if (folder / name).exists():
                return folder / name
    return None


def _missing(family: _Family, root: Path, file: str) -> Problem:
    return Problem(
        f"{root / family.folder / 'raw' / file} is missing: let it be downloaded, put the original "
        "file there (packed as .gz will do), or use --source digits"
    )


def _header(file: str) -> bytes:
    """Return the first bytes of an IDX file: kind, count and, of images, height and width."""
    if "images" in file:
        return struct.pack(">4i", 2051, COUNTS[file], DIGIT, DIGIT)
    return struct.pack(">2i", 2049, COUNTS[file])


def _length(file: str) -> int:
    """Return how many bytes a file must have."""
    return len(_header(file)) + COUNTS[file] * (DIGIT**2 if "images" in file else 1)


def _content(path: Path, expected: int) -> tuple[bytes, int]:
    """Return the unpacked bytes of a file and their number.

    A wrong file may be of any length: no more than one byte beyond the expected ones is read.
    """
    try:
        with files.plain(path).open("rb") as stream:
            if path.suffix == ".gz":
                with gzip.open(stream) as unpacked:
                    content = unpacked.read(expected + 1)
                return content, len(content)
            return stream.read(expected + 1), os.fstat(stream.fileno()).st_size
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Problem(f"{path} cannot be unpacked ({reason(error)}): {_ADVICE}") from error
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error


_ADVICE = "delete it and run the command again to download it, or put the original file there"


def _read(family: _Family, root: Path, file: str) -> bytes:
    """Return the bytes of a file whose kind, count, length, labels and SHA-256 are right."""
    path, expected = _locate(family, root, file), _header(file)
    if path is None:
        raise _missing(family, root, file)
    content, length = _content(path, _length(file))
    start = content[:16]
    for other in COUNTS:
        if other != file and start.startswith(_header(other)):
            raise Problem(f"{path} begins like {other}, so the files were mixed up: {_ADVICE}")
    if not expected.startswith(start[: len(expected)]):
        raise Problem(
            f"{path} is not the file of {family.folder} that it should be (it begins "
            f"{start.hex()}, not {expected.hex()}): {_ADVICE}"
        )
    if length != _length(file):
        raise Problem(
            f"{path} has {length:,} bytes where {_length(file):,} are expected: {_ADVICE}"
        )
    if "labels" in file and (highest := max(content[len(expected) :])) > 9:
        raise Problem(f"{path} holds the label {highest}, outside 0..9: {_ADVICE}")
    digest, known = hashlib.sha256(content).hexdigest(), _known(family, path.parent).get(file)
    if known and digest != known:
        raise Problem(
            f"{path} is damaged, its SHA-256 is {digest} where {known} is expected: {_ADVICE}"
        )
    return content


def _known(family: _Family, folder: Path) -> dict[str, str]:
    """Return known SHA-256 by file, built in or from ``SHA256SUMS``; empty if there are none."""
    path = folder / "SHA256SUMS"
    if family.sha256 or not path.exists():
        return family.sha256
    try:
        pairs = [line.split() for line in files.read_text(path).splitlines()]
        sums = {file: digest for digest, file in pairs if len(digest) == 64}
    except (OSError, ValueError) as error:
        raise Problem(f"{path} cannot be read ({error}): delete it to have it rewritten") from error
    if sums.keys() != COUNTS.keys():
        raise Problem(
            f"{path} must hold one SHA-256 for each of {', '.join(COUNTS)}: delete it to have it "
            "rewritten"
        )
    return sums


def _load(family: _Family, root: Path) -> Source:
    contents = {file: _read(family, root, file) for file in COUNTS}
    folder = (_locate(family, root, next(iter(COUNTS))) or root).parent
    if not _known(family, folder):
        lines = [f"{hashlib.sha256(body).hexdigest()}  {file}\n" for file, body in contents.items()]
        with contextlib.suppress(Problem):  # a folder that is read-only or linked is good to read
            files.check_inside(folder, root)
            files.write_atomically(folder / "SHA256SUMS", "".join(lines).encode())
    images, labels, test_images, test_labels = (
        _array(file, content) for file, content in contents.items()
    )
    cut = len(images) - VALIDATION
    splits = {
        "train": Digits(images[:cut], labels[:cut]),
        "validation": Digits(images[cut:], labels[cut:]),
        "test": Digits(test_images, test_labels),
    }
    return Source(family.name, splits, family.note, _sha256(splits))


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
            content, _ = _content(packed, _length(packed.stem))
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
    output = torch.arange(24)
    thirds = torch.zeros(24, 8, dtype=torch.int64)
    # Three times the centre's place, counted from the pixel on its left:
    # 3 * ((j + 0.5) / 3 - 0.5) = j - 1.
    left, part = (output - 1).div(3, rounding_mode="floor"), (output - 1) % 3
    thirds.index_put_((output, left.clamp(0, 7)), 3 - part, accumulate=True)
    thirds.index_put_((output, (left + 1).clamp(0, 7)), part, accumulate=True)
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
