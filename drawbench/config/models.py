"""Settings of the models, a dataclass for each.

The fields, ``model`` apart, are the arguments of the model's factory in :mod:`drawbench.models`.
The first line of a docstring explains the model in ``--help``.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from drawbench.config.fields import ChosenSection, Problem, Section, selector, setting, shown


def count(default: int, help: str, high: int, note: str | None = None) -> Any:
    return setting(default, help, role="model", low=1, high=high, note=note)


def hidden(default: int = 256) -> Any:
    help = "LSTM units, or units of each fully connected layer."
    return count(default, help, 65536, note="{} units")


def patch(default: int) -> Any:
    return count(default, "Side of a glimpse, in filters or pixels.", 512)


def window_map(default: str) -> Any:
    help = "How the LSTM's state sets a window: bounded smoothly, or the paper's plain linear map."
    return setting(default, help, role="model", choices=("bounded", "linear"))


def window_clip(default: float | None) -> Any:
    help = "Largest gradient norm that one image sends back through one window."
    return setting(default, help, role="model", above=0)


def supersample() -> Any:
    return count(1, "Samples per number along each side; 1 aliases.", 16)


def likelihood() -> Any:
    help = (
        "Distribution of the pixels; bernoulli: black or white, the paper's; logistic: 256 levels, "
        "a discretised logistic with a learned scale per channel."
    )
    return setting("bernoulli", help, role="model", choices=("bernoulli", "logistic"))


@dataclass(frozen=True)
class Model(ChosenSection):
    """Settings of a model that comes with the package."""

    model: str = ""


@dataclass(frozen=True)
class UserModel(Section):
    """A model of your own."""

    model: str = setting("module:factory", "Where it is.", role="model")
    arguments: dict = dataclasses.field(default_factory=dict, metadata={"role": "model"})

    def __post_init__(self):
        super().__post_init__()
        for name, value in self.arguments.items():
            if not (isinstance(name, str) and name.isidentifier()):
                raise Problem(f"{name!r} cannot be the name of an argument of {self.model}")
            finite = not isinstance(value, float) or math.isfinite(value)
            if not (isinstance(value, str | int | float | bool | None) and finite):
                raise Problem(
                    f"argument {name} of {self.model} must be a finite number, a word, true or"
                    f" false, got {shown(value)}"
                )


@dataclass(frozen=True)
class GlimpseModel(Model):
    """Settings of every classifier that looks several times."""

    glimpses: int = count(8, "Glimpses of the image before the answer.", 1024)
    patch: int = patch(12)
    hidden: int = hidden()


@dataclass(frozen=True)
class DrawClassifier(GlimpseModel):
    """The paper's LSTM with Gaussian windows."""

    model: str = selector("draw")
    window_map: str = window_map("bounded")
    window_clip: float | None = window_clip(10.0)


@dataclass(frozen=True)
class EyeClassifier(DrawClassifier):
    """The paper's LSTM with a small convolutional eye beside each raw glimpse."""

    model: str = selector("eye")


@dataclass(frozen=True)
class AffineClassifier(GlimpseModel):
    """The same LSTM with the affine glimpses of a spatial transformer."""

    model: str = selector("affine")
    window_map: str = window_map("bounded")
    window_clip: float | None = window_clip(1.0)
    supersample: int = supersample()


@dataclass(frozen=True)
class RandomClassifier(GlimpseModel):
    """The same LSTM with windows at random places."""

    model: str = selector("random")
    window_clip: float | None = window_clip(10.0)


@dataclass(frozen=True)
class FixedClassifier(GlimpseModel):
    """The same LSTM with learned windows that are the same for every image."""

    model: str = selector("fixed")


@dataclass(frozen=True)
class RamClassifier(GlimpseModel):
    """The recurrent attention model: hard attention, trained by REINFORCE."""

    model: str = selector("ram")
    scales: int = count(4, "Scales per glimpse, each twice as wide as the one before.", 8)
    deviation: float = setting(
        0.15,
        "Standard deviation of the places sampled in training, in image halves.",
        role="model",
        above=0,
        high=10.0,
    )
    reinforce: float = setting(0.1, "Weight of REINFORCE in the loss.", role="model", low=0.0)


@dataclass(frozen=True)
class StnClassifier(Model):
    """A spatial transformer in front of a convolutional network."""

    model: str = selector("stn")
    patch: int = patch(28)
    hidden: int = hidden()
    supersample: int = supersample()
    filters: int = count(20, "Filters of each convolution of the localising network.", 512)


@dataclass(frozen=True)
class FcClassifier(Model):
    """Two fully connected layers on the whole image."""

    model: str = selector("fc")
    hidden: int = hidden()


@dataclass(frozen=True)
class Conv2Classifier(Model):
    """One convolution and one fully connected layer on the whole image."""

    model: str = selector("conv2")
    hidden: int = hidden()


@dataclass(frozen=True)
class Conv6Classifier(Model):
    """Six convolutions on the whole image."""

    model: str = selector("conv6")


@dataclass(frozen=True)
class DrawGenerator(Model):
    """A DRAW network; the paper's has 256 units, reads 2x2 and writes 5x5 in 64 steps."""

    model: str = selector("draw")
    glimpses: int = count(64, "Steps of reading and writing.", 4096)
    hidden: int = hidden()
    latent: int = count(100, "Latent variables, of each step.", 65536)
    attention: str = setting(
        "both",
        "What goes through windows: reading and writing, one of them, or none (a recurrent VAE).",
        role="model",
        choices=("both", "read", "write", "none"),
    )
    read_patch: int = count(
        2, "Side of the patch that is read, in filters.", 512, note="reads {0}x{0}"
    )
    write_patch: int = count(5, "Side of the patch that is written, in filters.", 512)
    window_map: str = window_map("linear")
    window_clip: float | None = window_clip(None)
    likelihood: str = likelihood()


@dataclass(frozen=True)
class AlignDrawGenerator(Model):
    """alignDRAW, which draws what a caption says."""

    model: str = selector("aligndraw")
    glimpses: int = count(32, "Steps of reading and writing.", 4096)
    hidden: int = hidden(300)
    latent: int = count(150, "Latent variables, of each step.", 65536)
    read_patch: int = count(8, "Side of the patch that is read, in filters.", 512)
    write_patch: int = count(8, "Side of the patch that is written, in filters.", 512)
    words: int = count(128, "Units of the LSTM that reads a caption, in each direction.", 65536)
    alignment: int = count(512, "Units between a word and its weight.", 65536)
    window_map: str = window_map("linear")
    window_clip: float | None = window_clip(None)


@dataclass(frozen=True)
class VaeGenerator(Model):
    """The plain variational autoencoder."""

    model: str = selector("vae")
    hidden: int = hidden(500)
    latent: int = count(50, "Latent variables.", 65536)
    likelihood: str = likelihood()


CLASSIFIERS: dict[str, type] = {
    kind.model: kind
    for kind in (
        DrawClassifier,
        EyeClassifier,
        AffineClassifier,
        RandomClassifier,
        FixedClassifier,
        RamClassifier,
        StnClassifier,
        FcClassifier,
        Conv2Classifier,
        Conv6Classifier,
    )
}
GENERATORS: dict[str, type] = {
    kind.model: kind for kind in (DrawGenerator, AlignDrawGenerator, VaeGenerator)
}


@dataclass(frozen=True)
class MeasuredModel(UserModel):
    """A trained model of your own, to be measured."""

    weights: str | None = setting(None, "File with its weights.", role="model")
    weights_sha256: str | None = setting(None, "SHA-256 of that file.", role="model")
