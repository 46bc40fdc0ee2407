"""Images with what is known about them: the record that data sets hand out and models are fed."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images with their labels or conditions; a whole part of a data set is a batch too."""

    images: Tensor  #: uint8 (B, C, H, W)
    labels: Tensor | None = None  #: int64 (B,), the class of each image
    condition: Tensor | None = None  #: (B, ...), the input of a conditional generator: a caption

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Tensor) -> "Batch":
        """Return the images at the indices ``rows`` (int64), with their labels and conditions."""
        return self._map(lambda field: field[rows.to(field.device, non_blocking=True)])

    def with_images(self, images: Tensor) -> "Batch":
        """Return other images with the same labels and conditions."""
        return Batch(images, *self[1:])  # `_replace` relies on the length of a tuple

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on another device."""
        return self._map(lambda field: field.to(device))

    def sha256(self, *, labels: bool = False) -> str:
        """Hash the images, their conditions if they have some, and with ``labels`` the labels."""
        total = hashlib.sha256(self.images.cpu().contiguous().numpy().data)
        if labels:
            if self.labels is None:
                raise ValueError("the batch has no labels to hash")
            few = not len(self.labels) or int(self.labels.max()) < 256
            numbers = self.labels.cpu().to(torch.uint8 if few else torch.int64)
            total.update(numbers.contiguous().numpy().data)
        if self.condition is not None:
            total.update(f"{self.condition.dtype} {tuple(self.condition.shape)}".encode())
            total.update(self.condition.cpu().contiguous().numpy().data)
        return total.hexdigest()

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        labels, condition = (field if field is None else change(field) for field in self[1:])
        return Batch(change(self.images), labels, condition)
