"""The recurrent glimpse network: an LSTM that looks at an image in a few small glimpses, then
classifies it.

With Gaussian glimpses it is the classifier of Gregor et al. 2015 (DRAW), section 4.1: one LSTM of
256 units; at each step it reads one 12x12 glimpse of the image; after a fixed number of glimpses a
softmax layer classifies. The paper leaves two things open: here the glimpse of step t is chosen
from h[t-1], by analogy with DRAW's decoder, and the start state is learned, so the first glimpse is
a learned constant.

What a glimpse is, and how it is chosen, is up to the :class:`drawbench.models.glimpses.Glimpse`.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from drawbench import attention
from drawbench.models import widening
from drawbench.models.common import check_counts, collect
from drawbench.models.glimpses import GaussianGlimpse, Glimpse, View
from drawbench.models.widening import Part


class State(NamedTuple):
    """The state of the LSTM."""

    hidden: Tensor  #: h, (B, U)
    cell: Tensor  #: c, (B, U)


class Glimpses(NamedTuple):
    """What the network looked at and what it answered: T steps for B images."""

    logits: Tensor  #: (B, T, classes) after each glimpse; the last is the answer
    windows: Any = None  #: what ``glimpse.choose`` returned, its fields of shape (B, T, ...)
    patches: Any = None  #: (B, T, C, N, N), what ``glimpse.read`` returned


class GlimpseClassifier(nn.Module):
    """LSTM over glimpses.

    Args:
        glimpse: what a glimpse is; by default a 12x12 Gaussian grid.
        glimpses: T, how often the network looks.
        hidden: U, LSTM units.
        classes: labels to choose from.
        channels: of the image.
        window_clip: maximum gradient that one image sends back through one choice
            (:func:`drawbench.attention.clip_gradient`), or None for the plain gradient.

    Raises:
        ValueError: a count below 1.
    """

    units: ClassVar = {
        **widening.cell("cell"),
        **dict.fromkeys(("start_hidden", "start_cell"), Part("cell")),
        **dict.fromkeys(("to_window.weight", "classify.weight"), Part(taken="cell")),
    }  #: see :mod:`drawbench.models.widening`

    def __init__(
        self,
        glimpse: Glimpse | None = None,
        *,
        glimpses: int = 8,
        hidden: int = 256,
        classes: int = 10,
        channels: int = 1,
        window_clip: float | None = None,
    ):
        super().__init__()
        check_counts(glimpses=glimpses, hidden=hidden, classes=classes, channels=channels)
        self.glimpse = GaussianGlimpse() if glimpse is None else glimpse
        self.glimpses, self.channels, self.window_clip = glimpses, channels, window_clip
        self.cell = nn.LSTMCell(self.glimpse.inputs(channels), hidden)
        with torch.no_grad():
            self.cell.weight_ih *= self.glimpse.gain
        numbers = self.glimpse.numbers
        self.to_window = nn.Linear(hidden, numbers) if numbers else None
        self.classify = nn.Linear(hidden, classes)
        self.start_hidden = nn.Parameter(torch.zeros(hidden))
        self.start_cell = nn.Parameter(torch.zeros(hidden))

    @property
    def pixels_read(self) -> int:
        """Numbers in all glimpses of one image."""
        return self.glimpses * self.glimpse.pixels_per_look(self.channels)

    @property
    def noise(self) -> int:
        """Standard normals per image, from which glimpses are drawn in training; 0 for none."""
        return self.glimpses * self.glimpse.noise

    @property
    def added_loss(self) -> Callable[[Glimpses, Tensor], Tensor] | None:
        """The loss that the glimpse adds to the cross-entropy, or None."""
        return self.glimpse.added_loss

    def start(self, images: Tensor) -> State:
        """Return the learned state before the first glimpse of images (B, C, H, W)."""
        batch = images.shape[0]  # not len, which torch.export would take for a constant
        return State(self.start_hidden.expand(batch, -1), self.start_cell.expand(batch, -1))

    def step(
        self, images: Tensor, state: State, t: int, noise: Tensor | None = None
    ) -> tuple[State, Any, Tensor]:
        """Look once.

        Args:
            images: (B, C, H, W) in [0, 1].
            state: before the glimpse.
            t: number of the glimpse, from 0.
            noise: (B, ``glimpse.noise``), or None.

        Returns:
            The state after the glimpse, what was chosen, and the patch (B, C, N, N).
        """
        numbers = None
        if self.to_window is not None:
            numbers = attention.raw_numbers(self.to_window, state.hidden, self.window_clip)
        where = self.glimpse.choose(numbers, View(images, state.hidden, t, noise))
        patch = self.glimpse.read(images, where)
        state = State(*self.cell(self.glimpse.encode(patch, where), state))
        return state, where, patch

    def looks(self, images: Tensor, glimpses: int | None) -> int:
        """Return how often to look at images; raise ValueError if that, or they, cannot be."""
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"images must be (B, {self.channels}, H, W) for this model, got "
                f"{tuple(images.shape)}"
            )
        steps = self.glimpses if glimpses is None else glimpses
        check_counts(glimpses=steps)
        return steps

    def forward(
        self, images: Tensor, glimpses: int | None = None, noise: Tensor | None = None
    ) -> Glimpses:
        """Look at images and classify them.

        Args:
            images: (B, C, H, W) in [0, 1], of any size.
            glimpses: how often to look, by default as often as in training.
            noise: (B, ``noise``) standard normals. Without noise, each glimpse goes where the
                network believes is best.

        Raises:
            ValueError: images with other channels than the model's; fewer glimpses than one.
        """
        steps, state = self.looks(images, glimpses), self.start(images)
        if noise is None:
            noise = self.glimpse.draw(images, steps)
        else:
            noise = noise.view(images.shape[0], -1, self.glimpse.noise)
        records = []
        for t in range(steps):
            now = None if noise is None else noise[:, t]
            state, where, patch = self.step(images, state, t, now)
            records.append(Glimpses(state.hidden, where, patch))
        record = collect(records)
        return record._replace(logits=self.classify(record.logits))
