"""Scenes against a twin in nested loops, and the laws of the recipe."""

import itertools

import pytest
import torch

from drawbench import streams
from drawbench.data.scenes import DIGIT, Digits, Scene, fresh, render, targets

RECIPES = [
    Scene(),
    Scene(canvas=60, clutter=4),
    Scene(canvas=60, digits=2, clutter=0),
    Scene(canvas=28, digits=1, clutter=3, clutter_size=28),
    Scene(canvas=31, digits=3, clutter=5, clutter_size=1),
    Scene(canvas=30, clutter=140, clutter_size=20),  # more white pieces than int16 could add up
]


def a_bank(count: int = 11) -> Digits:
    """Digits with many bright pixels, so that sums are clipped often."""
    pixels = streams.integers(torch.arange(count * DIGIT**2), [256], 0, "bank")[:, 0]
    return Digits(
        pixels.reshape(count, DIGIT, DIGIT).to(torch.uint8),
        (torch.arange(count) % 10).to(torch.uint8),
    )


def twin(part: Digits, scene: Scene, target: int, index: int, seed: int, *name: str | int):
    """One scene, pixel by pixel, clipped after every addition as the official generator does."""
    image = [[0] * scene.canvas for _ in range(scene.canvas)]
    bank, size = part.images.tolist(), scene.clutter_size

    def add(which, crop_top, crop_left, top, left, side):
        for row, column in itertools.product(range(side), repeat=2):
            total = image[top + row][left + column]
            total += bank[which][crop_top + row][crop_left + column]
            image[top + row][left + column] = min(total, 255)

    crops, places, span = DIGIT - size + 1, scene.canvas - size + 1, scene.canvas - DIGIT + 1
    one = torch.tensor([index])
    highs = [len(bank), crops, crops, places, places] * scene.clutter
    clutter = streams.integers(one, highs, seed, *name, "clutter")[0].tolist()
    highs = [len(bank), span, span] * scene.digits
    digits = streams.integers(one, highs, seed, *name, "digits")[0].tolist()
    for piece in range(scene.clutter):
        add(*clutter[5 * piece : 5 * piece + 5], size)
    labels, boxes = [], []
    for number in range(scene.digits):
        which, top, left = digits[3 * number : 3 * number + 3]
        which = target if number == 0 else which
        add(which, 0, 0, top, left, DIGIT)
        labels.append(int(part.labels[which]))
        boxes.append([top, left, DIGIT, DIGIT])
    return image, labels, boxes


def check_uniform(values: torch.Tensor, cells: int) -> None:
    """Check that values fall into every cell equally often, by a chi-square test: the statistic
    lies less than four standard deviations from its mean.
    """
    counts = values.long().bincount(minlength=cells).double()
    assert len(counts) == cells
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert abs(float(statistic) - (cells - 1)) < 4 * (2 * (cells - 1)) ** 0.5


@pytest.mark.parametrize("scene", RECIPES, ids=str)
def test_a_scene_agrees_with_its_twin(scene):
    part, index, chosen = a_bank(), torch.tensor([0, 5, 2**33]), torch.tensor([3, 0, 10])
    batch = render(part.images, part.labels, scene, chosen, index, 7, "twin")
    assert [field.dtype for field in batch] == [torch.uint8, torch.uint8, torch.int16]
    for row, (target, number) in enumerate(zip(chosen.tolist(), index.tolist(), strict=True)):
        expected = twin(part, scene, target, number, 7, "twin")
        assert tuple(field[row].tolist() for field in batch) == expected


@pytest.mark.parametrize(("canvas", "digits", "count"), [(100, 1, 20_000), (60, 2, 10_000)])
def test_digits_fall_uniformly_and_independently_over_every_position(canvas, digits, count):
    part, scene = a_bank(), Scene(canvas=canvas, digits=digits, clutter=0)
    chunks = [fresh(part, scene, some, 0, "places") for some in torch.arange(count).split(1_000)]
    places = torch.cat([chunk.boxes[:, :, :2].flatten(1) for chunk in chunks])
    for column in places.unbind(-1):
        check_uniform(column, canvas - DIGIT + 1)
    correlation = torch.corrcoef(places.T.double()) - torch.eye(2 * digits)
    assert correlation.abs().max() < 4 / count**0.5


def test_crops_and_their_places_are_uniform_with_both_edges():
    """The target is black; a piece's top left pixel tells the row or column of its crop."""
    size, canvas, codes = 8, 40, torch.arange(1, DIGIT + 1, dtype=torch.uint8)
    rows, columns = codes[:, None].expand(DIGIT, DIGIT), (100 + codes)[None].expand(DIGIT, DIGIT)
    bank = torch.stack([torch.zeros(DIGIT, DIGIT, dtype=torch.uint8), rows, columns])
    index = torch.arange(30_000)
    scene, black = Scene(canvas, 1, 1, size), torch.zeros_like(index)
    images = render(bank, codes[:3], scene, black, index, 0, "crops").images
    images = images[(images.flatten(1) > 0).any(1)]
    # each of three digits is cut equally often, and one is black
    assert 0.64 < len(images) / len(index) < 0.69

    first = (images.flatten(1) > 0).int().argmax(1)
    top, left = first // canvas, first % canvas
    value = images.flatten(1).gather(1, first[:, None])[:, 0]
    for place in (top, left):
        check_uniform(place, canvas - size + 1)
    for crop in (value[value < 100] - 1, value[value > 100] - 101):
        check_uniform(crop, DIGIT - size + 1)
    assert (images.flatten(1) > 0).sum(1).eq(size**2).all()


@pytest.mark.parametrize(
    ("grey", "pieces", "expected"), [(100, 1, 200), (100, 2, 255), (255, 5, 255), (1, 140, 141)]
)
def test_sums_are_clipped_at_white(grey, pieces, expected):
    bank = torch.full((2, DIGIT, DIGIT), grey, dtype=torch.uint8)
    scene, one = Scene(DIGIT, 1, pieces, DIGIT), torch.zeros(1, dtype=torch.int64)
    images = render(bank, torch.zeros(2, dtype=torch.uint8), scene, one, one, 0).images
    assert images.eq(expected).all()


def test_batch_size_and_row_order_do_not_matter():
    part, scene, index = a_bank(), Scene(), torch.arange(50, 350)
    together = fresh(part, scene, index, 3, "train")
    for size in (1, 7, 128):
        apart = [fresh(part, scene, some, 3, "train") for some in index.split(size)]
        for pieces, whole in zip(zip(*apart, strict=True), together, strict=True):
            assert torch.equal(torch.cat(pieces), whole)
    order = streams.permutation(300, 1, "rows")
    assert torch.equal(fresh(part, scene, index[order], 3, "train").images, together.images[order])


def test_seed_and_name_change_the_scenes_and_the_bank_is_left_alone():
    part, index = a_bank(), torch.arange(8)
    before = part.images.clone()
    first, again, *others = (
        fresh(part, Scene(), index, seed, name).images
        for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    )
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)
    assert torch.equal(part.images, before)


def test_every_digit_is_the_target_once_an_epoch_and_batches_may_straddle_epochs():
    size = 97
    chosen = targets(torch.arange(3 * size), size, 0, "t")
    for epoch in range(3):
        order = streams.permutation(size, 0, "t", epoch)
        assert torch.equal(chosen[epoch * size : (epoch + 1) * size], order)
    parts = [targets(some, size, 0, "t") for some in torch.arange(3 * size).split(40)]
    assert torch.equal(torch.cat(parts), chosen)
    shuffled = streams.permutation(3 * size, 5, "shuffle")
    assert torch.equal(targets(shuffled, size, 0, "t"), chosen[shuffled])


@pytest.mark.parametrize("scene", [Scene(), Scene(canvas=60, digits=2, clutter=0)], ids=str)
def test_the_label_names_the_target(scene):
    part, index = a_bank(), torch.arange(22)
    chosen = targets(index, len(part), 0, "labels", "targets")
    assert torch.equal(fresh(part, scene, index, 0, "labels").labels[:, 0], part.labels[chosen])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"canvas": 27}, "27x27"),
        ({"canvas": 40_000}, "40000x40000"),
        ({"digits": 0}, "at least 1 digit, got 0"),
        ({"clutter": -1}, "negative, got -1"),
        ({"clutter_size": 0}, "got 0"),
        ({"clutter_size": 29}, "got 29"),
    ],
)
def test_an_impossible_scene_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        Scene(**change)


@pytest.mark.parametrize(
    ("shape", "count", "dtype"),
    [
        ((3, 28, 28), 3, torch.float32),
        ((3, 28, 27), 3, torch.uint8),
        ((3, 28, 28), 2, torch.uint8),
        ((0, 28, 28), 0, torch.uint8),
    ],
)
def test_digits_of_another_type_or_shape_are_refused(shape, count, dtype):
    with pytest.raises(ValueError, match="must be uint8"):
        Digits(torch.zeros(shape, dtype=dtype), torch.zeros(count, dtype=torch.uint8))
