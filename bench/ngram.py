"""The n-gram mixtures on one core: tokens per second, bytes per n-gram, bits per byte; and a plan for 62 M tokens.

Speed: the validation stream of the default run over and over, 5 M tokens, with the features that eval_ttt recorded. The
peers are the same definitions in Python's dictionaries on the first tokens, as the tests have them; that of the linear
mixture also with running sums. They must find the same scores. The plan is explained in ngram_plan.py. Seconds are of the
CPU. Run after `dvc repro`: python -m bench.ngram
"""

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.ngram_plan import linear, plan, timed, tree
from fairway.mixture.config import Ngram
from fairway.mixture.features import Features
from fairway.mixture.protocol import Mixture, mixture_of
from fairway.mixture.tree_mixture import word_starts
from fairway.score.bits import bits_per_byte
from fairway.score.files import read, read_features
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from tests.mixture.dictionary import DictionaryCounts, DictionaryMixture
from tests.mixture.plain_tree import PlainTree

ARTIFACTS, RESULTS = Path("artifacts"), Path(__file__).parent / "results"
BEST_LINEAR = Ngram(  # tuned on the holdout split
    mixture="linear", max_order=7, table_entries=1 << 30, learning_rate=0.02, entropy_bins=3
)
BEST_TREE = dataclasses.replace(BEST_LINEAR, mixture="tree", learning_rate=0.004, entropy_bins=12)
TREE, NO_CACHE, LINEAR = "tree", "tree, without the cache", "linear, kneser_ney"
other = functools.partial(dataclasses.replace, BEST_LINEAR)
KINDS = {
    TREE: BEST_TREE,
    NO_CACHE: BEST_TREE,
    "tree, orders up to 6 (the default)": dataclasses.replace(BEST_TREE, max_order=6),
    LINEAR: BEST_LINEAR,
    "linear, interpolated": other(estimator="interpolated"),
    "linear, counted every 32,768 tokens": other(update_tokens=32768),
    "fixed, kneser_ney": other(mixture="fixed"),
    "entropy, kneser_ney": other(mixture="entropy"),
    "entropy, add_one (#1185)": other(mixture="entropy", estimator="add_one"),
    "fixed, hashed_ratio (#885), no distribution": other(mixture="fixed", estimator="hashed_ratio", neural_weight=0.8),
}


class Sizes(NamedTuple):
    """In tokens."""

    speed: int = 5_000_000
    linear_peer: int = 20_000
    tree_peer: int = 2_000
    plan: int = 10_000_000
    full: int = 62_000_000


class Recorded(NamedTuple):
    """What the stages have left: of the validation stream and its text, of the vocabulary, and the training split."""

    features: Features  # as the tree reads them
    text_bytes: int
    ranks: np.ndarray  # uint16 (V,)
    starts: np.ndarray  # bool (V,)
    bos: int
    train: np.ndarray  # uint16

    def mixture(self, settings: Ngram) -> Mixture:
        return mixture_of(settings, self.ranks, self.starts, self.bos)

    def bpb(self, nats: np.ndarray) -> float:
        return bits_per_byte(nats, self.text_bytes)


def read_recorded() -> Recorded:
    tokenizer = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes())
    return Recorded(
        read_features(ARTIFACTS / "eval_ttt", "tree", tokenizer.vocabulary_size),
        int(read(ARTIFACTS / "eval_ttt/scores.npy")["bytes"].sum(dtype=np.int64)),
        np.load(ARTIFACTS / "eval_ttt/tree.npy"),
        word_starts(tokenizer.pieces),
        tokenizer.bos,
        read_split(ARTIFACTS / "tokenize/train", tokenizer.vocabulary_size)[:],
    )


class RunningSums(DictionaryCounts):
    """The dictionaries of the tests with what a sum over all successors would give kept up to date: a fairer peer."""

    def __init__(self, settings: Ngram, vocabulary: int):
        super().__init__(settings, vocabulary)
        self.sums: dict[tuple, list[float]] = {}  # context → total, sum of discounts

    def seen(self, text: list[int]) -> list[tuple]:
        found = []
        for context in self.contexts(text):
            if context not in self.sums:
                break
            found.append((self.successors[context], *self.sums[context]))
        return found

    def estimates(self, seen: list[tuple], token: int) -> list[float]:
        discounts, below, results = self.settings.discounts, 1 / self.vocabulary, []
        for followers, total, mass in seen:
            count = followers.get(token, 0)
            kept = count - discounts[min(count, 3) - 1] if count else 0
            below = (kept + mass * below) / total
            results.append(below)
        return results

    def count(self, token: int) -> None:
        contexts = self.contexts(self.text)
        before = [self.successors[context].get(token, 0) for context in contexts]
        super().count(token)
        for context, count in zip(contexts, before, strict=True):
            if self.successors[context].get(token, 0) > count:
                sums = self.sums.setdefault(context, [0, 0.0])
                sums[0] += 1
                sums[1] += ([0, *self.settings.discounts])[min(count + 1, 3)] - ([0, *self.settings.discounts])[min(count, 3)]


def without_cache(features: Features) -> Features:
    features = features.copy()
    features["paths"][..., 1], features["nearest"] = features["paths"][..., 0], 0
    return features


class Measured(NamedTuple):
    bpb: float
    rate: float  # tokens per second


def measured(given: Recorded, features: Features, settings: Ngram, tokens: int) -> Measured:
    """Bits per byte of the validation stream, and the speed on the same repeated to so many tokens."""
    given.mixture(settings).score(features[:100])  # compiles
    bpb = given.bpb(given.mixture(settings).score(features)[0])
    mixture, long = given.mixture(settings), np.resize(features, tokens)
    return Measured(bpb, tokens / timed(lambda: mixture.score(long))[0])


def measured_kinds(given: Recorded, tokens: int) -> dict[str, Measured]:
    kinds = {}
    for name, settings in KINDS.items():
        features = without_cache(given.features) if name == NO_CACHE else given.features
        kinds[name] = measured(given, features, settings, tokens)
    return kinds


def kinds_table(network: float, kinds: dict[str, Measured]) -> list[str]:
    lines = ["| mixture | bpb of val | to the network | tokens/s |", "|---|---:|---:|---:|"]
    lines.append(f"| network alone | {network:.4f} | | |")
    return lines + [f"| {name} | {bpb:.4f} | {bpb - network:+.4f} | {rate:,.0f} |" for name, (bpb, rate) in kinds.items()]


def rate_on_slice(given: Recorded, settings: Ngram, tokens: int) -> tuple[float, np.ndarray]:
    """Tokens per second on the first tokens, and their nats."""
    mixture, part = given.mixture(settings), given.features[:tokens]
    seconds, (nats, _) = timed(lambda: mixture.score(part))
    return tokens / seconds, nats


def dictionary_rate(given: Recorded, counts: type[DictionaryCounts], tokens: int, expected: np.ndarray) -> float:
    """Tokens per second of the linear mixture in dictionaries."""
    part, vocabulary = given.features[:tokens], len(given.ranks)
    neural = np.exp(-part["nats"].astype(np.float64))
    peer = DictionaryMixture(BEST_LINEAR, vocabulary)
    peer.counts = counts(BEST_LINEAR, vocabulary)
    rows = part["token"].tolist(), neural.tolist(), part["entropy"].tolist()
    return tokens / peer_seconds(peer, rows, expected)


def plain_tree_rate(given: Recorded, tokens: int, expected: np.ndarray) -> float:
    """Tokens per second of the tree in dictionaries."""
    part = given.features[:tokens]
    peer = PlainTree(BEST_TREE, given.ranks, given.starts, given.bos)
    rows = part["token"].tolist(), part["paths"].tolist(), part["nearest"].tolist(), part["entropy"].tolist()
    return tokens / peer_seconds(peer, rows, expected)


def peer_seconds(peer: DictionaryMixture | PlainTree, rows: tuple[list, ...], expected: np.ndarray) -> float:
    seconds, scores = timed(lambda: list(map(peer.score, *rows)))
    np.testing.assert_allclose([nats for nats, _ in scores], expected, rtol=1e-5, atol=1e-6)
    return seconds


def report(given: Recorded, sizes: Sizes) -> str:
    kinds = measured_kinds(given, sizes.speed)
    on_slice, expected = rate_on_slice(given, BEST_LINEAR, sizes.linear_peer)
    plain, running = (dictionary_rate(given, kind, sizes.linear_peer, expected) for kind in (DictionaryCounts, RunningSums))
    tree_on_slice, expected = rate_on_slice(given, BEST_TREE, sizes.tree_peer)
    plain_tree = plain_tree_rate(given, sizes.tree_peer, expected)
    extent = given.train, sizes.plan, sizes.full, len(given.ranks)
    linear_plan = plan(linear(BEST_LINEAR, len(given.ranks)), *extent)
    tree_plan = plan(tree(given.mixture(BEST_TREE)), *extent)
    lines = [
        "# n-gram mixtures on one core",
        "",
        f"Orders up to {BEST_LINEAR.max_order} unless stated otherwise. bpb of the validation stream, "
        f"{len(given.features):,} tokens; tokens per second of CPU time on the same tokens repeated to {sizes.speed:,}. "
        "`python -m bench.ngram` printed this.",
        "",
        *kinds_table(given.bpb(given.features["nats"]), kinds),
        "",
        f"Dictionaries of the linear definition on the first {sizes.linear_peer:,} tokens: {plain:,.0f} tokens/s as the tests "
        f"have them, {running:,.0f} with running sums; linear on the same tokens {on_slice:,.0f}.",
        f"Dictionaries of the tree's definition on the first {sizes.tree_peer:,} tokens: {plain_tree:,.0f} tokens/s as the "
        f"tests have them; the tree on the same tokens {tree_on_slice:,.0f}.",
        "",
        f"## A plan for {sizes.full:,} tokens: linear",
        "",
        *linear_plan.lines,
        "",
        f"## A plan for {sizes.full:,} tokens: tree",
        "",
        *tree_plan.lines,
        "",
        f"figure linear_tokens_per_second = {kinds[LINEAR].rate:.0f}",
        f"figure linear_to_dictionary = {on_slice / running:.1f}",
        f"figure bytes_per_ngram = {linear_plan.size:.1f}",
        f"figure plan_seconds = {linear_plan.seconds:.0f}",
        f"figure plan_gigabytes = {linear_plan.gigabytes:.1f}",
        f"figure tree_tokens_per_second = {kinds[TREE].rate:.0f}",
        f"figure tree_minus_linear_bpb = {kinds[TREE].bpb - kinds[LINEAR].bpb:.4f}",
        f"figure tree_to_dictionary = {tree_on_slice / plain_tree:.1f}",
        f"figure bytes_per_context = {tree_plan.size:.1f}",
        f"figure tree_plan_seconds = {tree_plan.seconds:.0f}",
        f"figure tree_plan_gigabytes = {tree_plan.gigabytes:.1f}",
    ]
    return "\n".join(lines)


def main() -> None:
    text = report(read_recorded(), Sizes())
    (RESULTS / "ngram.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
