"""Every claim of the certificate on honest evidence, and on each dishonest kind, which must fail and say why.

The numbers in the results are worked out by hand here, never with the code under test.
"""

import math

import numpy as np
import pytest

from fairway.proof import claims
from fairway.proof.causality import FLIP, TRUNCATION, Change
from fairway.proof.coded import BLOCK_TOKENS, Coded
from fairway.proof.ledgers import Ledger
from fairway.proof.round_trip import RoundTrip, Run

TEXT = "Fellow citizens — of the Senate".encode()
STREAM = np.array([1, 20, 30, 20, 1, 40, 50], dtype=np.uint16)  # BOS first; six targets
NATS = np.full(8000, math.log(2) * 100, dtype=np.float32)  # 800,000 bits, as near as float32 has it
PAYLOAD = 100_000  # bytes: just these bits
REPORT = {"holds": ["audit hook"], "missing": ["Landlock"], "refused": [], "importable": []}


def ran(
    decoded: bytes | None = TEXT, failure: str = "", compress: dict | None = REPORT, decompress: dict | None = REPORT
) -> RoundTrip:
    return RoundTrip(Run(b"coded", {}, compress, "", 1.0), Run(decoded, {}, decompress, failure, 1.0))


def coded(payload: int = PAYLOAD, tokens: int = 8000) -> Coded:
    return Coded(tokens, (payload,))


def costs(coded: Coded | str, tokens: int = 8000, nats: np.ndarray = NATS, depth: int = 10, whole: bool = True) -> claims.Claim:
    return claims.coded_bits(coded, tokens, nats, depth, whole)


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
        (PAYLOAD + 4, True, "+0.0040 %"),  # a word to end in
        (PAYLOAD, True, "-0.0000 %"),
        (PAYLOAD + 100, True, "+0.1000 %"),  # 0.1 % is allowed, and what 80,000 decisions cost: 10 bits
        (PAYLOAD + 108, False, "+0.1080 %"),
        (PAYLOAD - 96, True, "-0.0960 %"),
        (PAYLOAD - 100, False, "-0.1000 %"),  # fewer bits than reported is a wrong report as well
        (PAYLOAD + 200, False, "+0.2000 %"),
        (PAYLOAD - 200, False, "-0.2000 %"),
    ],
)
def test_coded_bits_must_be_the_scored_bits(payload, passed, percent):
    claim = costs(coded(payload), nats=NATS.astype(np.float64))
    assert claim.passed is passed and claim.condition == "single pass"
    assert claim.result.startswith(f"{8 * payload:,} bits coded, 800,000 scored: {percent}")
    assert claim.result.endswith(f"; block 1 has {8 * payload:,} bits, its scores are 800,000") is not passed


@pytest.mark.parametrize(("bits", "words"), [(0.5, 1), (31.9, 1), (32.2, 2), (100.5, 4), (9010, 282)])
def test_a_block_of_few_bits_has_exactly_the_words_that_they_fill_and_one_more(bits, words):
    """No slack of a constant size: what 16 tokens cost is not hidden in it."""
    nats = np.full(16, bits * math.log(2) / 16)
    assert costs(Coded(16, (4 * words,)), 16, nats).passed
    assert not any(costs(Coded(16, (4 * other,)), 16, nats).passed for other in (words - 1, words + 1, words + 2))


def test_what_the_decisions_of_predictable_tokens_cost_is_counted():
    """A block of tokens of 0.01 bits: 60 decisions each lose 128 bits, most of what is coded."""
    nats = np.full(BLOCK_TOKENS, 0.01 * math.log(2))
    size = 4 * (math.floor((0.01 * BLOCK_TOKENS + 128) / 32) + 1)
    assert costs(Coded(BLOCK_TOKENS, (size,)), BLOCK_TOKENS, nats, depth=60).passed
    assert not costs(Coded(BLOCK_TOKENS, (size,)), BLOCK_TOKENS, nats, depth=1).passed


def test_every_block_is_compared_by_itself():
    """Scores moved from one block to another add up, and are wrong in both."""
    count = BLOCK_TOKENS + 500
    nats = np.full(count, math.log(2))
    honest = Coded(count, (4 * (BLOCK_TOKENS // 32 + 1), 4 * (500 // 32 + 1)))
    assert costs(honest, count, nats).passed
    nats[:400], nats[-400:] = 0, 2 * math.log(2)
    claim = costs(honest, count, nats)
    assert not claim.passed and claim.result.endswith(
        f"; block 1 has {8 * honest.payloads[0]:,} bits, its scores are {BLOCK_TOKENS - 400:,}, and 1 others are as far off"
    )


def test_a_part_of_the_text_proves_nothing_if_it_is_too_short():
    few, many = np.full(500, 32 * math.log(2)), np.full(1000, 32 * math.log(2))
    claim = costs(Coded(500, (4 * 501,)), 500, few, whole=False)
    assert not claim.passed
    assert claim.result.endswith("; 2,004 bytes of code words are too few, expected 4,000: raise certify.tokens")
    assert costs(Coded(500, (4 * 501,)), 500, few).passed and costs(Coded(1000, (4 * 1001,)), 1000, many, whole=False).passed


def test_a_reported_score_that_was_lowered_fails():
    assert costs(coded()).passed
    lowered = NATS.copy()
    lowered[:40] /= 2  # 0.25 % of the bits
    claim = costs(coded(), nats=lowered)
    assert not claim.passed and claim.result.startswith("800,000 bits coded, 798,000 scored: +0.2506 %; block 1 has")
    assert claim.amount == "8,000 tokens"


def test_scores_are_summed_in_double_precision():
    """A sum above 2²⁶ is a multiple of 8 in float32."""
    nats = np.full(1001, 123_456.7, dtype=np.float32)
    exact = math.fsum(nats.tolist()) / math.log(2)
    claim = costs(coded(round(exact / 8), tokens=1001), 1001, nats)
    assert claim.passed and f" bits coded, {exact:,.0f} scored: " in claim.result


def test_a_score_that_is_no_number_fails():
    for value in (math.nan, math.inf, -math.inf):
        assert not costs(coded(), nats=np.append(NATS[1:], value)).passed


@pytest.mark.parametrize(("tokens", "rows", "count"), [(7999, 8000, "7,999"), (8000, 7999, "8,000"), (0, 8000, "0")])
def test_fewer_tokens_than_were_given_fail(tokens, rows, count):
    claim = costs(coded(tokens=tokens), nats=NATS[:rows])
    assert not claim.passed and claim.result == f"{count} tokens coded, {rows:,} scored, expected 8,000 of both"


def test_a_text_that_was_not_coded_says_why():
    claim = costs("compress failed with status 1: no")
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


LEARNED = {"train": Ledger("train", 9000, 0), "prequant_ttt": Ledger("holdout", 90, 0), "quant": Ledger("train", 0, 0)}


def test_ledgers_without_validation_tokens():
    claim = claims.unexposed(LEARNED)
    assert claim.passed and claim.amount == "3 stages"
    assert claim.how == "exposure ledgers of train, prequant_ttt, quant: the stages' own word"
    assert claim.result == "no validation token was learned from before it was scored"


def test_a_ledger_with_validation_tokens_fails_and_names_the_stage():
    claim = claims.unexposed(LEARNED | {"prequant_ttt": Ledger("val", 12_345, 12_345), "quant": "no ledger"})
    assert not claim.passed and claim.result == "quant: no ledger; prequant_ttt learned from 12,345 validation tokens first"


def test_an_artifact_that_cannot_be_read_says_why():
    assert claims.readable("").passed
    claim = claims.readable("tokenizer.model: missing")
    assert not claim.passed and claim.condition == "proof" and claim.result == "tokenizer.model: missing"
