"""Error rates: counts against counting by hand, intervals against their definition."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from drawbench import streams
from drawbench.errors import Problem
from drawbench.evaluation import error_rate, precision
from drawbench.evaluation.paired import Z_95
from drawbench.models.glimpse import GlimpseClassifier, Glimpses
from drawbench.models.glimpses import GaussianGlimpse, HardGlimpse


def test_wilson_against_its_definition():
    """Its ends are the p from which the observed rate is 1.96 standard errors away, found here by
    bisection.
    """

    def solve(errors, n, upper):
        rate, (inside, outside) = errors / n, (errors / n, 1.0 if upper else 0.0)
        for _ in range(200):
            middle = (inside + outside) / 2
            far = abs(rate - middle) > Z_95 * math.sqrt(middle * (1 - middle) / n)
            inside, outside = (inside, middle) if far else (middle, outside)
        return 100 * inside

    for errors, n in [(336, 10_000), (1, 10), (9, 10), (50, 100)]:
        low, high = error_rate.wilson(errors, n)
        assert low == pytest.approx(solve(errors, n, upper=False), abs=1e-9)
        assert high == pytest.approx(solve(errors, n, upper=True), abs=1e-9)


def test_wilson_at_the_ends():
    assert error_rate.wilson(0, 10)[0] == 0.0
    assert error_rate.wilson(10, 10)[1] == 100.0
    assert 0 < error_rate.wilson(0, 10)[1] < 35
    for errors, n in [(-1, 10), (11, 10), (0, 0)]:
        with pytest.raises(ValueError, match="0 <= errors <= n"):
            error_rate.wilson(errors, n)


def test_score_counts_by_hand():
    """Three images, two glimpses, three classes."""
    probabilities = torch.zeros(3, 2, 3)
    for image, answers in enumerate([(0, 0), (0, 1), (2, 1)]):
        for glimpse, answer in enumerate(answers):
            probabilities[image, glimpse, answer] = 1
    score = error_rate.score(probabilities, np.array([0, 1, 2], dtype=np.uint8))
    assert (score.n, score.errors) == (3, 1)
    assert score.percent == pytest.approx(100 / 3)
    assert score.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert score.errors_after.tolist() == [1, 1]
    assert score.per_class == [0.0, 0.0, 100.0]
    assert score.majority == pytest.approx(200 / 3)


def test_a_class_without_images_has_no_error():
    score = error_rate.score(torch.eye(3)[:2, None], np.array([0, 1]))
    assert score.per_class == [0.0, 0.0, None]


@pytest.mark.parametrize(
    "labels", [np.array([0]), np.array([0, 3]), np.array([-1, 0]), np.array([[0], [1]])]
)
def test_wrong_labels_are_named(labels):
    with pytest.raises(Problem, match="labels"):
        error_rate.score(torch.full((2, 1, 3), 1 / 3), labels)


def test_answers_that_are_no_numbers_are_refused():
    with pytest.raises(Problem, match="not finite"):
        error_rate.score(torch.full((1, 1, 3), math.nan), np.array([0]))


@pytest.fixture
def model():
    with streams.seeded(0, "weights"):
        return GlimpseClassifier(GaussianGlimpse(4), glimpses=3, hidden=16)


@pytest.fixture
def images():
    draw = streams.stream(0, "images")
    return torch.randint(0, 256, (23, 30, 30), generator=draw, dtype=torch.uint8).numpy()


def test_probabilities_add_to_1_and_the_mode_is_restored(model, images):
    model.train()
    probabilities = error_rate.predict(model, images, glimpses=5)
    assert probabilities.shape == (23, 5, 10)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(23, 5))
    assert model.training
    assert not probabilities.requires_grad


def test_more_glimpses_only_add_answers(model, images):
    torch.testing.assert_close(
        error_rate.predict(model, images, glimpses=5)[:, :3], error_rate.predict(model, images)
    )


def test_images_may_have_a_channel_dimension_and_colour(images):
    model = GlimpseClassifier(GaussianGlimpse(4), glimpses=2, hidden=8)
    flat, grey = error_rate.predict(model, images), error_rate.predict(model, images[:, None])
    assert torch.equal(flat, grey)
    colour = GlimpseClassifier(GaussianGlimpse(4), glimpses=2, hidden=8, channels=3)
    assert error_rate.predict(colour, images[:21].reshape(7, 3, 30, 30)).shape == (7, 2, 10)


def test_sampled_answers_do_not_depend_on_the_batch(images):
    with streams.seeded(0, "hard"):
        hard = HardGlimpse(4, scales=2, hidden=16)
        model = GlimpseClassifier(hard, glimpses=2, hidden=16)
    noise = streams.normals(torch.arange(23), model.noise, 0, "test").float()
    together = error_rate.predict(model, images, noise=noise)
    torch.testing.assert_close(error_rate.predict(model, images, noise=noise, batch=4), together)
    assert not torch.equal(error_rate.predict(model, images), together)


def test_a_stop_is_heard_between_batches(model, images):
    class Stop(Exception):
        pass

    def check():
        raise Stop

    with pytest.raises(Stop):
        error_rate.predict(model, images, check=check)


@pytest.mark.parametrize("shape", [(4, 60, 60, 3), (4, 3, 20, 20), (4, 60, 60, 1)])
@pytest.mark.parametrize("glimpse", [None, HardGlimpse(4)])
def test_images_of_other_channels_are_refused(shape, glimpse):
    images = torch.zeros(shape, dtype=torch.uint8)
    model = GlimpseClassifier(glimpse, hidden=8)
    with pytest.raises(ValueError, match=r"images must be \(B, 1, H, W\) for this model, got"):
        error_rate.predict(model, images)


@pytest.mark.parametrize("glimpses", [0, -1])
@pytest.mark.parametrize("glimpse", [None, HardGlimpse(4)])
def test_fewer_than_one_look_is_refused(images, glimpses, glimpse):
    model = GlimpseClassifier(glimpse, hidden=8)
    with pytest.raises(ValueError, match="glimpses"):
        error_rate.predict(model, images, glimpses=glimpses)


def test_measuring_is_in_full_precision_whatever_the_training(images):
    seen = []

    class Model(nn.Module):
        def forward(self, images):
            seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return Glimpses(torch.zeros(len(images), 1, 10))

    precision.allow_tf32(True)
    try:
        error_rate.predict(Model(), images)
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    finally:
        precision.allow_tf32(False)
    assert set(seen) == {("highest", False)}


def test_measuring_is_in_evaluation_mode(images):
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.drop = nn.Dropout(0.5)

        def forward(self, images):
            logits = self.drop(torch.ones(len(images), 1, 10)) * self.scale
            return Glimpses(logits)

    assert error_rate.predict(Forgetful(), images).std() == 0
