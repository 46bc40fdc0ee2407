"""The recurrence of DRAW as one autograd function: same numbers, same gradients, faster on a CPU.

:class:`drawbench.models.draw.Draw` and :class:`drawbench.models.aligndraw.AlignDraw` are the
reference, written to be read; this is the same computation written to be trained, forward and
backward by hand. What stands outside the recurrence, reading a caption and the learned prior, is
done by the model's own methods. What makes it faster:

- Everything that a product with weights takes in lies in one row per step and image, ``[s, z,
  h_dec, 1, read, h_enc, 1]``, where s, of a model with captions, is the sum of the words that it
  attends to: each product reads a stretch of it, the ones carry the biases, and the gradient of a
  weight is one product over the rows of all steps.
- Everything between the products, gates and windows, is done in C, one image at a time
  (:mod:`drawbench.fast.native`).
- Each core takes a share of the images through all steps.
- The products with weights may run in bfloat16 (``matmul_dtype``); states, windows, filters and
  the canvas never do.
- Without attention the image is the same at every step, and so is its part of the encoder's
  product.

Symbols: B images, C channels, H rows, W columns, N the side of a patch, T steps, Z latents, U units
of an LSTM, V windows of a state (0 to 2), M numbers that a state chooses for its windows, for the
patch that is written through one, and to ask for words. R numbers are read in a step. S numbers
stand for a word (0 without captions), A for its key.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drawbench import attention
from drawbench.fast.native.build import Kernels, addresses, padded_lines
from drawbench.fast.native.parts import (
    Joined,
    Lstm,
    Piece,
    Side,
    all_of,
    repeated,
    weight_gradient,
)
from drawbench.fast.native.shards import in_parallel, shares
from drawbench.fast.pixels import Pixels
from drawbench.fast.words import Words
from drawbench.likelihood import Gaussian
from drawbench.models.common import as_images, collect
from drawbench.models.draw import Draw, Drawing, DrawState, check_images, check_noise
from drawbench.models.glimpse import State

NUMBERS = len(attention.PARAMETERS)
STATES = 5  # tensors that a step passes to the next: canvas; hidden and cell of two LSTMs


def fast_drawing(
    model: Draw,
    native: Kernels,
    matmul_dtype: torch.dtype,
    images: Tensor,
    noise: Tensor,
    condition: Tensor | None = None,
    segment: int | None = None,
) -> Drawing:
    """Compute ``model(images, noise, condition)`` with gradients to every parameter of the model.

    Args:
        model: its parameters must be on the CPU, float32 or float64.
        native: kernels for that dtype.
        matmul_dtype: of the matrix products with weights: that dtype or bfloat16.
        images: (B, C, H, W), uint8 or in [0, 1]. No gradient flows to them.
        noise: (B, T, Z), standard normal, fresh for every step. No gradient flows to it.
        condition: the captions of a model that draws from captions, (B, K).
        segment: as for :func:`drawbench.fast.forward_for`.

    Returns:
        The drawing, without windows and canvases.

    Raises:
        ValueError: images, noise or captions have another shape.
    """
    check_noise(noise, model.steps, model.latent)
    check_images(images, noise, model.size)
    dtype, kind = model.start_canvas.dtype, (model, native, matmul_dtype)
    recompute = segment is not None and segment < model.steps
    images, keep = as_images(images, dtype=dtype), torch.is_grad_enabled() and not recompute
    posteriors, hidden = [], []
    with torch.autocast(images.device.type, enabled=False):
        start = model.start(len(images), condition)
        state = (start.canvas, *start.encoder, *start.decoder)
        told = () if start.condition is None else start.condition
        parameters = _parameters(model)
        for part in noise.to(dtype).split(segment or model.steps, dim=1):
            *state, mu, log_sigma, states = _Recurrence.apply(
                kind, tuple(parameters), keep, images, part, *told, *state, *parameters.values()
            )
            posteriors.append(Gaussian(mu, log_sigma))
            hidden.append(states)
        prior = _prior(model, start, torch.cat(hidden, 1)) if told else None
        likelihood = model.likelihood(state[0])
    return Drawing(likelihood, collect(posteriors, torch.cat), prior)


def _prior(model: Draw, start: DrawState, hidden: Tensor) -> Gaussian:
    """Return the prior (B, T, Z) of all steps, given the state before the first, and the decoder's
    after each, (B, T, U).
    """
    before = hidden[:, :-1].flatten(0, 1)
    # A step's prior is chosen by the decoder's state before it, and by there having been one.
    later: Any = model.prior(start._replace(decoder=State(before, before), attended=before))
    first: Any = model.prior(start)
    later = Gaussian(*(part.unflatten(0, (len(hidden), -1)) for part in later))
    return collect([Gaussian(*(part[:, None] for part in first)), later], torch.cat)


_Kind = tuple[Draw, Kernels, torch.dtype]  # what is computed, and the dtype of its products


class _Weights(NamedTuple):
    """The model's weights, joined as the products need them, biases included; or their gradients,
    or which parameters they join.
    """

    #: (4U, U + 1 + R + U), from [h_dec, 1, read, h_enc]; R = 2 C N N, or C H W where whole images
    #: are read and only their error changes
    encoder: Any
    #: (4U, C H W), the encoder's part for the image where it is not read through a window
    image: Any
    decoder: Any  #: (4U, S + Z + U + 1), from [s, z, h_dec, 1]
    latent: Any  #: (2Z, U + 1), from [h_enc, 1] to [mu, log_sigma]
    #: (M, U + 1), from [h_dec, 1] to the patch to write, the windows' numbers, reading first, and
    #: the query to the words; never rounded
    choices: Any
    #: (C H W, U + 1), from [h_dec, 1] to what is added to the canvas where no window writes
    canvas: Any
    score: Any  #: (1, A), from the agreement of key and query to a word's score; never rounded
    log_scale: Any  #: (C, 1), of logistic pixels; never rounded


def _joined(model: Draw) -> _Weights:
    """Return which parameters each of the weights joins, by the names of :func:`_parameters`."""
    units = model.decoder.hidden_size

    def with_bias(name: str) -> list[Piece]:
        return [(f"{name}.weight", all_of), (f"{name}.bias", all_of)]

    def columns(first: int, end: int | None, cell: str = "encoder") -> Piece:
        return f"{cell}.weight_ih", lambda weight: weight[:, first:end]

    state, end = columns(-units, None), model.encoder.input_size - units
    half = end // 2 if model.read_patch is None else 0
    choices = [] if model.write_patch is None else ["to_patch"]
    choices += [] if model.to_read_window is None else ["to_read_window"]
    choices += [] if model.to_write_window is None else ["to_write_window"]
    choices += ["to_query"] if model.conditional else []
    encoder = [state, ("encoder.bias", all_of), columns(half, end), ("encoder.weight_hh", all_of)]
    words = [columns(model.latent, None, "decoder")] if model.conditional else []
    latent = columns(0, model.latent, "decoder")
    decoder = [latent, ("decoder.weight_hh", all_of), ("decoder.bias", all_of)]
    return _Weights(
        encoder=Joined(encoder),
        image=Joined([columns(0, half)]) if half else None,
        decoder=Joined([*words, *decoder]),
        latent=Joined(with_bias("to_mu"), with_bias("to_log_sigma")),
        choices=Joined(*map(with_bias, choices)) if choices else None,
        canvas=Joined(with_bias("to_patch")) if model.write_patch is None else None,
        score=Joined([("to_score.weight", all_of)]) if model.conditional else None,
        log_scale=None if model.log_scale is None else Joined([("log_scale", all_of)]),
    )


def _parameters(model: Draw) -> dict[str, Tensor]:
    """Return the parameters of the products by name; the two biases of an LSTM act as their sum."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    for cell in ("encoder", "decoder"):
        named[f"{cell}.bias"] = named.pop(f"{cell}.bias_ih") + named.pop(f"{cell}.bias_hh")
    if model.conditional:  # the key of a word has the bias for both
        query = named["to_query.weight"]
        named["to_query.bias"] = query.new_zeros(len(query))
    rows = [row for joined in _joined(model) if joined is not None for row in joined.rows]
    return {name: named[name] for name in dict.fromkeys(name for row in rows for name, _ in row)}


class _Recurrence(torch.autograd.Function):
    """Some steps in one function, forward, and backward through time.

    From images (B, C, H, W), noise (B, T, Z), the words and keys of captions (B, K, S) and
    (B, K, A), if there are any, canvas and LSTM states before the first step, and parameters
    (``names``), to canvas and states after the last, mu and log sigma (B, T, Z), and, with
    captions, the decoder's state after each step (B, T, U), else an empty tensor. Unless ``keep``,
    nothing is kept for a backward pass but these inputs.
    """

    @staticmethod
    def forward(ctx, kind, names, keep, *inputs):
        ctx.kind, ctx.names = kind, names
        batch = len(inputs[0])
        ctx.parts = shares(batch) if kind[1].shared else [slice(0, batch)]
        ctx.tapes, outputs = _pass(kind, names, ctx.parts, keep, *inputs)
        ctx.parameters = inputs[-len(names) :]
        if not keep:
            ctx.tapes = None
            ctx.save_for_backward(*inputs)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        with torch.autocast(ctx.parameters[0].device.type, enabled=False):
            kept, saved = ctx.tapes, ctx.saved_tensors
            tapes = kept or _pass(ctx.kind, ctx.names, ctx.parts, True, *saved)[0]
            jobs = [
                partial(tape.backward, *(part[share] for part in gradients))
                for tape, share in zip(tapes, ctx.parts, strict=True)
            ]
            starts, weights = zip(*in_parallel(jobs), strict=True)
        into_starts = (torch.cat(pieces) for pieces in zip(*starts, strict=True))
        into = dict(zip(ctx.names, map(torch.empty_like, ctx.parameters), strict=True))
        for joined, pieces in zip(_joined(ctx.kind[0]), zip(*weights, strict=True), strict=True):
            if joined is not None:
                joined.unpack(pieces, into)
        return None, None, None, None, None, *into_starts, *into.values()


def _pass(kind: _Kind, names, parts: list[slice], keep: bool, images, noise, *rest: Tensor):
    """Take all shares of a batch forward; return their tapes, and their outputs joined."""
    model, _, matmul_dtype = kind
    given, parameters = rest[: -len(names)], dict(zip(names, rest[-len(names) :], strict=True))
    told, state = given[:-STATES], given[-STATES:]
    joined = _joined(model)
    # What chooses windows stays in full precision: bfloat16 cannot tell pixel 14 from 14.04.
    full = dict.fromkeys(("choices", "score", "log_scale"), images.dtype)
    dtypes = _Weights(*[matmul_dtype] * len(joined))._replace(**full)
    weights = _Weights._make(
        None if one is None else one.pack(parameters, dtype)
        for one, dtype in zip(joined, dtypes, strict=True)
    )
    tapes = [
        _Tape(
            *kind, images[part], noise[part].contiguous(), [one[part] for one in told], weights,
            len(images), keep,
        )
        for part in parts
    ]  # fmt: skip
    jobs = [
        partial(tape.forward, *(tensor[part] for tensor in state))
        for tape, part in zip(tapes, parts, strict=True)
    ]
    return tapes, tuple(torch.cat(pieces) for pieces in zip(*in_parallel(jobs), strict=True))


class _Tape:
    """The forward pass of a share of the images, what it keeps, and the backward pass.

    ``rows[t]`` holds the input of step t: ``[s, z, h_dec, 1, read, h_enc, 1]``, with the states
    before the step.
    """

    def __init__(
        self, model: Draw, native, matmul_dtype, images, noise, told, weights, whole, keep
    ):
        self.native, self.matmul_dtype, self.dtype = native, matmul_dtype, images.dtype
        self.noise, self.weights, self.choices = noise, weights, weights.choices
        batch, steps, latent = noise.shape
        self.keep, places = keep, steps if keep else 1
        units = model.decoder.hidden_size
        self.batch, self.steps, self.units, self.latent = batch, steps, units, latent
        self.channels, height, self.width = model.size
        self.lines = self.channels * height
        self.written = self.channels * (model.write_patch or 0) ** 2  # numbers in a written patch
        self.rounded = int(matmul_dtype == torch.bfloat16)
        self.images = padded_lines(images)
        read = weights.encoder.shape[1] - 2 * units - 1
        self.told = weights.decoder.shape[1] - latent - units - 1
        decoder = self.told + latent  # where the decoder's state begins
        start = decoder + units + 1  # where what was read begins
        self.row_stride = start + read + units + 1
        self.rows = images.new_empty(places + keep, batch, self.row_stride, dtype=matmul_dtype)
        self.rows[..., start - 1] = self.rows[..., -1] = 1
        self.rows = repeated(self.rows, steps + 1)
        self.for_decoder, self.for_encoder = slice(0, start), slice(decoder, -1)
        self.for_latent, self.for_canvas = slice(start + read, None), slice(decoder, start)
        # The decoder's states and a 1, (T + 1, B, U + 1), never rounded. The prior of a model with
        # captions needs those of all steps.
        self.states, self.apart = self.rows[..., self.for_canvas], self.rounded or self.told
        if self.apart:
            count = steps + 1 if self.told else places + keep
            self.states = images.new_empty(count, batch, units + 1)
            self.states[..., -1] = 1
            self.states = repeated(self.states, steps + 1)
        self.at_states = addresses(self.states, steps + 1)
        self.at_words, self.at_z, self.at_decoder, self.at_read, self.at_encoder = (
            addresses(self.rows[..., first:], steps + 1)
            for first in (0, self.told, decoder, start, start + read)
        )
        self.spreads = repeated(images.new_empty(places, batch, latent), steps)
        self.at_spreads = addresses(self.spreads, steps)
        self.constant = None  # (B, 4U), the image's part of the encoder's product
        if weights.image is not None:
            self.flat_images = images.flatten(1).to(matmul_dtype)
            self.constant = torch.mm(self.flat_images, weights.image.t()).to(images.dtype)
        self.reading = self.writing = None
        side = partial(
            Side, (height, self.width), count=steps, batch=batch,
            keep=keep, whole=whole, dtype=images.dtype, device=images.device,
            bounded=model.window_map == "bounded", clip=model.window_clip,
        )  # fmt: skip
        if model.read_patch is not None:
            self.reading = side(2 * self.channels, model.read_patch)
        if model.write_patch is not None:
            self.writing = side(self.channels, model.write_patch)
        if self.choices is not None:
            self.number_stride = len(self.choices)
            self.numbers = images.new_empty(places + keep, batch, self.number_stride)
            self.numbers = repeated(self.numbers, steps + 1)
            self.at_read_numbers, self.at_write_numbers = self._windows_of(self.numbers)
            self.at_numbers = addresses(self.numbers, steps + 1)
        self.words = None
        if told:
            words, keys = told
            self.words = Words(native, self.rounded, words, keys, weights.score, steps, keep)
            # The query stands at the end of the numbers.
            self.asked = self.number_stride - weights.score.numel()
            self.at_queries = addresses(self.numbers[..., self.asked :], steps + 1)

    def _windows_of(self, numbers: Tensor) -> tuple[list[int], list[int]]:
        """Return where the numbers of read and write windows begin in (T + 1, B, M)."""
        first = self.written + (NUMBERS if self.reading is not None else 0)
        self.written_window = slice(first, first + NUMBERS)
        read, write = (numbers[..., first:] for first in (self.written, first))
        return addresses(read, len(numbers)), addresses(write, len(numbers))

    # -- forward

    def forward(
        self, canvas, encoder_hidden, encoder_cell, decoder_hidden, decoder_cell
    ) -> tuple[Tensor, ...]:
        """Return what :class:`_Recurrence` does."""
        weights, steps, latent = self.weights, self.steps, self.latent
        self.canvas = padded_lines(canvas)
        self.pixels = Pixels(self.native, self.canvas, weights.log_scale, steps, self.keep)
        self.encoder = Lstm(self.native, encoder_cell, steps, self.matmul_dtype, self.keep)
        self.decoder = Lstm(self.native, decoder_cell, steps, self.matmul_dtype, self.keep)
        self.rows[0, :, self.for_latent][:, :-1] = encoder_hidden
        self.rows[0, :, self.for_canvas][:, :-1] = decoder_hidden
        self.states[0, :, :-1] = decoder_hidden
        for_encoder, for_latent, for_decoder = (
            self.rows[..., part].unbind()
            for part in (self.for_encoder, self.for_latent, self.for_decoder)
        )
        encoder_weight, latent_weight = weights.encoder.t(), weights.latent.t()
        decoder_weight = weights.decoder.t()
        constant = 0 if self.constant is None else self.constant.data_ptr()
        last_encoder = canvas.new_empty(self.batch, self.units)
        sums = self.rows.new_empty(self.batch, 2 * latent)
        mu, log_sigma = torch.empty_like(self.noise), torch.empty_like(self.noise)
        at_mu, at_log_sigma, at_noise = (
            addresses(tensor.transpose(0, 1), steps) for tensor in (mu, log_sigma, self.noise)
        )
        stride, state_stride = steps * latent, self.states.stride(1)
        self._choose(0)
        for t in range(steps):
            self._read(t)
            self.encoder.step(
                t, for_encoder[t], encoder_weight, last_encoder.data_ptr(), self.units,
                self.at_encoder[t + 1], self.row_stride, constant,
            )  # fmt: skip
            torch.mm(for_latent[t + 1], latent_weight, out=sums)
            self.native.latent_forward(
                self.batch, latent, self.rounded, sums.data_ptr(), at_noise[t], at_mu[t],
                at_log_sigma[t], stride, self.at_spreads[t], self.at_z[t], self.row_stride,
            )  # fmt: skip
            if self.words is not None:
                self.words.forward(
                    t, self.at_queries[t], self.number_stride, self.at_words[t], self.row_stride
                )
            row = (self.at_decoder[t + 1], self.row_stride) if self.apart else (0, 0)
            self.decoder.step(
                t, for_decoder[t], decoder_weight, self.at_states[t + 1], state_stride, *row
            )
            self._choose(t + 1)
            self._write(t)
        canvas, hidden = self.canvas[..., : self.width], self.states[-1, :, :-1]
        cells = self.encoder.cells[-1], self.decoder.cells[-1]
        seen = self.states[1:, :, :-1].transpose(0, 1) if self.told else hidden[:, :0]
        return canvas, last_encoder, cells[0], hidden, cells[1], mu, log_sigma, seen

    def _choose(self, state: int) -> None:
        """Choose the patch to write and the windows' numbers from a state of the decoder."""
        if self.choices is not None:
            torch.mm(self.states[state], self.choices.t(), out=self.numbers[state])

    def _read(self, t: int) -> None:
        """Read ``r_t`` into its place in the row."""
        means, target = self.pixels.forward(t), (self.at_read[t], self.row_stride, self.rounded)
        if self.reading is None:
            self.native.error_forward(
                self.batch, self.lines, self.width, self.images.data_ptr(), means, *target
            )
            return
        self.native.read_forward(
            self.reading.map, self.batch, self.channels, self.images.data_ptr(), 0,
            means, self.at_read_numbers[t], self.number_stride, *self.reading.at(t), *target,
        )  # fmt: skip

    def _write(self, t: int) -> None:
        """Add what step t writes to the canvas."""
        if self.writing is None:
            drawing = torch.mm(self.rows[t + 1, :, self.for_canvas], self.weights.canvas.t())
            self.native.canvas_add(
                self.batch, self.lines, self.width, drawing.data_ptr(), self.rounded,
                self.canvas.data_ptr(),
            )  # fmt: skip
            return
        x, y, across, _ = self.writing.at(t)
        self.native.write_forward(
            self.writing.map, self.batch, self.channels, self.at_numbers[t + 1],
            self.at_write_numbers[t + 1], self.number_stride, x, y, across, self.canvas.data_ptr(),
        )  # fmt: skip

    # -- backward

    def backward(self, into_canvas, *into) -> tuple[tuple[Tensor, ...], _Weights]:
        """Return the gradients of what the captions say, canvas and states at the start, and those
        of the weights, given those of what :meth:`forward` returned.
        """
        weights, steps, batch, units = self.weights, self.steps, self.batch, self.units
        back = _Gradients(self)
        into_canvas = padded_lines(into_canvas)
        into_encoder, into_encoder_cell, full, into_decoder_cell = (
            state.clone(memory_format=torch.contiguous_format)  # to be written to
            for state in into[:4]
        )
        into_mu, into_log_sigma = (tensor.contiguous() for tensor in into[4:6])
        at_mu, at_log_sigma = (
            addresses(tensor.transpose(0, 1), steps) for tensor in (into_mu, into_log_sigma)
        )
        # [h_dec, 1, read, h_enc] and [s, z, h_dec, 1]
        into_encoder_input = self.rows.new_empty(batch, weights.encoder.shape[1])
        into_decoder_input = self.rows.new_empty(batch, weights.decoder.shape[1])
        into_latent, into_writer = self.rows.new_empty(2, batch, units)
        stride = into_encoder_input.shape[1]
        from_encoder_input, into_read, earlier = (
            (into_encoder_input[:, first:].data_ptr(), stride)
            for first in (0, units + 1, stride - units)
        )
        into_words, into_z, from_decoder_input = (
            (into_decoder_input[:, first:].data_ptr(), into_decoder_input.shape[1])
            for first in (0, self.told, self.told + self.latent)
        )
        latent_weight = weights.latent[:, :-1]
        # where the gradients of the states come from the step after
        later: list[tuple[int, int]] = []
        later_encoder: list[tuple[int, int]] = []
        from_latent, full_encoder = (into_latent.data_ptr(), units), into_encoder.data_ptr()
        for t in reversed(range(steps)):
            sources = [*later, *self._write_backward(t, into_canvas, back, into_writer)]
            into_state = self._choose_backward(t + 1, back, full, first=t == steps - 1)
            if self.words is not None:
                full += into[-1][:, t]
            self.decoder.backward(t, into_state, sources, into_decoder_cell, back.at_decoder[t])
            torch.mm(back.decoder[t], weights.decoder, out=into_decoder_input)
            if self.words is not None:
                self.words.backward(
                    t, self.at_queries[t], *into_words, back.at_queries[t], self.number_stride,
                    back.told,
                )  # fmt: skip
            self.native.latent_backward(
                batch, self.latent, self.rounded, *into_z, at_mu[t], at_log_sigma[t],
                steps * self.latent, self.at_spreads[t], back.at_latent[t],
            )  # fmt: skip
            torch.mm(back.latent[t], latent_weight, out=into_latent)
            sources = [from_latent, *later_encoder]
            self.encoder.backward(t, full_encoder, sources, into_encoder_cell, back.at_encoder[t])
            torch.mm(back.encoder[t], weights.encoder, out=into_encoder_input)
            self._read_backward(t, into_read, into_canvas, back)
            later, later_encoder, full_encoder = (
                [from_decoder_input, from_encoder_input],
                [earlier],
                0,
            )
        start = into_decoder_input[:, -units - 1 : -1] + into_encoder_input[:, :units]
        start = start.to(self.dtype)
        if self.choices is not None:
            if self.writing is not None:  # the state before the first step writes nothing
                back.choices[0, :, : self.written] = 0
                back.choices[0, :, self.written_window] = 0
            start = torch.addmm(start, back.choices[0], self.choices[:, :-1])
        into_canvas = into_canvas[..., : self.width]
        into_encoder = into_encoder_input[:, stride - units :].to(self.dtype)
        starts = (
            *back.told[:2],
            into_canvas,
            into_encoder,
            into_encoder_cell,
            start,
            into_decoder_cell,
        )
        return starts, self._into_weights(back)

    def _write_backward(self, t, into_canvas, back, into_writer) -> list[tuple[int, int]]:
        """Compute the gradients of the patch and window that step t wrote, or of the state that
        wrote without a window; return where the latter is.
        """
        if self.writing is None:
            size, target = (self.batch, self.lines, self.width), back.canvas[t]
            self.native.canvas_pack(*size, into_canvas.data_ptr(), self.rounded, target.data_ptr())
            torch.mm(target, self.weights.canvas[:, :-1], out=into_writer)
            return [(into_writer.data_ptr(), self.units)]
        x, y, across, _ = self.writing.at(t)
        self.native.write_backward(
            self.writing.map, self.batch, self.channels, self.at_numbers[t + 1],
            self.at_write_numbers[t + 1], self.number_stride, x, y, across, into_canvas.data_ptr(),
            back.at_choices[t + 1], back.at_write_numbers[t + 1], self.number_stride,
        )  # fmt: skip
        return []

    def _choose_backward(self, state, back, full, first) -> int:
        """Return the address of the gradient that a state receives from what it chose (and, at the
        first step back, from outside), or 0.
        """
        if self.choices is None:
            return full.data_ptr() if first else 0
        if first:
            if self.reading is not None:  # the last state reads nothing
                back.choices[state, :, self.written : self.written + NUMBERS] = 0
            if self.words is not None:  # and asks for no words
                back.choices[state, :, self.asked :] = 0
            full.addmm_(back.choices[state], self.choices[:, :-1])
        else:
            torch.mm(back.choices[state], self.choices[:, :-1], out=full)
        return full.data_ptr()

    def _read_backward(self, t, into_read, into_canvas, back) -> None:
        """Propagate from ``r_t`` to the canvas before step t, in place, and to the window."""
        means, into_means = self.pixels.at[t], back.means.data_ptr()
        if self.reading is None:
            size = (self.batch, self.lines, self.width)
            self.native.error_backward(*size, *into_read, self.rounded, into_means)
        else:
            self.native.read_backward(
                self.reading.map, self.batch, self.channels, self.images.data_ptr(), 0,
                means, self.at_read_numbers[t], self.number_stride, *self.reading.at(t),
                *into_read, self.rounded, into_means, back.at_read_numbers[t], self.number_stride,
            )  # fmt: skip
        self.pixels.backward(t, into_means, into_canvas.data_ptr(), back.log_scale)

    def _into_weights(self, back: "_Gradients") -> _Weights:
        """Return the gradients of the weights. Each is one product over the T B rows of all steps,
        so it is rounded once.
        """
        rows, image, canvas = self.rows, None, None
        if self.weights.image is not None:
            total = back.encoder.sum(0, dtype=self.dtype).to(rows.dtype)
            image = total.t() @ self.flat_images
        if self.weights.canvas is not None:
            canvas = weight_gradient(back.canvas, rows[1:, :, self.for_canvas])
        return _Weights(
            encoder=weight_gradient(back.encoder, rows[:-1, :, self.for_encoder]),
            image=image,
            decoder=weight_gradient(back.decoder, rows[:-1, :, self.for_decoder]),
            latent=weight_gradient(back.latent, rows[1:, :, self.for_latent]),
            choices=None if self.choices is None else weight_gradient(back.choices, self.states),
            canvas=canvas,
            score=back.told[2] if back.told else None,
            log_scale=back.log_scale,
        )


class _Gradients:
    """Storage for what the backward pass collects for the gradients of the weights."""

    def __init__(self, tape: _Tape):
        steps, empty = tape.steps, partial(tape.rows.new_empty, tape.steps, tape.batch)
        self.encoder, self.decoder = empty(4 * tape.units), empty(4 * tape.units)
        self.latent = empty(2 * tape.latent)
        self.at_encoder, self.at_decoder, self.at_latent = (
            addresses(t, steps) for t in (self.encoder, self.decoder, self.latent)
        )
        if tape.weights.canvas is not None:
            self.canvas = empty(len(tape.weights.canvas))
        if tape.choices is not None:
            self.choices = torch.empty_like(tape.numbers)
            self.at_choices = addresses(self.choices, steps + 1)
            self.at_read_numbers, self.at_write_numbers = tape._windows_of(self.choices)
        self.means = torch.empty_like(tape.canvas)  # of one step
        scale = tape.weights.log_scale
        self.log_scale = None if scale is None else torch.zeros_like(scale)
        self.told: tuple[Tensor, ...] = ()  # of words, keys and score
        if tape.words is not None:
            self.told = tuple(map(torch.zeros_like, tape.words.inputs))
            self.at_queries = addresses(self.choices[..., tape.asked :], steps + 1)
