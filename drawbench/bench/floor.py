"""The floor of a step: the matrix products that it cannot do without, counted and timed."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from drawbench import streams

Run = Callable[[], object]
CPU = torch.device("cpu")


class Product(NamedTuple):
    """A matrix product ``left (rows, inner) @ right (inner, columns)`` of each image.

    The gradient with respect to a factor is another product of the same size.
    """

    rows: int
    inner: int
    columns: int
    times: int  #: in one step of training
    into_left: bool = True  #: the left factor needs a gradient; an image does not
    into_right: bool = True
    #: the right factor is the same for all images and times, so that its gradient is one product
    #: over all their rows
    weights: bool = False
    #: float32 even in bfloat16: what sets the windows, and the generator's small windows, which
    #: bfloat16 would slow down
    exact: bool = False


def operations(products: Iterable[Product], batch: int, gradients: bool) -> int:
    """Count floating point operations (two per multiply-add), with ``gradients`` those too."""
    total = 0
    for product in products:
        passes = 1 + gradients * (product.into_left + product.into_right)
        total += 2 * batch * product.times * product.rows * product.inner * product.columns * passes
    return total


Call = tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]  # function, left, right, out


def floor(
    products: Iterable[Product],
    batch: int,
    precision: str,
    gradients: bool,
    device: torch.device = CPU,
) -> Run:
    """Return what runs the matrix products of a step alone, into buffers allocated beforehand.

    Args:
        products: of one image.
        batch: B.
        precision: ``"float32"`` or ``"bfloat16"``, of all products that need not be exact.
        gradients: include the products of the gradients.
    """
    calls: list[Call] = []
    for product in products:
        dtype = torch.float32 if product.exact else getattr(torch, precision)
        make = _with_weights if product.weights else _per_image
        calls += make(product, batch, gradients, partial(_random, dtype, device))

    def run() -> None:
        for function, left, right, out in calls:
            function(left, right, out=out)

    return run


def _random(dtype: torch.dtype, device: torch.device, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=streams.stream(0, "bench")).to(device, dtype)


def _with_weights(
    product: Product, batch: int, gradients: bool, random: Callable[..., Tensor]
) -> list[Call]:
    """A product with weights (columns, inner): images stacked, one gradient of the weights."""
    rows, times = batch * product.rows, product.times
    left, into = random(times, rows, product.inner), random(times, rows, product.columns)
    weight = random(product.columns, product.inner)
    out, into_left, into_weight = (torch.empty_like(like) for like in (into[0], left[0], weight))
    calls: list[Call] = []
    for t in range(times):
        calls.append((torch.mm, left[t], weight.t(), out))
        if gradients and product.into_left:
            calls.append((torch.mm, into[t], weight, into_left))
    if gradients and product.into_right:
        calls.append((torch.mm, into.flatten(0, 1).t(), left.flatten(0, 1), into_weight))
    return calls


def _per_image(
    product: Product, batch: int, gradients: bool, random: Callable[..., Tensor]
) -> list[Call]:
    """A product whose factors both differ from image to image."""
    rows, inner, columns = product[:3]
    left, right = random(batch, rows, inner), random(batch, inner, columns)
    into = random(batch, rows, columns)
    calls: list[Call] = [(torch.bmm, left, right, torch.empty_like(into))]
    if gradients and product.into_left:
        calls.append((torch.bmm, into, right.mT, torch.empty_like(left)))
    if gradients and product.into_right:
        calls.append((torch.bmm, left.mT, into, torch.empty_like(right)))
    return calls * product.times
