"""A generated data set for other programs: as a torch ``Dataset``, and as PNG files."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from drawbench import files
from drawbench.data import stored
from drawbench.data.digits import CLASSES, SPLITS
from drawbench.data.sentences import NONE
from drawbench.errors import Problem

PICTURES = "png"  # the subfolder of a data set


class GeneratedDataset(Dataset):
    """A part of a data set that ``drawbench make-data`` wrote, for a ``DataLoader``.

    An item is ``(image, label)``: the image float32 (1, H, W) in [0, 1], or what ``transform``
    makes of it; the label int64, a scalar, or (digits,) where there are several. With ``boxes`` it
    is ``(image, label, boxes)``, int64 (digits, 4): top, left, height and width in pixels.

    Args:
        folder: of the data set.
        split: ``train``, ``validation`` or ``test``.
        transform: called with the image, uint8 (1, H, W), in place of the conversion to [0, 1].
        boxes: whether items have boxes.
        verify: compare the file with the SHA-256 of the card.

    Attributes:
        images: uint8 (N, 1, H, W).
        labels: int64 (N,) or (N, digits).
        boxes: int64 (N, digits, 4).
        classes: the names of the labels.
        card: the content of ``card.json``.

    Raises:
        Problem: there is no such data set or part, or it is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        transform: Callable[[torch.Tensor], Any] | None = None,
        *,
        boxes: bool = False,
        verify: bool = True,
    ):
        if split not in SPLITS:
            raise Problem(f"a data set has the parts {', '.join(SPLITS)}, not {split!r}")
        part = stored.load(folder, split, verify)
        self.images = torch.from_numpy(part.images)[:, None]
        self.labels = torch.from_numpy(part.labels).long()
        self.boxes = torch.from_numpy(part.boxes).long()
        self.card: dict[str, Any] = part.card
        self.classes, self.transform, self.with_boxes = CLASSES, transform, boxes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image: Any = self.images[index]
        image = image.float() / 255 if self.transform is None else self.transform(image)
        item = (image, self.labels[index])
        return (*item, self.boxes[index]) if self.with_boxes else item


def check_no_pictures(folder: Path) -> Path:
    """Return where the pictures of a data set go; raise `Problem` if there are some already."""
    place = files.check_inside(folder / PICTURES, folder)
    if place.exists():
        raise Problem(f"{place} holds pictures already; remove it first")
    return place


def write_pictures(folder: Path, count: int) -> Path:
    """Write the first images of each part of a data set as PNG files, in subfolders for classes.

    ``png/test/7/000012.png`` is image 12 of the test part, a 7; two digits make a class such as
    ``7-1``. torchvision's ``ImageFolder`` reads each part. ``png/labels.csv`` lists every file with
    its part, label and boxes (top, left, height, width of each digit, in pixels).

    Args:
        folder: of the data set.
        count: images of each part; of a smaller part all.

    Raises:
        Problem: pictures are there already, or the data set is damaged, or the disk is full.
    """
    place = check_no_pictures(folder)
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(["file", "part", "label", "boxes"])
    for split in SPLITS:
        part = stored.load(folder, split)
        rows = zip(part.images[:count], part.labels, part.boxes, strict=False)
        for number, (image, labels, boxes) in enumerate(rows):
            label = "-".join(str(one) for one in labels.reshape(-1) if one != NONE)
            path = Path(split, label, f"{number:06}.png")
            content = io.BytesIO()
            Image.fromarray(image).save(content, "png")
            _write(place / path, content.getvalue())
            shown = ";".join(" ".join(map(str, box)) for box in boxes)
            lines.writerow([path.as_posix(), split, label, shown])
    _write(place / "labels.csv", table.getvalue().encode())  # last: with it they are complete
    return place


def _write(path: Path, content: bytes) -> None:
    """Write a new file; not forced onto the disk one by one, which would take minutes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror or error}") from error
