"""The recurrence of DRAW as one autograd function: same numbers, same gradients, faster on a CPU.

:class:`drawbench.models.draw.Draw` is the reference, written to be read; this is the same
computation written to be trained, forward and backward by hand. What makes it faster:

- Everything that a product with weights takes in lies in one row per step and image, ``[z, h_dec,
  1, read, h_enc, 1]``: each product reads a stretch of it, the ones carry the biases, and the
  gradient of a weight is one product over the rows of all steps.
- Everything between the products, gates and windows, is done in C, one image at a time
  (:mod:`drawbench.fast.native`).
- Each core takes a share of the images through all steps.
- The products with weights may run in bfloat16 (``matmul_dtype``); states, windows, filters and
  the canvas never do.
- Without attention the image is the same at every step, and so is its part of the encoder's
  product.

Symbols: B images, C channels, H rows, W columns, N the side of a patch, T steps, Z latents, U units
of an LSTM, V windows of a state (0 to 2), M numbers that a state chooses for its windows and for
the patch that is written through one. R numbers are read in a step.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drawbench import attention
from drawbench.fast.native import (
    Kernels,
    Lstm,
    Side,
    addresses,
    in_parallel,
    padded_lines,
    room,
    shares,
    weight_gradient,
)
from drawbench.likelihood import Bernoulli, Gaussian
from drawbench.models.common import as_images
from drawbench.models.draw import Draw, Drawing, check_images, check_noise

NUMBERS = len(attention.PARAMETERS)


def fast_drawing(
    model: Draw,
    native: Kernels,
    matmul_dtype: torch.dtype,
    images: Tensor,
    noise: Tensor,
    segment: int | None = None,
) -> Drawing:
    """Compute ``model(images, noise)`` with gradients to every parameter of the model.

    Args:
        model: its parameters must be on the CPU, float32 or float64.
        native: kernels for that dtype.
        matmul_dtype: of the matrix products with weights: that dtype or bfloat16.
        images: (B, C, H, W), uint8 or in [0, 1]. No gradient flows to them.
        noise: (B, T, Z), standard normal, fresh for every step. No gradient flows to it.
        segment: as for :func:`drawbench.fast.forward_for`.

    Returns:
        The drawing, without windows and canvases.

    Raises:
        ValueError: images or noise have another shape.
    """
    check_noise(noise, model.steps, model.latent)
    check_images(images, noise, model.size)
    dtype = model.start_canvas.dtype
    settings = _Settings(
        native,
        *model.size,
        units=model.decoder.hidden_size,
        latent=model.latent,
        read_patch=model.read_patch,
        write_patch=model.write_patch,
        bounded=model.window_map == "bounded",
        window_clip=model.window_clip,
        matmul_dtype=matmul_dtype,
    )
    batch = len(images)
    starts = (
        model.start_encoder_hidden,
        model.start_encoder_cell,
        model.start_decoder_hidden,
        model.start_decoder_cell,
    )
    state = (
        model.start_canvas.expand(batch, -1, -1, -1),
        *(start.expand(batch, -1) for start in starts),
    )
    weights = _pack(model)
    mus, log_sigmas = [], []
    images, recompute = (
        as_images(images, dtype=dtype),
        segment is not None and segment < model.steps,
    )
    with torch.autocast(images.device.type, enabled=False):
        for part in noise.to(dtype).split(segment or model.steps, dim=1):
            *state, mu, log_sigma = _Recurrence.apply(
                settings, recompute, images, part, *state, *weights
            )
            mus.append(mu)
            log_sigmas.append(log_sigma)
    return Drawing(Bernoulli(state[0]), Gaussian(torch.cat(mus, 1), torch.cat(log_sigmas, 1)))


class _Settings(NamedTuple):
    native: Kernels
    channels: int
    height: int
    width: int
    units: int
    latent: int
    read_patch: int | None
    write_patch: int | None
    bounded: bool
    window_clip: float | None
    matmul_dtype: torch.dtype

    @property
    def lines(self) -> int:
        """Lines of an image, C H."""
        return self.channels * self.height

    @property
    def written(self) -> int:
        """Numbers in a written patch, C N N."""
        return self.channels * (self.write_patch or 0) ** 2


class _Weights(NamedTuple):
    """The model's weights, joined as the products need them, biases included."""

    #: (4U, U + 1 + R + U), from [h_dec, 1, read, h_enc]; R = 2 C N N, or C H W where whole images
    #: are read and only their error changes
    encoder: Tensor
    #: (4U, C H W), the encoder's part for the image where it is not read through a window
    image: Tensor | None
    decoder: Tensor  #: (4U, Z + U + 1), from [z, h_dec, 1]
    latent: Tensor  #: (2Z, U + 1), from [h_enc, 1] to [mu, log_sigma]
    #: (M, U + 1), from [h_dec, 1] to the patch to write and the windows' numbers, reading first
    choices: Tensor | None
    #: (C H W, U + 1), from [h_dec, 1] to what is added to the canvas where no window writes
    canvas: Tensor | None


def _pack(model: Draw) -> _Weights:
    """Join weights and biases; autograd takes the gradients apart again."""
    encoder, decoder, units = model.encoder, model.decoder, model.decoder.hidden_size
    inputs, state = encoder.weight_ih.split([encoder.input_size - units, units], 1)
    image, read = inputs.chunk(2, 1) if model.read_patch is None else (None, inputs)

    def with_bias(layer: torch.nn.Linear) -> Tensor:
        return torch.cat([layer.weight, layer.bias[:, None]], 1)

    windows = [
        with_bias(layer)
        for layer in (model.to_read_window, model.to_write_window)
        if layer is not None
    ]
    patch = with_bias(model.to_patch)
    choices = windows if model.write_patch is None else [patch, *windows]
    return _Weights(
        encoder=torch.cat(
            [state, (encoder.bias_ih + encoder.bias_hh)[:, None], read, encoder.weight_hh], 1
        ),
        image=image,
        decoder=torch.cat(
            [decoder.weight_ih, decoder.weight_hh, (decoder.bias_ih + decoder.bias_hh)[:, None]], 1
        ),
        latent=torch.cat([with_bias(model.to_mu), with_bias(model.to_log_sigma)]),
        choices=torch.cat(choices) if choices else None,
        canvas=patch if model.write_patch is None else None,
    )


class _Recurrence(torch.autograd.Function):
    """Some steps in one function, forward, and backward through time.

    From images (B, C, H, W), noise (B, T, Z), canvas and LSTM states before the first step, and
    weights, to canvas and states after the last, mu and log sigma (B, T, Z). With ``recompute``,
    nothing is kept for the backward pass but these inputs.
    """

    @staticmethod
    def forward(ctx, settings, recompute, *inputs):
        ctx.settings, ctx.parts = settings, shares(len(inputs[0]))
        ctx.tapes, outputs = _pass(settings, ctx.parts, *inputs)
        if recompute:
            ctx.tapes = None
            ctx.save_for_backward(*inputs)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        with torch.autocast("cpu", enabled=False):
            tapes = ctx.tapes or _pass(ctx.settings, ctx.parts, *ctx.saved_tensors)[0]
            jobs = [
                partial(tape.backward, *(part[share] for part in gradients))
                for tape, share in zip(tapes, ctx.parts, strict=True)
            ]
            starts, weights = zip(*in_parallel(jobs), strict=True)
        into_starts = (torch.cat(pieces) for pieces in zip(*starts, strict=True))
        into_weights = (
            None if pieces[0] is None else sum(pieces[1:], pieces[0])
            for pieces in zip(*weights, strict=True)
        )
        return None, None, None, None, *into_starts, *into_weights


def _pass(
    settings: "_Settings",
    parts: list[slice],
    images: Tensor,
    noise: Tensor,
    canvas: Tensor,
    *rest: Tensor,
):
    """Take all shares of a batch forward; return their tapes, and their outputs joined."""
    states, weights = rest[:4], _Weights(*rest[4:])
    rounded = _Weights._make(
        None if weight is None else weight.to(settings.matmul_dtype) for weight in weights
    )
    tapes = [
        _Tape(
            settings, images[part], noise[part].contiguous(), rounded, weights.choices, len(images)
        )
        for part in parts
    ]
    jobs = [
        partial(tape.forward, canvas[part], *(state[part] for state in states))
        for tape, part in zip(tapes, parts, strict=True)
    ]
    return tapes, tuple(torch.cat(pieces) for pieces in zip(*in_parallel(jobs), strict=True))


class _Tape:
    """The forward pass of a share of the images, what it keeps, and the backward pass.

    ``rows[t]`` holds the input of step t: ``[z, h_dec, 1, read, h_enc, 1]``, with the states before
    the step.
    """

    def __init__(
        self,
        settings: _Settings,
        images: Tensor,
        noise: Tensor,
        weights: _Weights,
        choices: Tensor | None,
        whole: int,
    ):
        self.settings, self.native, self.noise, self.weights = (
            settings,
            settings.native,
            noise,
            weights,
        )
        # What chooses windows stays in full precision: bfloat16 cannot tell pixel 14 from 14.04.
        self.choices = choices
        batch, steps, units, latent = len(images), noise.shape[1], settings.units, settings.latent
        self.batch, self.steps, self.dtype = batch, steps, images.dtype
        matmul_dtype = settings.matmul_dtype
        self.rounded = int(matmul_dtype == torch.bfloat16)
        self.images = padded_lines(images)
        read = weights.encoder.shape[1] - 2 * units - 1
        self.rows = images.new_ones(
            steps + 1, batch, latent + 2 * units + read + 2, dtype=matmul_dtype
        )
        self.row_stride = self.rows.shape[2]
        start = latent + units + 1
        self.for_decoder, self.for_encoder, self.for_latent = (
            slice(0, start),
            slice(latent, -1),
            slice(start + read, None),
        )
        # The decoder's states and a 1, (T + 1, B, U + 1), never rounded.
        self.states = (
            images.new_ones(steps + 1, batch, units + 1)
            if self.rounded
            else self.rows[..., latent:start]
        )
        self.at_states = addresses(self.states, steps + 1)
        self.at_z, self.at_decoder, self.at_read, self.at_encoder = (
            addresses(self.rows[..., first:], steps + 1)
            for first in (0, latent, start, start + read)
        )
        self.sigmoids = room(
            steps, batch, settings.channels, settings.height, settings.width, dtype=images.dtype
        )
        self.at_sigmoids = addresses(self.sigmoids, steps)
        self.spreads = images.new_empty(steps, batch, latent)
        self.at_spreads = addresses(self.spreads, steps)
        self.constant = None  # (B, 4U), the image's part of the encoder's product
        if weights.image is not None:
            self.flat_images = images.flatten(1).to(matmul_dtype)
            self.constant = torch.mm(self.flat_images, weights.image.t()).to(images.dtype)
        self.reading = self.writing = None
        size, channels = (settings.height, settings.width), settings.channels
        windows = {
            "bounded": settings.bounded,
            "clip": settings.window_clip,
            "whole": whole,
            "dtype": images.dtype,
        }
        if settings.read_patch is not None:
            self.reading = Side(size, 2 * channels, settings.read_patch, steps, batch, **windows)
        if settings.write_patch is not None:
            self.writing = Side(size, channels, settings.write_patch, steps, batch, **windows)
        if choices is not None:
            self.numbers = images.new_empty(steps + 1, batch, len(choices))
            self.number_stride = len(choices)
            self.at_read_numbers, self.at_write_numbers = self._windows_of(self.numbers)
            self.at_numbers = addresses(self.numbers, steps + 1)

    def _windows_of(self, numbers: Tensor) -> tuple[list[int], list[int]]:
        """Return where the numbers of read and write windows begin in (T + 1, B, M)."""
        written = self.settings.written
        reading = NUMBERS if self.reading is not None else 0
        return tuple(
            addresses(numbers[..., first:], len(numbers)) for first in (written, written + reading)
        )  # type: ignore[return-value]

    # -- forward

    def forward(
        self,
        canvas: Tensor,
        encoder_hidden: Tensor,
        encoder_cell: Tensor,
        decoder_hidden: Tensor,
        decoder_cell: Tensor,
    ):
        """Return canvas (B, C, H, W) and states after the last step, mu, log sigma (B, T, Z)."""
        settings, weights, steps = self.settings, self.weights, self.steps
        self.canvas = padded_lines(canvas)
        self.encoder = Lstm(self.native, encoder_cell, steps, settings.matmul_dtype)
        self.decoder = Lstm(self.native, decoder_cell, steps, settings.matmul_dtype)
        self.rows[0, :, self.for_latent][:, :-1] = encoder_hidden
        self.rows[0, :, self.for_decoder][:, settings.latent : -1] = decoder_hidden
        self.states[0, :, :-1] = decoder_hidden
        for_encoder, for_latent, for_decoder = (
            self.rows[..., part].unbind()
            for part in (self.for_encoder, self.for_latent, self.for_decoder)
        )
        encoder_weight, latent_weight, decoder_weight = (
            weights.encoder.t(),
            weights.latent.t(),
            weights.decoder.t(),
        )
        constant = 0 if self.constant is None else self.constant.data_ptr()
        last_encoder = canvas.new_empty(self.batch, settings.units)
        sums = self.rows.new_empty(self.batch, 2 * settings.latent)
        mu, log_sigma = torch.empty_like(self.noise), torch.empty_like(self.noise)
        at_mu, at_log_sigma, at_noise = (
            addresses(tensor.transpose(0, 1), steps) for tensor in (mu, log_sigma, self.noise)
        )
        stride, state_stride = steps * settings.latent, self.states.stride(1)
        self._choose(0)
        for t in range(steps):
            self._read(t)
            self.encoder.step(
                t, for_encoder[t], encoder_weight, last_encoder.data_ptr(), settings.units,
                self.at_encoder[t + 1], self.row_stride, constant,
            )  # fmt: skip
            torch.mm(for_latent[t + 1], latent_weight, out=sums)
            self.native.latent_forward(
                self.batch, settings.latent, self.rounded, sums.data_ptr(), at_noise[t], at_mu[t],
                at_log_sigma[t], stride, self.at_spreads[t], self.at_z[t], self.row_stride,
            )  # fmt: skip
            row = (self.at_decoder[t + 1], self.row_stride) if self.rounded else (0, 0)
            self.decoder.step(
                t, for_decoder[t], decoder_weight, self.at_states[t + 1], state_stride, *row
            )
            self._choose(t + 1)
            self._write(t)
        states = (
            last_encoder,
            self.encoder.cells[-1],
            self.states[-1, :, :-1],
            self.decoder.cells[-1],
        )
        return self.canvas[..., : settings.width], *states, mu, log_sigma

    def _choose(self, state: int) -> None:
        """Choose the patch to write and the windows' numbers from a state of the decoder."""
        if self.choices is not None:
            torch.mm(self.states[state], self.choices.t(), out=self.numbers[state])

    def _read(self, t: int) -> None:
        """Read ``r_t`` into its place in the row."""
        settings, canvas, target = (
            self.settings,
            self.canvas.data_ptr(),
            (self.at_read[t], self.row_stride, self.rounded),
        )
        if self.reading is None:
            self.native.error_forward(
                self.batch, settings.lines, settings.width, self.images.data_ptr(), canvas,
                self.at_sigmoids[t], *target,
            )  # fmt: skip
            return
        self.native.read_forward(
            self.reading.map.address, self.batch, settings.channels, self.images.data_ptr(), 0,
            canvas, self.at_sigmoids[t], self.at_read_numbers[t], self.number_stride,
            *self.reading.at(t), *target,
        )  # fmt: skip

    def _write(self, t: int) -> None:
        """Add what step t writes to the canvas."""
        settings = self.settings
        if self.writing is None:
            assert self.weights.canvas is not None
            drawing = torch.mm(
                self.rows[t + 1, :, settings.latent : settings.latent + settings.units + 1],
                self.weights.canvas.t(),
            )
            self.native.canvas_add(
                self.batch,
                settings.lines,
                settings.width,
                drawing.data_ptr(),
                self.rounded,
                self.canvas.data_ptr(),
            )
            return
        x, y, across, _ = self.writing.at(t)
        self.native.write_forward(
            self.writing.map.address, self.batch, settings.channels, self.at_numbers[t + 1],
            self.at_write_numbers[t + 1], self.number_stride, x, y, across, self.canvas.data_ptr(),
        )  # fmt: skip

    # -- backward

    def backward(
        self,
        into_canvas,
        into_encoder,
        into_encoder_cell,
        into_decoder,
        into_decoder_cell,
        into_mu,
        into_log_sigma,
    ):
        """Return the gradients of the canvas and states at the start, and of the weights."""
        settings, weights, steps, batch = self.settings, self.weights, self.steps, self.batch
        back = _Gradients(self)
        into_canvas = padded_lines(into_canvas)
        into_encoder, into_encoder_cell, full, into_decoder_cell = (
            into.clone(memory_format=torch.contiguous_format)  # to be written to
            for into in (into_encoder, into_encoder_cell, into_decoder, into_decoder_cell)
        )
        into_encoder_input = self.rows.new_empty(
            batch, weights.encoder.shape[1]
        )  # [h_dec, 1, read, h_enc]
        into_decoder_input = self.rows.new_empty(batch, weights.decoder.shape[1])  # [z, h_dec, 1]
        into_latent = self.rows.new_empty(batch, settings.units)
        into_writer = self.rows.new_empty(batch, settings.units)
        stride, read = into_encoder_input.shape[1], settings.units + 1
        from_encoder_input, into_read, earlier = (
            (into_encoder_input[:, first:].data_ptr(), stride)
            for first in (0, read, stride - settings.units)
        )
        into_z, from_decoder_input = (
            (into_decoder_input[:, first:].data_ptr(), into_decoder_input.shape[1])
            for first in (0, settings.latent)
        )
        into_mu, into_log_sigma = into_mu.contiguous(), into_log_sigma.contiguous()
        at_mu, at_log_sigma = (
            addresses(tensor.transpose(0, 1), steps) for tensor in (into_mu, into_log_sigma)
        )
        latent_weight = weights.latent[:, :-1]
        # where the gradients of the states come from the step after
        later: list[tuple[int, int]] = []
        later_encoder: list[tuple[int, int]] = []
        full_encoder = into_encoder.data_ptr()
        for t in reversed(range(steps)):
            sources = [*later, *self._write_backward(t, into_canvas, back, into_writer)]
            into_state = self._choose_backward(t + 1, back, full, first=t == steps - 1)
            self.decoder.backward(t, into_state, sources, into_decoder_cell, back.at_decoder[t])
            torch.mm(back.decoder[t], weights.decoder, out=into_decoder_input)
            self.native.latent_backward(
                batch, settings.latent, self.rounded, *into_z, at_mu[t], at_log_sigma[t], steps *
                settings.latent, self.at_spreads[t], back.at_latent[t],
            )  # fmt: skip
            torch.mm(back.latent[t], latent_weight, out=into_latent)
            from_latent = (into_latent.data_ptr(), settings.units)
            self.encoder.backward(
                t,
                full_encoder,
                [from_latent, *later_encoder],
                into_encoder_cell,
                back.at_encoder[t],
            )
            torch.mm(back.encoder[t], weights.encoder, out=into_encoder_input)
            self._read_backward(t, into_read, into_canvas, back)
            later, later_encoder, full_encoder = (
                [from_decoder_input, from_encoder_input],
                [earlier],
                0,
            )
        start = (
            into_decoder_input[:, settings.latent : -1] + into_encoder_input[:, : settings.units]
        ).to(self.dtype)
        if self.choices is not None:
            if self.writing is not None:  # the state before the first step writes nothing
                back.choices[0, :, : settings.written] = 0
                back.choices[0, :, -NUMBERS:] = 0
            start = torch.addmm(start, back.choices[0], self.choices[:, :-1])
        into_encoder = into_encoder_input[:, stride - settings.units :].to(self.dtype)
        starts = (
            into_canvas[..., : settings.width],
            into_encoder,
            into_encoder_cell,
            start,
            into_decoder_cell,
        )
        return starts, self._into_weights(back)

    def _write_backward(
        self, t: int, into_canvas: Tensor, back: "_Gradients", into_writer: Tensor
    ) -> list[tuple[int, int]]:
        """Compute the gradients of the patch and window that step t wrote, or of the state that
        wrote without a window; return where the latter is.
        """
        settings = self.settings
        if self.writing is None:
            assert self.weights.canvas is not None
            size = (self.batch, settings.lines, settings.width)
            self.native.canvas_pack(
                *size, into_canvas.data_ptr(), self.rounded, back.canvas[t].data_ptr()
            )
            torch.mm(back.canvas[t], self.weights.canvas[:, :-1], out=into_writer)
            return [(into_writer.data_ptr(), settings.units)]
        x, y, across, _ = self.writing.at(t)
        self.native.write_backward(
            self.writing.map.address, self.batch, settings.channels, self.at_numbers[t + 1],
            self.at_write_numbers[t + 1], self.number_stride, x, y, across, into_canvas.data_ptr(),
            back.at_choices[t + 1], back.at_write_numbers[t + 1], self.number_stride,
        )  # fmt: skip
        return []

    def _choose_backward(self, state: int, back: "_Gradients", full: Tensor, first: bool) -> int:
        """Return the address of the gradient that a state receives from what it chose (and, at the
        first step back, from outside), or 0.
        """
        if self.choices is None:
            return full.data_ptr() if first else 0
        if first:
            if self.reading is not None:  # the last state reads nothing
                back.choices[state, :, self.settings.written : self.settings.written + NUMBERS] = 0
            full.addmm_(back.choices[state], self.choices[:, :-1])
        else:
            torch.mm(back.choices[state], self.choices[:, :-1], out=full)
        return full.data_ptr()

    def _read_backward(
        self, t: int, into_read: tuple[int, int], into_canvas: Tensor, back: "_Gradients"
    ) -> None:
        """Propagate from ``r_t`` to the canvas before step t, in place, and to the window."""
        settings, target = self.settings, (*into_read, self.rounded, into_canvas.data_ptr())
        if self.reading is None:
            self.native.error_backward(
                self.batch, settings.lines, settings.width, self.at_sigmoids[t], *target
            )
            return
        self.native.read_backward(
            self.reading.map.address, self.batch, settings.channels, self.images.data_ptr(), 0,
            self.at_sigmoids[t], self.at_read_numbers[t], self.number_stride, *self.reading.at(t),
            *target, back.at_read_numbers[t], self.number_stride,
        )  # fmt: skip

    def _into_weights(self, back: "_Gradients") -> _Weights:
        """Return the gradients of the weights. Each is one product over the T B rows of all steps,
        so it is rounded once.
        """
        rows, dtype, settings = self.rows, self.dtype, self.settings
        for_canvas = slice(settings.latent, settings.latent + settings.units + 1)
        image = None
        if self.weights.image is not None:
            total = back.encoder.sum(0, dtype=dtype).to(rows.dtype)
            image = (total.t() @ self.flat_images).to(dtype)
        return _Weights(
            encoder=weight_gradient(back.encoder, rows[:-1, :, self.for_encoder]).to(dtype),
            image=image,
            decoder=weight_gradient(back.decoder, rows[:-1, :, self.for_decoder]).to(dtype),
            latent=weight_gradient(back.latent, rows[1:, :, self.for_latent]).to(dtype),
            choices=None if self.choices is None else weight_gradient(back.choices, self.states),
            canvas=None
            if self.weights.canvas is None
            else weight_gradient(back.canvas, rows[1:, :, for_canvas]).to(dtype),
        )


class _Gradients:
    """Storage for what the backward pass collects for the gradients of the weights."""

    def __init__(self, tape: _Tape):
        settings, steps, batch = tape.settings, tape.steps, tape.batch
        rounded: Any = {"dtype": settings.matmul_dtype}
        self.encoder = torch.empty(steps, batch, 4 * settings.units, **rounded)
        self.decoder = torch.empty_like(self.encoder)
        self.latent = torch.empty(steps, batch, 2 * settings.latent, **rounded)
        self.at_encoder, self.at_decoder, self.at_latent = (
            addresses(t, steps) for t in (self.encoder, self.decoder, self.latent)
        )
        if tape.weights.canvas is not None:
            self.canvas = torch.empty(steps, batch, len(tape.weights.canvas), **rounded)
        if tape.choices is not None:
            self.choices = torch.empty_like(tape.numbers)
            self.at_choices = addresses(self.choices, steps + 1)
            self.at_read_numbers, self.at_write_numbers = tape._windows_of(self.choices)
