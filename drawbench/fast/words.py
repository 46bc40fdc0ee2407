"""Attention to the words of a caption, in a recurrence by hand."""

from drawbench.fast.native.build import Kernels, addresses
from drawbench.fast.native.parts import repeated


class Words:
    """What T steps of attending to words keep for the backward pass. The equations are those of
    ``AlignDraw.attend``.

    Args:
        words, keys: (B, K, S) and (B, K, A).
        score: (1, A), from the agreement of key and query to a word's score.
        keep: whether a backward pass will follow.
    """

    def __init__(self, native: Kernels, rounded: int, words, keys, score, steps: int, keep: bool):
        self.native, self.inputs = native, (words.contiguous(), keys.contiguous(), score)
        self.size = (*words.shape, keys.shape[2], rounded)
        weights = repeated(words.new_empty(steps if keep else 1, *words.shape[:2]), steps)
        self.weights, self.at_weights = weights, addresses(weights, steps)
        self.at_inputs = [tensor.data_ptr() for tensor in self.inputs]

    def forward(self, t: int, query: int, stride: int, row: int, row_stride: int) -> None:
        """Put ``s_t`` into the row, given the addresses of queries (B, A) and row (B, S)."""
        self.native.words_forward(
            *self.size, *self.at_inputs, query, stride, self.at_weights[t], row, row_stride
        )

    def backward(
        self,
        t: int,
        query: int,
        into: int,
        into_stride: int,
        into_query: int,
        stride: int,
        into_inputs,
    ) -> None:
        """Add to the gradients of words, keys and score, and compute that of the queries, given
        that of ``s_t``; queries and their gradients have the same stride.
        """
        self.native.words_backward(
            *self.size, *self.at_inputs, query, stride, self.at_weights[t], into, into_stride,
            into_query, *(tensor.data_ptr() for tensor in into_inputs),
        )  # fmt: skip
