"""Glimpses: what the recurrent glimpse network looks at in a step, and how it is chosen.

The Gaussian grid is DRAW's. The affine glimpse shows what the grid is worth, the fixed and the
random one what choosing the place is worth; the hard glimpse is that of the recurrent attention
model. A glimpse of your own is a subclass of :class:`Glimpse` with ``choose`` and ``read``.

Symbols: B images, C channels, H rows, W columns, N the side of a patch.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawbench import attention, spatial, streams
from drawbench.attention import Window
from drawbench.models.common import check_counts, check_window_map


class View(NamedTuple):
    """What a glimpse may know when it chooses where to look."""

    images: Tensor  #: (B, C, H, W)
    hidden: Tensor  #: (B, U), the state of the LSTM before the glimpse
    step: int  #: number of the glimpse, from 0
    noise: Tensor | None  #: (B, ...), of this step; None to look where it seems best

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, pixels."""
        return self.images.shape[-2], self.images.shape[-1]


class Glimpse(nn.Module):
    """A way to look at an image once; the base of all glimpses.

    Args:
        patch: N, the side of what is read.

    Raises:
        ValueError: a patch below 1.
    """

    numbers = 0  #: raw numbers that a linear map of the LSTM's state emits for each choice
    noise = 0  #: standard normals per image and look from which the choice is drawn in training
    scales = 1  #: patches of different width that one look reads; see :meth:`corners`
    #: Factor on the LSTM's initial input weights: torch's suit inputs of variance 1, but patches of
    #: a dark image have a tenth to a quarter.
    gain = 4.0
    #: Loss to minimize beside the cross-entropy, from ``Glimpses`` and labels (B,), or None.
    added_loss: Callable[[Any, Tensor], Tensor] | None = None

    def __init__(self, patch: int = 12):
        super().__init__()
        check_counts(patch=patch)
        self.patch = patch

    def inputs(self, channels: int) -> int:
        """Return the length of what :meth:`encode` returns."""
        return channels * self.patch**2

    def pixels_per_look(self, channels: int = 1) -> int:
        """Return how many numbers one look takes from an image."""
        return channels * self.patch**2

    def draw(self, images: Tensor, looks: int) -> Tensor | None:
        """Return the noise (B, looks, ...) to use where the caller gives none; by default None."""
        return None

    def choose(self, numbers: Tensor | None, view: View) -> Any:
        """Choose where to look.

        Args:
            numbers: (B, ``numbers``), raw output of the linear map; None where ``numbers`` is 0.
            view: everything else that is known.

        Returns:
            A named tuple of tensors (B, ...).
        """
        raise NotImplementedError

    def read(self, images: Tensor, where: Any) -> Tensor:
        """Read the patch (B, C, N, N) of images (B, C, H, W)."""
        raise NotImplementedError

    def encode(self, patch: Tensor, where: Any) -> Tensor:
        """Turn a patch into the LSTM's input, (B, inputs): by default, flatten it."""
        return patch.flatten(1)

    def corners(self, where: Any, height: int, width: int, scale: int = 0) -> Tensor:
        """Return the outline of what was read, for figures.

        Args:
            where: from :meth:`choose`; any batch shape will do.
            height, width: of the images, pixels.
            scale: which of the ``scales`` patches, from the narrowest.

        Returns:
            (..., 4, 2), x and y of the top left, top right, bottom right and bottom left corner, in
            pixels; (0, 0) is the centre of the first pixel, as in matplotlib's ``imshow``.
        """
        raise NotImplementedError


class GaussianGlimpse(Glimpse):
    """DRAW's grid of Gaussian filters (Gregor et al. 2015, section 3.2).

    Args:
        patch: N, filters along each side.
        window_map: ``"bounded"`` squashes the five raw numbers of a window smoothly
            (:func:`drawbench.attention.squash`), which trains calmly; ``"linear"`` takes them as
            they are, as the paper does.
    """

    numbers = len(attention.PARAMETERS)

    def __init__(self, patch: int = 12, window_map: str = "bounded"):
        super().__init__(patch)
        check_window_map(window_map)
        self.window_map = window_map

    def choose(self, numbers: Tensor | None, view: View) -> Any:
        assert numbers is not None
        squashed = attention.squash(numbers) if self.window_map == "bounded" else numbers
        return attention.window(squashed, *view.size, self.patch)

    def read(self, images: Tensor, where: Any) -> Tensor:
        return attention.read(images, where, self.patch)

    def corners(self, where: Window, height: int, width: int, scale: int = 0) -> Tensor:
        """Return the corners of the grid: the centres of its outermost filters."""
        reach = (self.patch - 1) / 2 * where.stride
        x, y = where.centre_x - 1, where.centre_y - 1
        return _rectangle(x - reach, y - reach, x + reach, y + reach)


class EyeWindow(NamedTuple):
    """A Gaussian window with the raw numbers that it was made of."""

    centre_x: Tensor
    centre_y: Tensor
    variance: Tensor
    stride: Tensor
    intensity: Tensor
    numbers: Tensor  #: (..., 5)


class EyeGlimpse(GaussianGlimpse):
    """A Gaussian glimpse seen by a small convolutional eye, and told where it is.

    The LSTM gets the raw patch, two layers of 3x3 convolutions of it (16 channels; 32 at stride 2),
    and the raw numbers of the window. The convolutions stand beside the raw patch because alone
    they learn far more slowly.

    Args:
        patch, window_map: as of :class:`GaussianGlimpse`.
        channels: of the image.
    """

    def __init__(self, patch: int = 12, window_map: str = "bounded", channels: int = 1):
        super().__init__(patch, window_map)
        self.first = nn.Conv2d(channels, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        with torch.no_grad():
            self.first.weight *= 3  # patches are faint, see ``gain``

    def inputs(self, channels: int) -> int:
        return super().inputs(channels) + 32 * ((self.patch + 1) // 2) ** 2 + self.numbers

    def choose(self, numbers: Tensor | None, view: View) -> EyeWindow:
        assert numbers is not None
        window: Window = super().choose(numbers, view)
        return EyeWindow(*window, numbers=numbers.detach())

    def read(self, images: Tensor, where: EyeWindow) -> Tensor:
        return super().read(images, Window(*where[:5]))

    def encode(self, patch: Tensor, where: EyeWindow) -> Tensor:
        features = F.relu(self.second(F.relu(self.first(patch))))
        return torch.cat([patch.flatten(1), features.flatten(1), where.numbers], dim=1)


class FixedGlimpse(GaussianGlimpse):
    """A control: windows that are learned but the same for every image.

    The best that can be had without attention from as many numbers. Looks beyond ``glimpses`` begin
    again at the first window.

    Args:
        patch: N.
        glimpses: T, windows.
    """

    numbers = 0

    def __init__(self, patch: int = 12, glimpses: int = 8):
        super().__init__(patch)
        check_counts(glimpses=glimpses)
        self.windows = nn.Parameter(grid(glimpses))

    def choose(self, numbers: Tensor | None, view: View) -> Window:
        window = super().choose(self.windows[view.step % len(self.windows), None], view)
        return Window(*(field.expand(view.images.shape[0]) for field in window))

    def read(self, images: Tensor, where: Window) -> Tensor:
        return super().read(images, Window(*(field[:1] for field in where)))  # build filters once


def grid(glimpses: int) -> Tensor:
    """Return raw numbers (T, 5) of windows that divide the image among them.

    They are the cells of a grid with as many columns as rows, or one more, row by row; the last
    cells may stay empty.
    """
    columns = math.ceil(math.sqrt(glimpses))
    rows = math.ceil(glimpses / columns)
    step = torch.arange(glimpses)
    numbers = torch.zeros(glimpses, len(attention.PARAMETERS))
    numbers[:, 0] = (2 * (step % columns) + 1) / columns - 1
    numbers[:, 1] = (2 * (step // columns) + 1) / rows - 1
    numbers[:, 3] = -math.log(rows)
    return numbers


class RandomWindow(NamedTuple):
    """A window at a random place; fields as of :class:`drawbench.attention.Window`."""

    centre_x: Tensor
    centre_y: Tensor
    variance: Tensor
    stride: Tensor
    intensity: Tensor
    place: Tensor  #: (..., 2), x and y of the centre on [-1, 1)


class RandomGlimpse(Glimpse):
    """A control: Gaussian glimpses at random places.

    Only the choice of the place is taken away. The LSTM still chooses how wide, how sharp and how
    bright each glimpse is, and is told where it fell.

    Args:
        patch: N.
    """

    numbers = len(attention.PARAMETERS) - 2  # all but the centre

    def inputs(self, channels: int) -> int:
        return super().inputs(channels) + 2

    def draw(self, images: Tensor, looks: int) -> Tensor:
        """Return the places, (B, looks, 2), x and y of the centre, uniform on [-1, 1).

        They depend on the content of the image and the number of the look alone, so they are the
        same in training and measuring, alone and in a batch.
        """
        highs = [1 << 31] * (2 * looks)
        numbers = streams.integers(streams.fingerprint(images), highs, 0, "random glimpses")
        exact = streams.exact_device(images.device)
        places = (numbers.to(exact).double() / (1 << 30) - 1).view(images.shape[0], looks, 2)
        return places if exact == images.device else places.float().to(images.device)

    def choose(self, numbers: Tensor | None, view: View) -> RandomWindow:
        assert numbers is not None
        place = view.noise
        if place is None:
            place = self.draw(view.images, view.step + 1)[:, -1]
        place = place.to(numbers.dtype)
        shape = attention.squash(F.pad(numbers, (2, 0)))[:, 2:]
        window = attention.window(torch.cat([place, shape], dim=1), *view.size, self.patch)
        return RandomWindow(*window, place)

    def read(self, images: Tensor, where: RandomWindow) -> Tensor:
        return attention.read(images, Window(*where[:5]), self.patch)

    def encode(self, patch: Tensor, where: RandomWindow) -> Tensor:
        return torch.cat([patch.flatten(1), where.place], dim=1)

    corners = GaussianGlimpse.corners


class Transform(NamedTuple):
    """An affine map from the patch to the image; see :func:`drawbench.spatial.affine_read`."""

    theta: Tensor  #: (B, 2, 3)


# The numbers (a, b, x, c, d, y) of the map [[a, b, x], [c, d, y]]: what raw zeros mean, the
# identity, which reads the whole image, and how far squashing lets each move from there. The centre
# may leave the image by a tenth of its side, as a Gaussian window's may.
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
AFFINE_RADIUS = (0.9, 0.5, 1.2, 0.5, 0.9, 1.2)


class AffineGlimpse(Glimpse):
    """The glimpse of a spatial transformer: an affine map with bilinear interpolation (Jaderberg et
    al. 2015).

    Args:
        patch: N.
        window_map: as of :class:`GaussianGlimpse`.
        supersample: samples per number along each side. One, as in the paper, aliases where the
            patch is coarser than the image.
    """

    numbers = len(IDENTITY)

    def __init__(self, patch: int = 12, window_map: str = "bounded", supersample: int = 1):
        super().__init__(patch)
        check_window_map(window_map)
        check_counts(supersample=supersample)
        self.window_map, self.supersample = window_map, supersample

    def choose(self, numbers: Tensor | None, view: View) -> Transform:
        assert numbers is not None
        if self.window_map == "bounded":
            radius = attention.constants(AFFINE_RADIUS, numbers)
            numbers = radius * torch.tanh(numbers / radius)
        return Transform((attention.constants(IDENTITY, numbers) + numbers).view(-1, 2, 3))

    def read(self, images: Tensor, where: Transform) -> Tensor:
        return spatial.affine_read(images, where.theta, self.patch, self.supersample)

    def corners(self, where: Transform, height: int, width: int, scale: int = 0) -> Tensor:
        """Return the corners of the patch, a parallelogram."""
        square = where.theta.new_tensor([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
        size = where.theta.new_tensor([width, height])
        return ((square @ where.theta.mT + 1) * size - 1) / 2


class Place(NamedTuple):
    """Where a hard glimpse fell."""

    place: Tensor  #: (B, 2), x and y of the centre, -1 to 1 from edge to edge of the image
    log_probability: Tensor  #: (B,), of the place, up to a constant; gradients flow to its mean
    baseline: Tensor  #: (B,), the reward that was expected before the look


class HardGlimpse(Glimpse):
    """The hard glimpse of the recurrent attention model (Mnih et al. 2014), with the retina of
    DRAW's Table 1: patches of 12x12 numbers at four scales.

    The place is drawn from a Gaussian around a map of the LSTM's state. The answer after the last
    glimpse is trained by cross-entropy, the place by the reward of a right answer less what a
    learned baseline expected (REINFORCE; Williams 1992): the paper's hybrid loss. Differences from
    the paper, or choices that it leaves open: the core is an LSTM, the first place is learned
    (there it is uniform), and the baseline is read from the state before the look.

    Args:
        patch: N, the side of each patch, in numbers.
        scales: S, patches per look, each twice as wide as the one before.
        deviation: standard deviation of a place, in image halves.
        reinforce: weight of REINFORCE in the loss.
        hidden: units of the encoder and of the LSTM that it feeds.
        channels: of the image.

    Raises:
        ValueError: a count below 1, or a deviation that is not positive.
    """

    numbers = noise = 2
    gain = 1.0  # the encoder's weights have it

    def __init__(
        self,
        patch: int = 12,
        scales: int = 4,
        deviation: float = 0.15,
        reinforce: float = 0.1,
        hidden: int = 256,
        channels: int = 1,
    ):
        super().__init__(patch)
        check_counts(scales=scales, hidden=hidden, channels=channels)
        if deviation <= 0:
            raise ValueError(
                f"places are drawn around their mean, so the deviation must be positive, "
                f"got {deviation}"
            )
        self.scales, self.deviation, self.reinforce = scales, deviation, reinforce
        self.what = nn.Linear(scales * channels * patch**2, 128)
        with torch.no_grad():
            self.what.weight *= Glimpse.gain
        self.where = nn.Linear(2, 128)
        self.join = nn.Linear(256, hidden)
        self.expect = nn.Linear(hidden, 1)

    def inputs(self, channels: int) -> int:
        return self.join.out_features

    def pixels_per_look(self, channels: int = 1) -> int:
        return self.scales * super().pixels_per_look(channels)

    def choose(self, numbers: Tensor | None, view: View) -> Place:
        """Draw a place around the mean; without noise, look at the mean."""
        assert numbers is not None
        mean, place = self.aim(numbers, view.noise)
        log_probability = -0.5 * ((place - mean) / self.deviation).square().sum(dim=1)
        return Place(place, log_probability, self.expect(view.hidden.detach()).squeeze(1))

    def aim(self, numbers: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the mean of a place, and the place, to which no gradient flows, both (B, 2)."""
        mean = torch.tanh(numbers)
        place = mean if noise is None else mean + self.deviation * noise.to(mean.dtype)
        return mean, place.detach()

    def read(self, images: Tensor, where: Place) -> Tensor:
        """Read all scales, (B, S C, N, N), the narrowest first."""
        return spatial.crops(images, where.place, self.patch, self.scales).flatten(1, 2)

    def encode(self, patch: Tensor, where: Place) -> Tensor:
        what, place = F.relu(self.what(patch.flatten(1))), F.relu(self.where(where.place))
        return F.relu(self.join(torch.cat([what, place], dim=1)))

    def added_loss(self, glimpses: Any, labels: Tensor) -> Tensor:
        """Return the loss of places and baseline: REINFORCE and least squares. The reward is 1 for
        a right answer.

        Args:
            glimpses: record of the network, whose ``windows`` are a :class:`Place`.
            labels: (B,).
        """
        where: Place = glimpses.windows
        reward = (glimpses.logits[:, -1].argmax(dim=-1) == labels).to(where.baseline.dtype)
        surprise = (where.baseline - reward[:, None]).square().mean()
        return self.reinforce * reinforce(where.log_probability, reward, where.baseline) + surprise

    def corners(self, where: Place, height: int, width: int, scale: int = 0) -> Tensor:
        """Return the edges of one patch; see :func:`drawbench.spatial.first_pixels`."""
        side = self.patch << scale
        first = spatial.first_pixels(where.place, height, width, side) - 0.5
        (x, y), (right, bottom) = first.unbind(-1), (first + side).unbind(-1)
        return _rectangle(x, y, right, bottom)


def reinforce(log_probability: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """Return a loss whose gradient is an unbiased estimate of that of minus the mean reward
    (Williams 1992).

    ``-1/B sum_n sum_t log p(l_nt) (R_n - b_nt)``. The baseline knows nothing of the place, so it
    changes the variance but not the mean.

    Args:
        log_probability: (B, T), of the places drawn.
        reward: (B,).
        baseline: (B, T); no gradient flows to it.
    """
    return -(log_probability * (reward[:, None] - baseline).detach()).sum(dim=1).mean()


def _rectangle(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    """Stack the corners (..., 4, 2) of rectangles."""
    x = torch.stack([left, right, right, left], dim=-1)
    y = torch.stack([top, top, bottom, bottom], dim=-1)
    return torch.stack([x, y], dim=-1)
