"""Data sets of both tasks: what training shows, what is measured, and that it is the same bytes."""

import hashlib
import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_binarised import FILES, amat, real_amat
from test_binarised import put as put_amat
from test_digits import real_mnist
from test_pixels import grey

from drawbench import config as configs
from drawbench import data
from drawbench.data import binarised, cluttered, digits, mnist2, scenes, sources_root, stored
from drawbench.data.batch import Batch
from drawbench.data.cluttered import FreshScenes
from drawbench.data.dataset import Dataset, Shuffled
from drawbench.data.pixels import binarise
from drawbench.data.scenes import Scene
from drawbench.errors import Problem

SCENES = {"canvas": 40, "digits": 1, "clutter": 2, "clutter_size": 8, "data_seed": 0}


def load(tmp_path, dataset, said=None, *, seed=0, progress=None, factory=None, **settings):
    """Load a data set, for a generator if ``settings`` have ``pixels``; messages are errors."""
    root, download = settings.pop("root", tmp_path / "sources"), settings.pop("download", False)
    return data.load(
        SimpleNamespace(dataset=dataset, **settings),
        seed=seed,
        sources_root=root,
        datasets_root=tmp_path / "datasets",
        download=download,
        say=pytest.fail if said is None else said.append,
        progress=progress,
        factory=factory,
    )


def load_digits(tmp_path, rule, **settings):
    return load(
        tmp_path, "mnist", **({"pixels": rule, "source": "digits", "data_seed": 0} | settings)
    )


@pytest.fixture
def few_digits(monkeypatch):
    """The embedded digits, 20 in each part."""
    source = digits.load("digits", Path("unused"))
    splits = {
        split: scenes.Digits(part.images[:20], part.labels[:20])
        for split, part in source.splits.items()
    }
    few = digits.Source("digits", splits, source.note, source.sha256)
    monkeypatch.setattr(digits, "load", lambda *_, **__: few)
    return few


# ---- Training images


@settings(deadline=None, max_examples=25)
@given(
    first=st.integers(0, 40), cuts=st.lists(st.integers(0, 25), max_size=4), dynamic=st.booleans()
)
def test_a_batch_is_a_function_of_its_numbers(first, cuts, dynamic):
    train = Shuffled(Batch(grey(10), torch.arange(10)), 5, dynamic)
    whole = train.batch(first, 25)
    edges = sorted({0, *cuts, 25})
    parts = [train.batch(first + a, b - a) for a, b in itertools.pairwise(edges)]
    assert whole.images.dtype == torch.uint8 and whole.images.shape == (25, 1, 5, 7)
    assert torch.equal(torch.cat([some.images for some in parts]), whole.images)
    assert torch.equal(torch.cat([some.labels for some in parts]), whole.labels)


def test_an_epoch_shows_every_image_once_with_its_label_in_another_order():
    part = Batch(torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1), torch.arange(200))
    batches = [Shuffled(part, 0).batch(200 * epoch, 200) for epoch in range(3)]
    batches.append(Shuffled(part, 1).batch(0, 200))
    orders = [batch.labels.tolist() for batch in batches]
    assert [batch.images.flatten().tolist() for batch in batches] == orders
    assert all(sorted(order) == list(range(200)) for order in orders)
    assert len(set(map(tuple, orders))) == 4


def test_dynamic_draws_differ_at_each_presentation():
    images = torch.full((1, 1, 8, 8), 128, dtype=torch.uint8)
    draws = Shuffled(Batch(images), 0, dynamic=True).batch(0, 50).images
    assert len(draws.flatten(1).unique(dim=0)) == 50


def test_fresh_scenes_are_rendered_scenes_under_the_rule():
    part = digits.load("digits", Path("unused")).splits["train"]
    rendered = scenes.fresh(part, mnist2.PAIR, torch.arange(5, 9), 3, "train")

    def show(rule, first=5, count=4):
        return FreshScenes(part, mnist2.PAIR, 3, rule=rule).batch(first, count).images[:, 0]

    assert len(FreshScenes(part, mnist2.PAIR, 3)) == len(part)
    assert torch.equal(show(None), rendered.images) and torch.equal(show(None), show("intensity"))
    assert torch.equal(show("threshold") == 255, rendered.images >= 128)
    drawn = binarise(rendered.images, torch.arange(5, 9), 3, "train")
    assert torch.equal(show("fixed"), drawn) and torch.equal(show("fixed", 7, 1), drawn[2:3])


# ---- Digits


@pytest.mark.parametrize("pixels", ["fixed", "dynamic", "threshold", "intensity"])
def test_rules_on_the_embedded_digits(tmp_path, pixels):
    dataset = load_digits(tmp_path, pixels)
    assert dataset.name == f"digits-{pixels}" and dataset.source == "digits"
    assert dataset.pixels == pixels and "not MNIST" in dataset.rule
    parts = dataset.train, dataset.validation, dataset.test
    assert dataset.size == (1, 28, 28) and tuple(map(len, parts)) == (1197, 200, 400)
    assert dataset.binary == (pixels != "intensity")
    original = digits.load("digits", tmp_path).splits["test"].images[:, None]
    expected = {"intensity": original, "threshold": (original >= 128).to(torch.uint8) * 255}
    fixed = binarise(original, torch.arange(400), 0, "test")
    assert torch.equal(dataset.test.images, expected.get(pixels, fixed))
    epoch = dataset.train.batch(0, 1197).images
    if dataset.binary:
        assert not (epoch % 255).any() and not (dataset.validation.images % 255).any()
    assert not torch.equal(epoch, dataset.train.batch(1197, 1197).images)


def test_seeds_change_what_they_are_for_and_nothing_else(tmp_path):
    base, order, other = (
        load_digits(tmp_path, "auto", data_seed=data_seed, seed=seed)
        for seed, data_seed in ((0, 0), (1, 0), (0, 1))
    )
    golden = "57477bb9f041a19b901569575ccd84f44b64fb0be7e6e9a65e2846a6d4067b3a"
    assert base.test.sha256() == golden  # the same bytes everywhere
    assert base.name == order.name == "digits-fixed" and other.name == "digits-fixed-seed1"
    assert "seed 1" in other.rule
    assert torch.equal(base.test.images, order.test.images)
    assert not torch.equal(base.test.images, other.test.images)
    assert base.fingerprint == order.fingerprint != other.fingerprint
    epochs = [dataset.train.batch(0, 1197).images for dataset in (base, order)]
    assert not torch.equal(*epochs)
    rows = [sorted(map(bytes, epoch.flatten(1).numpy())) for epoch in epochs]
    assert rows[0] == rows[1]
    for name in ("name", "fingerprint"):  # nothing is drawn for a threshold
        values = {getattr(load_digits(tmp_path, "threshold", data_seed=n), name) for n in (0, 1)}
        assert len(values) == 1


def test_a_classifier_gets_grey_digits_with_labels(tmp_path):
    dataset = load(tmp_path, "mnist", source="digits")
    source = digits.load("digits", tmp_path).splits["test"]
    assert dataset.name == "digits" and dataset.classes == tuple("0123456789")
    assert dataset.pixels is None and not dataset.binary
    assert torch.equal(dataset.test.images[:, 0], source.images)
    assert torch.equal(dataset.test.labels, source.labels.long())
    shown, grey_digits = dataset.train.batch(0, 1197), load_digits(tmp_path, "intensity")
    assert torch.equal(shown.images, grey_digits.train.batch(0, 1197).images)


@pytest.fixture
def small_amat(monkeypatch):
    monkeypatch.setattr(binarised, "COUNTS", {file: len(amat(file)) // 1568 for file in FILES})
    for file in FILES:
        monkeypatch.setitem(binarised.SHA256, file, hashlib.sha256(amat(file)).hexdigest())


@pytest.mark.parametrize("options", [{}, {"pixels": "static", "source": "mnist"}], ids=str)
def test_the_published_binarisation_is_what_auto_takes(small_amat, tmp_path, options):
    put_amat(tmp_path / "sources")
    dataset = load_digits(tmp_path, "auto", **({"source": "auto"} | options))
    assert (dataset.name, dataset.source, dataset.pixels) == ("mnist-static", "mnist", "static")
    assert dataset.binary and "Salakhutdinov" in dataset.rule and "12 / 5 / 5" in dataset.rule
    parts = binarised.load(tmp_path / "sources")
    assert torch.equal(dataset.test.images, parts["test"]) and dataset.test.labels is None
    assert torch.equal(dataset.validation.images, parts["validation"])
    rows = sorted(map(bytes, dataset.train.batch(0, 12).images.flatten(1).numpy()))
    assert rows == sorted(map(bytes, parts["train"].flatten(1).numpy()))


def test_without_it_auto_says_what_it_takes_instead_and_static_stops(small_amat, tmp_path):
    said = []
    dataset = load_digits(tmp_path, "auto", said=said, source="auto")
    assert dataset.name == "digits-fixed" and dataset.pixels == "fixed"
    assert len(said) == 2 and "binarized_mnist_train.amat is missing" in said[0]
    assert "--pixels fixed" in said[0]
    with pytest.raises(Problem, match="is missing"):
        load_digits(tmp_path, "static", source="auto")
    with pytest.raises(Problem, match="the source is 'fashion'"):
        load_digits(tmp_path, "static", source="fashion")
    put_amat(tmp_path / "sources")
    (tmp_path / "sources" / binarised.FOLDER / FILES[0]).write_bytes(b"0 1\n")
    with pytest.raises(Problem, match="4 bytes where"):
        load_digits(tmp_path, "auto", source="auto")


# ---- Scenes


def test_mnist2_is_made_once_and_described(tmp_path, few_digits):
    said, told = [], []
    options = {"source": "digits", "data_seed": 4}
    dataset = load(
        tmp_path, "mnist2", said, pixels="auto", progress=lambda *one: told.append(one), **options
    )
    assert len(said) == 1 and "Making" in said[0] and told[-1] == (60, 60)
    assert dataset.name == "mnist2-digits-fixed-seed4" and dataset.size == (1, 60, 60)
    assert dataset.binary and dataset.classes is None and dataset.test.labels is None
    assert dataset.under is None
    for words in ("anew at each presentation", "not MNIST", "drawn once by seed 4"):
        assert words in dataset.rule
    folder = tmp_path / "datasets" / "mnist2-60x60-digits-seed4"
    original = torch.from_numpy(stored.load(folder, "test").images)[:, None]
    expected = binarise(original, torch.arange(20), 4, "test")
    assert torch.equal(dataset.test.images, expected)
    assert not (dataset.train.batch(0, 30).images % 255).any()
    again = load(tmp_path, "mnist2", pixels="auto", **options)  # says nothing
    assert again.fingerprint == dataset.fingerprint
    assert torch.equal(again.train.batch(9, 3).images, dataset.train.batch(9, 3).images)
    unchanged = load(tmp_path, "mnist2", pixels="intensity", **options)
    assert torch.equal(unchanged.test.images, original) and not unchanged.binary
    assert unchanged.name == "mnist2-digits-intensity-seed4"
    (folder / "test.npz").write_bytes(b"damaged")
    with pytest.raises(Problem, match=r"test\.npz"):
        load(tmp_path, "mnist2", pixels="auto", **options)


def test_cluttered_digits_for_a_classifier(tmp_path, few_digits):
    said = []
    fresh = load(tmp_path, "cluttered", said, source="digits", seed=3, **SCENES)
    assert len(said) == 1 and fresh.name == "cluttered-40x40-2-digits"
    assert fresh.size == (1, 40, 40) and len(fresh.classes) == 10
    folder = tmp_path / "datasets" / fresh.name
    test, scene = stored.load(folder, "test"), Scene(canvas=40, clutter=2)
    assert np.array_equal(fresh.test.images[:, 0], test.images)
    assert fresh.test.labels.tolist() == test.labels.tolist()
    both = hashlib.sha256(test.images)
    both.update(test.labels)
    assert fresh.test.sha256(labels=True) == both.hexdigest()
    expected = scenes.fresh(few_digits.splits["train"], scene, torch.arange(7, 40), 3, "train")
    batch = fresh.train.batch(7, 33)
    assert torch.equal(batch.images[:, 0], expected.images)
    assert torch.equal(batch.labels, expected.labels[:, 0].long())
    distorted = load(tmp_path, "cluttered", source="digits", distortion=1.0, seed=3, **SCENES)
    assert torch.equal(distorted.train.batch(7, 33).labels, batch.labels)
    assert not torch.equal(distorted.train.batch(7, 33).images, batch.images)
    fixed = load(tmp_path, "cluttered", source="digits", fixed_train=True, **SCENES)
    shown = fixed.train.batch(0, 20).images[:, 0].numpy()
    assert sorted(map(bytes, shown)) == sorted(map(bytes, stored.load(folder, "train").images))


def test_the_test_digits_in_other_surroundings(tmp_path, few_digits, monkeypatch):
    monkeypatch.setattr(cluttered, "CHUNK", 8)
    dataset = load(tmp_path, "cluttered", [], source="digits", **SCENES)
    for condition, value in (("clutter", 2), ("canvas", 40), ("clutter", 7), ("canvas", 60)):
        batches = list(dataset.under(condition, value))
        assert [len(batch) for batch in batches] == [8, 8, 4]
        images = torch.cat([batch.images for batch in batches])
        labels = torch.cat([batch.labels for batch in batches])
        assert torch.equal(labels, dataset.test.labels)
        scene = Scene(**({"canvas": 40, "clutter": 2} | {condition: value}))
        part = few_digits.splits["test"]
        expected = scenes.fresh(part, scene, torch.arange(20), 0, "set", "test")
        assert torch.equal(images[:, 0], expected.images)
        if value in (2, 40):  # as in training
            assert torch.equal(images, dataset.test.images)
    with pytest.raises(Problem, match="5x5"):
        dataset.under("canvas", 5)
    with pytest.raises(Problem, match="not in 'glimpses'"):
        dataset.under("glimpses", 4)


# ---- What does not go together


@pytest.mark.parametrize(
    ("dataset", "settings", "text"),
    [
        ("mnst", {}, "cluttered, mnist2, captions, mnist, svhn, cifar10, folder"),
        ("cluttered", SCENES | {"digits": 3}, "names one digit, but each image has 3"),
        ("cluttered", SCENES | {"canvas": 20}, "20x20"),
        ("cluttered", SCENES | {"fixed_train": True, "distortion": 1.0}, "omit --fixed-train"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, dataset, settings, text):
    with pytest.raises(Problem, match=text) as problem:
        load(tmp_path, dataset, **settings)
    assert "\n" not in str(problem.value)


def test_every_data_set_that_can_be_configured_is_registered():
    for kind in (configs.Classify, configs.Generate):
        assert set(kind.kinds["data"]) <= set(data.DATASETS)


# ---- Data sets of the user's own


def own(name="own", **changes):
    random = np.random.default_rng(0)
    parts = {
        "train": (random.integers(0, 256, (9, 3, 4, 5), np.uint8), np.arange(9) % 3),
        "validation": (random.integers(0, 256, (2, 3, 4, 5), np.uint8), [0, 2]),
        "test": (random.integers(0, 256, (4, 3, 4, 5), np.uint8), torch.tensor([1, 1, 0, 2])),
    }
    return Dataset.from_arrays(name, **(parts | changes))


def test_arrays_become_a_data_set(tmp_path):
    dataset = own(seed=2, rule="noise")
    assert dataset.size == (3, 4, 5) and dataset.classes == ("0", "1", "2")
    assert not dataset.binary and dataset.rule == "noise" and dataset.source == "own"
    assert dataset.test.labels.tolist() == [1, 1, 0, 2] and dataset.test.labels.dtype == torch.int64
    assert sorted(dataset.train.batch(0, 9).labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.fingerprint == own().fingerprint != own(validation=own().test).fingerprint
    grey = Dataset.from_arrays("g", *[np.full((4, 8, 8), 255, np.uint8)] * 3)
    assert grey.size == (1, 8, 8) and grey.binary and grey.classes is None
    told = Dataset.from_arrays("c", *[(grey.test.images, None, torch.arange(4.0))] * 3)
    assert sorted(told.train.batch(0, 4).condition.tolist()) == [0, 1, 2, 3]


IMAGES = np.zeros((4, 3, 4, 5), np.uint8)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (IMAGES.astype(np.float32), "test part of own must have images uint8 .*float32"),
        (np.zeros((4, 8), np.uint8), r"uint8 \(N, C, H, W\)"),
        (np.zeros((4, 4, 5), bool), r"uint8 \(N, C, H, W\), not torch.bool"),
        ((IMAGES[:0], np.arange(0)), "uint8"),
        (np.zeros((4, 8, 8, 3), np.uint8), "channels come before"),
        ((IMAGES[..., :3], [0] * 4), r"part of own has images \(3, 4, 5\), but the test part"),
        ((IMAGES, [0, 1, 2]), r"labels int64 \(4,\), not torch.int64 \(3,\)"),
        ((IMAGES, [0, -1, 1, 2]), r"the label -1, outside 0\.\.2"),
        ((IMAGES, [0.5] * 4), "whole numbers for labels"),
        ((IMAGES, None), "labels where the data set has classes"),
        ((IMAGES, [0] * 4, torch.zeros(3)), r"a condition for each of 4 images, not .*\(3,\)"),
        ((IMAGES, [0] * 4, 5), r"a condition for each of 4 images, not conditions \(\)"),
        ((IMAGES, 5), r"labels int64 \(4,\), not torch.int64 \(\)"),
        ((IMAGES, ["a"] * 4), "arrays of numbers"),
        ((IMAGES, 1, 2, 3), "not 4 arrays"),
        (None, "has no images"),
        ((IMAGES, [0, 3, 1, 2]), r"the label 3, outside 0\.\.2: there are 3 classes"),
    ],
    ids=str,
)
def test_wrong_arrays_are_one_sentence(part, text):
    with pytest.raises(Problem, match=text) as problem:
        own(test=part, classes="abc")
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ((IMAGES, [0, 5, 1, 2]), r"training part of own has the label 5, outside 0\.\.2"),
        ((IMAGES, [0, 1, 2]), r"labels int64 \(4,\), not torch.int64 \(3,\)"),
        ((IMAGES, [0] * 5), r"labels int64 \(4,\), not torch.int64 \(5,\)"),
        ((IMAGES, 5), r"labels int64 \(4,\), not torch.int64 \(\)"),
        ((IMAGES, [0] * 4, torch.zeros(5)), r"a condition for each of 4 images"),
        (IMAGES[:0], "no training images"),
    ],
    ids=str,
)
def test_all_training_images_are_checked(part, text):
    with pytest.raises(Problem, match=text):
        own(train=part, classes="abc")


def test_no_images_at_all_is_one_sentence():
    with pytest.raises(Problem, match="uint8"):
        Dataset.from_arrays("none", *[(IMAGES[:0], np.arange(0))] * 3)


def test_a_hash_covers_conditions_and_all_labels():
    images = torch.from_numpy(IMAGES)
    told = Batch(images, None, torch.arange(4.0))
    hashes = {
        Batch(images).sha256(),
        told.sha256(),
        Batch(images, None, told.condition.flip(0)).sha256(),
        Batch(images, None, told.condition.double()).sha256(),
        *(
            Batch(images, torch.tensor([0, 1, 2, last])).sha256(labels=True)
            for last in (0, 3, 256, 259)
        ),
    }
    assert len(hashes) == 8


def test_a_factory_gets_what_it_accepts(tmp_path):
    calls = []

    def factory(seed, datasets_root):
        calls.append({"seed": seed, "datasets_root": datasets_root})
        return own()

    def greedy(**everything):
        calls.append(everything)
        return own()

    dataset = load(tmp_path, "mine:factory", seed=7, data_seed=3, factory=factory)
    assert dataset.pixels is None
    dataset = load(tmp_path, "mine:greedy", seed=7, data_seed=3, pixels="auto", factory=greedy)
    assert dataset.pixels == "intensity"
    offered = {"seed": 7, "data_seed": 3, "sources_root": tmp_path / "sources"}
    offered["datasets_root"] = tmp_path / "datasets"
    assert calls == [{name: offered[name] for name in ("seed", "datasets_root")}, offered]


def raising():
    raise RuntimeError("line one\nline two")


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (raising, "mine:f raised RuntimeError: line one line two"),
        (lambda: [1], "mine:f returned list; it must return a .*Dataset"),
        (lambda: own(test=IMAGES), "labels"),
        (lambda: Dataset.from_arrays("g", IMAGES, IMAGES, IMAGES), "has no labels"),
    ],
)
def test_a_factory_that_does_not_serve_is_named(tmp_path, factory, text):
    with pytest.raises(Problem, match=text) as problem:
        load(tmp_path, "mine:f", data_seed=0, factory=factory)
    assert "\n" not in str(problem.value)


# ---- The real thing


PUBLISHED = Path(__file__).parent.parent / "results" / "published"
SOURCES = {"root": sources_root()}


def published_sha256(run):
    with np.load(PUBLISHED / run / "test.npz") as outcomes:
        return str(outcomes["test_sha256"])


@real_amat
def test_the_published_runs_were_measured_on_binarised_mnist(tmp_path):
    config = configs.from_dict(json.loads((PUBLISHED / "draw-20" / "config.json").read_text()))
    dataset = load(tmp_path, **vars(config.data), **SOURCES)
    assert dataset.name == "mnist-static"
    assert dataset.test.sha256() == published_sha256("draw-20")
    assert 0.12 < dataset.train.batch(0, 5_000).images.double().mean() / 255 < 0.14


@real_mnist
def test_real_mnist_binarised_here(tmp_path):
    dataset = load_digits(tmp_path, "dynamic", source="mnist", **SOURCES)
    assert dataset.name == "mnist-dynamic"
    expected = "1083a04b801ca0993c79ade4df94f0bafc04a03dae819b06bc0933e3a0550369"
    assert dataset.test.sha256() == expected


@pytest.mark.slow
@real_mnist
@pytest.mark.parametrize("run", ["draw-8", "draw-two-digits", "draw-photographs"])
def test_the_published_runs_were_measured_on_these_images(tmp_path, run):
    config = configs.from_dict(json.loads((PUBLISHED / run / "config.json").read_text()))
    settings = vars(config.data) | SOURCES
    if settings["dataset"] == "folder":
        settings["images"] = os.path.join(sources_root(), "cifar10_jpeg")
    dataset = load(tmp_path, said=[], **settings)
    assert dataset.test.sha256(labels=config.task == "classify") == published_sha256(run)
