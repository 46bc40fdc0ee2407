"""Affine reading and hard crops against nested loops in float64, then their laws."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from formulas import waves
from torch import Tensor
from torch.autograd import gradcheck

from drawbench import spatial


def pixel(image: Tensor, row: int, column: int) -> float:
    """Return a pixel of (H, W), 0 beyond the edge."""
    height, width = image.shape
    return float(image[row, column]) if 0 <= row < height and 0 <= column < width else 0.0


# --- affine ---


def affine_twin(image: Tensor, theta: Tensor, patch: int) -> Tensor:
    """Read one channel (H, W) point by point, from the four pixels around each."""
    height, width = image.shape
    read = torch.zeros(patch, patch, dtype=torch.float64)
    for i in range(patch):
        for j in range(patch):
            x, y = (2 * j + 1) / patch - 1, (2 * i + 1) / patch - 1
            across, down = (float(theta[k, 0] * x + theta[k, 1] * y + theta[k, 2]) for k in (0, 1))
            column, row = ((across + 1) * width - 1) / 2, ((down + 1) * height - 1) / 2
            left, top = math.floor(column), math.floor(row)
            for r in (top, top + 1):
                for c in (left, left + 1):
                    read[i, j] += pixel(image, r, c) * (1 - abs(row - r)) * (1 - abs(column - c))
    return read


TRANSFORMS = {
    "identity": [[1, 0, 0], [0, 1, 0]],
    "half": [[0.5, 0, 0.1], [0, 0.5, -0.2]],
    "turned": [[0.3, 0.6, -0.1], [-0.7, 0.4, 0.2]],
    "over the edge": [[1.3, 0.2, 0.7], [0.1, 0.9, -1.1]],
    "outside": [[0.1, 0, 3], [0, 0.1, 3]],
}


@pytest.mark.parametrize("theta", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize(("height", "width", "patch"), [(6, 6, 4), (5, 8, 3), (4, 3, 1)])
def test_affine_reading_is_the_nested_loop(theta, height, width, patch):
    images = waves(2, 2, height, width)
    transforms = torch.tensor([theta, TRANSFORMS["half"]], dtype=torch.float64)
    read = spatial.affine_read(images, transforms, patch)
    for n, channel in itertools.product(range(2), range(2)):
        twin = affine_twin(images[n, channel], transforms[n], patch)
        torch.testing.assert_close(read[n, channel], twin)


def test_supersampling_averages_what_a_finer_patch_reads():
    images = waves(1, 2, 9, 8)
    theta = torch.tensor([TRANSFORMS["turned"]], dtype=torch.float64)
    fine = torch.stack([affine_twin(image, theta[0], 6) for image in images[0]])
    twin = torch.zeros(2, 2, 2, dtype=torch.float64)
    for row, column in itertools.product(range(6), range(6)):
        twin[:, row // 3, column // 3] += fine[:, row, column] / 9
    torch.testing.assert_close(spatial.affine_read(images, theta, 2, supersample=3)[0], twin)


def test_supersampling_does_not_alias():
    """One bilinear sample in eight columns misses a white column of every eight; a mean of eight
    sees an eighth of white everywhere.
    """
    images = torch.zeros(1, 1, 96, 96, dtype=torch.float64)
    images[..., 1::8] = 1
    theta = torch.tensor([TRANSFORMS["identity"]], dtype=torch.float64)
    assert not spatial.affine_read(images, theta, 12).any()
    averaged = spatial.affine_read(images, theta, 12, supersample=8)
    torch.testing.assert_close(averaged, torch.full_like(averaged, 1 / 8))


def test_the_identity_reads_the_image_and_flips_flip():
    images = waves(1, 1, 5, 5)
    identity = torch.tensor([TRANSFORMS["identity"]], dtype=torch.float64)
    torch.testing.assert_close(spatial.affine_read(images, identity, 5), images)
    flipped = identity * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(spatial.affine_read(images, flipped, 5), images.flip(3))
    outside = torch.tensor([TRANSFORMS["outside"]], dtype=torch.float64)
    assert not spatial.affine_read(images, outside, 4).any()


def test_gradients_of_affine_reading():
    theta = torch.tensor([[[0.31, 0.57, -0.13], [-0.69, 0.43, 0.21]]]).double().requires_grad_()
    images = waves(1, 1, 5, 6)
    assert gradcheck(lambda t: spatial.affine_read(images, t, 3), (theta,))
    assert gradcheck(lambda t: spatial.affine_read(images, t, 2, supersample=2), (theta,))


def test_affine_reading_is_never_rounded():
    images = waves(1, 1, 100, 100).float()
    theta = torch.tensor([[[0.1, 0, 0.503], [0, 0.1, 0.501]]])
    with torch.autocast("cpu", torch.bfloat16):
        read = spatial.affine_read(images, theta, 12)
    assert read.dtype == torch.float32
    assert torch.equal(read, spatial.affine_read(images, theta, 12))


# --- crops ---


def crop_twin(image: Tensor, x: float, y: float, patch: int, scale: int) -> Tensor:
    """Crop one channel (H, W): from the pixel nearest to where the square should begin, the mean of
    every box.
    """
    height, width = image.shape
    box = 2**scale
    top, left = (
        math.floor((size + 1) / 2 * (centre + 1) - (patch * box - 1) / 2 + 0.5) - 1
        for size, centre in ((height, y), (width, x))
    )
    read = torch.zeros(patch, patch, dtype=torch.float64)
    for i in range(patch * box):
        for j in range(patch * box):
            read[i // box, j // box] += pixel(image, top + i, left + j) / box**2
    return read


@pytest.mark.parametrize(
    "place", [(0.0, 0.0), (0.4, -0.3), (-1.0, 1.0), (0.93, 0.2), (2.5, 0.0), (-40.0, 1e9)]
)
@pytest.mark.parametrize(
    ("height", "width", "patch", "scales"),
    [(9, 9, 2, 3), (7, 10, 3, 2), (5, 4, 4, 3), (6, 6, 1, 1)],
)
def test_crops_are_the_nested_loop(place, height, width, patch, scales):
    images = waves(2, 2, height, width)
    places = torch.tensor([place, (0.1, 0.2)], dtype=torch.float64)
    read = spatial.crops(images, places, patch, scales)
    assert read.shape == (2, scales, 2, patch, patch)
    for n, (x, y) in enumerate([(max(place[0], -1e3), min(place[1], 1e3)), (0.1, 0.2)]):
        for scale, channel in itertools.product(range(scales), range(2)):
            twin = crop_twin(images[n, channel], x, y, patch, scale)
            torch.testing.assert_close(read[n, scale, channel], twin)


def test_a_crop_in_the_middle_is_the_middle_and_flips_with_the_image():
    images = waves(1, 1, 20, 20)
    middle = torch.zeros(1, 2, dtype=torch.float64)
    read = spatial.crops(images, middle, 4, 3)
    torch.testing.assert_close(read[:, 0], images[:, :, 8:12, 8:12])
    torch.testing.assert_close(read[:, 2], F.avg_pool2d(images[:, :, 2:18, 2:18], 4))
    torch.testing.assert_close(spatial.crops(images.flip(3), middle, 4, 3), read.flip(4))


def test_squares_begin_at_their_first_pixels():
    """Clearing what lies outside the square of a scale changes nothing in its crop."""
    images, places = waves(1, 1, 20, 20) + 2, torch.tensor([[0.13, -0.21]], dtype=torch.float64)
    for scale, side in enumerate((3, 6, 12)):
        ((left, top),) = spatial.first_pixels(places, 20, 20, side).tolist()
        inside = torch.zeros_like(images)
        inside[..., top : top + side, left : left + side] = 1
        crop = spatial.crops(images, places, 3, 3)[:, scale]
        torch.testing.assert_close(spatial.crops(images * inside, places, 3, 3)[:, scale], crop)
        assert spatial.crops(inside, places, 3, 3)[:, scale].min() == 1


def test_no_gradient_flows_to_a_hard_place():
    places = torch.zeros(1, 2, requires_grad=True)
    assert not spatial.crops(waves(1, 1, 8, 8), places, 2, 2).requires_grad
