"""A small modern convolutional network: the honest opponent, which sees every pixel.

Six convolutions, group normalisation (Wu & He 2018: as batch normalisation, but an image's answer
depends on no other image, in training neither), and a maximum over all places, since the digit is
at one place and where does not matter.
"""

from torch import Tensor, nn

from drawbench.models.checks import check_counts
from drawbench.models.one_look import Answer

# Channels, side of the filters and stride of each convolution. The first one halves the image at
# once: at full size it would cost most.
LAYERS = ((16, 5, 2), (32, 3, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1), (128, 3, 2))
GROUP = 8  # channels normalised together


class SixLayerConv(nn.Module):
    """Six convolutions and a global maximum, for images of any size.

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
            layers += [
                nn.Conv2d(channels, width, side, stride, padding=side // 2),
                nn.GroupNorm(width // GROUP, width),
                nn.ReLU(),
            ]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.classify = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Answer:
        """Classify images (B, C, H, W) in [0, 1]."""
        return Answer(self.classify(self.layers(images).amax(dim=(2, 3)))[:, None])
