"""The certificate: as JSON, with everything needed to check it again, and as a page to read.

The score of record is a file size: the bytes of the compressed text that the sealed artifact made and decoded, over the bytes
of the text. The same params give the same bytes (DESIGN 3.11), so the JSON holds no seconds and no dates. The page shows the
clocks.
"""

import hashlib
import math
import platform
from dataclasses import asdict
from importlib.metadata import version

import numpy as np

from fairway.markdown import one_line, table
from fairway.proof.artifact import members
from fairway.proof.checks import Data
from fairway.proof.claims import CONDITIONS, Claim
from fairway.proof.clocks import Clock
from fairway.proof.config import Certify
from fairway.proof.round_trip import RoundTrip
from fairway.score.bits import bits_per_byte
from fairway.submission.packing import WEIGHTS
from fairway.submission.text import arithmetic
from fairway.text.shards import TOKEN

DECODE = (
    "python -I artifacts/certify/submission.pyz decompress artifacts/certify/coded.fwt decoded.txt && "
    "cmp -n {size} decoded.txt artifacts/certify/val.txt"
)
CODE = ("__main__.py", "code")  # members of submission.pyz, hashed in this order
LIBRARIES = ("torch", "numpy", "numba", "sentencepiece", "constriction")
PROVED, IN_PART, REFUSED = "proved", "proved for {proved:,} of {whole:,} tokens", "refused"
LEGAL = {PROVED: True, REFUSED: False}  # a proof in part is neither: null


def certificate(
    claims: list[Claim], round_trip: RoundTrip, submission: bytes, data: Data, text: bytes, targets: int, facts: dict
) -> dict:
    """certificate.json. `text` spells the `targets` tokens that were coded; `facts` are further entries."""
    sandbox_report, coded = round_trip.compress.sandbox_report or {}, round_trip.compress.output or b""
    certified = targets if text and round_trip.decompress.output == text else 0
    return verdict(claims, certified, len(data.stream) - 1) | {
        "bpb": coded_bpb(len(coded), text) if certified else None,
        "coded_bytes": len(coded),
        "certified_bytes": len(text) if certified else 0,
        "estimates": {name: estimate(rows) for name, rows in data.rows.items()},
        "claims": [asdict(claim) for claim in claims],
        "command": DECODE.format(size=len(text)),
        **digests(submission, coded, data.text, data.stream.astype(TOKEN).tobytes()),
        "isolation": {name: sandbox_report.get(name) for name in ("holds", "missing")},
        "arithmetic": arithmetic(),
        "device": f"{platform.machine()} CPU, float32",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        **facts,
    }


def verdict(claims: list[Claim], certified: int, tokens: int) -> dict:
    """What is proved of a text of `tokens` tokens, of which `certified` were coded and came back.

    Also the four conditions, and the reason for each claim that fails. `legal` is null for a proof in part.
    """
    if not certified or not all(claim.passed for claim in claims):
        word = REFUSED
    else:
        word = PROVED if certified == tokens else IN_PART.format(proved=certified, whole=tokens)
    return {
        "verdict": word,
        "legal": LEGAL.get(word),
        "conditions": {name: all(c.passed for c in claims if c.condition == name) for name in CONDITIONS},
        "reasons": [f"{claim.claim}: {claim.result}" for claim in claims if not claim.passed],
        "certified_tokens": certified,
        "val_tokens": tokens,
    }


def coded_bpb(size: int, text: bytes) -> float:
    """Bits per byte of a compressed file of `size` bytes. The NUL between two documents is a byte of neither."""
    return round(8 * size / max(1, len(text) - text.count(0)), 6)


def estimate(rows: np.ndarray) -> float | None:
    """Bits per byte by the sum of a score file's rows; None where that is no number."""
    found = bits_per_byte(rows["nats"], max(1, int(rows["bytes"].sum(dtype=np.int64))))
    return round(found, 6) if math.isfinite(found) else None


def digests(submission: bytes, coded: bytes, val_text: bytes, val_tokens: bytes) -> dict[str, str | None]:
    """SHA-256 of everything that a verifier may have; None for a member that cannot be read.

    `val_tokens`: little-endian uint16, the first BOS included.
    """
    contents = {
        "submission": submission,
        "code": members(submission, *CODE),
        "model": members(submission, WEIGHTS),
        "coded": coded,
        "val_documents": val_text,
        "val_tokens": val_tokens,
    }
    return {
        f"{name}_sha256": None if content is None else hashlib.sha256(content).hexdigest() for name, content in contents.items()
    }


def page(certificate: dict, clocks: list[Clock]) -> str:
    """certificate.md, from the content of certificate.json and the clocks."""
    blocks = [
        "# Certificate",
        headline(certificate),
        "## The four conditions",
        table(["condition", "holds"], [[name, yes(holds)] for name, holds in certificate["conditions"].items()]),
        "## Claims",
        table(
            ["condition", "claim", "how", "on how much", "holds", "result"],
            [[c["condition"], c["claim"], c["how"], c["amount"], yes(c["passed"]), c["result"]] for c in certificate["claims"]],
        ),
        "## Clocks",
        "Seconds of each part. The middle column names the limit that the part counts toward.",
        table(["clock", "counts for", "seconds"], [[clock.name, clock.part or "—", shown(clock)] for clock in clocks], (2,)),
        "## Check it yourself",
        "The submission, the compressed text and the whole validation text are in one folder. This command decodes the text "
        "again and compares it, without any code of the repository:",
        f"```sh\n{certificate['command']}\n```",
        f"Decoding needs the same arithmetic: {certificate['arithmetic']}. The submission's SHA-256 is "
        f"`{certificate['submission_sha256']}`. {origin(certificate)}\n",
    ]
    return "\n\n".join(blocks)


def headline(certificate: dict) -> str:
    """The verdict in words, and the reasons where the score is refused."""
    if certificate["verdict"] == REFUSED:
        reasons = certificate["reasons"] or ["nothing was coded"]
        return "**Refused**:\n\n" + "\n".join(f"- {one_line(reason)}" for reason in reasons)
    unchecked = certificate.get("waived", [])
    size = (
        f"{certificate['coded_bytes']:,} bytes of compressed text: {certificate['bpb']:.4f} bits per byte. All "
        f"{len(certificate['claims'])} claims hold.{' **Not checked**: ' * bool(unchecked)}{'; '.join(unchecked)}"
    )
    if certificate["verdict"] == PROVED:
        return f"**Proved**: the whole validation text, {certificate['val_tokens']:,} tokens, was coded and decoded in {size}"
    return (
        f"**Proved for {certificate['certified_tokens']:,} of {certificate['val_tokens']:,} tokens**, which were coded and "
        f"decoded in {size} The score of the whole text is an estimate; `certify.tokens: all` proves it."
    )


def waived(config: Certify, witness_documents: int) -> list[str]:
    """What the params switch off, so that a claim which holds says nothing; the headline says it beside the verdict."""
    usual = Certify()
    found = [] if witness_documents else ["whether val is too easy for the artifact (tokenize.witness_fraction)"]
    if config.near_duplicates > usual.near_duplicates:
        found.append(f"copies of val in train up to {config.near_duplicates:.0%} (certify.near_duplicates)")
    parts = {"training": "train_seconds", "evaluation": "eval_seconds"}
    return found + [f"the time of {part} (certify.{key})" for part, key in parts.items() if not getattr(config, key)]


def origin(certificate: dict) -> str:
    """What the run was made from, in words."""
    if not certificate.get("commit"):
        return "Of which commit the run is, is not known."
    edited = ", with edits that are in no commit" if certificate["dirty"] else ""
    return f"Its code, data and params are those of commit `{certificate['commit']}`{edited}."


def yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def shown(clock: Clock) -> str:
    return "—" if clock.seconds is None else f"{clock.seconds:,.1f}"
