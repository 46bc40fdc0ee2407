"""On a GPU: the same numbers as on the CPU, no waiting for the device in an update, recordings that
equal what they record.
"""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from test_training import StopAfter

from drawbench import config as configs
from drawbench import streams, training
from drawbench.data import digits as sources
from drawbench.data import scenes
from drawbench.data.cluttered import FreshScenes
from drawbench.data.dataset import Dataset, Shuffled
from drawbench.data.mnist2 import PAIR
from drawbench.evaluation.precision import full_precision
from drawbench.fast import forward_for, native
from drawbench.fast.graphs import Recorder
from drawbench.models import CLASSIFIERS, make
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.reporters import Quiet
from drawbench.runs import Run
from drawbench.tasks.classify import Classify

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")
SCENE = scenes.Scene(canvas=60, digits=1, clutter=4, clutter_size=8)


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits", Path("unused")).splits["train"]


def test_data_have_the_same_bytes(digits):
    part = Dataset.from_arrays("some", *[(digits.images, digits.labels)] * 3).test
    for train in (
        FreshScenes(digits, SCENE, 1),
        FreshScenes(digits, PAIR, 0, rule="fixed"),
        Shuffled(part, 0, dynamic=True),
    ):
        ours, theirs = train.to(GPU).batch(100, 64), train.batch(100, 64)
        assert ours.images.is_cuda and torch.equal(ours.images.cpu(), theirs.images)
        assert ours.labels is None or torch.equal(ours.labels.cpu(), theirs.labels)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("graph", [False, True])
def test_an_update_does_not_wait_for_the_device(digits, precision, graph):
    config = configs.replace(
        configs.Classify(), batch=16, precision=precision, graph=graph, steps=10
    )
    few = FreshScenes(digits, SCENE, 0).batch(0, 8)
    data = Dataset.from_arrays("scenes", *[(few.images, few.labels)] * 3, classes="0123456789")
    task = Classify(config, data, GlimpseClassifier(glimpses=2).to(GPU), GPU)
    optimizer = training._adam(task.model, config.training)
    for step in range(3):  # records, and fills caches
        training._update(task, optimizer, config.training, step, 1e-3)
    torch.cuda.synchronize()
    with warnings.catch_warnings():  # of a prototype, in some versions
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        metrics = training._update(task, optimizer, config.training, 3, 1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - {"random"}))
def test_recorded_updates_are_those_of_the_model(digits, name):
    few = FreshScenes(digits, SCENE, 0).batch(0, 64)
    data = Dataset.from_arrays("scenes", *[(few.images, few.labels)] * 3, classes="0123456789")
    settings = {"model": name, "batch": 16, "steps": 10, "intermediate": 0.3}
    weights = []
    for graph in (False, None):
        config = configs.replace(configs.Classify(), graph=graph, **settings)
        facts = {"channels": 1, "height": 60, "width": 60, "classes": 10}
        with streams.seeded(0, "weights"):
            model = make(CLASSIFIERS[name], config.model.arguments, facts).to(GPU)
        task = Classify(config, data, model, GPU)
        assert isinstance(task.terms, Recorder) == (graph is None)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, fused=True
        )  # Adam would divide by what rounds
        with full_precision():
            for step in range(4):
                training._update(task, optimizer, config.training, step, 0.1)
        weights.append([parameter.detach() for parameter in model.parameters()])
    for recorded, plain in zip(*weights, strict=True):
        torch.testing.assert_close(recorded, plain, rtol=1e-3, atol=1e-4)


def test_a_training_goes_on_where_it_stopped(digits, tmp_path):
    """The states of the optimizer lie where it needs them."""
    few = FreshScenes(digits, SCENE, 0).batch(0, 8)
    data = Dataset.from_arrays("scenes", *[(few.images, few.labels)] * 3, classes="0123456789")
    config = configs.replace(configs.Classify(), batch=4, steps=4, device="cuda")
    run = Run.create(tmp_path / "run", config)

    def trainer():
        task = Classify(config, data, GlimpseClassifier(glimpses=2).to(GPU), GPU)
        trainer = training.Trainer(task, run, Quiet())
        trainer.restore()
        return trainer

    with pytest.raises(training.Interrupted):
        trainer().fit(StopAfter(2))
    resumed = trainer()
    assert 0 < resumed.step < 4
    resumed.fit(training.StopFlag())
    states = resumed.optimizer.state.values()
    assert resumed.step == 4 and all(m.is_cuda for state in states for m in state.values())


@pytest.mark.parametrize("read_patch, write_patch", [(2, 5), (None, None)])
def test_a_recording_equals_what_it_records(read_patch, write_patch):
    """By hand, for every shape of its inputs, and for another model."""
    with streams.seeded(0, "gpu"):
        model = Draw(
            12, 12, steps=5, hidden=16, latent=4, read_patch=read_patch, write_patch=write_patch
        )
        images, noise = torch.rand(8, 1, 12, 12), torch.randn(8, 5, 4)
    recorder = Recorder(
        torch.float32, lambda model, *inputs: tuple(forward_for(model)(*inputs).terms(inputs[0]))
    )
    there = copy.deepcopy(model).to(GPU)
    assert native.gpu_kernels(torch.float32, GPU) is not None
    for repeat, count in enumerate((8, 8, 5, 8)):
        if repeat == 3:
            there = copy.deepcopy(there)
        inputs = images[:count], noise[:count]
        for one in (model, there):
            one.zero_grad(set_to_none=True)
        with full_precision():
            reconstruction, kl = recorder(there, *(tensor.to(GPU) for tensor in inputs))
            (reconstruction.mean() + kl.sum()).backward()
        truth = model(*inputs).terms(inputs[0])
        (truth.reconstruction.mean() + truth.kl.sum()).backward()
        torch.testing.assert_close(reconstruction.cpu(), truth.reconstruction, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(kl.cpu(), truth.kl, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(there.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-3, atol=1e-4)
