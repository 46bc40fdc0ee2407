"""The plain variational autoencoder: one look, one latent vector, one picture. What DRAW is
explained from.

Kingma & Welling 2014, appendix C: one hidden layer of tanh units in the encoder, one in the
decoder, Bernoulli pixels. It returns the record of DRAW with T = 1, so everything that measures or
draws one takes the other.
"""

import math

import torch
from torch import Tensor, nn

from drawbench.likelihood import widen
from drawbench.models.checks import check_counts
from drawbench.models.draw import Drawing, Sample, check_images, check_noise


class VAE(nn.Module):
    """A variational autoencoder.

    Args:
        height, width: of the images, pixels.
        channels: of the images.
        hidden: units of each hidden layer.
        latent: Z.

    Raises:
        ValueError: a count below 1.
    """

    steps = 1

    def __init__(
        self, height: int, width: int, channels: int = 1, hidden: int = 500, latent: int = 20
    ):
        super().__init__()
        check_counts(height=height, width=width, channels=channels, hidden=hidden, latent=latent)
        self.size, self.latent = (channels, height, width), latent
        self.encoder = nn.Linear(math.prod(self.size), hidden)
        self.to_mu = nn.Linear(hidden, latent)
        self.to_log_sigma = nn.Linear(hidden, latent)
        self.decoder = nn.Linear(latent, hidden)
        self.to_logits = nn.Linear(hidden, math.prod(self.size))

    def _decode(self, latent: Tensor) -> Tensor:
        """Logits (B, C, H, W) of latents (B, Z)."""
        return widen(self.to_logits(torch.tanh(self.decoder(latent)))).view(-1, *self.size)

    def forward(self, images: Tensor, noise: Tensor, keep_canvases: bool = False) -> Drawing:
        """Look at images and draw them again: ``z = mu(x) + sigma(x) noise``.

        Args:
            images: (B, C, H, W) in [0, 1].
            noise: (B, 1, Z), standard normal.
            keep_canvases: return the only canvas as a film of one picture too.

        Raises:
            ValueError: images or noise have another shape.
        """
        check_noise(noise, self.steps, self.latent)
        check_images(images, noise, self.size)
        hidden = torch.tanh(self.encoder(images.flatten(1)))
        mu, log_sigma = widen(self.to_mu(hidden)), widen(self.to_log_sigma(hidden))
        logits = self._decode(mu + log_sigma.exp() * noise[:, 0])
        return Drawing(
            logits,
            mu[:, None],
            log_sigma[:, None],
            canvases=logits[:, None] if keep_canvases else None,
        )

    def sample(self, noise: Tensor, keep_canvases: bool = False) -> Sample:
        """Draw from the prior, ``z = noise`` (B, 1, Z); raises ValueError for another shape."""
        check_noise(noise, self.steps, self.latent)
        logits = self._decode(noise[:, 0])
        return Sample(logits, canvases=logits[:, None] if keep_canvases else None)
