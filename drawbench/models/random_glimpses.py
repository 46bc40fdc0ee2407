"""A control: the glimpse classifier whose glimpses fall at random places.

Only the choice of the place is taken away. How wide, how sharp and how bright each glimpse is, the
LSTM still chooses, and it is told where the glimpse fell. The difference in error to
:mod:`drawbench.models.glimpse` is what choosing the place is worth.
"""

import torch
from torch import Tensor, nn

from drawbench import attention, streams
from drawbench.attention import Window
from drawbench.models.checks import check_counts
from drawbench.models.glimpse import Glimpses
from drawbench.models.recurrence import new_cell, numbers_of, recur


def places(images: Tensor, glimpses: int) -> Tensor:
    """Where to look: (B, T, 2), x and y of the centre, uniform on [-1, 1).

    They are a function of the content of the image and the number of the glimpse, and of nothing
    else: the same in training and measuring, alone and in a batch. An image seen again is looked at
    in the same places.
    """
    drawn = streams.integers(
        streams.fingerprint(images), [1 << 31] * (2 * glimpses), 0, "random glimpses"
    )
    return (drawn.double() / (1 << 30) - 1).view(len(images), glimpses, 2)


class RandomGlimpseClassifier(nn.Module):
    """LSTM over Gaussian glimpses at random places.

    Args:
        glimpses: T, how often the network looks.
        patch: N, the side of a glimpse, in filters.
        hidden: LSTM units.
        classes: labels to choose from.
        channels: of the image; one window reads them all.
        window_clip: as of :class:`drawbench.models.glimpse.GlimpseClassifier`.

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
        window_clip: float | None = None,
    ):
        super().__init__()
        check_counts(
            glimpses=glimpses, patch=patch, hidden=hidden, classes=classes, channels=channels
        )
        self.glimpses, self.patch, self.window_clip = glimpses, patch, window_clip
        self.cell = new_cell(channels * patch**2 + 2, hidden)
        self.to_shape = nn.Linear(hidden, len(attention.PARAMETERS) - 2)  # all but the centre
        self.classify = nn.Linear(hidden, classes)
        self.start = nn.Parameter(torch.zeros(2 * hidden))

    @property
    def pixels_read(self) -> int:
        """Numbers that one image's glimpses hold."""
        return self.glimpses * self.patch**2

    def forward(self, images: Tensor, glimpses: int | None = None) -> Glimpses:
        """Look at a batch (B, C, H, W) in [0, 1], of any size; ``glimpses`` times, if not as in
        training.
        """
        height, width = images.shape[-2:]
        steps = glimpses or self.glimpses
        centres = places(images, steps).to(self.start.dtype)

        def look(step: int, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            centre, shape = centres[:, step], numbers_of(hidden, self.to_shape, self.window_clip)
            bounded = attention.bound(torch.cat([torch.zeros_like(centre), shape], dim=1))
            window = attention.window(
                torch.cat([centre, bounded[:, 2:]], dim=1), height, width, self.patch
            )
            patch = attention.read(images, window, self.patch)
            return torch.cat([patch.flatten(1), centre], dim=1), (*window, patch)

        states, (*windows, patches) = recur(self.cell, self.start, len(images), steps, look)
        return Glimpses(self.classify(states), Window(*windows), patches)
