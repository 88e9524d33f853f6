"""Does the artifact find the validation text too easy? Its frozen network on val, against documents that no stage has read.

A hash of its text puts a document into val or into the witness (fairway/text/split.py), so for an artifact that knows neither
the labels are exchangeable, and a permutation of documents among the two gives an exact test, however different or alike the
documents are within themselves. Passages would not do: those of one document are alike, and then the test refuses honest
artifacts. Two statistics are tested: bits per byte, and bits per bit of a trigram model of train, which takes away most of what
makes one document harder than another and so finds leaks that are seven times smaller (bench/results/witness.md).

It sees what the weights and the tokenizer know. It cannot see code that treats val differently, nor an artifact that knows the
witness as well as val.
"""

import dataclasses
import hashlib
import math
from typing import NamedTuple

import numpy as np

from fairway.lm.model import GPT
from fairway.proof.claims import SCORE_FIRST, Claim
from fairway.proof.trigrams import Trigrams
from fairway.score.config import Eval
from fairway.score.streaming import score_stream
from fairway.text.shards import Shards
from fairway.text.tokenizer import Tokenizer

LEVEL = 1e-3  # of either p, below which the claim fails: at most two honest runs in a thousand
PERMUTATIONS = 2_000
MOST_BYTES = 2_000_000  # of either side that are scored; more documents are left out by lot
MOST_TOKENS = 4_000_000  # of train that the trigram model counts


class Costs(NamedTuple):
    """What documents cost, float64 (documents,): bits of all their tokens, bits by the trigram model; and their UTF-8 bytes."""

    bits: np.ndarray
    trigram_bits: np.ndarray
    size: np.ndarray

    @property
    def bpb(self) -> float:
        return float(self.bits.sum() / self.size.sum())

    @property
    def per_trigram_bit(self) -> float:
        return float(self.bits.sum() / self.trigram_bits.sum())


class Comparison(NamedTuple):
    """`p` of bits per byte, and of bits per bit of the trigram model; `least` is the least that so few documents permit."""

    val: Costs
    witness: Costs
    p: float
    p_trigram: float
    least: float


def compare(
    model: GPT,
    submission: bytes,
    scoring: Eval,
    tokenizer: Tokenizer,
    texts: tuple[list[str], list[str]],
    train: np.ndarray | Shards,
) -> Comparison | None:
    """The comparison for the network of a submission; None without witness documents. `texts`: val, witness; `train`: tokens.

    Where there is more text than MOST_BYTES, the digest of the submission draws the documents: nobody knows which before it is
    made. It seeds the permutations too.
    """
    texts = tuple([text for text in side if text] for side in texts)  # of ready-made shards, some may be empty
    if not all(texts):
        return None
    seed = int.from_bytes(hashlib.sha256(submission).digest()[:8], "big")
    trigrams = Trigrams(train[:MOST_TOKENS], tokenizer.vocabulary_size)
    val, witness = (document_costs(model, trigrams, scoring, tokenizer, drawn(side, seed)) for side in texts)
    return comparison_of(val, witness, seed)


def comparison_of(val: Costs, witness: Costs, seed: int) -> Comparison:
    bits, trigram_bits, size = (np.concatenate(pair) for pair in zip(val, witness, strict=True))
    count = len(val.bits)
    p, p_trigram = (permutation_p(bits, base, count, seed) for base in (size, trigram_bits))
    return Comparison(val, witness, p, p_trigram, least_p(count, len(bits) - count))


def drawn(texts: list[str], seed: int, most_bytes: int = MOST_BYTES) -> list[str]:
    """Texts of at most so many bytes in all, but at least one, drawn by lot."""
    order = np.random.default_rng(seed).permutation(len(texts)).tolist()
    taken, size = order[:1], len(texts[order[0]].encode())
    for index in order[1:]:
        size += len(texts[index].encode())
        if size > most_bytes:
            break
        taken.append(index)
    return [texts[index] for index in taken]


def document_costs(model: GPT, trigrams: Trigrams, scoring: Eval, tokenizer: Tokenizer, texts: list[str]) -> Costs:
    """Each document by itself through the network alone: no test-time training, no cache, no mixture."""
    frozen, rows = dataclasses.replace(scoring, method="streaming"), []
    for text in texts:
        content = text.encode()
        tokens = np.concatenate([np.array([tokenizer.bos], np.uint16), *tokenizer.encode_bytes([content])])
        nats = float(score_stream(model, tokens, frozen)["nats"].sum(dtype=np.float64))
        rows.append((nats / math.log(2), float(trigrams.nats(tokens).sum()) / math.log(2), len(content)))
    return Costs(*np.array(rows, np.float64).T)


def permutation_p(bits: np.ndarray, base: np.ndarray, count: int, seed: int, permutations: int = PERMUTATIONS) -> float:
    """P(the first `count` documents, val, are at least as cheap as they are) over permutations of all; one-sided.

    The statistic is the difference of two ratios, bits over base of val less that of the others. The true labels count as one
    permutation more, so that p is never 0 and, for exchangeable documents, at most its nominal level (Phipson and Smyth 2010).
    """
    random = np.random.default_rng(seed)
    true = np.arange(len(bits))[None]
    orders = np.concatenate([true, random.permuted(np.repeat(true, permutations, axis=0), axis=1)])
    first, second = (bits[part].sum(axis=1) / base[part].sum(axis=1) for part in (orders[:, :count], orders[:, count:]))
    difference = first - second
    as_cheap = int(np.count_nonzero(difference[1:] <= difference[0] + 1e-9))  # sums in another order differ in the last bits
    return (1 + as_cheap) / (1 + permutations)


def least_p(first: int, second: int, permutations: int = PERMUTATIONS) -> float:
    """The least p that so many documents on either side can give, however different they are."""
    return max(1 / math.comb(first + second, first), 1 / (1 + permutations))


def not_too_easy(comparison: Comparison | None) -> Claim:
    claim = "val costs the artifact what documents cost that no stage has read"
    how = (
        "the frozen network on each document of val and of the witness by itself; permutation tests over documents, refused "
        f"at p < {LEVEL:g}"
    )
    if comparison is None:
        result = "not tested: there is no witness document (tokenize.witness_fraction is 0, or there are too few documents)"
        return Claim(SCORE_FIRST, claim, how, "0 documents", True, result)
    val, witness, p, p_trigram, least = comparison
    amount = f"{len(val.bits):,} documents of val, {len(witness.bits):,} of the witness"
    result = (
        f"val {val.bpb:.4f} bpb, witness {witness.bpb:.4f}: {val.bpb / witness.bpb - 1:+.1%}, p = {p:.2g}; per bit of "
        f"a trigram model of train {val.per_trigram_bit / witness.per_trigram_bit - 1:+.1%}, p = {p_trigram:.2g}"
    )
    if least >= LEVEL:
        result += f"; so few documents permit no p below {least:.2g}, so nothing could be refused"
    return Claim(SCORE_FIRST, claim, how, amount, min(p, p_trigram) >= LEVEL, result)
