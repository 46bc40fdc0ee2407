"""Begin a wide network from the weights of a narrow one, without changing what it computes.

Net2WiderNet (Chen, Goodfellow & Shlens 2016, section 2.2) for LSTM cells: each added unit copies
one that is there, and the two share what the old one passed on. Unequal shares let copies become
different in training.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from drawbench import streams


class Part(NamedTuple):
    """How a tensor depends on the units of LSTM cells, each named by its module."""

    made: str | None = None  #: cell whose units the first dimension counts, in every gate
    taken: str | None = None  #: cell whose units are the last columns of the second


def cell(made: str, taken: str | None = None) -> dict[str, Part]:
    """Return the parts of an ``nn.LSTMCell``.

    Args:
        made: name of its module.
        taken: name of the cell whose state is the end of its input, if there is one.
    """
    biases = {f"{made}.bias_ih": Part(made), f"{made}.bias_hh": Part(made)}
    return {f"{made}.weight_ih": Part(made, taken), f"{made}.weight_hh": Part(made, made)} | biases


def widened(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights of a network with fewer LSTM units as those of a wider one that computes the
    same.

    Args:
        weights: of the narrow network, by name. Others than those are returned as they are.
        model: the wide network. Its ``units`` say which of its tensors depend on which cell; one
            without ``units`` is never widened.
    """
    model = getattr(model, "network", model)  # of a user's classifier, which is wrapped
    wide, parts = dict(weights), getattr(model, "units", {})
    modules = dict(model.named_modules())
    for name in sorted({part.made for part in parts.values() if part.made is not None}):
        recurrent, count = wide.get(f"{name}.weight_hh"), modules[name].hidden_size
        if recurrent is None or recurrent.dim() != 2 or not 0 < recurrent.shape[1] < count:
            continue
        try:
            wide |= _with_more(wide, parts, name, recurrent.shape[1], count)
        except (RuntimeError, IndexError):
            return dict(weights)  # of some other network: loading them says so
    return wide


def _with_more(
    weights: Mapping[str, Tensor], parts: Mapping[str, Part], name: str, old: int, count: int
) -> dict[str, Tensor]:
    """Return the tensors that depend on one cell, for ``count`` units instead of ``old``."""
    source = torch.cat([torch.arange(old), _copied(old, count, name)])
    share, wide = _shares(source, name), {}
    for key in parts.keys() & weights.keys():
        tensor = weights[key]
        if parts[key].made == name:
            tensor = tensor.unflatten(0, (-1, old))[:, source].flatten(0, 1)
        if parts[key].taken == name:
            taken = tensor[:, -old:][:, source] * share.to(tensor.dtype)
            tensor = torch.cat([tensor[:, :-old], taken], dim=1)
        wide[key] = tensor
    return wide


def _copied(old: int, count: int, name: str) -> Tensor:
    """Return which unit each added one copies, each once before any is copied twice."""
    order = streams.permutation(old, 0, "widen", name)
    return order.repeat(-(-count // old))[: count - old]


def _shares(source: Tensor, name: str) -> Tensor:
    """Return the share of each unit in what its copies pass on together: 30 to 70% of two."""
    draws = streams.integers(torch.arange(len(source)), [1 << 16], 0, "widen", name)[:, 0]
    weight = 0.3 + 0.4 * draws.double() / (1 << 16)
    return weight / torch.zeros(len(source)).double().index_add(0, source, weight)[source]
