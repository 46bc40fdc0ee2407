"""SVHN's full house numbers: file of boxes, the paper's crops and windows, scenes, downloads."""

import builtins
import concurrent.futures
import io
import json
import math
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import house_files
import numpy as np
import pytest
import torch
from house_files import digit, write_digit_struct
from PIL import Image
from servers import no_network
from test_dataset import load

from drawbench.data import digit_struct, fetch, house_numbers
from drawbench.data.batch import Batch
from drawbench.data.dataset import Context
from drawbench.data.house_numbers import Windows
from drawbench.errors import Problem

pytest.importorskip("h5py")
SAMPLE = Path(os.environ.get("DRAWBENCH_SOURCES", "nowhere")) / "svhn_sample"
PARTS = {"train": 20, "extra": 10, "test": 6}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """A miniature of SVHN, and its digits by part and file."""
    folder = tmp_path_factory.mktemp("svhn")
    return folder, {
        part: house_files.houses(folder / part, count, seed=count) for part, count in PARTS.items()
    }


@pytest.fixture
def svhn(miniature, tmp_path, monkeypatch):
    """The same in the sources folder; its digits."""
    no_network(monkeypatch)
    shutil.copytree(miniature[0], tmp_path / "sources" / "SVHN")
    return miniature[1]


def numbers(tmp_path, said=None, **settings):
    settings = {"format": "full", "extra": True, "pixels": "intensity"} | settings
    return load(tmp_path, "svhn", [] if said is None else said, **settings)


def scenes(tmp_path, said=None):
    return load(tmp_path, "svhn", [] if said is None else said, format="full")


# ---------------------------------------------------------------------------------- digitStruct.mat


def check_read(folder, known):
    read = digit_struct.read(folder / "digitStruct.mat")
    assert [house.name for house in read] == list(known)
    for house in read:
        expected = sorted(known[house.name], key=lambda one: one["left"])
        assert house.labels == tuple(int(one["label"]) % 10 for one in expected)
        sides = [[one[side] for side in digit_struct.BOX] for one in expected]
        assert house.boxes.tolist() == sides


def test_the_boxes_are_read_back(svhn, tmp_path):
    for part, known in svhn.items():
        check_read(tmp_path / "sources" / "SVHN" / part, known)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs photographs of SVHN")
def test_the_boxes_of_real_photographs_are_read_back(tmp_path):
    known = house_files.sample(SAMPLE / "train", tmp_path / "train", count=40)
    check_read(tmp_path / "train", known)
    assert len(known) == 40 and {1, 2, 3} <= {len(digits) for digits in known.values()}


def test_h5py_is_asked_for_where_it_is_missing(svhn, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Problem, match=r"needs h5py: install it with: pip install 'drawbench\[svhn"):
        numbers(tmp_path)


def spoil(path, content):
    """Replace a file by bytes, or by a valid file of these houses."""
    if isinstance(content, dict):
        write_digit_struct(path, content)
    else:
        path.write_bytes(content(path.read_bytes()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda old: old[: len(old) // 2], r"digitStruct.mat is damaged, or not"),
        (lambda old: old[:600], r"digitStruct.mat is damaged, or not"),
        (lambda old: b"", r"is no MATLAB file, but SVHN's digitStruct.mat is of MATLAB 7.3"),
        (lambda old: b"MATLAB 5.0 MAT-file" + bytes(600), r"is a MATLAB 5.0 file, but"),
        ({"../1.png": [digit(1, 1, 1, 5, 5)]}, r"an image is called '../1.png'"),
        ({"1.png": [digit(11, 1, 1, 5, 5)]}, r"1.png has the labels \[11.0\], not 1 to 10"),
        ({"1.png": [digit(1, math.nan, 1, 5, 5)] * 2}, r"1.png has 2 labels and boxes \[\[nan"),
        ({"1.png": [digit(1, 1, 1, 5, 5)] * 101}, r"has 101 values, expected 1 to 100"),
        ({"9000.png": [digit(1, 1, 1, 5, 5)]}, r"names 9000.png, which is not in .*train"),
        ({"1.png": [digit(1, 900, 1, 5, 5)]}, r"no photograph in .*train has its boxes inside"),
    ],
)
def test_a_file_that_is_not_the_original_is_told_in_a_sentence(svhn, tmp_path, content, message):
    spoil(tmp_path / "sources" / "SVHN" / "train" / "digitStruct.mat", content)
    with pytest.raises(Problem, match=message) as raised:
        numbers(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_box_outside_its_image_costs_one_photograph(svhn, tmp_path):
    known = svhn["train"] | {"3.png": [digit(1, -40, 1, 20, 5)]}
    write_digit_struct(tmp_path / "sources" / "SVHN" / "train" / "digitStruct.mat", known)
    said: list[str] = []
    assert len(scenes(tmp_path, said).train) < sum(map(len, known.values()))
    told = next(one for one in said if "box outside" in one)
    assert told.startswith("1 of 20 photographs") and told.endswith("the first: 3.png.")


# ------------------------------------------------------------------------------------ what is cut


def ramps(folder, digits, width=100, height=60):
    """Write one photograph whose red is its column and green its row, ten times, with digits."""
    folder.mkdir(parents=True)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    for n in range(1, 11):
        Image.fromarray(pixels).save(folder / f"{n}.png")
    write_digit_struct(folder / "digitStruct.mat", {f"{n}.png": digits for n in range(1, 11)})


def cut_of(tmp_path, digits, kind, cut):
    ramps(tmp_path / "sources" / "SVHN" / "train", digits)
    return house_numbers._cuts("train", kind, cut, context_of(tmp_path))


def context_of(tmp_path):
    return Context(0, tmp_path / "sources", tmp_path / "datasets", False, lambda text: None)


def test_a_number_is_its_rectangle_enlarged_by_30_percent(tmp_path):
    """Goodfellow et al. 2013: digits in columns 30 to 70, rows 20 to 40, so 24..76 and 17..43."""
    digits = [digit(2, 30, 22, 18, 18), digit(10, 52, 20, 18, 20)]
    cuts = cut_of(tmp_path, digits, "numbers", house_numbers._number)
    image = cuts.images[0].astype(float)
    assert cuts.images.shape == (10, 3, 64, 64) and cuts.labels.tolist() == [2] * 10
    column = 24 + (np.arange(64) + 0.5) * 52 / 64 - 0.5
    row = 17 + (np.arange(64) + 0.5) * 26 / 64 - 0.5
    assert np.abs(image[0] - column).max() < 1.2 and np.abs(image[1] - row[:, None]).max() < 1.2


def test_a_number_at_the_edge_is_cut_there_and_one_of_six_digits_left_out(tmp_path):
    cuts = cut_of(tmp_path, [digit(1, -3, 0, 103, 60)], "numbers", house_numbers._number)
    assert np.abs(cuts.images[0, 0, 0, [0, -1]].astype(float) - [0.3, 98.7]).max() < 1.2
    with pytest.raises(Problem, match="no photograph"):
        six = [digit(1, 10 * k, 0, 9, 20) for k in range(6)]
        cut_of(tmp_path / "six", six, "numbers", house_numbers._number)


def test_a_scene_has_its_digit_in_the_middle(tmp_path):
    """A digit of 20x10 pixels at column 40, row 20: the square of side 40 around (45, 30)."""
    digits = [digit(7, 40, 20, 10, 20), digit(10, 90, 40, 20, 20)]
    cuts = cut_of(tmp_path, digits, "scenes", house_numbers._digits)
    assert cuts.labels[:2].tolist() == [7, 0] and cuts.houses[:4].tolist() == [0, 0, 1, 1]
    image = cuts.images[0].astype(float)
    assert image[0, 32, 31:33].mean() == pytest.approx(44.5, abs=0.6)
    assert image[1, 31:33, 32].mean() == pytest.approx(29.5, abs=0.6)
    assert image[0, 0, -1] - image[0, 0, 0] == pytest.approx(40 * 63 / 64, abs=1.2)
    edge = cuts.images[1]  # its box is clipped to the photograph, which ends at column 99
    assert (edge[0, :, -8:] == 99).all()


def test_numbers_in_the_parts_of_the_paper(svhn, tmp_path):
    dataset = numbers(tmp_path)
    assert dataset.name == "svhn-54x54-of-27" and dataset.source == "svhn"
    assert "27 / 3 / 6 images; not all that are published, so a rehearsal" in dataset.rule
    assert dataset.classes is None
    assert dataset.size == (3, 54, 54) and len(dataset.train) == 27
    assert not dataset.binary
    fewer = numbers(tmp_path, extra=False)
    assert len(fewer.train) == 18 and fewer.name == "svhn-54x54-of-18"


def test_training_windows_are_drawn_by_presentation_and_others_are_the_middle(svhn, tmp_path):
    """Each pixel of these images says its row, its column and its image."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    images = torch.stack([torch.stack([rows, columns, rows * 0 + n]) for n in range(45)])
    train = Windows(Batch(images.to(torch.uint8)), seed=0)
    batch = train.batch(0, 90).images.long()
    corners, square = batch[:, :2, 0, 0], torch.arange(54)
    assert torch.equal(batch[:, 0], (corners[:, :1, None] + square[:, None]).expand(-1, 54, 54))
    assert torch.equal(batch[:, 1], (corners[:, 1:, None] + square).expand(-1, 54, 54))
    assert sorted(batch[:45, 2, 0, 0].tolist()) == sorted(batch[45:, 2, 0, 0].tolist())
    assert corners.min() == 0 and corners.max() == 10 and len(corners.unique(dim=0)) > 40
    assert torch.equal(train.batch(37, 5).images, batch[37:42].to(torch.uint8))
    test, context = numbers(tmp_path).test, context_of(tmp_path)
    cuts = house_numbers._cuts("test", "numbers", house_numbers._number, context)
    assert np.array_equal(test.images, cuts.images[..., 5:59, 5:59])


def test_a_window_is_what_slicing_cuts():
    images = torch.arange(2 * 3 * 7 * 9).view(2, 3, 7, 9)
    cut = house_numbers.window(images, torch.tensor([[0, 4], [2, 1]]), 4)
    assert torch.equal(cut, torch.stack([images[0, :, :4, 4:8], images[1, :, 2:6, 1:5]]))


def test_windows_depend_on_the_seed_alone(svhn, tmp_path):
    part = numbers(tmp_path).train.part
    one, other = (Windows(part, seed).batch(0, 27).images for seed in (0, 1))
    assert torch.equal(one, Windows(part, 0).batch(0, 27).images) and not torch.equal(one, other)


def test_scenes_are_divided_by_photograph(svhn, tmp_path):
    dataset = scenes(tmp_path)
    digits = sum(len(known) for known in svhn["train"].values())
    assert len(dataset.train) + len(dataset.validation) == digits
    assert dataset.size == (3, 64, 64) and dataset.classes == tuple("0123456789")
    labels = [one["label"] % 10 for known in svhn["test"].values() for one in known]
    assert dataset.test.labels.tolist() == labels
    assert 2 <= len(dataset.validation) <= 6  # the digits of two photographs of twenty


# ------------------------------------------------------------------------------------- kept, found


def test_what_is_cut_is_kept_and_verified(svhn, tmp_path):
    first, said = scenes(tmp_path).fingerprint, []
    for path in (tmp_path / "sources").rglob("*.png"):
        path.unlink()  # which are not needed again
    assert scenes(tmp_path, said).fingerprint == first and said == []
    kept = tmp_path / "datasets" / "svhn-scenes" / "train-images.npy"
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(Problem, match=r"names 1.png, which is not in"):
        scenes(tmp_path, said)
    assert "is of other files, so train is cut out again" in said[0]


def test_two_at_once_both_get_what_is_cut(svhn, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        said = [[], [], []]
        found = list(pool.map(lambda words: numbers(tmp_path, words), said))
    assert len({dataset.fingerprint for dataset in found}) == 1
    assert sum("Cutting" in line for words in said for line in words) == len(PARTS)  # once each


def test_what_is_missing_is_named(svhn, tmp_path):
    folder = tmp_path / "sources" / "SVHN"
    (folder / "extra").rename(tmp_path / "elsewhere")
    with pytest.raises(Problem, match=r"extra is missing: let SVHN be downloaded, or unpack extra"):
        numbers(tmp_path)
    said: list[str] = []
    with pytest.raises(Problem, match=r"extra.tar.gz \(1,955 MB\) could not be downloaded"):
        numbers(tmp_path, said, download=True)
    assert said == [f"Downloading SVHN's extra.tar.gz (1,955 MB) into {folder}."]
    (folder / "train" / "digitStruct.mat").unlink()
    with pytest.raises(Problem, match=r"train has no digitStruct.mat: unpack train.tar.gz"):
        numbers(tmp_path, download=True)


class Server:
    """Answers requests for an archive, in part where a range is asked for; may break off."""

    def __init__(self, content: bytes):
        self.content, self.stop, self.asked = content, len(content), []

    def urlopen(self, request, timeout):
        if request.get_method() == "HEAD":
            return io.BytesIO()
        start = int(request.get_header("Range", "bytes=0-")[6:-1])
        self.asked.append(start)
        body = io.BytesIO(self.content[start : self.stop])
        body.status = 206 if start else 200
        return body


def archive(folder, part):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, part)
        stray = tarfile.TarInfo("../stray.png")
        tar.addfile(stray)
    return buffer.getvalue()


def test_a_download_goes_on_where_it_stopped_and_is_pinned(svhn, tmp_path, monkeypatch):
    folder = tmp_path / "sources" / "SVHN"
    server = Server(archive(folder / "test", "test"))
    expected = scenes(tmp_path).fingerprint
    (folder / "test").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(urllib.request, "urlopen", server.urlopen)
    monkeypatch.setattr(house_numbers, "BYTES", {"test": len(server.content)})
    monkeypatch.setattr(fetch, "LARGE", 1000)
    server.stop = 2000
    with pytest.raises(Problem, match=r"could not be downloaded \(the server sent 2,000 of"):
        scenes_downloaded(tmp_path)
    assert (folder / ".test.tar.gz.part").stat().st_size == 2000
    server.stop = len(server.content)
    assert scenes_downloaded(tmp_path).fingerprint == expected and server.asked == [0, 2000]
    assert sorted(path.name for path in folder.iterdir()) == [
        "extra", "sha256.json", "test", "train"
    ]  # fmt: skip
    assert not (tmp_path / "sources" / "stray.png").exists()
    pins = json.loads((folder / "sha256.json").read_text())
    assert list(pins) == ["test.tar.gz"] and len(pins["test.tar.gz"]) == 64
    # Another file of the same length is not the one that was pinned.
    (folder / "test").rename(tmp_path / "another")
    server.content = server.content[:-1] + b"?"
    with pytest.raises(Problem, match=r"test.tar.gz has the SHA-256 .* another than .*sha256.json"):
        scenes_downloaded(tmp_path)
    assert not (folder / ".test.tar.gz.part").exists()


def scenes_downloaded(tmp_path):
    return load(tmp_path, "svhn", [], format="full", download=True)


def test_a_disk_that_fills_up_while_unpacking_costs_no_download(svhn, tmp_path, monkeypatch):
    folder = tmp_path / "sources" / "SVHN"
    server = Server(archive(folder / "test", "test"))
    (folder / "test").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(urllib.request, "urlopen", server.urlopen)
    monkeypatch.setattr(house_numbers, "BYTES", {"test": len(server.content)})
    monkeypatch.setattr(fetch, "LARGE", 1000)
    full = OSError(28, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(Problem, match="No space left"):
        patch.setattr(house_numbers, "_unpack", lambda part, place: (_ for _ in ()).throw(full))
        scenes_downloaded(tmp_path)
    assert len(scenes_downloaded(tmp_path).test) and server.asked == [0]
