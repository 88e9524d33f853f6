"""DESIGN section 5, row by row: the sentence that answers bad input, word for word.

| row | here | the rest |
|---|---|---|
| unknown or misspelt param, value out of range | params | tests/test_params.py, tests/test_sections.py, test_common.py |
| empty, non-UTF-8, truncated or unreadable document file, record without text | documents | tests/text/test_documents.py |
| duplicates across train and val | duplicates | test_tokenize.py |
| shard with wrong magic, version, length or token | shards | tests/text/test_shards.py |
| val split empty or shorter than one context | splits | |
| loss not finite | | test_train_stage.py, tests/train/test_prequant_ttt.py |
| Hessian not positive definite, dead columns | hessian | tests/quant/test_gptq.py |
| byte budget that cannot be met | | tests/quant/test_quant_stage.py, test_allocation.py |
| damaged or foreign model.fwy, submission.pyz | weights, submission, compressed | tests/codec/, tests/submission/ |
| disk full, killed at any moment | disk | test_common.py, test_train_stage.py, bench/faults |

Words in round brackets are those of a library. Before any work, and nothing half: test_common.py and bench/faults.
"""

import dataclasses
import errno
import gzip
import io
import json
import os
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
import torch
import yaml
import zstandard
from pyarrow import parquet

from fairway import sections
from fairway.codec import container
from fairway.errors import InputError
from fairway.params import read_yaml
from fairway.quant.hessian import Curvature
from fairway.submission import packing, text
from fairway.text.shards import HEADER_BYTES, ShardWriter, header, read_split
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer
from fairway.train.loader import WindowLoader
from stages import common, quant, tokenize, validation

ROOT = Path(__file__).resolve().parents[2]
BYTES = Tokenizer.from_bytes(BYTE_MODEL)
RERUN = "run `dvc repro` to write it again"
LINES = b"".join(json.dumps({"text": f"document {number} of the union"}).encode() + b"\n" for number in range(40))


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> None:
    """An empty folder with the default params."""
    monkeypatch.chdir(tmp_path)
    configure({})


def configure(changes: dict) -> None:
    """Write params.yaml: the default, with changes by "section.key"."""
    params = read_yaml(ROOT / "params.yaml")
    for name, value in changes.items():
        section, key = name.split(".")
        params[section][key] = value
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def said(function, *arguments) -> str:
    """The whole message of the InputError that a call ends in."""
    with pytest.raises(InputError) as error:
        function(*arguments)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train.muon_rl": 1.0}, "unknown key 'train.muon_rl'; the nearest valid key is 'train.muon_lr'"),
        ({"quant.bits": 9}, "'quant.bits' is 9; expected a whole number at least 2 and at most 8"),
        ({"quant.bits": "6"}, "'quant.bits' is '6'; expected a whole number at least 2 and at most 8"),
        ({"ngram.mixture": "trie"}, "'ngram.mixture' is 'trie'; expected one of tree, linear, entropy, fixed, tilt, none"),
        ({"eval.methud": "windows"}, "unknown key 'eval.methud'; the nearest valid key is 'eval.method'"),
    ],
)
def test_params(change, sentence):
    configure(change)
    assert said(sections.check, "params.yaml") == f"params.yaml: {sentence}"


def parquet_bytes(**columns) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


BAD_UTF8 = b'{"text": "a"}\n{"text": "\xff"}\n'
DOCUMENTS = [
    ("a.jsonl", b"", ": the file is empty; remove it or fill it"),
    ("a.txt", b"", ": the file is empty; remove it or fill it"),
    ("a.parquet", b"", ": the file is empty; remove it or fill it"),
    ("a.jsonl.gz", gzip.compress(b"", mtime=0), ": holds no lines after decompression; remove it or fill it"),
    ("a.parquet", parquet_bytes(text=pyarrow.array([], pyarrow.string())), ": holds no rows; remove it or fill it"),
    ("a.txt", b"ab\xc3", ": not UTF-8 at byte 2 (0xc3, unexpected end of data); convert the file to UTF-8"),
    ("a.jsonl", BAD_UTF8, ": not UTF-8 at byte 24 (0xff, invalid start byte); convert the file to UTF-8"),
    (
        "a.jsonl.gz",
        gzip.compress(LINES, mtime=0)[:99],
        ": truncated, its compressed data has no end after 99 bytes; fetch the file again",
    ),
    (
        "a.jsonl.zst",
        zstandard.compress(LINES)[:99],
        ": truncated, its compressed data has no end after 99 bytes; fetch the file again",
    ),
    (
        "a.jsonl.zst",
        LINES,
        ": cannot be decompressed (zstd decompressor error: Unknown frame descriptor); fetch the file again",
    ),
    ("a.jsonl.gz", LINES, ": cannot be decompressed (Not a gzipped file (b'{\"')); fetch the file again"),
    (
        "a.parquet",
        parquet_bytes(text=["a"])[:-9],
        ": not a readable parquet file (Parquet magic bytes not found in footer. Either the file is corrupted or this is not a "
        "parquet file); fetch the file again",
    ),
    ("a.csv", b"text\na\n", ": unknown kind of file; expected .jsonl, .jsonl.zst, .jsonl.gz, .txt or .parquet"),
    (
        "a.jsonl",
        b'{"text": "a"}\n{"text": \n',
        ", line 2: not valid JSON (Expecting value, column 10); expected one object per line",
    ),
    ("a.jsonl", b'"text"\n', ", line 1: expected a JSON object with 'text', found str"),
    (
        "a.jsonl",
        b'{"body": "a", "id": 1}\n',
        ", line 1: the record has no 'text', its fields are: body, id; set data.text_field",
    ),
    ("a.jsonl", b'{"text": null}\n', ", line 1: 'text' is NoneType; expected text"),
    ("a.jsonl", b'{"text": ""}\n', ", line 1: 'text' is empty; remove the record or give it text"),
    ("a.parquet", parquet_bytes(body=["a"]), ": no column 'text', the columns are: body; set data.text_field"),
    ("a.parquet", parquet_bytes(text=["a", None]), ", row 2: 'text' is NoneType; expected text"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), DOCUMENTS, ids=[f"{name}{said}" for name, _, said in DOCUMENTS])
def test_documents(name, content, sentence):
    Path(name).write_bytes(content)
    configure({"data.documents": ["a.*"]})
    assert said(tokenize.main) == name + sentence
    assert not list(Path("artifacts").glob("*")) and not Path("reports").exists()


def test_documents_that_are_not_there():
    configure({"data.documents": ["texts/*.txt"]})
    sentence = f"data.documents: no file matches 'texts/*.txt' in {Path.cwd()}; put one there or change the glob"
    assert said(tokenize.main) == sentence


def test_duplicates(capsys):
    """Of ready-made shards: a train document that is a val document, and one that comes twice, count and are left out."""
    texts = [f"text {number}" for number in range(20)]
    for name, documents in (("train", [*texts, texts[0], "val"]), ("val", ["val"])):
        with ShardWriter(Path("theirs"), name, 10**6) as writer:
            writer.write(BYTES.encode("\0".join(documents)))
    given = {"source": "shards", "tokenizer": "bytes", "shards_train": ["theirs/train*"], "shards_val": ["theirs/val*"]}
    given |= {"shards_tokenizer": "none", "holdout_fraction": 0.2, "witness_fraction": 0.0}
    configure({f"tokenize.{key}": value for key, value in given.items()})
    tokenize.main()
    manifest = json.loads(Path("artifacts/tokenize/manifest.json").read_text())
    assert manifest["duplicates"] == 2
    assert BYTES.decode(read_split(Path("artifacts/tokenize/train"), 260)[:]).decode() == "\0".join(texts[:16])
    assert (
        "val_documents 1, witness_documents 0, witness_bytes 0, duplicates 2, bytes_per_token 0.75" in capsys.readouterr().out
    )


SHARD = header(3) + np.array([1, 100, 101], "<u2").tobytes()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            struct.pack("<i", 20240521) + SHARD[4:],
            "header field 'magic' is 20240521, expected 20240520; this is not a token shard",
        ),
        (SHARD[:4] + b"\2" + SHARD[5:], "header field 'version' is 2, expected 1; this is not a token shard"),
        (
            SHARD[:-2],
            "header field 'length' says 3 tokens, so expected 1030 bytes, found 1028; fetch the file again",
        ),
        (SHARD[:HEADER_BYTES], "1024 bytes; expected a header of 1024 bytes and at least one token"),
        (
            SHARD[:-2] + b"\4\1",
            "token 2 is 260, expected below 260, the size of the vocabulary; the shard belongs to another tokenizer",
        ),
    ],
)
def test_shards(content, sentence):
    Path("val").mkdir()
    Path("val/val_000000.bin").write_bytes(content)
    assert said(read_split, Path("val"), 260) == f"val/val_000000.bin: {sentence}"


def test_splits():
    Path("a.jsonl").write_bytes(LINES)
    few = "40 different documents in data.documents are too few for these fractions"
    what = "give more documents, or change tokenize.holdout_fraction and tokenize.val_fraction"
    configure({"data.documents": ["a.jsonl"], "tokenize.val_fraction": 1e-6, "tokenize.holdout_fraction": 0.2})
    assert said(tokenize.main) == f"the val split is empty: {few}; {what}"
    assert said(read_split, Path("val"), 260) == "val: no token shard (*.bin) in this folder; run the tokenize stage"
    with ShardWriter(Path("artifacts/tokenize/val"), "val", 10**6) as writer:
        writer.write(np.full(256, 100))
    Path("artifacts/tokenize/tokenizer.model").write_bytes(BYTE_MODEL)
    assert said(validation.read_validation, 256) == (
        "artifacts/tokenize/val has 256 tokens and eval.context needs more than 256; "
        "add documents or raise tokenize.val_fraction"
    )
    assert said(WindowLoader, np.zeros(256, np.uint16), 128, 2, 0, "shuffled") == (
        "the train split has 256 tokens and needs at least 257 for one window; add documents or lower train.sequence_length"
    )


def test_hessian(tiny, shaken, quant_params, capsys):
    """One matrix with a Hessian that no damping mends, one with columns that never saw a number."""
    model = shaken(dataclasses.replace(tiny, width=72, rope_dims=6))
    broken, dead = "blocks.0.attention.output.weight", "blocks.1.attention.output.weight"
    curvatures = {
        name: Curvature(torch.eye(weight.shape[1]).double(), torch.ones(len(weight)).double())
        for name, weight in model.state_dict().items()
        if weight.ndim == 2
    }
    curvatures[broken].hessian_CC.mul_(-1)
    curvatures[dead].hessian_CC[:9] = curvatures[dead].hessian_CC[:, :9] = 0
    quant.quantise_and_write(model, curvatures, quant_params(), "lzma")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"{broken}: no Hessian, or none that damping makes positive definite; rounded to nearest"
    metrics = json.loads(Path("reports/quant/metrics.json").read_text())
    assert metrics["fallback_matrices"] == 1 and metrics["gptq_matrices"] > 1


def test_weights():
    """Every byte of model.fwy lies under a checksum; the sentence names the file where it lies."""
    whole = container.write({}, {}, {"gain": np.ones(40, np.float16)})
    checksum = "does not match its checksum: damaged or cut short; run `dvc repro compress` to write it again"
    path = Path("artifacts/compress/model.fwy")
    path.parent.mkdir(parents=True)
    for content, sentence in (
        (whole[:-20] + b"?" + whole[-19:], f"the record of 'gain' at offset 72 {checksum}"),
        (whole[:30] + b"?" + whole[31:], f"the header at offset 22 {checksum}"),
        (whole[:-1] + b"?", f"the file at offset 0 {checksum}"),
        (whole[:-1], "expected 98 bytes, found 97; run `dvc repro compress` to write it again"),
        (whole[:8] + b"\3" + whole[9:], "version 3 at offset 8, expected 2; run `dvc repro compress`"),
        (
            b"PK\3\4" + whole,
            "not a fairway weights file: expected b'FAIRWAY\\x00' at offset 0, found b'PK\\x03\\x04FAIR' in 102 bytes",
        ),
    ):
        path.write_bytes(content)
        assert said(validation.decoded_model) == f"{path}: {sentence}"


def test_submission():
    """What certify opens; run by itself, a damaged one says so before anything else: tests/submission/test_code_loader.py."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(packing.WEIGHTS, b"weights")
        archive.writestr(packing.SETTINGS, b"{}".ljust(packing.SETTINGS_BYTES))
    whole = stream.getvalue()
    for content, sentence in (
        (whole.replace(b"weights", b"wfights"), "not a zip application (Bad CRC-32 for file 'model.fwy')"),
        (whole[:-1], "not a zip application (File is not a zip file)"),
        (whole.replace(b"settings", b"sittings"), "expected 'settings.json' of 1024 bytes last, found 'sittings.json'"),
    ):
        assert said(packing.seal, content, {}) == f"artifacts/compress/submission.pyz: {sentence}; {RERUN}"


def test_compressed():
    """What a submission decompresses; more in tests/submission/test_compressed_file.py."""
    whole = bytes(text.Header(b"artifact", 3, b"machine."))
    for content, sentence in (
        (whole[:9] + b"?" + whole[10:], "the header is damaged, its checksum does not match; fetch the file again"),
        (whole[:4] + b"\3" + whole[5:], "format version 3, this submission reads version 4; use the one that made it"),
        (b"PK" + whole, "not a file compressed by a fairway submission; expected it to begin with b'FWYT'"),
    ):
        assert said(text.read_header, io.BytesIO(content), "coded.fwt") == f"coded.fwt: {sentence}"
    other = text.read_header(io.BytesIO(whole), "coded.fwt")
    assert said(text.check_maker, other, bytes(32), "coded.fwt", False) == (
        "coded.fwt: compressed by submission 6172746966616374, this one is 0000000000000000; only the same file can decode it"
    )


def test_disk(monkeypatch):
    """A full disk; and nothing is left under the file's name or beside it."""

    def full(self, content):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(common, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(
        common, "signal", SimpleNamespace(SIGTERM=0, default_int_handler=0, signal=lambda number, handler: None)
    )
    monkeypatch.setattr(common, "subprocess", SimpleNamespace(run=lambda *a, **k: SimpleNamespace(returncode=0)))
    with pytest.raises(SystemExit) as end:
        common.run(lambda: common.write_json("artifacts/train/ledger.json", {}))
    assert end.value.code == "error: artifacts/train/ledger.json: No space left on device"
    assert not list(Path("artifacts/train").iterdir())
