"""How well a model explains an image: Bernoulli log-probability, Gaussian KL, and the bounds made
of them. Pure functions.

For a model with latents z ~ N(0, I) and a posterior q(z | x) = N(mu, sigma^2),

``log p(x) >= E_q[log p(x | z)] - KL(q || p)`` (the bound; Gregor et al. 2015, equations 9-12), and
``log p(x) >= E[log 1/K sum_k w_k]``, ``w = p(x | z) p(z) / q(z | x)`` (importance-weighted; Burda
et al. 2016, equation 8).

The first is the second at K = 1; the second grows with K and closes like 1/K. Everything is in
nats, sums over pixels and latents, one number for each image; nothing here averages.

Symbols: B images, T steps, Z latents in a step, K samples.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


class Terms(NamedTuple):
    """The two losses of a generator, for each image apart; both in nats, lower is better."""

    reconstruction: Tensor  #: (B,), Lx = -log p(x | z), for one sample of z
    kl: Tensor  #: (B, T), the KL of each step, exact given the steps before

    @property
    def bound(self) -> Tensor:
        """(B,), ``Lx + Lz``: an upper bound on ``-log p(x)`` in expectation over the noise."""
        return self.reconstruction + self.kl.sum(1)


def widen(tensor: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is.

    With the 8 bits of bfloat16 a KL of 0.4 nats, small beside the terms it is a difference of, is
    mostly rounding. Models return what likelihoods are made of through this, whatever precision
    they computed in.
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def bernoulli_log_likelihood(
    logits: Tensor, targets: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """``log p(x | c) = sum_pixels x log s(c) + (1 - x) log(1 - s(c))`` with ``s`` the sigmoid
    (DRAW, equation 9, negated).

    A log-probability for binary pixels only. For pixels between, it is minus a cross-entropy, whose
    best value is not 0 but minus :func:`entropy_floor`.

    Args: logits: (B, ...), the canvas before the sigmoid; any size is safe, no probability is
        rounded to 0. targets: the same shape, pixels in [0, 1] (not checked: it would make a GPU
        wait). dtype: in which to sum, if not that of the logits; measures use float64.

    Returns:
        (B,), nats.

    Raises:
        ValueError: the shapes differ (broadcasting would silently count pixels several times).
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape: give one logit for each pixel"
        )
    return (
        -binary_cross_entropy_with_logits(logits, targets, reduction="none")
        .flatten(1)
        .sum(1, dtype=dtype)
    )


def entropy_floor(targets: Tensor) -> Tensor:
    """``sum_pixels H(x)``, ``H(x) = -x ln x - (1 - x) ln(1 - x)``: the cross-entropy that no model
    can go below.

    Args:
        targets: (B, ...), pixels in [0, 1].

    Returns:
        (B,), nats, float64; 0 for binary pixels.
    """
    pixels = targets.double().flatten(1)
    return (torch.special.entr(pixels) + torch.special.entr(1 - pixels)).sum(1)


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """``nats / (dimensions ln 2)``.

    Args:
        nats: of one image, or a mean over images.
        dimensions: height x width x channels.

    Raises:
        ValueError: no dimensions.
    """
    if dimensions < 1:
        raise ValueError(f"bits per dimension need at least 1 dimension, got {dimensions}")
    return nats / (dimensions * math.log(2))


def gaussian_kl(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """``KL(N(mu, sigma^2) || N(0, 1)) = 1/2 (mu^2 + sigma^2 - log sigma^2 - 1)`` (DRAW, equation
    11).

    The 1 belongs to each latent dimension. The paper prints ``T/2`` in all, which is right for one
    latent only.

    Args:
        mu, log_sigma: of the same shape, any.

    Returns: That shape, nats for each dimension: sum them, never average. Exactly 0 where q is the
        prior.
    """
    return 0.5 * (mu.square() + torch.expm1(2 * log_sigma)) - log_sigma


def gaussian_log_ratio(mu: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """``log N(z; 0, 1) - log N(z; mu, sigma^2)`` at ``z = mu + sigma noise``, which is ``(noise^2 -
    z^2)/2 + log sigma``.

    Over the noise its mean is minus :func:`gaussian_kl`.

    Args:
        mu, log_sigma, noise: of the same shape, any.

    Returns:
        That shape, nats for each dimension. Exactly 0 where q is the prior.
    """
    latent = mu + log_sigma.exp() * noise
    return 0.5 * (noise.square() - latent.square()) + log_sigma


def terms(
    logits: Tensor, targets: Tensor, mu: Tensor, log_sigma: Tensor, dtype: torch.dtype | None = None
) -> Terms:
    """The losses of DRAW (equations 9-12) or of a VAE (T = 1), apart.

    Args:
        logits: (B, C, H, W), the last canvas.
        targets: the same shape, pixels in [0, 1].
        mu, log_sigma: (B, T, Z).
        dtype: in which to sum; measures use float64.
    """
    return Terms(
        reconstruction=-bernoulli_log_likelihood(logits, targets, dtype),
        kl=gaussian_kl(mu, log_sigma).sum(-1, dtype=dtype),
    )


def log_weights(
    logits: Tensor, targets: Tensor, mu: Tensor, log_sigma: Tensor, noise: Tensor
) -> Tensor:
    """``log w = log p(x | z) + log p(z) - log q(z | x)`` for one sample of every image (Burda et
    al. 2016, section 3).

    ``E[w] = p(x)`` exactly, and ``E[log w]`` is the single-sample bound.

    Args:
        logits, targets: (B, C, H, W).
        mu, log_sigma, noise: (B, T, Z); the noise that led to these logits.

    Returns:
        (B,), nats, float64.

    Raises:
        ValueError: the noise has another shape than mu.
    """
    if noise.shape != mu.shape:
        raise ValueError(
            f"noise {tuple(noise.shape)} and mu {tuple(mu.shape)} differ in shape: every step needs noise of its own"
        )
    ratio = gaussian_log_ratio(mu.double(), log_sigma.double(), noise.double()).flatten(1).sum(1)
    return bernoulli_log_likelihood(logits, targets, torch.float64) + ratio


class Weights(NamedTuple):
    """What is kept of K importance weights of B images: as much for K = 5,000 as for K = 1."""

    samples: int  #: K, the weights counted in so far
    log_sum: Tensor  #: (B,) float64, log sum_k w_k
    log_sum_squares: Tensor  #: (B,) float64, log sum_k w_k^2

    @property
    def log_likelihood(self) -> Tensor:
        """(B,), ``log 1/K sum_k w_k``: at most ``log p(x)`` in expectation, nats, divided by the K
        that was counted.
        """
        return self.log_sum - math.log(self.samples)

    @property
    def effective_samples(self) -> Tensor:
        """(B,), ``(sum w)^2 / sum w^2``, from 1 (one weight is all) to K (all are equal): how far K
        can be trusted.
        """
        return torch.exp(2 * self.log_sum - self.log_sum_squares)

    def add(self, log_weights: Tensor) -> "Weights":
        """These and more: ``log_weights`` (k, B) or (B,), nats."""
        more = _weights(log_weights)
        return Weights(
            samples=self.samples + more.samples,
            log_sum=torch.logaddexp(self.log_sum, more.log_sum),
            log_sum_squares=torch.logaddexp(self.log_sum_squares, more.log_sum_squares),
        )


def _weights(log_weights: Tensor) -> Weights:
    """A first chunk, (k, B) or (B,)."""
    chunk = log_weights.double()
    chunk = chunk[None] if chunk.dim() == 1 else chunk
    if chunk.dim() != 2 or len(chunk) < 1:
        raise ValueError(
            f"log weights must be (samples, images) with at least 1 sample, or (images,), got {tuple(log_weights.shape)}"
        )
    return Weights(len(chunk), torch.logsumexp(chunk, 0), torch.logsumexp(2 * chunk, 0))


def importance_weighted(log_weights: Tensor | Iterable[Tensor]) -> Weights:
    """``log 1/K sum_k w_k`` for every image, in float64, from all weights at once or from a stream
    of them.

    Give a generator that makes a few samples at a time, and memory does not grow with K; how K is
    cut does not matter.

    Args:
        log_weights: (K, B), or an iterable of chunks (k, B) or (B,); see :func:`log_weights`.

    Returns:
        The sums; ``.log_likelihood`` is the bound, ``.samples`` the K that was counted.

    Raises:
        ValueError: no weights, or an impossible shape.
    """
    if isinstance(log_weights, Tensor):
        return _weights(log_weights)
    total: Weights | None = None
    for chunk in log_weights:
        total = _weights(chunk) if total is None else total.add(chunk)
    if total is None:
        raise ValueError("an importance-weighted bound needs at least 1 sample, got none")
    return total
