import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.report import tables
from fairway.score.files import SCORE

KINDS = ("streaming", "ttt", "ngram")


def scores_of(byte_counts, seed=0):
    random = np.random.default_rng(seed)
    scores = {}
    for kind in KINDS:
        scores[kind] = np.zeros(len(byte_counts), SCORE)
        scores[kind]["bytes"] = byte_counts
        scores[kind]["nats"] = random.exponential(2.0, len(byte_counts))
    scores["ngram"]["neural"] = scores["ttt"]["nats"]
    return scores


def bits(rows):
    return sum(float(value) for value in rows["nats"]) / math.log(2)


# A stream: documents of tokens that spell 1 to 16 bytes, each followed by a BOS but the last.
documents = st.lists(st.lists(st.integers(1, 16), min_size=1, max_size=40), min_size=1, max_size=8)


def stream_of(documents):
    return [count for document in documents for count in [*document, 0]][:-1]


@given(documents, st.integers(1, 60))
def test_parts_by_position_add_up_to_the_whole(documents, bins):
    scores = scores_of(stream_of(documents))
    frame = tables.by_position(scores, bins)
    assert 1 <= len(frame) <= bins
    assert frame["position"].iloc[-1] == sum(map(sum, documents))
    sizes = np.diff([0, *frame["position"]])
    assert (sizes > 0).all()
    for kind in KINDS:
        assert (frame[kind] * sizes).sum() / sizes.sum() == pytest.approx(bits(scores[kind]) / sizes.sum(), abs=1e-6)


@given(documents, st.integers(1, 60))
def test_savings_end_with_all_that_a_learner_saves(documents, bins):
    scores = scores_of(stream_of(documents))
    frame = tables.savings(scores, bins)
    assert frame.iloc[0].tolist() == [0, 0, 0]
    assert frame["position"].iloc[-1] == sum(map(sum, documents))
    for kind in ("ttt", "ngram"):
        assert frame[kind].iloc[-1] == pytest.approx(bits(scores["streaming"]) - bits(scores[kind]), abs=1e-6)


def test_quarters_tell_where_a_learner_saves():
    scores = scores_of([2] * 8)
    scores["streaming"]["nats"] = 4 * math.log(2)
    scores["ttt"]["nats"] = np.log(2) * np.array([4, 4, 3, 3, 2, 3, 1, 1])
    scores["ngram"]["nats"] = 5 * math.log(2)
    frame = tables.quarters(scores)
    assert frame["position"].tolist() == [4, 8, 12, 16]
    assert frame["ttt_saves"].tolist() == pytest.approx([0, 0.5, 0.75, 1.5])
    assert frame["ngram_saves"].tolist() == pytest.approx([-0.5] * 4)


@given(documents)
def test_documents_add_up_to_the_whole(documents):
    scores = scores_of(stream_of(documents))
    frame = tables.by_document(scores)
    assert frame["document"].tolist() == list(range(1, len(documents) + 1))
    assert frame["bytes"].tolist() == [sum(document) for document in documents]
    for kind in KINDS:
        assert (frame[kind] * frame["bytes"]).sum() == pytest.approx(bits(scores[kind]), rel=1e-9)


def test_a_part_of_the_stream_by_hand():
    scores = scores_of([2, 2, 0, 4, 0, 8])
    for kind, factor in zip(KINDS, (1, 2, 3), strict=True):
        scores[kind]["nats"] = factor * np.log(2) * np.array([1, 2, 3, 4, 5, 6])
    found = tables.by_document(scores)
    assert found["bytes"].tolist() == [4, 4, 8]
    assert found["streaming"].tolist() == pytest.approx([6 / 4, 9 / 4, 6 / 8])  # the BOS counts with the document it ends
    assert found["ngram"].tolist() == pytest.approx([18 / 4, 27 / 4, 18 / 8])
    found = tables.by_position(scores, 2)
    assert found["position"].tolist() == [8, 16]
    assert found["ttt"].tolist() == pytest.approx([20 / 8, 22 / 8])  # cut at the token that reaches half of the bytes


def test_bos_that_ends_the_stream_is_not_lost():
    scores = scores_of([4, 0, 4, 0])
    for frame in (tables.by_document(scores), tables.by_position(scores, 2)):
        sizes = frame["bytes"] if "bytes" in frame else frame["position"].diff().fillna(frame["position"])
        assert len(frame) == 2
        assert (frame["ttt"] * sizes).sum() == pytest.approx(bits(scores["ttt"]))


def test_document_without_bytes_has_no_rate():
    frame = tables.by_document(scores_of([3, 0, 0, 5]))
    assert frame["bytes"].tolist() == [3, 0, 5]
    assert frame["ttt"].isna().tolist() == [False, True, False]


@given(documents, st.integers(1, 10))
def test_documents_from_easy_to_hard_add_up(documents, most):
    frame = tables.by_document(scores_of(stream_of(documents)))
    groups = tables.easy_to_hard(frame, most)
    assert 1 <= len(groups) <= most
    assert groups["bytes"].sum() == frame["bytes"].sum()
    assert groups["streaming"].is_monotonic_increasing
    for kind in KINDS:
        assert (groups[kind] * groups["bytes"]).sum() == pytest.approx((frame[kind] * frame["bytes"]).sum(), rel=1e-9)


def test_documents_from_easy_to_hard_by_hand():
    rates = {"streaming": [3.0, float("nan"), 1.0, 2.0], "ttt": [4.0, float("nan"), 0.5, 3.0], "ngram": [1.0] * 4}
    frame = pd.DataFrame({"document": [1, 2, 3, 4], "bytes": [10, 0, 30, 20]} | rates)
    apart = tables.easy_to_hard(frame)
    assert apart[["bytes", "streaming", "ttt"]].to_numpy().tolist() == [[30, 1, 0.5], [20, 2, 3], [10, 3, 4]]
    together = tables.easy_to_hard(frame, most=2)
    assert together["bytes"].tolist() == [30, 30]
    assert together["ttt"].tolist() == pytest.approx([0.5, (3 * 20 + 4 * 10) / 30])


@given(documents, st.integers(0, 9))
def test_orders_add_up_to_the_whole(documents, highest):
    scores = scores_of(stream_of(documents))
    rows = scores["ngram"]
    rows["order"] = np.random.default_rng(1).integers(0, highest + 1, len(rows))
    frame = tables.by_order(rows)
    assert frame["tokens"].sum() == len(rows) and frame["share"].sum() == pytest.approx(1)
    assert frame["bytes"].sum() == rows["bytes"].sum(dtype=int)
    assert frame["saved"].sum() == pytest.approx(bits(scores["ttt"]) - bits(rows), abs=1e-6)
    if (frame["bytes"] > 0).all():
        assert (frame["neural"] * frame["bytes"]).sum() == pytest.approx(bits(scores["ttt"]))
        assert (frame["mixed"] * frame["bytes"]).sum() == pytest.approx(bits(rows))


def test_orders_by_hand():
    rows = scores_of([2, 2, 0, 4])["ngram"]
    rows["order"] = 3, 1, 0, 3
    rows["neural"], rows["nats"] = (np.log(2) * np.array(bits) for bits in ([6, 2, 5, 9], [3, 4, 4, 6]))
    frame = tables.by_order(rows)
    assert frame["order"].tolist() == [0, 1, 3]
    assert frame[["tokens", "share", "bytes"]].to_numpy().tolist() == [[1, 0.25, 0], [1, 0.25, 2], [2, 0.5, 6]]
    assert frame["neural"].tolist()[1:] == pytest.approx([1, 15 / 6])
    assert frame["mixed"].tolist()[1:] == pytest.approx([2, 9 / 6])
    assert frame[["neural", "mixed"]].isna().all(axis=1).tolist() == [True, False, False]
    assert frame["saved"].tolist() == pytest.approx([1, -2, 6])


def test_bits_are_summed_in_double_precision():
    scores = scores_of([1] * 300_000)
    for rows in scores.values():
        rows["nats"] = 0.1
    found = tables.by_position(scores, 1)["streaming"].item()
    assert found == pytest.approx(float(np.float32(0.1)) / math.log(2), rel=1e-12)


METRICS = {
    "eval_sliding": {"val_bpb_float": 1.5, "val_bpb_quant": 1.625, "val_bpb_sliding": 1.25, "quant_gap_bpb": 0.125},
    "eval_ttt": {"val_bpb_ttt": 1.125, "val_bpb_cache": 1.0625},
    "eval_ngram": {"val_bpb_ngram": 1.0},
    "compress": {"artifact_bytes": 100, "headroom_bytes": 900, "code_bytes": 20, "tokenizer_bytes": 10, "bits_per_weight": 3.5},
    "train": {"parameters": 160, "train_tokens": 5000, "train_loss": 2.0},
    "certify": {},
}
CERTIFICATE = {"verdict": "proved", "legal": True, "certified_tokens": 50, "bpb": 1.01}
CERTIFICATE["estimates"] = {"eval_sliding": 1.25, "eval_ttt": 1.125, "eval_ngram": 1.0}


def test_summary_has_its_keys_in_their_order():
    assert list(tables.summary(METRICS, CERTIFICATE).items()) == [
        ("val_bpb", 1.01),
        ("val_bpb_float", 1.5),
        ("val_bpb_quant", 1.625),
        ("val_bpb_sliding", 1.25),
        ("val_bpb_ttt", 1.125),
        ("val_bpb_cache", 1.0625),
        ("val_bpb_ngram", 1.0),
        ("quant_gap_bpb", 0.125),
        ("artifact_bytes", 100),
        ("headroom_bytes", 900),
        ("code_bytes", 20),
        ("bits_per_weight", 3.5),
        ("parameters", 160),
        ("train_tokens", 5000),
        ("legal", True),
        ("certified_tokens", 50),
        ("certified_bpb", 1.01),
    ]


@pytest.mark.parametrize(("verdict", "legal"), [("proved for 50 of 99 tokens", None), ("refused", False)])
def test_the_score_of_what_is_not_all_coded_is_the_sum_of_scores(verdict, legal):
    found = tables.summary(METRICS, CERTIFICATE | {"verdict": verdict, "legal": legal})
    assert (found["val_bpb"], found["legal"], found["certified_bpb"]) == (1.0, legal, 1.01)


def test_ladder_gains_are_what_each_step_saves():
    frame = tables.ladder(METRICS)
    assert frame["stage"].tolist() == ["float", "quantized", "streaming", "TTT", "cache", "mixture"]
    assert frame["bpb"].tolist() == [1.5, 1.625, 1.25, 1.125, 1.0625, 1.0]
    assert frame["gain"].tolist()[1:] == [-0.125, 0.375, 0.125, 0.0625, 0.0625]
    assert math.isnan(frame["gain"][0])


def test_without_a_cache_there_is_no_step_of_it():
    metrics = METRICS | {"eval_ttt": {"val_bpb_ttt": 1.125}}
    frame = tables.ladder(metrics)
    assert frame["stage"].tolist() == ["float", "quantized", "streaming", "TTT", "mixture"]
    assert frame["gain"].iloc[-1] == 0.125
    assert tables.summary(metrics, CERTIFICATE).keys() == tables.summary(METRICS, CERTIFICATE).keys() - {"val_bpb_cache"}


def test_parts_of_the_artifact_add_up():
    rows = [("fp16", 3, 6), ("attention", 100, 30), ("new", 1, 1), ("attention", 56, 20), ("container", 0, 4)]
    roles = pd.DataFrame(rows, columns=["role", "weights", "bytes"])
    frame = tables.byte_parts(METRICS["compress"], roles)
    assert list(frame[["part", "bytes", "weights"]].itertuples(index=False, name=None)) == [
        ("code", 20, 0),
        ("tokenizer", 10, 0),
        ("weights: attention", 50, 156),
        ("weights: vectors and scalars", 6, 3),
        ("weights: header", 4, 0),
        ("weights: new", 1, 1),
        ("zip directory", 9, 0),
    ]
    assert frame["bytes"].sum() == METRICS["compress"]["artifact_bytes"]
