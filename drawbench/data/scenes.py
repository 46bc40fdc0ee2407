"""Scenes: digits and clutter placed on a blank canvas. One vectorised renderer makes every
generated data set.

Cluttered translated MNIST follows the official generator (deepmind/mnist-cluttered): on a blank
canvas, ``clutter`` times a random digit of the same file, a random crop of it, added at a random
place; then the target digit added at a uniform place; the sum clipped to 1. Two-digit MNIST is a
scene with two digits and no clutter (Gregor et al. 2015, section 4.3).

Every place is drawn uniformly over the whole range in which the piece lies inside the canvas, both
edges included. Everything about scene ``n`` is a function of (seed, name, ``n``), so the same
scenes come out in any order, batch size or process.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from drawbench import streams
from drawbench.data import warp

DIGIT = 28  # side of an MNIST digit, pixels
LARGEST = (
    4096  # side of the largest canvas, pixels: boxes are int16, and one image is 16 MB already
)


@dataclass(frozen=True)
class Digits:
    """Labelled pictures of digits, one part of a source.

    Attributes:
        images: uint8 (N, 28, 28), black 0, white 255.
        labels: uint8 (N,).

    Raises:
        ValueError: on another type or shape, or on no digits at all.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self):
        count = len(self.images)
        for what, tensor, shape in (
            ("images", self.images, (count, DIGIT, DIGIT)),
            ("labels", self.labels, (count,)),
        ):
            if tensor.dtype != torch.uint8 or tuple(tensor.shape) != shape or not count:
                raise ValueError(
                    f"{what} of digits must be uint8 {shape} and not empty, got {tensor.dtype} {tuple(tensor.shape)}"
                )

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Digits":
        """The same digits on another device."""
        return Digits(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Scene:
    """The recipe of a scene.

    Attributes:
        canvas: side of the square image, pixels.
        digits: how many whole digits; they are what the label names.
        clutter: how many distractor crops.
        clutter_size: side of a square crop, pixels.

    Raises:
        ValueError: on a size or count that cannot be rendered, naming it.
    """

    canvas: int = 100
    digits: int = 1
    clutter: int = 8
    clutter_size: int = 8

    def __post_init__(self):
        if self.canvas < DIGIT:
            raise ValueError(
                f"a canvas must hold a {DIGIT}x{DIGIT} digit, got {self.canvas}x{self.canvas}: use --canvas {DIGIT} or more"
            )
        if self.canvas > LARGEST:
            raise ValueError(
                f"a canvas may be {LARGEST}x{LARGEST} at most, got {self.canvas}x{self.canvas}: use a smaller --canvas"
            )
        if self.digits < 1:
            raise ValueError(f"a scene needs at least 1 digit, got {self.digits}")
        if self.clutter < 0:
            raise ValueError(f"the number of clutter pieces cannot be negative, got {self.clutter}")
        if not 1 <= self.clutter_size <= DIGIT:
            raise ValueError(
                f"a clutter piece is cut from a digit, so its side must be in 1..{DIGIT}, got {self.clutter_size}"
            )


@dataclass(frozen=True)
class Batch:
    """Rendered scenes.

    Attributes: images: uint8 (B, canvas, canvas). labels: uint8 (B, digits). boxes: int16 (B,
        digits, 4): top, left, height, width of each digit, pixels numbered from 0 as arrays are.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor


def _patch_offsets(size: int, row_length: int, device: torch.device) -> Tensor:
    """Flat offsets of a ``size`` x ``size`` patch inside an image with rows of ``row_length``
    pixels, int64 (size * size,).
    """
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
    # Sums of integers do not depend on their order, so a GPU's unordered additions give the same
    # bytes.
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
) -> Batch:
    """Render scenes.

    Args: bank: uint8 (D, 28, 28), the digits of one split; distractors are cut from the same.
        bank_labels: uint8 (D,). scene: the recipe. targets: int64 (B,), the first digit of each
        scene as an index into ``bank``; further digits are drawn at random. index: int64 (B,), the
        number of each scene: all its random choices follow from (seed, name, index). seed, name: of
        the random choices. pictures: uint8 (B, 28, 28), placed as the first digit of each scene
        instead of the picture in the bank.

    Returns:
        The batch, on the bank's device.
    """
    size, span = scene.clutter_size, scene.canvas - DIGIT + 1
    crops, places = DIGIT - size + 1, scene.canvas - size + 1
    clutter = streams.integers(
        index, [len(bank), crops, crops, places, places] * scene.clutter, seed, *name, "clutter"
    )
    digits = streams.integers(index, [len(bank), span, span] * scene.digits, seed, *name, "digits")
    clutter, digits = (
        clutter.view(len(index), scene.clutter, 5),
        digits.view(len(index), scene.digits, 3),
    )
    digits[:, 0, 0] = targets

    # No piece is negative, so clipping after every addition and clipping the total once are the
    # same: min(min(a + b, 255) + c, 255) = min(a + b + c, 255). The total itself must not overflow:
    # int16 holds 128 white pieces on one pixel.
    dtype = torch.int16 if scene.clutter + scene.digits <= 128 else torch.int32
    canvas = torch.zeros(len(index) * scene.canvas**2, dtype=dtype, device=bank.device)
    corners = clutter[:, :, 0] * DIGIT**2 + clutter[:, :, 1] * DIGIT + clutter[:, :, 2]
    _add(canvas, scene.canvas, bank.reshape(-1), corners, clutter[:, :, 3:], size)
    from_bank = digits
    if pictures is not None:
        first = torch.arange(len(index), device=bank.device)[:, None] * DIGIT**2
        _add(canvas, scene.canvas, pictures.reshape(-1), first, digits[:, :1, 1:], DIGIT)
        from_bank = digits[:, 1:]
    _add(
        canvas,
        scene.canvas,
        bank.reshape(-1),
        from_bank[:, :, 0] * DIGIT**2,
        from_bank[:, :, 1:],
        DIGIT,
    )

    sides = torch.full_like(digits[:, :, 1:], DIGIT)
    return Batch(
        images=canvas.clamp_(max=255).to(torch.uint8).view(-1, scene.canvas, scene.canvas),
        labels=bank_labels[digits[:, :, 0]],
        boxes=torch.cat([digits[:, :, 1:], sides], dim=-1).to(torch.int16),
    )


@lru_cache(maxsize=4)
def _order(part_size: int, seed: int, name: tuple[str | int, ...], epoch: int) -> Tensor:
    """The order of the targets in one epoch, kept because every batch of the epoch asks for it.
    Never changed in place.
    """
    return streams.permutation(part_size, seed, *name, epoch)


def targets(index: Tensor, part_size: int, seed: int, *name: str | int) -> Tensor:
    """Which digit is the target of each presentation: presentation ``n`` is entry ``n % part_size``
    of the random order of epoch ``n // part_size``, so in each epoch every digit is the target
    exactly once.

    Args: index: int64 (B,), numbers of presentations, counted from 0 over all epochs; a batch may
        straddle epochs. part_size: how many digits there are to choose from. seed, name: of the
        orders.

    Returns:
        int64 (B,) on the index's device, each in ``0 .. part_size - 1``.
    """
    epochs = torch.div(index, part_size, rounding_mode="floor")
    chosen = torch.empty_like(index)
    for epoch in epochs.unique().tolist():
        rows = epochs == epoch
        chosen[rows] = _order(part_size, seed, name, epoch).to(index.device)[
            index[rows] % part_size
        ]
    return chosen


def fresh(
    part: Digits, scene: Scene, index: Tensor, seed: int, *name: str | int, distortion: float = 0.0
) -> Batch:
    """Scenes for presentations ``index`` of a part of a source: :func:`targets` and :func:`render`
    together.

    Training with fresh clutter calls it with the running number of the presentation, so that no
    scene ever comes twice; a stored set is the same call with the numbers ``0 .. count - 1``.

    Args: part: the digits of one split; distractors are cut from the same. scene: the recipe.
        index: int64 (B,), on the CPU, so that a GPU that renders need not be waited for. seed,
        name: of all random choices. distortion: strength of :func:`drawbench.data.warp.warp` on the
        target digit; 0, the recipe of the papers, is none.
    """
    chosen = targets(index, len(part), seed, *name, "targets").to(part.images.device)
    index = index.to(part.images.device)
    pictures = (
        warp.warp(part.images[chosen], index, distortion, seed, *name) if distortion else None
    )
    return render(part.images, part.labels, scene, chosen, index, seed, *name, pictures=pictures)
