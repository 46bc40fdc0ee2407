"""The attention core: a grid of Gaussian filters that reads a patch from an image, or writes one.

Gregor et al. 2015 (DRAW), section 3.2, equations 19-29. Pure functions, shared by the glimpse
classifier and the generator.

Pixels are numbered from 1, as in the paper: the centre of an image ``width`` pixels wide is at
``(width + 1) / 2``, half-way between the first pixel and the last, so a centred grid is symmetric
under a flip. (Numbering pixels from 0 in the same formulas shifts every window by one pixel.)

Symbols: B images, C channels, H rows (``height``), W columns (``width``), N the side of the patch.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# The five numbers of equation 21, in the order in which the linear map emits them.
PARAMETERS = ("centre_x", "centre_y", "log_variance", "log_stride", "log_intensity")
WINDOW_MAPS = ("bounded", "linear")  #: squash the five numbers, or take them as the paper does

# Far beyond any use (a grid a thousand images away, filters 1e-4 pixels or 20,000 pixels wide), yet
# near enough for exponentials and squares to stay finite in float32. Beyond them the gradient is 0,
# not infinite.
CENTRE_LIMIT = 1e3
LOG_VARIANCE_LIMIT = 20.0
LOG_SCALE_LIMIT = 10.0

# Middle and half-width of the range to which `squash` confines each of the five numbers. A centre
# may leave the image by a tenth, since a grid has width; the variance runs from about 1.6 (a sharp
# filter) to 245 pixels squared (a blur over 60 pixels).
SQUASH_MIDDLE = (0.0, 0.0, 3.0, 0.0, 0.0)
SQUASH_RADIUS = (1.2, 1.2, 2.5, 2.0, 1.0)


class Window(NamedTuple):
    """Where a model looks, and how: all that the filters depend on.

    Each field has shape (B,), or any batch shape.
    """

    centre_x: Tensor  #: g_X, column of the grid centre, pixels, numbered from 1
    centre_y: Tensor  #: g_Y, row of the grid centre, pixels, numbered from 1
    variance: Tensor  #: sigma squared of every filter, pixels squared
    stride: Tensor  #: delta, distance between neighbouring filters, pixels
    intensity: Tensor  #: gamma; reading multiplies by it, writing divides by it


class Filters(NamedTuple):
    """The filterbank of a window: each row is a distribution over pixels."""

    y: Tensor  #: F_Y, (B, N, H)
    x: Tensor  #: F_X, (B, N, W)


def widen(tensor: Tensor) -> Tensor:
    """Convert half precision to float32; return anything else as it is.

    The 8 bits of bfloat16 cannot tell pixel 100 from 100.5, and a KL of 0.4 nats, small beside the
    terms it is a difference of, would be mostly rounding.
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def autocast_disabled(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which autocast rounds nothing."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def raw_numbers(to_window: nn.Module, hidden: Tensor, clip: float | None) -> Tensor:
    """Return ``to_window(hidden)``, the raw numbers of a window, in full precision.

    Args:
        hidden: (B, U).
        clip: see :func:`clip_gradient`; None leaves the gradient as it is.
    """
    with autocast_disabled(hidden.device):
        numbers = to_window(widen(hidden))
    return numbers if clip is None else clip_gradient(numbers, clip)


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """Return ``values`` as a tensor (len(values),) of the type of ``like``, made where that is.

    A tensor made of Python's numbers is copied from the host: an update on a GPU would wait for it,
    and could not be recorded.
    """
    return torch.cat([like.new_full((1,), value) for value in values])


def squash(parameters: Tensor) -> Tensor:
    """Squash the five raw numbers smoothly into a range in which training stays calm.

    Not in the paper, whose linear map is unbounded: one outlier then throws a window out of the
    image, or makes a filter so sharp that its gradient explodes. Near the middle of the range the
    slope is 1, so small numbers mean what they mean in the paper, except for the log-variance,
    where a raw 0 means a variance of e^3, 20 pixels squared.

    Args:
        parameters: (..., 5), raw output of the linear map.

    Returns:
        (..., 5): centres within +-1.2 image halves, log-variance within 3 +- 2.5, log-stride within
        +-2, log-intensity within +-1.
    """
    middle, radius = constants(SQUASH_MIDDLE, parameters), constants(SQUASH_RADIUS, parameters)
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
    """Scale each row of (B, K) down to a Euclidean norm of at most ``limit``."""
    norms = gradient.norm(dim=-1, keepdim=True)
    return gradient * (limit / norms.clamp_min(limit))


def clip_gradient(parameters: Tensor, limit: float) -> Tensor:
    """Return the same numbers, limiting the gradient that each image sends back through them.

    A glimpse depends on the one before, so gradients through windows can grow at every step: for
    one image in a thousand by a factor of 10^5, and that one then drowns the other 127 of its
    batch. Clipping the gradient of the whole batch only shortens the useless direction; clipping
    each image's, at each step, keeps the direction of the others.

    Args:
        parameters: (B, 5), a window's raw numbers.
        limit: maximum norm of the gradient of one image's own loss. The loss is taken to be a mean
            over the B images.
    """
    return _ClipGradient.apply(parameters, limit)


def window(parameters: Tensor, height: int, width: int, patch: int) -> Window:
    """Turn five numbers into a window (DRAW, equations 22-24).

    ``g_X = (W+1)/2 (p_0 + 1)``, ``g_Y = (H+1)/2 (p_1 + 1)``, ``variance = exp(p_2)``,
    ``delta = (max(H, W) - 1)/(N - 1) exp(p_3)``, ``gamma = exp(p_4)``.

    Args:
        parameters: (..., 5) in the order of :data:`PARAMETERS`.
        height, width: of the image, pixels.
        patch: N. For N = 1 the stride has no effect, and 1 replaces N - 1.

    Returns:
        The window, its fields of shape (...,).

    Raises:
        ValueError: the last dimension is not 5, or a size is below 1.
    """
    if parameters.shape[-1] != len(PARAMETERS):
        raise ValueError(
            f"a window needs {len(PARAMETERS)} numbers {PARAMETERS}, "
            f"got a last dimension of {parameters.shape[-1]}"
        )
    if min(height, width, patch) < 1:
        raise ValueError(
            "image and patch must be at least 1 pixel, "
            f"got height {height}, width {width}, patch {patch}"
        )
    centre_x, centre_y, log_variance, log_stride, log_intensity = parameters.unbind(-1)
    largest_stride = (max(height, width) - 1) / max(patch - 1, 1)
    return Window(
        centre_x=(width + 1) / 2 * (centre_x.clamp(-CENTRE_LIMIT, CENTRE_LIMIT) + 1),
        centre_y=(height + 1) / 2 * (centre_y.clamp(-CENTRE_LIMIT, CENTRE_LIMIT) + 1),
        variance=log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT).exp(),
        stride=largest_stride * log_stride.clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT).exp(),
        intensity=log_intensity.clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT).exp(),
    )


def filter_centres(centre: Tensor, stride: Tensor, patch: int) -> Tensor:
    """Return ``mu_i = g + (i - N/2 - 0.5) delta``, ``i = 1..N`` (DRAW, equations 19-20).

    Args:
        centre, stride: (...,), pixels.
        patch: N.

    Returns:
        (..., N), pixels numbered from 1; the mean over ``i`` is ``centre``.
    """
    steps = torch.arange(1, patch + 1, dtype=centre.dtype, device=centre.device) - patch / 2 - 0.5
    return centre[..., None] + steps * stride[..., None]


def _filters_along(centre: Tensor, window: Window, patch: int, size: int) -> Tensor:
    """Return one axis of the filterbank, (..., N, size)."""
    pixels = torch.arange(1, size + 1, dtype=centre.dtype, device=centre.device)
    distance = pixels - filter_centres(centre, window.stride, patch)[..., None]
    # exp(...) / sum exp(...) is a softmax over pixels: it needs no epsilon, and a grid far outside
    # the image gives no 0/0.
    return torch.softmax(-0.5 * distance.square() / window.variance[..., None, None], dim=-1)


def filterbank(window: Window, height: int, width: int, patch: int) -> Filters:
    """Build the filters of a window (DRAW, equations 25-26).

    ``F[i, a] = exp(-(a - mu_i)^2 / (2 sigma^2)) / Z_i`` with ``a = 1..size``; each row sums to 1.

    Args:
        window: fields of shape (B,); half precision is widened to float32 inside.
        height, width: of the image, pixels.
        patch: N.

    Returns:
        ``y`` (B, N, H) and ``x`` (B, N, W), in the window's dtype.
    """
    dtype = window.centre_x.dtype
    wide = Window(*(widen(field) for field in window))
    return Filters(
        y=_filters_along(wide.centre_y, wide, patch, height).to(dtype),
        x=_filters_along(wide.centre_x, wide, patch, width).to(dtype),
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
    with autocast_disabled(images.device):
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
    with autocast_disabled(patches.device):
        drawing = filters.y[:, None].mT @ patches.to(filters.y.dtype) @ filters.x[:, None]
    return drawing / window.intensity[:, None, None, None]
