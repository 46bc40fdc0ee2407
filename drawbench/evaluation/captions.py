"""Whether a caption is obeyed: bounds under right, held-out and wrong captions, and what an
independent reader finds in drawings.

An *estimate* is ``{"value", "low", "high", "n"}`` with a 95% interval, as ``result.json`` keeps it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from drawbench import distributed
from drawbench.data.batch import Batch
from drawbench.data.dataset import Dataset
from drawbench.data.scenes import DIGIT
from drawbench.data.sentences import NONE, Slots
from drawbench.evaluation import bounds
from drawbench.evaluation.error_rate import wilson
from drawbench.evaluation.precision import full_precision
from drawbench.evaluation.reader import load_reader
from drawbench.models.common import as_images

READ = 2000  # drawings that are read, of seen captions and of held-out ones
STRAY = 0.05  # share of a drawing's ink that may lie where no digit belongs
Estimate = dict[str, float]


def measure(model: Any, dataset: Dataset, **wishes: Any) -> dict[str, Estimate]:
    """Measure a conditional generator beyond its bound on the test part.

    Args:
        model: the generator.
        dataset: with a condition for each image; what it lacks is not measured.
        wishes: ``batch``, ``check`` and ``progress``, as for
            :func:`drawbench.evaluation.bounds.bound`.

    Returns:
        Estimates by their field of ``result.json``: bounds in nats ``wrong_condition`` (each test
        image under the condition of another that means something else) and ``held_out``; shares in
        percent ``read`` and ``held_out_read`` of drawings, ``real_read`` and
        ``held_out_real_read`` of images, in which the reader finds the right digits in the right
        places and next to nothing elsewhere.
    """
    fields, test, out, slots = {}, dataset.test, dataset.held_out, dataset.slots
    assert test.condition is not None
    wrong = others(test.condition, slots)
    if wrong is not None:
        swapped = Batch(test.images, test.labels, test.condition[wrong])
        fields["wrong_condition"] = _bound(model, swapped, wishes)
    if out is not None:
        fields["held_out"] = _bound(model, out, wishes)
    for prefix, part in (("", test), ("held_out_", out)):
        if part is not None and slots is not None:
            read, real = _read(model, part, slots, wishes)
            fields |= {f"{prefix}read": read, f"{prefix}real_read": real}
    return fields


def _read(
    model: Any, part: Batch, slots: Callable[[Tensor], Slots], wishes: dict[str, Any]
) -> tuple[Estimate, Estimate]:
    """Return the shares of drawings and of images, evenly spaced, that obey their captions."""
    rows = bounds.evenly(len(part), READ)
    images, _, condition = part.at(rows)
    assert condition is not None
    expected = slots(condition)
    drawn = draw(model, condition, rows, wishes["batch"], wishes["check"])
    return _share(obeys(drawn, expected)), _share(obeys(as_images(images), expected))


def others(condition: Tensor, slots: Callable[[Tensor], Slots] | None) -> Tensor | None:
    """Return, for each condition, the number of the next one that means something else, int64 (N,).

    Two captions mean the same if they ask for the same digits in the same places; without ``slots``
    two conditions do if they are equal. None if all mean the same.
    """
    meaning = condition.reshape(len(condition), -1)
    if slots is not None:
        meaning = torch.cat([part.flatten(1) for part in slots(condition)], 1)
    _, numbers = torch.unique(meaning, dim=0, return_inverse=True)
    count = len(numbers)
    if int(numbers.max()) == 0:
        return None
    other = torch.arange(count)
    same = torch.ones(count, dtype=torch.bool)
    while same.any():
        other[same] = (other[same] + 1) % count
        same = numbers[other] == numbers
    return other


@torch.no_grad()
@full_precision()
def draw(
    model: Any, condition: Tensor, index: Tensor, batch: int, check: Callable[[], None]
) -> Tensor:
    """Sample a picture for each condition: float32 (N, C, H, W), the means of the pixels.

    Args:
        index: int64 (N,), numbers from which each picture's noise follows.
    """
    device = next(model.parameters()).device

    def some(rows: Tensor) -> Tensor:
        noise = bounds.noise(index[rows].to(device), model.steps, model.latent, 0, "read")
        return model.sample(noise, condition[rows].to(device)).mean.cpu()

    pictures = []
    for rows in torch.arange(len(index)).split(batch * distributed.size()):
        check()
        pictures.append(distributed.gather(some, rows))
    return torch.cat(pictures)


@torch.no_grad()
def obeys(pictures: Tensor, slots: Slots) -> Tensor:
    """Return whether each picture shows what it should, bool (N,).

    The reader looks at the middle of the range of each slot, whose digit may lie one or two pixels
    beside it, and must answer the right digit; and at most :data:`STRAY` of all ink may lie where
    no digit of the caption can.

    Args:
        pictures: (N, 1, H, W) in [0, 1].
    """
    reader, rows = load_reader(), torch.arange(DIGIT)
    right = torch.ones(len(pictures), dtype=torch.bool)
    allowed = torch.zeros(len(pictures), *pictures.shape[2:], dtype=torch.bool)
    y, x = (torch.arange(size) for size in pictures.shape[2:])
    for digits, places in zip(slots.digits.unbind(1), slots.places.unbind(1), strict=True):
        own = (digits != NONE).nonzero()[:, 0]
        top, left = places[own].float().mean(-1).round().long().unbind(1)
        where = ((top[:, None] + rows)[:, :, None], (left[:, None] + rows)[:, None])
        crops = pictures[own[:, None, None], 0, *where]
        right[own] &= reader(crops[:, None]).argmax(1) == digits[own]
        low, high = places[own, :, 0], places[own, :, 1] + DIGIT - 1
        down, across = (
            (axis >= low[:, n, None]) & (axis <= high[:, n, None]) for n, axis in enumerate((y, x))
        )
        allowed[own] |= down[:, :, None] & across[:, None]
    ink = pictures[:, 0].double()
    stray = (ink * ~allowed).sum((1, 2))
    return right & (stray <= STRAY * ink.sum((1, 2)))


def _bound(model: Any, part: Batch, wishes: dict[str, Any]) -> Estimate:
    bound = bounds.bound(model, part, **wishes)
    low, high = bound.interval or (bound.value, bound.value)
    return {"value": bound.value, "low": low, "high": high, "n": bound.n}


def _share(right: Tensor) -> Estimate:
    count, n = int(right.sum()), len(right)
    low, high = wilson(count, n)
    return {"value": 100 * count / n, "low": low, "high": high, "n": n}
