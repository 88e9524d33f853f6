"""A round trip with stand-ins in real processes: the honest one passes, and every failure is a result, never an exception."""

import json
import math
import zlib

import pytest

from fairway.proof import round_trip
from fairway.proof.fence import Limits
from fairway.proof.round_trip import PIECE, run
from tests.proof.standin import submission

TEXT = b"Fellow citizens of the Senate\0and of the House. " * 9


def test_an_honest_round_trip():
    both = run(submission(), TEXT)
    assert both.failure == "" and both.decompress.output == TEXT
    assert both.compress.output[29 + 9 :].startswith(zlib.compress(TEXT))
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
    assert both.failure == "decompress failed with status 3: ['submission.pyz']"
    assert both.decompress.output is None


def test_the_decoder_runs_beside_the_encoder_and_sees_pieces_of_one_size():
    """The encoder writes byte by byte and pauses; the decoder writes down when it got what."""
    cheat = """
import os
if command == "compress":
    for value in bytes(3 * 512 + 100):
        os.write(1, bytes([value]))
    time.sleep(1.5)
    compress = lambda text: bytes(700)
else:
    begin, sizes = time.monotonic(), []
    while part := os.read(0, 1 << 16):
        sizes.append(len(part))
        waited = time.monotonic() - begin
        begin = time.monotonic()
    decompress = lambda coded: json.dumps([sizes, waited]).encode()
"""
    both = run(submission(cheat, stdin=False), TEXT)
    sizes, waited = json.loads(both.decompress.output)
    assert both.compress.failure == "" and sum(sizes) == len(both.compress.output) == 3 * 512 + 800
    assert PIECE == 512 and all(size % PIECE == 0 for size in sizes[:-1]) and len(sizes) > 1
    assert waited < both.compress.seconds


def test_a_coder_that_fails_is_a_result():
    both = run(submission("sys.exit('error: no such thing')"), TEXT)
    assert both.failure == "compress failed with status 1: error: no such thing"
    assert both.compress.output is None and both.decompress.failure.startswith("decompress failed with status 1")


def test_a_coder_that_fails_in_the_end_leaves_a_decoder_that_fails_too():
    cheat = "if command == 'compress':\n    sys.stdout.buffer.write(compress(content)); sys.stdout.flush(); sys.exit(7)"
    both = run(submission(cheat), TEXT)
    assert both.failure == "compress failed with status 7: no message on standard error"
    assert both.compress.output is None


def test_what_was_refused_is_in_the_failure_and_in_the_report():
    ended = run(submission("open('/root/val.txt')"), TEXT).compress
    assert ended.failure.startswith("compress failed with status 1: ") and ended.sandbox_report is not None


@pytest.mark.parametrize(
    ("cheat", "failure"),
    [
        ("sys.exit()", "compress exited with status 0 but wrote no file"),
        (
            "compress = lambda text: b'short'; print = lambda *words, **more: None",
            "compress exited with status 0 but wrote no report",
        ),
        ("decompress = lambda coded: b''", "decompress exited with status 0 but wrote no file"),
        ("__import__('ctypes').string_at(0)", "compress failed with status 139: no message on standard error"),
    ],
)
def test_an_end_without_a_file_or_a_report_is_a_failure(cheat, failure):
    assert run(submission(cheat), TEXT).failure == failure


ENDLESS = "if command == '{}':\n    while True: sys.{}.buffer.write(b'x' * 65536)"


@pytest.mark.parametrize(
    ("command", "stream", "failure"),
    [
        ("compress", "stdout", f"compress wrote more than {8 * len(TEXT) + 1000:,} bytes"),
        ("decompress", "stdout", f"decompress wrote more than {len(TEXT):,} bytes"),
        ("compress", "stderr", "compress failed with status 137: it wrote more than 100,000 bytes to standard error"),
        ("decompress", "stderr", "decompress failed with status 137: it wrote more than 100,000 bytes to standard error"),
    ],
)
def test_output_without_an_end_is_cut_off(command, stream, failure, monkeypatch):
    """stderr has no line ends either."""
    monkeypatch.setattr(round_trip, "MOST_PRINTED", 100_000)
    monkeypatch.setattr(round_trip, "SPARE", 1000)
    assert run(submission(ENDLESS.format(command, stream)), TEXT).failure == failure


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_process_that_sleeps_for_ever_is_ended(command):
    both = run(submission(f"if command == '{command}': time.sleep(10**6)"), TEXT, Limits(seconds=3))
    assert both.failure.startswith(f"{command} failed with status ") and all(each.seconds < 60 for each in both)


def test_a_decoder_that_waits_for_a_coder_that_failed_is_ended(monkeypatch):
    monkeypatch.setattr(round_trip, "GRACE", 1.0)
    cheat = "if command == 'compress': sys.exit(2)\ntime.sleep(10**6)"
    both = run(submission(cheat), TEXT)
    assert both.compress.failure and both.decompress.failure.startswith("decompress failed with status 137")


REPORTS = ['{"tokens": Infinity}', '{"tokens": NaN}', "[" * 200_000, '{"a":' * 200_000, "null", "7", "\xff"]
REPORTS.append('{"tokens": ' + "9" * 5000 + "}")


@pytest.mark.parametrize("report", REPORTS, ids=range(len(REPORTS)))
def test_a_report_that_is_none_is_a_failure(report):
    cheat = f"say, print = print, lambda *words, **more: say({report!r}, file=sys.stderr)"
    both = run(submission(cheat), TEXT)
    assert both.failure == "compress exited with status 0 but wrote no report" and math.isnan(both.decompress.number("tokens"))


def test_numbers_that_are_none_are_not_a_number():
    content = '{"worst_sum": "1", "tokens": true, "bytes": 3, "blocks": 1e999, "seconds": ' + "9" * 400 + "}"
    ended = run(submission(f"say, print = print, lambda *words, **more: say({content!r}, file=sys.stderr)"), b"x").compress
    assert ended.failure == "" and ended.number("bytes") == 3
    names = ("worst_sum", "tokens", "blocks", "seconds", "normalised_positions")
    assert all(math.isnan(ended.number(name)) for name in names)


def test_what_it_says_is_passed_on_now_and_then_without_what_could_steer_a_terminal(capfd):
    cheat = "for word in ('\\x1b[31mred', 'blue', 'green'): sys.stderr.write(word + '\\n'); sys.stderr.flush(); time.sleep(0.1)"
    assert run(submission(cheat), TEXT).failure == ""
    shown = capfd.readouterr().err
    assert "compress: \\x1b[31mred\n" in shown and "\x1b" not in shown and "blue" not in shown and '"bytes"' not in shown
