"""The line of progress that `submission.pyz` prints: now and then, or rewritten on a terminal."""

import io
import sys

import pytest

from fairway.submission import command_line


@pytest.fixture
def clock(monkeypatch):
    """Tells the seconds it was handed, one after another."""

    def set_to(*seconds: float) -> None:
        told = iter(seconds)
        monkeypatch.setattr(command_line.time, "monotonic", lambda: next(told))

    return set_to


def test_progress_is_a_line_every_five_seconds(clock, capsys):
    clock(0.0, 10.0, 11.0, 14.9, 15.0, 16.0, 20.0, 22.5)
    progress = command_line.Progress()
    progress.total = 1001
    for count in (1, 100, 100, 100, 100, 100):
        progress(count)
    assert progress.seconds() == {"start_seconds": 10.0, "seconds": 12.5}
    assert capsys.readouterr().err == (
        "30.1% of 1,001 tokens, 60 a second, 0:00:12 left\n50.0% of 1,001 tokens, 50 a second, 0:00:10 left\n"
    )


def test_on_a_terminal_one_line_is_rewritten(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    clock(0.0, 10.0, 10.1, 10.25)
    progress = command_line.Progress()
    progress.total = 10_001
    for count in (1, 50, 50):
        progress(count)
    progress.close()
    lines = sys.stderr.getvalue().split(command_line.CLEAR)
    assert lines == ["", "decoding the weights, compiling", "1.0% of 10,001 tokens, 400 a second, 0:00:25 left", ""]
