"""The kernels of DRAW's recurrence on a GPU, in Triton: what ``kernels.c`` is on a CPU.

Each kernel is small, and a step is a chain of some twenty of them: recorded as a CUDA graph they
start by themselves. One program takes one image, or a stretch of numbers where an image does not
matter. :mod:`drawbench.fast.native.gpu` starts them.

Symbols: B images, C channels, H rows, W columns, N the side of a patch, U units of an LSTM, Z
latents.
"""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

TILE = tl.constexpr(16)  # the smallest side of a matrix that a product takes
FLOOR = tl.constexpr(-46.0)  # as in kernels.c: the least logarithm to base 2 of a filter
LN2 = tl.constexpr(0.6931471805599453)


def _kernel(function: Callable[..., None]) -> Any:
    """Compile a kernel once for each set of constants, whatever its counts and addresses are."""
    parameters = inspect.signature(function).parameters.values()
    numbers = [each.name for each in parameters if each.annotation is not tl.constexpr]
    return triton.jit(function, do_not_specialize=numbers)


# -------------------------------------------------------------------------------------- arithmetic


@triton.jit
def _at(address, kind: tl.constexpr):
    """The pointer to numbers of a kind at an address."""
    return address.to(tl.pointer_type(kind))


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):
    return 2 * _sigmoid(2 * x) - 1


@triton.jit
def _product(a, b):
    """a @ b, not rounded to TF32."""
    return tl.dot(a, b, input_precision="ieee", out_dtype=a.dtype)


# -------------------------------------------------------------------------------------------- LSTM


@_kernel
def lstm_forward(sums, constant, gates, cell, next, squashed, hidden, hidden_stride, row,
                 row_stride, batch, units, HAS_CONSTANT: tl.constexpr, HAS_ROW: tl.constexpr,
                 REAL: tl.constexpr, TYPE: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    there = at < batch * units
    b, u = at // units, at % units
    first = b * 4 * units + u
    enter = tl.load(_at(sums, TYPE) + first, there, 0).to(REAL)
    keep = tl.load(_at(sums, TYPE) + first + units, there, 0).to(REAL)
    candidate = tl.load(_at(sums, TYPE) + first + 2 * units, there, 0).to(REAL)
    leave = tl.load(_at(sums, TYPE) + first + 3 * units, there, 0).to(REAL)
    if HAS_CONSTANT:
        enter += tl.load(_at(constant, REAL) + first, there, 0)
        keep += tl.load(_at(constant, REAL) + first + units, there, 0)
        candidate += tl.load(_at(constant, REAL) + first + 2 * units, there, 0)
        leave += tl.load(_at(constant, REAL) + first + 3 * units, there, 0)
    enter, keep, leave = _sigmoid(enter), _sigmoid(keep), _sigmoid(leave)
    candidate = _tanh(candidate)
    after = keep * tl.load(_at(cell, REAL) + at, there, 0) + enter * candidate
    squash = _tanh(after)
    state = leave * squash
    tl.store(_at(gates, REAL) + first, enter, there)
    tl.store(_at(gates, REAL) + first + units, keep, there)
    tl.store(_at(gates, REAL) + first + 2 * units, candidate, there)
    tl.store(_at(gates, REAL) + first + 3 * units, leave, there)
    tl.store(_at(next, REAL) + at, after, there)
    tl.store(_at(squashed, REAL) + at, squash, there)
    tl.store(_at(hidden, REAL) + b * hidden_stride + u, state, there)
    if HAS_ROW:
        tl.store(_at(row, TYPE) + b * row_stride + u, state.to(TYPE), there)


@_kernel
def lstm_backward(gates, cell, squashed, full, one, one_stride, two, two_stride, three,
                  three_stride, into_cell, into_sums, batch, units, HAS_FULL: tl.constexpr,
                  SOURCES: tl.constexpr, REAL: tl.constexpr, TYPE: tl.constexpr,
                  SIZE: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    there = at < batch * units
    b, u = at // units, at % units
    first = b * 4 * units + u
    enter = tl.load(_at(gates, REAL) + first, there, 0)
    keep = tl.load(_at(gates, REAL) + first + units, there, 0)
    candidate = tl.load(_at(gates, REAL) + first + 2 * units, there, 0)
    leave = tl.load(_at(gates, REAL) + first + 3 * units, there, 0)
    squash = tl.load(_at(squashed, REAL) + at, there, 0)
    before = tl.load(_at(cell, REAL) + at, there, 0)
    into = tl.zeros([SIZE], REAL)
    if HAS_FULL:
        into += tl.load(_at(full, REAL) + at, there, 0)
    if SOURCES > 0:
        into += tl.load(_at(one, TYPE) + b * one_stride + u, there, 0).to(REAL)
    if SOURCES > 1:
        into += tl.load(_at(two, TYPE) + b * two_stride + u, there, 0).to(REAL)
    if SOURCES > 2:
        into += tl.load(_at(three, TYPE) + b * three_stride + u, there, 0).to(REAL)
    carried = tl.load(_at(into_cell, REAL) + at, there, 0) + into * leave * (1 - squash * squash)
    to = _at(into_sums, TYPE) + first
    tl.store(to, (carried * candidate * enter * (1 - enter)).to(TYPE), there)
    tl.store(to + units, (carried * before * keep * (1 - keep)).to(TYPE), there)
    tl.store(to + 2 * units, (carried * enter * (1 - candidate * candidate)).to(TYPE), there)
    tl.store(to + 3 * units, (into * squash * leave * (1 - leave)).to(TYPE), there)
    tl.store(_at(into_cell, REAL) + at, carried * keep, there)


# ----------------------------------------------------------------------------------------- latents


@_kernel
def latent_forward(sums, noise, mu, log_sigma, stride, spread, row, row_stride, batch, latent,
                   REAL: tl.constexpr, TYPE: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    there = at < batch * latent
    b, z = at // latent, at % latent
    place = b * stride + z
    mean = tl.load(_at(sums, TYPE) + b * 2 * latent + z, there, 0).to(REAL)
    log_deviation = tl.load(_at(sums, TYPE) + b * 2 * latent + latent + z, there, 0).to(REAL)
    away = tl.exp(log_deviation) * tl.load(_at(noise, REAL) + place, there, 0)
    tl.store(_at(mu, REAL) + place, mean, there)
    tl.store(_at(log_sigma, REAL) + place, log_deviation, there)
    tl.store(_at(spread, REAL) + at, away, there)
    tl.store(_at(row, TYPE) + b * row_stride + z, (mean + away).to(TYPE), there)


@_kernel
def latent_backward(into_z, z_stride, into_mu, into_log_sigma, stride, spread, into_sums, batch,
                    latent, REAL: tl.constexpr, TYPE: tl.constexpr,
                    SIZE: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    there = at < batch * latent
    b, z = at // latent, at % latent
    place = b * stride + z
    into = tl.load(_at(into_z, TYPE) + b * z_stride + z, there, 0).to(REAL)
    mean = into + tl.load(_at(into_mu, REAL) + place, there, 0)
    scale = tl.load(_at(into_log_sigma, REAL) + place, there, 0)
    scale += into * tl.load(_at(spread, REAL) + at, there, 0)
    to = _at(into_sums, TYPE) + b * 2 * latent + z
    tl.store(to, mean.to(TYPE), there)
    tl.store(to + latent, scale.to(TYPE), there)


# ------------------------------------------------------------------------------------------ pixels


@_kernel
def bernoulli_forward(canvas, means, size, REAL: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    logits = tl.load(_at(canvas, REAL) + at, at < size, 0)
    tl.store(_at(means, REAL) + at, _sigmoid(logits), at < size)


@_kernel
def bernoulli_backward(means, into_means, into_canvas, size, REAL: tl.constexpr,
                       SIZE: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    mean = tl.load(_at(means, REAL) + at, at < size, 0)
    into = tl.load(_at(into_means, REAL) + at, at < size, 0)
    to = _at(into_canvas, REAL) + at
    tl.store(to, tl.load(to, at < size, 0) + into * mean * (1 - mean), at < size)


# ----------------------------------------------------------------------------------------- windows


@triton.jit
def _number(numbers, map, k: tl.constexpr, BOUNDED: tl.constexpr):
    """Number k of a window, squashed or clamped. map, (3, 5): middle, radius, limit."""
    number = tl.load(numbers + k)
    if BOUNDED:
        radius = tl.load(map + 5 + k)
        result = tl.load(map + k) + radius * _tanh(number / radius)
    else:
        limit = tl.load(map + 10 + k)
        result = tl.minimum(tl.maximum(number, -limit), limit)
    return result


@triton.jit
def _slope(numbers, map, k: tl.constexpr, BOUNDED: tl.constexpr):
    """The derivative of :func:`_number` by its number."""
    number = tl.load(numbers + k)
    if BOUNDED:
        squashed = _tanh(number / tl.load(map + 5 + k))
        result = 1 - squashed * squashed
    else:
        limit = tl.load(map + 10 + k)
        result = tl.where(tl.abs(number) <= limit, 1.0, 0.0).to(number.dtype)
    return result


@triton.jit
def _steps(stride, N: tl.constexpr, REAL: tl.constexpr, TALL: tl.constexpr):
    """How far each filter is from the centre of its grid, (TALL,)."""
    return (tl.arange(0, TALL).to(REAL) + 0.5 - N / 2) * stride


@triton.jit
def _logarithms(centre, step, variance, size, REAL: tl.constexpr, WIDE: tl.constexpr):
    """The logarithm to base 2 of each filter at each pixel, (TALL, WIDE), before it is normalized,
    and the distance of the pixels from the one that is nearest to its centre.
    """
    middle = (centre + step)[:, None]
    nearest = tl.floor(middle + 0.5)
    nearest = tl.minimum(tl.maximum(nearest, 1.0), size * 1.0).to(REAL)
    pixel = (tl.arange(0, WIDE) + 1).to(REAL)[None, :]
    log = (pixel - nearest) * (pixel + (nearest - 2 * middle)) / (variance * (-2 * LN2))
    return tl.minimum(tl.maximum(log, FLOOR), 0.0), pixel - nearest


@triton.jit
def _filters(centre, step, variance, size, N: tl.constexpr, REAL: tl.constexpr,
             TALL: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """The filters along an axis, (TALL, WIDE), zeros beyond (N, size)."""
    log, _ = _logarithms(centre, step, variance, size, REAL, WIDE)
    there = (tl.arange(0, TALL)[:, None] < N) & (tl.arange(0, WIDE)[None, :] < size)
    values = tl.where(there, tl.exp2(log), 0.0).to(REAL)
    total = tl.sum(values, axis=1)[:, None]
    return values / tl.where(total > 0, total, 1.0).to(REAL)


@triton.jit
def _filters_backward(bank, into, centre, step, variance, size, N: tl.constexpr,
                      REAL: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """The gradients of centre, log variance and log stride along an axis."""
    log, away = _logarithms(centre, step, variance, size, REAL, WIDE)
    gradient = bank * (into - tl.sum(bank * into, axis=1)[:, None])
    # These sum to 0, so distances may be taken from any origin.
    towards = tl.sum(gradient * away, axis=1) / variance
    spread = tl.sum(tl.sum(gradient * log, axis=1), axis=0)
    return tl.sum(towards, axis=0), spread * (-LN2), tl.sum(towards * step, axis=0)


@triton.jit
def _load_matrix(start, rows, columns, stride, TALL: tl.constexpr, WIDE: tl.constexpr):
    """A matrix (rows, columns) in (TALL, WIDE), zeros beyond."""
    row, column = tl.arange(0, TALL)[:, None], tl.arange(0, WIDE)[None, :]
    return tl.load(start + row * stride + column, (row < rows) & (column < columns), 0)


@triton.jit
def _store_matrix(start, rows, columns, stride, values, TALL: tl.constexpr, WIDE: tl.constexpr):
    row, column = tl.arange(0, TALL)[:, None], tl.arange(0, WIDE)[None, :]
    tl.store(start + row * stride + column, values, (row < rows) & (column < columns))


@triton.jit
def _window(numbers, map, height, width, N: tl.constexpr, BOUNDED: tl.constexpr):
    """Centre x and y, variance, stride and intensity."""
    x, y = _number(numbers, map, 0, BOUNDED), _number(numbers, map, 1, BOUNDED)
    stride = (tl.maximum(height, width) - 1) / tl.maximum(N - 1, 1)
    return (
        (width + 1) / 2 * (x + 1),
        (height + 1) / 2 * (y + 1),
        tl.exp(_number(numbers, map, 2, BOUNDED)),
        stride * tl.exp(_number(numbers, map, 3, BOUNDED)),
        tl.exp(_number(numbers, map, 4, BOUNDED)),
    )


@triton.jit
def _window_forward(numbers, map, fx, fy, height, width, p, q, N: tl.constexpr,
                    BOUNDED: tl.constexpr, REAL: tl.constexpr, TALL: tl.constexpr,
                    HIGH: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """The filters of a window along x and y, kept for the way back, and its intensity."""
    x, y, variance, stride, intensity = _window(numbers, map, height, width, N, BOUNDED)
    step = _steps(stride, N, REAL, TALL)
    bank_x = _filters(x, step, variance, width, N, REAL, TALL, WIDE)
    bank_y = _filters(y, step, variance, height, N, REAL, TALL, HIGH)
    _store_matrix(fx, N, p, p, bank_x, TALL, WIDE)
    _store_matrix(fy, N, q, q, bank_y, TALL, HIGH)
    return bank_x, bank_y, intensity


@triton.jit
def _kept_filters(fx, fy, height, width, p, q, N: tl.constexpr, TALL: tl.constexpr,
                  HIGH: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """The filters that :func:`_window_forward` kept, and zeros for the gradients of both and of the
    logarithm of the intensity.
    """
    bank_x = _load_matrix(fx, N, width, p, TALL, WIDE)
    bank_y = _load_matrix(fy, N, height, q, TALL, HIGH)
    into_x, into_y = tl.zeros([TALL, WIDE], bank_x.dtype), tl.zeros([TALL, HIGH], bank_y.dtype)
    return bank_x, bank_y, into_x, into_y, tl.zeros([TALL, TALL], bank_x.dtype)


@triton.jit
def _window_backward(numbers, map, clip, height, width, bank_x, bank_y, into_x, into_y,
                     by_intensity, into, N: tl.constexpr, BOUNDED: tl.constexpr,
                     REAL: tl.constexpr, TALL: tl.constexpr, HIGH: tl.constexpr,
                     WIDE: tl.constexpr):  # fmt: skip
    """Store the gradients of a window's numbers, given those of its filters, and of the logarithm
    of its intensity, (TALL, TALL), to be summed; clipped to a norm where ``clip`` is not 0.
    """
    x, y, variance, stride, _ = _window(numbers, map, height, width, N, BOUNDED)
    step = _steps(stride, N, REAL, TALL)
    by_x, variance_x, stride_x = _filters_backward(
        bank_x, into_x, x, step, variance, width, N, REAL, TALL, WIDE
    )
    by_y, variance_y, stride_y = _filters_backward(
        bank_y, into_y, y, step, variance, height, N, REAL, TALL, HIGH
    )
    by_x *= _slope(numbers, map, 0, BOUNDED) * (width + 1) / 2
    by_y *= _slope(numbers, map, 1, BOUNDED) * (height + 1) / 2
    by_variance = (variance_x + variance_y) * _slope(numbers, map, 2, BOUNDED)
    by_stride = (stride_x + stride_y) * _slope(numbers, map, 3, BOUNDED)
    total = tl.sum(tl.sum(by_intensity, axis=1), axis=0) * _slope(numbers, map, 4, BOUNDED)
    square = by_x * by_x + by_y * by_y + by_variance * by_variance
    norm = tl.sqrt(square + by_stride * by_stride + total * total)
    scale = tl.where((clip > 0) & (norm > clip), clip / norm, 1.0).to(norm.dtype)
    tl.store(into, by_x * scale)
    tl.store(into + 1, by_y * scale)
    tl.store(into + 2, by_variance * scale)
    tl.store(into + 3, by_stride * scale)
    tl.store(into + 4, total * scale)


@_kernel
def read_forward(map, images, means, numbers, numbers_stride, fx, fy, across, patches, row,
                 row_stride, channels, height, width, p, q, N: tl.constexpr,
                 BOUNDED: tl.constexpr, REAL: tl.constexpr, TYPE: tl.constexpr,
                 TALL: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    b = tl.program_id(0)
    bank_x, bank_y, intensity = _window_forward(
        _at(numbers, REAL) + b * numbers_stride, _at(map, REAL), _at(fx, REAL) + b * N * p,
        _at(fy, REAL) + b * N * q, height, width, p, q, N, BOUNDED, REAL, TALL, HIGH, WIDE,
    )  # fmt: skip
    size, plane = channels * N * N, height * p
    to = _at(row, TYPE) + b * row_stride
    for c in range(channels):
        at = (b * channels + c) * plane
        image = _load_matrix(_at(images, REAL) + at, height, width, p, HIGH, WIDE)
        mean = _load_matrix(_at(means, REAL) + at, height, width, p, HIGH, WIDE)
        across_image, across_mean = _product(bank_y, image), _product(bank_y, mean)
        seen = _product(across_image, tl.trans(bank_x)) * intensity
        drawn = _product(across_mean, tl.trans(bank_x)) * intensity
        kept = _at(across, REAL) + (b * 2 * channels + c) * N * p
        _store_matrix(kept, N, p, p, across_image, TALL, WIDE)
        _store_matrix(kept + channels * N * p, N, p, p, across_mean, TALL, WIDE)
        kept = _at(patches, REAL) + b * 2 * size + c * N * N
        _store_matrix(kept, N, N, N, seen, TALL, TALL)
        _store_matrix(kept + size, N, N, N, drawn, TALL, TALL)
        _store_matrix(to + c * N * N, N, N, N, seen.to(TYPE), TALL, TALL)
        _store_matrix(to + size + c * N * N, N, N, N, (seen - drawn).to(TYPE), TALL, TALL)


@_kernel
def read_backward(map, clip, images, means, numbers, numbers_stride, fx, fy, across, patches,
                  into_row, row_stride, into_means, into_numbers, into_stride, channels, height,
                  width, p, q, N: tl.constexpr, BOUNDED: tl.constexpr, REAL: tl.constexpr,
                  TYPE: tl.constexpr, TALL: tl.constexpr, HIGH: tl.constexpr,
                  WIDE: tl.constexpr):  # fmt: skip
    b = tl.program_id(0)
    map = _at(map, REAL)
    numbers = _at(numbers, REAL) + b * numbers_stride
    intensity = tl.exp(_number(numbers, map, 4, BOUNDED))
    bank_x, bank_y, into_x, into_y, by_intensity = _kept_filters(
        _at(fx, REAL) + b * N * p, _at(fy, REAL) + b * N * q, height, width, p, q, N, TALL, HIGH,
        WIDE,
    )  # fmt: skip
    size, plane = channels * N * N, height * p
    given = _at(into_row, TYPE) + b * row_stride
    for c in range(channels):
        at = (b * channels + c) * plane
        image = _load_matrix(_at(images, REAL) + at, height, width, p, HIGH, WIDE)
        mean = _load_matrix(_at(means, REAL) + at, height, width, p, HIGH, WIDE)
        kept = _at(patches, REAL) + b * 2 * size + c * N * N
        seen = _load_matrix(kept, N, N, N, TALL, TALL)
        drawn = _load_matrix(kept + size, N, N, N, TALL, TALL)
        kept = _at(across, REAL) + (b * 2 * channels + c) * N * p
        across_image = _load_matrix(kept, N, width, p, TALL, WIDE)
        across_mean = _load_matrix(kept + channels * N * p, N, width, p, TALL, WIDE)
        # from the gradients of [image, image - mean] to those of [image, mean]
        by_error = _load_matrix(given + size + c * N * N, N, N, N, TALL, TALL).to(REAL)
        by_image = _load_matrix(given + c * N * N, N, N, N, TALL, TALL).to(REAL) + by_error
        by_intensity += by_image * seen - by_error * drawn
        by_image, by_mean = by_image * intensity, -by_error * intensity
        columns_image, columns_mean = _product(by_image, bank_x), _product(by_mean, bank_x)
        into_x += _product(tl.trans(by_image), across_image)
        into_x += _product(tl.trans(by_mean), across_mean)
        into_y += _product(columns_image, tl.trans(image))
        into_y += _product(columns_mean, tl.trans(mean))
        by_means = _product(tl.trans(bank_y), columns_mean)
        _store_matrix(_at(into_means, REAL) + at, height, p, p, by_means, HIGH, WIDE)
    into = _at(into_numbers, REAL) + b * into_stride
    _window_backward(numbers, map, clip, height, width, bank_x, bank_y, into_x, into_y,
                     by_intensity, into, N, BOUNDED, REAL, TALL, HIGH, WIDE)  # fmt: skip


@_kernel
def write_forward(map, patches, numbers, stride, fx, fy, across, canvas, channels, height, width,
                  p, q, N: tl.constexpr, BOUNDED: tl.constexpr, REAL: tl.constexpr,
                  TALL: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    b = tl.program_id(0)
    bank_x, bank_y, intensity = _window_forward(
        _at(numbers, REAL) + b * stride, _at(map, REAL), _at(fx, REAL) + b * N * p,
        _at(fy, REAL) + b * N * q, height, width, p, q, N, BOUNDED, REAL, TALL, HIGH, WIDE,
    )  # fmt: skip
    for c in range(channels):
        start = _at(patches, REAL) + b * stride + c * N * N
        patch = _load_matrix(start, N, N, N, TALL, TALL) / intensity
        columns = _product(patch, bank_x)
        kept = _at(across, REAL) + (b * channels + c) * N * p
        _store_matrix(kept, N, p, p, columns, TALL, WIDE)
        to = _at(canvas, REAL) + (b * channels + c) * height * p
        old = _load_matrix(to, height, width, p, HIGH, WIDE)
        new = old + _product(tl.trans(bank_y), columns)
        _store_matrix(to, height, width, p, new, HIGH, WIDE)


@_kernel
def write_backward(map, clip, patches, numbers, stride, fx, fy, across, into_canvas,
                   into_patches, into_numbers, into_stride, channels, height, width, p, q,
                   N: tl.constexpr, BOUNDED: tl.constexpr, REAL: tl.constexpr,
                   TALL: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    b = tl.program_id(0)
    map = _at(map, REAL)
    numbers = _at(numbers, REAL) + b * stride
    intensity = tl.exp(_number(numbers, map, 4, BOUNDED))
    bank_x, bank_y, into_x, into_y, by_intensity = _kept_filters(
        _at(fx, REAL) + b * N * p, _at(fy, REAL) + b * N * q, height, width, p, q, N, TALL, HIGH,
        WIDE,
    )  # fmt: skip
    for c in range(channels):
        at = _at(into_canvas, REAL) + (b * channels + c) * height * p
        by_canvas = _load_matrix(at, height, width, p, HIGH, WIDE)
        kept = _at(across, REAL) + (b * channels + c) * N * p
        columns = _load_matrix(kept, N, width, p, TALL, WIDE)
        start = _at(patches, REAL) + b * stride + c * N * N
        patch = _load_matrix(start, N, N, N, TALL, TALL)
        down = _product(bank_y, by_canvas)
        into_y += _product(columns, tl.trans(by_canvas))
        by_patch = _product(down, tl.trans(bank_x)) / intensity
        by_intensity -= by_patch * patch
        into_x += _product(tl.trans(patch / intensity), down)
        to = _at(into_patches, REAL) + b * into_stride + c * N * N
        _store_matrix(to, N, N, N, by_patch, TALL, TALL)
    into = _at(into_numbers, REAL) + b * into_stride
    _window_backward(numbers, map, clip, height, width, bank_x, bank_y, into_x, into_y,
                     by_intensity, into, N, BOUNDED, REAL, TALL, HIGH, WIDE)  # fmt: skip


# ------------------------------------------------------------------------------- without attention


@_kernel
def error_forward(images, means, row, row_stride, lines, width, p, REAL: tl.constexpr,
                  TYPE: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    b, at = tl.program_id(1), tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    there = at < lines * width
    place = (b * lines + at // width) * p + at % width
    error = tl.load(_at(images, REAL) + place, there, 0)
    error -= tl.load(_at(means, REAL) + place, there, 0)
    tl.store(_at(row, TYPE) + b * row_stride + at, error.to(TYPE), there)


@_kernel
def error_backward(into_row, row_stride, into_means, lines, width, p, REAL: tl.constexpr,
                   TYPE: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    b, at = tl.program_id(1), tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    there = (at < lines * p) & (at % p < width)
    place = b * row_stride + at // p * width + at % p
    into = tl.load(_at(into_row, TYPE) + place, there, 0).to(REAL)
    tl.store(_at(into_means, REAL) + b * lines * p + at, -into, at < lines * p)


@_kernel
def canvas_add(drawn, canvas, size, width, p, REAL: tl.constexpr, TYPE: tl.constexpr,
               SIZE: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    to = _at(canvas, REAL) + at // width * p + at % width
    new = tl.load(to, at < size, 0) + tl.load(_at(drawn, TYPE) + at, at < size, 0).to(REAL)
    tl.store(to, new, at < size)


@_kernel
def canvas_pack(canvas, to, size, width, p, REAL: tl.constexpr, TYPE: tl.constexpr,
                SIZE: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    values = tl.load(_at(canvas, REAL) + at // width * p + at % width, at < size, 0)
    tl.store(_at(to, TYPE) + at, values.to(TYPE), at < size)
