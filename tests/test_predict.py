"""``drawbench predict``: pictures of any kind, fitted to the network, answered and drawn."""

import io
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from commands import answer, drawbench, failed, flags, succeeded, tiny
from PIL import Image, ImageDraw, ImageFont

from drawbench import config, load_run
from drawbench.cli import cli
from drawbench.data import image_files, prepare
from drawbench.errors import Problem
from drawbench.models import as_images

PUBLISHED = Path(__file__).parent.parent / "results" / "published"
BLACK, INKED = np.zeros((28, 28), np.uint8), np.full((6, 10), 255, np.uint8)


def paper(text: str = "4", size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Return a dark sign on light paper."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSans-Bold.ttf"), 380)
    page = Image.new("RGB", size, (238, 234, 220))
    ImageDraw.Draw(page).text((190, 20), text, fill=(30, 30, 60), font=font)
    return page


# ------------------------------------------------------------------------------------ preparation


def prepared(path: Path, pixels, size=(1, 28, 28), data=None, **rules):
    Image.fromarray(pixels).save(path)
    given = {"fit": None, "side": None, "invert": "auto"} | rules
    settings = data or config.Classify().data
    return prepare.prepare(path, prepare.rules(settings, size, **given))


def test_a_small_picture_is_padded_and_keeps_every_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 100, (8, 12), dtype=np.uint8)
    image, steps = prepared(tmp_path / "a.png", pixels)
    assert image.shape == (1, 28, 28) and steps == ["padded to 28x28"]
    assert (image[0, 10:18, 8:20] == pixels).all() and image.sum() == pixels.sum()


def test_a_picture_of_the_right_size_is_used_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 100, (28, 28), dtype=np.uint8)
    image, steps = prepared(tmp_path / "a.png", pixels)
    assert (image[0] == pixels).all() and steps == []


@pytest.mark.parametrize(("invert", "light"), [("auto", True), ("yes", True), ("no", False)])
def test_dark_signs_on_light_paper_are_inverted(tmp_path, invert, light):
    pixels = np.full((28, 28), 250, np.uint8)
    pixels[10:20, 12:16] = 20
    image, steps = prepared(tmp_path / "a.png", pixels, invert=invert)
    assert (image[0] == (255 - pixels if light else pixels)).all()
    assert steps == (["inverted"] if light else [])


def test_of_a_large_picture_the_digit_is_cut_out_whatever_lies_around(tmp_path):
    page = np.full((300, 400), 60, np.uint8)  # grey, which becomes black
    page[40:140, 250:300] = 200
    image, steps = prepared(tmp_path / "a.png", page)
    assert steps == ["its digit cut out", "reduced to 20 pixels", "padded to 28x28"]
    expected = BLACK.copy()
    expected[4:24, 9:19] = 255
    assert (image[0] == expected).all()
    grey = np.full((300, 400), 60, np.uint8)
    assert prepared(tmp_path / "b.png", grey)[0].shape == (1, 28, 28)


def test_side_pads_the_whole_picture(tmp_path):
    white = np.full((100, 50), 255, np.uint8)
    image, steps = prepared(tmp_path / "a.png", white, side=14, invert="no")
    assert steps == ["reduced to 14 pixels", "padded to 28x28"]
    expected = BLACK.copy()
    expected[7:21, 10:17] = 255
    assert (image[0] == expected).all()
    assert "enlarged to 20 pixels" in prepared(tmp_path / "b.png", INKED, side=20)[1]


def test_other_data_are_cropped_and_have_their_channels(tmp_path):
    folder = config.merge(config.Classify, {}, {"dataset": "folder"}).data
    grey = np.full((20, 60), 10, np.uint8)
    grey[:, 20:40] = np.arange(20)[:, None] * 12
    image, steps = prepared(tmp_path / "a.png", grey, (3, 20, 20), folder)
    assert steps == ["given three equal channels", "centre cut out and resized"]
    assert (image == np.broadcast_to(grey[:, 20:40], (3, 20, 20))).all()
    colours = np.zeros((20, 20, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    image, steps = prepared(tmp_path / "b.png", colours, (1, 20, 20), folder, fit="stretch")
    assert steps == ["made grey"] and (image == 76).all()


def test_a_side_that_does_not_go_is_refused():
    data = config.Classify().data
    with pytest.raises(Problem, match="--side goes with --fit pad"):
        prepare.rules(data, (1, 28, 28), "crop", 14, "auto")
    with pytest.raises(Problem, match="larger than the images of 28x28"):
        prepare.rules(data, (1, 28, 28), None, 29, "auto")


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paper().save(tmp_path / "four.jpg")
    return tmp_path


def test_a_packaged_network_reads_a_photographed_digit(place):
    (four,) = answer("predict", "glimpse-8", "four.jpg")["predictions"]
    assert four["answer"] == "4" and four["probability"] > 0.7
    assert sum(four["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert "inverted" in four["prepared"] and four["pictures"]
    assert len(four["after_each_glimpse"]) == 8
    assert four["after_each_glimpse"][-1] == ["4", four["probability"]]
    with Image.open(place / "predictions" / "four-glimpses.png") as path:
        assert min(path.size) > 200


def test_a_network_that_does_not_glimpse_has_no_path(place, datasets):
    words = tiny(model="conv2", glimpses=None, hidden=None, patch=None, steps=1, evaluate_every=1)
    places = flags(runs=place, run="conv2", datasets=datasets)
    succeeded(drawbench("classify", *words, *places))
    (four,) = answer("predict", place / "conv2", "four.jpg")["predictions"]
    assert four["pictures"] == [] and len(four["after_each_glimpse"]) == 1


def test_the_answer_is_that_of_the_model_in_python(place, classified):
    pixels = np.random.default_rng(0).integers(0, 100, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save("noise.png")
    (prediction,) = answer("predict", classified[0], "noise.png", "--format", "none")["predictions"]
    model = load_run(classified[0]).model
    with torch.no_grad():
        expected = model(as_images(torch.from_numpy(pixels[None]))).logits[0, -1].softmax(-1)
    assert list(prediction["probabilities"].values()) == pytest.approx(expected.tolist(), rel=1e-4)


def test_bad_pictures_get_a_sentence_each_and_the_others_an_answer(place, classified):
    folder = place / "many"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "deeper/a.png"):
        Image.fromarray(BLACK).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    (folder / "letter.txt").write_text("dear reader")
    (place / "empty").mkdir()
    words = ["predict", classified[0], folder, "nowhere.png", "empty", "--out", "paths", "--json"]
    result = drawbench(*words, "--format", "both")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert [Path(each["image"]).name for each in printed["predictions"]] == ["a.png", "a.png"]
    pictures = [path for each in printed["predictions"] for path in each["pictures"]]
    expected = ["a-glimpses.gif", "a-glimpses.png", "a-2-glimpses.gif", "a-2-glimpses.png"]
    assert sorted(pictures) == sorted(f"paths/{name}" for name in expected)
    with Image.open(place / "paths" / "a-glimpses.gif") as film:
        assert film.n_frames == 2
    problems = {each["image"]: each["problem"] for each in printed["failures"]}
    assert set(problems) == {"empty", "nowhere.png", str(folder / "broken.png")}
    assert all(problem in result.stderr for problem in problems.values())
    assert result.stderr.strip().splitlines()[-1] == ("Error: 3 of 5 pictures could not be used")


def test_a_long_name_is_shortened_for_what_is_written(place, classified):
    for n in range(2):
        Image.fromarray(BLACK).save(place / f"{250 * 'x'}{n}.png")
    pictures = [f"{250 * 'x'}{n}.png" for n in range(2)]
    drawn = answer("predict", classified[0], *pictures, "--out", "paths")["predictions"]
    names = [Path(path).name for each in drawn for path in each["pictures"]]
    assert sorted(names) == [f"{150 * 'x'}-2-glimpses.png", f"{150 * 'x'}-glimpses.png"]


def test_a_dash_is_a_picture_on_standard_input(place, classified):
    words = ["predict", str(classified[0]), "-", "--json"]
    runner, content = CliRunner(), io.BytesIO()
    Image.fromarray(INKED).save(content, "bmp")
    result = runner.invoke(cli, words, input=content.getvalue(), prog_name="drawbench")
    (prediction,) = json.loads(succeeded(result).stdout)["predictions"]
    assert prediction["image"] == "standard input"
    assert prediction["pictures"] == ["predictions/stdin-glimpses.png"]
    for rubbish in (b"", b"four.jpg\nseven.jpg\n"):
        result = runner.invoke(cli, words, input=rubbish, prog_name="drawbench")
        assert result.exit_code == 1 and "standard input cannot be decoded" in result.stderr


def test_a_run_on_a_folder_answers_with_its_classes(place, datasets):
    generator = np.random.default_rng(0)
    for name in ("cat", "dog\n"):
        (place / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "photos" / name / f"{number}.png")
    words = flags(dataset="folder", images="photos", size=32, model="stn", runs="runs", run="one")
    given = tiny(source=None, canvas=None, clutter=None, patch=8, steps=2, glimpses=None)
    succeeded(drawbench("classify", *given, *words))
    (prediction,) = answer("predict", "runs/one", "four.jpg")["predictions"]
    assert list(prediction["probabilities"]) == ["cat", "dog\\n"]
    assert prediction["prepared"] == "centre cut out and resized"
    assert prediction["pictures"] == ["predictions/four-glimpses.png"]


def test_what_cannot_answer_is_one_sentence(place, classified, generated):
    failed(drawbench("predict", generated[0], "four.jpg"), "only classifiers answer")
    failed(drawbench("predict", place, "four.jpg"), "config.json")
    failed(drawbench("predict", classified[0]), "IMAGE", status=2)


def test_every_suffix_that_a_folder_is_searched_for_is_one_that_is_read():
    assert {".png", ".jpg", ".webp"} <= image_files.suffixes()
