"""Networks that look at the whole image, once: the baselines without attention.

The first two are the rows "FC, 2 layers (256 hiddens each)" and "Convolutional, 2 layers" of Mnih
et al. 2014 (Recurrent Models of Visual Attention); DRAW's Table 1 quotes the error of the second
on 100x100 images: 14.35%. The third is a small modern network, the honest opponent.
"""

from typing import NamedTuple

from torch import Tensor, nn

from drawbench.errors import Problem
from drawbench.models.common import check_counts


class Answer(NamedTuple):
    """The answer of a network that looks once."""

    logits: Tensor  #: (B, 1, classes)


def check_size(images: Tensor, height: int, width: int) -> None:
    """Raise `Problem` unless images (B, C, H, W) have the one size that a network with fully
    connected layers accepts.
    """
    if tuple(images.shape[-2:]) != (height, width):
        rows, columns = images.shape[-2:]
        raise Problem(
            f"this network is made for images of {height}x{width} pixels, not of {rows}x{columns}; "
            "train one for that canvas"
        )


class FullyConnected(nn.Module):
    """Two fully connected hidden layers.

    Args:
        height, width: of the images, pixels.
        hidden: units of each hidden layer.
        classes: labels to choose from.
        channels: of the image.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(
        self, height: int, width: int, hidden: int = 256, classes: int = 10, channels: int = 1
    ):
        super().__init__()
        check_counts(height=height, width=width, hidden=hidden, classes=classes, channels=channels)
        self.height, self.width = height, width
        self.layers = nn.Sequential(
            *(nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
        )

    def forward(self, images: Tensor) -> Answer:
        """Classify images (B, C, H, W) in [0, 1]; raise `Problem` if they have another size."""
        check_size(images, self.height, self.width)
        return Answer(self.layers(images)[:, None])


class TwoLayerConv(nn.Module):
    """Eight filters of 10x10 at a stride of 5, then a fully connected hidden layer.

    Args:
        height, width: of the images, pixels.
        hidden: units of the second layer.
        classes: labels to choose from.
        channels: of the image.

    Raises:
        ValueError: a count below 1, or an image smaller than a filter.
    """

    def __init__(
        self, height: int, width: int, hidden: int = 256, classes: int = 10, channels: int = 1
    ):
        super().__init__()
        check_counts(hidden=hidden, classes=classes, channels=channels)
        if min(height, width) < 10:
            raise ValueError(
                f"filters of 10x10 need an image at least as large, got {height}x{width}"
            )
        self.height, self.width = height, width
        rows, columns = ((side - 10) // 5 + 1 for side in (height, width))
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, 8, 10, 5), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(8 * rows * columns, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
        )

    def forward(self, images: Tensor) -> Answer:
        """Classify images (B, C, H, W) in [0, 1]; raise `Problem` if they have another size."""
        check_size(images, self.height, self.width)
        return Answer(self.layers(images)[:, None])


# Channels, filter side and stride of each convolution. The first halves the image at once: at full
# size it would cost most.
LAYERS = ((16, 5, 2), (32, 3, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1), (128, 3, 2))


class SixLayerConv(nn.Module):
    """Six convolutions and a global maximum, for images of any size.

    Group normalisation (Wu & He 2018) serves as batch normalisation would, but an image's answer
    depends on no other image, even in training. The maximum is over all places, since it does not
    matter where the digit is.

    Args:
        classes: labels to choose from.
        channels: of the image.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(self, classes: int = 10, channels: int = 1):
        super().__init__()
        check_counts(classes=classes, channels=channels)
        layers: list[nn.Module] = []
        for width, side, stride in LAYERS:
            convolution = nn.Conv2d(channels, width, side, stride, padding=side // 2)
            layers += [convolution, nn.GroupNorm(width // 8, width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.classify = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Answer:
        """Classify images (B, C, H, W) in [0, 1]."""
        return Answer(self.classify(self.layers(images).amax(dim=(2, 3)))[:, None])
