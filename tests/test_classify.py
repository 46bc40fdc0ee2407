import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawbench import config
from drawbench.config import Classify
from drawbench.data import scenes, sources, store
from drawbench.data.scenes import Scene
from drawbench.errors import Problem
from drawbench.evaluation import error_rate
from drawbench.tasks import classify, common
from drawbench.tasks.classify import ClassificationTask, Experiment, FreshScenes, StoredScenes
from drawbench.training import Quiet

SMALL = config.replace(
    Classify(),
    source="digits",
    canvas=30,
    clutter=1,
    glimpses=3,
    patch=4,
    hidden=16,
    batch=16,
    steps=2,
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return Experiment(SMALL, root / "sources", root, Quiet())


@pytest.fixture(scope="module")
def task(experiment):
    return experiment.task()


def test_a_training_image_is_a_function_of_its_number(task):
    whole_images, whole_labels = task.batch(0, 40)
    for first, count in [(0, 1), (7, 5), (39, 1), (13, 27)]:
        images, labels = task.batch(first, count)
        assert torch.equal(images, whole_images[first : first + count])
        assert torch.equal(labels, whole_labels[first : first + count])


def test_fresh_clutter_never_comes_twice_and_the_seed_matters(task, experiment):
    n = len(task.train)
    first, again = task.batch(0, n), task.batch(n, n)
    assert torch.equal(first[1].sort().values, again[1].sort().values)  # each digit once an epoch
    assert not any(torch.equal(a, b) for a, b in zip(first[0][:50], again[0][:50], strict=True))
    other = FreshScenes(experiment.source.splits["train"], experiment.scene, seed=1)
    assert not torch.equal(other.batch(0, 8)[0], first[0][:8])


def test_training_scenes_are_not_those_of_the_stored_sets(task, experiment):
    stored = {
        image.tobytes()
        for name in sources.SPLITS
        for image in store.load(experiment.folder, name).images
    }
    assert not any(image.numpy().tobytes() in stored for image in task.batch(0, 200)[0])


def test_fixed_training_goes_through_the_stored_images_once_an_epoch():
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1)
    fixed = StoredScenes(torch.from_numpy(images), torch.arange(10, dtype=torch.uint8), seed=0)
    epochs = [fixed.batch(10 * epoch, 10)[1].tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert fixed.batch(5, 10)[1].tolist() == epochs[0][5:] + epochs[1][:5]
    assert fixed.batch(0, 10)[0].flatten().tolist() == epochs[0]


def test_the_loss_is_the_cross_entropy_of_the_last_answer(task):
    images, labels = task.batch(0, 16)
    loss, facts = task.loss((images, labels))
    logits = task.model(error_rate.as_input(images)).logits
    torch.testing.assert_close(loss, F.cross_entropy(logits[:, -1], labels))
    assert facts["error"] == pytest.approx(
        100 * float((logits[:, -1].argmax(-1) != labels).float().mean())
    )


def test_the_loss_of_earlier_answers_is_added_by_its_weight(experiment):
    settings = config.replace(SMALL, intermediate=0.5)
    task = ClassificationTask(
        classify.build(settings), experiment.task().train, None, settings, torch.device("cpu")
    )
    images, labels = task.batch(0, 16)
    logits = task.model(error_rate.as_input(images)).logits
    each = [F.cross_entropy(logits[:, t], labels) for t in range(3)]
    torch.testing.assert_close(
        task.loss((images, labels))[0], each[2] + 0.5 * (each[0] + each[1]) / 2
    )


def test_validation_counts_every_image_once(task):
    facts = task.validate(task.model, lambda: None)
    images, labels = task.validation.images, torch.from_numpy(task.validation.labels).long()
    with torch.no_grad():
        logits = task.model(error_rate.as_input(images)).logits[:, -1]
    assert facts["validation_error"] == pytest.approx(
        100 * float((logits.argmax(-1) != labels).double().mean())
    )
    assert facts["validation_loss"] == pytest.approx(
        float(F.cross_entropy(logits, labels)), abs=1e-5
    )


def test_the_weights_are_a_function_of_the_seed():
    one, same, other = (
        classify.build(config.replace(SMALL, seed=seed)).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    classify.build(SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_the_trained_condition_of_a_curve_is_the_test_file(experiment):
    model, test = classify.build(SMALL), store.load(experiment.folder, "test")
    direct = error_rate.score(error_rate.predict(model, test.images), test.labels)
    data = experiment.config.data
    rows = classify.against_scenes(model, experiment.source, data, "clutter", [0, 1], lambda: None)
    assert rows[1] == {
        "clutter": 1,
        "error": direct.percent,
        "low": direct.interval[0],
        "high": direct.interval[1],
        "n": direct.n,
    }
    looks = classify.against_glimpses(model, test, [1, 3, 5], lambda: None)
    assert [row["glimpses"] for row in looks] == [1, 3, 5]
    assert looks[1]["error"] == direct.percent


def test_two_digits_have_no_one_name(tmp_path):
    with pytest.raises(Problem, match="--digits 1"):
        Experiment(config.replace(SMALL, digits=2), tmp_path, tmp_path, Quiet())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there():
    with pytest.raises(Problem, match="finds no CUDA device"):
        common.device_of("cuda")
    assert common.device_of("auto").type == "cpu"


@pytest.mark.parametrize(
    "settings, option", [({"precision": "tf32"}, "--precision tf32"), ({"graph": True}, "--graph")]
)
def test_what_only_a_gpu_has_is_named(settings, option):
    cpu = torch.device("cpu")
    assert (
        common.products_of(config.replace(SMALL, precision="bfloat16").training, cpu)
        == torch.bfloat16
    )
    with pytest.raises(Problem, match=f"{option} is for a GPU"):
        common.products_of(config.replace(SMALL, **settings).training, cpu)


def test_a_few_updates_learn(experiment):
    """From chance to something: half of the training loss of an untrained network on a set without
    clutter.
    """
    settings = config.replace(SMALL, clutter=0, canvas=28, hidden=64, patch=6, batch=64)
    train = FreshScenes(experiment.source.splits["train"], Scene(28, 1, 0), seed=0)
    task = ClassificationTask(classify.build(settings), train, None, settings, torch.device("cpu"))
    optimizer = torch.optim.Adam(task.model.parameters(), lr=3e-3)
    for step in range(60):
        loss, _ = task.loss(task.batch(step * 64, 64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * math.log(10)


def test_scenes_of_real_mnist_keep_the_split(request):
    import os

    root = os.environ.get("DRAWBENCH_SOURCES")
    if not root:
        pytest.skip("DRAWBENCH_SOURCES is not set")
    source = sources.load("mnist", sources.sources_root(root), download=False)
    made = scenes.fresh(source.splits["test"], Scene(), torch.arange(3), 0, "set", "test")
    assert made.images.shape == (3, 100, 100)
