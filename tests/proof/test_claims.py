"""Every claim of the certificate on honest evidence, and on each dishonest kind, which must fail and say why.

The numbers in the results are worked out by hand here, never with the code under test.
"""

import math

import numpy as np
import pytest

from fairway.proof import claims
from fairway.proof.causality import FLIP, TRUNCATION, Change
from fairway.proof.coded import Coded
from fairway.proof.round_trip import RoundTrip, Run

TEXT = "Fellow citizens — of the Senate".encode()
STREAM = np.array([1, 20, 30, 20, 1, 40, 50], dtype=np.uint16)  # BOS first; six targets
NATS = np.full(8000, math.log(2) * 100, dtype=np.float32)  # 800,000 bits, as near as float32 has it
PAYLOAD = 100_000  # bytes: just these bits
REPORT = {"holds": ["audit hook"], "missing": ["Landlock"], "refused": [], "importable": []}


def ledger(stage: str, exposed: int = 0) -> dict:
    split = "val" if exposed else "train"
    return {"stage": stage, "learned_from": split, "tokens": 9000, "val_tokens_before_scoring": exposed}


def ran(
    decoded: bytes | None = TEXT, failure: str = "", compress: dict | None = REPORT, decompress: dict | None = REPORT
) -> RoundTrip:
    return RoundTrip(Run(b"coded", {}, compress, "", 1.0), Run(decoded, {}, decompress, failure, 1.0))


def coded(payload: int = PAYLOAD, blocks: int = 1, tokens: int = 8000) -> Coded:
    return Coded(tokens, blocks, payload)


def test_a_text_that_comes_back_is_identical():
    claim = claims.comes_back(TEXT, ran(bytes(bytearray(TEXT))))
    assert claim.passed and claim.result == "identical" and claim.amount == "33 bytes"
    assert claim.condition == "proof" and claims.comes_back(b"", ran(b"")).passed


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
    claim = claims.comes_back(TEXT, ran(decoded))
    assert not claim.passed and claim.result == result


def test_a_process_that_failed_says_why():
    claim = claims.comes_back(TEXT, ran(TEXT, "decompress failed with status 1: error: block 3 is damaged"))
    assert not claim.passed and claim.result == "decompress failed with status 1: error: block 3 is damaged"


def test_a_submission_that_asked_for_nothing():
    claim = claims.sandboxed(ran())
    assert claim.passed and claim.amount == "2 processes"
    assert claim.result == "nothing was refused (fence: audit hook; missing: Landlock)"


@pytest.mark.parametrize(
    ("compress", "decompress", "result"),
    [
        (REPORT, REPORT | {"refused": ["open /a/val.txt"]}, "decompress tried to open /a/val.txt"),
        (REPORT | {"refused": ["a b", "c d"]}, REPORT, "compress tried to a b; compress tried to c d"),
        (REPORT | {"importable": ["fairway"]}, REPORT, "fairway can be imported from outside the submission"),
        (REPORT, None, "decompress left no sandbox report"),
    ],
)
def test_a_submission_that_asked_for_more_is_named(compress, decompress, result):
    claim = claims.sandboxed(ran(compress=compress, decompress=decompress))
    assert not claim.passed and claim.result == result


def test_a_decoder_that_never_ran_proves_nothing():
    claim = claims.sandboxed(ran()._replace(decompress=Run(None, {}, None, "compress failed", 0.0)))
    assert not claim.passed and claim.result == "decompress never ran"


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
    claim = claims.coded_bits(coded(payload), 8000, NATS.astype(np.float64))
    assert claim.passed is passed and claim.condition == "single pass"
    assert claim.result == f"{8 * payload:,} bits coded, 800,000 scored: {percent}"


def test_each_block_may_spare_64_bits():
    assert not claims.coded_bits(coded(PAYLOAD + 115, 1), 8000, NATS).passed
    assert claims.coded_bits(coded(PAYLOAD + 115, 2), 8000, NATS).passed
    assert not claims.coded_bits(coded(PAYLOAD + 117, 2), 8000, NATS).passed


def test_a_reported_score_that_was_lowered_fails():
    assert claims.coded_bits(coded(), 8000, NATS).passed
    lowered = NATS.copy()
    lowered[:40] /= 2  # 0.25 % of the bits
    claim = claims.coded_bits(coded(), 8000, lowered)
    assert not claim.passed and claim.result == "800,000 bits coded, 798,000 scored: +0.2506 %"
    assert claim.amount == "8,000 tokens"


def test_scores_are_summed_in_double_precision():
    """A sum above 2²⁶ is a multiple of 8 in float32."""
    nats = np.full(1001, 123_456.7, dtype=np.float32)
    exact = math.fsum(nats.tolist()) / math.log(2)
    claim = claims.coded_bits(coded(round(exact / 8), tokens=1001), 1001, nats)
    assert claim.passed and f" bits coded, {exact:,.0f} scored: " in claim.result


def test_a_score_that_is_no_number_fails():
    for value in (math.nan, math.inf):
        assert not claims.coded_bits(coded(), 8000, np.append(NATS[1:], value)).passed


@pytest.mark.parametrize(("tokens", "rows", "count"), [(7999, 8000, "7,999"), (8000, 7999, "8,000"), (0, 8000, "0")])
def test_fewer_tokens_than_were_given_fail(tokens, rows, count):
    claim = claims.coded_bits(coded(tokens=tokens), 8000, NATS[:rows])
    assert not claim.passed and claim.result == f"{count} tokens coded, {rows:,} scored, expected 8,000 of both"


def test_a_text_that_was_not_coded_says_why():
    claim = claims.coded_bits("compress failed with status 1: no", 8000, NATS)
    assert not claim.passed and claim.result == "compress failed with status 1: no"


@pytest.mark.parametrize("error", [0.0, 1e-7, -5e-7])
def test_probabilities_must_sum_to_one(error):
    claim = claims.normalised(1 + error, 6000)
    assert claim.passed is True and claim.condition == "normalised"
    assert claim.amount == "6,000 positions" and claim.result == f"|sum − 1| ≤ {abs(1 + error - 1):.1e}"


@pytest.mark.parametrize(("worst", "named"), [(1.00001, "1.00001"), (0.5, "0.5"), (85.52134, "85.5213"), (math.nan, "nan")])
def test_a_sum_that_is_not_one_is_named(worst, named):
    claim = claims.normalised(worst, 60)
    assert claim.passed is False and claim.result == f"a sum is {named}"


def test_sums_must_have_been_taken():
    claim = claims.normalised(1.0, 3, 500)
    assert not claim.passed and claim.result == "summed at 3 positions, expected 500"


def test_scores_of_probabilities():
    claim = claims.probabilities({"eval_ttt": NATS, "eval_ngram": np.zeros(3, np.float32)})
    assert claim.passed and claim.condition == "normalised" and claim.amount == "8,003 rows"


@pytest.mark.parametrize(("value", "said"), [(-0.5, "-0.5"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_probability_above_one_or_none_at_all_is_named(value, said):
    nats = NATS.copy()
    nats[[17, 400]] = value
    claim = claims.probabilities({"eval_ttt": NATS, "eval_ngram": nats})
    assert not claim.passed and claim.result == f"eval_ngram: token 17 scores {said} nats, and 1 others are as wrong"


def test_earlier_scores_that_stay_are_causal():
    claim = claims.causal([Change(3500, FLIP, 0.0), Change(4500, TRUNCATION, 9e-6)], 6000)
    assert claim.passed and claim.amount == "6,000 tokens" and claim.condition == "causal"
    assert claim.result == "earlier scores move by at most 9.0e-06 nats (the end of the text at position 4,500)"


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("change", [2e-5, 0.3, math.nan, math.inf])
def test_one_earlier_score_that_moved_fails_and_says_where(place, change):
    changes = [Change(3100, FLIP, 0.0), Change(3200, FLIP, 1e-7), Change(3300, FLIP, 0.0)]
    changes[place] = changes[place]._replace(nats=change)
    claim = claims.causal(changes, 6000)
    assert not claim.passed
    where = f"another token at position {changes[place].position:,}"
    assert claim.result == f"earlier scores move by at most {change:.1e} nats ({where})"


def test_scores_that_one_pass_gives_again():
    reported = {"eval_ttt": NATS, "eval_ngram": NATS / 2}
    claim = claims.reproduced(reported, {name: nats[:4000] + np.float32(5e-5) for name, nats in reported.items()})
    assert claim.passed and claim.amount == "4,000 tokens" and claim.condition == "single pass"


@pytest.mark.parametrize("value", [0.125, math.nan])
def test_a_score_of_another_making_is_named_with_both_values(value):
    reported = {"eval_ttt": np.full(9, 0.25, np.float32), "eval_ngram": np.full(9, 0.5, np.float32)}
    reported["eval_ngram"][[3, 5]] = value
    claim = claims.reproduced(reported, {"eval_ttt": np.full(6, 0.25), "eval_ngram": np.full(6, 0.5)})
    assert not claim.passed
    assert claim.result == f"eval_ngram: token 3 is reported with {value:.6g} nats, scored with 0.5"


def test_rows_that_are_missing_cannot_be_reproduced():
    claim = claims.reproduced({"eval_ttt": np.zeros(3)}, {"eval_ttt": np.zeros(4)})
    assert not claim.passed and claim.result == "eval_ttt: 3 rows, expected at least 4"


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


def test_ledgers_without_validation_tokens():
    claim = claims.unexposed([ledger("train"), ledger("prequant_ttt"), ledger("quant")])
    assert claim.passed and claim.amount == "3 stages"
    assert claim.how == "exposure ledgers of train, prequant_ttt, quant: the stages' own word"
    assert claim.result == "no validation token was learned from before it was scored"


def test_a_ledger_with_validation_tokens_fails_and_names_the_stage():
    claim = claims.unexposed([ledger("train"), ledger("prequant_ttt", 12_345), ledger("quant", 1)])
    assert not claim.passed
    assert claim.result == (
        "prequant_ttt learned from 12,345 validation tokens first; quant learned from 1 validation tokens first"
    )
