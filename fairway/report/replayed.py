"""reports/replay.json, which `python -m fairway.replay` writes: what it says of the artifact on a certificate, in one sentence.

It is the word of whoever ran it; a reader who doubts it runs the replay.
"""

import json
from pathlib import Path

from fairway.errors import RERUN, InputError, reading
from fairway.markdown import one_line

RECORD, CERTIFICATE = "reports/replay.json", "artifacts/certify/certificate.json"
TEXTS, COUNTS = ("verdict", "date", "commit", "arithmetic", "submission_sha256"), ("files_equal",)


def record() -> dict:
    """The record in the workspace; {} if there is none. Raises InputError for one that is damaged."""
    path = Path(RECORD)
    if not path.exists():
        return {}
    kinds = dict.fromkeys(TEXTS, str) | dict.fromkeys(COUNTS, int) | {"files_different": list}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if any(type(found.get(key)) is not kind for key, kind in kinds.items()):
            raise ValueError
    except (OSError, ValueError, AttributeError, RecursionError):
        raise InputError(f"{path}: not what `python -m fairway.replay` writes; remove it, or run that again") from None
    return found


def sentence(submission_sha256: str) -> str:
    """When and how the run of this artifact was replayed; "" where there is no record of it. Raises InputError."""
    found = record()
    if not found or found["submission_sha256"] != submission_sha256:
        return ""
    files = f"{found['files_equal']:,} files of the same bytes, {len(found['files_different']):,} others"
    words = (
        f"Replayed on {found['date']} from commit {found['commit'][:12]}: {found['verdict']} ({files}; {found['arithmetic']})."
    )
    return one_line(words)


def of_workspace() -> str:
    """The sentence for the certificate in the workspace; "" without one."""
    path = Path(CERTIFICATE)
    if not path.exists():
        return ""
    with reading(path, "a certificate", ValueError, KeyError, TypeError, RecursionError):
        return sentence(str(json.loads(path.read_text(encoding="utf-8"))["submission_sha256"]))


def added(folder: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a submission folder, with the record and its sentence if it is of the submission in there."""
    try:
        said = sentence(json.loads(folder["certificate.json"])["submission_sha256"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{CERTIFICATE}: not a certificate; {RERUN}") from None
    if not said:
        return folder
    page = folder["README.md"] + f"\n{said} `replay.json` has the details; `python -m fairway.replay` repeats it.\n".encode()
    return folder | {"README.md": page, "replay.json": Path(RECORD).read_bytes()}
