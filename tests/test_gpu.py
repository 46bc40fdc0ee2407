"""On a GPU: the same numbers as on the CPU, no waiting for the device in an update, recordings that
equal what they record.
"""

import copy

import pytest
import torch

from drawbench import config as configs
from drawbench import streams, training
from drawbench.data import scenes, sources
from drawbench.data.pictures import FreshPairs, Shuffled
from drawbench.fast.graphs import Graphed
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.tasks import common
from drawbench.tasks.classify import ClassificationTask, FreshScenes

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits", None).splits["train"]


def test_data_have_the_same_bytes(digits):
    scene = scenes.Scene(canvas=60, digits=1, clutter=4, clutter_size=8)
    here = FreshScenes(digits, scene, seed=1)
    for ours, theirs in zip(here.to(GPU).batch(100, 64), here.batch(100, 64), strict=True):
        assert ours.is_cuda and torch.equal(ours.cpu(), theirs)
    for train in (
        FreshPairs(digits, 0, "fixed"),
        Shuffled(digits.images[:, None], 0, dynamic=True),
    ):
        assert torch.equal(train.to(GPU).batch(50, 32).cpu(), train.batch(50, 32))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("graph", [False, True])
def test_an_update_does_not_wait_for_the_device(digits, precision, graph):
    config = configs.replace(
        configs.Classify(), batch=16, precision=precision, graph=graph, steps=10
    )
    scene = scenes.Scene(canvas=60, digits=1, clutter=4, clutter_size=8)
    task = ClassificationTask(
        GlimpseClassifier(glimpses=2).to(GPU), FreshScenes(digits, scene, 0), None, config, GPU
    )
    optimizer = training._adam(task.model, config.training)
    for step in range(3):  # records, and fills caches
        training._update(task, optimizer, config.training, step, 1e-3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        logged = training._update(task, optimizer, config.training, 3, 1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(value) for value in logged.values())


@pytest.mark.parametrize("read_patch, write_patch", [(2, 5), (None, None)])
def test_a_recording_equals_what_it_records(read_patch, write_patch):
    with streams.seeded(0, "gpu"):
        model = Draw(
            12, 12, steps=5, hidden=16, latent=4, read_patch=read_patch, write_patch=write_patch
        )
        images, noise = torch.rand(8, 1, 12, 12), torch.randn(8, 5, 4)
    there = copy.deepcopy(model).to(GPU)
    graphed = Graphed(there)
    with common.exactly():
        for _ in range(2):
            there.zero_grad(set_to_none=True)
            made = graphed.drawing(images.to(GPU), noise.to(GPU))
            (made.logits.square().mean() + made.mu.sum() + made.log_sigma.sum()).backward()
    truth = model(images, noise)
    (truth.logits.square().mean() + truth.mu.sum() + truth.log_sigma.sum()).backward()
    torch.testing.assert_close(made.logits.cpu(), truth.logits, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(there.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-3, atol=1e-4)
