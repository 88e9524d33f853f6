"""The score of record: what certificate.json says, once every hash and number in it was compared with the files it is of.

The score of a run that is proved is a file size; that of any other is an estimate, the sum of the scores of eval_ngram.
"""

import hashlib
from pathlib import Path

from fairway.errors import RERUN, InputError, reading
from fairway.report.labels import MIXTURE, PER_TOKEN

CERTIFICATE = "artifacts/certify/certificate.json"
CODED, TEXT = "artifacts/certify/coded.fwt", "artifacts/certify/val.txt"
HASHED = {"submission_sha256": "artifacts/certify/submission.pyz", "coded_sha256": CODED, "val_documents_sha256": TEXT}
PROVED, REFUSED = "proved", "refused"
LEGAL = {True: PROVED, None: "in part", False: REFUSED}  # the three verdicts in a word, by `legal`
NUMBER = float | int
ENTRIES = {  # what is read of the certificate, and its types
    **{"verdict": str, "legal": bool | None, "bpb": NUMBER | None, "conditions": dict, "reasons": list, "claims": list},
    **dict.fromkeys(("certified_tokens", "val_tokens", "certified_bytes", "coded_bytes"), int),
    **{"estimates": dict, "scores_sha256": dict},
    **dict.fromkeys(HASHED, str),
}
CLAIM = {"condition": str, "claim": str, "how": str, "amount": str, "passed": bool, "result": str}
SCORED = {score.stage: score.metric for score in PER_TOKEN}  # the metric that adds up a stage's score file
ROUNDING = 1e-6  # bits per byte; numbers are written with six decimals


def check(certificate: object, source: str = CERTIFICATE) -> None:
    """Raises InputError unless the entries have their types and the verdict follows from claims and tokens."""
    typed(certificate, ENTRIES, source)
    for number, claim in enumerate(certificate["claims"], 1):
        typed(claim, CLAIM, f"{source}: claim {number}")
    for name in ("estimates", "scores_sha256"):
        typed(certificate[name], dict.fromkeys(SCORED, str if name == "scores_sha256" else NUMBER | None), f"{source}: {name}")
    failed = [claim for claim in certificate["claims"] if not claim["passed"]]
    done, whole = certificate["certified_tokens"], certificate["val_tokens"]
    verdict = REFUSED if failed or not done else PROVED if done == whole else f"proved for {done:,} of {whole:,} tokens"
    reasons = [f"{claim['claim']}: {claim['result']}" for claim in failed]
    expected = {"verdict": verdict, "legal": {PROVED: True, REFUSED: False}.get(verdict), "reasons": reasons}
    for key, value in expected.items():
        if certificate[key] != value:
            raise InputError(f"{source}: {key} is {certificate[key]!r}, but its claims and tokens make it {value!r}; {RERUN}")


def typed(content: object, types: dict, source: str) -> None:
    """Raises InputError unless `content` is an object that has every key with a value of its type."""
    lacking = [key for key in types if not isinstance(content, dict) or key not in content]
    if lacking:
        raise InputError(f"{source} lacks {', '.join(lacking)}; {RERUN}")
    for key, kind in types.items():
        value = content[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, NUMBER, NUMBER | None)):
            raise InputError(f"{source}: '{key}' is {value!r}, which `certify` never writes; {RERUN}")


def compare(certificate: dict, root: Path) -> None:
    """Compare every hash, and the score, with the files below `root`. Raises InputError, which names the file that differs."""
    hashes = {path: certificate[key] for key, path in HASHED.items()}
    hashes |= {f"artifacts/{stage}/scores.npy": value for stage, value in certificate["scores_sha256"].items()}
    for path, expected in hashes.items():
        with reading(path, "a file"), (root / path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise InputError(f"{path}: its SHA-256 is not the one in {CERTIFICATE}: one of them was changed; {RERUN}")
    size, text, end = (root / CODED).stat().st_size, (root / TEXT).read_bytes(), certificate["certified_bytes"]
    expected = {
        "bpb": coded_bpb(size, text[:end]) if certificate["certified_tokens"] else None,
        "coded_bytes": size,
        "certified_bytes": len(text) if certificate["verdict"] == PROVED else min(end, len(text)),
    }
    for key, value in expected.items():
        if certificate[key] != value:
            raise InputError(f"{CERTIFICATE}: {key} is {certificate[key]}, but {CODED} and {TEXT} make it {value}; {RERUN}")


def entries(certificate: dict) -> dict:
    """What the certificate decides of the summary: the score, and what is proved of it."""
    proved = certificate["verdict"] == PROVED
    return {
        "val_bpb": certificate["bpb"] if proved else certificate["estimates"][MIXTURE.stage],
        "legal": certificate["legal"],
        "certified_tokens": certificate["certified_tokens"],
        "certified_bpb": certificate["bpb"],
    } | {metric: certificate["estimates"][stage] for stage, metric in SCORED.items()}


def check_numbers(found: dict, certificate: dict, source: str) -> None:
    """Raises InputError where a number of `found`, a summary or metrics in the file `source`, is not the certificate's."""
    for key, value in entries(certificate).items():
        said = found.get(key, value)
        numbers = all(isinstance(number, NUMBER) and not isinstance(number, bool) for number in (said, value))
        if not (abs(said - value) <= ROUNDING if numbers else said is value):
            raise InputError(f"{source}: {key} is {said}, but {CERTIFICATE} makes it {value}; {RERUN}")


def coded_bpb(size: int, text: bytes) -> float:
    """Bits per byte of a compressed file of `size` bytes. The NUL between two documents is a byte of neither."""
    return round(8 * size / max(1, len(text) - text.count(0)), 6)
