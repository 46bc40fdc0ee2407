"""Networks that look at the whole image, the spatial transformer among them."""

import pytest
import torch
from formulas import waves

from drawbench.errors import Problem
from drawbench.models.cnn import FullyConnected, SixLayerConv, TwoLayerConv
from drawbench.models.stn import SpatialTransformer

FIXED_SIZE = [FullyConnected, TwoLayerConv, SpatialTransformer]


@pytest.mark.parametrize("kind", [*FIXED_SIZE, SixLayerConv])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_answer_for_each_image_alone(kind, channels):
    size = {} if kind is SixLayerConv else {"height": 40, "width": 36}
    model, images = kind(**size, channels=channels, classes=7), waves(3, channels, 40, 36).float()
    logits = model(images).logits
    assert logits.shape == (3, 1, 7)
    alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(alone, logits, rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_spatial_transformer_first_reads_the_whole_image():
    record = SpatialTransformer(36, 36, patch=36, hidden=8)(waves(2, 1, 36, 36).float())
    torch.testing.assert_close(record.patches[:, 0], waves(2, 1, 36, 36).float())
    assert record.windows.theta.shape == (2, 1, 2, 3)
    corners = SpatialTransformer(36, 36).glimpse.corners(record.windows, 36, 36)
    assert corners[0, 0].tolist() == [[-0.5, -0.5], [35.5, -0.5], [35.5, 35.5], [-0.5, 35.5]]


@pytest.mark.parametrize("kind", FIXED_SIZE)
def test_another_canvas_is_refused_where_layers_are_fully_connected(kind):
    with pytest.raises(Problem, match="made for images of 36x36 pixels, not of 40x36"):
        kind(36, 36)(torch.zeros(1, 1, 40, 36))


def test_images_too_small_are_named():
    with pytest.raises(ValueError, match=r"10x10 need an image at least as large, got 9x20"):
        TwoLayerConv(9, 20)
    with pytest.raises(ValueError, match=r"at least 32x32 .*got 30x100"):
        SpatialTransformer(30, 100)
    with pytest.raises(ValueError, match=r"patch of at least 4, got .*3"):
        SpatialTransformer(100, 100, patch=3)
    with pytest.raises(ValueError, match="at least 1, got height 0"):
        FullyConnected(0, 5)
