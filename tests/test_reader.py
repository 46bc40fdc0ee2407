"""The reader of drawn digits: weights, training, and what it finds in captioned pictures."""

import pytest
import torch
from test_captions import marked
from test_digits import real_mnist
from torch.nn import functional

from drawbench.data import digits as sources
from drawbench.data import sentences, sources_root
from drawbench.data.batch import Batch
from drawbench.data.dataset import Dataset
from drawbench.data.scenes import Digits
from drawbench.data.sentences import ALL, NONE
from drawbench.evaluation import captions, reader
from drawbench.models import as_images
from drawbench.models.aligndraw import AlignDraw


def test_the_stored_reader_is_small_and_knows_its_error():
    about, model = reader.facts(), reader.load_reader()
    assert reader._file().stat().st_size < 200_000
    assert 0 < float(about["error_percent"]) < 2 and about["n"] == "10000"
    assert model is reader.load_reader() and not model.training
    pictures = torch.rand(5, 1, 28, 28)
    assert model(pictures).shape == (5, 10)
    torch.testing.assert_close(model(pictures[2:3]), model(pictures)[2:3])


@real_mnist
@pytest.mark.slow
def test_its_error_is_that_of_its_card():
    test = sources.load("mnist", sources_root(), download=False).splits["test"]
    assert reader.error_count(reader.load_reader(), test) == int(reader.facts()["errors"])


def test_it_reads_the_embedded_digits():
    """Which it has never seen: other hands, enlarged from 8x8."""
    digits = sources.load("digits", "unused").splits["test"]
    wrong = reader.error_count(reader.load_reader(), digits)
    assert wrong < 0.3 * len(digits)  # of which 0.9 is chance


def test_distortion_keeps_size_range_and_strokes():
    few = torch.zeros(300, 1, 28, 28)
    few[:, :, 8:20, 10:18] = 0.8
    moved = reader.distort(few, torch.Generator().manual_seed(0))
    assert moved.shape == few.shape and moved.min() >= 0 and moved.max() <= 1
    binary = ((moved == 0) | (moved == 1)).flatten(1).all(1)
    assert 0.2 < binary.float().mean() < 0.45
    centre = (moved.sum(2) * torch.arange(28.0)).sum(-1) / moved.sum((2, 3))
    assert centre.std() > 1 and (centre - 13.5).abs().max() < 6


def test_a_reader_learns():
    images = torch.zeros(40, 28, 28, dtype=torch.uint8)
    images[::2, 4:12, 6:22], images[1::2, 16:24, 6:22] = 255, 255
    digits = Digits(images, (torch.arange(40) % 2).to(torch.uint8))
    model = reader.train(digits, updates=30)
    assert reader.error_count(model, digits) == 0


# ---- Captions


@pytest.fixture
def perfect(monkeypatch):
    """A reader of the marked digits, whose brightness tells their class."""

    def read(pictures):
        grey = (pictures[:, 0, 14, 14] * 255).round().long()
        return functional.one_hot(((grey - 1) // 3).clamp(0, 9), 10).float()

    monkeypatch.setattr(captions, "load_reader", lambda: read)


def scenes(count: int = 200):
    bank, seen = sentences.ByClass.of(marked()), sentences.allowed(0, is_held_out=False)
    return sentences.render(bank, torch.arange(count), seen, 0, "test")


def test_slots_are_where_the_digits_lie():
    rendered = scenes()
    slots = sentences.slots(rendered.captions.long())
    assert torch.equal(slots.digits, rendered.labels.long())
    own = slots.digits != NONE
    first, last = slots.places[own].unbind(-1)
    corner = rendered.boxes[own][:, :2].long()
    assert ((first <= corner) & (corner <= last)).all()
    assert not slots.places[~own].any()


def test_images_obey_their_own_captions_and_no_others(perfect):
    rendered = scenes()
    images, words = as_images(rendered.images), rendered.captions.long()
    slots = sentences.slots(words)
    assert captions.obeys(images, slots).all()
    wrong = captions.others(words, sentences.slots)
    assert not captions.obeys(images, sentences.slots(words[wrong])).any()


def test_a_digit_in_the_wrong_place_or_beside_the_right_one_is_noticed(perfect):
    """The caption names one digit in a corner; the picture has another elsewhere as well."""
    rendered = scenes()
    single = rendered.labels[:, 1] == NONE
    images = as_images(rendered.images)[single]
    slots = sentences.slots(rendered.captions[single].long())
    assert captions.obeys(images, slots).all()
    assert not captions.obeys(images.flip(3), slots).any()
    assert not captions.obeys(torch.maximum(images, images.flip(2)), slots).any()
    speck = images.clone()
    speck[:, :, 30:32, 30:32] = 0.3  # little ink between the corners is forgiven
    assert captions.obeys(speck, slots).float().mean() > 0.8


def test_others_mean_something_else():
    words = ALL.words[[0, 100, 5, 105, 300]]  # pairs of phrasings, then another
    assert captions.others(words, sentences.slots).tolist() == [2, 2, 4, 4, 0]
    assert captions.others(words, None).tolist() == [1, 2, 3, 4, 0]
    assert captions.others(words[[0, 0]], None) is None
    assert captions.others(words[:2], sentences.slots) is None
    assert captions.others(torch.tensor([0, 1, 2, 0]), None).tolist() == [1, 2, 3, 1]


class Train(Batch):
    def batch(self, first, count):
        return self


def test_what_is_measured_does_not_depend_on_the_batch_size(monkeypatch):
    monkeypatch.setattr(captions, "READ", 12)
    part = scenes(30)
    images = 255 * (part.images[:, None] > 15).to(torch.uint8)
    batch = Batch(images, condition=part.captions.long())
    held_out = batch.at(torch.arange(10))
    data = Dataset(
        "some", "marked", Train(*batch), batch, batch, held_out=held_out, slots=sentences.slots
    )
    model = AlignDraw(60, 60, steps=2, hidden=8, latent=3, read_patch=4, write_patch=4, words=4)
    results = [captions.measure(model, data, batch=size, check=lambda: None) for size in (30, 7)]
    names = {"wrong_condition", "held_out"} | {
        f"{part}{what}" for part in ("", "held_out_") for what in ("read", "real_read")
    }
    assert results[0].keys() == names
    for name in names:
        one, other = (result[name] for result in results)
        assert one == pytest.approx(other, rel=1e-5)
        assert one["low"] <= one["value"] <= one["high"]
    assert results[0]["wrong_condition"]["n"] == 30 and results[0]["held_out_read"]["n"] == 10
