"""Training runs of the tiny network: every param that matters here at a plain value."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fairway.lm import parameters
from fairway.lm.config import Architecture
from fairway.lm.model import GPT
from fairway.train.config import Qat, Train
from fairway.train.loader import WindowLoader
from fairway.train.ranks import Ranks
from fairway.train.step import TrainState, train_step

TRAIN = Train(
    seed=1,
    steps=10,
    wall_clock_seconds=1e9,
    tokens_per_step=64,
    tokens_per_pass=64,
    sequence_length=16,
    head_lr=0.015,
    scalar_lr=0.01,
    momentum_warmup_steps=4,
    weight_decay=0.04,
    adam_weight_decay=0.02,
    gradient_clip=1.0,
    grokfast_decay=0.9,
    warmdown_fraction=0.5,
    average="ema",
    ema_decay=0.9,
    swa_start=0.5,
    swa_every=2,
)
QAT = Qat(bits=4, clip=4.0, embedding_bits=5, embedding_clip=4.0, penalty_start=0.5, prune_every=4)
STILL = dict.fromkeys(("muon_lr", "embedding_lr", "head_lr", "scalar_lr"), 1e-30)  # rates that move no float32
TEXT = np.frombuffer(b"the cat sat on the mat; " * 100, dtype=np.uint8).astype(np.uint16) % 64


@pytest.fixture(scope="session")
def loader() -> WindowLoader:
    """Four windows (4, 17) a step."""
    return WindowLoader(TEXT, TRAIN.sequence_length, TRAIN.sequences_per_step, TRAIN.seed)


@pytest.fixture(scope="session")
def train_params():
    """Changes → the section `train`."""
    return lambda **changes: dataclasses.replace(TRAIN, **changes)


@pytest.fixture(scope="session")
def qat_params():
    """Changes → the section `qat`."""
    return lambda **changes: dataclasses.replace(QAT, **changes)


@pytest.fixture(scope="session")
def still() -> dict[str, float]:
    """Learning rates at which a step leaves the weights as they were, to the bit."""
    return STILL


@pytest.fixture
def all_on_grids(monkeypatch):
    """Puts every matrix and table of the tiny network on a grid, though quant leaves ones this small alone."""
    monkeypatch.setattr(parameters, "FP16_ELEMENTS", 100)


@pytest.fixture
def begin(tiny, shaken):
    """Changes of `train` → a run at step 0, of the tiny network or another, where training starts or `moved` from there."""

    def build(model: Architecture = tiny, qat: dict | None = None, moved: bool = False, **changes) -> TrainState:
        train = dataclasses.replace(TRAIN, **changes)
        network = GPT(model)
        network.initialise(train.seed)
        network = shaken(model).train() if moved else network
        return TrainState.start(network, train, dataclasses.replace(QAT, **(qat or {})), torch.float32)

    return build


@pytest.fixture
def advance(loader):
    """run, number of steps → the loss of each; `watch` sees every pass: the run and the phase."""

    def take(run: TrainState, count: int, ranks: Ranks | None = None, watch=lambda run, phase: None) -> list[float]:
        def loss_of(phase):
            loss = run.objective.loss(phase, torch.float32, run.teacher)

            def watched(windows):
                watch(run, phase)
                return loss(windows)

            return watched

        ranks = ranks or Ranks()
        batches = (loader.batch(step, ranks.rank, ranks.size) for step in range(run.step, run.step + count))
        return [train_step(run, windows, loss_of, ranks) for windows in batches]

    return take


@pytest.fixture(scope="session")
def gradients_of():
    """objective, windows → gradients of its loss by name, those of parameters without one left out; the objective is kept."""

    def plain(objective, windows) -> dict[str, torch.Tensor]:
        peer = copy.deepcopy(objective)
        peer.zero_grad(set_to_none=True)
        peer(windows)[0].backward()
        return {name: parameter.grad for name, parameter in peer.named_parameters() if parameter.grad is not None}

    return plain
