"""The published binarisation of MNIST: read right, and nothing wrong passes for it."""

import hashlib
import os

import numpy as np
import pytest
import torch
from servers import no_network, serve

from drawbench.data import binarised, sources_root
from drawbench.errors import Problem

TRAIN, VALID, TEST = FILES = tuple(binarised.SHA256)
COUNTS = dict(zip(FILES, (12, 5, 5), strict=True))

real_amat = pytest.mark.skipif(
    "DRAWBENCH_SOURCES" not in os.environ
    or not (sources_root() / binarised.FOLDER / TEST).is_file(),
    reason="the real files: set DRAWBENCH_SOURCES to a folder that holds binarized_mnist",
)


def bits(file):
    return np.random.default_rng(FILES.index(file)).integers(0, 2, (COUNTS[file], 784))


def amat(file):
    """A small file in the original format, written the slow way."""
    return "".join(" ".join(str(bit) for bit in line) + "\n" for line in bits(file)).encode()


def put(root):
    folder = root / binarised.FOLDER
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_bytes(amat(file))
    return folder


@pytest.fixture
def small(monkeypatch):
    """The same code on files of a few images; no network."""
    monkeypatch.setattr(binarised, "COUNTS", COUNTS)
    for file in FILES:
        monkeypatch.setitem(binarised.SHA256, file, hashlib.sha256(amat(file)).hexdigest())
    no_network(monkeypatch)


def test_the_parts_are_what_the_lines_say(small, tmp_path):
    put(tmp_path)
    parts = binarised.load(tmp_path)
    assert list(parts) == ["train", "validation", "test"]
    for part, file in zip(parts.values(), FILES, strict=True):
        assert part.dtype == torch.uint8 and part.shape == (COUNTS[file], 1, 28, 28)
        assert part.numpy().reshape(-1, 784).tolist() == (255 * bits(file)).tolist()


DAMAGE = {
    "truncated": (TRAIN, amat(TRAIN)[:-1568], "17,248 bytes where 18,816 are expected"),
    "one bit": (VALID, bytes([amat(VALID)[0] ^ 1]) + amat(VALID)[1:], "SHA-256"),
    "garbled": (TEST, b"<html>not found</html>", "22 bytes where"),
    "Windows line ends": (TEST, amat(TEST).replace(b"\n", b"\r\n"), "7,845 bytes where 7,840"),
    "swapped": (TEST, amat(VALID), f"holds {VALID}, so the files were mixed up"),
    "missing": (TEST, None, "is missing"),
    "a folder": (TEST, "folder", "cannot be read"),
}


@pytest.mark.parametrize(("file", "content", "text"), DAMAGE.values(), ids=DAMAGE)
def test_a_wrong_file_stops_and_is_named(small, tmp_path, file, content, text):
    path = put(tmp_path) / file
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(Problem, match=text) as problem:
        binarised.load(tmp_path, download=False)
    assert file in str(problem.value) and "\n" not in str(problem.value)
    assert not isinstance(problem.value, binarised.Missing)
    assert binarised.state(tmp_path)[0] == ("missing" if content is None else "damaged")


def test_only_where_nothing_is_there_it_is_missing(small, tmp_path):
    for download, text in ((False, "is missing"), (True, "no server")):
        with pytest.raises(binarised.Missing, match=text):
            binarised.load(tmp_path / "none", download)
    folder = put(tmp_path)
    assert binarised.state(tmp_path)[0] == "verified"
    (folder / TEST).unlink()
    with pytest.raises(Problem, match="no server") as problem:
        binarised.load(tmp_path)
    assert not isinstance(problem.value, binarised.Missing)
    assert {path.name for path in folder.iterdir()} == {TRAIN, VALID}


def test_a_download_is_used_afterwards(small, tmp_path, monkeypatch):
    serve(monkeypatch, {TRAIN: amat(TRAIN), VALID: amat(VALID), TEST: amat(VALID)})
    with pytest.raises(binarised.Missing, match="nothing was kept"):
        binarised.load(tmp_path)
    assert list(tmp_path.iterdir()) == []
    serve(monkeypatch, {file: amat(file) for file in FILES})
    first = binarised.load(tmp_path)
    assert {path.name for path in (tmp_path / binarised.FOLDER).iterdir()} == {*FILES}
    no_network(monkeypatch)
    assert all(torch.equal(first[part], again) for part, again in binarised.load(tmp_path).items())


@real_amat
def test_the_real_files():
    parts = binarised.load(sources_root(), download=False)
    assert [len(part) for part in parts.values()] == [50_000, 10_000, 10_000]
    assert {int(value) for part in parts.values() for value in part[::100].unique()} == {0, 255}
    line = (sources_root() / binarised.FOLDER / TEST).read_text().splitlines()[-1]
    assert [255 * int(bit) for bit in line.split()] == parts["test"][-1].flatten().tolist()
