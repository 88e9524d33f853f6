"""The certificate's claims about bytes and time: the rules that are neither the four conditions nor in data_claims.py.

Pure functions of measurements, as in claims.py.
"""

import numpy as np

from fairway.proof.claims import RULES, Claim
from fairway.proof.clocks import Clock, missing, total

MOST_BYTES = 16_000_000  # the challenge's, decimal
MEBIBYTES = 16 * 2**20


def complete(decoded: bytes, documents: list[str], expected: int) -> Claim:
    """`decoded`: the whole validation stream as text, documents joined by NUL; `expected`: how many documents, 0 for any."""
    passed, result = decoded == "\0".join(documents).encode(), "identical"
    if not passed:
        result = "the tokens spell another text than the documents"
    if expected and len(documents) != expected:
        passed, result = False, f"{len(documents):,} documents, certify.val_documents asks for {expected:,}"
    how = "the validation tokens decoded, against the documents"
    return Claim(RULES, "the validation set is whole", how, f"{len(documents):,} documents", passed, result)


def bytes_of_tokens(stream: np.ndarray, counted: dict[str, np.ndarray], pieces: list[bytes], lengths: np.ndarray) -> Claim:
    """`counted`: the column `bytes` of each score file; `lengths` (V,): bytes that each of the `pieces` spells, 0 for BOS."""
    expected, wrong = lengths[stream[1:]], []
    for name, found in counted.items():
        rows = min(len(found), len(expected))
        bad = np.flatnonzero(found[:rows] != expected[:rows])
        if len(bad):
            where = int(bad[0])
            piece = repr(pieces[stream[1 + where]].decode("utf-8", "backslashreplace")).replace(2 * "\\", "\\")
            wrong.append(f"{name}: token {where:,} {piece} counts {found[where]} bytes, spells {expected[where]}")
        elif len(found) != len(expected):
            wrong.append(f"{name}: {len(found):,} rows for {len(expected):,} tokens")
    result = "; ".join(wrong) or "each counts the bytes that it spells, BOS none"
    how = f"bytes in every row of {', '.join(counted)} against the vocabulary"
    return Claim(RULES, "every token counts its bytes", how, f"{len(expected):,} tokens", not wrong, result)


def bytes_of_text(documents: list[str], counted: dict[str, int], table_bytes: int) -> Claim:
    """The denominator of bits per byte: UTF-8 bytes of the documents. A NUL inside one is a BOS token and counts 0 bytes.

    `counted`: total bytes in each score file; `table_bytes`: the challenge's own count of the same tokens.
    """
    parts = "\0".join(documents).split("\0")
    true = sum(len(part.encode()) for part in parts)
    starts = sum(part.startswith(" ") for part in parts)
    wrong = [f"{name} {size:,}" for name, size in counted.items() if size != true]
    scores = ", ".join(wrong) if wrong else f"{true:,}"
    result = f"{true:,} in the text, {scores} in the scores, {table_bytes:,} by the challenge's table"
    if table_bytes != true:
        result += f" (which leaves out the space that begins {starts} documents)" if true - table_bytes == starts else ""
    how = "UTF-8 bytes of the validation documents themselves"
    return Claim(RULES, "the bytes are those of the text", how, f"{len(documents):,} documents", not wrong, result)


def within_budget(artifact_bytes: int, budget_bytes: int) -> Claim:
    """The smaller of the user's budget and the challenge's."""
    allowed = min(budget_bytes, MOST_BYTES)
    result = f"{artifact_bytes:,} of {allowed:,} bytes"
    if MOST_BYTES < artifact_bytes <= MEBIBYTES:
        result += f" ({MEBIBYTES:,} would be 16 MiB; the challenge counts decimal)"
    how = "size on disk of the sealed submission.pyz: code, tokenizer, weights, settings"
    return Claim(RULES, "the artifact is within its budget", how, "1 file", artifact_bytes <= allowed, result)


def within_time(part: str, clocks: list[Clock], seconds: int) -> Claim:
    """`part`: train or eval, whose clocks are added up; `seconds`: the limit that certify sets, 0 for none.

    If a clock cannot be read, the claim fails. Seconds differ between runs and the certificate must not, so the result
    states them only when the limit is exceeded.
    """
    counted = [clock for clock in clocks if clock.part == part]
    unknown, spent, key = missing(counted), total(counted), f"certify.{part}_seconds"
    passed, result = not seconds or (not unknown and spent <= seconds), f"within {seconds:,} s"
    if not seconds:
        result = f"no limit was set ({key} is 0)"
    elif unknown:
        result = f"no clock of {', '.join(unknown)}: expected seconds, a number from 0, in timing.json; run these stages again"
    elif not passed:
        parts = ", ".join(f"{clock.name} {clock.seconds:,.1f}" for clock in counted)
        result = f"{spent:,.1f} s of {seconds:,} s ({key}): {parts}"
    names = {"train": "training", "eval": "evaluation"}
    how = f"clocks of {', '.join(clock.name for clock in counted)}"
    return Claim(RULES, f"{names[part]} keeps to its time", how, f"{len(counted)} clocks", passed, result)
