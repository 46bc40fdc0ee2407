"""The demo: what it computes, and the page in a real browser."""

import importlib.util
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import browser
import numpy as np
import pytest
import torch
from commands import MAIN, drawbench, failed
from PIL import Image, ImageDraw

from drawbench import Draw, Problem, demo, load_pretrained, load_source
from drawbench.data import sources_root

SEVEN = [(0.4, 0.3), (0.6, 0.3), (0.48, 0.7)]  # corners of the stroke, shares of the pad


def stroke(points=SEVEN, side: int = 280, width: int = 22) -> np.ndarray:
    image = Image.new("L", (side, side))
    ends = [(side * x, side * y) for x, y in points]
    ImageDraw.Draw(image).line(ends, fill=255, width=width, joint="curve")
    return np.array(image)


def test_a_stroke_becomes_a_digit_of_mnist():
    digit = demo.as_digit(stroke()).double()
    rows, columns = digit.amax(1).nonzero(), digit.amax(0).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 20
    assert int(columns.max() - columns.min()) + 1 <= 20
    assert digit.max() == 255
    place = torch.arange(28).double()
    for weights in (digit.sum(0), digit.sum(1)):
        assert (weights @ place) / weights.sum() == pytest.approx(13.5, abs=0.6)


def test_the_size_and_place_of_a_stroke_do_not_matter():
    moved = np.roll(stroke(), (30, -40), (0, 1))
    assert torch.equal(demo.as_digit(moved), demo.as_digit(stroke()))
    large = stroke([(2 * x - 0.5, 2 * y - 0.5) for x, y in SEVEN], width=44)
    difference = demo.as_digit(large).double() - demo.as_digit(stroke()).double()
    assert difference.abs().mean() < 4


@pytest.mark.parametrize(
    ("ink", "words"),
    [
        (np.zeros((280, 280), np.uint8), "The pad is empty"),
        (np.full((280, 280), 255, np.uint8), "nearly full"),
    ],
)
def test_what_is_no_digit_gets_a_sentence(ink, words):
    with pytest.raises(Problem, match=words):
        demo.as_digit(ink)


def test_a_single_dot_is_a_digit_of_some_kind():
    ink = np.zeros((280, 280), np.uint8)
    ink[0, 279] = 3
    assert demo.as_digit(ink).max() == 255


def test_the_scene_holds_the_digit_once():
    digit = demo.as_digit(stroke())
    bank = load_source("digits", sources_root()).splits["test"]
    scene = demo.in_clutter(digit, bank, 0, 100, seed=3)
    assert scene.shape == (1, 1, 100, 100)
    patches = scene[0, 0].unfold(0, 28, 1).unfold(1, 28, 1)
    assert int((patches == digit).all(-1).all(-1).sum()) == 1
    assert int(scene.long().sum()) == int(digit.long().sum())
    cluttered = demo.in_clutter(digit, bank, 8, 100, seed=3)
    assert (cluttered >= scene).all() and int(cluttered.long().sum()) > int(scene.long().sum())


def test_the_network_names_what_was_drawn():
    bank = load_source("digits", sources_root()).splits["test"]
    scene = demo.in_clutter(demo.as_digit(stroke()), bank, 8, 100, seed=0)
    shown = list(demo.looks(load_pretrained("glimpse-8").model, scene))
    assert len(shown) == 8
    assert all(sum(opinion.values()) == pytest.approx(1, abs=1e-4) for _, opinion in shown)
    assert shown[-1][1]["7"] > 0.9 > shown[0][1]["7"]
    assert len({picture.tobytes() for picture, _ in shown}) == 8


def test_a_drawing_appears_step_by_step():
    pages = list(demo.steps(load_pretrained("draw-mnist").model, seed=0))
    assert len(pages) == 20
    ink = [np.asarray(page.convert("L"), float).mean() for page in pages]
    assert ink[-1] > ink[5] > 0
    assert (
        pages[-1].tobytes()
        != list(demo.steps(load_pretrained("draw-mnist").model, 1))[-1].tobytes()
    )


def test_a_generator_under_a_condition_is_drawn_for_each():
    class Told(Draw):
        def sample(self, noise, keep_canvases=False, condition=None):
            told.append(condition)
            return super().sample(noise, keep_canvases=keep_canvases)

    told: list = []
    model = Told(height=8, width=8, steps=2, read_patch=2, write_patch=2, hidden=8, latent=3)
    pages = list(demo.steps(model, 0, torch.eye(4)))
    assert len(pages) == 2 and torch.equal(told[0], torch.eye(4))


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ({"classifier": "draw-mnist"}, "no network that glimpses"),
        ({"generator": "glimpse-8"}, "not of a generator"),
        ({"captioned": "draw-mnist"}, "not trained on captions"),
    ],
)
def test_a_run_of_another_kind_is_refused(runs, words, monkeypatch):
    monkeypatch.setattr(demo, "gradio", lambda: None)  # refused before it is used
    with pytest.raises(Problem, match=words):
        demo.build(**runs)


def test_without_gradio_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    failed(drawbench("demo"), "pip install 'drawbench[demo]'")


# ------------------------------------------------------------------------------- in the browser


CAPTIONED = Path(__file__).parent.parent / "results" / "published" / "aligndraw-captions"


@pytest.fixture(scope="module")
def address():
    """The address of a demo that runs in a process of its own."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("Gradio is not installed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [*MAIN, "demo", "--json", "--captioned", str(CAPTIONED)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.terminate()


@pytest.fixture
def page(address, tmp_path):
    if browser.PROGRAM is None:
        pytest.skip("there is no Chromium")
    page = browser.Browser(tmp_path / "profile")
    yield page
    page.close()


def text(selector: str) -> str:
    return f"(document.querySelector('{selector}') || {{innerText: ''}}).innerText"


def draw_a_seven(page) -> None:
    ends = [page.place("#pad canvas", *end) for end in SEVEN]
    share = np.linspace(0, 1, 12)[:, None]
    sides = [np.array(a) * (1 - share) + np.array(b) * share for a, b in pairwise(ends)]
    page.drag([(float(x), float(y)) for x, y in np.concatenate(sides)])
    page.wait("document.querySelector('#pad button[aria-label=Undo]:not([disabled])')")


def type_caption(page, words: str) -> None:
    page.click("#caption textarea")
    page.run("document.querySelector('#caption textarea').select()")
    page.send("Input.insertText", text=words)


def keep(page, name: str) -> None:
    """Keep a screenshot where DRAWBENCH_SCREENSHOTS says, for the documentation."""
    if folder := os.environ.get("DRAWBENCH_SCREENSHOTS"):
        page.picture(Path(folder) / f"demo_{name}.png")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(
    ("kind", "width", "height"), [("desktop", 1200, 980), ("phone", 390, 1100)]
)
def test_the_page_looks_and_draws(page, address, kind, width, height):
    page.open(address, width, height)
    page.wait("document.querySelector('#pad button[aria-label=Brush].highlight')")
    page.click("#look")
    page.wait(f"{text('#said')}.includes('The pad is empty')")
    draw_a_seven(page)
    page.click("#look")
    page.wait(f"{text('#said')}.includes('Glimpse 1:')")
    page.wait(f"{text('#said')}.includes('Glimpse 8: a 7')")
    page.wait("document.querySelector('#view img').naturalWidth > 400")
    assert "7" in page.run(text("#opinion")).split()
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    keep(page, f"look_{kind}")
    tabs = "[...document.querySelectorAll('button[role=tab]')]"
    page.run(f"{tabs}.find(tab => tab.innerText == 'Watch it draw').click()")
    page.wait("document.querySelector('#draw').getBoundingClientRect().width > 0")
    page.click("#draw")
    page.wait(f"{text('#told')}.includes('Step 20')")
    page.wait("document.querySelector('#canvas img').naturalWidth >= 399")
    keep(page, f"draw_{kind}")
    type_caption(page, "the digit 3 is at the top of the digit 7 .")
    page.click("#write")
    page.wait(f"{text('#told')}.includes('Step 32')")
    page.wait("document.querySelector('#canvas img').naturalWidth >= 399")
    keep(page, f"caption_{kind}")
    type_caption(page, "the lonely eight")
    page.click("#write")
    page.wait(f"{text('#told')}.includes('lonely')")
    assert [each for each in page.complaints() if not _is_of_the_driver(each)] == []


def _is_of_the_driver(message: dict) -> bool:
    """Whether Chromium remarks on having no graphics card."""
    return message["params"].get("entry", {}).get("source") == "rendering"
