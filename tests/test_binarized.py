"""The published binarisation of MNIST: read right, and nothing wrong passes for it."""

import hashlib
import io
import os
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from drawbench.data import binarized, network, sources
from drawbench.errors import Problem

TRAIN, VALID, TEST = FILES = tuple(binarized.SHA256)
COUNTS = dict(zip(FILES, (12, 5, 5), strict=True))

real_amat = pytest.mark.skipif(
    "DRAWBENCH_SOURCES" not in os.environ
    or not (sources.sources_root() / binarized.FOLDER / TEST).is_file(),
    reason="the real files: set DRAWBENCH_SOURCES to a folder that holds binarized_mnist",
)


def bits(file):
    return np.random.default_rng(FILES.index(file)).integers(0, 2, (COUNTS[file], 784))


def amat(file):
    """A small file in the original format, written the slow way."""
    return "".join(" ".join(str(bit) for bit in line) + "\n" for line in bits(file)).encode()


def put(root):
    folder = root / binarized.FOLDER
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_bytes(amat(file))
    return folder


@pytest.fixture
def small(monkeypatch):
    """The same code on files of a few images; no network."""
    monkeypatch.setattr(binarized, "_COUNTS", COUNTS)
    for file in FILES:
        monkeypatch.setitem(binarized.SHA256, file, hashlib.sha256(amat(file)).hexdigest())

    def offline(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(binarized, "_fetch", offline)


def test_the_parts_are_what_the_lines_say(small, tmp_path):
    put(tmp_path)
    parts = binarized.load(tmp_path)
    assert list(parts) == list(sources.SPLITS)
    for part, file in zip(parts.values(), FILES, strict=True):
        assert (
            part.dtype == torch.uint8
            and part.shape == (COUNTS[file], 1, 28, 28)
            and part.is_contiguous()
        )
        assert part.numpy().reshape(-1, 784).tolist() == (255 * bits(file)).tolist()


def truncate(folder):
    (folder / TRAIN).write_bytes(amat(TRAIN)[:-1568])


def flip(folder):
    content = bytearray(amat(VALID))
    content[100] ^= 1
    (folder / VALID).write_bytes(content)


def garble(folder):
    (folder / TEST).write_bytes(b"<html>not found</html>")


def windows_line_ends(folder):
    (folder / TEST).write_bytes(amat(TEST).replace(b"\n", b"\r\n"))


def swap(folder):
    (folder / TEST).write_bytes(amat(VALID))


def lose(folder):
    (folder / TEST).unlink()


def folder_for_file(folder):
    (folder / TEST).unlink()
    (folder / TEST).mkdir()


DAMAGE = [
    (truncate, TRAIN, "17,248 bytes where 18,816 are expected"),
    (flip, VALID, "SHA-256"),
    (garble, TEST, "22 bytes where"),
    (windows_line_ends, TEST, "7,845 bytes where 7,840"),
    (swap, TEST, f"holds {VALID}, so the files were mixed up"),
    (lose, TEST, "is missing"),
    (folder_for_file, TEST, "cannot be read"),
]


@pytest.mark.parametrize(
    ("damage", "file", "text"), DAMAGE, ids=[damage.__name__ for damage, _, _ in DAMAGE]
)
def test_a_wrong_file_stops_and_is_named(small, tmp_path, damage, file, text):
    damage(put(tmp_path))
    with pytest.raises(Problem, match=text) as problem:
        binarized.load(tmp_path, download=False)
    assert file in str(problem.value) and "\n" not in str(problem.value)
    assert not isinstance(problem.value, binarized.Missing)


def test_only_where_nothing_is_there_it_is_missing(small, tmp_path):
    for download, text in ((False, "is missing"), (True, "no network in this test")):
        with pytest.raises(binarized.Missing, match=text):
            binarized.load(tmp_path / "none", download)
    lose(put(tmp_path))
    with pytest.raises(Problem, match="no network in this test") as problem:
        binarized.load(tmp_path)
    assert not isinstance(problem.value, binarized.Missing)
    assert sorted(path.name for path in (tmp_path / binarized.FOLDER).iterdir()) == sorted(
        {*FILES} - {TEST}
    )


def serve(monkeypatch, contents):
    """A server in place of the network."""
    monkeypatch.setattr(network, "answers", lambda urls: True)
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda url, timeout: io.BytesIO(contents[url.rsplit("/")[-1]])
    )


@pytest.fixture
def online(small, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(binarized, "_COUNTS", COUNTS)
    for file in FILES:
        monkeypatch.setitem(binarized.SHA256, file, hashlib.sha256(amat(file)).hexdigest())


def test_a_download_lands_whole_and_is_used_afterwards(online, tmp_path, monkeypatch):
    serve(monkeypatch, {file: amat(file) for file in FILES})
    told = []
    first = binarized.load(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (22 * 1568, 22 * 1568) and told == sorted(told)
    assert {path.name for path in (tmp_path / binarized.FOLDER).iterdir()} == {*FILES}
    monkeypatch.setattr(network, "answers", lambda urls: pytest.fail("asked"))
    assert all(torch.equal(first[part], again) for part, again in binarized.load(tmp_path).items())


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>gone</html>", amat(TEST)[:-2], amat(VALID), amat(TEST) + b"0" * 10_000_000],
)
def test_a_wrong_download_leaves_nothing(online, tmp_path, monkeypatch, content):
    serve(monkeypatch, {TRAIN: amat(TRAIN), VALID: amat(VALID), TEST: content})
    with pytest.raises(binarized.Missing, match="nothing of it was kept"):
        binarized.load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_network_is_not_waited_for_long(online, tmp_path, monkeypatch):
    over = threading.Event()

    def hang(*_, **__):
        over.wait(20)
        raise OSError("given up")

    monkeypatch.setattr(network, "NETWORK_SECONDS", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", hang)
    start = time.monotonic()
    with pytest.raises(binarized.Missing, match="does not answer"):
        binarized.load(tmp_path)
    assert time.monotonic() - start < 10
    over.set()

    def refuse(*_, **__):
        raise urllib.error.URLError("refused")

    monkeypatch.setattr(network, "answers", lambda urls: True)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(binarized.Missing, match="refused"):
        binarized.load(tmp_path)


@real_amat
def test_the_real_files():
    parts = binarized.load(sources.sources_root(), download=False)
    assert [tuple(part.shape) for part in parts.values()] == [
        (50_000, 1, 28, 28),
        (10_000, 1, 28, 28),
        (10_000, 1, 28, 28),
    ]
    assert {int(value) for part in parts.values() for value in part[::100].unique()} == {0, 255}
    line = (sources.sources_root() / binarized.FOLDER / TEST).read_text().splitlines()[-1]
    assert [255 * int(bit) for bit in line.split()] == parts["test"][-1].flatten().tolist()
