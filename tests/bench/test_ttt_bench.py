"""The bench of test-time training, tiny: where it learns and starts afresh, what it scores, how it finds a rate."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from bench import ttt
from bench.ttt import PLAIN, Bench, blocks, row, scores

TOKENS = np.random.default_rng(0).integers(2, 64, 61)
TOKENS[[0, 17, 50]] = 1


@pytest.fixture
def calls(monkeypatch) -> list:
    """What was learned, first and last token, and where it started afresh."""
    made = []

    class Recorder:
        def __init__(self, model, settings, targets):
            self.learn = lambda scored, nats: made.append((len(scored) - 1, int(scored[0]), len(nats)))
            self.restart = lambda: made.append("restart")

    monkeypatch.setattr(ttt, "TestTimeTraining", Recorder)
    return made


def test_blocks_end_where_chunks_and_documents_do():
    assert blocks(1000, 300, []) == [(0, 256), (256, 300), (300, 556), (556, 600), (600, 856), (856, 900), (900, 1000)]
    assert blocks(60, 20, [0, 17, 50]) == [(0, 17), (17, 37), (37, 50), (50, 60)]


def test_chunks_are_learned_but_the_last_and_counted_from_each_document(tiny, shaken, calls):
    settings = dataclasses.replace(PLAIN, chunk_tokens=10)
    scores(shaken(tiny), TOKENS, settings)
    assert calls == [(10, TOKENS[start], 10) for start in range(0, 50, 10)]
    calls.clear()
    scores(shaken(tiny), TOKENS, dataclasses.replace(settings, reset="document"))
    expected = [(10, TOKENS[0], 10), "restart", *((10, TOKENS[start], 10) for start in (17, 27, 37)), "restart"]
    assert calls == expected


def test_scores_without_learning_are_the_networks(tiny, shaken):
    tokens, model = TOKENS[:17], shaken(tiny)
    ours = scores(model, tokens, None)
    logits = model(torch.from_numpy(tokens[None, :-1]))[0]
    theirs = torch.nn.functional.cross_entropy(logits, torch.from_numpy(tokens[1:]), reduction="none")
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-4)


@pytest.fixture
def bench(tmp_path) -> Bench:
    """Without networks: 4,000 tokens of two bytes, a frozen run, and one that saves 1,000 bits in its last part."""
    made = Bench.__new__(Bench)
    made.path, made.bytes = tmp_path / "runs.jsonl", np.full(64, 2)
    made.tokens = {split: np.full(4001, 5) for split in ("holdout", "val")}
    made.runs = {}
    for split in made.tokens:
        made.runs[split, "frozen"] = {"split": split, "tokens": 4000, "nats": [3000.0] * 4}
    made.runs["val", ttt.REFERENCE] = {"split": "val", "tokens": 4000, "nats": [3000.0] * 3 + [3000 - 1000 * math.log(2)]}
    return made


def test_a_gain_is_bits_per_byte_of_a_part(bench):
    run = bench.runs["val", ttt.REFERENCE]
    assert bench.gain(run) == pytest.approx(1000 / 8000)
    assert (bench.gain(run, 0, 0.25), bench.gain(run, 0.75, 1)) == pytest.approx((0, 0.5))
    cells = row(bench, "SGD", "3", run | {"lr": 0.001, "seconds": 8.0}).split(" | ")
    assert cells[2:] == ["0.001", "4,000", "0.1250", "0.1250", "0.0000", "0.5000", "200 |"]


@pytest.mark.parametrize("best", [1e-4, 3e-3])
def test_a_rate_is_looked_for_until_both_neighbours_are_worse(bench, monkeypatch, best):
    tried = []

    def run(split: str, name: str, settings, count: int) -> dict:
        if settings is None:
            return bench.runs[split, name]
        tried.append(settings.lr)
        return {"split": split, "tokens": 1000, "nats": [2000 + abs(math.log(settings.lr / best))]}

    monkeypatch.setattr(bench, "run", run)
    assert bench.tuned("AdamW", 1).lr == best
    assert max(tried) > best > min(tried)
    assert bench.tuned("AdamW", 10).lr == ttt.RATES[ttt.RATES.index(best) - 1]


def test_a_finished_run_is_not_made_again(bench, monkeypatch):
    monkeypatch.setattr(bench, "network", lambda split: None)
    monkeypatch.setattr(ttt, "scores", lambda model, tokens, settings: np.full(len(tokens) - 1, 0.5, np.float32))
    run = bench.run("val", "new", PLAIN, 1500)
    assert run["nats"] == [500, 250] and json.loads(bench.path.read_text()) == run
    monkeypatch.setattr(ttt, "scores", None)
    assert bench.run("val", "new", PLAIN, 1500) is run
