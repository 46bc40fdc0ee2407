"""The report: one file, nothing fetched, every name harmless; in a real browser tables sort and
films step.
"""

import json
import re

import pytest
from browser import PROGRAM, Browser
from click.testing import CliRunner, Result
from made_runs import change, curve, film, made

from drawbench import report
from drawbench.cli import cli

HOSTILE = (
    "<script>alert(1)</script>"  # a folder and a run in it, as a path: the pointer that tables show
)
MODEL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


def run(*words) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, words)], prog_name="drawbench")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two classifiers, one with names that try to be script."""
    place = tmp_path_factory.mktemp("report")
    good = made(
        place / "runs" / "good",
        {"command": "drawbench classify --start /home/somebody/secret/runs/first"},
    )
    bad = made(
        place / HOSTILE,
        {"value": 10.5, "low": 10.0, "high": 11.0, "model": MODEL, "command": MODEL},
        seed=1,
    )
    made(place / "runs" / "third", {"value": 9.25, "low": 9, "high": 10}, seed=2, learning_rate=0.5)
    for folder in (good, bad):
        film(folder)
        curve(folder, "clutter", {0: 1.0, 8: 4.0})
    done = run(place / "runs", place / HOSTILE, "--out", place / "page.html", "--json")
    assert done.exit_code == 0 and done.stderr == ""
    assert json.loads(done.stdout)["bytes"] < 2_000_000
    return place / "page.html"


def test_nothing_is_fetched_and_no_name_is_script(page):
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=[\"'](?!data:image/png;base64,|#)", text)
    assert (
        "http:" not in text
        and "https:" not in text
        and "url(" not in text
        and "@import" not in text
    )
    assert (
        len(re.findall("<script", text)) == 1
        and "<img src=x" not in text
        and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    )
    assert "somebody" not in text and "secret" not in text and "--start first" in text


def test_every_picture_has_words_for_those_who_do_not_see_it(page):
    pictures = re.findall(r"<img [^>]*>", page.read_text())
    assert pictures and all(re.search(r'alt="[^"]+"', picture) for picture in pictures)


def test_the_same_runs_give_the_same_page(page, tmp_path):
    assert (
        run(page.parent / "runs", page.parent / HOSTILE, "--out", tmp_path / "again.html").exit_code
        == 0
    )
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_film_is_taken_apart(tmp_path):
    folder = made(tmp_path / "runs" / "run")
    taken = report.decode(film(folder, frames=5), "title")
    assert len(taken.frames) == 5 == len(set(taken.frames)) and taken.size == (60, 40)
    assert (
        len(report.decode(film(folder, "samples.gif", frames=40), "title").frames) == report.FRAMES
    )


def test_films_that_are_damaged_or_find_no_room_are_told(tmp_path, monkeypatch):
    folder = made(tmp_path / "runs" / "run")
    (folder / "figures" / "glimpses.gif").write_bytes(b"GIF89a and no more")
    film(folder, "samples.gif")
    done = run(tmp_path / "runs", "--out", tmp_path / "page.html")
    assert (
        done.exit_code == 0
        and "glimpses.gif" in done.stderr
        and "Drawings from nothing" in (tmp_path / "page.html").read_text()
    )
    monkeypatch.setattr(report, "FILM_BYTES", 100)
    assert "fill the page" in run(tmp_path / "runs", "--out", tmp_path / "page.html").stderr


def test_no_run_no_page(tmp_path):
    change((made(tmp_path / "runs" / "run")) / "result.json", n=0)
    done = run(tmp_path / "runs", "--out", tmp_path / "page.html")
    assert (
        done.exit_code == 1
        and "no finished run" in done.stderr
        and not (tmp_path / "page.html").exists()
    )


# -------------------------------------------------------------------------------- in a real browser

browser = pytest.mark.browser
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def column(chromium: Browser, name: str) -> list[str]:
    where = f"[...document.querySelectorAll('#table1_cluttered th')].findIndex(th => th.textContent === '{name}')"
    return chromium.run(
        f"[...document.querySelectorAll('#table1_cluttered tbody tr')].map(row => row.cells[{where}].textContent)"
    )


def click(chromium: Browser, name: str) -> None:
    chromium.run(
        f"[...document.querySelectorAll('#table1_cluttered th button')].find(b => b.textContent === '{name}').click()"
    )


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
    assert seeds[:3] == ["1", "1", "1"] and set(seeds[3:]) == {"-"}, "what is not there comes last"
    assert (
        chromium.run("document.querySelector('#table1_cluttered th[aria-sort]').textContent")
        == "seeds"
    )
    assert chromium.complaints() == []


def seen(chromium: Browser) -> list[int]:
    pictures = "[...document.querySelector('.film').querySelectorAll('.frames img')]"
    return chromium.run(
        f"{pictures}.map((p, k) => p.getBoundingClientRect().height > 0 ? k + 1 : 0).filter(k => k)"
    )


@browser
@needs_chromium
def test_a_film_is_stepped_with_slider_buttons_and_keys(page, chromium):
    chromium.open(page)
    assert seen(chromium) == [1]
    chromium.run(
        "(() => { const s = document.querySelector('.film input'); s.value = 4; s.dispatchEvent(new Event('input')) })()"
    )
    assert (
        seen(chromium) == [4]
        and chromium.run("document.querySelector('.film output').textContent") == "4 of 5"
    )
    chromium.run("document.querySelector('.film .back').click()")
    assert seen(chromium) == [3]
    chromium.run("document.querySelector('.film input').focus()")
    chromium.press("ArrowRight", 39)
    assert seen(chromium) == [4]
    for _ in range(2):
        chromium.run("document.querySelector('.film .on').click()")
    assert seen(chromium) == [1], "after the last comes the first"
    chromium.run("document.querySelector('.film .play').click()")
    chromium.run("new Promise(done => { const t = setInterval(() => { if (document.querySelector('.film input').value !== '1')"
                 " { clearInterval(t); done() } }, 50) })")  # fmt: skip
    chromium.run("document.querySelector('.film .play').click()")
    assert (
        chromium.run("document.querySelector('.film .play').getAttribute('aria-pressed')")
        == "false"
    )
    assert chromium.complaints() == []


@browser
@needs_chromium
def test_a_phone_and_a_dark_room(page, chromium):
    chromium.open(page, width=390, height=844, dark=True)
    assert chromium.run("document.documentElement.scrollWidth") == 390, (
        "only the tables scroll sideways"
    )
    dark = chromium.run("getComputedStyle(document.body).backgroundColor")
    chromium.run("document.getElementById('theme').click()")
    assert (
        dark
        != chromium.run("getComputedStyle(document.body).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    small = "[...document.querySelectorAll('nav button, .controls button')].filter(b => b.getBoundingClientRect().height < 44).length"
    assert chromium.run(small) == 0, "a finger needs 44 dots"
    assert chromium.complaints() == []


@browser
@needs_chromium
def test_script_in_a_name_stays_text(page, chromium):
    chromium.open(page)
    assert chromium.run("document.querySelectorAll('script').length") == 1
    assert MODEL in chromium.run("document.querySelector('#table1_cluttered').textContent")
    chromium.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')"
    )
    assert chromium.run("document.title") == "drawbench: results", (
        "and if one came through, the page's policy would stop it"
    )
