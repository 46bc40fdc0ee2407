"""The attention core: a grid of Gaussian filters that reads a patch from an image and writes one
back.

Gregor et al. 2015 (DRAW), section 3.2, equations 19-29. Pure functions, shared by the glimpse
classifier and the generator.

Pixels are numbered from 1, as in the paper: a window centred on an image ``width`` pixels wide has
its centre at ``(width + 1) / 2``, half-way between the first pixel and the last, so a centred grid
is symmetric under a flip. (Numbering from 0 with the same formulas shifts every window by half a
pixel.)

Symbols: B images, C channels, H rows (``height``), W columns (``width``), N the side of the patch.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

# The five numbers of equation 21, in the order in which the linear map emits them.
PARAMETERS = ("centre_x", "centre_y", "log_variance", "log_stride", "log_intensity")

# Far beyond any use (a grid a thousand images away, filters 1e-4 pixels or 20,000 pixels wide), but
# near enough for exponentials and squares to stay finite in float32. The gradient beyond them is 0,
# not infinity.
CENTRE_LIMIT = 1e3
LOG_VARIANCE_LIMIT = 20.0
LOG_SCALE_LIMIT = 10.0

# Smooth bounds of `bound`: middle and half-width of each of the five numbers. A centre may leave
# the image by a tenth, since a grid has width; the variance runs from about 1.6 (a sharp filter) to
# 245 pixels squared (a blur over 60 pixels).
BOUND_MIDDLE = (0.0, 0.0, 3.0, 0.0, 0.0)
BOUND_RADIUS = (1.2, 1.2, 2.5, 2.0, 1.0)


class Window(NamedTuple):
    """Where a model looks, and how: everything needed to build the filters or to draw the window.

    Each field has shape (B,), or any batch shape.
    """

    centre_x: Tensor  #: g_X, column of the grid centre, pixels, numbered from 1
    centre_y: Tensor  #: g_Y, row of the grid centre, pixels, numbered from 1
    variance: Tensor  #: sigma squared of every filter, pixels squared
    stride: Tensor  #: delta, distance between neighbouring filters, pixels
    intensity: Tensor  #: gamma, the factor on what is read; writing divides by it


class Filters(NamedTuple):
    """The filterbank of a window: each row is a distribution over pixels."""

    y: Tensor  #: F_Y, (B, N, H)
    x: Tensor  #: F_X, (B, N, W)


def unrounded(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, autocast rounds nothing: bfloat16 has 8 bits, and cannot tell pixel 100 from 100.5."""
    return (
        torch.autocast(device.type, enabled=False)
        if torch.is_autocast_enabled(device.type)
        else nullcontext()
    )


def bound(parameters: Tensor) -> Tensor:
    """Squash the five raw numbers smoothly into a range in which training stays calm.

    Not in the paper, whose linear map is unbounded: one outlier then throws a window out of the
    image or makes a filter so sharp that its gradient explodes. Near the middle of the range the
    slope is 1, so small numbers mean what they mean in the paper, apart from the middle of
    log-variance: raw 0 is a variance of e^3, 20 pixels squared.

    Args:
        parameters: (..., 5), raw output of the linear map.

    Returns: (..., 5): centres within +-1.2 image halves, log-variance within 3 +- 2.5, log-stride
        within +-2, log-intensity within +-1.
    """
    middle = parameters.new_tensor(BOUND_MIDDLE)
    radius = parameters.new_tensor(BOUND_RADIUS)
    return middle + radius * torch.tanh(parameters / radius)


class _ClipGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, parameters, limit):
        ctx.limit = limit
        return parameters.view_as(parameters)

    @staticmethod
    def backward(ctx, gradient):
        return clip_rows(gradient, ctx.limit / len(gradient)), None


def clip_rows(gradient: Tensor, limit: float) -> Tensor:
    """Shorten each row of (B, K) to a Euclidean norm of at most ``limit``."""
    norms = gradient.norm(dim=-1, keepdim=True)
    return gradient * (limit / norms.clamp_min(limit))


def clip_gradient(parameters: Tensor, limit: float) -> Tensor:
    """The same numbers, through which no image sends back more than a limited gradient.

    A look depends on the look before, so gradients through windows can grow at every step: for one
    image in a thousand by a factor of 10^5, and that one then drowns the other 127 of its batch.
    Clipping the whole batch's gradient only shortens the useless direction; clipping each image's,
    at each step, keeps the direction of the others.

    Args: parameters: (B, 5), a window's raw numbers. limit: largest norm of one image's gradient of
        its own loss. The loss is taken to be a mean over the B images.
    """
    return _ClipGradient.apply(parameters, limit)


def window(parameters: Tensor, height: int, width: int, patch: int) -> Window:
    """The window that five numbers stand for (DRAW, equations 22-24).

    ``g_X = (W+1)/2 (p_0 + 1)``, ``g_Y = (H+1)/2 (p_1 + 1)``, ``variance = exp(p_2)``,
    ``delta = (max(H, W) - 1)/(N - 1) exp(p_3)``, ``gamma = exp(p_4)``.

    Args:
        parameters: (..., 5) in the order of :data:`PARAMETERS`.
        height, width: of the image, pixels.
        patch: N. For N = 1 the stride has no effect and N - 1 is taken as 1.

    Returns:
        The window record, fields of shape (...,).

    Raises:
        ValueError: the last dimension is not 5, or a size is below 1.
    """
    if parameters.shape[-1] != len(PARAMETERS):
        raise ValueError(
            f"a window needs {len(PARAMETERS)} numbers {PARAMETERS}, got a last dimension of {parameters.shape[-1]}"
        )
    if min(height, width, patch) < 1:
        raise ValueError(
            f"image and patch must be at least 1 pixel, got height {height}, width {width}, patch {patch}"
        )
    centre_x, centre_y, log_variance, log_stride, log_intensity = parameters.unbind(-1)
    return Window(
        centre_x=(width + 1) / 2 * (centre_x.clamp(-CENTRE_LIMIT, CENTRE_LIMIT) + 1),
        centre_y=(height + 1) / 2 * (centre_y.clamp(-CENTRE_LIMIT, CENTRE_LIMIT) + 1),
        variance=log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT).exp(),
        stride=(max(height, width) - 1)
        / max(patch - 1, 1)
        * log_stride.clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT).exp(),
        intensity=log_intensity.clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT).exp(),
    )


def filter_centres(centre: Tensor, stride: Tensor, patch: int) -> Tensor:
    """``mu_i = g + (i - N/2 - 0.5) delta`` for ``i = 1..N`` (DRAW, equations 19-20).

    Args:
        centre, stride: (...,), pixels.
        patch: N.

    Returns:
        (..., N), pixels numbered from 1; the mean over ``i`` is ``centre``.
    """
    steps = torch.arange(1, patch + 1, dtype=centre.dtype, device=centre.device) - patch / 2 - 0.5
    return centre[..., None] + steps * stride[..., None]


def _filters_along(centre: Tensor, window: Window, patch: int, size: int) -> Tensor:
    """One axis of the filterbank, (..., N, size)."""
    pixels = torch.arange(1, size + 1, dtype=centre.dtype, device=centre.device)
    distance = pixels - filter_centres(centre, window.stride, patch)[..., None]
    # exp(...) / sum exp(...) is a softmax over pixels: no epsilon, and no 0/0 for a grid far
    # outside the image.
    return torch.softmax(-0.5 * distance.square() / window.variance[..., None, None], dim=-1)


def filterbank(window: Window, height: int, width: int, patch: int) -> Filters:
    """The filters of a window (DRAW, equations 25-26).

    ``F[i, a] = exp(-(a - mu_i)^2 / (2 sigma^2)) / Z_i`` with ``a = 1..size``; each row sums to 1.

    Args: window: fields of shape (B,). Half-precision fields are widened to float32 inside:
        bfloat16 cannot tell pixel 100 from 100.5. height, width: of the image, pixels. patch: N.

    Returns:
        ``y`` (B, N, H) and ``x`` (B, N, W), in the window's dtype.
    """
    dtype = window.centre_x.dtype
    if dtype in (torch.bfloat16, torch.float16):
        wide = filterbank(Window(*(field.float() for field in window)), height, width, patch)
        return Filters(wide.y.to(dtype), wide.x.to(dtype))
    return Filters(
        y=_filters_along(window.centre_y, window, patch, height),
        x=_filters_along(window.centre_x, window, patch, width),
    )


def read(images: Tensor, window: Window, patch: int) -> Tensor:
    """Read a patch through a window (DRAW, equation 27, for one image): ``gamma F_Y x F_X^T``.

    Args:
        images: (B, C, H, W); every channel is read through the same window.
        window: fields of shape (B,).
        patch: N.

    Returns:
        (B, C, N, N).
    """
    height, width = images.shape[-2:]
    filters = filterbank(window, height, width, patch)
    with unrounded(images.device):
        glimpse = filters.y[:, None] @ images.to(filters.y.dtype) @ filters.x[:, None].mT
    return window.intensity[:, None, None, None] * glimpse


def write(patches: Tensor, window: Window, height: int, width: int) -> Tensor:
    """Write a patch through a window (DRAW, equation 29): ``F_Y^T w F_X / gamma``.

    Args:
        patches: (B, C, N, N).
        window: fields of shape (B,); the model's write window, never its read window.
        height, width: of the canvas, pixels.

    Returns:
        (B, C, H, W), to be added to the canvas.
    """
    filters = filterbank(window, height, width, patches.shape[-1])
    with unrounded(patches.device):
        drawing = filters.y[:, None].mT @ patches.to(filters.y.dtype) @ filters.x[:, None]
    return drawing / window.intensity[:, None, None, None]
