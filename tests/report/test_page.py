import re

import pandas as pd

from fairway.report import content, figures
from fairway.report.page import page

SUMMARY = {
    "val_bpb": 1.0,
    "artifact_bytes": 1000,
    "headroom_bytes": 3000,
    "parameters": 2000,
    "bits_per_weight": 4.0,
    "legal": True,
    "certified_tokens": 50,
    "certified_bpb": 1.25,
}
LADDER = pd.DataFrame(
    {
        "stage": ["float", "quantized", "streaming", "TTT", "cache", "mixture"],
        "bpb": [1.5, 1.625, 1.25, 1.125, 1.125, 1.0],
        "gain": [float("nan"), -0.125, 0.375, 0.125, 0.0, 0.125],
    }
)
PARTS = pd.DataFrame({"part": ["code", "weights: matrices"], "bytes": [200, 800], "weights": [0, 1600]})
DOCUMENTS = pd.DataFrame({"document": [1, 2], "bytes": [1234, 766], "streaming": 1.25, "ttt": 1.0, "ngram": 0.75})
LAYERS = pd.DataFrame({"layer": ["block 0"], "weights": [1600], "bytes": [800], "attention": [800]})
LOSS = pd.DataFrame({"step": [1, 2], "loss": [6.0, 3.0]})
MATRICES = pd.DataFrame(
    [("a", "attention", 8, 4, 0.25, 0.001, 3.5)],
    columns=["name", "role", "rows", "columns", "relative_error", "estimated_loss", "entropy"],
)
POSITION = pd.DataFrame({"position": [990, 2000], "streaming": 1.25, "ttt": [1.0, 1.3125], "ngram": 0.75})
SAVINGS = pd.DataFrame({"position": [0, 990, 2000], "ttt": [0, 200, 150], "ngram": [0, 500, 1000]})
QUARTERS = pd.DataFrame({"position": [990, 2000], "streaming": 1.25, "ttt_saves": [0.25, -0.0625], "ngram_saves": 0.5})
ORDERS = pd.DataFrame(
    {
        "order": [0, 2],
        "tokens": [5, 1995],
        "bytes": [0, 2000],
        "share": [0.0025, 0.9975],
        "neural": [float("nan"), 1.5],
        "mixed": [float("nan"), 1.0],
        "saved": [-10.2, 1000.4],
    }
)
FRAMES = {"ladder": LADDER, "quarters": QUARTERS, "documents": DOCUMENTS, "orders": ORDERS, "bytes": PARTS, "layers": LAYERS}
FRAMES |= {"loss": LOSS, "matrices": MATRICES, "position": POSITION, "savings": SAVINGS}
CLAIM = {
    "condition": "normalised",
    "claim": "a distribution",
    "how": "sum",
    "amount": "50 tokens",
    "passed": True,
    "result": "|sum − 1| ≤ 1e-7",
}


def made(summary: dict, claims: list[dict], verdict: str = "proved") -> str:
    """The page without the padding of its tables."""
    legal = summary["legal"]
    certificate = {"verdict": verdict, "claims": claims, "certified_tokens": 50, "val_tokens": 99, "bpb": 1.25}
    certificate |= {
        "coded_bytes": 7000,
        "conditions": {"normalised": True, "causal": legal},
        "reasons": [f"{claim['claim']}: {claim['result']}" for claim in claims if not claim["passed"]],
    }
    found = page(summary, DOCUMENTS, content.sections(summary, FRAMES, figures.drawn(FRAMES), certificate))
    return re.sub(" +", " ", found)


def test_page_reads_from_the_score_to_its_cost():
    found = made(SUMMARY, [CLAIM])
    headline = found.splitlines()[2]
    assert headline.startswith(
        "**1.0000 bits per byte** on 2,000 bytes of validation text (2 documents), with a submission of **1,000"
    )
    assert "25.0% of the budget of 4,000" in headline
    (verdict,) = [line for line in found.splitlines() if line.startswith("**Proved**")]
    assert "All 1 claims" in verdict and "50 of 99 tokens" in verdict and "in 7,000 bytes, 1.2500 bits per byte" in verdict
    assert "(an estimate)" not in found
    assert "| normalised | yes |" in found
    assert "| quantized | decoded artifact, same windows | 1.6250 | \N{MINUS SIGN}0.1250 |" in found
    assert (
        "| **mixture** | **mixed with what the text so far predicts, by `ngram.mixture`** | **1.0000** | **+0.1250** |" in found
    )
    assert "| code | 200 | 20.0% | | |\n| weights: matrices | 800 | 80.0% | 1,600 | 4.000 |" in found
    assert "| **submission.pyz** | **1,000** | **100.0%** | **1,600** | **4.000** |" in found
    assert "| 990 | 1.2500 | +0.2500 | +0.5000 |\n| 2,000 | 1.2500 | \N{MINUS SIGN}0.0625 | +0.5000 |" in found
    assert "| 0 | 5 | 0.2% | | | \N{MINUS SIGN}10 |\n| 2 | 1,995 | 99.8% | 1.5000 | 1.0000 | 1,000 |" in found
    for name in ("ladder", "position", "savings", "documents", "orders", "bytes", "layers", "loss", "matrices"):
        assert f"](report/{name}.svg)" in found
    assert found.endswith("</details>\n") and "<details open>" not in found


def test_page_calls_a_score_that_is_proved_in_part_an_estimate():
    found = made(SUMMARY | {"legal": None}, [CLAIM], "proved for 50 of 99 tokens")
    assert found.startswith("# Report\n\n**1.0000 bits per byte** (an estimate) on 2,000 bytes")
    assert "**Proved in part**: 50 of 99 tokens" in found and "The score of the whole text is an estimate" in found


def test_page_says_why_a_score_is_refused():
    failed = CLAIM | {"claim": "score before update", "passed": False, "result": "prequant_ttt learned from 7 tokens first"}
    found = made(SUMMARY | {"legal": False}, [CLAIM, failed], "refused")
    assert "**Proved" not in found and "**1.0000 bits per byte** (an estimate) on" in found
    assert "does not back it:\n\n- score before update: prequant_ttt learned from 7 tokens first\n" in found
    assert "- a distribution" not in found and "<details open>" in found and "| causal | **no** |" in found
    assert "| score before update | 50 tokens | **no** |" in found
