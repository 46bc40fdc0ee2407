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
    """A matrix product of a model, ``left (rows, inner) @ right (inner, columns)`` for each image,
    ``times`` times in a step.

    A gradient by either factor is another product of the same size.
    """

    rows: int
    inner: int
    columns: int
    times: int
    into_left: bool = True  #: the left factor needs a gradient; an image does not
    into_right: bool = True
    #: the right factor is the same for all images and times, so its gradient is one product over
    #: all their rows
    weights: bool = False
    #: float32 in any case: what chooses windows, and the generator's small windows, slower in
    #: bfloat16
    exact: bool = False


def operations(products: Iterable[Product], batch: int, gradients: bool) -> int:
    """Floating point operations (two for a multiply-add) of products, with those of their gradients
    if wanted.
    """
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
    """The matrix products of a step and nothing else; the result goes where there is room already.

    Args:
        products: of one image.
        batch: B.
        precision: ``"float32"`` or ``"bfloat16"``, of all that need not be exact.
        gradients: those for the gradients too.
    """
    calls: list[Call] = []
    for product in products:
        dtype = torch.float32 if product.exact else getattr(torch, precision)
        random = partial(_random, dtype, device)
        calls += (_with_weights if product.weights else _one_by_one)(
            product, batch, gradients, random
        )

    def run() -> None:
        for function, left, right, out in calls:
            function(left, right, out=out)

    return run


def _random(dtype: torch.dtype, device: torch.device, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=streams.stream(0, "bench")).to(device, dtype)


def _with_weights(
    product: Product, batch: int, gradients: bool, random: Callable[..., Tensor]
) -> list[Call]:
    """A product with weights (columns, inner), the images below one another, and the gradient of
    the weights in one piece.
    """
    rows = batch * product.rows
    seen, into = (
        random(product.times, rows, product.inner),
        random(product.times, rows, product.columns),
    )
    weight = random(product.columns, product.inner)
    out, into_seen, into_weight = (torch.empty_like(like) for like in (into[0], seen[0], weight))
    calls: list[Call] = []
    for t in range(product.times):
        calls.append((torch.mm, seen[t], weight.t(), out))
        if gradients and product.into_left:
            calls.append((torch.mm, into[t], weight, into_seen))
    if gradients and product.into_right:
        calls.append((torch.mm, into.flatten(0, 1).t(), seen.flatten(0, 1), into_weight))
    return calls


def _one_by_one(
    product: Product, batch: int, gradients: bool, random: Callable[..., Tensor]
) -> list[Call]:
    """A product whose factors are both each image's own."""
    rows, inner, columns = product[:3]
    left, right, into = (
        random(batch, *shape) for shape in ((rows, inner), (inner, columns), (rows, columns))
    )
    calls: list[Call] = [(torch.bmm, left, right, torch.empty_like(into))]
    if gradients and product.into_left:
        calls.append((torch.bmm, into, right.mT, torch.empty_like(left)))
    if gradients and product.into_right:
        calls.append((torch.bmm, left.mT, into, torch.empty_like(right)))
    return calls * product.times
