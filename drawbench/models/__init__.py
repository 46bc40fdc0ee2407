"""Models by name, and the one way to build them.

A **classifier** maps images (B, C, H, W) in [0, 1] to a record with ``logits`` (B, T, classes), the
last of them its answer. It may have

* ``glimpses``, how often it looks; its forward then takes ``glimpses`` too;
* ``pixels_read``, how many numbers it takes from an image, if not all;
* ``noise``, standard normals per image in training (0 for none); its forward then takes ``noise``
  (B, that many), and without it makes its best choice;
* ``added_loss``, a function of its record and the labels (B,) to minimize beside the cross-entropy,
  or None.

A **generator** has ``steps``, ``latent`` and ``size`` (channels, height, width). It maps images and
noise (B, steps, latent) to a record with ``terms`` and ``log_weight``, such as
:class:`drawbench.models.draw.Drawing`, and has ``sample`` (from noise) and ``decode`` (from
latents), which return a :class:`drawbench.models.draw.Sample`. It may have

* ``read_patch`` and ``write_patch``, sides of the patches that it reads and writes through windows,
  None for whole images;
* ``levels``, whether its likelihood is one of pixels with 256 levels;
* ``conditional``, whether it draws from a condition, its third argument.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from drawbench.models.aligndraw import AlignDraw
from drawbench.models.cnn import FullyConnected, SixLayerConv, TwoLayerConv
from drawbench.models.common import as_images as as_images
from drawbench.models.common import attention_of as attention_of
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.glimpses import (
    AffineGlimpse,
    EyeGlimpse,
    FixedGlimpse,
    GaussianGlimpse,
    HardGlimpse,
    RandomGlimpse,
)
from drawbench.models.stn import SpatialTransformer
from drawbench.models.vae import VAE


def _network(glimpse, *, height=0, width=0, **settings) -> GlimpseClassifier:
    """Build a glimpse network, which takes images of any size."""
    return GlimpseClassifier(glimpse, **settings)


def _eye(patch, window_map, *, channels=1, **rest) -> GlimpseClassifier:
    return _network(EyeGlimpse(patch, window_map, channels), channels=channels, **rest)


def _affine(patch, window_map, supersample, **rest) -> GlimpseClassifier:
    return _network(AffineGlimpse(patch, window_map, supersample), **rest)


def _ram(patch, scales, deviation, reinforce, *, hidden, channels=1, **rest) -> GlimpseClassifier:
    glimpse = HardGlimpse(patch, scales, deviation, reinforce, hidden, channels)
    return _network(glimpse, hidden=hidden, channels=channels, **rest)


def _generator(glimpses, attention, read_patch, write_patch, **rest) -> Draw:
    return Draw(
        steps=glimpses,
        read_patch=read_patch if attention in ("both", "read") else None,
        write_patch=write_patch if attention in ("both", "write") else None,
        **rest,
    )


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "draw": lambda patch, window_map, **rest: _network(GaussianGlimpse(patch, window_map), **rest),
    "eye": _eye,
    "affine": _affine,
    "random": lambda patch, **rest: _network(RandomGlimpse(patch), **rest),
    "fixed": lambda patch, **rest: _network(FixedGlimpse(patch, rest["glimpses"]), **rest),
    "ram": _ram,
    "stn": SpatialTransformer,
    "fc": FullyConnected,
    "conv2": TwoLayerConv,
    "conv6": SixLayerConv,
}
GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "draw": _generator,
    "aligndraw": lambda glimpses, **rest: AlignDraw(steps=glimpses, **rest),
    "vae": VAE,
}


def make(
    factory: Callable[..., nn.Module], arguments: Mapping[str, Any], facts: Mapping[str, Any]
) -> nn.Module:
    """Build a model: ``factory(**arguments, **facts)``, leaving out the facts that it does not
    take.

    Args:
        factory: a class or function, from :data:`CLASSIFIERS`, :data:`GENERATORS` or a user's.
        arguments: the settings of the model.
        facts: what the data say: ``channels``, ``height``, ``width`` and, for classifiers,
            ``classes``.

    Raises:
        ValueError: the model cannot be built for these, such as images too small.
    """
    accepted = _accepted(factory, facts)
    return factory(**arguments, **{name: facts[name] for name in facts if name in accepted})


def _accepted(factory: Callable[..., Any], names: Iterable[str]) -> set[str]:
    """Return those of the names that are arguments of a factory. A class that passes ``**others``
    on also takes the arguments of the classes that it inherits from.
    """
    kinds = factory.mro() if isinstance(factory, type) else ()
    constructors = [vars(kind)["__init__"] for kind in kinds if "__init__" in vars(kind)]
    accepted: set[str] = set()
    for constructor in constructors or [factory]:
        parameters = inspect.signature(constructor).parameters
        accepted.update(parameters)
        if all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
            return accepted & set(names)
    return accepted & set(names) if kinds else set(names)


def draw_images(
    model: Callable[..., Any], images: Tensor, noise: Tensor, condition: Any = None
) -> Any:
    """Call a generator, with the condition if there is one; return its record."""
    return model(images, noise) if condition is None else model(images, noise, condition)
