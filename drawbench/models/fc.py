"""Two fully connected layers: Mnih et al. 2014 (Recurrent Models of Visual Attention), the row "FC,
2 layers (256 hiddens each)".
"""

from torch import Tensor, nn

from drawbench.models.checks import check_counts
from drawbench.models.one_look import Answer, check_size


class FullyConnected(nn.Module):
    """Every pixel to every unit, twice, rectified.

    Args:
        size: height and width of the images, pixels.
        hidden: units of each layer.
        classes: labels to choose from.
        channels: of the image.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(
        self, size: tuple[int, int], hidden: int = 256, classes: int = 10, channels: int = 1
    ):
        super().__init__()
        height, width = self.size = size
        check_counts(height=height, width=width, hidden=hidden, classes=classes, channels=channels)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
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
