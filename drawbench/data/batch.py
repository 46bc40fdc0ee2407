"""One record for what a model is shown: images, and the labels or the condition that go with them."""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images with what is known about them; a whole part of a data set is a batch too."""

    images: Tensor  #: uint8 (B, C, H, W)
    labels: Tensor | None = None  #: int64 (B,), the class of each image
    condition: Tensor | None = (
        None  #: (B, ...), what a conditional generator is told: a caption, a label
    )

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Tensor) -> "Batch":
        """Return the images at the indices ``rows`` (int64), with their labels and conditions."""
        return self._map(lambda field: field[rows.to(field.device)])

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on another device."""
        return self._map(lambda field: field.to(device))

    def sha256(self, *, labels: bool = False) -> str:
        """Hash the images, and with ``labels`` the labels too (as uint8)."""
        total = hashlib.sha256(self.images.cpu().contiguous().numpy().data)
        if labels:
            if self.labels is None:
                raise ValueError("the batch has no labels to hash")
            total.update(self.labels.cpu().to(torch.uint8).numpy().data)
        return total.hexdigest()

    def _map(self, change) -> "Batch":
        return Batch(*(None if field is None else change(field) for field in self))
