"""What all stages share: small files, ends without a traceback, interrupts that wait, plain progress."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fairway.errors import InputError
from stages import common


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Runs `common.run` in an empty folder, all params fine; its exit. The handlers of signals are put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(common, "subprocess", SimpleNamespace(run=lambda *a, **k: SimpleNamespace(returncode=0)))
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it puts in the background without

    def ended(main):
        with pytest.raises(SystemExit) as end:
            common.run(main)
        return end.value.code

    yield ended
    for kind, handler in before.items():
        signal.signal(kind, handler)


def raising(error: BaseException):
    def main():
        raise error

    return main


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_is_these_bytes(tmp_path):
    common.write_json(tmp_path / "m.json", {"z": 1, "a": {"é": [0.5, True, None]}})
    text = '{\n  "z": 1,\n  "a": {\n    "é": [\n      0.5,\n      true,\n      null\n    ]\n  }\n}\n'
    assert (tmp_path / "m.json").read_bytes() == text.encode("utf-8")
    assert names(tmp_path) == ["m.json"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    common.write_json(tmp_path / "m.json", {"a": 1})
    with pytest.raises(TypeError):
        common.write_json(tmp_path / "m.json", {"a": object()})
    assert (tmp_path / "m.json").read_bytes() == b'{\n  "a": 1\n}\n' and names(tmp_path) == ["m.json"]


def test_json_comes_back_with_the_keys_that_are_asked_for(tmp_path):
    path = tmp_path / "m.json"
    common.write_json(path, {"a": 1, "b": None})
    assert common.read_json(path, ["b"]) == {"a": 1, "b": None} and common.read_json(path, []) == {"a": 1, "b": None}


@pytest.mark.parametrize(
    ("content", "keys", "sentence"),
    [
        (b'{"a": 1', [], "not valid JSON (Expecting ',' delimiter: line 1 column 8 (char 7))"),
        (b"\xff", [], "not valid JSON ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"),
        (b"[1]", [], "expected an object, not found"),
        (b"[1]", ["legal"], "expected the key legal, not found"),
        (b'{"a": 1}', ["a", "b", "c"], "expected the keys b, c, not found"),
        (None, [], "missing"),
    ],
)
def test_other_json_is_refused_in_a_sentence(tmp_path, content, keys, sentence):
    path = tmp_path / "m.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        common.read_json(path, keys)
    assert str(error.value) == f"{path}: {sentence}; run `dvc repro` to write it again"


def test_a_table_is_these_bytes(tmp_path):
    common.write_tsv(tmp_path / "t.tsv", [{"step": 4, "loss": 6.25}, {"step": 8, "loss": 5.0}])
    assert (tmp_path / "t.tsv").read_bytes() == b"step\tloss\n4\t6.25\n8\t5.0\n"


@pytest.mark.parametrize(("split", "exposed"), [("val", 700), ("holdout", 0), ("train", 0), ("none", 0)])
def test_the_ledger_counts_validation_tokens_only(tmp_path, monkeypatch, split, exposed):
    monkeypatch.chdir(tmp_path)
    common.write_ledger("quant", split, 700)
    start = f'{{\n  "stage": "quant",\n  "learned_from": "{split}",\n  "tokens": 700,\n'
    expected = start + f'  "val_tokens_before_scoring": {exposed}\n}}\n'
    assert Path("artifacts/quant/ledger.json").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_deferred_interrupt_is_only_recorded(number):
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with common.deferring_interrupts() as caught:
        assert not caught
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert caught == [number, number]
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_handlers_come_back_after_an_error():
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="inside"), common.deferring_interrupts():
        raise ValueError("inside")
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_stage_that_ends_well_just_ends(stage):
    calls = []
    common.run(lambda: calls.append("main"))
    assert calls == ["main"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("data/a.txt: 0 bytes; expected text"), "error: data/a.txt: 0 bytes; expected text"),
        (OSError(28, "No space left on device"), "error: a file: No space left on device"),
        (FileNotFoundError(2, "No such file or directory", "x/y"), "error: x/y: No such file or directory"),
        (OSError("the reader's own words"), "error: a file: the reader's own words"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(stage, error, line):
    assert stage(raising(error)) == line  # sys.exit of a string: that line on stderr, and status 1


def test_a_bug_keeps_its_traceback(stage):
    with pytest.raises(ZeroDivisionError):
        common.run(raising(ZeroDivisionError()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_is_status_130(stage, capsys, number):
    assert stage(lambda: signal.raise_signal(number)) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interruption_while_params_are_checked_is_status_130(stage, capsys, monkeypatch):
    monkeypatch.setattr(common.subprocess, "run", lambda *a, **k: signal.raise_signal(signal.SIGTERM))
    assert stage(raising(AssertionError("main was run"))) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_wrong_params_stop_a_stage_before_its_work(stage, monkeypatch):
    asked = []
    failed = SimpleNamespace(returncode=1)
    monkeypatch.setattr(common.subprocess, "run", lambda command, **k: asked.append(command) or failed)
    assert stage(raising(AssertionError("main was run"))) == 1
    assert asked == [[sys.executable, "-m", "fairway.sections", Path("params.yaml")]]


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns: seconds in a list of one."""
    now = [100.0]
    monkeypatch.setattr(common, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_progress_without_a_terminal_is_a_line_now_and_then(clock, capsys):
    progress = common.Progress(4000, "tokens", "train")
    for second, amount in ((4, 400), (9.9, 400), (10, 200), (20, 500), (30, 500), (31, 1000)):
        clock[0] = 100 + second
        progress.advance(amount, f"loss {second}")
    clock[0] = 140
    progress.advance(1000)
    progress.close("done")
    assert capsys.readouterr().out.splitlines() == [
        "train: 1,000 of 4,000 tokens, 100 tokens/s, 10 s, about 30 s left, loss 10",
        "train: 2,000 of 4,000 tokens, 67 tokens/s, 30 s, about 30 s left, loss 30",
        "train: 4,000 of 4,000 tokens, 100 tokens/s, 40 s, about 0 s left, done",
    ]


def test_a_long_stage_does_not_fill_a_log(clock, capsys):
    progress = common.Progress(10_000, "tokens", "train")
    for second in range(3600):
        clock[0] = 100 + second
        progress.advance(1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[2] for line in lines[:5]] == ["10 s", "30 s", "70 s", "130 s", "190 s"] and len(lines) < 65


def test_progress_that_ends_at_once_divides_by_nothing(clock, capsys):
    common.Progress(10, "tokens", "quant").close()
    assert capsys.readouterr().out.startswith("quant: 0 of 10 tokens, 0 tokens/s, 0 s, about ")


def test_progress_on_a_terminal_is_a_bar(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = common.Progress(10, "tokens", "train")
    progress.advance(10, "loss 1.5")
    progress.close()
    assert "train: 100%" in terminal.getvalue() and "loss 1.5" in terminal.getvalue()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("given", "found"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_openmp_is_told_how_long_to_spin_before_a_stage_loads_it(given, found):
    code = "import os, sys, stages; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{found} False\n"
