"""The witness test (fairway/proof/witness.py): how often it alarms for nothing, and which leaks it finds.

Honest: the corpus is split again a hundred times, by the hash of another salt each, with the fractions of params.yaml; each
split gets a tiny network of its own, trained on its own train documents. Leaks: the same networks learn from val for some
passes before it is scored. Then the checkpoint of `train`, which has read neither holdout nor val: val against holdout, before
and after a pass over val; and a hundred times ten documents of both against seven others, honest, and with the ten as if
the network knew a share of their bits. Three tests: the two of certify, and passages of 512 tokens as if they were
independent. Last, the judge's comparison (fairway/proof/fresh.py) of those ten and seven. What documents cost is kept in
bench/results/witness.jsonl: an interrupted table goes on where it was.
Run after `dvc repro`: python -m bench.witness [--artifacts DIR] [--out TABLE.md] [--table]
"""

import argparse
import copy
import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch

from fairway.lm import checkpoint
from fairway.lm.config import Architecture
from fairway.lm.model import GPT
from fairway.markdown import table
from fairway.params import load
from fairway.proof import fresh
from fairway.proof.trigrams import Trigrams
from fairway.proof.witness import LEVEL, Costs, comparison_of
from fairway.score.config import Eval
from fairway.score.streaming import score_stream
from fairway.text import split
from fairway.text.config import Data, Tokenize
from fairway.text.documents import read_documents
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer, read_tokenizer
from fairway.train.config import PrequantTtt
from fairway.train.prequant_ttt import adapt

RESULTS = Path(__file__).parent / "results/witness.jsonl"
SPLITS, LEAKING = 100, 10
TINY = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 1, "rope_dims": 16, "sequence_length": 64}
TRAINING = PrequantTtt(lr=4e-3, sequences_per_step=32, max_tokens=60_000, gradient_clip=1.0)
AS_PREQUANT_TTT = PrequantTtt(lr=5e-4, first_block=0.3, gradient_clip=1.0)
PASSES = (1, 4, 16)
LENGTH = 1500  # tokens of a document that a tiny network scores and learns
PASSAGE = 512
VAL, WITNESS = 10, 7  # documents, as by default
SHARES = (0.0, 0.02, 0.04, 0.06, 0.1, 0.2, 0.3)  # of the bits of val, known
LEVELS = (0.05, LEVEL)
TESTS = ("bits per byte", "bits per trigram bit", "passages")
HEAD = """# The witness test and the judge's comparison: false alarms and leaks

By `python -m bench.witness`. "real" is the float checkpoint of `train` of a default run, which has read neither holdout nor
val: val against holdout; then a hundred times 10 of these 22 documents against 7 others, honest, and with the 10 as if the
network knew a share of their bits. "tiny" are networks of two layers, one per split of the corpus (no row: not run yet).
Columns count the runs below each level; `certify` refuses when one of the first two tests is below 0.001."""
Scored = list[np.ndarray]  # document by document (3, tokens): nats, nats by trigrams, bytes


def score(model: GPT, trigrams: Trigrams, tokenizer: Tokenizer, documents: list[np.ndarray]) -> Scored:
    settings = Eval(context=model.architecture.sequence_length, block=1024)
    sizes = np.array([len(piece) for piece in tokenizer.pieces])
    return [
        np.stack([score_stream(model, tokens, settings)["nats"].astype(np.float64), trigrams.nats(tokens), sizes[tokens[1:]]])
        for tokens in documents
    ]


def costs(parts: list) -> Costs:
    """Of rows of nats, nats by trigrams and bytes."""
    nats, by_trigrams, size = np.array(parts, np.float64).T
    return Costs(nats / math.log(2), by_trigrams / math.log(2), size)


def row(val: Scored, witness: Scored, **facts) -> dict:
    """What is kept: the sums of each document, and p with passages for documents."""
    sums = {name: [part.sum(axis=1).tolist() for part in side] for name, side in (("val", val), ("witness", witness))}
    cut = ([d[:, s : s + PASSAGE].sum(axis=1) for d in side for s in range(0, d.shape[1], PASSAGE)] for side in (val, witness))
    return facts | sums | {"passages": comparison_of(*map(costs, cut), 0).p}


def salted(texts: list[str], salt: int, config: Tokenize) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "holdout": [], "val": [], "witness": []}
    for text in texts:
        identity = int.from_bytes(hashlib.sha256(f"{salt}\0{text}".encode()).digest()[:8], "big")
        name = split.split_of(identity, config.holdout_fraction, config.val_fraction, config.witness_fraction)
        found[name].append(text)
    return found


def tiny(number: int, texts: list[str], tokenizer: Tokenizer, config: Tokenize) -> list[dict]:
    """One split of the corpus with a network of its own, honest and, for the first LEAKING of them, with the leaks."""
    found = salted(texts, number, config)
    documents = {name: [tokenizer.encode(text)[: LENGTH + 1] for text in side] for name, side in found.items()}
    order = np.random.default_rng(number).permutation(len(documents["train"]))
    train = np.concatenate([documents["train"][index] for index in order])
    model = GPT(Architecture(**TINY, vocabulary_size=tokenizer.vocabulary_size, bos=tokenizer.bos))
    model.initialise(number)
    adapt(model, train[: TRAINING.max_tokens], TRAINING, torch.float32)
    sides, passes = (documents["val"], documents["witness"]), (0, *PASSES) if number < LEAKING else (0,)
    return leaks(
        model, Trigrams(train, tokenizer.vocabulary_size), tokenizer, sides, TRAINING, passes, network="tiny", split=number
    )


def leaks(
    model: GPT, trigrams: Trigrams, tokenizer: Tokenizer, sides: tuple, learning: PrequantTtt, passes: tuple, **facts
) -> list[dict]:
    """Rows for the model after it has learned from val for so many passes, 0 for honest. `sides`: tokens of val, witness."""
    rows = []
    for count in passes:
        other = copy.deepcopy(model)
        if count:
            adapt(other, np.concatenate(sides[0]), dataclasses.replace(learning, epochs=count), torch.float32)
        val, witness = (score(other.eval(), trigrams, tokenizer, side) for side in sides)
        rows.append(row(val, witness, passes=count, **facts))
    return rows


def held_out(texts: list[str], config: Tokenize) -> tuple[list[str], list[str]]:
    """Val and holdout."""
    names = [split.split_of(split.digest(text.encode()), config.holdout_fraction, config.val_fraction) for text in texts]
    return tuple([text for text, name in zip(texts, names, strict=True) if name == wanted] for wanted in ("val", "holdout"))


def real(artifacts: Path, texts: list[str], config: Tokenize, passes: tuple) -> list[dict]:
    """The checkpoint of `train`: val against holdout, after so many passes over val."""
    tokenizer = read_tokenizer(artifacts / "tokenize/tokenizer.model")
    model = checkpoint.network(artifacts / "train/checkpoint.safetensors").eval()
    trigrams = Trigrams(read_split(artifacts / "tokenize/train", tokenizer.vocabulary_size)[:], tokenizer.vocabulary_size)
    sides = tuple([tokenizer.encode(text) for text in side] for side in held_out(texts, config))
    return leaks(model, trigrams, tokenizer, sides, AS_PREQUANT_TTT, passes, network="real")


def resplits(honest: dict, texts: tuple[list[str], list[str]]) -> tuple[list[dict], np.ndarray]:
    """Rows by share of bits known, and of each honest resplit the judge's logarithm and its error."""
    parts, contents, rows, judged = (
        np.array(honest["val"] + honest["witness"]),
        [t.encode() for t in texts[0] + texts[1]],
        [],
        [],
    )
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(parts))
        first, second = order[:VAL], order[VAL : VAL + WITNESS]
        for share in SHARES:
            known = parts[first] * [1 - share, 1, 1]
            facts = {"network": f"real, {VAL} against {WITNESS}", "passes": f"{share:.0%} known" if share else 0}
            rows.append(facts | {"val": known, "witness": parts[second]})
        sides = [(b"\0".join(contents[i] for i in part), costs(parts[part]).bpb) for part in (first, second)]
        found = fresh.compare(*sides[0], *sides[1])
        judged.append((math.log(found.adjusted), found.error))
    return rows, np.array(judged)


def page(rows: list[dict], judged: np.ndarray) -> str:
    """Runs below two levels, by network, leak and test; then the judge's alarms."""
    groups: dict[tuple, list[dict]] = {}
    for one in rows:
        groups.setdefault((one["network"], one["passes"]), []).append(one)
    lines = []
    for (network, passes), group in groups.items():
        found = [comparison_of(costs(one["val"]), costs(one["witness"]), seed) for seed, one in enumerate(group)]
        gains = [np.mean([each.val.bpb / each.witness.bpb - 1 for each in found])]
        gains.append(np.mean([each.val.per_trigram_bit / each.witness.per_trigram_bit - 1 for each in found]))
        p = [[each.p for each in found], [each.p_trigram for each in found], [one.get("passages", math.nan) for one in group]]
        below = ["—" if math.isnan(of[0]) else f"{sum(np.array(of) < level)}" for of in p for level in LEVELS]
        leak = "honest" if not passes else passes if isinstance(passes, str) else f"{passes} over val"
        lines.append([network, leak, f"{len(group)}", *(f"{gain:+.1%}" for gain in gains), *below])
    header = ["network", "leak", "runs", "val over witness", "the same per trigram bit"]
    header += [f"{test}, p < {level:g}" for test in TESTS for level in LEVELS]
    deviations = {0.05: 1.645, LEVEL: fresh.QUANTILE}
    alarms = [f"{(judged[:, 0] < -count * judged[:, 1]).sum()} at p < {level:g}" for level, count in deviations.items()]
    words = (
        f"The judge's ratio on {len(judged)} honest resplits of {VAL} and {WITNESS} documents: standard deviation of its "
        f"logarithm {judged[:, 0].std():.4f}, error by the bootstrap {judged[:, 1].mean():.4f} in the mean; below its range "
        f"{', '.join(alarms)}."
    )
    return f"{table(header, lines, range(2, len(header)))}\n\n{words}"


def kept() -> list[dict]:
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def keep(rows: list[dict]) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.witness")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="store_true", help="measure nothing more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, config = load("params.yaml", "data", Data), load("params.yaml", "tokenize", Tokenize)
    texts = list(read_documents(data.documents, data.text_field))
    tokenizer, done = read_tokenizer(options.artifacts / "tokenize/tokenizer.model"), kept()
    missing = {0, PASSES[0]} - {one["passes"] for one in done if one["network"] == "real"}
    if missing and not options.table:
        keep(real(options.artifacts, texts, config, tuple(sorted(missing))))
    finished = {one["split"] for one in done if one["network"] == "tiny"}
    for number in range(0 if options.table else SPLITS):
        if number not in finished:
            keep(tiny(number, texts, tokenizer, config))
            print(f"split {number + 1} of {SPLITS}", flush=True)
    rows = sorted(kept(), key=lambda one: (one["network"], one["passes"]))
    honest = next(one for one in rows if one["network"] == "real" and not one["passes"])
    more, judged = resplits(honest, held_out(texts, config))
    print(text := page(rows + more, judged))
    if options.out:
        options.out.write_text(f"{HEAD}\n\n{text}\n", encoding="utf-8")
    for network in ("tiny", more[0]["network"]):
        honest = [one for one in rows + more if one["network"] == network and not one["passes"]]
        runs = [comparison_of(costs(one["val"]), costs(one["witness"]), seed) for seed, one in enumerate(honest)]
        refused = sum(min(run.p, run.p_trigram) < LEVEL for run in runs)
        print(f"figure witness.refused {network}, {len(runs)} honest runs = {refused}")


if __name__ == "__main__":
    main()
