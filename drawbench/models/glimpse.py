"""The glimpse classifier ("Differentiable RAM"): an LSTM that looks at an image through a few small windows, then says what it saw.

Gregor et al. 2015 (DRAW), section 4.1: one LSTM of 256 units; at each step one 12x12 glimpse of the image, read through the Gaussian
grid; after a fixed number of glimpses a softmax layer classifies. What the paper leaves open is settled here so: the window of
step t is a map of h[t-1], by analogy with DRAW's decoder, and the start state is learned, so the first window is a learned constant.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from drawbench import attention
from drawbench.attention import Window

WINDOW_MAPS = ("bounded", "linear")


class Glimpses(NamedTuple):
    """What the classifier saw and thought: T steps for B images."""

    logits: Tensor  #: (B, T, classes) after each glimpse; the last one is the answer
    windows: Window  #: fields of shape (B, T)
    patches: Tensor  #: (B, T, C, N, N), intensity included


class GlimpseClassifier(nn.Module):
    """LSTM over Gaussian glimpses.

    Args:
        glimpses: T, how often the network looks.
        patch: N, the side of a glimpse, in filters.
        hidden: LSTM units.
        classes: labels to choose from.
        channels: of the image; one window reads them all.
        window_map: ``"bounded"`` squashes the five numbers of a window smoothly (:func:`drawbench.attention.bound`), which trains
            calmly; ``"linear"`` takes them as they are, as the paper does.
        window_clip: largest gradient that one image sends back through one window (:func:`drawbench.attention.clip_gradient`), or
            None for the plain gradient.

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
        if min(glimpses, patch, hidden, classes, channels) < 1:
            raise ValueError(
                f"every count must be at least 1, got glimpses {glimpses}, patch {patch}, hidden {hidden}, "
                f"classes {classes}, channels {channels}"
            )
        if window_map not in WINDOW_MAPS:
            raise ValueError(f"window_map must be one of {WINDOW_MAPS}, got {window_map!r}")
        self.glimpses, self.patch, self.window_map, self.window_clip = glimpses, patch, window_map, window_clip
        self.cell = nn.LSTMCell(channels * patch**2, hidden)
        # torch's initial weights suit inputs of variance 1; what a window reads of a dark image is a tenth to a quarter of that.
        with torch.no_grad():
            self.cell.weight_ih *= 4
        self.to_window = nn.Linear(hidden, len(attention.PARAMETERS))
        self.classify = nn.Linear(hidden, classes)
        self.start_hidden = nn.Parameter(torch.zeros(hidden))
        self.start_cell = nn.Parameter(torch.zeros(hidden))

    def look(self, hidden: Tensor, height: int, width: int) -> Window:
        """The window chosen in state ``hidden`` (B, hidden)."""
        with attention.unrounded(hidden.device):
            numbers = self.to_window(hidden.to(self.to_window.weight.dtype))
        if self.window_clip is not None:
            numbers = attention.clip_gradient(numbers, self.window_clip)
        if self.window_map == "bounded":
            numbers = attention.bound(numbers)
        return attention.window(numbers, height, width, self.patch)

    def forward(self, images: Tensor, glimpses: int | None = None) -> Glimpses:
        """Look at a batch.

        Args:
            images: (B, C, H, W) in [0, 1], of any size.
            glimpses: how often to look, if not as in training.
        """
        batch, _, height, width = images.shape
        hidden, cell = self.start_hidden.expand(batch, -1), self.start_cell.expand(batch, -1)
        states, windows, patches = [], [], []
        for _ in range(self.glimpses if glimpses is None else glimpses):
            window = self.look(hidden, height, width)
            patch = attention.read(images, window, self.patch)
            hidden, cell = self.cell(patch.flatten(1), (hidden, cell))
            states.append(hidden)
            windows.append(window)
            patches.append(patch)
        return Glimpses(
            logits=self.classify(torch.stack(states, dim=1)),
            windows=Window(*(torch.stack(field, dim=1) for field in zip(*windows, strict=True))),
            patches=torch.stack(patches, dim=1),
        )
