"""Rules of pixels: the laws of drawing black and white at random."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawbench import streams
from drawbench.data import pixels
from drawbench.data.pixels import binarise


def grey(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 5, 7), generator=generator).to(torch.uint8)


def test_binarise_agrees_with_a_loop():
    images, index = grey(3), torch.tensor([4, 0, 9])
    for image, number, binary in zip(
        images, index.tolist(), binarise(images, index, 7, "x"), strict=True
    ):
        pairs = zip(image.flatten().tolist(), binary.flatten().tolist(), strict=True)
        for place, (value, pixel) in enumerate(pairs):
            counter = torch.tensor([number * 35 + place])
            uniform = int(streams.integers(counter, [255], 7, "x", "binarise"))
            assert pixel == (255 if uniform < value else 0)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(6)), cut=st.integers(0, 6), chunk=st.integers(1, 300))
def test_a_drawn_image_does_not_depend_on_batch_or_order(order, cut, chunk):
    whole = binarise(images := grey(), torch.arange(6), 3, "x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "CHUNK", chunk)
        for rows in torch.tensor(order).tensor_split([cut]):
            assert torch.equal(binarise(images[rows], rows, 3, "x"), whole[rows])


def test_the_mean_of_many_draws_is_the_intensity():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4_000, 1, 16, 16)
    draws = binarise(images, torch.arange(4_000), 0, "x")
    assert set(draws.unique().tolist()) == {0, 255}
    mean, p = draws.double().div(255).mean(0).flatten(), torch.arange(256) / 255
    error = (p * (1 - p) / 4_000).sqrt()
    assert ((mean - p).abs() <= 4.5 * error + 1e-9).all()  # exactly so at 0 and 255
    assert ((mean - p) / error.clamp_min(1e-9)).square()[1:-1].mean() == pytest.approx(1, abs=0.35)
    # Pixels of one image are independent of each other, and so are images.
    flat = draws.double().view(4_000, 256)[:, 100:150]
    assert (torch.corrcoef(flat.T) - torch.eye(50)).abs().max() < 0.08
    lagged = torch.stack([flat[1:].flatten(), flat[:-1].flatten()])
    assert abs(float(torch.corrcoef(lagged)[0, 1])) < 0.05


def test_black_and_white_are_never_changed_and_seeds_differ():
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(500, 32).view(500, 1, 8, 8)
    assert torch.equal(binarise(images, torch.arange(500), 0, "x"), images)
    middle = torch.full((50, 1, 8, 8), 128, dtype=torch.uint8)
    draws = [binarise(middle, torch.arange(50), *key) for key in ((0, "x"), (1, "x"), (0, "y"))]
    pairs = itertools.combinations(draws, 2)
    assert all((one != two).double().mean() > 0.4 for one, two in pairs)
    assert binarise(middle[:0], torch.arange(0), 0, "x").shape == (0, 1, 8, 8)


def test_the_threshold_lies_at_128():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    white = pixels.apply("threshold", images, torch.arange(1), 0).flatten().tolist()
    assert white == [0] * 128 + [255] * 128
    for rule in ("intensity", "static", None):
        assert torch.equal(pixels.apply(rule, images, torch.arange(1), 0), images)
