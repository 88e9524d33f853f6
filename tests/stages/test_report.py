import hashlib
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairway.errors import InputError
from fairway.score.files import SCORE
from fairway.text.tokenizer import BYTE_MODEL
from stages import report

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


@pytest.fixture(scope="module")
def scores():
    """2,000 targets in four documents, by stage."""
    random = np.random.default_rng(0)
    rows = np.zeros(2000, SCORE)
    rows["token"] = random.integers(4, 260, len(rows))  # of the vocabulary of bytes
    rows["bytes"] = random.integers(1, 6, len(rows))
    rows["bytes"][[400, 900, 901 + 500]] = 0
    by_stage = {}
    for stage, _ in SCORED:
        by_stage[stage] = rows.copy()
        by_stage[stage]["nats"] = by_stage[stage]["neural"] = random.exponential(2.5, len(rows))
    by_stage["eval_ngram"]["neural"] = by_stage["eval_ttt"]["nats"]
    by_stage["eval_ngram"]["order"] = random.integers(1, 8, len(rows))
    return by_stage


@pytest.fixture
def workplace(tmp_path, monkeypatch, scores):
    """What the stages before leave behind."""
    monkeypatch.chdir(tmp_path)
    metrics = {stage: {} for stage in report.STAGES}
    for stage, key in SCORED:
        Path("artifacts", stage).mkdir(parents=True)
        np.save(f"artifacts/{stage}/scores.npy", scores[stage])
        rows = scores[stage]
        bits = sum(map(float, rows["nats"])) / math.log(2)
        metrics[stage][key] = round(bits / sum(map(int, rows["bytes"])), 6)
    metrics["tokenize"] = {"val_tokens": 2001}
    metrics["eval_sliding"] |= {"val_bpb_float": 1.4, "val_bpb_quant": 1.5, "quant_gap_bpb": 0.1}
    metrics["train"] = {"parameters": 1000, "train_tokens": 50000}
    metrics["compress"] = {
        "artifact_bytes": 700,
        "headroom_bytes": 300,
        "code_bytes": 100,
        "tokenizer_bytes": 50,
        "weights_bytes": 550,
        "bits_per_weight": 4.4,
    }
    bpb = round(8 * len(CODED) / (len(TEXT) - 500), 6)
    metrics["certify"] = {"legal": True, "certified_tokens": 2000, "certified_bpb": bpb}
    for stage in report.STAGES:
        put(f"reports/{stage}/metrics.json", metrics[stage])
        put(f"reports/{stage}/timing.json", {"seconds": 1.5})
    put("reports/quant/matrices.tsv", MATRICES)
    put("artifacts/tokenize/tokenizer.model", BYTE_MODEL.decode())
    put("params.yaml", "train: {seed: 1}\n")
    put(
        "reports/compress/roles.tsv",
        "role\tname\tweights\tbytes\nmatrix\ta\t990\t500\nsmall\tb\t10\t40\ncontainer\theader\t0\t10\n",
    )
    put("reports/train/loss.tsv", "step\tloss\n10\t6.5\n20\t3.25\n")
    for name, content in (("submission.pyz", PYZ), ("coded.fwt", CODED), ("val.txt", TEXT)):
        Path("artifacts/certify").mkdir(exist_ok=True)
        Path("artifacts/certify", name).write_bytes(content)
    put(CERTIFICATE, certificate_of(metrics))
    put("artifacts/certify/certificate.md", "# Certificate\n")
    return metrics


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


def test_the_score_of_record_is_the_size_of_the_coded_text(workplace, capsys):
    report.main()
    summary = json.loads(Path("reports/summary.json").read_text())
    assert summary["val_bpb"] == summary["certified_bpb"] == round(8 * 495 / 7500, 6) and summary["legal"] is True
    assert "report: 0.5280 bpb, 700 bytes, proved: see" in capsys.readouterr().out
    assert Path("reports/report/certificate.json").read_bytes() == Path(CERTIFICATE).read_bytes()
    assert "(an estimate)" not in Path("reports/summary.md").read_text()


def test_a_score_that_is_not_all_coded_is_called_an_estimate_wherever_it_is_shown(workplace, capsys):
    part = in_part()
    report.main()
    summary = json.loads(Path("reports/summary.json").read_text())
    assert summary["val_bpb"] == summary["val_bpb_ngram"] and summary["legal"] is None
    assert summary["certified_bpb"] == part["bpb"] and summary["certified_tokens"] == 300
    assert "bpb (an estimate), 700 bytes, proved for 300 of 2,000 tokens: see" in capsys.readouterr().out
    assert "bits per byte** (an estimate) on" in Path("reports/summary.md").read_text()
    assert "<small>bits per byte (an estimate)</small>" in Path("reports/index.html").read_text()


def test_totals_of_every_table_are_the_headline(workplace):
    report.main()
    summary = json.loads(Path("reports/summary.json").read_text())
    assert summary["val_bpb_ngram"] == workplace["eval_ngram"]["val_bpb_ngram"]
    position = pd.read_csv("reports/report/position.tsv", sep="\t")
    documents = pd.read_csv("reports/report/documents.tsv", sep="\t")
    assert len(position) == 50 and len(documents) == 4
    assert list(position) == ["position", "streaming", "ttt", "ngram"]
    assert list(documents) == ["document", "bytes", "streaming", "ttt", "ngram"]
    for kind, key in zip(("streaming", "ttt", "ngram"), ("val_bpb_sliding", "val_bpb_ttt", "val_bpb_ngram"), strict=True):
        for frame, sizes in ((position, np.diff(position["position"], prepend=0)), (documents, documents["bytes"])):
            assert (frame[kind] * sizes).sum() / sizes.sum() == pytest.approx(summary[key], abs=1e-6)
    parts = pd.read_csv("reports/report/bytes.tsv", sep="\t")
    sizes = np.diff(position["position"], prepend=0)
    savings = pd.read_csv("reports/report/savings.tsv", sep="\t").iloc[-1]
    for kind, key in (("ttt", "val_bpb_ttt"), ("ngram", "val_bpb_ngram")):
        assert savings[kind] / sizes.sum() == pytest.approx(summary["val_bpb_sliding"] - summary[key], abs=2e-6)
    orders = pd.read_csv("reports/report/orders.tsv", sep="\t")
    assert orders["order"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert orders["saved"].sum() / sizes.sum() == pytest.approx(summary["val_bpb_ttt"] - summary["val_bpb_ngram"], abs=2e-6)
    assert parts["bytes"].sum() == summary["artifact_bytes"] == 700
    assert list(parts) == ["part", "bytes"]
    ladder = Path("reports/report/ladder.tsv").read_text().splitlines()
    assert ladder[:3] == ["stage\tbpb", "float\t1.4", "quantized\t1.5"]
    assert ladder[-1] == f"mixture\t{summary['val_bpb_ngram']:.9g}"
    assert "val_bpb_cache" not in summary


def test_the_cache_is_a_step_where_it_was_measured(workplace):
    change("reports/eval_ttt/metrics.json", val_bpb_cache=1.375)
    report.main()
    assert json.loads(Path("reports/summary.json").read_text())["val_bpb_cache"] == 1.375
    assert Path("reports/report/ladder.tsv").read_text().splitlines()[-2] == "cache\t1.375"


def test_page_links_figures_that_are_there_and_no_timing_is_there(workplace):
    report.main()
    page = Path("reports/summary.md").read_text()
    links = [part.split(")")[0] for part in page.split("](")[1:]]
    assert len(links) == 19 and all((Path("reports") / link).is_file() for link in links)
    assert "| proof | the text comes back | 9 bytes | yes | identical | decoded |" in re.sub(" +", " ", page)
    assert not any("second" in key for key in json.loads(Path("reports/summary.json").read_text()))


def test_params_are_held_against_the_last_commits(workplace):
    assert report.changed_params() is None  # no repository
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    assert report.changed_params().empty
    put("params.yaml", "train: {seed: 2}\n")
    assert report.changed_params().to_numpy().tolist() == [["train.seed", "1", "2"]]


def test_the_html_page_links_tables_that_are_there(workplace):
    report.main()
    content = Path("reports/index.html").read_text()
    links = re.findall('href="([^"]+)"', content)
    assert all((Path("reports") / link).is_file() for link in links if link != "data:,") and len(links) > 9
    assert "0.5280 <small>bits per byte</small>" in content


def test_same_input_same_bytes(workplace):
    written = []
    for _ in range(2):
        report.main()
        paths = sorted([*Path("reports/report").iterdir(), *Path("reports").glob("*.*")])
        written.append({str(path): path.read_bytes() for path in paths})
    assert written[0] == written[1]
    assert [Path(name).name for name in written[0]] == [
        "index.html",
        "bytes.svg",
        "bytes.tsv",
        "certificate.json",
        "certificate.md",
        "documents.svg",
        "documents.tsv",
        "ladder.svg",
        "ladder.tsv",
        "layers.svg",
        "layers.tsv",
        "loss.svg",
        "matrices.svg",
        "matrices.tsv",
        "orders.svg",
        "orders.tsv",
        "position.svg",
        "position.tsv",
        "quarters.tsv",
        "savings.svg",
        "savings.tsv",
        "stages.json",
        "summary.json",
        "summary.md",
    ]


def shorten_scores():
    np.save("artifacts/eval_ttt/scores.npy", np.load("artifacts/eval_ttt/scores.npy")[:-1])


def swap_tokens():
    rows = np.load("artifacts/eval_ngram/scores.npy")
    rows["token"][5] += 1
    np.save("artifacts/eval_ngram/scores.npy", rows)


def swap_network():
    rows = np.load("artifacts/eval_ngram/scores.npy")
    rows["neural"][7] += 1
    np.save("artifacts/eval_ngram/scores.npy", rows)


def break_scores():
    Path("artifacts/eval_ttt/scores.npy").write_bytes(b"\x93NUMPY\x01\x00")


def drop_key(path, key):
    content = json.loads(Path(path).read_text())
    del content[key]
    put(path, content)


DAMAGES = {
    "scores short": (shorten_scores, "artifacts/eval_ttt/scores.npy: expected 2,000 rows.*found 1,999"),
    "scores of another text": (swap_tokens, "artifacts/eval_ngram/scores.npy: its tokens are not those of"),
    "scores of another network": (swap_network, "artifacts/eval_ngram/scores.npy: its network.* not those of artifacts/eval_"),
    "scores damaged": (break_scores, "artifacts/eval_ttt/scores.npy: not a score file"),
    "scores missing": (lambda: Path("artifacts/eval_ttt/scores.npy").unlink(), "artifacts/eval_ttt/scores.npy: missing"),
    "metric off": (
        lambda: change("reports/eval_ttt/metrics.json", val_bpb_ttt=1.0),
        "artifacts/eval_ttt/scores.npy: adds up to .* reports/eval_ttt/metrics.json says val_bpb_ttt 1.0",
    ),
    "metric not a number": (
        lambda: change("reports/eval_ttt/metrics.json", val_bpb_ttt=math.nan),
        "says val_bpb_ttt nan",
    ),
    "key missing": (
        lambda: drop_key("reports/certify/metrics.json", "legal"),
        "reports/certify/metrics.json: expected the key legal",
    ),
    "metrics of brackets": (
        lambda: put("reports/train/metrics.json", "[" * 200_000),
        "reports/train/metrics.json: not valid JSON",
    ),
    **{
        f"a clock of {value}": (
            lambda value=value: put("reports/train/timing.json", f'{{"seconds": {value}}}'),
            r"reports/train/timing.json: 'seconds' is .*, expected a number from 0",
        )
        for value in ("-5", "NaN", "1e999", '"soon"', "true", "[]")
    },
    "metrics missing": (lambda: Path("reports/train/metrics.json").unlink(), "reports/train/metrics.json: missing"),
    "metrics truncated": (lambda: put("reports/train/metrics.json", '{"a'), "reports/train/metrics.json: not valid JSON"),
    "page missing": (
        lambda: Path("artifacts/certify/certificate.md").unlink(),
        "artifacts/certify/certificate.md: missing; run",
    ),
    "page empty": (
        lambda: put("artifacts/certify/certificate.md", ""),
        r"artifacts/certify/certificate.md: not the certificate's page \(its heading is missing\)",
    ),
    "loss with a cell that is no number": (
        lambda: put("reports/train/loss.tsv", "step\tloss\n10\t6.x\n"),
        "reports/train/loss.tsv: column loss has a cell that is not a number",
    ),
    "loss with an empty cell": (
        lambda: put("reports/train/loss.tsv", "step\tloss\n10\t\n"),
        "reports/train/loss.tsv: column loss has a cell that is not a number",
    ),
    "tokenizer damaged": (
        lambda: put("artifacts/tokenize/tokenizer.model", "no model"),
        "artifacts/tokenize/tokenizer.model: the tokenizer model .* is not a SentencePiece model",
    ),
    "claim without result": (
        lambda: change(CERTIFICATE, claims=[CLAIM, {"claim": "x"}]),
        "artifacts/certify/certificate.json: claim 2 lacks condition, how, amount, passed, result",
    ),
    "loss empty": (lambda: put("reports/train/loss.tsv", ""), "reports/train/loss.tsv: not a table"),
    "loss without rows": (lambda: put("reports/train/loss.tsv", "step\tloss\n"), "reports/train/loss.tsv: .*found no row"),
    "roles without a column": (
        lambda: put("reports/compress/roles.tsv", "role\tbytes\nmatrix\t550\n"),
        "reports/compress/roles.tsv: .*found no column name, weights",
    ),
    "roles do not add up": (
        lambda: change("reports/compress/metrics.json", weights_bytes=551),
        "reports/compress/roles.tsv: adds up to 550 bytes, but .* weights_bytes 551",
    ),
}


def write(name: str, content: bytes):
    return lambda: Path("artifacts/certify", name).write_bytes(content)


def edit_scores():
    rows = np.load("artifacts/eval_ngram/scores.npy")
    rows["entropy"][5] += 1  # adds up to the same score
    np.save("artifacts/eval_ngram/scores.npy", rows)


def forge(**values):
    return lambda: change(CERTIFICATE, **values)


HASH = ": its SHA-256 is not the one in artifacts/certify/certificate.json"
FAILED = CLAIM | {"passed": False, "result": "no"}
FORGERIES = {
    "another artifact": (write("submission.pyz", b"another"), f"artifacts/certify/submission.pyz{HASH}"),
    "a shorter coded text": (write("coded.fwt", CODED[:-1]), f"artifacts/certify/coded.fwt{HASH}"),
    "a longer text": (write("val.txt", TEXT * 2), f"artifacts/certify/val.txt{HASH}"),
    "no coded text": (lambda: Path("artifacts/certify/coded.fwt").unlink(), "artifacts/certify/coded.fwt: missing"),
    "edited rows": (edit_scores, f"artifacts/eval_ngram/scores.npy{HASH}"),
    "a smaller score": (forge(bpb=0.5), f"{CERTIFICATE}: bpb is 0.5, but .* make it 0.528"),
    "a smaller size": (forge(coded_bytes=7), f"{CERTIFICATE}: coded_bytes is 7, but .* make it 495"),
    "a part for the whole": (forge(certified_bytes=999), f"{CERTIFICATE}: bpb is"),
    "tokens that were not coded": (
        forge(certified_tokens=1999),
        f"{CERTIFICATE}: verdict is 'proved', but .* make it 'proved for",
    ),
    "a claim that fails": (forge(claims=[CLAIM, FAILED]), f"{CERTIFICATE}: verdict is 'proved', but .* make it 'refused'"),
    "legal all the same": (
        forge(claims=[FAILED], verdict="refused", reasons=["the text comes back: no"]),
        f"{CERTIFICATE}: legal is True, but .* make it False",
    ),
    "a reason left out": (forge(claims=[FAILED], verdict="refused", legal=False), f"{CERTIFICATE}: reasons is"),
    "a verdict of its own": (forge(verdict="proved beyond doubt"), f"{CERTIFICATE}: verdict is 'proved beyond doubt'"),
    "a truth value for a number": (forge(bpb=True), f"{CERTIFICATE}: 'bpb' is True, which `certify` never writes"),
    "no number": (forge(bpb=math.nan), f"{CERTIFICATE}: bpb is nan"),
    "no hash of scores": (forge(scores_sha256={}), f"{CERTIFICATE}: scores_sha256 lacks eval_sliding, eval_ttt, eval_ngram"),
    "no hash": (lambda: drop_key(CERTIFICATE, "coded_sha256"), f"{CERTIFICATE} lacks coded_sha256"),
    "an estimate of its own": (
        forge(estimates={"eval_sliding": 1.0, "eval_ttt": 1.0, "eval_ngram": 1.0}),
        "reports/eval_sliding/metrics.json: val_bpb_sliding is",
    ),
    "a smaller artifact": (
        lambda: change("reports/compress/metrics.json", artifact_bytes=7, weights_bytes=550),
        "reports/compress/metrics.json: artifact_bytes is 7, but artifacts/certify/submission.pyz has 700 bytes",
    ),
    "other metrics": (
        lambda: change("reports/certify/metrics.json", certified_bpb=0.5),
        f"reports/certify/metrics.json: certified_bpb is 0.5, but {CERTIFICATE} makes it 0.528",
    ),
    "other metrics of the verdict": (
        lambda: change("reports/certify/metrics.json", legal=None),
        f"reports/certify/metrics.json: legal is None, but {CERTIFICATE} makes it True",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_does_not_follow_from_the_certificate_is_refused(workplace, name):
    forgery, sentence = FORGERIES[name]
    forgery()
    with pytest.raises(InputError, match=sentence) as error:
        report.main()
    assert "dvc repro" in str(error.value) and "\n" not in str(error.value)
    assert not Path("reports/summary.json").exists()


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_input_is_named_and_nothing_is_written(workplace, name):
    damage, sentence = DAMAGES[name]
    damage()
    with pytest.raises(InputError, match=sentence) as error:
        report.main()
    assert "dvc repro" in str(error.value) and "\n" not in str(error.value)
    assert not Path("reports/summary.json").exists() and not Path("reports/report").exists()
