"""Models, one file each. To add a classifier: write its file, then name it here and in ``config.CLASSIFIERS``."""

from torch import nn

from drawbench.config import ClassifierModel
from drawbench.models.glimpse import GlimpseClassifier


def build_classifier(settings: ClassifierModel, classes: int = 10) -> nn.Module:
    """The classifier that settings ask for, with torch's default initial weights (seed them from outside).

    Every classifier maps images (B, 1, H, W) in [0, 1] to a record with ``logits`` (B, T, classes), the last of them its answer.
    """
    match settings.model:
        case "draw":
            return GlimpseClassifier(
                glimpses=settings.glimpses,
                patch=settings.patch,
                hidden=settings.hidden,
                classes=classes,
                window_map=settings.window_map,
                window_clip=settings.window_clip,
            )
        case name:
            raise ValueError(f"unknown classifier {name!r}")
