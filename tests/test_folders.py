"""Folders of images as users have them, and the files in them."""

import os
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from test_dataset import load
from test_photographs import noise

from drawbench.data import image_files
from drawbench.errors import Problem


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def first_channels(pixels):
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@pytest.fixture
def photos(tmp_path):
    """Twenty colour images of 8x8 in two subfolders."""
    folder = tmp_path / "my photos!"
    for number in range(20):
        save(folder / "ab"[number % 2] / f"{number:02}.png", noise(8, 8, 3, seed=number))
    return folder


def chunk(kind, data):
    """Return a chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def colours(*numbers):
    """The images with these numbers, as bytes."""
    return [first_channels(noise(8, 8, 3, seed=number)).tobytes() for number in numbers]


def folder(tmp_path, place, said=None, **options):
    """Load a folder for a generator, or with ``pixels=None`` for a classifier."""
    settings = {"images": str(place), "size": 8, "broken": "stop", "data_seed": 0, "pixels": "auto"}
    if (settings := settings | options)["pixels"] is None:
        del settings["pixels"]
    return load(tmp_path, "folder", said, **settings)


def rows(dataset):
    """All images of all parts, as bytes."""
    parts = dataset.train.part, dataset.validation, dataset.test
    return [bytes(image.numpy()) for part in parts for image in part.images]


def sizes(dataset):
    return len(dataset.train), len(dataset.validation), len(dataset.test)


# ---- Parts


def test_a_folder_in_parts_that_share_nothing(photos, tmp_path):
    told = []
    dataset = folder(tmp_path, photos, progress=lambda *numbers: told.append(numbers))
    assert told == [(n, 20) for n in range(1, 21)]
    assert dataset.name == "folder-my-photos-8x8" and dataset.source == "folder"
    assert dataset.size == (3, 8, 8) and not dataset.binary
    assert sizes(dataset) == (16, 2, 2)
    assert sorted(rows(dataset)) == sorted(colours(*range(20)))
    assert "20 colour images of the folder 'my-photos'" in dataset.rule
    assert str(tmp_path) not in dataset.rule
    other = folder(tmp_path, photos, data_seed=1)
    assert rows(other) != rows(dataset) and sorted(rows(other)) == sorted(rows(dataset))
    assert other.name.endswith("-seed1")


def test_parts_do_not_depend_on_the_place_or_on_the_system(photos, tmp_path, monkeypatch):
    here = rows(folder(tmp_path, photos))
    photos.rename(moved := tmp_path / "moved")
    names = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: names(path)[::-1])
    assert rows(folder(tmp_path, moved)) == here


def test_train_and_test_folders_are_the_parts(photos, tmp_path):
    (photos / "a").rename(photos / "train")
    (photos / "b").rename(photos / "test")
    save(photos / "rest" / "x.png", noise(8, 8, 3))
    said = []
    dataset = folder(tmp_path, photos, said)
    assert len(said) == 1 and "1 images elsewhere" in said[0]
    assert sizes(dataset) == (9, 1, 10)
    test = sorted(bytes(image.numpy()) for image in dataset.test.images)
    assert test == sorted(colours(*range(1, 20, 2)))
    for path in list((photos / "train").iterdir())[1:]:
        path.unlink()
    with pytest.raises(Problem, match="1 different usable images to train on and 10 to test on"):
        folder(tmp_path, photos, [])


def test_the_fingerprint_notices_a_changed_folder(photos, tmp_path):
    fingerprints = [folder(tmp_path, photos).fingerprint for _ in range(2)]
    assert fingerprints[0] == fingerprints[1]
    for name in ("00.png", "new.png"):  # replaced, added
        save(photos / "a" / name, noise(8, 8, 3, seed=99))
        fingerprints.append(folder(tmp_path, photos).fingerprint)
    (photos / "a" / "00.png").unlink()
    fingerprints.append(folder(tmp_path, photos).fingerprint)
    assert len(set(fingerprints)) == 4


# ---- Classes


def test_subfolders_are_the_classes(photos, tmp_path):
    save(photos / "loose.png", noise(8, 8, 3))
    said = []
    dataset = folder(tmp_path, photos, said, pixels=None)
    assert len(said) == 2 and "1 images elsewhere" in said[0]
    assert said[1] == "2 classes of 10 images each."
    assert dataset.classes == ("a", "b") and dataset.pixels is None
    parts = dataset.train.part, dataset.validation, dataset.test
    assert [part.labels.bincount().tolist() for part in parts] == [[8, 8], [1, 1], [1, 1]]
    for part in parts:
        for image, label in zip(part.images, part.labels, strict=True):
            assert bytes(image.numpy()) in colours(*range(int(label), 20, 2))


def test_classes_inside_train_and_test(photos, tmp_path):
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        for number in numbers:
            place = tmp_path / "divided" / split / "ab"[number % 2] / "deep" / f"{number}.png"
            save(place, noise(8, 8, 3, seed=number))
    dataset = folder(tmp_path, tmp_path / "divided", [], pixels=None)
    assert dataset.classes == ("a", "b") and dataset.test.labels.tolist() == [0, 1]
    assert dataset.train.part.labels.tolist() == dataset.validation.labels.tolist() == [0, 1]
    test = [bytes(image.numpy()) for image in dataset.test.images]
    assert test == colours(4, 5)


def test_folders_without_classes_are_refused(photos, tmp_path):
    with pytest.raises(Problem, match="a subfolder for each of two or more classes, but has 0"):
        folder(tmp_path, photos / "a", pixels=None)
    save(photos / "c" / "1.png", noise(8, 8, 3, seed=50))
    save(photos / "c" / "2.png", noise(8, 8, 3, seed=51))
    with pytest.raises(
        Problem, match="1 different usable images of the class 'c' to train on and 1"
    ):
        folder(tmp_path, photos, pixels=None)


def test_validation_may_be_given_too(photos, tmp_path):
    for number in range(10):
        split = ("train", "train", "validation", "test", "test")[number // 2]
        save(
            tmp_path / "three" / split / "ab"[number % 2] / f"{number}.png",
            noise(8, 8, 3, seed=number),
        )
    said: list[str] = []
    dataset = folder(tmp_path, tmp_path / "three", said, pixels=None)
    assert sizes(dataset) == (4, 2, 4) and said == ["2 classes of 5 images each."]
    images = [bytes(image.numpy()) for image in dataset.validation.images]
    assert images == [noise(8, 8, 3, seed=number).transpose(2, 0, 1).tobytes() for number in (4, 5)]
    (tmp_path / "three" / "validation" / "a" / "4.png").unlink()
    save(tmp_path / "three" / "validation" / "b" / "6.png", noise(8, 8, 3, seed=60))
    with pytest.raises(
        Problem, match=r"2 different usable images of the class 'a' to train on, 0 to valid"
    ):
        folder(tmp_path, tmp_path / "three", [], pixels=None)


def test_the_sizes_of_the_classes_are_told(photos, tmp_path):
    for number in range(40, 70):
        save(photos / "b" / f"{number}.png", noise(8, 8, 3, seed=number))
    said: list[str] = []
    folder(tmp_path, photos, said, pixels=None)
    told = "2 classes of 10 ('a') to 40 images ('b'): answering 'b' is right for 80.0% of the test"
    assert said == [f"{told} images."]


def test_an_image_in_two_classes_and_a_class_without_images_are_refused(photos, tmp_path):
    (photos / "c").mkdir()
    (photos / "c" / "notes.txt").write_text("later")
    with pytest.raises(Problem, match=r"/c holds no images, but each subfolder is a class"):
        folder(tmp_path, photos, [], pixels=None)
    shutil.rmtree(photos / "c")
    shutil.copy(photos / "a" / "04.png", photos / "b" / "copy.png")
    with pytest.raises(Problem, match=r"a/04.png and .*b/copy.png are the same image in two clas"):
        folder(tmp_path, photos, [], pixels=None)
    (photos / "b" / "copy.png").unlink()
    (photos / "b" / "link.png").symlink_to(photos / "a" / "04.png")
    with pytest.raises(Problem, match=r"a/04.png and .*b/link.png are the same image in two clas"):
        folder(tmp_path, photos, [], pixels=None)


def test_copies_of_an_image_stay_in_one_part(tmp_path):
    place = tmp_path / "copies"
    for number in range(40):
        pixels = noise(8, 8, 3, seed=number // 2)
        save(place / "ab"[number % 4 // 2] / f"{number:02}.png", pixels)
    for pixels in (None, "auto"):
        dataset = folder(tmp_path, place, [], pixels=pixels)
        shown = [
            {bytes(image) for image in part.images.numpy()}
            for part in (dataset.train.part, dataset.validation, dataset.test)
        ]
        assert sum(map(len, shown)) == len(set.union(*shown)) == 20
        assert min(map(len, shown)) >= 2


@pytest.mark.parametrize("link", [False, True])
def test_an_image_in_two_given_parts_is_refused(photos, tmp_path, link):
    for part, numbers in (("train", range(8)), ("test", range(8, 12))):
        for number in numbers:
            save(tmp_path / "in" / part / f"{number}.png", noise(8, 8, 3, seed=number))
    folder(tmp_path, tmp_path / "in", [])
    copy = tmp_path / "in" / "test" / "again.png"
    original = tmp_path / "in" / "train" / "3.png"
    copy.symlink_to(original) if link else shutil.copy(original, copy)
    if link:  # each file is read once
        folder(tmp_path, tmp_path / "in", [])
        return
    with pytest.raises(Problem, match=r"test/again.png and .*train/3.png are the same .*two parts"):
        folder(tmp_path, tmp_path / "in", [])


# ---- What resizing does


def test_other_sizes_are_made_equal_and_that_is_said(photos, tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = noise(8, 8, 3, seed=77)
    save(photos / "c" / "wide.png", wide)
    save(photos / "c" / "small.png", noise(4, 5, 3))
    save(photos / "c" / "large.jpg", noise(200, 300, 3))
    said = []
    dataset = folder(tmp_path, photos, said)
    assert len(said) == 2 and "4 sizes, 5x4 to 300x200" in said[0]
    assert "1 images are smaller than 8x8 and were enlarged" in said[1]
    assert "small.png, 5x4" in said[1]
    assert colours(77)[0] in rows(dataset)  # the centre square


def test_reduction_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    for suffix in ("png", "jpg"):
        for number in range(3):
            stripes[:8, :8] = 100 + number  # another image, which is no copy
            save(tmp_path / suffix / f"{number}.{suffix}", stripes)
        test = folder(tmp_path, tmp_path / suffix).test.images.int()
        assert (test - 127).abs().max() < 30


# ---- Files


def broken_files(place):
    """Write one of each kind of file that cannot be used; return what is said of it, by name."""
    place.mkdir(parents=True, exist_ok=True)
    whole = save(place / "whole.jpg", noise(64, 64, 3)).read_bytes()
    (place / "whole.jpg").unlink()

    def png(width, height, data):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data

    black = chunk(b"IDAT", zlib.compress(bytes(10_000_000))) + chunk(b"IEND", b"")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"
    contents = {
        "cut.jpg": (whole[: len(whole) // 2], "cannot be decoded"),
        "empty.png": (b"", "cannot be decoded"),
        "text.jpeg": (b"hello", "cannot be decoded"),
        "script.png": (postscript, "cannot be decoded"),
        "bomb.png": (png(50_000, 50_000, black), "more pixels than"),
        "large.png": (png(12_000, 12_000, black), "12,000 x 12,000 pixels, more than"),
        "header.png": (png(8, 8, b""), "cannot be decoded"),
    }
    for name, (content, _) in contents.items():
        (place / name).write_bytes(content)
    save(place / "grey.png", noise(8, 8))
    (place / "nowhere.png").symlink_to("not-there")
    os.mkfifo(place / "pipe.png")
    others = {
        "grey.png": "is grey but .*00.png is in colour",
        "nowhere.png": "not a file",
        "pipe.png": "not a file",
    }
    return {name: reason for name, (_, reason) in contents.items()} | others


def test_what_cannot_be_used_stops_or_is_skipped(photos, tmp_path):
    good = rows(folder(tmp_path, photos))
    reasons = broken_files(photos / "z")
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows(folder(tmp_path, photos, said, broken="skip")) == good
    assert len(said) == 1 and "bomb.png" in said[0]
    assert said[0].startswith(f"{len(reasons)} of {20 + len(reasons)} images")
    for name, reason in sorted(reasons.items()):
        with pytest.raises(Problem, match=f"{name} .*{reason}.*--broken skip") as problem:
            folder(tmp_path, photos)
        assert "\n" not in str(problem.value)
        (photos / "z" / name).unlink()
    assert rows(folder(tmp_path, photos)) == good


def test_grey_images_of_every_kind_are_one_channel(tmp_path):
    place, pixels = tmp_path / "grey", noise(8, 8)
    opaque = Image.fromarray(np.full_like(pixels, 255))
    for name in ("l.png", "l.bmp", "l.pgm"):
        save(place / name, pixels)
    for name in ("i16.png", "i16.tif"):
        save(place / name, pixels.astype(np.uint16) * 257)
    save(place / "la.png", Image.merge("LA", [Image.fromarray(pixels), opaque]))
    save(place / "bits.png", Image.fromarray(pixels > 127))
    others = [noise(8, 8, seed=seed) for seed in (1, 2)]
    for number, other in enumerate(others):
        save(place / f"other{number}.png", other)
    save(place / "l.webp", np.stack([pixels] * 3, 2), lossless=True)  # knows colour only
    said = []
    dataset = folder(tmp_path, place, said, broken="skip")
    assert dataset.size == (1, 8, 8) and "grey images" in dataset.rule
    assert "1 of 10" in said[0] and "l.webp is in colour" in said[0]
    bits = np.where(pixels > 127, 255, 0).astype(np.uint8)
    assert sorted(rows(dataset)) == sorted([bytes(pixels)] * 6 + [*map(bytes, [bits, *others])])
    (place / "l.webp").unlink()
    for rule in ("threshold", "dynamic"):
        dataset = folder(tmp_path, place, pixels=rule)
        assert dataset.binary and dataset.name == f"folder-grey-8x8-{rule}"
        shown = dataset.train.batch(0, 9).images
        assert not (shown % 255).any() and not (dataset.test.images % 255).any()


def test_pixels_in_floating_point_are_refused(photos, tmp_path):
    save(photos / "a" / "f.tif", Image.fromarray(np.linspace(0, 1, 64, dtype="f").reshape(8, 8)))
    with pytest.raises(Problem, match=r"f.tif cannot be decoded \(.*floating point"):
        folder(tmp_path, photos)


def test_colour_of_every_kind_is_three_channels_on_black_and_upright(tmp_path):
    place, pixels = tmp_path / "colour", noise(8, 8, 3)
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:4] = 0
    on_black = pixels.copy()
    on_black[:4] = 0
    for name in ("a.png", "a.tiff", "a.ppm"):
        save(place / name, pixels)
    save(place / "alpha.png", np.concatenate([pixels, alpha[:, :, None]], 2))
    few = Image.fromarray(pixels).quantize(4)
    palette = np.asarray(few.convert("RGB"))
    save(place / "palette.gif", few)
    save(place / "palette.png", few, transparency=0)
    transparent = np.where(np.asarray(few)[:, :, None] == 0, 0, palette).astype(np.uint8)
    expected = [pixels, on_black, pixels, pixels, palette, transparent]
    dataset = folder(tmp_path, place)
    assert dataset.size == (3, 8, 8)
    assert sorted(rows(dataset)) == sorted(first_channels(image).tobytes() for image in expected)
    save(place / "cmyk.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    assert len(rows(folder(tmp_path, place))) == 7
    with pytest.raises(Problem, match="in colour, and --pixels fixed"):
        folder(tmp_path, place, pixels="fixed")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, orientation):
    """The tag says where row 0 and column 0 of the file lie; undone here by array operations."""
    pixels, exif = noise(6, 8, 3), Image.Exif()
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels),
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(pixels, -1),
    }[orientation]
    exif[0x0112] = orientation
    exif[0x011A] = 72.0  # a resolution
    path = save(tmp_path / "x.png", np.ascontiguousarray(stored), exif=exif)
    assert np.array_equal(image_files.read(path), first_channels(pixels))
    # A resolution of 72 / 0 or -72 / 1, as some cameras write, leaves no image lying.
    data, content = exif.tobytes().removeprefix(b"Exif\0\0"), path.read_bytes()
    assert chunk(b"eXIf", data) in content
    for fraction in ((72, 0), (-72, 1), (-72, -1), (0, 0)):
        odd = data.replace(struct.pack("<II", 72, 1), struct.pack("<ii", *fraction))
        odd = odd.replace(struct.pack(">II", 72, 1), struct.pack(">ii", *fraction))
        assert odd != data
        path.write_bytes(content.replace(chunk(b"eXIf", data), chunk(b"eXIf", odd)))
        assert np.array_equal(image_files.read(path), first_channels(pixels))
    # Nor do types of values that the standard does not allow there: 10 is a signed fraction.
    signed = data.replace(struct.pack("<HH", 0x011A, 5), struct.pack("<HH", 0x011A, 10))
    signed = signed.replace(struct.pack(">HH", 0x011A, 5), struct.pack(">HH", 0x011A, 10))
    signed = signed.replace(struct.pack("<II", 72, 1), struct.pack("<ii", -72, 1))
    signed = signed.replace(struct.pack(">II", 72, 1), struct.pack(">ii", -72, 1))
    path.write_bytes(content.replace(chunk(b"eXIf", data), chunk(b"eXIf", signed)))
    assert signed != data and np.array_equal(image_files.read(path), first_channels(pixels))


def test_suffixes_are_those_of_formats_that_are_read():
    common = ".jpg .jpeg .jfif .png .gif .bmp .webp .tif .tiff .mpo .ppm .jp2"
    assert set(common.split()) <= image_files.suffixes()
    assert not {".eps", ".pdf", ".mpg", ".txt"} & image_files.suffixes()


# ---- Folders


def test_links_are_followed_and_each_file_is_read_once(photos, tmp_path):
    before = rows(folder(tmp_path, photos))
    save(tmp_path / "not here" / "x.png", noise(8, 8, 3, seed=50))
    (photos / "a" / "loop").symlink_to(photos)
    (photos / "up").symlink_to("..")
    (photos / "again").symlink_to(photos / "b")
    (photos / "a" / "same.png").symlink_to(photos / "a" / "00.png")
    assert sorted(rows(folder(tmp_path, photos))) == sorted(before)
    save(tmp_path / "elsewhere" / "x.png", noise(8, 8, 3, seed=60))
    (photos / "c").symlink_to(tmp_path / "elsewhere")
    assert sorted(rows(folder(tmp_path, photos))) == sorted([*before, *colours(60)])


def test_hidden_files_are_left_out_and_other_files_are_counted(photos, tmp_path):
    before = rows(folder(tmp_path, photos))
    (photos / "._00.png").write_bytes(b"resource fork")
    save(photos / ".thumbnails" / "x.png", noise(8, 8))
    assert rows(folder(tmp_path, photos)) == before
    for name in ("notes.txt", "a/more.TXT", "b/film.mp4", "README"):
        (photos / name).write_text("not an image")
    said = []
    assert rows(folder(tmp_path, photos, said)) == before
    assert len(said) == 1 and said[0].startswith("4 files")
    assert all(kind in said[0] for kind in ("2 .txt", "1 .mp4", "1 no suffix"))


def test_names_that_are_not_text_can_be_printed(photos, tmp_path):
    try:
        (photos / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has names of text only")
    with pytest.raises(Problem) as problem:
        folder(tmp_path, photos)
    assert str(problem.value).encode() and "cannot be decoded" in str(problem.value)


def test_folders_that_cannot_serve(photos, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    save(tmp_path / "one" / "x.png", noise(8, 8))
    reasons = {
        "none": "is missing",
        "file": "not a folder",
        "empty": "holds no images",
        "one": "0 different usable images to train on and 1 to test on",
    }
    for name, text in reasons.items():
        with pytest.raises(Problem, match=text):
            folder(tmp_path, tmp_path / name)
    with pytest.raises(Problem, match="--images DIR"):
        folder(tmp_path, photos, images=None)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(Problem, match="cannot be read"):
        folder(tmp_path, photos)
