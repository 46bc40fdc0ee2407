"""The recurrence of DRAW as one autograd function: same numbers, same gradients, faster on a CPU.

:class:`drawbench.models.draw.Draw` is the reference, written to be read; this is the same computation written to be trained, forward
and backward by hand. What makes it faster:

- Everything that a product with weights takes in lies in one row per step and image, ``[z, h_dec, 1, read, h_enc, 1]``: each product
  reads a stretch of it, the ones carry the biases, and the gradient of a weight is one product over the rows of all the steps.
- The products with weights may run in bfloat16 (``products``); states, windows, filters and the canvas never do.
- The write window of a step and the read window of the next come from the same state, so their filters are made together: for
  patches this small, the time goes into calling functions, not into what they compute. As in
  :mod:`drawbench.models.glimpse_fast`, the filterbank is never normalised, and ``1 / Z`` is applied to the patch.
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

    encoder: Tensor  #: (4U, U + 1 + R + U), from [h_dec, 1, read, h_enc]; R = 2 C N N, or C H W for the error image alone
    images: Tensor | None  #: (4U, C H W), the encoder's part for the image where it is not read through a window
    decoder: Tensor  #: (4U, Z + U + 1), from [z, h_dec, 1]
    latent: Tensor  #: (2Z, U + 1), from [h_enc, 1] to [mu, log_sigma]
    choices: Tensor | None  #: (M, U + 1), from [h_dec, 1] to the patch to write and the windows' numbers
    canvas: Tensor | None  #: (C H W, U + 1), from [h_dec, 1] to what is added to the canvas where no window writes


def _pack(model: Draw) -> _Weights:
    """Weights and biases in the order of :class:`_Weights`; autograd undoes it for the gradients."""
    channels, height, width = model.size
    encoder, decoder, units = model.encoder, model.decoder, model.decoder.hidden_size
    seen, images = encoder.weight_ih[:, :-units], None
    if model.read_patch is None:
        images, seen = (_side_by_side(part, (channels, height, width)) for part in seen.chunk(2, 1))
    else:
        seen = _side_by_side(seen, (2 * channels, model.read_patch, model.read_patch))
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
        encoder=torch.cat([encoder.weight_ih[:, -units:], bias, seen, encoder.weight_hh], 1),
        images=images,
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
    """T steps of an LSTM after its product with weights, and the way back."""

    def __init__(self, cell: Tensor, steps: int):
        batch, units = cell.shape
        self.gates = cell.new_empty(steps, batch, 4 * units)  # sigmoids, and the candidate's tanh
        self.squashed = cell.new_empty(steps, batch, units)  # tanh of the cell
        self.cells = cell.new_empty(steps + 1, batch, units)
        self.cells[0] = cell
        self.minus_one = cell.new_tensor(-1.0)

    def step(self, t: int, hidden: Tensor) -> None:
        """From ``gates[t]`` before its nonlinearity to the next state, put into ``hidden`` (B, U)."""
        gate, squashed, cell = self.gates[t], self.squashed[t], self.cells[t + 1]
        enter, keep, candidate, leave = gate.chunk(4, 1)
        candidate.mul_(2)
        gate.sigmoid_()
        self._tanh(candidate)
        torch.mul(keep, self.cells[t], out=cell).addcmul_(enter, candidate)
        torch.mul(cell, 2, out=squashed).sigmoid_()
        self._tanh(squashed)
        torch.mul(leave, squashed, out=hidden)

    def _tanh(self, sigmoid: Tensor) -> None:
        """``tanh(a) = 2 sigmoid(2a) - 1``, in place: the sigmoid is several times cheaper than tanh itself."""
        torch.add(self.minus_one, sigmoid, alpha=2, out=sigmoid)

    def backward(self, t: int, into_hidden: Tensor, into_cell: Tensor, into_gate: Tensor) -> None:
        """The gradient of ``gates[t]`` before its nonlinearity, put into ``into_gate``; ``into_cell`` goes one step back in place."""
        gate, squashed = self.gates[t], self.squashed[t]
        enter, keep, candidate, leave = gate.chunk(4, 1)
        into_enter, into_keep, into_candidate, into_leave = into_gate.chunk(4, 1)
        into_cell.add_(torch.ops.aten.tanh_backward(into_hidden * leave, squashed))
        torch.mul(into_cell, candidate, out=into_enter)
        torch.mul(into_cell, self.cells[t], out=into_keep)
        torch.mul(into_cell, enter, out=into_candidate)
        torch.mul(into_hidden, squashed, out=into_leave)
        into_cell.mul_(keep)
        torch.ops.aten.tanh_backward.grad_input(into_candidate, candidate, grad_input=into_candidate)
        units = enter.shape[1]
        for part in (slice(0, 2 * units), slice(3 * units, None)):
            torch.ops.aten.sigmoid_backward.grad_input(into_gate[:, part], gate[:, part], grad_input=into_gate[:, part])


class _Bank(NamedTuple):
    """Filters of all windows of a state along axes of S pixels, one in each of R rows, not normalised."""

    spread: Tensor  #: (R,), distance of the filter's centre from the grid's
    factor: Tensor  #: (R,), what a squared distance is multiplied with: -1 / (2 variance ln 2)
    distance: Tensor  #: (R, S), pixel minus filter centre
    logits: Tensor  #: (R, S), logarithm of ``filters`` to base 2; 0 at the peak of each row
    filters: Tensor  #: (R, S), E
    norm: Tensor  #: (R,), 1 / Z, the reciprocal of each row's sum


class _Look(NamedTuple):
    """The windows of one state. The lists have an entry for each of its V windows."""

    banks: list[_Bank]
    x: list[Tensor]  #: (B, N, W), E_X
    y: list[Tensor]  #: (B, N, H), E_Y
    scale: list[Tensor]  #: (B, N, 1, N), gamma / (Z_Y Z_X) of a window that reads, 1 / (gamma Z_Y Z_X) of one that writes


class _Axes:
    """The filters along axes of one length: which numbers each row of a :class:`_Bank` is made of."""

    def __init__(self, size: int, axes: tuple[int, ...], patches: list[int], batch: int, like: dict[str, Any]):
        self.size = size
        self.pixels = torch.arange(1, size + 1, **like)
        # A filter is never taken to be less than this logarithm (base 2) of its peak: far beyond rounding, yet so large that products
        # of filters and gradients stay clear of the subnormal numbers, on which arithmetic can be tens of times slower.
        self.floor = 2 * math.log2(torch.finfo(like["dtype"]).eps)
        numbers = len(attention.PARAMETERS)
        self.stretch: dict[tuple[int, int], slice] = {}  # of rows, by window and axis; each is (B, N)
        sources, steps, start = [], [], 0
        for window, patch in enumerate(patches):
            for axis in axes:
                self.stretch[window, axis] = slice(start, start + batch * patch)
                start += batch * patch
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
        return _Bank(spread, factor, distance, logits, filters, filters.sum(-1).reciprocal_())

    def backward(self, bank: _Bank, into: Tensor, gradient: Tensor) -> None:
        """Add to the gradient (B, V, 5), up to the factors of :class:`_Windows`, what comes from ``into`` (R, S), which is used up.

        With G the gradient of the normalised filters F = E / Z, ``into`` is G / Z, and the gradient of the logits is
        ``F (G - <F, G>) = E (into - <E, into> / Z)``.
        """
        into.sub_(torch.linalg.vecdot(bank.filters, into).mul_(bank.norm)[:, None]).mul_(bank.filters)
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
        self.half = torch.tensor([(width + 1) / 2, (height + 1) / 2], **like)
        self.signs = torch.tensor([[-1.0, 1.0, sign] for sign in way], **like)
        self.units = torch.tensor(
            [[-0.5 / math.log(2), (max(height, width) - 1) / max(patch - 1, 1), 1.0] for patch in self.patches], **like
        )
        base = -2 * math.log(2)
        self.slopes = torch.tensor([[base * (width + 1) / 2, base * (height + 1) / 2, base / 2, base, sign] for sign in way], **like)

    def look(self, numbers: Tensor) -> _Look:
        """The filters for raw numbers (B, V, 5)."""
        if self.bounded:
            numbers = torch.addcmul(self.middle, self.radius, torch.tanh(numbers / self.radius))
        else:
            numbers = numbers.clamp(-self.limits, self.limits)
        values = torch.empty_like(numbers, memory_format=torch.contiguous_format)
        torch.mul(numbers[..., :2] + 1, self.half, out=values[..., :2])
        torch.mul((numbers[..., 2:] * self.signs).exp_(), self.units, out=values[..., 2:])
        banks = [axes.filters(values) for axes in self.axes]
        x, y, scale = [], [], []
        for window, patch in enumerate(self.patches):
            (filters_x, norm_x), (filters_y, norm_y) = (self._part(banks, window, axis, patch) for axis in (0, 1))
            x.append(filters_x)
            y.append(filters_y)
            scale.append(((values[:, window, 4:] * norm_y)[..., None] * norm_x[:, None])[:, :, None])
        return _Look(banks, x, y, scale)

    def _place(self, window: int, axis: int) -> tuple[int, slice]:
        """Which bank a window's filters along an axis are in, and in which of its rows."""
        bank = 0 if len(self.axes) == 1 else axis
        return bank, self.axes[bank].stretch[window, axis]

    def _part(self, banks: list[_Bank], window: int, axis: int, patch: int) -> tuple[Tensor, Tensor]:
        """A window's filters along an axis, (B, N, S), and their norms, (B, N)."""
        bank, rows = self._place(window, axis)
        return banks[bank].filters[rows].view(self.batch, patch, -1), banks[bank].norm[rows].view(self.batch, patch)

    def gradients(self) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Room for the gradients of E divided by Z, zeros: for each bank (R, S), and the same for each window, x (B, N, W), y (B, N, H)."""
        whole = [axes.pixels.new_zeros(len(axes.steps), axes.size) for axes in self.axes]
        parts = []
        for window, patch in enumerate(self.patches):
            places = (self._place(window, axis) for axis in (0, 1))
            x, y = (whole[bank][rows].view(self.batch, patch, -1) for bank, rows in places)
            parts.append((x, y))
        return whole, parts

    def slope(self, numbers: Tensor) -> Tensor:
        """What the sums of :meth:`backward` are multiplied with, for the numbers (..., V, 5) of any steps."""
        if self.bounded:
            return (1 - torch.tanh(numbers / self.radius).square()) * self.slopes
        return (numbers.abs() <= self.limits) * self.slopes

    def backward(self, look: _Look, into: list[Tensor], gradient: Tensor, slope: Tensor) -> Tensor:
        """The gradient (B, V, 5) of the raw numbers.

        Args:
            into: gradients of E divided by Z, as :meth:`gradients` gives room for; they are used up.
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
        self.weights = _Weights._make(None if weight is None else weight.to(products) for weight in weights)
        self.windows = _Windows(settings, batch, self.like) if settings.patches else None
        self.window_numbers = len(settings.patches) * len(attention.PARAMETERS)

        self.images = images.transpose(1, 2).flatten(2).contiguous()  # (B, H, C W)
        read = self.weights.encoder.shape[1] - 2 * units - 1
        self.rows = images.new_ones(steps + 1, batch, latent + 2 * units + read + 2, dtype=products)
        start = latent + units + 1
        self.part_z, self.part_read, self.part_encoder = slice(0, latent), slice(start, start + read), slice(start + read, -1)
        self.for_decoder, self.for_encoder, self.for_latent = slice(0, start), slice(latent, -1), slice(start + read, None)
        self.for_canvas = slice(latent, start)
        # (T + 1, B, U + 1), the decoder's states and a 1, never rounded.
        self.states = self.rows[..., self.for_canvas] if products == images.dtype else images.new_ones(steps + 1, batch, units + 1)
        self.sigmoids = images.new_empty(steps, *self.images.shape)  # of the canvas before each step

    def forward(self, noise: Tensor, canvas: Tensor, encoder_hidden: Tensor, decoder_hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, C, H, W), mu and log sigma (B, T, Z)."""
        settings, weights, rows, states = self.settings, self.weights, self.rows, self.states
        batch, steps, latent, units = len(noise), settings.steps, settings.latent, settings.units
        shape = (batch, settings.height, settings.channels, settings.width)
        drawn = canvas.transpose(1, 2).flatten(2).clone(memory_format=torch.contiguous_format)
        states[0, :, :units] = decoder_hidden
        rows[0, :, self.part_encoder] = encoder_hidden
        self.latents = torch.empty(steps, batch, 2 * latent, **self.like)
        self.spreads = torch.empty(steps, batch, latent, **self.like)  # sigma times noise
        self._start()
        self._look(0)
        for t in range(steps):
            self._read(t, drawn)
            gate = self.encoder.gates[t]
            if self.constant is None:
                _product(rows[t, :, self.for_encoder], weights.encoder.t(), gate)
            else:
                _product_plus(self.constant, rows[t, :, self.for_encoder], weights.encoder.t(), gate)
            self.encoder.step(t, rows[t + 1, :, self.part_encoder])

            both = self.latents[t]
            _product(rows[t + 1, :, self.for_latent], weights.latent.t(), both)
            torch.exp(both[:, latent:], out=self.spreads[t]).mul_(noise[:, t])
            torch.add(both[:, :latent], self.spreads[t], out=rows[t, :, self.part_z])

            _product(rows[t, :, self.for_decoder], weights.decoder.t(), self.decoder.gates[t])
            self.decoder.step(t, states[t + 1, :, :units])
            self._look(t + 1)
            self._write(t, drawn)
        mu, log_sigma = self.latents.transpose(0, 1).split(latent, 2)
        del self.latents  # its views leave this function, and the way back does not need it
        return drawn.view(shape).transpose(1, 2).contiguous(), mu.contiguous(), log_sigma.contiguous()

    def _start(self) -> None:
        """Room for what differs with and without attention."""
        settings = self.settings
        steps, batch, (height, across) = settings.steps, len(self.images), self.images.shape[1:]
        self.constant = None  # (B, 4U), the image's part of the encoder's product
        if settings.read_patch is None:
            assert self.weights.images is not None
            self.flat_images = self.images.flatten(1).to(settings.products)
            self.constant = torch.mm(self.flat_images, self.weights.images.t()).to(self.images.dtype)
        else:
            self.both = torch.empty(batch, height, 2, across, **self.like)  # the image and what is missing
            self.both[:, :, 0] = self.images
        if self.choices is not None:
            self.numbers = torch.empty(steps + 1, batch, len(self.choices), **self.like)
        self.looks: list[_Look] = []
        self.read_rows: list[Tensor] = []  # E_Y times image and error, (B, N, 2 C W)
        self.glimpses: list[Tensor] = []  # (B, N, 2 C, N)
        self.written: list[tuple[Tensor, Tensor]] = []  # the patch times its scale, (B, N, C, N), and that times E_X, (B, N, C W)

    def _look(self, state: int) -> None:
        """The patch to write and the windows that a state of the decoder chooses."""
        if self.states.dtype != self.rows.dtype:
            self.rows[state, :, self.for_canvas] = self.states[state]
        if self.choices is None or self.windows is None:
            return
        numbers = self.numbers[state]
        torch.mm(self.states[state], self.choices.t(), out=numbers)
        self.looks.append(self.windows.look(self._window_numbers(numbers)))

    def _window_numbers(self, numbers: Tensor) -> Tensor:
        """(..., V, 5), the part for the windows of what states choose, (..., M)."""
        return numbers[..., -self.window_numbers :].unflatten(-1, (-1, len(attention.PARAMETERS)))

    def _read(self, t: int, drawn: Tensor) -> None:
        """``r_t``, into its place in the row."""
        sigmoid = torch.sigmoid(drawn, out=self.sigmoids[t])
        target = self.rows[t, :, self.part_read]
        patch = self.settings.read_patch
        if patch is None:
            torch.sub(self.images.flatten(1), sigmoid.flatten(1), out=target)
            return
        look, batch = self.looks[t], len(drawn)
        torch.sub(self.images, sigmoid, out=self.both[:, :, 1])
        rows = torch.bmm(look.y[0], self.both.flatten(2))
        glimpse = torch.bmm(rows.view(batch, -1, self.settings.width), look.x[0].mT).view(batch, patch, -1, patch).mul_(look.scale[0])
        target.copy_(glimpse.flatten(1))
        self.read_rows.append(rows)
        self.glimpses.append(glimpse)

    def _write(self, t: int, drawn: Tensor) -> None:
        """Add what step t draws to the canvas."""
        patch, channels, batch = self.settings.write_patch, self.settings.channels, len(drawn)
        if patch is None:
            assert self.weights.canvas is not None
            flat = drawn.flatten(1)
            _product_plus(flat, self.rows[t + 1, :, self.for_canvas], self.weights.canvas.t(), flat)
            return
        look = self.looks[t + 1]
        inner = self.numbers[t + 1, :, : channels * patch**2].view(batch, patch, channels, patch) * look.scale[-1]
        across = torch.bmm(inner.view(batch, -1, patch), look.x[-1]).view(batch, patch, -1)
        drawn.baddbmm_(look.y[-1].mT, across)
        self.written.append((inner, across))

    def backward(self, into_logits: Tensor, into_mu: Tensor, into_log_sigma: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the canvas and the states at the start and of the weights, in the order in which the function took them."""
        settings, weights = self.settings, self.weights
        batch, steps, latent, units = len(into_logits), settings.steps, settings.latent, settings.units
        room = _Gradients(self)
        into_canvas = into_logits.transpose(1, 2).flatten(2).clone(memory_format=torch.contiguous_format)
        into_decoder, into_decoder_cell, into_encoder, into_encoder_cell = (torch.zeros(batch, units, **self.like) for _ in range(4))
        into_seen = torch.empty(batch, weights.encoder.shape[1], **self.like)  # [h_dec, 1, read, h_enc]
        into_driven = torch.empty(batch, weights.decoder.shape[1], **self.like)  # [z, h_dec, 1]
        into_both = torch.empty(batch, 2 * latent, **self.like)
        into_seen[:, -units:] = 0
        for t in reversed(range(steps)):
            self._write_backward(t, into_canvas, into_decoder, room)
            self._look_backward(t + 1, into_decoder, room)
            self.decoder.backward(t, into_decoder, into_decoder_cell, room.full(room.decoder[t]))
            _product(room.store(room.decoder[t]), weights.decoder, into_driven)

            into_z = into_driven[:, :latent]
            torch.add(into_z, into_mu[:, t], out=into_both[:, :latent])
            torch.addcmul(into_log_sigma[:, t], into_z, self.spreads[t], out=into_both[:, latent:])
            room.latent[t] = into_both
            _product_plus(into_seen[:, -units:], room.latent[t], weights.latent[:, :-1], into_encoder)
            self.encoder.backward(t, into_encoder, into_encoder_cell, room.full(room.encoder[t]))
            _product(room.store(room.encoder[t]), weights.encoder, into_seen)
            torch.add(into_driven[:, latent:-1], into_seen[:, :units], out=into_decoder)
            self._read_backward(t, into_seen[:, units + 1 : -units], into_canvas, room)
        if settings.write_patch is not None:
            for part in room.parts[-1]:
                part.zero_()  # the state before the first step writes nothing
        self._look_backward(0, into_decoder, room)
        start = into_canvas.view(batch, settings.height, settings.channels, settings.width).transpose(1, 2)
        return start, into_seen[:, -units:], into_encoder_cell, into_decoder, into_decoder_cell, *self._into_weights(room)

    def _write_backward(self, t: int, into_canvas: Tensor, into_decoder: Tensor, room: "_Gradients") -> None:
        """The gradients of the patch that step t wrote and of the filters through which it did, or of the state that drew."""
        patch, batch = self.settings.write_patch, len(into_canvas)
        if patch is None:
            assert self.weights.canvas is not None
            room.canvas[t] = into_canvas.flatten(1)
            _product_plus(into_decoder, room.canvas[t], self.weights.canvas[:, :-1], into_decoder)
            return
        look, (inner, across) = self.looks[t + 1], self.written[t]
        into_x, into_y = room.parts[-1]
        torch.bmm(across, into_canvas.mT, out=into_y)
        down = torch.bmm(look.y[-1], into_canvas).view(batch, -1, self.settings.width)
        torch.bmm(inner.view(batch, -1, patch).mT, down, out=into_x)
        into_patch = torch.bmm(down, look.x[-1].mT).view_as(inner).mul_(look.scale[-1]).flatten(1)
        room.choices[t + 1, :, : into_patch.shape[1]] = into_patch
        room.numbers[t + 1, :, -1, -1] = torch.linalg.vecdot(into_patch, self.numbers[t + 1, :, : into_patch.shape[1]])

    def _look_backward(self, state: int, into_decoder: Tensor, room: "_Gradients") -> None:
        """From the filters of a state to the numbers and from all that it chose to the state, added to ``into_decoder``."""
        if self.choices is None or self.windows is None:
            return
        choices = room.choices[state]
        gradient = self.windows.backward(self.looks[state], room.whole, room.numbers[state], room.slopes[state])
        choices[:, -self.window_numbers :] = gradient.flatten(1)
        into_decoder.addmm_(choices, self.choices[:, :-1])

    def _read_backward(self, t: int, into_read: Tensor, into_canvas: Tensor, room: "_Gradients") -> None:
        """From ``r_t`` to the canvas before step t, in place, and to the filters."""
        patch, batch, sigmoid = self.settings.read_patch, len(into_canvas), self.sigmoids[t]
        if patch is None:
            into_error = into_read.unflatten(1, sigmoid.shape[1:])
        else:
            look, rows = self.looks[t], self.read_rows[t]
            into_x, into_y = room.parts[0]
            into_glimpse = into_read.unflatten(1, self.glimpses[t].shape[1:])
            room.numbers[t, :, 0, -1] = torch.linalg.vecdot(into_read, self.glimpses[t].flatten(1))
            inner = (into_glimpse * look.scale[0]).view(batch, -1, patch)
            columns = torch.bmm(inner, look.x[0]).view_as(rows)
            torch.sub(self.images, sigmoid, out=self.both[:, :, 1])
            torch.bmm(columns, self.both.flatten(2).mT, out=into_y)
            torch.bmm(inner.mT, rows.view(batch, inner.shape[1], -1), out=into_x)
            into_error = torch.bmm(look.y[0].mT, columns[..., columns.shape[2] // 2 :])
        into_canvas.sub_(torch.ops.aten.sigmoid_backward(into_error, sigmoid))

    def _into_weights(self, room: "_Gradients") -> _Weights:
        """The gradients of the weights. Each is one product over the T B rows of all the steps, so it is rounded once."""
        rows, dtype = self.rows, self.images.dtype
        images = None
        if self.weights.images is not None:
            total = room.encoder.sum(0, dtype=dtype).to(rows.dtype)
            images = (self.flat_images.t() @ total).t().to(dtype)
        return _Weights(
            encoder=_weight_gradient(room.encoder, rows[:-1, :, self.for_encoder]).to(dtype),
            images=images,
            decoder=_weight_gradient(room.decoder, rows[:-1, :, self.for_decoder]).to(dtype),
            latent=_weight_gradient(room.latent, rows[1:, :, self.for_latent]).to(dtype),
            choices=None if self.choices is None else _weight_gradient(room.choices, self.states),
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
        self.rounded = settings.products != tape.images.dtype
        if self.rounded:
            self.gate = torch.empty(batch, 4 * settings.units, **tape.like)
        if tape.weights.canvas is not None:
            self.canvas = torch.empty(steps, batch, len(tape.weights.canvas), **products)
        if tape.choices is not None and tape.windows is not None:
            self.choices = torch.zeros_like(tape.numbers)
            numbers = tape._window_numbers(tape.numbers)
            self.numbers = torch.zeros(numbers.shape, **tape.like)
            self.slopes = tape.windows.slope(numbers)
            self.whole, self.parts = tape.windows.gradients()

    def full(self, gate: Tensor) -> Tensor:
        """Where to compute what goes into ``gate``, a step's part of ``encoder`` or ``decoder``: there, if it is not rounded."""
        return self.gate if self.rounded else gate

    def store(self, gate: Tensor) -> Tensor:
        """``gate``, with what was computed in the place that :meth:`full` gave."""
        return gate.copy_(self.gate) if self.rounded else gate


def _weight_gradient(into: Tensor, seen: Tensor) -> Tensor:
    """(outputs, inputs) from (T, B, outputs) and (T, B, inputs). Of the two orders of this product, the faster one for float32."""
    return (seen.flatten(0, 1).t() @ into.flatten(0, 1)).t()


def _product(factor: Tensor, weight: Tensor, out: Tensor) -> None:
    """``factor @ weight``, in the dtype of both, put into ``out`` in its own dtype."""
    if out.dtype == weight.dtype:
        torch.mm(factor, weight, out=out)
    else:
        out.copy_(torch.mm(factor, weight))


def _product_plus(base: Tensor, factor: Tensor, weight: Tensor, out: Tensor) -> None:
    """``base + factor @ weight``, put into ``out``; only the product is in the dtype of ``weight``."""
    if out.dtype == weight.dtype:
        torch.addmm(base, factor, weight, out=out)
    else:
        torch.add(base, torch.mm(factor, weight), out=out)
