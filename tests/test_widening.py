"""A wide network that begins as a narrow one."""

import pytest
import torch
from formulas import waves

from drawbench import streams
from drawbench.models.aligndraw import AlignDraw
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.widening import widened
from drawbench.tasks.user_model import UserClassifier

CAPTIONED = {"height": 9, "width": 8, "steps": 3, "latent": 3, "vocabulary": 5, "words": 4}
CAPTIONED |= {"alignment": 6, "read_patch": 2, "write_patch": 3}


def draw(hidden: int, **changes) -> Draw:
    sizes = {"steps": 4, "hidden": hidden, "latent": 3, "read_patch": 2} | changes
    model = Draw(9, 8, **sizes).double()
    for number, parameter in enumerate(model.parameters()):  # zeros would hide a mistake
        torch.nn.init.normal_(parameter, std=0.2, generator=streams.stream(number, "widening"))
    return model


@pytest.mark.parametrize("hidden", [6, 7, 12, 20])
@pytest.mark.parametrize("changes", [{}, {"read_patch": None, "write_patch": None}])
def test_a_wider_generator_computes_the_same(hidden, changes):
    narrow, wide = draw(6, **changes), draw(hidden, **changes)
    wide.load_state_dict(widened(narrow.state_dict(), wide))
    images = waves(3, 1, 9, 8).abs().clamp(0, 1)
    noise = torch.randn(3, 4, 3, generator=streams.stream(0, "noise")).double()
    expected, found = (model(images, noise).terms(images) for model in (narrow, wide))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_wider_generator_with_captions_computes_the_same():
    narrow, wide = (AlignDraw(**CAPTIONED, hidden=hidden).double() for hidden in (6, 9))
    for number, parameter in enumerate(narrow.parameters()):
        torch.nn.init.normal_(parameter, std=0.2, generator=streams.stream(number, "widening"))
    wide.load_state_dict(widened(narrow.state_dict(), wide))
    images, caption = waves(2, 1, 9, 8).abs().clamp(0, 1), torch.tensor([[1, 2, 3], [4, 0, 2]])
    noise = torch.randn(2, 3, 3, generator=streams.stream(0, "noise")).double()
    found, expected = (model(images, noise, caption).terms(images) for model in (wide, narrow))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_wider_classifier_computes_the_same():
    narrow, wide = (GlimpseClassifier(glimpses=3, hidden=count).double() for count in (8, 13))
    torch.nn.init.normal_(narrow.start_hidden)
    wide.load_state_dict(widened(narrow.state_dict(), wide))
    images = waves(2, 1, 30, 30)
    torch.testing.assert_close(wide(images).logits, narrow(images).logits)


def test_a_users_classifier_is_widened_like_ours():
    narrow, wide = (
        UserClassifier("mine", GlimpseClassifier(glimpses=2, hidden=count).double(), 10)
        for count in (8, 13)
    )
    wide.load_state_dict(widened(narrow.state_dict(), wide))
    images = waves(2, 1, 30, 30)
    torch.testing.assert_close(wide(images).logits, narrow(images).logits)


def test_copies_become_different():
    """With equal shares, a unit and its copy would have the same gradient for ever."""
    narrow, wide = draw(4), draw(8)
    wide.load_state_dict(widened(narrow.state_dict(), wide))
    images, noise = waves(3, 1, 9, 8).abs().clamp(0, 1), torch.ones(3, 4, 3).double()
    sum(term.sum() for term in wide(images, noise).terms(images)).backward()
    gradients = wide.decoder.weight_hh.grad.unflatten(0, (4, 8)).transpose(0, 1).flatten(1)
    apart = torch.pdist(gradients)
    assert apart.min() > 1e-6 * gradients.norm()


def test_other_weights_are_left_alone():
    wide = draw(8)
    for weights in (
        draw(8).state_dict(),
        draw(12).state_dict(),
        {"encoder.weight_hh": torch.zeros(3)},
        draw(4).state_dict() | {"encoder.bias_hh": torch.zeros(7)},
        draw(4).state_dict() | {"to_mu.weight": torch.zeros(4)},
    ):
        found = widened(weights, wide)
        assert all(found[name] is weights[name] for name in weights)
    linear = torch.nn.Linear(3, 2)
    assert widened(linear.state_dict(), torch.nn.Linear(4, 2))["bias"].shape == (2,)
