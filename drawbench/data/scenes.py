"""Scenes: digits and clutter on a blank canvas, drawn by one vectorised renderer.

Cluttered translated MNIST follows the official generator (deepmind/mnist-cluttered): on a blank
canvas, ``clutter`` times a random digit of the same file, a random crop of it, added at a random
place; then the target digit added at a uniform place; the sum clipped to 1. Two-digit MNIST is a
scene with two digits and no clutter (Gregor et al. 2015, section 4.3).

Every place is drawn uniformly over the whole range in which the piece lies inside the canvas, both
edges included. Everything about scene ``n`` is a function of (seed, name, ``n``), so the same
scenes come out in any order, batch size or process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from drawbench import streams
from drawbench.data import warp
from drawbench.errors import Problem

DIGIT = 28  # side of an MNIST digit, pixels
MAX_CANVAS_SIDE = 4096  # pixels: boxes are int16, and one image is 16 MB already

Layout = tuple[np.dtype, tuple[int, ...]]  # type and shape of an array


@dataclass(frozen=True)
class Digits:
    """Labelled images of digits, one part of a source.

    Raises:
        ValueError: on another type or shape, or on no digits at all.
    """

    images: Tensor  #: uint8 (N, 28, 28), black 0, white 255
    labels: Tensor  #: uint8 (N,)

    def __post_init__(self):
        count = len(self.images)
        for what, tensor, shape in (
            ("images", self.images, (count, DIGIT, DIGIT)),
            ("labels", self.labels, (count,)),
        ):
            if tensor.dtype != torch.uint8 or tuple(tensor.shape) != shape or not count:
                raise ValueError(
                    f"{what} of digits must be uint8 {shape} and not empty, "
                    f"got {tensor.dtype} {tuple(tensor.shape)}"
                )

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Digits":
        """Return the same digits on another device."""
        return Digits(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Scene:
    """The recipe of a scene, a :class:`drawbench.data.cards.Recipe`.

    Raises:
        ValueError: on a size or count that cannot be rendered, naming it.
    """

    parts: ClassVar[Mapping[str, str]] = {name: name for name in ("train", "validation", "test")}

    canvas: int = 100  #: side of the square image, pixels
    digits: int = 1  #: whole digits; the label names them
    clutter: int = 8  #: distractor crops
    clutter_size: int = 8  #: side of a square crop, pixels

    def __post_init__(self):
        if not DIGIT <= self.canvas <= MAX_CANVAS_SIDE:
            raise ValueError(
                f"a canvas must hold a {DIGIT}x{DIGIT} digit and have at most "
                f"{MAX_CANVAS_SIDE}x{MAX_CANVAS_SIDE} pixels, got {self.canvas}x{self.canvas}: "
                "use another --canvas"
            )
        if self.digits < 1:
            raise ValueError(f"a scene needs at least 1 digit, got {self.digits}")
        if self.clutter < 0:
            raise ValueError(f"the number of clutter pieces cannot be negative, got {self.clutter}")
        if not 1 <= self.clutter_size <= DIGIT:
            raise ValueError(
                f"a clutter piece is cut from a digit, so its side must be in 1..{DIGIT}, "
                f"got {self.clutter_size}"
            )

    @property
    def scene_bytes(self) -> int:
        """Memory that rendering a scene takes, roughly."""
        pieces = self.clutter * self.clutter_size**2 + self.digits * DIGIT**2
        return 4 * self.canvas**2 + 20 * pieces

    def stored(self, digits: Digits, index: Tensor, seed: int, part: str) -> "Rendering":
        """Render scenes ``index`` (int64) of a stored part."""
        return fresh(digits, self, index, seed, "set", part)

    def layout(self, count: int) -> dict[str, Layout]:
        """Return type and shape of each array of a stored part."""
        return {
            "images": (np.dtype(np.uint8), (count, self.canvas, self.canvas)),
            "labels": (np.dtype(np.uint8), (count, self.digits) if self.digits > 1 else (count,)),
            "boxes": (np.dtype("<i2"), (count, self.digits, 4)),
        }

    def check(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError if a label is no digit or a box leaves the canvas."""
        check_labels(arrays["labels"])
        check_boxes(arrays["boxes"], self.canvas)

    def words(self, dataset: str) -> list[str]:
        """Return what a folder's name says of clutter and digits."""
        words = []
        if self.clutter or dataset == "cluttered":
            usual = self.clutter_size == Scene.clutter_size
            words.append(f"{self.clutter}" + ("" if usual else f"of{self.clutter_size}"))
        if self.digits != (2 if dataset == "mnist2" else 1):
            words.append(f"{self.digits}digits")
        return words

    def rule(self, seed: int) -> str:
        """Return the recipe in words."""
        size = self.clutter_size
        digits = "one digit" if self.digits == 1 else f"{self.digits} digits"
        clutter = (
            f"{self.clutter} times a random {size}x{size} crop of a random digit of the same part, "
            "added at a uniform place; then "
        )
        return (
            f"a black {self.canvas}x{self.canvas} canvas; {clutter if self.clutter else ''}"
            f"{digits} added at uniform places; "
            "every sum clipped to 255; places uniform over all positions inside the canvas, edges "
            "included; train, validation and test made from disjoint digits; clutter fixed in "
            "these files"
        )


def check_labels(labels: np.ndarray) -> None:
    """Raise ValueError if a label is no digit."""
    if labels.size and (highest := int(labels.max())) > 9:
        raise ValueError(f"a label is {highest}, outside 0..9")


def check_boxes(boxes: np.ndarray, canvas: int) -> None:
    """Raise ValueError if a box (..., 4) is no digit inside the canvas."""
    places, sides = boxes[..., :2], boxes[..., 2:]
    if (sides != DIGIT).any() or places.min() < 0 or places.max() > canvas - DIGIT:
        raise ValueError(
            f"a box is not a {DIGIT}x{DIGIT} digit inside the {canvas}x{canvas} canvas"
        )


def scene_of(settings: Any) -> Scene:
    """Return the scene that settings describe.

    Raises:
        Problem: it cannot be rendered.
    """
    try:
        return Scene(settings.canvas, settings.digits, settings.clutter, settings.clutter_size)
    except ValueError as error:
        raise Problem(str(error)) from error


class Rendering(NamedTuple):
    """Rendered scenes."""

    images: Tensor  #: uint8 (B, canvas, canvas)
    labels: Tensor  #: uint8 (B, digits)
    boxes: Tensor  #: int16 (B, digits, 4): top, left, height, width of each digit, pixels from 0


def _patch_offsets(size: int, row_length: int, device: torch.device) -> Tensor:
    """Return the flat offsets of a ``size`` x ``size`` patch in an image: int64 (size * size,)."""
    steps = torch.arange(size, device=device)
    return (steps[:, None] * row_length + steps).reshape(-1)


def _add(canvas: Tensor, side: int, bank: Tensor, source: Tensor, place: Tensor, size: int) -> None:
    """Add every piece to its image, in place and without clipping.

    Args:
        canvas: signed integers (B * side^2,), flat.
        side: of the canvas, pixels.
        bank: uint8 (D * DIGIT^2,), flat.
        source: int64 (B, K), where in the flat bank the top left pixel of each piece lies.
        place: int64 (B, K, 2), top and left of each piece on the canvas.
        size: side of a piece, pixels.
    """
    image = torch.arange(len(source), device=canvas.device)[:, None]
    target = image * side**2 + place[:, :, 0] * side + place[:, :, 1]
    values = torch.take(bank, source[:, :, None] + _patch_offsets(size, DIGIT, canvas.device))
    pixels = target[:, :, None] + _patch_offsets(size, side, canvas.device)
    # Integer sums do not depend on their order, so a GPU's unordered additions give the same bytes.
    canvas.scatter_add_(0, pixels.reshape(-1), values.reshape(-1).to(canvas.dtype))


def render(
    bank: Tensor,
    bank_labels: Tensor,
    scene: Scene,
    targets: Tensor,
    index: Tensor,
    seed: int,
    *name: str | int,
    pictures: Tensor | None = None,
) -> Rendering:
    """Render scenes on the bank's device.

    Args:
        bank: uint8 (D, 28, 28), the digits of one split; distractors are cut from the same.
        bank_labels: uint8 (D,).
        scene: the recipe.
        targets: int64 (B,), the first digit of each scene as an index into ``bank``; further digits
            are drawn at random.
        index: int64 (B,), the number of each scene: all its random choices follow from
            (seed, name, index).
        seed, name: of the random choices.
        pictures: uint8 (B, 28, 28), used as the first digit of each scene instead of the bank's.
    """
    size, span = scene.clutter_size, scene.canvas - DIGIT + 1
    crops, places = DIGIT - size + 1, scene.canvas - size + 1
    clutter = streams.integers(
        index, [len(bank), crops, crops, places, places] * scene.clutter, seed, *name, "clutter"
    ).view(len(index), scene.clutter, 5)
    digits = streams.integers(
        index, [len(bank), span, span] * scene.digits, seed, *name, "digits"
    ).view(len(index), scene.digits, 3)
    digits[:, 0, 0] = targets

    # No piece is negative, so clipping after every addition and clipping the total once are the
    # same: min(min(a + b, 255) + c, 255) = min(a + b + c, 255). The total itself must not overflow:
    # int16 holds 128 white pieces on one pixel.
    dtype = torch.int16 if scene.clutter + scene.digits <= 128 else torch.int32
    canvas = torch.zeros(len(index) * scene.canvas**2, dtype=dtype, device=bank.device)
    corners = clutter[:, :, 0] * DIGIT**2 + clutter[:, :, 1] * DIGIT + clutter[:, :, 2]
    flat = bank.reshape(-1)
    _add(canvas, scene.canvas, flat, corners, clutter[:, :, 3:], size)
    from_bank = digits
    if pictures is not None:
        first = torch.arange(len(index), device=bank.device)[:, None] * DIGIT**2
        _add(canvas, scene.canvas, pictures.reshape(-1), first, digits[:, :1, 1:], DIGIT)
        from_bank = digits[:, 1:]
    _add(canvas, scene.canvas, flat, from_bank[:, :, 0] * DIGIT**2, from_bank[:, :, 1:], DIGIT)

    sides = torch.full_like(digits[:, :, 1:], DIGIT)
    return Rendering(
        images=canvas.clamp_(max=255).to(torch.uint8).view(-1, scene.canvas, scene.canvas),
        labels=bank_labels[digits[:, :, 0]],
        boxes=torch.cat([digits[:, :, 1:], sides], dim=-1).to(torch.int16),
    )


@lru_cache(maxsize=4)
def _order(part_size: int, seed: int, name: tuple[str | int, ...], epoch: int) -> Tensor:
    """Return the order of one epoch, cached because every batch of the epoch asks for it."""
    return streams.permutation(part_size, seed, *name, epoch)


def targets(index: Tensor, part_size: int, seed: int, *name: str | int) -> Tensor:
    """Return which entry of a part is the target of each presentation.

    Presentation ``n`` is entry ``n % part_size`` of the random order of epoch ``n // part_size``,
    so in each epoch every entry is the target exactly once.

    Args:
        index: int64 (B,), numbers of presentations, counted from 0 over all epochs; a batch may
            straddle epochs.
        part_size: number of entries to choose from.
        seed, name: of the orders.

    Returns:
        int64 (B,) on the index's device, each in ``0 .. part_size - 1``.
    """
    epochs = torch.div(index, part_size, rounding_mode="floor")
    entries = torch.empty_like(index)
    for epoch in epochs.unique().tolist():
        rows = epochs == epoch
        order = _order(part_size, seed, name, epoch).to(index.device)
        entries[rows] = order[index[rows] % part_size]
    return entries


def fresh(
    part: Digits, scene: Scene, index: Tensor, seed: int, *name: str | int, distortion: float = 0.0
) -> Rendering:
    """Render presentations ``index`` of a part of a source: :func:`targets` and :func:`render`.

    Training with fresh clutter calls it with the running number of the presentation, so that no
    scene ever comes twice; a stored set is the same call with the numbers ``0 .. count - 1``.

    Args:
        part: the digits of one split; distractors are cut from the same.
        scene: the recipe.
        index: int64 (B,), on the CPU, so that a GPU that renders need not be waited for.
        seed, name: of all random choices.
        distortion: strength of :func:`drawbench.data.warp.warp` on the target digit; the papers use
            none, 0.
    """
    device = part.images.device
    first = targets(index, len(part), seed, *name, "targets").to(device, non_blocking=True)
    index = index.to(device, non_blocking=True)
    pictures = warp.warp(part.images[first], index, distortion, seed, *name) if distortion else None
    return render(part.images, part.labels, scene, first, index, seed, *name, pictures=pictures)
