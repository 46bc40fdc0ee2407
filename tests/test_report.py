"""The report: one file, nothing fetched, every name harmless; in a real browser tables sort,
animations step, and everything fits.
"""

import base64
import io
import json
import re

import numpy as np
import pytest
from browser import PROGRAM, Browser
from click.testing import CliRunner, Result
from example_runs import animation, change, curve, finished_run
from PIL import Image

from drawbench import records, report
from drawbench.cli import cli

# A folder and a run in it, as a path: the pointer that tables show.
HOSTILE = "<script>alert(1)</script>"
MODEL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


def run(*words) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, words)], prog_name="drawbench")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of three classifiers, one with names that try to be script."""
    place = tmp_path_factory.mktemp("report")
    command = {"command": "drawbench classify --start /home/somebody/secret/runs/first"}
    good = finished_run(place / "runs" / "good", command)
    hostile = {"value": 10.5, "low": 10.0, "high": 11.0, "model": MODEL, "command": MODEL}
    bad = finished_run(place / HOSTILE, hostile, seed=1)
    third = {"value": 9.25, "low": 9, "high": 10}
    finished_run(place / "runs" / "third", third, seed=2, learning_rate=0.5)
    for folder in (good, bad):
        animation(folder)
        curve(folder, "clutter", {0: 1.0, 8: 4.0})
    result = run(place / "runs", place / HOSTILE, "--out", place / "page.html", "--json")
    assert result.exit_code == 0 and result.stderr == ""
    assert json.loads(result.stdout)["bytes"] < 2_000_000
    return place / "page.html"


def test_nothing_is_fetched_and_no_name_is_script(page):
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=[\"'](?!data:image/png;base64,|#)", text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert len(re.findall("<script", text)) == 1 and "<img src=x" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "somebody" not in text and "secret" not in text and "--start first" in text


def test_every_picture_has_an_alternative_text(page):
    pictures = re.findall(r"<img [^>]*>", page.read_text())
    assert pictures and all(re.search(r'alt="[^"]+"', picture) for picture in pictures)


def test_the_same_runs_give_the_same_page(page, tmp_path):
    result = run(page.parent / "runs", page.parent / HOSTILE, "--out", tmp_path / "again.html")
    assert result.exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_headlines_are_the_best_numbers_of_draw_and_of_all_models(tmp_path):
    for name, model, value in (("a", "draw", 4.0), ("b", "draw", 3.0), ("c", "conv6", 1.5)):
        result = {"model": model, "value": value, "low": value - 1, "high": value + 1}
        finished_run(tmp_path / name, result, learning_rate=0.001 * value)
    finished_run(tmp_path / "d", {"task": "generate"})
    cards = report.headlines(records.find([tmp_path], print))
    assert [card["value"] for card in cards] == ["3.00%", "1.50%", "90.00 nats"]
    assert [card["paper"] for card in cards] == ["the paper: 3.36%", "", "the paper: 80.97 nats"]
    assert cards[0]["interval"] == "95% interval 2.00 to 4.00"


def test_the_metric_is_the_second_column(page):
    headers = re.findall(r"<thead><tr>(.*?)</tr>", page.read_text())
    first = [re.findall(r"<th[^>]*>(.*?)</th>", header) for header in headers]
    assert ["model", "error %"] in [columns[:2] for columns in first]


def test_an_animation_is_taken_apart(tmp_path):
    folder = finished_run(tmp_path / "run")
    frames, size = report.decode(animation(folder, frames=5))
    assert len(frames) == 5 == len(set(frames)) and size == (60, 40)
    long = animation(folder, "samples.gif", frames=40)
    assert len(report.decode(long)[0]) == report.MAX_FRAMES


def test_frames_keep_their_colours_and_many_colours_are_reduced(tmp_path):
    """A GIF has at most 256 colours in a frame, but may have more in all."""
    ramp = np.arange(256, dtype=np.uint8)
    few = np.stack([np.stack([ramp // 4 * 4] * 3, 1)] * 16)  # 64 greys
    many = [np.stack([np.stack([ramp, np.roll(ramp, 40 * k), ramp], 1)] * 16) for k in range(3)]
    for pictures, limit in (([few, few[:, ::-1]], 4), (many, 24)):
        first, *others = map(Image.fromarray, pictures)
        first.save(tmp_path / "a.gif", save_all=True, append_images=others)
        frames, _ = report.decode(tmp_path / "a.gif")
        for frame, picture in zip(frames, pictures, strict=True):
            png = base64.b64decode(frame.partition(",")[2])
            shown = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)
            assert np.abs(shown - picture).max() <= limit


def test_animations_that_are_damaged_or_find_no_room_are_named(tmp_path, monkeypatch):
    folder = finished_run(tmp_path / "runs" / "run")
    (folder / "figures" / "glimpses.gif").write_bytes(b"GIF89a and no more")
    animation(folder, "samples.gif")
    words = (tmp_path / "runs", "--out", tmp_path / "page.html")
    result = run(*words)
    assert result.exit_code == 0 and "glimpses.gif" in result.stderr
    assert "Drawing from noise" in (tmp_path / "page.html").read_text()
    monkeypatch.setattr(report, "MAX_ANIMATION_BYTES", 100)
    assert "fill the page" in run(*words).stderr


def test_without_runs_there_is_no_page(tmp_path):
    change(finished_run(tmp_path / "runs" / "run") / "result.json", n=0)
    result = run(tmp_path / "runs", "--out", tmp_path / "page.html")
    assert result.exit_code == 1 and "no finished run" in result.stderr
    assert not (tmp_path / "page.html").exists()


# --- in a real browser ---

browser = pytest.mark.browser
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium")
TABLE = "#table1_cluttered"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def column(chromium: Browser, name: str) -> list[str]:
    headers, rows = (
        f"[...document.querySelectorAll('{TABLE} {tag}')]" for tag in ("th", "tbody tr")
    )
    index = f"{headers}.findIndex(th => th.textContent === '{name}')"
    return chromium.run(f"{rows}.map(row => row.cells[{index}].textContent)")


def click(chromium: Browser, name: str) -> None:
    buttons = f"[...document.querySelectorAll('{TABLE} th button')]"
    chromium.run(f"{buttons}.find(button => button.textContent === '{name}').click()")


@browser
@needs_chromium
def test_tables_sort_by_numbers(page, chromium):
    chromium.open(page)
    before = column(chromium, "error %")
    click(chromium, "error %")
    up = [float(text) for text in column(chromium, "error %")]
    assert up == sorted(up) and len(up) == len(before) and 10.5 in up and 9.25 in up
    click(chromium, "error %")
    assert [float(text) for text in column(chromium, "error %")] == up[::-1]
    click(chromium, "seeds")
    seeds = column(chromium, "seeds")
    assert seeds[:3] == ["1", "1", "1"] and set(seeds[3:]) == {"-"}  # missing values come last
    sorted_by = f"document.querySelector('{TABLE} th[aria-sort]').textContent"
    assert chromium.run(sorted_by) == "seeds"
    assert chromium.complaints() == []


def visible(chromium: Browser) -> list[tuple[int, int]]:
    """Which animations show which pictures, counted from 1."""
    script = """[...document.querySelectorAll('.animation')].flatMap((animation, n) =>
        [...animation.querySelectorAll('.frames img')].map((picture, k) =>
            picture.getBoundingClientRect().height > 0 ? [n + 1, k + 1] : null)).filter(x => x)"""
    return [tuple(pair) for pair in chromium.run(script)]


def press(chromium: Browser, button: str) -> None:
    chromium.run(f"document.querySelector('.animation {button}').click()")


@browser
@needs_chromium
def test_an_animation_rests_on_its_last_step_and_is_stepped(page, chromium):
    chromium.open(page)
    assert visible(chromium) == [(1, 5)]
    slide = "slider.value = 4; slider.dispatchEvent(new Event('input'))"
    chromium.run(f"{{ const slider = document.querySelector('.animation input'); {slide} }}")
    assert visible(chromium) == [(1, 4)]
    assert chromium.run("document.querySelector('.animation output').textContent") == "4 of 5"
    press(chromium, ".back")
    assert visible(chromium) == [(1, 3)]
    chromium.run("document.querySelector('.animation input').focus()")
    chromium.press("ArrowRight", 39)
    assert visible(chromium) == [(1, 4)]
    for _ in range(2):
        press(chromium, ".on")
    assert visible(chromium) == [(1, 1)]  # after the last comes the first
    press(chromium, ".play")
    playing = "document.querySelector('.animation .play').getAttribute('aria-pressed')"
    assert chromium.run(playing) == "true"
    wait = f"if ({playing} === 'false') {{ clearInterval(timer); done() }}"
    chromium.run(f"new Promise(done => {{ const timer = setInterval(() => {{ {wait} }}, 50) }})")
    assert visible(chromium) == [(1, 5)]  # played once, it rests
    assert chromium.complaints() == []


@browser
@needs_chromium
def test_the_selector_shows_one_animation(page, chromium):
    chromium.open(page)
    choose = "choice.selectedIndex = 1; choice.dispatchEvent(new Event('change'))"
    chromium.run(f"{{ const choice = document.getElementById('choice'); {choose} }}")
    assert visible(chromium) == [(2, 5)]


WIDE = """[...document.querySelectorAll('table, td, th')]
    .filter(cell => cell.getBoundingClientRect().right > innerWidth).length"""


@browser
@needs_chromium
@pytest.mark.parametrize(("width", "height"), [(1300, 900), (390, 844)])
def test_no_column_is_off_screen(page, chromium, width, height):
    chromium.open(page, width=width, height=height)
    assert chromium.run("document.documentElement.scrollWidth") == width
    assert chromium.run(WIDE) == 0


@browser
@needs_chromium
def test_a_phone_in_a_dark_room(page, chromium):
    chromium.open(page, width=390, height=844, dark=True)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = chromium.run(background)
    chromium.run("document.getElementById('theme').click()")
    assert dark != chromium.run(background) == "rgb(255, 255, 255)"
    buttons = "[...document.querySelectorAll('nav button, .controls button, select')]"
    heights = f"{buttons}.map(b => b.getBoundingClientRect().height).filter(height => height > 0)"
    assert min(chromium.run(heights)) >= 44  # a finger needs that many
    assert chromium.complaints() == []


@browser
@needs_chromium
def test_script_in_a_name_stays_text(page, chromium):
    chromium.open(page)
    assert chromium.run("document.querySelectorAll('script').length") == 1
    assert MODEL in chromium.run(f"document.querySelector('{TABLE}').textContent")
    # If one came through, the page's policy would stop it.
    image = '<img src=x onerror="document.title = 1">'
    chromium.run(f"document.body.insertAdjacentHTML('beforeend', '{image}')")
    assert chromium.run("document.title") == "drawbench: results"
