"""Figures of captions: words light up where and when they are attended to."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from drawbench import figures
from drawbench.figures.style import WINDOW

WORDS = ["the", "digit", "three", "is", "at", "the", "bottom", "right"]


def light(frame: Image.Image) -> np.ndarray:
    """Return where a frame has the full colour of an attended word, (n, 2) rows and columns."""
    pixels = np.asarray(frame.convert("RGB")).astype(int)
    colour = np.rint(255 * np.array(to_rgb(WINDOW)))
    return np.argwhere(np.abs(pixels - colour).max(-1) <= 2)


def test_words_light_up_in_their_step(tmp_path):
    canvases = np.zeros((4, 8, 1, 40, 40))
    dull = figures.Caption(WORDS[:4], np.full((8, 4), 0.1))
    captions = [figures.Caption(WORDS, np.eye(8)), dull, dull, dull]
    path = figures.caption_animation(tmp_path / "words.gif", canvases, captions)
    centres = []
    with Image.open(path) as animation:
        for step in range(8):
            animation.seek(step)
            places = light(animation)
            assert len(places) > 50 and np.ptp(places[:, 0]) < 20
            assert (places[:, 1] < animation.width / 4).all()  # nothing at other pictures
            assert places[:, 0].min() > 24 + 40  # below the picture
            centres.append(tuple(places.mean(0)))
    assert centres == sorted(centres, key=lambda place: (round(place[0] / 8), place[1]))
    assert len({round(row) for row, _ in centres}) > 1  # the caption is wrapped


def test_the_map_of_attended_words_has_a_row_for_each_word():
    weights = np.linspace(0, 1, 24).reshape(3, 8)
    figure = figures.attended_words(np.zeros((1, 3, 1, 6, 6)), [figures.Caption(WORDS, weights)])
    strip, heat, *_ = figure.axes
    assert strip.get_title() == "the digit three is at the bottom right"
    assert [label.get_text() for label in heat.get_yticklabels()] == WORDS
    shown = heat.images[0]
    assert np.array_equal(shown.get_array(), weights.T) and shown.get_clim() == (0, 1)


def test_captioned_pictures_carry_their_captions():
    words = ["one", "two"] * 3 + ["one"]
    captions = [f"the digit {word} ." for word in words]
    figure = figures.captioned(np.random.default_rng(0).random((7, 1, 6, 6)), captions)
    assert [axes.get_xlabel() for axes in figure.axes] == [f"the digit {word}" for word in words]
    with pytest.raises(ValueError, match="must lie in"):
        figures.captioned(np.full((1, 1, 6, 6), 2.0), ["one"])


def test_a_caption_that_all_pictures_share_is_written_once():
    figure = figures.captioned(np.zeros((7, 1, 6, 6)), ["the digit 3 ."] * 7)
    assert [text.get_text() for text in figure.texts] == ["the digit 3 ."]
    assert {axes.get_xlabel() for axes in figure.axes} == {""}
    (alone,) = figures.captioned(np.zeros((1, 1, 6, 6)), ["the digit 3 ."]).axes
    assert alone.get_xlabel() == "the digit 3"
