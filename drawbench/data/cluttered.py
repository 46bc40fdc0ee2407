"""Cluttered translated MNIST: one digit among pieces of others; see :mod:`drawbench.data.scenes`.

Validation and test come from stored files. Training renders fresh clutter, or shows the stored
images of ``train.npz`` (``fixed_train``).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drawbench.data import cards, digits, making, pixels, scenes, stored
from drawbench.data.batch import Batch
from drawbench.data.dataset import Context, Dataset, Shuffled
from drawbench.data.scenes import Digits, Rendering, Scene, scene_of
from drawbench.errors import Problem

CHUNK = 1000  # test scenes rendered at a time where they are not stored


@dataclass(frozen=True)
class FreshScenes:
    """Training scenes rendered when they are needed, so that none comes twice."""

    part: Digits  #: the training digits
    scene: Scene  #: with one digit, its label comes along
    seed: int  #: of all random choices
    distortion: float = 0.0  #: of the digits, see :mod:`drawbench.data.warp`
    rule: str | None = None  #: of pixels, see :mod:`drawbench.data.pixels`

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, first: int, count: int) -> Batch:
        """As :meth:`drawbench.data.dataset.Train.batch`."""
        index = torch.arange(first, first + count)
        rendering = scenes.fresh(
            self.part, self.scene, index, self.seed, "train", distortion=self.distortion
        )
        return _batch(rendering, self.rule, index, self.seed, "train")

    def to(self, device: torch.device) -> "FreshScenes":
        """As :meth:`drawbench.data.dataset.Train.to`."""
        return replace(self, part=self.part.to(device))

    @property
    def fingerprint(self) -> str:
        """A hash of the digits and the recipe."""
        digits = Batch(self.part.images, self.part.labels).sha256(labels=True)
        return f"{digits} {self.scene}"


def _batch(
    rendering: Rendering, rule: str | None, index: Tensor, seed: int, *name: str | int
) -> Batch:
    """Return rendered scenes under a rule of pixels, with the label if there is one digit."""
    images, labels = rendering.images[:, None], rendering.labels
    images = pixels.apply(rule, images, index.to(images.device, non_blocking=True), seed, *name)
    return Batch(images, labels[:, 0].long() if labels.shape[1] == 1 else None)


def load(settings: Any, context: Context) -> Dataset:
    """Load cluttered MNIST.

    Settings: ``source``, ``canvas``, ``digits``, ``clutter``, ``clutter_size`` and ``data_seed``;
    where there are such, ``data``, ``fixed_train`` and ``distortion``.

    Raises:
        Problem: settings that do not go together; files that are missing or damaged.
    """
    scene = scene_of(settings)
    if scene.digits != 1:
        place = getattr(settings, "data", None)
        raise Problem(
            f"a classifier names one digit, but each image has {scene.digits}: "
            + (f"draw them with drawbench generate --data {place}" if place else "use --digits 1")
        )
    return load_scenes("cluttered", scene, settings, context)


def load_scenes(dataset: str, scene: Scene, settings: Any, context: Context) -> Dataset:
    """Load a data set of scenes; see :func:`load`.

    Args:
        dataset: the name of the usual set, which is made first if it is missing.
        scene: its recipe. Where there is a folder ``settings.data``, its set is taken instead.
    """
    rule = getattr(settings, "pixels", None)
    rule = "fixed" if rule == "auto" else rule
    fixed_train = getattr(settings, "fixed_train", False)
    distortion = getattr(settings, "distortion", 0.0)
    if fixed_train and distortion:
        raise Problem(
            "stored training images are not distorted: omit --fixed-train or --distortion"
        )
    folder, source, card = find(dataset, scene, settings, context)
    usual_name = making.default_folder("", scene, dataset, source, settings.data_seed).name
    scene, seed, counts = Scene(**card["recipe"]), card["seed"], card["counts"]

    def part(split: str) -> Batch:
        arrays = stored.load(folder, split, verify=False)  # it was verified above
        labels = torch.from_numpy(arrays.labels).view(len(arrays.labels), -1)
        rendering = Rendering(torch.from_numpy(arrays.images), labels, torch.empty(0))
        return _batch(rendering, rule, torch.arange(len(labels)), seed, split)

    def under(condition: str, value: int) -> Iterator[Batch]:
        if condition not in ("clutter", "canvas"):
            raise Problem(f"scenes can differ in clutter or canvas, not in '{condition}'")
        try:
            other = replace(scene, **{condition: value})
        except ValueError as error:
            raise Problem(str(error)) from error
        # In the order of the test file; in the surroundings of training these are its very images.
        test, name = source.splits["test"], (seed, "set", "test")
        return (
            _batch(scenes.fresh(test, other, index, *name), rule, index, seed, "test")
            for index in torch.arange(counts["test"]).split(CHUNK)
        )

    name = making.default_folder("", scene, card["dataset"], source, seed, counts).name
    if dataset != "cluttered":
        words = [word for word in (dataset, source.name, rule) if word and word != "mnist"]
        usual = pixels.named("-".join(words), seed)
        name = usual if name == usual_name else f"{name}-{rule}"
    fresh = FreshScenes(source.splits["train"], scene, context.seed, distortion, rule)
    return Dataset(
        name,
        source.name,
        Shuffled(part("train"), context.seed) if fixed_train else fresh,
        part("validation"),
        part("test"),
        rule=_sentence(scene, source.note, rule, seed, fixed_train),
        binary=rule not in (None, "intensity"),
        pixels=rule,
        classes=digits.CLASSES if scene.digits == 1 else None,
        under=under if dataset == "cluttered" else None,
    )


def find(
    dataset: str, scene: cards.Recipe, settings: Any, context: Context
) -> tuple[Path, digits.Source, dict[str, Any]]:
    """Return the folder of a stored data set, verified, its digits and its card."""
    place = getattr(settings, "data", None)
    origin = settings.source if place is None else cards.read(place)["source"]
    source = digits.load(origin, context.sources_root, context.download, context.say)
    if place is None:
        seed = settings.data_seed
        folder = making.default_folder(context.datasets_root, scene, dataset, source, seed)
        say, progress = context.say, context.progress
        card = making.write_if_missing(folder, scene, source, dataset, seed, say, progress)
        return folder, source, card
    folder = Path(place)
    card = stored.verified(folder, dataset, settings, source)
    if not getattr(settings, "fixed_train", True):
        context.say(
            f"Training renders fresh images by the recipe of {folder}; --fixed-train shows the "
            f"{card['counts']['train']:,} of its train.npz instead."
        )
    return folder, source, card


def _sentence(scene: Scene, note: str, rule: str | None, seed: int, fixed_train: bool) -> str:
    clutter = f"{scene.clutter} pieces of clutter, " if scene.clutter else ""
    count = {1: "one digit", 2: "two digits"}.get(scene.digits, f"{scene.digits} digits")
    what = pixels.describe(
        f"{count} at random places of a black {scene.canvas}x{scene.canvas} canvas, {clutter}sums "
        f"clipped to 255, from {note}",
        rule,
        seed,
    )
    if fixed_train:
        return what
    stored_parts, drawn = (" in validation and test", " and drawn") if rule == "fixed" else ("", "")
    return (
        f"{what}{stored_parts}; training images are rendered{drawn} anew at each presentation, "
        "from training digits"
    )
