"""Scoring in blocks: what is scored, that blocks, batches and ranks do not matter, and when a chunk is learned."""

import copy
import dataclasses
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.score.bits import bits_per_byte
from fairway.score.config import Eval
from fairway.score.streaming import (
    chunks,
    entropy,
    log_probabilities,
    pieces,
    score_stream,
    side_by_side,
    target_scores,
)
from fairway.score.windows import score_windows
from fairway.train.ranks import Ranks
from tests.ranks import run_ranks

BOS = 1
TOKENS = np.random.default_rng(0).integers(2, 64, 41, dtype=np.uint16)
DOCUMENTS = TOKENS.copy()
DOCUMENTS[[0, 11, 12, 30]] = BOS
STREAMING = Eval(context=16, stride=8, block=8, batch=4)


def having(**changes) -> Eval:
    return dataclasses.replace(STREAMING, **changes)


class FakeTraining:
    """Learning that depends on the text, on its scores, and on all that was learned before. Keeps what it was called with."""

    def __init__(self, model, chunk: int, reset_documents: bool = False):
        self.model, self.chunk, self.reset_documents = model, chunk, reset_documents
        self.initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.calls = []

    @torch.no_grad()
    def learn(self, scored: np.ndarray, nats: np.ndarray) -> None:
        assert len(nats) == len(scored) - 1 == self.chunk and nats.dtype == np.float32
        self.calls.append(scored.tolist())
        for parameter in self.model.parameters():
            parameter *= 1 - 0.01 * float(nats.mean()) - 0.001 * float(scored[1])

    def restart(self) -> None:
        self.calls.append("restart")
        self.model.load_state_dict(self.initial)


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], atol: float = 2e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=atol)


def test_bits_per_byte_by_hand():
    """Three targets of 1, 2 and 3 bits over 4 bytes."""
    nats = np.array([1, 2, 3], np.float32) * math.log(2)
    assert bits_per_byte(nats, 4) == pytest.approx(1.5, abs=1e-6)


def test_bits_are_summed_in_float64():
    assert bits_per_byte(np.full(2**24 + 8, math.log(2), np.float32), 2**24 + 8) == pytest.approx(1, abs=1e-7)


def test_target_scores_are_nats_of_the_token_after_and_entropies():
    class Head:
        def head(self, hidden):  # these are logits, three above the log-probabilities
            return hidden + 3

    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)
    measured = target_scores(Head(), np.array([9, 9, 9, 9, 1, 2]))(probabilities.log(), slice(3, 5))
    assert measured["nats"].tolist() == pytest.approx([math.log(4), -math.log(0.7)])
    by_hand = [1.5 * math.log(2), -sum(p * math.log(p) for p in (0.1, 0.2, 0.7))]
    assert measured["entropy"].tolist() == pytest.approx(by_hand)


def test_scores_are_the_surprises_of_a_plain_forward_pass(tiny, shaken):
    """Within the context there is nothing to a stream: −ln softmax of the window's logits at the targets."""
    model = shaken(tiny)
    scores = score_stream(model, TOKENS, having(context=64, block=64))
    logits = model(torch.from_numpy(TOKENS[:-1].astype(np.int64))[None])[0].detach().double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = [-math.log(probabilities[i, TOKENS[i + 1]]) for i in range(40)]
    np.testing.assert_allclose(scores["nats"], expected, atol=1e-5)
    np.testing.assert_allclose(scores["entropy"], -(probabilities * np.log(probabilities)).sum(1), atol=1e-5)
    assert list(scores) == ["nats", "entropy"] and scores["nats"].dtype == scores["entropy"].dtype == np.float32


@pytest.mark.parametrize("stride", [7, 40])
def test_a_stream_equals_windows_within_one_window(tiny, shaken, stride):
    model = shaken(tiny)
    assert_same(score_stream(model, TOKENS, having(context=40, block=9)), score_windows(model, TOKENS, 40, stride))


@pytest.mark.parametrize("changes", [{}, {"segment_tokens": 9, "reset": "document", "batch": 3, "block": 4}], ids=str)
def test_a_measure_of_ones_own_sees_each_target_once_in_the_order_of_the_text(tiny, shaken, changes):
    """Here the two most likely tokens, beside which target it was."""
    model, starts = shaken(tiny), []

    def measure(hidden_TD, targets):
        starts.append(targets.start)
        order = torch.arange(targets.start, targets.stop)
        return {"likely": log_probabilities(model, hidden_TD).topk(2).indices, "target": order[: len(hidden_TD)]}

    found = score_stream(model, DOCUMENTS, having(**changes), measure=measure)
    assert found["likely"].shape == (40, 2) and found["target"].tolist() == list(range(40))
    assert starts == sorted(starts) and len(starts) > 5


@settings(max_examples=15)
@given(st.integers(1, 50), st.sampled_from([2, 5, 16, 64]), st.sampled_from(["never", "document"]))
def test_the_block_is_a_matter_of_speed(tiny, shaken, block, context, reset):
    model, told = shaken(tiny), []
    one = score_stream(model, DOCUMENTS, having(context=context, block=1, reset=reset))
    assert_same(one, score_stream(model, DOCUMENTS, having(context=context, block=block, reset=reset), advance=told.append))
    assert sum(told) == 40 and max(told) <= block


def test_the_context_counts(tiny, shaken):
    model = shaken(tiny)
    near, far = (score_stream(model, TOKENS, having(context=context))["nats"] for context in (4, 16))
    np.testing.assert_allclose(near[:4], far[:4], atol=1e-5)
    assert np.abs(near[4:] - far[4:]).max() > 0.01


@pytest.mark.parametrize("block", [1, 7, 64])
def test_with_reset_each_document_is_scored_as_if_it_were_alone(tiny, shaken, block):
    model = shaken(tiny)
    scores = score_stream(model, DOCUMENTS, having(block=block, reset="document"))
    for start, end in pairwise((0, 11, 12, 30, 40)):
        alone = score_stream(model, DOCUMENTS[start : end + 1], STREAMING)
        assert_same({name: values[start:end] for name, values in scores.items()}, alone)
    assert np.abs(scores["nats"] - score_stream(model, DOCUMENTS, STREAMING)["nats"])[12:].max() > 0.01


@pytest.mark.parametrize("reset", ["never", "document"])
@pytest.mark.parametrize(("segment", "context"), [(9, 5), (10, 16), (5, 7), (40, 8)])
def test_a_segment_is_a_stream_that_starts_a_context_earlier(tiny, shaken, segment, context, reset):
    model, changes = shaken(tiny), {"context": context, "reset": reset}
    scores = score_stream(model, DOCUMENTS, having(segment_tokens=segment, batch=1, **changes))
    for start in range(0, 40, segment):
        end, begin = min(start + segment, 40), max(0, start - context)
        alone = score_stream(model, DOCUMENTS[begin : end + 1], having(**changes))
        part = {name: values[start:end] for name, values in scores.items()}
        assert_same(part, {name: values[start - begin :] for name, values in alone.items()})
    for batch, block in ((2, 8), (64, 2), (3, 64)):
        again = having(segment_tokens=segment, batch=batch, block=block, **changes)
        assert_same(scores, score_stream(model, DOCUMENTS, again))


@given(st.integers(0, 9), st.integers(1, 60), st.integers(0, 12), st.integers(1, 4))
def test_pieces_cover_a_chunk_and_only_the_last_of_them_can_go_on(first, length, segment, batch):
    end, config = first + length, having(segment_tokens=segment, context=5)
    found = list(pieces(first, end, config))
    assert [target for piece in found for target in range(piece.first, piece.end)] == list(range(first, end))
    for index, piece in enumerate(found):
        inside = piece.first % segment > 0 if segment else piece.first > 0
        assert piece.read == (None if inside else min(5, piece.first)) and (not inside or index == 0)
    together = list(side_by_side(found, batch))
    assert [piece for group in together for piece in group] == found and max(map(len, together)) <= batch
    assert all(len({(piece.read, piece.end - piece.first) for piece in group}) == 1 for group in together)
    if segment and end % segment:
        assert len(together[-1]) == 1


@pytest.mark.parametrize(("targets", "expected"), [(40, [0, 15, 30]), (30, [0, 15]), (31, [0, 15, 30]), (15, [0]), (14, [0])])
def test_chunks_are_counted_from_the_start(targets, expected):
    assert chunks(DOCUMENTS[: targets + 1], 15, None) == list(pairwise([*expected, targets]))


@given(st.integers(2, 60), st.integers(1, 9), st.integers(0, 99))
def test_whether_a_chunk_begins_depends_on_the_tokens_before_it_only(length, chunk, seed):
    """The rule as a decoder applies it: when a document starts, or a chunk is full."""
    tokens, expected = np.random.default_rng(seed).integers(0, 6, length, dtype=np.uint16), [0]
    for target in range(1, length - 1):
        if tokens[target] == BOS or target - expected[-1] == chunk:
            expected.append(target)
    assert [first for first, _ in chunks(tokens, chunk, BOS)] == expected
    for known in range(2, length):
        shorter = [first for first, _ in chunks(tokens[:known], chunk, BOS)]
        assert shorter == [first for first in expected if first < known - 1]


@pytest.mark.parametrize(
    ("targets", "learned"), [(40, [(0, 15), (15, 30)]), (30, [(0, 15)]), (31, [(0, 15), (15, 30)]), (15, []), (14, [])]
)
def test_every_chunk_but_the_last_is_learned_when_it_and_nothing_after_it_is_scored(tiny, shaken, targets, learned):
    tokens, counts, told = DOCUMENTS[: targets + 1], [], []  # input 30 is a BOS
    training = FakeTraining(shaken(tiny), 15)
    training.learn = lambda scored, nats: told.append((sum(counts), scored.tolist(), nats))
    scores = score_stream(training.model, tokens, having(block=4), training, advance=counts.append)
    assert [(end, tokens[first : end + 1].tolist()) for first, end in learned] == [call[:2] for call in told]
    for (first, end), (_, _, nats) in zip(learned, told, strict=True):
        assert np.array_equal(nats, scores["nats"][first:end])
    assert sum(counts) == targets


def test_with_document_resets_full_chunks_of_a_document_are_learned_and_forgotten_at_the_next(tiny, shaken):
    """Documents start at inputs 0, 11, 12 and 30; chunks of 6."""
    training = FakeTraining(shaken(tiny), 6, reset_documents=True)
    score_stream(training.model, DOCUMENTS, STREAMING, training)
    learned = [DOCUMENTS[start : start + 7].tolist() for start in (0, 12, 18, 30)]
    assert training.calls == [learned[0], "restart", "restart", learned[1], learned[2], "restart", learned[3]]


@pytest.mark.parametrize("reset_documents", [False, True])
@pytest.mark.parametrize(("segment", "chunk"), [(0, 7), (8, 16), (5, 12), (14, 7), (4, 9)])
def test_learning_between_chunks_leaves_batches_and_blocks_a_matter_of_speed(tiny, shaken, segment, chunk, reset_documents):
    """Whether segments and chunks fit into each other or not."""
    found = []
    for batch, block in ((1, 1), (4, 64), (2, 3)):
        training = FakeTraining(shaken(tiny), chunk, reset_documents)
        config = having(segment_tokens=segment, batch=batch, block=block, context=6)
        found.append(score_stream(training.model, DOCUMENTS, config, training))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])
    assert np.abs(found[0]["nats"] - score_stream(shaken(tiny), DOCUMENTS, having(context=6))["nats"]).max() > 0.01


def test_scoring_keeps_no_gradients_and_entropy_is_at_most_uniform(tiny, shaken):
    model, seen = shaken(tiny), []

    def measure(hidden_TD, targets):
        seen.append(hidden_TD)
        return {}

    score_stream(model, DOCUMENTS, having(context=8), measure=measure)
    hidden_BTD = seen[-1][None, :5].expand(2, -1, -1)
    predicted = log_probabilities(model, hidden_BTD)
    assert not any(hidden_TD.requires_grad for hidden_TD in seen) and torch.is_grad_enabled()
    assert not predicted.requires_grad and predicted.shape == (2, 5, 64)
    torch.testing.assert_close(predicted.exp().sum(-1), torch.ones(2, 5))
    assert entropy(predicted[0]).max() < math.log(64)


RANKED = {"frozen": (3, None), "one stream": (0, None), "learning": (5, 12), "learning, one stream": (0, 12)}


def ranked(model, segment: int, chunk: int | None, **share) -> dict[str, np.ndarray]:
    training = FakeTraining(model, chunk) if chunk else None
    return score_stream(model, DOCUMENTS, having(segment_tokens=segment, batch=2), training, **share)


def work(rank: int, folder: Path, model) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {name: ranked(copy.deepcopy(model), *case, ranks=Ranks(rank, 2)) for name, case in RANKED.items()}
    torch.save(found, folder / f"found{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_both_have_all_scores_of_one(tiny, shaken, tmp_path):
    run_ranks(work, (tmp_path, shaken(tiny)), 2)
    found = [torch.load(tmp_path / f"found{rank}.pt", weights_only=False) for rank in range(2)]
    for name, case in RANKED.items():
        assert_same(found[0][name], found[1][name], atol=0)
        assert_same(found[0][name], ranked(shaken(tiny), *case))
