"""CIFAR-10 and SVHN: miniatures in the original formats, with a server in place of the network."""

import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from servers import no_network, serve
from test_dataset import load

from drawbench.data import photographs
from drawbench.errors import Problem

CIFAR10, SVHN = torchvision.datasets.CIFAR10, torchvision.datasets.SVHN


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A miniature of CIFAR-10: 5 files of 4 images and 3 test images. Returns folder and pixels."""
    monkeypatch.setattr(photographs, "VALIDATION", 5)
    no_network(monkeypatch)
    folder = tmp_path / "sources" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    pixels = [noise(count, 3072, seed=count) for count in (4, 4, 4, 4, 4, 3)]
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    pairs = []
    for name, rows in zip(names, pixels, strict=True):
        content = pickle.dumps({"data": rows, "labels": list(range(len(rows)))}, 2)
        (folder / name).write_bytes(content)
        pairs.append([name, md5(content)])
    content = pickle.dumps({"label_names": list("abcdefghij")}, 2)
    (folder / "batches.meta").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "train_list", pairs[:5])
    monkeypatch.setattr(CIFAR10, "test_list", pairs[5:])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(content)}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return folder, np.concatenate(pixels).reshape(-1, 3, 32, 32)


@pytest.fixture
def houses(tmp_path, monkeypatch):
    """A miniature of SVHN: 9 and 4 images."""
    monkeypatch.setattr(photographs, "VALIDATION", 3)
    no_network(monkeypatch)
    folder = tmp_path / "sources" / "SVHN"
    folder.mkdir(parents=True)
    pixels, table = {"train": noise(32, 32, 3, 9), "test": noise(32, 32, 3, 4, seed=1)}, {}
    for split, data in pixels.items():
        path = folder / f"{split}_32x32.mat"
        labels = np.arange(10, 10 - data.shape[3], -1, dtype=np.uint8)[:, None]
        scipy.io.savemat(path, {"X": data, "y": labels})
        table[split] = [f"http://host/{path.name}", path.name, md5(path.read_bytes())]
    monkeypatch.setattr(SVHN, "split_list", table | {"extra": ["", "", ""]})
    return folder, pixels


def whole_train(dataset):
    """The training and validation images in the order of the files."""
    return torch.cat([dataset.train.part.images, dataset.validation.images]).numpy()


@pytest.mark.parametrize("settings", [{}, {"pixels": "auto"}], ids=str)
def test_cifar10_in_three_parts(cifar, tmp_path, settings):
    _, pixels = cifar
    dataset = load(tmp_path, "cifar10", **settings)
    assert dataset.name == dataset.source == "cifar10" and not dataset.binary
    assert dataset.pixels == ("intensity" if settings else None) and "CIFAR-10" in dataset.rule
    parts = dataset.train, dataset.validation, dataset.test
    assert dataset.size == (3, 32, 32) and tuple(map(len, parts)) == (15, 5, 3)
    assert np.array_equal(whole_train(dataset), pixels[:20])
    assert np.array_equal(dataset.test.images, pixels[20:])
    assert dataset.test.labels.tolist() == [0, 1, 2] and dataset.classes == tuple("abcdefghij")
    assert dataset.validation.labels.tolist() == [3, 0, 1, 2, 3]
    assert dataset.train.batch(0, 15).images.shape == (15, 3, 32, 32)


def test_svhn_in_three_parts(houses, tmp_path):
    _, pixels = houses
    dataset = load(tmp_path, "svhn", format="cropped")
    assert dataset.name == dataset.source == "svhn"
    assert "cropped" in dataset.rule and "64x64" in dataset.rule
    assert (len(dataset.validation), len(dataset.test)) == (3, 4)
    assert np.array_equal(whole_train(dataset), pixels["train"].transpose(3, 2, 0, 1))
    assert dataset.test.labels.tolist() == [0, 9, 8, 7]  # the file says 10 for zero


class Harmful:
    """What a pickle can do: make a folder while it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("download", [False, True])
def test_no_pickle_is_opened_unless_it_is_the_original(cifar, tmp_path, name, download):
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
        load(tmp_path, "svhn", format="cropped")


def archive(folder, leave_out=0):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(folder.iterdir())[leave_out:]:
            tar.add(path, f"{CIFAR10.base_folder}/{path.name}")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_a_download_lands_whole_or_not_at_all(cifar, houses, tmp_path, monkeypatch, name):
    kept = {"cifar10": cifar[0], "svhn": houses[0]}[name]
    settings = {"format": "cropped"} if name == "svhn" else {}
    original = kept.rename(tmp_path / "elsewhere")
    with pytest.raises(Problem, match="no server could be reached"):
        load(tmp_path, name, download=True, **settings)

    def serve_files(leave_out):
        bodies = {path.name: path.read_bytes() for path in sorted(original.iterdir())[leave_out:]}
        if name == "cifar10":
            bodies = {CIFAR10.filename: archive(original, leave_out)}
            monkeypatch.setattr(CIFAR10, "tgz_md5", md5(bodies[CIFAR10.filename]))
        serve(monkeypatch, bodies)

    serve_files(leave_out=1)
    with pytest.raises(Problem, match="could not be downloaded"):
        load(tmp_path, name, download=True, **settings)
    assert not kept.exists() and not list(kept.parent.rglob("*.partial"))
    serve_files(leave_out=0)
    dataset = load(tmp_path, name, download=True, **settings)
    assert {path.name for path in kept.iterdir()} == {path.name for path in original.iterdir()}
    assert dataset.fingerprint == load(tmp_path, name, **settings).fingerprint
