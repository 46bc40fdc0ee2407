"""The same recurrences written to be fast: by hand, with kernels in C or Triton, or as CUDA graphs.

:func:`forward_for` is the one door. The fast path computes exactly the equations of ``Draw``,
``AlignDraw`` and the ``GlimpseClassifier`` (with Gaussian glimpses, chosen, fixed or at random
places, with an eye or without, or with affine or hard ones), so it is taken only for these, part by
part; every other model, a subclass of them included, runs its own equations.
"""

import inspect
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from drawbench.fast.draw import fast_drawing
from drawbench.fast.eye import has_these_layers
from drawbench.fast.glimpse import GLIMPSES, fast_glimpses
from drawbench.fast.native import gpu_kernels, kernels
from drawbench.models import as_images
from drawbench.models.aligndraw import AlignDraw
from drawbench.models.cnn import FullyConnected, SixLayerConv, TwoLayerConv
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.glimpses import EyeGlimpse, RandomGlimpse
from drawbench.models.stn import SpatialTransformer

# The exact types of the parts of the models that have a fast path.
_PARTS: dict[str, tuple[type, ...]] = {
    "glimpse": tuple(GLIMPSES),
    **dict.fromkeys(("glimpse.first", "glimpse.second"), (nn.Conv2d,)),
    **dict.fromkeys(("glimpse.what", "glimpse.where", "glimpse.join"), (nn.Linear,)),
    "glimpse.expect": (nn.Linear,),
    **dict.fromkeys(("cell", "encoder", "decoder"), (nn.LSTMCell,)),
    **dict.fromkeys(("to_window", "classify", "to_mu", "to_log_sigma", "to_patch"), (nn.Linear,)),
    **dict.fromkeys(("to_read_window", "to_write_window"), (nn.Linear,)),
    **dict.fromkeys(("to_key", "to_query", "to_score"), (nn.Linear,)),
    **dict.fromkeys(("to_prior_mu", "to_prior_log_sigma"), (nn.Linear,)),
    "language": (nn.LSTM,),
}
LARGEST_ON_GPU = 64  # pixels along a side of an image that the kernels of a GPU take
_WHOLE_IMAGE = (FullyConnected, TwoLayerConv, SixLayerConv, SpatialTransformer)
_UNBIASED = ("to_query", "to_score")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def multiplies_bfloat16(device: torch.device | None = None) -> bool:
    """Return whether a device, by default the CPU, has instructions that multiply bfloat16. On a
    CPU without them torch takes several times as long for bfloat16 as for float32.
    """
    return (device is not None and device.type != "cpu") or _cpu_multiplies_bfloat16()


@cache
def _cpu_multiplies_bfloat16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        has_them = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        if has_them is not None:
            return bool(has_them())
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # torch without oneDNN
        return False


def has_fast_path(model: nn.Module) -> bool:
    """Return whether the fast path computes what this model computes.

    The model and all of its parts must have exactly the types that the fast path replaces, with
    biases as there, without hooks, and with no method replaced on the object.
    """
    return type(model) in _BY_HAND and all(
        (not name or type(part) in _PARTS.get(name, ()))
        and not _is_hooked(part)
        and all(value is not None for value in part._parameters.values()) != (name in _UNBIASED)
        and not any(callable(value) for value in vars(part).values())
        and (type(part) is not EyeGlimpse or has_these_layers(part))
        for name, part in model.named_modules()
    )


def _is_hooked(part: nn.Module) -> bool:
    return any(getattr(part, hooks) for hooks in _HOOKS)


def can_be_recorded(model: nn.Module) -> bool:
    """Return whether the updates of a model can be recorded as CUDA graphs: of all built-in ones
    but those whose glimpses fall at random, by a hash of the images.

    As for the fast path, the model must be exactly what it was when that was tested.
    """
    if type(model) in _WHOLE_IMAGE:
        return not any(map(_is_hooked, model.modules()))
    return has_fast_path(model) and type(getattr(model, "glimpse", None)) is not RandomGlimpse


def forward_for(
    model: nn.Module, matmul_dtype: torch.dtype = torch.float32, segment: int | None = None
) -> Callable[..., Any]:
    """Return a function that computes what the model's own forward computes, as fast as possible.

    It takes images, uint8 (0-255) or floating point in [0, 1], (B, C, H, W) or (B, H, W), and the
    model's other arguments. It returns the model's record; on the fast path, without windows,
    patches and canvases.

    Args:
        model: any model. If it has a fast path (:func:`has_fast_path`) for the device that its
            parameters are on, and the kernels can be compiled, that path computes it; otherwise its
            own forward.
        matmul_dtype: dtype of the matrix products with weights. ``torch.float32`` leaves them in
            the parameters' own precision; ``torch.bfloat16`` rounds factors and results to 8 bits
            but sums in float32. Windows are never rounded.
        segment: steps of a generator whose intermediate values are kept for the gradient at a time;
            those of the others are recomputed. Memory then grows with ``segment + T / segment``
            instead of T, at the cost of one more forward pass. None keeps all. Ignored by models
            whose forward does not take it.

    Raises:
        ValueError: ``matmul_dtype`` is neither.
    """
    if matmul_dtype not in (torch.float32, torch.bfloat16):
        wanted = "torch.float32 (the parameters' own precision) or torch.bfloat16"
        raise ValueError(f"matmul_dtype must be {wanted}, got {matmul_dtype}")
    by_hand, names = _BY_HAND.get(type(model), (None, ()))
    parameters = inspect.signature(model.forward).parameters if segment else ()
    segmented = {"segment": segment} if "segment" in parameters else {}

    def forward(images: Tensor, *arguments: Any, **named: Any) -> Any:
        parameter = next(model.parameters(), torch.empty(0, device=images.device))
        tensors = [one for one in (images, *arguments, *named.values()) if isinstance(one, Tensor)]
        if (
            by_hand is not None
            and named.keys() <= set(names[len(arguments) :])
            and len(arguments) <= len(names)
            and all(one.device == parameter.device for one in tensors)
            and not any(one.requires_grad for one in tensors)
            and has_fast_path(model)
            and (native := _kernels_for(model, parameter)) is not None
        ):
            images = images if images.dim() == 4 else images[:, None]
            rounded = torch.bfloat16 if matmul_dtype == torch.bfloat16 else parameter.dtype
            return by_hand(model, native, rounded, images, *arguments, **named, **segmented)
        rounding = matmul_dtype == torch.bfloat16
        # A recording (graphs.py) has turned the cache of rounded weights off.
        cache = torch.is_autocast_cache_enabled()
        with torch.autocast(images.device.type, torch.bfloat16, rounding, cache):
            return model(as_images(images, dtype=parameter.dtype), *arguments, **named, **segmented)

    return forward


def _kernels_for(model: nn.Module, parameter: Tensor) -> Any:
    """Return the kernels for a model whose parameters are like this one, or None.

    On a GPU those are DRAW's, for Bernoulli pixels and images that fit a program's memory.
    """
    if parameter.device.type == "cpu":
        return kernels(parameter.dtype)
    fits = type(model) is Draw and model.log_scale is None and max(model.size) <= LARGEST_ON_GPU
    fits = fits and parameter.device.type == "cuda"
    return gpu_kernels(parameter.dtype, parameter.device) if fits else None


# What computes each model by hand, and the arguments beside images that it takes.
_BY_HAND: dict[type, tuple[Callable[..., Any], tuple[str, ...]]] = {
    Draw: (fast_drawing, ("noise",)),
    AlignDraw: (fast_drawing, ("noise", "condition")),
    GlimpseClassifier: (fast_glimpses, ("glimpses", "noise")),
}
