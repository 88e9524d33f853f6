"""`submission.pyz` as its user meets it: packed from a tiny network and run, alone, in an empty folder.

Runs in an interpreter of their own, cut off from this repository, where that matters; the rest in this one.
"""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fairway.codec import container
from fairway.lm.model import GPT
from fairway.mixture.estimators import NoEstimator
from fairway.mixture.tree_mixture import word_starts
from fairway.quant.matrix import QuantisedMatrix
from fairway.score.predictor import Predictor
from fairway.submission import command_line, packing, streams, text
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer
from tests.plain_settings import SETTINGS as PLAIN

ROOT = Path(__file__).parents[2]
# A mixture without compiled code, so that new processes start at once; the whole pipeline of tests/pipeline has the tree's.
SETTINGS = dataclasses.replace(PLAIN, ngram=dataclasses.replace(PLAIN.ngram, mixture="none"))
TEXT = ("Grüße — 你好, a\ttext\r\nwith\0NUL and ▁ in it. " * 3).encode() + bytes(range(256))


def weights_file(model: GPT) -> bytes:
    """Matrices as 6-bit integers with a scale a row, the rest in fp16."""
    matrices, small = {}, {}
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2 and name.endswith(".weight"):
            scales = (tensor.abs().amax(1) / 31).half()
            integers = (tensor / scales.float()[:, None]).round().clamp(-31, 31).to(torch.int8)
            matrices[name] = QuantisedMatrix(integers.numpy(), scales.numpy(), 6)
        else:
            small[name] = tensor.half().numpy()
    return container.write(dataclasses.asdict(model.architecture), matrices, small)


@pytest.fixture(scope="module")
def unsealed(tiny, shaken) -> bytes:
    tokenizer = Tokenizer.from_bytes(BYTE_MODEL)
    model = shaken(dataclasses.replace(tiny, layers=2, vocabulary_size=tokenizer.vocabulary_size, bos=tokenizer.bos))
    members = {"tokenizer.model": BYTE_MODEL, "model.fwy": weights_file(model)}
    return packing.build(["fairway.submission.command_line", "fairway.submission.text"], members, ROOT)


@pytest.fixture(scope="module")
def sealed(unsealed) -> bytes:
    return packing.seal(unsealed, SETTINGS.to_json())


@pytest.fixture
def folder(tmp_path, sealed, monkeypatch):
    """A folder with the submission and nothing else; commands run there."""
    (tmp_path / "submission.pyz").write_bytes(sealed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["submission.pyz"])
    return tmp_path


def call(*arguments: str):
    """The status or sentence of a command in this process."""
    return command_line.main([*arguments])


ALL_COMMANDS = """
import runpy, sys
for command in ["compress", "text", "coded"], ["info"], ["score", "text"], ["decompress", "coded", "back"], ["score"]:
    sys.argv = ["submission.pyz", *command]
    try:
        runpy.run_path("submission.pyz", run_name="__main__")
    except SystemExit as end:
        print("exit", repr(end.code))
ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "fairway"]
print("from the file", len(ours) > 10 and all("submission.pyz" in path for path in ours))
"""


def test_it_compresses_and_decompresses_alone(folder, sealed):
    """In one process, which compiles once; what it made is decoded in this one too."""
    (folder / "text").write_bytes(TEXT)
    run = {"cwd": folder, "capture_output": True, "text": True, "check": True, "env": {"OMP_NUM_THREADS": "1"}}
    finished = subprocess.run([sys.executable, "-I", "-c", ALL_COMMANDS], **run)
    lines = finished.stdout.splitlines()
    assert (folder / "back").read_bytes() == TEXT and finished.stderr.endswith(command_line.USAGE + "\n")
    assert call("decompress", "coded", "here") == 0 and (folder / "here").read_bytes() == TEXT
    assert [line for line in lines if line.startswith("exit")] == ["exit 0"] * 4 + ["exit 2"]
    assert lines[-1] == "from the file True"
    size, (report, scored, decoded) = (folder / "coded").stat().st_size, [json.loads(lines[at]) for at in (0, 11, 13)]
    keys = "bytes tokens blocks file_bytes payload_bytes worst_sum normalised_positions start_seconds seconds"
    assert " ".join(report) == keys
    assert report["bytes"] == report["tokens"] == len(TEXT)
    assert abs(report["worst_sum"] - 1) < 1e-6 and report["normalised_positions"] == -(-len(TEXT) // 16)
    overhead = 29 + 9 * report["blocks"]
    assert report["blocks"] == 1 and report["file_bytes"] == size == overhead + report["payload_bytes"]
    assert lines[2] == f"submission {hashlib.sha256(sealed).hexdigest()}, {len(sealed):,} bytes"
    assert lines[3].startswith("network: 2 layers of width 32, ") and lines[3].endswith(" parameters, vocabulary 260")
    assert lines[4].startswith("eval: method streaming, context 16,")
    assert lines[7].startswith("ngram: mixture none, estimator kneser_ney")
    assert lines[8] == "compressed files: format version 4, coded and decoded on the CPU"
    assert lines[9] == f"arithmetic {text.arithmetic_digest().hex()}: {text.arithmetic()}"
    assert list(scored) == ["bytes", "tokens", "bits", "bpb", "start_seconds", "seconds"]
    assert scored["bytes"] == len(TEXT) and scored["bpb"] == pytest.approx(scored["bits"] / len(TEXT))
    assert scored["bits"] - 1 < 8 * report["payload_bytes"] <= 1.001 * scored["bits"] + 64
    assert list(decoded) == ["bytes", "tokens", "blocks", "start_seconds", "seconds"]
    assert (decoded["bytes"], decoded["tokens"], decoded["blocks"]) == (len(TEXT), len(TEXT), 1)


def test_it_scores_as_the_predictor_does(folder, capsys):
    (folder / "text").write_bytes(TEXT)
    assert call("score", "text") == 0
    submission = command_line.Submission(Path("submission.pyz"))
    (tokens,) = submission.tokenizer.encode_bytes([TEXT])
    starts = word_starts(submission.tokenizer.pieces)
    predictor, bits = Predictor(submission.model, SETTINGS, starts, len(tokens)), 0.0
    for token in tokens.tolist():
        bits -= np.log2(predictor.distribution()[token])
        predictor.observe(token)
    assert json.loads(capsys.readouterr().out)["bits"] == pytest.approx(bits, rel=1e-7)


def test_the_network_is_the_one_in_the_weights_file(sealed, folder, tiny, shaken):
    """6 bits and fp16 away from the network that went in, with its architecture."""
    model = command_line.Submission(folder / "submission.pyz").model
    assert not model.training
    original = shaken(model.architecture)
    for (name, ours), theirs in zip(model.named_parameters(), original.parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().max() < theirs.abs().max() / 50, name


def test_before_settings_are_sealed_the_network_streams_alone(folder, unsealed):
    (folder / "submission.pyz").write_bytes(unsealed)
    submission = command_line.Submission(Path("submission.pyz"))
    predictor = submission.predictor(7)
    assert predictor.training is None and predictor.cache is None and isinstance(predictor.mixture.estimator, NoEstimator)
    assert submission.settings.eval.context == submission.model.architecture.sequence_length


def test_no_file_beside_the_new_one_is_touched(folder):
    """More of this, in processes, in test_streams.py."""
    (folder / "x.part").write_bytes(b"precious")
    assert call("compress", "x.part", "x") == 0
    (folder / "z.part").write_bytes((folder / "x").read_bytes())
    assert call("decompress", "z.part", "z") == 0
    assert (folder / "x.part").read_bytes() == (folder / "z").read_bytes() == b"precious"
    assert sorted(path.name for path in folder.iterdir()) == ["submission.pyz", "x", "x.part", "z", "z.part"]
    for out in ("x", "submission.pyz"):
        assert call("decompress", "x", out) == f"error: {out}: is {out}, which is read; give the name of another file to write"


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("info >&-", "error: stdout is closed; open it, if only on /dev/null\n"),
        ("info 2>&- >&-", ""),
        ("help 2> /dev/full", ""),
        ("decompress - out <&-", "error: standard input: is closed\n"),
    ],
)
def test_closed_and_full_streams_are_a_sentence(folder, shell, said):
    command = f"exec '{sys.executable}' -I submission.pyz {shell}"
    ended = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stderr == said and not (folder / "out").exists()


HOSTILE_SETTINGS = [
    b"", b"[]", b"[" * 1000, b"9" * 1000, b'"\x1b[2J"', b"{\"evil\": {}}", b'{"eval": null}', b'{"eval": {"context": null}}',
    b'{"eval": {"context": 1000000000000}}', b'{"eval": {"context": -1}}', b'{"eval": {"context": 1e3}}',
    b'{"eval": {"\\u001b[2J": 1}}', b'{"ngram": {"table_entries": 1e999}}', b'{"ngram": {"mixture": ["tree"]}}',
    b'{"ngram": {"discounts": "abc"}}', b'{"ttt": {"lora_targets": [1]}}', b'{"ttt": {"lr": NaN}}',
    b'{"cache": {"tokens": true}}',
]  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE_SETTINGS)
def test_hostile_settings_are_a_sentence(folder, content, monkeypatch):
    member = command_line.Submission._member
    changed = lambda self, name: content if name == "settings.json" else member(self, name)  # noqa: E731
    monkeypatch.setattr(command_line.Submission, "_member", changed)
    said = call("info")
    assert said.startswith("error: settings.json: ") and said.isprintable() and len(said) < 400


def test_a_submission_without_a_member_says_which(folder):
    (folder / "submission.pyz").write_bytes(packing.build(["fairway.errors"], {"model.fwy": b""}, ROOT))
    assert call("info") == "error: the submission has no tokenizer.model; fetch the file again"


@pytest.mark.parametrize("content", [b"", b"\0", "▁".encode(), b"\xff", b"\x80\0\xe2\x96"])
def test_short_files_come_back(folder, content):
    (folder / "text").write_bytes(content)
    assert call("compress", "text", "coded") == call("decompress", "coded", "back") == call("score", "text") == 0
    assert (folder / "back").read_bytes() == content


def test_blocks_and_chunks_of_any_size_make_one_text(folder, monkeypatch, capsys):
    """The predictor trains at test time across the blocks."""
    (folder / "text").write_bytes(TEXT)
    monkeypatch.setattr(text, "BLOCK", 48)
    monkeypatch.setattr(streams, "CHUNK", 7)
    assert call("compress", "text", "coded") == call("decompress", "coded", "back") == 0
    assert (folder / "back").read_bytes() == TEXT
    blocks = [json.loads(line)["blocks"] for line in capsys.readouterr().out.splitlines()]
    assert blocks == [-(-len(TEXT) // 48)] * 2


@pytest.mark.parametrize("arguments", [[], ["help"], ["score"], ["info", "x"], ["compress", "x"], ["decompress", *"abc"]])
def test_wrong_usage_is_answered_with_the_right_one(folder, arguments, capsys):
    assert call(*arguments) == 2
    usage = capsys.readouterr().err
    assert all(f" {line}\n" in usage for line in ("info", "score FILE", "compress FILE OUT", "decompress [--anyway] FILE OUT"))


@pytest.fixture
def coded(folder) -> bytes:
    """Eight bytes, compressed; those of the file."""
    (folder / "text").write_bytes(b"hello\0\xff!")
    assert call("compress", "text", "coded") == 0
    return (folder / "coded").read_bytes()


def test_every_damaged_byte_and_every_truncation_is_refused(folder, coded, monkeypatch):
    submission = command_line.Submission(folder / "submission.pyz")  # eight bytes are too few for it to learn from
    monkeypatch.setattr(command_line, "Submission", lambda path: submission)
    damaged = [coded[:at] + bytes([coded[at] ^ 0x55]) + coded[at + 1 :] for at in range(len(coded))]
    for content in [coded[:size] for size in range(len(coded))] + damaged:
        (folder / "bad").write_bytes(content)
        assert call("decompress", "bad", "out").startswith("error: bad: ")
    assert sorted(path.name for path in folder.iterdir()) == ["bad", "coded", "submission.pyz", "text"]


def test_another_submission_is_refused(folder, coded, sealed, unsealed):
    (folder / "submission.pyz").write_bytes(unsealed)
    mine, other = hashlib.sha256(sealed).hexdigest()[:16], hashlib.sha256(unsealed).hexdigest()[:16]
    assert call("decompress", "coded", "out").startswith(f"error: coded: compressed by submission {mine}, this one is {other}")
    assert not (folder / "out").exists()


def test_another_arithmetic_is_refused_and_tried_when_asked(folder, coded, monkeypatch, capsys):
    here = text.arithmetic_digest().hex()
    monkeypatch.setattr(text, "arithmetic", lambda: "a Cray-1, 1 thread")
    there = hashlib.sha256(b"a Cray-1, 1 thread").hexdigest()[:16]
    message = f"error: coded: made with arithmetic {here}, this is {there}, a Cray-1, 1 thread, where "
    assert call("decompress", "coded", "out").startswith(message)
    assert call("decompress", "--anyway", "coded", "out") == 0
    assert (folder / "out").read_bytes() == b"hello\0\xff!"
    assert call("decompress", "--anyway", "coded") == 2


def test_mistakes_are_answered_with_a_sentence_and_leave_no_file(folder, coded, capsys):
    (folder / "sub").mkdir()
    for arguments, sentence in (
        (["score", "nowhere"], "nowhere: No such file or directory"),
        (["score", "sub"], "sub: Is a directory"),
        (["compress", "text", "sub"], "sub: is a folder; give the name of a file to write"),
        (["compress", "text", "no/where"], "no/where: No such file or directory"),
        (["compress", "text", "/dev/full"], "/dev/full: No space left on device"),
    ):
        assert call(*arguments) == f"error: {sentence}"
    assert call("decompress", "text", "out").startswith("error: text: not a file compressed by a fairway submission; expected")
    assert sorted(path.name for path in folder.iterdir()) == ["coded", "sub", "submission.pyz", "text"]
    assert Path("/dev/full").is_char_device()


def test_interrupted_it_leaves_what_was_there(folder, coded, monkeypatch, capsys):
    def interrupt(targets):
        assert list(folder.glob(".coded.*.partial"))
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line.Submission, "predictor", lambda self, targets: interrupt(targets))
    assert call("compress", "text", "coded") == 130 and capsys.readouterr().err == "interrupted\n"
    assert (folder / "coded").read_bytes() == coded and not list(folder.glob(".coded.*"))


def test_standard_input_and_output(folder, coded, capfdbinary, monkeypatch):
    """Input need not be at its start; a refusal in the middle ends with what was right, and a sentence."""
    monkeypatch.setattr(text, "BLOCK", 4)
    for name, content in (("text", b"skipped" + TEXT[:8]), ("bad", coded[:-1])):
        (folder / name).write_bytes(content)
    with (folder / "text").open("rb") as file:
        file.seek(7)
        monkeypatch.setattr(sys, "stdin", file)
        assert call("compress", "-", "-") == 0
    stdout, stderr = capfdbinary.readouterr()
    assert json.loads(stderr)["file_bytes"] == len(stdout) and json.loads(stderr)["blocks"] == 2
    (folder / "coded").write_bytes(stdout)
    with (folder / "coded").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert call("decompress", "-", "-") == 0
    assert capfdbinary.readouterr()[0] == TEXT[:8]
    (folder / "bad").write_bytes(stdout[:-1])
    assert call("decompress", "bad", "-").startswith("error: bad: block 2 is cut off")
    assert capfdbinary.readouterr()[0] == TEXT[:4]


def test_a_text_that_changes_while_it_is_read_is_no_file(folder, monkeypatch):
    (folder / "text").write_bytes(b"before")
    monkeypatch.setattr(command_line, "measured", lambda submission, file: (7, 7))
    assert call("compress", "text", "out") == "error: text: changed while it was read, from 7 to 6 tokens; try again"
    assert not (folder / "out").exists()


def test_damaged_weights_are_refused_before_anything_is_decoded(folder, tiny, shaken):
    weights = bytearray(weights_file(shaken(dataclasses.replace(tiny, layers=2))))
    weights[len(weights) // 2] ^= 1
    members = {"tokenizer.model": BYTE_MODEL, "model.fwy": bytes(weights)}
    (folder / "submission.pyz").write_bytes(packing.build(["fairway.errors"], members, ROOT))
    assert call("info").startswith("error: model.fwy: the record of '")
