"""The race between our training and the plain one, tiny and uncompiled: turns, clocks, scores, the figures it ends with."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import training
from bench.training import Ours, Peer, Setting, race, report, time_to
from fairway.params import parse, read_yaml
from fairway.train.config import Qat, Train

PARAMS = read_yaml(Path(__file__).parents[2] / "params.yaml")
SMALL = {
    "steps": 12,
    "tokens_per_step": 64,
    "tokens_per_pass": 32,
    "sequence_length": 16,
    "precision": "fp32",
    "compile": False,
}
TEXT = np.frombuffer(b"the cat sat on the mat; " * 100, dtype=np.uint8).astype(np.uint16) % 64


@pytest.fixture
def setting(tiny, monkeypatch) -> Setting:
    monkeypatch.setattr(training, "CHUNK", 3)
    monkeypatch.setattr(training, "MEASUREMENTS", 2)
    monkeypatch.setattr(training, "BREAKDOWN_STEPS", 2)
    train, qat = parse(PARAMS["train"] | SMALL, "train", Train), parse(PARAMS["qat"], "qat", Qat)
    windows = torch.from_numpy(np.stack([TEXT[16 * i : 16 * i + 17] for i in range(40)]).astype(np.int64))
    return Setting(tiny, train, qat, torch.float32, torch.device("cpu"), TEXT, windows, text_bytes=2 * 40 * 16)


def test_the_race_ends_with_its_figures(setting, capsys):
    ours, peer, short = Ours(setting, 12), Peer(setting, 12, 1e-2, 64), Ours(setting, 7)
    race(ours, peer, short)
    report(ours, peer, short)
    assert [(runner.done, len(runner.step_seconds), len(runner.curve)) for runner in (peer, short)] == [(12, 4, 2), (7, 3, 1)]
    assert ours.done == 12 + 2  # those of the breakdown
    for runner in (ours, peer, short):
        assert runner.curve[-1] == (runner.seconds, pytest.approx(runner.curve[-1][1])) and runner.seconds > 0
        assert runner.curve[-1][1] < math.log2(64) / 2  # better than a uniform guess, at two bytes a token
    printed = capsys.readouterr().out
    figures = re.findall(r"^figure (\w+) = ([\d.]+|inf)$", printed, re.MULTILINE)
    assert [name for name, _ in figures] == ["tokens_per_second_ratio", "time_to_peer_bpb_ratio", "loader_and_optimizer_share"]
    assert printed.splitlines()[-3:] == [f"figure {name} = {value}" for name, value in figures]
    assert 0 < float(figures[2][1]) < 1
    assert "| 6 | " in printed and "| 12 | " in printed and "| Muon | " in printed and "| loader | " in printed


def test_a_score_is_the_surprise_of_every_target_over_the_bytes(setting):
    peer = Peer(setting, 12, 1e-2, 64)
    log_probabilities = peer.model(setting.windows[:, :-1]).double().log_softmax(-1)
    surprise = -log_probabilities.gather(2, setting.windows[:, 1:, None]).sum().item()
    assert peer.measure() == pytest.approx(surprise / math.log(2) / (2 * 40 * 16), rel=1e-6)


def test_the_better_of_the_last_and_the_averaged_weights_counts(setting):
    peer = Peer(setting, 12, 1e-2, 64)
    for parameter in peer.model.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    averaged = training.holdout_bpb(peer.model, peer.average.shadow, setting)
    last = training.holdout_bpb(peer.model, dict(peer.model.named_parameters()), setting)
    assert averaged < last and peer.measure() == averaged


def test_both_train_on_the_same_windows(setting):
    ours, peer = Ours(setting, 12), Peer(setting, 12, 1e-2, 64)
    assert all(torch.equal(ours.loader.batch(step), peer.loader.batch(step)) for step in range(3))


def test_the_time_to_a_score_lies_between_the_measurements_around_it():
    curve = [(10.0, 3.0), (20.0, 2.0), (30.0, 2.5), (40.0, 1.0)]
    assert [time_to(target, curve) for target in (3.5, 3.0, 2.25, 2.0)] == [10.0, 10.0, 17.5, 20.0]
    assert time_to(1.75, curve) == 35.0
    assert time_to(0.5, curve) == math.inf
