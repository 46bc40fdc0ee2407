"""A spatial transformer in front of a convolutional network: Jaderberg et al. 2015 (Spatial
Transformer Networks).

A small network sees the whole image at half size and gives the six numbers of an affine map;
through it a patch is read, which an ordinary network classifies. One look, chosen from the whole
image, where the glimpse classifier has several, each chosen from those before.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from drawbench import spatial
from drawbench.models.checks import check_counts
from drawbench.models.one_look import check_size

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the whole image is read before anything is learned


class Transformed(NamedTuple):
    """What the transformer read and what the network said."""

    logits: Tensor  #: (B, 1, classes)
    transforms: Tensor  #: (B, 1, 2, 3), see :func:`drawbench.spatial.affine_read`
    patches: Tensor  #: (B, 1, C, N, N)


class SpatialTransformer(nn.Module):
    """Localise, read, classify.

    Args:
        size: height and width of the images, pixels.
        patch: N, the side of what is read, pixels.
        hidden: units of the fully connected layer of the classifying network.
        classes: labels to choose from.
        channels: of the image.

    Raises:
        ValueError: a count below 1, a patch below 4, or an image too small to be localised in.
    """

    def __init__(
        self,
        size: tuple[int, int],
        patch: int = 28,
        hidden: int = 256,
        classes: int = 10,
        channels: int = 1,
    ):
        super().__init__()
        check_counts(hidden=hidden, classes=classes, channels=channels)
        if min(size) < 32 or patch < 4:
            raise ValueError(
                "a spatial transformer needs images of at least 32x32 pixels and a patch of at least 4, "
                f"got {size[0]}x{size[1]} and {patch}"
            )
        self.size, self.patch = size, patch
        rows, columns = (((side // 2 - 4) // 2 - 4) // 2 for side in size)
        self.localise = nn.Sequential(
            nn.AvgPool2d(2),
            *(nn.Conv2d(channels, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(20, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(20 * rows * columns, 50), nn.ReLU()),
        )
        self.to_transform = nn.Linear(50, 6)
        with torch.no_grad():  # begin with the same map for every image
            self.to_transform.weight.zero_()
            self.to_transform.bias.copy_(torch.tensor(IDENTITY))
        self.network = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(64 * (patch // 4) ** 2, hidden), nn.ReLU()),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Transformed:
        """Classify images (B, C, H, W) in [0, 1].

        Raises:
            Problem: they are of another size.
        """
        check_size(images, self.size)
        transforms = self.to_transform(self.localise(images)).view(-1, 2, 3)
        patches = spatial.affine_read(images, transforms, self.patch)
        return Transformed(self.network(patches)[:, None], transforms[:, None], patches[:, None])
