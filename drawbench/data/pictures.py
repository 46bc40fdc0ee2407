"""What a generator learns to draw: training pictures by number, a validation and a test set, and
the rule of their pixels.

A Bernoulli likelihood is one of pictures whose pixels are black or white, so how grey ones were
made black and white is part of
the result: values under different rules do not compare. :attr:`Pictures.name` is different for each
rule, and :attr:`Pictures.rule` says in a sentence what was done.

============
  ==========================================================================================================
``pixels``    rule
============
  ==========================================================================================================
``static``    the published fixed binarisation of MNIST (:mod:`drawbench.data.binarized`)
``fixed``     white with probability intensity / 255, drawn once for each image from the data seed
``dynamic``   the same, drawn again at each presentation in training; validation and test are those
of ``fixed`` ``threshold`` white from intensity 128 on ``intensity`` as they are: not binary, the
cross-entropy is no likelihood
============
  ==========================================================================================================
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from drawbench import streams
from drawbench.data import binarized, photographs, scenes, sources, store
from drawbench.data.photographs import Progress, Say
from drawbench.data.scenes import Digits, Scene
from drawbench.errors import Problem

DATASETS = ("mnist", "mnist2", "svhn", "cifar10", "folder")
PIXELS = ("auto", "static", "fixed", "dynamic", "threshold", "intensity")
PAIR = Scene(canvas=60, digits=2, clutter=0)  # a picture of mnist2

_DRAWN = ("fixed", "dynamic")
_CHUNK = 1 << 22  # pixels looked at at a time while a whole set is drawn


class Train(Protocol):
    """Training pictures by the number of their presentation, counted from 0 over all epochs."""

    def __len__(self) -> int:
        """Pictures in an epoch."""
        ...

    def batch(self, first: int, count: int) -> Tensor:
        """Presentations ``first .. first + count - 1``: uint8 (B, C, H, W), each a function of the
        seed and its number alone.
        """
        ...

    def to(self, device: torch.device) -> "Train":
        """The same pictures, made on another device."""
        ...


@dataclass(frozen=True)
class Pictures:
    """What a generator is trained, selected and measured on.

    Attributes: name: the column that a likelihood belongs in, such as ``mnist-static``,
        ``mnist2-fixed`` or ``cifar10``. train: the training pictures. validation: uint8 (N, C, H,
        W), black 0, white 255. test: uint8 (N, C, H, W). binary: every pixel is 0 or 255. rule: one
        sentence: what the pixels are and how they came about. source: where the originals are from:
        ``mnist``, ``fashion``, ``kmnist``, ``digits``, ``cifar10``, ``svhn`` or ``folder``. pixels:
        the rule by its name in ``PIXELS``, never ``auto``, so that a run can be repeated where
        ``auto`` would now differ.
    """

    name: str
    train: Train
    validation: Tensor
    test: Tensor
    binary: bool
    rule: str
    source: str
    pixels: str = "intensity"

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""
        _, channels, height, width = self.test.shape
        return channels, height, width

    @property
    def digits(self) -> str:
        """The source of the digits, as :func:`drawbench.data.sources.load` takes it; empty for
        photographs.
        """
        return self.source if self.source in sources.NAMES else ""


def load(
    dataset: str,
    *,
    pixels: str = "auto",
    source: str = "auto",
    images: Path | None = None,
    side: int = 32,
    broken: str = "stop",
    seed: int = 0,
    data_seed: int = 0,
    sources_root: Path,
    datasets_root: Path,
    download: bool = True,
    say: Say,
    progress: Progress | None = None,
) -> Pictures:
    """Load a data set for a generator, verified, made or downloaded where it is missing.

    Args: dataset: one of ``DATASETS``. pixels: one of ``PIXELS``. ``auto`` is ``static`` for MNIST
        and, where its files cannot be had, ``fixed``, which is said;
            ``fixed`` for other digits and for mnist2; ``intensity`` for photographs.
        source: of the digits of mnist and mnist2, see :func:`drawbench.data.sources.load`.
        images: the folder of images for ``folder``.
        side: of the square that the images of a folder are resized to, pixels.
        broken: ``stop`` at an image of a folder that cannot be used, or ``skip`` those.
        seed: of the order of training pictures and of what is drawn anew in training.
        data_seed: of what is drawn once: the fixed binarisation, the pairs of mnist2, the parts of
            a folder.
        sources_root, datasets_root: folders of original files and of generated data sets.
        download: whether missing files may be fetched.
        say: called with a sentence about what was chosen or left out.
        progress: called with what is done and what there is to do.

    Raises: Problem: options that do not go together; files missing, damaged or of another kind; a
        download that failed.
    """
    for given, what, known in (
        (dataset, "data set", DATASETS),
        (pixels, "rule for --pixels", PIXELS),
    ):
        if given not in known:
            raise Problem(f"there is no {what} '{given}': choose one of {', '.join(known)}")
    if (images is None) == (dataset == "folder"):
        if images is None:
            raise Problem(
                "the data set 'folder' needs to know where the images are: name the folder with --images DIR"
            )
        raise Problem(
            f"--images {images} goes with --dataset folder, but the data set is '{dataset}': leave out one of them"
        )
    sources_root, datasets_root = Path(sources_root), Path(datasets_root)
    if dataset == "mnist":
        return _mnist(pixels, source, seed, data_seed, sources_root, download, say, progress)
    if dataset == "mnist2":
        return _mnist2(
            pixels, source, seed, data_seed, sources_root, datasets_root, download, say, progress
        )
    if source not in ("auto", dataset):
        raise Problem(
            f"--source names the digits of mnist and mnist2, but the data set is '{dataset}': leave out --source {source}"
        )
    if pixels == "static":
        raise Problem(
            f"--pixels static is the published binarisation of MNIST, but the data set is '{dataset}': use --pixels intensity"
        )
    pixels = "intensity" if pixels == "auto" else pixels
    if dataset == "folder":
        assert images is not None
        found = photographs.folder(images, side, broken, data_seed, say, progress)
    else:
        if pixels != "intensity":
            raise _colour(dataset, pixels)
        found = {"cifar10": photographs.cifar10, "svhn": photographs.svhn}[dataset](
            sources_root, download
        )
    if pixels != "intensity" and found.parts["test"].shape[1] != 1:
        raise _colour(found.name, pixels)
    # The seed decides what the test part of a folder is, whatever its pixels.
    name = _named(
        f"{found.name}-{pixels}".removesuffix("-intensity"), data_seed if dataset == "folder" else 0
    )
    return _stored(
        name,
        found.parts,
        pixels,
        _sentence(found.note, pixels, data_seed),
        dataset,
        seed,
        data_seed,
    )


def check_binary(images: Tensor, what: str) -> None:
    """Refuse pictures that are not black and white.

    Args:
        images: uint8, any shape.
        what: what they are, for the message.

    Raises:
        Problem: a pixel is neither 0 nor 255.
    """
    grey = (images != 0) & (images != 255)
    if grey.any():
        share, value = 100 * grey.double().mean().item(), int(images[grey][0])
        raise Problem(
            f"{what} must be black and white, but {share:.1f} % of the pixels are grey (such as {value}, not 0 or 255): "
            "binarise them with --pixels fixed, dynamic or threshold"
        )


def binarise(images: Tensor, index: Tensor, seed: int, *name: str | int) -> Tensor:
    """Each pixel white (255) with probability intensity / 255, else black (0).

    A number ``u`` is drawn uniformly from 0..254 for each grey pixel, by counter; the pixel is
    white if ``u`` is below the intensity. So 255 stays white, 0 stays black, and a pixel depends on
    the picture's index and its place alone, not on the batch or on what was drawn before.

    Args:
        images: uint8 (B, ...).
        index: int64 (B,), the number that each picture is drawn by.
        seed, name: of the numbers.

    Returns:
        uint8 of the same shape, 0 or 255.
    """
    flat = images.flatten(1)
    drawn = torch.where(flat == 255, flat, 0)
    rows = max(1, _CHUNK // max(1, flat.shape[1]))
    for first in range(0, len(flat), rows):
        some = flat[first : first + rows]
        row, column = _to_draw(some)  # each of these pixels is a row of random numbers by itself
        numbers = index[first + row] * flat.shape[1] + column
        white = streams.integers(numbers, [255], seed, *name, "binarise")[:, 0] < some[row, column]
        drawn[first + row, column] = white.to(torch.uint8) * 255
    return drawn.view(images.shape)


def _to_draw(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels (R, S) that are drawn: the grey ones, which are few. To find
    them on a GPU would be to wait for it; there all are drawn, and 0 and 255 come out as they are.
    """
    if not pixels.is_cuda:
        return ((pixels > 0) & (pixels < 255)).nonzero(as_tuple=True)  # type: ignore[return-value]
    rows, columns = (torch.arange(size, device=pixels.device) for size in pixels.shape)
    return rows.repeat_interleave(len(columns)), columns.repeat(len(rows))


# ---- Training pictures
# -------------------------------------------------------------------------------------------------------


class Shuffled:
    """Pictures that are there, each once an epoch, in another random order every epoch; drawn black
    and white at each presentation if ``dynamic``.
    """

    def __init__(self, images: Tensor, seed: int, dynamic: bool = False):
        self.images, self.seed, self.dynamic = images, seed, dynamic

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, first: int, count: int) -> Tensor:
        """As :meth:`Train.batch`."""
        index = torch.arange(first, first + count)
        chosen = self.images[
            scenes.targets(index, len(self), self.seed, "train").to(self.images.device)
        ]
        index = index.to(self.images.device)
        return binarise(chosen, index, self.seed, "train") if self.dynamic else chosen

    def to(self, device: torch.device) -> "Shuffled":
        """As :meth:`Train.to`."""
        return Shuffled(self.images.to(device), self.seed, self.dynamic)


class FreshPairs:
    """Pictures of two digits made as they are needed, so that none comes twice, and under a rule of
    pixels.
    """

    def __init__(self, digits: Digits, seed: int, pixels: str):
        self.digits, self.seed, self.pixels = digits, seed, pixels

    def __len__(self) -> int:
        return len(self.digits)

    def batch(self, first: int, count: int) -> Tensor:
        """As :meth:`Train.batch`."""
        index = torch.arange(first, first + count)
        made = scenes.fresh(self.digits, PAIR, index, self.seed, "train").images[:, None]
        return _under(self.pixels, made, index.to(made.device), self.seed, "train")

    def to(self, device: torch.device) -> "FreshPairs":
        """As :meth:`Train.to`."""
        return FreshPairs(self.digits.to(device), self.seed, self.pixels)


def _under(pixels: str, images: Tensor, index: Tensor, seed: int, *name: str | int) -> Tensor:
    """Grey pictures under a rule; ``fixed`` and ``dynamic`` are the same act, what differs is the
    index and the seed.
    """
    if pixels in _DRAWN:
        return binarise(images, index, seed, *name)
    return (images >= 128).to(torch.uint8) * 255 if pixels == "threshold" else images


# ---- Data sets
# ---------------------------------------------------------------------------------------------------------------


def _mnist(
    pixels: str,
    source: str,
    seed: int,
    data_seed: int,
    root: Path,
    download: bool,
    say: Say,
    progress: Progress | None,
) -> Pictures:
    if pixels == "static" and source not in ("auto", "mnist"):
        raise Problem(
            f"--pixels static is the published binarisation of MNIST, but the source is '{source}': use --pixels fixed"
        )
    if pixels == "static" or (pixels == "auto" and source in ("auto", "mnist")):
        try:
            return _static(binarized.load(root, download, progress), seed)
        except binarized.Missing as problem:
            if pixels == "static":
                raise
            say(
                f"{problem}; until then grey digits are binarised here (--pixels fixed), which every result will say"
            )
    pixels = "fixed" if pixels == "auto" else pixels
    found = sources.load(source, root, download=download, warn=say)
    parts = {split: digits.images[:, None] for split, digits in found.splits.items()}
    rule = _sentence(found.note, pixels, data_seed)
    name = _named(f"{found.name}-{pixels}", data_seed if pixels in _DRAWN else 0)
    return _stored(name, parts, pixels, rule, found.name, seed, data_seed)


def _static(parts: dict[str, Tensor], seed: int) -> Pictures:
    train, validation, test = (parts[split] for split in sources.SPLITS)
    counts = f"{len(train):,} / {len(validation):,} / {len(test):,} images"
    rule = f"MNIST in the published fixed binarisation of Salakhutdinov & Murray 2008 ({counts})"
    return Pictures(
        "mnist-static", Shuffled(train, seed), validation, test, True, rule, "mnist", "static"
    )


def _mnist2(
    pixels: str,
    source: str,
    seed: int,
    data_seed: int,
    root: Path,
    datasets_root: Path,
    download: bool,
    say: Say,
    progress: Progress | None,
) -> Pictures:
    if pixels == "static":
        raise Problem(
            "--pixels static is the published binarisation of MNIST, but the data set is 'mnist2': use --pixels fixed"
        )
    if pixels == "dynamic":
        raise Problem(
            "mnist2 makes each training picture anew and draws it then, so --pixels dynamic would be the same as fixed: use --pixels fixed"
        )
    pixels = "fixed" if pixels == "auto" else pixels
    found = sources.load(source, root, download=download, warn=say)
    folder = store.default_folder(datasets_root, PAIR, "mnist2", found.name, data_seed)
    if not (folder / store.CARD).is_file():
        say(f"Making {folder} (once; drawbench make-data does the same).")

    def report(done: int, total: int) -> None:
        if progress:
            progress(done, total)

    store.write(folder, PAIR, found, "mnist2", data_seed, progress=report)
    kept = {}
    for split in ("validation", "test"):
        grey = torch.from_numpy(store.load(folder, split).images)[:, None]
        kept[split] = _under(pixels, grey, torch.arange(len(grey)), data_seed, split)
    name = _named(
        "-".join(word for word in ("mnist2", found.name, pixels) if word != "mnist"), data_seed
    )
    what = f"two digits at random places of a black {PAIR.canvas}x{PAIR.canvas} canvas, sums clipped to 255, from {found.note}"
    rule = _sentence(what, pixels, data_seed)
    rule += f"{' in validation and test' if pixels == 'fixed' else ''}; in training each picture is made"
    rule += f" anew{' and drawn then' if pixels == 'fixed' else ''}, from the training digits"
    train = FreshPairs(found.splits["train"], seed, pixels)
    return Pictures(
        name,
        train,
        kept["validation"],
        kept["test"],
        pixels != "intensity",
        rule,
        found.name,
        pixels,
    )


def _stored(
    name: str,
    parts: dict[str, Tensor],
    pixels: str,
    rule: str,
    source: str,
    seed: int,
    data_seed: int,
) -> Pictures:
    """Pictures of grey (or, where they stay as they are, colour) parts that are in memory."""
    dynamic = pixels == "dynamic"
    under = {
        split: images
        if dynamic and split == "train"
        else _under(pixels, images, torch.arange(len(images)), data_seed, split)
        for split, images in parts.items()
    }
    train = Shuffled(under["train"], seed, dynamic)
    return Pictures(
        name, train, under["validation"], under["test"], pixels != "intensity", rule, source, pixels
    )


def _named(name: str, data_seed: int) -> str:
    """Another draw is another test set, so it has another name; seed 0, the usual one, is not
    named.
    """
    return name + (f"-seed{data_seed}" if data_seed else "")


def _sentence(what: str, pixels: str, data_seed: int) -> str:
    """What the pixels are, and how they came about."""
    drawn = f"pixels white with probability intensity/255, drawn once by seed {data_seed}"
    how = {
        "fixed": drawn + (", which is not the published binarisation" if what == "MNIST" else ""),
        "dynamic": f"{drawn} in validation and test and drawn again at each presentation in training",
        "threshold": "pixels white from intensity 128 of 255 on",
        "intensity": "pixels as they are, not binary: the cross-entropy is no likelihood",
    }
    return f"{what}; {how[pixels]}"


def _colour(what: str, pixels: str) -> Problem:
    return Problem(
        f"'{what}' is in colour and --pixels {pixels} makes grey pixels black and white: use --pixels intensity"
    )
