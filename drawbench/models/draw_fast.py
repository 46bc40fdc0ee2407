"""The recurrence of DRAW as one autograd function: same numbers, same gradients, faster on a CPU.

:class:`drawbench.models.draw.Draw` is the reference, written to be read; this is the same computation written to be trained, forward
and backward by hand. What makes it faster:

- Everything that a product with weights takes in lies in one row per step and image, ``[z, h_dec, 1, read, h_enc, 1]``: each product
  reads a stretch of it, the ones carry the biases, and the gradient of a weight is one product over the rows of all the steps.
- The products with weights may run in bfloat16 (``products``); states, windows, filters and the canvas never do.
- The write window of a step and the read window of the next come from the same state, so their filters are made together: for
  patches this small, the time goes into calling functions, not into what they compute.
- Without attention the image is the same at every step, and so is its part of the encoder's product.

Symbols: B images, C channels, H rows, W columns, N the side of a patch, T steps, Z latents, U units of an LSTM, V windows of a state
(0 to 2), M numbers that a state chooses for its windows and the patch that is written through one. Inside, an image has its channels
side by side, (B, H, C W), and a patch is (B, N, C, N), so that one small product serves all channels.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drawbench import attention
from drawbench.models.draw import Draw, Drawing, check_images, check_noise
from drawbench.models.glimpse_fast import _double_candidate


def fast_drawing(model: Draw, images: Tensor, noise: Tensor, products: torch.dtype = torch.float32) -> Drawing:
    """What ``model(images, noise)`` is, for training: with gradients to every parameter of the model.

    Args:
        model: gives the parameters (float32 or float64) and the sizes.
        images: (B, C, H, W) in [0, 1]. No gradient flows to them.
        noise: (B, T, Z), standard normal, fresh for every step. No gradient flows to it.
        products: dtype of the matrix products with weights. ``torch.float32`` leaves them in the parameters' own precision;
            ``torch.bfloat16`` sums in float32 but rounds factors and results to 8 bits. Windows are float32 in either case.

    Returns:
        ``logits`` (B, C, H, W), ``mu`` and ``log_sigma`` (B, T, Z) in the parameters' dtype. Windows and canvases are not reported.

    Raises:
        ValueError: images or noise have another shape or ask for a gradient, or ``products`` is another dtype.
    """
    check_noise(noise, model.steps, model.latent)
    check_images(images, noise, model.size)
    if images.requires_grad or noise.requires_grad:
        raise ValueError("fast_drawing gives gradients to parameters only, but the images or the noise ask for one: use the model itself")
    dtype = model.start_canvas.dtype
    if products not in (torch.float32, torch.bfloat16, dtype):
        raise ValueError(f"products must be torch.float32 (the parameters' own precision) or torch.bfloat16, got {products}")
    settings = _Settings(
        *model.size,
        steps=model.steps,
        units=model.decoder.hidden_size,
        latent=model.latent,
        read_patch=model.read_patch,
        write_patch=model.write_patch,
        bounded=model.window_map == "bounded",
        window_clip=model.window_clip,
        products=products if products == torch.bfloat16 else dtype,
    )
    batch = len(images)
    states = (model.start_encoder_hidden, model.start_encoder_cell, model.start_decoder_hidden, model.start_decoder_cell)
    with torch.autocast(images.device.type, enabled=False):
        logits, mu, log_sigma = _Recurrence.apply(
            settings,
            images.to(dtype),
            noise.to(dtype),
            model.start_canvas.expand(batch, -1, -1, -1),
            *(state.expand(batch, -1) for state in states),
            *_pack(model),
        )
    return Drawing(logits, mu, log_sigma)


# The derivatives in one pass each: gradient times s (1 - s), and gradient times 1 - t^2.
_sigmoid_backward, _tanh_backward = torch.ops.aten.sigmoid_backward.grad_input, torch.ops.aten.tanh_backward.grad_input


class _Settings(NamedTuple):
    channels: int
    height: int
    width: int
    steps: int
    units: int
    latent: int
    read_patch: int | None
    write_patch: int | None
    bounded: bool
    window_clip: float | None
    products: torch.dtype

    @property
    def patches(self) -> list[int]:
        """N of each window of a state: the one that reads comes first."""
        return [patch for patch in (self.read_patch, self.write_patch) if patch is not None]


class _Weights(NamedTuple):
    """The model's weights, put together as the products want them, biases included."""

    encoder: Tensor  #: (4U, U + 1 + R + U), from [h_dec, 1, read, h_enc]; R = 2 C N N, or C H W where only the error is read anew
    image: Tensor | None  #: (4U, C H W), the encoder's part for the image where it is not read through a window
    decoder: Tensor  #: (4U, Z + U + 1), from [z, h_dec, 1]
    latent: Tensor  #: (2Z, U + 1), from [h_enc, 1] to [mu, log_sigma]
    choices: Tensor | None  #: (M, U + 1), from [h_dec, 1] to the patch to write and the windows' numbers
    canvas: Tensor | None  #: (C H W, U + 1), from [h_dec, 1] to what is added to the canvas where no window writes


def _pack(model: Draw) -> _Weights:
    """Weights and biases in the order of :class:`_Weights`; autograd undoes it for the gradients."""
    channels, height, width = model.size
    encoder, decoder, units = model.encoder, model.decoder, model.decoder.hidden_size
    seen, state = encoder.weight_ih.split([encoder.input_size - units, units], 1)
    side = (height, width) if model.read_patch is None else (model.read_patch, model.read_patch)
    image, error = (_side_by_side(part, (channels, *side)) for part in seen.chunk(2, 1))
    read = [error] if model.read_patch is None else [image, error]
    bias = (encoder.bias_ih + encoder.bias_hh)[:, None]
    to_patch = torch.cat([model.to_patch.weight, model.to_patch.bias[:, None]], 1).t()
    canvas, choices = None, []
    if model.write_patch is None:
        canvas = _side_by_side(to_patch, (channels, height, width)).t()
    else:
        choices.append(_side_by_side(to_patch, (channels, model.write_patch, model.write_patch)).t())
    for layer in (model.to_read_window, model.to_write_window):
        if layer is not None:
            choices.append(torch.cat([layer.weight, layer.bias[:, None]], 1))
    latent = [torch.cat([layer.weight, layer.bias[:, None]], 1) for layer in (model.to_mu, model.to_log_sigma)]
    return _Weights(
        encoder=torch.cat([state, bias, *read, encoder.weight_hh], 1),
        image=image if model.read_patch is None else None,
        decoder=torch.cat([decoder.weight_ih, decoder.weight_hh, (decoder.bias_ih + decoder.bias_hh)[:, None]], 1),
        latent=torch.cat(latent),
        choices=torch.cat(choices) if choices else None,
        canvas=canvas,
    )


def _side_by_side(weight: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(rows, C H W) with its columns in the order (H, C, W)."""
    return weight.unflatten(1, shape).transpose(1, 2).flatten(1)


class _Recurrence(torch.autograd.Function):
    """All T steps in one function: forward, and backward through time."""

    @staticmethod
    def forward(ctx, settings, images, noise, canvas, encoder_hidden, encoder_cell, decoder_hidden, decoder_cell, *weights):
        encoder, decoder = _Lstm(encoder_cell, settings.steps), _Lstm(decoder_cell, settings.steps)
        ctx.tape = _Tape(settings, images, _Weights(*weights), encoder, decoder)
        return ctx.tape.forward(noise, canvas, encoder_hidden, decoder_hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx, logits, mu, log_sigma):
        with torch.autocast(logits.device.type, enabled=False):
            return None, None, None, *ctx.tape.backward(logits, mu, log_sigma)


class _Lstm:
    """T steps of an LSTM after its product with weights, and the way back.

    All four gates go through one sigmoid: with ``tanh(a) = 2 sigmoid(2a) - 1``, which is several times cheaper than tanh itself, the
    candidate's weights are doubled instead (:func:`drawbench.models.glimpse_fast._double_candidate`).
    """

    def __init__(self, cell: Tensor, steps: int):
        batch, units = cell.shape
        gates = cell.new_empty(steps, batch, 4 * units)
        self.gates = gates.unbind()  # T of (B, 4U), sigmoids
        self.parts = [part.unbind() for part in gates.chunk(4, 2)]  # the four gates, T of (B, U) each
        cells = cell.new_empty(steps + 1, batch, units)
        cells[0] = cell
        self.cells = cells.unbind()
        self.squashed = cell.new_empty(steps, batch, units).unbind()  # tanh of the cell
        self.zero, self.minus_one = cell.new_tensor(0.0), cell.new_tensor(-1.0)
        self.into_gate = torch.empty_like(self.gates[0])
        self.into_parts = self.into_gate.chunk(4, 1)

    def step(self, t: int, hidden: Tensor) -> None:
        """From ``gates[t]`` before its sigmoid to the next state, put into ``hidden`` (B, U)."""
        self.gates[t].sigmoid_()
        enter, keep, candidate, leave = (part[t] for part in self.parts)
        cell, squashed = self.cells[t + 1], self.squashed[t]
        torch.mul(keep, self.cells[t], out=cell).sub_(enter).addcmul_(enter, candidate, value=2)
        torch.mul(cell, 2, out=squashed).sigmoid_()
        torch.add(self.minus_one, squashed, alpha=2, out=squashed)
        torch.mul(leave, squashed, out=hidden)

    def backward(self, t: int, into_hidden: Tensor, into_cell: Tensor) -> Tensor:
        """The gradient (B, 4U) of ``gates[t]`` before its sigmoid, used up at the next call; ``into_cell`` goes one step back in place."""
        enter, keep, candidate, leave = (part[t] for part in self.parts)
        squashed = self.squashed[t]
        into_enter, into_keep, into_candidate, into_leave = self.into_parts
        room = into_hidden * leave
        into_cell.add_(_tanh_backward(room, squashed, grad_input=room))
        torch.add(self.minus_one, candidate, alpha=2, out=room)
        torch.mul(into_cell, room, out=into_enter)
        torch.mul(into_cell, self.cells[t], out=into_keep)
        torch.addcmul(self.zero, into_cell, enter, value=2, out=into_candidate)
        torch.mul(into_hidden, squashed, out=into_leave)
        into_cell.mul_(keep)
        return _sigmoid_backward(self.into_gate, self.gates[t], grad_input=self.into_gate)


class _Bank(NamedTuple):
    """Filters of all windows of a state along axes of S pixels, one in each of R rows."""

    spread: Tensor  #: (R,), distance of the filter's centre from the grid's
    factor: Tensor  #: (R,), what a squared distance is multiplied with: -1 / (2 variance ln 2)
    distance: Tensor  #: (R, S), pixel minus filter centre
    logits: Tensor  #: (R, S), logarithm to base 2 of the filters before they were normalised; 0 at the peak of each row
    filters: Tensor  #: (R, S), F


class _Look(NamedTuple):
    """The windows of one state. The lists have an entry for each of its V windows."""

    banks: list[_Bank]
    x: list[Tensor]  #: (B, N, W), F_X
    y: list[Tensor]  #: (B, N, H), F_Y
    scale: list[Tensor]  #: (B, 1), gamma of a window that reads, 1 / gamma of one that writes


class _Axes:
    """The filters along axes of one length: which numbers each row of a :class:`_Bank` is made of."""

    def __init__(self, size: int, axes: tuple[int, ...], patches: list[int], batch: int, like: dict[str, Any]):
        self.size = size
        self.pixels = torch.arange(1, size + 1, **like)
        # A filter is never taken to be less than this logarithm (base 2) of its peak: far beyond rounding, yet so large that products
        # of filters and gradients stay clear of the subnormal numbers, on which arithmetic can be tens of times slower.
        self.floor = 2 * math.log2(torch.finfo(like["dtype"]).eps)
        numbers = len(attention.PARAMETERS)
        self.lengths = [batch * patch for patch in patches for _ in axes]  # of the stretches of rows, (B, N), for each window and axis
        sources, steps = [], []
        for window, patch in enumerate(patches):
            for axis in axes:
                first = (torch.arange(batch) * len(patches) + window) * numbers
                sources.append(first.repeat_interleave(patch) + torch.tensor([axis, 2, 3])[:, None])
                steps.append((torch.arange(1, patch + 1, **like) - patch / 2 - 0.5).repeat(batch))
        self.sources = torch.cat(sources, 1).flatten().to(like["device"])  # (3 R,): centre, variance and stride
        self.steps = torch.cat(steps)  # (R,), the filter's place in the grid, in strides

    def filters(self, values: Tensor) -> _Bank:
        """``2^logits``, where ``logits`` is 0 at the pixel nearest to the centre, from the values (B, V, 5) of :class:`_Windows`."""
        centre, factor, stride = values.view(-1).index_select(0, self.sources).view(3, -1)
        spread = stride * self.steps
        centre = centre + spread
        # The distance of the nearest pixel, by the same roundings as that pixel's own below: no logit is above 0, one is exactly 0.
        peak = (centre.round().clamp_(1, self.size) - centre).square_().mul_(factor)
        distance = self.pixels - centre[:, None]
        logits = (distance * distance).mul_(factor[:, None]).sub_(peak[:, None]).clamp_(min=self.floor)
        filters = logits.exp2()
        filters.div_(filters.sum(-1, keepdim=True))
        return _Bank(spread, factor, distance, logits, filters)

    def backward(self, bank: _Bank, into: Tensor, gradient: Tensor) -> None:
        """Add to the gradient (B, V, 5) what comes from that of the filters.

        Args:
            into: (R, S), gradient of the filters; used up.
            gradient: (B, V, 5), of the raw numbers, but for the factors of :meth:`_Windows.slope`.
        """
        into.sub_(torch.linalg.vecdot(bank.filters, into)[:, None]).mul_(bank.filters)
        sums = into.new_empty(3, len(into))
        torch.mul(torch.linalg.vecdot(into, bank.distance), bank.factor, out=sums[0])
        sums[1] = torch.linalg.vecdot(into, bank.logits)
        torch.mul(sums[0], bank.spread, out=sums[2])
        gradient.view(-1).index_add_(0, self.sources, sums.view(-1))


class _Windows:
    """The filters of all windows of a state, and the way from their gradients back to the numbers that chose them.

    The mathematics is that of :mod:`drawbench.attention`: ``bound``, ``window`` and ``filterbank`` in turn.
    """

    def __init__(self, settings: _Settings, batch: int, like: dict[str, Any]):
        self.patches, self.bounded, self.clip, self.batch = settings.patches, settings.bounded, settings.window_clip, batch
        height, width = settings.height, settings.width
        if height == width:
            self.axes = [_Axes(width, (0, 1), self.patches, batch, like)]
        else:
            self.axes = [_Axes(size, (axis,), self.patches, batch, like) for axis, size in enumerate((width, height))]
        self.middle, self.radius = torch.tensor(attention.BOUND_MIDDLE, **like), torch.tensor(attention.BOUND_RADIUS, **like)
        centre, variance, scale = attention.CENTRE_LIMIT, attention.LOG_VARIANCE_LIMIT, attention.LOG_SCALE_LIMIT
        self.limits = torch.tensor([centre, centre, variance, scale, scale], **like)
        # Reading multiplies by gamma, writing divides by it.
        way = [1.0] * (settings.read_patch is not None) + [-1.0] * (settings.write_patch is not None)
        half, stride = [(width + 1) / 2, (height + 1) / 2], max(height, width) - 1
        # A window's values are offset + unit * number for its centre and unit * exp(sign * number) for the others.
        self.offset = torch.tensor([*half, 0.0, 0.0, 0.0], **like)
        self.signs = torch.tensor([[1.0, 1.0, -1.0, 1.0, sign] for sign in way], **like)
        self.units = torch.tensor([[*half, -0.5 / math.log(2), stride / max(patch - 1, 1), 1.0] for patch in self.patches], **like)
        # What the sums of `_Axes.backward` lack: 1 / variance is -2 ln 2 times the factor, and the logits are to base 2.
        base = -2 * math.log(2)
        self.lack = torch.tensor([[base * half[0], base * half[1], base / 2, base, sign] for sign in way], **like)

    def look(self, numbers: Tensor) -> _Look:
        """The filters for raw numbers (B, V, 5)."""
        if self.bounded:
            numbers = torch.addcmul(self.middle, self.radius, torch.tanh(numbers / self.radius))
        else:
            numbers = numbers.clamp(-self.limits, self.limits)
        values = numbers * self.signs
        values[..., 2:].exp_()
        values = torch.addcmul(self.offset, values, self.units)
        banks = [axes.filters(values) for axes in self.axes]
        x, y = self._apart([bank.filters for bank in banks])
        return _Look(banks, x, y, list(values[..., 4:].unbind(1)))

    def _apart(self, wholes: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What lies in the rows of each bank, (R, S), as (B, N, W) along x and (B, N, H) along y for every window."""
        parts = [
            part.view(self.batch, -1, axes.size)
            for axes, whole in zip(self.axes, wholes, strict=True)
            for part in whole.split(axes.lengths)
        ]
        windows = len(self.patches)
        return (parts[::2], parts[1::2]) if len(self.axes) == 1 else (parts[:windows], parts[windows:])

    def gradients(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Room for the gradients of filters, zeros: (R, S) for each bank, and the same as (B, N, W) and (B, N, H) for each window."""
        wholes = [axes.pixels.new_zeros(len(axes.steps), axes.size) for axes in self.axes]
        return wholes, *self._apart(wholes)

    def slope(self, numbers: Tensor) -> Tensor:
        """What the sums of :meth:`backward` are multiplied with, for the numbers (..., V, 5) of any steps."""
        if self.bounded:
            return (1 - torch.tanh(numbers / self.radius).square()) * self.lack
        return (numbers.abs() <= self.limits) * self.lack

    def backward(self, look: _Look, into: list[Tensor], gradient: Tensor, slope: Tensor) -> Tensor:
        """The gradient (B, V, 5) of the raw numbers.

        Args:
            into: gradients of the filters, as :meth:`gradients` gives room for; they are used up.
            gradient: (B, V, 5), zero but for the sum over the patch of its values times their gradients in the last column; used up.
            slope: (B, V, 5) of :meth:`slope`.
        """
        for axes, bank, part in zip(self.axes, look.banks, into, strict=True):
            axes.backward(bank, part, gradient)
        gradient.mul_(slope)
        return gradient if self.clip is None else attention.clip_rows(gradient, self.clip / self.batch)


class _Tape:
    """One pass forward, what it leaves behind, and the pass backward.

    ``rows[t]`` holds what step t takes in: ``[z, h_dec, 1, read, h_enc, 1]``, with the states before the step.
    """

    def __init__(self, settings: _Settings, images: Tensor, weights: _Weights, encoder: _Lstm, decoder: _Lstm):
        self.settings, self.encoder, self.decoder = settings, encoder, decoder
        batch, steps, units, latent = len(images), settings.steps, settings.units, settings.latent
        self.like: dict[str, Any] = {"dtype": images.dtype, "device": images.device}
        products = settings.products
        # What chooses windows stays in full precision: bfloat16 cannot tell pixel 14 from 14.04.
        self.choices = weights.choices
        self.weights = _Weights._make(None if weight is None else weight.to(products, copy=True) for weight in weights)
        for weight in (self.weights.encoder, self.weights.image, self.weights.decoder):
            if weight is not None:
                _double_candidate(weight)
        self.windows = _Windows(settings, batch, self.like) if settings.patches else None
        self.window_count = len(settings.patches) * len(attention.PARAMETERS)

        self.images = images.transpose(1, 2).flatten(2).clone(memory_format=torch.contiguous_format)  # (B, H, C W)
        read = self.weights.encoder.shape[1] - 2 * units - 1
        self.rows = images.new_ones(steps + 1, batch, latent + 2 * units + read + 2, dtype=products)
        start = latent + units + 1
        self.for_decoder, self.for_canvas = slice(0, start), slice(latent, start)
        self.for_encoder, self.for_latent = slice(latent, -1), slice(start + read, None)
        self.z, self.read, self.encoder_state = (
            self.rows[..., part].unbind() for part in (slice(0, latent), slice(start, start + read), slice(start + read, -1))
        )
        # (T + 1, B, U + 1), the decoder's states and a 1, never rounded.
        rounded = products != images.dtype
        states = images.new_ones(steps + 1, batch, units + 1) if rounded else self.rows[..., self.for_canvas]
        self.all_states, self.states, self.decoder_row = states, states.unbind(), self.rows[..., self.for_canvas].unbind()
        self.sigmoids = images.new_empty(steps, *self.images.shape).unbind()  # of the canvas before each step, T of (B, H, C W)
        self.constant = None  # (B, 4U), the image's part of the encoder's product, where there is one
        if self.weights.image is not None:
            self.flat_images = self.images.flatten(1).to(products)
            self.constant = torch.mm(self.flat_images, self.weights.image.t()).to(images.dtype)
        if self.choices is not None:
            self.numbers = torch.empty(steps + 1, batch, len(self.choices), **self.like)
            self.window_numbers = self.window_part(self.numbers).unbind()
            self.patches = self.numbers[..., : len(self.choices) - self.window_count].unbind()  # what is written, T + 1 of (B, N C N)
        self.looks: list[_Look] = []
        self.reads: list[tuple[Tensor, ...]] = []
        self.writes: list[tuple[Tensor, Tensor]] = []

    def forward(self, noise: Tensor, canvas: Tensor, encoder_hidden: Tensor, decoder_hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, C, H, W), mu and log sigma (B, T, Z)."""
        settings, weights = self.settings, self.weights
        batch, steps, latent = len(noise), settings.steps, settings.latent
        shape = (batch, settings.height, settings.channels, settings.width)
        drawn = canvas.transpose(1, 2).flatten(2).clone(memory_format=torch.contiguous_format)
        for_encoder, for_latent, for_decoder = (
            self.rows[..., part].unbind() for part in (self.for_encoder, self.for_latent, self.for_decoder)
        )
        states = self.all_states[..., :-1].unbind()
        states[0].copy_(decoder_hidden)
        self.encoder_state[0].copy_(encoder_hidden)
        latents = torch.empty(steps, batch, 2 * latent, **self.like)
        mus, log_sigmas = (part.unbind() for part in latents.split(latent, 2))
        noises = noise.unbind(1)
        encoder_weight, latent_weight, decoder_weight = weights.encoder.t(), weights.latent.t(), weights.decoder.t()
        self.spreads = torch.empty(steps, batch, latent, **self.like).unbind()  # sigma times noise
        self._look(0)
        for t in range(steps):
            self._read(t, drawn)
            _product(for_encoder[t], encoder_weight, self.encoder.gates[t], self.constant)
            self.encoder.step(t, self.encoder_state[t + 1])

            _product(for_latent[t + 1], latent_weight, latents[t])
            torch.exp(log_sigmas[t], out=self.spreads[t]).mul_(noises[t])
            torch.add(mus[t], self.spreads[t], out=self.z[t])

            _product(for_decoder[t], decoder_weight, self.decoder.gates[t])
            self.decoder.step(t, states[t + 1])
            self._look(t + 1)
            self._write(t, drawn)
        mu, log_sigma = latents.transpose(0, 1).split(latent, 2)
        return drawn.view(shape).transpose(1, 2).contiguous(), mu.contiguous(), log_sigma.contiguous()

    def _look(self, state: int) -> None:
        """The patch to write and the windows that a state of the decoder chooses."""
        if self.states[state].dtype != self.rows.dtype:
            self.decoder_row[state].copy_(self.states[state])
        if self.choices is None or self.windows is None:
            return
        torch.mm(self.states[state], self.choices.t(), out=self.numbers[state])
        self.looks.append(self.windows.look(self.window_numbers[state]))

    def window_part(self, numbers: Tensor) -> Tensor:
        """(..., V, 5), the part for the windows of what states choose, (..., M)."""
        return numbers[..., -self.window_count :].unflatten(-1, (-1, len(attention.PARAMETERS)))

    def _read(self, t: int, drawn: Tensor) -> None:
        """``r_t``, into its place in the row."""
        sigmoid, target, patch = torch.sigmoid(drawn, out=self.sigmoids[t]), self.read[t], self.settings.read_patch
        if patch is None:
            torch.sub(self.images.flatten(1), sigmoid.flatten(1), out=target)
            return
        # Reading is linear: what is missing is read as the image less the canvas, so that no error image is made.
        look, batch = self.looks[t], len(drawn)
        rows = [torch.bmm(look.y[0], picture) for picture in (self.images, sigmoid)]
        columns = [torch.bmm(part.view(batch, -1, self.settings.width), look.x[0].mT).flatten(1) for part in rows]
        glimpses = torch.cat(columns, 1).mul_(look.scale[0])
        image, canvas = glimpses.chunk(2, 1)
        into_image, into_error = target.chunk(2, 1)
        into_image.copy_(image)
        torch.sub(image, canvas, out=into_error)
        self.reads.append((*rows, glimpses))

    def _write(self, t: int, drawn: Tensor) -> None:
        """Add what step t draws to the canvas."""
        patch, batch = self.settings.write_patch, len(drawn)
        if patch is None:
            assert self.weights.canvas is not None
            flat = drawn.flatten(1)
            _product(self.decoder_row[t + 1], self.weights.canvas.t(), flat, flat)
            return
        look = self.looks[t + 1]
        inner = (self.patches[t + 1] * look.scale[-1]).view(batch, -1, patch)
        across = torch.bmm(inner, look.x[-1]).view(batch, patch, -1)
        drawn.baddbmm_(look.y[-1].mT, across)
        self.writes.append((inner, across))

    def backward(self, into_logits: Tensor, into_mu: Tensor, into_log_sigma: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the canvas and the states at the start and of the weights, in the order in which the function took them."""
        settings, weights = self.settings, self.weights
        batch, latent, units = len(into_logits), settings.latent, settings.units
        room = _Gradients(self)
        into_canvas = into_logits.transpose(1, 2).flatten(2).clone(memory_format=torch.contiguous_format)
        into_decoder, into_decoder_cell, into_encoder_cell = (torch.zeros(batch, units, **self.like) for _ in range(3))
        into_seen = torch.zeros(batch, weights.encoder.shape[1], **self.like)  # [h_dec, 1, read, h_enc]
        into_driven = torch.empty(batch, weights.decoder.shape[1], **self.like)  # [z, h_dec, 1]
        into_both = torch.empty(batch, 2 * latent, **self.like)
        into_encoder = torch.empty(batch, units, **self.like)
        from_seen, _, into_read, into_earlier = into_seen.split([units, 1, into_seen.shape[1] - 2 * units - 1, units], 1)
        into_z, from_driven, _ = into_driven.split([latent, units, 1], 1)
        into_mean, into_spread = into_both.chunk(2, 1)
        into_mus, into_log_sigmas, latent_weight = into_mu.unbind(1), into_log_sigma.unbind(1), weights.latent[:, :-1]
        for t in reversed(range(settings.steps)):
            self._write_backward(t, into_canvas, into_decoder, room)
            self._look_backward(t + 1, into_decoder, room)
            gate = room.decoder[t].copy_(self.decoder.backward(t, into_decoder, into_decoder_cell))
            _product(gate, weights.decoder, into_driven)

            torch.add(into_z, into_mus[t], out=into_mean)
            torch.addcmul(into_log_sigmas[t], into_z, self.spreads[t], out=into_spread)
            both = room.latent[t].copy_(into_both)
            _product(both, latent_weight, into_encoder, into_earlier)
            gate = room.encoder[t].copy_(self.encoder.backward(t, into_encoder, into_encoder_cell))
            _product(gate, weights.encoder, into_seen)
            torch.add(from_driven, from_seen, out=into_decoder)
            self._read_backward(t, into_read, into_canvas, room)
        if settings.write_patch is not None:
            for part in (room.x[-1], room.y[-1]):
                part.zero_()  # the state before the first step writes nothing
        self._look_backward(0, into_decoder, room)
        start = into_canvas.view(batch, settings.height, settings.channels, settings.width).transpose(1, 2)
        return start, into_earlier, into_encoder_cell, into_decoder, into_decoder_cell, *self._into_weights(room)

    def _write_backward(self, t: int, into_canvas: Tensor, into_decoder: Tensor, room: "_Gradients") -> None:
        """The gradients of the patch that step t wrote and of the filters through which it did, or of the state that drew."""
        patch, batch = self.settings.write_patch, len(into_canvas)
        if patch is None:
            assert self.weights.canvas is not None
            room.canvas[t] = into_canvas.flatten(1)
            _product(room.canvas[t], self.weights.canvas[:, :-1], into_decoder, into_decoder)
            return
        look, (inner, across) = self.looks[t + 1], self.writes[t]
        into_x, into_y = room.x[-1], room.y[-1]
        torch.bmm(across, into_canvas.mT, out=into_y)
        down = torch.bmm(look.y[-1], into_canvas).view(batch, -1, self.settings.width)
        torch.bmm(inner.mT, down, out=into_x)
        into_patch = torch.mul(torch.bmm(down, look.x[-1].mT).flatten(1), look.scale[-1], out=room.patches[t + 1])
        room.write_intensities[t + 1].copy_(torch.linalg.vecdot(into_patch, self.patches[t + 1]))

    def _look_backward(self, state: int, into_decoder: Tensor, room: "_Gradients") -> None:
        """From the filters of a state to the numbers and from all that it chose to the state, added to ``into_decoder``."""
        if self.choices is None or self.windows is None:
            return
        gradient = self.windows.backward(self.looks[state], room.whole, room.numbers[state], room.slopes[state])
        room.window_numbers[state].copy_(gradient)
        into_decoder.addmm_(room.choices[state], self.choices[:, :-1])

    def _read_backward(self, t: int, into_read: Tensor, into_canvas: Tensor, room: "_Gradients") -> None:
        """From ``r_t`` to the canvas before step t, in place, and to the filters."""
        patch, batch, sigmoid = self.settings.read_patch, len(into_canvas), self.sigmoids[t]
        if patch is None:
            into_sigmoid = into_read.neg().view(sigmoid.shape)
        else:
            look, (image_rows, canvas_rows, glimpses) = self.looks[t], self.reads[t]
            # From [image, image - canvas], as the encoder sees them, to [image, canvas], in place.
            into_image, into_canvas_read = into_read.chunk(2, 1)
            into_image.add_(into_canvas_read)
            into_canvas_read.neg_()
            torch.linalg.vecdot(into_read, glimpses, out=room.read_intensities[t])
            inner = (into_read * look.scale[0]).view(batch, 2, -1, patch).unbind(1)
            image_inner, canvas_inner = inner
            image_columns, canvas_columns = (torch.bmm(part, look.x[0]).view_as(image_rows) for part in inner)
            into_x, into_y = room.x[0], room.y[0]
            torch.bmm(image_columns, self.images.mT, out=into_y).baddbmm_(canvas_columns, sigmoid.mT)
            wide = (batch, image_inner.shape[1], self.settings.width)
            torch.bmm(image_inner.mT, image_rows.view(wide), out=into_x).baddbmm_(canvas_inner.mT, canvas_rows.view(wide))
            into_sigmoid = torch.bmm(look.y[0].mT, canvas_columns)
        into_canvas.add_(_sigmoid_backward(into_sigmoid, sigmoid, grad_input=into_sigmoid))

    def _into_weights(self, room: "_Gradients") -> _Weights:
        """The gradients of the weights. Each is one product over the T B rows of all the steps, so it is rounded once."""
        rows, dtype = self.rows, self.images.dtype
        image = None
        if self.weights.image is not None:
            total = room.encoder.sum(0, dtype=dtype).to(rows.dtype)
            image = _double_candidate((self.flat_images.t() @ total).t().to(dtype))
        return _Weights(
            encoder=_double_candidate(_weight_gradient(room.encoder, rows[:-1, :, self.for_encoder]).to(dtype)),
            image=image,
            decoder=_double_candidate(_weight_gradient(room.decoder, rows[:-1, :, self.for_decoder]).to(dtype)),
            latent=_weight_gradient(room.latent, rows[1:, :, self.for_latent]).to(dtype),
            choices=None if self.choices is None else _weight_gradient(room.choices, self.all_states),
            canvas=None if self.weights.canvas is None else _weight_gradient(room.canvas, rows[1:, :, self.for_canvas]).to(dtype),
        )


class _Gradients:
    """Room for what the way back collects for the weights' gradients, and for the gradients of filters."""

    def __init__(self, tape: _Tape):
        settings, batch, products = tape.settings, len(tape.images), {**tape.like, "dtype": tape.settings.products}
        steps = settings.steps
        self.encoder = torch.empty(steps, batch, 4 * settings.units, **products)
        self.decoder = torch.empty_like(self.encoder)
        self.latent = torch.empty(steps, batch, 2 * settings.latent, **products)
        if tape.weights.canvas is not None:
            self.canvas = torch.empty(steps, batch, len(tape.weights.canvas), **products)
        if tape.choices is not None and tape.windows is not None:
            self.choices = torch.zeros_like(tape.numbers)
            self.window_numbers = tape.window_part(self.choices).unbind()
            self.patches = self.choices[..., : tape.patches[0].shape[1]].unbind()
            numbers = tape.window_part(tape.numbers)
            sums = torch.zeros(numbers.shape, **tape.like)  # what _Windows.backward makes the gradients of the numbers of
            self.numbers = sums.unbind()
            self.read_intensities, self.write_intensities = (sums[..., window, -1].unbind() for window in (0, -1))
            self.slopes = tape.windows.slope(numbers).unbind()
            self.whole, self.x, self.y = tape.windows.gradients()


def _weight_gradient(into: Tensor, seen: Tensor) -> Tensor:
    """(outputs, inputs) from (T, B, outputs) and (T, B, inputs), in the order of factors that is the faster one for their dtype."""
    into, seen = into.flatten(0, 1), seen.flatten(0, 1)
    return into.t() @ seen if into.dtype == torch.bfloat16 else (seen.t() @ into).t()


def _product(factor: Tensor, weight: Tensor, out: Tensor, base: Tensor | None = None) -> None:
    """``factor @ weight``, in the dtype of both, plus ``base``, if any (it may be ``out``), put into ``out`` in its own dtype."""
    if out.dtype != weight.dtype:
        product = torch.mm(factor, weight)
        if base is out:
            out.add_(product.to(out.dtype))  # an addition of two dtypes would be several times slower
        else:
            out.copy_(product)
            if base is not None:
                out.add_(base)
    elif base is None:
        torch.mm(factor, weight, out=out)
    else:
        torch.addmm(base, factor, weight, out=out)
