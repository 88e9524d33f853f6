"""What the stages before report leave behind, made up: small files that agree with each other."""

import hashlib
import json
from pathlib import Path

SCORED = [("eval_sliding", "val_bpb_sliding"), ("eval_ttt", "val_bpb_ttt"), ("eval_ngram", "val_bpb_ngram")]
CLAIM = {"claim": "the text comes back", "how": "decoded", "amount": "9 bytes", "passed": True, "result": "identical"}
CLAIM["condition"] = "proof"
TEXT, CODED, PYZ = b"four docu\0ments " * 500, b"coded" * 99, b"a submission" * 50 + bytes(100)
CERTIFICATE = "artifacts/certify/certificate.json"
MATRICES = "name\trole\trows\tcolumns\trelative_error\testimated_loss\tentropy\na\tmatrix\t99\t10\t0.1\t0.001\t4.2\n"


def put(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))


def change(path, **values):
    put(path, json.loads(Path(path).read_text()) | values)


def certificate_of(metrics: dict) -> dict:
    found = {
        "verdict": "proved",
        "legal": True,
        "conditions": {"causal": True},
        "reasons": [],
        "certified_tokens": 2000,
        "val_tokens": 2000,
        "bpb": metrics["certify"]["certified_bpb"],
        "coded_bytes": len(CODED),
        "certified_bytes": len(TEXT),
        "claims": [CLAIM],
        "estimates": {stage: metrics[stage][key] for stage, key in SCORED},
        "scores_sha256": {stage: sha256(Path(f"artifacts/{stage}/scores.npy").read_bytes()) for stage, _ in SCORED},
    }
    hashed = {"submission": PYZ, "coded": CODED, "val_documents": TEXT}
    return found | {f"{name}_sha256": sha256(content) for name, content in hashed.items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def in_part() -> dict:
    """What the certificate of a part of the text says otherwise."""
    bpb = round(8 * len(CODED) / len(TEXT[:1000].replace(b"\0", b"")), 6)
    part = {"verdict": "proved for 300 of 2,000 tokens", "legal": None, "certified_tokens": 300, "certified_bytes": 1000}
    change(CERTIFICATE, **part, bpb=bpb)
    change("reports/certify/metrics.json", legal=None, certified_tokens=300, certified_bpb=bpb)
    return part | {"bpb": bpb}
