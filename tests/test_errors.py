"""Whatever goes wrong with a file becomes one sentence that names it."""

import json
from pathlib import Path

import pytest

from fairway.errors import InputError, reading

RERUN = "run `dvc repro` to write it again"


def raising(error: Exception) -> str:
    with pytest.raises(InputError) as caught, reading("a/b.json", "valid JSON", ValueError, KeyError):
        raise error
    assert caught.value.__suppress_context__
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("two\n  lines"), f"a/b.json: not valid JSON (two lines); {RERUN}"),
        (KeyError("legal"), f"a/b.json: not valid JSON ('legal'); {RERUN}"),
        (FileNotFoundError(2, "No such file or directory", "other"), f"a/b.json: missing; {RERUN}"),
        (IsADirectoryError(21, "Is a directory"), f"a/b.json: cannot be read (Is a directory); {RERUN}"),
        (OSError("the reader's own words"), f"a/b.json: cannot be read (the reader's own words); {RERUN}"),
        (InputError("its own sentence"), "a/b.json: its own sentence"),
    ],
)
def test_a_sentence_names_the_file(error, sentence):
    assert raising(error) == sentence


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), reading("a", "valid JSON", ValueError):
        raise ZeroDivisionError


def test_what_is_sound_is_left_alone(tmp_path):
    path = tmp_path / "a"
    path.write_text("[1]")
    with reading(path, "valid JSON", ValueError):
        content = json.loads(Path(path).read_text())
    assert content == [1]
