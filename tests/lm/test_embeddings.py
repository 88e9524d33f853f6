"""The embedding stream: what the previous token adds, and that nothing of a document reaches the next one."""

import dataclasses

import pytest
import torch

from fairway.lm.embeddings import EmbeddingStream, PreviousToken

BOS = 1


@pytest.fixture
def stream(tiny):
    torch.manual_seed(0)
    stream = EmbeddingStream(tiny)
    with torch.no_grad():
        stream.smear_gate.normal_()
    return stream.eval()


def embed(stream, *tokens: int) -> torch.Tensor:
    """(T, D), as one window."""
    return stream(torch.tensor([tokens]), None)[0].detach()


def test_the_previous_token_reaches_the_next_one_only(stream):
    one, other = embed(stream, 5, 7, 9), embed(stream, 6, 7, 9)
    assert (one[1] - other[1]).abs().max() > 0.1
    assert torch.equal(one[2], other[2])


def test_nothing_passes_a_document_start_in_a_window(stream):
    one, other = embed(stream, 5, BOS, 7), embed(stream, 6, BOS, 7)
    assert torch.equal(one[1:], other[1:])
    assert torch.equal(one[1], embed(stream, BOS)[0])


def test_nothing_passes_a_document_start_between_blocks(stream):
    after = []
    for before in (5, 6):
        previous = PreviousToken()
        stream(torch.tensor([[before]]), previous)
        after.append(stream(torch.tensor([[BOS, 7]]), previous)[0])
    assert torch.equal(*after)


@pytest.mark.parametrize("off", [{"bigram_buckets": 0}, {"smear_gate": False}])
def test_each_of_pair_and_smear_alone_looks_back_and_stops_at_a_document_start(tiny, off):
    torch.manual_seed(0)
    stream = EmbeddingStream(dataclasses.replace(tiny, **off))
    assert (embed(stream, 5, 7)[1] - embed(stream, 8, 7)[1]).abs().max() > 0.01
    assert torch.equal(embed(stream, 5, BOS)[1], embed(stream, 8, BOS)[1])


def test_without_both_no_token_looks_back(tiny):
    torch.manual_seed(0)
    stream = EmbeddingStream(dataclasses.replace(tiny, bigram_buckets=0, smear_gate=False))
    assert torch.equal(embed(stream, 5, 7)[1], embed(stream, 8, 7)[1])


def test_a_stream_in_blocks_equals_one_window(stream):
    tokens = (5, 7, BOS, 9, 9, 2)
    previous, pieces = PreviousToken(), []
    for piece in (tokens[:1], tokens[1:4], tokens[4:]):
        pieces.append(stream(torch.tensor([piece]), previous)[0])
    torch.testing.assert_close(torch.cat(pieces), embed(stream, *tokens), atol=1e-6, rtol=1e-6)


def test_pairs_are_hashed_as_published(stream, tiny):
    """Bucket of (7, then 9): (36313·9 XOR 27191·7) mod 31; the last of the 32 buckets belongs to the start."""
    table = stream.bigram.table
    seen = []
    table.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    embed(stream, 7, 9, BOS)
    assert seen[0].tolist() == [[31, (36313 * 9 ^ 27191 * 7) % 31, 31]]
