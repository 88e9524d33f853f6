"""The embedding: what the previous token adds, and that nothing of a document reaches the next one."""

import dataclasses

import pytest
import torch

from fairway.lm.embeddings import Embedding, PreviousToken, ValueEmbedding
from fairway.lm.model import GPT

BOS = 1


@pytest.fixture(params=["xor", "linear"])
def embedding(request, tiny):
    torch.manual_seed(0)
    embedding = Embedding(dataclasses.replace(tiny, bigram_hash=request.param))
    with torch.no_grad():
        embedding.smear_gate.normal_()
    return embedding.eval()


def embed(embedding, *tokens: int) -> torch.Tensor:
    """(T, D), as one window."""
    return embedding(torch.tensor([tokens]), None)[0].detach()


def test_a_token_reaches_the_next_one_and_its_pair_one_more(embedding):
    """The pair of the first two tokens is part of what smears into the third. 5 and 8 have buckets of their own."""
    one, other = embed(embedding, 5, 7, 9, 2), embed(embedding, 8, 7, 9, 2)
    assert (one[1] - other[1]).abs().max() > 0.1
    assert (one[2] - other[2]).abs().max() > 0.01
    assert torch.equal(one[3], other[3])


def test_nothing_passes_a_document_start_in_a_window(embedding):
    one, other = embed(embedding, 5, BOS, 7), embed(embedding, 8, BOS, 7)
    assert torch.equal(one[1:], other[1:])
    torch.testing.assert_close(one[1], embed(embedding, BOS)[0], atol=1e-6, rtol=1e-6)


def test_nothing_passes_a_document_start_between_blocks(embedding):
    after = []
    for before in (5, 8):
        previous = PreviousToken()
        embedding(torch.tensor([[before]]), previous)
        after.append(embedding(torch.tensor([[BOS, 7]]), previous)[0])
    assert torch.equal(*after)


@pytest.mark.parametrize("off", [{"bigram_buckets": 0}, {"smear_gate": False}])
def test_each_of_pair_and_smear_alone_looks_back_and_stops_at_a_document_start(tiny, off):
    torch.manual_seed(0)
    embedding = Embedding(dataclasses.replace(tiny, **off))
    assert (embed(embedding, 5, 7)[1] - embed(embedding, 8, 7)[1]).abs().max() > 0.01
    assert torch.equal(embed(embedding, 5, BOS)[1], embed(embedding, 8, BOS)[1])


def test_without_both_no_token_looks_back(tiny):
    torch.manual_seed(0)
    embedding = Embedding(dataclasses.replace(tiny, bigram_buckets=0, smear_gate=False))
    assert torch.equal(embed(embedding, 5, 7)[1], embed(embedding, 8, 7)[1])


def test_a_text_in_chunks_equals_one_window(embedding):
    tokens = (5, 7, BOS, 9, 9, 2)
    previous, pieces = PreviousToken(), []
    for piece in (tokens[:1], tokens[1:4], tokens[4:]):
        pieces.append(embedding(torch.tensor([piece]), previous)[0])
    torch.testing.assert_close(torch.cat(pieces), embed(embedding, *tokens), atol=1e-6, rtol=1e-6)


def buckets(tiny, form: str, *tokens: int) -> list[int]:
    """Which rows of the table of pairs are looked up."""
    embedding, seen = Embedding(dataclasses.replace(tiny, bigram_hash=form)), []
    embedding.bigram.table.register_forward_hook(lambda module, inputs, output: seen.extend(inputs[0][0].tolist()))
    embed(embedding, *tokens)
    return seen


def test_pairs_are_hashed_as_published(tiny):
    """Of 32 buckets. XOR: (7, then 9) goes to (36313·9 XOR 27191·7) mod 31, starts have the last one (#549).

    Linear: 1009·previous + current, where the token before a start counts as 0 (#861).
    """
    assert buckets(tiny, "xor", 7, 9, BOS) == [31, (36313 * 9 ^ 27191 * 7) % 31, 31]
    assert buckets(tiny, "linear", 7, 9, BOS, 9) == [7, (1009 * 7 + 9) % 32, BOS, (1009 * BOS + 9) % 32]


def test_only_the_published_form_of_each_hash_has_a_scale(tiny):
    scaled = [Embedding(dataclasses.replace(tiny, bigram_hash=form)).bigram.scale is not None for form in ("xor", "linear")]
    assert scaled == [True, False]


@pytest.mark.parametrize(("form", "zero", "small"), [("xor", "table", "projection"), ("linear", "projection", "table")])
def test_pairs_start_at_zero_as_published(tiny, form, zero, small):
    """Table zero and projection orthogonal (#549), or table N(0, 0.01²) and projection zero (#861)."""
    model = GPT(dataclasses.replace(tiny, bigram_hash=form))
    model.initialise(0)
    weights = {name: getattr(model.stream.bigram, name).weight for name in ("table", "projection")}
    assert not weights[zero].any()
    if form == "linear":
        assert weights[small].std().item() == pytest.approx(0.01, rel=0.1)
    else:
        torch.testing.assert_close(weights[small].mT @ weights[small], torch.eye(16), atol=1e-5, rtol=0)


def test_value_embedding_is_a_projected_row_of_its_table(tiny):
    torch.manual_seed(0)
    embedding = ValueEmbedding(tiny)
    expected = 0.1 * embedding.projection.weight @ embedding.table.weight[7]
    added = embedding(torch.tensor([[3, 7]]))
    assert added.shape == (1, 2, tiny.kv_width)
    torch.testing.assert_close(added[0, 1], expected)
