"""A trained model as an ONNX file: a classifier's answers, a generator's samples.

Both take any number of images at a time, and say in the file what their numbers are.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drawbench import streams
from drawbench.errors import Problem, reason

OPSET = 20
TRIED = (1, 3)  # images that the file is tried on, at a time
TOLERANCE = 1e-3  # of probabilities and pixels, beside the model's own


class _Answers(nn.Module):
    """Images (B, C, H, W) in [0, 1] to class probabilities (B, T, classes) after each glimpse."""

    names = ("images", "probabilities")

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits.float().softmax(dim=-1)


class _Samples(nn.Module):
    """Standard normals (B, T, Z) to pictures (B, C, H, W) in [0, 1]."""

    names = ("noise", "pictures")

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model

    def forward(self, noise: Tensor) -> Tensor:
        return self.model.sample(noise).mean


def export(model: Any, shape: tuple[int, ...], path: Path, facts: dict[str, Any]) -> None:
    """Write a model as an ONNX file, and check that the file computes what the model does.

    Args:
        model: a classifier, or a generator with ``sample``, on the CPU.
        shape: of one image (C, H, W), or of a generator's noise for one picture (T, Z).
        facts: what the file says of itself, such as the names of the classes.

    Raises:
        Problem: a package is missing; the model cannot be exported, or the file computes other
            numbers.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it to export
    except ImportError as error:
        raise Problem(
            f"ONNX files need the package {error.name}; install all that they need with: "
            "pip install 'drawbench[onnx]'"
        ) from error
    wrapped = (_Samples if hasattr(model, "sample") else _Answers)(model).eval()
    source, target = wrapped.names
    example = _inputs(2, shape, wrapped)
    try:
        with _silence(), torch.no_grad():
            program: Any = torch.onnx.export(
                wrapped,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=[source],
                output_names=[target],
            )
            program.model.producer_name = "drawbench"
            program.model.metadata_props.update(
                {name: json.dumps(value) for name, value in facts.items()}
            )
            program.save(path, external_data=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for count in TRIED:
            images = _inputs(count, shape, wrapped)
            with torch.no_grad():
                expected = wrapped(images).numpy()
            (found,) = session.run(None, {source: images.numpy()})
            _compare(found, expected)
    except Problem:
        path.unlink(missing_ok=True)
        raise
    except Exception as error:  # torch and onnxruntime raise nearly anything
        path.unlink(missing_ok=True)
        raise Problem(
            f"this model cannot be exported to ONNX ({type(error).__name__}: "
            f"{reason(error):.300}); leave out --onnx"
        ) from error


def _inputs(count: int, shape: tuple[int, ...], wrapped: nn.Module) -> Tensor:
    """Return what to try a model on: noise, or images in [0, 1]."""
    size = int(np.prod(shape))
    noise = streams.normals(torch.arange(count), size, 0, "onnx").float().view(count, *shape)
    return noise if isinstance(wrapped, _Samples) else noise.sigmoid()


def _compare(found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape:
        raise Problem(
            f"the ONNX file returns {found.shape} where the model returns {expected.shape}; "
            "leave out --onnx"
        )
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise Problem(
            f"the ONNX file computes other numbers than the model (they differ by {difference:.2g}"
            "): it does something that ONNX does not know, such as drawing places from a hash of "
            "the image; leave out --onnx"
        )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep torch's exporter from printing how it is getting on."""
    logger, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logger.setLevel(level)
