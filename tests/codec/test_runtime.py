"""`submission.pyz` as its user meets it: packed from a tiny network and run, alone, in an empty folder.

One run of each kind in an interpreter of its own, cut off from this repository; the sentences for mistakes in this one.
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

from fairway.codec import container, packing, runtime
from fairway.lm.model import GPT
from fairway.quant.matrix import QuantisedMatrix
from fairway.score.predictor import Predictor
from fairway.score.tree_mixture import word_starts
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer
from tests.plain_settings import SETTINGS as PLAIN

ROOT = Path(__file__).parents[2]
# A mixture without compiled code, so that new processes start at once; the whole course of tests/pipeline has the tree's.
SETTINGS = dataclasses.replace(PLAIN, ngram=dataclasses.replace(PLAIN.ngram, mixture="none"))
TEXT = ("Grüße — 你好, a\ttext\r\nwith\0NUL and ▁ in it. " * 3).encode()


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
    return packing.build(["fairway.codec.runtime", "fairway.codec.text"], members, ROOT)


@pytest.fixture(scope="module")
def sealed(unsealed) -> bytes:
    return packing.seal(unsealed, dataclasses.asdict(SETTINGS))


@pytest.fixture
def folder(tmp_path, sealed, monkeypatch):
    """A folder with the submission and nothing else; commands run there."""
    (tmp_path / "submission.pyz").write_bytes(sealed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["submission.pyz"])
    return tmp_path


def call(*arguments: str):
    """The status or sentence of a command in this process."""
    return runtime.main([*arguments])


ALL_COMMANDS = """
import runpy, sys
for command in ["info"], ["score", "text"], ["decompress", "coded", "back"], ["score"]:
    sys.argv = ["submission.pyz", *command]
    try:
        runpy.run_path("submission.pyz", run_name="__main__")
    except SystemExit as end:
        print("exit", repr(end.code))
house = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "fairway"]
print("from the file", len(house) > 10 and all("submission.pyz" in path for path in house))
"""


def test_it_compresses_and_decompresses_alone(folder, sealed):
    (folder / "text").write_bytes(TEXT)
    run = {"cwd": folder, "capture_output": True, "text": True, "check": True, "env": {"OMP_NUM_THREADS": "1"}}
    first = subprocess.run([sys.executable, "-I", "submission.pyz", "compress", "text", "coded"], **run)
    report = json.loads(first.stdout)
    assert report["bytes"] == report["tokens"] == len(TEXT) and abs(report["worst_sum"] - 1) < 1e-6
    assert report["payload_bytes"] == (folder / "coded").stat().st_size - 24
    rest = subprocess.run([sys.executable, "-I", "-c", ALL_COMMANDS], **run).stdout.splitlines()
    assert (folder / "back").read_bytes() == TEXT
    assert rest[0] == f"submission {hashlib.sha256(sealed).hexdigest()}"
    assert rest[1].startswith("network: 2 layers of width 32, ") and rest[1].endswith(" parameters, vocabulary 260")
    assert rest[2].startswith("eval: method streaming, context 16,") and rest[5].startswith(
        "ngram: mixture none, estimator kneser_ney"
    )
    scored = json.loads(rest[7])
    assert scored["bytes"] == len(TEXT) and scored["bpb"] == pytest.approx(scored["bits"] / len(TEXT))
    assert scored["bits"] - 1 < 8 * report["payload_bytes"] <= 1.001 * scored["bits"] + 64
    assert [line for line in rest if line.startswith("exit")] == ["exit 0"] * 3 + [f"exit {runtime.USAGE!r}"]
    assert rest[-1] == "from the file True"


def test_it_scores_as_the_predictor_does(folder, capsys):
    (folder / "text").write_bytes(TEXT)
    assert call("score", "text") == 0
    submission = runtime.Submission(Path("submission.pyz"))
    tokens, starts = submission.tokenizer.encode(TEXT.decode())[1:], word_starts(submission.tokenizer.pieces)
    predictor, bits = Predictor(submission.model, SETTINGS, starts, len(tokens)), 0.0
    for token in tokens.tolist():
        bits -= np.log2(predictor.distribution()[token])
        predictor.observe(token)
    assert json.loads(capsys.readouterr().out)["bits"] == pytest.approx(bits, rel=1e-9)


def test_the_network_is_the_one_in_the_weights_file(sealed, folder, tiny, shaken):
    """6 bits and fp16 away from the network that went in, with its architecture."""
    model = runtime.Submission(folder / "submission.pyz").model
    assert not model.training
    original = shaken(model.architecture)
    for (name, ours), theirs in zip(model.named_parameters(), original.parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().max() < theirs.abs().max() / 50, name


def test_before_settings_are_sealed_the_network_streams_alone(folder, unsealed):
    (folder / "submission.pyz").write_bytes(unsealed)
    submission = runtime.Submission(Path("submission.pyz"))
    predictor = submission.predictor(7)
    assert predictor.training is None and predictor.cache is None and predictor.mixture.mixture is None
    assert predictor.stream.state.cache.context == submission.model.architecture.sequence_length


@pytest.mark.parametrize("text", [b"", b"\0", "▁".encode()])
def test_short_texts_come_back(folder, text):
    (folder / "text").write_bytes(text)
    assert call("compress", "text", "coded") == call("decompress", "coded", "back") == call("score", "text") == 0
    assert (folder / "back").read_bytes() == text


@pytest.mark.parametrize(
    "arguments", [[], ["help"], ["score"], ["info", "x"], ["compress", "x"], ["decompress", "a", "b", "c"]]
)
def test_wrong_usage_is_answered_with_the_right_one(folder, arguments):
    assert call(*arguments) == runtime.USAGE
    assert all(command in runtime.USAGE for command in (" info", " score FILE", " compress FILE OUT", " decompress FILE OUT"))


def test_mistakes_are_answered_with_a_sentence_and_leave_no_file(folder, sealed, unsealed):
    (folder / "bad").write_bytes("é".encode() + b"\xff")
    (folder / "text").write_bytes(b"hello")
    assert call("compress", "bad", "out") == "error: bad: byte 2 is not valid UTF-8; this submission codes UTF-8 text"
    assert call("score", "nowhere") == "error: nowhere: No such file or directory"
    assert call("decompress", "text", "out").startswith("error: text: not a file compressed by a fairway submission")
    assert call("compress", "text", "coded") == 0
    coded = (folder / "coded").read_bytes()
    (folder / "coded").write_bytes(coded[:-1])
    assert call("decompress", "coded", "out").startswith("error: coded: damaged, its checksum does not match")
    (folder / "coded").write_bytes(coded)
    (folder / "submission.pyz").write_bytes(unsealed)
    mine, other = hashlib.sha256(sealed).hexdigest()[:16], hashlib.sha256(unsealed).hexdigest()[:16]
    assert call("decompress", "coded", "out").startswith(f"error: coded: compressed by submission {mine}, this one is {other}")
    assert not (folder / "out").exists()


def test_damaged_weights_are_refused_before_anything_is_decoded(folder, tiny, shaken):
    weights = bytearray(weights_file(shaken(dataclasses.replace(tiny, layers=2))))
    weights[len(weights) // 2] ^= 1
    members = {"tokenizer.model": BYTE_MODEL, "model.fwy": bytes(weights)}
    (folder / "submission.pyz").write_bytes(packing.build(["fairway.errors"], members, ROOT))
    assert call("info").startswith("error: model.fwy: the record of '")


def test_progress_is_a_line_every_five_seconds(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 4.9, 5.0, 6.0, 11.0])
    monkeypatch.setattr(runtime.time, "monotonic", lambda: next(clock))
    ticker = runtime._Ticker(1000)
    for _ in range(5):
        ticker(100)
    assert capsys.readouterr().err == "300 of 1,000 tokens, 60 a second\n500 of 1,000 tokens, 45 a second\n"
