"""How well a model explains an image: log-probability of its pixels, black and white (Bernoulli)
or of 256 levels (a discretised logistic), Gaussian KL, importance weights.

For a model with latents z, a prior p(z) and a posterior q(z | x),

``log p(x) >= E_q[log p(x | z)] - KL(q || p)`` (the bound; Gregor et al. 2015, equations 9-12), and
``log p(x) >= E[log 1/K sum_k w_k]``, ``w = p(x | z) p(z) / q(z | x)`` (importance-weighted; Burda
et al. 2016, equation 8).

The first is the second at K = 1; the second rises with K, and its gap closes like 1/K. Everything
is in nats and summed over pixels and latents, one number per image; nothing here averages.

Symbols: B images, T steps, Z latents per step, K samples.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from drawbench.attention import widen


class Terms(NamedTuple):
    """The two losses of a generator, per image; both in nats, lower is better."""

    reconstruction: Tensor  #: (B,), Lx = -log p(x | z), for one sample of z
    kl: Tensor  #: (B, T), the KL of each step, exact given the steps before

    @property
    def bound(self) -> Tensor:
        """``Lx + Lz``, (B,): an upper bound on ``-log p(x)`` in expectation over the noise."""
        return self.reconstruction + self.kl.sum(1)


class Bernoulli(NamedTuple):
    """Independent binary pixels."""

    logits: Tensor  #: (B, C, H, W), the canvas before the sigmoid

    @property
    def mean(self) -> Tensor:
        """The probability that each pixel is white, (B, C, H, W)."""
        return self.mean_of(self.logits)

    @staticmethod
    def mean_of(canvas: Tensor) -> Tensor:
        """Turn any canvas, such as that of an earlier step, into pixels in [0, 1]."""
        return torch.sigmoid(canvas)

    @staticmethod
    def canvas_of(mean: Tensor) -> Tensor:
        """Return the canvas whose pixels have this mean, strictly between 0 and 1."""
        return torch.logit(mean)

    def log_prob(self, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return ``log p(x) = sum_pixels x log s(c) + (1 - x) log(1 - s(c))`` with ``s`` the
        sigmoid (DRAW, equation 9, negated).

        A log-probability for binary pixels only. For grey pixels it is minus a cross-entropy, whose
        best value is not 0 but minus :func:`entropy_floor`.

        Args:
            images: of the shape of the logits, pixels in [0, 1] (not checked: that would make a
                GPU wait).
            dtype: in which to sum, by default that of the logits; measurements use float64.

        Returns:
            (B,), nats. Logits of any size are safe: no probability is rounded to 0.

        Raises:
            ValueError: the shapes differ (broadcasting would silently count pixels several times).
        """
        _check_same_shape("logits", self.logits, images)
        loss = binary_cross_entropy_with_logits(widen(self.logits), images, reduction="none")
        return -loss.flatten(1).sum(1, dtype=dtype)


class Logistic(NamedTuple):
    """Independent pixels of 256 levels, under a discretised logistic distribution (Kingma et al.
    2016, appendix A.2; Salimans et al. 2017, equation 2).

    A pixel is a logistic variable with location ``m`` and scale ``s``, rounded to the nearest of
    0, 1/255 .. 1; what lies beyond the first and the last level belongs to them (open edge bins).
    """

    canvas: Tensor  #: (B, C, H, W)
    log_scale: Tensor  #: (C,), log s of each channel, pixels in [0, 1]

    @property
    def location(self) -> Tensor:
        """``m = 1/2 + c/4``, (B, C, H, W), which may lie outside [0, 1]: the tangent of the sigmoid
        at 0, so that a canvas means about the same as a Bernoulli's.
        """
        return 0.5 + widen(self.canvas) / 4

    @property
    def scale(self) -> Tensor:
        """``s``, (C, 1, 1)."""
        return widen(self.log_scale).exp()[:, None, None]

    @property
    def mean(self) -> Tensor:
        """The mean of each pixel, (B, C, H, W)."""
        return self.mean_of(self.canvas)

    def mean_of(self, canvas: Tensor) -> Tensor:
        """Turn any canvas, such as that of an earlier step, into pixels in [0, 1].

        The mean of a logistic variable clipped to [0, 1]:
        ``s (softplus(m/s) - softplus((m-1)/s))``.
        The mean over the 256 levels is its midpoint sum, the same to about ``(1/255)^2``.
        """
        location, s = self._replace(canvas=canvas).location, self.scale
        mean = s * (softplus(location / s) - softplus((location - 1) / s))
        return mean.clamp(0, 1)  # beyond which only rounding can take it

    @staticmethod
    def canvas_of(mean: Tensor) -> Tensor:
        """Return the canvas whose locations these are."""
        return 4 * (mean - 0.5)

    def log_prob(self, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return ``log p(x) = sum_pixels log(S(b) - S(a))``, ``S`` the sigmoid, with the edges
        ``a, b = (x -+ 1/510 - m) / s`` of a pixel's level.

        Computed as ``log S(b) + log S(-a) + log(1 - exp(a - b))``, in which nothing cancels; the
        edges of the outermost levels are infinite.

        Args:
            images: of the shape of the canvas, multiples of 1/255 in [0, 1] (not checked).
            dtype: in which to sum, by default that of the canvas; measurements use float64.

        Returns:
            (B,), nats.

        Raises:
            ValueError: the shapes differ.
        """
        _check_same_shape("canvas", self.canvas, images)
        location, s, half = self.location, self.scale, 1 / 510
        first, last = images < half, images > 1 - half
        below = logsigmoid((images + half - location) / s).masked_fill(last, 0)
        above = logsigmoid((location - images + half) / s).masked_fill(first, 0)
        inside = torch.log(-torch.expm1(-2 * half / s)).expand_as(below)
        pixels = below + above + inside.masked_fill(first | last, 0)
        return pixels.flatten(1).sum(1, dtype=dtype)


def _check_same_shape(name: str, parameters: Tensor, images: Tensor) -> None:
    """Raise ValueError unless each pixel has a parameter of its own."""
    if parameters.shape != images.shape:
        raise ValueError(
            f"{name} {tuple(parameters.shape)} and images {tuple(images.shape)} differ in shape: "
            "each pixel needs a number of its own"
        )


PIXELS = ("bernoulli", "logistic")
START_LOG_SCALE = -2.0  # about that of photographs around their mean


def start_log_scale(pixels: str, channels: int) -> nn.Parameter | None:
    """Return the learned log-scale of a model whose pixels are logistic, (C,); None for Bernoulli.

    Raises:
        ValueError: ``pixels`` is not one of `PIXELS`.
    """
    if pixels not in PIXELS:
        raise ValueError(f"the likelihood must be one of {PIXELS}, got {pixels!r}")
    start = torch.full((channels,), START_LOG_SCALE)
    return nn.Parameter(start) if pixels == "logistic" else None


def of_canvas(canvas: Tensor, log_scale: Tensor | None) -> Bernoulli | Logistic:
    """Return the distribution of the pixels that a canvas (B, C, H, W) stands for."""
    return Bernoulli(canvas) if log_scale is None else Logistic(canvas, log_scale)


class Gaussian(NamedTuple):
    """A diagonal Gaussian; a prior of None stands for N(0, I)."""

    mu: Tensor  #: (..., Z), its mean
    log_sigma: Tensor  #: (..., Z), the log of its standard deviation

    def at(self, noise: Tensor) -> Tensor:
        """Return the sample ``mu + sigma noise`` (DRAW, section 2)."""
        return self.mu + self.log_sigma.exp() * noise

    def relative_to(self, prior: "Gaussian | None") -> "Gaussian":
        """Measure z from the prior's mean in units of its standard deviation.

        In these coordinates the prior is N(0, I); KL and density ratios stay the same.
        """
        if prior is None:
            return self
        mu = (self.mu - prior.mu) * torch.exp(-prior.log_sigma)
        return Gaussian(mu, self.log_sigma - prior.log_sigma)

    def kl(self, prior: "Gaussian | None" = None) -> Tensor:
        """Return ``KL(q || p) = 1/2 (mu^2 + sigma^2 - log sigma^2 - 1)``, mu and sigma relative to
        the prior (DRAW, equation 11).

        The 1 belongs to each latent dimension. The paper prints ``T/2`` in all, which is right for
        a single latent only.

        Returns:
            (..., Z), nats per dimension: sum them, never average. Exactly 0 where q is the prior.
        """
        mu, log_sigma = self.relative_to(prior)
        return 0.5 * (mu.square() + torch.expm1(2 * log_sigma)) - log_sigma

    def log_ratio(self, noise: Tensor, prior: "Gaussian | None" = None) -> Tensor:
        """Return ``log p(z) - log q(z)`` at ``z = mu + sigma noise``.

        It is ``(noise^2 - z^2)/2 + log sigma``, z and sigma relative to the prior. Its mean over
        the noise is minus :meth:`kl`.

        Returns:
            (..., Z), nats per dimension. Exactly 0 where q is the prior.
        """
        relative = self.relative_to(prior)
        return 0.5 * (noise.square() - relative.at(noise).square()) + relative.log_sigma

    def double(self) -> "Gaussian":
        """Convert to float64."""
        return Gaussian(self.mu.double(), self.log_sigma.double())


def entropy_floor(images: Tensor) -> Tensor:
    """Return ``sum_pixels H(x)``, ``H(x) = -x ln x - (1 - x) ln(1 - x)``: the cross-entropy that no
    model can go below.

    Args:
        images: (B, ...), pixels in [0, 1].

    Returns:
        (B,), nats, float64; 0 for binary pixels.
    """
    pixels = images.double().flatten(1)
    return (torch.special.entr(pixels) + torch.special.entr(1 - pixels)).sum(1)


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """Return ``nats / (dimensions ln 2)``.

    Args:
        nats: of one image, or a mean over images.
        dimensions: height x width x channels.

    Raises:
        ValueError: fewer than 1 dimension.
    """
    if dimensions < 1:
        raise ValueError(f"bits per dimension need at least 1 dimension, got {dimensions}")
    return nats / (dimensions * math.log(2))


class Weights(NamedTuple):
    """Sums over K importance weights of B images: of one size for K = 5,000 and for K = 1."""

    samples: int  #: K, the weights counted so far
    log_sum: Tensor  #: (B,) float64, log sum_k w_k
    log_sum_squares: Tensor  #: (B,) float64, log sum_k w_k^2

    @property
    def log_likelihood(self) -> Tensor:
        """``log 1/K sum_k w_k``, (B,), nats: at most ``log p(x)`` in expectation."""
        return self.log_sum - math.log(self.samples)

    @property
    def effective_samples(self) -> Tensor:
        """``(sum w)^2 / sum w^2``, (B,), from 1 (a single weight dominates) to K (all are equal):
        how far K can be trusted.
        """
        return torch.exp(2 * self.log_sum - self.log_sum_squares)

    def add(self, log_weights: Tensor) -> "Weights":
        """Count more: ``log_weights`` (k, B) or (B,), nats."""
        more = _weights(log_weights)
        return Weights(
            samples=self.samples + more.samples,
            log_sum=torch.logaddexp(self.log_sum, more.log_sum),
            log_sum_squares=torch.logaddexp(self.log_sum_squares, more.log_sum_squares),
        )


def _weights(log_weights: Tensor) -> Weights:
    chunk = log_weights.double()
    chunk = chunk[None] if chunk.dim() == 1 else chunk
    if chunk.dim() != 2 or len(chunk) < 1:
        raise ValueError(
            "log weights must be (samples, images) with at least 1 sample, or (images,), "
            f"got {tuple(log_weights.shape)}"
        )
    return Weights(len(chunk), torch.logsumexp(chunk, 0), torch.logsumexp(2 * chunk, 0))


def importance_weighted(log_weights: Tensor | Iterable[Tensor]) -> Weights:
    """Sum the importance weights of every image in float64, from one tensor or a stream of chunks.

    With a stream, memory does not grow with K; how K is divided does not matter.

    Args:
        log_weights: (K, B), or an iterable of chunks (k, B) or (B,); see ``Drawing.log_weight``.

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
