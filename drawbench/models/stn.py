"""A spatial transformer in front of a convolutional network (Jaderberg et al. 2015).

A small network sees the whole image at half size and emits the six numbers of an affine map; an
ordinary network classifies the patch that is read through it. One look, chosen from the whole
image, where the glimpse network takes several, each chosen from those before.
"""

import torch
from torch import Tensor, nn

from drawbench.models.cnn import check_size
from drawbench.models.common import check_counts
from drawbench.models.glimpse import Glimpses
from drawbench.models.glimpses import IDENTITY, AffineGlimpse, Transform


class SpatialTransformer(nn.Module):
    """Localise, read, classify.

    Args:
        height, width: of the images, pixels.
        patch: N, the side of what is read, pixels.
        hidden: units of the fully connected layer of the classifying network.
        classes: labels to choose from.
        channels: of the image.
        supersample: as of :class:`drawbench.models.glimpses.AffineGlimpse`; with 1, as in the
            paper, the first patches, which show the whole image, alias.
        filters: of each convolution of the localising network, whose fully connected layer has 2.5
            times as many units.

    Raises:
        ValueError: a count below 1, a patch below 4, or an image too small to localise in.
    """

    def __init__(
        self,
        height: int,
        width: int,
        patch: int = 28,
        hidden: int = 256,
        classes: int = 10,
        channels: int = 1,
        supersample: int = 1,
        filters: int = 20,
    ):
        super().__init__()
        check_counts(hidden=hidden, classes=classes, channels=channels, filters=filters)
        if min(height, width) < 32 or patch < 4:
            raise ValueError(
                "a spatial transformer needs images of at least 32x32 pixels and a patch of at "
                f"least 4, got {height}x{width} and {patch}"
            )
        self.height, self.width = height, width
        self.glimpse = AffineGlimpse(patch, "linear", supersample)
        units = 5 * filters // 2
        rows, columns = (((side // 2 - 4) // 2 - 4) // 2 for side in (height, width))
        self.localise = nn.Sequential(
            nn.AvgPool2d(2),
            *(nn.Conv2d(channels, filters, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(filters, filters, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(filters * rows * columns, units), nn.ReLU()),
        )
        self.to_transform = nn.Linear(units, 6)
        with torch.no_grad():  # at first every image is read whole
            self.to_transform.weight.zero_()
            self.to_transform.bias.copy_(torch.tensor(IDENTITY))
        self.network = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(64 * (patch // 4) ** 2, hidden), nn.ReLU()),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Glimpses:
        """Classify images (B, C, H, W) in [0, 1]; raise `Problem` if they have another size."""
        check_size(images, self.height, self.width)
        halve, *localise = self.localise  # which halves faster in the other order
        features = _channels_last(halve(images))
        for layer in localise:
            features = layer(features)
        where = Transform(self.to_transform(features).view(-1, 2, 3))
        patch = self.glimpse.read(images, where)
        logits = self.network(_channels_last(patch))[:, None]
        windows = Transform(where.theta[:, None])
        return Glimpses(logits, windows, patch[:, None])


def _channels_last(features: Tensor) -> Tensor:
    """Return the same features in the order in which a CPU convolves and pools bfloat16 up to five
    times as fast.
    """
    return features.to(memory_format=torch.channels_last)
