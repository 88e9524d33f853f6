"""Ways to damage a file, and which file is damaged for whom.

Who reads what is not written down here for a stage: dvc.yaml names it. To that come what the small pipeline has no example
of (other kinds of documents, ready-made shards, a saved training run), and the commands beside the stages. Each pair of a
reader and a file meets every damage in turn, so that however few trials there are, they are spread over all pairs.
"""

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

import pyarrow
import yaml
import zstandard
from pyarrow import parquet

from fairway.params import read_yaml
from tests.gallery.pipeline import documents

FORMATS, SHARDS, SAVED = "formats", "theirs", ".ckpt/train"  # folders that are made for trials
DOCUMENTS = ("documents.jsonl", "documents.jsonl.zst", "documents.jsonl.gz", "documents.parquet", "texts/07.txt")
SUBMISSION, CODED = "artifacts/certify/submission.pyz", "artifacts/certify/coded.fwt"
FROM_SHARDS = {
    "source": "shards",
    "shards_train": [f"{SHARDS}/train.bin"],
    "shards_val": [f"{SHARDS}/val.bin"],
    "shards_tokenizer": f"{SHARDS}/tokenizer.model",
}
UNREAD = {  # deps that other params ask for
    ("prequant_ttt", "artifacts/tokenize/train"),
    ("prequant_ttt", "artifacts/tokenize/val"),
    ("quant", "artifacts/tokenize/tokenizer.model"),
}
COMMANDS = {  # beside the stages, and the files that they read
    "-m fairway.sections": ["params.yaml"],
    "-m fairway.presets laptop": ["params.yaml"],
    "-m fairway.report compare workspace": ["reports/summary.json", "reports/report/stages.json", "dvc.lock"],
    "-m fairway.report submission out --author a --github a --anyway": [
        "reports/compress/metrics.json",
        "reports/report/stages.json",
        "reports/train/loss.tsv",
        "artifacts/certify/certificate.json",
        SUBMISSION,
        "dvc.lock",
    ],
    f"{SUBMISSION} decompress {CODED} out": [SUBMISSION, CODED],
    f"{SUBMISSION} score artifacts/certify/val.txt": [SUBMISSION, "artifacts/certify/val.txt"],
}
FOREIGN = {  # files of other kinds
    "a web page": b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8,
    "a list in JSON": b"[1, 2, 3]\n",
    "another object in JSON": b'{"a": {"b": null}}\n',
    "zeros": bytes(4096),
}


class Pair(NamedTuple):
    """A file, and what reads it."""

    command: str  # after the word python
    path: str
    params: dict[str, dict] | None = None  # changes, by section

    @property
    def reader(self) -> str:
        """Command and params."""
        return f"{self.command} {self.params}"

    @property
    def is_program(self) -> bool:
        return self.command.startswith(self.path)


Damage = Callable[[Path, Random], str]  # says what it has done


def cut(path: Path, random: Random) -> str:
    content = path.read_bytes()
    size = random.randrange(1, len(content))
    replace(path, content[:size])
    return f"cut after {size:,} of {len(content):,} bytes"


def flip(path: Path, random: Random) -> str:
    content = bytearray(path.read_bytes())
    place, bit = random.randrange(len(content)), random.randrange(8)
    content[place] ^= 1 << bit
    replace(path, bytes(content))
    return f"bit {bit} of byte {place:,} of {len(content):,} flipped"


def empty(path: Path, random: Random) -> str:
    replace(path, b"")
    return "emptied"


def foreign(path: Path, random: Random) -> str:
    name = random.choice(list(FOREIGN))
    replace(path, FOREIGN[name])
    return f"replaced by {name}"


def folder(path: Path, random: Random) -> str:
    path.unlink()
    path.mkdir()
    return "replaced by a folder"


def gone(path: Path, random: Random) -> str:
    path.unlink()
    return "taken away"


NAMES = {cut: "cut", flip: "a bit flipped", empty: "emptied", foreign: "of another kind", folder: "a folder", gone: "missing"}
DAMAGES: tuple[Damage, ...] = tuple(NAMES)


def replace(path: Path, content: bytes) -> None:
    """In a new file: the old one may be DVC's own in its cache, under another name."""
    path.unlink()
    path.write_bytes(content)


def pairs(folder: Path) -> list[Pair]:
    """Every reader with every file that it reads, in a folder that `equip` has been at."""
    found = []
    for stage, content in yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"].items():
        for dep in content["deps"]:
            if dep.startswith(("artifacts", "reports")) and (stage, dep) not in UNREAD:
                found.append(Pair(f"-m stages.{stage}", a_file(folder, dep)))
    given = {name: {"data": {"documents": [f"{FORMATS}/{name}"]}} for name in DOCUMENTS}
    given["texts/07.txt"]["data"]["documents"] = [f"{FORMATS}/texts/*.txt"]
    found += [Pair("-m stages.tokenize", f"{FORMATS}/{name}", params) for name, params in given.items()]
    shards = {"tokenize": FROM_SHARDS}
    found += [Pair("-m stages.tokenize", f"{SHARDS}/{name}", shards) for name in ("train.bin", "val.bin", "tokenizer.model")]
    found.append(Pair("-m stages.quant", "artifacts/tokenize/tokenizer.model", {"quant": {"target_bytes": 57_000}}))
    found.append(Pair("-m stages.train", next((folder / SAVED).glob("*/*.pt")).relative_to(folder).as_posix()))
    found += [Pair("-m stages.certify", "reports/eval_ttt/timing.json"), Pair("-m stages.report", "params.yaml")]
    return found + [Pair(command, path) for command, paths in COMMANDS.items() for path in paths]


def a_file(folder: Path, dep: str) -> str:
    """A dependency, or the first file in it."""
    return sorted((folder / dep).iterdir())[0].relative_to(folder).as_posix() if (folder / dep).is_dir() else dep


def plan(pairs: list[Pair], random: Random) -> Iterator[tuple[Pair, Damage]]:
    """Pairs and damages without end: all pairs once, in any order, then all of them with another damage, and so on."""
    orders = [random.sample(DAMAGES, len(DAMAGES)) for _ in pairs]
    for turn in count():
        for pair, order in random.sample(list(zip(pairs, orders, strict=True)), len(pairs)):
            yield pair, order[turn % len(DAMAGES)]


def equip(folder: Path) -> None:
    """Add the files of other kinds to a copy of the pipeline: documents of every format, and ready-made shards."""
    texts, lines = folder / FORMATS / "texts", documents()
    texts.mkdir(parents=True)
    (folder / FORMATS / "documents.jsonl").write_text(lines, encoding="utf-8")
    (folder / FORMATS / "documents.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    (folder / FORMATS / "documents.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    column = [json.loads(line)["text"] for line in lines.splitlines()]
    parquet.write_table(pyarrow.table({"text": column}), folder / FORMATS / "documents.parquet")
    for number, text in enumerate(column):
        (texts / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    (folder / SHARDS).mkdir()
    for name in ("train", "val"):
        shutil.copy(next((folder / "artifacts/tokenize" / name).iterdir()), folder / SHARDS / f"{name}.bin")
    shutil.copy(folder / "artifacts/tokenize/tokenizer.model", folder / SHARDS)


def configure(folder: Path, changes: dict[str, dict]) -> None:
    """Change params.yaml."""
    params = read_yaml(folder / "params.yaml")
    params |= {section: params[section] | values for section, values in changes.items()}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
