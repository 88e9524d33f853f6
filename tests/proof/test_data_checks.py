"""The claims about text after the real `tokenize`, honest and with each cheat of data that reviewers have tried."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
import zstandard
from sentencepiece import SentencePieceTrainer

from fairway.params import load
from fairway.proof import data_checks
from fairway.proof.claims import Claim
from fairway.proof.config import Certify
from fairway.proof.data_checks import Corpus
from fairway.text.config import Data, Tokenize
from fairway.text.documents import read_stored
from fairway.text.shards import ShardWriter, read_split
from fairway.text.split import digest, split_of
from fairway.text.tokenizer import Tokenizer, train_bpe
from stages import tokenize

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("artifacts/tokenize")
SPLITS = ("train", "holdout", "val")
DISJOINT = "train, holdout and val share no document"
COPIED = "val is not copied from train or holdout"
TIED = "the splits are those of the data"
VOCABULARY = "the vocabulary knows train alone"
WORDS = """people country great work peace war hope naïve Zürich € 世界 nation state law every year under which this Congress
may asked provide treasury commerce river harbor island navy army debt silver gold bank treaty tribe land""".split()  # noqa: SIM905
FRACTIONS = {"holdout_fraction": 0.2, "val_fraction": 0.2, "witness_fraction": 0.1}


def texts(seed: int = 0, count: int = 60) -> list[str]:
    """Documents of four paragraphs."""
    random = np.random.default_rng(seed)
    paragraph = lambda: " ".join(random.choice(WORDS, random.integers(15, 40))) + "."  # noqa: E731
    return ["\n\n".join(paragraph() for _ in range(4)) for _ in range(count)]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    return tmp_path


def tokenized(documents: list[str], **changes: object) -> None:
    """Run the stage on these documents."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    Path("data/documents.jsonl").write_text(lines, encoding="utf-8")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"]["documents"] = ["data/*.jsonl"]
    params["tokenize"] |= {"vocabulary_size": 330} | FRACTIONS | changes
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    tokenize.main()


def stored(name: str) -> list[str]:
    return read_stored(FOLDER / f"{name}_documents.jsonl.zst")


def val_documents() -> list[str]:
    return stored("val")


def failing(most: float | None = None) -> dict[str, str]:
    """The claims that fail, and why."""
    return {claim.claim: claim.result for claim in judged(most) if not claim.passed}


def judged(most: float | None = None) -> list[Claim]:
    model, config = (FOLDER / "tokenizer.model").read_bytes(), load(Path("params.yaml"), "tokenize", Tokenize)
    size = Tokenizer.from_bytes(model).vocabulary_size
    splits = {name: read_split(FOLDER / name, size) for name in SPLITS}
    corpus = Corpus(splits, stored("witness"), load(Path("params.yaml"), "data", Data), config)
    return data_checks.claims(corpus, val_documents(), model, Certify().near_duplicates if most is None else most)


def train_anew(documents: list[str], name: str = "train") -> None:
    """Replace the shards of a split."""
    tokenizer = Tokenizer.from_bytes((FOLDER / "tokenizer.model").read_bytes())
    with ShardWriter(FOLDER / name, name, 10**8) as writer:
        for document in documents:
            writer.write(tokenizer.encode(document))


def of_split(name: str, documents: list[str]) -> list[str]:
    return [text for text in documents if split_of(digest(text.encode()), *FRACTIONS.values()) == name]


def put_into_train(text: str, change) -> str:
    """A changed copy of a document that the split puts into train: the change takes a number."""
    return next(other for other in (change(text, n) for n in range(1000)) if of_split("train", [other]))


@pytest.mark.parametrize("seed", range(10))
def test_honest_data_passes(folder, seed):
    tokenized(texts(seed))
    assert failing(most=0) == {}


def test_what_was_found_is_said(folder):
    tokenized(texts())
    disjoint, unlike, tied, vocabulary = judged()
    count = len(val_documents())
    assert disjoint.amount.endswith(f"val {count} documents") and disjoint.result.endswith("none twice in val")
    assert unlike.result == "0.00 % of val is copied, at most 15 % may be"
    assert unlike.amount.endswith(f" runs in {count} of {count} documents")
    assert tied.result == "train, holdout, val, witness: the same text as in data.documents"
    assert vocabulary.result == "identical" and vocabulary.how.startswith("trained again from the train documents")


CHANGES = {
    "one character": lambda text, n: text[:n] + "#x"[n % 2] + text[n + 1 :],
    "white space": lambda text, n: text.replace(" ", "  \n"[: n % 3 + 1] or " ") + " " * n,
    "no-break spaces": lambda text, n: text.replace(" ", "\u00a0") + " " * n,
    "zero-width spaces in every word": lambda text, n: text.replace("e", "e\u200b") + " " * n,
    "case": lambda text, n: text.upper() + " " * n,
    "accents in another form": lambda text, n: text.replace("ï", "i\u0308").replace("ü", "u\u0308") + " " * n,
    "NUL after every word": lambda text, n: text.replace(" ", "\0") + " " * n,
    "a longer document around it": lambda text, n: f"{WORDS[n % 9]} {n} {text} and so on {n}",
    "paragraphs in reverse": lambda text, n: "\n\n".join(reversed(text.split("\n\n"))) + " " * n,
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_duplicates_of_val_are_refused(folder, change):
    documents = texts()
    val = of_split("val", documents)
    copies = [put_into_train(text, CHANGES[change]) for text in val]
    tokenized(documents + copies)
    assert sorted(val_documents()) == sorted(val)
    found = failing()
    assert list(found) == [COPIED] and "in documents of which half or more is, at most 5 %: " in found[COPIED]
    assert found[COPIED].endswith(f" and {len(val) - 3} more")
    assert failing(most=1) == {}


def test_val_split_over_two_train_documents_is_refused(folder):
    documents = texts()
    val = of_split("val", documents)
    middle = len(val[0]) // 2
    halves = [put_into_train(part, lambda part, n: part + " " * n) for text in val for part in (text[:middle], text[middle:])]
    tokenized(documents + halves)
    assert list(failing()) == [COPIED]


def test_one_near_duplicate_is_named(folder):
    documents = texts()
    val = of_split("val", documents)
    tokenized([*documents, put_into_train(val[2], CHANGES["one character"])])
    assert f"half or more is, at most 1 %: 3 {val[2][:40]!r}… (" in failing(most=0.01)[COPIED]
    assert failing(most=0.5) == {}


def test_a_val_document_respelt_in_the_train_shards_is_refused(folder):
    """One token as the pieces of its bytes: other tokens, the same text."""
    tokenized(texts())
    tokenizer = Tokenizer.from_bytes((FOLDER / "tokenizer.model").read_bytes())
    shard = read_split(FOLDER / "train", tokenizer.vocabulary_size)[:]
    tokens = tokenizer.encode(val_documents()[0]).tolist()
    spelt = [int(np.flatnonzero(tokenizer.is_byte)[byte]) for byte in tokenizer.pieces[tokens[5]]]
    respelt = np.array(tokens[:5] + spelt + tokens[6:], np.uint16)
    assert tokenizer.decode(respelt) == val_documents()[0].encode() and respelt.tolist() != tokens
    with ShardWriter(FOLDER / "train", "train", 10**8) as writer:
        writer.write(np.concatenate((shard, respelt)))
    found = failing()
    assert set(found) == {DISJOINT, COPIED, TIED}
    assert found[DISJOINT].startswith(f"1 documents in val and train (1 {val_documents()[0][:40]!r}…)")
    assert found[TIED].startswith("train has ")


def test_val_replaced_consistently_is_refused(folder):
    """Shards and documents agree with each other, but not with the data."""
    tokenized(texts())
    easy = [f"{n} " + "the same words again and again " * 10 for n in range(len(val_documents()))]
    train_anew(easy, "val")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in easy)
    (FOLDER / "val_documents.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    found = failing()
    assert list(found) == [TIED] and "val has " in found[TIED]
    assert "it does not give val 1 '0 the same words" in found[TIED] and found[TIED].endswith("more")


def test_a_witness_that_was_replaced_is_refused(folder):
    """A witness as easy as val is would hide that val is known."""
    tokenized(texts())
    lines = "".join(json.dumps({"text": text + "!"}) + "\n" for text in stored("witness"))
    (FOLDER / "witness_documents.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    found = failing()
    assert list(found) == [TIED] and found[TIED].startswith("witness has ")


def test_a_witness_that_was_learned_from_is_refused(folder):
    documents = texts()
    tokenized(documents)
    train_anew([*of_split("train", documents), *stored("witness")])
    found = failing()
    assert set(found) == {DISJOINT, TIED} and f"{len(stored('witness'))} documents in witness and train" in found[DISJOINT]


def test_train_text_that_is_not_in_the_data_is_refused(folder):
    documents = texts()
    tokenized(documents)
    train_anew([*of_split("train", documents), "a text from elsewhere"])
    assert list(failing()) == [TIED]


def test_the_same_text_in_other_tokens_is_the_same(folder):
    """A spelling is the author's choice: what it costs, the score says."""
    documents = texts()
    tokenized(documents)
    tokenizer = Tokenizer.from_bytes((FOLDER / "tokenizer.model").read_bytes())
    byte_ids = np.flatnonzero(tokenizer.is_byte).astype(np.uint16)
    with ShardWriter(FOLDER / "train", "train", 10**8) as writer:
        for text in of_split("train", documents):
            writer.write(np.append(np.uint16(tokenizer.bos), byte_ids[np.frombuffer(text.encode(), np.uint8)]))
    assert failing() == {}


def cheat_with_symbols(patch: pytest.MonkeyPatch, symbols: list[str]) -> None:
    """Have SentencePiece take these texts as symbols of the vocabularies that it learns."""
    train, spelt = SentencePieceTrainer.Train, [symbol.replace(" ", "▁") for symbol in symbols]
    patch.setattr(
        SentencePieceTrainer, "Train", staticmethod(lambda **options: train(**options | {"user_defined_symbols": spelt}))
    )


def vocabulary_with(symbols: list[str], documents: list[str]) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        cheat_with_symbols(patch, symbols)
        return train_bpe(documents, 330, 10**6)


def test_pieces_of_val_as_symbols_of_the_vocabulary_are_refused(folder):
    documents = texts()
    tokenized(documents)
    symbols = [text[20:120].split("\n")[0] for text in val_documents()]
    model = vocabulary_with(symbols, of_split("train", documents))
    (FOLDER / "tokenizer.model").write_bytes(model)
    for name in SPLITS:
        train_anew(of_split(name, documents), name)
    found = failing()
    assert list(found) == [VOCABULARY]
    assert (
        "is not the one that train gives" in found[VOCABULARY]
        and "long pieces stand in val and never in train" in found[VOCABULARY]
    )


def test_symbols_are_refused_even_if_training_gives_them_again(folder, monkeypatch):
    documents = texts()
    symbols = [text[20:60].split("\n")[0] for text in of_split("val", documents)]
    cheat_with_symbols(monkeypatch, symbols)
    tokenized(documents)
    assert failing()[VOCABULARY].startswith(f"{len(symbols)} long pieces stand in val and never in train: ")


def test_a_vocabulary_that_was_learned_from_val_as_well_is_refused(folder):
    documents = texts()
    tokenized(documents)
    (FOLDER / "tokenizer.model").write_bytes(train_bpe(documents, 330, 10**6))
    for name in SPLITS:
        train_anew(of_split(name, documents), name)
    assert list(failing()) == [VOCABULARY]


def test_nul_inside_documents_starts_no_document(folder):
    """Text from PDFs has NUL between pages, and blank pages are alike."""
    pages = [text.replace("\n\n", "\0This page is left blank.\0") for text in texts()]
    tokenized(pages)
    assert failing(most=1) == {}
    counts = {name: len(of_split(name, pages)) for name in ("train", "holdout", "witness", "val")}
    assert judged()[0].amount == ", ".join(f"{name} {count}" for name, count in counts.items()) + " documents"


def test_a_document_with_nul_that_is_in_two_splits_is_found(folder):
    pages = [text.replace("\n\n", "\0") for text in texts()]
    tokenized(pages)
    train_anew([*of_split("train", pages), val_documents()[0]])
    assert set(failing()) == {COPIED, TIED}


def test_data_that_is_gone_is_a_sentence(folder):
    tokenized(texts())
    Path("data/documents.jsonl").unlink()
    found = failing()
    assert set(found) == {TIED, VOCABULARY}
    assert found[TIED].startswith("cannot be read again: data.documents: no file matches 'data/*.jsonl'")


@pytest.fixture
def shards(folder) -> dict:
    """Ready-made shards with a vocabulary of 330, one document in val and in train, and the params that name them."""
    documents = texts()
    tokenized(documents)
    (FOLDER / "tokenizer.model").rename("data/given.model")
    tokenizer = Tokenizer.from_bytes(Path("data/given.model").read_bytes())
    for name, given in (("train", [*documents[10:], documents[0]]), ("val", documents[:10])):
        with ShardWriter(Path("data") / name, name, 10**8) as writer:
            for text in given:
                writer.write(tokenizer.encode(text))
    globs = {"shards_train": ["data/train/*.bin"], "shards_val": ["data/val/*.bin"], "shards_tokenizer": "data/given.model"}
    tokenized(documents, source="shards", **globs)
    return {"documents": documents, "globs": globs}


def test_ready_made_shards_pass(shards):
    assert failing(most=0) == {}
    _, _, tied, vocabulary = judged()
    assert tied.result == "train, holdout, val, witness: the same tokens as in tokenize.shards_train and tokenize.shards_val"
    assert vocabulary.how.startswith("compared with the file in params")


def test_shards_of_val_that_were_replaced_are_refused(shards):
    train_anew(["the same words again and again " * 10] * 10, "val")
    found = failing()
    assert "val has " in found[TIED] and "tokenize.shards_val gives" in found[TIED]


def test_train_shards_that_keep_what_is_in_val_are_refused(shards):
    train_anew([*shards["documents"][10:], shards["documents"][0]])
    assert set(failing()) == {DISJOINT, COPIED, TIED}


def test_another_vocabulary_than_the_given_one_is_refused(shards):
    model = vocabulary_with(["symbol"], shards["documents"])
    (FOLDER / "tokenizer.model").write_bytes(model)
    assert "is not the one that train gives" in failing()[VOCABULARY]


def test_a_given_vocabulary_with_pieces_of_val_is_refused(shards):
    """The file in params is the submission's, but nobody can have learned it from train."""
    symbol = shards["documents"][3][10:80].split("\n")[0]
    model = vocabulary_with([symbol], shards["documents"][10:])
    Path("data/given.model").write_bytes(model)
    tokenizer = Tokenizer.from_bytes(model)
    for name, given in (("train", shards["documents"][10:]), ("val", shards["documents"][:10])):
        with ShardWriter(Path("data") / name, name, 10**8) as writer:
            for text in given:
                writer.write(tokenizer.encode(text))
    tokenized(shards["documents"], source="shards", **shards["globs"])
    assert failing() == {VOCABULARY: f"1 long pieces stand in val and never in train: {symbol!r}"}
