"""The rules of data, bytes and time on honest evidence, and on each way to bend them."""

import numpy as np
import pytest

from fairway.proof import clocks, rules
from fairway.proof.clocks import Clock

DOCUMENTS = [" a €", "b"]  # 6 and 1 bytes, the first begins with a space
PIECES = [b"", b"\0", b" the", b"x", "é".encode(), b"\xff"]
LENGTHS = np.array([0, 0, 4, 1, 2, 1])
MEBIBYTES = "(16,777,216 would be 16 MiB; the challenge counts decimal)"
STREAM = np.array([1, 2, 3, 1, 4, 5], dtype=np.uint16)
COUNTS = np.array([4, 1, 0, 2, 1], dtype=np.uint8)
TIMINGS = {
    "train": {"seconds": 452.1, "compile_seconds": 56.4},
    "prequant_ttt": {"seconds": 37.5},
    "quant": {"seconds": 23.5, "calibration_seconds": 17.5},
    "compress": {"seconds": 7.0, "encode_seconds": 4.0, "decode_seconds": 0.5},
    "eval_sliding": {"seconds": 12.0},
    "eval_ttt": {"seconds": 91.0},
    "eval_ngram": {"seconds": 5.0},
}


def test_a_validation_set_that_is_whole():
    claim = rules.complete(" a €\0b".encode(), DOCUMENTS, 2)
    assert claim.passed and claim.result == "identical" and claim.amount == "2 documents" and claim.condition == "rules"
    assert rules.complete(" a €\0b".encode(), DOCUMENTS, 0).passed


@pytest.mark.parametrize("decoded", [" a €", "b", " a €b", "b\0 a €", " a €\0b\0", " a €\0c", ""])
def test_a_document_missing_or_changed_fails(decoded):
    claim = rules.complete(decoded.encode(), DOCUMENTS, 2)
    assert not claim.passed and claim.result == "the tokens spell another text than the documents"


def test_a_validation_set_of_another_size_fails():
    claim = rules.complete(" a €\0b".encode(), DOCUMENTS, 50_000)
    assert not claim.passed and claim.result == "2 documents, certify.val_documents asks for 50,000"


def test_tokens_that_count_their_bytes():
    claim = rules.bytes_of_tokens(STREAM, {"eval_ttt": COUNTS, "eval_ngram": COUNTS}, PIECES, LENGTHS)
    assert claim.passed and claim.amount == "5 tokens"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([5, 1, 0, 2, 1], "token 0 ' the' counts 5 bytes, spells 4"),  # the leading space twice
        ([4, 1, 1, 2, 1], r"token 2 '\x00' counts 1 bytes, spells 0"),
        ([4, 1, 0, 1, 1], "token 3 'é' counts 1 bytes, spells 2"),  # characters
        ([4, 1, 0, 2, 3], r"token 4 '\xff' counts 3 bytes, spells 1"),  # a byte piece as U+FFFD
        ([4, 1, 0, 3, 0], "token 3 'é' counts 3 bytes, spells 2"),  # the sum is right
        ([4, 1, 0, 2], "4 rows for 5 tokens"),
    ],
)
def test_the_first_token_that_counts_otherwise_is_named(counts, said):
    claim = rules.bytes_of_tokens(STREAM, {"eval_ttt": COUNTS, "eval_ngram": np.array(counts, np.uint8)}, PIECES, LENGTHS)
    assert not claim.passed and claim.result == f"eval_ngram: {said}"


def test_bytes_are_those_of_the_text():
    claim = rules.bytes_of_text(DOCUMENTS, {"eval_ttt": 7, "eval_ngram": 7}, 7)
    assert claim.passed and claim.amount == "2 documents"
    assert claim.result == "7 in the text, 7 in the scores, 7 by the challenge's table"


def test_a_nul_in_a_document_is_no_byte():
    assert rules.bytes_of_text([" a\0 b", "c"], {"eval_ngram": 5}, 3).result.endswith("the space that begins 2 documents)")
    assert rules.bytes_of_text([" a\0 b", "c"], {"eval_ngram": 5}, 3).passed


@pytest.mark.parametrize("counted", [8, 6, 5, 0, 14])  # 5: characters instead of bytes; 8: the NUL between documents
def test_bytes_miscounted_fail(counted):
    claim = rules.bytes_of_text(DOCUMENTS, {"eval_ttt": 7, "eval_ngram": counted}, 7)
    assert not claim.passed
    assert claim.result == f"7 in the text, eval_ngram {counted} in the scores, 7 by the challenge's table"


def test_the_challenges_own_count_is_explained_where_it_can_be():
    explained = rules.bytes_of_text(DOCUMENTS, {"eval_ngram": 7}, 6)
    assert explained.passed and explained.result.endswith(
        "6 by the challenge's table (which leaves out the space that begins 1 documents)"
    )
    assert rules.bytes_of_text(DOCUMENTS, {"eval_ngram": 7}, 9).result.endswith("9 by the challenge's table")
    assert not rules.bytes_of_text(DOCUMENTS, {"eval_ngram": 6}, 6).passed  # agreeing with the table is not enough


@pytest.mark.parametrize(
    ("size", "budget", "passed", "result"),
    [
        (1, 16_000_000, True, "1 of 16,000,000 bytes"),
        (16_000_000, 20_000_000, True, "16,000,000 of 16,000,000 bytes"),
        (5001, 5000, False, "5,001 of 5,000 bytes"),
        (
            16_000_001,
            20_000_000,
            False,
            "16,000,001 of 16,000,000 bytes (16,777,216 would be 16 MiB; the challenge counts decimal)",
        ),
        (17_000_000, 20_000_000, False, "17,000,000 of 16,000,000 bytes"),
    ],
)
def test_the_budget_holds_to_the_byte(size, budget, passed, result):
    claim = rules.within_budget(size, budget)
    assert claim.passed is passed and claim.result == result


@pytest.mark.parametrize(("part", "seconds", "limit"), [("train", 507.1, 508), ("eval", 96.5, 97)])
def test_the_clocks_of_a_part_are_added_up(part, seconds, limit):
    known = clocks.read(TIMINGS)
    assert clocks.total([clock for clock in known if clock.part == part]) == pytest.approx(seconds)
    claim = rules.within_time(part, known, limit)
    assert claim.passed and claim.result == f"within {limit} s"  # no seconds: they differ from run to run
    assert not rules.within_time(part, known, limit - 1).passed


def test_time_that_was_overrun_is_told_clock_by_clock():
    claim = rules.within_time("train", clocks.read(TIMINGS), 500)
    assert not claim.passed
    assert claim.result == "507.1 s of 500 s (certify.train_seconds): train 452.1, prequant_ttt 37.5, calibration 17.5"


def test_a_clock_that_is_missing_proves_nothing():
    known = clocks.read({name: timing for name, timing in TIMINGS.items() if name not in ("eval_ttt", "compress")})
    claim = rules.within_time("eval", known, 900)
    assert not claim.passed
    assert claim.result.startswith("no clock of decode weights, score (eval_ttt): expected seconds, a number from 0")
    assert rules.within_time("train", known, 600).passed


def test_without_a_limit_no_clock_is_asked_for():
    claim = rules.within_time("eval", clocks.read({}), 0)
    assert claim.passed and claim.result == "no limit was set (certify.eval_seconds is 0)"


@pytest.mark.parametrize("value", [-5.0, float("nan"), float("inf"), "soon", None, True, [1], 10**400])
def test_a_clock_that_is_no_time_proves_nothing(value):
    known = clocks.read(TIMINGS | {"train": {"seconds": value}})
    claim = rules.within_time("train", known, 600)
    assert not claim.passed and claim.result.startswith("no clock of train: expected seconds")


def test_a_part_cannot_take_longer_than_the_whole():
    timings = TIMINGS | {"quant": {"seconds": 5.0, "calibration_seconds": 17.5}}
    known = {clock.name: clock for clock in clocks.read(timings)}
    assert known["quantise"].seconds is None and known["calibration"].seconds == 17.5


def test_every_part_has_a_clock_of_its_own():
    known = {clock.name: clock for clock in clocks.read(TIMINGS)}
    assert known["quantise"] == Clock("quantise", "", 6.0) and known["compile (train)"].seconds == 56.4
    assert known["compress weights"].seconds == 4.0 and known["score (eval_sliding)"].part == ""
    assert all(clock.seconds is None for clock in clocks.read({}))
