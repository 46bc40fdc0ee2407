"""A convolution and a fully connected layer: Mnih et al. 2014 (Recurrent Models of Visual
Attention), the row "Convolutional, 2 layers".

Eight filters of 10x10 at a stride of 5, then 256 units, both rectified. DRAW's Table 1 has its
error on 100x100: 14.35 %.
"""

from torch import Tensor, nn

from drawbench.models.checks import check_counts
from drawbench.models.one_look import Answer, check_size

FILTERS, SIDE, STRIDE = 8, 10, 5


class TwoLayerConv(nn.Module):
    """A convolution and a fully connected layer.

    Args:
        size: height and width of the images, pixels.
        hidden: units of the second layer.
        classes: labels to choose from.
        channels: of the image.

    Raises:
        ValueError: a count below 1, or an image smaller than a filter.
    """

    def __init__(
        self, size: tuple[int, int], hidden: int = 256, classes: int = 10, channels: int = 1
    ):
        super().__init__()
        check_counts(hidden=hidden, classes=classes, channels=channels)
        if min(size) < SIDE:
            raise ValueError(
                f"filters of {SIDE}x{SIDE} need an image at least as large, got {size[0]}x{size[1]}"
            )
        self.size = size
        rows, columns = ((side - SIDE) // STRIDE + 1 for side in size)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, FILTERS, SIDE, STRIDE),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(FILTERS * rows * columns, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Answer:
        """Classify images (B, C, H, W) in [0, 1].

        Raises:
            Problem: they are of another size.
        """
        check_size(images, self.size)
        return Answer(self.layers(images)[:, None])
