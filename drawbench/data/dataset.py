"""The record of a data set, for classifiers and generators alike, and its training images.

To add a data set, write a function ``(settings, context) -> Dataset`` in a file of its own and name
it in :data:`drawbench.data.DATASETS`. A data set of your own needs neither: see
:meth:`Dataset.from_arrays` and ``--dataset module:factory``.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from drawbench.data import pixels as rules
from drawbench.data.batch import Batch
from drawbench.data.scenes import targets
from drawbench.data.sentences import Slots
from drawbench.errors import Problem

Say = Callable[[str], object]
Progress = Callable[[int, int], object]  # called with what is done and what there is to do
Part = Any  # images, or (images, labels), or (images, labels, condition): NumPy arrays or tensors


class Context(NamedTuple):
    """What a data set needs besides its own settings."""

    seed: int  #: of the order of training images and of everything drawn during training
    sources_root: Path  #: the folder of original files
    datasets_root: Path  #: the folder of generated data sets
    download: bool  #: whether missing files may be downloaded
    say: Say  #: receives one sentence about whatever was chosen, made or left out
    progress: Progress | None = None


class Train(Protocol):
    """Training images by the number of their presentation, counted from 0 over all epochs."""

    def __len__(self) -> int:
        """Return the number of images in an epoch."""

    def batch(self, first: int, count: int) -> Batch:
        """Return presentations ``first .. first + count - 1``, each a function of its number."""

    def to(self, device: torch.device) -> "Train":
        """Return the same images on another device."""


@dataclass(frozen=True)
class Shuffled:
    """Images in memory, each once an epoch, in another random order every epoch."""

    part: Batch
    seed: int  #: of the orders
    dynamic: bool = False  #: make the pixels black and white at random at each presentation

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, first: int, count: int) -> Batch:
        """As :meth:`Train.batch`."""
        index = torch.arange(first, first + count)
        batch = self.part.at(targets(index, len(self), self.seed, "train"))
        if not self.dynamic:
            return batch
        index = index.to(batch.images.device, non_blocking=True)
        return batch.with_images(rules.binarise(batch.images, index, self.seed, "train"))

    def to(self, device: torch.device) -> "Shuffled":
        """As :meth:`Train.to`."""
        return replace(self, part=self.part.to(device))

    @property
    def fingerprint(self) -> str:
        """A hash of the images and labels, whatever their order."""
        return self.part.sha256(labels=self.part.labels is not None)


@dataclass(frozen=True)
class Dataset:
    """What a model is trained, selected and measured on.

    Raises:
        Problem: a part is not uint8 (N, C, H, W), is empty, or has another size or other labels
            than the rest.
    """

    name: str  #: the column of its results: ``cluttered-100x100-8-mnist``, ``mnist-static`` ...
    source: str  #: where originals come from: ``mnist``, ``digits``, ``cifar10``, ``folder`` ...
    train: Train  #: the training images
    validation: Batch  #: black is 0, white 255
    test: Batch
    rule: str = ""  #: one sentence: what the images are, and how their pixels came about
    binary: bool = False  #: whether every pixel is 0 or 255
    pixels: str | None = None  #: rule of :mod:`drawbench.data.pixels`; None for classifiers
    classes: tuple[str, ...] | None = None  #: names that labels are indices into, if there are any
    #: Yields the test part in batches with a condition (``clutter``, ``canvas``) set to a value.
    under: Callable[[str, int], Iterator[Batch]] | None = None
    held_out: Batch | None = None  #: test images of conditions that no other part has
    show: Callable[[Tensor], str] | None = None  #: returns a condition in words
    slots: Callable[[Tensor], Slots] | None = None  #: the digits that conditions (B, ...) ask for

    def __post_init__(self):
        self._check("test", self.test)
        self._check("validation", self.validation)
        if not len(self.train):
            raise Problem(f"{self.name} has no training images")
        whole = self.train.part if isinstance(self.train, Shuffled) else self.train.batch(0, 1)
        self._check("training", whole)
        if self.held_out is not None:
            self._check("held-out", self.held_out)

    def _check(self, split: str, part: Batch) -> None:
        what = f"the {split} part of {self.name}"
        if not isinstance(part, Batch):
            raise Problem(f"{what} must be a Batch, not {type(part).__name__}")
        shape = tuple(part.images.shape)
        if part.images.dtype != torch.uint8 or len(shape) != 4 or not all(shape):
            raise Problem(
                f"{what} must have images uint8 (N, C, H, W), not {part.images.dtype} {shape}"
            )
        if shape[1:] != self.size:
            raise Problem(f"{what} has images {shape[1:]}, but the test part has {self.size}")
        if (part.labels is None) != (self.classes is None):
            raise Problem(f"{what} must have labels where the data set has classes, and only there")
        if part.condition is not None and part.condition.shape[:1] != shape[:1]:
            raise Problem(
                f"{what} must have a condition for each of {shape[0]:,} images, not conditions "
                f"{tuple(part.condition.shape)}"
            )
        if part.labels is None or self.classes is None:
            return
        if part.labels.dtype != torch.int64 or tuple(part.labels.shape) != shape[:1]:
            raise Problem(
                f"{what} must have labels int64 ({shape[0]},), "
                f"not {part.labels.dtype} {tuple(part.labels.shape)}"
            )
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= len(self.classes):
            raise Problem(
                f"{what} has the label {low if low < 0 else high}, "
                f"outside 0..{len(self.classes) - 1}: there are {len(self.classes)} classes"
            )

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.test.images.shape
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all three parts, by which a resumed run notices that its data have changed."""
        train = getattr(self.train, "fingerprint", None) or self.train.batch(0, 256).sha256()
        parts = (self.validation, self.test, *([self.held_out] if self.held_out else []))
        hashes = [part.sha256(labels=part.labels is not None) for part in parts]
        return hashlib.sha256(" ".join([self.name, train, *hashes]).encode()).hexdigest()

    @classmethod
    def from_parts(
        cls,
        name: str,
        source: str,
        parts: dict[str, Batch],
        *,
        seed: int,
        what: str,
        pixels: str | None = None,
        data_seed: int = 0,
        classes: tuple[str, ...] | None = None,
    ) -> "Dataset":
        """Make a data set of three parts in memory, under a rule of pixels.

        Args:
            parts: ``train``, ``validation`` and ``test``.
            seed: of the training order.
            what: what the images are, in words.
            data_seed: of pixels that are drawn once.

        Raises:
            Problem: the images are in colour, and the rule is for grey ones.
        """
        binary = pixels not in (None, "intensity")
        if binary and parts["test"].images.shape[1] != 1:
            raise Problem(
                f"'{source}' is in colour, and --pixels {pixels} makes grey pixels black and "
                "white: use --pixels intensity"
            )
        stored = {
            split: part.with_images(
                rules.apply(pixels, part.images, torch.arange(len(part)), data_seed, split)
            )
            for split, part in parts.items()
            if (split, pixels) != ("train", "dynamic")
        }
        parts = parts | stored
        return cls(
            name,
            source,
            Shuffled(parts["train"], seed, pixels == "dynamic"),
            parts["validation"],
            parts["test"],
            rule=rules.describe(what, pixels, data_seed),
            binary=binary,
            pixels=pixels,
            classes=classes,
        )

    @classmethod
    def from_arrays(
        cls,
        name: str,
        train: Part,
        validation: Part,
        test: Part,
        *,
        seed: int = 0,
        source: str | None = None,
        classes: Sequence[str] | None = None,
        rule: str = "",
    ) -> "Dataset":
        """Make a data set of arrays in memory; training shuffles them anew every epoch.

        Args:
            train, validation, test: images, or (images, labels), or (images, labels, condition), as
                NumPy arrays or tensors. Images are uint8 (N, H, W) or (N, C, H, W); labels are
                integers (N,) or None.
            seed: of the training order.
            source: where the images come from, if not from ``name``.
            classes: the names of the classes, if not the numbers from 0 to the highest label.
            rule: one sentence: what the images are.

        Raises:
            Problem: a wrong type, shape or label; the message names the part.
        """
        batches = [
            _batch(f"the {split} part of {name}", part)
            for split, part in (("training", train), ("validation", validation), ("test", test))
        ]
        labels = [part.labels for part in batches if part.labels is not None]
        if classes is None and labels:
            highest = max((int(some.max()) for some in labels if some.numel()), default=0)
            classes = [str(number) for number in range(highest + 1)]
        return cls(
            name,
            source or name,
            Shuffled(batches[0], seed),
            batches[1],
            batches[2],
            rule=rule,
            binary=all(bool(((part.images == 0) | (part.images == 255)).all()) for part in batches),
            pixels="intensity",
            classes=None if classes is None else tuple(classes),
        )


def _batch(what: str, part: Part) -> Batch:
    """Return arrays as a batch; `Dataset` checks shapes and labels."""
    fields = tuple(part) if isinstance(part, tuple | list) else (part,)
    if not 1 <= len(fields) <= 3:
        raise Problem(f"{what} must be images, labels and a condition, not {len(fields)} arrays")
    try:
        images, labels, condition = (
            field
            if field is None or isinstance(field, Tensor)
            else torch.as_tensor(np.array(field))
            for field in (*fields, None, None)[:3]
        )
    except (TypeError, ValueError) as error:
        raise Problem(f"{what} must be arrays of numbers: {error}") from error
    if images is None:
        raise Problem(f"{what} has no images")
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim == 4 and images.shape[1] > 4 >= images.shape[3]:
        raise Problem(
            f"{what} has images {tuple(images.shape)}, but channels come before height and width: "
            "use images.transpose(0, 3, 1, 2)"
        )
    if labels is not None:
        if labels.is_floating_point():
            raise Problem(f"{what} must have whole numbers for labels, not {labels.dtype}")
        labels = labels.long()
    return Batch(images, labels, condition)
