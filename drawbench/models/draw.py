"""DRAW: a recurrent network that draws an image step by step on a canvas, looking at what it must
draw and at what is still missing.

Gregor et al. 2015, sections 2 and 3. With attention it reads and writes through Gaussian windows;
without, it reads the whole image and writes the whole canvas at every step, which makes it a
recurrent variational autoencoder. Either side can go without the other.

Symbols: B images, C channels, H rows, W columns, T steps, Z latents in a step, N the side of a
    patch.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from drawbench import attention
from drawbench.attention import Window
from drawbench.likelihood import widen
from drawbench.models.checks import check_counts

WINDOW_MAPS = ("linear", "bounded")
State = tuple[Tensor, Tensor]  # of an LSTM: h and its cell, both (B, hidden)


class Drawing(NamedTuple):
    """What a generator made of B images that it saw, in T steps."""

    logits: Tensor  #: (B, C, H, W), the last canvas c_T; its sigmoid is the picture
    mu: Tensor  #: (B, T, Z), mean of the posterior of each step
    log_sigma: Tensor  #: (B, T, Z), log of its standard deviation
    read_windows: Window | None = (
        None  #: fields of shape (B, T); None where it reads without attention
    )
    write_windows: Window | None = (
        None  #: fields of shape (B, T); None where it writes without attention
    )
    canvases: Tensor | None = None  #: (B, T, C, H, W), c_1 .. c_T, where they were asked for


class Sample(NamedTuple):
    """What a generator drew by itself, B pictures in T steps."""

    logits: Tensor  #: (B, C, H, W), the last canvas c_T; its sigmoid is the picture
    write_windows: Window | None = None  #: fields of shape (B, T)
    canvases: Tensor | None = None  #: (B, T, C, H, W), c_1 .. c_T, where they were asked for


def check_noise(noise: Tensor, steps: int, latent: int) -> None:
    """Raise ValueError unless ``noise`` is (B, steps, latent): one tensor for all steps is the
    fault that gives a bound near 65.
    """
    if noise.dim() != 3 or noise.shape[1:] != (steps, latent):
        raise ValueError(
            f"noise must be (images, {steps} steps, {latent} latents), fresh for every step, got {tuple(noise.shape)}"
        )


def check_images(images: Tensor, noise: Tensor, size: tuple[int, int, int]) -> None:
    """Raise ValueError unless ``images`` is (B, *size) for the B of ``noise``."""
    if images.shape != (len(noise), *size):
        raise ValueError(
            f"images must be {(len(noise), *size)} for this model and {len(noise)} rows of noise, got {tuple(images.shape)}"
        )


def _join(pieces: tuple[Any, ...]) -> Any:
    """Tensors or windows (B, some steps, ...) one after the other along the steps; None where there
    are none.
    """
    if pieces[0] is None:
        return None
    if isinstance(pieces[0], Window):
        return Window(*(torch.cat(field, dim=1) for field in zip(*pieces, strict=True)))
    return torch.cat(pieces, dim=1)


def _stack(windows: list[Window]) -> Window | None:
    """T windows with fields (B,) as one with fields (B, T)."""
    return (
        Window(*(torch.stack(field, dim=1) for field in zip(*windows, strict=True)))
        if windows
        else None
    )


class Draw(nn.Module):
    """The DRAW network.

    Args: height, width: of the images, pixels. channels: of the images; one window serves them all
        (section 4.4). steps: T, how often it reads and writes. hidden: LSTM units, of the encoder
        and of the decoder. latent: Z, latents in a step. read_patch: side of the patch that is
        read, or None to read the whole image at every step (equation 17). write_patch: side of the
        patch that is written, or None to write the whole canvas (equation 18). window_map:
        ``"linear"`` takes the five numbers of a window as they are, as the paper does;
        ``"bounded"`` squashes them
            smoothly (:func:`drawbench.attention.bound`).
        window_clip: largest gradient that one image sends back through one window
            (:func:`drawbench.attention.clip_gradient`), or None for the plain gradient.

    Raises:
        ValueError: a count below 1, or an unknown map.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int = 1,
        steps: int = 64,
        hidden: int = 256,
        latent: int = 100,
        read_patch: int | None = 2,
        write_patch: int | None = 5,
        window_map: str = "linear",
        window_clip: float | None = None,
    ):
        super().__init__()
        check_counts(
            height=height,
            width=width,
            channels=channels,
            steps=steps,
            hidden=hidden,
            latent=latent,
            read_patch=1 if read_patch is None else read_patch,
            write_patch=1 if write_patch is None else write_patch,
        )
        if window_map not in WINDOW_MAPS:
            raise ValueError(f"window_map must be one of {WINDOW_MAPS}, got {window_map!r}")
        self.size = (channels, height, width)
        self.steps, self.latent = steps, latent
        self.read_patch, self.write_patch = read_patch, write_patch
        self.window_map, self.window_clip = window_map, window_clip

        seen = height * width if read_patch is None else read_patch**2
        drawn = height * width if write_patch is None else write_patch**2
        self.encoder = nn.LSTMCell(2 * channels * seen + hidden, hidden)
        self.decoder = nn.LSTMCell(latent, hidden)
        self.to_mu = nn.Linear(hidden, latent)
        self.to_log_sigma = nn.Linear(hidden, latent)
        self.to_patch = nn.Linear(hidden, channels * drawn)
        # Reading and writing have a map each: the paper marks the second set of numbers with a hat.
        self.to_read_window = None if read_patch is None else self._window_map(hidden)
        self.to_write_window = None if write_patch is None else self._window_map(hidden)
        # All that is there before the first step is learned: a drawing that starts from zeros
        # starts from grey.
        self.start_canvas = nn.Parameter(torch.zeros(self.size))
        self.start_encoder_hidden = nn.Parameter(torch.zeros(hidden))
        self.start_encoder_cell = nn.Parameter(torch.zeros(hidden))
        self.start_decoder_hidden = nn.Parameter(torch.zeros(hidden))
        self.start_decoder_cell = nn.Parameter(torch.zeros(hidden))

    @staticmethod
    def _window_map(hidden: int) -> nn.Linear:
        """``W(h)`` of equation 21. Small weights, so that training starts from a window over the
        whole image, whatever h is.
        """
        layer = nn.Linear(hidden, len(attention.PARAMETERS))
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
        return layer

    def _start(self, batch: int) -> tuple[Tensor, State, State]:
        """``c_0``, ``h_enc_0`` and ``h_dec_0``, the last two with their cells."""
        encoder = (
            self.start_encoder_hidden.expand(batch, -1),
            self.start_encoder_cell.expand(batch, -1),
        )
        decoder = (
            self.start_decoder_hidden.expand(batch, -1),
            self.start_decoder_cell.expand(batch, -1),
        )
        return self.start_canvas.expand(batch, -1, -1, -1), encoder, decoder

    def _window(self, to_window: nn.Linear, hidden: Tensor, patch: int) -> Window:
        """The window that a map chooses in state ``hidden`` (B, hidden): equations 21-24."""
        with attention.unrounded(hidden.device):
            numbers = to_window(hidden.to(to_window.weight.dtype))
        if self.window_clip is not None:
            numbers = attention.clip_gradient(numbers, self.window_clip)
        if self.window_map == "bounded":
            numbers = attention.bound(numbers)
        return attention.window(numbers, *self.size[1:], patch)

    def _read(self, images: Tensor, error: Tensor, hidden: Tensor) -> tuple[Tensor, Window | None]:
        """``r_t = read(x, x^_t, h_dec[t-1])``, flat, and the window (equations 17 and 27): first
        the image, then the error.
        """
        both = torch.cat([images, error], dim=1)
        if self.to_read_window is None or self.read_patch is None:
            return both.flatten(1), None
        window = self._window(self.to_read_window, hidden, self.read_patch)
        return attention.read(both, window, self.read_patch).flatten(1), window

    def _write(self, hidden: Tensor) -> tuple[Tensor, Window | None]:
        """``write(h_dec[t])``, (B, C, H, W), and the window (equations 18, 28 and 29)."""
        channels, height, width = self.size
        patch = self.to_patch(hidden)
        if self.to_write_window is None or self.write_patch is None:
            return patch.view(-1, channels, height, width), None
        window = self._window(self.to_write_window, hidden, self.write_patch)
        return attention.write(
            patch.view(-1, channels, self.write_patch, self.write_patch), window, height, width
        ), window

    def forward(
        self, images: Tensor, noise: Tensor, keep_canvases: bool = False, segment: int | None = None
    ) -> Drawing:
        """Look at images and draw them again (equations 1-8). What it gives is a reconstruction,
        never a sample.

        Args: images: (B, C, H, W) in [0, 1]. noise: (B, T, Z), standard normal, independent for
            every image, step and latent. keep_canvases: return the canvas of every step too.
            segment: steps whose intermediate values are kept at a time for the gradient; those of
            the others are computed again.

        Raises:
            ValueError: images or noise have another shape.
        """
        check_noise(noise, self.steps, self.latent)
        check_images(images, noise, self.size)
        state, parts = self._start(len(images)), []
        for some in noise.split(segment or self.steps, dim=1):
            if len(some[0]) < self.steps and torch.is_grad_enabled():
                state, part = checkpoint(
                    self._draw, images, some, *state, keep_canvases, use_reentrant=False
                )
            else:
                state, part = self._draw(images, some, *state, keep_canvases)
            parts.append(part)
        return Drawing(state[0], *(_join(pieces) for pieces in zip(*parts, strict=True)))

    def _draw(
        self,
        images: Tensor,
        noise: Tensor,
        canvas: Tensor,
        encoder: State,
        decoder: State,
        keep_canvases: bool,
    ) -> tuple[tuple[Tensor, State, State], tuple[Any, ...]]:
        """Some steps from a canvas and states: those after the last of them, and the other fields
        of a :class:`Drawing`.
        """
        mus, log_sigmas, read_windows, write_windows, canvases = [], [], [], [], []
        for t in range(noise.shape[1]):
            error = images - torch.sigmoid(canvas)
            glimpse, read_window = self._read(images, error, decoder[0])
            encoder = self.encoder(torch.cat([glimpse, decoder[0]], dim=1), encoder)
            mu, log_sigma = widen(self.to_mu(encoder[0])), widen(self.to_log_sigma(encoder[0]))
            latent = mu + log_sigma.exp() * noise[:, t]
            decoder = self.decoder(latent, decoder)
            drawing, write_window = self._write(decoder[0])
            canvas = canvas + drawing
            mus.append(mu)
            log_sigmas.append(log_sigma)
            if read_window is not None:
                read_windows.append(read_window)
            if write_window is not None:
                write_windows.append(write_window)
            if keep_canvases:
                canvases.append(canvas)
        kept = torch.stack(canvases, dim=1) if keep_canvases else None
        made = (
            torch.stack(mus, dim=1),
            torch.stack(log_sigmas, dim=1),
            _stack(read_windows),
            _stack(write_windows),
            kept,
        )
        return (canvas, encoder, decoder), made

    def sample(self, noise: Tensor, keep_canvases: bool = False) -> Sample:
        """Draw from nothing: ``z_t ~ N(0, I)``, decoder only (equations 13-15). There is no image
        to look at.

        Args:
            noise: (B, T, Z), standard normal: the latents themselves.
            keep_canvases: return the canvas of every step too.

        Raises:
            ValueError: the noise has another shape.
        """
        check_noise(noise, self.steps, self.latent)
        canvas, _, decoder = self._start(len(noise))
        windows, canvases = [], []
        for t in range(self.steps):
            decoder = self.decoder(noise[:, t], decoder)
            drawing, window = self._write(decoder[0])
            canvas = canvas + drawing
            if window is not None:
                windows.append(window)
            if keep_canvases:
                canvases.append(canvas)
        return Sample(
            canvas, _stack(windows), torch.stack(canvases, dim=1) if keep_canvases else None
        )
