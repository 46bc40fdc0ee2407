"""Photographs: miniatures in the original formats, and folders as users have them."""

import hashlib
import os
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image
from test_pictures import load

from drawbench.data import network, photographs
from drawbench.errors import Problem

CIFAR10, SVHN = torchvision.datasets.CIFAR10, torchvision.datasets.SVHN


def some(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# ---- CIFAR-10 and SVHN in miniature


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A miniature of CIFAR-10 in its own format: 5 files of 4 images, 3 test images; gives its
    folder and the pixels.
    """
    monkeypatch.setattr(photographs, "VALIDATION", 5)
    folder = tmp_path / "sources" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    pixels = [some(count, 3072, seed=count) for count in (4, 4, 4, 4, 4, 3)]
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    pairs = []
    for name, data in zip(names, pixels, strict=True):
        (folder / name).write_bytes(
            content := pickle.dumps({"data": data, "labels": [0] * len(data)}, 2)
        )
        pairs.append([name, hashlib.md5(content).hexdigest()])
    (folder / "batches.meta").write_bytes(content := pickle.dumps({"label_names": ["cat"]}, 2))
    monkeypatch.setattr(CIFAR10, "train_list", pairs[:5])
    monkeypatch.setattr(CIFAR10, "test_list", pairs[5:])
    monkeypatch.setattr(
        CIFAR10,
        "meta",
        {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(content).hexdigest()},
    )
    return folder, np.concatenate(pixels).reshape(-1, 3, 32, 32)


@pytest.fixture
def houses(tmp_path, monkeypatch):
    """A miniature of SVHN in its own format: 9 and 4 images."""
    monkeypatch.setattr(photographs, "VALIDATION", 3)
    folder = tmp_path / "sources" / "SVHN"
    folder.mkdir(parents=True)
    pixels, table = {"train": some(32, 32, 3, 9), "test": some(32, 32, 3, 4, seed=1)}, {}
    for split, data in pixels.items():
        path = folder / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": data, "y": np.full((data.shape[3], 1), 10, np.uint8)})
        table[split] = [
            f"http://host/{path.name}",
            path.name,
            hashlib.md5(path.read_bytes()).hexdigest(),
        ]
    monkeypatch.setattr(SVHN, "split_list", table | {"extra": ["", "", ""]})
    return folder, pixels


def test_cifar10_in_three_parts(cifar, tmp_path):
    _, pixels = cifar
    data = load(tmp_path, "cifar10")
    assert (data.name, data.source, data.digits, data.pixels, data.binary) == (
        "cifar10",
        "cifar10",
        "",
        "intensity",
        False,
    )
    assert data.size == (3, 32, 32) and (len(data.train), len(data.validation), len(data.test)) == (
        15,
        5,
        3,
    )
    assert (
        data.train.images.numpy().tobytes() + data.validation.numpy().tobytes()
        == pixels[:20].tobytes()
    )
    assert data.test.numpy().tobytes() == pixels[20:].tobytes()
    assert data.train.batch(0, 15).shape == (15, 3, 32, 32) and "CIFAR-10" in data.rule


def test_svhn_in_three_parts(houses, tmp_path):
    _, pixels = houses
    data = load(tmp_path, "svhn", source="svhn", pixels="intensity")  # as a run is repeated
    assert data.name == data.source == "svhn" and "cropped" in data.rule and "64x64" in data.rule
    train = np.concatenate([data.train.images.numpy(), data.validation.numpy()])
    assert (len(data.validation), len(data.test)) == (3, 4)
    assert np.array_equal(train, pixels["train"].transpose(3, 2, 0, 1)) and data.size == (3, 32, 32)


class Harmful:
    """What a pickle can do: make a folder while it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("download", [False, True])
def test_no_pickle_is_opened_unless_it_is_the_original(
    cifar, tmp_path, monkeypatch, name, download
):
    monkeypatch.setattr(network, "answers", lambda urls: pytest.fail("asked"))
    folder, _ = cifar
    (folder / name).write_bytes(pickle.dumps(Harmful(tmp_path / "opened"), 2))
    with pytest.raises(Problem, match=f"{name} does not have the MD5"):
        load(tmp_path, "cifar10", download=download)
    # torchvision by itself must refuse as well, since it opens the files a second time.
    with pytest.raises(RuntimeError, match="corrupted"):
        CIFAR10(folder.parent, train=name.startswith("data"))
    assert not (tmp_path / "opened").exists()


def test_a_missing_or_cut_file_is_named(cifar, houses, tmp_path):
    (cifar[0] / "data_batch_2").unlink()
    with pytest.raises(Problem, match="data_batch_2 is missing"):
        load(tmp_path, "cifar10")
    path = houses[0] / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Problem, match=r"test_32x32.mat does not have the MD5"):
        load(tmp_path, "svhn")
    path.unlink()
    with pytest.raises(Problem, match=r"test_32x32.mat is missing"):
        load(tmp_path, "svhn")


@pytest.mark.parametrize("dataset", ["cifar10", "svhn"])
def test_a_download_lands_whole_or_not_at_all(cifar, houses, tmp_path, monkeypatch, dataset):
    kept = {"cifar10": cifar[0], "svhn": houses[0]}[dataset]
    original = kept.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(network, "answers", lambda urls: False)
    with pytest.raises(Problem, match="no server could be reached"):
        load(tmp_path, dataset, download=True)
    monkeypatch.setattr(network, "answers", lambda urls: True)

    def fetch(self):
        place = self.root if dataset == "svhn" else os.path.join(self.root, self.base_folder)
        os.makedirs(place, exist_ok=True)
        for file in sorted(original.iterdir())[fetch.left_out :]:
            with open(os.path.join(place, file.name), "wb") as copy:
                copy.write(file.read_bytes())
        if fetch.left_out:
            raise RuntimeError("broken\noff")

    for kind in (CIFAR10, SVHN):
        monkeypatch.setattr(kind, "download", fetch)
    fetch.left_out = 1
    with pytest.raises(Problem, match="broken off"):
        load(tmp_path, dataset, download=True)
    assert not kept.exists() and not list(kept.parent.glob(".download*"))
    fetch.left_out = 0
    data = load(tmp_path, dataset, download=True)
    assert {path.name for path in kept.iterdir()} == {path.name for path in original.iterdir()}
    assert torch.equal(data.test, load(tmp_path, dataset).test)
    assert not list(kept.parent.glob(".download*"))


# ---- A folder of images


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Twenty colour images of 8x8 in two subfolders."""
    folder = tmp_path / "my photos!"
    for number in range(20):
        save(folder / "ab"[number % 2] / f"{number:02}.png", some(8, 8, 3, seed=number))
    return folder


def folder(tmp_path, images, said=None, side=8, **options):
    return load(tmp_path, "folder", said, images=images, side=side, **options)


def rows(data):
    """All images of all parts, as bytes."""
    return [
        bytes(image.numpy())
        for part in (data.train.images, data.validation, data.test)
        for image in part
    ]


def test_a_folder_in_parts_that_share_nothing(photos, tmp_path):
    told = []
    data = folder(tmp_path, photos, progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 20) for n in range(1, 21)]
    assert (
        data.name == "folder-my-photos-8x8"
        and data.source == "folder"
        and data.size == (3, 8, 8)
        and not data.binary
    )
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 2, 2)
    assert sorted(rows(data)) == sorted(
        bytes(some(8, 8, 3, seed=n).transpose(2, 0, 1).copy()) for n in range(20)
    )
    assert (
        "20 colour images of the folder 'my-photos'" in data.rule and str(tmp_path) not in data.rule
    )
    assert rows(folder(tmp_path, photos)) == rows(data)
    other = folder(tmp_path, photos, data_seed=1)
    assert (
        rows(other) != rows(data)
        and sorted(rows(other)) == sorted(rows(data))
        and other.name.endswith("-seed1")
    )


def test_parts_do_not_depend_on_the_place_or_on_the_system(photos, tmp_path, monkeypatch):
    here = rows(folder(tmp_path, photos))
    photos.rename(moved := tmp_path / "moved")
    walk = os.walk

    def backwards(*arguments, **options):
        for place, folders, names in walk(*arguments, **options):
            folders.reverse()
            yield place, folders, names[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert rows(folder(tmp_path, moved)) == here


def test_train_and_test_folders_are_the_parts(photos, tmp_path):
    (photos / "a").rename(photos / "train")
    (photos / "b").rename(photos / "test")
    save(photos / "rest" / "x.png", some(8, 8, 3))
    said = []
    data = folder(tmp_path, photos, said)
    assert len(said) == 1 and "1 images elsewhere" in said[0]
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 1, 10)
    odd = {bytes(some(8, 8, 3, seed=n).transpose(2, 0, 1).copy()) for n in range(1, 20, 2)}
    assert {bytes(image.numpy()) for image in data.test} == odd
    for path in list((photos / "train").iterdir())[1:]:
        path.unlink()
    with pytest.raises(Problem, match="1 usable images in train and 10 in test"):
        folder(tmp_path, photos, [])


def test_other_sizes_are_made_equal_and_that_is_said(photos, tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = some(8, 8, 3, seed=77)
    save(photos / "c" / "wide.png", wide)
    save(photos / "c" / "small.png", some(4, 5, 3))
    save(photos / "c" / "large.jpg", some(200, 300, 3))
    said = []
    data = folder(tmp_path, photos, said)
    assert len(said) == 2 and "4 sizes, 5x4 to 300x200" in said[0]
    assert (
        "1 images are smaller than 8x8 and were enlarged" in said[1] and "small.png, 5x4" in said[1]
    )
    assert bytes(some(8, 8, 3, seed=77).transpose(2, 0, 1).copy()) in rows(
        data
    )  # the centre square


def test_reduction_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    for suffix in ("png", "jpg"):
        for number in range(3):
            save(tmp_path / suffix / f"{number}.{suffix}", stripes)
        test = folder(tmp_path, tmp_path / suffix).test.int()
        assert (test - 127).abs().max() < 30


def broken_files(place):
    """One of each kind of file that cannot be used, by name."""
    place.mkdir(parents=True, exist_ok=True)
    whole = save(place / "whole.jpg", some(64, 64, 3)).read_bytes()
    (place / "whole.jpg").unlink()

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    def png(width, height, data):
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + data
        )

    black = chunk(b"IDAT", zlib.compress(bytes(10_000_000))) + chunk(b"IEND", b"")
    contents = {
        "cut.jpg": (whole[: len(whole) // 2], "cannot be decoded"),
        "empty.png": (b"", "cannot be decoded"),
        "text.jpeg": (b"hello", "cannot be decoded"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "cannot be decoded"),
        "bomb.png": (png(50_000, 50_000, black), "more pixels than"),
        "large.png": (png(12_000, 12_000, black), "12,000 x 12,000 pixels, more than"),
        "header.png": (png(8, 8, b""), "cannot be decoded"),
    }
    for name, (content, _) in contents.items():
        (place / name).write_bytes(content)
    save(place / "grey.png", some(8, 8))
    (place / "nowhere.png").symlink_to("not-there")
    os.mkfifo(place / "pipe.png")
    reasons = {name: reason for name, (_, reason) in contents.items()}
    return reasons | {
        "grey.png": "is grey but .*00.png is in colour",
        "nowhere.png": "not a file",
        "pipe.png": "not a file",
    }


def test_what_cannot_be_used_stops_or_is_skipped(photos, tmp_path):
    good = rows(folder(tmp_path, photos))
    reasons = broken_files(photos / "z")
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows(folder(tmp_path, photos, said, broken="skip")) == good
    assert (
        len(said) == 1
        and said[0].startswith(f"{len(reasons)} of {20 + len(reasons)} images")
        and "bomb.png" in said[0]
    )
    for name, reason in sorted(reasons.items()):
        with pytest.raises(Problem, match=f"{name} .*{reason}.*--broken skip") as problem:
            folder(tmp_path, photos)
        assert "\n" not in str(problem.value)
        (photos / "z" / name).unlink()
    assert rows(folder(tmp_path, photos)) == good


def test_grey_images_of_every_kind_are_one_channel(tmp_path):
    place, pixels = tmp_path / "grey", some(8, 8)
    save(place / "l.png", pixels)
    save(place / "i16.png", pixels.astype(np.uint16) * 257)
    save(
        place / "la.png",
        Image.merge("LA", [Image.fromarray(pixels), Image.fromarray(np.full_like(pixels, 255))]),
    )
    save(place / "bits.png", Image.fromarray(pixels > 127))
    save(place / "l.bmp", pixels)
    save(place / "l.webp", np.stack([pixels] * 3, 2), lossless=True)  # knows colour only
    said = []
    data = folder(tmp_path, place, said, broken="skip")
    assert (
        data.size == (1, 8, 8)
        and "1 of 6" in said[0]
        and "l.webp is in colour" in said[0]
        and "grey images" in data.rule
    )
    assert sorted(rows(data)) == sorted(
        [bytes(pixels)] * 4 + [bytes(np.where(pixels > 127, 255, 0).astype(np.uint8))]
    )
    (place / "l.webp").unlink()
    white = folder(tmp_path, place, pixels="threshold")
    assert (
        white.binary
        and white.name == "folder-grey-8x8-threshold"
        and set(white.test.unique().tolist()) <= {0, 255}
    )
    dynamic = folder(tmp_path, place, pixels="dynamic")
    assert dynamic.name == "folder-grey-8x8-dynamic" and set(
        dynamic.train.batch(0, 9).unique().tolist()
    ) <= {0, 255}


def test_colour_cannot_be_binarised(photos, tmp_path):
    with pytest.raises(Problem, match="in colour and --pixels fixed"):
        folder(tmp_path, photos, pixels="fixed")
    with pytest.raises(Problem, match="--pixels static"):
        folder(tmp_path, photos, pixels="static")


def test_colour_of_every_kind_is_three_channels_on_black_and_upright(tmp_path):
    place, pixels = tmp_path / "colour", some(8, 8, 3)
    half = np.full((8, 8), 255, np.uint8)
    half[:4] = 0
    on_black = pixels.copy()
    on_black[:4] = 0
    save(place / "a.png", pixels)
    save(place / "alpha.png", np.concatenate([pixels, half[:, :, None]], 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown turned clockwise by 90 degrees
    save(place / "exif.png", np.rot90(pixels).copy(), exif=exif)
    few = Image.fromarray(pixels).quantize(4)
    save(place / "palette.gif", few)
    save(place / "palette.png", few, transparency=0)
    expected = [pixels, on_black, pixels, np.asarray(few.convert("RGB"))]
    expected.append(
        np.where(np.asarray(few)[:, :, None] == 0, 0, np.asarray(few.convert("RGB"))).astype(
            np.uint8
        )
    )
    data = folder(tmp_path, place)
    assert data.size == (3, 8, 8)
    assert sorted(rows(data)) == sorted(
        bytes(image.transpose(2, 0, 1).copy()) for image in expected
    )
    save(place / "cmyk.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    assert len(rows(folder(tmp_path, place))) == 6


def test_loops_hidden_and_other_files_do_no_harm(photos, tmp_path):
    before = rows(folder(tmp_path, photos))
    (photos / "a" / "loop").symlink_to(photos)
    (photos / "up").symlink_to("..")
    (photos / "._00.png").write_bytes(b"resource fork")
    (photos / ".thumbnails").mkdir()
    save(photos / ".thumbnails" / "x.png", some(8, 8))
    (photos / "notes.txt").write_text("not an image")
    assert rows(folder(tmp_path, photos)) == before


def test_names_that_are_not_text_can_be_told(photos, tmp_path):
    try:
        (photos / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system knows names of text only")
    with pytest.raises(Problem) as problem:
        folder(tmp_path, photos)
    assert str(problem.value).encode() and "cannot be decoded" in str(problem.value)


def test_folders_that_cannot_serve(photos, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    save(tmp_path / "one" / "x.png", some(8, 8))
    for name, text in (
        ("none", "is missing"),
        ("file", "not a folder"),
        ("empty", "holds no images"),
        ("one", "1 usable"),
    ):
        with pytest.raises(Problem, match=text):
            folder(tmp_path, tmp_path / name)
    for options, text in (
        ({"side": 0}, "--size"),
        ({"side": 5_000}, "1..1024"),
        ({"broken": "maybe"}, "--broken"),
    ):
        with pytest.raises(Problem, match=text):
            folder(tmp_path, photos, **options)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(Problem, match="cannot be read"):
        folder(tmp_path, photos)
