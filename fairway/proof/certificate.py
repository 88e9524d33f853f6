"""The certificate: as JSON, with everything needed to check it again, and as a page to read.

The same params give the same bytes (DESIGN 3.11), so the JSON holds no seconds and no dates. The page shows the clocks.
"""

import hashlib
import io
import platform
import zipfile
from dataclasses import asdict
from importlib.metadata import version

from fairway.markdown import one_line, table
from fairway.proof.checks import Data
from fairway.proof.claims import CONDITIONS, Claim
from fairway.proof.clocks import Clock
from fairway.proof.round_trip import RoundTrip
from fairway.submission.packing import WEIGHTS
from fairway.submission.text import arithmetic
from fairway.text.shards import TOKEN

DECODE = (
    "python -I artifacts/certify/submission.pyz decompress artifacts/certify/coded.fwt decoded.txt && "
    "cmp -n {size} decoded.txt artifacts/certify/val.txt"
)
CODE = ("__main__.py", "code")  # members of submission.pyz, hashed in this order
LIBRARIES = ("torch", "numpy", "numba", "sentencepiece", "constriction")


def certificate(
    claims: list[Claim], round_trip: RoundTrip, submission: bytes, data: Data, text: bytes, targets: int, facts: dict
) -> dict:
    """certificate.json. `text` spells the `targets` tokens that were coded; `facts` are further entries."""
    sandbox_report = round_trip.compress.sandbox_report or {}
    return verdict(claims) | {
        "certified_tokens": targets if round_trip.decompress.output == text else 0,
        "certified_bytes": len(text),
        "val_tokens": len(data.stream) - 1,
        "claims": [asdict(claim) for claim in claims],
        "command": DECODE.format(size=len(text)),
        **digests(submission, round_trip.compress.output or b"", data.text, data.stream.astype(TOKEN).tobytes()),
        "isolation": {name: sandbox_report.get(name) for name in ("holds", "missing")},
        "arithmetic": arithmetic(),
        "device": f"{platform.machine()} CPU, float32",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        **facts,
    }


def digests(submission: bytes, coded: bytes, val_text: bytes, val_tokens: bytes) -> dict[str, str]:
    """SHA-256 of every file that a verifier may have. `val_tokens`: little-endian uint16, the first BOS included."""
    with zipfile.ZipFile(io.BytesIO(submission)) as archive:
        code, model = b"".join(map(archive.read, CODE)), archive.read(WEIGHTS)
    contents = {
        "submission": submission,
        "code": code,
        "model": model,
        "coded": coded,
        "val_documents": val_text,
        "val_tokens": val_tokens,
    }
    return {f"{name}_sha256": hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def verdict(claims: list[Claim]) -> dict:
    """Whether the score is legal, the four conditions, and the reason for each claim that fails."""
    return {
        "legal": all(claim.passed for claim in claims),
        "conditions": {name: all(c.passed for c in claims if c.condition == name) for name in CONDITIONS},
        "reasons": [f"{claim.claim}: {claim.result}" for claim in claims if not claim.passed],
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
        f"`{certificate['submission_sha256']}`.\n",
    ]
    return "\n\n".join(blocks)


def headline(certificate: dict) -> str:
    """Whether the score is legal, and if not, why."""
    if certificate["legal"]:
        proved, whole = certificate["certified_tokens"], certificate["val_tokens"]
        beyond = " The other scores are not proved; `certify.tokens: all` proves them too." if proved < whole else ""
        return (
            f"**Legal**: all {len(certificate['claims'])} claims hold; {proved:,} of {whole:,} validation tokens were coded "
            f"and decoded bit for bit.{beyond}"
        )
    return "**Not legal**:\n\n" + "\n".join(f"- {one_line(reason)}" for reason in certificate["reasons"])


def yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def shown(clock: Clock) -> str:
    return "—" if clock.seconds is None else f"{clock.seconds:,.1f}"
