"""The distortion of training digits: what it may and may not change."""

import pytest
import torch

from drawbench.data import warp as module
from drawbench.data.scenes import DIGIT, Digits, Scene, fresh
from drawbench.data.warp import warp


def blob(count=64):
    """A centred bright square with soft edges, so that resampling has something to get right."""
    one = torch.zeros(DIGIT, DIGIT)
    one[9:19, 9:19] = 200
    one[8, 9:19] = one[19, 9:19] = 90
    return one.to(torch.uint8).expand(count, -1, -1).contiguous()


def test_strength_zero_is_the_identity_to_the_byte():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, DIGIT, DIGIT), generator=generator).to(torch.uint8)
    assert torch.equal(warp(images, torch.arange(16), 0.0, 0, "t"), images)


def test_each_presentation_has_its_own_distortion_whatever_the_batch():
    images = blob()
    whole = warp(images, torch.arange(64), 1.0, 0, "t")
    parts = torch.cat([warp(images[rows], rows, 1.0, 0, "t") for rows in torch.arange(64).split(7)])
    # the last bit of a float sum may round the other way
    assert (whole.int() - parts.int()).abs().max() <= 1
    assert len({bytes(one.numpy()) for one in whole}) == 64
    assert not torch.equal(whole, warp(images, torch.arange(64), 1.0, 1, "t"))


def test_pieces_move_by_the_stated_amounts_and_on_average_not_at_all():
    count = 4000
    images = torch.zeros(count, DIGIT, DIGIT, dtype=torch.uint8)
    images[:, 13:15, 13:15] = 255
    moved = warp(images, torch.arange(count), 1.0, 0, "t").float()
    mass, pixels = moved.sum((1, 2)), torch.arange(DIGIT, dtype=torch.float32)
    for axis in (1, 2):
        places = (moved.sum(axis) * pixels).sum(1) / mass - 13.5
        # The centre sits on a node of the lattice: only the elastic part moves it, a node's
        # displacement at a time.
        assert abs(places.mean()) < 4 * module.ELASTIC / count**0.5
        assert 0.75 * module.ELASTIC < places.std() < 1.25 * module.ELASTIC


def test_stronger_distortions_change_more():
    change = [
        (warp(blob(), torch.arange(64), s, 0, "t").float() - blob().float()).abs().mean()
        for s in (0.2, 0.6, 1.5)
    ]
    assert 0 < change[0] < change[1] < change[2]


@pytest.mark.parametrize("digits", [1, 2])
def test_only_the_target_of_a_scene_is_distorted(digits):
    bank = Digits(blob(50), torch.arange(50, dtype=torch.uint8) % 10)
    index, scene = torch.arange(20), Scene(canvas=100, digits=digits, clutter=0)
    plain = fresh(bank, scene, index, 0, "t")
    distorted = fresh(bank, scene, index, 0, "t", distortion=1.0)
    assert torch.equal(plain.labels, distorted.labels) and torch.equal(plain.boxes, distorted.boxes)
    for image, other, boxes in zip(plain.images, distorted.images, plain.boxes, strict=True):
        assert not torch.equal(image, other)
        top, left, height, width = boxes[0].tolist()
        for picture in (image, other):
            picture[top : top + height, left : left + width] = 0
        assert torch.equal(image, other)
