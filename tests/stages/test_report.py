"""report: one page, one summary and tables from what the other stages wrote."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import report
from tests.stages.finished_stages import CERTIFICATE, change, in_part, put


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
