"""Captioned scenes: sentences, pictures, held-out combinations, files, faults of public code."""

import itertools
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from drawbench import data
from drawbench.data import cards, making, sentences, stored
from drawbench.data import digits as sources
from drawbench.data.captions import FreshCaptions
from drawbench.data.pixels import binarise
from drawbench.data.scenes import DIGIT, Digits
from drawbench.data.sentences import ALL, NONE, NUMBERS, TEMPLATES, ByClass, CaptionScene
from drawbench.errors import Problem

COUNTS = {"train": 40, "validation": 10, "test": 20, "held_out": 30}
SEEN = sentences.allowed(0, is_held_out=False)


def marked(per_class: int = 3) -> Digits:
    """Digits whose every pixel tells their class and number."""
    labels = torch.arange(10 * per_class) % 10
    grey = 1 + labels * per_class + torch.arange(10 * per_class) // 10
    images = grey.to(torch.uint8)[:, None, None].expand(-1, DIGIT, DIGIT).contiguous()
    return Digits(images, labels.to(torch.uint8))


def rendered(count: int = 4000, allowed=SEEN, seed: int = 0) -> sentences.Rendering:
    return sentences.render(ByClass.of(marked()), torch.arange(count), allowed, seed, "test")


def combinations(captions) -> list[sentences.Combination]:
    """Return layout and digits, read from the letters of each sentence alone."""
    sides = {"left": 0, "right": 1, "top": 0, "bottom": 1}
    found = []
    for row in captions:
        words = sentences.text(row).split()
        first = NUMBERS.index(words[2])
        if words[-2] == "image":
            found.append((" ".join(words[6:8]), (first,)))
            continue
        second, side = NUMBERS.index(words[-2]), words[6]
        pair = (first, second) if sides[side] == 0 else (second, first)
        found.append(("side by side" if side in ("left", "right") else "stacked", pair))
    return found


# ---- Sentences


def test_eight_templates_of_twelve_words_make_440_sentences_of_22_words():
    assert ALL.words.shape == (440, 12) and len(sentences.WORDS) == 22
    texts = [sentences.text(row) for row in ALL.words]
    assert len(set(texts)) == 440 and {w for t in texts for w in t.split()} == {*sentences.WORDS}
    assert texts[37] == "the digit three is on the left of the digit seven ."
    assert texts[137] == "the digit seven is on the right of the digit three ."
    assert texts[-1] == "the digit nine is at the bottom left of the image ."
    assert Counter(ALL.template.tolist()) == {n: 100 if n < 4 else 10 for n in range(8)}
    assert combinations(ALL.words) == [sentences.combination(ALL, n) for n in range(440)]


def test_a_sentence_is_found_again():
    rows = torch.randperm(440, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sentences.lookup(ALL.words[rows]), rows)
    with pytest.raises(ValueError, match="not a sentence of the templates: the the"):
        sentences.lookup(torch.zeros(1, 12, dtype=torch.int64))


def test_captions_are_parsed_with_words_or_numerals():
    expected = ALL.words[237]
    assert sentences.text(expected) == "the digit three is at the top of the digit seven ."
    for said in (
        "the digit three is at the top of the digit seven .",
        "The digit 3 is at the top of the digit 7.",
        " the digit 3  is at the top of the digit Seven",
    ):
        assert torch.equal(sentences.parse(said), expected)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "the caption is empty: say for example 'the digit"),
        (" . ", "the caption is empty"),
        ("the digit 11 is", "unknown word '11'; the vocabulary is: the digit is on .* nine"),
        ("the digit three is at the very top", "unknown word 'very'"),
        ("the digit one " * 5, "has 16 words with its full stop, .* sentences of 12"),
    ],
)
def test_a_caption_that_cannot_be_drawn_is_one_sentence(said, message):
    with pytest.raises(Problem, match=message) as problem:
        sentences.parse(said)
    assert "\n" not in str(problem.value)


# ---- Pictures


def test_pictures_agree_with_loops():
    """Each digit is *assigned* at its box, the second over the first, not added."""
    scenes, digits = rendered(300), marked()
    of_class = {(int(g) - 1) // 3: set() for g in digits.images[:, 0, 0]}
    for n in range(300):
        canvas = [[0] * 60 for _ in range(60)]
        for slot in range(2):
            top, left, height, width = scenes.boxes[n, slot].tolist()
            if scenes.labels[n, slot] == NONE:
                assert (top, left, height, width) == (0, 0, 0, 0)
                continue
            assert (height, width) == (28, 28)
            grey = int(scenes.images[n, top, left])  # no later digit covers this corner
            assert (grey - 1) // 3 == scenes.labels[n, slot]
            of_class[(grey - 1) // 3].add(grey)
            for row, column in itertools.product(range(28), range(28)):
                canvas[top + row][left + column] = grey
        assert scenes.images[n].tolist() == canvas
    assert all(len(pictures) == 3 for pictures in of_class.values())  # any picture of a class


def test_sentences_say_where_the_digits_are():
    scenes = rendered(500)
    for text, labels, boxes in zip(scenes.captions, scenes.labels, scenes.boxes, strict=True):
        words, (first, second) = sentences.text(text).split(), boxes.tolist()
        named = [NUMBERS.index(word) for word in words if word in NUMBERS]
        if len(named) == 1:
            assert labels.tolist() == [named[0], NONE]
            assert (first[0] > 15) == (words[6] == "bottom") and (first[1] > 15) == (
                words[7] == "right"
            )
            continue
        assert sorted(named) == sorted(labels.tolist())
        one, other = (first, second) if labels[0] == named[0] else (second, first)
        axis = 1 if words[6] in ("left", "right") else 0
        if named[0] != named[1]:
            assert (one[axis] < other[axis]) == (words[6] in ("left", "top"))


def test_places_are_uniform_over_the_published_ranges():
    scenes = rendered(8000)
    places = {
        "side by side": ([(16, 18), (0, 4)], [(16, 18), (28, 32)]),
        "stacked": ([(0, 2), (16, 18)], [(30, 32), (16, 18)]),
        "top left": ([(0, 2), (0, 4)],),
        "top right": ([(0, 2), (28, 32)],),
        "bottom left": ([(30, 32), (0, 4)],),
        "bottom right": ([(30, 32), (28, 32)],),
    }
    rows = sentences.lookup(scenes.captions.long())
    for layout, slots in places.items():
        own = torch.tensor([TEMPLATES[ALL.template[row]].layout == layout for row in rows])
        for slot, ranges in enumerate(slots):
            for axis, (low, high) in enumerate(ranges):
                counts = torch.bincount(scenes.boxes[own, slot, axis].long(), minlength=high + 1)
                assert not counts[:low].any() and len(counts) == high + 1
                share = counts[low:] / own.sum() * (high - low + 1)
                assert (share > 0.8).all() and (share < 1.2).all()
    counts = torch.bincount(ALL.template[rows], minlength=8) / len(rows)
    assert (counts - 1 / 8).abs().max() < 0.015
    assert len(rows.unique()) == 440 - 20  # every sentence that is not held out


def test_a_scene_is_a_function_of_its_number():
    whole, bank = rendered(50), ByClass.of(marked())
    for index in torch.arange(50).flip(0).split(7):
        some = sentences.render(bank, index, SEEN, 0, "test")
        assert all(torch.equal(a, b[index]) for a, b in zip(some, whole, strict=True))
    assert not torch.equal(rendered(50, seed=1).images, whole.images)


def test_a_class_without_digits_is_one_sentence():
    digits = marked()
    with pytest.raises(Problem, match="there is no 4"):
        ByClass.of(Digits(digits.images[:4], digits.labels[:4]))


# ---- What is held out


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_twelve_combinations_are_held_out_with_every_digit_twice(seed):
    out = sentences.held_out(seed)
    assert len(out) == 12 and out == sentences.held_out(seed)
    layouts = Counter(layout for layout, _ in out)
    assert layouts == {"side by side": 4, "stacked": 4} | dict.fromkeys(sentences.CORNERS, 1)
    assert set(Counter(d for _, digits in out for d in digits).values()) == {2}
    assert out != sentences.held_out(seed + 1)


def test_training_shows_no_held_out_picture_under_either_phrasing():
    """The published code bans sentences, so that the picture comes back under the other phrasing;
    and it draws what is banned anew at every run.
    """
    train = FreshCaptions(marked(), "fixed", data_seed=0, seed=3)
    shown = set(combinations(train.batch(0, 6000).condition))
    out = sentences.held_out(0)
    assert not shown & out and len(shown) + len(out) == 240
    other_run = FreshCaptions(marked(), "fixed", data_seed=0, seed=4)
    assert not set(combinations(other_run.batch(0, 6000).condition)) & out
    held_out = rendered(2000, sentences.allowed(0, is_held_out=True))
    assert set(combinations(held_out.captions)) == out
    assert len(sentences.lookup(held_out.captions.long()).unique()) == 8 * 2 + 4  # both phrasings


# ---- Files and the data set


@pytest.fixture(scope="module")
def digits() -> sources.Source:
    return sources.load("digits", Path("unused"))


def write(folder: Path, digits, seed: int = 0, **options):
    return making.write(folder, CaptionScene(), digits, "captions", seed, COUNTS, **options)


def test_files_are_the_same_bytes_and_plain_numpy_reads_them(tmp_path, digits):
    card = write(tmp_path / "a", digits)
    assert write(tmp_path / "b", digits)["sha256"] == card["sha256"]
    assert json.loads((tmp_path / "a" / "card.json").read_text()) == cards.read(tmp_path / "a")
    assert "7 and 9 stacked" in card["rule"] and card["counts"] == COUNTS
    assert card["command"] == (
        "drawbench make-data captions --source digits --data-seed 0 --train 40 --validation 10 "
        "--test 20 --held-out 30"
    )
    for part, split in CaptionScene.parts.items():
        is_out = part == "held_out"
        expected = sentences.render(
            ByClass.of(digits.splits[split]),
            torch.arange(COUNTS[part]),
            sentences.allowed(0, is_out),
            0,
            "set",
            part,
        )
        arrays, ours = np.load(tmp_path / "a" / f"{part}.npz"), stored.load(tmp_path / "a", part)
        for name in ("images", "labels", "boxes", "captions"):
            assert np.array_equal(arrays[name], getattr(expected, name).numpy())
            assert np.array_equal(arrays[name], getattr(ours, name))
        out = sentences.held_out(0)
        assert {one in out for one in combinations(ours.captions)} == {is_out}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays["captions"].fill(21), "not a sentence of the templates"),
        (lambda arrays: arrays["labels"].fill(3), "labels and captions differ"),
        (lambda arrays: arrays["boxes"].fill(40), "a box is not a 28x28 digit"),
        (lambda arrays: arrays.pop("captions"), "captions"),
    ],
)
def test_arrays_that_are_no_captioned_scenes_are_refused(tmp_path, digits, change, message):
    write(tmp_path / "set", digits)
    path = tmp_path / "set" / "test.npz"
    arrays = dict(np.load(path))
    change(arrays)
    np.savez_compressed(path, **arrays)
    with pytest.raises(Problem, match=f"test.npz is damaged .*{message}.*make-data captions"):
        stored.load(tmp_path / "set", "test", verify=False)
    with pytest.raises(Problem, match="its SHA-256 is"):
        stored.load(tmp_path / "set", "test")


def load(tmp_path, said=None, *, pixels="auto", data_seed=0, seed=0):
    settings = SimpleNamespace(
        dataset="captions", source="digits", pixels=pixels, data_seed=data_seed
    )
    say = pytest.fail if said is None else said.append
    places = {"sources_root": tmp_path / "none", "datasets_root": tmp_path}
    return data.load(settings, seed=seed, say=say, **places)


def test_the_data_set_is_made_once_and_described(tmp_path):
    said = []
    dataset = load(tmp_path, said)
    assert len(said) == 1 and "Making" in said[0]
    assert dataset.name == "captions-digits-fixed" and dataset.size == (1, 60, 60)
    assert dataset.binary and dataset.classes is None
    assert "anew at each presentation" in dataset.rule and "not MNIST" in dataset.rule
    grey = stored.load(tmp_path / "captions-60x60-digits", "held_out")
    expected = torch.from_numpy(grey.images)[:, None]
    expected = binarise(expected, torch.arange(len(expected)), 0, "held_out")
    assert torch.equal(dataset.held_out.images, expected)
    assert dataset.held_out.condition.tolist() == grey.captions.tolist()
    assert not (dataset.train.batch(0, 30).images % 255).any()
    again = load(tmp_path)  # says nothing
    assert again.fingerprint == dataset.fingerprint
    whole, parts = (
        dataset.train.batch(5, 20),
        [dataset.train.batch(5, 7), again.train.batch(12, 13)],
    )
    for name in ("images", "condition"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))
    assert dataset.show(whole.condition[0]).startswith("the digit")


def test_seeds_change_what_they_are_for_and_nothing_else(tmp_path):
    dataset = load(tmp_path, [])
    order, other = load(tmp_path, seed=1), load(tmp_path, [], data_seed=1)
    assert torch.equal(order.test.images, dataset.test.images)
    assert not torch.equal(order.train.batch(0, 5).images, dataset.train.batch(0, 5).images)
    assert other.name == "captions-digits-fixed-seed1"
    assert not torch.equal(other.test.images, dataset.test.images)
    assert len({one.fingerprint for one in (dataset, other)}) == 2
