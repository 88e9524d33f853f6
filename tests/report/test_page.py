import pandas as pd

from fairway.report.page import page, table

SUMMARY = {
    "val_bpb": 1.0,
    "artifact_bytes": 1000,
    "headroom_bytes": 3000,
    "parameters": 2000,
    "legal": True,
    "certified_tokens": 50,
    "certified_bpb": 1.25,
}
LADDER = pd.DataFrame(
    {
        "stage": ["float", "quantised", "streaming", "TTT", "cache", "mixture"],
        "bpb": [1.5, 1.625, 1.25, 1.125, 1.125, 1.0],
        "gain": [float("nan"), -0.125, 0.375, 0.125, 0.0, 0.125],
    }
)
PARTS = pd.DataFrame({"part": ["code", "weights: matrices"], "bytes": [200, 800], "weights": [0, 1600]})
DOCUMENTS = pd.DataFrame({"document": [1, 2], "bytes": [1234, 766]})
QUARTERS = pd.DataFrame({"position": [990, 2000], "streaming": 1.25, "ttt_saves": [0.25, -0.0625], "ngram_saves": 0.5})
ORDERS = pd.DataFrame(
    {
        "order": [0, 2],
        "tokens": [5, 1995],
        "share": [0.0025, 0.9975],
        "neural": [float("nan"), 1.5],
        "mixed": [float("nan"), 1.0],
        "saved": [-10.2, 1000.4],
    }
)
FRAMES = {"ladder": LADDER, "quarters": QUARTERS, "documents": DOCUMENTS, "orders": ORDERS, "bytes": PARTS}
CLAIM = {"claim": "a distribution", "how": "sum", "amount": "50 tokens", "passed": True, "result": "|sum − 1| ≤ 1e-7"}


def test_page_reads_from_the_score_to_its_cost():
    found = page(SUMMARY, FRAMES, [CLAIM])
    headline = found.splitlines()[2]
    assert headline.startswith(
        "**1.0000 bits per byte** on 2,000 bytes of validation text (2 documents), with a submission of 1,000"
    )
    assert "25.0% of the budget of 4,000" in headline
    assert "**Legal**: all 1 claims" in headline and "50 tokens" in headline and "1.2500" in headline
    assert "| quantised | decoded artifact, same windows | 1.6250 | \N{MINUS SIGN}0.1250 |" in found
    assert "| **mixture** | mixed with what the text so far says, by `ngram.mixture` | **1.0000** | +0.1250 |" in found
    assert "| code | 200 | 20.0% |  |  |\n| weights: matrices | 800 | 80.0% | 1,600 | 4.000 |" in found
    assert "| **submission.pyz** | 1,000 | 100.0% | 1,600 | 4.000 |" in found
    assert "| 990 | 1.2500 | +0.2500 | +0.5000 |\n| 2,000 | 1.2500 | \N{MINUS SIGN}0.0625 | +0.5000 |" in found
    assert "| 0 | 5 | 0.2% |  |  | \N{MINUS SIGN}10 |\n| 2 | 1,995 | 99.8% | 1.5000 | 1.0000 | 1,000 |" in found
    for name in ("ladder", "position", "savings", "documents", "orders", "bytes", "loss"):
        assert f"](report/{name}.png)" in found
    assert found.endswith(")\n")


def test_page_says_why_a_score_is_not_legal():
    failed = CLAIM | {"claim": "score before update", "passed": False, "result": "prequant_ttt learned from 7 tokens first"}
    found = page(SUMMARY | {"legal": False}, FRAMES, [CLAIM, failed])
    headline = found.splitlines()[2]
    assert "**Legal**" not in headline
    assert "**Not legal**" in headline and "“score before update” (prequant_ttt learned from 7 tokens first)." in headline
    assert "a distribution" not in headline
    assert "| score before update | sum | 50 tokens | **no** |" in found


def test_cells_cannot_break_a_table():
    found = table(["a", "b"], [["|x|", "two\nlines"]], numbers=(1,))
    assert found == "| a | b |\n| --- | ---: |\n| \\|x\\| | two lines |"
