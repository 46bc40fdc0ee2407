"""A control: the glimpse classifier that looks at every image through the same windows.

The windows are learned, each on its own, but they do not depend on the image: the best that can be
had without attention from as many numbers. The difference in error to
:mod:`drawbench.models.glimpse` is what looking where it is worth looking gains.
"""

import math

import torch
from torch import Tensor, nn

from drawbench import attention
from drawbench.attention import Window
from drawbench.models.checks import check_counts
from drawbench.models.glimpse import Glimpses
from drawbench.models.recurrence import new_cell, recur


def grid(glimpses: int) -> Tensor:
    """Raw numbers (T, 5) of windows that share the image out among them: the first ones to learn
    from.

    The cells of a grid with as many columns as rows, or one more, row by row; with fewer windows
    than cells the last cells stay empty.
    """
    columns = math.ceil(math.sqrt(glimpses))
    rows = math.ceil(glimpses / columns)
    numbers = torch.zeros(glimpses, len(attention.PARAMETERS))
    for step in range(glimpses):
        row, column = divmod(step, columns)
        numbers[step, 0], numbers[step, 1] = (
            (2 * column + 1) / columns - 1,
            (2 * row + 1) / rows - 1,
        )
    numbers[:, 3] = -math.log(rows)
    return numbers


class FixedGlimpseClassifier(nn.Module):
    """LSTM over Gaussian glimpses whose windows are parameters.

    Args:
        glimpses: T, how often the network looks.
        patch: N, the side of a glimpse, in filters.
        hidden: LSTM units.
        classes: labels to choose from.
        channels: of the image; one window reads them all.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(
        self,
        glimpses: int = 8,
        patch: int = 12,
        hidden: int = 256,
        classes: int = 10,
        channels: int = 1,
    ):
        super().__init__()
        check_counts(
            glimpses=glimpses, patch=patch, hidden=hidden, classes=classes, channels=channels
        )
        self.glimpses, self.patch = glimpses, patch
        self.cell = new_cell(channels * patch**2, hidden)
        self.numbers = nn.Parameter(grid(glimpses))
        self.classify = nn.Linear(hidden, classes)
        self.start = nn.Parameter(torch.zeros(2 * hidden))

    @property
    def pixels_read(self) -> int:
        """Numbers that one image's glimpses hold."""
        return self.glimpses * self.patch**2

    def forward(self, images: Tensor, glimpses: int | None = None) -> Glimpses:
        """Look at a batch (B, C, H, W) in [0, 1], of any size; ``glimpses`` times, if not as in
        training: after the last window the first follows again.
        """
        height, width = images.shape[-2:]

        def look(step: int, _: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            numbers = attention.bound(self.numbers[step % self.glimpses, None])
            window = attention.window(numbers, height, width, self.patch)  # one for all images
            patch = attention.read(images, window, self.patch)
            return patch.flatten(1), (*(field.expand(len(images)) for field in window), patch)

        states, (*windows, patches) = recur(
            self.cell, self.start, len(images), glimpses or self.glimpses, look
        )
        return Glimpses(self.classify(states), Window(*windows), patches)
