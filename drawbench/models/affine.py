"""The glimpse classifier with the affine glimpse of a spatial transformer in place of the Gaussian
grid.

Jaderberg et al. 2015 (Spatial Transformer Networks) read through six numbers by bilinear
interpolation; everything else is as in :mod:`drawbench.models.glimpse`: the same LSTM, as many
glimpses of as many numbers. The difference in error is what the grid is worth.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from drawbench import spatial
from drawbench.models.checks import check_counts
from drawbench.models.glimpse import WINDOW_MAPS
from drawbench.models.recurrence import new_cell, numbers_of, recur

# Of the numbers (a, b, x, c, d, y) of the map [[a, b, x], [c, d, y]]: what raw zeros stand for, the
# identity, which reads the whole image, and how far the squashed map lets each go from there. The
# centre may leave the image by a tenth of its side, as a Gaussian window's.
MIDDLE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
RADIUS = (0.9, 0.5, 1.2, 0.5, 0.9, 1.2)


class AffineGlimpses(NamedTuple):
    """What the classifier saw and thought: T steps for B images."""

    logits: Tensor  #: (B, T, classes) after each glimpse; the last one is the answer
    transforms: Tensor  #: (B, T, 2, 3), see :func:`drawbench.spatial.affine_read`
    patches: Tensor  #: (B, T, C, N, N)


class AffineGlimpseClassifier(nn.Module):
    """LSTM over affine glimpses; arguments as :class:`drawbench.models.glimpse.GlimpseClassifier`.

    Raises:
        ValueError: a count below 1, or an unknown map.
    """

    def __init__(
        self,
        glimpses: int = 8,
        patch: int = 12,
        hidden: int = 256,
        classes: int = 10,
        channels: int = 1,
        window_map: str = "bounded",
        window_clip: float | None = None,
    ):
        super().__init__()
        check_counts(
            glimpses=glimpses, patch=patch, hidden=hidden, classes=classes, channels=channels
        )
        if window_map not in WINDOW_MAPS:
            raise ValueError(f"window_map must be one of {WINDOW_MAPS}, got {window_map!r}")
        self.glimpses, self.patch, self.window_map, self.window_clip = (
            glimpses,
            patch,
            window_map,
            window_clip,
        )
        self.cell = new_cell(channels * patch**2, hidden)
        self.to_transform = nn.Linear(hidden, 6)
        self.classify = nn.Linear(hidden, classes)
        self.start = nn.Parameter(torch.zeros(2 * hidden))

    @property
    def pixels_read(self) -> int:
        """Numbers that one image's glimpses hold."""
        return self.glimpses * self.patch**2

    def look(self, hidden: Tensor) -> Tensor:
        """The map (B, 2, 3) chosen in state ``hidden`` (B, hidden)."""
        numbers = numbers_of(hidden, self.to_transform, self.window_clip)
        middle, radius = numbers.new_tensor(MIDDLE), numbers.new_tensor(RADIUS)
        if self.window_map == "bounded":
            numbers = radius * torch.tanh(numbers / radius)
        return (middle + numbers).view(-1, 2, 3)

    def forward(self, images: Tensor, glimpses: int | None = None) -> AffineGlimpses:
        """Look at a batch (B, C, H, W) in [0, 1], of any size; ``glimpses`` times, if not as in
        training.
        """

        def look(_: int, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            transforms = self.look(hidden)
            patch = spatial.affine_read(images, transforms, self.patch)
            return patch.flatten(1), (transforms, patch)

        states, (transforms, patches) = recur(
            self.cell, self.start, len(images), glimpses or self.glimpses, look
        )
        return AffineGlimpses(self.classify(states), transforms, patches)
