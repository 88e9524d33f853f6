"""Attention against PyTorch's own, rotary positions, the band of a stream, and exclusive self-attention."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention

from fairway.lm.attention import KeyValueCache, causal_attention, exclude_own_value, rotary_tables, rotate

CPU = torch.device("cpu")
NO_STARTS = torch.zeros(1, 1, dtype=torch.bool)


def heads(count: int, seed: int, time: int = 7, width: int = 8, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, count, time, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(4, 4), (4, 2), (4, 1), (1, 1)])
def test_written_out_attention_equals_pytorchs_with_its_gradients(query_heads, kv_heads):
    gain = torch.linspace(0.5, 3.0, query_heads)
    raw = [heads(query_heads, 1).requires_grad_(), heads(kv_heads, 2).requires_grad_(), heads(kv_heads, 3).requires_grad_()]
    seen_back = heads(query_heads, 4)

    def run(attention):
        q, k = F.rms_norm(raw[0], (8,)) * gain[:, None, None], F.rms_norm(raw[1], (8,))
        y = attention(q, k, raw[2])
        return y, torch.autograd.grad((y * seen_back).sum(), raw)

    ours, our_gradients = run(lambda q, k, v: causal_attention(q, k, v, gain))
    theirs, their_gradients = run(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for our, their in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(our, their, atol=1e-5, rtol=1e-5)


def test_a_query_head_reads_the_key_value_head_of_its_group():
    """Heads 0, 1 share key/value head 0; heads 2, 3 share head 1. At time 0 there is one value to return."""
    q, k, v = F.rms_norm(heads(4, 1), (8,)), F.rms_norm(heads(2, 2), (8,)), heads(2, 3)
    y = causal_attention(q, k, v, torch.ones(4))
    for head, group in enumerate((0, 0, 1, 1)):
        torch.testing.assert_close(y[:, head, 0], v[:, group, 0])


@pytest.mark.parametrize(("sign", "gain"), [(-1, 1.5), (-1, 8.0), (1, 8.0), (1, 20.0)])
def test_scores_at_either_end_of_their_range_give_weights(sign, gain):
    """A query along every key it sees, or against it: each score is ±gain·√64, up to 160, and all weights are equal."""
    k = F.rms_norm(heads(1, 1, time=1, width=64), (64,)).expand(-1, -1, 5, -1)
    v = heads(1, 2, time=5, width=64)
    y = causal_attention(sign * gain * k, k, v, torch.tensor([gain]))
    mean_so_far = v.cumsum(2) / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(y, mean_so_far, atol=1e-4, rtol=1e-4)


def test_rotary_leaves_the_dimensions_beyond_its_own():
    x = heads(2, 1)
    turned = rotate(x, *rotary_tables(3, 7, 6, 100.0, CPU))
    assert torch.equal(turned[..., 6:], x[..., 6:])
    assert (turned[..., :6] - x[..., :6]).abs().amin(dim=(0, 1, 2)).min() > 0
    assert torch.equal(rotate(x, *rotary_tables(3, 7, 0, 100.0, CPU)), x)


def test_rotary_turns_pairs_by_their_angles():
    """Dimension i with i + 2 of 4: angles p and p·base^(−1/2), clockwise in the published layout."""
    position, base = 5, 100.0
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]).view(1, 1, 1, 5)
    a, b = torch.tensor(position * 1.0), torch.tensor(position * base**-0.5)
    expected = [1 * a.cos() + 3 * a.sin(), 2 * b.cos() + 4 * b.sin(), 3 * a.cos() - 1 * a.sin(), 4 * b.cos() - 2 * b.sin(), 9]
    turned = rotate(x, *rotary_tables(position, 1, 4, base, CPU)).flatten()
    torch.testing.assert_close(turned, torch.tensor([float(value) for value in expected]))


@pytest.mark.parametrize("far", [1, 1_000, 50_000_000])
def test_scores_depend_on_the_distance_only(far):
    """A stream may run for millions of tokens: the angles keep their precision there."""
    q, k = heads(1, 1, time=4), heads(1, 2, time=4)
    scores = [
        rotate(q, *rotary_tables(start, 4, 8, 10000.0, CPU)) @ rotate(k, *rotary_tables(start, 4, 8, 10000.0, CPU)).mT
        for start in (0, far)
    ]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-5)
    assert (scores[0] - q @ k.mT).abs().max() > 0.1


def bands(context: int, reset_documents: bool, lengths: list[int], starts_BT: torch.Tensor) -> list:
    """The bands of successive blocks of a stream."""
    cache, at, found = KeyValueCache(context, reset_documents), 0, []
    for length in lengths:
        found.append(cache.advance(starts_BT[:, at : at + length]))
        at += length
    return found


def dense(band) -> torch.Tensor:
    """(B, T, S) bool, put together from the pieces; what is in none of them is hidden."""
    B, T = band.first_BT.shape
    mask = torch.zeros(B, T, band.keys, dtype=torch.bool)
    for queries, keys, mask_B1TS in band.pieces:
        mask[:, queries, keys] = mask_B1TS[:, 0]
    return mask


def test_band_of_three_queries_over_five_keys():
    band = bands(3, False, [9, 3], NO_STARTS.expand(1, 12))[1]
    expected = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(dense(band)[0], expected)


def test_band_of_two_rows_whose_documents_start_elsewhere():
    starts = torch.tensor([[0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    first, second = bands(4, True, [2, 4], starts)
    assert torch.equal(dense(first), torch.tensor([[[1, 0], [1, 1]], [[1, 0], [0, 1]]], dtype=torch.bool))
    one = [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]]
    other = [[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]
    assert torch.equal(dense(second), torch.tensor([one, other], dtype=torch.bool))


@given(st.integers(2, 150), st.booleans(), st.lists(st.integers(1, 120), min_size=1, max_size=4), st.integers(0, 9))
def test_bands_of_blocks_of_any_size_are_those_of_the_whole(context, reset, lengths, seed):
    starts = torch.rand(2, sum(lengths), generator=torch.Generator().manual_seed(seed)) < 0.05
    i, j = torch.arange(sum(lengths))[:, None], torch.arange(sum(lengths))
    same = (starts.cumsum(1)[:, :, None] == starts.cumsum(1)[:, None, :]) | (not reset)
    whole, at = (i >= j) & (i - j < context) & same, 0
    for length, band in zip(lengths, bands(context, reset, lengths, starts), strict=True):
        assert torch.equal(dense(band), whole[:, at : at + length, at + length - band.keys : at + length])
        assert not whole[:, at : at + length, : at + length - band.keys].any()
        at += length


def test_a_long_block_is_cut_into_pieces_along_the_band():
    """Not the 4096² of a mask over everything."""
    band = bands(64, False, [4096], NO_STARTS.expand(1, 4096))[0]
    assert sum(mask.numel() for _, _, mask in band.pieces) < 4096 * 100


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("context", "lengths"), [(5, [7, 40]), (20, [3, 50]), (64, [70]), (150, [149, 1, 60])])
def test_flex_attention_and_the_pieces_equal_one_masked_attention(context, lengths, reset):
    """What a GPU runs compiled, here eager."""
    starts = torch.rand(2, sum(lengths), generator=torch.Generator().manual_seed(1)) < 0.1
    band = bands(context, reset, lengths, starts)[-1]
    T, S = lengths[-1], band.keys
    q, k, v = heads(4, 1, time=T, width=16), heads(2, 2, time=S, width=16), heads(2, 3, time=S, width=16)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=dense(band)[:, None], enable_gqa=True)
    torch.testing.assert_close(band.attention(q, k, v), expected, atol=1e-5, rtol=1e-5)
    flexible = flex_attention(q, k, v, block_mask=band.block_mask, enable_gqa=True)
    torch.testing.assert_close(flexible, expected, atol=1e-5, rtol=1e-5)


def test_cache_remembers_one_position_less_than_the_context_for_each_layer():
    cache = KeyValueCache(4)
    k, v = heads(2, 1), heads(2, 2)
    all_k, all_v = cache.extend(0, k, v)
    assert torch.equal(all_k, k) and torch.equal(all_v, v)
    other = cache.extend(1, v, k)
    assert torch.equal(other[0], v)
    all_k, all_v = cache.extend(0, k[:, :, :1], v[:, :, :1])
    assert torch.equal(all_k, torch.cat((k[:, :, -3:], k[:, :, :1]), 2))
    assert torch.equal(all_v, torch.cat((v[:, :, -3:], v[:, :, :1]), 2))


def test_cache_hands_back_the_latest_positions_however_often_its_buffer_fills():
    cache, seen = KeyValueCache(4), []
    for step in range(60):
        k = torch.full((1, 2, 1 + step % 3, 3), float(step))
        seen.append(k)
        expected = torch.cat(seen, 2)[:, :, -(3 + k.shape[2]) :]
        found_k, found_v = cache.extend(0, k, -k)
        assert torch.equal(found_k, expected) and torch.equal(found_v, -expected)
    assert torch.equal(cache.extend(0, *[torch.ones(1, 2, 99, 3)] * 2)[0][:, :, 3:], torch.ones(1, 2, 99, 3))
    assert cache.buffers_2BGCN[0].shape[3] < 120


def test_exclusive_attention_has_no_part_along_its_own_value():
    y, v = heads(4, 1), heads(2, 2)
    excluded = exclude_own_value(y, v)
    for head in range(4):
        own = v[:, head // 2]
        torch.testing.assert_close((excluded[:, head] * own).sum(-1), torch.zeros(2, 7), atol=1e-5, rtol=0)
        removed = y[:, head] - excluded[:, head]
        along = (y[:, head] * own).sum(-1, keepdim=True) / own.square().sum(-1, keepdim=True) * own
        torch.testing.assert_close(removed, along, atol=1e-5, rtol=1e-5)
