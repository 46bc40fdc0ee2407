"""The recurrent attention model: hard glimpses whose places are drawn, and learned by REINFORCE.

Mnih et al. 2014 (Recurrent Models of Visual Attention), with the glimpses of DRAW's Table 1: 12x12
at four scales. A place is drawn from a Gaussian around what a map of the LSTM's state gives; the
answer after the last glimpse is trained by cross-entropy, the place by the reward of a right answer
(Williams 1992), less what a learned baseline expected: the paper's hybrid loss. What it leaves open
or does
otherwise: the core is an LSTM, the first place is learned (there it is uniform), and the baseline
    is read from the state before the look.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawbench import spatial
from drawbench.attention import Window
from drawbench.models.checks import check_counts
from drawbench.models.recurrence import numbers_of, recur

WHAT_WHERE = 128  # units for what a glimpse shows and for where it was, each


class HardGlimpses(NamedTuple):
    """What the model saw and thought: T steps for B images."""

    logits: Tensor  #: (B, T, classes) after each glimpse; the last one is the answer
    windows: Window  #: fields of shape (B, T); of the narrowest piece, whose stride is 1 pixel
    patches: Tensor  #: (B, T, C, N, N), the narrowest piece
    log_probability: (
        Tensor  #: (B, T), of the place that was drawn, up to a constant; gradients flow to its mean
    )
    baseline: Tensor  #: (B, T), the reward expected before the look


def reinforce(log_probability: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """A number whose gradient estimates, without bias, that of the mean reward's negative (Williams
    1992).

    ``-1/B sum_n sum_t log p(l_nt) (R_n - b_nt)``: the baseline, which knows nothing of the place,
    changes the variance but not the mean.

    Args:
        log_probability: (B, T), of what was drawn.
        reward: (B,).
        baseline: (B, T); no gradient flows to it.
    """
    return -(log_probability * (reward[:, None] - baseline).detach()).sum(dim=1).mean()


class RecurrentAttention(nn.Module):
    """LSTM over hard glimpses at several scales.

    Args:
        glimpses: T, how often the network looks.
        patch: N, the side of every piece of a glimpse, in numbers.
        scales: pieces of a glimpse, each twice as wide as the one before.
        hidden: LSTM units, and units of the glimpse network.
        deviation: of a drawn place from its mean, in image halves.
        weight: of REINFORCE in the loss.
        classes: labels to choose from.
        channels: of the image.

    Raises:
        ValueError: a count below 1, or a deviation that is not positive.
    """

    def __init__(
        self,
        glimpses: int = 8,
        patch: int = 12,
        scales: int = 4,
        hidden: int = 256,
        deviation: float = 0.15,
        weight: float = 0.1,
        classes: int = 10,
        channels: int = 1,
    ):
        super().__init__()
        check_counts(
            glimpses=glimpses,
            patch=patch,
            scales=scales,
            hidden=hidden,
            classes=classes,
            channels=channels,
        )
        if deviation <= 0:
            raise ValueError(
                f"places are drawn around their mean, so the deviation must be positive, got {deviation}"
            )
        self.glimpses, self.patch, self.scales, self.deviation, self.weight = (
            glimpses,
            patch,
            scales,
            deviation,
            weight,
        )
        self.what = nn.Linear(scales * channels * patch**2, WHAT_WHERE)
        with torch.no_grad():
            self.what.weight *= 4  # for faint inputs, as in new_cell
        self.where = nn.Linear(2, WHAT_WHERE)
        self.join = nn.Linear(2 * WHAT_WHERE, hidden)
        self.cell = nn.LSTMCell(hidden, hidden)
        self.to_place = nn.Linear(hidden, 2)
        self.expect = nn.Linear(hidden, 1)
        self.classify = nn.Linear(hidden, classes)
        self.start = nn.Parameter(torch.zeros(2 * hidden))

    @property
    def pixels_read(self) -> int:
        """Numbers that one image's glimpses hold."""
        return self.glimpses * self.scales * self.patch**2

    @property
    def noise(self) -> int:
        """Standard normal numbers for each image, from which its places are drawn."""
        return 2 * self.glimpses

    def forward(
        self, images: Tensor, glimpses: int | None = None, noise: Tensor | None = None
    ) -> HardGlimpses:
        """Look at a batch.

        Args: images: (B, C, H, W) in [0, 1], of any size. glimpses: how often to look, if not as in
            training. noise: (B, 2 T) standard normal numbers, to draw places; without it each look
            goes to the mean.
        """
        height, width = images.shape[-2:]

        def look(step: int, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            mean = torch.tanh(numbers_of(hidden, self.to_place, None))
            drawn = (
                mean
                if noise is None
                else mean + self.deviation * noise[:, 2 * step : 2 * step + 2].to(mean.dtype)
            )
            place = drawn.detach()
            log_probability = -0.5 * ((place - mean) / self.deviation).square().sum(dim=1)
            pieces = spatial.crops(images, place, self.patch, self.scales)
            seen = torch.cat(
                [F.relu(self.what(pieces.flatten(1))), F.relu(self.where(place))], dim=1
            )
            expected = self.expect(hidden.detach()).squeeze(1)
            return F.relu(self.join(seen)), (
                *_window(place, height, width),
                pieces[:, 0],
                log_probability,
                expected,
            )

        states, (*windows, patches, log_probability, baseline) = recur(
            self.cell, self.start, len(images), glimpses or self.glimpses, look
        )
        return HardGlimpses(
            self.classify(states), Window(*windows), patches, log_probability, baseline
        )

    def added_loss(self, seen: HardGlimpses, labels: Tensor) -> Tensor:
        """What is descended beside the cross-entropy: REINFORCE for the places, least squares for
        the baseline. The reward is 1 for a right answer.
        """
        reward = (seen.logits[:, -1].argmax(dim=-1) == labels).to(seen.baseline.dtype)
        surprise = (seen.baseline - reward[:, None]).square().mean()
        return self.weight * reinforce(seen.log_probability, reward, seen.baseline) + surprise


def _window(place: Tensor, height: int, width: int) -> Window:
    """The narrowest piece as a window: filters one pixel wide, one pixel apart."""
    one = torch.ones_like(place[:, 0])
    return Window(
        (width + 1) / 2 * (place[:, 0] + 1),
        (height + 1) / 2 * (place[:, 1] + 1),
        one / 12,
        one,
        one,
    )
