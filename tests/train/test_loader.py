"""The loader: each window once an epoch, in an order that only the seed and the step decide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.train.loader import WindowLoader


@given(st.integers(2, 9), st.integers(0, 60), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_visits_every_window_once(length, extra, sequences, seed):
    """The stream counts up, so a window tells where it comes from; epochs may end in the middle of a batch."""
    tokens = np.arange(2 * length + 1 + extra, dtype=np.uint16)
    loader = WindowLoader(tokens, length, sequences, seed)
    steps = -(-2 * loader.windows // sequences)
    windows = np.concatenate([loader.batch(step).numpy() for step in range(steps)])[: 2 * loader.windows]
    assert loader.windows == (len(tokens) - 1) // length - 1
    assert (windows == windows[:, :1] + np.arange(length + 1)).all() and windows.max() < len(tokens)
    for epoch in np.split(windows[:, 0], 2):
        starts = np.sort(epoch)
        assert 0 <= starts[0] < length and (np.diff(starts) == length).all()


def test_order_depends_on_the_seed_and_the_step_only():
    tokens = np.arange(1000, dtype=np.uint16)
    one, other = WindowLoader(tokens, 10, 4, seed=7), WindowLoader(tokens, 10, 4, seed=7)
    forwards = [one.batch(step) for step in range(60)]
    for step in reversed(range(60)):
        assert (other.batch(step) == forwards[step]).all()
    assert any((WindowLoader(tokens, 10, 4, seed=8).batch(step) != forwards[step]).any() for step in range(3))


def test_epochs_differ_in_order_and_in_offset():
    loader = WindowLoader(np.arange(1000, dtype=np.uint16), 10, 98, seed=0)
    first, second = loader.batch(0)[:, 0].numpy(), loader.batch(1)[:, 0].numpy()
    assert (first != second).any() and (np.diff(first) != 10).any()
    offsets = {int(loader.batch(epoch)[:, 0].min()) for epoch in range(20)}
    assert len(offsets) > 3


def test_a_batch_is_int64_of_one_token_more_than_the_sequence():
    batch = WindowLoader(np.arange(100, dtype=np.uint16), 10, 3, seed=0).batch(0)
    assert batch.shape == (3, 11) and batch.dtype.is_signed and batch.dtype.itemsize == 8


def test_a_split_too_short_for_one_window_says_how_many_tokens_are_needed():
    WindowLoader(np.zeros(21, np.uint16), 10, 1, seed=0).batch(0)
    with pytest.raises(InputError, match=r"the train split has 20 tokens and needs at least 21 for one window"):
        WindowLoader(np.zeros(20, np.uint16), 10, 1, seed=0)
