"""The race between streaming and windows on a tiny network: the peer is right, and what is printed."""

import re

import numpy as np
import pytest

from bench import scoring
from bench.scoring import Text, compare, knobs, naive_windows, race
from fairway.score.config import Eval
from fairway.score.windows import score_windows

CONFIG = Eval(context=16, stride=4, block=64)
TEXT = Text(np.random.default_rng(0).integers(0, 64, 16 + 4 * 11 + 1, dtype=np.uint16), bytes=100)


def test_the_naive_peer_finds_the_scores_of_windows(tiny, shaken, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 5)
    model = shaken(tiny)
    ours = score_windows(model, TEXT.tokens, 16, 4, 5)["nats"]
    np.testing.assert_allclose(naive_windows(model, TEXT.tokens, 16, 4), ours, atol=1e-5)


def test_each_takes_its_turn_and_the_best_of_each_stretch_counts(monkeypatch):
    """Two stretches a round: 5 and 1 seconds, then 2 and 4; what follows the last advance takes 0."""
    clock, turns = iter([0, 5, 6, 6, 10, 17, 20, 20, 30, 32, 36, 36, 40, 48, 49, 49]), []
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: next(clock))

    def scorer(name):
        def score(advance):
            turns.append(name)
            advance(1)
            advance(1)
            return np.array([len(turns)])

        return score

    best = race({"one": scorer("one"), "other": scorer("other")}, rounds=2)
    assert turns == ["one", "other", "one", "other"]
    assert {name: seconds for name, (seconds, _) in best.items()} == {"one": 2 + 1, "other": 7 + 1}


def test_what_is_printed(tiny, shaken, capsys):
    figures = compare(shaken(tiny), TEXT, CONFIG, rounds=1)
    names = [re.fullmatch(r"figure (\w+) = [+-]?[\d.]+", line)[1] for line in figures]
    assert names == [
        "streaming_tokens_per_second",
        "streaming_to_windows",
        "streaming_to_naive_windows",
        "streaming_bpb_minus_windows",
    ]
    knobs(shaken(tiny), TEXT, CONFIG, rounds=1)
    printed = capsys.readouterr().out
    differences = [float(found) for found in re.findall(r"^\| block .* \| ([\d.e+-]+) \|$", printed, re.MULTILINE)]
    assert len(differences) == len(scoring.BLOCKS) and max(differences) < 1e-4
    assert "| naive windows |" in printed and "| segments of 512, 4 at once |" in printed
    assert float(figures[3].split(" = ")[1]) == pytest.approx(0, abs=1)
