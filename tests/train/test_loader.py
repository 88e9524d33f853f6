"""The loader: each window once an epoch, in an order that only the params and the step decide."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.text.shards import ShardWriter, read_split
from fairway.train.loader import WindowLoader, coprime_stride

ORDERS = ("shuffled", "sequential", "coprime")


@given(st.sampled_from(ORDERS), st.integers(2, 9), st.integers(0, 60), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_visits_every_window_once(order, length, extra, sequences, seed):
    """The stream counts up, so a window tells where it comes from; epochs may end in the middle of a batch."""
    tokens = np.arange(2 * length + 1 + extra, dtype=np.uint16)
    loader = WindowLoader(tokens, length, sequences, seed, order)
    steps = -(-2 * loader.windows // sequences)
    windows = np.concatenate([loader.batch(step).numpy() for step in range(steps)])[: 2 * loader.windows]
    assert loader.windows == (len(tokens) - 1) // length - (order == "shuffled")
    assert (windows == windows[:, :1] + np.arange(length + 1)).all() and windows.max() < len(tokens)
    for epoch in np.split(windows[:, 0], 2):
        starts = np.sort(epoch)
        assert 0 <= starts[0] < (length if order == "shuffled" else 1) and (np.diff(starts) == length).all()


@pytest.mark.parametrize("order", ORDERS)
def test_order_depends_on_the_seed_and_the_step_only(order):
    tokens = np.arange(1000, dtype=np.uint16)
    one, other = (WindowLoader(tokens, 10, 4, 7, order) for _ in range(2))
    forwards = [one.batch(step) for step in range(60)]
    for step in reversed(range(60)):
        assert (other.batch(step) == forwards[step]).all()
    reseeded = WindowLoader(tokens, 10, 4, 8, order)
    assert any((reseeded.batch(step) != forwards[step]).any() for step in range(3)) == (order != "sequential")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_parts_of_the_ranks_are_the_step(order, ranks):
    """Six windows a step of 99: the third epoch begins inside a step."""
    loader = WindowLoader(np.arange(1000, dtype=np.uint16), 10, 6, 0, order)
    for step in (0, 1, 16, 33):
        parts = [loader.batch(step, rank, ranks) for rank in range(ranks)]
        assert all(len(part) == 6 // ranks for part in parts)
        assert (np.concatenate(parts) == loader.batch(step).numpy()).all()


def test_sequential_windows_follow_one_another_from_the_first_token():
    loader = WindowLoader(np.arange(1000, dtype=np.uint16), 10, 4, 5, "sequential")
    starts = np.concatenate([loader.batch(step)[:, 0].numpy() for step in range(24)])
    assert (starts == 10 * np.arange(96)).all()


@given(st.integers(1, 5000))
def test_the_stride_of_coprime_is_coprime_and_long(windows):
    stride = coprime_stride(windows)
    assert math.gcd(stride, windows) == 1 and stride >= int(0.618 * windows)


def test_every_step_of_coprime_samples_the_whole_stream():
    """Eight windows of 990, a stride of 0.618 epochs: no two of them within a twelfth of the stream, nor all in one half."""
    loader = WindowLoader(np.arange(9901, dtype=np.uint16), 10, 8, 0, "coprime")
    for step in range(20):
        places = np.sort(loader.batch(step)[:, 0].numpy() / 9900)
        gaps = np.diff(places, append=places[0] + 1)
        assert gaps.min() > 0.08 and gaps.max() < 0.25


def test_epochs_differ_in_order_and_in_offset():
    loader = WindowLoader(np.arange(1000, dtype=np.uint16), 10, 98, seed=0)
    first, second = loader.batch(0)[:, 0].numpy(), loader.batch(1)[:, 0].numpy()
    assert (first != second).any() and (np.diff(first) != 10).any()
    offsets = {int(loader.batch(epoch)[:, 0].min()) for epoch in range(20)}
    assert len(offsets) > 3


@pytest.mark.parametrize("order", ORDERS)
def test_several_shards_are_one_stream(tmp_path, order):
    """Windows cross the border of shards of 37 tokens as if there were none."""
    tokens = np.arange(200, dtype=np.uint16)
    with ShardWriter(tmp_path, "train", 37) as writer:
        writer.write(tokens)
    assert len(list(tmp_path.iterdir())) == 6
    mapped, whole = (WindowLoader(stream, 10, 4, 3, order) for stream in (read_split(tmp_path, 256), tokens))
    for step in range(12):
        assert (mapped.batch(step) == whole.batch(step)).all()


def test_a_batch_is_int64_of_one_token_more_than_the_sequence():
    batch = WindowLoader(np.arange(100, dtype=np.uint16), 10, 3, seed=0).batch(0)
    assert batch.shape == (3, 11) and batch.dtype.is_signed and batch.dtype.itemsize == 8


@pytest.mark.parametrize(("order", "needed"), [("shuffled", 21), ("sequential", 11), ("coprime", 11)])
def test_a_split_too_short_for_one_window_says_how_many_tokens_are_needed(order, needed):
    WindowLoader(np.zeros(needed, np.uint16), 10, 1, 0, order).batch(0)
    with pytest.raises(
        InputError, match=rf"the train split has {needed - 1} tokens and needs at least {needed} for one window"
    ):
        WindowLoader(np.zeros(needed - 1, np.uint16), 10, 1, 0, order)
