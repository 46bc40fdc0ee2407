"""A classifier trained elsewhere, measured on the test images of a data set."""

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from drawbench import config as configs
from drawbench.config.fields import shown
from drawbench.errors import Problem, reason
from drawbench.evaluation.paired import Outcomes
from drawbench.reporters import Reporter
from drawbench.tasks import classify, common, user_model
from drawbench.tasks.task import Check


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors in a file of weights, by name; nothing in the file is run.

    Args:
        path: safetensors, or ``torch.save(network.state_dict(), file)``; the content decides.

    Raises:
        Problem: the file is missing or damaged, or holds anything but tensors by name.
    """
    if not path.is_file():
        raise Problem(f"there is no file of weights {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        pass  # not safetensors
    try:
        _check_archive(path)
        with path.open("rb") as file:  # torch goes by the suffix of a name
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Problem:
        raise
    except pickle.UnpicklingError as error:
        raise Problem(
            f"{path} is damaged, or holds more than tensors, which would have to be run to be "
            "read; save weights alone: safetensors, or torch.save(network.state_dict(), file)"
        ) from error
    except Exception as error:  # a broken file makes torch raise nearly anything
        raise Problem(f"{path} is not a file of weights, or damaged: {reason(error)}") from error
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise Problem(
            f"{path} does not hold tensors by name; "
            "save them with: torch.save(network.state_dict(), file)"
        )
    return tensors


def _check_archive(path: Path) -> None:
    """Check that a zip archive, if it is one, is sound and not packed: torch packs nothing, and
    checks no checksums; a trap unpacks without end.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
        if unpacked > size:
            raise Problem(f"{path} is damaged: it promises {unpacked:,} bytes and has {size:,}")
        if (broken := archive.testzip()) is not None:
            raise Problem(f"{path} is damaged: the checksum of {shown(broken)} in it is wrong")


def measure(
    config: Any,
    weights: Path | None,
    sources_root: Path,
    datasets_root: Path,
    reporter: Reporter,
    *,
    batch: int = 250,
    check: Check = lambda: None,
) -> tuple[Any, dict[str, Any], Outcomes]:
    """Measure a network of the user's own on the test images of a data set.

    Args:
        config: a :class:`drawbench.config.MeasureModel`.
        weights: of the network; None to measure it as its factory makes it.

    Returns:
        The complete configuration, the content of ``result.json`` and the loss of each image.
    """
    name = config.model.model
    roots = {"sources_root": sources_root, "datasets_root": datasets_root}
    dataset, facts = common.load_data(config, 0, reporter, (config.data.dataset,), **roots)
    network = user_model.build(name, "classify", config.model.arguments, facts, (name,))
    if weights is not None:
        try:
            network.load_state_dict(read_weights(weights))
        except Problem:
            raise
        except Exception as error:  # RuntimeError, or what a method of the user's raises
            raise Problem(f"the weights in {weights} do not fit {name}: {reason(error)}") from error
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        config = configs.replace(config, weights_sha256=digest)
    if hasattr(config.data, "source"):
        config = configs.replace(config, source=dataset.source)
    network = network.to(common.device_of("auto")).eval()
    user_model.check_model(config, network, dataset)
    measurement = classify.measure(network, dataset, batch=batch, check=check)
    unknown = dict.fromkeys(("seed", "steps", "images_seen", "train_seconds", "glimpses"))
    about = {"task": "classify", "model": name, "dataset": dataset.name, "source": dataset.source}
    return config, {**about, **measurement.fields, **unknown}, measurement.outcomes
