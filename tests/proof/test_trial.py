"""A trial with stand-ins in real processes: the honest one passes, and every failure is a result, never an exception."""

import math
import zlib

from fairway.proof.trial import round_trip, run_alone
from tests.proof.standin import submission

TEXT = b"Fellow citizens of the Senate\0and of the House. " * 9


def test_an_honest_round_trip():
    trial = round_trip(submission(), TEXT)
    assert trial.failure == "" and trial.decompress.output == TEXT
    assert trial.compress.output.endswith(zlib.compress(TEXT))
    assert trial.compress.report["normalised_positions"] == math.ceil(len(TEXT) / 16)
    assert [run.fence["refused"] for run in trial] == [[], []]
    assert all(run.seconds > 0 for run in trial)


def test_the_decoder_is_not_left_the_text_nor_anything_of_the_coders():
    """A coder that writes down the text, and a decoder that looks for it everywhere in its folder."""
    cheat = """
import os
if command == "compress":
    open("notes", "wb").write(content)
else:
    print(sorted(os.listdir()), file=sys.stderr)
    sys.exit(3)
"""
    trial = round_trip(submission(cheat), TEXT)
    assert trial.failure == "decompress failed with status 3: ['given', 'submission.pyz']"
    assert trial.decompress.output is None


def test_a_coder_that_fails_is_a_result():
    trial = round_trip(submission("sys.exit('error: no such thing')"), TEXT)
    assert trial.failure == "compress failed with status 1: error: no such thing"
    assert trial.decompress.fence is None and trial.decompress.seconds == 0


def test_what_was_refused_is_in_the_failure_and_in_the_report():
    run = run_alone(submission("open('/root/val.txt')"), "compress", TEXT)
    assert "status 1" in run.failure and run.failure.endswith("open /root/val.txt: '/root/val.txt'")
    assert run.fence["refused"] == ["open /root/val.txt"]


def test_an_end_without_a_file_or_a_report_is_a_failure():
    assert round_trip(submission("sys.exit()"), TEXT).failure == "compress ended well, but wrote no file"
    trial = round_trip(submission("open(made, 'wb'); sys.exit()"), TEXT)
    assert trial.failure == "compress ended well, but wrote no report"


def test_numbers_that_are_none_are_not_a_number():
    cheat = """say, print = print, lambda text: say('{"worst_sum": "1", "tokens": true, "bytes": 3}')"""
    run = run_alone(submission(cheat), "compress", b"x")
    assert run.number("bytes") == 3
    assert all(math.isnan(run.number(name)) for name in ("worst_sum", "tokens", "normalised_positions"))
