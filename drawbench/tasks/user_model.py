"""Your own model: any network that maps images to logits, on the same test file as every other.

What a stranger's network does is checked before it is measured, and whatever goes wrong in it is
said in one sentence that names it.
"""

import dataclasses
import hashlib
import importlib
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from drawbench.config import Evaluate, shown
from drawbench.data import sources, store
from drawbench.errors import Problem, reason
from drawbench.evaluation import error_rate
from drawbench.evaluation.cost import cost
from drawbench.models.one_look import Answer
from drawbench.tasks.classify import CLASSES, measured, prepare_data
from drawbench.training import Reporter

TRIED = 16  # images that a model is tried on before it is measured


class Guest(nn.Module):
    """A stranger's network with the interface of ours: images (B, 1, H, W) in [0, 1] to a record
    with ``logits`` (B, T, 10).

    Args:
        name: what to call it in a message.
        network: gives logits (B, 10), or a record with ``logits`` (B, T, 10).
    """

    def __init__(self, name: str, network: nn.Module):
        super().__init__()
        self.name, self.network = name, network
        pixels: Any = getattr(network, "pixels_read", None)
        if pixels is not None:
            self.pixels_read = int(pixels)

    def forward(self, images: Tensor) -> Answer:
        """Its answers.

        Raises:
            Problem: it raises, or what it gives is not finite logits of the right shape.
        """
        answers = _of_guest(
            f"{self.name} called with images {tuple(images.shape)}", lambda: self.network(images)
        )
        logits = getattr(answers, "logits", answers)
        wanted = f"logits ({len(images)}, {CLASSES}), or a record with logits ({len(images)}, T, {CLASSES})"
        if not isinstance(logits, Tensor):
            raise Problem(
                f"{self.name} gave {type(logits).__name__} for images {tuple(images.shape)}; it must give {wanted}"
            )
        steps = logits[:, None] if logits.ndim == 2 else logits
        if (
            steps.ndim != 3
            or steps.shape[1] < 1
            or (steps.shape[0], steps.shape[2]) != (len(images), CLASSES)
        ):
            raise Problem(
                f"{self.name} gave logits {tuple(logits.shape)} for images {tuple(images.shape)}; it must give {wanted}"
            )
        if not logits.is_floating_point():
            raise Problem(
                f"{self.name} gave logits of type {logits.dtype}; they must be floating-point numbers, one for each class"
            )
        if not torch.isfinite(logits).all():
            raise Problem(
                f"{self.name} gave logits that are not finite; its weights are broken, or it divides by zero"
            )
        return Answer(steps)


def _of_guest(what: str, call: Callable[[], Any]) -> Any:
    """The result of a call into code that is not ours.

    Raises:
        Problem: it raised; the message names ``what`` and the exception.
    """
    try:
        return call()
    except Problem:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise Problem(
            f"{what} raised {type(error).__name__}: {text[:500]}"
            if text
            else f"{what} raised {type(error).__name__}"
        ) from error


def load_guest(name: str, weights: Path | None = None) -> Guest:
    """The network that ``module:factory`` names, with its weights, ready to measure.

    The module is looked for in the working folder too. The factory is called without arguments; a
    class will do.

    Args: weights: a safetensors file, or a file of ``torch.save(network.state_dict())``, which is
        read without running anything in it.

    Raises: Problem: there is no such module or factory, it does not give a network, or the weights
        are not sound or do not fit.
    """
    module_name, _, factory_name = name.partition(":")
    if (
        not module_name
        or not factory_name.isidentifier()
        or not all(part.isidentifier() for part in module_name.split("."))
    ):
        raise Problem(
            f"--model of evaluate must be module:factory, as in mymodel:network, got {name!r}"
        )
    factory = getattr(_module(module_name), factory_name, None)
    if factory is None:
        raise Problem(
            f"module {module_name} has no {factory_name!r}; name the function or class that makes the network"
        )
    if not callable(factory):
        raise Problem(
            f"{name} is of type {type(factory).__name__}, which cannot be called; name the function or class that makes the network"
        )
    network = _of_guest(name, factory)
    if not isinstance(network, nn.Module):
        raise Problem(
            f"{name} gave something of type {type(network).__name__}; it must give a torch.nn.Module"
        )
    if weights is not None:
        tensors = read_weights(weights)
        try:
            network.load_state_dict(tensors)
        # RuntimeError, or what a tensor of an odd kind, or a method of the stranger's, raises
        except Exception as error:
            raise Problem(f"the weights in {weights} do not fit {name}: {reason(error)}") from error
    return Guest(name, network).eval()


def _module(name: str) -> Any:
    """A module by its dotted name, from the working folder or anywhere Python looks.

    Raises:
        Problem: it is not there, or raises when it is imported.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Problem(
                f"there is no module {name!r} in {Path.cwd()} nor where Python looks; give a dotted name, without .py"
            ) from error
        raise Problem(f"module {name} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise Problem(
            f"module {name} cannot be imported: it raised {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of weights, by name. Nothing in the file is run.

    Raises: Problem: the file is missing or damaged, holds something that would have to be run, or
        something other than tensors by name.
    """
    if not path.is_file():
        raise Problem(f"there is no file of weights {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            _check_archive(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Problem:
        raise
    except pickle.UnpicklingError as error:
        raise Problem(
            f"{path} is damaged, or holds more than tensors, which would have to be run to be read; "
            "save weights alone: safetensors, or torch.save(network.state_dict(), file)"
        ) from error
    # a broken file makes torch raise nearly anything: IndexError, AttributeError, struct.error ...
    except Exception as error:
        raise Problem(f"{path} is not a file of weights, or damaged: {reason(error)}") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise Problem(
            f"{path} does not hold tensors by name; save them so: torch.save(network.state_dict(), file)"
        )
    return tensors


def _check_archive(path: Path) -> None:
    """Nothing, if a zip archive holds what it says and no more bytes than it has: torch packs
    nothing, and a trap unpacks without end.

    Raises:
        Problem: it does not.
    """
    with zipfile.ZipFile(path) as archive:
        if (promised := sum(entry.file_size for entry in archive.infolist())) > path.stat().st_size:
            raise Problem(
                f"{path} is damaged: it promises {promised:,} bytes and has {path.stat().st_size:,}"
            )
        if (broken := archive.testzip()) is not None:
            raise Problem(
                f"{path} is damaged: the checksum of {shown(broken)} in it does not agree"
            )


@torch.no_grad()
def try_out(guest: Guest, images: Tensor) -> None:
    """Nothing, if a network's answers about images, uint8 (B, H, W), are a function of the image
    alone.

    Raises: Problem: they change from call to call, or with the other images in the batch, or they
        are no answers.
    """
    inputs = error_rate.as_input(images, next(guest.parameters(), torch.empty(0)).device)
    first, second = guest(inputs).logits, guest(inputs).logits
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4):
        raise Problem(
            f"{guest.name} answers differently when it is asked twice, though it was set to eval mode: dropout that is always on, or noise "
            "of its own; make its answers a function of the image"
        )
    alone = torch.cat([guest(image[None]).logits for image in inputs])
    if not torch.allclose(first, alone, rtol=1e-3, atol=1e-3):
        raise Problem(
            f"{guest.name} answers differently about an image alone than among {len(images)}, though it was set to eval mode: statistics "
            "of the batch are at work; make its answers a function of the image"
        )


def prepare(
    config: Evaluate, sources_root: Path, datasets_root: Path, reporter: Reporter
) -> tuple[Evaluate, store.Scenes]:
    """The configuration with the source that was found and a hash of the weights, and the test
    file, made if it is not there.
    """
    source = sources.load(config.data.source, sources_root, warn=reporter.say)
    data, model = dataclasses.replace(config.data, source=source.name), config.model
    if model.weights is not None:
        model = dataclasses.replace(
            model, weights_sha256=hashlib.sha256(Path(model.weights).read_bytes()).hexdigest()
        )
    return Evaluate(data, model), store.load(
        prepare_data(data, source, datasets_root, reporter), "test"
    )


def measure(
    config: Evaluate,
    guest: Guest,
    test: store.Scenes,
    command: str,
    *,
    batch: int = 250,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The content of ``result.json`` of a network that somebody brought along: what a run of ours
    has, but for its training.
    """
    try_out(guest, torch.from_numpy(test.images[:TRIED]))
    score = error_rate.score(
        error_rate.predict(guest, test.images, batch=batch, check=check), test.labels
    )
    unknown = dict.fromkeys(("seed", "steps", "images_seen", "train_seconds", "glimpses"))
    price = cost(guest, *test.images.shape[1:])
    return {
        "task": "classify",
        "model": guest.name,
        **measured(config.data, score, price),
        **unknown,
        "command": command,
    }
