"""Models, one file each. To add one: write its file, then name it here and in ``config.CLASSIFIERS`` or ``config.GENERATORS``."""

import torch
from torch import Tensor, nn

from drawbench.config import ClassifierModel, GeneratorModel
from drawbench.models.draw import Draw, Drawing
from drawbench.models.draw_fast import fast_drawing
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.vae import VAE

Generator = Draw | VAE  # what :func:`build_generator` gives


def build_classifier(settings: ClassifierModel, classes: int = 10) -> nn.Module:
    """The classifier that settings ask for, with torch's default initial weights (seed them from outside).

    Every classifier maps images (B, 1, H, W) in [0, 1] to a record with ``logits`` (B, T, classes), the last of them its answer.
    """
    match settings.model:
        case "draw":
            return GlimpseClassifier(
                glimpses=settings.glimpses,
                patch=settings.patch,
                hidden=settings.hidden,
                classes=classes,
                window_map=settings.window_map,
                window_clip=settings.window_clip,
            )
        case name:
            raise ValueError(f"unknown classifier {name!r}")


def build_generator(settings: GeneratorModel, size: tuple[int, int, int]) -> Generator:
    """The generator that settings ask for, for images of ``size`` (channels, height, width), with random initial weights.

    Every generator maps images (B, C, H, W) in [0, 1] and noise (B, ``steps``, ``latent``) to a :class:`Drawing`, and has a method
    ``sample`` from noise to a :class:`drawbench.models.draw.Sample`.
    """
    channels, height, width = size
    match settings.model:
        case "draw":
            return Draw(
                height=height,
                width=width,
                channels=channels,
                steps=settings.glimpses,
                hidden=settings.hidden,
                latent=settings.latent,
                read_patch=settings.read_patch if settings.attention in ("both", "read") else None,
                write_patch=settings.write_patch if settings.attention in ("both", "write") else None,
                window_map=settings.window_map,
                window_clip=settings.window_clip,
            )
        case "vae":
            return VAE(height=height, width=width, channels=channels, hidden=settings.hidden, latent=settings.latent)
        case name:
            raise ValueError(f"unknown generator {name!r}")


def drawing(model: Generator, images: Tensor, noise: Tensor, products: torch.dtype = torch.float32, segment: int | None = None) -> Drawing:
    """``model(images, noise)``, by the fast path where the model has one; arguments as :func:`fast_drawing`."""
    return fast_drawing(model, images, noise, products, segment) if isinstance(model, Draw) else model(images, noise)
