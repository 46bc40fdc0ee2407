"""What all models share: checks of their settings, and records collected over steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from drawbench.attention import WINDOW_MAPS


def check_counts(**counts: int) -> None:
    """Raise ValueError, naming all counts, unless each is at least 1."""
    if min(counts.values()) < 1:
        values = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"every count must be at least 1, got {values}")


def check_window_map(window_map: str) -> None:
    """Raise ValueError unless ``window_map`` is one of ``attention.WINDOW_MAPS``."""
    if window_map not in WINDOW_MAPS:
        raise ValueError(f"window_map must be one of {WINDOW_MAPS}, got {window_map!r}")


def collect(records: Sequence[Any], combine: Callable[..., Tensor] = torch.stack) -> Any:
    """Combine equal records of tensors along dimension 1, field by field; None stays None.

    Args:
        records: tensors, named tuples (nested if need be) or None, all of one kind.
        combine: ``torch.stack`` for the records (B, ...) of steps, ``torch.cat`` for records (B,
            steps, ...) of several steps.
    """
    first = records[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return combine(tuple(records), dim=1)
    return type(first)(*(collect(fields, combine) for fields in zip(*records, strict=True)))


def attention_of(generator: Any) -> str | None:
    """Return through which windows a generator looks: "both", "read", "write" or "none"; None if it
    has neither ``read_patch`` nor ``write_patch`` to say so.
    """
    names = [name for name in ("read", "write") if hasattr(generator, f"{name}_patch")]
    through = [name for name in names if getattr(generator, f"{name}_patch") is not None]
    if not names:
        return None
    return {0: "none", 2: "both"}.get(len(through)) or through[0]


def as_images(
    images: Tensor, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Convert images to what models take: floating point (B, C, H, W) in [0, 1].

    Args:
        images: (B, C, H, W), or (B, H, W) for one channel; uint8 (0-255) or floating point.
        device: where to put them; by default they stay.
    """
    images = (images if images.dim() == 4 else images[:, None]).to(device)
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
