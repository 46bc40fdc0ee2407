"""Digits: what is loaded, and that nothing wrong passes for it."""

import gzip
import hashlib
import itertools
import os
import struct
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from servers import no_network, serve
from sklearn.datasets import load_digits

from drawbench.data import binarised, digits, sources_root
from drawbench.errors import Problem

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
COUNTS = dict(zip(FILES, (30, 30, 8, 8), strict=True))
FOLDERS = {"mnist": "MNIST", "auto": "MNIST", "fashion": "FashionMNIST", "kmnist": "KMNIST"}

real_mnist = pytest.mark.skipif(
    "DRAWBENCH_SOURCES" not in os.environ
    or not (sources_root() / "MNIST" / "raw" / TRAIN_IMAGES).is_file(),
    reason="real MNIST: set DRAWBENCH_SOURCES to a folder that holds MNIST/raw",
)


def idx(file: str) -> bytes:
    """A small file in MNIST's format."""
    count, random = COUNTS[file], np.random.default_rng(FILES.index(file))
    if "images" in file:
        pixels = random.integers(0, 256, count * 784, dtype=np.uint8)
        return struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes()
    labels = (random.permutation(count) % 10).astype(np.uint8)
    return struct.pack(">2i", 2049, count) + labels.tobytes()


def packed() -> dict[str, bytes]:
    return {f"{file}.gz": gzip.compress(idx(file), mtime=0) for file in FILES}


def put(root: Path, folder: str = "MNIST") -> Path:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for file in FILES:
        (raw / file).write_bytes(idx(file))
    return raw


@pytest.fixture
def small(monkeypatch):
    """The same code on files with a few digits; no network."""
    monkeypatch.setattr(digits, "COUNTS", COUNTS)
    monkeypatch.setattr(digits, "VALIDATION", 5)
    for file in FILES:
        digest = hashlib.sha256(idx(file)).hexdigest()
        for name in ("mnist", "fashion"):
            monkeypatch.setitem(digits.FAMILIES[name].sha256, file, digest)
    resources = [(name, hashlib.md5(body).hexdigest()) for name, body in packed().items()]
    for folder in set(FOLDERS.values()):
        monkeypatch.setattr(getattr(torchvision.datasets, folder), "resources", resources)
    no_network(monkeypatch)


# ---- Embedded digits


def test_enlarging_agrees_with_exact_fractions():
    small = torch.from_numpy(load_digits().images[:3]).to(torch.int64)
    large = digits.enlarge(small)
    assert large.shape == (3, 28, 28) and large.dtype == torch.uint8

    def at(picture, row, column):
        return picture[min(max(row, 0), 7)][min(max(column, 0), 7)]

    expected = torch.zeros_like(large)
    for number, picture in enumerate(small.tolist()):
        for row, column in itertools.product(range(24), range(24)):
            y, x = (Fraction(2 * j + 1, 6) - Fraction(1, 2) for j in (row, column))
            value = sum(
                (1 - abs(y - i)) * (1 - abs(x - j)) * at(picture, i, j)
                for i in (floor(y), floor(y) + 1)
                for j in (floor(x), floor(x) + 1)
            )
            expected[number, row + 2, column + 2] = floor(value * 255 / 16 + Fraction(1, 2))
    assert torch.equal(large, expected)


def test_the_embedded_digits_are_three_contiguous_parts(tmp_path):
    source = digits.load("digits", tmp_path)
    assert source.sha256 == "5141ecbd853d80ebcca393668407798eb77d2c0eb3c61ae3fdb364ad6bbb20c7"
    assert source.name == "digits" and "not MNIST" in source.note
    assert [len(source.splits[split]) for split in digits.SPLITS] == [1_197, 200, 400]
    assert list(source.splits) == list(digits.SPLITS)
    joined = torch.cat([part.labels for part in source.splits.values()])
    assert joined.tolist() == load_digits().target.tolist()
    for part in source.splits.values():
        assert part.labels.unique().tolist() == list(range(10))


def test_other_embedded_digits_are_noticed(tmp_path, monkeypatch):
    enlarge = digits.enlarge
    monkeypatch.setattr(digits, "enlarge", lambda small: 255 - enlarge(small))
    with pytest.raises(Problem, match="not the known ones"):
        digits.load("digits", tmp_path)


# ---- MNIST-like files


@pytest.mark.parametrize("name", FOLDERS)
def test_files_that_are_there_are_loaded(small, tmp_path, name):
    put(tmp_path, FOLDERS[name])
    source = digits.load(name, tmp_path, warn=pytest.fail)
    assert source.name == name.replace("auto", "mnist")
    assert [len(source.splits[split]) for split in digits.SPLITS] == [25, 5, 8]
    for splits, images, labels in (
        (("train", "validation"), TRAIN_IMAGES, TRAIN_LABELS),
        (("test",), TEST_IMAGES, TEST_LABELS),
    ):
        parts = [source.splits[split] for split in splits]
        assert b"".join(part.images.numpy().tobytes() for part in parts) == idx(images)[16:]
        assert b"".join(part.labels.numpy().tobytes() for part in parts) == idx(labels)[8:]


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dotted", [False, True])
def test_other_layouts_of_the_same_files(small, tmp_path, folder, suffix, dotted):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for file in FILES:
        name = file.replace("-idx", ".idx") if dotted else file
        body = packed()[f"{file}.gz"] if suffix else idx(file)
        (tmp_path / folder / f"{name}{suffix}").write_bytes(body)
    assert len(digits.load("mnist", tmp_path, download=False).splits["test"]) == 8
    # Fashion-MNIST has files of the same names, so those that lie loose are MNIST's.
    states = [finding.state for finding in digits.survey(tmp_path)]
    assert states[:2] == ["verified", "missing"]


PACKED = packed()[f"{TRAIN_IMAGES}.gz"]
DAMAGE = {  # the file, its content (None: missing) and the message
    "truncated": (TRAIN_IMAGES, idx(TRAIN_IMAGES)[:-1], "23,535 bytes where 23,536"),
    "too long": (TEST_LABELS, idx(TEST_LABELS) + b"\0", "17 bytes where 16 are expected"),
    "empty": (TEST_LABELS, b"", "0 bytes where 16"),
    "a page": (TEST_IMAGES, b"<html>404</html>" + bytes(500), "not the file"),
    "images for labels": (TRAIN_LABELS, idx(TRAIN_IMAGES), f"begins like {TRAIN_IMAGES}"),
    "test for train": (TRAIN_IMAGES, idx(TEST_IMAGES), f"begins like {TEST_IMAGES}"),
    "label 10": (TRAIN_LABELS, idx(TRAIN_LABELS)[:-1] + b"\x0a", "label 10, outside 0..9"),
    "missing": (TRAIN_LABELS, None, "is missing"),
    "packed and cut": (f"{TRAIN_IMAGES}.gz", PACKED[:-50], "cannot be unpacked"),
    "packed and garbled": (f"{TRAIN_IMAGES}.gz", b"hello", "cannot be unpacked"),
    "a bomb": (f"{TRAIN_IMAGES}.gz", gzip.compress(idx(TRAIN_IMAGES) + bytes(10**8)), "23,537"),
}


@pytest.mark.parametrize("name", ["auto", "kmnist"])
@pytest.mark.parametrize(("file", "content", "text"), DAMAGE.values(), ids=DAMAGE)
def test_a_wrong_file_stops_and_is_named(small, tmp_path, name, file, content, text):
    raw = put(tmp_path, FOLDERS[name])
    (raw / file.removesuffix(".gz")).unlink()
    if content is not None:
        (raw / file).write_bytes(content)
    with pytest.raises(Problem, match=text) as problem:
        digits.load(name, tmp_path, download=False, warn=pytest.fail)
    assert file in str(problem.value) and "\n" not in str(problem.value)


def flip(path: Path, at: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["mnist", "auto", "fashion"])
def test_one_flipped_bit_is_noticed(small, tmp_path, name):
    flip(put(tmp_path, FOLDERS[name]) / TEST_IMAGES)
    with pytest.raises(Problem, match="SHA-256"):
        digits.load(name, tmp_path, warn=pytest.fail)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(Problem, match="auto, mnist, fashion, kmnist, digits"):
        digits.load("svhn", tmp_path)


# ---- Download


def test_auto_falls_back_with_a_warning_and_the_others_do_not(small, tmp_path, capsys):
    said = []
    assert digits.load("auto", tmp_path, warn=said.append).name == "digits"
    assert len(said) == 1 and "no server could be reached" in said[0] and "digits" in said[0]
    for name in ("mnist", "fashion", "kmnist"):
        with pytest.raises(Problem, match="could not be downloaded"):
            digits.load(name, tmp_path, warn=pytest.fail)
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""


def test_nothing_is_downloaded_against_the_users_will(small, tmp_path, monkeypatch):
    requests, said = serve(monkeypatch, packed()), []
    source = digits.load("auto", tmp_path / "none", download=False, warn=said.append)
    assert source.name == "digits" and said
    with pytest.raises(Problem, match="is missing"):
        digits.load("mnist", tmp_path / "none", download=False)
    states = {finding.name: finding.state for finding in digits.survey(tmp_path / "none")}
    missing = dict.fromkeys(("mnist", "fashion", "kmnist", "binarized_mnist"), "missing")
    assert states == missing | {"digits": "verified"}
    assert not (tmp_path / "none").exists() and not requests


@pytest.mark.parametrize("name", ["auto", "kmnist"])
def test_a_download_is_unpacked_and_used_afterwards(small, tmp_path, monkeypatch, name):
    serve(monkeypatch, packed())
    first = digits.load(name, tmp_path, warn=pytest.fail)
    raw = tmp_path / FOLDERS[name] / "raw"
    assert {path.name for path in raw.iterdir()} == set(FILES)
    no_network(monkeypatch)
    assert digits.load(name, tmp_path).sha256 == first.sha256


def test_only_what_is_missing_is_downloaded(small, tmp_path, monkeypatch):
    requests = serve(monkeypatch, packed())
    raw = put(tmp_path)
    (raw / TEST_LABELS).unlink()
    before = (raw / TRAIN_IMAGES).stat()
    assert len(digits.load("mnist", tmp_path).splits["test"]) == 8
    assert (raw / TRAIN_IMAGES).stat().st_mtime_ns == before.st_mtime_ns
    assert {url.rsplit("/")[-1] for url in requests} == {f"{TEST_LABELS}.gz"}


def test_a_wrong_download_leaves_nothing(small, tmp_path, monkeypatch):
    serve(monkeypatch, packed() | {f"{TEST_LABELS}.gz": gzip.compress(b"other")})
    with pytest.raises(Problem, match="not the original"):
        digits.load("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- Where sources lie, and what is there


def test_the_sources_folder_is_an_argument_or_from_the_environment_or_the_usual_one(monkeypatch):
    monkeypatch.setenv("DRAWBENCH_SOURCES", "from-environment")
    assert sources_root("argument") == Path("argument")
    assert sources_root() == Path("from-environment")
    monkeypatch.delenv("DRAWBENCH_SOURCES")
    assert sources_root() == Path("datasets") / "sources"


def test_a_survey_tells_good_from_bad(small, tmp_path):
    put(tmp_path)
    flip(put(tmp_path, "FashionMNIST") / TRAIN_LABELS, at=3)
    put(tmp_path, "KMNIST")
    (tmp_path / "binarized_mnist").mkdir()
    for file in binarised.SHA256:
        (tmp_path / "binarized_mnist" / file).write_text("0 1\n")
    assert {finding.name: finding.state for finding in digits.survey(tmp_path)} == {
        "mnist": "verified",
        "fashion": "damaged",
        "kmnist": "unverified",
        "binarized_mnist": "damaged",
        "digits": "verified",
    }


# ---- The real thing


@real_mnist
def test_real_mnist():
    source = digits.load("mnist", sources_root(), download=False)
    counts = {split: len(part) for split, part in source.splits.items()}
    assert counts == {"train": 55_000, "validation": 5_000, "test": 10_000}
    assert source.sha256 == "f800613b34bd479039a9e19e7d0986b89421fb34a36794624d98040e44145b16"
    assert source.splits["train"].labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
