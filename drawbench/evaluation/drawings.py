"""What a generator draws, as arrays for figures: samples, reconstructions, interpolations, and the
training images nearest to samples.

A generator needs ``steps``, ``latent`` and a forward pass; whatever else it lacks (a ``sample``, a
``decode``, the frames of a drawing, windows) is left out.

Symbols: B images, T steps, Z latents per step, C channels, H rows, W columns.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from drawbench import streams
from drawbench.attention import Window
from drawbench.data.batch import Batch
from drawbench.data.dataset import Train
from drawbench.evaluation import bounds
from drawbench.models import as_images

CHUNK = 2000  # training images compared at a time


class Pictures(NamedTuple):
    """What was drawn, on the CPU."""

    images: Tensor  #: (B, C, H, W) in [0, 1]
    frames: Tensor | None = None  #: (B, T, C, H, W) in [0, 1], the canvas after each step
    read_windows: Window | None = None  #: fields (B, T)
    write_windows: Window | None = None  #: fields (B, T)
    attended: Tensor | None = None  #: (B, T, K), weights of the parts of a condition


def _accepted(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Return the arguments that are not None and that a function's signature names."""
    names = inspect.signature(function).parameters
    return {k: value for k, value in arguments.items() if k in names and value is not None}


def _pictures(record: Any) -> Pictures | None:
    """Return what a :class:`drawbench.models.draw.Drawing` or ``Sample`` shows.

    None for a record without ``mean``: a generator of the user's own needs none.
    """
    if not hasattr(record, "mean"):
        return None
    frames = getattr(record, "frames", None)
    windows = (_window(getattr(record, f"{name}_windows", None)) for name in ("read", "write"))
    frames, attended = (
        one if one is None else one.cpu() for one in (frames, getattr(record, "attended", None))
    )
    reads, writes = windows
    return Pictures(record.mean.cpu(), frames, reads, writes, attended)


def _window(windows: Any) -> Window | None:
    """Return Gaussian windows on the CPU; None for none, or for windows of another kind."""
    if not all(hasattr(windows, name) for name in Window._fields):
        return None
    return Window(*(getattr(windows, name).cpu() for name in Window._fields))


def _noise(model: Any, index: Tensor, seed: int, name: str) -> Tensor:
    device = next(model.parameters()).device
    index = index.to(streams.exact_device(device))
    return bounds.noise(index, model.steps, model.latent, seed, name).to(device)


@torch.no_grad()
def samples(
    model: Any, count: int, seed: int = 0, condition: Tensor | None = None
) -> Pictures | None:
    """Sample a generator; the same seed returns the same pictures.

    Args:
        condition: (count, ...), for a generator whose ``sample`` takes one.
    """
    noise = _noise(model, torch.arange(count), seed, "sample")
    condition = None if condition is None else condition.to(noise.device)
    wishes = _accepted(model.sample, keep_canvases=True, condition=condition)
    return _pictures(model.sample(noise, **wishes))


@torch.no_grad()
def reconstructions(model: Any, batch: Batch, index: Tensor, seed: int = 0) -> Pictures | None:
    """Draw images again.

    Args:
        batch: the images and, for a conditional generator, their condition.
        index: int64 (B,), the numbers of the images, which choose their noise.
    """
    noise = _noise(model, index, seed, "reconstruction")
    inputs = [as_images(batch.images, noise.device), noise]
    if batch.condition is not None:
        inputs.append(batch.condition.to(noise.device))
    return _pictures(model(*inputs, **_accepted(model.forward, keep_canvases=True)))


@torch.no_grad()
def interpolations(model: Any, images: Tensor, points: int = 9) -> Tensor | None:
    """Decode points on the straight line between the latents of two images.

    The latents of an image are the posterior means, each step's computed from those before. Both
    ends are decoded too.

    Args:
        images: uint8 (2 R, C, H, W); row r goes from image r to image r + R.
        points: in a row, both ends included.

    Returns:
        (R, points, C, H, W) in [0, 1], on the CPU; None for a model without posterior or decoder.
    """
    device, rows = next(model.parameters()).device, len(images) // 2
    zeros = torch.zeros(2 * rows, model.steps, model.latent, device=device)
    record = model(as_images(images[: 2 * rows], device), zeros)
    if not (hasattr(record, "posterior") and hasattr(model, "decode")):
        return None
    latents = record.posterior.mu
    share = torch.linspace(0, 1, points, device=device)[None, :, None, None]
    line = torch.lerp(latents[:rows, None], latents[rows:, None], share)
    return model.decode(line.flatten(0, 1)).mean.view(rows, points, *images.shape[1:]).cpu()


def nearest(pictures: Tensor, train: Train) -> Tensor:
    """Return the training image at the smallest Euclidean distance from each picture.

    A model that copies reveals itself beside it. Where training images are made as they are needed,
    those of the first epoch count.

    Args:
        pictures: (B, C, H, W) in [0, 1].

    Returns:
        (B, C, H, W) in [0, 1].
    """
    smallest, closest = torch.full((len(pictures),), torch.inf), torch.zeros_like(pictures)
    for first in range(0, len(train), CHUNK):
        batch = train.batch(first, min(CHUNK, len(train) - first))
        images = as_images(batch.images)
        distance, which = torch.cdist(pictures.flatten(1), images.flatten(1)).min(dim=1)
        closer = distance < smallest
        smallest[closer], closest[closer] = distance[closer], images[which[closer]]
    return closest
