"""Models, one file each. To add one: write its file, then name it here and in
``config.CLASSIFIERS`` or ``config.GENERATORS``.
"""

from typing import Any

from torch import nn

from drawbench.config import ClassifierModel, GeneratorModel
from drawbench.models.affine import AffineGlimpseClassifier
from drawbench.models.conv2 import TwoLayerConv
from drawbench.models.conv6 import SixLayerConv
from drawbench.models.draw import Draw
from drawbench.models.fc import FullyConnected
from drawbench.models.fixed_glimpses import FixedGlimpseClassifier
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.ram import RecurrentAttention
from drawbench.models.random_glimpses import RandomGlimpseClassifier
from drawbench.models.stn import SpatialTransformer
from drawbench.models.vae import VAE

Generator = Draw | VAE  # what :func:`build_generator` gives


def build_classifier(
    settings: ClassifierModel, size: tuple[int, int], classes: int = 10
) -> nn.Module:
    """The classifier that settings ask for, for images of ``size`` (height, width), with random
    initial weights (seed them from outside).

    Every classifier maps images (B, 1, H, W) in [0, 1] to a record with ``logits`` (B, T, classes),
    the last of them its answer. Beyond that it may have

    * ``glimpses``, how often it looks; then forward takes ``glimpses`` too, to look more or less
      often;
    * ``pixels_read``, how many numbers it takes from an image, if not all;
    * ``noise``, how many standard normal numbers each image wants in training; then forward takes
      ``noise`` (B, that many), and without it does what it holds best;
    * ``added_loss``, from its record and the labels (B,) to what it descends beside the
      cross-entropy of its answers.

    Raises:
        ValueError: the model cannot be made for images so small.
    """
    glimpsing: dict[str, Any] = {
        "glimpses": settings.glimpses,
        "patch": settings.patch,
        "hidden": settings.hidden,
        "classes": classes,
    }
    windows: dict[str, Any] = {
        "window_map": settings.window_map,
        "window_clip": settings.window_clip,
    }
    match settings.model:
        case "draw":
            return GlimpseClassifier(**glimpsing, **windows)
        case "affine":
            return AffineGlimpseClassifier(**glimpsing, **windows)
        case "random":
            return RandomGlimpseClassifier(**glimpsing, window_clip=settings.window_clip)
        case "fixed":
            return FixedGlimpseClassifier(**glimpsing)
        case "ram":
            return RecurrentAttention(
                **glimpsing,
                scales=settings.scales,
                deviation=settings.deviation,
                weight=settings.reinforce,
            )
        case "stn":
            return SpatialTransformer(
                size, patch=settings.patch, hidden=settings.hidden, classes=classes
            )
        case "fc":
            return FullyConnected(size, hidden=settings.hidden, classes=classes)
        case "conv2":
            return TwoLayerConv(size, hidden=settings.hidden, classes=classes)
        case "conv6":
            return SixLayerConv(classes=classes)
        case name:
            raise ValueError(f"unknown classifier {name!r}")


def build_generator(settings: GeneratorModel, size: tuple[int, int, int]) -> Generator:
    """The generator that settings ask for, for images of ``size`` (channels, height, width), with
    random initial weights.

    Every generator maps images (B, C, H, W) in [0, 1] and noise (B, ``steps``, ``latent``) to a
    :class:`Drawing`, and has a method ``sample`` from noise to a
    :class:`drawbench.models.draw.Sample`.
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
                write_patch=settings.write_patch
                if settings.attention in ("both", "write")
                else None,
                window_map=settings.window_map,
                window_clip=settings.window_clip,
            )
        case "vae":
            return VAE(
                height=height,
                width=width,
                channels=channels,
                hidden=settings.hidden,
                latent=settings.latent,
            )
        case name:
            raise ValueError(f"unknown generator {name!r}")
