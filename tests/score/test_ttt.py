"""Score-first test-time training against SGD and Adam written out, and through the scorer that calls it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fairway.score import ttt
from fairway.score.config import Ttt
from fairway.score.streaming import score_stream

SETTINGS = Ttt("sgd", chunk_tokens=40, epochs=2, sequences_per_step=2, lr=0.05, momentum=0.9, gradient_clip=0.5)
CHUNKS = np.random.default_rng(0).integers(0, 64, (2, 55), dtype=np.uint16)  # three windows of 16 and a rest, each


def gradients(model, windows: np.ndarray, clip: float) -> list[torch.Tensor]:
    """Of the mean cross-entropy, scaled down to a global norm of `clip`."""
    windows = torch.from_numpy(windows.astype(np.int64))
    log_probabilities = model(windows[:, :-1]).log_softmax(-1)
    loss = -log_probabilities.gather(2, windows[:, 1:, None]).mean()
    found = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in found]).norm().item()
    return [gradient * (min(1.0, clip / norm) if clip else 1.0) for gradient in found]


def plain_steps(chunks, settings: Ttt) -> list[np.ndarray]:
    """The windows of each step: of the training length, in order, `epochs` times, a chunk's rest left out."""
    steps = []
    for chunk in chunks:
        windows = np.stack([chunk[start : start + 17] for start in (0, 16, 32)])
        steps += [
            windows[i : i + settings.sequences_per_step] for i in range(0, 3, settings.sequences_per_step)
        ] * settings.epochs
    return steps


@torch.no_grad()
def sgd(weights, slopes, states, settings: Ttt, step: int) -> None:
    """velocity ← μ·velocity + g; w ← w − lr·velocity."""
    for weight, slope, state in zip(weights, slopes, states, strict=True):
        state["velocity"] = settings.momentum * state.get("velocity", 0) + slope
        weight -= settings.lr * state["velocity"]


@torch.no_grad()
def adam(weights, slopes, states, settings: Ttt, step: int) -> None:
    """Kingma & Ba 2015, β₁ the momentum, β₂ 0.99."""
    for weight, slope, state in zip(weights, slopes, states, strict=True):
        state["mean"] = settings.momentum * state.get("mean", 0) + (1 - settings.momentum) * slope
        state["square"] = 0.99 * state.get("square", 0) + 0.01 * slope**2
        mean, square = state["mean"] / (1 - settings.momentum**step), state["square"] / (1 - 0.99**step)
        weight -= settings.lr * mean / (square.sqrt() + 1e-8)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 1},
        {"sequences_per_step": 3},
        {"momentum": 0.0},
        {"gradient_clip": 0.0, "lr": 0.01},
        {"optimizer": "adamw", "lr": 0.001},
        {"optimizer": "adamw", "lr": 0.001, "momentum": 0.5},
    ],
    ids=str,
)
def test_learning_equals_the_optimizer_written_out_and_goes_on_from_chunk_to_chunk(tiny, shaken, changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    model = shaken(tiny)
    peer, before = copy.deepcopy(model), copy.deepcopy(model)
    training = ttt.TestTimeTraining(model, settings)
    with torch.no_grad():  # as scorers call it
        for chunk in CHUNKS:
            training.learn(chunk)
    weights, update = list(peer.parameters()), {"sgd": sgd, "adamw": adam}[settings.optimizer]
    states = [{} for _ in weights]
    for step, windows in enumerate(plain_steps(CHUNKS, settings), 1):
        update(weights, gradients(peer, windows, settings.gradient_clip), states, settings, step)
    for (name, ours), theirs, start in zip(model.named_parameters(), weights, before.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)
        assert not torch.equal(ours, start), name
    assert (model.stream.embedding.weight - before.stream.embedding.weight).abs().max() > 5e-3


def test_a_chunk_shorter_than_the_training_length_is_one_window(tiny, shaken):
    model = shaken(tiny)
    before = copy.deepcopy(model)
    ttt.TestTimeTraining(model, SETTINGS).learn(CHUNKS[0][:6])
    assert not torch.equal(model.stream.embedding.weight, before.stream.embedding.weight)


def test_what_was_learned_helps_when_the_text_repeats(tiny, shaken):
    tokens = np.tile(CHUNKS[0][:40], 6)
    frozen = score_stream(shaken(tiny), tokens, 16, 16).nats
    model = shaken(tiny)
    training = ttt.TestTimeTraining(model, dataclasses.replace(SETTINGS, epochs=8))
    learned = score_stream(model, tokens, 16, 16, chunk=40, learn=training.learn).nats
    np.testing.assert_allclose(learned[:40], frozen[:40], atol=1e-6)
    assert learned[-80:].mean() < frozen[-80:].mean() - 0.5


@pytest.mark.parametrize("flipped", [20, 40, 41, 70, 85])
def test_flipping_a_token_changes_no_score_before_it(tiny, shaken, flipped):
    """Through the real scorer, with updates after targets 40 and 80 of 90."""
    tokens = np.random.default_rng(2).integers(2, 64, 91, dtype=np.uint16)
    other = tokens.copy()
    other[flipped] = 64 - tokens[flipped] if tokens[flipped] != 32 else 33
    nats = []
    for text in (tokens, other):
        model = shaken(tiny)
        nats.append(score_stream(model, text, 16, 8, chunk=40, learn=ttt.TestTimeTraining(model, SETTINGS).learn).nats)
    difference = np.abs(nats[0] - nats[1])
    assert difference[: flipped - 1].max() < 1e-6
    assert difference[flipped - 1 : flipped + 2].max() > 1e-2
    assert difference[-1] > 1e-6
