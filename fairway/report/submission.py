"""The folder that a pull request to the challenge adds under records/: README.md, submission.json, artifact, code, logs.

The artifact is the workspace's, the score the mean over all seeds given, and both must be of the same params and code.
The score is that of the certificates: every number is worked out again from them, and every hash compared with the files. A
folder is not written for a score that is not proved, unless it is asked for. The same runs give the same bytes, but for the
date in submission.json.
"""

import hashlib
import io
import json
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
import yaml

from fairway import lock
from fairway.closure import import_closure
from fairway.errors import InputError
from fairway.markdown import one_line
from fairway.params import parse_yaml
from fairway.report import compare, record, revisions
from fairway.report.compare import Group
from fairway.report.readme import readme
from fairway.report.record import CERTIFICATE, PROVED, REFUSED
from fairway.report.revisions import LOCK, WORKSPACE, Revision
from fairway.submission import packing
from fairway.submission.packing import MODULES

ROOT = Path()  # the folder of the repository is the current one, as for stages
ARTIFACT, SIZES = "artifacts/certify/submission.pyz", "reports/compress/metrics.json"
ORIGINAL_PAGE = "artifacts/certify/certificate.md"
PAGE, COPY = "reports/report/certificate.md", "reports/report/certificate.json"  # which git keeps
SIZE_KEYS = ["code_bytes", "tokenizer_bytes", "weights_bytes", "artifact_bytes", "headroom_bytes"]
CURVE = "reports/train/loss.tsv"


def files(names: list[str], baseline: list[str], words: dict[str, str], anyway: bool = False) -> dict[str, bytes]:
    """Paths in the folder and their content.

    `names` are the revisions of the seeds, `words` what submission.json wants of its author: author, github_id, name, blurb,
    date, track. Raises InputError when the runs are not one group, when a number or a hash is not that of the certificate, and
    when a score is not proved, unless `anyway`.
    """
    runs = packed_first([revisions.read(name) for name in names], revisions.read(WORKSPACE))
    certificates = [certified(run) for run in runs]
    certificate, sizes = certificates[0], revisions.parsed(WORKSPACE, SIZES, *SIZE_KEYS)
    artifact = revisions.content(WORKSPACE, ARTIFACT)
    check_workspace(certificate)
    check_sizes(sizes, packing.sizes(artifact))
    if not anyway:
        for run, found in zip(runs, certificates, strict=True):
            check_proved(run, found)
    entry = words | scored(runs)
    page = readme(entry, runs, one_group([revisions.read(name) for name in baseline]), sizes, certificate)
    return {
        "README.md": page.encode(),
        "submission.json": (json.dumps(entry, indent=2, ensure_ascii=False) + "\n").encode(),
        "submission.pyz": artifact,
        "certificate.json": revisions.content(WORKSPACE, CERTIFICATE),
        "certificate.md": revisions.content(WORKSPACE, PAGE),
        "params.yaml": as_yaml(runs[0].params),
        **sources(runs[0]),
        **{f"logs/seed_{run.seed}/{name}": log for run in runs for name, log in logs(run.name).items()},
    }


def logs(name: str) -> dict[str, bytes]:
    """What training wrote in a revision: the loss curve, and its metrics."""
    metrics = json.dumps(revisions.stage_metrics(name, "train"), indent=2, ensure_ascii=False) + "\n"
    return {"loss.tsv": curve(name), "metrics.json": metrics.encode()}


def curve(name: str) -> bytes:
    """The loss curve as it is. Raises InputError for one that is damaged."""
    content = revisions.content(name, CURVE)
    try:
        table = pd.read_csv(io.BytesIO(content), sep="\t", dtype=float)
        if list(table) != ["step", "loss"] or table.empty or table.isna().any(axis=None):
            raise ValueError(f"{len(table)} rows of {', '.join(table)}")
    except ValueError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{name}: its {CURVE} is no table of step and loss ({problem}); run `dvc repro train` there") from None
    return content


def packed_first(found: list[Revision], packed: Revision) -> Group:
    """One group of runs, beginning with the one whose artifact is in the workspace. Raises InputError."""
    runs = one_group(found)
    same = [run for run in runs if (run.recipe, run.seed, run.metrics) == (packed.recipe, packed.seed, packed.metrics)]
    if not same:
        raise InputError(
            f"{', '.join(run.name for run in runs)}: none of these is the run in the workspace, whose artifact is submitted; "
            f"name {WORKSPACE} too, or bring one of them there with `dvc exp apply`"
        )
    return [same[0], *(run for run in runs if run is not same[0])]


def one_group(found: list[Revision]) -> Group:
    """Runs that differ only in their seed, no seed twice. Raises InputError."""
    groups = compare.groups(found)
    if len(groups) > 1:
        first, other = (group[0].name for group in groups[:2])
        raise InputError(
            f"{other}: it differs from {first} in more than train.seed; "
            f"`python -m fairway.report compare {first} {other}` says in what"
        )
    return groups[0] if groups else []


def certified(run: Revision) -> dict:
    """The certificate of a run. Raises InputError unless it is the one in dvc.lock and the summary follows from it."""
    certificate, written = revisions.parsed(run.name, COPY), revisions.outputs(run.name, "certify")
    record.check(certificate, f"{run.name}: its {COPY}")
    for copy, original in ((COPY, CERTIFICATE), (PAGE, ORIGINAL_PAGE)):
        content = revisions.content(run.name, copy)
        made = {"md5": hashlib.md5(content, usedforsecurity=False).hexdigest(), "size": len(content)}  # as DVC hashes
        if made != written.get(original):
            raise InputError(
                f"{run.name}: its {copy} is not the one that {LOCK} names; run `git checkout {copy}` or `dvc repro`"
            )
    record.check_numbers(run.metrics, certificate, f"{run.name}: its {revisions.SUMMARY}")
    for file, said, value in (
        (record.CODED, "coded_bytes", certificate["coded_bytes"]),
        (ARTIFACT, "artifact_bytes", run.metrics.get("artifact_bytes")),
    ):
        if value != written.get(file, {}).get("size"):
            raise InputError(f"{run.name}: its {said} {value} is not the size of {file} that {LOCK} names; run `dvc repro`")
    return certificate


def check_workspace(certificate: dict) -> None:
    """Raises InputError when a file in the workspace is not the one that the certificate is of."""
    if revisions.content(WORKSPACE, CERTIFICATE) != revisions.content(WORKSPACE, COPY):
        raise InputError(f"{CERTIFICATE}: it differs from {COPY}; run `dvc repro` or `dvc checkout`")
    record.compare(certificate, ROOT)
    pipeline, locked = (parse_yaml(revisions.content(WORKSPACE, path), path)["stages"] for path in ("dvc.yaml", LOCK))
    if lock.digest(pipeline, locked, "certify") != certificate.get("dvc_lock_sha256"):
        raise InputError(
            f"{LOCK}: {CERTIFICATE} was made after other stages than it names; run `dvc repro --force --single-item certify`"
        )


def check_sizes(said: dict, found: dict[str, int]) -> None:
    """Raises InputError when the metrics of compress are not of the artifact whose parts have these sizes."""
    for name, size in (found | {"artifact_bytes": found["total"]}).items():
        if said.get(name, size) != size:
            raise InputError(f"{SIZES}: {name} is {said[name]}, but {ARTIFACT} has {size}; run `dvc repro`")


def check_proved(run: Revision, certificate: dict) -> None:
    """Raises InputError, with the reason, when the score of a run is not proved."""
    if certificate["verdict"] == PROVED:
        return
    problem = f"{certificate['verdict']}, so the score is an estimate; set certify.tokens: all and run `dvc repro`"
    if certificate["verdict"] == REFUSED:
        problem = f"the certificate refuses the score ({one_line('; '.join(certificate['reasons']))})"
    raise InputError(f"{run.name}: {problem}; --anyway writes the folder all the same")


def scored(runs: Group) -> dict:
    """What submission.json says of the score: means over the seeds, and the bytes of the packed artifact."""
    scores, unit = compare.scores(runs), runs[0].nats_per_bit
    by_seed = {
        str(run.seed): {
            "val_bpb": score,
            "val_loss": round(score * unit, 6),
            "bytes_total": run.metrics["artifact_bytes"],
        }
        for run, score in zip(runs, scores, strict=True)
    }
    return {
        "val_loss": round(fmean(scores) * unit, 6),
        "val_bpb": round(fmean(scores), 6),
        **({"val_bpb_std": round(stdev(scores), 6)} if len(runs) > 1 else {}),
        "proved": all(run.verdict == PROVED for run in runs),
        "bytes_total": runs[0].metrics["artifact_bytes"],
        "bytes_code": runs[0].metrics["code_bytes"],
        "seeds": dict(sorted(by_seed.items())),
    }


def sources(packed: Revision) -> dict[str, bytes]:
    """The code in submission.pyz as it was written. Raises InputError for a file that was edited since the run."""
    ran = dict(packed.code)
    found = {}
    for path in sorted({path for module in MODULES for path in import_closure(module, ROOT)}):
        if path not in ran:
            raise InputError(f"{LOCK}: it does not say with which {path} the run was; run `git checkout {LOCK}` or `dvc repro`")
        content = (ROOT / path).read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != ran[path]:  # as DVC hashes
            raise InputError(f"{path}: edited since the run whose artifact is in the workspace; run `dvc repro`")
        found[f"source/{path}"] = content
    return found


def as_yaml(params: dict) -> bytes:
    """A params.yaml of what ran, without comments."""
    sections: dict[str, dict] = {}
    for name, value in params.items():
        section, key = name.split(".", 1)
        sections.setdefault(section, {})[key] = value
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True).encode()


def write(folder: Path, content: dict[str, bytes]) -> None:
    """Raises InputError when the folder has something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: it is there already; give a folder that is new or empty")
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
