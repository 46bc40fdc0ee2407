"""What a generator learns from: laws of the pixel rules, purity of the training order, and
refusals.
"""

import hashlib
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_binarized import FILES, amat, real_amat
from test_binarized import put as put_amat
from test_sources import real_mnist

from drawbench import streams
from drawbench.data import binarized, pictures, scenes, sources, store
from drawbench.data.pictures import FreshPairs, Shuffled, binarise, check_binary
from drawbench.errors import Problem


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("none")).splits["train"]


def grey(count=6, seed=0):
    return torch.randint(
        0, 256, (count, 1, 5, 7), generator=torch.Generator().manual_seed(seed)
    ).to(torch.uint8)


def load(tmp_path, dataset, said=None, **options):
    where = {"sources_root": tmp_path / "sources", "datasets_root": tmp_path / "datasets"}
    return pictures.load(
        dataset,
        **(
            {"download": False, "say": pytest.fail if said is None else said.append}
            | where
            | options
        ),
    )


# ---- Drawing pixels


def test_drawing_agrees_with_a_loop():
    images, index = grey(3), torch.tensor([4, 0, 9])
    for image, number, drawn in zip(
        images, index.tolist(), binarise(images, index, 7, "x"), strict=True
    ):
        for place, (value, found) in enumerate(
            zip(image.flatten().tolist(), drawn.flatten().tolist(), strict=True)
        ):
            uniform = int(
                streams.integers(torch.tensor([number * 35 + place]), [255], 7, "x", "binarise")
            )
            assert found == (255 if uniform < value else 0)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(6)), cut=st.integers(0, 6), chunk=st.integers(1, 300))
def test_a_drawn_image_does_not_depend_on_batch_or_order(order, cut, chunk):
    whole = binarise(images := grey(), torch.arange(6), 3, "x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_CHUNK", chunk)
        pieces = [
            binarise(images[rows], rows, 3, "x") for rows in torch.tensor(order).tensor_split([cut])
        ]
    assert torch.equal(torch.cat(pieces), whole[torch.tensor(order)])


def test_the_mean_of_many_draws_is_the_intensity():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4_000, 1, 16, 16)
    drawn = binarise(images, torch.arange(4_000), 0, "x")
    assert set(drawn.unique().tolist()) == {0, 255}
    mean, p = drawn.double().div(255).mean(0).flatten(), torch.arange(256) / 255
    error = (p * (1 - p) / 4_000).sqrt()
    assert ((mean - p).abs() <= 4.5 * error + 1e-9).all()  # exactly so at 0 and 255
    assert ((mean - p) / error.clamp_min(1e-9)).square()[1:-1].mean() == pytest.approx(1, abs=0.35)
    # Pixels of one picture are independent of each other, and so are pictures of each other.
    flat = drawn.double().view(4_000, 256)[:, 100:150]
    assert (torch.corrcoef(flat.T) - torch.eye(50)).abs().max() < 0.08
    assert (
        abs(float(torch.corrcoef(torch.stack([flat[1:].flatten(), flat[:-1].flatten()]))[0, 1]))
        < 0.05
    )


def test_black_and_white_are_never_changed_and_seeds_differ():
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(500, 32).view(500, 1, 8, 8)
    assert torch.equal(binarise(images, torch.arange(500), 0, "x"), images)
    middle = torch.full((50, 1, 8, 8), 128, dtype=torch.uint8)
    draws = [
        binarise(middle, torch.arange(50), seed, name)
        for seed, name in ((0, "x"), (1, "x"), (0, "y"))
    ]
    assert all(
        (one != other).double().mean() > 0.4
        for one, other in zip(draws, draws[1:] + draws[:1], strict=True)
    )
    assert binarise(middle[:0], torch.arange(0), 0, "x").shape == (0, 1, 8, 8)


# ---- Training pictures


@settings(deadline=None, max_examples=25)
@given(
    first=st.integers(0, 40), cuts=st.lists(st.integers(0, 25), max_size=4), dynamic=st.booleans()
)
def test_a_batch_is_a_function_of_its_numbers(first, cuts, dynamic):
    train = Shuffled(grey(10), 5, dynamic)
    whole = train.batch(first, 25)
    edges = sorted({0, *cuts, 25})
    again = [
        Shuffled(grey(10), 5, dynamic).batch(first + a, b - a) for a, b in itertools.pairwise(edges)
    ]
    assert whole.dtype == torch.uint8 and whole.shape == (25, 1, 5, 7)
    assert torch.equal(torch.cat(again), whole)


def test_an_epoch_holds_every_picture_once_and_each_has_its_own_order():
    images = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1)
    train = Shuffled(images, 0)
    epochs = [train.batch(200 * epoch, 200).flatten().tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(200)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert Shuffled(images, 1).batch(0, 200).flatten().tolist() not in epochs


def test_dynamic_draws_differ_at_each_presentation_and_fixed_ones_do_not():
    images = torch.full((1, 1, 8, 8), 128, dtype=torch.uint8)
    shown = Shuffled(images, 0, dynamic=True).batch(0, 50)
    assert len(shown.flatten(1).unique(dim=0)) == 50
    fixed = Shuffled(binarise(images, torch.arange(1), 0, "train"), 0).batch(0, 50)
    assert len(fixed.flatten(1).unique(dim=0)) == 1


def test_fresh_pairs_are_scenes_under_the_rule(digits):
    made = scenes.fresh(digits, pictures.PAIR, torch.arange(5, 9), 3, "train").images[:, None]
    assert len(FreshPairs(digits, 3, "fixed")) == len(digits)
    assert torch.equal(FreshPairs(digits, 3, "intensity").batch(5, 4), made)
    assert torch.equal(
        FreshPairs(digits, 3, "threshold").batch(5, 4),
        (made >= 128) * torch.tensor(255, dtype=torch.uint8),
    )
    drawn = FreshPairs(digits, 3, "fixed").batch(5, 4)
    assert torch.equal(drawn, binarise(made, torch.arange(5, 9), 3, "train"))
    assert torch.equal(FreshPairs(digits, 3, "fixed").batch(7, 1), drawn[2:3])


# ---- MNIST-like data sets


@pytest.mark.parametrize("pixels", ["fixed", "dynamic", "threshold", "intensity"])
def test_rules_on_the_embedded_digits(tmp_path, pixels):
    data = load(tmp_path, "mnist", source="digits", pixels=pixels)
    assert (
        data.name == f"digits-{pixels}"
        and data.source == data.digits == "digits"
        and data.pixels == pixels
    )
    assert data.size == (1, 28, 28) and (len(data.train), len(data.validation), len(data.test)) == (
        1197,
        200,
        400,
    )
    assert data.binary == (pixels != "intensity") and "not MNIST" in data.rule
    original = sources.load("digits", tmp_path).splits["test"].images[:, None]
    fixed = binarise(original, torch.arange(400), 0, "test")
    expected = {
        "intensity": original,
        "threshold": (original >= 128) * torch.tensor(255, dtype=torch.uint8),
    }
    assert torch.equal(data.test, expected.get(pixels, fixed))
    epoch = data.train.batch(0, 1197)
    if data.binary:
        check_binary(epoch, "training")
        check_binary(data.validation, "validation")
    assert not torch.equal(epoch, data.train.batch(1197, 1197))


def test_a_fixed_draw_is_the_same_bytes_everywhere(tmp_path):
    data = load(tmp_path, "mnist", source="digits")
    assert (
        hashlib.sha256(data.test.numpy().tobytes()).hexdigest()
        == "57477bb9f041a19b901569575ccd84f44b64fb0be7e6e9a65e2846a6d4067b3a"
    )


def test_seeds_change_what_they_are_for(tmp_path):
    base, order, other = (
        load(tmp_path, "mnist", source="digits", seed=seed, data_seed=draw)
        for seed, draw in ((0, 0), (1, 0), (0, 1))
    )
    assert (
        base.name == order.name == "digits-fixed"
        and other.name == "digits-fixed-seed1"
        and "seed 1" in other.rule
    )
    assert torch.equal(base.test, order.test) and not torch.equal(base.test, other.test)
    rows = [
        sorted(map(bytes, data.train.batch(0, 1197).flatten(1).numpy())) for data in (base, order)
    ]
    assert rows[0] == rows[1] and not torch.equal(base.train.batch(0, 50), order.train.batch(0, 50))
    grey = [
        load(tmp_path, "mnist", source="digits", pixels="threshold", data_seed=draw)
        for draw in (0, 1)
    ]
    assert grey[0].name == grey[1].name and torch.equal(grey[0].test, grey[1].test)


@pytest.fixture
def small_amat(monkeypatch):
    counts = {file: len(amat(file)) // 1568 for file in FILES}
    monkeypatch.setattr(binarized, "_COUNTS", counts)
    for file in FILES:
        monkeypatch.setitem(binarized.SHA256, file, hashlib.sha256(amat(file)).hexdigest())


@pytest.mark.parametrize("options", [{}, {"source": "mnist"}, {"pixels": "static"}], ids=str)
def test_the_published_binarisation_is_what_auto_takes(small_amat, tmp_path, options):
    put_amat(tmp_path / "sources")
    data = load(tmp_path, "mnist", **options)
    assert (data.name, data.source, data.pixels, data.binary) == (
        "mnist-static",
        "mnist",
        "static",
        True,
    )
    parts = binarized.load(tmp_path / "sources")
    assert torch.equal(data.test, parts["test"]) and torch.equal(
        data.validation, parts["validation"]
    )
    rows = sorted(map(bytes, data.train.batch(0, 12).flatten(1).numpy()))
    assert rows == sorted(map(bytes, parts["train"].flatten(1).numpy()))
    assert "Salakhutdinov" in data.rule and "12 / 5 / 5" in data.rule


def test_without_it_auto_says_what_it_takes_instead_and_static_stops(small_amat, tmp_path):
    said = []
    data = load(tmp_path, "mnist", said)
    assert data.name == "digits-fixed" and data.pixels == "fixed"
    assert (
        len(said) == 2
        and "binarized_mnist_train.amat is missing" in said[0]
        and "--pixels fixed" in said[0]
    )
    with pytest.raises(Problem, match="is missing"):
        load(tmp_path, "mnist", pixels="static")
    put_amat(tmp_path / "sources")
    (tmp_path / "sources" / binarized.FOLDER / FILES[0]).write_bytes(b"0 1\n")
    with pytest.raises(Problem, match="4 bytes where"):
        load(tmp_path, "mnist")


# ---- Two digits


def test_mnist2_is_made_once_and_stated(tmp_path, monkeypatch):
    small = sources.load("digits", tmp_path)
    splits = {
        split: scenes.Digits(part.images[:20], part.labels[:20])
        for split, part in small.splits.items()
    }
    source = sources.Source("digits", splits, small.note, small.sha256)
    monkeypatch.setattr(sources, "load", lambda *_, **__: source)
    said, told = [], []
    data = load(
        tmp_path,
        "mnist2",
        said,
        data_seed=4,
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(said) == 1 and "Making" in said[0] and told[-1] == (60, 60)
    assert data.name == "mnist2-digits-fixed-seed4" and data.size == (1, 60, 60) and data.binary
    assert (
        "made anew" in data.rule
        and "not MNIST" in data.rule
        and "drawn once by seed 4" in data.rule
    )
    folder = store.default_folder(tmp_path / "datasets", pictures.PAIR, "mnist2", "digits", 4)
    original = torch.from_numpy(store.load(folder, "test").images)[:, None]
    assert torch.equal(data.test, binarise(original, torch.arange(20), 4, "test"))
    check_binary(data.train.batch(0, 30), "training")
    again = load(tmp_path, "mnist2", data_seed=4)  # says nothing
    assert torch.equal(again.validation, data.validation) and torch.equal(
        again.train.batch(9, 3), data.train.batch(9, 3)
    )
    as_they_are = load(tmp_path, "mnist2", data_seed=4, pixels="intensity")
    assert (
        torch.equal(as_they_are.test, original)
        and not as_they_are.binary
        and as_they_are.name == "mnist2-digits-intensity-seed4"
    )
    (folder / "test.npz").write_bytes(b"damaged")
    with pytest.raises(Problem, match=r"test\.npz"):
        load(tmp_path, "mnist2", data_seed=4)


# ---- What does not go together


@pytest.mark.parametrize(
    ("dataset", "options", "text"),
    [
        ("mnst", {}, "mnist, mnist2, svhn, cifar10, folder"),
        ("mnist", {"pixels": "binary"}, "auto, static, fixed, dynamic, threshold, intensity"),
        ("mnist", {"source": "mnst"}, "auto, mnist, fashion"),
        ("mnist", {"pixels": "static", "source": "fashion"}, "the source is 'fashion'"),
        ("mnist2", {"pixels": "static"}, "the data set is 'mnist2'"),
        ("mnist2", {"pixels": "dynamic"}, "same as fixed"),
        ("cifar10", {"pixels": "static"}, "the data set is 'cifar10'"),
        ("cifar10", {"pixels": "fixed"}, "'cifar10' is in colour"),
        ("svhn", {"source": "digits"}, "leave out --source digits"),
        ("folder", {}, "--images DIR"),
        ("mnist", {"images": "x"}, "--dataset folder"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, dataset, options, text):
    with pytest.raises(Problem, match=text) as problem:
        load(tmp_path, dataset, **options)
    assert "\n" not in str(problem.value)


def test_grey_where_binary_is_needed_names_the_option():
    check_binary(torch.tensor([0, 255], dtype=torch.uint8), "nothing")
    with pytest.raises(
        Problem, match=r"the images.* 25.0 % of the pixels are grey \(such as 7, .*--pixels fixed"
    ):
        check_binary(torch.tensor([[0, 255], [7, 0]], dtype=torch.uint8), "the images")


# ---- The real thing


@real_amat
def test_real_binarised_mnist(tmp_path):
    data = load(tmp_path, "mnist", sources_root=sources.sources_root())
    assert data.name == "mnist-static" and (
        len(data.train),
        len(data.validation),
        len(data.test),
    ) == (50_000, 10_000, 10_000)
    check_binary(data.test, "test")
    assert 0.12 < data.train.batch(0, 5_000).double().mean() / 255 < 0.14


@real_mnist
def test_real_mnist_binarised_here(tmp_path):
    data = load(tmp_path, "mnist", sources_root=sources.sources_root(), pixels="dynamic")
    assert data.name == "mnist-dynamic" and (
        len(data.train),
        len(data.validation),
        len(data.test),
    ) == (55_000, 5_000, 10_000)
    assert (
        hashlib.sha256(data.test.numpy().tobytes()).hexdigest()
        == "1083a04b801ca0993c79ade4df94f0bafc04a03dae819b06bc0933e3a0550369"
    )
    original = (
        sources.load("mnist", sources.sources_root()).splits["test"].images.double().mean() / 255
    )
    assert abs(data.test.double().mean() / 255 - original) < 2e-4
