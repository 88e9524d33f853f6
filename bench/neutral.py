"""Whether a change is neutral: the files that the pipeline has written, byte for byte those that another commit's run wrote.

`make neutral REV=b7d5f1a` runs `dvc repro` and then compares the hashes of all outputs in artifacts/ in dvc.lock with those
in the dvc.lock of REV. Files that contain code, or hashes of it, are left out. Exits with 1 when a file differs or DVC did not
bring dvc.lock up to date. Runs repeat on machines of one kind only: on another kind, run REV in a clone first and give its
dvc.lock (`--lock PATH`).
"""

import argparse
import subprocess
import sys
from pathlib import Path

from fairway.errors import InputError
from fairway.params import read_yaml
from fairway.recorded import DIFFERS, LOCK, SAME, compare, outputs

OF_CODE = ("submission.pyz", "certificate.json", "certificate.md", "coded.fwt")  # contain the packed code, or its hash


def committed(revision: str) -> dict:
    """The dvc.lock of a commit. Raises InputError when there is none."""
    shown = subprocess.run(["git", "show", f"{revision}:{LOCK}"], capture_output=True, text=True, check=False)
    if shown.returncode:
        raise InputError(
            f"{revision}: no commit with a {LOCK} ({shown.stderr.strip().splitlines()[-1]}); expected one that was run"
        )
    temporary = Path(".dvc/tmp") / f"{LOCK}.{revision.replace('/', '-')}"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(shown.stdout, encoding="utf-8")
    try:
        return read_yaml(temporary)
    finally:
        temporary.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.neutral")
    parser.add_argument("revision", nargs="?", default="HEAD", help="commit whose dvc.lock is compared with (default: HEAD)")
    parser.add_argument("--lock", type=Path, help="a dvc.lock of REVISION's run on this machine, instead of the committed one")
    options = parser.parse_args()
    before = outputs(read_yaml(options.lock) if options.lock else committed(options.revision), OF_CODE)
    if status := subprocess.run(["dvc", "repro"], check=False).returncode:
        return status
    verdicts = compare(before, outputs(read_yaml(LOCK), OF_CODE))
    for path, verdict in verdicts.items():
        print(f"{verdict:<18} {path}")
    differing = sum(verdict == DIFFERS for verdict in verdicts.values())
    print(f"figure neutral.same = {sum(verdict == SAME for verdict in verdicts.values())}")
    print(f"figure neutral.differing = {differing}")
    return int(differing > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")
