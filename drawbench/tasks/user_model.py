"""Models of the user's own, named ``module:factory``: built, adapted and checked."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from drawbench import models
from drawbench.data.dataset import Dataset
from drawbench.errors import Problem
from drawbench.models.cnn import Answer
from drawbench.training import try_update
from drawbench.user_code import blamed, factory

TRIED = 16  # images that a model is tried on before it is measured


def build(
    name: str, task: str, arguments: dict[str, Any], facts: dict[str, int], trusted: Collection[str]
) -> nn.Module:
    """Build the user's own model and try it on a few images.

    Args:
        name: ``module:factory``. The factory may take any of ``facts`` (``channels``, ``height``,
            ``width``, ``classes``) and takes ``arguments`` (from ``--set``).

    Raises:
        Problem: the factory raises, or what it makes is no classifier or generator.
    """
    make = factory(name, trusted)
    with blamed(name):
        network = models.make(make, arguments, facts)
    if not isinstance(network, nn.Module):
        raise Problem(
            f"{name} returned an object of type {type(network).__name__}, not a torch.nn.Module"
        )
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        raise Problem(f"{name} has weights on torch's meta device, which hold no values")
    if task == "classify":
        return UserClassifier(name, network, facts["classes"])
    return network


class UserClassifier(nn.Module):
    """A user's network with the interface of ours; its weights keep their own names.

    Args:
        network: maps images (B, C, H, W) in [0, 1] to logits (B, classes), or to a record with
            ``logits`` (B, T, classes).
    """

    def __init__(self, name: str, network: nn.Module, classes: int):
        super().__init__()
        self.name, self.network, self.classes = name, network, classes
        for attribute in ("glimpses", "pixels_read", "noise"):
            if isinstance(value := getattr(network, attribute, None), int):
                setattr(self, attribute, value)
        self.added_loss = getattr(network, "added_loss", None)
        if hasattr(network, "glimpse"):  # whose corners the figures draw; not a second submodule
            object.__setattr__(self, "glimpse", network.glimpse)

    def forward(self, images: Tensor, **wishes: Any) -> Any:
        """Answer a batch.

        Raises:
            Problem: the network raises, or its output is not finite logits of the right shape.
        """
        call = f"{self.name}, called with images {tuple(images.shape)},"
        with blamed(call):
            output = self.network(images.clone(), **wishes)  # it may normalize its input in place
        logits, batch, classes = getattr(output, "logits", output), len(images), self.classes
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else ()
        if shape not in ((batch, classes), (batch, *shape[1:2], classes)):
            what = f"logits {shape}" if isinstance(logits, Tensor) else type(logits).__name__
            raise Problem(
                f"{call} returned {what}; it must return logits ({batch}, {classes}) or a record "
                f"with logits ({batch}, T, {classes})"
            )
        if not logits.is_floating_point():
            raise Problem(f"{call} returned logits of type {logits.dtype}; they must be floats")
        if len(shape) == 3 and logits is not output:
            return output
        return Answer(logits.reshape(batch, -1, classes))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's own state, so that its weights can be used without this class."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the network's own state."""
        return self.network.load_state_dict(*args, **kwargs)


@torch.no_grad()
def check_model(config: Any, model: nn.Module, dataset: Dataset) -> None:
    """Try a user's model on a few test images, before time is spent on it.

    Raises:
        Problem: it is not a classifier or generator that can be trained and measured.
    """
    device = next(model.parameters(), torch.empty(0)).device
    few = dataset.test.at(torch.arange(min(TRIED, len(dataset.test)))).to(device)
    images, training = models.as_images(few.images), model.training
    model.eval()
    if config.task == "generate":
        check_generator(model, config.model.model, images, few.condition)
    else:
        check_classifier(model, images)
    model.train(training)


def check_training(task: Any) -> None:
    """Try an update of a user's model, before there is a run folder.

    Raises:
        Problem: it has no weights to train, a state that cannot be saved, or raises.
    """
    name, model = task.config.model.model, task.model
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise Problem(f"{name} has no weights to train: no parameter of it requires a gradient")
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise Problem(
                f"{name} has a state that cannot be saved: {key} is of type "
                f"{type(value).__name__}, not a tensor"
            )
    with blamed(name):
        try_update(task)


def check_classifier(model: nn.Module, images: Tensor) -> None:
    """Check that a network's answers are a function of each image alone.

    Args:
        images: float32 (B, C, H, W) in [0, 1].

    Raises:
        Problem: they change from call to call or with the other images, or are not finite.
    """
    name = getattr(model, "name", type(model).__name__)
    first, second = model(images).logits, model(images).logits
    if not torch.isfinite(first).all():
        raise Problem(f"{name} returned logits that are not finite: its weights are broken")
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4):
        raise Problem(
            f"{name} answers differently when it is asked twice in eval mode (dropout that is "
            "always on, or noise of its own); make its answers a function of the image"
        )
    alone = torch.cat([model(image[None]).logits for image in images])
    if not torch.allclose(first, alone, rtol=1e-3, atol=1e-3):
        raise Problem(
            f"{name} answers differently about an image alone than among {len(images)} in eval "
            "mode (batch statistics); make its answers a function of the image"
        )


def check_generator(model: Any, name: str, images: Tensor, condition: Tensor | None) -> None:
    """Check that a user's generator has the interface that training and measuring rely on.

    Args:
        images: float32 (B, C, H, W) in [0, 1].

    Raises:
        Problem: it lacks ``steps`` or ``latent``, raises, or its record has no usable ``terms``.
    """
    for attribute in ("steps", "latent"):
        if type(getattr(model, attribute, None)) is not int or getattr(model, attribute) < 1:
            raise Problem(f"{name} needs a whole number {attribute!r} of 1 or more")
    noise = torch.zeros(len(images), model.steps, model.latent, device=images.device)
    with blamed(name):
        terms = models.draw_images(model, images, noise, condition).terms(images, torch.float64)
        shapes = tuple(terms.reconstruction.shape), tuple(terms.kl.shape)
        _ = terms.bound
    expected = (len(images),), (len(images), model.steps)
    if shapes != expected:
        raise Problem(
            f"{name} returned terms of shapes {shapes} for {len(images)} images and {model.steps} "
            f"steps; reconstruction and kl must be {expected}"
        )
    if not all(torch.isfinite(term).all() for term in (terms.reconstruction, terms.kl)):
        raise Problem(f"{name} returned terms that are not finite: its weights are broken")
