"""The certificate's claims about the predictor and its proof, each a pure function of measurements that checks.py takes.

A claim names its condition, what was checked, how, on how much, whether it holds, and the result; if it fails, the result
says why. The conditions are the challenge's four (its issue #1017), the proof by decoding, and the rules, whose claims are
in rules.py. The round trip shows that a decoder needs nothing but the artifact; the other claims show that the reported
score is what was coded.
"""

import math
from dataclasses import dataclass

import numpy as np

from fairway.proof import fence
from fairway.proof.causality import FLIP, Change, Scores
from fairway.proof.coded import BLOCK_TOKENS, Coded
from fairway.proof.ledgers import Ledger
from fairway.proof.round_trip import COMMANDS, RoundTrip

CAUSAL, NORMALISED, SCORE_FIRST, SINGLE_PASS = "causal", "normalised", "score before update", "single pass"
CONDITIONS = (CAUSAL, NORMALISED, SCORE_FIRST, SINGLE_PASS)
PROOF, RULES = "proof", "rules"

CODED_TOLERANCE = 1e-3  # relative to the scored bits
WORD = 32  # bits; the code words of a block are whole words
# A range coder rounds its range, of 32 to 64 bits, down to a multiple of 2^24 at every decision. With the range's logarithm
# evenly spread, that costs 2^-9 / (32 · ln 2 · ln 2) bits on average: 1.27e-4; the default run's 1.6 million cost 1.33e-4.
DECISION_BITS = 1.3e-4
# Of a text in part, at least so many bytes of code words: one word, to which a block is rounded, is the tolerance of these.
LEAST_BYTES = int(WORD / CODED_TOLERANCE) // 8
NORMALISATION_TOLERANCE = 1e-6  # of a sum of probabilities, and of −ln p of a token with probability 1
CAUSALITY_TOLERANCE = 1e-5  # nats
REPRODUCTION_TOLERANCE = 1e-4  # nats


@dataclass(frozen=True)
class Claim:
    condition: str
    claim: str
    how: str
    amount: str
    passed: bool
    result: str


def comes_back(text: bytes, round_trip: RoundTrip) -> Claim:
    decoded = round_trip.decompress.output
    if round_trip.failure:
        result = round_trip.failure
    elif text == decoded:
        result = "identical"
    else:
        pairs = zip(text, decoded, strict=False)
        first = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(text), len(decoded)))
        result = f"differs from byte {first:,} on ({len(decoded):,} bytes decoded)"
    how = "submission.pyz compresses and decompresses in fresh processes, each in a folder of its own, without the repository"
    return Claim(PROOF, "the text comes back, bit for bit", how, f"{len(text):,} bytes", result == "identical", result)


def sandboxed(round_trip: RoundTrip) -> Claim:
    """The submission asked for nothing but its artifact: no network, no other files, none of the repository's packages."""
    wrong = []
    for command, run in zip(COMMANDS, round_trip, strict=True):
        if run.sandbox_report is None:
            wrong.append(f"{command} left no sandbox report" if run.seconds else f"{command} never ran")
        else:
            wrong += [f"{command} tried to {what}" for what in run.sandbox_report["refused"]]
            wrong += [f"{name} can be imported from outside the submission" for name in run.sandbox_report["importable"]]
    if wrong:
        result = "; ".join(dict.fromkeys(wrong))
    else:
        result = f"nothing was refused (fence: {fence.sentence(round_trip.compress.sandbox_report)})"
    how = "network, other processes and all files but its own, the libraries' and the system's are refused"
    return Claim(PROOF, "it reads nothing but its artifact", how, f"{len(round_trip)} processes", not wrong, result)


def coded_bits(coded: Coded | str, tokens: int, nats: np.ndarray, depth: int, whole: bool) -> Claim:
    """`coded`: the measured compressed text, or why it cannot be measured; `nats`: reported scores of the `tokens` coded.

    Each block must have as many words as its scores, and `depth` decisions a token, take, within the tolerance. A text that
    is not the `whole` one proves nothing if its code words are fewer than LEAST_BYTES.
    """
    claim = "the reported score is what the text costs"
    how, amount = "length of each block of the compressed text against the reported scores", f"{tokens:,} tokens"
    if isinstance(coded, str):
        return Claim(SINGLE_PASS, claim, how, amount, False, coded)
    if not coded.tokens == len(nats) == tokens:
        result = f"{coded.tokens:,} tokens coded, {len(nats):,} scored, expected {tokens:,} of both"
        return Claim(SINGLE_PASS, claim, how, amount, False, result)
    parts = [nats[start : start + BLOCK_TOKENS] for start in range(0, tokens, BLOCK_TOKENS)]
    scored = [float(np.sum(part, dtype=np.float64)) / math.log(2) for part in parts]
    bits, total = 8 * coded.payload_bytes, sum(scored)
    result = f"{bits:,} bits coded, {total:,.0f} scored: {100 * (bits / total - 1):+.4f} %" if total else "nothing scored"
    wrong = [
        f"block {number} has {8 * size:,} bits, its scores are {expected:,.0f}"
        for number, (size, expected, part) in enumerate(zip(coded.payloads, scored, parts, strict=True), 1)
        if not close(size, expected, depth * len(part))
    ]
    if wrong:
        result += f"; {wrong[0]}" + (f", and {len(wrong) - 1:,} others are as far off" if wrong[1:] else "")
    few = not whole and coded.payload_bytes < LEAST_BYTES
    if few:
        result += f"; {coded.payload_bytes:,} bytes of code words are too few, expected {LEAST_BYTES:,}: raise certify.tokens"
    return Claim(SINGLE_PASS, claim, how, amount, not wrong and not few, result)


def close(size: int, bits: float, decisions: int) -> bool:
    """Whether `size` bytes are the code words of so many `bits`, within the tolerance.

    The words are those that the bits fill, and one more to end in.
    """
    least, most = bits * (1 - CODED_TOLERANCE), (bits + DECISION_BITS * decisions) * (1 + CODED_TOLERANCE)
    return bool(least // WORD + 1 <= 8 * size // WORD <= most // WORD + 1)  # False for NaN


def normalised(worst_sum: float, positions: int, expected: int = 1) -> Claim:
    """`worst_sum`: of the sums of the predictor's probabilities over the whole vocabulary, the one furthest from 1.

    Sums were taken at `positions` positions; the claim fails if these are fewer than `expected`.
    """
    how = "sum of the predictor's probabilities over the whole vocabulary, before tokens that were coded"
    passed = abs(worst_sum - 1) <= NORMALISATION_TOLERANCE  # False for NaN
    result = f"|sum − 1| ≤ {abs(worst_sum - 1):.1e}" if passed else f"a sum is {worst_sum:.6g}"
    if positions < expected:
        passed, result = False, f"summed at {positions:,} positions, expected {expected:,}"
    return Claim(NORMALISED, "every prediction is a distribution", how, f"{positions:,} positions", passed, result)


def probabilities(scored: dict[str, np.ndarray]) -> Claim:
    """`scored`: the column `nats` of each score file."""
    wrong = []
    for name, nats in scored.items():
        bad = np.flatnonzero(~((nats >= -NORMALISATION_TOLERANCE) & np.isfinite(nats)))
        if len(bad):
            wrong.append(f"{name}: token {bad[0]:,} scores {nats[bad[0]]:.6g} nats, and {len(bad) - 1:,} others are as wrong")
    result = "; ".join(wrong) or "all are finite and none is above 1"
    how, amount = f"−ln p in every row of {', '.join(scored)}", f"{sum(map(len, scored.values())):,} rows"
    return Claim(NORMALISED, "every score is that of a probability", how, amount, not wrong, result)


def causal(changes: list[Change], tokens: int) -> Claim:
    worst = max(changes, key=lambda change: np.nan_to_num(change.nats, nan=np.inf))  # NaN counts as the largest change
    passed = worst.nats <= CAUSALITY_TOLERANCE
    result = f"earlier scores move by at most {worst.nats:.1e} nats ({worst.kind} at position {worst.position:,})"
    places = sum(change.kind == FLIP for change in changes)
    how = f"one token changed, and all that follows cut off, at {places} positions, through the real scorer"
    return Claim(CAUSAL, "no score depends on a later token", how, f"{tokens:,} tokens", passed, result)


def reproduced(reported: Scores, scored: Scores) -> Claim:
    """`scored`: nats from the real scorer, of all of the text or of its beginning; `reported`: those of the score files."""
    wrong, furthest = [], 0.0
    for name, nats in scored.items():
        rows = reported[name][: len(nats)].astype(np.float64)
        if len(rows) < len(nats):
            wrong.append(f"{name}: {len(rows):,} rows, expected at least {len(nats):,}")
            continue
        differences = np.abs(rows - nats)
        furthest = max(furthest, float(differences.max(initial=0)))
        bad = np.flatnonzero(~(differences <= REPRODUCTION_TOLERANCE))
        if len(bad):
            where = int(bad[0])
            wrong.append(f"{name}: token {where:,} is reported with {rows[where]:.6g} nats, scored with {nats[where]:.6g}")
    result = "; ".join(wrong) or f"every token within {furthest:.1e} nats"
    how = f"the real scorer with the sealed artifact's weights, once, against the rows of {', '.join(scored)}"
    amount = f"{max(map(len, scored.values())):,} tokens"
    return Claim(SINGLE_PASS, "the reported scores are those of one pass", how, amount, not wrong, result)


def scored_once(stream: np.ndarray, scored: dict[str, np.ndarray]) -> Claim:
    """`stream`: the validation tokens, BOS first; `scored`: the token column of each score file."""
    wrong = [name for name, tokens in scored.items() if not np.array_equal(tokens, stream[1:])]
    result = f"{', '.join(wrong)}: rows are not the tokens of the stream" if wrong else "in order, none twice, none missing"
    how = f"rows of {', '.join(scored)} against the validation stream"
    return Claim(SINGLE_PASS, "each token is scored exactly once", how, f"{len(stream) - 1:,} tokens", not wrong, result)


def unexposed(ledgers: dict[str, Ledger | str]) -> Claim:
    """Score before update: no stage learned from a validation token before it was scored (DESIGN 3.7).

    `ledgers`: by stage; a text says why one proves nothing.
    """
    wrong = [f"{stage}: {ledger}" for stage, ledger in ledgers.items() if isinstance(ledger, str)]
    wrong += [
        f"{stage} learned from {ledger.val_tokens:,} validation tokens first"
        for stage, ledger in ledgers.items()
        if isinstance(ledger, Ledger) and ledger.val_tokens
    ]
    how = f"exposure ledgers of {', '.join(ledgers)}: the stages' own word"
    result = "; ".join(wrong) or "no validation token was learned from before it was scored"
    return Claim(SCORE_FIRST, "score before update", how, f"{len(ledgers)} stages", not wrong, result)


def readable(problem: str) -> Claim:
    """`problem`: why the artifact's tokenizer or network cannot be read; "" if they can."""
    how = "tokenizer and network out of the sealed submission.pyz, with which all else is checked"
    return Claim(PROOF, "the artifact can be read", how, "2 members", not problem, problem or "both are there")
