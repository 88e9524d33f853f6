"""Reports across runs, from what git keeps of them.

`python -m fairway.report compare HEAD workspace` puts runs side by side and tests groups of seeds;
`python -m fairway.report submission OUT REV…` writes the folder that a pull request to the challenge adds.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from fairway.errors import InputError
from fairway.report import compare, replayed, revisions, submission

REVISION = "a commit, branch, tag, name of an experiment, or workspace"


def main() -> None:
    choices = arguments().parse_args()
    try:
        print(choices.run(choices), end="")
    except InputError as error:
        sys.exit(f"error: {error}")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fairway.report", description="Reports across runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    side = commands.add_parser("compare", help="runs side by side, and Welch's t-test between groups of seeds")
    side.add_argument("revisions", nargs="*", metavar="REV", default=["HEAD", revisions.WORKSPACE], help=REVISION)
    side.add_argument("--csv", action="store_true", help="the numbers in full precision, without the tests")
    side.set_defaults(run=compared)
    folder = commands.add_parser("submission", help="the folder that the challenge asks for")
    folder.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    folder.add_argument("revisions", nargs="*", metavar="REV", default=[revisions.WORKSPACE], help=f"seeds: {REVISION}")
    folder.add_argument("--baseline", nargs="+", metavar="REV", default=[], help="seeds to be better than")
    folder.add_argument("--author", help="by default user.name of git's configuration")
    folder.add_argument("--github", help="by default github.user of git's configuration")
    folder.add_argument("--name", help="by default the name of OUT")
    folder.add_argument("--blurb", default="Proved by decoding: see certificate.md.", help="one sentence on what is new")
    folder.add_argument("--track", default="non_record_16mb", help="by default %(default)s; a record's is 10min_16mb")
    folder.add_argument("--anyway", action="store_true", help="also when the score is not proved")
    folder.set_defaults(run=submitted)
    return parser


def compared(choices: argparse.Namespace) -> str:
    found = [revisions.read(name) for name in choices.revisions]
    if choices.csv:
        return compare.table(found)
    said = replayed.of_workspace() if revisions.WORKSPACE in choices.revisions else ""
    return compare.page(found) + (f"\n{revisions.WORKSPACE}: {said}\n" if said else "")


def submitted(choices: argparse.Namespace) -> str:
    words = {
        "author": choices.author or configured("user.name", "--author"),
        "github_id": choices.github or configured("github.user", "--github"),
        "name": choices.name or choices.out.resolve().name,
        "blurb": choices.blurb,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "track": choices.track,
    }
    content = replayed.added(submission.files(choices.revisions, choices.baseline, words, choices.anyway))
    submission.write(choices.out, content)
    return f"{choices.out}: {len(content)} files, {sum(map(len, content.values())):,} bytes; see {choices.out}/README.md\n"


def configured(key: str, option: str) -> str:
    """A setting of git. Raises InputError when there is none."""
    found = revisions.git("config", key).stdout.decode().strip()
    if not found:
        raise InputError(f"git's configuration has no {key}; set it with `git config {key} NAME`, or give {option} NAME")
    return found


if __name__ == "__main__":
    main()
