"""Captioned digits: what is drawn follows from a sentence; see :mod:`drawbench.data.sentences`.

Validation, test and the held-out captions come from stored files. Training renders fresh scenes.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from drawbench.data import making, pixels, sentences, stored
from drawbench.data.batch import Batch
from drawbench.data.cluttered import find
from drawbench.data.dataset import Context, Dataset
from drawbench.data.scenes import Digits
from drawbench.data.sentences import ByClass, CaptionScene


@dataclass(frozen=True)
class FreshCaptions:
    """Training scenes rendered when they are needed, so that none comes twice."""

    part: Digits  #: the training digits
    rule: str | None  #: of pixels, see :mod:`drawbench.data.pixels`
    data_seed: int  #: of the held-out combinations
    seed: int  #: of all other choices
    device: torch.device | None = None  #: of what it returns; scenes are rendered on the CPU

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, first: int, count: int) -> Batch:
        """As :meth:`drawbench.data.dataset.Train.batch`."""
        index = torch.arange(first, first + count)
        seen = sentences.allowed(self.data_seed, is_held_out=False)
        rendering = sentences.render(self.sorted, index, seen, self.seed, "train")
        batch = _batch(rendering.images, rendering.captions, self.rule, index, self.seed, "train")
        return batch if self.device is None else batch.to(self.device)

    def to(self, device: torch.device) -> "FreshCaptions":
        """As :meth:`drawbench.data.dataset.Train.to`."""
        return replace(self, device=device)

    @cached_property
    def sorted(self) -> ByClass:
        """The digits by class, sorted once."""
        return ByClass.of(self.part)

    @property
    def fingerprint(self) -> str:
        """A hash of the digits and the recipe."""
        digits = Batch(self.part.images, self.part.labels).sha256(labels=True)
        return f"{digits} {CaptionScene().rule(self.data_seed)}"


def _batch(
    images: Tensor, captions: Tensor, rule: str | None, index: Tensor, seed: int, *name: str
) -> Batch:
    """Return scenes under a rule of pixels, with their captions."""
    return Batch(pixels.apply(rule, images[:, None], index, seed, *name), condition=captions.long())


def load(settings: Any, context: Context) -> Dataset:
    """Load captioned digits. Settings: ``pixels``, ``source``, ``data_seed``, ``data`` (a folder
    made by ``make-data``).

    Raises:
        Problem: files that are missing or damaged.
    """
    rule = "fixed" if settings.pixels == "auto" else settings.pixels
    scene = CaptionScene()
    folder, source, card = find("captions", scene, settings, context)
    seed, counts = card["seed"], card["counts"]
    own = making.default_folder("", scene, "captions", source, seed, counts).name
    is_usual = own == making.default_folder("", scene, "captions", source, seed).name

    def part(name: str) -> Batch:
        arrays = stored.load(folder, name, verify=False)  # it was verified above
        images, captions = torch.from_numpy(arrays.images), torch.from_numpy(arrays.captions)
        return _batch(images, captions, rule, torch.arange(len(images)), seed, name)

    words = [word for word in ("captions", source.name, rule) if word != "mnist"]
    what = pixels.describe(
        f"captioned digits on a black 60x60 canvas, from {source.note}", rule, seed
    )
    return Dataset(
        pixels.named("-".join(words), seed) if is_usual else f"{own}-{rule}",
        source.name,
        FreshCaptions(source.splits["train"], rule, seed, context.seed),
        part("validation"),
        part("test"),
        held_out=part("held_out"),
        rule=f"{what}; training images are rendered anew at each presentation",
        binary=rule != "intensity",
        pixels=rule,
        show=sentences.text,
        slots=sentences.slots,
    )
