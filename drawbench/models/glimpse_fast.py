"""The recurrence of the glimpse classifier as one autograd function: same numbers, same gradients, about twice the speed on a CPU.

:class:`drawbench.models.glimpse.GlimpseClassifier` is the reference, written to be read; this is the same computation written to be
trained, forward and backward by hand. What makes it faster, in the order of what it gains:

- The matrix products may run in bfloat16 (``products``); everything else stays float32, window parameters and filters above all.
- No temporary of the size of a filterbank is made that is not needed, and the filterbank is never normalised: ``E`` below holds the
  filters up to the sum ``Z`` of each row, and ``1 / Z`` is applied to the patch, which is an eighth of the size.
- Patch and state share one product with the weights per step, and the weights' gradient is one product over all the steps.
- Only cheap functions are called on large tensors: ``exp2`` for ``exp``, ``tanh(a) = 2 sigmoid(2a) - 1``, no numbers so small that
  arithmetic on them slows down.

Symbols: B images, C channels, H rows, W columns, N the side of a patch, T glimpses, K = C N N inputs and D units of the LSTM. An axis
is 0 for x (columns) or 1 for y (rows), in the order of the window's centres.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drawbench import attention
from drawbench.models.glimpse import GlimpseClassifier

# Filters below 2^-100 of their row's peak are taken as 2^-100: far too small to matter, large enough to be an ordinary number.
_LOG2_FLOOR = -100.0


def fast_logits(model: GlimpseClassifier, images: Tensor, glimpses: int | None = None, products: torch.dtype | None = None) -> Tensor:
    """What ``model(images).logits`` is, for training: (B, T, classes), with gradients to every parameter of the model.

    Args:
        model: gives the parameters; its windows and patches are not reported.
        images: (B, C, H, W), uint8 (0-255, read as 0-1) or floating point. No gradient flows to them.
        glimpses: T, or the model's own.
        products: dtype of the matrix products, or the parameters' own. See :func:`read_states`.
    """
    batch = len(images)
    states = read_states(
        images,
        model.start_hidden.expand(batch, -1),
        model.start_cell.expand(batch, -1),
        (model.cell.weight_ih, model.cell.weight_hh, model.cell.bias_ih, model.cell.bias_hh),
        (model.to_window.weight, model.to_window.bias),
        patch=model.patch,
        glimpses=glimpses or model.glimpses,
        bounded=model.window_map == "bounded",
        window_clip=model.window_clip,
        products=products,
    )
    return model.classify(states)


def read_states(
    images: Tensor,
    hidden: Tensor,
    cell: Tensor,
    lstm: tuple[Tensor, Tensor, Tensor, Tensor],
    to_window: tuple[Tensor, Tensor],
    *,
    patch: int,
    glimpses: int,
    bounded: bool,
    window_clip: float | None = None,
    products: torch.dtype | None = None,
) -> Tensor:
    """Look at images through T windows and return the LSTM's state after each look.

    Args:
        images: (B, C, H, W), uint8 (0-255, read as 0-1) or floating point. No gradient flows to them.
        hidden, cell: (B, D), the states before the first look.
        lstm: ``weight_ih`` (4D, K), ``weight_hh`` (4D, D), ``bias_ih`` (4D,) and ``bias_hh`` (4D,) as in ``nn.LSTMCell``.
        to_window: weight (5, D) and bias (5,) of the linear map from a state to the window's numbers.
        patch: N.
        glimpses: T.
        bounded: squash the window's numbers with :func:`drawbench.attention.bound`.
        products: dtype of the matrix products with images and LSTM weights: the parameters' own (the default), or
            ``torch.bfloat16``, which sums in float32 but rounds factors and results to 8 bits.

    Returns:
        (B, T, D), in the parameters' dtype.
    """
    with torch.autocast(images.device.type, enabled=False):
        return _Glimpses.apply(images, hidden, cell, *lstm, *to_window, patch, glimpses, bounded, window_clip, products or hidden.dtype)


class _Bank(NamedTuple):
    """The filters along one axis of S pixels, not normalised."""

    distance: Tensor  #: (B, N, S), pixel minus filter centre
    logits: Tensor  #: (B, N, S), logarithm of ``filters`` to base 2; 0 at the peak of each row
    filters: Tensor  #: (B, N, S), E
    norm: Tensor  #: (B, N, 1), 1 / Z, the reciprocal of each row's sum


class _Look(NamedTuple):
    """What one look leaves behind for its gradient. Axis 0 is x, axis 1 is y."""

    slope: Tensor  #: (B, 5), derivative of the bounded and clamped numbers by the raw ones
    spread: Tensor  #: (B, N), derivative of the filter centres by log stride
    precision: Tensor  #: (B, 1), 1 / variance
    banks: tuple[_Bank, _Bank]
    filters_x: Tensor  #: (B, N, W), E_X in the products' dtype
    rows: Tensor  #: (B, N, C W), E_Y times the image
    patch: Tensor  #: (B, N, C, N)
    scale: Tensor  #: (B, N, 1, N), the patch is this times E_Y x E_X^T


class _Eye:
    """Reads patches from a batch of images, and carries gradients of patches back to the window's numbers.

    The mathematics is that of :mod:`drawbench.attention`: ``bound``, ``window``, ``filterbank`` and ``read`` in turn.
    """

    def __init__(self, images: Tensor, patch: int, bounded: bool, products: torch.dtype, dtype: torch.dtype):
        batch, self.channels, height, width = images.shape
        self.patch, self.bounded, self.products = patch, bounded, products
        # Channels side by side, (B, H, C W), so that one product per image reads them all. Integers to 255 are exact in bfloat16,
        # fractions of 255 are not, so the division waits for the patch.
        self.images = torch.empty(batch, height, self.channels, width, dtype=products, device=images.device)
        self.images.copy_(images.transpose(1, 2))
        self.images = self.images.flatten(2)
        self.brightness = 1 / 255 if images.dtype == torch.uint8 else 1.0

        like = dict(dtype=dtype, device=images.device)
        self.sizes = torch.tensor([width, height], **like)
        self.pixels = [torch.arange(1, size + 1, **like) for size in (width, height)]
        self.steps = torch.arange(1, patch + 1, **like) - patch / 2 - 0.5
        self.unit_stride = (max(height, width) - 1) / max(patch - 1, 1)
        self.middle, self.radius = torch.tensor(attention._BOUND_MIDDLE, **like), torch.tensor(attention._BOUND_RADIUS, **like)
        centre, variance, scale = attention._CENTRE_LIMIT, attention._LOG_VARIANCE_LIMIT, attention._LOG_SCALE_LIMIT
        self.limits = torch.tensor([centre, centre, variance, scale, scale], **like)

    def read(self, numbers: Tensor) -> _Look:
        """Look through the windows that raw numbers (B, 5) stand for."""
        if self.bounded:
            squashed = torch.tanh(numbers / self.radius)
            numbers = torch.addcmul(self.middle, self.radius, squashed)
            slope = 1 - squashed.square()
        else:
            slope = (numbers.abs() <= self.limits).to(numbers.dtype)
            numbers = numbers.clamp(-self.limits, self.limits)
        centres = (numbers[:, :2] + 1) * ((self.sizes + 1) / 2)
        stride, intensity = (numbers[:, 3:].exp() * numbers.new_tensor([self.unit_stride, self.brightness])).unbind(1)
        precision = (-numbers[:, 2:3]).exp()
        spread = stride[:, None] * self.steps
        banks = tuple(self._filters(centres[:, axis, None] + spread, precision, axis) for axis in (0, 1))

        x, y = banks
        filters_x = x.filters.to(self.products)
        rows = y.filters.to(self.products) @ self.images
        patch = rows.view(-1, self.patch * self.channels, x.filters.shape[-1]) @ filters_x.mT
        scale = (intensity[:, None, None] * y.norm * x.norm.mT)[:, :, None]
        patch = patch.view(-1, self.patch, self.channels, self.patch) * scale
        return _Look(slope, spread, precision, banks, filters_x, rows, patch, scale)

    def _filters(self, centres: Tensor, precision: Tensor, axis: int) -> _Bank:
        """Filters with centres (B, N) along an axis: ``2^logits``, where ``logits`` is 0 at the pixel nearest to the centre."""
        factor = precision * (-0.5 / math.log(2))
        # The distance of the nearest pixel, by the same roundings as that pixel's own below: no logit is above 0, one is exactly 0.
        nearest = centres.round().clamp_(min=1).minimum(self.sizes[axis]) - centres
        peak = nearest.square_().mul_(factor)
        distance = self.pixels[axis] - centres[..., None]
        logits = (distance * distance).mul_(factor[..., None]).sub_(peak[..., None]).clamp_(min=_LOG2_FLOOR)
        filters = logits.exp2()
        return _Bank(distance, logits, filters, filters.sum(-1, keepdim=True).reciprocal_())

    def backward(self, look: _Look, gradient: Tensor) -> Tensor:
        """The gradient (B, 5) of the raw numbers, from that of the patch, (B, N, C, N)."""
        x, y = look.banks
        inner = (gradient * look.scale).to(self.products).flatten(1, 2)
        columns = (inner @ look.filters_x).view(len(inner), self.patch, -1)
        into_y = columns @ self.images.mT
        into_x = inner.mT @ look.rows.view(len(inner), self.patch * self.channels, -1)

        variance, towards = 0, []
        for bank, into in ((x, into_x), (y, into_y)):
            # `into` is the gradient of the normalised filters F = E / Z, divided by Z, and this is the gradient through the softmax
            # over pixels, F (G - <F, G>), in terms of it.
            into = into.to(bank.filters.dtype)
            into.sub_(torch.linalg.vecdot(bank.filters, into)[..., None].mul_(bank.norm)).mul_(bank.filters)
            towards.append(torch.linalg.vecdot(into, bank.distance).mul_(look.precision))
            variance = variance - torch.linalg.vecdot(into.flatten(1), bank.logits.flatten(1))
        stride = torch.linalg.vecdot(towards[0] + towards[1], look.spread)
        intensity = torch.linalg.vecdot(gradient.flatten(1), look.patch.flatten(1))
        centres = torch.stack([axis.sum(-1) for axis in towards], -1) * ((self.sizes + 1) / 2)
        return torch.cat([centres, torch.stack([variance * math.log(2), stride, intensity], -1)], -1).mul_(look.slope)


class _Glimpses(torch.autograd.Function):
    """T looks: forward, and backward through time."""

    @staticmethod
    def forward(ctx, images, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh, window_weight, window_bias, patch, glimpses, bounded, clip, products):
        batch, units = hidden.shape
        inputs = weight_ih.shape[1]
        eye = _Eye(images, patch, bounded, products, hidden.dtype)
        # tanh(a) = 2 sigmoid(2a) - 1: with the candidate's weights doubled, one sigmoid serves all four gates.
        twice = torch.ones(4, 1, 1, dtype=hidden.dtype, device=hidden.device)
        twice[2] = 2
        weight = torch.cat([weight_ih, weight_hh], 1).view(4, units, -1).mul_(twice).flatten(0, 1).to(products)
        bias = (bias_ih + bias_hh).view(4, units).mul_(twice[..., 0]).flatten()

        seen = torch.empty(glimpses, batch, inputs + units, dtype=products, device=images.device)
        states = torch.empty(glimpses + 1, batch, units, dtype=hidden.dtype, device=hidden.device)
        states[0] = hidden
        looks, gates, cells, squashed = [], [], [cell], []
        for t in range(glimpses):
            look = eye.read(torch.addmm(window_bias, states[t], window_weight.t()))
            seen[t, :, :inputs] = look.patch.transpose(1, 2).flatten(1)
            seen[t, :, inputs:] = states[t]
            gate = torch.mm(seen[t], weight.t()).add(bias).sigmoid_()
            enter, keep, candidate, leave = gate.view(batch, 4, units).unbind(1)
            cell = torch.addcmul(keep * cell - enter, enter, candidate, value=2)
            squash = (cell * 2).sigmoid_().mul_(2).sub_(1)
            torch.mul(leave, squash, out=states[t + 1])
            looks.append(look); gates.append(gate); cells.append(cell); squashed.append(squash)
        ctx.save_for_backward(states, window_weight)
        ctx.eye, ctx.weight, ctx.twice, ctx.seen, ctx.clip = eye, weight, twice, seen, clip
        ctx.trace = looks, gates, cells, squashed
        return states[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        states, window_weight = ctx.saved_tensors
        looks, gates, cells, squashed = ctx.trace
        glimpses, batch, units = len(looks), *states.shape[1:]
        inputs = ctx.seen.shape[-1] - units
        into_gates = torch.empty(glimpses, batch, 4 * units, dtype=ctx.seen.dtype, device=states.device)
        into_numbers = states.new_empty(glimpses, batch, len(attention.PARAMETERS))
        into_bias = states.new_zeros(4 * units)
        into_hidden, into_cell = states.new_zeros(batch, units), states.new_zeros(batch, units)
        raw = states.new_empty(batch, 4, units)
        for t in reversed(range(glimpses)):
            look, gate, squash = looks[t], gates[t], squashed[t]
            enter, _, candidate, leave = gate.view(batch, 4, units).unbind(1)
            into_hidden = into_hidden + gradient[:, t]
            into_squash = into_hidden * leave
            into_cell = torch.addcmul(into_cell + into_squash, into_squash, squash.square(), value=-1)
            torch.mul(into_cell, candidate * 2 - 1, out=raw[:, 0])
            torch.mul(into_cell, cells[t], out=raw[:, 1])
            torch.mul(into_cell * 2, enter, out=raw[:, 2])
            torch.mul(into_hidden, squash, out=raw[:, 3])
            into_cell = into_cell * gate.view(batch, 4, units)[:, 1]
            before = raw.view(batch, -1).mul_(torch.addcmul(gate, gate, gate, value=-1))
            into_gates[t] = before
            into_bias += before.sum(0)
            into_seen = torch.mm(into_gates[t], ctx.weight).to(states.dtype)
            into_patch = into_seen[:, :inputs].view(batch, -1, *look.patch.shape[1::2]).transpose(1, 2)
            numbers = ctx.eye.backward(look, into_patch)
            into_numbers[t] = numbers if ctx.clip is None else attention.clip_rows(numbers, ctx.clip / batch)
            into_hidden = torch.addmm(into_seen[:, inputs:], into_numbers[t], window_weight)

        # The weights' gradient, of all steps at once: a sum over T B rows instead of T sums over B.
        into_weight = torch.mm(into_gates.flatten(0, 1).t(), ctx.seen.flatten(0, 1)).to(states.dtype)
        into_weight = into_weight.view(4, units, -1).mul_(ctx.twice)
        into_bias = into_bias.view(4, units).mul_(ctx.twice[..., 0]).flatten()
        into_numbers = into_numbers.flatten(0, 1)
        return (
            None,
            into_hidden,
            into_cell,
            into_weight[..., :inputs].flatten(0, 1).contiguous(),
            into_weight[..., inputs:].flatten(0, 1).contiguous(),
            into_bias,
            into_bias,
            into_numbers.t() @ states[:-1].flatten(0, 1),
            into_numbers.sum(0),
            *[None] * 5,
        )
