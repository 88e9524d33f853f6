"""The claims of a certificate, each a pure function of evidence that somebody else gathered.

A claim says what was checked, how, on how much, whether it holds and with which result; where it fails, the result says
why. A score is legal when every claim holds: the round trip alone shows that a decoder needs nothing but the artifact,
the others that the number reported is the number coded (the challenge's four conditions, issue #1017 there).
"""

import math
from dataclasses import dataclass

import numpy as np

CODED_TOLERANCE = 1e-3  # of the scored bits; a range coder ends on whole 32-bit words, at most two of them to spare
WORDS_TO_SPARE = 64  # bits
NORMALISATION_TOLERANCE = 1e-6
CAUSALITY_TOLERANCE = 1e-5  # nats


@dataclass(frozen=True)
class Claim:
    claim: str
    how: str
    amount: str
    passed: bool
    result: str


def round_trip(text: bytes, decoded: bytes) -> Claim:
    if text == decoded:
        result = "identical"
    else:
        pairs = zip(text, decoded, strict=False)
        first = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(text), len(decoded)))
        result = f"differs from byte {first:,} on ({len(decoded):,} bytes decoded)"
    how = "submission.pyz compresses and decompresses in fresh processes, in an empty folder, without the repository"
    return Claim("the text comes back, bit for bit", how, f"{len(text):,} bytes", text == decoded, result)


def coded_bits(payload_bytes: int, nats: np.ndarray) -> Claim:
    """`nats` (targets,) are the reported scores of the tokens that were coded."""
    scored = float(np.sum(nats, dtype=np.float64)) / math.log(2)
    excess = 8 * payload_bytes - scored
    passed = math.isfinite(scored) and abs(excess) <= CODED_TOLERANCE * scored + WORDS_TO_SPARE
    result = f"{8 * payload_bytes:,} bits coded, {scored:,.0f} scored: {100 * excess / scored:+.4f} %"
    how = "length of the compressed text against the sum of the reported scores"
    return Claim("the reported score is what the text costs", how, f"{len(nats):,} tokens", passed, result)


def normalised(worst_sum: float, positions: int) -> Claim:
    """`worst_sum`: of the sums of the predictor's probabilities over the whole vocabulary, the one furthest from 1."""
    how = "sum of the predictor's probabilities over the whole vocabulary, before tokens that were coded"
    passed = abs(worst_sum - 1) <= NORMALISATION_TOLERANCE  # false for what is no number
    result = f"|sum − 1| ≤ {abs(worst_sum - 1):.1e}" if passed else f"a sum is {worst_sum:.6g}"
    return Claim("every prediction is a distribution", how, f"{positions:,} positions", passed, result)


def causal(changes: list[tuple[int, float]], tokens: int) -> Claim:
    """`changes`: the position of a changed token, and the largest change of a score before it, in nats."""
    worst = max(changes, key=lambda change: np.nan_to_num(change[1], nan=np.inf))  # what is no number is worst of all
    how = f"one token changed, and all that follows cut off, at {len(changes)} positions, through the real scorer"
    passed = worst[1] <= CAUSALITY_TOLERANCE
    result = f"earlier scores move by at most {worst[1]:.1e} nats (position {worst[0]:,})"
    return Claim("no score depends on a later token", how, f"{tokens:,} tokens", passed, result)


def scored_once(stream: np.ndarray, scored: dict[str, np.ndarray]) -> Claim:
    """`stream`: the validation tokens, BOS first; `scored`: the token column of each score file."""
    wrong = [name for name, tokens in scored.items() if not np.array_equal(tokens, stream[1:])]
    result = f"{', '.join(wrong)}: rows are not the tokens of the stream" if wrong else "in order, none twice, none missing"
    how = f"rows of {', '.join(scored)} against the validation stream"
    return Claim("each token is scored exactly once", how, f"{len(stream) - 1:,} tokens", not wrong, result)


def bytes_of_text(documents: list[str], scored_bytes: int, table_bytes: int) -> Claim:
    """The denominator: UTF-8 bytes of the documents; `table_bytes` is the challenge's own count of the same tokens."""
    true = sum(len(document.encode()) for document in documents)
    starts = sum(document.startswith(" ") for document in documents)
    result = f"{true:,} in the text, {scored_bytes:,} in the scores, {table_bytes:,} by the challenge's table"
    if table_bytes != true:
        result += f" (which leaves out the space that begins {starts} documents)" if true - table_bytes == starts else ""
    how = "UTF-8 bytes of the validation documents themselves"
    return Claim("the bytes are those of the text", how, f"{len(documents):,} documents", true == scored_bytes, result)


def complete(decoded: bytes, documents: list[str]) -> Claim:
    """`decoded`: the whole validation stream as text, documents joined by NUL."""
    passed = decoded == "\0".join(documents).encode()
    how = "the validation tokens decoded, against the documents"
    result = "identical" if passed else "the tokens spell another text than the documents"
    return Claim("the validation set is whole", how, f"{len(documents):,} documents", passed, result)


def unexposed(ledgers: list[dict]) -> Claim:
    """Score before update: nobody learned from a validation token before it was scored (DESIGN 3.7)."""
    guilty = [ledger for ledger in ledgers if ledger["val_tokens_before_scoring"]]
    words = [
        f"{ledger['stage']} learned from {ledger['val_tokens_before_scoring']:,} validation tokens first" for ledger in guilty
    ]
    how = f"exposure ledgers of {', '.join(ledger['stage'] for ledger in ledgers)}"
    result = "; ".join(words) or "no validation token was learned from before it was scored"
    return Claim("score before update", how, f"{len(ledgers)} stages", not guilty, result)


def within_budget(artifact_bytes: int, budget_bytes: int) -> Claim:
    result = f"{artifact_bytes:,} of {budget_bytes:,} bytes"
    how = "size on disk of the sealed submission.pyz: code, tokenizer, weights, settings"
    return Claim("the artifact is within its budget", how, "1 file", artifact_bytes <= budget_bytes, result)
