"""The plain variational autoencoder: one look, one latent vector, one picture; the model from which
DRAW is explained.

Kingma & Welling 2014, appendix C: one hidden layer of tanh units in the encoder, one in the
decoder, Bernoulli pixels by default. It returns DRAW's record with T = 1.
"""

import math

import torch
from torch import Tensor, nn

from drawbench.attention import widen
from drawbench.likelihood import Bernoulli, Gaussian, Logistic, of_canvas, start_log_scale
from drawbench.models.common import check_counts
from drawbench.models.draw import Drawing, Sample, check_images, check_noise


class VAE(nn.Module):
    """A variational autoencoder.

    Args:
        height, width: of the images, pixels.
        channels: of the images.
        hidden: units of each hidden layer.
        latent: Z.
        likelihood: of the pixels, ``"bernoulli"`` or ``"logistic"``, as of
            :class:`drawbench.models.draw.Draw`.

    Raises:
        ValueError: a count below 1, or an unknown likelihood.
    """

    steps = 1
    read_patch = write_patch = None

    def __init__(
        self,
        height: int,
        width: int,
        channels: int = 1,
        hidden: int = 500,
        latent: int = 20,
        likelihood: str = "bernoulli",
    ):
        super().__init__()
        check_counts(height=height, width=width, channels=channels, hidden=hidden, latent=latent)
        self.size, self.latent = (channels, height, width), latent
        self.encoder = nn.Linear(math.prod(self.size), hidden)
        self.to_mu = nn.Linear(hidden, latent)
        self.to_log_sigma = nn.Linear(hidden, latent)
        self.decoder = nn.Linear(latent, hidden)
        self.to_logits = nn.Linear(hidden, math.prod(self.size))
        self.log_scale = start_log_scale(likelihood, channels)

    @property
    def levels(self) -> bool:
        """Whether the likelihood is one of pixels with 256 levels."""
        return self.log_scale is not None

    def likelihood(self, canvas: Tensor) -> Bernoulli | Logistic:
        """Return the distribution of the pixels, given a canvas (B, C, H, W)."""
        return of_canvas(canvas, self.log_scale)

    def forward(self, images: Tensor, noise: Tensor, *, keep_canvases: bool = False) -> Drawing:
        """Look at images and draw them: ``z = mu(x) + sigma(x) noise``.

        Args:
            images: (B, C, H, W) in [0, 1].
            noise: (B, 1, Z), standard normal.
            keep_canvases: return the only canvas as an animation of one frame too.

        Raises:
            ValueError: images or noise have another shape.
        """
        check_noise(noise, self.steps, self.latent)
        check_images(images, noise, self.size)
        hidden = torch.tanh(self.encoder(images.flatten(1)))[:, None]
        posterior = Gaussian(widen(self.to_mu(hidden)), widen(self.to_log_sigma(hidden)))
        sample = self.decode(posterior.at(noise), keep_canvases=keep_canvases)
        return Drawing(sample.likelihood, posterior, canvases=sample.canvases)

    def sample(self, noise: Tensor, *, keep_canvases: bool = False) -> Sample:
        """Draw from the prior N(0, I): ``z = noise``; see :meth:`decode`."""
        return self.decode(noise, keep_canvases=keep_canvases)

    def decode(self, latents: Tensor, *, keep_canvases: bool = False) -> Sample:
        """Draw what the latents (B, 1, Z) stand for; raise ValueError for another shape."""
        check_noise(latents, self.steps, self.latent)
        logits = widen(self.to_logits(torch.tanh(self.decoder(latents[:, 0])))).view(-1, *self.size)
        return Sample(self.likelihood(logits), canvases=logits[:, None] if keep_canvases else None)
