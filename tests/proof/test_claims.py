"""Every claim of the certificate on honest evidence, and on each dishonest kind, which must fail and say why.

The numbers in the results are worked out by hand here, never with the code under test.
"""

import math

import numpy as np
import pytest

from fairway.proof import claims

TEXT = "Fellow citizens — of the Senate".encode()
STREAM = np.array([1, 20, 30, 20, 1, 40, 50], dtype=np.uint16)  # BOS first; six targets
DOCUMENTS = [" a €", "b"]  # 6 and 1 bytes, the first begins with a space
NATS = np.full(8000, math.log(2) * 100, dtype=np.float32)  # 800,000 bits, as near as float32 has it
PAYLOAD = 100_000  # bytes: just these bits


def ledger(stage: str, exposed: int = 0) -> dict:
    split = "val" if exposed else "train"
    return {"stage": stage, "learned_from": split, "tokens": 9000, "val_tokens_before_scoring": exposed}


def test_a_text_that_comes_back_is_identical():
    claim = claims.round_trip(TEXT, bytes(bytearray(TEXT)))
    assert claim.passed and claim.result == "identical" and claim.amount == "33 bytes"
    assert claims.round_trip(b"", b"").passed


@pytest.mark.parametrize(
    ("decoded", "result"),
    [
        (TEXT[:7] + bytes([TEXT[7] ^ 1]) + TEXT[8:], "differs from byte 7 on (33 bytes decoded)"),
        (bytes([TEXT[0] ^ 128]) + TEXT[1:], "differs from byte 0 on (33 bytes decoded)"),
        (TEXT[:-1], "differs from byte 32 on (32 bytes decoded)"),
        (TEXT + b"\0", "differs from byte 33 on (34 bytes decoded)"),
        (b"", "differs from byte 0 on (0 bytes decoded)"),
    ],
    ids=["changed", "changed at the start", "shortened", "lengthened", "empty"],
)
def test_a_text_that_comes_back_otherwise_fails(decoded, result):
    claim = claims.round_trip(TEXT, decoded)
    assert not claim.passed and claim.result == result


@pytest.mark.parametrize(
    ("payload", "passed", "percent"),
    [
        (PAYLOAD + 1, True, "+0.0010 %"),
        (PAYLOAD + 100, True, "+0.1000 %"),  # 0.1 % and 64 bits are allowed
        (PAYLOAD + 107, True, "+0.1070 %"),
        (PAYLOAD - 107, True, "-0.1070 %"),
        (PAYLOAD + 109, False, "+0.1090 %"),
        (PAYLOAD - 109, False, "-0.1090 %"),
        (PAYLOAD + 200, False, "+0.2000 %"),
        (PAYLOAD - 200, False, "-0.2000 %"),  # fewer bits than reported is a wrong report as well
    ],
)
def test_coded_bits_must_be_the_scored_bits(payload, passed, percent):
    claim = claims.coded_bits(payload, NATS.astype(np.float64))
    assert claim.passed is passed
    assert claim.result == f"{8 * payload:,} bits coded, 800,000 scored: {percent}"


def test_a_reported_score_that_was_lowered_fails():
    assert claims.coded_bits(PAYLOAD, NATS).passed
    lowered = NATS.copy()
    lowered[:40] /= 2  # 0.25 % of the bits
    claim = claims.coded_bits(PAYLOAD, lowered)
    assert not claim.passed and claim.result == "800,000 bits coded, 798,000 scored: +0.2506 %"
    assert claim.amount == "8,000 tokens"


def test_scores_are_summed_in_double_precision():
    """A sum above 2²⁶ is a multiple of 8 in float32."""
    nats = np.full(1001, 123_456.7, dtype=np.float32)
    exact = math.fsum(nats.tolist()) / math.log(2)
    claim = claims.coded_bits(round(exact / 8), nats)
    assert claim.passed and f" bits coded, {exact:,.0f} scored: " in claim.result


def test_a_score_that_is_no_number_fails():
    for value in (math.nan, math.inf):
        assert not claims.coded_bits(PAYLOAD, np.append(NATS, value)).passed


@pytest.mark.parametrize("error", [0.0, 1e-7, -5e-7])
def test_probabilities_must_sum_to_one(error):
    claim = claims.normalised(1 + error, 6000)
    assert claim.passed is True
    assert claim.amount == "6,000 positions" and claim.result == f"|sum − 1| ≤ {abs(1 + error - 1):.1e}"


@pytest.mark.parametrize(("worst", "named"), [(1.00001, "1.00001"), (0.5, "0.5"), (85.52134, "85.5213"), (math.nan, "nan")])
def test_a_sum_that_is_not_one_is_named(worst, named):
    claim = claims.normalised(worst, 60)
    assert claim.passed is False and claim.result == f"a sum is {named}"


def test_earlier_scores_that_stay_are_causal():
    claim = claims.causal([(3500, 0.0), (4500, 9e-6)], 6000)
    assert claim.passed and claim.amount == "6,000 tokens"
    assert claim.result == "earlier scores move by at most 9.0e-06 nats (position 4,500)"


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("change", [2e-5, 0.3, math.nan, math.inf])
def test_one_earlier_score_that_moved_fails_and_says_where(place, change):
    changes = [(3100, 0.0), (3200, 1e-7), (3300, 0.0)]
    changes[place] = (changes[place][0], change)
    claim = claims.causal(changes, 6000)
    assert not claim.passed
    assert claim.result == f"earlier scores move by at most {change:.1e} nats (position {changes[place][0]:,})"


def test_rows_that_are_the_stream_are_scored_once():
    claim = claims.scored_once(STREAM, {"eval_sliding": STREAM[1:].copy(), "eval_ttt": STREAM[1:].copy()})
    assert claim.passed and claim.amount == "6 tokens"
    assert claim.result == "in order, none twice, none missing"


@pytest.mark.parametrize(
    "rows",
    [
        np.delete(STREAM[1:], 2),
        STREAM[1:-1],
        STREAM[2:],
        STREAM,
        np.insert(STREAM[1:], 2, STREAM[2]),
        STREAM[[1, 3, 2, 4, 5, 6]],
        STREAM[1:] + np.eye(6, dtype=np.uint16)[5],
        STREAM[:0],
    ],
    ids=["skipped", "last skipped", "first skipped", "BOS too", "doubled", "reordered", "changed", "none"],
)
def test_rows_that_are_not_the_stream_fail_by_name(rows):
    good = STREAM[1:].copy()
    claim = claims.scored_once(STREAM, {"eval_sliding": good, "eval_ttt": rows, "eval_ngram": good})
    assert not claim.passed and claim.result == "eval_ttt: rows are not the tokens of the stream"


def test_bytes_are_those_of_the_text():
    claim = claims.bytes_of_text(DOCUMENTS, 7, 7)
    assert claim.passed and claim.amount == "2 documents"
    assert claim.result == "7 in the text, 7 in the scores, 7 by the challenge's table"


@pytest.mark.parametrize("counted", [8, 6, 5, 0, 14])  # 5: characters instead of bytes; 8: the NUL between documents
def test_bytes_miscounted_fail(counted):
    claim = claims.bytes_of_text(DOCUMENTS, counted, 7)
    assert not claim.passed
    assert claim.result == f"7 in the text, {counted} in the scores, 7 by the challenge's table"


def test_the_challenges_own_count_is_explained_where_it_can_be():
    explained = claims.bytes_of_text(DOCUMENTS, 7, 6)
    assert explained.passed and explained.result.endswith(
        "6 by the challenge's table (which leaves out the space that begins 1 documents)"
    )
    assert claims.bytes_of_text(DOCUMENTS, 7, 9).result.endswith("9 by the challenge's table")
    assert not claims.bytes_of_text(DOCUMENTS, 6, 6).passed  # agreeing with the table is not enough


def test_a_validation_set_that_is_whole():
    claim = claims.complete(" a €\0b".encode(), DOCUMENTS)
    assert claim.passed and claim.result == "identical" and claim.amount == "2 documents"


@pytest.mark.parametrize("decoded", [" a €", "b", " a €b", "b\0 a €", " a €\0b\0", " a €\0c", ""])
def test_a_document_missing_or_changed_fails(decoded):
    claim = claims.complete(decoded.encode(), DOCUMENTS)
    assert not claim.passed and claim.result == "the tokens spell another text than the documents"


def test_ledgers_without_validation_tokens():
    claim = claims.unexposed([ledger("train"), ledger("prequant_ttt"), ledger("quant")])
    assert claim.passed and claim.amount == "3 stages"
    assert claim.how == "exposure ledgers of train, prequant_ttt, quant"
    assert claim.result == "no validation token was learned from before it was scored"


def test_a_ledger_with_validation_tokens_fails_and_names_the_stage():
    claim = claims.unexposed([ledger("train"), ledger("prequant_ttt", 12_345), ledger("quant", 1)])
    assert not claim.passed
    assert claim.result == (
        "prequant_ttt learned from 12,345 validation tokens first; quant learned from 1 validation tokens first"
    )


@pytest.mark.parametrize(("size", "passed"), [(1, True), (16_000_000, True), (16_000_001, False)])
def test_the_budget_holds_to_the_byte(size, passed):
    claim = claims.within_budget(size, 16_000_000)
    assert claim.passed is passed and claim.result == f"{size:,} of 16,000,000 bytes"
