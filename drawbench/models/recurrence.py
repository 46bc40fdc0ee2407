"""What the glimpse models share: an LSTM that is shown one thing after another, each chosen from
what it knows so far.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from drawbench import attention


def new_cell(inputs: int, hidden: int) -> nn.LSTMCell:
    """An LSTM for what windows read: torch's initial weights suit inputs of variance 1, and a dark
    image gives a tenth to a quarter.
    """
    cell = nn.LSTMCell(inputs, hidden)
    with torch.no_grad():
        cell.weight_ih *= 4
    return cell


def numbers_of(hidden: Tensor, linear: nn.Linear, clip: float | None) -> Tensor:
    """The raw numbers of a look, ``linear(hidden)``: never rounded, and if ``clip`` is given with
    each image's gradient clipped.

    Args:
        hidden: (B, U).
        clip: as for :func:`drawbench.attention.clip_gradient`.
    """
    with attention.unrounded(hidden.device):
        numbers = linear(hidden.to(linear.weight.dtype))
    return numbers if clip is None else attention.clip_gradient(numbers, clip)


def recur(
    cell: nn.LSTMCell,
    start: Tensor,
    batch: int,
    steps: int,
    look: Callable[[int, Tensor], tuple[Tensor, tuple[Tensor, ...]]],
) -> tuple[Tensor, list[Tensor]]:
    """Look ``steps`` times.

    Args: start: (2 U,), the states h and c before the first look, the same for all B images. look:
        from the number of the step, counted from 0, and the state (B, U) to what the LSTM takes in
        (B, K), and tensors (B, ...) to
            keep.

    Returns:
        The states (B, T, U) after each look, and each of the tensors kept, (B, T, ...).
    """
    hidden, memory = start.expand(batch, -1).chunk(2, dim=1)
    states, kept = [], []
    for step in range(steps):
        taken, seen = look(step, hidden)
        hidden, memory = cell(taken, (hidden, memory))
        states.append(hidden)
        kept.append(seen)
    return torch.stack(states, dim=1), [
        torch.stack(field, dim=1) for field in zip(*kept, strict=True)
    ]
