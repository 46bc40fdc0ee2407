"""Settings of the data sets, a dataclass for each data set and use.

The first line of a docstring explains the data set in ``--help``.
"""

from dataclasses import dataclass
from typing import Any

from drawbench.config.fields import ChosenSection, selector, setting

SOURCES = ("auto", "mnist", "fashion", "kmnist", "digits")


def source() -> Any:
    help = "Where digits come from; auto: MNIST, or scikit-learn's digits where it is missing."
    return setting("auto", help, choices=SOURCES)


def data_seed() -> Any:
    return setting(
        0, "Seed of the data set, not of the training: models compared must share it.", low=0
    )


def data() -> Any:
    help = "Folder of a set made by make-data; its card replaces the settings of the scene."
    return setting(None, help, role="machine")


def pixels(*choices: str) -> Any:
    """Define how grey images become binary; only the data sets of a generator have it."""
    help = (
        "How grey pixels become black or white; static: the published binarisation; fixed: sampled "
        "once, by the seed of the data set; dynamic: sampled at every presentation; intensity: "
        "left grey."
    )
    return setting("auto", help, choices=("auto", *choices))


@dataclass(frozen=True)
class Data(ChosenSection):
    """Settings of a data set."""

    dataset: str = ""


@dataclass(frozen=True)
class UserData(Data):
    """A data set of your own."""

    dataset: str = setting("module:factory", "Where it is.")
    data_seed: int = data_seed()


@dataclass(frozen=True)
class ClutteredFiles(Data):
    """One digit in clutter on a larger canvas."""

    dataset: str = selector("cluttered")
    source: str = source()
    canvas: int = setting(100, "Side of the square image, pixels.", low=28, high=4096)
    digits: int = setting(1, "Whole digits per image.", low=1, high=64)
    clutter: int = setting(8, "Pieces of clutter per image.", low=0, high=4096)
    clutter_size: int = setting(8, "Side of a piece of clutter, pixels.", low=1, high=28)
    data_seed: int = data_seed()
    data: str | None = data()


@dataclass(frozen=True)
class PairFiles(ClutteredFiles):
    """Two digits on a 60x60 canvas."""

    dataset: str = selector("mnist2")
    canvas: int = setting(60, "Side of the square image, pixels.", low=28, high=4096)
    digits: int = setting(2, "Whole digits per image.", low=1, high=64)
    clutter: int = setting(0, "Pieces of clutter per image.", low=0, high=4096)


@dataclass(frozen=True)
class CaptionFiles(Data):
    """One or two digits on a 60x60 canvas and a sentence that says which and where."""

    dataset: str = selector("captions")
    source: str = source()
    data_seed: int = data_seed()


@dataclass(frozen=True)
class Cluttered(ClutteredFiles):
    """One digit in clutter on a larger canvas."""

    fixed_train: bool = setting(
        False, "Train on the stored images of train.npz instead of fresh clutter."
    )
    distortion: float = setting(
        0.0,
        "Strength of the random distortion of training digits; the papers use none.",
        note="training digits distorted ({})",
        low=0.0,
        high=3.0,
    )


@dataclass(frozen=True)
class Digits(Data):
    """Plain 28x28 digits."""

    dataset: str = selector("mnist")
    source: str = source()


@dataclass(frozen=True)
class Svhn(Data):
    """Street View House Numbers: single digits, or with --format full whole photographs."""

    dataset: str = selector("svhn")
    format: str = setting(
        "cropped",
        "SVHN only. cropped: single digits, 32x32; full: to classify 64x64 scenes around a digit, "
        "to generate 54x54 windows of whole numbers.",
        choices=("cropped", "full"),
    )


@dataclass(frozen=True)
class Cifar10(Data):
    """CIFAR-10, 32x32 photographs."""

    dataset: str = selector("cifar10")


@dataclass(frozen=True)
class Folder(Data):
    """A folder of your own images."""

    dataset: str = selector("folder")
    images: str | None = setting(
        None, "Folder of images; to classify: one subfolder per class.", role="machine"
    )
    size: int = setting(32, "Side that images are resized to, pixels.", low=2, high=1024)
    broken: str = setting(
        "stop", "What to do about a file that is not a usable image.", choices=("stop", "skip")
    )
    data_seed: int = data_seed()


@dataclass(frozen=True)
class BinaryDigits(Digits):
    """28x28 digits, binarised."""

    pixels: str = pixels("static", "fixed", "dynamic", "threshold", "intensity")
    data_seed: int = data_seed()


@dataclass(frozen=True)
class BinaryPairs(Data):
    """Two digits on a 60x60 canvas, binarised."""

    dataset: str = selector("mnist2")
    source: str = source()
    pixels: str = pixels("fixed", "threshold", "intensity")
    data_seed: int = data_seed()
    data: str | None = data()


@dataclass(frozen=True)
class BinaryCaptions(CaptionFiles):
    """Digits on a 60x60 canvas with captions, binarised."""

    pixels: str = pixels("fixed", "threshold", "intensity")
    data: str | None = data()


@dataclass(frozen=True)
class DrawnFolder(Folder):
    """A folder of your own images."""

    pixels: str = pixels("fixed", "dynamic", "threshold", "intensity")


@dataclass(frozen=True)
class DrawnSvhn(Svhn):
    """Street View House Numbers: single digits, or with --format full whole numbers."""

    pixels: str = pixels("intensity")
    extra: bool = setting(
        True, "With --format full: train on SVHN's 202,353 additional photographs too."
    )


@dataclass(frozen=True)
class DrawnCifar10(Cifar10):
    """CIFAR-10, 32x32 photographs."""

    pixels: str = pixels("intensity")


@dataclass(frozen=True)
class DrawnUserData(UserData):
    """A data set of your own."""

    pixels: str = pixels("intensity")


def _by_name(*kinds: type) -> dict[str, type]:
    return {kind.dataset: kind for kind in kinds}  # type: ignore[attr-defined]


FILES = _by_name(ClutteredFiles, PairFiles, CaptionFiles)
LABELLED = _by_name(Cluttered, Digits, Svhn, Cifar10, Folder)
MEASURED = LABELLED | _by_name(ClutteredFiles)
DRAWN = _by_name(BinaryDigits, BinaryPairs, BinaryCaptions, DrawnSvhn, DrawnCifar10, DrawnFolder)
