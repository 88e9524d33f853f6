"""A round trip with stand-ins in real processes: the honest one passes, and every failure is a result, never an exception."""

import math
import zlib

from fairway.proof.round_trip import run, run_in_sandbox
from tests.proof.standin import submission

TEXT = b"Fellow citizens of the Senate\0and of the House. " * 9


def test_an_honest_round_trip():
    both = run(submission(), TEXT)
    assert both.failure == "" and both.decompress.output == TEXT
    assert zlib.compress(TEXT) in both.compress.output
    assert both.compress.report["normalised_positions"] == math.ceil(len(TEXT) / 16)
    assert [each.sandbox_report["refused"] for each in both] == [[], []]
    assert all(each.seconds > 0 for each in both)


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
    both = run(submission(cheat), TEXT)
    assert both.failure == "decompress failed with status 3: ['given', 'submission.pyz']"
    assert both.decompress.output is None


def test_a_coder_that_fails_is_a_result():
    both = run(submission("sys.exit('error: no such thing')"), TEXT)
    assert both.failure == "compress failed with status 1: error: no such thing"
    assert both.decompress.sandbox_report is None and both.decompress.seconds == 0


def test_what_was_refused_is_in_the_failure_and_in_the_report():
    ended = run_in_sandbox(submission("open('/root/val.txt')"), "compress", TEXT)
    assert "status 1" in ended.failure and ended.failure.endswith("open /root/val.txt: '/root/val.txt'")
    assert ended.sandbox_report["refused"] == ["open /root/val.txt"]


def test_an_end_without_a_file_or_a_report_is_a_failure():
    assert run(submission("sys.exit()"), TEXT).failure == "compress exited with status 0 but wrote no file"
    both = run(submission("open(made, 'wb'); sys.exit()"), TEXT)
    assert both.failure == "compress exited with status 0 but wrote no report"


def test_numbers_that_are_none_are_not_a_number():
    cheat = """say, print = print, lambda text: say('{"worst_sum": "1", "tokens": true, "bytes": 3}')"""
    ended = run_in_sandbox(submission(cheat), "compress", b"x")
    assert ended.number("bytes") == 3
    assert all(math.isnan(ended.number(name)) for name in ("worst_sum", "tokens", "normalised_positions"))
