"""alignDRAW against its equations in loops, one number at a time; then its laws, and the faults
found in public code.
"""

import math

import formulas
import pytest
import torch
from formulas import check_gradients, linear, set_weights, sigmoid, zero
from test_draw import agree, combine, some_images, some_noise
from torch import Tensor

from drawbench import fast
from drawbench.likelihood import Gaussian
from drawbench.models.aligndraw import AlignDraw
from drawbench.streams import normals

CAPTIONS = torch.tensor([[0, 3, 1, 4], [2, 2, 0, 1]])  # B = 2, K = 4, of 5 words


def some_model(**others) -> AlignDraw:
    sizes = {"steps": 3, "hidden": 4, "latent": 2, "read_patch": 2, "write_patch": 3}
    language = {"vocabulary": 5, "words": 3, "alignment": 6}
    return set_weights(AlignDraw(5, 7, **(sizes | language | others)))


# --- the twin: one image, Python numbers ---


def read_twin(weights: dict[str, Tensor], caption: list[int]) -> list[list[float]]:
    """Return ``[forward h_k, backward h_k]`` of every word."""
    sides = []
    for order, suffix in ((caption, ""), (caption[::-1], "_reverse")):
        names = [f"{kind}_{side}" for kind in ("weight", "bias") for side in ("ih", "hh")]
        own = {f"lstm.{name}": weights[f"language.{name}_l0{suffix}"] for name in names}
        hidden = weights["start_language_hidden"].tolist()
        cell = weights["start_language_cell"].tolist()
        states = []
        for word in order:
            letter = [float(n == word) for n in range(5)]
            hidden, cell = formulas.lstm(own, "lstm", letter, hidden, cell)
            states.append(hidden)
        sides.append(states if suffix == "" else states[::-1])
    return [forward + backward for forward, backward in zip(*sides, strict=True)]


def twin(model: AlignDraw, image: list, noise: list, caption: list[int]) -> list[dict]:
    """Take every step for one image[row][column], noise[step][latent] and caption[word]."""
    weights, (_, height, width) = model.state_dict(), model.size
    canvas = weights["start_canvas"][0].tolist()
    names = ("encoder_hidden", "encoder_cell", "decoder_hidden", "decoder_cell")
    h_enc, c_enc, h_dec, c_dec = (weights[f"start_{name}"].tolist() for name in names)
    words = read_twin(weights, caption)
    queries = {"query.weight": weights["to_query.weight"], "query.bias": torch.zeros(6)}
    v = weights["to_score.weight"][0].tolist()

    def window(name: str, patch: int) -> list[float]:
        return formulas.window(linear(weights, name, h_dec), height, width, patch)

    steps = []
    for t in range(model.steps):
        # the prior, from the state before the step
        prior_mu, prior_log_sigma = [0.0, 0.0], [0.0, 0.0]
        if t > 0:
            prior_mu = [math.tanh(x) for x in linear(weights, "to_prior_mu", h_dec)]
            prior_log_sigma = [math.tanh(x) for x in linear(weights, "to_prior_log_sigma", h_dec)]
        # the words, from the state before the step
        query, scores = linear(queries, "query", h_dec), []
        for word in words:
            key = linear(weights, "to_key", word)
            both = zip(v, key, query, strict=True)
            scores.append(sum(a * math.tanh(k + q) for a, k, q in both))
        powers = [math.exp(score) for score in scores]
        attended = [power / sum(powers) for power in powers]
        told = [sum(a * word[n] for a, word in zip(attended, words, strict=True)) for n in range(6)]
        # DRAW
        error = combine(lambda x, c: x - sigmoid(c), image, canvas)
        where, patch = window("to_read_window", model.read_patch), model.read_patch
        planes = [formulas.read(plane, where, patch) for plane in (image, error)]
        read = [x for plane in planes for row in plane for x in row]
        h_enc, c_enc = formulas.lstm(weights, "encoder", read + h_dec, h_enc, c_enc)
        mu, log_sigma = linear(weights, "to_mu", h_enc), linear(weights, "to_log_sigma", h_enc)
        z = [m + math.exp(s) * e for m, s, e in zip(mu, log_sigma, noise[t], strict=True)]
        h_dec, c_dec = formulas.lstm(weights, "decoder", z + told, h_dec, c_dec)
        numbers, patch = linear(weights, "to_patch", h_dec), model.write_patch
        drawing = [numbers[row * patch : (row + 1) * patch] for row in range(patch)]
        drawing = formulas.write(drawing, window("to_write_window", patch), height, width)
        canvas = combine(lambda old, new: old + new, canvas, drawing)
        kl = 0.0
        for m, s, p, q in zip(mu, log_sigma, prior_mu, prior_log_sigma, strict=True):
            ratio, apart = math.exp(2 * (s - q)), (m - p) / math.exp(q)
            kl += 0.5 * (ratio + apart**2 - 1) - (s - q)
        record = {"canvas": canvas, "mu": mu, "attended": attended, "kl": kl}
        steps.append(record | {"prior_mu": prior_mu, "prior_log_sigma": prior_log_sigma})
    return steps


@torch.no_grad()
def test_agrees_with_the_written_out_equations():
    model, images, noise = some_model(), some_images(), some_noise()
    drawing = model(images, noise, CAPTIONS, keep_canvases=True)
    terms = drawing.terms(images)
    for n in range(2):
        steps = twin(model, images[n, 0].tolist(), noise[n].tolist(), CAPTIONS[n].tolist())
        parts = {
            "canvas": drawing.canvases[n, :, 0],
            "mu": drawing.posterior.mu[n],
            "prior_mu": drawing.prior.mu[n],
            "prior_log_sigma": drawing.prior.log_sigma[n],
            "attended": drawing.attended[n],
            "kl": terms.kl[n],
        }
        for name, ours in parts.items():
            agree(ours, [step[name] for step in steps])


def test_gradients():
    images, noise = some_images(), some_noise()
    model = some_model(hidden=2, latent=1, words=2, alignment=2, steps=2)
    inputs = (images, noise[:, :2, :1], CAPTIONS)
    check_gradients(model, inputs, lambda drawing: drawing.terms(images).bound)


# --- the faults of the published code


@torch.no_grad()
def test_the_backward_lstm_reads_its_own_sentence_from_the_end():
    """A word changes the forward states from there on, the backward ones up to there, and no state
    of another image.
    """
    model, half = some_model(), 3
    words = model.read_caption(CAPTIONS).words
    for place in range(4):
        other = CAPTIONS.clone()
        other[0, place] = (other[0, place] + 1) % 5
        changed = model.read_caption(other).words
        assert torch.equal(changed[1], words[1])
        differs = (changed[0] != words[0]).view(4, 2, half).any(-1)
        assert differs[:, 0].tolist() == [k >= place for k in range(4)]
        assert differs[:, 1].tolist() == [k <= place for k in range(4)]


@torch.no_grad()
def test_backward_states_stand_at_their_words():
    """With equal weights in both directions, the backward states of a sentence are the forward
    states of the same sentence reversed, turned back.
    """
    model, half = some_model(), 3
    for name, weight in model.language.named_parameters():
        if name.endswith("_reverse"):
            weight.copy_(getattr(model.language, name.removesuffix("_reverse")))
    words = model.read_caption(CAPTIONS).words
    turned = model.read_caption(CAPTIONS.flip(1)).words
    torch.testing.assert_close(words[..., half:], turned[..., :half].flip(1))


@torch.no_grad()
def test_an_image_is_drawn_from_its_own_caption():
    """In a batch as alone, whatever captions the others have."""
    model, images, noise = some_model(), some_images(), some_noise()
    whole = model(images, noise, CAPTIONS).likelihood.logits
    for n in range(2):
        one = slice(n, n + 1)
        alone = model(images[one], noise[one], CAPTIONS[one]).likelihood.logits
        torch.testing.assert_close(alone, whole[one])


# --- its laws


@torch.no_grad()
def test_the_encoder_sees_no_words():
    """The first posterior is the same under any caption; the first canvas is not."""
    model, images, noise = some_model(), some_images(), some_noise()
    one = model(images, noise, CAPTIONS, keep_canvases=True)
    other = model(images, noise, CAPTIONS.flip(0), keep_canvases=True)
    assert torch.equal(one.posterior.mu[:, 0], other.posterior.mu[:, 0])
    assert not torch.isclose(one.posterior.mu[:, 1], other.posterior.mu[:, 1]).any()
    assert not torch.isclose(one.canvases[:, 0], other.canvases[:, 0]).all()


@torch.no_grad()
def test_attention_is_a_distribution_over_words_and_uniform_without_scores():
    model, images, noise = some_model(), some_images(), some_noise()
    weights = model(images, noise, CAPTIONS).attended
    assert weights.shape == (2, 3, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3).double())
    zero(model.to_score)
    assert (model(images, noise, CAPTIONS).attended == 0.25).all()


@torch.no_grad()
def test_the_prior_is_standard_first_then_bounded_by_the_tanh():
    prior = some_model()(some_images(), some_noise(), CAPTIONS).prior
    assert not prior.mu[:, 0].any() and not prior.log_sigma[:, 0].any()
    for field in prior:
        assert field[:, 1:].any() and field.abs().max() < 1


@torch.no_grad()
def test_kl_is_0_where_the_posterior_is_the_prior():
    model, images = some_model(), some_images()
    zero(model.to_mu, model.to_log_sigma, model.to_prior_mu, model.to_prior_log_sigma)
    assert not model(images, some_noise(), CAPTIONS).terms(images).kl.any()


@torch.no_grad()
def test_kl_is_the_mean_log_ratio_of_posterior_and_prior():
    """The closed form against Monte Carlo, for the Gaussians that the model makes."""
    drawing = some_model()(some_images(), some_noise(), CAPTIONS)
    posterior, prior = drawing.posterior, drawing.prior
    noise = normals(torch.arange(40_000), 1, 0, "kl")[:, 0].view(-1, 1, 1, 1)
    z = posterior.at(noise)

    def log_density(gaussian: Gaussian) -> Tensor:
        return torch.distributions.Normal(gaussian.mu, gaussian.log_sigma.exp()).log_prob(z)

    ratio = log_density(posterior) - log_density(prior)
    error = ratio.std(0) / math.sqrt(len(noise))
    assert ((ratio.mean(0) - posterior.kl(prior)).abs() < 5 * error).all()


@torch.no_grad()
def test_samples_come_from_the_learned_prior():
    """Decoding the latents that the prior of each step makes of the noise draws the sample."""
    model, noise = some_model(), some_noise()
    sample = model.sample(noise, CAPTIONS, keep_canvases=True)
    state, latents = model.start(2, CAPTIONS), []
    for part in noise.unbind(1):
        latents.append(model.prior(state).at(part))
        state, _ = model.write_latent(state, latents[-1])
    again = model.decode(torch.stack(latents, 1), CAPTIONS, keep_canvases=True)
    assert torch.equal(sample.mean, again.mean) and torch.equal(sample.attended, again.attended)
    assert sample.attended.shape == (2, 3, 4)
    assert not torch.isclose(sample.mean, model.decode(noise, CAPTIONS).mean).all()


def test_recomputed_segments_have_the_same_gradients():
    model, images, noise = some_model(), some_images(), some_noise()
    gradients = []
    for segment in (None, 1):
        model.zero_grad()
        model(images, noise, CAPTIONS, segment=segment).terms(images).bound.sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.skipif(
    not fast.multiplies_bfloat16(), reason="torch has no LSTM of bfloat16 for this CPU"
)
def test_under_autocast_the_record_is_float32(monkeypatch):
    monkeypatch.setattr(fast, "kernels", lambda dtype: None)  # the model's own equations
    model = some_model().float()
    images, noise = some_images().float(), some_noise().float()
    forward = fast.forward_for(model, torch.bfloat16)
    drawing = forward(images, noise, CAPTIONS)
    fields = [*drawing.posterior, *drawing.prior, drawing.attended, drawing.likelihood.logits]
    assert {field.dtype for field in fields} == {torch.float32}


@pytest.mark.parametrize("caption", [None, CAPTIONS[0], CAPTIONS[:1]])
def test_captions_that_do_not_fit_the_images_are_refused(caption):
    with pytest.raises(ValueError, match=r"AlignDraw draws from captions \(2, words\), got"):
        some_model()(some_images(), some_noise(), caption)


def test_counts_below_one_are_named():
    with pytest.raises(ValueError, match="words 0"):
        AlignDraw(5, 5, words=0)
