"""DRAW: a recurrent network that draws an image step by step on a canvas, looking at the image and
at what is still missing.

Gregor et al. 2015, sections 2 and 3. With attention it reads and writes through Gaussian windows;
without, it reads the whole image and writes the whole canvas at every step, which makes it a
recurrent variational autoencoder. Reading and writing can each have attention or not.

Symbols: B images, C channels, H rows, W columns, T steps, Z latents per step, N the side of a
patch.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from drawbench import attention
from drawbench.attention import Window, widen
from drawbench.likelihood import Bernoulli, Gaussian, Logistic, Terms, of_canvas, start_log_scale
from drawbench.models import widening
from drawbench.models.common import check_counts, check_window_map, collect
from drawbench.models.glimpse import State
from drawbench.models.widening import Part


class Sample(NamedTuple):
    """What a generator drew: B pictures in T steps."""

    likelihood: Bernoulli | Logistic  #: of the pixels, given the last canvas c_T, (B, C, H, W)
    write_windows: Window | None = None  #: fields of shape (B, T); None without attention
    canvases: Tensor | None = None  #: (B, T, C, H, W), c_1 .. c_T, where they were asked for
    attended: Tensor | None = None  #: (B, T, K), weights of the K parts of a condition

    @property
    def mean(self) -> Tensor:
        """The picture: the mean of its pixels, (B, C, H, W) in [0, 1]."""
        return self.likelihood.mean

    @property
    def frames(self) -> Tensor | None:
        """The picture after each step, (B, T, C, H, W) in [0, 1], if canvases were kept."""
        return None if self.canvases is None else self.likelihood.mean_of(self.canvases)


class Drawing(NamedTuple):
    """What a generator made of B images that it saw, in T steps. It owns the objective."""

    likelihood: Bernoulli | Logistic  #: of the pixels, given the last canvas c_T, (B, C, H, W)
    posterior: Gaussian  #: (B, T, Z), of the latents of each step
    prior: Gaussian | None = None  #: (B, T, Z); None for N(0, I)
    read_windows: Window | None = None  #: fields of shape (B, T); None without attention
    write_windows: Window | None = None  #: fields of shape (B, T); None without attention
    canvases: Tensor | None = None  #: (B, T, C, H, W), c_1 .. c_T, where they were asked for
    attended: Tensor | None = None  #: (B, T, K), weights of the K parts of a condition

    @property
    def mean(self) -> Tensor:
        """The reconstruction: the mean of its pixels, (B, C, H, W) in [0, 1]."""
        return self.likelihood.mean

    @property
    def frames(self) -> Tensor | None:
        """The reconstruction after each step, (B, T, C, H, W) in [0, 1], if canvases were kept."""
        return None if self.canvases is None else self.likelihood.mean_of(self.canvases)

    def terms(self, images: Tensor, dtype: torch.dtype | None = None) -> Terms:
        """Return the losses Lx and Lz (equations 9-12).

        Args:
            images: (B, C, H, W), pixels in [0, 1].
            dtype: in which to sum; measurements use float64.
        """
        return Terms(
            reconstruction=-self.likelihood.log_prob(images, dtype),
            kl=self.posterior.kl(self.prior).sum(-1, dtype=dtype),
        )

    def log_weight(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return ``log w = log p(x | z) + log p(z) - log q(z | x)`` (Burda et al. 2016, section 3).

        ``E[w] = p(x)`` exactly, and ``E[log w]`` is the single-sample bound.

        Args:
            images: (B, C, H, W).
            noise: (B, T, Z), from which this drawing was made.

        Returns:
            (B,), nats, float64.

        Raises:
            ValueError: the noise has another shape than the posterior.
        """
        if noise.shape != self.posterior.mu.shape:
            raise ValueError(
                f"noise {tuple(noise.shape)} and posterior {tuple(self.posterior.mu.shape)} differ "
                "in shape: every step needs noise of its own"
            )
        prior = None if self.prior is None else self.prior.double()
        ratio = self.posterior.double().log_ratio(noise.double(), prior)
        return self.likelihood.log_prob(images, torch.float64) + ratio.flatten(1).sum(1)


class DrawState(NamedTuple):
    """All that one step passes to the next."""

    canvas: Tensor  #: c, (B, C, H, W)
    encoder: State  #: h_enc and its cell
    decoder: State  #: h_dec and its cell
    condition: Any = None  #: what a conditional model is told, or what it made of that
    attended: Tensor | None = None  #: (B, K), weights of its K parts in the step that led here


class Step(NamedTuple):
    """What one step leaves in the :class:`Drawing`."""

    posterior: Gaussian  #: (B, Z)
    prior: Gaussian | None  #: (B, Z); None for N(0, I)
    read_window: Window | None
    write_window: Window | None
    canvas: Tensor | None  #: (B, C, H, W), where canvases are kept
    attended: Tensor | None = None  #: (B, K), for a model that attends to its condition


def check_noise(noise: Tensor, steps: int, latent: int) -> None:
    """Raise ValueError unless ``noise`` is (B, steps, latent): reusing one tensor for all steps
    is a known fault that makes the bound look too good (about 65 nats).
    """
    if noise.dim() != 3 or noise.shape[1:] != (steps, latent):
        raise ValueError(
            f"noise must be (images, {steps} steps, {latent} latents), fresh for every step, "
            f"got {tuple(noise.shape)}"
        )


def check_images(images: Tensor, noise: Tensor, size: tuple[int, int, int]) -> None:
    """Raise ValueError unless ``images`` is (B, *size) for the B of ``noise``."""
    if images.shape != (len(noise), *size):
        raise ValueError(
            f"images must be {(len(noise), *size)} for this model and {len(noise)} rows of noise, "
            f"got {tuple(images.shape)}"
        )


class Draw(nn.Module):
    """The DRAW network.

    A subclass with a learned prior overrides :meth:`prior`, one with other pixels
    :meth:`likelihood`. One that takes a condition overrides :meth:`start`, which may put it into
    the state, and :meth:`step` or :meth:`write_latent`, which may use it.

    Args:
        height, width: of the images, pixels.
        channels: of the images; one window serves them all (section 4.4).
        steps: T, how often it reads and writes.
        hidden: U, LSTM units of the encoder and of the decoder.
        latent: Z, latents per step.
        read_patch: side of the patch that is read; None reads the whole image (equation 17).
        write_patch: side of the patch that is written; None writes the whole canvas (equation 18).
        window_map: ``"linear"`` takes the five numbers of a window as they are, as the paper does;
            ``"bounded"`` squashes them smoothly (:func:`drawbench.attention.squash`).
        window_clip: maximum gradient that one image sends back through one window
            (:func:`drawbench.attention.clip_gradient`), or None for the plain gradient.
        likelihood: of the pixels: ``"bernoulli"``, the paper's, or ``"logistic"`` for 256 levels,
            with a learned scale for each channel.

    Raises:
        ValueError: a count below 1, or an unknown window map or likelihood.
    """

    conditional = False  #: whether :meth:`start` needs a condition
    units: ClassVar = {
        **widening.cell("encoder", taken="decoder"),
        **widening.cell("decoder"),
        **dict.fromkeys(("start_encoder_hidden", "start_encoder_cell"), Part("encoder")),
        **dict.fromkeys(("start_decoder_hidden", "start_decoder_cell"), Part("decoder")),
        **dict.fromkeys(("to_mu.weight", "to_log_sigma.weight"), Part(taken="encoder")),
        **dict.fromkeys(("to_patch.weight", "to_read_window.weight"), Part(taken="decoder")),
        "to_write_window.weight": Part(taken="decoder"),
    }  #: see :mod:`drawbench.models.widening`

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
        likelihood: str = "bernoulli",
    ):
        super().__init__()
        check_counts(height=height, width=width, channels=channels)
        check_counts(steps=steps, hidden=hidden, latent=latent)
        patches = {"read_patch": read_patch, "write_patch": write_patch}
        check_counts(**{name: 1 if side is None else side for name, side in patches.items()})
        check_window_map(window_map)
        self.size = (channels, height, width)
        self.steps, self.latent = steps, latent
        self.read_patch, self.write_patch = read_patch, write_patch
        self.window_map, self.window_clip = window_map, window_clip

        read = height * width if read_patch is None else read_patch**2
        written = height * width if write_patch is None else write_patch**2
        self.encoder = nn.LSTMCell(2 * channels * read + hidden, hidden)
        self.decoder = nn.LSTMCell(latent, hidden)
        self.to_mu = nn.Linear(hidden, latent)
        self.to_log_sigma = nn.Linear(hidden, latent)
        self.to_patch = nn.Linear(hidden, channels * written)
        # Reading and writing have a map each: the paper marks the second set of numbers with a hat.
        self.to_read_window = None if read_patch is None else self._window_map(hidden)
        self.to_write_window = None if write_patch is None else self._window_map(hidden)
        # Everything before the first step is learned: a drawing that starts from zeros starts from
        # grey.
        self.start_canvas = nn.Parameter(torch.zeros(self.size))
        self.start_encoder_hidden = nn.Parameter(torch.zeros(hidden))
        self.start_encoder_cell = nn.Parameter(torch.zeros(hidden))
        self.start_decoder_hidden = nn.Parameter(torch.zeros(hidden))
        self.start_decoder_cell = nn.Parameter(torch.zeros(hidden))
        self.log_scale = start_log_scale(likelihood, channels)

    @staticmethod
    def _window_map(hidden: int) -> nn.Linear:
        """Build ``W(h)`` of equation 21. Its weights are small, so training starts with a window
        over the whole image, whatever h is.
        """
        layer = nn.Linear(hidden, len(attention.PARAMETERS))
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
        return layer

    # -- the equations

    def start(self, batch_size: int, condition: Any = None) -> DrawState:
        """Return the learned state before the first step.

        Raises:
            ValueError: a condition is given, which this model does not take.
        """
        if condition is not None:
            name = type(self).__name__
            raise ValueError(f"{name} takes no condition; override start() in a subclass")
        encoder = State(self.start_encoder_hidden, self.start_encoder_cell)
        decoder = State(self.start_decoder_hidden, self.start_decoder_cell)
        return DrawState(
            self.start_canvas.expand(batch_size, -1, -1, -1),
            State(*(part.expand(batch_size, -1) for part in encoder)),
            State(*(part.expand(batch_size, -1) for part in decoder)),
        )

    @property
    def levels(self) -> bool:
        """Whether the likelihood is one of pixels with 256 levels."""
        return self.log_scale is not None

    def likelihood(self, canvas: Tensor) -> Bernoulli | Logistic:
        """Return the distribution of the pixels, given a canvas (B, C, H, W) (equation 9)."""
        return of_canvas(canvas, self.log_scale)

    def prior(self, state: DrawState) -> Gaussian | None:
        """Return the prior (B, Z) of the next latents, given the state before the step.

        It may depend on ``state.decoder``, ``state.canvas`` and ``state.condition``, which sampling
        knows, but not on ``state.encoder``. None means N(0, I), the paper's prior.
        """
        return None

    def step(self, images: Tensor, state: DrawState, noise: Tensor) -> tuple[DrawState, Step]:
        """Look, encode, decode and write (equations 3-8).

        Args:
            images: (B, C, H, W) in [0, 1].
            state: before the step.
            noise: (B, Z), standard normal.
        """
        prior, hidden = self.prior(state), state.decoder.hidden
        error = images - self.likelihood(state.canvas).mean
        glimpse, read_window = self.read(images, error, hidden)
        encoder = State(*self.encoder(torch.cat([glimpse, hidden], dim=1), state.encoder))
        maps = (self.to_mu, self.to_log_sigma)
        posterior = Gaussian(*(widen(to_field(encoder.hidden)) for to_field in maps))
        state = state._replace(encoder=encoder)
        state, write_window = self.write_latent(state, posterior.at(noise))
        looks = (read_window, write_window, state.canvas, state.attended)
        return state, Step(posterior, prior, *looks)

    def write_latent(self, state: DrawState, latent: Tensor) -> tuple[DrawState, Window | None]:
        """Decode latents (B, Z) and add to the canvas: the part of a step that needs no image
        (equations 7 and 8).
        """
        decoder = State(*self.decoder(latent, state.decoder))
        drawing, window = self.write(decoder.hidden)
        return state._replace(canvas=state.canvas + drawing, decoder=decoder), window

    def read(self, images: Tensor, error: Tensor, hidden: Tensor) -> tuple[Tensor, Window | None]:
        """Return ``r_t = read(x, x^_t, h_dec[t-1])``, flat, first the image, then the error; and
        the window (equations 17 and 27).
        """
        both = torch.cat([images, error], dim=1)
        if self.to_read_window is None or self.read_patch is None:
            return both.flatten(1), None
        window = self._window(self.to_read_window, hidden, self.read_patch)
        return attention.read(both, window, self.read_patch).flatten(1), window

    def write(self, hidden: Tensor) -> tuple[Tensor, Window | None]:
        """Return ``write(h_dec[t])``, (B, C, H, W), and the window (equations 18, 28 and 29)."""
        channels, height, width = self.size
        patch = self.to_patch(hidden)
        if self.to_write_window is None or self.write_patch is None:
            return patch.view(-1, channels, height, width), None
        window = self._window(self.to_write_window, hidden, self.write_patch)
        patch = patch.view(-1, channels, self.write_patch, self.write_patch)
        return attention.write(patch, window, height, width), window

    def _window(self, to_window: nn.Module, hidden: Tensor, patch: int) -> Window:
        """Choose a window in state ``hidden`` (B, U): equations 21-24."""
        numbers = attention.raw_numbers(to_window, hidden, self.window_clip)
        if self.window_map == "bounded":
            numbers = attention.squash(numbers)
        return attention.window(numbers, *self.size[1:], patch)

    # -- all steps

    def forward(
        self,
        images: Tensor,
        noise: Tensor,
        condition: Any = None,
        *,
        keep_canvases: bool = False,
        segment: int | None = None,
    ) -> Drawing:
        """Look at images and draw them (equations 1-8): a reconstruction, never a sample.

        Args:
            images: (B, C, H, W) in [0, 1].
            noise: (B, T, Z), standard normal, independent for every image, step and latent.
            condition: for a subclass that takes one.
            keep_canvases: return the canvas of every step too.
            segment: steps whose intermediate values are kept for the gradient at a time; those of
                the others are recomputed.

        Raises:
            ValueError: images or noise have another shape.
        """
        check_noise(noise, self.steps, self.latent)
        check_images(images, noise, self.size)
        state, segments = self.start(len(images), condition), []
        recompute = segment is not None and segment < self.steps and torch.is_grad_enabled()
        take = partial(checkpoint, self._steps, use_reentrant=False) if recompute else self._steps
        for part in noise.split(segment or self.steps, dim=1):
            state, record = take(images, part, state, keep_canvases)
            segments.append(record)
        return Drawing(self.likelihood(state.canvas), *collect(segments, torch.cat))

    def _steps(
        self, images: Tensor, noise: Tensor, state: DrawState, keep_canvases: bool
    ) -> tuple[DrawState, Step]:
        """Take some steps; return the state after them, and what they left, (B, steps, ...)."""
        records = []
        for part in noise.unbind(1):
            state, record = self.step(images, state, part)
            records.append(record if keep_canvases else record._replace(canvas=None))
        return state, collect(records)

    def sample(
        self, noise: Tensor, condition: Any = None, *, keep_canvases: bool = False
    ) -> Sample:
        """Draw from the model's own prior, with the decoder only (equations 13-15).

        Args:
            noise: (B, T, Z), standard normal; with the prior N(0, I), the latents themselves.
            condition: for a subclass that takes one.
            keep_canvases: return the canvas of every step too.

        Raises:
            ValueError: the noise has another shape.
        """
        return self._draw(noise, condition, keep_canvases, from_prior=True)

    def decode(
        self, latents: Tensor, condition: Any = None, *, keep_canvases: bool = False
    ) -> Sample:
        """Draw what the given latents (B, T, Z) stand for; arguments as of :meth:`sample`."""
        return self._draw(latents, condition, keep_canvases, from_prior=False)

    def _draw(self, numbers: Tensor, condition: Any, keep: bool, from_prior: bool) -> Sample:
        check_noise(numbers, self.steps, self.latent)
        state = self.start(numbers.shape[0], condition)
        windows, canvases, attended = [], [], []
        for latent in numbers.unbind(1):
            prior = self.prior(state) if from_prior else None
            state, window = self.write_latent(state, latent if prior is None else prior.at(latent))
            windows.append(window)
            canvases.append(state.canvas if keep else None)
            attended.append(state.attended)
        records = (collect(windows), collect(canvases), collect(attended))
        return Sample(self.likelihood(state.canvas), *records)
