"""The fuzz on hostile files, for seconds; and it notices what it is there to notice."""

import os
import sys
import time

import numpy as np
import pytest

from bench import fuzz


@pytest.fixture(scope="module")
def course():
    """Undoes what it changes of the modules it works with."""
    block, submission, arguments = fuzz.text.BLOCK, fuzz.command_line.Submission, sys.argv
    yield fuzz.course()
    fuzz.text.BLOCK, fuzz.command_line.Submission, sys.argv = block, submission, arguments


@pytest.mark.parametrize("kind", ["fwt", "fwy", "settings", "json"])
def test_hostile_files_break_nothing(course, kind):
    counts, failures = fuzz.fuzz(kind, fuzz.kinds(course)[kind], course, 4, 1, None)
    assert not failures and counts["refused"]


@pytest.mark.parametrize(
    ("run", "how"),
    [
        (lambda content, course: 0, "read"),
        (lambda content, course: "error: no", "refused"),
        (lambda content, course: [][1], "traceback"),
        (lambda content, course: len(np.ones(1 << 28)), "memory"),
        (lambda content, course: "error: \x1b[2J", "control character"),
        (lambda content, course: os.abort(), "crash"),
        (lambda content, course: time.sleep(9), "hang"),
    ],
)
def test_what_goes_wrong_is_told(course, monkeypatch, run, how):
    if how == "hang":
        monkeypatch.setattr(fuzz, "SECONDS", 1)
    assert fuzz.attempt(run, b"", course).how == how
