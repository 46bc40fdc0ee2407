"""Shared by all tests."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors gain nothing from several threads, and a busy machine loses much; it also fixes
    the order of float sums.
    """
    torch.set_num_threads(1)
