import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
import zstandard
from sentencepiece import SentencePieceTrainer

from fairway.errors import InputError
from fairway.text.documents import read_stored
from fairway.text.shards import ShardWriter, read_split
from fairway.text.tokenizer import Tokenizer, train_bpe
from stages import tokenize

ROOT = Path(__file__).parents[2]
TOKENIZE = {
    "source": "documents",
    "tokenizer": "bpe",
    "vocabulary_size": 300,
    "holdout_fraction": 0.2,
    "val_fraction": 0.2,
    "witness_fraction": 0.1,
    "sample_bytes": 1_000_000,
    "shard_tokens": 400,
    "shards_train": [],
    "shards_val": [],
    "shards_tokenizer": "",
}
TEXTS = [f"{'  ' * (n % 2)}document {n} — of the state\n of the union, {n * n} words\0 and\t▁ more" for n in range(60)]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with 60 documents, three of them twice."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS + TEXTS[:3])
    Path("data/a.jsonl").write_text(lines)
    return tmp_path


def configure(**changes):
    data = {"documents": ["data/*"], "text_field": "text"}
    others = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))  # the script checks every section
    Path("params.yaml").write_text(yaml.safe_dump(others | {"data": data, "tokenize": TOKENIZE | changes}))


def run(**changes):
    configure(**changes)
    tokenize.main()
    return json.loads(Path("artifacts/tokenize/manifest.json").read_text())


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def stored(name):
    path = Path(f"artifacts/tokenize/{name}_documents.jsonl.zst")
    content = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    return [json.loads(line)["text"] for line in content.decode().split("\n")[:-1]]


def expected_split(text):
    place = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64
    return "val" if place < 0.2 else "holdout" if place < 0.4 else "witness" if place > 0.9 else "train"


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
def test_every_document_is_in_its_split_once(workplace, kind):
    manifest = run(tokenizer=kind)
    model = Path("artifacts/tokenize/tokenizer.model").read_bytes()
    tokenizer = Tokenizer.from_bytes(model)
    for name in ("train", "holdout", "val"):
        texts = [text for text in TEXTS if expected_split(text) == name]
        stream = read_split(Path("artifacts/tokenize") / name, tokenizer.vocabulary_size)
        assert tokenizer.decode(stream[:]).decode() == "\0".join(texts)
        assert manifest["splits"][name] == {
            "documents": len(texts),
            "tokens": len(stream),
            "bytes": sum(len(text.encode()) for text in texts),
            "sha256": hashlib.sha256(stream[:].tobytes()).hexdigest(),
        }
        if name != "train":
            assert manifest["document_hashes"][name] == [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    witness = [text for text in TEXTS if expected_split(text) == "witness"]
    assert manifest["splits"]["witness"] == {
        "documents": len(witness),
        "bytes": sum(len(text.encode()) for text in witness),
        "sha256": hashlib.sha256("".join(text + "\0" for text in witness).encode()).hexdigest(),
    }
    assert len(witness) > 2 and sum(split["documents"] for split in manifest["splits"].values()) == len(TEXTS)
    for name in ("val", "witness"):
        assert stored(name) == [text for text in TEXTS if expected_split(text) == name]
        assert read_stored(Path(f"artifacts/tokenize/{name}_documents.jsonl.zst")) == stored(name)
    assert manifest["tokenizer"] == {
        "kind": kind,
        "vocabulary_size": 300 if kind == "bpe" else 260,
        "bos": 1,
        "sha256": hashlib.sha256(model).hexdigest(),
        "normalises": False,
    }
    assert manifest["lossless"] is True and manifest["duplicates"] == 3
    val = manifest["splits"]["val"]
    assert manifest["table_bytes"]["lossless"] == val["bytes"] - val["documents"]  # each text has one NUL
    assert len(list(Path("artifacts/tokenize/train").iterdir())) == -(-manifest["splits"]["train"]["tokens"] // 400) > 1
    metrics = json.loads(Path("reports/tokenize/metrics.json").read_text())
    assert metrics["val_bytes"] == val["bytes"] and metrics["duplicates"] == 3
    assert metrics["bytes_per_token"] == pytest.approx(val["bytes"] / val["tokens"], abs=1e-4)


def test_the_tokenizer_sees_train_text_only(workplace):
    run()
    train = [text for text in TEXTS if expected_split(text) == "train"]
    by_digest = sorted(train, key=lambda text: hashlib.sha256(text.encode()).digest())
    assert Path("artifacts/tokenize/tokenizer.model").read_bytes() == train_bpe(by_digest, 300, 1_000_000)


def test_without_a_witness_all_documents_are_in_the_other_splits(workplace):
    manifest = run(witness_fraction=0.0)
    assert manifest["splits"]["witness"] == {"documents": 0, "bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    assert read_stored(Path("artifacts/tokenize/witness_documents.jsonl.zst")) == stored("witness") == []
    train = read_split(Path("artifacts/tokenize/train"), 300)
    expected = [text for text in TEXTS if expected_split(text) in ("train", "witness")]
    tokenizer = Tokenizer.from_bytes(Path("artifacts/tokenize/tokenizer.model").read_bytes())
    assert tokenizer.decode(train[:]).decode() == "\0".join(expected)


def test_same_documents_same_bytes_and_old_files_go(workplace):
    run()
    first = tree("artifacts")
    Path("artifacts/tokenize/train/train_000099.bin").write_bytes(b"left over")
    run()
    assert tree("artifacts") == first
    assert sorted(os.listdir("artifacts")) == ["tokenize"]  # noqa: PTH208


def test_a_failure_leaves_what_was_there(workplace, monkeypatch):
    run()
    before = tree("artifacts")
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: b"else")
    with pytest.raises(InputError, match="does not survive encoding and decoding"):
        run(shard_tokens=500)
    assert tree("artifacts") == before


def test_an_empty_split_gets_a_sentence(workplace):
    for changes, name in (({"val_fraction": 1e-6}, "val"), ({"holdout_fraction": 1e-6}, "holdout")):
        with pytest.raises(InputError, match=f"the {name} split is empty: 60 different documents in data.documents"):
            run(**changes)
    assert not Path("artifacts/tokenize").exists()


def test_params_are_checked_before_any_work(workplace):
    for changes, words in (
        ({"holdout_fraction": 0.5, "val_fraction": 0.5}, "leave no text for train"),
        ({"source": "shards"}, "tokenize.shards_tokenizer is empty"),
        ({"vocabulary_size": 259}, "at least 260"),
        ({"tokenizer": "words"}, "one of bpe, bytes"),
    ):
        with pytest.raises(InputError, match=words):
            run(**changes)


def test_the_script_ends_a_mistake_in_one_line(workplace):
    configure(vocabulary_size=60_000)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-m", "stages.tokenize"], capture_output=True, text=True, env=environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: tokenize.vocabulary_size is 60000, too large") and ended.stderr.count("\n") == 1
    assert not Path("artifacts/tokenize").exists() and not Path("reports").exists()


def challenge_shards(normalise):
    """12 train documents over two shards, one of them a val document and one of them twice, and 2 val documents."""
    model = io.BytesIO()
    SentencePieceTrainer.Train(
        sentence_iterator=iter([line for text in TEXTS for line in text.replace("\0", "\n").split("\n")]),
        model_writer=model,
        model_type="bpe",
        vocab_size=300,
        normalization_rule_name="nmt_nfkc" if normalise else "identity",
        remove_extra_whitespaces=normalise,
        byte_fallback=True,
        add_dummy_prefix=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    Path("theirs.model").write_bytes(model.getvalue())
    tokenizer = Tokenizer.from_bytes(model.getvalue())
    texts = [f"text {n} of the union" for n in range(12)]
    val = ["val of the state", texts[4]]
    streams = {"train": [*texts, texts[0]], "val": val}
    for name, documents in streams.items():
        with ShardWriter(Path("theirs"), f"fineweb_{name}", 100) as writer:
            writer.write(np.concatenate([tokenizer.encode(text) for text in documents]))
    return texts, val


SHARDS = {
    "source": "shards",
    "shards_train": ["theirs/*_train_*.bin"],
    "shards_val": ["theirs/*_val_*.bin"],
    "shards_tokenizer": "theirs.model",
}


@pytest.mark.parametrize("normalise", [False, True])
def test_ready_made_shards(workplace, normalise):
    texts, val = challenge_shards(normalise)
    before = tree("theirs")
    assert len(before) > 2
    manifest = run(**SHARDS)
    new = [text for text in texts if text not in val]
    expected = {"train": new[:8], "holdout": new[9:], "val": val}  # the last fifth of 11, and before it a tenth
    tokenizer = Tokenizer.from_bytes(Path("theirs.model").read_bytes())
    for name, documents in expected.items():
        stream = read_split(Path("artifacts/tokenize") / name, 300)
        assert tokenizer.decode(stream[:]).decode() == "\0".join(documents)
        assert manifest["splits"][name]["documents"] == len(documents)
        assert manifest["splits"][name]["bytes"] == sum(map(len, documents))
    for name in ("holdout", "val"):
        assert manifest["document_hashes"][name] == [hashlib.sha256(t.encode()).hexdigest()[:16] for t in expected[name]]
    assert stored("val") == val and stored("witness") == new[8:9]
    assert manifest["duplicates"] == 2
    assert manifest["lossless"] is not normalise and manifest["tokenizer"]["normalises"] is normalise
    assert Path("artifacts/tokenize/tokenizer.model").read_bytes() == Path("theirs.model").read_bytes()
    assert tree("theirs") == before


def test_shards_that_do_not_fit(workplace):
    challenge_shards(normalise=False)
    with pytest.raises(InputError, match=r"tokenize\.shards_val is empty"):
        run(**SHARDS | {"shards_val": []})
    with pytest.raises(InputError, match=r"token \d+ is \d+, expected below 260"):
        run(**SHARDS | {"tokenizer": "bytes"})
    with pytest.raises(InputError, match="the holdout split is empty: 11 different documents"):
        run(**SHARDS | {"holdout_fraction": 0.01})
