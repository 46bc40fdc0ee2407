"""The glimpse classifier ("Differentiable RAM"): an LSTM that looks at an image through a few small
windows, then says what it saw.

Gregor et al. 2015 (DRAW), section 4.1: one LSTM of 256 units; at each step one 12x12 glimpse of the
image, read through the Gaussian grid; after a fixed number of glimpses a softmax layer classifies.
What the paper leaves open is settled here so: the window of step t is a map of h[t-1], by analogy
with DRAW's decoder, and the start state is learned, so the first window is a learned constant.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from drawbench import attention
from drawbench.attention import Window
from drawbench.models.checks import check_counts
from drawbench.models.recurrence import new_cell, numbers_of, recur

WINDOW_MAPS = ("bounded", "linear")


class Glimpses(NamedTuple):
    """What the classifier saw and thought: T steps for B images."""

    logits: Tensor  #: (B, T, classes) after each glimpse; the last one is the answer
    windows: Window  #: fields of shape (B, T)
    patches: Tensor  #: (B, T, C, N, N), intensity included


class GlimpseClassifier(nn.Module):
    """LSTM over Gaussian glimpses.

    Args: glimpses: T, how often the network looks. patch: N, the side of a glimpse, in filters.
        hidden: LSTM units. classes: labels to choose from. channels: of the image; one window reads
        them all. window_map: ``"bounded"`` squashes the five numbers of a window smoothly
        (:func:`drawbench.attention.bound`), which trains
            calmly; ``"linear"`` takes them as they are, as the paper does.
        window_clip: largest gradient that one image sends back through one window
            (:func:`drawbench.attention.clip_gradient`), or None for the plain gradient.

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
        self.to_window = nn.Linear(hidden, len(attention.PARAMETERS))
        self.classify = nn.Linear(hidden, classes)
        self.start_hidden = nn.Parameter(torch.zeros(hidden))
        self.start_cell = nn.Parameter(torch.zeros(hidden))

    @property
    def pixels_read(self) -> int:
        """Numbers that one image's glimpses hold."""
        return self.glimpses * self.patch**2

    def look(self, hidden: Tensor, height: int, width: int) -> Window:
        """The window chosen in state ``hidden`` (B, hidden)."""
        numbers = numbers_of(hidden, self.to_window, self.window_clip)
        if self.window_map == "bounded":
            numbers = attention.bound(numbers)
        return attention.window(numbers, height, width, self.patch)

    def forward(self, images: Tensor, glimpses: int | None = None) -> Glimpses:
        """Look at a batch.

        Args:
            images: (B, C, H, W) in [0, 1], of any size.
            glimpses: how often to look, if not as in training.
        """
        height, width = images.shape[-2:]

        def look(_: int, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            window = self.look(hidden, height, width)
            patch = attention.read(images, window, self.patch)
            return patch.flatten(1), (*window, patch)

        start = torch.cat([self.start_hidden, self.start_cell])
        states, (*windows, patches) = recur(
            self.cell, start, len(images), glimpses or self.glimpses, look
        )
        return Glimpses(self.classify(states), Window(*windows), patches)
