"""Where the digits come from: MNIST and its two drop-in relatives, or the digits that scikit-learn
carries inside its package.

Original files lie in torchvision's own layout (``MNIST/raw/train-images-idx3-ubyte`` ...) under one
folder, the sources folder. They are checked every time they are loaded, because a file that was cut
short, mixed up or changed would otherwise pass as a result. torchvision downloads them (and checks
the MD5 of what it fetched); the decoding is done here, from the very bytes that
were checked: torchvision's reader would open the files a second time, accepts truncated ones and
    prefers old ``processed/*.pt``.
"""

import contextlib
import hashlib
import os
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drawbench import files
from drawbench.data import network
from drawbench.data.binarized import SHA256 as _BINARIZED
from drawbench.data.binarized import URL as _BINARIZED_URL
from drawbench.data.scenes import DIGIT, Digits
from drawbench.errors import Problem

SPLITS = ("train", "validation", "test")
VALIDATION = 5_000  # the last training digits of an MNIST-like source are its validation part


@dataclass(frozen=True)
class Source:
    """The digits of one source, in parts that share no digit.

    Attributes:
        name: ``mnist``, ``fashion``, ``kmnist`` or ``digits``.
        splits: the parts, by the names in ``SPLITS``.
        note: one sentence on what the digits are, for cards, tables and figures.
        sha256: of the pixels and labels of all parts, so independent of how the files were packed.
    """

    name: str
    splits: dict[str, Digits]
    note: str
    sha256: str


@dataclass(frozen=True)
class Finding:
    """What :func:`survey` says of one source: ``state`` is ``verified``, ``unverified``,
    ``missing`` or ``damaged``.
    """

    name: str
    state: str
    where: str
    advice: str


@dataclass(frozen=True)
class _Family:
    """A source in MNIST's file format. ``folder`` is also the name of torchvision's class; ``pins``
    are known SHA-256, by file.
    """

    name: str
    folder: str
    note: str
    pins: dict[str, str]


# Count of entries in each file. The first number of an IDX file says what follows: 2051 images,
# 2049 labels.
_FILES = {
    "train-images-idx3-ubyte": 60_000,
    "train-labels-idx1-ubyte": 60_000,
    "t10k-images-idx3-ubyte": 10_000,
    "t10k-labels-idx1-ubyte": 10_000,
}

_FAMILIES = {
    "mnist": _Family(
        "mnist",
        "MNIST",
        "MNIST",
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion": _Family(
        "fashion",
        "FashionMNIST",
        "Fashion-MNIST: clothes in place of digits, not comparable with MNIST",
        {},
    ),
    "kmnist": _Family(
        "kmnist",
        "KMNIST",
        "Kuzushiji-MNIST: cursive kana in place of digits, not comparable with MNIST",
        {},
    ),
}
NAMES = ("auto", *_FAMILIES, "digits")

_DIGITS_NOTE = "scikit-learn's embedded 8x8 digits enlarged to 28x28: not MNIST, and not comparable with published numbers"
_DIGITS_COUNTS = {"train": 1_197, "validation": 200, "test": 400}
_DIGITS_SHA256 = "5141ecbd853d80ebcca393668407798eb77d2c0eb3c61ae3fdb364ad6bbb20c7"


def sources_root(given: str | Path | None = None) -> Path:
    """The sources folder: what was given, else the environment's ``DRAWBENCH_SOURCES``, else
    ``datasets/sources``.
    """
    return Path(given or os.environ.get("DRAWBENCH_SOURCES") or Path("datasets") / "sources")


def load(
    name: str, root: Path, download: bool = True, warn: Callable[[str], object] = warnings.warn
) -> Source:
    """Load a source, verified.

    MNIST is held against its known SHA-256 at every load. For Fashion-MNIST and KMNIST the
    publishers give the MD5 of the packed files only, which torchvision checks when it downloads;
    their unpacked files are checked here for the exact header, length and label range, and against
    ``SHA256SUMS`` beside them, which is written after a verified download or, for files that were
    put there by hand, at first use. So a later change is noticed; that files put there by hand are
    the originals is not proved.

    Args: name: one of ``NAMES``. ``auto`` is MNIST where it is found or can be downloaded,
        otherwise the embedded digits and a warning.
            MNIST files that are there but damaged or incomplete stop it: falling back would hide
                them.
        root: the sources folder.
        download: whether missing files may be fetched.
        warn: called with one sentence when ``auto`` falls back.

    Returns: The source: for MNIST-like ones the first 55,000 training digits, the last 5,000, and
        the 10,000 test digits.

    Raises:
        Problem: an unknown name; files missing, damaged or mixed up; a failed download.
    """
    root = Path(root)
    if name not in NAMES:
        raise Problem(f"there is no source '{name}': choose one of {', '.join(NAMES)}")
    if name == "digits":
        return _embedded_digits()
    family = _FAMILIES["mnist" if name == "auto" else name]
    folder = root / family.folder / "raw"
    missing = [file for file in _FILES if not (folder / file).is_file()]
    if missing:
        for file in _FILES.keys() - set(missing):
            _checked(
                family, folder, file
            )  # a damaged file is the first thing to say, before anything is fetched
        try:
            if not download:
                raise Problem(_missing(folder, missing[0]))
            _download(family, root)
        except Problem as problem:
            if name != "auto" or len(missing) < len(_FILES):
                raise
            warn(
                f"{problem}; until then scikit-learn's embedded digits take the place of MNIST, which every result will say"
            )
            return _embedded_digits()
    return _decode(family, folder)


def survey(root: Path) -> list[Finding]:
    """What is there of every known source, verified or not, and what to do about what is not. Reads
    only, never downloads.
    """
    return [
        *(_survey_family(family, Path(root)) for family in _FAMILIES.values()),
        _survey_binarized(Path(root)),
        _survey_digits(),
    ]


# ---- MNIST-like files
# --------------------------------------------------------------------------------------------------------


def _header(file: str) -> bytes:
    """The first bytes that an IDX file of this name must have: kind, count and, for images, height
    and width, big-endian.
    """
    count = _FILES[file]
    return (
        struct.pack(">4i", 2051, count, DIGIT, DIGIT)
        if "images" in file
        else struct.pack(">2i", 2049, count)
    )


def _length(file: str) -> int:
    """How many bytes the file must have."""
    return len(_header(file)) + _FILES[file] * (DIGIT**2 if "images" in file else 1)


def _missing(folder: Path, file: str) -> str:
    if (folder / f"{file}.gz").is_file():
        return f"{folder / file} is missing but its packed form is there: unpack it with 'gunzip -k {folder / file}.gz'"
    return f"{folder / file} is missing: let it be downloaded, put the original file there, or use --source digits"


def _pins(family: _Family, folder: Path) -> dict[str, str]:
    """Known SHA-256 by file name: built in, or from ``SHA256SUMS`` in the format of the tool
    ``sha256sum``; empty if there is none.
    """
    path = folder / "SHA256SUMS"
    if family.pins or not path.exists():
        return family.pins
    try:
        pairs = [line.split() for line in files.read_text(path).splitlines()]
        pins = {file: digest for digest, file in pairs if len(digest) == 64}
    except (OSError, ValueError) as error:
        raise Problem(
            f"{path} cannot be read ({error}): delete it to have it written anew from the files beside it"
        ) from error
    if pins.keys() != _FILES.keys():
        raise Problem(
            f"{path} must hold one SHA-256 for each of {', '.join(_FILES)}: delete it to have it written anew"
        )
    return pins


def _checked(family: _Family, folder: Path, file: str) -> bytes:
    """The bytes of one file, found right in kind, count, length, label range and, where it is
    known, SHA-256.
    """
    path, expected = folder / file, _header(file)
    again = "delete it and run the command again to download it, or put the original file there"
    try:
        with files.plain(path).open("rb") as stream:
            start, length = stream.read(16), os.fstat(stream.fileno()).st_size
            # A wrong file may be of any length: what does not match is not read to its end.
            content = start + stream.read() if length == _length(file) else b""
    except FileNotFoundError as error:
        raise Problem(_missing(folder, file)) from error
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error
    for other in _FILES:
        if other != file and start.startswith(_header(other)):
            raise Problem(f"{path} begins like {other}, so the files were mixed up: {again}")
    if not expected.startswith(start[: len(expected)]):
        raise Problem(
            f"{path} is not the file of {family.folder} it should be (it begins {start.hex()}, not {expected.hex()}): {again}"
        )
    if len(content) != _length(file):
        raise Problem(
            f"{path} has {length:,} bytes where {_length(file):,} are expected, so it is cut short or too long: {again}"
        )
    if "labels" in file and (worst := max(content[len(expected) :])) > 9:
        raise Problem(f"{path} holds the label {worst}, outside 0..9: {again}")
    found, pinned = hashlib.sha256(content).hexdigest(), _pins(family, folder).get(file)
    if pinned and found != pinned:
        raise Problem(
            f"{path} is damaged, its SHA-256 is {found} where {pinned} is expected: {again}"
        )
    return content


def _decode(family: _Family, folder: Path) -> Source:
    contents = {file: _checked(family, folder, file) for file in _FILES}
    if not _pins(family, folder):
        # A sources folder that cannot be written to is still good to read from.
        with contextlib.suppress(OSError):
            _write_pins(folder, contents)
    arrays = {file: torch.from_numpy(_array(file, content)) for file, content in contents.items()}
    images, labels, test_images, test_labels = arrays.values()
    cut = len(images) - VALIDATION
    splits = {
        "train": Digits(images[:cut], labels[:cut]),
        "validation": Digits(images[cut:], labels[cut:]),
        "test": Digits(test_images, test_labels),
    }
    return Source(family.name, splits, family.note, _fingerprint(splits))


def _array(file: str, content: bytes) -> np.ndarray:
    """The numbers after the header, copied so that they can be written to, which torch wants of its
    memory.
    """
    body = np.frombuffer(content, np.uint8, offset=len(_header(file)))
    return body.reshape(-1, DIGIT, DIGIT).copy() if "images" in file else body.copy()


def _write_pins(folder: Path, contents: dict[str, bytes]) -> None:
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {file}\n" for file, content in contents.items()
    ]
    temporary = folder / f".SHA256SUMS.{os.getpid()}"
    temporary.write_text("".join(lines), encoding="ascii")
    os.replace(temporary, folder / "SHA256SUMS")


def _fingerprint(splits: dict[str, Digits]) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for tensor in (splits[split].images, splits[split].labels):
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


# ---- Download
# ----------------------------------------------------------------------------------------------------------------


def _download(family: _Family, root: Path) -> None:
    """Fetch a family into a temporary folder, check it, then move what is missing into place: never
    half a file at a real name.
    """
    folder = root / family.folder / "raw"
    with network.downloading(family.folder, folder):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as temporary:
            _fetch(family, Path(temporary))
            fetched = Path(temporary) / family.folder / "raw"
            contents = {file: _checked(family, fetched, file) for file in _FILES}
            folder.mkdir(parents=True, exist_ok=True)
            if not family.pins:
                _write_pins(folder, contents)
            for file in _FILES:
                if not (folder / file).exists():
                    os.replace(fetched / file, folder / file)


def _fetch(family: _Family, root: Path) -> None:
    """Let torchvision download and unpack a family under ``root``; it checks the MD5 of each packed
    file.
    """
    import torchvision

    dataset = getattr(torchvision.datasets, family.folder)
    if not network.answers([mirror + dataset.resources[0][0] for mirror in dataset.mirrors]):
        raise OSError("no server could be reached")
    # Standard output belongs to results; torchvision may print there.
    with network.socket_timeout(), contextlib.redirect_stdout(sys.stderr):
        dataset(root, train=True, download=True)


# ---- Embedded digits
# ---------------------------------------------------------------------------------------------------------


def enlarge(small: Tensor) -> Tensor:
    """8x8 pictures with values 0..16 as 28x28 ones with values 0..255: linear interpolation to
    24x24 and a black margin of 2 pixels.

    The centre of output pixel ``j`` lies at ``(j + 0.5) / 3 - 0.5`` of the small picture, so all
    weights are thirds and, over both
    directions, ninths: the sum of value times weight is a whole number, at most ``9 * 16 = 144``,
    and is rounded once, to ``(255 * sum + 72) // 144``. Beyond the edge the edge value is repeated.
    Whole numbers are used because floating-point interpolation differs in the last bit between
    machines and versions, and these pixels must be the same bytes everywhere.

    Args:
        small: integers (N, 8, 8) in 0..16.

    Returns:
        uint8 (N, 28, 28).
    """
    output = torch.arange(24)
    thirds = torch.zeros(24, 8, dtype=torch.int64)
    # Three times the centre's place, from the first of the pixels that it lies on or after: 3 * ((j
    # + 0.5) / 3 - 0.5) = j - 1.
    left, part = (output - 1).div(3, rounding_mode="floor"), (output - 1) % 3
    thirds.index_put_((output, left.clamp(0, 7)), 3 - part, accumulate=True)
    thirds.index_put_((output, (left + 1).clamp(0, 7)), part, accumulate=True)
    # Products of integers, written as sums because torch multiplies integer matrices on a CPU only.
    ninths = torch.einsum("ia,nab,jb->nij", thirds, small.to(torch.int64), thirds)
    return torch.nn.functional.pad((255 * ninths + 72) // 144, (2, 2, 2, 2)).to(torch.uint8)


def _embedded_digits() -> Source:
    """scikit-learn's 1,797 digits, enlarged: the first 1,197 train, the next 200 validation, the
    last 400 test.

    Contiguous parts, because neighbouring digits were often written by the same hand: shuffled, it
        would be in training and test.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = enlarge(torch.from_numpy(raw.images).to(torch.int64))
    labels = torch.from_numpy(raw.target).to(torch.uint8)
    pieces = zip(
        SPLITS,
        images.split(list(_DIGITS_COUNTS.values())),
        labels.split(list(_DIGITS_COUNTS.values())),
        strict=True,
    )
    splits = {split: Digits(some, of_them) for split, some, of_them in pieces}
    found = _fingerprint(splits)
    if found != _DIGITS_SHA256:
        raise Problem(
            f"scikit-learn's digits are not the known ones (SHA-256 {found}, not {_DIGITS_SHA256}): reinstall scikit-learn"
        )
    return Source("digits", splits, _DIGITS_NOTE, found)


# ---- Survey
# ------------------------------------------------------------------------------------------------------------------


def _survey_family(family: _Family, root: Path) -> Finding:
    folder = root / family.folder / "raw"
    if not any((folder / file).exists() for file in _FILES):
        return Finding(
            family.name,
            "missing",
            str(folder),
            f"use --source {family.name} on a machine with network, which downloads it",
        )
    try:
        for file in _FILES:
            _checked(family, folder, file)
        if _pins(family, folder):
            return Finding(family.name, "verified", str(folder), "nothing to do")
    except Problem as problem:
        return Finding(family.name, "damaged", str(folder), str(problem))
    return Finding(
        family.name,
        "unverified",
        str(folder),
        "well formed; its SHA-256 is noted beside it when it is first used",
    )


def _survey_binarized(root: Path) -> Finding:
    folder = root / "binarized_mnist"
    for file, pinned in _BINARIZED.items():
        path = folder / file
        if not path.is_file():
            return Finding(
                "binarized_mnist",
                "missing",
                str(folder),
                f"download {_BINARIZED_URL}{file} to {path}",
            )
        try:
            with files.plain(path).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            return Finding(
                "binarized_mnist",
                "damaged",
                str(folder),
                f"{path} cannot be read ({error.strerror or error})",
            )
        if found != pinned:
            advice = f"{path} has SHA-256 {found} where {pinned} is expected: download {_BINARIZED_URL}{file} again"
            return Finding("binarized_mnist", "damaged", str(folder), advice)
    return Finding("binarized_mnist", "verified", str(folder), "nothing to do")


def _survey_digits() -> Finding:
    try:
        _embedded_digits()
    except Problem as problem:
        return Finding("digits", "damaged", "inside scikit-learn", str(problem))
    return Finding("digits", "verified", "inside scikit-learn", "nothing to do")
