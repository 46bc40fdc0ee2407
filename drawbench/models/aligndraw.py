"""alignDRAW: a DRAW that reads a caption while it draws what the caption says.

Mansimov, Parisotto, Ba & Salakhutdinov 2016, section 3. Reading and writing are DRAW's. New are the
sentence, which two LSTMs read, one in each direction; the weights by which the decoder attends to
its words at every step; and a prior that the decoder's state chooses. The encoder never sees words.

Symbols: B images, K words of a caption, E units of each language LSTM, Z latents per step.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from drawbench.attention import Window, widen
from drawbench.likelihood import Gaussian
from drawbench.models.common import check_counts
from drawbench.models.draw import Draw, DrawState
from drawbench.models.widening import Part


class Sentence(NamedTuple):
    """A caption as the decoder attends to it."""

    words: Tensor  #: h_k of both directions, (B, K, 2E)
    keys: Tensor  #: ``U h_k + b``, (B, K, A): the part of the alignment that no step changes


class AlignDraw(Draw):
    """The alignDRAW network. Arguments beyond those of :class:`Draw`:

    Args:
        vocabulary: how many words there are.
        words: E, units of the LSTM that reads the caption in one direction.
        alignment: A, units between a word and its weight.

    Raises:
        ValueError: a count below 1, or an unknown window map.
    """

    conditional = True
    units: ClassVar = {
        **Draw.units,
        **dict.fromkeys(
            ("to_query.weight", "to_prior_mu.weight", "to_prior_log_sigma.weight"),
            Part(taken="decoder"),
        ),
    }

    def __init__(
        self,
        height: int,
        width: int,
        channels: int = 1,
        vocabulary: int = 22,
        words: int = 128,
        alignment: int = 512,
        **settings,
    ):
        super().__init__(height, width, channels, **settings)
        check_counts(vocabulary=vocabulary, words=words, alignment=alignment)
        self.vocabulary, hidden = vocabulary, self.decoder.hidden_size
        self.decoder = nn.LSTMCell(self.latent + 2 * words, hidden)
        self.language = nn.LSTM(vocabulary, words, batch_first=True, bidirectional=True)
        # One learned start for both directions.
        self.start_language_hidden = nn.Parameter(torch.zeros(words))
        self.start_language_cell = nn.Parameter(torch.zeros(words))
        self.to_key = nn.Linear(2 * words, alignment)
        self.to_query = nn.Linear(hidden, alignment, bias=False)
        self.to_score = nn.Linear(alignment, 1, bias=False)
        self.to_prior_mu = nn.Linear(hidden, self.latent)
        self.to_prior_log_sigma = nn.Linear(hidden, self.latent)

    def start(self, batch_size: int, condition: Tensor | None = None) -> DrawState:
        """Read the captions; return the learned state before the first step.

        Args:
            condition: integers (B, K), each a word's number; all captions have K words.

        Raises:
            ValueError: there are no captions, or not one for each image.
        """
        if condition is None or condition.dim() != 2 or len(condition) != batch_size:
            got = "none" if condition is None else str(tuple(condition.shape))
            raise ValueError(
                f"{type(self).__name__} draws from captions ({batch_size}, words), got {got}"
            )
        return super().start(batch_size)._replace(condition=self.read_caption(condition))

    def read_caption(self, caption: Tensor) -> Sentence:
        """Read captions (B, K) in both directions.

        The backward LSTM reads each sentence from its end, and its states are turned back, so both
        halves of ``h_k`` stand at word k.
        """
        letters = one_hot(caption.long(), self.vocabulary).to(self.start_language_hidden.dtype)
        starts = (self.start_language_hidden, self.start_language_cell)
        state = tuple(start.expand(2, len(caption), -1).contiguous() for start in starts)
        words, _ = self.language(letters, state)
        return Sentence(words, self.to_key(words))

    def attend(self, sentence: Sentence, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight of each word, (B, K), and their weighted sum ``s_t``, (B, 2E).

        ``a_k = softmax_k(v . tanh(U h_k + W h_dec[t-1] + b))``, ``s_t = sum_k a_k h_k``.

        Args:
            hidden: h_dec[t-1], (B, U).
        """
        scores = self.to_score(torch.tanh(sentence.keys + self.to_query(hidden)[:, None]))
        weights = torch.softmax(widen(scores[..., 0]), dim=1)
        return weights, (weights[:, None] @ sentence.words)[:, 0]

    def prior(self, state: DrawState) -> Gaussian:
        """Return N(0, I) before the first step; then mean and log sigma are ``tanh(W h_dec)``."""
        hidden = state.decoder.hidden
        if state.attended is None:
            zeros = hidden.new_zeros(len(hidden), self.latent, dtype=widen(hidden).dtype)
            return Gaussian(zeros, zeros)
        maps = (self.to_prior_mu, self.to_prior_log_sigma)
        return Gaussian(*(torch.tanh(widen(to_field(hidden))) for to_field in maps))

    def write_latent(self, state: DrawState, latent: Tensor) -> tuple[DrawState, Window | None]:
        """Attend to the caption, decode latents and words ``[z_t, s_t]``, and add to the canvas."""
        attended, words = self.attend(state.condition, state.decoder.hidden)
        state, window = super().write_latent(state, torch.cat([latent, words], dim=1))
        return state._replace(attended=attended), window
