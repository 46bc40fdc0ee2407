"""Sources: what is loaded, and that nothing wrong passes for it."""

import gzip
import hashlib
import os
import struct
import time
import urllib.error
import urllib.request
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from drawbench.data import network, sources
from drawbench.errors import Problem

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
COUNTS = dict(zip(FILES, (30, 30, 8, 8), strict=True))

real_mnist = pytest.mark.skipif(
    not (sources.sources_root() / "MNIST" / "raw" / TRAIN_IMAGES).is_file()
    or "DRAWBENCH_SOURCES" not in os.environ,
    reason="real MNIST: set DRAWBENCH_SOURCES to a folder that holds MNIST/raw",
)


def idx(file: str) -> bytes:
    """A small file in MNIST's format."""
    count, random = COUNTS[file], np.random.default_rng(FILES.index(file))
    if "images" in file:
        return (
            struct.pack(">4i", 2051, count, 28, 28)
            + random.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        )
    return (
        struct.pack(">2i", 2049, count)
        + (random.permutation(count) % 10).astype(np.uint8).tobytes()
    )


def put(root: Path, folder: str = "MNIST") -> Path:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for file in FILES:
        (raw / file).write_bytes(idx(file))
    return raw


def offline(family, root):
    raise OSError("no network in this test")


@pytest.fixture
def small(monkeypatch):
    """The same code on files with a few digits, whose SHA-256 takes the place of MNIST's; no
    network.
    """
    monkeypatch.setattr(sources, "_FILES", COUNTS)
    monkeypatch.setattr(sources, "VALIDATION", 5)
    monkeypatch.setattr(sources, "_fetch", offline)
    for file in FILES:
        monkeypatch.setitem(
            sources._FAMILIES["mnist"].pins, file, hashlib.sha256(idx(file)).hexdigest()
        )


# ---- Embedded digits


def test_enlarging_agrees_with_exact_fractions():
    small = torch.from_numpy(load_digits().images[:3]).to(torch.int64)
    large = sources.enlarge(small)
    assert large.shape == (3, 28, 28) and large.dtype == torch.uint8

    def at(picture, row, column):
        return picture[min(max(row, 0), 7)][min(max(column, 0), 7)]

    for picture, found in zip(small.tolist(), large.tolist(), strict=True):
        for row in range(28):
            for column in range(28):
                if not (2 <= row < 26 and 2 <= column < 26):
                    assert found[row][column] == 0
                    continue
                y, x = ((Fraction(2 * (j - 2) + 1, 2)) / 3 - Fraction(1, 2) for j in (row, column))
                top, left = y.__floor__(), x.__floor__()
                v, u = y - top, x - left
                value = (1 - v) * (
                    (1 - u) * at(picture, top, left) + u * at(picture, top, left + 1)
                )
                value += v * (
                    (1 - u) * at(picture, top + 1, left) + u * at(picture, top + 1, left + 1)
                )
                assert found[row][column] == (value * 255 / 16 + Fraction(1, 2)).__floor__()


def test_enlarging_keeps_black_white_and_symmetry():
    assert sources.enlarge(torch.zeros(1, 8, 8, dtype=torch.int64)).eq(0).all()
    assert sources.enlarge(torch.full((1, 8, 8), 16))[:, 2:26, 2:26].eq(255).all()
    picture = torch.randint(0, 17, (5, 8, 8), generator=torch.Generator().manual_seed(0))
    assert torch.equal(sources.enlarge(picture.flip(1)), sources.enlarge(picture).flip(1))
    assert torch.equal(sources.enlarge(picture.mT), sources.enlarge(picture).mT)


def test_the_embedded_digits_are_three_contiguous_parts(tmp_path):
    source = sources.load("digits", tmp_path)
    assert source.name == "digits" and "not MNIST" in source.note
    assert {split: len(digits) for split, digits in source.splits.items()} == {
        "train": 1_197,
        "validation": 200,
        "test": 400,
    }
    assert list(source.splits) == list(sources.SPLITS)
    joined = torch.cat([digits.labels for digits in source.splits.values()])
    assert joined.tolist() == load_digits().target.tolist()
    for digits in source.splits.values():
        assert digits.labels.unique().tolist() == list(range(10))


def test_the_embedded_digits_are_the_same_bytes_everywhere(tmp_path):
    assert (
        sources.load("digits", tmp_path).sha256
        == "5141ecbd853d80ebcca393668407798eb77d2c0eb3c61ae3fdb364ad6bbb20c7"
    )


def test_other_embedded_digits_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sources, "enlarge", lambda small: torch.zeros(len(small), 28, 28, dtype=torch.uint8)
    )
    with pytest.raises(Problem, match="not the known ones"):
        sources.load("digits", tmp_path)


# ---- MNIST-like files


@pytest.mark.parametrize("name", ["mnist", "auto", "fashion", "kmnist"])
def test_files_that_are_there_are_loaded(small, tmp_path, name):
    family = sources._FAMILIES["mnist" if name == "auto" else name]
    put(tmp_path, family.folder)
    source = sources.load(name, tmp_path, warn=pytest.fail)
    assert source.name == family.name
    train, validation, test = (source.splits[split] for split in sources.SPLITS)
    assert (len(train), len(validation), len(test)) == (25, 5, 8)
    images, labels = idx(TRAIN_IMAGES)[16:], idx(TRAIN_LABELS)[8:]
    assert train.images.numpy().tobytes() + validation.images.numpy().tobytes() == images
    assert bytes(train.labels.tolist() + validation.labels.tolist()) == labels
    assert (
        test.images.numpy().tobytes() == idx(TEST_IMAGES)[16:]
        and bytes(test.labels.tolist()) == idx(TEST_LABELS)[8:]
    )


def truncate(raw):
    (raw / TRAIN_IMAGES).write_bytes(idx(TRAIN_IMAGES)[:-1])


def lengthen(raw):
    (raw / TEST_LABELS).write_bytes(idx(TEST_LABELS) + b"\0")


def empty(raw):
    (raw / TEST_LABELS).write_bytes(b"")


def garble(raw):
    (raw / TEST_IMAGES).write_bytes(b"<html>404</html>" + bytes(500))


def images_for_labels(raw):
    (raw / TRAIN_LABELS).write_bytes(idx(TRAIN_IMAGES))


def test_for_train(raw):
    (raw / TRAIN_IMAGES).write_bytes(idx(TEST_IMAGES))


test_for_train.__test__ = False


def label_ten(raw):
    (raw / TRAIN_LABELS).write_bytes(idx(TRAIN_LABELS)[:-1] + b"\x0a")


def lose(raw):
    (raw / TRAIN_LABELS).unlink()


def leave_packed(raw):
    (raw / f"{TRAIN_LABELS}.gz").write_bytes(gzip.compress((raw / TRAIN_LABELS).read_bytes()))
    (raw / TRAIN_LABELS).unlink()


DAMAGE = [
    (truncate, TRAIN_IMAGES, "cut short"),
    (lengthen, TEST_LABELS, "17 bytes where 16 are expected"),
    (empty, TEST_LABELS, "0 bytes where 16"),
    (garble, TEST_IMAGES, "not the file"),
    (images_for_labels, TRAIN_LABELS, f"begins like {TRAIN_IMAGES}"),
    (test_for_train, TRAIN_IMAGES, f"begins like {TEST_IMAGES}"),
    (label_ten, TRAIN_LABELS, "label 10, outside 0..9"),
    (lose, TRAIN_LABELS, "is missing"),
    (leave_packed, TRAIN_LABELS, "gunzip"),
]


@pytest.mark.parametrize("name", ["mnist", "auto", "kmnist"])
@pytest.mark.parametrize(
    ("damage", "file", "text"), DAMAGE, ids=[damage.__name__ for damage, _, _ in DAMAGE]
)
def test_a_wrong_file_stops_and_is_named(small, tmp_path, name, damage, file, text):
    raw = put(tmp_path, sources._FAMILIES["mnist" if name == "auto" else name].folder)
    damage(raw)
    with pytest.raises(Problem, match=text) as problem:
        sources.load(name, tmp_path, download=False, warn=pytest.fail)
    assert file in str(problem.value) and "\n" not in str(problem.value)


def flip(path: Path, at: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_one_flipped_bit_of_mnist_is_noticed(small, tmp_path):
    flip(put(tmp_path) / TEST_IMAGES)
    for name in ("mnist", "auto"):
        with pytest.raises(Problem, match="SHA-256"):
            sources.load(name, tmp_path, warn=pytest.fail)


def test_files_of_unknown_hash_are_noted_at_first_use_and_held_to_it(small, tmp_path):
    raw = put(tmp_path, "KMNIST")
    assert sources.survey(tmp_path)[2].state == "unverified"
    assert not (raw / "SHA256SUMS").exists()  # a survey only looks
    sources.load("kmnist", tmp_path)
    sums = dict(reversed(line.split()) for line in (raw / "SHA256SUMS").read_text().splitlines())
    assert sums == {file: hashlib.sha256(idx(file)).hexdigest() for file in FILES}
    assert sources.survey(tmp_path)[2].state == "verified"
    flip(raw / TRAIN_IMAGES)
    assert sources.survey(tmp_path)[2].state == "damaged"
    with pytest.raises(Problem, match="SHA-256"):
        sources.load("kmnist", tmp_path)


@pytest.mark.parametrize("content", ["nonsense", "a b c\n", "", f"{'0' * 64}  {TRAIN_IMAGES}\n"])
def test_unreadable_sums_are_named(small, tmp_path, content):
    raw = put(tmp_path, "KMNIST")
    (raw / "SHA256SUMS").write_text(content)
    with pytest.raises(Problem, match="SHA256SUMS"):
        sources.load("kmnist", tmp_path)


def test_a_folder_that_cannot_be_written_to_can_be_read_from(small, tmp_path, monkeypatch):
    put(tmp_path, "KMNIST")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources.os, "replace", refuse)
    assert len(sources.load("kmnist", tmp_path).splits["test"]) == 8


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(Problem, match="auto, mnist, fashion, kmnist, digits"):
        sources.load("svhn", tmp_path)


# ---- Download


def test_auto_falls_back_with_a_warning_and_the_others_do_not(small, tmp_path):
    said = []
    assert sources.load("auto", tmp_path, warn=said.append).name == "digits"
    assert len(said) == 1 and "no network in this test" in said[0] and "digits" in said[0]
    for name in ("mnist", "fashion", "kmnist"):
        with pytest.raises(Problem, match="could not be downloaded"):
            sources.load(name, tmp_path, warn=pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_fetched_when_that_is_not_wanted(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_fetch", lambda *_: pytest.fail("fetched"))
    said = []
    assert (
        sources.load("auto", tmp_path / "none", download=False, warn=said.append).name == "digits"
        and said
    )
    with pytest.raises(Problem, match="is missing"):
        sources.load("mnist", tmp_path / "none", download=False)
    assert not (tmp_path / "none").exists()


def test_a_download_lands_whole_and_is_used_afterwards(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_fetch", lambda family, root: put(root, family.folder))
    for name, folder in (("auto", "MNIST"), ("kmnist", "KMNIST")):
        first = sources.load(name, tmp_path, warn=pytest.fail)
        assert {path.name for path in (tmp_path / folder / "raw").iterdir()} - {
            "SHA256SUMS"
        } == set(FILES)
        assert sources.load(name, tmp_path, download=False).sha256 == first.sha256
    assert (tmp_path / "KMNIST" / "raw" / "SHA256SUMS").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"MNIST", "KMNIST"}


def test_only_what_is_missing_is_put_in_place(small, tmp_path, monkeypatch):
    raw = put(tmp_path)
    (raw / TEST_LABELS).unlink()
    before = (raw / TRAIN_IMAGES).stat()
    monkeypatch.setattr(sources, "_fetch", lambda family, root: put(root, family.folder))
    assert len(sources.load("mnist", tmp_path).splits["test"]) == 8
    assert (raw / TRAIN_IMAGES).stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    "damage", [truncate, garble, label_ten, lose], ids=lambda damage: damage.__name__
)
def test_half_a_download_leaves_nothing(small, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(sources, "_fetch", lambda family, root: damage(put(root, family.folder)))
    with pytest.raises(Problem):
        sources.load("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("timed out"),
        RuntimeError("Error downloading\nTried x"),
        EOFError(),
        KeyboardInterrupt(),
    ],
)
def test_a_broken_download_leaves_nothing(small, tmp_path, monkeypatch, error):
    def fetch(family, root):
        truncate(put(root, family.folder))
        raise error

    monkeypatch.setattr(sources, "_fetch", fetch)
    with pytest.raises((Problem, KeyboardInterrupt)) as raised:
        sources.load("mnist", tmp_path)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_is_one_problem(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise urllib.error.URLError("refused")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(Problem, match="no server could be reached"):
        sources.load("fashion", tmp_path)
    assert capsys.readouterr().out == ""


def test_a_silent_network_is_not_waited_for_long(tmp_path, monkeypatch):
    def silent(*_, **__):
        time.sleep(20)
        raise OSError("nobody waits for this any more")

    monkeypatch.setattr(network, "NETWORK_SECONDS", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", silent)
    start = time.monotonic()
    with pytest.raises(Problem, match="no server"):
        sources.load("mnist", tmp_path)
    assert time.monotonic() - start < 10


# ---- Where sources lie, and what is there


def test_the_sources_folder_is_given_or_from_the_environment_or_the_usual_one(monkeypatch):
    monkeypatch.setenv("DRAWBENCH_SOURCES", "from-environment")
    assert sources.sources_root("given") == Path("given")
    assert sources.sources_root() == Path("from-environment")
    monkeypatch.delenv("DRAWBENCH_SOURCES")
    assert sources.sources_root() == Path("datasets") / "sources"


def test_a_survey_names_everything_and_fetches_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_fetch", lambda *_: pytest.fail("fetched"))
    states = {finding.name: finding.state for finding in sources.survey(tmp_path / "none")}
    missing = dict.fromkeys(("mnist", "fashion", "kmnist", "binarized_mnist"), "missing")
    assert states == missing | {"digits": "verified"}
    assert not (tmp_path / "none").exists()


def test_a_survey_tells_good_from_bad(small, tmp_path, monkeypatch):
    put(tmp_path)
    flip(put(tmp_path, "FashionMNIST") / TRAIN_LABELS, at=3)
    binarized = tmp_path / "binarized_mnist"
    binarized.mkdir()
    for file in sources._BINARIZED:
        (binarized / file).write_text("0 1\n")
    states = {finding.name: finding.state for finding in sources.survey(tmp_path)}
    assert states == {
        "mnist": "verified",
        "fashion": "damaged",
        "kmnist": "missing",
        "binarized_mnist": "damaged",
        "digits": "verified",
    }
    for file in sources._BINARIZED:
        monkeypatch.setitem(sources._BINARIZED, file, hashlib.sha256(b"0 1\n").hexdigest())
    assert sources.survey(tmp_path)[3].state == "verified"


# ---- The real thing


@real_mnist
def test_real_mnist():
    source = sources.load("mnist", sources.sources_root(), download=False)
    counts = {split: len(digits) for split, digits in source.splits.items()}
    assert counts == {"train": 55_000, "validation": 5_000, "test": 10_000}
    assert source.sha256 == "f800613b34bd479039a9e19e7d0986b89421fb34a36794624d98040e44145b16"
    assert source.splits["train"].labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert source.splits["test"].labels.bincount().tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]


@real_mnist
def test_a_cut_copy_of_real_mnist_is_noticed(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in FILES:
        (raw / file).symlink_to((sources.sources_root() / "MNIST" / "raw" / file).resolve())
    content = (raw / TEST_IMAGES).read_bytes()
    (raw / TEST_IMAGES).unlink()
    (raw / TEST_IMAGES).write_bytes(content[:-784])
    with pytest.raises(Problem, match="7,839,232 bytes where 7,840,016"):
        sources.load("auto", tmp_path, warn=pytest.fail)
