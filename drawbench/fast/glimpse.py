"""The recurrence of the glimpse classifier as one autograd function: same numbers, same gradients,
faster on a CPU. Its glimpses are Gaussian (chosen, fixed or at random places, with an eye or
without), affine or hard.

:class:`drawbench.models.glimpse.GlimpseClassifier` is the reference, written to be read; this is
the same computation written to be trained, forward and backward by hand, as
:mod:`drawbench.fast.draw` is for the generator: one row ``[input, h, 1]`` per step and image for
the product with the weights, gates and windows in C, a share of the images for each core. The
LSTM's input is what a look reads (:mod:`drawbench.fast.reading`), with its place if that is random;
with an eye (:mod:`drawbench.fast.eye`), the patch, what the eye sees in it place by place, and the
window's numbers.

Symbols: B images, C channels, H rows, W columns, N the side of a patch, T glimpses, I inputs and U
units of the LSTM, K raw numbers of a window.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drawbench import attention
from drawbench.fast import eye
from drawbench.fast.eye import Eye, EyeWeights
from drawbench.fast.native.build import Kernels, addresses
from drawbench.fast.native.parts import Joined, Lstm, Piece, all_of, weight_gradient
from drawbench.fast.native.shards import in_parallel, shares
from drawbench.fast.reading import (
    AffineReading,
    GaussianReading,
    HardReading,
    RandomReading,
    Reading,
    Share,
)
from drawbench.models.glimpse import GlimpseClassifier, Glimpses
from drawbench.models.glimpses import (
    AffineGlimpse,
    EyeGlimpse,
    FixedGlimpse,
    GaussianGlimpse,
    HardGlimpse,
    RandomGlimpse,
    View,
)

NUMBERS = len(attention.PARAMETERS)  # of an eye's window


class ByHand(NamedTuple):
    """How a glimpse is done here."""

    reading: Callable[[Any, Share], Reading]
    eye: EyeWeights | None = None  #: what the weights of its eye join


GLIMPSES: dict[type, ByHand] = {
    GaussianGlimpse: ByHand(GaussianReading),
    FixedGlimpse: ByHand(GaussianReading),
    RandomGlimpse: ByHand(RandomReading),
    AffineGlimpse: ByHand(AffineReading),
    HardGlimpse: ByHand(HardReading),
    EyeGlimpse: ByHand(GaussianReading, eye.JOINED),
}


def fast_glimpses(
    model: GlimpseClassifier,
    native: Kernels,
    matmul_dtype: torch.dtype,
    images: Tensor,
    glimpses: int | None = None,
    noise: Tensor | None = None,
) -> Glimpses:
    """Compute ``model(images, glimpses, noise)`` with gradients to every parameter of the model.

    Args:
        model: with one of :data:`GLIMPSES`; its parameters must be on the CPU, float32 or float64.
        native: kernels for that dtype.
        matmul_dtype: of the matrix products with weights: that dtype or bfloat16.
        images: (B, C, H, W), uint8 or in [0, 1]. No gradient flows to them.
        glimpses: T, by default the model's own.
        noise: (B, ``model.noise``), or None.

    Returns:
        The record, without patches, and without windows unless a loss of the model's needs them.
    """
    dtype, batch = model.start_hidden.dtype, len(images)
    steps = model.looks(images, glimpses)
    if noise is not None:
        noise = noise.view(batch, -1, model.glimpse.noise)
    with torch.autocast("cpu", enabled=False):
        parameters = _parameters(model)
        states = _Recurrence.apply(
            (model, native, matmul_dtype, steps),
            torch.is_grad_enabled(),
            tuple(parameters),
            images if images.dtype == torch.uint8 else images.to(dtype),
            noise,
            model.start_hidden.expand(batch, -1),
            model.start_cell.expand(batch, -1),
            *parameters.values(),
        )
        windows = None
        if model.added_loss is not None:
            windows = _windows(model, images, states, noise)
        return Glimpses(model.classify(states), windows)


def _windows(model: GlimpseClassifier, images: Tensor, states: Tensor, noise: Tensor | None) -> Any:
    """Return what was chosen before each of the states (B, T, U), with the gradients that flow
    through the choice alone: to the map and to the states before. All looks are one batch, so the
    choice must not depend on the image or on the number of the look, as that of a hard glimpse does
    not.
    """
    batch, steps, _ = states.shape
    before = torch.cat([model.start_hidden.expand(batch, 1, -1), states[:, :-1]], dim=1)
    before = before.flatten(0, 1)
    clip = None if model.window_clip is None else steps * model.window_clip  # a mean over B, not BT
    numbers = None
    if model.to_window is not None:
        numbers = attention.raw_numbers(model.to_window, before, clip)
    drawn = None if noise is None else noise[:, :steps].flatten(0, 1)
    where = model.glimpse.choose(numbers, View(images, before, 0, drawn))
    return type(where)(*(field.unflatten(0, (batch, steps)) for field in where))


class _Weights(NamedTuple):
    """The weights, joined as the products need them, biases included; or their gradients, or which
    parameters they join.
    """

    lstm: Any  #: (4U, I + U + 1), from [input, h, 1]
    windows: Any  #: (K, U + 1), from [h, 1], or fixed windows, (looks, K); never rounded
    eye: EyeWeights | None


def _joined(model: GlimpseClassifier) -> _Weights:
    """Return which parameters each of the weights joins, by the names of :func:`_parameters`."""
    seen = GLIMPSES[type(model.glimpse)].eye
    inputs: list[Piece] = [("cell.weight_ih", all_of)]
    if seen is not None:
        patch = model.channels * model.glimpse.patch**2
        # What the eye sees is (features, places) to the model, but comes out place by place.
        features = model.get_parameter("glimpse.second.bias").numel()
        inputs = [
            ("cell.weight_ih", lambda weight: weight[:, :patch]),
            (
                "cell.weight_ih",
                lambda weight: weight[:, patch:-NUMBERS].unflatten(1, (features, -1)).mT,
            ),
            ("cell.weight_ih", lambda weight: weight[:, -NUMBERS:]),
        ]
    chosen: list[Piece] = [("to_window.weight", all_of), ("to_window.bias", all_of)]
    fixed: list[Piece] = [("glimpse.windows", all_of)]
    return _Weights(
        lstm=Joined([*inputs, ("cell.weight_hh", all_of), ("cell.bias", all_of)]),
        windows=Joined(fixed if model.to_window is None else chosen),
        eye=seen,
    )


def _parameters(model: GlimpseClassifier) -> dict[str, Tensor]:
    """Return the parameters of the recurrence by name; the two biases of the LSTM act as their sum,
    which is one of them here.
    """
    named: dict[str, Tensor] = dict(model.named_parameters())
    named["cell.bias"] = named.pop("cell.bias_ih") + named.pop("cell.bias_hh")
    parts, apart = ("glimpse.", "cell.", "to_window."), "glimpse.expect."  # apart: see _windows
    return {
        name: tensor
        for name, tensor in named.items()
        if name.startswith(parts) and not name.startswith(apart)
    }


def _pack(model: GlimpseClassifier, parameters: dict[str, Tensor], dtype: torch.dtype) -> _Weights:
    """Join the parameters, rounding what products take to ``dtype``."""
    joined, exact = _joined(model), model.start_hidden.dtype
    seen = joined.eye
    if seen is not None:
        dtypes = EyeWeights(exact, exact, dtype, exact)
        pairs = zip(seen, dtypes, strict=True)
        seen = EyeWeights._make(one.pack(parameters, dtype) for one, dtype in pairs)
    return _Weights(
        joined.lstm.pack(parameters, dtype), joined.windows.pack(parameters, exact), seen
    )


class _Recurrence(torch.autograd.Function):
    """All T looks in one function, forward, and backward through time: from images (B, C, H, W),
    the start states (B, U) and parameters (``names``) to the states after each look, (B, T, U).
    """

    @staticmethod
    def forward(ctx, kind, keep, names, images, noise, hidden, cell, *parameters):
        ctx.parts, ctx.model, ctx.names, ctx.parameters = (
            shares(len(images)), kind[0], names, parameters,
        )  # fmt: skip
        model, native, matmul_dtype, steps = kind
        named = dict(zip(names, parameters, strict=True))
        weights, whole = _pack(model, named, matmul_dtype), max(1, len(images))
        ctx.tapes = [
            _Tape(model, weights, Share(
                native, images[part], None if noise is None else noise[part], steps, whole, keep,
                model.window_clip, model.start_hidden.dtype, matmul_dtype, named,
            ))
            for part in ctx.parts
        ]  # fmt: skip
        jobs = [
            partial(tape.forward, hidden[part], cell[part])
            for tape, part in zip(ctx.tapes, ctx.parts, strict=True)
        ]
        return torch.cat(in_parallel(jobs))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        jobs = [
            partial(tape.backward, gradient[part])
            for tape, part in zip(ctx.tapes, ctx.parts, strict=True)
        ]
        with torch.autocast("cpu", enabled=False):
            starts, weights, others = zip(*in_parallel(jobs), strict=True)
        into_starts = (torch.cat(pieces) for pieces in zip(*starts, strict=True))
        into = dict(zip(ctx.names, map(torch.zeros_like, ctx.parameters), strict=True))
        lstm, windows, seen = _joined(ctx.model)
        pairs = zip((lstm, windows, *(seen or ())), zip(*weights, strict=True), strict=True)
        for joined, pieces in pairs:
            if pieces[0] is not None:
                joined.unpack(pieces, into)
        for name, gradient in (pair for other in others for pair in other.items()):
            into[f"glimpse.{name}"] += gradient
        if not ctx.tapes[0].reading.sends_back:
            into |= dict.fromkeys(("to_window.weight", "to_window.bias"))
        return None, None, None, None, None, *into_starts, *into.values()


class _Tape:
    """The forward pass of a share of the images, what it keeps, and the backward pass.

    ``rows[t]`` holds what the LSTM takes at step t: ``[input, h, 1]``, with the state before the
    step.
    """

    def __init__(self, model: GlimpseClassifier, weights: _Weights, share: Share):
        self.weight, self.windows = weights.lstm, weights.windows
        self.native, self.keep, self.chooses = share.native, share.keep, model.to_window is not None
        self.steps, self.units, self.dtype = share.steps, len(self.weight) // 4, share.dtype
        self.batch, channels = share.images.shape[:2]
        self.inputs, self.rounded, steps = model.cell.input_size, share.rounded, self.steps
        self.reading = GLIMPSES[type(model.glimpse)].reading(
            model.glimpse, share if self.chooses else share._replace(clip=None)
        )
        self.row_stride = self.inputs + self.units + 1
        self.rows = torch.empty(steps + 1, self.batch, self.row_stride, dtype=share.matmul_dtype)
        self.rows[..., -1] = 1
        patch = model.glimpse.patch
        self.eye, seen = None, channels * patch**2  # begins in the row behind the patch
        if weights.eye is not None:
            size = self.batch, channels, patch
            self.eye = Eye(self.native, weights.eye, size, steps, self.keep)
        self.at_seen, self.at_hidden = (
            addresses(self.rows[..., first:], steps + 1) for first in (seen, self.inputs)
        )
        # The states and a 1, (T + 1, B, U + 1), are never rounded.
        self.states = self.rows[..., self.inputs :]
        if self.rounded:
            self.states = torch.empty(steps + 1, self.batch, self.units + 1, dtype=self.dtype)
            self.states[..., -1] = 1
        self.at_states = addresses(self.states, steps + 1)

    def forward(self, hidden: Tensor, cell: Tensor) -> Tensor:
        """Return the states (B, T, U) after each look."""
        self.lstm = Lstm(self.native, cell, self.steps, self.rows.dtype, self.keep)
        self.rows[0, :, self.inputs : -1] = hidden
        self.states[0, :, :-1] = hidden
        weight, stride, chosen = self.weight.t(), self.states.stride(1), self.reading.chosen
        told = self.reading.told if self.eye is None else self.reading.numbers
        for t in range(self.steps):
            if self.chooses:
                torch.mm(self.states[t], self.windows.t(), out=chosen[t])
            else:
                chosen[t] = self.windows[t % len(self.windows)]
            self.reading.forward(t, self.rows[t])
            if self.eye is not None:
                assert isinstance(self.reading, GaussianReading)
                patches = self.reading.patches(t)
                self.eye.forward(t, patches, self.at_seen[t], self.row_stride)
            if told is not None:
                self.rows[t, :, self.inputs - told.shape[-1] : self.inputs] = told[t]
            row = (self.at_hidden[t + 1], self.row_stride) if self.rounded else (0, 0)
            self.lstm.step(t, self.rows[t], weight, self.at_states[t + 1], stride, *row)
        return self.states[1:, :, :-1].transpose(0, 1)

    def backward(self, gradient: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Any]:
        """Return the gradients of the start states, of the weights, and of other parameters of the
        glimpse by name, given that of the states after each look, (B, T, U).
        """
        steps, units, stride = self.steps, self.units, self.row_stride
        into_states = gradient.transpose(0, 1).contiguous()
        into_sums = self.rows.new_empty(steps, self.batch, 4 * units)
        at_sums = addresses(into_sums, steps)
        into_chosen = self.reading.into_chosen
        into_input = self.rows.new_empty(self.batch, stride)
        into_cell = into_states.new_zeros(self.batch, units)
        later: list[tuple[int, int]] = []
        sent = self.chooses and self.reading.sends_back
        if self.eye is not None:
            self.eye.begin_backward()
        for t in reversed(range(steps)):
            self.lstm.backward(t, into_states[t].data_ptr(), later, into_cell, at_sums[t])
            torch.mm(into_sums[t], self.weight, out=into_input)
            if self.eye is not None:
                assert isinstance(self.reading, GaussianReading)
                row, patches = (self.at_seen[t], stride), self.reading.patches(t)
                self.eye.backward(t, patches, *row, into_input.data_ptr(), stride)
            self.reading.backward(t, into_input)
            later = [(into_input[:, self.inputs :].data_ptr(), stride)]
            if t and sent:
                into_states[t - 1].addmm_(into_chosen[t], self.windows[:, :-1])
        start = into_input[:, self.inputs : -1].to(self.dtype)
        into_windows = None
        if sent:
            start = torch.addmm(start, into_chosen[0], self.windows[:, :-1])
            into_windows = weight_gradient(into_chosen, self.states[:-1])
        elif not self.chooses:
            looks = torch.arange(steps) % len(self.windows)
            into_windows = torch.zeros_like(self.windows).index_add_(0, looks, into_chosen.sum(1))
        into_weight = weight_gradient(into_sums, self.rows[:-1])
        into_eye = () if self.eye is None else self.eye.into_weights()
        weights = into_weight, into_windows, *into_eye
        return (start, into_cell), weights, self.reading.into_parameters()
