"""Captioned scenes: one or two digits on a 60x60 canvas, and a sentence that says which and where.

The data of Mansimov et al. 2016, section 4.2. A sentence is one of eight templates; each has 12
words, and all together use 22. Two templates say the same of a picture ("i is on the left of j", "j
is on the right of i"): they share a *layout*. A digit lies at a uniform place of a small range. In
a pair the second digit is laid over the first, not added to it.

Twelve combinations of layout and digits are held out: no training image shows them, whatever the
phrasing. They are four pairs side by side, four pairs one above the other and one digit in each
corner, so that held-out sentences have the same mix of layouts as all others, and each of the ten
digits appears in them exactly twice.

Symbols: B images, K = 12 words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from drawbench import streams
from drawbench.data.scenes import DIGIT, Digits, Layout, check_boxes
from drawbench.errors import Problem

CANVAS = 60  # side, pixels
LENGTH = 12  # words of every sentence, the full stop included
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_OTHERS = ("the", "digit", "is", "on", "at", "left", "right", "top", "bottom", "of", "image", ".")
WORDS = _OTHERS + NUMBERS
NONE = 255  # the label of the second digit where there is one only
# Rows or columns, both ends included, in which the first pixel of a digit may lie.
NEAR, MIDDLE, FAR = (0, 2), (16, 18), (30, 32)
LEFT, RIGHT = (0, 4), (28, 32)

Slot = tuple[tuple[int, int], tuple[int, int]]  # rows and columns where a digit may begin


class Template(NamedTuple):
    """A sentence with gaps ``{0}`` and ``{1}`` for the digits in the slots of its layout."""

    text: str
    layout: str
    slots: tuple[Slot, ...]


_SIDES = ((MIDDLE, LEFT), (MIDDLE, RIGHT))
_STACK = ((NEAR, MIDDLE), (FAR, MIDDLE))
TEMPLATES = (
    Template("the digit {0} is on the left of the digit {1} .", "side by side", _SIDES),
    Template("the digit {1} is on the right of the digit {0} .", "side by side", _SIDES),
    Template("the digit {0} is at the top of the digit {1} .", "stacked", _STACK),
    Template("the digit {1} is at the bottom of the digit {0} .", "stacked", _STACK),
    *(
        Template(f"the digit {{0}} is at the {corner} of the image .", corner, (slot,))
        for corner, slot in (
            ("top left", (NEAR, LEFT)),
            ("bottom right", (FAR, RIGHT)),
            ("top right", (NEAR, RIGHT)),
            ("bottom left", (FAR, LEFT)),
        )
    ),
)
_RANGES = torch.tensor([(one.slots * 2)[:2] for one in TEMPLATES])  # (8, slots, 2, 2)
_WIDE = 1 << 31
CORNERS = tuple(one.layout for one in TEMPLATES if len(one.slots) == 1)

Combination = tuple[str, tuple[int, ...]]  # a layout, and the digits in its slots


class Captions(NamedTuple):
    """What pictures show, one row for each."""

    words: Tensor  #: int64 (..., K), numbers of words
    template: Tensor  #: int64 (...,)
    digits: Tensor  #: int64 (..., 2), those in the slots; the second is NONE where there is one

    def at(self, rows: Tensor) -> "Captions":
        """Return the captions at these indices."""
        return Captions(*(field[rows] for field in self))


def _all() -> Captions:
    """Return all sentences, in the order of the templates and of the digits."""
    rows = []
    for number, template in enumerate(TEMPLATES):
        seconds = range(10) if len(template.slots) == 2 else (NONE,)
        for first in range(10):
            for second in seconds:
                names = [NUMBERS[digit] for digit in (first, second) if digit != NONE]
                words = [WORDS.index(word) for word in template.text.format(*names).split()]
                rows.append((words, number, (first, second)))
    return Captions(*map(torch.tensor, zip(*rows, strict=True)))


ALL = _all()  # 440 sentences
EXAMPLE = 237  # one of them, to show


def held_out(seed: int) -> frozenset[Combination]:
    """Return the twelve combinations that training never shows, a function of the seed."""
    first, second = (streams.permutation(10, seed, "held out", name).tolist() for name in "ab")
    pairs = [
        (layout, (digits[2 * n], digits[2 * n + 1]))
        for layout, digits in (("side by side", first), ("stacked", second))
        for n in range(4)
    ]
    singles = zip(CORNERS, first[8:] + second[8:], strict=True)
    return frozenset([*pairs, *((layout, (digit,)) for layout, digit in singles)])


def combination(captions: Captions, row: int) -> Combination:
    """Return the layout and the digits of one sentence."""
    template = TEMPLATES[int(captions.template[row])]
    return template.layout, tuple(captions.digits[row, : len(template.slots)].tolist())


def lookup(words: Tensor) -> Tensor:
    """Return which of :data:`ALL` each sentence (B, K) is, int64 (B,).

    Raises:
        ValueError: one is none of them.
    """
    table = {tuple(row): number for number, row in enumerate(ALL.words.tolist())}
    try:
        return torch.tensor([table[tuple(row)] for row in words.tolist()], dtype=torch.int64)
    except KeyError as error:
        raise ValueError(f"not a sentence of the templates: {text(error.args[0])}") from None


def text(words: Tensor | tuple[int, ...]) -> str:
    """Return one sentence (K,) in letters."""
    return " ".join(WORDS[int(word)] for word in words)


def parse(sentence: str) -> Tensor:
    """Return the word numbers of a sentence, int64 (K,), to draw from.

    Digits may be words or numerals, letters may be capital, and the full stop may be missing.

    Raises:
        Problem: no words, more than 12, or a word that is not in the vocabulary.
    """
    found = sentence.lower().replace(".", " ").split()
    if not found:
        raise Problem(f"the caption is empty: say for example '{text(ALL.words[0])}'")
    numerals = {str(number): name for number, name in enumerate(NUMBERS)}
    found = [numerals.get(word, word) for word in found] + ["."]
    unknown = [word for word in found if word not in WORDS]
    if unknown:
        raise Problem(
            f"the caption has the unknown word '{unknown[0][:40]}'; the vocabulary is: "
            f"{' '.join(WORDS)} (or numerals 0 to 9)"
        )
    if len(found) > LENGTH:
        raise Problem(
            f"the caption has {len(found)} words with its full stop, but the model has seen "
            f"sentences of {LENGTH}: say for example '{text(ALL.words[0])}'"
        )
    return torch.tensor([WORDS.index(word) for word in found])


class Slots(NamedTuple):
    """Which digits a picture must show, and where: S slots, of which some may be empty."""

    digits: Tensor  #: int64 (B, S); NONE for an empty slot
    places: Tensor  #: int64 (B, S, 2, 2): first and last row, then column, of its first pixel


def slots(captions: Tensor) -> Slots:
    """Return what the pictures of sentences (B, K) must show, S = 2.

    Raises:
        ValueError: one is no sentence of the templates.
    """
    said = ALL.at(lookup(captions))
    empty = (said.digits == NONE)[..., None, None]
    return Slots(said.digits, torch.where(empty, 0, _RANGES[said.template]))


class Rendering(NamedTuple):
    """Rendered scenes."""

    images: Tensor  #: uint8 (B, 60, 60)
    labels: Tensor  #: uint8 (B, 2), the digit in each slot; NONE where there is no second
    boxes: Tensor  #: int16 (B, 2, 4): top, left, height, width, pixels from 0; zeros for none
    captions: Tensor  #: uint8 (B, K), numbers of words


@lru_cache(maxsize=4)
def allowed(seed: int, is_held_out: bool) -> tuple[Tensor, Tensor]:
    """Return the sentences of each template that training shows, or those that it does not.

    Returns:
        Rows of :data:`ALL`, int64 (8, n), the first ``counts`` of each template's; ``counts`` (8,).
    """
    out = held_out(seed)
    rows = [n for n in range(len(ALL.words)) if (combination(ALL, n) in out) == is_held_out]
    by_template = [
        torch.tensor([n for n in rows if ALL.template[n] == template])
        for template in range(len(TEMPLATES))
    ]
    counts = torch.tensor([len(some) for some in by_template])
    return torch.nn.utils.rnn.pad_sequence(by_template, batch_first=True), counts


def _pick(uniform: Tensor, count: Tensor) -> Tensor:
    """Turn ``uniform`` in 0 .. 2^31 - 1 into ``0 .. count - 1``."""
    return (uniform * count) >> 31


class ByClass(NamedTuple):
    """Digits sorted by class."""

    images: Tensor  #: uint8 (N, 28, 28)
    counts: Tensor  #: int64 (10,), how many of each class

    @classmethod
    def of(cls, digits: Digits) -> "ByClass":
        """Sort digits; raise `Problem` if a class has none."""
        classes = digits.labels.long()
        counts = torch.bincount(classes, minlength=10)
        if int(counts.min()) < 1:
            raise Problem(f"captions name all ten digits, but there is no {int(counts.argmin())}")
        return cls(digits.images[torch.argsort(classes, stable=True)], counts)

    def pick(self, labels: Tensor, uniform: Tensor) -> Tensor:
        """Return a digit of each class in ``labels`` (B,), uint8 (B, 28, 28)."""
        first = self.counts.cumsum(0) - self.counts
        return self.images[first[labels] + _pick(uniform, self.counts[labels])]


def render(
    digits: ByClass, index: Tensor, sentences: tuple[Tensor, Tensor], seed: int, *name: str | int
) -> Rendering:
    """Render scenes by their number: a template, one of its sentences, pictures and places, all
    uniform.

    Args:
        digits: the part that pictures come from, of all ten classes.
        index: int64 (B,), on the CPU like the digits.
        sentences: from :func:`allowed`.
        seed, name: of all random choices.
    """
    rows, counts = sentences
    limits = [len(TEMPLATES), _WIDE] + [_WIDE, _WIDE, _WIDE] * 2
    drawn = streams.integers(index, limits, seed, *name, "captions")
    template = drawn[:, 0]
    captions = ALL.at(rows[template, _pick(drawn[:, 1], counts[template])])
    images = torch.zeros(len(index), CANVAS, CANVAS, dtype=torch.uint8)
    boxes = torch.zeros(len(index), 2, 4, dtype=torch.int16)
    batch, side = torch.arange(len(index))[:, None, None], torch.arange(DIGIT)
    for slot in range(2):  # the second over the first
        own = captions.digits[:, slot] != NONE
        picture, *place = drawn[own, 2 + 3 * slot : 5 + 3 * slot].unbind(1)
        ranges = _RANGES[template[own], slot]  # (b, rows or columns, first or last)
        top, left = (
            ranges[:, axis, 0] + _pick(place[axis], ranges[:, axis, 1] - ranges[:, axis, 0] + 1)
            for axis in range(2)
        )
        rows_, columns = (top[:, None] + side)[:, :, None], (left[:, None] + side)[:, None]
        images[batch[own], rows_, columns] = digits.pick(captions.digits[own, slot], picture)
        size = torch.full_like(top, DIGIT)
        boxes[own, slot] = torch.stack([top, left, size, size], 1).to(torch.int16)
    labels, words = captions.digits.to(torch.uint8), captions.words.to(torch.uint8)
    return Rendering(images, labels, boxes, words)


@dataclass(frozen=True)
class CaptionScene:
    """The recipe of captioned scenes, a :class:`drawbench.data.cards.Recipe`."""

    parts: ClassVar[Mapping[str, str]] = {
        **{name: name for name in ("train", "validation", "test")},
        "held_out": "test",
    }
    canvas: ClassVar[int] = CANVAS
    scene_bytes: ClassVar[int] = 20 * CANVAS**2

    def stored(self, digits: Digits, index: Tensor, seed: int, part: str) -> Rendering:
        """Render scenes ``index`` (int64) of a stored part."""
        sentences = allowed(seed, part == "held_out")
        return render(ByClass.of(digits), index, sentences, seed, "set", part)

    def layout(self, count: int) -> dict[str, Layout]:
        """Return type and shape of each array of a stored part."""
        byte = np.dtype(np.uint8)
        return {
            "images": (byte, (count, CANVAS, CANVAS)),
            "labels": (byte, (count, 2)),
            "boxes": (np.dtype("<i2"), (count, 2, 4)),
            "captions": (byte, (count, LENGTH)),
        }

    def check(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError if a caption is no sentence, a label no digit, or a box off the
        canvas.
        """
        labels, captions = arrays["labels"], torch.from_numpy(arrays["captions"]).long()
        if (labels != ALL.digits[lookup(captions)].numpy()).any():
            raise ValueError("labels and captions differ")
        check_boxes(arrays["boxes"][labels != NONE], CANVAS)

    def words(self, dataset: str) -> list[str]:
        """Return what a folder's name says beside data set, canvas, source and seed: nothing."""
        return []

    def rule(self, seed: int) -> str:
        """Return the recipe in words."""
        out = ", ".join(
            f"{' and '.join(map(str, digits))} {layout}"
            for layout, digits in sorted(held_out(seed))
        )
        return (
            "a black 60x60 canvas; one of eight sentence templates, uniform; digits uniform among "
            "the allowed; one digit in a corner or two side by side or stacked, each at a uniform "
            "place of a small range, the second laid over the first; train, validation and test "
            "made from disjoint digits; held_out.npz made from test digits, of the twelve "
            f"combinations that no other part shows: {out}"
        )
