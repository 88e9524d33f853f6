"""Files and standard streams of the command line, in processes that copy IN to OUT: what a shell can do to them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPY = """
import sys
from fairway.errors import InputError
from fairway.submission.streams import created, is_output, opened, say
try:
    with opened(sys.argv[1], twice=True) as file, created(sys.argv[2], sys.argv[1], "submission.pyz") as target:
        target.write(file.read())
    say("report", error=is_output(sys.argv[2]))
except InputError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "text").write_bytes(b"a text")
    (tmp_path / "submission.pyz").write_bytes(b"PK")
    return tmp_path


def copy(folder: Path, given: str, made: str, shell: str = "") -> tuple[int, str, str]:
    """Status, standard output, standard error of `copy IN OUT`, with what a shell adds to it, such as a redirection."""
    command = ["sh", "-c", f'"$@" {shell}', "sh", sys.executable, "-c", COPY, given, made]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("given", "made"), [("x.part", "x"), (".x.partial", "x"), (".x.4711.partial", "x"), ("x", "x.part")])
def test_no_file_of_a_user_is_taken_for_a_temporary(folder, given, made):
    (folder / given).write_bytes(b"precious")
    assert copy(folder, given, made) == (0, "report\n", "")
    assert (folder / given).read_bytes() == (folder / made).read_bytes() == b"precious"
    assert names(folder) == sorted(["submission.pyz", "text", given, made])


def test_a_link_at_the_place_of_a_temporary_is_not_followed(folder):
    (folder / "data").write_bytes(b"precious")
    for name in ("out.part", ".out.partial", ".out.4711.partial", f".out.{'0' * 16}.partial"):
        (folder / name).symlink_to("data")
    before = names(folder)
    assert copy(folder, "text", "out")[0] == 0
    assert (folder / "data").read_bytes() == b"precious" and names(folder) == sorted([*before, "out"])


def test_two_at_once_write_whole_files(folder):
    for name, letter in (("a", b"a"), ("b", b"b")):
        (folder / name).write_bytes(letter * 5_000_000)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", COPY, name, "out"], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        for name in "ab"
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert (folder / "out").read_bytes() in ((folder / name).read_bytes() for name in "ab")
    assert names(folder) == ["a", "b", "out", "submission.pyz", "text"]


def test_what_is_read_is_not_written(folder):
    (folder / "hard").hardlink_to(folder / "text")
    (folder / "soft").symlink_to("text")
    for given, made in (("text", "text"), ("text", "hard"), ("hard", "text"), ("text", "./text"), ("soft", "text")):
        status, _, said = copy(folder, given, made)
        assert status == 1 and said == f"error: {made}: is {given}, which is read; give the name of another file to write\n"
    assert copy(folder, "-", "text", "< text")[2].startswith("error: text: is -, which is read")
    assert copy(folder, "text", "-", ">> text")[2].startswith("error: -: is text, which is read")
    assert copy(folder, "text", "submission.pyz")[2].startswith("error: submission.pyz: is submission.pyz, which is read")
    assert (folder / "text").read_bytes() == b"a text" and (folder / "submission.pyz").read_bytes() == b"PK"


def test_a_link_is_no_place_to_write(folder):
    (folder / "data").write_bytes(b"precious")
    for name, target in (("to", "data"), ("nowhere", "missing"), ("loop", "loop")):
        (folder / name).symlink_to(target)
        assert copy(folder, "text", name) == (1, "", f"error: {name}: is a link; give the name of the file itself\n")
    assert (folder / "data").read_bytes() == b"precious" and not (folder / "missing").exists()


@pytest.mark.parametrize("out", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_under_any_name_gets_the_file_alone(folder, out):
    assert copy(folder, "text", out, "| cat") == (0, "a text", "report\n")
    assert copy(folder, "text", out, "> out") == (0, "", "report\n")
    assert (folder / "out").read_bytes() == b"a text"


@pytest.mark.parametrize(
    ("given", "made", "shell", "said"),
    [
        ("text", "out", ">&-", "error: standard output: is closed\n"),
        ("text", "-", ">&-", "error: standard output: is closed\n"),
        ("-", "out", "<&-", "error: standard input: is closed\n"),
        ("text", "out", "> /dev/full", "error: standard output: No space left on device\n"),
        ("text", "-", "> /dev/full", "error: standard output: No space left on device\n"),
        ("text", "/dev/full", "", "error: /dev/full: No space left on device\n"),
        ("text", "-", "2> /dev/full", ""),
        ("text", "-", "2>&-", ""),
        ("text", "n" * 256, "", f"error: {'n' * 256}: File name too long\n"),
    ],
)
def test_a_stream_that_takes_or_gives_nothing_is_a_sentence(folder, given, made, shell, said):
    status, _, found = copy(folder, given, made, shell)
    assert status == 1 and found == said


def test_a_reader_that_has_gone_is_a_sentence(folder):
    (folder / "text").write_bytes(bytes(1_000_000))
    _, out, said = copy(folder, "text", "-", "| true; echo ended")
    assert out == "ended\n" and said == "error: standard output: Broken pipe\n"


def test_control_characters_of_a_name_are_shown(folder):
    status, _, said = copy(folder, "no\x1b[2Jwhere", "out")
    assert status == 1 and said == "error: no\\x1b[2Jwhere: No such file or directory\n"
